//! When a node sleeps: days and hours in the time zone of whoever owns the machine.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeZone, Utc, Weekday};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stretch of the day on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// Days on which it falls asleep: `mon` to `sun`.
    #[schema(value_type = Vec<String>, example = json!(["mon", "tue", "wed", "thu", "fri"]), min_items = 1, pattern = "^[A-Za-z]{3,9}$")]
    pub days: Vec<Weekday>,
    /// When it falls asleep, `HH:MM`.
    #[serde(with = "hours")]
    #[schema(value_type = String, example = "09:00", pattern = r"^\s*[0-9]{1,2}:\s*[0-9]{1,2}$")]
    pub from: NaiveTime,
    /// When it wakes, `HH:MM`; not after `from`: on the next day.
    #[serde(with = "hours")]
    #[schema(value_type = String, example = "18:00", pattern = r"^\s*[0-9]{1,2}:\s*[0-9]{1,2}$")]
    pub to: NaiveTime,
    /// IANA time zone of these hours.
    #[serde(with = "zone")]
    #[schema(value_type = String, example = "Europe/Berlin", pattern = "^[A-Za-z0-9_+/-]+$")]
    pub tz: Tz,
    /// Gives back what it renders when it falls asleep; else it finishes that.
    #[serde(default)]
    pub at_once: bool,
}

impl Sleep {
    /// Until when it sleeps; none when it is awake.
    pub fn asleep_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let today = now.with_timezone(&self.tz).date_naive();
        // A stretch over midnight began yesterday.
        let begun = [today.checked_sub_days(Days::new(1)), Some(today)];
        begun
            .into_iter()
            .flatten()
            .find_map(|day| self.stretch(day).filter(|(from, to)| (*from..*to).contains(&now)))
            .map(|s| s.1)
    }

    /// From when to when it sleeps, if it falls asleep on `day`.
    fn stretch(&self, day: NaiveDate) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let woken = if self.to <= self.from { day.checked_add_days(Days::new(1))? } else { day };
        self.days.contains(&day.weekday()).then_some((self.at(day, self.from)?, self.at(woken, self.to)?))
    }

    /// An hour of the clock as an instant: the first of two that are the same, and where the clock jumps over it, when it has.
    fn at(&self, day: NaiveDate, time: NaiveTime) -> Option<DateTime<Utc>> {
        let wall = day.and_time(time);
        let later = || self.tz.from_local_datetime(&(wall + chrono::TimeDelta::hours(1))).earliest();
        let at = self.tz.from_local_datetime(&wall).earliest().or_else(later)?;
        Some(at.with_timezone(&Utc))
    }
}

/// `HH:MM`.
mod hours {
    use chrono::NaiveTime;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &NaiveTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&time.format("%H:%M"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NaiveTime, D::Error> {
        let text = String::deserialize(from)?;
        NaiveTime::parse_from_str(&text, "%H:%M").map_err(|_| D::Error::custom("a time of day is HH:MM"))
    }
}

/// Name of a time zone.
mod zone {
    use chrono_tz::Tz;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(zone: &Tz, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(zone.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Tz, D::Error> {
        String::deserialize(from)?.parse().map_err(|_| D::Error::custom("not an IANA time zone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sleep(days: &[&str], from: &str, to: &str, tz: &str) -> Sleep {
        serde_json::from_value(json!({"days": days, "from": from, "to": to, "tz": tz})).unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_node_sleeps_by_the_clock_of_its_zone() {
        let office = sleep(&["mon", "tue"], "09:00", "18:00", "Asia/Tehran");
        // Monday; Tehran is three and a half hours ahead.
        assert_eq!(office.asleep_at(at("2026-03-02T05:29:00Z")), None);
        assert_eq!(office.asleep_at(at("2026-03-02T05:30:00Z")), Some(at("2026-03-02T14:30:00Z")));
        assert_eq!(office.asleep_at(at("2026-03-02T14:30:00Z")), None);
        assert_eq!(office.asleep_at(at("2026-03-04T06:00:00Z")), None, "a Wednesday");
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins() {
        let night = sleep(&["fri"], "22:00", "06:00", "UTC");
        assert_eq!(night.asleep_at(at("2026-03-06T23:00:00Z")), Some(at("2026-03-07T06:00:00Z")));
        assert_eq!(night.asleep_at(at("2026-03-07T05:59:00Z")), Some(at("2026-03-07T06:00:00Z")));
        assert_eq!(night.asleep_at(at("2026-03-07T23:00:00Z")), None);
        let whole_day = sleep(&["sat"], "00:00", "00:00", "UTC");
        assert_eq!(whole_day.asleep_at(at("2026-03-07T12:00:00Z")), Some(at("2026-03-08T00:00:00Z")));
    }

    #[test]
    fn an_hour_that_the_clock_jumps_over_is_the_next() {
        // Berlin goes from 02:00 to 03:00 on 29 March 2026.
        let early = sleep(&["sun"], "02:30", "05:00", "Europe/Berlin");
        assert_eq!(early.asleep_at(at("2026-03-29T01:29:00Z")), None);
        assert_eq!(early.asleep_at(at("2026-03-29T01:30:00Z")), Some(at("2026-03-29T03:00:00Z")));
    }

    #[test]
    fn a_schedule_that_makes_no_sense_is_refused() {
        let refused = |json: serde_json::Value| serde_json::from_value::<Sleep>(json).is_err();
        assert!(refused(json!({"days": ["day"], "from": "09:00", "to": "18:00", "tz": "UTC"})));
        assert!(refused(json!({"days": ["mon"], "from": "25:00", "to": "18:00", "tz": "UTC"})));
        assert!(refused(json!({"days": ["mon"], "from": "09:00", "to": "18:00", "tz": "Mars/Base"})));
    }
}
