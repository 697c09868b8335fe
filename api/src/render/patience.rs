//! How long work on pictures may take, as the environment of the server says: what is ordered from then on is given so long.

use flatrender_workflows::definitions::limit::Limits;
use std::{env, ops::RangeInclusive, time::Duration};

/// Hours that can be set; whoever waits for longer than a month has been forgotten.
const HOURS: RangeInclusive<u64> = 1..=720;

/// A limit that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is {1:?}: say how many hours, 1 to 720")]
pub struct BadLimit(&'static str, String);

/// The limits in `FLATRENDER_FILM_HOURS`, `FLATRENDER_PREVIEW_HOURS` and `FLATRENDER_STILL_HOURS`; the usual one where nothing is said.
///
/// # Errors
/// [`BadLimit`]; nothing is to start.
pub fn from_env() -> Result<Limits, BadLimit> {
    read(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
}

fn read(said: impl Fn(&'static str) -> Option<String>) -> Result<Limits, BadLimit> {
    let limit = |name, usual| -> Result<Duration, BadLimit> {
        let Some(text) = said(name).filter(|text| !text.is_empty()) else { return Ok(usual) };
        let hours = text.trim().parse::<u64>().ok().filter(|hours| HOURS.contains(hours));
        let hours = hours.ok_or_else(|| BadLimit(name, text.chars().take(40).collect()))?;
        Ok(Duration::from_secs(hours * 3600))
    };
    let usual = Limits::default();
    Ok(Limits {
        film: limit("FLATRENDER_FILM_HOURS", usual.film)?,
        preview: limit("FLATRENDER_PREVIEW_HOURS", usual.preview)?,
        still: limit("FLATRENDER_STILL_HOURS", usual.still)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_that_rests_at_weekends_says_how_many_hours_it_takes_its_time() {
        let set = |film: &'static str| read(move |name| (name == "FLATRENDER_FILM_HOURS").then(|| film.to_owned()));
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(set("96"), Ok(Limits { film: hours(96), ..Limits::default() }));
        assert_eq!(set(""), Ok(Limits::default()));
        for bad in ["0", "721", "-1", "1.5", "a day"] {
            let told = set(bad).unwrap_err().to_string();
            assert_eq!(told, format!("FLATRENDER_FILM_HOURS is {bad:?}: say how many hours, 1 to 720"));
        }
    }
}
