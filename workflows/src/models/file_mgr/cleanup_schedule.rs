//! What a tenant wants removed, and when.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

/// What a rule may remove.
pub const TARGETS: [&str; 5] = ["trash", "exports", "previews", "uploads", "temp"];
/// Most rules of a tenant.
pub const MOST_RULES: i64 = 50;

/// Which of the files that a target means; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Of this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<Uuid>,
    /// In this folder itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder_id: Option<Uuid>,
    /// Not smaller than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 1_048_576, minimum = 0)]
    pub at_least_bytes: Option<i64>,
    /// Of these kinds, such as `video`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["video"]), max_items = 7, pattern = "^(image|audio|video|document|archive|font|data)$")]
    pub kinds: Option<Vec<String>>,
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = CleanupRule)]
pub struct Terms {
    /// Unique within the tenant, 1 to 100 characters.
    pub name: String,
    /// One of [`TARGETS`].
    pub target: String,
    /// Age from which on something goes, at least an hour.
    pub older_than_seconds: i64,
    /// Which of them.
    pub filter: Filter,
    /// When, by cron.
    pub cron: String,
    /// IANA name.
    pub time_zone: String,
    /// Whether the clock starts it.
    pub enabled: bool,
    /// Whether a run only lists what would go.
    pub dry_run: bool,
    /// Files beyond which somebody else has to approve a run.
    pub max_delete_per_run: i32,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its id.
    pub id: Uuid,
    /// Its owner.
    pub tenant_id: Uuid,
    /// What it says.
    pub terms: Terms,
    /// Who said so last.
    pub changed_by: String,
    /// The schedule of the engine that fires it.
    pub workflow_schedule_id: Uuid,
    /// The run that was planned last.
    pub last_run_id: Option<Uuid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
    /// How often what it says was replaced.
    pub rev: i32,
}

struct Row {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    target: String,
    older_than_seconds: i64,
    filter: Json<Filter>,
    cron: String,
    timezone: String,
    enabled: bool,
    dry_run: bool,
    max_delete_per_run: i32,
    changed_by: String,
    workflow_schedule_id: Uuid,
    last_run_id: Option<Uuid>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    rev: i32,
}

impl From<Row> for Rule {
    fn from(r: Row) -> Self {
        let terms = Terms {
            name: r.name,
            target: r.target,
            older_than_seconds: r.older_than_seconds,
            filter: r.filter.0,
            cron: r.cron,
            time_zone: r.timezone,
            enabled: r.enabled,
            dry_run: r.dry_run,
            max_delete_per_run: r.max_delete_per_run,
        };
        Self {
            id: r.id,
            tenant_id: r.tenant_id,
            terms,
            changed_by: r.changed_by,
            workflow_schedule_id: r.workflow_schedule_id,
            last_run_id: r.last_run_id,
            created_at: r.created_at,
            updated_at: r.updated_at,
            rev: r.rev,
        }
    }
}

/// Makes a rule; false when the tenant has one of this name, or as many as it may.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn insert(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    terms: &Terms,
    by: &str,
    schedule_id: Uuid,
) -> sqlx::Result<bool> {
    let made = sqlx::query!(
        "insert into file_mgr.cleanup_schedules (id, tenant_id, name, target, older_than, filter, cron, timezone, enabled, dry_run,
             max_delete_per_run, changed_by, workflow_schedule_id, created_at, updated_at)
         select $1, $2, $3, $4, make_interval(secs => $5), $6, $7, $8, $9, $10, $11, $12, $13, workflow.now(), workflow.now()
         where (select count(*) from file_mgr.cleanup_schedules where tenant_id = $2) < $14
         on conflict (tenant_id, name) do nothing",
        id,
        tenant_id,
        terms.name,
        terms.target,
        terms.older_than_seconds as f64,
        Json(&terms.filter) as _,
        terms.cron,
        terms.time_zone,
        terms.enabled,
        terms.dry_run,
        terms.max_delete_per_run,
        by,
        schedule_id,
        MOST_RULES,
    );
    Ok(made.execute(db).await?.rows_affected() == 1)
}

/// Replaces what a rule says; false when there is no such rule, or another has the name.
pub async fn update(db: Db<'_>, tenant_id: Uuid, id: Uuid, terms: &Terms, by: &str) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "update file_mgr.cleanup_schedules r
         set name = $3, target = $4, older_than = make_interval(secs => $5), filter = $6, cron = $7, timezone = $8, enabled = $9, dry_run = $10,
             max_delete_per_run = $11, changed_by = $12, updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2
           and not exists (select from file_mgr.cleanup_schedules o where o.tenant_id = $1 and o.name = $3 and o.id <> $2)",
        tenant_id,
        id,
        terms.name,
        terms.target,
        terms.older_than_seconds as f64,
        Json(&terms.filter) as _,
        terms.cron,
        terms.time_zone,
        terms.enabled,
        terms.dry_run,
        terms.max_delete_per_run,
        by,
    );
    Ok(changed.execute(db).await?.rows_affected() == 1)
}

/// Removes a rule with what is told of its runs.
pub async fn remove(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let gone = sqlx::query!("delete from file_mgr.cleanup_schedules where tenant_id = $1 and id = $2", tenant_id, id);
    Ok(gone.execute(db).await?.rows_affected() == 1)
}

/// A rule of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Rule>> {
    Ok(select(db, tenant_id, Some(id), None, 1).await?.pop())
}

/// The same, held until the transaction ends, so that nobody changes it meanwhile.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Rule>> {
    // By itself, so that what is read is what whoever held it before has left.
    sqlx::query!(
        "select from file_mgr.cleanup_schedules where tenant_id = $1 and id = $2 for no key update",
        tenant_id,
        id
    )
    .fetch_optional(&mut *db)
    .await?;
    find(db, tenant_id, id).await
}

/// The rules of a tenant, newest first, before the one `before`.
pub async fn list(db: Db<'_>, tenant_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Rule>> {
    select(db, tenant_id, None, before, limit).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Rule>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, name, target, extract(epoch from older_than)::bigint as "older_than_seconds!",
                  filter as "filter: Json<Filter>", cron, timezone, enabled, dry_run, max_delete_per_run, changed_by, workflow_schedule_id,
                  last_run_id, created_at, updated_at, rev
           from file_mgr.cleanup_schedules
           where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::uuid is null or id < $3) order by id desc limit $4"#,
        tenant_id,
        id,
        before,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}
