//! Payments as a gateway has confirmed them, and what a test asks of the database.

use crate::world::{Answer, World, request, with_json};
use axum::{body::Body, http::Method};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::{
        plan::Interval,
        subscription::{self, Activated, Activation},
    },
    invariants,
};
use serde_json::Value;
use sqlx::PgPool;
use uuid::Uuid;

/// A payment for a plan that is paid.
pub async fn paid(db: &PgPool, user: Uuid, plan: Uuid, amount: i64) -> Uuid {
    payment(db, user, plan, amount, true).await
}

/// A payment for a plan.
pub async fn payment(db: &PgPool, user: Uuid, plan: Uuid, amount: i64, paid: bool) -> Uuid {
    let sql = "insert into identity.payments (tenant_id, user_id, purpose, plan_id, amount, currency, provider, provider_txn, idempotency_key,
                   price_snapshot, expires_at, paid_at, state, workflow_run_id, created_at)
               values ($1, $2, 'plan', $3, $4, 'USD', 'manual', case when $5 then gen_random_uuid()::text end, gen_random_uuid()::text, '{}',
                   workflow.now() + interval '1 day', case when $5 then workflow.now() end, case when $5 then 'paid' else 'pending' end, gen_random_uuid(),
                   workflow.now())
               returning id";
    let query = sqlx::query_scalar(sql).bind(DEFAULT_TENANT).bind(user).bind(plan).bind(amount).bind(paid);
    query.fetch_one(db).await.unwrap()
}

/// What settling a payment for a plan does: the payment is paid and the plan is had, in one transaction.
pub async fn buy(db: &PgPool, user: Uuid, plan: Uuid, interval: Interval) -> sqlx::Result<Activated> {
    let payment_id = paid(db, user, plan, 1).await;
    activate(db, user, plan, interval, payment_id).await
}

/// The same with a payment that is there.
pub async fn activate(
    db: &PgPool,
    user_id: Uuid,
    plan_id: Uuid,
    interval: Interval,
    payment_id: Uuid,
) -> sqlx::Result<Activated> {
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(db).await?;
    let new = Activation { tenant_id: DEFAULT_TENANT, user_id, payment_id, plan_id, currency: "USD", interval };
    let activated = subscription::activate(&mut tx, &new).await?;
    tx.commit().await?;
    Ok(activated)
}

/// Asks as somebody.
pub async fn ask(world: &World, by: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = request(method, path, by);
    world
        .send(match body {
            Some(body) => with_json(request, &body),
            None => request.body(Body::empty()).unwrap(),
        })
        .await
}

/// Nothing breaks a rule.
pub async fn sound(db: &PgPool) {
    // The schedule for it has not run while the clock jumped.
    let months = "select platform.ensure_months(workflow.now(), now())";
    sqlx::query(months).execute(db).await.unwrap();
    assert_eq!(invariants::check(db, true).await.unwrap(), []);
}
