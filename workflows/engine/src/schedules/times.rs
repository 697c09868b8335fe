//! Which times a cron expression names, and which of those that have passed still start a run. Pure.

use super::{CatchUp, ScheduleError};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use std::time::Duration;

/// A time this old was missed.
const LATE: chrono::Duration = chrono::Duration::seconds(60);
/// Runs started in one transaction; the rest follow in the next.
const STARTS: usize = 500;
/// Missed times that are counted; a longer gap is noted as this many.
const COUNTED: usize = 20_000;
/// The newest missed times that get a row of their own.
const NOTED: usize = 100;

/// A cron expression in a time zone.
#[derive(Debug)]
pub(super) struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl Timetable {
    pub(super) fn read(cron: &str, time_zone: &str) -> Result<Self, ScheduleError> {
        let zone = time_zone.parse().map_err(|_| ScheduleError::BadTimeZone(time_zone.to_owned()))?;
        let bad = |why: String| ScheduleError::BadCron { cron: cron.to_owned(), why };
        if cron.len() > 200 {
            return Err(bad("it is longer than 200 bytes".to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(cron).map_err(|e| bad(e.to_string()))?;
        Ok(Self { cron, zone })
    }

    /// The first time after `moment`; none when there is none for many years.
    pub(super) fn after(&self, moment: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let found = self.cron.find_next_occurrence(&moment.with_timezone(&self.zone), false).ok()?;
        // A search that does not go forward would never end.
        Some(found.with_timezone(&Utc)).filter(|next| *next > moment)
    }

    /// All times after `moment`.
    pub(super) fn from(&self, moment: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> {
        std::iter::successors(self.after(moment), |last| self.after(*last))
    }
}

/// What is to be done about the times of a timetable in `(since, now]`.
#[derive(Debug, PartialEq)]
pub(super) struct Due {
    /// Start these, oldest first.
    pub fire: Vec<DateTime<Utc>>,
    /// Too late for these, the newest of all that are.
    pub missed: Vec<DateTime<Utc>>,
    /// How many are too late.
    pub missed_count: i64,
    /// Everything up to here is dealt with: `now`, unless there is too much for one transaction.
    pub until: DateTime<Utc>,
}

impl Due {
    pub(super) fn nothing(until: DateTime<Utc>) -> Self {
        Self { fire: Vec::new(), missed: Vec::new(), missed_count: 0, until }
    }

    pub(super) fn find(
        timetable: &Timetable,
        catch_up: CatchUp,
        window: Duration,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Self {
        let reach = match catch_up {
            CatchUp::Skip => LATE,
            CatchUp::One | CatchUp::All => chrono::Duration::from_std(window).unwrap_or(LATE).max(LATE),
        };
        let horizon = since.max(now - reach);
        let passed = |at: &DateTime<Utc>| *at <= now;
        let mut missed: Vec<_> = timetable.from(since).take_while(|at| *at <= horizon).take(COUNTED).collect();
        let mut fire: Vec<_> = match catch_up {
            CatchUp::All => timetable.from(horizon).take_while(passed).take(STARTS + 1).collect(),
            CatchUp::Skip | CatchUp::One => timetable.from(horizon).take_while(passed).take(COUNTED).collect(),
        };
        let mut until = now;
        match catch_up {
            CatchUp::All if fire.len() > STARTS => {
                fire.truncate(STARTS);
                until = fire.last().copied().unwrap_or(now);
            }
            CatchUp::One if missed.first().or(fire.first()).is_some_and(|first| *first <= now - LATE) => {
                let newest = fire.pop();
                missed.append(&mut fire);
                fire.extend(newest);
            }
            _ => {}
        }
        let missed_count = missed.len() as i64;
        let missed = missed.split_off(missed.len().saturating_sub(NOTED));
        Self { fire, missed, missed_count, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn times(cron: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
        let table = Timetable::read(cron, zone).unwrap();
        table.from(at(from)).take_while(|t| *t <= at(to)).map(|t| t.format("%dT%H:%M").to_string()).collect()
    }

    #[test]
    fn a_local_time_that_is_skipped_fires_right_after_the_gap() {
        // Berlin, 2027-03-28: 02:00 becomes 03:00, which is 01:00 UTC.
        let found = times("30 2 * * *", "Europe/Berlin", "2027-03-27T00:00:00Z", "2027-03-29T12:00:00Z");
        assert_eq!(found, ["27T01:30", "28T01:00", "29T00:30"]);
    }

    #[test]
    fn a_local_time_that_comes_twice_fires_once() {
        // Berlin, 2026-10-25: 03:00 becomes 02:00; 02:30 is 00:30 UTC first.
        let found = times("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(found, ["24T00:30", "25T00:30", "26T01:30"]);
    }

    #[test]
    fn a_time_before_the_gap_does_not_fire_again_after_it() {
        let found = times("0 0 * * *", "Europe/London", "2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z");
        assert_eq!(found, ["28T00:00"]);
    }

    #[test]
    fn an_hourly_pattern_fires_every_real_hour() {
        for (from, to) in
            [("2027-03-27T23:30:00Z", "2027-03-28T05:30:00Z"), ("2026-10-24T22:30:00Z", "2026-10-25T04:30:00Z")]
        {
            assert_eq!(times("0 * * * *", "Europe/Berlin", from, to).len(), 6, "{from}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for cron in ["", "61 * * * *", "* * *", "every day", "* * * * * * * *"] {
            assert!(matches!(Timetable::read(cron, "UTC"), Err(ScheduleError::BadCron { .. })), "{cron}");
        }
        assert!(matches!(Timetable::read("* * * * *", "Mars/Olympus"), Err(ScheduleError::BadTimeZone(_))));
        assert_eq!(Timetable::read("0 0 30 2 *", "UTC").unwrap().after(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn a_long_gap_of_a_busy_schedule_is_decided_in_parts_and_completely() {
        let table = Timetable::read("* * * * *", "UTC").unwrap();
        let (mut since, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let mut fired = 0;
        while since < now {
            let due = Due::find(&table, CatchUp::All, Duration::from_secs(86_400 * 2), since, now);
            assert!(due.fire.len() <= STARTS && due.missed.is_empty());
            fired += due.fire.len();
            since = due.until;
        }
        assert_eq!(fired, 1440);
    }

    proptest! {
        #[test]
        fn any_string_is_read_or_refused(cron in ".{0,40}", zone in "[A-Za-z/_]{0,20}") {
            let _ = Timetable::read(&cron, &zone);
        }

        #[test]
        fn however_often_one_looks_every_time_fires_once(
            looks in proptest::collection::btree_set(1i64..2880, 1..20),
            zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("Asia/Tehran"), Just("America/New_York")],
            cron in prop_oneof![Just("30 2 * * *"), Just("*/20 * * * *"), Just("0 1-3 * * *")],
            day in prop_oneof![Just("2027-03-27T00:00:00Z"), Just("2026-10-24T12:00:00Z"), Just("2027-03-14T00:00:00Z")],
        ) {
            let table = Timetable::read(cron, zone).unwrap();
            let start = at(day);
            let end = start + chrono::Duration::minutes(2880);
            let whole: Vec<_> = table.from(start).take_while(|t| *t <= end).collect();
            let (mut since, mut fired) = (start, Vec::new());
            for look in looks.into_iter().map(|m| start + chrono::Duration::minutes(m)).chain([end]) {
                let due = Due::find(&table, CatchUp::All, Duration::from_secs(86_400 * 3), since, look);
                fired.extend(due.fire);
                since = due.until;
            }
            prop_assert_eq!(fired, whole);
        }
    }
}
