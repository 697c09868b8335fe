//! `/v1/payments/{id}/decisions`: what people say of money that no gateway can tell of. One says so with evidence, another one looks at it.

use super::payments::{found, hint, object};
use crate::{
    app::App,
    extract::{Json, Path},
    identity::{Change, Steward, Trustee, made},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    definitions::{
        payment::settle::{self, Goes},
        refund as refunds,
    },
    models::{
        Db,
        identity::{
            money,
            payment::{
                Payment,
                state::{self, Captured},
            },
            payment_decision::{self, Decision, NewDecision},
            refund,
        },
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A decision.
#[derive(Debug, Serialize, ToSchema)]
pub struct DecisionView {
    /// Its id.
    id: Uuid,
    /// Always `payment_decision`.
    #[schema(example = "payment_decision")]
    object: &'static str,
    /// About which payment.
    payment_id: Uuid,
    /// About which refund of it.
    refund_id: Option<Uuid>,
    /// `paid`, `refund`, `failed`; of a refund `refunded` or `given_up`.
    #[schema(example = "paid")]
    outcome: String,
    /// What the bank calls the movement of money.
    #[schema(example = "2026-11-27/0042")]
    transaction: Option<String>,
    /// How much came, in minor units.
    #[schema(example = 1520)]
    amount: Option<i64>,
    /// Of what.
    #[schema(example = "USD")]
    currency: Option<String>,
    /// How they know.
    #[schema(example = "Statement of 27 November, line 42")]
    evidence: String,
    /// `proposed`, `confirmed` or `refused`.
    #[schema(example = "proposed")]
    state: String,
    /// Who says so.
    proposed_by: Uuid,
    /// Who has looked at it.
    decided_by: Option<Uuid>,
    /// When it was proposed.
    created_at: DateTime<Utc>,
    /// When it was decided.
    decided_at: Option<DateTime<Utc>>,
}

impl From<Decision> for DecisionView {
    fn from(d: Decision) -> Self {
        Self {
            id: d.id,
            object: "payment_decision",
            payment_id: d.payment_id,
            refund_id: d.refund_id,
            outcome: d.outcome,
            transaction: d.provider_txn,
            amount: d.amount,
            currency: d.currency,
            evidence: d.evidence,
            state: d.state,
            proposed_by: d.proposed_by,
            decided_by: d.decided_by,
            created_at: d.created_at,
            decided_at: d.decided_at,
        }
    }
}

/// What to say of a payment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProposeDecision {
    /// `paid`: the money is there, to the unit. `refund`: it came, and goes back. `failed`: none came. Of a refund that is `manual`:
    /// `refunded`: it went back. `given_up`: it does not.
    #[schema(example = "paid")]
    outcome: String,
    /// What the bank calls the movement of money; for `paid`, `refund` and `refunded`.
    #[schema(example = "2026-11-27/0042", max_length = 200)]
    transaction: Option<String>,
    /// How much came, in minor units; for `paid` and `refund`.
    #[schema(example = 1520)]
    amount: Option<i64>,
    /// Of what.
    #[schema(example = "USD")]
    currency: Option<String>,
    /// How you know: at most 4000 characters.
    #[schema(example = "Statement of 27 November, line 42", max_length = 4000)]
    evidence: String,
}

/// `POST /v1/payments/{id}/decisions`
#[utoipa::path(
    post, path = "/v1/payments/{id}/decisions", tag = "Billing", operation_id = "propose_payment_decision", summary = "Say what became of a payment",
    description = "Of a payment by bank transfer, or of one in review. It counts when another person confirms it.",
    params(("id" = Uuid, Path, description = "The payment")), request_body = ProposeDecision,
    responses(
        (status = 201, description = "Proposed", body = DecisionView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`payment.not_decidable`, `payment_decision.open`, `second_person.needed`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn propose(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<ProposeDecision>,
) -> Result<(StatusCode, Json<DecisionView>), Problem> {
    let mut tx = steward.begin(&app).await?;
    let payment = found(&mut tx, steward.tenant_id, id).await?;
    body.check(&["paid", "refund", "failed"])?;
    let by_hand = payment.provider == "manual" && (payment.is_open() || payment.may_come_late());
    if !by_hand && payment.state != "review" {
        let detail = format!("the payment is {}: its gateway says what becomes of it", payment.state);
        return Err(Problem::new(Code::PaymentNotDecidable, detail));
    }
    if body.outcome == "failed" && !payment.is_open() && payment.state != "review" {
        let detail = format!("the payment is {}: there is nothing left that could fail", payment.state);
        return Err(Problem::new(Code::PaymentNotDecidable, detail));
    }
    if body.outcome == "paid"
        && (body.amount != Some(payment.amount) || body.currency.as_ref() != Some(&payment.currency))
    {
        let detail = "what came has to be what is due, to the unit; say refund otherwise";
        return Err(Problem::fault("/amount", "decision.amount", detail));
    }
    let decision = write(&mut tx, &steward, id, None, &body).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(decision.into())))
}

/// `POST /v1/refunds/{id}/decisions`
#[utoipa::path(
    post, path = "/v1/refunds/{id}/decisions", tag = "Billing", operation_id = "propose_refund_decision", summary = "Say what became of a refund",
    description = "Of a refund that its gateway cannot do. It counts when another person confirms it.",
    params(("id" = Uuid, Path, description = "The refund")), request_body = ProposeDecision,
    responses(
        (status = 201, description = "Proposed", body = DecisionView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`refund.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`payment.not_decidable`, `payment_decision.open`, `second_person.needed`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn propose_for_refund(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<ProposeDecision>,
) -> Result<(StatusCode, Json<DecisionView>), Problem> {
    let mut tx = steward.begin(&app).await?;
    let refund = refund::find(&mut tx, steward.tenant_id, id).await?;
    let refund = refund.ok_or_else(|| Problem::not_found(Code::RefundNotFound, "refund"))?;
    body.check(&["refunded", "given_up"])?;
    if refund.came_back() && body.outcome == "given_up" {
        let detail = "it was done, and has its credit note: whoever paid still has to get the money";
        return Err(Problem::new(Code::PaymentNotDecidable, detail));
    }
    if refund.state != "manual" {
        let detail = format!("the refund is {}: it is not for people", refund.state);
        return Err(Problem::new(Code::PaymentNotDecidable, detail));
    }
    let decision = write(&mut tx, &steward, refund.payment_id, Some(id), &body).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(decision.into())))
}

/// `POST /v1/payment-decisions/{id}/confirm`
#[utoipa::path(
    post, path = "/v1/payment-decisions/{id}/confirm", tag = "Billing", operation_id = "confirm_payment_decision", summary = "Confirm a decision",
    description = "By another person than who proposed it, who has looked at the evidence. What follows from it happens at once.",
    params(("id" = Uuid, Path, description = "The decision")),
    responses(
        (status = 200, description = "Confirmed", body = DecisionView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment_decision.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`second_person.needed`, `payment.not_decidable`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn confirm(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<Json<DecisionView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let (before, decision) = decide(&mut tx, &steward, id, true).await?;
    let payment = found(&mut tx, steward.tenant_id, decision.payment_id).await?;
    follow(&app, &mut tx, &payment, &decision).await?;
    hint(&app, &mut tx, &payment, None).await?;
    record(&mut tx, &steward, "payment.confirm", &before, &decision).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Json(decision.into()))
}

/// `POST /v1/payment-decisions/{id}/refuse`
#[utoipa::path(
    post, path = "/v1/payment-decisions/{id}/refuse", tag = "Billing", operation_id = "refuse_payment_decision", summary = "Refuse a decision",
    description = "Nothing follows from it. Whoever proposed it may take it back so.", params(("id" = Uuid, Path, description = "The decision")),
    responses(
        (status = 200, description = "Refused", body = DecisionView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment_decision.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`second_person.needed`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn refuse(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
) -> Result<Json<DecisionView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let (before, decision) = decide(&mut tx, &steward, id, false).await?;
    record(&mut tx, &steward, "payment.refuse", &before, &decision).await?;
    tx.commit().await?;
    Ok(Json(decision.into()))
}

/// What came instead of what was meant; none when it is that.
fn otherwise(payment: &Payment, decision: &Decision) -> Option<String> {
    let (amount, currency) = (decision.amount?, decision.currency.as_deref()?);
    let meant = amount == payment.amount && currency == payment.currency;
    (!meant).then(|| {
        let (came, due) = (money::text(amount, currency), money::text(payment.amount, &payment.currency));
        format!("{came} came for {due}: what came goes back, by hand")
    })
}

/// What follows from a decision that two people have made.
async fn follow(app: &App, db: Db<'_>, payment: &Payment, decision: &Decision) -> Result<(), Problem> {
    let (tenant_id, workflows) = (payment.tenant_id, &app.workflows);
    let txn = decision.provider_txn.as_deref().unwrap_or_default();
    // Banks call movements alike: ours are told apart by their account.
    let txn = if payment.provider == "manual" {
        format!("{}:{txn}", payment.gateway_id.unwrap_or_default())
    } else {
        txn.to_owned()
    };
    let captured = Captured { provider_txn: &txn, at: None };
    match (decision.outcome.as_str(), decision.refund_id) {
        ("paid" | "refund", None) => {
            // Nothing would follow for what its gateway, or somebody, has settled meanwhile.
            let now = state::lock(&mut *db, tenant_id, payment.id).await?;
            if let Some(settled) = now.filter(|now| now.paid_at.is_some()) {
                return Err(undecidable(&settled.state));
            }
            let other = otherwise(payment, decision);
            let goes = match (decision.outcome.as_str(), &other) {
                ("refund", Some(other)) => Goes::BackByHand(other),
                ("refund", None) => Goes::Back,
                _ => Goes::Here,
            };
            let after = settle::settle_as(workflows, db, tenant_id, payment.id, &captured, goes).await;
            match after.map_err(|e| Problem::internal(&e))?.as_str() {
                "refunding" => Ok(()),
                "paid" if goes == Goes::Here => Ok(()),
                other => Err(undecidable(other)),
            }
        }
        ("failed", None) => {
            // Nor of what has ended meanwhile, with money or without.
            let now = state::lock(&mut *db, tenant_id, payment.id).await?;
            if let Some(ended) = now.filter(|now| !now.is_open() && now.state != "review") {
                return Err(undecidable(&ended.state));
            }
            let failed = settle::fail(workflows, db, tenant_id, payment.id, "payment.no_money").await;
            failed.map_err(|e| Problem::internal(&e))
        }
        ("refunded", Some(refund)) => {
            // As a bank calls it, and told apart from what gateways call theirs.
            let name =
                decision.provider_txn.as_ref().map(|txn| format!("{}:{txn}", payment.gateway_id.unwrap_or_default()));
            let done = refunds::done(workflows, db, tenant_id, refund, name.as_deref()).await;
            let done = done.map_err(|e| Problem::internal(&e))?;
            if done == "done" { Ok(()) } else { Err(undecidable(&done)) }
        }
        (_, Some(refund)) => refunds::give_up(db, tenant_id, refund).await.map_err(|e| Problem::internal(&e)),
        (_, None) => Ok(()),
    }
}

fn undecidable(state: &str) -> Problem {
    Problem::new(
        Code::PaymentNotDecidable,
        format!(
            "it is {state} meanwhile, or the movement is that of another payment or refund: name its part, such as 0042/2"
        ),
    )
}

async fn write(
    db: Db<'_>,
    steward: &Steward,
    payment_id: Uuid,
    refund_id: Option<Uuid>,
    body: &ProposeDecision,
) -> Result<Decision, Problem> {
    let proposed_by = person(steward)?;
    let new = NewDecision {
        payment_id,
        refund_id,
        outcome: &body.outcome,
        provider_txn: body.transaction.as_deref(),
        amount: body.amount.zip(body.currency.as_deref()),
        evidence: body.evidence.trim(),
        proposed_by,
    };
    let made_id = payment_decision::propose(&mut *db, steward.tenant_id, &new).await?;
    let made_id = made_id.ok_or_else(|| {
        Problem::new(Code::PaymentDecisionOpen, "a decision about this payment waits for its second person")
    })?;
    let decision = payment_decision::find(&mut *db, steward.tenant_id, made_id).await?.ok_or_else(missing)?;
    steward.record_because(db, "payment.propose", &object(payment_id), reason(&body.evidence), made(&decision)).await?;
    Ok(decision)
}

/// The decision before and after it was decided.
async fn decide(db: Db<'_>, steward: &Steward, id: Uuid, confirm: bool) -> Result<(Decision, Decision), Problem> {
    let before = payment_decision::find(&mut *db, steward.tenant_id, id).await?.ok_or_else(missing)?;
    let by = person(steward)?;
    if !payment_decision::decide(&mut *db, steward.tenant_id, id, by, confirm).await? {
        let detail = "it is decided already, or it is you who proposed it: another person confirms it";
        return Err(Problem::new(Code::SecondPersonNeeded, detail));
    }
    let after = payment_decision::find(db, steward.tenant_id, id).await?.ok_or_else(missing)?;
    Ok((before, after))
}

/// Writes down that it was decided: after what follows from it, which waits for rows of others.
async fn record(db: Db<'_>, steward: &Steward, action: &str, before: &Decision, after: &Decision) -> sqlx::Result<()> {
    let change = Change { before: Some(before), after: Some(after) };
    steward.record_because(db, action, &object(before.payment_id), reason(&before.evidence), change).await
}

/// Whoever says something of money is a person.
pub(super) fn person(steward: &Steward) -> Result<Uuid, Problem> {
    let detail = "people decide about money, not keys";
    steward.user_id.ok_or_else(|| Problem::new(Code::SecondPersonNeeded, detail))
}

/// As much as the audit takes.
fn reason(evidence: &str) -> &str {
    evidence.char_indices().nth(900).map_or(evidence, |(end, _)| &evidence[..end])
}

fn missing() -> Problem {
    Problem::not_found(Code::PaymentDecisionNotFound, "decision")
}

impl ProposeDecision {
    fn check(&self, outcomes: &[&str]) -> Result<(), Problem> {
        let fault = |pointer, detail: &str| Err(Problem::fault(pointer, "decision.shape", detail.to_owned()));
        if !outcomes.contains(&self.outcome.as_str()) {
            return fault("/outcome", &format!("outcome is one of {}", outcomes.join(", ")));
        }
        let plain = |text: &str, most| {
            (1..=most).contains(&text.trim().chars().count()) && !text.chars().any(|c| c.is_control() && c != '\n')
        };
        let moves = matches!(self.outcome.as_str(), "paid" | "refund" | "refunded");
        if self.transaction.as_deref().is_some_and(|text| !plain(text, 200)) || moves && self.transaction.is_none() {
            return fault("/transaction", "say what the bank calls the movement, in 1 to 200 characters");
        }
        if self.outcome == "refund" && self.amount.is_none() {
            return fault("/amount", "say how much came, and of what: that goes back");
        }
        if self.amount.is_some() != self.currency.is_some() || self.amount.is_some_and(|amount| amount <= 0) {
            return fault("/amount", "an amount is more than 0 and has a currency");
        }
        if self.currency.as_deref().is_some_and(|code| !super::plans::is_currency(code)) {
            return fault("/currency", "a currency is three capital letters");
        }
        if !plain(&self.evidence, 4000) {
            return fault("/evidence", "say how you know, in 1 to 4000 characters");
        }
        Ok(())
    }
}
