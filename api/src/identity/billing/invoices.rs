//! `/v1/invoices`: bills and credit notes, to look at and to be sent again.

use super::{
    invoice_pdf,
    payments::{self, Onlooker},
};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::Change,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chrono::NaiveDate;
use flatrender_workflows::{
    definitions::payment::receipt,
    models::{
        Db,
        identity::invoice::{self, Invoice},
    },
};
use serde::{Deserialize, Serialize};
use std::io;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A bill or a credit note.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvoiceView {
    /// Its id.
    id: Uuid,
    /// Always `invoice`.
    #[schema(example = "invoice")]
    object: &'static str,
    /// Its number: without gaps in a series and year.
    #[schema(example = "INV-2026-000042")]
    number: String,
    /// `bill` or `credit_note`.
    #[schema(example = "bill")]
    kind: &'static str,
    /// The day it was issued.
    issue_date: Option<NaiveDate>,
    /// Who is paid.
    #[schema(example = "FlatRender")]
    seller: String,
    /// Who pays.
    #[schema(example = "Jane Doe")]
    buyer: String,
    /// ISO 4217.
    #[schema(example = "USD")]
    currency: String,
    /// Without tax, in minor units; negative on a credit note.
    #[schema(example = 1520)]
    net_amount: i64,
    /// Tax.
    #[schema(example = 0)]
    tax_amount: i64,
    /// With tax.
    #[schema(example = 1520)]
    total_amount: i64,
    /// The payment.
    payment_id: Option<Uuid>,
    /// The bill that a credit note corrects.
    corrects_id: Option<Uuid>,
    /// What for.
    lines: Vec<InvoiceLineView>,
}

/// A line of a bill.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvoiceLineView {
    /// What for.
    #[schema(example = "Pro")]
    description: String,
    /// How many.
    #[schema(example = 1)]
    quantity: i32,
    /// What one costs, in minor units.
    #[schema(example = 1900)]
    unit_amount: i64,
}

impl From<Invoice> for InvoiceView {
    fn from(i: Invoice) -> Self {
        let line = |l: &invoice::Line| InvoiceLineView {
            description: l.description.clone(),
            quantity: l.quantity,
            unit_amount: l.unit_amount,
        };
        Self {
            id: i.id,
            object: "invoice",
            number: i.name(),
            kind: if i.corrects_id.is_some() { "credit_note" } else { "bill" },
            issue_date: i.issue_date,
            seller: i.parties.seller.clone(),
            buyer: i.parties.name.clone(),
            currency: i.currency,
            net_amount: i.net_amount,
            tax_amount: i.tax_amount,
            total_amount: i.total_amount,
            payment_id: i.payment_id,
            corrects_id: i.corrects_id,
            lines: i.lines.iter().map(line).collect(),
        }
    }
}

/// Which bills to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListInvoices {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
    /// Those of this payment: its bill, and the credit notes of what went back.
    payment_id: Option<Uuid>,
}

/// `GET /v1/invoices`
#[utoipa::path(
    get, path = "/v1/invoices", tag = "Billing", operation_id = "list_invoices", summary = "List bills",
    description = "Yours; of everybody for who manages the tenant or pays for it. Newest first, a page at a time.", params(ListInvoices),
    responses((status = 200, description = "A page", body = Page<InvoiceView>))
)]
pub async fn list(
    State(app): State<App>,
    by: Onlooker,
    Query(query): Query<ListInvoices>,
) -> Result<Json<Page<InvoiceView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = by.begin(&app).await?;
    let (payment, after) = (query.payment_id, query.starting_after);
    let all = invoice::list(&mut tx, by.tenant_id, by.whose, payment, after, size + 1).await?;
    Ok(Json(Page::of(all, size, |i| i.id.to_string())))
}

/// `GET /v1/invoices/{id}`
#[utoipa::path(
    get, path = "/v1/invoices/{id}", tag = "Billing", operation_id = "get_invoice", summary = "Get a bill",
    description = "As it was issued: it never changes.", params(("id" = Uuid, Path, description = "The bill")),
    responses(
        (status = 200, description = "The bill", body = InvoiceView),
        (status = 404, description = "`invoice.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, by: Onlooker, Path(id): Path<Uuid>) -> Result<Json<InvoiceView>, Problem> {
    let mut tx = by.begin(&app).await?;
    Ok(Json(seen(&mut tx, &by, id).await?.into()))
}

/// `GET /v1/invoices/{id}/pdf`
#[utoipa::path(
    get, path = "/v1/invoices/{id}/pdf", tag = "Billing", operation_id = "get_invoice_pdf", summary = "Get a bill as PDF",
    description = "In the buyer's language, A4. The same bytes whenever it is asked for.", params(("id" = Uuid, Path, description = "The bill")),
    responses(
        (status = 200, description = "The bill", body = crate::openapi::Binary, content_type = "application/pdf"),
        (status = 404, description = "`invoice.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn pdf(State(app): State<App>, by: Onlooker, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let mut tx = by.begin(&app).await?;
    let invoice = seen(&mut tx, &by, id).await?;
    drop(tx);
    let name = format!("inline; filename=\"{}.pdf\"", invoice.name());
    // Fonts are read and cut down: a matter of the processor.
    let written = tokio::task::spawn_blocking(move || invoice_pdf::pdf(&invoice));
    let written =
        written.await.map_err(|e| Problem::internal(&e))?.map_err(|e| Problem::internal(&io::Error::other(e)))?;
    Ok(([(header::CONTENT_TYPE, "application/pdf".to_owned()), (header::CONTENT_DISPOSITION, name)], written)
        .into_response())
}

/// `POST /v1/invoices/{id}/send`: has whoever paid told of it again. Answers 202 with the bill.
#[utoipa::path(
    post, path = "/v1/invoices/{id}/send", tag = "Billing", operation_id = "send_invoice", summary = "Send a bill again",
    description = "To whoever paid, in the words in which they were told of it first, and the ways in which they hear of money. Once in ten \
                   minutes. Webhooks are not called again.",
    params(("id" = Uuid, Path, description = "The bill")),
    responses(
        (status = 202, description = "It is on its way", body = InvoiceView),
        (status = 404, description = "`invoice.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`invoice.just_sent`: `Retry-After` tells when it can be sent", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn send(
    State(app): State<App>,
    by: Onlooker,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<InvoiceView>), Problem> {
    let mut tx = by.begin(&app).await?;
    let bill = seen(&mut tx, &by, id).await?;
    let paid = payments::found(&mut tx, by.tenant_id, bill.payment_id.ok_or_else(missing)?).await?;
    if let Some(left) = invoice::note_sending(&mut tx, by.tenant_id, id).await? {
        let detail = format!("the bill was sent a moment ago; try again in {left} s");
        return Err(Problem::new(Code::InvoiceJustSent, detail).with_header(header::RETRY_AFTER, left.into()));
    }
    receipt::send_again(&app.workflows, &mut tx, &paid, &bill).await?;
    let change = Change { before: Some(&bill), after: Some(&bill) };
    by.acting.record(&mut tx, "invoice.send", &format!("invoice:{id}"), change).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(bill.into())))
}

fn missing() -> Problem {
    Problem::not_found(Code::InvoiceNotFound, "bill")
}

async fn seen(db: Db<'_>, by: &Onlooker, id: Uuid) -> Result<Invoice, Problem> {
    let owner = invoice::owner(&mut *db, by.tenant_id, id).await?;
    if by.whose.is_some_and(|user| owner != Some(user)) {
        return Err(missing());
    }
    invoice::find(db, by.tenant_id, id).await?.ok_or_else(missing)
}
