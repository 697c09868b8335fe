//! Bills and credit notes: numbered without gaps within a tenant, series and year, and never changed once they are issued.

use super::payment::{Payment, Snapshot};
use crate::models::Db;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use std::time::Duration;
use uuid::Uuid;

/// The series of bills.
pub const BILLS: &str = "INV";
/// The series of credit notes.
pub const NOTES: &str = "CN";
/// How long after a bill was sent again it is not sent once more: whoever pays is not to be flooded, and a letter takes its time.
pub const SEND_PAUSE: Duration = Duration::from_secs(600);

/// Who a bill is for, and of whom, as it was then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parties {
    /// Who pays: a name.
    #[serde(default)]
    pub name: String,
    /// Their address for letters.
    #[serde(default)]
    pub email: String,
    /// The language of the bill, by BCP 47.
    #[serde(default)]
    pub language: String,
    /// Who is paid.
    #[serde(default)]
    pub seller: String,
    /// What stands below.
    #[serde(default)]
    pub footer: String,
}

/// A bill or a credit note.
#[derive(Debug, Clone, Serialize)]
pub struct Invoice {
    /// Its id.
    pub id: Uuid,
    /// `INV` or `CN`.
    pub series: String,
    /// The year of its number.
    pub year: i32,
    /// Its number.
    pub number: Option<i64>,
    /// `draft`, `issued` or `void`.
    pub state: String,
    /// The day it was issued.
    pub issue_date: Option<NaiveDate>,
    /// For whom and of whom.
    pub parties: Json<Parties>,
    /// ISO 4217.
    pub currency: String,
    /// Without tax, in minor units; negative on a credit note.
    pub net_amount: i64,
    /// Tax.
    pub tax_amount: i64,
    /// To pay.
    pub total_amount: i64,
    /// The payment.
    pub payment_id: Option<Uuid>,
    /// The refund it notes.
    pub refund_id: Option<Uuid>,
    /// The bill that it corrects.
    pub corrects_id: Option<Uuid>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// What for.
    pub lines: Json<Vec<Line>>,
}

/// A line of a bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What for.
    pub description: String,
    /// How many.
    pub quantity: i32,
    /// What one costs, in minor units.
    pub unit_amount: i64,
}

impl Invoice {
    /// Its number as people read it, such as `INV-2026-000042`.
    pub fn name(&self) -> String {
        name(&self.series, self.year, self.number.unwrap_or_default())
    }
}

/// The same of a number.
pub fn name(series: &str, year: i32, number: i64) -> String {
    format!("{series}-{year}-{number:06}")
}

/// Issues the bill of a payment that was just paid; gives its name. A payment has one.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn bill(db: Db<'_>, payment: &Payment, snapshot: &Snapshot) -> sqlx::Result<String> {
    let parties = parties(&mut *db, payment.tenant_id, payment.user_id).await?;
    let (fa, total) = (parties.language.starts_with("fa"), payment.amount);
    let mut lines = vec![Line {
        description: snapshot.what.text(&parties.language),
        quantity: 1,
        unit_amount: snapshot.list_amount,
    }];
    if let Some(code) = &snapshot.coupon {
        let description = if fa { format!("تخفیف {code}") } else { format!("Coupon {code}") };
        lines.push(Line { description, quantity: 1, unit_amount: -snapshot.reduction });
    }
    let draft = Draft { series: BILLS, parties: &parties, total, lines: &lines, refund: None, corrects: None };
    issue(db, payment, &draft).await
}

/// Issues the credit note of a refund; none where the payment had no bill: then what was paid went straight back.
pub async fn credit_note(db: Db<'_>, payment: &Payment, refund_id: Uuid, amount: i64) -> sqlx::Result<Option<String>> {
    let bill = sqlx::query_scalar!(
        "select id from identity.invoices where payment_id = $1 and refund_id is null and state = 'issued'",
        payment.id
    );
    let Some(bill) = bill.fetch_optional(&mut *db).await? else { return Ok(None) };
    let Some(of) = find(&mut *db, payment.tenant_id, bill).await? else { return Ok(None) };
    let parties = of.parties.0.clone();
    let word = if parties.language.starts_with("fa") { "بازپرداخت" } else { "Refund of" };
    let lines = [Line { description: format!("{word} {}", of.name()), quantity: 1, unit_amount: -amount }];
    let draft = Draft {
        series: NOTES,
        parties: &parties,
        total: -amount,
        lines: &lines,
        refund: Some(refund_id),
        corrects: Some(bill),
    };
    issue(db, payment, &draft).await.map(Some)
}

struct Draft<'a> {
    series: &'a str,
    parties: &'a Parties,
    total: i64,
    lines: &'a [Line],
    refund: Option<Uuid>,
    corrects: Option<Uuid>,
}

async fn issue(db: Db<'_>, payment: &Payment, draft: &Draft<'_>) -> sqlx::Result<String> {
    let made = sqlx::query!(
        r#"insert into identity.invoices (tenant_id, series, year, buyer, currency, net_amount, tax_amount, total_amount, payment_id, refund_id,
               corrects_id, created_at, updated_at)
           values ($1, $2, extract(year from workflow.now() at time zone 'UTC')::int, $3, $4, $5, 0, $5, $6, $7, $8, workflow.now(), workflow.now())
           returning id, year, (workflow.now() at time zone 'UTC')::date as "day!""#,
        payment.tenant_id,
        draft.series,
        Json(draft.parties) as _,
        payment.currency,
        draft.total,
        payment.id,
        draft.refund,
        draft.corrects,
    )
    .fetch_one(&mut *db)
    .await?;
    for (no, line) in (1..).zip(draft.lines) {
        sqlx::query!(
            "insert into identity.invoice_lines (tenant_id, invoice_id, line_no, description, quantity, unit_amount)
             values ($1, $2, $3, left($4, 500), $5, $6)",
            payment.tenant_id,
            made.id,
            no,
            line.description,
            line.quantity,
            line.unit_amount,
        )
        .execute(&mut *db)
        .await?;
    }
    // Last of all: whoever issues another one of the series waits until this transaction ends.
    let number = sqlx::query_scalar!(r#"select identity.issue_invoice($1, $2) as "number!""#, made.id, made.day);
    Ok(name(draft.series, made.year, number.fetch_one(db).await?))
}

async fn parties(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Parties> {
    let row = sqlx::query!(
        r#"select u.display_name as "name?", u.email as "email?", coalesce(u.locale, t.locale, 'en') as "language!",
                  coalesce(b.product_name, t.name) as "seller!", b.legal_footer as "footer?"
           from identity.users u join identity.tenants t on t.id = u.tenant_id
           left join identity.tenant_branding b on b.tenant_id = t.id
           where u.tenant_id = $1 and u.id = $2"#,
        tenant_id,
        user_id,
    )
    .fetch_one(db)
    .await?;
    let (name, email) = (row.name.unwrap_or_default(), row.email.unwrap_or_default());
    Ok(Parties { name, email, language: row.language, seller: row.seller, footer: row.footer.unwrap_or_default() })
}

/// A bill of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Invoice>> {
    Ok(select(db, tenant_id, Some(id), None, None, None, 1).await?.pop())
}

/// Those of a person, or of everybody, newest first, those before the bill `before`; of one payment where it is given.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Option<Uuid>,
    payment_id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Invoice>> {
    select(db, tenant_id, None, user_id, payment_id, before, limit).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    user_id: Option<Uuid>,
    payment_id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Invoice>> {
    sqlx::query_as!(
        Invoice,
        r#"select i.id, i.series, i.year, i.number, i.state, i.issue_date, i.buyer as "parties: Json<Parties>", i.currency, i.net_amount,
                  i.tax_amount, i.total_amount, i.payment_id, i.refund_id, i.corrects_id, i.created_at,
                  (select coalesce(jsonb_agg(jsonb_build_object('description', l.description, 'quantity', l.quantity, 'unit_amount', l.unit_amount)
                       order by l.line_no), '[]') from identity.invoice_lines l where l.invoice_id = i.id) as "lines!: Json<Vec<Line>>"
           from identity.invoices i
           where i.tenant_id = $1 and ($2::uuid is null or i.id = $2)
             and ($3::uuid is null or exists (select from identity.payments p where p.id = i.payment_id and p.user_id = $3))
             and ($4::uuid is null or i.payment_id = $4)
             and ($5::uuid is null or (i.created_at, i.id) < (select b.created_at, b.id from identity.invoices b where b.tenant_id = $1 and b.id = $5))
           order by i.created_at desc, i.id desc limit $6"#,
        tenant_id,
        id,
        user_id,
        payment_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Whose a bill is: who has paid it.
pub async fn owner(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select p.user_id from identity.invoices i join identity.payments p on p.id = i.payment_id where i.tenant_id = $1 and i.id = $2",
        tenant_id,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Notes that a bill is being sent again. Not within [`SEND_PAUSE`] of the last time: then it gives how many seconds are left, from 1. Whoever
/// else sends it waits until this transaction ends.
pub async fn note_sending(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<u64>> {
    let left = sqlx::query_scalar!(
        r#"select coalesce(ceil(extract(epoch from sent_at + make_interval(secs => $3) - workflow.now()))::bigint, 0) as "left!"
           from identity.invoices where tenant_id = $1 and id = $2 for no key update"#,
        tenant_id,
        id,
        SEND_PAUSE.as_secs_f64(),
    );
    if let Some(left @ 1..) = left.fetch_optional(&mut *db).await? {
        return Ok(Some(left.unsigned_abs()));
    }
    sqlx::query!(
        "update identity.invoices set sent_at = workflow.now() where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .execute(db)
    .await?;
    Ok(None)
}
