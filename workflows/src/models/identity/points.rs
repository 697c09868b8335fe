//! Points: a ledger that only grows, and where it has brought each person.

use crate::models::Db;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use uuid::Uuid;

/// Points of the first level; level n begins at (n - 1)² times as many.
const STEP: i64 = 100;

/// What gives points by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// A film was finished; its id.
    Render,
    /// A payment was paid; its id.
    Payment,
    /// Somebody was brought; the referral's id.
    Referral,
    /// Something was achieved; the achievement's id. Worth what the achievement says.
    Achievement,
}

impl Source {
    /// Those that achievements can be counted by.
    pub const COUNTED: [Self; 3] = [Self::Render, Self::Payment, Self::Referral];

    /// Its name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Render => "render",
            Self::Payment => "payment",
            Self::Referral => "referral",
            Self::Achievement => "achievement",
        }
    }

    /// What it is worth when nobody says otherwise.
    pub const fn points(self) -> i32 {
        match self {
            Self::Render => 10,
            Self::Payment => 50,
            Self::Referral => 100,
            Self::Achievement => 0,
        }
    }
}

/// Where a person stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// All points.
    pub points: i64,
    /// From 1.
    pub level: i32,
    /// Days in a row on which there were points, by UTC.
    pub streak_days: i32,
    /// The last of them.
    pub last_active_on: Option<NaiveDate>,
}

/// A line of a person's ledger.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its id.
    pub id: Uuid,
    /// Points that came, or went.
    pub points: i32,
    /// What for.
    pub source_type: String,
    /// For which one.
    pub source_id: Uuid,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// The level that somebody with so many points has.
pub fn level_of(points: i64) -> i32 {
    i32::try_from((points.max(0) / STEP).isqrt() + 1).unwrap_or(i32::MAX)
}

/// The points at which a level begins.
pub fn begin_of(level: i32) -> i64 {
    let steps = i64::from(level.max(1) - 1);
    steps.saturating_mul(steps).saturating_mul(STEP)
}

/// Where a person stands.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn progress(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Progress> {
    let row = sqlx::query_as!(
        Progress,
        "select points, level, streak_days, last_active_on from identity.user_progress where tenant_id = $1 and user_id = $2",
        tenant_id,
        user_id,
    );
    Ok(row.fetch_optional(db).await?.unwrap_or(Progress { level: 1, ..Progress::default() }))
}

/// Enters points of a source, once; gives where the person stands now, or none when the source counted before.
pub async fn enter(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    source: Source,
    source_id: Uuid,
    points: i32,
) -> sqlx::Result<Option<Progress>> {
    let entered = sqlx::query!(
        "insert into identity.points_ledger (tenant_id, user_id, points, source_type, source_id, created_at)
         values ($1, $2, $3, $4, $5, workflow.now()) on conflict (user_id, source_type, source_id) do nothing",
        tenant_id,
        user_id,
        points,
        source.name(),
        source_id,
    );
    if entered.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(None);
    }
    let total = sqlx::query_scalar!(
        "insert into identity.user_progress as p (user_id, tenant_id, points, streak_days, last_active_on, updated_at)
         values ($1, $2, $3, 1, (workflow.now() at time zone 'UTC')::date, workflow.now())
         on conflict (user_id) do update set points = p.points + excluded.points, last_active_on = excluded.last_active_on,
             streak_days = case excluded.last_active_on - p.last_active_on when 0 then p.streak_days when 1 then p.streak_days + 1 else 1 end,
             updated_at = excluded.updated_at
         returning points",
        user_id,
        tenant_id,
        i64::from(points),
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!("update identity.user_progress set level = $2 where user_id = $1", user_id, level_of(total))
        .execute(&mut *db)
        .await?;
    progress(db, tenant_id, user_id).await.map(Some)
}

/// How often a source has given points to a person.
pub async fn times(db: Db<'_>, user_id: Uuid, source: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "times!" from identity.points_ledger where user_id = $1 and source_type = $2"#,
        user_id,
        source
    )
    .fetch_one(db)
    .await
}

/// Lines of a person's ledger, newest first, those before the line `before`.
pub async fn ledger(db: Db<'_>, user_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Line>> {
    sqlx::query_as!(
        Line,
        "select id, points, source_type, source_id, created_at from identity.points_ledger
         where user_id = $1 and ($2::uuid is null or (created_at, id) < (select l.created_at, l.id from identity.points_ledger l
                                                                        where l.id = $2 and l.user_id = $1))
         order by created_at desc, id desc limit $3",
        user_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_begins_where_its_points_do() {
        assert_eq!([0, 99, 100, 399, 400, 900].map(level_of), [1, 1, 2, 2, 3, 4]);
        assert_eq!([1, 2, 3, 4].map(begin_of), [0, 100, 400, 900]);
        for level in 1..200 {
            assert_eq!((level_of(begin_of(level)), level_of(begin_of(level + 1) - 1)), (level, level));
        }
        assert_eq!(level_of(i64::MAX), 303_700_050);
    }
}
