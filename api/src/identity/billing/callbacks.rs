//! What gateways call, and where payers come back to. Each is a hint that there may be something to see: the gateway itself is asked.

use crate::{
    app::App,
    extract::Path,
    openapi::Binary,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_activities::pay::read_webhook;
use flatrender_workflows::{
    contracts::pay::{
        Gateway as Provider, Mode,
        inbound::{BODY_BYTES, Event, EventKind, Inbound, Rejected, signature_header},
        settings::Settings,
    },
    definitions::{payment, payment::settle, refund as refunds},
    models::{
        Db, Role, Scope,
        identity::{
            gateway::{self, Gateway},
            payment as payments,
            payment_event::{self, NewEvent},
            refund,
        },
        time_series,
    },
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// `POST /v1/gateways/{provider}/webhook/{account}`
#[utoipa::path(
    post, path = "/v1/gateways/{provider}/webhook/{account}", tag = "Billing", operation_id = "hear_gateway", security(()),
    summary = "Tell that a payment changed",
    description = "For gateways, at the address that `GET /v1/gateways` shows. What is signed well is kept once and answered with 200, whether it \
                   is known or not; what it is about is asked of the gateway afterwards.",
    params(("provider" = String, Path, description = "`stripe`"), ("account" = Uuid, Path, description = "The account")),
    request_body(content = Binary, content_type = "application/octet-stream", description = "What the gateway says, at most 256 KiB"),
    responses(
        (status = 200, description = "Heard"),
        (status = 400, description = "`gateway.unreadable`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, description = "`gateway.signature`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`gateway.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "`body.too_large`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn hear(
    State(app): State<App>,
    Path((provider, account)): Path<(String, Uuid)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    if body.len() > BODY_BYTES {
        return Err(Problem::new(Code::BodyTooLarge, "a webhook has at most 256 KiB"));
    }
    let unknown = || Problem::not_found(Code::GatewayNotFound, "payment gateway");
    let provider: Provider = provider.parse().map_err(|_| unknown())?;
    let name = signature_header(provider).ok_or_else(unknown)?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let found = gateway::find(&mut tx, account).await?.filter(|g| g.provider == provider.as_str());
    let found = found.ok_or_else(unknown)?;
    let at = time_series::moment(&mut tx).await?;
    drop(tx);
    let mode: Mode = found.mode.parse().unwrap_or(Mode::Live);
    let opened = app.vault.unseal(&gateway::place(found.id), &found.settings_enc).map_err(|e| Problem::internal(&e))?;
    let settings = Settings::read(provider, mode, &opened).map_err(|_| unknown())?;
    let signatures: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    let inbound = Inbound { body: &body, signatures: &signatures, secrets: settings.webhook_secrets(), at };
    let event = read_webhook(provider, &inbound).map_err(|why| match why {
        Rejected::Unreadable => Problem::new(Code::GatewayUnreadable, why.to_string()),
        Rejected::NotASender => unknown(),
        _ => Problem::new(Code::GatewaySignature, why.to_string()),
    })?;
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, found.tenant_id)).await?;
    take(&app, &mut tx, &found, &event, &body).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::OK)
}

/// Keeps an event, and wakes whoever it concerns when it is new.
async fn take(app: &App, db: Db<'_>, gateway: &Gateway, event: &Event, body: &[u8]) -> Result<(), Problem> {
    // An event of play money says nothing of a live account, nor the other way round.
    let ours = event.is_live == (gateway.mode == "live");
    let (provider_ref, txn) = (event.provider_ref.as_deref(), event.provider_txn.as_deref());
    let payment = match event.kind {
        EventKind::Other => None,
        _ if !ours => None,
        _ => payments::find_at(&mut *db, gateway.id, provider_ref, txn, event.payment_id).await?,
    };
    let refund = match event.kind {
        EventKind::Refund if ours => {
            refund::find_at(&mut *db, gateway, event.provider_refund.as_deref(), event.refund_id).await?
        }
        _ => None,
    };
    let payment_id = payment.map(|(id, _)| id).or(refund.as_ref().map(|told| told.payment_id));
    let new = NewEvent {
        gateway_id: gateway.id,
        provider: &gateway.provider,
        event_id: &event.event_id,
        tenant_id: gateway.tenant_id,
        payment_id,
        kind: &event.event_type,
        sha256: &Sha256::digest(body),
        sealed: &app.vault.seal(&payment_event::place(gateway.id, &event.event_id), body),
        applied: payment.is_some() || refund.is_some(),
    };
    if !payment_event::keep(&mut *db, &new).await? {
        return Ok(());
    }
    let nothing = serde_json::Value::Null;
    let wake = [
        payment.filter(|_| event.kind == EventKind::Payment).map(|(_, run)| (run, payment::HINT)),
        refund.as_ref().map(|told| (told.run_id, refunds::HINT)),
    ];
    Scope::tenant(Role::Workflow, gateway.tenant_id).enter(&mut *db).await?;
    for (run, signal) in wake.into_iter().flatten() {
        let _ = app.workflows.signal(&mut *db, run, signal, None, &nothing).await?;
    }
    Scope::tenant(Role::Identity, gateway.tenant_id).enter(&mut *db).await?;
    // Its run is over, and a bank may have sent back what was done.
    if let Some(told) = refund.filter(|told| told.state == "done") {
        let looked = settle::look_again(&app.workflows, &mut *db, gateway.tenant_id, told.id).await;
        looked.map_err(|e| Problem::internal(&e))?;
    }
    if let (EventKind::Dispute, Some((id, _))) = (event.kind, payment) {
        let told = settle::disputed(&app.workflows, db, gateway.tenant_id, id, &event.event_type).await;
        told.map_err(|e| Problem::internal(&e))?;
    }
    Ok(())
}

/// `GET /v1/payments/{id}/return`: where payers come back to. What the address says of the payment counts for nothing.
#[utoipa::path(
    get, path = "/v1/payments/{id}/return", tag = "Billing", operation_id = "return_from_gateway", security(()),
    summary = "Come back from a gateway",
    description = "For payers, whom a gateway sends here. It is asked what became of the payment; they are sent on to where the payment was opened \
                   from.",
    params(("id" = Uuid, Path, description = "The payment")),
    responses(
        (status = 303, description = "Goes on where the payment was opened from"),
        (status = 404, description = "`payment.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn come_back(State(app): State<App>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let known = payments::anywhere(&mut tx, id).await?;
    let payment = known.ok_or_else(|| Problem::not_found(Code::PaymentNotFound, "payment"))?;
    if payment.is_open() {
        let now = time_series::moment(&mut tx).await?;
        // However often somebody comes back, the gateway is asked once a minute.
        let key = format!("return:{}", now.timestamp() / 60);
        Scope::tenant(Role::Workflow, payment.tenant_id).enter(&mut tx).await?;
        let nothing = serde_json::Value::Null;
        let _ = app.workflows.signal(&mut tx, payment.workflow_run_id, payment::HINT, Some(&key), &nothing).await?;
        tx.commit().await?;
        app.workflows.announce();
    }
    let page = payment.return_url.unwrap_or_else(|| format!("{}/billing/payments/{id}", app.public_url));
    let joint = if page.contains('?') { '&' } else { '?' };
    let to = if page.contains('#') { page } else { format!("{page}{joint}payment={id}") };
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to), (header::CACHE_CONTROL, "no-store".to_owned())])
        .into_response())
}
