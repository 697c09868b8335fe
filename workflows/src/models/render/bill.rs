//! What a film costs its owner: seconds are held when it is ordered, and spent or freed in the transaction that ends it. So each film is
//! charged once or not at all, whatever crashes when: neither its end nor the charge is there without the other.
//!
//! A film costs the seconds that nodes have rendered for it, of attempts that succeeded, and at most what was held. A node is believed how
//! long it rendered within the time for which it had the work. What was taken from other films, previews, and films that failed or were
//! cancelled cost nothing.

use super::{frame_attempt, spec::RenderSpec};
use crate::{
    contracts::render::Pace,
    models::{
        Db, Role, Scope,
        identity::{
            credit::{self, Account},
            points::Source,
            reward,
        },
    },
};
use uuid::Uuid;

/// How long a frame takes when nobody knows, in milliseconds.
const UNKNOWN_PACE_MS: u64 = 250;
/// How many times as long as expected a film may take before it costs its owner no more.
const RESERVE: u64 = 2;

/// Whose film it is and what it is made of.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person; none: a key of the tenant ordered it.
    pub user_id: Option<Uuid>,
    /// The film.
    pub render_id: Uuid,
    /// Its run.
    pub run_id: Uuid,
    /// The version of its template.
    pub project_version_id: Uuid,
    /// What was frozen.
    pub spec: &'a RenderSpec,
}

/// What became of an order's bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billed {
    /// It costs nothing: a preview, or films are free and nobody has an account with enough in it.
    Free,
    /// So many seconds are held for it.
    Held(i64),
    /// So many seconds would have to be held, and only so many are free. The order is to be given up.
    Short {
        /// Seconds to hold.
        needed: i64,
        /// Seconds there are.
        free: i64,
    },
}

/// Seconds to hold for a film: twice what it is expected to take by the pace of its template, and at least its own length.
pub fn seconds_to_hold(spec: &RenderSpec, pace: Option<Pace>) -> i64 {
    let frames = u64::from(spec.frames);
    let expected = frames.saturating_mul(pace.map_or(UNKNOWN_PACE_MS, |pace| pace.p50_ms));
    let length = frames.div_ceil(u64::from(spec.fps.max(1)));
    let seconds = expected.saturating_mul(RESERVE).div_ceil(1000).max(length).max(1);
    i64::try_from(seconds).unwrap_or(credit::MOST).min(credit::MOST)
}

/// Notes whose film it is, and holds what it may cost, in the transaction that accepts it. Begins and ends as the tenant's renders.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn hold(db: Db<'_>, order: &Order<'_>) -> sqlx::Result<Billed> {
    let Order { tenant_id, user_id, render_id, run_id, .. } = *order;
    let (hold_id, billed) =
        if order.spec.is_preview() { (None, Billed::Free) } else { hold_for(&mut *db, order).await? };
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    if user_id.is_some() || hold_id.is_some() {
        sqlx::query!(
            "update render.render_jobs set user_id = $2, credit_hold_id = $3 where id = $1 and workflow_run_id = $4",
            render_id,
            user_id,
            hold_id,
            run_id,
        )
        .execute(db)
        .await?;
    }
    Ok(billed)
}

/// Films of a person that have not ended. Whoever asks for the same person waits until this transaction ends.
pub async fn under_way(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<i64> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('films of ' || $1::uuid, 0)) as "locked!: ()""#,
        user_id
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query_scalar!(
        r#"select count(*) as "films!" from render.render_jobs where tenant_id = $1 and user_id = $2 and finished_at is null"#,
        tenant_id,
        user_id
    )
    .fetch_one(db)
    .await
}

async fn hold_for(db: Db<'_>, order: &Order<'_>) -> sqlx::Result<(Option<Uuid>, Billed)> {
    Scope::tenant(Role::Identity, order.tenant_id).enter(&mut *db).await?;
    let payers = credit::payers(&mut *db, order.tenant_id, order.user_id).await?;
    // Free for who has no account of their own is free for who has too little in theirs: a gift locks nobody out.
    let the_tenant_pays = payers.iter().any(|account| account.user_id.is_none());
    let is_free = !the_tenant_pays && !credit::is_paid(&mut *db, order.tenant_id).await?;
    if payers.is_empty() && is_free {
        return Ok((None, Billed::Free));
    }
    // A template may be many tenants'; how fast it is is nobody's secret.
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let pace = frame_attempt::pace(&mut *db, order.project_version_id, order.spec.size).await?;
    let needed = seconds_to_hold(order.spec, pace);
    Scope::tenant(Role::Identity, order.tenant_id).enter(&mut *db).await?;
    for payer in &payers {
        if let Some(hold) = credit::hold(&mut *db, payer.id, order.run_id, needed).await? {
            return Ok((Some(hold), Billed::Held(needed)));
        }
    }
    if is_free {
        return Ok((None, Billed::Free));
    }
    // Asked again: somebody else may have held meanwhile.
    let now = credit::payers(db, order.tenant_id, order.user_id).await?;
    Ok((None, Billed::Short { needed, free: now.iter().map(Account::free).max().unwrap_or_default() }))
}

/// Settles the bill of a film that has just ended, in the transaction of its end: what is held is spent or freed. Gives who is to be
/// rewarded for it ([`give_reward`]). Begins as whoever sees the film, and ends so or as the tenant's renders.
pub async fn settle(db: Db<'_>, tenant_id: Uuid, render_id: Uuid) -> sqlx::Result<Option<Uuid>> {
    let film = sqlx::query!(
        r#"select j.user_id, j.workflow_run_id, j.credit_hold_id, j.status, j.kind,
                  case when j.credit_hold_id is not null then
                      (select ceil(coalesce(sum(least(a.render_ms, extract(epoch from a.ended_at - a.started_at) * 1000)), 0) / 1000)::bigint
                       from render.frame_job_attempts a join render.frame_jobs f on f.id = a.frame_job_id where f.render_job_id = j.id and a.outcome = 'ok') end as seconds
           from render.render_jobs j where j.id = $1 and j.tenant_id = $2"#,
        render_id,
        tenant_id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(film) = film else { return Ok(None) };
    let finished = film.status == "completed";
    let rewarded = film.user_id.filter(|_| finished && film.kind == "final");
    if film.credit_hold_id.is_none() {
        return Ok(rewarded);
    }
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    let mut spent = None;
    match film.credit_hold_id {
        Some(_) if finished => {
            spent =
                credit::capture(&mut *db, tenant_id, film.workflow_run_id, film.seconds.unwrap_or_default()).await?;
        }
        Some(_) => {
            credit::release(&mut *db, tenant_id, film.workflow_run_id).await?;
        }
        None => {}
    }
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    if spent.is_some() {
        sqlx::query!("update render.render_jobs set cost_units = $2 where id = $1", render_id, spent)
            .execute(db)
            .await?;
    }
    Ok(rewarded)
}

/// Rewards whoever ordered a film for its end. Comes after all that waits for the tenant's quota: who pays for a plan is rewarded last, too.
/// Ends as the tenant's renders.
pub async fn give_reward(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, render_id: Uuid) -> sqlx::Result<()> {
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    reward::reward(&mut *db, tenant_id, user_id, Source::Render, render_id).await?;
    Scope::tenant(Role::Render, tenant_id).enter(db).await
}

#[cfg(test)]
mod tests {
    use super::{super::spec, *};

    #[test]
    fn a_film_holds_twice_what_it_may_take_and_at_least_its_length() {
        let held = |frames, pace: Option<u64>| {
            seconds_to_hold(&spec::tests::spec(frames), pace.map(|ms| Pace { p50_ms: ms, p99_ms: ms }))
        };
        assert_eq!(held(900, Some(100)), 180);
        assert_eq!(held(900, Some(1)), 30, "thirty seconds at 30 frames a second");
        assert_eq!(held(900, None), 450);
        assert_eq!(held(1, Some(1)), 1);
        assert_eq!(held(u32::MAX, Some(u64::MAX)), credit::MOST);
    }
}
