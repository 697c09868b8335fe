//! Hours in which somebody wants to be left alone.

use chrono::{DateTime, Days, NaiveDateTime, NaiveTime, TimeDelta, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;

/// Hours of rest, by the clock on somebody's wall. They may cross midnight; their end is not part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// When they begin.
    pub start: NaiveTime,
    /// When they end.
    pub end: NaiveTime,
    /// Whose wall.
    pub zone: Tz,
}

impl Quiet {
    /// When the hours end that `now` is within; none when it is in none.
    pub fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let wall = now.with_timezone(&self.zone).naive_local();
        let (time, today) = (wall.time(), wall.date());
        let ends = if self.start < self.end {
            (self.start <= time && time < self.end).then(|| today.and_time(self.end))
        } else if time >= self.start {
            today.checked_add_days(Days::new(1)).map(|tomorrow| tomorrow.and_time(self.end))
        } else {
            (time < self.end).then(|| today.and_time(self.end))
        };
        // When the clock is put back into the hours at their end, they are over already.
        ends.map(|ends| instant(self.zone, ends)).filter(|ends| *ends > now)
    }
}

/// When a wall shows this: the first time when it does so twice; the next time there is when it never does.
fn instant(zone: Tz, wall: NaiveDateTime) -> DateTime<Utc> {
    // No clock is put forward by more than a day.
    (0..=96)
        .find_map(|quarters| zone.from_local_datetime(&(wall + TimeDelta::minutes(15 * quarters))).earliest())
        .map_or_else(|| wall.and_utc(), |found| found.to_utc())
}

/// The next full hour, on that wall.
pub fn next_hour(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let wall = now.with_timezone(&zone).naive_local();
    let hour = wall.date().and_hms_opt(wall.hour(), 0, 0).unwrap_or(wall) + TimeDelta::hours(1);
    let due = instant(zone, hour);
    if due > now { due } else { now + TimeDelta::hours(1) }
}

/// The next eight o'clock, on that wall.
pub fn next_morning(now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
    let today = now.with_timezone(&zone).date_naive();
    let morning = |days| Some(instant(zone, today.checked_add_days(Days::new(days))?.and_hms_opt(8, 0, 0)?));
    (0..3).filter_map(morning).find(|due| *due > now).unwrap_or(now + TimeDelta::days(1))
}

/// A zone by its IANA name; UTC when there is none of that name.
pub fn zone(name: &str) -> Tz {
    name.parse().unwrap_or(Tz::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quiet(start: &str, end: &str, zone: &str) -> Quiet {
        Quiet { start: start.parse().unwrap(), end: end.parse().unwrap(), zone: zone.parse().unwrap() }
    }

    fn until(quiet: Quiet, now: &str) -> Option<String> {
        quiet.until(now.parse().unwrap()).map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    }

    #[test]
    fn a_night_crosses_midnight_and_its_end_is_awake() {
        let tehran = quiet("22:00:00", "07:30:00", "Asia/Tehran"); // UTC+3:30
        assert_eq!(until(tehran, "2026-11-26T18:29:59Z"), None);
        assert_eq!(until(tehran, "2026-11-26T18:30:00Z").as_deref(), Some("2026-11-27T04:00:00Z"));
        assert_eq!(until(tehran, "2026-11-27T03:59:59Z").as_deref(), Some("2026-11-27T04:00:00Z"));
        assert_eq!(until(tehran, "2026-11-27T04:00:00Z"), None);
        let noon = quiet("12:00:00", "13:00:00", "UTC");
        assert_eq!(until(noon, "2026-11-27T12:30:00Z").as_deref(), Some("2026-11-27T13:00:00Z"));
    }

    #[test]
    fn hours_that_a_change_of_clocks_skips_or_repeats_end_when_they_can() {
        // Berlin, 2026-03-29: 02:00 is 03:00. 2026-10-25: 03:00 is 02:00.
        assert_eq!(
            until(quiet("22:00:00", "02:30:00", "Europe/Berlin"), "2026-03-29T00:30:00Z").as_deref(),
            Some("2026-03-29T01:00:00Z")
        );
        let autumn = quiet("22:00:00", "02:30:00", "Europe/Berlin");
        assert_eq!(until(autumn, "2026-10-25T00:10:00Z").as_deref(), Some("2026-10-25T00:30:00Z"));
        assert_eq!(until(autumn, "2026-10-25T01:10:00Z"), None, "the hour that comes again is no rest any more");
    }

    #[test]
    fn digests_come_at_the_hour_and_in_the_morning_of_the_reader() {
        let now: DateTime<Utc> = "2026-11-26T18:40:00Z".parse().unwrap();
        assert_eq!(next_hour(now, zone("Asia/Tehran")).to_rfc3339(), "2026-11-26T19:30:00+00:00");
        assert_eq!(next_morning(now, zone("Asia/Tehran")).to_rfc3339(), "2026-11-27T04:30:00+00:00");
        assert_eq!(zone("Atlantis/Poseidonis"), Tz::UTC);
    }

    proptest! {
        #[test]
        fn waiting_is_over_after_a_day_and_an_hour_at_most(start in 0u32..86_400, end in 0u32..86_400, at in 1_700_000_000i64..1_900_000_000, zone in 0usize..chrono_tz::TZ_VARIANTS.len()) {
            prop_assume!(start != end);
            let of = |seconds| NaiveTime::from_num_seconds_from_midnight_opt(seconds, 0).unwrap();
            let quiet = Quiet { start: of(start), end: of(end), zone: chrono_tz::TZ_VARIANTS[zone] };
            let now = DateTime::from_timestamp(at, 0).unwrap();
            if let Some(due) = quiet.until(now) {
                prop_assert!(due > now && due - now <= TimeDelta::hours(26));
            }
            prop_assert!(next_hour(now, quiet.zone) > now && next_morning(now, quiet.zone) > now);
        }
    }
}
