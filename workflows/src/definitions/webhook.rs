//! An event reaches a webhook.
//!
//! ```text
//! look ─▶ call ─▶ note ─┬─▶ delivered
//!   ▲                   ├─▶ failed: nobody took it ten times within four days, or the receiver is gone for good
//!   └──── wait ◀────────┘
//! ```
//!
//! The look before each call tells what is true then: where the webhook is, what signs, whether anything is to be sent at all.

use super::events::{self, Event};
use crate::{
    contracts::webhook::{CallSlowWebhook, CallWebhook, WebhookAnswer},
    models::{
        Db, Role, Scope,
        identity::{
            tenant_webhook::{self, Failing, Fared},
            tenant_webhook_delivery::{self, Due, Look, Outcome, Tried},
        },
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// The pauses after failed attempts, in seconds: three days and three hours in all. Source: Standard Webhooks 1.0, "Retry schedule".
const PAUSES: [u64; 9] = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
/// Each is longer or shorter by up to so much: what failed together does not come back together.
const JITTER: f64 = 0.2;
/// A receiver is left alone for as long as it asks for, but no longer than this.
const MOST_PATIENCE: Duration = Duration::from_secs(24 * HOUR);
/// And for no longer in all, from the first call on, than the pauses take at their longest: whoever asks for a day each time is tried less
/// often.
const LONGEST: TimeDelta = TimeDelta::hours(91);

/// The receiver is gone for good.
const GONE: u16 = 410;
/// The receiver has too much to do.
const OVERLOADED: [u16; 3] = [429, 502, 504];

/// Failures in a row before a webhook is paused that has failed for five days: one alone says little.
const MANY_FAILURES: i32 = 10;
/// Attempts within a day, all of them failed, after which a webhook is paused.
const FAILURES_OF_A_DAY: i64 = 50;

/// Sends one delivery for as long as it takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TellWebhook {
    /// The delivery.
    pub delivery_id: Uuid,
    /// When its event occurred.
    pub occurred_at: DateTime<Utc>,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The receiver has it.
    Delivered,
    /// Nobody took it.
    Failed,
    /// There was nothing to send any more.
    Dropped,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Next {
    Again(DateTime<Utc>),
    Ended(Told),
}

impl Workflow for TellWebhook {
    const NAME: &'static str = "webhook";
    type Output = Told;

    async fn run(self, cx: &Context) -> Result<Told, Failure> {
        let scope = Scope::tenant(Role::Identity, cx.tenant_id());
        let Self { delivery_id: id, occurred_at } = self;
        let mut until: Option<DateTime<Utc>> = None;
        for attempt in 1.. {
            let look = async move |db: Db<'_>| {
                let look = async |db: Db<'_>| tenant_webhook_delivery::look(db, id, occurred_at).await;
                Ok(scope.within(db, look).await?)
            };
            let Look::Due(due) = cx.step(&format!("look {attempt}"), look).await? else { return Ok(Told::Dropped) };
            let answer = call(cx, attempt, &due).await;
            if let Err(failure) = &answer
                && failure.is_cancelled()
            {
                let end = async move |db: Db<'_>| {
                    let end = async |db: Db<'_>| tenant_webhook_delivery::end(db, id, occurred_at, "cancelled").await;
                    Ok(scope.within(db, end).await?)
                };
                cx.step("cancel", end).await?;
                return Err(failure.clone());
            }
            // From the first call on: for how long a run waited for a worker is no receiver's fault.
            let until = *until.get_or_insert(cx.now() + LONGEST);
            match note(cx, attempt, &due, &self, until, answer).await? {
                Next::Again(at) => cx.sleep_until(&format!("wait {attempt}"), at).await.or_else(woken)?,
                Next::Ended(told) => return Ok(told),
            }
        }
        Ok(Told::Failed)
    }
}

/// A run that was cancelled in its sleep finds out when it calls.
fn woken(failure: Failure) -> Result<(), Failure> {
    if failure.is_cancelled() { Ok(()) } else { Err(failure) }
}

/// One call, signed and sent as things stand now.
async fn call(cx: &Context, attempt: usize, due: &Due) -> Result<WebhookAnswer, Failure> {
    let key = format!("call {attempt}");
    let body = json!({"id": due.event_id, "type": due.kind, "timestamp": due.occurred_at, "data": due.data});
    let call = CallWebhook {
        webhook_id: due.webhook_id,
        event_id: due.event_id,
        url: due.url.clone(),
        secrets: due.secrets.clone(),
        body: body.to_string(),
        lane: (cx.random(&key) % u64::from(due.in_flight.unsigned_abs().max(1))) as u32,
    };
    match due.slow {
        true => cx.activity(&key, CallSlowWebhook(call)).await,
        false => cx.activity(&key, call).await,
    }
}

/// Writes down what came of an attempt: at the delivery, and at the webhook, which may have failed for too long.
async fn note(
    cx: &Context,
    attempt: usize,
    due: &Due,
    delivery: &TellWebhook,
    until: DateTime<Utc>,
    answer: Result<WebhookAnswer, Failure>,
) -> Result<Next, Failure> {
    let TellWebhook { delivery_id, occurred_at } = *delivery;
    let left = (until - cx.now()).to_std().unwrap_or(Duration::ZERO);
    let pause = pause(cx, attempt, left, answer.as_ref().ok());
    // Without an answer of its own the call failed for good, as one whose worker died time and again.
    let (error, answer) = match answer {
        Ok(answer) => (answer.error().map(str::to_owned), answer),
        Err(failure) => {
            let nothing = WebhookAnswer { status: None, excerpt: None, retry_after_seconds: None, took_ms: 0 };
            (Some(failure.code), nothing)
        }
    };
    let (told, again_after) = match (answer.is_good(), answer.status) {
        (true, _) => (Some(Told::Delivered), None),
        (false, Some(GONE)) => (Some(Told::Failed), None),
        (false, _) => (pause.is_none().then_some(Told::Failed), pause),
    };
    let state = match told {
        Some(Told::Delivered) => "delivered",
        Some(_) => "failed",
        None => "pending",
    };
    let took_ms = i32::try_from(answer.took_ms).unwrap_or(i32::MAX);
    let tried = Tried {
        no: attempt as i32,
        at: cx.now() - chrono::Duration::milliseconds(took_ms.into()),
        status: answer.status.map(i32::from),
        error,
        latency_ms: answer.status.map(|_| took_ms),
    };
    let (webhook_id, url, status) = (due.webhook_id, due.url.clone(), answer.status);
    let (tenant_id, fared) = (
        cx.tenant_id(),
        Fared { well: answer.is_good(), took_ms, overloaded: status.is_some_and(|s| OVERLOADED.contains(&s)) },
    );
    let (excerpt, scope) = (answer.excerpt, Scope::tenant(Role::Identity, tenant_id));
    let write = async move |db: Db<'_>| {
        let write = async |db: Db<'_>| -> Result<Next, Failure> {
            let outcome = Outcome { tried: &tried, excerpt: excerpt.as_deref(), took_ms, state, again_after };
            let noted = tenant_webhook_delivery::note(&mut *db, delivery_id, occurred_at, outcome).await?;
            let failing = tenant_webhook::note(&mut *db, tenant_id, webhook_id, fared).await?;
            if let Some((kind, why)) = verdict(&mut *db, webhook_id, status, failing).await? {
                put_off(cx, db, webhook_id, &url, kind, why).await?;
            }
            Ok(match (told, noted.flatten()) {
                (None, Some(at)) => Next::Again(at),
                (told, _) => Next::Ended(told.unwrap_or(Told::Dropped)),
            })
        };
        scope.within(db, write).await
    };
    cx.step(&format!("note {attempt}"), write).await
}

/// After how long to try again, within the time that is `left`; none when that was the last time.
fn pause(cx: &Context, attempt: usize, left: Duration, answer: Option<&WebhookAnswer>) -> Option<Duration> {
    if left.is_zero() {
        return None;
    }
    let planned = jittered(*PAUSES.get(attempt - 1)?, cx.random(&format!("pause {attempt}")));
    let asked = answer.and_then(|answer| answer.retry_after_seconds);
    let asked = Duration::from_secs(asked.unwrap_or(0).into()).min(MOST_PATIENCE);
    Some(planned.max(asked).min(left))
}

/// `seconds`, and up to a fifth more or less by `chance`.
fn jittered(seconds: u64, chance: u64) -> Duration {
    let part = (chance >> 11) as f64 / (1u64 << 53) as f64;
    Duration::from_secs(seconds).mul_f64(1.0 - JITTER + 2.0 * JITTER * part)
}

/// What a webhook has to be told of itself: it said that it is gone, or has failed for too long.
async fn verdict(
    db: Db<'_>,
    webhook_id: Uuid,
    status: Option<u16>,
    failing: Option<Failing>,
) -> sqlx::Result<Option<(&'static str, &'static str)>> {
    let Some(failing) = failing else { return Ok(None) };
    if status == Some(GONE) {
        return Ok(Some(("webhook.disabled", "its receiver answered 410: it is gone")));
    }
    if failing.five_days && failing.times >= MANY_FAILURES {
        return Ok(Some(("webhook.paused", "nothing has arrived for five days")));
    }
    let enough = i64::from(failing.times) >= FAILURES_OF_A_DAY && failing.a_day;
    if enough && tenant_webhook_delivery::attempts_within_a_day(db, webhook_id).await? >= FAILURES_OF_A_DAY {
        return Ok(Some(("webhook.paused", "nothing has arrived for a day, and it was tried fifty times or more")));
    }
    Ok(None)
}

/// Pauses or disables a webhook, and tells its tenant. What it does not get from here on is remembered.
async fn put_off(
    cx: &Context,
    db: Db<'_>,
    webhook_id: Uuid,
    url: &str,
    kind: &'static str,
    why: &str,
) -> Result<(), Failure> {
    let (tenant_id, state) = (cx.tenant_id(), kind.trim_start_matches("webhook."));
    if !tenant_webhook::put_off(&mut *db, tenant_id, webhook_id, state, why).await? {
        return Ok(());
    }
    let data = json!({"object": "webhook", "state": state, "url": url, "reason": why});
    let event = Event { tenant_id, kind, subject: webhook_id, user_id: None, data, occurred_at: cx.now() };
    Ok(events::happened(&cx.client()?, db, event).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::webhook::NO_ANSWER;

    #[test]
    fn ten_attempts_take_three_days_and_a_pause_is_a_fifth_off_at_most() {
        let all: u64 = PAUSES.iter().sum();
        assert_eq!(all / HOUR, 75);
        let longest: f64 = PAUSES.iter().map(|pause| jittered(*pause, u64::MAX).as_secs_f64()).sum();
        assert!(longest < LONGEST.num_seconds() as f64 && longest > 0.99 * LONGEST.num_seconds() as f64, "{longest}");
        for seconds in PAUSES {
            let (least, most) = (jittered(seconds, 0).as_secs_f64(), jittered(seconds, u64::MAX).as_secs_f64());
            let planned = seconds as f64;
            assert!((least - 0.8 * planned).abs() < 1e-6 && (most - 1.2 * planned).abs() < 1e-6, "{least} {most}");
        }
    }

    #[test]
    fn a_code_of_no_answer_is_what_the_contract_says() {
        let nothing = WebhookAnswer { status: None, excerpt: None, retry_after_seconds: None, took_ms: 5 };
        assert_eq!(nothing.error(), Some(NO_ANSWER));
        let redirect = WebhookAnswer { status: Some(302), ..nothing };
        assert_eq!((redirect.is_good(), redirect.error()), (false, Some("webhook.bad_status")));
    }
}
