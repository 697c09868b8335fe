//! One message to one person, by each way that its kind has. Within a way a channel is for when the one before it did not arrive, or has not
//! within five minutes; then both go on until somebody has it.
//!
//! ```text
//!   begin (decided, `sending` committed) ─▶ call ─▶ settle (outcome committed) ─▶ accepted
//!     │                                              │ try again: by the channel's table, or when the provider says
//!     │                                              │ late ─▶ next channel of the way beside this one
//!     ├─ hours of rest: wait, decide again           └ given up ─▶ next channel of the way
//!     └─ digest, unwanted, suppressed, read, there by another channel: nothing
//! ```

use crate::{
    contracts::notify::{Channel, Class, Verdict},
    models::{
        Db,
        notification::{
            delivery::{self, Next, Parcel, SCOPE, Sending, Which},
            outcome::{self, Outcome, Rest, Round},
        },
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use futures::{
    FutureExt as _,
    future::{BoxFuture, join, join_all},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long the next channel of a way waits for the one before it.
const PATIENCE: TimeDelta = TimeDelta::minutes(5);
/// Times that a message may wait before it is given up: hours of rest, and providers that want to be left alone. Waits of our own do not
/// count: nobody was called.
const MOST_WAITS: u32 = 200;
/// Whoever has waited in vain for a place of our own comes again ever later, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Whoever has waited in vain as often as this comes no more than once in [`AN_HOUR`]: each time is another line of the record.
const MANY_WAITS: u32 = 20;
const AN_HOUR: Duration = Duration::from_secs(3600);

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
        let mut arrived = 0;
        for outcome in join_all(self.ways.iter().map(|way| by_way(cx, &self, way, 0, false))).await {
            let it =
                outcome.or_else(|failure: Failure| if failure.is_cancelled() { Ok(false) } else { Err(failure) })?;
            arrived += u32::from(it);
        }
        Ok(arrived)
    }
}

/// Sends a message by the channels of a way from the one at `place` on; says whether somebody has it. A channel that is late goes on beside
/// the next one, until somebody has it by either; `beside`: one before goes on.
fn by_way<'a>(
    cx: &'a Context,
    this: &'a Deliver,
    way: &'a [Channel],
    place: usize,
    beside: bool,
) -> BoxFuture<'a, Result<bool, Failure>> {
    async move {
        let Some(channel) = way.get(place) else { return Ok(false) };
        let others = way.iter().copied().filter(|other| other != channel).collect();
        let mut going = Going::new(cx, this, *channel, others);
        (going.more, going.beside) = (place + 1 < way.len(), beside);
        match going.go_on().await? {
            Stand::Arrived => Ok(true),
            Stand::GivenUp => by_way(cx, this, way, place + 1, beside).await,
            Stand::Late => {
                let (it, next) = join(going.go_on(), by_way(cx, this, way, place + 1, true)).await;
                Ok(it? == Stand::Arrived || next?)
            }
        }
    }
    .boxed()
}

/// How far a message has come by a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Somebody has it.
    Arrived,
    /// It does not go by this channel.
    GivenUp,
    /// It takes longer than the next channel waits.
    Late,
}

/// A message on its way by a channel.
struct Going<'a> {
    cx: &'a Context,
    which: Which,
    others: Vec<Channel>,
    /// There is another channel, and it was not begun yet.
    more: bool,
    /// Others of the way are under way, too.
    beside: bool,
    turns: u32,
    tries: u32,
    waits: u32,
    /// Waits of our own, one after the other.
    held_up: u32,
    accepted: bool,
    short: bool,
    began: Option<DateTime<Utc>>,
    /// What is waited for before it goes on.
    pause: Option<(String, Duration)>,
}

impl<'a> Going<'a> {
    fn new(cx: &'a Context, this: &Deliver, channel: Channel, others: Vec<Channel>) -> Self {
        let Deliver { tenant_id, notification_id, .. } = *this;
        let which = Which { tenant_id, notification_id, channel, run_id: cx.run_id() };
        Self {
            cx,
            which,
            others,
            more: false,
            beside: false,
            turns: 0,
            tries: 0,
            waits: 0,
            held_up: 0,
            accepted: false,
            short: false,
            began: None,
            pause: None,
        }
    }

    /// Sends it until it is accepted or given up; or until it is late for the first time, and goes on from there when it is called again.
    async fn go_on(&mut self) -> Result<Stand, Failure> {
        let (cx, which) = (self.cx, self.which);
        loop {
            if let Some((key, wait)) = self.pause.take() {
                cx.sleep(&key, wait).await?;
            }
            self.turns += 1;
            let turn = format!("{}:{}", which.channel, self.turns);
            let short = self.short;
            let others: &[Channel] = if self.beside { &self.others } else { &[] };
            let next = cx
                .step(&format!("{turn}:begin"), async move |db: Db<'_>| {
                    SCOPE.within(db, async |db: Db<'_>| delivery::begin(db, which, short, others).await).await
                })
                .await?;
            match next {
                Next::Send { told_at, critical, until, calls } => {
                    if let Some(stand) = self.send(&turn, told_at, critical, until, &calls).await? {
                        return Ok(stand);
                    }
                }
                Next::Wait(until) if self.waits < MOST_WAITS => {
                    self.waits += 1;
                    cx.sleep_until(&format!("{turn}:rest"), until).await?;
                }
                Next::Gathered | Next::Sent => return Ok(Stand::Arrived),
                Next::Wait(_) | Next::Nothing(_) => return Ok(self.over()),
            }
        }
    }

    fn over(&self) -> Stand {
        if self.accepted { Stand::Arrived } else { Stand::GivenUp }
    }

    /// Makes a round of calls; none when there is to be another one.
    async fn send(
        &mut self,
        turn: &str,
        told_at: DateTime<Utc>,
        critical: bool,
        until: DateTime<Utc>,
        calls: &[Sending],
    ) -> Result<Option<Stand>, Failure> {
        let (cx, which) = (self.cx, self.which);
        let began = *self.began.get_or_insert(cx.now());
        let outcomes = join_all(calls.iter().enumerate().map(async |(n, call)| {
            let verdict = send(cx, &format!("{turn}:send:{n}"), &call.parcel).await;
            Outcome::of(call, verdict)
        }))
        .await;
        let (most, _, _) = table(which.channel);
        let after = pause(which.channel, self.tries + 1, cx.random(turn));
        let asked = Asked::of(&outcomes, self.held_up);
        let wait = asked.wait.unwrap_or(after);
        let then = |wait: Duration| cx.now() + TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
        let late = |wait: Duration| self.more && then(wait) - began > PATIENCE;
        // Runs that an earlier build has begun end here when they are late: the next channel takes over. What everybody took is never late,
        // so nothing is recorded of it.
        let open = outcomes.iter().any(|outcome| !matches!(outcome.verdict, Verdict::Accepted { .. }));
        let ends_late =
            open && (late(after) || late(asked.wait.unwrap_or_default())) && !cx.patched("late channels go on").await;
        let last = !asked.by_us_alone && self.tries + 1 >= most
            || then(wait.max(after)) > until
            || self.waits >= MOST_WAITS
            || ends_late;
        let is_late = late(wait);
        let (round, outcomes) = (Round { told_at, critical, last, short: self.short }, &outcomes);
        let rest: Rest = cx
            .step(&format!("{turn}:settle"), async move |db: Db<'_>| {
                SCOPE.within(db, async |db: Db<'_>| outcome::settle(db, which, round, outcomes).await).await
            })
            .await?;
        self.accepted |= rest.accepted > 0;
        if last || rest.failed == 0 && rest.throttled.is_none() {
            return Ok(Some(self.over()));
        }
        self.short |= rest.too_long;
        self.held_up = if asked.by_us { self.held_up + 1 } else { 0 };
        let wait = match (rest.throttled, rest.too_long) {
            (Some(_), _) => {
                self.waits += u32::from(!asked.by_us);
                wait
            }
            (None, too_long) => {
                self.tries += 1;
                if too_long { Duration::ZERO } else { after }
            }
        };
        self.pause = Some((format!("{turn}:pause"), wait));
        // Somebody has it already where one of several browsers does not.
        if is_late && !self.accepted {
            (self.more, self.beside) = (false, true);
            return Ok(Some(Stand::Late));
        }
        Ok(None)
    }
}

/// What is to be waited for after a round of calls.
struct Asked {
    /// The longest that somebody asked for.
    wait: Option<Duration>,
    /// Some of it is ours.
    by_us: bool,
    /// Nobody was called.
    by_us_alone: bool,
}

impl Asked {
    fn of(outcomes: &[Outcome], held_up: u32) -> Self {
        let longest = if held_up < MANY_WAITS { LONGEST_WAIT } else { AN_HOUR };
        let ours = Duration::from_secs(1 << held_up.min(20)).min(longest);
        let waits: Vec<(Duration, bool)> = outcomes
            .iter()
            .filter_map(|outcome| match outcome.verdict {
                Verdict::Throttled { after_seconds, by_us } => {
                    let asked = Duration::from_secs_f64(after_seconds.clamp(0.0, 1e6));
                    // The first time it is the place that was kept: exactly then.
                    Some((if by_us && held_up > 0 { asked.max(ours) } else { asked }, by_us))
                }
                _ => None,
            })
            .collect();
        let by_us = waits.iter().any(|(_, by_us)| *by_us);
        Self {
            wait: waits.iter().map(|(wait, _)| *wait).max(),
            by_us,
            by_us_alone: by_us && waits.len() == outcomes.len() && waits.iter().all(|(_, by_us)| *by_us),
        }
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
    fn whoever_waits_in_vain_for_a_place_of_ours_comes_ever_later() {
        let held = |by_us| Outcome {
            delivery_id: Uuid::nil(),
            address_id: None,
            address_hash: String::new(),
            country: None,
            verdict: Verdict::Throttled { after_seconds: 3.0, by_us },
        };
        let seconds = |by_us, held_up| Asked::of(&[held(by_us)], held_up).wait.unwrap().as_secs();
        assert_eq!([0, 1, 2, 9, 10, 19, 20, 400].map(|n| seconds(true, n)), [3, 3, 4, 512, 600, 600, 3600, 3600]);
        assert_eq!(seconds(false, 400), 3, "what a provider asks for is what it gets");
    }

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
