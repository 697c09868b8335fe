//! `POST /v1/notification-broadcasts`: something that many are told.

use crate::{
    app::App,
    extract::Json,
    identity::{Trustee, made},
    problem::{Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use flatrender_workflows::{
    definitions::notify::Notify,
    models::{
        Role, Scope,
        notification::audience::{Audience, News},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;
use uuid::{Builder, Uuid};

/// Longest text, in characters.
const TEXT: usize = 500;

/// Who is told.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum To {
    /// Everybody of the tenant.
    Everyone,
    /// Its owners and administrators.
    Managers,
}

/// As what.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum As {
    /// What people who work here should know.
    Announcement,
    /// Marketing: only those are told who agreed to it.
    News,
}

/// What is to be told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBroadcast {
    /// Makes repeating it harmless: with the same one nobody is told twice.
    #[schema(example = "spring-templates", min_length = 1, max_length = 100)]
    key: String,
    /// Who is told.
    to: To,
    /// As what.
    kind: As,
    /// In one line.
    #[schema(example = "New templates", min_length = 1, max_length = 200)]
    subject: String,
    /// More, as text.
    #[schema(example = "Twelve templates for the spring are there.", min_length = 1, max_length = 500)]
    text: String,
    /// Where to go from here, as a path of ours; the list of notifications when absent.
    #[schema(example = "/templates")]
    path: Option<String>,
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct BroadcastView {
    /// As it was given.
    key: String,
    /// Always `notification_broadcast`.
    #[schema(example = "notification_broadcast")]
    object: &'static str,
    /// The run that tells them.
    run_id: Uuid,
    /// Whether it was begun by this request; false when it was before.
    started: bool,
}

/// `POST /v1/notification-broadcasts`
#[utoipa::path(
    post, path = "/v1/notification-broadcasts", tag = "Notifications", operation_id = "create_notification_broadcast", summary = "Tell many people something",
    description = "Each in the way that they want, in the words of the templates `announcement` and `news`. Answers 202; a page of a thousand people \
                   is told at a time.",
    request_body = CreateBroadcast,
    responses(
        (status = 202, description = "Begun", body = BroadcastView),
        (status = 403, description = "`auth.step_up`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Trustee,
    Json(body): Json<CreateBroadcast>,
) -> Result<(StatusCode, Json<BroadcastView>), Problem> {
    let length = |pointer, text: &str, most| match (1..=most).contains(&text.trim().chars().count()) {
        true => Ok(()),
        false => Err(Problem::fault(pointer, "broadcast.text", format!("it has 1 to {most} characters"))),
    };
    length("/key", &body.key, 100)?;
    length("/subject", &body.subject, 200)?;
    length("/text", &body.text, TEXT)?;
    let ours = |path: &String| {
        path.len() <= 500 && path.starts_with('/') && !path.starts_with("//") && !path.contains(['\\', ' '])
    };
    if body.path.as_ref().is_some_and(|path| !ours(path)) {
        return Err(Problem::fault("/path", "broadcast.path", "a path of ours begins with one /"));
    }
    let data = json!({ "subject": body.subject, "text": body.text, "action_url": body.path });
    let news = News {
        event_id: event_id(steward.tenant_id, &body.key),
        code: match body.kind {
            As::Announcement => "announcement".into(),
            As::News => "news".into(),
        },
        audience: match body.to {
            To::Everyone => Audience::Everyone,
            To::Managers => Audience::Managers,
        },
        subject: None,
        data,
    };
    let notify = Notify::of(news);
    let key = notify.key();
    let mut tx = steward.begin(&app).await?;
    let object = format!("notification_broadcast:{}", notify.news.event_id);
    steward.record(&mut tx, "notification_broadcast.create", &object, made(&notify.news)).await?;
    Scope::tenant(Role::Workflow, steward.tenant_id).enter(&mut tx).await?;
    let started = app.workflows.start(&mut tx, steward.tenant_id, Some(&key), notify).await?;
    tx.commit().await?;
    app.workflows.announce();
    let view = BroadcastView {
        key: body.key,
        object: "notification_broadcast",
        run_id: started.run_id,
        started: started.started,
    };
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// The same for the same key of the same tenant.
fn event_id(tenant_id: Uuid, key: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(format!("broadcast {tenant_id} {key}"))[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}
