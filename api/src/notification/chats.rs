//! `/v1/me/telegram`: a chat that tells you. It is proven by a link that only you were given.

use super::{begin, browsers::open};
use crate::{
    app::App,
    auth::SignedIn,
    extract::Json,
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_activities::notify::accounts::Config;
use flatrender_workflows::{
    contracts::notify::Channel,
    models::{
        Role, Scope,
        notification::{account, address},
        time_series,
    },
};
use serde::Serialize;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long a link is good.
const GOOD: TimeDelta = TimeDelta::minutes(15);
/// Digits of the mark in a link: 96 bits. Telegram takes 64 characters in all.
const MARK_DIGITS: usize = 24;

/// Whether a chat tells you.
#[derive(Debug, Serialize, ToSchema)]
pub struct TelegramView {
    /// Always `telegram`.
    #[schema(example = "telegram")]
    object: &'static str,
    /// Whether one does.
    connected: bool,
}

/// Where to go to have a chat tell you.
#[derive(Debug, Serialize, ToSchema)]
pub struct TelegramLink {
    /// Opens the chat with the bot; press Start there.
    #[schema(example = "https://t.me/acme_bot?start=…")]
    url: String,
    /// Until when it is good.
    expires_at: DateTime<Utc>,
}

/// `GET /v1/me/telegram`
#[utoipa::path(
    get, path = "/v1/me/telegram", tag = "Notifications", operation_id = "get_telegram", summary = "See whether a chat tells you",
    description = "It does until you say otherwise, here or in the chat.",
    responses((status = 200, description = "Whether", body = TelegramView))
)]
pub async fn get(State(app): State<App>, me: SignedIn) -> Result<Json<TelegramView>, Problem> {
    let mut tx = begin(&app, &me).await?;
    let connected = address::has_chat(&mut tx, me.tenant_id, me.user_id).await?;
    Ok(Json(TelegramView { object: "telegram", connected }))
}

/// `POST /v1/me/telegram`
#[utoipa::path(
    post, path = "/v1/me/telegram", tag = "Notifications", operation_id = "connect_telegram", summary = "Have a chat tell you",
    description = "Gives a link that is good for a quarter of an hour. Whoever opens it and presses Start has the chat that tells you: give it to nobody.",
    responses(
        (status = 200, description = "Where to go", body = TelegramLink),
        (status = 409, description = "`telegram.no_bot`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn connect(State(app): State<App>, me: SignedIn) -> Result<Json<TelegramLink>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Notification)).await?;
    let carriers = account::carriers(&mut tx, me.tenant_id, Channel::Telegram).await?;
    let bot = carriers.iter().find_map(|carrier| match open(&app, carrier)? {
        Config::Telegram(bot) => Some(bot.bot),
        _ => None,
    });
    let bot = bot.ok_or_else(|| Problem::new(Code::TelegramNoBot, "nobody has given the platform a bot"))?;
    let expires_at = time_series::moment(&mut tx).await? + GOOD;
    let url = format!("https://t.me/{bot}?start={}", token(&app, me.user_id, expires_at));
    Ok(Json(TelegramLink { url, expires_at }))
}

/// `DELETE /v1/me/telegram`
#[utoipa::path(
    delete, path = "/v1/me/telegram", tag = "Notifications", operation_id = "disconnect_telegram", summary = "Have a chat tell you no more",
    description = "Repeating it is harmless.", responses((status = 204, description = "None does"))
)]
pub async fn disconnect(State(app): State<App>, me: SignedIn) -> Result<StatusCode, Problem> {
    let mut tx = begin(&app, &me).await?;
    address::disconnect_chat(&mut tx, me.tenant_id, me.user_id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 64 characters: the person, until when, and a mark that only we can make.
fn token(app: &App, user_id: Uuid, expires_at: DateTime<Utc>) -> String {
    let head = format!("{}{:08x}", user_id.simple(), expires_at.timestamp());
    let mark = app.vault.mark(&format!("telegram {head}"));
    format!("{head}{}", &mark[..MARK_DIGITS])
}

/// Whose link it was; none when it is no link of ours, or not good any more.
pub(super) fn read_token(app: &App, text: &str, now: DateTime<Utc>) -> Option<Uuid> {
    let (user, until) = (text.get(..32)?, text.get(32..40)?);
    let expires_at = DateTime::from_timestamp(i64::from_str_radix(until, 16).ok()?, 0)?;
    let user_id = user.parse().ok()?;
    let right: bool = token(app, user_id, expires_at).as_bytes().ct_eq(text.as_bytes()).into();
    (right && now < expires_at).then_some(user_id)
}
