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
/// A place that nobody has come for after this long is forgotten. Whoever has waited in vain for long comes once an hour.
const KEPT: Duration = Duration::from_secs(75 * 60);

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stance {
    /// Use the account at this place.
    Go(usize),
    /// None of them now. Where it is only the rate, a place is kept: whoever comes again after this long is let in.
    Wait(Duration),
    /// There is none.
    Nobody,
}

/// The gates of all accounts.
#[derive(Debug, Default)]
pub struct Gates(Mutex<HashMap<Uuid, Gate>>);

#[derive(Debug)]
struct Gate {
    /// Calls that may be made now; what is below nothing was promised to those who wait.
    tokens: f64,
    filled: Instant,
    /// Who waits, and when it is their turn.
    places: HashMap<Uuid, Instant>,
    swept: Instant,
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
            places: HashMap::new(),
            swept: now,
            since: now,
            calls: 0,
            failures: 0,
            shut_until: None,
            probing: false,
        }
    }

    /// Lets a call through, or tells after how long to ask again.
    fn take(&mut self, call: Uuid, rate: f64, now: Instant) -> Result<(), Duration> {
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
        match self.places.get(&call).copied() {
            Some(turn) if turn > now => return Err(turn - now),
            Some(_) => {
                self.places.remove(&call);
            }
            None if self.tokens < 1.0 => return Err(Duration::from_secs_f64((1.0 - self.tokens) / rate)),
            None => self.tokens -= 1.0,
        }
        self.probing = self.shut_until.is_some();
        Ok(())
    }

    /// Keeps a place for a call that was told to come again after `wait`: whoever comes later comes after it. None while it is shut, when
    /// nobody knows how long it takes.
    fn keep(&mut self, call: Uuid, wait: Duration, now: Instant) {
        if self.shut_until.is_some() || self.places.contains_key(&call) {
            return;
        }
        if now.duration_since(self.swept) > WINDOW {
            self.swept = now;
            self.places.retain(|_, turn| now.saturating_duration_since(*turn) < KEPT);
        }
        self.tokens -= 1.0;
        self.places.insert(call, now + wait);
    }

    fn note(&mut self, well: bool, now: Instant) {
        if self.probing {
            self.probing = false;
            self.shut_until = (!well).then(|| now + OPEN);
            if well {
                // The turns of all who wait have passed meanwhile: they queue again, one after the other.
                self.places.clear();
                (self.tokens, self.filled) = (1.0, now);
            }
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
    /// The first of the accounts, each with its rate a second, that may be used now for a call, which is the same whenever it comes again.
    pub fn pick(&self, call: Uuid, accounts: impl Iterator<Item = (Uuid, f64)>, now: Instant) -> Stance {
        let mut gates = held(&self.0);
        let mut soonest: Option<(Uuid, Duration)> = None;
        for (place, (id, rate)) in accounts.enumerate() {
            let rate = rate.max(0.001);
            match gates.entry(id).or_insert_with(|| Gate::new(rate, now)).take(call, rate, now) {
                Ok(()) => return Stance::Go(place),
                Err(wait) if soonest.is_none_or(|(_, before)| wait < before) => soonest = Some((id, wait)),
                Err(_) => {}
            }
        }
        let Some((id, wait)) = soonest else { return Stance::Nobody };
        if let Some(gate) = gates.get_mut(&id) {
            gate.keep(call, wait, now);
        }
        Stance::Wait(wait)
    }

    /// A call by an account begins.
    pub fn calling(&self, id: Uuid) -> Calling<'_> {
        Calling { gates: self, id, answered: false }
    }

    /// A call by an account was answered, well or not.
    fn report(&self, id: Uuid, well: bool, now: Instant) {
        if let Some(gate) = held(&self.0).get_mut(&id) {
            gate.note(well, now);
        }
    }
}

/// A call that is being made. One that is cut off before it is answered did not go well.
#[derive(Debug)]
pub struct Calling<'a> {
    gates: &'a Gates,
    id: Uuid,
    answered: bool,
}

impl Calling<'_> {
    /// It was answered, well or not.
    pub fn answered(mut self, well: bool) {
        self.answered = true;
        self.gates.report(self.id, well, Instant::now());
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.gates.report(self.id, false, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn anyone() -> Uuid {
        Uuid::now_v7()
    }

    #[test]
    fn a_provider_that_is_down_is_left_alone_and_the_second_one_is_used() {
        let (gates, start) = (Gates::default(), Instant::now());
        let both = || [(A, 1000.0), (B, 1000.0)].into_iter();
        for n in 0..10 {
            assert_eq!(gates.pick(anyone(), both(), start), Stance::Go(0), "{n}");
            gates.report(A, n % 2 == 0, start);
        }
        assert_eq!(gates.pick(anyone(), both(), start), Stance::Go(1), "half of ten failed");
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), start), Stance::Wait(OPEN));
        let later = start + OPEN;
        assert_eq!(gates.pick(anyone(), both(), later), Stance::Go(0), "one finds out");
        assert_eq!(gates.pick(anyone(), both(), later), Stance::Go(1), "one alone");
        gates.report(A, false, later);
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), later), Stance::Wait(OPEN));
        assert_eq!(gates.pick(anyone(), both(), later + OPEN), Stance::Go(0));
        gates.report(A, true, later + OPEN);
        assert_eq!(gates.pick(anyone(), both(), later + OPEN), Stance::Go(0), "it is back");
    }

    #[test]
    fn a_call_that_finds_out_and_is_cut_off_leaves_the_account_to_the_next_one() {
        let (gates, start) = (Gates::default(), Instant::now());
        for _ in 0..FEWEST {
            gates.pick(anyone(), [(A, 1000.0)].into_iter(), start);
            drop(gates.calling(A));
        }
        let shut = gates.pick(anyone(), [(A, 1000.0)].into_iter(), start);
        assert!(matches!(shut, Stance::Wait(_)), "what is cut off did not go well: {shut:?}");
        // By then the half minute is over that began a moment after `start`.
        let later = start + OPEN + Duration::from_secs(5);
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), later), Stance::Go(0), "one finds out");
        drop(gates.calling(A));
        let again = later + OPEN;
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), again), Stance::Go(0), "and another one");
        gates.calling(A).answered(true);
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), again), Stance::Go(0), "it is back");
    }

    #[test]
    fn nobody_is_called_more_often_than_they_want() {
        let (gates, start) = (Gates::default(), Instant::now());
        let taken = |at: Duration| {
            let one = anyone();
            let come = || gates.pick(one, [(A, 5.0)].into_iter(), start + at);
            std::iter::repeat_with(come).take(50).filter(|stance| *stance == Stance::Go(0)).count()
        };
        assert_eq!(taken(Duration::ZERO), 5);
        assert_eq!(taken(Duration::from_millis(400)), 1, "the other one is kept for whoever waits");
        assert_eq!(taken(Duration::from_secs(60)), 5, "nobody saves up");
        assert_eq!(gates.pick(anyone(), [].into_iter(), start), Stance::Nobody);
    }

    /// Of many at once each comes twice: once to be told when, and once when it is their turn.
    #[test]
    fn whoever_waits_has_a_place_and_comes_in_vain_but_once() {
        let (gates, start) = (Gates::default(), Instant::now());
        let come = |call, at: Duration| gates.pick(call, [(A, 1.0)].into_iter(), start + at);
        let all: Vec<Uuid> = (0..1000).map(|_| anyone()).collect();
        let told: Vec<Stance> = all.iter().map(|call| come(*call, Duration::ZERO)).collect();
        assert_eq!(told[0], Stance::Go(0));
        for (n, (call, told)) in all.iter().zip(&told).enumerate().skip(1) {
            let Stance::Wait(wait) = *told else { panic!("{n}: {told:?}") };
            assert!((wait.as_secs_f64() - n as f64).abs() < 0.001, "{n}: {wait:?}");
            assert_eq!(come(*call, wait), Stance::Go(0), "{n}");
        }
        let late = come(anyone(), Duration::from_secs(999));
        assert!(matches!(late, Stance::Wait(_)), "nobody is let in out of turn: {late:?}");
        let soon = come(all[0], Duration::from_secs(999));
        assert!(matches!(soon, Stance::Wait(wait) if wait > Duration::from_secs(1)), "one after the other: {soon:?}");
    }

    #[test]
    fn who_waited_while_a_provider_was_down_does_not_come_all_at_once() {
        let (gates, start) = (Gates::default(), Instant::now());
        let come = |call, at: u64| gates.pick(call, [(A, 1.0)].into_iter(), start + Duration::from_secs(at));
        let all: Vec<Uuid> = (0..100).map(|_| anyone()).collect();
        assert_eq!(all.iter().filter(|call| come(**call, 0) == Stance::Go(0)).count(), 1, "the others have places");
        for _ in 0..FEWEST {
            gates.report(A, false, start + Duration::from_secs(1));
        }
        assert!(matches!(come(all[1], 2), Stance::Wait(_)), "it is shut");
        assert_eq!(come(anyone(), 200), Stance::Go(0), "one finds out");
        gates.report(A, true, start + Duration::from_secs(200));
        let let_in = |at| all[1..].iter().filter(|call| come(**call, at) == Stance::Go(0)).count();
        assert_eq!((let_in(200), let_in(201), let_in(211)), (1, 1, 10));
    }

    #[test]
    fn a_few_failures_say_nothing_and_old_ones_are_forgotten() {
        let (gates, start) = (Gates::default(), Instant::now());
        for n in 0..9 {
            gates.pick(anyone(), [(A, 1000.0)].into_iter(), start);
            gates.report(A, false, start + Duration::from_secs(n));
        }
        let later = start + WINDOW + Duration::from_secs(1);
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), later), Stance::Go(0));
        gates.report(A, false, later);
        assert_eq!(gates.pick(anyone(), [(A, 1000.0)].into_iter(), later), Stance::Go(0));
    }
}
