//! How a tenant says it: versions of its own words, by channel and language, over those of the catalogue.

use super::{
    catalogue::{self, Kind, LANGUAGES},
    words::{self, Unfit},
};
use crate::{
    contracts::notify::{Channel, Said},
    models::Db,
};
use chrono::{DateTime, Utc};
use flatrender_engine::Failure;
use serde_json::Value;
use uuid::Uuid;

/// Words of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: Uuid,
    /// Of which kind.
    pub code: String,
    /// By which way.
    pub channel: String,
    /// In which language.
    pub language: String,
    /// From 1.
    pub version: i32,
    /// In one line.
    pub subject: Option<String>,
    /// In paragraphs.
    pub body: String,
    /// `draft`, `active` or `retired`.
    pub state: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// The versions of a tenant that are in use; all of them when `all`.
///
/// # Errors
/// Those of the database; so with all that follow.
pub async fn list(db: Db<'_>, tenant_id: Uuid, code: Option<&str>, all: bool) -> sqlx::Result<Vec<Version>> {
    sqlx::query_as!(
        Version,
        "select v.id, t.code, v.channel, v.language, v.version, v.subject, v.body, v.state, v.created_at
         from notification.template_versions v join notification.notification_templates t on t.id = v.template_id
         where v.tenant_id = $1 and ($2::text is null or t.code = $2) and ($3 or v.state = 'active')
         order by t.code, v.channel, v.language, v.version desc limit 1000",
        tenant_id,
        code,
        all
    )
    .fetch_all(db)
    .await
}

/// Words that a tenant uses from now on; gives their version. What it used before is retired and stays.
pub async fn put(
    db: Db<'_>,
    tenant_id: Uuid,
    kind: &Kind,
    channel: Channel,
    language: &str,
    subject: Option<&str>,
    body: &str,
) -> sqlx::Result<i32> {
    let class = match kind.class {
        super::routing::Class::Critical => "critical",
        super::routing::Class::Service => "service",
        super::routing::Class::Marketing => "marketing",
    };
    // Held until the end, so that of two at once one comes after the other.
    let template_id = sqlx::query_scalar!(
        "insert into notification.notification_templates (tenant_id, code, category, class, created_at)
         values ($1, $2, $3, $4, workflow.now())
         on conflict (tenant_id, code) do update set category = excluded.category, class = excluded.class returning id",
        tenant_id,
        kind.code,
        kind.category,
        class,
    )
    .fetch_one(&mut *db)
    .await?;
    retire(&mut *db, tenant_id, kind.code, channel, language).await?;
    sqlx::query_scalar!(
        r#"insert into notification.template_versions (id, tenant_id, template_id, channel, language, version, subject, body, state, created_at)
           select $1, $2, $3, $4, $5, coalesce(max(version), 0) + 1, $6, $7, 'active', workflow.now()
           from notification.template_versions where template_id = $3 and channel = $4 and language = $5
           returning version"#,
        Uuid::now_v7(),
        tenant_id,
        template_id,
        channel.as_str(),
        language,
        subject,
        body
    )
    .fetch_one(db)
    .await
}

/// A tenant uses its words no longer; false when it had none.
pub async fn retire(db: Db<'_>, tenant_id: Uuid, code: &str, channel: Channel, language: &str) -> sqlx::Result<bool> {
    let retired = sqlx::query!(
        "update notification.template_versions v set state = 'retired' from notification.notification_templates t
         where t.id = v.template_id and v.tenant_id = $1 and t.code = $2 and v.channel = $3 and v.language = $4 and v.state = 'active'",
        tenant_id,
        code,
        channel.as_str(),
        language
    );
    Ok(retired.execute(db).await?.rows_affected() > 0)
}

/// What to say, unfilled: in the language it is in, subject and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// By BCP 47.
    pub language: String,
    /// In one line.
    pub subject: String,
    /// In paragraphs.
    pub body: String,
}

/// How a kind is said to somebody who reads `language`: in it, or else in the language of the tenant, or else in English; in each by the
/// words of the tenant, or else by ours.
pub async fn text(
    db: Db<'_>,
    tenant_id: Uuid,
    kind: &Kind,
    channel: Channel,
    language: &str,
    of_tenant: &str,
) -> sqlx::Result<Text> {
    let mut wanted: Vec<String> = vec![];
    for tag in [language, catalogue::spoken(language), of_tenant, catalogue::spoken(of_tenant), LANGUAGES[0]] {
        if !wanted.iter().any(|w| w == tag) {
            wanted.push(tag.to_owned());
        }
    }
    let own = sqlx::query!(
        "select v.language, v.subject, v.body from notification.template_versions v
         join notification.notification_templates t on t.id = v.template_id
         where t.tenant_id = $1 and t.code = $2 and v.channel = $3 and v.state = 'active' and v.language = any ($4)",
        tenant_id,
        kind.code,
        channel.as_str(),
        &wanted,
    )
    .fetch_all(db)
    .await?;
    let found = wanted.iter().find_map(|tag| {
        let ours = kind.words(tag);
        if let Some(row) = own.iter().find(|row| row.language == *tag) {
            let subject = row.subject.clone().unwrap_or_else(|| ours.subject.to_owned());
            return Some(Text { language: tag.clone(), subject, body: row.body.clone() });
        }
        LANGUAGES.contains(&tag.as_str()).then(|| of_ours(kind, tag))
    });
    Ok(found.unwrap_or_else(|| of_ours(kind, LANGUAGES[0])))
}

/// How we say it.
pub(super) fn of_ours(kind: &Kind, language: &str) -> Text {
    let words = kind.words(language);
    Text { language: language.to_owned(), subject: words.subject.to_owned(), body: words.body.to_owned() }
}

impl Text {
    /// Filled in.
    ///
    /// # Errors
    /// `notification.unfit` for good: nobody said what it names, or it is no template.
    pub fn say(&self, data: &Value) -> Result<Said, Failure> {
        let said = words::say(&self.subject, &self.body, data).map_err(unfit)?;
        match said.subject.trim().is_empty() {
            true => Err(Failure::permanent("notification.unfit", "the subject is empty")),
            false => Ok(said),
        }
    }
}

fn unfit(unfit: Unfit) -> Failure {
    Failure::permanent("notification.unfit", format!("the template cannot be filled in: {unfit}"))
}
