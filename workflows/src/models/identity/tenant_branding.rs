//! How tenants look: what pages and letters of theirs show.

use crate::models::{DEFAULT_TENANT, Db};
use serde::Serialize;
use uuid::Uuid;

/// What the platform calls itself until somebody chooses another name.
const PLATFORM: &str = "FlatRender";

/// How a tenant looks, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branding {
    /// The tenant.
    pub tenant_id: Uuid,
    /// What addresses call it.
    pub slug: String,
    /// Its language, by BCP 47.
    pub locale: String,
    /// What was chosen.
    pub look: Look,
    /// How often; 0 until somebody has chosen something.
    pub rev: i32,
}

/// What a tenant chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Look {
    /// What it calls its product; the tenant's name until it says.
    pub product_name: String,
    /// A picture of the tenant's files.
    pub logo_file_id: Option<Uuid>,
    /// A small one.
    pub favicon_file_id: Option<Uuid>,
    /// `#rrggbb`, in small letters.
    pub primary_color: Option<String>,
    /// The same.
    pub accent_color: Option<String>,
    /// Whom people write to.
    pub support_email: Option<String>,
    /// Where people find help; begins with `https://`.
    pub support_url: Option<String>,
    /// Stands below letters and pages; at most 4000 characters.
    pub legal_footer: Option<String>,
}

/// How a tenant looks that is not closed.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Option<Branding>> {
    let row = sqlx::query!(
        r#"select t.id, t.slug, t.locale, coalesce(b.product_name, case t.id when $2 then $3 else left(t.name, 100) end) as "product_name!",
                  b.logo_file_id as "logo_file_id?", b.favicon_file_id as "favicon_file_id?", b.primary_color as "primary_color?",
                  b.accent_color as "accent_color?", b.support_email as "support_email?", b.support_url as "support_url?",
                  b.legal_footer as "legal_footer?", coalesce(b.rev + 1, 0) as "rev!"
           from identity.tenants t left join identity.tenant_branding b on b.tenant_id = t.id
           where t.id = $1 and t.status <> 'closed'"#,
        tenant_id,
        DEFAULT_TENANT,
        PLATFORM,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| Branding {
        tenant_id: r.id,
        slug: r.slug,
        locale: r.locale,
        look: Look {
            product_name: r.product_name,
            logo_file_id: r.logo_file_id,
            favicon_file_id: r.favicon_file_id,
            primary_color: r.primary_color,
            accent_color: r.accent_color,
            support_email: r.support_email,
            support_url: r.support_url,
            legal_footer: r.legal_footer,
        },
        rev: r.rev,
    }))
}

/// A tenant looks like this from now on.
///
/// # Errors
/// Those of the database.
pub async fn set(db: Db<'_>, tenant_id: Uuid, look: &Look) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.tenant_branding as b
             (tenant_id, product_name, logo_file_id, favicon_file_id, primary_color, accent_color, support_email, support_url,
              legal_footer, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, workflow.now(), workflow.now())
         on conflict (tenant_id) do update set product_name = excluded.product_name, logo_file_id = excluded.logo_file_id,
             favicon_file_id = excluded.favicon_file_id, primary_color = excluded.primary_color,
             accent_color = excluded.accent_color, support_email = excluded.support_email, support_url = excluded.support_url,
             legal_footer = excluded.legal_footer, updated_at = excluded.updated_at, rev = b.rev + 1",
        tenant_id,
        look.product_name,
        look.logo_file_id,
        look.favicon_file_id,
        look.primary_color,
        look.accent_color,
        look.support_email,
        look.support_url,
        look.legal_footer,
    )
    .execute(db)
    .await
    .map(drop)
}
