//! `/v1/payment-differences`: what differs between our books and those of gateways. One person says what it was, another one looks at it.

use super::decisions::person;
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee},
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use flatrender_workflows::models::{
    Db,
    identity::reconciliation::difference::{self, Difference, Sums},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A difference.
#[derive(Debug, Serialize, ToSchema)]
pub struct DifferenceView {
    /// Its id.
    id: Uuid,
    /// Always `payment_difference`.
    #[schema(example = "payment_difference")]
    object: &'static str,
    /// `unmatched`: money that no payment took; `day`: sums of a day that are not the same.
    #[schema(example = "day")]
    kind: String,
    /// `stripe` or `zarinpal`.
    #[schema(example = "stripe")]
    provider: String,
    /// The account, of money that no payment took.
    gateway_id: Option<Uuid>,
    /// What its gateway calls it.
    #[schema(example = "cs_test_a1")]
    reference: Option<String>,
    /// The payment it was for, which had ended.
    payment_id: Option<Uuid>,
    /// Which day.
    day: Option<NaiveDate>,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// By our books, in minor units.
    #[schema(example = 1520)]
    our_amount: i64,
    /// By theirs.
    #[schema(example = 1920)]
    their_amount: i64,
    /// What is known of it: each movement that differs.
    #[schema(example = "pi_1: not ours, 400")]
    detail: Option<String>,
    /// What somebody says that it was.
    #[schema(example = "Paid at the counter and typed into Stripe by hand")]
    explanation: Option<String>,
    /// Who.
    explained_by: Option<Uuid>,
    /// Who else has looked at it.
    confirmed_by: Option<Uuid>,
    /// When it was found.
    found_at: DateTime<Utc>,
    /// When it was confirmed.
    confirmed_at: Option<DateTime<Utc>>,
}

impl From<Difference> for DifferenceView {
    fn from(d: Difference) -> Self {
        Self {
            id: d.id,
            object: "payment_difference",
            kind: d.kind,
            provider: d.provider,
            gateway_id: d.gateway_id,
            reference: d.reference,
            payment_id: d.payment_id,
            day: d.day,
            currency: d.currency,
            our_amount: d.our_amount,
            their_amount: d.their_amount,
            detail: d.detail,
            explanation: d.explanation,
            explained_by: d.explained_by,
            confirmed_by: d.confirmed_by,
            found_at: d.found_at,
            confirmed_at: d.confirmed_at,
        }
    }
}

/// Which differences to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListDifferences {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
    /// Also those that two people have explained.
    all: Option<bool>,
}

/// What a difference was.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainDifference {
    /// What it was, and how you know: at most 4000 characters. Who confirms it repeats what they have read.
    #[schema(
        example = "Paid at the counter and typed into Stripe by hand",
        max_length = 4000,
        pattern = r"^[^\u0000]+$"
    )]
    explanation: String,
    /// As you have seen it: it may be another one by now.
    #[schema(example = 1520)]
    our_amount: i64,
    /// As you have seen it.
    #[schema(example = 1920)]
    their_amount: i64,
}

impl ExplainDifference {
    /// What is said, of which sums.
    fn said(&self) -> Result<(&str, Sums), Problem> {
        let explanation = self.explanation.trim();
        if !(1..=4000).contains(&explanation.chars().count()) || explanation.contains('\0') {
            let detail = "an explanation has 1 to 4000 characters";
            return Err(Problem::fault("/explanation", "difference.explanation", detail));
        }
        Ok((explanation, Sums { ours: self.our_amount, theirs: self.their_amount }))
    }
}

/// `GET /v1/payment-differences`
#[utoipa::path(
    get, path = "/v1/payment-differences", tag = "Billing", operation_id = "list_payment_differences",
    summary = "List what differs from gateways",
    description = "Money that gateways have and no payment took, and days whose sums are not the same. Newest first, a page at a time.",
    params(ListDifferences),
    responses((status = 200, description = "A page", body = Page<DifferenceView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListDifferences>,
) -> Result<Json<Page<DifferenceView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let all = query.all.unwrap_or(false);
    let found = difference::list(&mut tx, steward.tenant_id, all, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(found, size, |d| d.id.to_string())))
}

/// `GET /v1/payment-differences/{id}`
#[utoipa::path(
    get, path = "/v1/payment-differences/{id}", tag = "Billing", operation_id = "get_payment_difference",
    summary = "Get what differs from a gateway",
    description = "With what people have said of it. Whoever explains or confirms it names the sums that stand here.",
    params(("id" = Uuid, Path, description = "The difference")),
    responses(
        (status = 200, description = "The difference", body = DifferenceView),
        (status = 404, description = "`payment_difference.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Json<DifferenceView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    Ok(Json(found(&mut tx, steward.tenant_id, id).await?.into()))
}

/// `POST /v1/payment-differences/{id}/explain`
#[utoipa::path(
    post, path = "/v1/payment-differences/{id}/explain", tag = "Billing", operation_id = "explain_payment_difference",
    summary = "Say what a difference was",
    description = "It counts when another person confirms it, and only for the sums it was given for. No money moves.",
    params(("id" = Uuid, Path, description = "The difference")), request_body = ExplainDifference,
    responses(
        (status = 200, description = "It waits for another person", body = DifferenceView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment_difference.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`second_person.needed`, `payment_difference.over`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn explain(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<ExplainDifference>,
) -> Result<Json<DifferenceView>, Problem> {
    let (explanation, seen) = body.said()?;
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    let by = person(&steward)?;
    if !difference::explain(&mut tx, steward.tenant_id, id, seen, explanation, by).await? {
        let detail = "two people have explained it, or its sums are not what you have seen: look again";
        return Err(Problem::new(Code::PaymentDifferenceOver, detail));
    }
    let after = changed(&mut tx, &steward, "payment_difference.explain", before).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// `POST /v1/payment-differences/{id}/confirm`
#[utoipa::path(
    post, path = "/v1/payment-differences/{id}/confirm", tag = "Billing", operation_id = "confirm_payment_difference",
    summary = "Confirm what a difference was",
    description = "By another person than who explained it, who repeats what they have read. The nightly check is silent about it from then on.",
    params(("id" = Uuid, Path, description = "The difference")), request_body = ExplainDifference,
    responses(
        (status = 200, description = "Confirmed", body = DifferenceView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`payment_difference.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`second_person.needed`, `payment_difference.over`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn confirm(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<ExplainDifference>,
) -> Result<Json<DifferenceView>, Problem> {
    let (explanation, seen) = body.said()?;
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    let by = person(&steward)?;
    if before.explained_by.is_none_or(|who| who == by) {
        let detail = "nobody has explained it, or it was you: another person confirms it";
        return Err(Problem::new(Code::SecondPersonNeeded, detail));
    }
    if !difference::confirm(&mut tx, steward.tenant_id, id, seen, explanation, by).await? {
        let detail = "two people have explained it, or it is not as you have seen it: look again";
        return Err(Problem::new(Code::PaymentDifferenceOver, detail));
    }
    let after = changed(&mut tx, &steward, "payment_difference.confirm", before).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// Writes down who did what; gives the difference as it is now.
async fn changed(db: Db<'_>, steward: &Steward, action: &str, before: Difference) -> Result<Difference, Problem> {
    let after = found(&mut *db, steward.tenant_id, before.id).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(db, action, &format!("payment_difference:{}", before.id), change).await?;
    Ok(after)
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Difference, Problem> {
    let missing = || Problem::not_found(Code::PaymentDifferenceNotFound, "difference");
    difference::find(db, tenant_id, id).await?.ok_or_else(missing)
}
