//! `/v1/notification-templates`: how a tenant says it, in words of its own over ours.

use super::{channel, manage};
use crate::{
    app::App,
    extract::{Json, Path, Query},
    identity::{Change, Steward},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_activities::notify::letter;
use flatrender_workflows::{
    contracts::notify::{Channel, Line, Sender},
    models::{
        Role, Scope,
        identity::tenant_branding,
        notification::{
            catalogue::{self, Kind, LANGUAGES},
            template::{self, Text, Version},
            words,
        },
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

/// Longest body, in bytes.
const BODY_BYTES: usize = 16 << 10;

/// Words of a kind, by a channel, in a language.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationTemplateView {
    /// Always `notification_template`.
    #[schema(example = "notification_template")]
    object: &'static str,
    /// What it is about.
    #[schema(example = "render.completed")]
    kind: String,
    /// What preferences are about.
    #[schema(example = "renders")]
    category: String,
    /// `inapp`, `push`, `email`, `sms` or `telegram`.
    #[schema(example = "email")]
    channel: String,
    /// The language, by BCP 47.
    #[schema(example = "fa")]
    language: String,
    /// In one line.
    #[schema(example = "{{title}} is ready")]
    subject: String,
    /// In paragraphs, a line each.
    #[schema(example = "{{title}} is finished.\n{{action_url}}")]
    body: String,
    /// The names that may stand there.
    names: Vec<String>,
    /// From 1; null for words of ours.
    version: Option<i32>,
    /// `active` or `retired`; words of ours are always active.
    #[schema(example = "active")]
    state: String,
    /// Since when.
    created_at: Option<DateTime<Utc>>,
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationTemplateList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Your own first.
    data: Vec<NotificationTemplateView>,
}

/// Which to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListNotificationTemplates {
    /// Only those of a kind.
    #[param(example = "render.completed")]
    kind: Option<String>,
    /// Also those of your own that are retired.
    all: Option<bool>,
}

/// Words.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetNotificationTemplate {
    /// In one line; ours when absent.
    #[schema(example = "{{title}} is ready", max_length = 300)]
    subject: Option<String>,
    /// In paragraphs, a line each. `{{name}}` is filled in; a line that is `{{action_url}}` alone is a link.
    #[schema(example = "Well done! {{title}} is finished.\n{{action_url}}", max_length = 16384)]
    body: String,
}

/// What to show.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewNotificationTemplate {
    /// In one line; those in use when absent.
    subject: Option<String>,
    /// In paragraphs; those in use when absent.
    body: Option<String>,
    /// What an event could say, over what is usual.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"title": "Summer sale"}))]
    data: Value,
}

/// A message as it would be.
#[derive(Debug, Serialize, ToSchema)]
pub struct NotificationPreview {
    /// The language that it is in.
    #[schema(example = "fa")]
    language: String,
    /// Whether that is written from right to left.
    rtl: bool,
    /// In one line.
    subject: String,
    /// As text.
    text: String,
    /// As HTML, for e-mail.
    html: Option<String>,
}

fn kind(code: &str) -> Result<&'static Kind, Problem> {
    catalogue::find(code).ok_or_else(|| Problem::not_found(Code::NotificationNotFound, "kind of notification"))
}

fn language(text: &str) -> Result<&str, Problem> {
    let fits = text.len() <= 35
        && text.split('-').all(|part| (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric()))
        && text
            .split('-')
            .next()
            .is_some_and(|first| first.len() <= 3 && first.bytes().all(|b| b.is_ascii_lowercase()));
    if fits { Ok(text) } else { Err(Problem::not_found(Code::NotificationNotFound, "language")) }
}

/// The names that may stand in words of a kind.
fn names(kind: &Kind) -> Vec<String> {
    let words = kind.words(LANGUAGES[0]);
    let mut names: Vec<String> = ["action_url".to_owned()].into();
    for text in [words.subject, words.body] {
        // Ours are templates, as their test says.
        names.extend(words::names(text).unwrap_or_default().into_iter().map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names
}

fn of_ours(kind: &Kind, channel: Channel, language: &str) -> NotificationTemplateView {
    let words = kind.words(language);
    NotificationTemplateView {
        object: "notification_template",
        kind: kind.code.to_owned(),
        category: kind.category.to_owned(),
        channel: channel.to_string(),
        language: language.to_owned(),
        subject: words.subject.to_owned(),
        body: words.body.to_owned(),
        names: names(kind),
        version: None,
        state: "active".to_owned(),
        created_at: None,
    }
}

fn of_theirs(version: Version) -> Option<NotificationTemplateView> {
    let kind = catalogue::find(&version.code)?;
    let subject = version.subject.unwrap_or_else(|| kind.words(&version.language).subject.to_owned());
    Some(NotificationTemplateView {
        object: "notification_template",
        kind: version.code,
        category: kind.category.to_owned(),
        channel: version.channel,
        language: version.language,
        subject,
        body: version.body,
        names: names(kind),
        version: Some(version.version),
        state: version.state,
        created_at: Some(version.created_at),
    })
}

/// `GET /v1/notification-templates`
#[utoipa::path(
    get, path = "/v1/notification-templates", tag = "Notifications", operation_id = "list_notification_templates", summary = "List the words of notifications",
    description = "Your own, then ours, which count wherever you have none.", params(ListNotificationTemplates),
    responses((status = 200, description = "All of them", body = NotificationTemplateList))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListNotificationTemplates>,
) -> Result<Json<NotificationTemplateList>, Problem> {
    let only = query.kind.as_deref().map(kind).transpose()?;
    let mut tx = manage(&app, &steward).await?;
    let code = only.map(|kind| kind.code);
    let own = template::list(&mut tx, steward.tenant_id, code, query.all == Some(true)).await?;
    let mut data: Vec<_> = own.into_iter().filter_map(of_theirs).collect();
    for kind in catalogue::kinds().iter().filter(|kind| only.is_none_or(|only| only.code == kind.code)) {
        for language in LANGUAGES {
            data.extend(Channel::ALL.map(|channel| of_ours(kind, channel, language)));
        }
    }
    Ok(Json(NotificationTemplateList { object: "list", data }))
}

type Of = (String, String, String);

/// `PUT /v1/notification-templates/{kind}/{channel}/{language}`
#[utoipa::path(
    put, path = "/v1/notification-templates/{kind}/{channel}/{language}", tag = "Notifications", operation_id = "set_notification_template",
    summary = "Say it in your own words",
    description = "A new version, in use at once; the one before is retired and kept. Words hold names in double braces and nothing else that has a \
                   meaning: no logic, no markup; whatever is filled in is escaped.",
    params(("kind" = String, Path, description = "What it is about"), ("channel" = String, Path, description = "By which way"),
           ("language" = String, Path, description = "By BCP 47")),
    request_body = SetNotificationTemplate,
    responses(
        (status = 200, description = "In use", body = NotificationTemplateView),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set(
    State(app): State<App>,
    steward: Steward,
    Path((code, way, tag)): Path<Of>,
    Json(body): Json<SetNotificationTemplate>,
) -> Result<Json<NotificationTemplateView>, Problem> {
    let (kind, channel, language) = (kind(&code)?, channel(&way)?, language(&tag)?);
    if let Some(subject) = &body.subject {
        check("/subject", subject, kind)?;
        let length = subject.chars().count();
        if subject.trim().is_empty() || length > 300 || subject.chars().any(char::is_control) {
            return Err(Problem::fault("/subject", "template.words", "a subject is one line of 1 to 300 characters"));
        }
    }
    check("/body", &body.body, kind)?;
    if body.body.trim().is_empty() || body.body.len() > BODY_BYTES {
        return Err(Problem::fault("/body", "template.words", "a body has 1 to 16384 bytes"));
    }
    let mut tx = manage(&app, &steward).await?;
    let subject = body.subject.as_deref();
    let number = template::put(&mut tx, steward.tenant_id, kind, channel, language, subject, &body.body).await?;
    let found = template::list(&mut tx, steward.tenant_id, Some(kind.code), false).await?.into_iter();
    let mut found = found.filter(|v| v.channel == channel.as_str() && v.language == language);
    let view = found.next().and_then(of_theirs).ok_or(sqlx::Error::RowNotFound)?;
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: None::<()>, after: Some(json!({ "version": number, "body": body.body })) };
    steward
        .record(&mut tx, "notification_template.set", &format!("notification_template:{code}:{way}:{tag}"), change)
        .await?;
    tx.commit().await?;
    Ok(Json(view))
}

/// `DELETE /v1/notification-templates/{kind}/{channel}/{language}`
#[utoipa::path(
    delete, path = "/v1/notification-templates/{kind}/{channel}/{language}", tag = "Notifications", operation_id = "retire_notification_template",
    summary = "Say it in our words again", description = "Your words are retired and kept. Repeating it is harmless.",
    params(("kind" = String, Path, description = "What it is about"), ("channel" = String, Path, description = "By which way"),
           ("language" = String, Path, description = "By BCP 47")),
    responses((status = 204, description = "Retired"))
)]
pub async fn retire(
    State(app): State<App>,
    steward: Steward,
    Path((code, way, tag)): Path<Of>,
) -> Result<StatusCode, Problem> {
    let (kind, channel, language) = (kind(&code)?, channel(&way)?, language(&tag)?);
    let mut tx = manage(&app, &steward).await?;
    template::retire(&mut tx, steward.tenant_id, kind.code, channel, language).await?;
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: None::<()>, after: None::<()> };
    steward
        .record(&mut tx, "notification_template.retire", &format!("notification_template:{code}:{way}:{tag}"), change)
        .await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/notification-templates/{kind}/{channel}/{language}/preview`
#[utoipa::path(
    post, path = "/v1/notification-templates/{kind}/{channel}/{language}/preview", tag = "Notifications", operation_id = "preview_notification_template",
    summary = "See how it would look", description = "Under your brand, filled in with `data` over what is usual. Nothing is kept or sent.",
    params(("kind" = String, Path, description = "What it is about"), ("channel" = String, Path, description = "By which way"),
           ("language" = String, Path, description = "By BCP 47")),
    request_body = PreviewNotificationTemplate,
    responses(
        (status = 200, description = "As it would be", body = NotificationPreview),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn preview(
    State(app): State<App>,
    steward: Steward,
    Path((code, way, tag)): Path<Of>,
    Json(body): Json<PreviewNotificationTemplate>,
) -> Result<Json<NotificationPreview>, Problem> {
    let (kind, channel, language) = (kind(&code)?, channel(&way)?, language(&tag)?);
    for (pointer, text) in [("/subject", &body.subject), ("/body", &body.body)] {
        if let Some(text) = text {
            check(pointer, text, kind)?;
        }
    }
    let mut tx = steward.begin(&app).await?;
    let brand = tenant_branding::find(&mut tx, steward.tenant_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    Scope::tenant(Role::Notification, steward.tenant_id).enter(&mut tx).await?;
    let used = template::text(&mut tx, steward.tenant_id, kind, channel, language, &brand.locale).await?;
    let text = Text {
        language: used.language,
        subject: body.subject.unwrap_or(used.subject),
        body: body.body.unwrap_or(used.body),
    };
    let data = kind.complete(&body.data, None, &text.language);
    let said = text.say(&data).map_err(|failure| Problem::fault("/data", "template.words", failure.message))?;
    let sender = Sender {
        product: brand.look.product_name,
        color: brand.look.primary_color,
        logo: brand.look.logo_file_id.map(|id| format!("/v1/branding/{}/logo?v={}", brand.slug, id.simple())),
        support_email: brand.look.support_email,
        footer: brand.look.legal_footer,
    };
    let rtl = letter::is_rtl(&text.language);
    if channel == Channel::Email {
        let letter = letter::write(&said, &sender, &text.language, &app.public_url, None);
        let (subject, html) = (letter.subject, Some(letter.html));
        return Ok(Json(NotificationPreview { language: text.language, rtl, subject, text: letter.text, html }));
    }
    let line = |line: &Line| match line {
        Line::Words(words) => words.clone(),
        Line::Link(link) if link.starts_with('/') => format!("{}{link}", app.public_url),
        Line::Link(link) => link.clone(),
    };
    let lines: Vec<String> = said.lines.iter().map(line).collect();
    Ok(Json(NotificationPreview {
        language: text.language,
        rtl,
        subject: said.subject,
        text: lines.join("\n"),
        html: None,
    }))
}

/// Whether a text is a template of a kind: the names in it are among those that something stands for.
fn check(pointer: &str, text: &str, kind: &Kind) -> Result<(), Problem> {
    let wrong = |detail: String| Problem::fault(pointer, "template.words", detail);
    let known = names(kind);
    let used = words::names(text).map_err(|unfit| wrong(unfit.to_string()))?;
    match used.iter().find(|name| !known.iter().any(|known| known == *name)) {
        Some(name) => Err(wrong(format!("nothing stands for {name:?}; there are {}", known.join(", ")))),
        None => Ok(()),
    }
}
