//! `/v1/notification-suppressions`: addresses that are not written to.

use super::{channel, manage};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Steward},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Role, Scope,
    notification::suppression::{self, Suppression},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An address that is not written to.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuppressionView {
    /// The SHA-256 of the address in small letters: the address itself is not kept.
    #[schema(example = "973dfe463ec85785f5f95af5ba3906eedb2d931c24e69824a89ea65dba4e813b")]
    address_hash: String,
    /// `email`, `sms`, `push` or `telegram`.
    #[schema(example = "email")]
    channel: String,
    /// `hard_bounce`, `soft_bounces`, `complaint`, `unsubscribe`, `blocked` or `gone`.
    #[schema(example = "hard_bounce")]
    reason: String,
    /// Until when; for good when absent.
    until: Option<DateTime<Utc>>,
    /// Since when.
    created_at: DateTime<Utc>,
}

impl From<Suppression> for SuppressionView {
    fn from(s: Suppression) -> Self {
        let Suppression { address_hash, channel, reason, until, created_at } = s;
        Self { address_hash: hex::encode(address_hash), channel, reason, until, created_at }
    }
}

/// Which to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSuppressions {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those after this one: `next_cursor` of the page before.
    starting_after: Option<String>,
}

/// `GET /v1/notification-suppressions`
#[utoipa::path(
    get, path = "/v1/notification-suppressions", tag = "Notifications", operation_id = "list_notification_suppressions",
    summary = "List addresses that are not written to", description = "By their hash, a page at a time.",
    params(ListSuppressions), responses((status = 200, description = "A page", body = Page<SuppressionView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListSuppressions>,
) -> Result<Json<Page<SuppressionView>>, Problem> {
    let size = page::size(query.limit)?;
    let after = query.starting_after.as_deref().map(position).transpose()?;
    let after = after.as_ref().map(|(hash, channel)| (hash.as_slice(), channel.as_str()));
    let mut tx = manage(&app, &steward).await?;
    let found = suppression::list(&mut tx, steward.tenant_id, after, size + 1).await?;
    Ok(Json(Page::of(found, size, |s| format!("{}_{}", hex::encode(&s.address_hash), s.channel))))
}

/// `DELETE /v1/notification-suppressions/{channel}/{hash}`
#[utoipa::path(
    delete, path = "/v1/notification-suppressions/{channel}/{hash}", tag = "Notifications", operation_id = "lift_notification_suppression",
    summary = "Write to an address again", description = "For when the reason is gone.",
    params(("channel" = String, Path, description = "By which way"), ("hash" = String, Path, description = "`address_hash`")),
    responses(
        (status = 204, description = "Lifted"),
        (status = 404, description = "`notification.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn lift(
    State(app): State<App>,
    steward: Steward,
    Path((way, hash)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let missing = || Problem::not_found(Code::NotificationNotFound, "suppression");
    let (way, bytes) = (channel(&way)?, hex::decode(&hash).map_err(|_| missing())?);
    let mut tx = manage(&app, &steward).await?;
    if !suppression::lift(&mut tx, steward.tenant_id, way, &bytes).await? {
        return Err(missing());
    }
    Scope::tenant(Role::Identity, steward.tenant_id).enter(&mut tx).await?;
    let change = Change { before: Some(&hash), after: None::<()> };
    let object = format!("notification_suppression:{way}:{}", hash.get(..16).unwrap_or_default());
    steward.record(&mut tx, "notification_suppression.lift", &object, change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a cursor names.
fn position(cursor: &str) -> Result<(Vec<u8>, String), Problem> {
    let parts = cursor.split_once('_').and_then(|(hash, channel)| Some((hex::decode(hash).ok()?, channel.to_owned())));
    parts.ok_or_else(|| Problem::new(Code::QueryInvalid, "starting_after is no cursor of this list"))
}
