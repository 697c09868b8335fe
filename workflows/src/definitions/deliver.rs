//! One message to one person, by each way that its kind has. Within a way a channel is for when the one before it did not arrive.
//!
//! ```text
//!   begin (decided, `sending` committed) ─▶ call ─▶ settle (outcome committed) ─▶ accepted
//!     │                                              │ try again: by the channel's table, or when the provider says
//!     ├─ hours of rest: wait, decide again           └ given up ─▶ next channel of the way
//!     └─ digest, unwanted, suppressed, read: nothing
//! ```

use crate::{
    contracts::notify::{Channel, Class, Verdict},
    models::{
        Db,
        notification::{
            delivery::{self, Next, Parcel, SCOPE, Which},
            outcome::{self, Outcome, Rest, Round},
        },
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long the next channel of a way waits for the one before it.
const PATIENCE: TimeDelta = TimeDelta::minutes(5);
/// Times that a message may wait before it is given up: hours of rest, and providers that want to be left alone.
const MOST_WAITS: u32 = 200;

/// Carries a message out. Each call is written down before it is made and after it is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deliver {
    /// Whose.
    pub tenant_id: Uuid,
    /// The message.
    pub notification_id: Uuid,
    /// By which ways.
    pub ways: Vec<Vec<Channel>>,
}

/// When a channel tries again: how often, and how long after the first failure; each pause is twice the one before, up to a cap.
pub(crate) fn table(channel: Channel) -> (u32, Duration, Duration) {
    let (tries, base, cap) = match channel {
        Channel::Push => (5, 5, 600),
        // The last of eight comes a day after the first.
        Channel::Email => (8, 680, 86_400),
        Channel::Sms => (3, 10, 120),
        Channel::Telegram => (5, 5, 600),
        Channel::Inapp => (1, 0, 0),
    };
    (tries, Duration::from_secs(base), Duration::from_secs(cap))
}

/// The pause after the `tries`-th failure, from 1; `chance` takes up to half of it away.
pub(crate) fn pause(channel: Channel, tries: u32, chance: u64) -> Duration {
    let (_, base, cap) = table(channel);
    let whole = base.saturating_mul(1u32.checked_shl(tries.saturating_sub(1).min(20)).unwrap_or(u32::MAX)).min(cap);
    whole.mul_f64(1.0 - (chance % 1000) as f64 / 2000.0)
}

impl Workflow for Deliver {
    const NAME: &'static str = "deliver";
    /// Ways by which it arrived.
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let ways = self.ways.iter().map(async |way| {
            for (place, channel) in way.iter().enumerate() {
                let more = place + 1 < way.len();
                if deliver(cx, &self, *channel, more).await? {
                    return Ok(1);
                }
            }
            Ok(0)
        });
        let mut arrived = 0;
        for outcome in join_all(ways).await {
            arrived += outcome.or_else(|failure: Failure| if failure.is_cancelled() { Ok(0) } else { Err(failure) })?;
        }
        Ok(arrived)
    }
}

/// Sends a message by a channel until it is accepted or given up; says whether somebody has it. `more`: there is another channel, and after
/// five minutes it is its turn.
async fn deliver(cx: &Context, this: &Deliver, channel: Channel, more: bool) -> Result<bool, Failure> {
    let which =
        Which { tenant_id: this.tenant_id, notification_id: this.notification_id, channel, run_id: cx.run_id() };
    let (mut tries, mut waits, mut accepted, mut short) = (0, 0, false, false);
    let mut began: Option<DateTime<Utc>> = None;
    loop {
        let turn = format!("{channel}:{}", tries + waits + 1);
        let next = cx
            .step(&format!("{turn}:begin"), async move |db: Db<'_>| {
                SCOPE.within(db, async |db: Db<'_>| delivery::begin(db, which, short).await).await
            })
            .await?;
        let (told_at, critical, until, calls) = match next {
            Next::Send { told_at, critical, until, calls } => (told_at, critical, until, calls),
            Next::Wait(until) if waits < MOST_WAITS => {
                waits += 1;
                cx.sleep_until(&format!("{turn}:rest"), until).await?;
                continue;
            }
            Next::Gathered | Next::Sent => return Ok(true),
            Next::Wait(_) | Next::Nothing(_) => return Ok(accepted),
        };
        let began = *began.get_or_insert(cx.now());
        let verdicts = join_all(calls.iter().enumerate().map(async |(n, call)| {
            let verdict = send(cx, &format!("{turn}:send:{n}"), &call.parcel).await;
            Outcome::of(call, verdict)
        }))
        .await;
        let (most, _, _) = table(channel);
        let after = pause(channel, tries + 1, cx.random(&turn));
        let late = |wait: Duration| {
            let then = cx.now() + TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
            then > until || more && then - began > PATIENCE
        };
        let asked = verdicts.iter().filter_map(|o| {
            if let Verdict::Throttled { after_seconds } = o.verdict { Some(after_seconds) } else { None }
        });
        let asked = asked.fold(0.0, f64::max);
        let last = tries + 1 >= most
            || late(after)
            || waits >= MOST_WAITS
            || late(Duration::from_secs_f64(asked.clamp(0.0, 1e6)));
        let round = Round { told_at, critical, last, short };
        let outcomes = &verdicts;
        let rest: Rest = cx
            .step(&format!("{turn}:settle"), async move |db: Db<'_>| {
                SCOPE.within(db, async |db: Db<'_>| outcome::settle(db, which, round, outcomes).await).await
            })
            .await?;
        accepted |= rest.accepted > 0;
        if last || rest.failed == 0 && rest.throttled.is_none() {
            return Ok(accepted);
        }
        short |= rest.too_long;
        let wait = match rest.throttled {
            Some(seconds) => {
                waits += 1;
                Duration::from_secs_f64(seconds.clamp(0.0, 1e6))
            }
            None => {
                tries += 1;
                if rest.too_long { Duration::ZERO } else { after }
            }
        };
        cx.sleep(&format!("{turn}:pause"), wait).await?;
    }
}

/// Makes one call. One that was cut off may have arrived: nobody knows.
async fn send(cx: &Context, key: &str, parcel: &Parcel) -> Verdict {
    let answer = match parcel.clone() {
        Parcel::Email(mail) => cx.activity(key, mail).await,
        Parcel::Push(push) => cx.activity(key, push).await,
        Parcel::Sms(sms) => cx.activity(key, sms).await,
        Parcel::Telegram(chat) => cx.activity(key, chat).await,
    };
    answer.unwrap_or_else(|failure| {
        let class = if failure.is_cancelled() { Class::Refused } else { Class::Unknown };
        Verdict::Failed { class, message: failure.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_tries_as_often_and_as_long_as_its_table_says() {
        let whole = |channel| {
            let (tries, _, _) = table(channel);
            (tries, (1..tries).map(|n| pause(channel, n, 0)).sum::<Duration>().as_secs())
        };
        assert_eq!(whole(Channel::Push), (5, 5 + 10 + 20 + 40));
        assert_eq!(whole(Channel::Sms), (3, 10 + 20));
        assert_eq!(whole(Channel::Telegram).0, 5);
        let (tries, seconds) = whole(Channel::Email);
        assert!(tries == 8 && (23 * 3600..=24 * 3600).contains(&seconds), "{seconds}");
        for chance in [0, 499, 999, u64::MAX] {
            let pause = pause(Channel::Push, 3, chance);
            assert!(pause >= Duration::from_secs(10) && pause <= Duration::from_secs(20));
        }
    }
}
