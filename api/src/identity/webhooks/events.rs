//! `/v1/webhook-events`: what there is to hear of.

use crate::{extract::Json, identity::Steward};
use flatrender_workflows::models::identity::tenant_webhook::{EVENTS, TEST_EVENT};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// An event that webhooks hear of.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventKind {
    /// What it is called.
    #[schema(example = "render.completed")]
    r#type: &'static str,
    /// When it happens.
    #[schema(example = "A film is finished.")]
    description: &'static str,
    /// A body as it is sent.
    #[schema(value_type = Object)]
    example: Value,
}

/// Every event that there is.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventKinds {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// All of them.
    data: Vec<EventKind>,
    /// Always false.
    has_more: bool,
}

/// `GET /v1/webhook-events`
#[utoipa::path(
    get, path = "/v1/webhook-events", tag = "Webhooks", operation_id = "list_webhook_events", summary = "List events",
    description = "What webhooks hear of, each with a body as it is sent: `id` (the header `webhook-id`), `type`, `timestamp` (when it \
                   happened) and `data` (the object: ids, its state, and a `version` that is higher the later it is). They may come more \
                   than once and in any order: go by `id` and `version`. Each is signed by Standard Webhooks 1.0 \
                   (`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,…`); refuse what is signed otherwise or more than five \
                   minutes ago. Answer with 2xx within 20 seconds; what is not taken is sent again after 5 s, 5 min, 30 min, 2 h, 5 h, \
                   10 h, 14 h, 20 h and 24 h, or later when you say so in `Retry-After`. 410 ends it for good.",
    responses((status = 200, description = "All of them", body = EventKinds))
)]
pub async fn list(_: Steward) -> Json<EventKinds> {
    let data = EVENTS.into_iter().chain([TEST_EVENT]).map(kind).collect();
    Json(EventKinds { object: "list", data, has_more: false })
}

fn kind(name: &'static str) -> EventKind {
    let (object, state) = name.split_once('.').unwrap_or((name, name));
    let mut told = json!({"id": "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e12", "object": object, "status": state, "version": 1_795_000_000_000_000_i64});
    if object == "render" {
        told["template"] = json!("promo");
        told["export_id"] =
            if state == "completed" { json!("0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e13") } else { Value::Null };
        told["error_code"] = if state == "failed" { json!("render.missing_font") } else { Value::Null };
    }
    let example = json!({"id": "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11", "type": name, "timestamp": "2026-11-26T12:00:00.123456Z", "data": told});
    EventKind { r#type: name, description: description(name), example }
}

fn description(name: &str) -> &'static str {
    match name {
        "render.completed" => "A film is finished.",
        "render.failed" => "A film could not be made.",
        "render.cancelled" => "A film was cancelled.",
        "snapshot_batch.completed" => "The stills of a template are made.",
        "payment.paid" => "A payment has arrived.",
        "payment.failed" => "A payment was not made.",
        "payment.review" => "A payment waits for somebody to look at it.",
        "payment.disputed" => "The bank of whoever paid wants the money back, or says more of that: `stage` is what.",
        "refund.done" => "Money was given back.",
        "subscription.renewed" => "A subscription goes on for another period.",
        "subscription.past_due" => {
            "A subscription is to be paid within a week: by the payment `payment_id`, where one could be opened."
        }
        "subscription.cancelled" => "A subscription was cancelled.",
        "subscription.expired" => "A subscription has ended.",
        "usage.threshold" => "A good part of what was agreed is used.",
        "gift.earned" => "Somebody has earned a gift.",
        "export.expiring" => "A film will be removed soon.",
        "webhook.paused" => "Another webhook has failed for too long and is paused.",
        "webhook.disabled" => "The receiver of another webhook is gone.",
        "webhook.test" => "Somebody tries this webhook; nobody subscribes to it.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_says_when_it_happens() {
        for name in EVENTS.into_iter().chain([TEST_EVENT]) {
            assert!(description(name).ends_with('.'), "{name}");
        }
    }
}
