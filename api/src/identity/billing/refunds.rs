//! `/v1/refunds`: money that goes back, asked for by one person and agreed to by another.

use super::{decisions::person, payments};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
    render::submit,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    definitions::payment::settle,
    models::{
        Db,
        identity::{
            gateway,
            payment::{Payment, state},
            refund::{self, NewRefund, Refund},
        },
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A refund.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefundView {
    /// Its id.
    id: Uuid,
    /// Always `refund`.
    #[schema(example = "refund")]
    object: &'static str,
    /// What was paid.
    payment_id: Uuid,
    /// In minor units of what was paid.
    #[schema(example = 500)]
    amount: i64,
    /// `requested`, `approved`, `sending` (also while the gateway takes its time), `manual` (people have to), `done`, `refused` or `failed`.
    #[schema(example = "requested")]
    state: String,
    /// Why.
    #[schema(example = "the film was late")]
    reason: String,
    /// Whether what was bought is taken back with it.
    revoke: bool,
    /// Whether nobody asked for it: the money came too late.
    automatic: bool,
    /// Who asked.
    requested_by: Option<Uuid>,
    /// Who else agreed.
    approved_by: Option<Uuid>,
    /// Why the gateway did not do it.
    failure_code: Option<String>,
    /// In its words.
    failure_detail: Option<String>,
    /// When it was done.
    done_at: Option<DateTime<Utc>>,
    /// When it was asked for.
    created_at: DateTime<Utc>,
}

impl From<Refund> for RefundView {
    fn from(r: Refund) -> Self {
        Self {
            id: r.id,
            object: "refund",
            payment_id: r.payment_id,
            amount: r.amount,
            state: r.state,
            reason: r.reason,
            revoke: r.revoke,
            automatic: r.automatic,
            requested_by: r.requested_by,
            approved_by: r.approved_by,
            failure_code: r.failure_code,
            failure_detail: r.failure_detail,
            done_at: r.done_at,
            created_at: r.created_at,
        }
    }
}

/// A refund to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestRefund {
    /// How much, in minor units; all that is left when absent.
    #[schema(example = 500, minimum = 1)]
    amount: Option<i64>,
    /// Why: at most 1000 characters.
    #[schema(example = "the film was late", max_length = 1000, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: String,
    /// Whether what was bought is taken back: credits as far as they are left, a plan when all of the money goes back. True when absent.
    revoke: Option<bool>,
}

/// Which refunds to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListRefunds {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this refund: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
    /// Those in this state.
    state: Option<String>,
}

/// `POST /v1/payments/{id}/refunds`
#[utoipa::path(
    post, path = "/v1/payments/{id}/refunds", tag = "Billing", operation_id = "request_refund", summary = "Give money back",
    description = "Never more than was paid. Above the limit of the gateway, counted with all that goes back of it, it waits for a second person. With an `Idempotency-Key` it is asked for \
                   once, however often this is sent.",
    params(("id" = Uuid, Path, description = "The payment"), ("Idempotency-Key" = Option<String>, Header, max_length = 200, pattern = r"^[\t -~]+$", description = "1 to 200 printable ASCII characters, yours")),
    request_body = RequestRefund,
    responses(
        (status = 201, description = "Asked for", body = RefundView),
        (status = 200, description = "It was asked for before with this key", body = RefundView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`refund.too_much`, `second_person.needed`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `idempotency.key_reused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn request(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(body): Json<RequestRefund>,
) -> Result<(StatusCode, Json<RefundView>), Problem> {
    let length = body.reason.trim().chars().count();
    if !(1..=1000).contains(&length) || body.reason.chars().any(char::is_control) {
        return Err(Problem::fault("/reason", "reason.length", "say why in 1 to 1000 characters"));
    }
    let mut tx = steward.begin(&app).await?;
    payments::found(&mut tx, steward.tenant_id, id).await?;
    let requested_by = person(&steward)?;
    let key = submit::idempotency_key(&headers)?.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned);
    if key.len() > 200 {
        return Err(Problem::new(
            Code::HeaderInvalid,
            "an idempotency key is 1 to 200 printable ASCII characters here",
        ));
    }
    let key = format!("{requested_by}:{key}");
    // Whoever asks for another refund of it waits: what is small is counted together.
    let payment = state::lock(&mut tx, steward.tenant_id, id).await?.ok_or_else(payments::missing)?;
    let amount = body.amount.unwrap_or(payment.amount - payment.refunded_amount);
    if let Some(known) = refund::find_by_key(&mut tx, steward.tenant_id, &key).await? {
        let same = known.payment_id == id && body.amount.is_none_or(|amount| amount == known.amount);
        let other = || Problem::new(Code::IdempotencyKeyReused, "this idempotency key was used with another body");
        return if same { Ok((StatusCode::OK, Json(known.into()))) } else { Err(other()) };
    }
    let approved = is_small(&mut tx, &payment, amount, requested_by).await?;
    let new = NewRefund {
        amount,
        reason: body.reason.trim(),
        requested_by: Some(requested_by),
        approved,
        revoke: body.revoke.unwrap_or(true),
        idempotency_key: &key,
    };
    let made_id = refund::create(&mut tx, &payment, &new).await?;
    let made_id = made_id.ok_or_else(|| {
        let left = payment.amount - payment.refunded_amount;
        let detail = match payment.paid_at {
            Some(_) => format!("no more than {left} of it can go back"),
            None => "nothing was paid that could go back".to_owned(),
        };
        Problem::new(Code::RefundTooMuch, detail)
    })?;
    let refund = found(&mut tx, steward.tenant_id, made_id).await?;
    let object = object(made_id);
    steward.record_because(&mut tx, "refund.request", &object, body.reason.trim(), made(&refund)).await?;
    if approved {
        start(&app, &mut tx, steward.tenant_id, made_id).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::CREATED, Json(refund.into())))
}

/// `GET /v1/refunds`
#[utoipa::path(
    get, path = "/v1/refunds", tag = "Billing", operation_id = "list_refunds", summary = "List refunds",
    description = "Newest first, a page at a time.", params(ListRefunds),
    responses((status = 200, description = "A page", body = Page<RefundView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListRefunds>,
) -> Result<Json<Page<RefundView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let state = query.state.as_deref();
    let all = refund::list(&mut tx, steward.tenant_id, None, state, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(all, size, |r| r.id.to_string())))
}

/// `GET /v1/refunds/{id}`
#[utoipa::path(
    get, path = "/v1/refunds/{id}", tag = "Billing", operation_id = "get_refund", summary = "Get a refund",
    description = "How it stands at the moment.", params(("id" = Uuid, Path, description = "The refund")),
    responses(
        (status = 200, description = "The refund", body = RefundView),
        (status = 404, description = "`refund.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, steward: Steward, Path(id): Path<Uuid>) -> Result<Json<RefundView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    Ok(Json(found(&mut tx, steward.tenant_id, id).await?.into()))
}

/// `POST /v1/refunds/{id}/approve`
#[utoipa::path(
    post, path = "/v1/refunds/{id}/approve", tag = "Billing", operation_id = "approve_refund", summary = "Agree to a refund",
    description = "By another person than who asked for it.", params(("id" = Uuid, Path, description = "The refund")),
    responses(
        (status = 200, description = "It goes back", body = RefundView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`refund.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`second_person.needed`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn approve(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<Json<RefundView>, Problem> {
    decide(&app, &steward, id, true).await
}

/// `POST /v1/refunds/{id}/refuse`
#[utoipa::path(
    post, path = "/v1/refunds/{id}/refuse", tag = "Billing", operation_id = "refuse_refund", summary = "Refuse a refund",
    description = "Nothing goes back. Whoever asked for it may take it back so.", params(("id" = Uuid, Path, description = "The refund")),
    responses(
        (status = 200, description = "Refused", body = RefundView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`refund.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`second_person.needed`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn refuse(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<Json<RefundView>, Problem> {
    decide(&app, &steward, id, false).await
}

async fn decide(app: &App, steward: &Trustee, id: Uuid, agree: bool) -> Result<Json<RefundView>, Problem> {
    let mut tx = steward.begin(app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    let by = person(steward)?;
    let done = match agree {
        true => refund::approve(&mut tx, steward.tenant_id, id, by).await?,
        false => refund::refuse(&mut tx, steward.tenant_id, id).await?,
    };
    if !done {
        let detail = format!("the refund is {}, or it is you who asked for it", before.state);
        return Err(Problem::new(Code::SecondPersonNeeded, detail));
    }
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    let action = if agree { "refund.approve" } else { "refund.refuse" };
    steward.record(&mut tx, action, &object(id), change).await?;
    if agree {
        start(app, &mut tx, steward.tenant_id, id).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(after.into()))
}

async fn start(app: &App, db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<(), Problem> {
    settle::start_refund(&app.workflows, db, tenant_id, id).await.map_err(|e| Problem::internal(&e))
}

/// Whether one person is enough: with all that went back of it before, or is asked for.
async fn is_small(db: Db<'_>, payment: &Payment, amount: i64, by: Uuid) -> Result<bool, Problem> {
    let Some(gateway) = payment.gateway_id else { return Ok(false) };
    let all = amount.saturating_add(payment.refunded_amount);
    Ok(gateway::find(db, gateway).await?.is_some_and(|gateway| gateway.is_within_limit(all, &payment.currency, by)))
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Refund, Problem> {
    refund::find(db, tenant_id, id).await?.ok_or_else(|| Problem::not_found(Code::RefundNotFound, "refund"))
}

fn object(id: Uuid) -> String {
    format!("refund:{id}")
}
