//! The payment for the period that comes: opened by itself, so that whoever is told of it pays from there.
//!
//! A gateway keeps a payment open for a day at most, so each thing that is told opens one where none is open. No card is kept, and nothing is
//! taken from anybody: who does not pay is told again, and has no plan in the end.

use crate::{
    definitions::payment::{HINT, TakePayment},
    models::{
        Db, Role, Scope,
        identity::{
            gateway,
            payment::{self, MOST_OPEN, NewPayment, Payment, Snapshot, Wanted, What, state},
            plan::Interval,
            subscription::{self, Did, Subscription},
        },
    },
};
use chrono::TimeDelta;
use flatrender_engine::{Client, Failure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A payment that is open for less is no use to whoever reads of it later.
const SOON_OVER: TimeDelta = TimeDelta::hours(12);

/// The key of a payment that was opened when something was told of the period before.
fn key(id: Uuid, period_no: i32, told: &str) -> String {
    format!("renewal:{id}:{period_no}:{told}")
}

/// Those that were opened for a period, and are not over.
async fn under_way(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    period_no: i32,
    told: &[String],
) -> Result<Vec<Payment>, Failure> {
    let mut found = vec![];
    for told in told {
        found.extend(payment::find_by_key(&mut *db, tenant_id, &key(id, period_no, told)).await?);
    }
    found.retain(Payment::is_open);
    Ok(found)
}

/// The payment for the period after this one, opened by way of the gateway that took the last one when none is open; `told` is what its
/// owner is told with it, the last of all that they may have been told. None where nobody knows by way of whom, or it costs nothing. Begins
/// and ends as the tenant's identity service; so with the call below.
///
/// # Errors
/// Those of the database; so with the call below.
pub(super) async fn open(
    workflows: &Client,
    db: Db<'_>,
    now: &Subscription,
    told: &[String],
) -> Result<Option<Uuid>, Failure> {
    let (tenant_id, user_id, period_no) = (now.tenant_id, now.user_id, now.period_no + 1);
    let at = subscription::now(&mut *db).await?;
    let open = under_way(&mut *db, tenant_id, now.id, period_no, told).await?;
    if let Some(open) = open.iter().find(|open| open.expires_at > at + SOON_OVER) {
        return Ok(Some(open.id));
    }
    let key = key(now.id, period_no, told.last().map_or("", String::as_str));
    let known = payment::find_by_key(&mut *db, tenant_id, &key).await?.is_some();
    let (Some(interval), false) = (Interval::parse(&now.interval), known) else { return Ok(None) };
    let Some(provider) = subscription::paid_by(&mut *db, now.id).await?.and_then(|name| name.parse().ok()) else {
        return Ok(None);
    };
    let Some(gateway) = gateway::find_active(&mut *db, tenant_id, provider).await? else { return Ok(None) };
    if payment::count_open(&mut *db, tenant_id, user_id).await? >= MOST_OPEN {
        return Ok(None);
    }
    let wanted = Wanted::Plan { plan_id: now.coming_plan(), currency: &now.currency, interval };
    let quoted = payment::quote(&mut *db, tenant_id, user_id, &wanted, None).await?;
    let Some(mut quoted) = quoted.ok().filter(|quoted| quoted.amount > 0 && renews(&quoted.snapshot)) else {
        return Ok(None);
    };
    quoted.snapshot.by_itself = true;
    let id = Uuid::now_v7();
    // Of whoever sees to it: where people reach us is theirs to know.
    let return_page = format!("/v1/payments/{id}/return");
    let take = TakePayment { tenant_id, payment_id: id, again: false, return_page };
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let run_id = workflows.start(&mut *db, tenant_id, Some(&take.key()), take).await?.run_id;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    let new = NewPayment {
        id,
        tenant_id,
        user_id,
        provider: &gateway.provider,
        gateway_id: gateway.id,
        idempotency_key: &key,
        request_sha256: &Sha256::digest(key.as_bytes()),
        return_url: None,
        quoted: &quoted,
        run_id,
    };
    Ok(payment::open(db, &new).await?.map(|_| id))
}

fn renews(agreed: &Snapshot) -> bool {
    matches!(&agreed.what, What::Plan { prospect, .. } if prospect.did == Did::Renewed)
}

/// Has those closed that were opened for a period: it is paid by another one, or never comes.
pub(super) async fn close(
    workflows: &Client,
    db: Db<'_>,
    (tenant_id, id): (Uuid, Uuid),
    period_no: i32,
    told: &[String],
) -> Result<(), Failure> {
    for open in under_way(&mut *db, tenant_id, id, period_no, told).await? {
        state::ask_cancel(&mut *db, tenant_id, open.id).await?;
        Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
        // A run that is over has nothing to close.
        let _ = workflows.signal(&mut *db, open.workflow_run_id, HINT, None, &Value::Null).await?;
        Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    }
    Ok(())
}
