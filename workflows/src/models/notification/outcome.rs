//! What became of calls: each outcome is written down once, and what it says of an address with it.

use super::{
    address,
    delivery::{Parcel, Sending, Which},
    sms,
    suppression::{self, SOFT_BOUNCES, SOFT_DAYS},
};
use crate::{
    contracts::notify::{Channel, Class, Verdict},
    models::Db,
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a provider said, with whom it was about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The delivery.
    pub delivery_id: Uuid,
    /// A row of the addresses or the browsers.
    pub address_id: Option<Uuid>,
    /// What is kept of the address.
    pub address_hash: String,
    /// The code of the country of the number, of a text message.
    pub country: Option<String>,
    /// What was said.
    pub verdict: Verdict,
}

impl Outcome {
    /// What was said of a call.
    pub fn of(call: &Sending, verdict: Verdict) -> Self {
        let Sending { delivery_id, address_id, address_hash, parcel } = call.clone();
        let country = if let Parcel::Sms(sms) = parcel { Some(sms::country(&sms.to).to_owned()) } else { None };
        Self { delivery_id, address_id, address_hash, country, verdict }
    }
}

/// What is left to do after a round of calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rest {
    /// Calls that were accepted.
    pub accepted: u32,
    /// Calls that may be made again: those that failed.
    pub failed: u32,
    /// Seconds after which a provider wants to be asked again.
    pub throttled: Option<f64>,
    /// Some were too long.
    pub too_long: bool,
}

/// How a round is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// When the message was told.
    pub told_at: DateTime<Utc>,
    /// Whether it is critical.
    pub critical: bool,
    /// There is no round after this one.
    pub last: bool,
    /// What was too long was shortened already.
    pub short: bool,
}

/// What is written of a delivery.
struct State {
    state: &'static str,
    class: Option<Class>,
    again: bool,
}

/// What a failure comes to. The one window for a duplicate is between the provider's acceptance and our commit: where nobody knows, e-mail
/// is sent again under the same Message-ID, a browser is told again under the same topic, for a text message the provider is asked first; a
/// chat has no key at all, so what is critical is written again and the rest is not.
fn state_of(class: Class, channel: Channel, round: Round) -> State {
    let again = match class {
        Class::Transient | Class::SoftBounce => true,
        Class::Unknown => channel != Channel::Telegram || round.critical,
        Class::TooLong => !round.short,
        _ => false,
    };
    let state = match (again && !round.last, class) {
        (true, _) => "deferred",
        (false, Class::Unknown) if channel == Channel::Telegram => "dropped",
        (false, _) => "failed",
    };
    State { state, class: Some(class), again: again && !round.last }
}

/// Writes down a round of outcomes. As of the platform.
///
/// # Errors
/// Those of the database.
pub async fn settle(db: Db<'_>, which: Which, round: Round, outcomes: &[Outcome]) -> Result<Rest, Failure> {
    let mut rest = Rest::default();
    for outcome in outcomes {
        match &outcome.verdict {
            Verdict::Accepted { account_id, message } => {
                rest.accepted += 1;
                accept(&mut *db, which, round, outcome, *account_id, message.as_deref()).await?;
            }
            Verdict::Throttled { after_seconds, .. } => {
                let after = rest.throttled.unwrap_or(0.0).max(*after_seconds);
                rest.throttled = Some(after);
                let wait = TimeDelta::milliseconds((after_seconds * 1000.0) as i64);
                throttle(&mut *db, round, outcome, wait).await?;
                if let Some(country) = &outcome.country {
                    sms::uncount(&mut *db, which.tenant_id, country, &outcome.address_hash).await?;
                }
            }
            Verdict::Failed { class, message } => {
                let state = state_of(*class, which.channel, round);
                rest.failed += u32::from(state.again);
                rest.too_long |= *class == Class::TooLong && state.again;
                fail(&mut *db, round, outcome, &state, message).await?;
                learn(&mut *db, which, outcome, *class).await?;
            }
        }
    }
    Ok(rest)
}

async fn accept(
    db: Db<'_>,
    which: Which,
    round: Round,
    outcome: &Outcome,
    account_id: Option<Uuid>,
    message: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update notification.notification_deliveries d
         set state = 'sent', sent_at = workflow.now(), provider_message = left($3, 255), error_class = null, last_error = null, updated_at = workflow.now(),
             provider_account_id = (select a.id from notification.provider_accounts a where a.id = $4 and a.tenant_id = d.tenant_id)
         where created_at = $1 and id = $2 and state = 'sending'",
        round.told_at,
        outcome.delivery_id,
        message,
        account_id,
    )
    .execute(&mut *db)
    .await?;
    match (which.channel, outcome.address_id) {
        (Channel::Push, Some(id)) => address::note_browser(db, which.tenant_id, id, true).await,
        (Channel::Telegram, Some(id)) => address::note_chat(db, which.tenant_id, id).await,
        _ => Ok(()),
    }
}

async fn throttle(db: Db<'_>, round: Round, outcome: &Outcome, wait: TimeDelta) -> sqlx::Result<()> {
    sqlx::query!(
        "update notification.notification_deliveries
         set state = case when $4 then 'failed' else 'deferred' end, error_class = 'throttled',
             not_before = workflow.now() + make_interval(secs => $3), updated_at = workflow.now(), attempt_no = attempt_no - 1
         where created_at = $1 and id = $2 and state = 'sending'",
        round.told_at,
        outcome.delivery_id,
        wait.as_seconds_f64(),
        round.last,
    )
    .execute(db)
    .await
    .map(drop)
}

async fn fail(db: Db<'_>, round: Round, outcome: &Outcome, state: &State, message: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update notification.notification_deliveries
         set state = $3, error_class = $4, last_error = left($5, 1000), outcome_unknown = outcome_unknown or $6,
             updated_at = workflow.now()
         where created_at = $1 and id = $2 and state = 'sending'",
        round.told_at,
        outcome.delivery_id,
        state.state,
        state.class.map(Class::as_str),
        message,
        state.class == Some(Class::Unknown),
    )
    .execute(db)
    .await
    .map(drop)
}

/// What a failure says of the address.
async fn learn(db: Db<'_>, which: Which, outcome: &Outcome, class: Class) -> sqlx::Result<()> {
    let hash = hex::decode(&outcome.address_hash).unwrap_or_default();
    let suppress = async |db: Db<'_>, reason, days| {
        suppression::add(db, which.tenant_id, which.channel, &hash, reason, days).await
    };
    match (which.channel, class, outcome.address_id) {
        (Channel::Push, Class::Gone, Some(id)) => address::forget_browser(db, which.tenant_id, id).await,
        (Channel::Push, Class::Transient | Class::Refused, Some(id)) => {
            address::note_browser(db, which.tenant_id, id, false).await
        }
        (Channel::Telegram, Class::Gone, Some(id)) => address::lose_chat(db, which.tenant_id, id).await,
        (Channel::Telegram, Class::Blocked, Some(id)) => address::refuse_chat(db, which.tenant_id, id).await,
        (Channel::Email | Channel::Sms, Class::HardBounce, _) => suppress(db, "hard_bounce", None).await,
        (Channel::Email | Channel::Sms, Class::Blocked, _) => suppress(db, "blocked", None).await,
        (Channel::Email, Class::SoftBounce, _) => {
            if soft_bounces(&mut *db, which).await? >= SOFT_BOUNCES {
                suppress(db, "soft_bounces", Some(SOFT_DAYS)).await?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Messages of the week that the user's mailbox put off.
async fn soft_bounces(db: Db<'_>, which: Which) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from notification.notifications n
           join notification.notification_deliveries d on d.created_at = n.created_at and d.notification_id = n.id
           where n.tenant_id = $1 and n.user_id = (select user_id from notification.notifications where tenant_id = $1 and id = $2)
             and n.created_at > workflow.now() - make_interval(days => $3) and d.channel = 'email' and d.error_class = 'soft_bounce'"#,
        which.tenant_id,
        which.notification_id,
        SOFT_DAYS,
    )
    .fetch_one(db)
    .await
}

/// What a provider tells later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// It arrived.
    Delivered,
    /// The address takes nothing, for good.
    HardBounce,
    /// The address took it not this time.
    SoftBounce,
    /// Its reader said that it is spam.
    Complaint,
    /// It did not arrive, and nobody is to blame.
    Failed,
}

/// Takes in what a provider tells of a message it had accepted, of accounts of this tenant, or of any when it is the platform's. False
/// when nobody knows the message. Repeating it is harmless. As of the platform.
///
/// # Errors
/// Those of the database.
pub async fn hear(db: Db<'_>, tenant_id: Option<Uuid>, message: &str, feedback: Feedback) -> sqlx::Result<bool> {
    let found = sqlx::query!(
        "select created_at, id, tenant_id, channel, address_hash from notification.notification_deliveries
         where provider_message = $1 and ($2::uuid is null or tenant_id = $2) order by created_at desc limit 1",
        message,
        tenant_id
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(found) = found else { return Ok(false) };
    let (state, class) = match feedback {
        Feedback::Delivered => ("delivered", None),
        Feedback::HardBounce => ("failed", Some("hard_bounce")),
        Feedback::SoftBounce => ("failed", Some("soft_bounce")),
        Feedback::Complaint => ("delivered", Some("complaint")),
        Feedback::Failed => ("failed", Some("refused")),
    };
    sqlx::query!(
        "update notification.notification_deliveries set state = $3, error_class = $4, updated_at = workflow.now()
         where created_at = $1 and id = $2 and state = 'sent'",
        found.created_at,
        found.id,
        state,
        class,
    )
    .execute(&mut *db)
    .await?;
    let channel: Channel = found.channel.parse().unwrap_or(Channel::Email);
    let reason = match feedback {
        Feedback::HardBounce => "hard_bounce",
        Feedback::Complaint => "complaint",
        _ => return Ok(true),
    };
    // The one that was written to: its reader may have another one by now.
    if let Some(address) = found.address_hash {
        suppression::add(db, found.tenant_id, channel, &address, reason, None).await?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p20_what_a_failure_comes_to_is_what_the_table_says() {
        let round = |critical, last| Round { told_at: DateTime::UNIX_EPOCH, critical, last, short: false };
        let state = |class, channel, round| {
            let state = state_of(class, channel, round);
            (state.state, state.again)
        };
        for channel in Channel::ALL {
            for permanent in [Class::HardBounce, Class::Gone, Class::Blocked, Class::Config, Class::Refused] {
                assert_eq!(state(permanent, channel, round(true, false)), ("failed", false), "never tried again");
            }
            for passing in [Class::Transient, Class::SoftBounce] {
                assert_eq!(state(passing, channel, round(false, false)), ("deferred", true));
                assert_eq!(state(passing, channel, round(false, true)), ("failed", false));
            }
        }
        for channel in [Channel::Email, Channel::Push, Channel::Sms] {
            assert_eq!(state(Class::Unknown, channel, round(false, false)), ("deferred", true));
        }
        assert_eq!(state(Class::Unknown, Channel::Telegram, round(true, false)), ("deferred", true));
        assert_eq!(state(Class::Unknown, Channel::Telegram, round(false, false)), ("dropped", false));
        assert_eq!(state(Class::TooLong, Channel::Push, round(false, false)), ("deferred", true));
        let short = Round { short: true, ..round(false, false) };
        assert_eq!(state(Class::TooLong, Channel::Push, short), ("failed", false), "shortened once");
    }
}
