//! `/v1/plans`: what a tenant sells.

use super::credits;
use crate::{
    app::App,
    auth::Viewer,
    extract::{Json, Path},
    identity::{Change, Steward, Trustee, made},
    openapi::Words,
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Db, Role,
    identity::plan::{self, ENTITLEMENTS, NewPlan, Plan, Price},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};
use uuid::Uuid;

/// Prices of a version.
const MOST_PRICES: usize = 100;
/// The largest price, in minor units: what is beyond is a mistake.
const MOST_AMOUNT: i64 = 1_000_000_000_000_000;
/// The largest entitlement: an exbibyte.
const MOST_VALUE: i64 = 1 << 60;

/// A version of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanView {
    /// Its id: of this version.
    id: Uuid,
    /// Always `plan`.
    #[schema(example = "plan")]
    object: &'static str,
    /// What all its versions are called. The one called `free` is what people have who bought none.
    #[schema(example = "pro")]
    code: String,
    /// From 1.
    #[schema(example = 2)]
    version: i32,
    /// Its name by language.
    #[schema(example = json!({"en": "Pro", "fa": "حرفه‌ای"}))]
    name: BTreeMap<String, String>,
    /// `draft`, `active` (it is sold) or `retired` (who has it keeps it).
    #[schema(example = "active")]
    state: String,
    /// Days before the first payment; 0 without a trial.
    #[schema(example = 14)]
    trial_days: i32,
    /// What it costs.
    prices: Vec<Price>,
    /// What it allows: `render_minutes` a period, `storage_bytes`, `max_resolution` (pixels of a film's shorter side), `concurrency` (films
    /// at a time), `watermark` (1: every film has one), `retention_days`. What is not there is not limited.
    #[schema(example = json!({"render_minutes": 60, "max_resolution": 1080, "concurrency": 3}))]
    entitlements: BTreeMap<String, i64>,
    /// When this version was made.
    created_at: DateTime<Utc>,
}

impl From<Plan> for PlanView {
    fn from(p: Plan) -> Self {
        Self {
            id: p.id,
            object: "plan",
            code: p.code,
            version: p.version,
            name: p.name.0,
            state: p.state,
            trial_days: p.trial_days,
            prices: p.prices.0,
            entitlements: p.entitlements.0,
            created_at: p.created_at,
        }
    }
}

/// Plans.
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By code, the newest version first.
    data: Vec<PlanView>,
    /// Always false.
    has_more: bool,
}

/// A version to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePlan {
    /// What all its versions are called: 1 to 64 of `a-z 0-9 _ -`.
    #[schema(example = "pro", pattern = "^[a-z0-9_-]{1,64}$")]
    code: String,
    /// Its name by language.
    #[schema(value_type = Words)]
    name: BTreeMap<String, String>,
    /// Days before the first payment, 0 to 365; none when absent.
    #[serde(default)]
    #[schema(example = 14, minimum = 0, maximum = 365)]
    trial_days: i32,
    /// What it costs; each currency and interval once.
    #[schema(example = json!([{"currency": "USD", "interval": "month", "amount": 1900}]), max_items = 100)]
    prices: Vec<Price>,
    /// What it allows.
    #[serde(default)]
    #[schema(schema_with = entitlements)]
    entitlements: BTreeMap<String, i64>,
}

/// How entitlements are described: see [`CreatePlan::check`].
#[expect(deprecated, reason = "as all derived schemas have it")]
fn entitlements() -> Object {
    let name = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(ENTITLEMENTS));
    let value = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(MOST_VALUE));
    ObjectBuilder::new()
        .description(Some("What it allows."))
        .property_names(Some(name))
        .additional_properties(Some(value))
        .example(Some(json!({"render_minutes": 60, "max_resolution": 1080, "concurrency": 3})))
        .build()
}

/// `GET /v1/plans`
#[utoipa::path(
    get, path = "/v1/plans", tag = "Billing", operation_id = "list_plans", summary = "List what is sold",
    description = "The version of each plan that is sold now, with its prices and what it allows.",
    responses((status = 200, description = "All of them", body = PlanList))
)]
pub async fn list(State(app): State<App>, Viewer(caller): Viewer) -> Result<Json<PlanList>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    Ok(listed(plan::list(&mut tx, caller.id, false).await?))
}

/// `GET /v1/plans/versions`
#[utoipa::path(
    get, path = "/v1/plans/versions", tag = "Billing", operation_id = "list_plan_versions", summary = "List all versions of plans",
    description = "Drafts and retired ones, too.", responses((status = 200, description = "All of them", body = PlanList))
)]
pub async fn versions(State(app): State<App>, steward: Steward) -> Result<Json<PlanList>, Problem> {
    let mut tx = steward.begin(&app).await?;
    Ok(listed(plan::list(&mut tx, steward.tenant_id, true).await?))
}

/// `GET /v1/plans/{id}`
#[utoipa::path(
    get, path = "/v1/plans/{id}", tag = "Billing", operation_id = "get_plan", summary = "Get a version of a plan",
    description = "Also one that is sold no longer: somebody may have it.", params(("id" = Uuid, Path, description = "The version")),
    responses(
        (status = 200, description = "The version", body = PlanView),
        (status = 404, description = "`plan.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Path(id): Path<Uuid>,
) -> Result<Json<PlanView>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    Ok(Json(found(&mut tx, caller.id, id).await?.into()))
}

/// `POST /v1/plans`: the next version, as a draft.
#[utoipa::path(
    post, path = "/v1/plans", tag = "Billing", operation_id = "create_plan", summary = "Make a version of a plan",
    description = "As a draft, which nobody sees until it is activated. Who has an older version keeps it, at its price.",
    request_body = CreatePlan,
    responses(
        (status = 201, description = "Made", body = PlanView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreatePlan>,
) -> Result<(StatusCode, Json<PlanView>), Problem> {
    body.check()?;
    let new = NewPlan {
        code: &body.code,
        name: &body.name,
        trial_days: body.trial_days,
        prices: &body.prices,
        entitlements: &body.entitlements,
    };
    let mut tx = steward.begin(&app).await?;
    let id = plan::create(&mut tx, steward.tenant_id, &new).await?;
    let plan = found(&mut tx, steward.tenant_id, id).await?;
    steward.record(&mut tx, "plan.create", &object(id), made(&plan)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(plan.into())))
}

/// `POST /v1/plans/{id}/activate`
#[utoipa::path(
    post, path = "/v1/plans/{id}/activate", tag = "Billing", operation_id = "activate_plan", summary = "Sell a version",
    description = "From now on, instead of the version that was sold before, which retires. Doing so twice is harmless. With the first one that \
                   has a price and minutes films cost credits, unless `PUT /v1/credits/terms` has said that they do not.",
    params(("id" = Uuid, Path, description = "The version")),
    responses(
        (status = 200, description = "It is sold", body = PlanView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`plan.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`plan.retired`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn activate(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<Json<PlanView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    if !plan::activate(&mut tx, steward.tenant_id, id).await? {
        return Err(Problem::new(Code::PlanRetired, "this version is retired; make a new one"));
    }
    let after = found(&mut tx, steward.tenant_id, id).await?;
    if after.sells_credits() {
        credits::sold(&mut tx, &steward).await?;
    }
    let change = Change { before: Some(before), after: Some(&after) };
    steward.record(&mut tx, "plan.activate", &object(id), change).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// `POST /v1/plans/{id}/retire`
#[utoipa::path(
    post, path = "/v1/plans/{id}/retire", tag = "Billing", operation_id = "retire_plan", summary = "Sell a version no longer",
    description = "Who has it keeps it, and it is renewed at its price. Doing so twice is harmless.",
    params(("id" = Uuid, Path, description = "The version")),
    responses(
        (status = 200, description = "It is sold no longer", body = PlanView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`plan.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn retire(State(app): State<App>, steward: Trustee, Path(id): Path<Uuid>) -> Result<Json<PlanView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    plan::retire(&mut tx, steward.tenant_id, id).await?;
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(before), after: Some(&after) };
    steward.record(&mut tx, "plan.retire", &object(id), change).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

fn listed(plans: Vec<Plan>) -> Json<PlanList> {
    Json(PlanList { object: "list", data: plans.into_iter().map(Into::into).collect(), has_more: false })
}

/// A version of a plan of the tenant.
///
/// # Errors
/// `plan.not_found`
pub(super) async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Plan, Problem> {
    plan::find(db, tenant_id, id).await?.ok_or_else(|| Problem::not_found(Code::PlanNotFound, "plan"))
}

fn object(id: Uuid) -> String {
    format!("plan:{id}")
}

/// Whether a text in several languages is one.
///
/// # Errors
/// `request.invalid`
pub(crate) fn check_words(pointer: &str, words: &BTreeMap<String, String>) -> Result<(), Problem> {
    let language = |l: &str| (2..=35).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let fits = |text: &str| (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    match !words.is_empty() && words.len() <= 10 && words.iter().all(|(l, text)| language(l) && fits(text)) {
        true => Ok(()),
        false => {
            Err(Problem::fault(pointer, "words.shape", "say it in 1 to 10 languages, in 1 to 200 characters each"))
        }
    }
}

impl CreatePlan {
    fn check(&self) -> Result<(), Problem> {
        let code = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
        if !(1..=64).contains(&self.code.len()) || !self.code.bytes().all(code) {
            return Err(Problem::fault("/code", "code.shape", "a code is 1 to 64 of a-z 0-9 _ -"));
        }
        check_words("/name", &self.name)?;
        if !(0..=365).contains(&self.trial_days) {
            return Err(Problem::fault("/trial_days", "plan.trial", "a trial lasts 0 to 365 days"));
        }
        let wrong = |n: usize, detail: &str| Err(Problem::fault(format!("/prices/{n}"), "plan.price", detail));
        if self.prices.len() > MOST_PRICES {
            return wrong(MOST_PRICES, "there are at most 100 prices");
        }
        let mut seen = BTreeSet::new();
        for (n, price) in self.prices.iter().enumerate() {
            if !is_currency(&price.currency) || !(1..=MOST_AMOUNT).contains(&price.amount) {
                return wrong(n, "a price is a whole number of minor units, more than 0, in a currency such as USD");
            }
            if !seen.insert((&price.currency, price.interval)) {
                return wrong(n, "name each currency and interval once");
            }
        }
        for (key, value) in &self.entitlements {
            if !ENTITLEMENTS.contains(&key.as_str()) || !(0..=MOST_VALUE).contains(value) {
                let detail = format!("a plan allows {}, each a whole number from 0", ENTITLEMENTS.join(", "));
                return Err(Problem::fault(format!("/entitlements/{key}"), "plan.entitlement", detail));
            }
        }
        Ok(())
    }
}

/// Whether a text is a currency of ISO 4217, by its shape.
pub(super) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}
