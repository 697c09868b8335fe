//! Who brought whom. An invitation brings one person, and everybody is brought once.
//!
//! ```text
//! open ─somebody uses the code─▶ joined ─their first film or payment─▶ rewarded
//! ```

use crate::models::Db;
use chrono::{DateTime, Utc};
use rand::RngExt as _;
use uuid::Uuid;

/// Invitations of a person that nobody has used yet.
pub const MOST_OPEN: i64 = 20;
/// How long after somebody registered they can say who brought them.
const NEW_FOR_DAYS: i32 = 30;
/// Letters of a code that are not taken for each other.
const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// An invitation.
#[derive(Debug, Clone)]
pub struct Referral {
    /// Its id.
    pub id: Uuid,
    /// What the other one types.
    pub code: String,
    /// `open`, `joined`, `rewarded` or `refused`.
    pub state: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// What became of a code that somebody typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It counts.
    Now,
    /// There is no such code, or somebody else used it.
    Unknown,
    /// It is their own.
    Oneself,
    /// They were brought before, or have been here for too long.
    Late,
}

/// Makes an invitation. None when the person has as many open ones as one may.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn invite(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Option<Referral>> {
    // Who invites takes turns with themselves.
    sqlx::query!("select from identity.users where id = $1 for no key update", user_id)
        .fetch_optional(&mut *db)
        .await?;
    let code: String = {
        let mut rng = rand::rng();
        (0..10).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
    };
    sqlx::query_as!(
        Referral,
        "insert into identity.referrals (tenant_id, code, referrer_user_id, created_at)
         select $1, $2, $3, workflow.now()
         where (select count(*) from identity.referrals where referrer_user_id = $3 and state = 'open') < $4
         returning id, code, state, created_at",
        tenant_id,
        code,
        user_id,
        MOST_OPEN,
    )
    .fetch_optional(db)
    .await
}

/// Invitations of a person, newest first.
pub async fn list(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Vec<Referral>> {
    sqlx::query_as!(
        Referral,
        "select id, code, state, created_at from identity.referrals where tenant_id = $1 and referrer_user_id = $2
         order by created_at desc, id limit 100",
        tenant_id,
        user_id,
    )
    .fetch_all(db)
    .await
}

/// Says who brought a person.
pub async fn join(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, code: &str) -> sqlx::Result<Joined> {
    let found = sqlx::query!(
        "select id, referrer_user_id, state from identity.referrals where tenant_id = $1 and code = $2 for no key update",
        tenant_id,
        code
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = found else { return Ok(Joined::Unknown) };
    if row.referrer_user_id == user_id {
        return Ok(Joined::Oneself);
    }
    if row.state != "open" {
        return Ok(Joined::Unknown);
    }
    let joined = sqlx::query!(
        "update identity.referrals set state = 'joined', referee_user_id = $2 where id = $1
           and exists (select from identity.users u where u.id = $2 and u.created_at > workflow.now() - make_interval(days => $3))
           and not exists (select from identity.referrals r where r.referee_user_id = $2)",
        row.id,
        user_id,
        NEW_FOR_DAYS,
    )
    .execute(db)
    .await;
    match joined {
        Ok(done) if done.rows_affected() == 1 => Ok(Joined::Now),
        Ok(_) => Ok(Joined::Late),
        // Another code of theirs was faster.
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(Joined::Late),
        Err(error) => Err(error),
    }
}

/// Notes that a person who was brought has done something worth it; gives the referral and who brought them, once.
pub async fn reward(db: Db<'_>, tenant_id: Uuid, referee: Uuid) -> sqlx::Result<Option<(Uuid, Uuid)>> {
    let row = sqlx::query!(
        "update identity.referrals set state = 'rewarded' where tenant_id = $1 and referee_user_id = $2 and state = 'joined'
         returning id, referrer_user_id",
        tenant_id,
        referee,
    );
    Ok(row.fetch_optional(db).await?.map(|row| (row.id, row.referrer_user_id)))
}
