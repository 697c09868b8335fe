//! What happened, told to whoever wants to hear of it: written in the transaction of what it tells of, so that neither is there without
//! the other.

use super::{notify::Notify, webhook::TellWebhook};
use crate::models::{
    Db, Role, Scope,
    identity::{
        gift,
        tenant_webhook::EVENTS,
        tenant_webhook_delivery::{self, NewDelivery},
        tenant_webhook_event::{self, NewEvent},
    },
    render::render_job,
    scope,
};
use chrono::{DateTime, SubsecRound as _, Utc};
use flatrender_engine::{Client, client::Error};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

/// What is told of an object is at most so long as JSON; a longer one is named, and can be asked for.
const DATA_BYTES: usize = 16 * 1024;

/// Something that happened to an object of a tenant.
#[derive(Debug, Clone)]
pub struct Event {
    /// Whose it is.
    pub tenant_id: Uuid,
    /// What happened, such as `render.completed`.
    pub kind: &'static str,
    /// The object.
    pub subject: Uuid,
    /// Whom of the tenant's people it concerns; nobody in particular when there is none.
    pub user_id: Option<Uuid>,
    /// What is told of the object: ids, its state, amounts. A JSON object; `id` and `version` are added where they are missing.
    pub data: Value,
    /// When. The same of a thing that is told twice: then it is told once.
    pub occurred_at: DateTime<Utc>,
}

/// Tells that something happened, in the caller's transaction, which stays in the scope in which it is. Who wants to hear of it will, if
/// and only if that commits. Within a step take `cx.client()`; anybody else calls [`Client::announce`] after the commit.
///
/// # Errors
/// Those of the database.
pub async fn happened(workflows: &Client, db: Db<'_>, event: Event) -> Result<(), Error> {
    let event = Event { occurred_at: event.occurred_at.trunc_subsecs(6), ..event };
    scope::aside(db, async |db: Db<'_>| {
        tell_webhooks(workflows, &mut *db, &event).await?;
        tell_people(workflows, db, &event).await
    })
    .await
}

/// The same for programs alone: something that people need do nothing about.
///
/// # Errors
/// Those of the database.
pub async fn happened_quietly(workflows: &Client, db: Db<'_>, event: Event) -> Result<(), Error> {
    let event = Event { occurred_at: event.occurred_at.trunc_subsecs(6), ..event };
    scope::aside(db, async |db: Db<'_>| tell_webhooks(workflows, db, &event).await).await
}

/// Starts the run that tells people, if it is something that they are told of.
async fn tell_people(workflows: &Client, db: Db<'_>, event: &Event) -> Result<(), Error> {
    let Event { tenant_id, kind, subject, user_id, .. } = *event;
    let Some(notify) = Notify::of_event(kind, event.source(), user_id, subject, event.data.clone()) else {
        return Ok(());
    };
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    workflows.start(db, tenant_id, Some(&notify.key()), notify).await.map(drop)
}

/// Writes the event for its webhooks, with a delivery for each, and starts those.
async fn tell_webhooks(workflows: &Client, db: Db<'_>, event: &Event) -> Result<(), Error> {
    let Event { tenant_id, kind, occurred_at, .. } = *event;
    if !EVENTS.contains(&kind) {
        return Ok(());
    }
    let scope = Scope::tenant(Role::Identity, tenant_id);
    scope.enter(&mut *db).await?;
    // A webhook is not told what became of itself.
    let listening = tenant_webhook_event::listening(&mut *db, tenant_id, kind, event.subject).await?;
    if listening.is_empty() {
        return Ok(());
    }
    let data = event.told();
    let new = NewEvent { tenant_id, kind, data: &data, occurred_at, source: event.source() };
    let Some(event_id) = tenant_webhook_event::insert(&mut *db, new).await? else { return Ok(()) };
    let mut deliveries: Vec<NewDelivery> =
        listening.iter().map(|l| NewDelivery { id: Uuid::now_v7(), webhook_id: l.webhook_id, run_id: None }).collect();
    let active: Vec<usize> = (0..listening.len()).filter(|i| listening[*i].active).collect();
    let runs: Vec<_> = active.iter().map(|i| TellWebhook { delivery_id: deliveries[*i].id, occurred_at }).collect();
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    for (i, run_id) in active.into_iter().zip(workflows.start_all(&mut *db, tenant_id, runs).await?) {
        deliveries[i].run_id = Some(run_id);
    }
    scope.enter(&mut *db).await?;
    Ok(tenant_webhook_delivery::insert(db, tenant_id, event_id, occurred_at, &deliveries).await?)
}

impl Event {
    /// What is told of it.
    fn told(&self) -> Value {
        let id = Value::from(self.subject.to_string());
        // Later ones are higher: whoever hears of an object out of order keeps the highest.
        let version = Value::from(self.occurred_at.timestamp_micros());
        let mut told = match &self.data {
            Value::Object(told) if self.data.to_string().len() <= DATA_BYTES => told.clone(),
            _ => Map::from_iter([("truncated".to_owned(), Value::Bool(true))]),
        };
        told.entry("id").or_insert(id);
        told.entry("version").or_insert(version);
        Value::Object(told)
    }

    /// The same for the same event, and for no other.
    fn source(&self) -> Uuid {
        let text = format!("{} {} {}", self.kind, self.subject, self.occurred_at.timestamp_micros());
        let hash = Sha256::digest(text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// Tells how a film has ended; nothing while it has not, and once however often it is asked for.
///
/// # Errors
/// Those of the database.
pub async fn render_ended(workflows: &Client, db: Db<'_>, id: Uuid) -> Result<(), Error> {
    let look = async |db: Db<'_>| {
        Scope::platform(Role::Render).enter(&mut *db).await?;
        render_job::ended(db, id).await
    };
    let Some(film) = scope::aside(&mut *db, look).await? else { return Ok(()) };
    let kind = match film.status.as_str() {
        "completed" => "render.completed",
        "cancelled" => "render.cancelled",
        _ => "render.failed",
    };
    let data = json!({"object": "render", "status": film.status, "template": film.template,
        "template_version": film.template_version, "kind": film.kind, "export_id": film.export_id,
        "error_code": film.error_code, "finished_at": film.finished_at});
    let (tenant_id, occurred_at) = (film.tenant_id, film.finished_at);
    // Whoever tries out how it looks sits before it.
    let user_id = film.user_id.filter(|_| film.kind != "preview");
    happened(workflows, db, Event { tenant_id, kind, subject: id, user_id, data, occurred_at }).await
}

/// Tells of the gifts that people of a tenant have earned, each once, in the transaction in which they were or in a later one.
///
/// # Errors
/// Those of the database.
pub async fn gifts_earned(workflows: &Client, db: Db<'_>, tenant_id: Uuid) -> Result<(), Error> {
    let look = async |db: Db<'_>| {
        Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
        gift::untold(db, tenant_id).await
    };
    for earned in scope::aside(&mut *db, look).await? {
        let data = json!({"object": "gift", "user_id": earned.user_id, "gift": earned.name, "code": earned.code, "kind": earned.kind,
            "value": earned.value, "reason": earned.reason});
        let (kind, subject, user_id, occurred_at) = ("gift.earned", earned.id, Some(earned.user_id), earned.earned_at);
        happened(workflows, &mut *db, Event { tenant_id, kind, subject, user_id, data, occurred_at }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: Value) -> Event {
        let occurred_at = DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time");
        let (tenant_id, subject) = (Uuid::from_u128(1), Uuid::from_u128(2));
        Event { tenant_id, kind: "render.completed", subject, user_id: None, data, occurred_at }
    }

    #[test]
    fn what_is_told_names_its_object_and_version_and_stays_short() {
        let id = "00000000-0000-0000-0000-000000000002";
        assert_eq!(
            event(json!({"status": "completed", "version": 7})).told(),
            json!({"id": id, "status": "completed", "version": 7})
        );
        let long = event(json!({"text": "x".repeat(DATA_BYTES)})).told();
        assert_eq!(long, json!({"id": id, "version": 1_700_000_000_123_456_i64, "truncated": true}));
    }

    #[test]
    fn an_event_is_known_by_what_happened_to_which_object_when() {
        let one = event(json!({}));
        assert_eq!(one.source(), event(json!({"told": "otherwise"})).source());
        let later = one.occurred_at + chrono::Duration::microseconds(1);
        for other in [
            Event { kind: "render.failed", ..one.clone() },
            Event { subject: Uuid::from_u128(3), ..one.clone() },
            Event { occurred_at: later, ..one.clone() },
        ] {
            assert_ne!(one.source(), other.source());
        }
    }
}
