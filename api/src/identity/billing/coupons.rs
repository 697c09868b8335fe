//! `/v1/coupons`: reductions by code.

use super::plans::is_currency;
use crate::{
    app::App,
    auth::SignedIn,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::{
        coupon::{self, Coupon, NewCoupon, Refusal},
        plan::Interval,
        subscription,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A coupon.
#[derive(Debug, Serialize, ToSchema)]
pub struct CouponView {
    /// Its id.
    id: Uuid,
    /// Always `coupon`.
    #[schema(example = "coupon")]
    object: &'static str,
    /// What people type; upper and lower case are the same.
    #[schema(example = "SPRING")]
    code: String,
    /// `percent` or `amount`.
    #[schema(example = "percent")]
    kind: String,
    /// Percent, or minor units of `currency`.
    #[schema(example = 20)]
    value: i64,
    /// Of an `amount`.
    currency: Option<String>,
    /// How often it can be used in all.
    #[schema(example = 100)]
    max_redemptions: i32,
    /// How often it is used: by payments that are paid or on their way.
    #[schema(example = 7)]
    redeemed: i32,
    /// How often by one person.
    #[schema(example = 1)]
    per_user_limit: i32,
    /// From when on.
    valid_from: DateTime<Utc>,
    /// Until when.
    valid_to: DateTime<Utc>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<Coupon> for CouponView {
    fn from(c: Coupon) -> Self {
        Self {
            id: c.id,
            object: "coupon",
            code: c.code,
            kind: c.kind,
            value: c.value,
            currency: c.currency,
            max_redemptions: c.max_redemptions,
            redeemed: c.redeemed,
            per_user_limit: c.per_user_limit,
            valid_from: c.valid_from,
            valid_to: c.valid_to,
            created_at: c.created_at,
        }
    }
}

fn revised(coupon: Coupon) -> Revised<CouponView> {
    Revised::ok(coupon.rev, coupon.into())
}

/// A coupon to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCoupon {
    /// 3 to 64 of `A-Z a-z 0-9 _ -`.
    #[schema(example = "SPRING", pattern = "^[A-Za-z0-9_-]{3,64}$")]
    code: String,
    /// `percent` or `amount`.
    #[schema(example = "percent", pattern = "^(percent|amount)$")]
    kind: String,
    /// Percent, 1 to 100, or minor units of `currency`.
    #[schema(example = 20, minimum = 1)]
    value: i64,
    /// Of an `amount`, and of it alone.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// How often it can be used in all.
    #[schema(example = 100, minimum = 1)]
    max_redemptions: i32,
    /// How often by one person; once when absent.
    #[schema(example = 1, minimum = 1)]
    per_user_limit: Option<i32>,
    /// From when on; from now on when absent.
    valid_from: Option<DateTime<Utc>>,
    /// Until when.
    valid_to: DateTime<Utc>,
}

/// What to change of a coupon; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateCoupon {
    /// How often it can be used in all; not less than it is.
    #[schema(example = 200, minimum = 1)]
    max_redemptions: Option<i32>,
    /// Until when.
    valid_to: Option<DateTime<Utc>>,
}

/// Which coupons to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListCoupons {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this coupon: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// A code, and what it is to be used for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckCoupon {
    /// The code.
    #[schema(example = "SPRING")]
    code: String,
    /// The plan that is to be paid.
    plan_id: Uuid,
    /// In which currency.
    #[schema(example = "USD")]
    currency: String,
    /// Over how long.
    interval: Interval,
}

/// What a code takes off.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reduced {
    /// Always `reduction`.
    #[schema(example = "reduction")]
    object: &'static str,
    /// What it costs without, in minor units.
    #[schema(example = 1900)]
    amount: i64,
    /// What the code takes off.
    #[schema(example = 380)]
    reduction: i64,
    /// What is left to pay.
    #[schema(example = 1520)]
    due: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
}

/// `GET /v1/coupons`
#[utoipa::path(
    get, path = "/v1/coupons", tag = "Billing", operation_id = "list_coupons", summary = "List coupons",
    description = "Newest first, a page at a time.", params(ListCoupons),
    responses((status = 200, description = "A page", body = Page<CouponView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListCoupons>,
) -> Result<Json<Page<CouponView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let coupons = coupon::list(&mut tx, steward.tenant_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(coupons, size, |c| c.id.to_string())))
}

/// `POST /v1/coupons`
#[utoipa::path(
    post, path = "/v1/coupons", tag = "Billing", operation_id = "create_coupon", summary = "Make a coupon",
    description = "A code is there once, in upper or lower case.", request_body = CreateCoupon,
    responses(
        (status = 201, description = "Made", body = CouponView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`coupon.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateCoupon>,
) -> Result<Revised<CouponView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    body.check(subscription::now(&mut tx).await?)?;
    let new = NewCoupon {
        code: &body.code,
        kind: &body.kind,
        value: body.value,
        currency: body.currency.as_deref(),
        max_redemptions: body.max_redemptions,
        per_user_limit: body.per_user_limit.unwrap_or(1),
        valid_from: body.valid_from,
        valid_to: body.valid_to,
    };
    let id = coupon::create(&mut tx, steward.tenant_id, &new).await?;
    let id = id.ok_or_else(|| Problem::new(Code::CouponExists, "there is a coupon of this code"))?;
    let coupon = found(&mut tx, steward.tenant_id, id).await?;
    steward.record(&mut tx, "coupon.create", &object(id), made(&coupon)).await?;
    tx.commit().await?;
    Ok(Revised { status: StatusCode::CREATED, ..revised(coupon) })
}

/// `GET /v1/coupons/{id}`
#[utoipa::path(
    get, path = "/v1/coupons/{id}", tag = "Billing", operation_id = "get_coupon", summary = "Get a coupon",
    description = "With how often it is used.", params(("id" = Uuid, Path, description = "The coupon")),
    responses(
        (status = 200, description = "The coupon", body = CouponView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`coupon.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Revised<CouponView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    Ok(revised(found(&mut tx, steward.tenant_id, id).await?))
}

/// `PATCH /v1/coupons/{id}`
#[utoipa::path(
    patch, path = "/v1/coupons/{id}", tag = "Billing", operation_id = "update_coupon", summary = "Change a coupon",
    description = "How often and until when it can be used; what it is worth stays.",
    params(("id" = Uuid, Path, description = "The coupon"), ("If-Match" = Option<String>, Header, description = "`ETag` of the coupon as you know it")),
    request_body = UpdateCoupon,
    responses(
        (status = 200, description = "The coupon, afterwards", body = CouponView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`coupon.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`coupon.in_use`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    known: IfMatch,
    Json(body): Json<UpdateCoupon>,
) -> Result<Revised<CouponView>, Problem> {
    if body.max_redemptions.is_some_and(|most| most < 1) {
        return Err(Problem::fault("/max_redemptions", "coupon.value", "a coupon can be used once at least"));
    }
    let mut tx = steward.begin(&app).await?;
    let before = held(&mut tx, steward.tenant_id, id).await?;
    known.check(before.rev)?;
    if body.valid_to.is_some_and(|to| to <= before.valid_from || to > far(before.created_at)) {
        return Err(Problem::fault(
            "/valid_to",
            "coupon.time",
            "a coupon ends after it begins, within a hundred years",
        ));
    }
    if !coupon::update(&mut tx, steward.tenant_id, id, body.max_redemptions, body.valid_to).await? {
        return Err(Problem::new(Code::CouponInUse, "the coupon was used more often than that"));
    }
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(before), after: Some(&after) };
    steward.record(&mut tx, "coupon.update", &object(id), change).await?;
    tx.commit().await?;
    Ok(revised(after))
}

/// `DELETE /v1/coupons/{id}`: it ends; what was bought with it stays.
#[utoipa::path(
    delete, path = "/v1/coupons/{id}", tag = "Billing", operation_id = "end_coupon", summary = "End a coupon",
    description = "Nobody can use it from now on. What is on its way may still be paid; doing so twice is harmless.",
    params(("id" = Uuid, Path, description = "The coupon"), ("If-Match" = Option<String>, Header, description = "`ETag` of the coupon as you know it")),
    responses(
        (status = 204, description = "Ended"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`coupon.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn end(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    known: IfMatch,
) -> Result<StatusCode, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = held(&mut tx, steward.tenant_id, id).await?;
    known.check(before.rev)?;
    coupon::end(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(before), after: None::<()> };
    steward.record(&mut tx, "coupon.end", &object(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/coupons/check`: what a code takes off what a plan costs you. Nothing is used.
#[utoipa::path(
    post, path = "/v1/coupons/check", tag = "Billing", operation_id = "check_coupon", summary = "See what a code takes off",
    description = "Of what the plan costs you at the moment. Nothing is used yet: another may be faster.", request_body = CheckCoupon,
    responses(
        (status = 200, description = "What it takes off", body = Reduced),
        (status = 404, description = "`plan.not_found`: it is not sold to you like this", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`coupon.refused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn check(
    State(app): State<App>,
    person: SignedIn,
    Json(body): Json<CheckCoupon>,
) -> Result<Json<Reduced>, Problem> {
    let (tenant_id, user_id) = (person.tenant_id, person.user_id);
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, tenant_id)).await?;
    let price = subscription::price(&mut tx, tenant_id, user_id, body.plan_id, &body.currency, body.interval).await?;
    let amount = price.ok_or_else(|| Problem::not_found(Code::PlanNotFound, "plan"))?;
    let reduced = coupon::check(&mut tx, tenant_id, &body.code, user_id, amount, &body.currency).await?;
    let reduction = reduced.map_err(refused)?.amount;
    let (currency, due) = (body.currency, amount - reduction);
    Ok(Json(Reduced { object: "reduction", amount, reduction, due, currency }))
}

/// What somebody is told whose coupon takes nothing off.
pub fn refused(why: Refusal) -> Problem {
    Problem::new(Code::CouponRefused, why.to_string())
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Coupon, Problem> {
    coupon::find(db, tenant_id, id).await?.ok_or_else(missing)
}

async fn held(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Coupon, Problem> {
    coupon::hold(db, tenant_id, id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found(Code::CouponNotFound, "coupon")
}

fn object(id: Uuid) -> String {
    format!("coupon:{id}")
}

/// A hundred years later.
fn far(at: DateTime<Utc>) -> DateTime<Utc> {
    at.checked_add_days(chrono::Days::new(36_525)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl CreateCoupon {
    fn check(&self, now: DateTime<Utc>) -> Result<(), Problem> {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if !(3..=64).contains(&self.code.len()) || !self.code.bytes().all(letters) {
            return Err(Problem::fault("/code", "code.shape", "a code is 3 to 64 of A-Z a-z 0-9 _ -"));
        }
        let value = |detail| Err(Problem::fault("/value", "coupon.value", detail));
        match (self.kind.as_str(), self.currency.as_deref()) {
            ("percent", None) if !(1..=100).contains(&self.value) => return value("percent are 1 to 100"),
            ("percent", None) => {}
            ("amount", Some(currency)) if is_currency(currency) && self.value > 0 => {}
            ("amount", Some(_)) => return value("an amount is more than 0, in a currency such as USD"),
            _ => {
                let detail = "a coupon is percent without a currency, or amount with one";
                return Err(Problem::fault("/kind", "coupon.kind", detail));
            }
        }
        if self.max_redemptions < 1 || self.per_user_limit.is_some_and(|most| most < 1) {
            return Err(Problem::fault("/max_redemptions", "coupon.value", "a coupon can be used once at least"));
        }
        let from = self.valid_from.unwrap_or(now);
        if self.valid_to <= from || self.valid_to > far(now) || from.timestamp() < 0 {
            return Err(Problem::fault(
                "/valid_to",
                "coupon.time",
                "a coupon ends after it begins, within a hundred years",
            ));
        }
        Ok(())
    }
}
