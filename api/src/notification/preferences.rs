//! Who wants what how: `/v1/me/notification-preferences`, and what a tenant's people have who chose nothing.

use super::{begin, category, channel, manage};
use crate::{
    app::App,
    auth::SignedIn,
    extract::{Json, Path},
    identity::{Change, Steward},
    problem::{Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::NaiveTime;
use flatrender_workflows::{
    contracts::notify::Channel,
    models::{
        Role, Scope,
        notification::{
            catalogue,
            preference::{self, Preference},
            routing::{self, Class, Digest},
        },
    },
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// What is wanted of a category by a channel.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreferenceView {
    /// What about.
    #[schema(example = "renders")]
    category: String,
    /// `inapp`, `push`, `email`, `sms` or `telegram`.
    #[schema(example = "email")]
    channel: String,
    /// How much the category matters: what is critical comes by e-mail whatever is wanted.
    class: Class,
    /// Whether to be told.
    enabled: bool,
    /// Hours of rest begin, by the clock on the wall.
    #[schema(value_type = Option<String>, example = "22:00")]
    quiet_start: Option<String>,
    /// They end; they may cross midnight.
    #[schema(value_type = Option<String>, example = "07:30")]
    quiet_end: Option<String>,
    /// On which wall, by IANA; your own when absent.
    #[schema(example = "Asia/Tehran")]
    timezone: Option<String>,
    /// Whether messages wait to be sent together.
    digest: Digest,
    /// Who chose it: `you`, `tenant`, or `usual` when nobody did.
    #[schema(example = "you")]
    chosen_by: &'static str,
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreferenceList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// One for each category and channel.
    data: Vec<PreferenceView>,
    /// What you last said to marketing; null when you never did.
    marketing_consent: Option<bool>,
}

/// A choice.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPreference {
    /// Whether to be told.
    enabled: bool,
    /// Hours of rest begin: `HH:MM`, by the clock on the wall; with `quiet_end`, or without.
    #[schema(value_type = Option<String>, example = "22:00")]
    quiet_start: Option<String>,
    /// They end. They may cross midnight.
    #[schema(value_type = Option<String>, example = "07:30")]
    quiet_end: Option<String>,
    /// On which wall, by IANA; each person's own when absent.
    #[schema(example = "Asia/Tehran")]
    timezone: Option<String>,
    /// Whether messages wait to be sent together; `off` when absent.
    #[serde(default)]
    digest: Digest,
}

/// What you say to marketing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarketingConsent {
    /// Yes or no.
    given: bool,
    /// The text that you agreed to, as you read it: its hash is kept.
    #[schema(example = "I want to hear of new templates.", min_length = 1, max_length = 4000)]
    text: String,
}

type Of = (String, String);

impl SetPreference {
    fn checked(self, user_id: Option<Uuid>, category: &str, channel: Channel) -> Result<Preference, Problem> {
        let time = |pointer, text: Option<&str>| {
            let read = text.map(|text| NaiveTime::parse_from_str(text, "%H:%M"));
            read.transpose().map_err(|_| Problem::fault(pointer, "quiet.time", "a time is HH:MM, as on a clock"))
        };
        let start = time("/quiet_start", self.quiet_start.as_deref())?;
        let end = time("/quiet_end", self.quiet_end.as_deref())?;
        if start.is_some() != end.is_some() || start.is_some() && start == end {
            return Err(Problem::fault("/quiet_end", "quiet.hours", "hours of rest begin and end, at two times"));
        }
        if let Some(zone) = &self.timezone
            && zone.parse::<chrono_tz::Tz>().is_err()
        {
            return Err(Problem::fault("/timezone", "timezone.unknown", "there is no such time zone"));
        }
        Ok(Preference {
            user_id,
            category: category.to_owned(),
            channel: channel.to_string(),
            enabled: self.enabled,
            quiet_start: start,
            quiet_end: end,
            timezone: self.timezone,
            digest: self.digest.as_str().to_owned(),
        })
    }
}

/// What counts for each category and channel, and who chose it.
fn table(rows: &[Preference], user_id: Option<Uuid>) -> Vec<PreferenceView> {
    let all = catalogue::categories().iter().flat_map(|category| Channel::ALL.map(|channel| (*category, channel)));
    let view = |(category, channel): (&str, Channel)| {
        let of = |user: Option<Uuid>| {
            rows.iter().find(|p| p.user_id == user && p.category == category && p.channel == channel.as_str())
        };
        let own = user_id.and_then(|id| of(Some(id)));
        let class = catalogue::class_of(category);
        let usual = routing::usual(class, channel);
        let row = own.or_else(|| of(None));
        let time = |time: Option<NaiveTime>| time.map(|time| time.format("%H:%M").to_string());
        PreferenceView {
            category: category.to_owned(),
            channel: channel.to_string(),
            class,
            enabled: row.map_or(usual.enabled, |row| row.enabled),
            quiet_start: time(row.and_then(|row| row.quiet_start)),
            quiet_end: time(row.and_then(|row| row.quiet_end)),
            timezone: row.and_then(|row| row.timezone.clone()),
            digest: row.map_or(usual.digest, |row| Digest::read(&row.digest)),
            chosen_by: match (own, row) {
                (Some(_), _) => "you",
                (None, Some(_)) => "tenant",
                _ => "usual",
            },
        }
    };
    all.map(view).collect()
}

/// `GET /v1/me/notification-preferences`
#[utoipa::path(
    get, path = "/v1/me/notification-preferences", tag = "Notifications", operation_id = "list_notification_preferences", summary = "List how you want to be told",
    description = "For each category and channel what counts: your own choice, or your organisation's, or what is usual.",
    responses((status = 200, description = "All of them", body = PreferenceList))
)]
pub async fn list(State(app): State<App>, me: SignedIn) -> Result<Json<PreferenceList>, Problem> {
    let mut tx = begin(&app, &me).await?;
    let rows = preference::list(&mut tx, me.tenant_id, Some(me.user_id)).await?;
    Scope::tenant(Role::Identity, me.tenant_id).enter(&mut tx).await?;
    let marketing_consent = preference::consent(&mut tx, me.tenant_id, me.user_id).await?;
    Ok(Json(PreferenceList { object: "list", data: table(&rows, Some(me.user_id)), marketing_consent }))
}

/// `PUT /v1/me/notification-preferences/{category}/{channel}`
#[utoipa::path(
    put, path = "/v1/me/notification-preferences/{category}/{channel}", tag = "Notifications", operation_id = "set_notification_preference",
    summary = "Choose how you want to be told",
    description = "What is critical comes within the platform and by e-mail all the same, at any hour.",
    params(("category" = String, Path, description = "What about"), ("channel" = String, Path, description = "By which way")),
    request_body = SetPreference,
    responses(
        (status = 204, description = "Chosen"),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set(
    State(app): State<App>,
    me: SignedIn,
    Path((of, way)): Path<Of>,
    Json(body): Json<SetPreference>,
) -> Result<StatusCode, Problem> {
    let choice = body.checked(Some(me.user_id), category(&of)?, channel(&way)?)?;
    let mut tx = begin(&app, &me).await?;
    preference::set(&mut tx, me.tenant_id, &choice).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/me/notification-preferences/{category}/{channel}`
#[utoipa::path(
    delete, path = "/v1/me/notification-preferences/{category}/{channel}", tag = "Notifications", operation_id = "remove_notification_preference",
    summary = "Take a choice back", description = "What your organisation chose counts again. Repeating it is harmless.",
    params(("category" = String, Path, description = "What about"), ("channel" = String, Path, description = "By which way")),
    responses((status = 204, description = "Taken back"))
)]
pub async fn remove(State(app): State<App>, me: SignedIn, Path((of, way)): Path<Of>) -> Result<StatusCode, Problem> {
    let (of, way) = (category(&of)?, channel(&way)?);
    let mut tx = begin(&app, &me).await?;
    preference::remove(&mut tx, me.tenant_id, Some(me.user_id), of, way.as_str()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v1/me/marketing-consent`
#[utoipa::path(
    put, path = "/v1/me/marketing-consent", tag = "Notifications", operation_id = "set_marketing_consent", summary = "Agree to marketing, or not",
    description = "Without a yes nothing of the kind is sent by any channel. Each answer is kept, with the hash of the text it was given to.",
    request_body = MarketingConsent,
    responses(
        (status = 204, description = "Noted"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn consent(
    State(app): State<App>,
    me: SignedIn,
    Json(body): Json<MarketingConsent>,
) -> Result<StatusCode, Problem> {
    if !(1..=4000).contains(&body.text.chars().count()) {
        return Err(Problem::fault("/text", "consent.text", "a text has 1 to 4000 characters"));
    }
    let hash = Sha256::digest(body.text.as_bytes()).to_vec();
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, me.tenant_id)).await?;
    preference::give_consent(&mut tx, me.tenant_id, me.user_id, body.given, &hash, "account").await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/notification-defaults`
#[utoipa::path(
    get, path = "/v1/notification-defaults", tag = "Notifications", operation_id = "list_notification_defaults", summary = "List what your people have who chose nothing",
    description = "For each category and channel.",
    responses((status = 200, description = "All of them", body = PreferenceList))
)]
pub async fn defaults(State(app): State<App>, steward: Steward) -> Result<Json<PreferenceList>, Problem> {
    let mut tx = manage(&app, &steward).await?;
    let rows = preference::list(&mut tx, steward.tenant_id, None).await?;
    Ok(Json(PreferenceList { object: "list", data: table(&rows, None), marketing_consent: None }))
}

/// `PUT /v1/notification-defaults/{category}/{channel}`
#[utoipa::path(
    put, path = "/v1/notification-defaults/{category}/{channel}", tag = "Notifications", operation_id = "set_notification_default",
    summary = "Choose for those who chose nothing", description = "A person's own choice goes before it.",
    params(("category" = String, Path, description = "What about"), ("channel" = String, Path, description = "By which way")),
    request_body = SetPreference,
    responses(
        (status = 204, description = "Chosen"),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set_default(
    State(app): State<App>,
    steward: Steward,
    Path((of, way)): Path<Of>,
    Json(body): Json<SetPreference>,
) -> Result<StatusCode, Problem> {
    let choice = body.checked(None, category(&of)?, channel(&way)?)?;
    let mut tx = manage(&app, &steward).await?;
    preference::set(&mut tx, steward.tenant_id, &choice).await?;
    let after = serde_json::json!({ "enabled": choice.enabled, "digest": choice.digest });
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: None::<()>, after: Some(after) };
    steward.record(&mut tx, "notification_default.set", &format!("notification_default:{of}:{way}"), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/notification-defaults/{category}/{channel}`
#[utoipa::path(
    delete, path = "/v1/notification-defaults/{category}/{channel}", tag = "Notifications", operation_id = "remove_notification_default",
    summary = "Take a choice for all back", description = "What is usual counts again. Repeating it is harmless.",
    params(("category" = String, Path, description = "What about"), ("channel" = String, Path, description = "By which way")),
    responses((status = 204, description = "Taken back"))
)]
pub async fn remove_default(
    State(app): State<App>,
    steward: Steward,
    Path((of, way)): Path<Of>,
) -> Result<StatusCode, Problem> {
    let (of, way) = (category(&of)?, channel(&way)?);
    let mut tx = manage(&app, &steward).await?;
    preference::remove(&mut tx, steward.tenant_id, None, of, way.as_str()).await?;
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: None::<()>, after: None::<()> };
    steward.record(&mut tx, "notification_default.remove", &format!("notification_default:{of}:{way}"), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
