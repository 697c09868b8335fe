//! The seconds of rendering that come with a plan, and how they go back with its money.

use super::credit::{self, Reason};
use crate::models::Db;
use uuid::Uuid;

/// What those of a period are entered as: once.
pub(super) fn of_period(id: Uuid, period_no: i32) -> String {
    format!("subscription:{id}:{period_no}")
}

/// Takes back what came under a key, as far as it is free. Where nothing came, nobody gets an account by it: who has one pays for their
/// films with it. Repeating it is harmless.
///
/// # Errors
/// Those of the database.
pub(super) async fn take_back(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, key: &str) -> sqlx::Result<()> {
    let came = sqlx::query_scalar!(
        "select delta from identity.credit_ledger where tenant_id = $1 and entry_key = $2",
        tenant_id,
        key,
    );
    let Some(came) = came.fetch_optional(&mut *db).await? else { return Ok(()) };
    let account = credit::open_locked(&mut *db, tenant_id, Some(user_id)).await?;
    if let back @ 1.. = came.min(account.free()) {
        let _ = credit::grant(db, account.id, &format!("{key}:back"), -back, Reason::Refund).await?;
    }
    Ok(())
}
