//! `/v1/gifts`, what one has earned, and `/v1/gift-catalogue`, what there is.

use super::check_code;
use crate::{
    app::App,
    auth::SignedIn,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward, Trustee, billing::plans::check_words, made},
    openapi::Words,
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::{
    definitions::events,
    models::{
        Db,
        identity::{
            credit,
            gift::{self, Claim, Earned, Gift, NewGift},
            user,
        },
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A gift that you have earned.
#[derive(Debug, Serialize, ToSchema)]
pub struct EarnedView {
    /// Its id.
    id: Uuid,
    /// Always `gift`.
    #[schema(example = "gift")]
    object: &'static str,
    /// What programs call it.
    #[schema(example = "level_2")]
    code: String,
    /// What people call it, by language.
    #[schema(example = json!({"en": "Ten minutes of rendering"}))]
    title: BTreeMap<String, String>,
    /// `credits` or `coupon`.
    #[schema(example = "credits")]
    kind: String,
    /// Seconds of rendering, or percent.
    #[schema(example = 600)]
    value: i64,
    /// For which time.
    #[schema(example = "level")]
    period_key: String,
    /// What for.
    #[schema(example = "level 2")]
    reason: String,
    /// `earned` (it can be claimed), `claimed`, `expired` or `revoked`.
    #[schema(example = "earned")]
    state: String,
    /// The code of the coupon that it is.
    coupon: Option<String>,
    /// The message that told you of it.
    notification_id: Option<Uuid>,
    /// When you earned it.
    earned_at: DateTime<Utc>,
    /// When you claimed it.
    claimed_at: Option<DateTime<Utc>>,
    /// Until when it can be claimed.
    expires_at: Option<DateTime<Utc>>,
}

impl From<Earned> for EarnedView {
    fn from(e: Earned) -> Self {
        Self {
            id: e.id,
            object: "gift",
            code: e.code,
            title: e.title.0,
            kind: e.kind,
            value: e.value,
            period_key: e.period_key,
            reason: e.reason,
            state: e.state,
            coupon: e.coupon,
            notification_id: e.notification_id,
            earned_at: e.earned_at,
            claimed_at: e.claimed_at,
            expires_at: e.expires_at,
        }
    }
}

/// A gift of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub struct GiftView {
    /// Its id.
    id: Uuid,
    /// Always `catalogue_gift`.
    #[schema(example = "catalogue_gift")]
    object: &'static str,
    /// What programs call it. `level_2` is earned by whoever reaches that level.
    #[schema(example = "level_2")]
    code: String,
    /// What people call it, by language.
    #[schema(example = json!({"en": "Ten minutes of rendering"}))]
    title: BTreeMap<String, String>,
    /// `credits` or `coupon`.
    #[schema(example = "credits")]
    kind: String,
    /// Seconds of rendering, or percent.
    #[schema(example = 600)]
    value: i64,
    /// How many there are in all.
    #[schema(example = 1000)]
    stock: i32,
    /// How many were claimed.
    #[schema(example = 12)]
    redeemed: i32,
    /// Whether it can be earned and claimed now.
    active: bool,
}

impl From<Gift> for GiftView {
    fn from(g: Gift) -> Self {
        let Gift { id, code, title, kind, value, stock, redeemed, active, rev: _ } = g;
        Self { id, object: "catalogue_gift", code, title: title.0, kind, value, stock, redeemed, active }
    }
}

fn revised(gift: Gift) -> Revised<GiftView> {
    Revised::ok(gift.rev, gift.into())
}

/// The catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub struct GiftList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// By code.
    data: Vec<GiftView>,
    /// Always false.
    has_more: bool,
}

/// A gift to be put into the catalogue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateGift {
    /// 1 to 64 of `a-z 0-9 _`.
    #[schema(example = "level_2", pattern = "^[a-z0-9_]{1,64}$")]
    code: String,
    /// What people call it, by language.
    #[schema(value_type = Words)]
    title: BTreeMap<String, String>,
    /// `credits` or `coupon`.
    #[schema(example = "credits", pattern = "^(credits|coupon)$")]
    kind: String,
    /// Seconds of rendering, or percent (1 to 99).
    #[schema(example = 600, minimum = 1, maximum = 1_000_000_000_000_i64)]
    value: i64,
    /// How many there are in all.
    #[schema(example = 1000, minimum = 0)]
    stock: i32,
}

/// What to change of a gift; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateGift {
    /// How many there are in all; not less than were claimed.
    #[schema(example = 2000, minimum = 0)]
    stock: Option<i32>,
    /// Whether it can be earned and claimed.
    active: Option<bool>,
}

/// Who gets a gift.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveGift {
    /// The person.
    user_id: Uuid,
    /// For which time, 1 to 40 characters: one a person, gift and period.
    #[schema(example = "2026-11", max_length = 40, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    period_key: String,
    /// What for, 1 to 200 characters.
    #[schema(example = "the film of the month", max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
    reason: String,
    /// Until when it can be claimed; for ever when absent.
    expires_at: Option<DateTime<Utc>>,
}

/// Which gifts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListGifts {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this gift: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `GET /v1/gifts`
#[utoipa::path(
    get, path = "/v1/gifts", tag = "Rewards", operation_id = "list_gifts", summary = "List your gifts",
    description = "Newest first, a page at a time.", params(ListGifts),
    responses((status = 200, description = "A page", body = Page<EarnedView>))
)]
pub async fn list(
    State(app): State<App>,
    person: SignedIn,
    Query(query): Query<ListGifts>,
) -> Result<Json<Page<EarnedView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = super::begin(&app, &person).await?;
    let gifts = gift::list(&mut tx, person.tenant_id, person.user_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(gifts, size, |g| g.id.to_string())))
}

/// `POST /v1/gifts/{id}/claim`: once.
#[utoipa::path(
    post, path = "/v1/gifts/{id}/claim", tag = "Rewards", operation_id = "claim_gift", summary = "Claim a gift",
    description = "Once. Seconds of rendering come into your account; a coupon is made for you alone, and its code is shown in your gifts.",
    params(("id" = Uuid, Path, description = "The gift that you have earned")),
    responses(
        (status = 204, description = "It is yours"),
        (status = 404, description = "`gift.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`gift.claimed`, `gift.expired`, `gift.sold_out`, `credits.full`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn claim(State(app): State<App>, person: SignedIn, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = super::begin(&app, &person).await?;
    match gift::claim(&mut tx, person.tenant_id, person.user_id, id).await? {
        Claim::Claimed => tx.commit().await?,
        Claim::Unknown => return Err(Problem::not_found(Code::GiftNotFound, "gift")),
        Claim::Ended => return Err(Problem::new(Code::GiftClaimed, "the gift was claimed before, or taken back")),
        Claim::Expired => {
            return Err(Problem::new(Code::GiftExpired, "the gift could be claimed until its time was over"));
        }
        Claim::SoldOut => return Err(Problem::new(Code::GiftSoldOut, "there are none left")),
        Claim::Full => return Err(Problem::new(Code::CreditsFull, "your account holds no more: spend some first")),
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/gift-catalogue`
#[utoipa::path(
    get, path = "/v1/gift-catalogue", tag = "Rewards", operation_id = "list_catalogue", summary = "List the catalogue of gifts",
    description = "All of them.", responses((status = 200, description = "All of them", body = GiftList))
)]
pub async fn catalogue(State(app): State<App>, steward: Steward) -> Result<Json<GiftList>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let all = gift::catalogue(&mut tx, steward.tenant_id).await?;
    Ok(Json(GiftList { object: "list", data: all.into_iter().map(Into::into).collect(), has_more: false }))
}

/// `POST /v1/gift-catalogue`
#[utoipa::path(
    post, path = "/v1/gift-catalogue", tag = "Rewards", operation_id = "create_gift", summary = "Put a gift into the catalogue",
    description = "One called `level_2` is earned by whoever reaches that level; the others are given.", request_body = CreateGift,
    responses(
        (status = 201, description = "Made", body = GiftView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`gift.exists`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateGift>,
) -> Result<Revised<GiftView>, Problem> {
    body.check()?;
    let mut tx = steward.begin(&app).await?;
    let CreateGift { code, title, kind, value, stock } = &body;
    let new = NewGift { code, title, kind, value: *value, stock: *stock };
    let id = gift::create(&mut tx, steward.tenant_id, &new).await?;
    let id = id.ok_or_else(|| Problem::new(Code::GiftExists, "there is a gift of this code"))?;
    let gift = found(&mut tx, steward.tenant_id, id).await?;
    steward.record(&mut tx, "gift.create", &object(id), made(&gift)).await?;
    tx.commit().await?;
    Ok(Revised { status: StatusCode::CREATED, ..revised(gift) })
}

/// `GET /v1/gift-catalogue/{id}`
#[utoipa::path(
    get, path = "/v1/gift-catalogue/{id}", tag = "Rewards", operation_id = "get_gift", summary = "Get a gift of the catalogue",
    description = "With how many were claimed.", params(("id" = Uuid, Path, description = "The gift")),
    responses(
        (status = 200, description = "The gift", body = GiftView, headers(("ETag" = String, description = "Its revision"))),
        (status = 404, description = "`gift.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, steward: Steward, Path(id): Path<Uuid>) -> Result<Revised<GiftView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    Ok(revised(found(&mut tx, steward.tenant_id, id).await?))
}

/// `PATCH /v1/gift-catalogue/{id}`
#[utoipa::path(
    patch, path = "/v1/gift-catalogue/{id}", tag = "Rewards", operation_id = "update_gift", summary = "Change a gift of the catalogue",
    description = "How many there are, and whether they can be had.",
    params(("id" = Uuid, Path, description = "The gift"), ("If-Match" = Option<String>, Header, description = "`ETag` of the gift as you know it")),
    request_body = UpdateGift,
    responses(
        (status = 200, description = "The gift, afterwards", body = GiftView, headers(("ETag" = String, description = "Its revision"))),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`gift.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`gift.in_use`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    known: IfMatch,
    Json(body): Json<UpdateGift>,
) -> Result<Revised<GiftView>, Problem> {
    if body.stock.is_some_and(|stock| stock < 0) {
        return Err(Problem::fault("/stock", "gift.value", "a stock is not negative"));
    }
    let mut tx = steward.begin(&app).await?;
    let before = gift::hold(&mut tx, steward.tenant_id, id).await?.ok_or_else(missing)?;
    known.check(before.rev)?;
    if !gift::update(&mut tx, steward.tenant_id, id, body.stock, body.active).await? {
        return Err(Problem::new(Code::GiftInUse, "more of them were claimed than that"));
    }
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(before), after: Some(&after) };
    steward.record(&mut tx, "gift.update", &object(id), change).await?;
    tx.commit().await?;
    Ok(revised(after))
}

/// `POST /v1/gift-catalogue/{id}/give`: once a person and period.
#[utoipa::path(
    post, path = "/v1/gift-catalogue/{id}/give", tag = "Rewards", operation_id = "give_gift", summary = "Give somebody a gift",
    description = "They are told, and may claim it. Once a person, gift and period: giving it again is harmless.",
    params(("id" = Uuid, Path, description = "The gift")), request_body = GiveGift,
    responses(
        (status = 204, description = "They have it"),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`gift.not_found`, `member.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`gift.sold_out`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn give(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<GiveGift>,
) -> Result<StatusCode, Problem> {
    let words = |text: &str, most| (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if !words(&body.period_key, 40) || !words(&body.reason, 200) {
        let detail = "a period is named in 1 to 40 characters, a reason in 1 to 200";
        return Err(Problem::fault("/reason", "reason.length", detail));
    }
    let tenant_id = steward.tenant_id;
    let mut tx = steward.begin(&app).await?;
    let gift = found(&mut tx, tenant_id, id).await?;
    if user::find(&mut tx, tenant_id, body.user_id).await?.is_none() {
        return Err(Problem::not_found(Code::MemberNotFound, "person"));
    }
    if !gift.active || gift.redeemed >= gift.stock {
        return Err(Problem::new(Code::GiftSoldOut, "there are none left"));
    }
    let given =
        gift::earn(&mut tx, tenant_id, body.user_id, &gift, &body.period_key, &body.reason, body.expires_at).await?;
    if let Some(earned) = given {
        steward.record(&mut tx, "gift.give", &format!("earned_gift:{earned}"), made(&gift)).await?;
        events::gifts_earned(&app.workflows, &mut tx, tenant_id).await?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok(StatusCode::NO_CONTENT)
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Gift, Problem> {
    gift::find(db, tenant_id, id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found(Code::GiftNotFound, "gift")
}

fn object(id: Uuid) -> String {
    format!("gift:{id}")
}

impl CreateGift {
    fn check(&self) -> Result<(), Problem> {
        check_code(&self.code)?;
        check_words("/title", &self.title)?;
        let most = match self.kind.as_str() {
            "credits" => credit::MOST,
            "coupon" => 99,
            _ => return Err(Problem::fault("/kind", "gift.kind", "a gift is credits or coupon")),
        };
        if !(1..=most).contains(&self.value) || self.stock < 0 {
            let detail = "a gift is worth some seconds, or 1 to 99 percent, and a stock is not negative";
            return Err(Problem::fault("/value", "gift.value", detail));
        }
        Ok(())
    }
}
