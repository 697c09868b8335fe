//! What can be achieved in a tenant, and who did.

use super::points::{self, Source};
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// When something is achieved: so many of a source of points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `render`, `payment` or `referral`.
    #[schema(example = "render", pattern = "^(render|payment|referral)$")]
    pub source: String,
    /// How many, 1 to 1000000.
    #[schema(example = 1, minimum = 1, maximum = 1_000_000)]
    pub count: i64,
}

/// Something that can be achieved.
#[derive(Debug, Clone, Serialize)]
pub struct Achievement {
    /// Its id.
    pub id: Uuid,
    /// What programs call it.
    pub code: String,
    /// What people call it, by language.
    pub title: Json<BTreeMap<String, String>>,
    /// Points that it gives.
    pub points: i32,
    /// When it is achieved.
    pub rule: Json<Rule>,
    /// Whether it can be achieved now.
    pub active: bool,
    /// When the person who asks achieved it.
    pub earned_at: Option<DateTime<Utc>>,
    /// How often somebody changed it.
    #[serde(skip)]
    pub rev: i32,
}

/// An achievement to be made.
#[derive(Debug, Clone)]
pub struct NewAchievement<'a> {
    /// 1 to 64 of `a-z 0-9 _`.
    pub code: &'a str,
    /// By language.
    pub title: &'a BTreeMap<String, String>,
    /// Points that it gives, from 0.
    pub points: i32,
    /// When it is achieved.
    pub rule: &'a Rule,
}

/// Makes an achievement. None when there is one of this code.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: &NewAchievement<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.achievements (tenant_id, code, title, points, rule, created_at) values ($1, $2, $3, $4, $5, workflow.now())
         on conflict (tenant_id, code) do nothing returning id",
        tenant_id,
        new.code,
        Json(new.title) as _,
        new.points,
        Json(new.rule) as _,
    )
    .fetch_optional(db)
    .await
}

/// Lets an achievement be achieved, or no longer; who has it keeps it. False when there is none.
pub async fn set_active(db: Db<'_>, tenant_id: Uuid, id: Uuid, active: bool) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "update identity.achievements set active = $3, rev = rev + 1 where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        active
    );
    Ok(set.execute(db).await?.rows_affected() == 1)
}

/// Every achievement of a tenant by code, and which of them a person has.
pub async fn list(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Vec<Achievement>> {
    select(db, tenant_id, user_id, None).await
}

/// One of them, and whether a person has it.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Option<Achievement>> {
    Ok(select(db, tenant_id, user_id, Some(id)).await?.pop())
}

/// The same of nobody in particular, held until the transaction ends, so that nobody changes it meanwhile.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Achievement>> {
    // By itself, so that what is read is what whoever held it before has left.
    sqlx::query!("select from identity.achievements where tenant_id = $1 and id = $2 for no key update", tenant_id, id)
        .fetch_optional(&mut *db)
        .await?;
    find(db, tenant_id, id, None).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Option<Uuid>,
    id: Option<Uuid>,
) -> sqlx::Result<Vec<Achievement>> {
    sqlx::query_as!(
        Achievement,
        r#"select a.id, a.code, a.title as "title: Json<BTreeMap<String, String>>", a.points, a.rule as "rule: Json<Rule>", a.active,
                  u.earned_at as "earned_at?", a.rev
           from identity.achievements a left join identity.user_achievements u on u.achievement_id = a.id and u.user_id = $2
           where a.tenant_id = $1 and ($3::uuid is null or a.id = $3) order by a.code limit 1000"#,
        tenant_id,
        user_id,
        id,
    )
    .fetch_all(db)
    .await
}

/// Notes what a person has achieved by having done something once more; gives the points of what is new.
pub async fn look(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, source: Source) -> sqlx::Result<()> {
    let times = points::times(&mut *db, user_id, source.name()).await?;
    let reached = sqlx::query!(
        "insert into identity.user_achievements (tenant_id, user_id, achievement_id, earned_at)
         select tenant_id, $2, id, workflow.now() from identity.achievements a
         where tenant_id = $1 and active and rule ->> 'source' = $3 and (rule ->> 'count')::bigint <= $4
         on conflict do nothing
         returning achievement_id, (select points from identity.achievements a where a.id = achievement_id) as points",
        tenant_id,
        user_id,
        source.name(),
        times,
    )
    .fetch_all(&mut *db)
    .await?;
    for new in reached {
        if let Some(points @ 1..) = new.points {
            points::enter(&mut *db, tenant_id, user_id, Source::Achievement, new.achievement_id, points).await?;
        }
    }
    Ok(())
}
