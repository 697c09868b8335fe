//! `/v1/payments`: money that somebody means to pay, and what becomes of it.

use super::{coupons::refused, decisions::DecisionView};
use crate::{
    admission,
    app::App,
    auth::{self, Actor, SignedIn},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee},
    problem::{Code, Problem, ProblemBody},
    render::submit,
};
use axum::{
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, request::Parts},
};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    contracts::pay::Gateway as Provider,
    definitions::payment::{HINT, TakePayment},
    models::{
        Db, Role, Scope,
        identity::{
            audit::{self, Entry},
            gateway,
            payment::{self, MOST_OPEN, NewPayment, Payment, Unsold, Wanted, state},
            payment_decision,
            plan::Interval,
            tenant_domain,
            user_session::ACCESS_KIND,
        },
        scope::Scoped,
    },
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Longest key of ours: the payer stands before it.
const KEY_BYTES: usize = 200;

/// A payment.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentView {
    /// Its id.
    id: Uuid,
    /// Always `payment`.
    #[schema(example = "payment")]
    object: &'static str,
    /// Who pays.
    user_id: Uuid,
    /// `plan` or `credits`.
    #[schema(example = "plan")]
    purpose: String,
    /// The version of the plan.
    plan_id: Option<Uuid>,
    /// Seconds of rendering.
    credits: Option<i64>,
    /// To pay, in minor units.
    #[schema(example = 1520)]
    amount: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// What went back, or is on its way back.
    #[schema(example = 0)]
    refunded_amount: i64,
    /// `created`, `pending` (it can be paid), `verifying`, `paid`, `failed`, `expired`, `cancelled`, `review` (somebody looks at it),
    /// `refunding`, `partially_refunded` or `refunded`.
    #[schema(example = "pending")]
    state: String,
    /// `stripe`, `zarinpal` or `manual`.
    #[schema(example = "stripe")]
    provider: String,
    /// Where you pay; null until the gateway has said so, a moment after the payment was opened.
    redirect_url: Option<String>,
    /// What to do instead: whereto, and what to write on the transfer.
    instructions: Option<String>,
    /// Why it failed.
    failure_code: Option<String>,
    /// Why somebody looks at it.
    review_code: Option<String>,
    /// Until when it can be paid.
    expires_at: DateTime<Utc>,
    /// When it was.
    paid_at: Option<DateTime<Utc>>,
    /// When it was opened.
    created_at: DateTime<Utc>,
}

impl From<Payment> for PaymentView {
    fn from(p: Payment) -> Self {
        let open = p.is_open();
        Self {
            id: p.id,
            object: "payment",
            user_id: p.user_id,
            purpose: p.purpose,
            plan_id: p.plan_id,
            credits: p.credits,
            amount: p.amount,
            currency: p.currency,
            refunded_amount: p.refunded_amount,
            state: p.state,
            provider: p.provider,
            redirect_url: p.redirect_url.filter(|_| open),
            instructions: p.instructions.filter(|_| open),
            failure_code: p.failure_code,
            review_code: p.review_code,
            expires_at: p.expires_at,
            paid_at: p.paid_at,
            created_at: p.created_at,
        }
    }
}

/// A payment, and what people have said of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PaymentDetail {
    /// The payment.
    #[serde(flatten)]
    payment: PaymentView,
    /// What people have said of it, newest first; empty for who pays.
    decisions: Vec<DecisionView>,
}

/// What to pay for, and how. A plan takes `plan_id`, `currency` and `interval`; credits take `credit_pack_id`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenPayment {
    /// `stripe`, `zarinpal` or `manual`.
    #[schema(example = "stripe", pattern = "^(stripe|zarinpal|manual)$")]
    provider: String,
    /// The version of a plan.
    plan_id: Option<Uuid>,
    /// In which currency.
    #[schema(example = "USD", pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
    /// Over how long.
    interval: Option<Interval>,
    /// Or a pack of credits.
    credit_pack_id: Option<Uuid>,
    /// A coupon.
    #[schema(example = "SPRING")]
    coupon: Option<String>,
    /// What you were shown that it costs; when it costs something else meanwhile, nothing happens.
    #[schema(example = 1520)]
    expected_amount: Option<i64>,
    /// Where you go afterwards: a page of ours, or of a domain of yours.
    #[schema(
        example = "https://films.example/billing",
        max_length = 2048,
        pattern = r"^\s*[Hh][Tt][Tt][Pp][Ss]?:[\s\S]+$"
    )]
    return_url: Option<String>,
}

/// Who looks at payments, and whose they see: a person their own, or everybody's where they manage the tenant or pay for it; a key with
/// the scope for it everybody's.
#[derive(Debug, Clone)]
pub struct Onlooker {
    /// The tenant.
    pub tenant_id: Uuid,
    /// Whose they see; none: everybody's.
    pub whose: Option<Uuid>,
    /// Who it is, for the audit: not always somebody who manages the tenant.
    pub(super) acting: Steward,
}

impl FromRequestParts<App> for Onlooker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = auth::bearer(&parts.headers)?;
        if !token.starts_with(ACCESS_KIND) {
            let holder = admission::by_key(app, parts, token, auth::wrong_key).await?;
            let acting = Steward::acting(holder.tenant_id, Actor::Key(holder.key_id), parts);
            return Ok(Self { tenant_id: holder.tenant_id, whose: None, acting });
        }
        let person = auth::person_with(parts, app, "read").await?;
        let acting = Steward::acting(person.tenant_id, Actor::User(person.user_id), parts);
        Ok(Self { tenant_id: person.tenant_id, whose: whose(&person), acting })
    }
}

impl Onlooker {
    /// A transaction in which the rows of the tenant are seen.
    pub(super) async fn begin(&self, app: &App) -> Result<Scoped, Problem> {
        Ok(app.db.begin(Scope::tenant(Role::Identity, self.tenant_id)).await?)
    }
}

/// Which payments to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListPayments {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this payment: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
    /// Those in this state.
    state: Option<String>,
}

/// `POST /v1/payments`: the price is the server's. Answers 201 with the payment; where it is paid follows a moment later.
#[utoipa::path(
    post, path = "/v1/payments", tag = "Billing", operation_id = "open_payment", summary = "Pay for a plan or credits",
    description = "Freezes what it costs at the moment and sets a coupon aside. Ask for the payment again until `redirect_url` or `instructions` \
                   is there. With an `Idempotency-Key` it is opened once, however often this is sent.",
    params(("Idempotency-Key" = Option<String>, Header, max_length = 200, pattern = r"^[\t -~]+$", description = "1 to 200 printable ASCII characters, yours")), request_body = OpenPayment,
    responses(
        (status = 201, description = "Opened", body = PaymentView),
        (status = 200, description = "It was opened before with this key", body = PaymentView),
        (status = 404, description = "`gateway.not_found`, `plan.not_found`, `credit_pack.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`coupon.refused`, `payment.price_changed`, `payment.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `idempotency.key_reused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn open(
    State(app): State<App>,
    person: SignedIn,
    headers: HeaderMap,
    Json(body): Json<OpenPayment>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let (tenant_id, user_id, id) = (person.tenant_id, person.user_id, Uuid::now_v7());
    let key = submit::idempotency_key(&headers)?.map_or_else(|| id.to_string(), ToOwned::to_owned);
    if key.len() > KEY_BYTES {
        return Err(Problem::new(
            Code::HeaderInvalid,
            "an idempotency key is 1 to 200 printable ASCII characters here",
        ));
    }
    // Two people who choose the same key do not meet.
    let key = format!("{user_id}:{key}");
    let sha256 = Sha256::digest(serde_json::to_vec(&body).unwrap_or_default()).to_vec();
    let (provider, wanted) = body.check()?;
    let mut tx = begin(&app, &person).await?;
    if let Some(known) = replay(&mut tx, tenant_id, &key, &sha256).await? {
        return Ok((StatusCode::OK, Json(known.into())));
    }
    let return_url = match &body.return_url {
        Some(url) => Some(check_return(&app, &mut tx, tenant_id, url).await?),
        None => None,
    };
    let gateway = gateway::find_active(&mut tx, tenant_id, provider).await?;
    let gateway = gateway.ok_or_else(|| Problem::not_found(Code::GatewayNotFound, "payment gateway"))?;
    // Whoever else of them opens one waits: they are counted.
    payment::take_turn(&mut tx, user_id).await?;
    if payment::count_open(&mut tx, tenant_id, user_id).await? >= MOST_OPEN {
        let detail = "you have many payments under way: pay or cancel some of them first";
        return Err(Problem::new(Code::PaymentTooMany, detail));
    }
    let quoted = payment::quote(&mut tx, tenant_id, user_id, &wanted, body.coupon.as_deref()).await?;
    let quoted = quoted.map_err(|why| match (why, &wanted) {
        (Unsold::Coupon(why), _) => refused(why),
        (Unsold::Unknown, Wanted::Plan { .. }) => Problem::not_found(Code::PlanNotFound, "plan"),
        (Unsold::Unknown, Wanted::Credits { .. }) => Problem::not_found(Code::CreditPackNotFound, "pack of credits"),
    })?;
    if body.expected_amount.is_some_and(|expected| expected != quoted.amount) {
        return Err(Problem::new(Code::PaymentPriceChanged, format!("it costs {} now", quoted.amount)));
    }
    let return_page = format!("{}/v1/payments/{id}/return", app.public_url);
    let take = TakePayment { tenant_id, payment_id: id, again: false, return_page };
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    let run = app.workflows.start(&mut tx, tenant_id, Some(&take.key()), take).await?;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let new = NewPayment {
        id,
        tenant_id,
        user_id,
        provider: provider.as_str(),
        gateway_id: gateway.id,
        idempotency_key: &key,
        request_sha256: &sha256,
        return_url: return_url.as_deref(),
        quoted: &quoted,
        run_id: run.run_id,
    };
    match payment::open(&mut tx, &new).await? {
        Some(true) => {}
        Some(false) => return Err(refused(flatrender_workflows::models::identity::coupon::Refusal::UsedUp)),
        // Another request with this key has committed in between.
        None => {
            drop(tx);
            let mut tx = begin(&app, &person).await?;
            let known = replay(&mut tx, tenant_id, &key, &sha256).await?.ok_or_else(missing)?;
            return Ok((StatusCode::OK, Json(known.into())));
        }
    }
    let opened = found(&mut tx, tenant_id, id).await?;
    record(&mut tx, &person, "payment.open", id).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::CREATED, Json(opened.into())))
}

/// `GET /v1/payments`
#[utoipa::path(
    get, path = "/v1/payments", tag = "Billing", operation_id = "list_payments", summary = "List payments",
    description = "Yours; of everybody for who manages the tenant or pays for it. Newest first, a page at a time.", params(ListPayments),
    responses((status = 200, description = "A page", body = Page<PaymentView>))
)]
pub async fn list(
    State(app): State<App>,
    by: Onlooker,
    Query(query): Query<ListPayments>,
) -> Result<Json<Page<PaymentView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = by.begin(&app).await?;
    let state = query.state.as_deref();
    let all = payment::list(&mut tx, by.tenant_id, by.whose, state, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(all, size, |p| p.id.to_string())))
}

/// `GET /v1/payments/{id}`
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "Billing", operation_id = "get_payment", summary = "Get a payment",
    description = "How it stands at the moment.", params(("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 200, description = "The payment", body = PaymentDetail),
        (status = 404, description = "`payment.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, by: Onlooker, Path(id): Path<Uuid>) -> Result<Json<PaymentDetail>, Problem> {
    let mut tx = by.begin(&app).await?;
    let payment = seen(&mut tx, by.tenant_id, by.whose, id).await?;
    let decisions = match by.whose {
        None => payment_decision::list(&mut tx, by.tenant_id, id).await?,
        Some(_) => vec![],
    };
    Ok(Json(PaymentDetail { payment: payment.into(), decisions: decisions.into_iter().map(Into::into).collect() }))
}

/// `POST /v1/payments/{id}/cancel`
#[utoipa::path(
    post, path = "/v1/payments/{id}/cancel", tag = "Billing", operation_id = "cancel_payment", summary = "Cancel a payment",
    description = "The gateway is asked first: what was paid meanwhile stays paid, and can be refunded. Doing so twice is harmless.",
    params(("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 202, description = "It is being cancelled", body = PaymentView),
        (status = 404, description = "`payment.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`payment.too_late`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn cancel(
    State(app): State<App>,
    person: SignedIn,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let mut tx = begin(&app, &person).await?;
    let payment = seen(&mut tx, person.tenant_id, whose(&person), id).await?;
    if !state::ask_cancel(&mut tx, person.tenant_id, id).await? {
        return Err(Problem::new(Code::PaymentTooLate, format!("the payment is {}", payment.state)));
    }
    record(&mut tx, &person, "payment.cancel", id).await?;
    let payment = found(&mut tx, person.tenant_id, id).await?;
    hint(&app, &mut tx, &payment, None).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(payment.into())))
}

/// `POST /v1/payments/{id}/verify`: asks the gateway once more.
#[utoipa::path(
    post, path = "/v1/payments/{id}/verify", tag = "Billing", operation_id = "verify_payment", summary = "Ask the gateway again",
    description = "Of a payment that is open, in review or expired: money that came late settles it where its price still holds, and goes back \
                   otherwise.",
    params(("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 202, description = "The gateway is asked", body = PaymentView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`payment.too_late`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn verify(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let mut tx = steward.begin(&app).await?;
    let payment = found(&mut tx, steward.tenant_id, id).await?;
    if !payment.is_open() && !matches!(payment.state.as_str(), "review" | "expired") {
        return Err(Problem::new(Code::PaymentTooLate, format!("the payment is {}", payment.state)));
    }
    let change = Change { before: Some(&payment), after: Some(&payment) };
    steward.record(&mut tx, "payment.verify", &object(id), change).await?;
    let tenant_id = steward.tenant_id;
    let again = TakePayment { tenant_id, payment_id: id, again: true, return_page: String::new() };
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut tx).await?;
    app.workflows.start(&mut tx, tenant_id, None, again).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(payment.into())))
}

async fn begin(app: &App, person: &SignedIn) -> Result<Scoped, Problem> {
    Ok(app.db.begin(Scope::tenant(Role::Identity, person.tenant_id)).await?)
}

/// Whose payments somebody sees: their own, or everybody's.
fn whose(person: &SignedIn) -> Option<Uuid> {
    let all = person.rights.iter().any(|right| right == "manage" || right == "pay");
    (!all).then_some(person.user_id)
}

async fn seen(db: Db<'_>, tenant_id: Uuid, whose: Option<Uuid>, id: Uuid) -> Result<Payment, Problem> {
    let payment = found(db, tenant_id, id).await?;
    if whose.is_some_and(|user| user != payment.user_id) { Err(missing()) } else { Ok(payment) }
}

pub(super) async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Payment, Problem> {
    payment::find(db, tenant_id, id).await?.ok_or_else(missing)
}

pub(super) fn missing() -> Problem {
    Problem::not_found(Code::PaymentNotFound, "payment")
}

pub(super) fn object(id: Uuid) -> String {
    format!("payment:{id}")
}

/// Has the run of a payment look, in the caller's transaction, which goes on as the tenant's identity service.
pub(super) async fn hint(app: &App, db: Db<'_>, payment: &Payment, key: Option<&str>) -> Result<(), Problem> {
    Scope::tenant(Role::Workflow, payment.tenant_id).enter(&mut *db).await?;
    let nothing = serde_json::Value::Null;
    let _ = app.workflows.signal(&mut *db, payment.workflow_run_id, HINT, key, &nothing).await?;
    Ok(Scope::tenant(Role::Identity, payment.tenant_id).enter(db).await?)
}

async fn replay(db: Db<'_>, tenant_id: Uuid, key: &str, sha256: &[u8]) -> Result<Option<Payment>, Problem> {
    let Some(known) = payment::find_by_key(db, tenant_id, key).await? else { return Ok(None) };
    if known.request_sha256.as_deref() != Some(sha256) {
        return Err(Problem::new(Code::IdempotencyKeyReused, "this idempotency key was used with another body"));
    }
    Ok(Some(known))
}

/// Nobody is sent anywhere but to us, or to whoever has proven that a domain is theirs. Gives the address as it was read: that one is kept.
async fn check_return(app: &App, db: Db<'_>, tenant_id: Uuid, url: &str) -> Result<String, Problem> {
    let wrong = || {
        let detail = "return_url is a page of ours, or of a domain of yours that is proven: https://…";
        Problem::fault("/return_url", "return_url.foreign", detail)
    };
    let url = reqwest::Url::parse(url).ok().filter(|url| url.as_str().len() <= 2048).ok_or_else(wrong)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong());
    }
    if reqwest::Url::parse(&app.public_url).is_ok_and(|ours| ours.origin() == url.origin()) {
        return Ok(url.into());
    }
    let host = url.host_str().filter(|_| url.scheme() == "https" && url.port().is_none()).ok_or_else(wrong)?;
    if tenant_domain::is_proven(db, tenant_id, host).await? { Ok(url.into()) } else { Err(wrong()) }
}

async fn record(db: Db<'_>, person: &SignedIn, action: &str, id: Uuid) -> sqlx::Result<()> {
    let entry = Entry {
        tenant_id: person.tenant_id,
        actor: &format!("user:{}", person.user_id),
        action,
        object: &object(id),
        reason: None,
        before: None,
        after: None,
        ip: None,
        request_id: Some(&crate::request_id::current()),
    };
    audit::record(db, &entry).await
}

impl OpenPayment {
    fn check(&self) -> Result<(Provider, Wanted<'_>), Problem> {
        let fault =
            |pointer: &'static str, code: &'static str, detail: &'static str| Problem::fault(pointer, code, detail);
        let provider = self.provider.parse();
        let provider =
            provider.map_err(|_| fault("/provider", "provider.unknown", "provider is stripe, zarinpal or manual"))?;
        let wanted = match (self.plan_id, self.credit_pack_id, &self.currency, self.interval) {
            (Some(plan_id), None, Some(currency), Some(interval)) => Wanted::Plan { plan_id, currency, interval },
            (None, Some(pack_id), None, None) => Wanted::Credits { pack_id },
            _ => {
                let detail = "name a plan with its currency and interval, or a pack of credits";
                return Err(fault("/plan_id", "payment.what", detail));
            }
        };
        Ok((provider, wanted))
    }
}
