//! `/v1/credits`: seconds of rendering that there are, and what became of them.

use crate::{
    app::App,
    auth::{Tenant, Viewer},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Registrar, Steward, Trustee},
    problem::{Code, Problem, ProblemBody},
    render::submit,
};
use axum::{extract::State, http::HeaderMap};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Db, Role,
    identity::{
        credit::{self, Account, Entered, Line, MOST, Reason},
        user,
    },
    render::bill::Billed,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Credits that pay for your films.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreditsView {
    /// Always `credits`.
    #[schema(example = "credits")]
    object: &'static str,
    /// Whose account pays: `person`, `tenant`, or `nobody` when there is none.
    #[schema(example = "person")]
    owner: &'static str,
    /// Seconds of rendering there are, those that are held included.
    #[schema(example = 3600)]
    balance: i64,
    /// Seconds that films under way may take.
    #[schema(example = 120)]
    held: i64,
    /// Seconds that a new film may take.
    #[schema(example = 3480)]
    free: i64,
    /// Whether a film is refused where nobody's account pays for it; else it is free of charge, unless the tenant has an account.
    films_cost_credits: bool,
}

/// A line of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreditLine {
    /// Its id.
    id: Uuid,
    /// Always `credit_entry`.
    #[schema(example = "credit_entry")]
    object: &'static str,
    /// What it is of; counts once.
    #[schema(example = "run:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11:capture")]
    entry_key: String,
    /// Seconds that came, or went.
    #[schema(example = -42)]
    delta: i64,
    /// Seconds that were there afterwards.
    #[schema(example = 3558)]
    balance_after: i64,
    /// `purchase`, `grant`, `render`, `refund`, `correction` or `expiry`.
    #[schema(example = "render")]
    reason: String,
    /// When.
    created_at: DateTime<Utc>,
}

impl From<Line> for CreditLine {
    fn from(l: Line) -> Self {
        let Line { id, entry_key, delta, balance_after, reason, created_at } = l;
        Self { id, object: "credit_entry", entry_key, delta, balance_after, reason, created_at }
    }
}

/// Which lines to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListLines {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this line: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// Credits to be given or taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantCredits {
    /// Seconds of rendering; negative ones are taken, as a correction. What is held stays.
    #[schema(example = 3600, minimum = -1_000_000_000_000_i64, maximum = 1_000_000_000_000_i64)]
    seconds: i64,
    /// Why, 1 to 500 characters: it stands in the audit.
    #[schema(example = "a film had to be ordered twice", pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: String,
}

/// What films cost.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTerms {
    /// True: a film is refused where neither the person's account nor the tenant's pays for it. False: it is free of charge where the tenant
    /// has none.
    films_cost_credits: bool,
}

/// `GET /v1/credits`
#[utoipa::path(
    get, path = "/v1/credits", tag = "Billing", operation_id = "get_credits", summary = "See your credits",
    description = "Seconds of rendering. Your own account pays for your films as long as there is enough in it, else the tenant's. A film holds \
                   twice what it is expected to take, and pays what nodes really rendered for it; failed and cancelled ones and previews cost \
                   nothing.",
    responses((status = 200, description = "The account that pays", body = CreditsView))
)]
pub async fn get(State(app): State<App>, Viewer(caller): Viewer) -> Result<Json<CreditsView>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    Ok(Json(view(&mut tx, caller).await?))
}

async fn view(db: Db<'_>, caller: Tenant) -> Result<CreditsView, Problem> {
    let account = credit::payer(&mut *db, caller.id, caller.actor.user_id()).await?;
    let owner = match &account {
        None => "nobody",
        Some(Account { user_id: None, .. }) => "tenant",
        Some(_) => "person",
    };
    let films_cost_credits = credit::is_paid(db, caller.id).await?;
    let (balance, held) = account.map_or((0, 0), |a| (a.balance, a.held));
    Ok(CreditsView { object: "credits", owner, balance, held, free: balance - held, films_cost_credits })
}

/// `GET /v1/credits/ledger`
#[utoipa::path(
    get, path = "/v1/credits/ledger", tag = "Billing", operation_id = "list_credit_entries", summary = "List what came and went",
    description = "Of the account that pays for your films, newest first, a page at a time. Nobody can change or remove a line.",
    params(ListLines), responses((status = 200, description = "A page", body = Page<CreditLine>))
)]
pub async fn ledger(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Query(query): Query<ListLines>,
) -> Result<Json<Page<CreditLine>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.begin(&caller, Role::Identity).await?;
    let lines = match credit::payer(&mut tx, caller.id, caller.actor.user_id()).await? {
        Some(account) => credit::ledger(&mut tx, account.id, query.starting_after, size + 1).await?,
        None => vec![],
    };
    Ok(Json(Page::of(lines, size, |l| l.id.to_string())))
}

/// `PUT /v1/credits/terms`
#[utoipa::path(
    put, path = "/v1/credits/terms", tag = "Billing", operation_id = "set_credit_terms", summary = "Say whether films cost credits",
    description = "Where the tenant has no account: films that the person's own account does not pay for are free of charge, or refused. They are \
                   free until this is said, or until credits are sold: in a pack, or as minutes of a plan that has a price.",
    request_body = SetTerms,
    responses(
        (status = 200, description = "As it is now", body = SetTermsView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set_terms(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<SetTerms>,
) -> Result<Json<SetTermsView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = credit::is_paid(&mut tx, steward.tenant_id).await?;
    credit::set_paid(&mut tx, steward.tenant_id, body.films_cost_credits).await?;
    let change = Change { before: Some(before), after: Some(body.films_cost_credits) };
    steward.record(&mut tx, "credits.set_terms", &format!("tenant:{}", steward.tenant_id), change).await?;
    tx.commit().await?;
    Ok(Json(SetTermsView { object: "credit_terms", films_cost_credits: body.films_cost_credits }))
}

/// The tenant sells credits: films cost some from now on, where nobody has said whether they do.
///
/// # Errors
/// Those of the database.
pub(super) async fn sold(db: Db<'_>, steward: &Steward) -> Result<(), Problem> {
    if credit::sells(&mut *db, steward.tenant_id).await? {
        let change = Change { before: Some(false), after: Some(true) };
        steward.record(db, "credits.set_terms", &format!("tenant:{}", steward.tenant_id), change).await?;
    }
    Ok(())
}

/// What films cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct SetTermsView {
    /// Always `credit_terms`.
    #[schema(example = "credit_terms")]
    object: &'static str,
    /// Whether a film is refused where nobody's account pays for it.
    films_cost_credits: bool,
}

/// An account, afterwards.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountView {
    /// Always `credit_account`.
    #[schema(example = "credit_account")]
    object: &'static str,
    /// The person; null: it is the tenant's.
    user_id: Option<Uuid>,
    /// Seconds there are, those that are held included.
    #[schema(example = 3600)]
    balance: i64,
    /// Seconds that films under way may take.
    #[schema(example = 0)]
    held: i64,
}

impl From<Account> for AccountView {
    fn from(a: Account) -> Self {
        Self { object: "credit_account", user_id: a.user_id, balance: a.balance, held: a.held }
    }
}

/// `POST /v1/members/{id}/credits`: makes an account where there is none.
#[utoipa::path(
    post, path = "/v1/members/{id}/credits", tag = "Billing", operation_id = "grant_credits", summary = "Give somebody credits, or take some",
    description = "Who has an account pays for their films with it, as long as there is enough in it. With an `Idempotency-Key` it counts once, however often it is sent.",
    params(("id" = Uuid, Path, description = "The person"), ("Idempotency-Key" = Option<String>, Header, max_length = 100, pattern = r"^[\t -~]+$", description = "1 to 100 printable ASCII characters, yours")),
    request_body = GrantCredits,
    responses(
        (status = 200, description = "Their account, afterwards", body = AccountView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`member.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`credits.short`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `idempotency.key_reused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn grant(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(body): Json<GrantCredits>,
) -> Result<Json<AccountView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    if user::find(&mut tx, steward.tenant_id, id).await?.is_none() {
        return Err(Problem::not_found(Code::MemberNotFound, "person"));
    }
    let account = enter(&mut tx, &steward, Some(id), &headers, &body).await?;
    tx.commit().await?;
    Ok(Json(account.into()))
}

/// `POST /v1/platform/tenants/{id}/credits`: the same for a tenant.
#[utoipa::path(
    post, path = "/v1/platform/tenants/{id}/credits", tag = "Platform", operation_id = "grant_tenant_credits",
    summary = "Give a tenant credits, or take some",
    description = "A tenant that has an account pays for its films with it from now on, but those of people who have one themselves. With an \
                   `Idempotency-Key` it counts once, however often it is sent.",
    params(("id" = Uuid, Path, description = "The tenant"), ("Idempotency-Key" = Option<String>, Header, max_length = 100, pattern = r"^[\t -~]+$", description = "1 to 100 printable ASCII characters, yours")),
    request_body = GrantCredits,
    responses(
        (status = 200, description = "Its account, afterwards", body = AccountView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`credits.short`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `idempotency.key_reused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn grant_tenant(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Json(body): Json<GrantCredits>,
) -> Result<Json<AccountView>, Problem> {
    let steward = registrar.of(id);
    let mut tx = steward.begin(&app).await?;
    if flatrender_workflows::models::identity::tenant::find(&mut tx, id).await?.is_none() {
        return Err(Problem::not_found(Code::TenantNotFound, "tenant"));
    }
    let account = enter(&mut tx, &steward, None, &headers, &body).await?;
    tx.commit().await?;
    Ok(Json(account.into()))
}

async fn enter(
    db: Db<'_>,
    steward: &Steward,
    user_id: Option<Uuid>,
    headers: &HeaderMap,
    body: &GrantCredits,
) -> Result<Account, Problem> {
    body.check()?;
    let key = submit::idempotency_key(headers)?.map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned);
    if key.len() > 100 {
        return Err(Problem::new(
            Code::HeaderInvalid,
            "an idempotency key is 1 to 100 printable ASCII characters here",
        ));
    }
    let before = credit::open_locked(&mut *db, steward.tenant_id, user_id).await?;
    let reason = if body.seconds > 0 { Reason::Grant } else { Reason::Correction };
    let key = format!("grant:{key}");
    match credit::grant(&mut *db, before.id, &key, body.seconds, reason).await? {
        Entered::Before => {
            let same = credit::entered(db, steward.tenant_id, &key).await? == Some((before.id, body.seconds));
            let detail = "this idempotency key was used for another account, or other credits";
            return if same { Ok(before) } else { Err(Problem::new(Code::IdempotencyKeyReused, detail)) };
        }
        Entered::Refused => {
            let free = before.free();
            return Err(Problem::new(
                Code::CreditsShort,
                format!("{free} s are free in this account; what is held stays"),
            ));
        }
        Entered::Now(_) => {}
    }
    let after = credit::find(&mut *db, steward.tenant_id, user_id).await?;
    let change = Change { before: Some(before), after: after.as_ref() };
    let after = after.clone().ok_or_else(|| Problem::internal(&sqlx::Error::RowNotFound))?;
    let whose = user_id.map_or_else(|| format!("tenant:{}", steward.tenant_id), |id| format!("user:{id}"));
    steward.record_because(db, "credits.grant", &whose, &body.reason, change).await?;
    Ok(after)
}

impl GrantCredits {
    fn check(&self) -> Result<(), Problem> {
        if self.seconds == 0 || !(-MOST..=MOST).contains(&self.seconds) {
            return Err(Problem::fault("/seconds", "seconds.range", "give or take some seconds, at most 10¹²"));
        }
        let length = self.reason.trim().chars().count();
        if !(1..=500).contains(&length) || self.reason.chars().any(char::is_control) {
            return Err(Problem::fault("/reason", "reason.length", "say why in 1 to 500 characters"));
        }
        Ok(())
    }
}

/// Whether an order can be paid.
///
/// # Errors
/// `credits.insufficient`; then the transaction is to be given up.
pub fn afforded(billed: Billed) -> Result<(), Problem> {
    match billed {
        Billed::Free | Billed::Held(_) => Ok(()),
        Billed::Short { needed, free } => {
            let detail = format!(
                "the film may take {needed} s of rendering, and {free} s are free; buy some, or order a shorter one"
            );
            Err(Problem::new(Code::CreditsInsufficient, detail))
        }
    }
}
