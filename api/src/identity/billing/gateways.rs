//! `/v1/gateways` and `/v1/credit-packs`: who takes money for a tenant, and what credits cost. What an account opens with goes in and
//! never comes out.

use super::{credits, decisions::person, plans::is_currency};
use crate::{
    app::App,
    auth::SignedIn,
    extract::{Json, Path},
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    contracts::pay::{
        Gateway as Provider, Mode,
        settings::{MOST_WEBHOOK_SECRETS, Settings},
    },
    definitions::check_account::CheckAccount,
    models::{
        Db, Role, Scope,
        identity::{
            credit_pack::{self, CreditPack},
            gateway::{self, Gateway, NewGateway, RefundLimit},
        },
    },
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// An account at a gateway, without what it opens with.
#[derive(Debug, Serialize, ToSchema)]
pub struct GatewayView {
    /// Its id.
    id: Uuid,
    /// Always `payment_gateway`.
    #[schema(example = "payment_gateway")]
    object: &'static str,
    /// `stripe`, `zarinpal` or `manual`.
    #[schema(example = "stripe")]
    provider: String,
    /// `live`, or `test`: no money moves.
    #[schema(example = "live")]
    mode: String,
    /// Minor units: what goes back of a payment beyond, in all, takes a second person.
    #[schema(example = 0)]
    refund_limit: i64,
    /// Of which currency.
    #[schema(example = "USD")]
    refund_limit_currency: Option<String>,
    /// Where its webhooks go.
    webhook_url: String,
    /// What the provider calls the account, once it has said so.
    #[schema(example = "acct_1Pq")]
    merchant: Option<String>,
    /// When the provider was asked whether the account opens: a moment after it was put or changed.
    checked_at: Option<DateTime<Utc>>,
    /// Why it does not open, or could not be asked; none when it opens.
    #[schema(example = "pay.merchant_config")]
    check_error: Option<String>,
    /// Since when.
    created_at: DateTime<Utc>,
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct GatewayList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// One a provider at most.
    data: Vec<GatewayView>,
}

/// An account at a gateway.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutGateway {
    /// `live` or `test`.
    #[schema(example = "test")]
    mode: String,
    /// What it opens with. stripe: `secret_key`, `webhook_secrets` (a list), `account`. zarinpal: `merchant_id`, `access_token`, `terminal_id`.
    /// manual: `instructions` for payers, `merchant`.
    #[schema(value_type = Object, example = json!({"secret_key": "sk_test_…", "webhook_secrets": ["whsec_…"]}))]
    settings: Value,
    /// Minor units: what goes back of a payment beyond, in all, takes a second person. Every refund does when absent, and always those that
    /// you ask for yourself.
    #[schema(example = 0, minimum = 0)]
    refund_limit: Option<i64>,
    /// Of which currency; with a limit of more than 0. Every refund of a payment in another one takes a second person.
    #[schema(example = "USD")]
    refund_limit_currency: Option<String>,
}

/// What to change of what an account opens with; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateGateway {
    /// Stripe: the key.
    secret_key: Option<String>,
    /// Stripe: what signs from now on. The one before counts until the next change.
    webhook_secret: Option<String>,
    /// ZarinPal: the token.
    access_token: Option<String>,
}

/// Credits that are sold together.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreditPackView {
    /// Its id.
    id: Uuid,
    /// Always `credit_pack`.
    #[schema(example = "credit_pack")]
    object: &'static str,
    /// What it is called.
    #[schema(example = "hour")]
    code: String,
    /// Seconds of rendering.
    #[schema(example = 3600)]
    seconds: i64,
    /// What they cost, in minor units.
    #[schema(example = 500)]
    amount: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
}

impl From<CreditPack> for CreditPackView {
    fn from(p: CreditPack) -> Self {
        let CreditPack { id, code, credits, amount, currency, .. } = p;
        Self { id, object: "credit_pack", code, seconds: credits, amount, currency }
    }
}

/// All that are sold.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreditPackList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By code; at most 100.
    data: Vec<CreditPackView>,
}

/// A pack to be sold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCreditPack {
    /// 1 to 64 of `a-z 0-9 _ -`.
    #[schema(example = "hour")]
    code: String,
    /// Seconds of rendering.
    #[schema(example = 3600, minimum = 1)]
    seconds: i64,
    /// What they cost, in minor units.
    #[schema(example = 500, minimum = 1)]
    amount: i64,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
}

fn view(app: &App, g: Gateway) -> GatewayView {
    GatewayView {
        id: g.id,
        object: "payment_gateway",
        webhook_url: format!("{}/v1/gateways/{}/webhook/{}", app.public_url, g.provider, g.id),
        provider: g.provider,
        mode: g.mode,
        refund_limit: g.refund_limit,
        refund_limit_currency: g.refund_limit_currency,
        merchant: g.merchant,
        checked_at: g.checked_at,
        check_error: g.check_error,
        created_at: g.created_at,
    }
}

/// `GET /v1/gateways`
#[utoipa::path(
    get, path = "/v1/gateways", tag = "Billing", operation_id = "list_gateways", summary = "List who takes money for you",
    description = "Never what the accounts open with.", responses((status = 200, description = "All of them", body = GatewayList))
)]
pub async fn list(State(app): State<App>, steward: Steward) -> Result<Json<GatewayList>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let found = gateway::list(&mut tx, steward.tenant_id).await?;
    Ok(Json(GatewayList { object: "list", data: found.into_iter().map(|g| view(&app, g)).collect() }))
}

/// `PUT /v1/gateways/{provider}`
#[utoipa::path(
    put, path = "/v1/gateways/{provider}", tag = "Billing", operation_id = "put_gateway", summary = "Have money taken by an account",
    description = "Instead of the one before at this provider, which sees to what was begun with it. What the account opens with is sealed and \
                   never shown. The provider is asked whether it opens: `checked_at` and `check_error` of `GET /v1/gateways` tell a moment later.",
    params(("provider" = String, Path, description = "`stripe`, `zarinpal` or `manual`")), request_body = PutGateway,
    responses(
        (status = 200, description = "The account", body = GatewayView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`gateway.not_found`: there is no such provider", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn put(
    State(app): State<App>,
    steward: Trustee,
    Path(provider): Path<String>,
    Json(body): Json<PutGateway>,
) -> Result<Json<GatewayView>, Problem> {
    let provider = named(&provider)?;
    let mode: Mode = body.mode.parse().map_err(|_| Problem::fault("/mode", "gateway.mode", "mode is live or test"))?;
    let settings = Settings::read(provider, mode, body.settings.to_string().as_bytes());
    let settings = settings.map_err(|why| Problem::fault("/settings", "gateway.settings", why))?;
    let limit = match (body.refund_limit.unwrap_or(0), &body.refund_limit_currency) {
        (..0, _) => return Err(Problem::fault("/refund_limit", "gateway.limit", "a limit is 0 or more")),
        (0, _) => None,
        (amount, Some(currency)) if is_currency(currency) => {
            Some(RefundLimit { amount, currency, by: person(&steward)? })
        }
        _ => {
            let detail = "a limit has a currency: three capital letters";
            return Err(Problem::fault("/refund_limit_currency", "gateway.limit", detail));
        }
    };
    let id = Uuid::now_v7();
    let sealed = app.vault.seal(&gateway::place(id), &settings.to_json());
    let new = NewGateway { id, provider, mode, settings: &sealed, merchant: None, limit };
    let mut tx = steward.begin(&app).await?;
    gateway::put(&mut tx, steward.tenant_id, &new).await?;
    let put = found(&mut tx, steward.tenant_id, provider).await?;
    steward.record(&mut tx, "gateway.put", &object(&put), made(&put)).await?;
    check(&app, &mut tx, &put).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(view(&app, put)))
}

/// `POST /v1/gateways/{provider}/rotate`
#[utoipa::path(
    post, path = "/v1/gateways/{provider}/rotate", tag = "Billing", operation_id = "rotate_gateway", summary = "Change what an account opens with",
    description = "In place: its address for webhooks stays. Of what signs webhooks the one before counts as well, until the next change.",
    params(("provider" = String, Path, description = "`stripe`, `zarinpal` or `manual`")), request_body = RotateGateway,
    responses(
        (status = 200, description = "The account", body = GatewayView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`gateway.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn rotate(
    State(app): State<App>,
    steward: Trustee,
    Path(provider): Path<String>,
    Json(body): Json<RotateGateway>,
) -> Result<Json<GatewayView>, Problem> {
    let provider = named(&provider)?;
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, provider).await?;
    let mode = before.mode.parse().unwrap_or(Mode::Live);
    let opened =
        app.vault.unseal(&gateway::place(before.id), &before.settings_enc).map_err(|e| Problem::internal(&e))?;
    let mut settings: Value = serde_json::from_slice(&opened).map_err(|e| Problem::internal(&e))?;
    for (name, value) in [("secret_key", &body.secret_key), ("access_token", &body.access_token)] {
        if let Some(value) = value {
            settings[name] = value.as_str().into();
        }
    }
    if let Some(secret) = &body.webhook_secret {
        let secrets = settings["webhook_secrets"].as_array().cloned().unwrap_or_default();
        let kept = secrets.into_iter().take(1.min(MOST_WEBHOOK_SECRETS - 1));
        settings["webhook_secrets"] = std::iter::once(Value::from(secret.as_str())).chain(kept).collect();
    }
    let settings = Settings::read(provider, mode, settings.to_string().as_bytes());
    let settings = settings.map_err(|why| Problem::fault("", "gateway.settings", why))?;
    let sealed = app.vault.seal(&gateway::place(before.id), &settings.to_json());
    gateway::rotate(&mut tx, steward.tenant_id, before.id, &sealed).await?;
    let after = found(&mut tx, steward.tenant_id, provider).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "gateway.rotate", &object(&after), change).await?;
    check(&app, &mut tx, &after).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(view(&app, after)))
}

/// `DELETE /v1/gateways/{provider}`
#[utoipa::path(
    delete, path = "/v1/gateways/{provider}", tag = "Billing", operation_id = "remove_gateway", summary = "Have an account take no more money",
    description = "It sees to what was begun with it.", params(("provider" = String, Path, description = "`stripe`, `zarinpal` or `manual`")),
    responses(
        (status = 204, description = "Done"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`gateway.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(
    State(app): State<App>,
    steward: Trustee,
    Path(provider): Path<String>,
) -> Result<StatusCode, Problem> {
    let provider = named(&provider)?;
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, provider).await?;
    gateway::retire(&mut tx, steward.tenant_id, provider).await?;
    let change = Change { before: Some(&before), after: None::<()> };
    steward.record(&mut tx, "gateway.remove", &object(&before), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/credit-packs`
#[utoipa::path(
    get, path = "/v1/credit-packs", tag = "Billing", operation_id = "list_credit_packs", summary = "See what credits cost",
    description = "All packs that are sold.", responses((status = 200, description = "All of them", body = CreditPackList))
)]
pub async fn packs(State(app): State<App>, person: SignedIn) -> Result<Json<CreditPackList>, Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, person.tenant_id)).await?;
    let data = credit_pack::list(&mut tx, person.tenant_id).await?.into_iter().map(Into::into).collect();
    Ok(Json(CreditPackList { object: "list", data }))
}

/// `POST /v1/credit-packs`
#[utoipa::path(
    post, path = "/v1/credit-packs", tag = "Billing", operation_id = "create_credit_pack", summary = "Sell credits",
    description = "Instead of the pack of this code and currency that was sold before. With the first one films cost credits, unless \
                   `PUT /v1/credits/terms` has said that they do not.",
    request_body = CreateCreditPack,
    responses(
        (status = 201, description = "It is sold", body = CreditPackView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create_pack(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateCreditPack>,
) -> Result<(StatusCode, Json<CreditPackView>), Problem> {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b);
    if !(1..=64).contains(&body.code.len()) || !body.code.bytes().all(letters) {
        return Err(Problem::fault("/code", "code.shape", "a code is 1 to 64 of a-z 0-9 _ -"));
    }
    const MOST: i64 = 1_000_000_000_000;
    for (pointer, value) in [("/seconds", body.seconds), ("/amount", body.amount)] {
        if !(1..=MOST).contains(&value) {
            return Err(Problem::fault(pointer, "credit_pack.range", "1 to 10¹²"));
        }
    }
    if !is_currency(&body.currency) {
        return Err(Problem::fault("/currency", "credit_pack.currency", "a currency is three capital letters"));
    }
    let mut tx = steward.begin(&app).await?;
    let CreateCreditPack { code, seconds, amount, currency } = &body;
    let id = credit_pack::create(&mut tx, steward.tenant_id, code, *seconds, *amount, currency).await?;
    let pack = credit_pack::find(&mut tx, steward.tenant_id, id).await?.ok_or_else(no_pack)?;
    credits::sold(&mut tx, &steward).await?;
    steward.record(&mut tx, "credit_pack.create", &format!("credit_pack:{id}"), made(&pack)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(pack.into())))
}

/// `DELETE /v1/credit-packs/{id}`
#[utoipa::path(
    delete, path = "/v1/credit-packs/{id}", tag = "Billing", operation_id = "retire_credit_pack", summary = "Sell a pack no longer",
    description = "What is on its way may still be paid.", params(("id" = Uuid, Path, description = "The pack")),
    responses(
        (status = 204, description = "Done"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`credit_pack.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn retire_pack(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = credit_pack::find(&mut tx, steward.tenant_id, id).await?.ok_or_else(no_pack)?;
    credit_pack::retire(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: None::<()> };
    steward.record(&mut tx, "credit_pack.retire", &format!("credit_pack:{id}"), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the provider asked whether an account opens. The transaction goes on in another scope than before.
async fn check(app: &App, db: Db<'_>, account: &Gateway) -> Result<(), Problem> {
    Scope::tenant(Role::Workflow, account.tenant_id).enter(&mut *db).await?;
    app.workflows.start(db, account.tenant_id, None, CheckAccount { gateway_id: account.id }).await?;
    Ok(())
}

fn named(provider: &str) -> Result<Provider, Problem> {
    provider.parse().map_err(|_| Problem::not_found(Code::GatewayNotFound, "payment gateway"))
}

async fn found(db: Db<'_>, tenant_id: Uuid, provider: Provider) -> Result<Gateway, Problem> {
    let found = gateway::find_active(db, tenant_id, provider).await?;
    found.ok_or_else(|| Problem::not_found(Code::GatewayNotFound, "payment gateway"))
}

fn no_pack() -> Problem {
    Problem::not_found(Code::CreditPackNotFound, "pack of credits")
}

fn object(gateway: &Gateway) -> String {
    format!("gateway:{}", gateway.id)
}
