//! Templates and their versions.

use crate::{
    contracts::{
        storage::{BlobHash, BlobRef},
        template::Manifest,
    },
    models::{Db, Role, Scope, content::scene, file_mgr::blob},
};
use sqlx::types::Json;
use uuid::Uuid;

/// A published template with its current version.
#[derive(Debug, Clone)]
pub struct Template {
    /// Its owner: package and preview are on the owner's shelf of files.
    pub tenant_id: Uuid,
    /// The project.
    pub project_id: Uuid,
    /// The version a new render pins.
    pub version_id: Uuid,
    /// Its number, from 1.
    pub number: i32,
    /// What customers may fill in.
    pub manifest: Manifest,
    /// The package, zipped.
    pub package: BlobRef,
    /// A picture of it, PNG.
    pub preview: Option<BlobRef>,
}

struct Row {
    tenant_id: Uuid,
    project_id: Uuid,
    version_id: Uuid,
    number: i32,
    manifest: Json<Manifest>,
    package_sha256: String,
    package_bytes: i64,
    preview_sha256: Option<String>,
    preview_bytes: Option<i64>,
}

impl Row {
    fn into_template(self) -> sqlx::Result<Template> {
        let preview = match (self.preview_sha256, self.preview_bytes) {
            (Some(hash), Some(bytes)) => Some(blob_ref(hash, bytes)?),
            _ => None,
        };
        Ok(Template {
            tenant_id: self.tenant_id,
            project_id: self.project_id,
            version_id: self.version_id,
            number: self.number,
            manifest: self.manifest.0,
            package: blob_ref(self.package_sha256, self.package_bytes)?,
            preview,
        })
    }
}

/// A blob as two columns hold it.
pub(crate) fn blob_ref(sha256: String, bytes: i64) -> sqlx::Result<BlobRef> {
    let sha256 = BlobHash::try_from(sha256).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(BlobRef { sha256, size_bytes: bytes.unsigned_abs() })
}

/// Published templates of a tenant, and those every tenant may use, by slug; a tenant's own hides a shared one.
pub async fn list(db: Db<'_>, tenant_id: Uuid, shared: Uuid) -> sqlx::Result<Vec<Template>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select distinct on (p.slug) p.tenant_id, p.id as project_id, v.id as version_id, v.number,
                  v.manifest as "manifest: Json<Manifest>", v.package_sha256, v.package_bytes,
                  v.preview_sha256, v.preview_bytes
           from content.projects p join content.project_versions v on v.id = p.current_version_id
           where p.state = 'published' and p.tenant_id in ($1, $2)
           order by p.slug, p.tenant_id = $1 desc"#,
        tenant_id,
        shared,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Row::into_template).collect()
}

/// One template by slug, in a version or the current one.
pub async fn find(
    db: Db<'_>,
    tenant_id: Uuid,
    shared: Uuid,
    slug: &str,
    version: Option<i32>,
) -> sqlx::Result<Option<Template>> {
    let row = sqlx::query_as!(
        Row,
        r#"select p.tenant_id, p.id as project_id, v.id as version_id, v.number,
                  v.manifest as "manifest: Json<Manifest>", v.package_sha256, v.package_bytes,
                  v.preview_sha256, v.preview_bytes
           from content.projects p join content.project_versions v on v.project_id = p.id
           where p.state = 'published' and p.slug = $3 and p.tenant_id in ($1, $2)
             and v.number = coalesce($4, (select c.number from content.project_versions c where c.id = p.current_version_id))
           order by p.tenant_id = $1 desc
           limit 1"#,
        tenant_id,
        shared,
        slug,
        version,
    )
    .fetch_optional(db)
    .await?;
    row.map(Row::into_template).transpose()
}

/// A tenant's own template in its current version, whatever its state.
///
/// # Errors
/// Those of the database.
pub async fn own(db: Db<'_>, tenant_id: Uuid, project_id: Uuid) -> sqlx::Result<Option<Template>> {
    let row = sqlx::query_as!(
        Row,
        r#"select p.tenant_id, p.id as project_id, v.id as version_id, v.number,
                  v.manifest as "manifest: Json<Manifest>", v.package_sha256, v.package_bytes,
                  v.preview_sha256, v.preview_bytes
           from content.projects p join content.project_versions v on v.id = p.current_version_id
           where p.tenant_id = $1 and p.id = $2"#,
        tenant_id,
        project_id,
    )
    .fetch_optional(db)
    .await?;
    row.map(Row::into_template).transpose()
}

/// Publishes a package that is already stored: a new version, unless its content is a known version, which then
/// becomes current again. Gives the version's number. Goes on in the scope of the templates.
pub async fn publish(
    db: Db<'_>,
    tenant_id: Uuid,
    manifest: &Manifest,
    package: &BlobRef,
    preview: Option<&BlobRef>,
) -> sqlx::Result<i32> {
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    for stored in std::iter::once(package).chain(preview) {
        blob::record(&mut *db, tenant_id, stored).await?;
    }
    Scope::tenant(Role::Content, tenant_id).enter(&mut *db).await?;
    let project_id = upsert_project(&mut *db, tenant_id, manifest).await?;
    let version = insert_version(&mut *db, tenant_id, project_id, manifest, package, preview).await?;
    scene::fill(&mut *db, tenant_id, version.0, manifest).await?;
    sqlx::query!(
        "update content.projects set current_version_id = $2, updated_at = workflow.now() where id = $1",
        project_id,
        version.0,
    )
    .execute(db)
    .await?;
    Ok(version.1)
}

/// Creates or renames the project; the row lock makes two publishers of one slug take turns.
async fn upsert_project(db: Db<'_>, tenant_id: Uuid, manifest: &Manifest) -> sqlx::Result<Uuid> {
    sqlx::query_scalar!(
        r#"insert into content.projects (id, tenant_id, slug, kind, title, description)
           values ($1, $2, $3, $4, $5, $6)
           on conflict (tenant_id, slug) do update
           set kind = excluded.kind, title = excluded.title, description = excluded.description
           returning id"#,
        Uuid::now_v7(),
        tenant_id,
        manifest.slug,
        manifest.kind.label(),
        Json(&manifest.title) as _,
        Json(&manifest.description) as _,
    )
    .fetch_one(db)
    .await
}

async fn insert_version(
    db: Db<'_>,
    tenant_id: Uuid,
    project_id: Uuid,
    manifest: &Manifest,
    package: &BlobRef,
    preview: Option<&BlobRef>,
) -> sqlx::Result<(Uuid, i32)> {
    let known = sqlx::query!(
        "select id, number from content.project_versions where project_id = $1 and package_sha256 = $2",
        project_id,
        package.sha256.as_str(),
    )
    .fetch_optional(&mut *db)
    .await?;
    if let Some(known) = known {
        return Ok((known.id, known.number));
    }
    let new = sqlx::query!(
        r#"insert into content.project_versions
               (id, tenant_id, project_id, number, package_sha256, package_bytes, preview_sha256, preview_bytes, manifest)
           select $1, $2, $3, coalesce(max(number), 0) + 1, $4, $5, $6, $7, $8
           from content.project_versions where project_id = $3
           returning id, number"#,
        Uuid::now_v7(),
        tenant_id,
        project_id,
        package.sha256.as_str(),
        package.size_bytes as i64,
        preview.map(|p| p.sha256.as_str()),
        preview.map(|p| p.size_bytes as i64),
        Json(manifest) as _,
    )
    .fetch_one(db)
    .await?;
    Ok((new.id, new.number))
}
