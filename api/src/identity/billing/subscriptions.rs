//! `/v1/subscription`, one's own, and `/v1/subscriptions`, all of a tenant.

use super::plans;
use crate::{
    app::App,
    auth::SignedIn,
    extract::{
        Json, Query,
        page::{self, Page},
    },
    identity::Steward,
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    definitions::subscription as keeping,
    models::{
        Db, Role, Scope,
        identity::{
            audit::{self, Entry},
            plan::{self, Interval},
            subscription::{self, Quote, Subscription},
        },
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A subscription.
#[derive(Debug, Serialize, ToSchema)]
pub struct SubscriptionView {
    /// Its id.
    id: Uuid,
    /// Always `subscription`.
    #[schema(example = "subscription")]
    object: &'static str,
    /// Whose it is.
    user_id: Uuid,
    /// The version of the plan.
    plan_id: Uuid,
    /// `trialing`, `active`, `past_due` (it is to be paid within a week), `paused`, `cancelled` or `expired`.
    #[schema(example = "active")]
    state: String,
    /// What a period costs, in minor units: as when it was bought.
    #[schema(example = 1900)]
    amount: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// `month` or `year`.
    #[schema(example = "month")]
    interval: String,
    /// When the period began.
    current_period_start: DateTime<Utc>,
    /// Until when it is paid for.
    current_period_end: DateTime<Utc>,
    /// When it ends, as you asked.
    cancel_at: Option<DateTime<Utc>>,
    /// What it becomes when the period ends.
    next_plan_id: Option<Uuid>,
}

impl From<Subscription> for SubscriptionView {
    fn from(s: Subscription) -> Self {
        Self {
            id: s.id,
            object: "subscription",
            user_id: s.user_id,
            plan_id: s.plan_id,
            state: s.state,
            amount: s.amount,
            currency: s.currency,
            interval: s.interval,
            current_period_start: s.current_period_start,
            current_period_end: s.current_period_end,
            cancel_at: s.cancel_at,
            next_plan_id: s.next_plan_id,
        }
    }
}

/// What you have.
#[derive(Debug, Serialize, ToSchema)]
pub struct MySubscription {
    /// Always `my_subscription`.
    #[schema(example = "my_subscription")]
    object: &'static str,
    /// The one you have; null when you have none.
    subscription: Option<SubscriptionView>,
    /// What you may use by it, or by the plan called `free`; what is not there is not limited by plans.
    #[schema(example = json!({"render_minutes": 60, "max_resolution": 1080}))]
    entitlements: BTreeMap<String, i64>,
}

/// Which subscriptions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSubscriptions {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// Which plan to try.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginTrial {
    /// The version, which is sold and has a trial.
    plan_id: Uuid,
    /// In which currency it is paid afterwards.
    #[schema(example = "USD")]
    currency: String,
    /// And over how long.
    interval: Interval,
}

/// Which plan to have instead.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AskChange {
    /// The version, which is sold.
    plan_id: Uuid,
}

/// A change, as it was shown.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptChange {
    /// The version, which is sold.
    plan_id: Uuid,
    /// What was shown as `due`.
    #[schema(example = 950)]
    due: i64,
}

/// What became of a change.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeView {
    /// Always `plan_change`.
    #[schema(example = "plan_change")]
    object: &'static str,
    /// What it costs.
    #[serde(flatten)]
    quote: Quote,
    /// The subscription, afterwards: as it was while something is due, which is paid with a payment for the plan.
    subscription: SubscriptionView,
}

/// `GET /v1/subscription`
#[utoipa::path(
    get, path = "/v1/subscription", tag = "Billing", operation_id = "get_subscription", summary = "See what you have",
    description = "Your subscription and what you may use by it.",
    responses((status = 200, description = "What you have", body = MySubscription))
)]
pub async fn get(State(app): State<App>, person: SignedIn) -> Result<Json<MySubscription>, Problem> {
    let mut tx = begin(&app, &person).await?;
    let subscription = subscription::find_live(&mut tx, person.tenant_id, person.user_id).await?.map(Into::into);
    let entitlements = subscription::rights(&mut tx, person.tenant_id, person.user_id).await?;
    Ok(Json(MySubscription { object: "my_subscription", subscription, entitlements }))
}

/// `GET /v1/subscriptions`
#[utoipa::path(
    get, path = "/v1/subscriptions", tag = "Billing", operation_id = "list_subscriptions", summary = "List subscriptions",
    description = "Of everybody in the tenant, also those that have ended, the newest first, a page at a time.", params(ListSubscriptions),
    responses((status = 200, description = "A page", body = Page<SubscriptionView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListSubscriptions>,
) -> Result<Json<Page<SubscriptionView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let all = subscription::page(&mut tx, steward.tenant_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(all, size, |s| s.id.to_string())))
}

/// `POST /v1/subscription/trial`
#[utoipa::path(
    post, path = "/v1/subscription/trial", tag = "Billing", operation_id = "begin_trial", summary = "Try a plan",
    description = "Once a plan, and only who has none. It is to be paid when the trial ends; else it ends a week later. A plan without a trial \
                   begins with a payment for it.",
    request_body = BeginTrial,
    responses(
        (status = 201, description = "Begun", body = SubscriptionView),
        (status = 404, description = "`plan.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`subscription.no_trial`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn trial(
    State(app): State<App>,
    person: SignedIn,
    Json(body): Json<BeginTrial>,
) -> Result<(StatusCode, Json<SubscriptionView>), Problem> {
    let (tenant_id, user_id) = (person.tenant_id, person.user_id);
    let mut tx = begin(&app, &person).await?;
    let plan = plans::found(&mut tx, tenant_id, body.plan_id).await?;
    let begun = subscription::begin_trial(&mut tx, tenant_id, user_id, &plan, &body.currency, body.interval).await?;
    let begun = begun.ok_or_else(|| {
        let detail =
            "there is no trial for you: you have a plan, or had this trial, or the plan has none at this price";
        Problem::new(Code::SubscriptionNoTrial, detail)
    })?;
    let id = begun.id;
    keeping::keep(&app.workflows, &mut tx, tenant_id, id, None).await.map_err(|e| Problem::internal(&e))?;
    record(&mut tx, &person, "subscription.trial", id).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::CREATED, Json(begun.into())))
}

/// `POST /v1/subscription/cancel`
#[utoipa::path(
    post, path = "/v1/subscription/cancel", tag = "Billing", operation_id = "cancel_subscription", summary = "End your plan",
    description = "When the period ends; until then you have what you paid for. Doing so twice is harmless.",
    responses(
        (status = 200, description = "It ends", body = SubscriptionView),
        (status = 404, description = "`subscription.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`subscription.past_due`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn cancel(State(app): State<App>, person: SignedIn) -> Result<Json<SubscriptionView>, Problem> {
    set_cancel(&app, &person, true).await
}

/// `POST /v1/subscription/resume`
#[utoipa::path(
    post, path = "/v1/subscription/resume", tag = "Billing", operation_id = "resume_subscription", summary = "Keep your plan after all",
    description = "As long as the period has not ended. Doing so twice is harmless.",
    responses(
        (status = 200, description = "It goes on", body = SubscriptionView),
        (status = 404, description = "`subscription.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`subscription.past_due`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn resume(State(app): State<App>, person: SignedIn) -> Result<Json<SubscriptionView>, Problem> {
    set_cancel(&app, &person, false).await
}

async fn set_cancel(app: &App, person: &SignedIn, cancel: bool) -> Result<Json<SubscriptionView>, Problem> {
    let mut tx = begin(app, person).await?;
    let current = live(&mut tx, person).await?;
    if !subscription::set_cancel(&mut tx, person.tenant_id, current.id, cancel).await? {
        let detail = "the plan is to be paid: do so, or it ends by itself within a week";
        return Err(Problem::new(Code::SubscriptionPastDue, detail));
    }
    record(&mut tx, person, if cancel { "subscription.cancel" } else { "subscription.resume" }, current.id).await?;
    let after = live(&mut tx, person).await?;
    wake(app, &mut tx, &after).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(after.into()))
}

/// `GET /v1/subscription/change`: what another plan costs, by the day.
#[utoipa::path(
    get, path = "/v1/subscription/change", tag = "Billing", operation_id = "preview_change", summary = "See what another plan costs",
    description = "A dearer one changes at once and costs the difference for the days that are left; a cheaper one follows when the period ends \
                   and costs nothing now. What is shown holds until the day is over.",
    params(AskChange),
    responses(
        (status = 200, description = "What it costs", body = ChangeView),
        (status = 404, description = "`subscription.not_found`, `plan.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn preview(
    State(app): State<App>,
    person: SignedIn,
    Query(query): Query<AskChange>,
) -> Result<Json<ChangeView>, Problem> {
    let mut tx = begin(&app, &person).await?;
    let current = live(&mut tx, &person).await?;
    let quote = quoted(&mut tx, &current, query.plan_id).await?;
    Ok(Json(ChangeView { object: "plan_change", quote, subscription: current.into() }))
}

/// `POST /v1/subscription/change`: only as it was shown.
#[utoipa::path(
    post, path = "/v1/subscription/change", tag = "Billing", operation_id = "change_subscription", summary = "Have another plan",
    description = "As it was shown. Where nothing is due, it follows when the period ends. Where something is due, it changes once that is paid: \
                   make a payment for the plan. Choosing the plan you have takes a change back that has not come yet.",
    request_body = AcceptChange,
    responses(
        (status = 200, description = "Accepted", body = ChangeView),
        (status = 404, description = "`subscription.not_found`, `plan.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`subscription.preview_changed`, `subscription.past_due`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn change(
    State(app): State<App>,
    person: SignedIn,
    Json(body): Json<AcceptChange>,
) -> Result<Json<ChangeView>, Problem> {
    let mut tx = begin(&app, &person).await?;
    let current = live(&mut tx, &person).await?;
    if current.state == "past_due" {
        return Err(Problem::new(Code::SubscriptionPastDue, "pay what is due first"));
    }
    let quote = quoted(&mut tx, &current, body.plan_id).await?;
    if quote.due != body.due {
        let detail = format!("it costs {} now; look at the change again", quote.due);
        return Err(Problem::new(Code::SubscriptionPreviewChanged, detail));
    }
    if quote.due == 0 {
        let next = Some(body.plan_id).filter(|id| *id != current.plan_id);
        subscription::set_next(&mut tx, person.tenant_id, current.id, next).await?;
        record(&mut tx, &person, "subscription.change", current.id).await?;
    }
    let after = live(&mut tx, &person).await?;
    wake(&app, &mut tx, &after).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(ChangeView { object: "plan_change", quote, subscription: after.into() }))
}

async fn begin(app: &App, person: &SignedIn) -> Result<flatrender_workflows::models::scope::Scoped, Problem> {
    Ok(app.db.begin(Scope::tenant(Role::Identity, person.tenant_id)).await?)
}

async fn live(db: Db<'_>, person: &SignedIn) -> Result<Subscription, Problem> {
    let found = subscription::find_live(db, person.tenant_id, person.user_id).await?;
    found.ok_or_else(|| Problem::not_found(Code::SubscriptionNotFound, "subscription"))
}

async fn quoted(db: Db<'_>, current: &Subscription, plan_id: Uuid) -> Result<Quote, Problem> {
    let interval = Interval::parse(&current.interval).unwrap_or(Interval::Month);
    let amount = match plan_id == current.plan_id {
        true => Some(current.amount),
        false => plan::price(&mut *db, plan_id, &current.currency, interval).await?,
    };
    let amount = amount.ok_or_else(|| Problem::not_found(Code::PlanNotFound, "plan"))?;
    Ok(subscription::quote_now(db, current, amount, true).await?)
}

/// Tells the run that keeps it to look again, or starts one.
async fn wake(app: &App, db: Db<'_>, subscription: &Subscription) -> Result<(), Problem> {
    keeping::wake(&app.workflows, db, subscription).await.map_err(|e| Problem::internal(&e))
}

async fn record(db: Db<'_>, person: &SignedIn, action: &str, id: Uuid) -> sqlx::Result<()> {
    let entry = Entry {
        tenant_id: person.tenant_id,
        actor: &format!("user:{}", person.user_id),
        action,
        object: &format!("subscription:{id}"),
        reason: None,
        before: None,
        after: None,
        ip: None,
        request_id: Some(&crate::request_id::current()),
    };
    audit::record(db, &entry).await
}
