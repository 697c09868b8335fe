//! Whether an account may be used now: not beyond its rate, and not while its provider is down. Each worker keeps its own count.

use super::held;
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Calls are looked at for this long.
const WINDOW: Duration = Duration::from_secs(60);
/// When half of them failed, the account is left alone for this long; then one call finds out.
const OPEN: Duration = Duration::from_secs(30);
/// Fewer calls say nothing.
const FEWEST: u32 = 10;
/// Calls that may come at once beyond the rate, in seconds of it.
const BURST_SECONDS: f64 = 1.0;

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stance {
    /// Use the account at this place.
    Go(usize),
    /// None of them now.
    Wait(Duration),
    /// There is none.
    Nobody,
}

/// The gates of all accounts.
#[derive(Debug, Default)]
pub struct Gates(Mutex<HashMap<Uuid, Gate>>);

#[derive(Debug)]
struct Gate {
    tokens: f64,
    filled: Instant,
    since: Instant,
    calls: u32,
    failures: u32,
    shut_until: Option<Instant>,
    probing: bool,
}

impl Gate {
    fn new(rate: f64, now: Instant) -> Self {
        Self {
            tokens: (rate * BURST_SECONDS).max(1.0),
            filled: now,
            since: now,
            calls: 0,
            failures: 0,
            shut_until: None,
            probing: false,
        }
    }

    /// Takes a place, or tells after how long to ask again.
    fn take(&mut self, rate: f64, now: Instant) -> Result<(), Duration> {
        if let Some(until) = self.shut_until {
            if now < until {
                return Err(until - now);
            }
            if self.probing {
                return Err(OPEN / 10);
            }
        }
        let most = (rate * BURST_SECONDS).max(1.0);
        self.tokens = (self.tokens + now.duration_since(self.filled).as_secs_f64() * rate).min(most);
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) / rate));
        }
        self.tokens -= 1.0;
        self.probing = self.shut_until.is_some();
        Ok(())
    }

    fn note(&mut self, well: bool, now: Instant) {
        if self.probing {
            self.probing = false;
            self.shut_until = (!well).then(|| now + OPEN);
            (self.since, self.calls, self.failures) = (now, 0, 0);
            return;
        }
        if now.duration_since(self.since) > WINDOW {
            (self.since, self.calls, self.failures) = (now, 0, 0);
        }
        self.calls += 1;
        self.failures += u32::from(!well);
        if self.calls >= FEWEST && self.failures * 2 >= self.calls && self.shut_until.is_none() {
            self.shut_until = Some(now + OPEN);
        }
    }
}

impl Gates {
    /// The first of the accounts, each with its rate a second, that may be used now.
    pub fn pick(&self, accounts: impl Iterator<Item = (Uuid, f64)>, now: Instant) -> Stance {
        let mut gates = held(&self.0);
        let mut stance = Stance::Nobody;
        for (place, (id, rate)) in accounts.enumerate() {
            let rate = rate.max(0.001);
            match gates.entry(id).or_insert_with(|| Gate::new(rate, now)).take(rate, now) {
                Ok(()) => return Stance::Go(place),
                Err(wait) => {
                    let before = if let Stance::Wait(before) = stance { before } else { Duration::MAX };
                    stance = Stance::Wait(before.min(wait));
                }
            }
        }
        stance
    }

    /// A call by an account was answered, well or not.
    pub fn report(&self, id: Uuid, well: bool, now: Instant) {
        if let Some(gate) = held(&self.0).get_mut(&id) {
            gate.note(well, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    #[test]
    fn a_provider_that_is_down_is_left_alone_and_the_second_one_is_used() {
        let (gates, start) = (Gates::default(), Instant::now());
        let both = || [(A, 1000.0), (B, 1000.0)].into_iter();
        for n in 0..10 {
            assert_eq!(gates.pick(both(), start), Stance::Go(0), "{n}");
            gates.report(A, n % 2 == 0, start);
        }
        assert_eq!(gates.pick(both(), start), Stance::Go(1), "half of ten failed");
        assert_eq!(gates.pick([(A, 1000.0)].into_iter(), start), Stance::Wait(OPEN));
        let later = start + OPEN;
        assert_eq!(gates.pick(both(), later), Stance::Go(0), "one finds out");
        assert_eq!(gates.pick(both(), later), Stance::Go(1), "one alone");
        gates.report(A, false, later);
        assert_eq!(gates.pick([(A, 1000.0)].into_iter(), later), Stance::Wait(OPEN));
        assert_eq!(gates.pick(both(), later + OPEN), Stance::Go(0));
        gates.report(A, true, later + OPEN);
        assert_eq!(gates.pick(both(), later + OPEN), Stance::Go(0), "it is back");
    }

    #[test]
    fn nobody_is_called_more_often_than_they_want() {
        let (gates, start) = (Gates::default(), Instant::now());
        let taken = |at: Duration| {
            std::iter::repeat_with(|| gates.pick([(A, 5.0)].into_iter(), start + at))
                .take_while(|s| *s == Stance::Go(0))
                .count()
        };
        assert_eq!(taken(Duration::ZERO), 5);
        assert_eq!(taken(Duration::from_millis(200)), 1);
        assert_eq!(taken(Duration::from_secs(60)), 5, "nobody saves up");
        assert_eq!(gates.pick([].into_iter(), start), Stance::Nobody);
    }

    #[test]
    fn a_few_failures_say_nothing_and_old_ones_are_forgotten() {
        let (gates, start) = (Gates::default(), Instant::now());
        for n in 0..9 {
            gates.pick([(A, 1000.0)].into_iter(), start);
            gates.report(A, false, start + Duration::from_secs(n));
        }
        let later = start + WINDOW + Duration::from_secs(1);
        assert_eq!(gates.pick([(A, 1000.0)].into_iter(), later), Stance::Go(0));
        gates.report(A, false, later);
        assert_eq!(gates.pick([(A, 1000.0)].into_iter(), later), Stance::Go(0));
    }
}
