//! What `ps` prints, on systems that tell it no other way. Source: ps(1) of macOS.

use std::time::Duration;

/// Processor time of all processes of a group, by lines of `ps -ax -o pgid= -o time=`.
pub fn time_of_group(lines: &str, group: u32) -> Duration {
    let of_group = |line: &str| {
        let mut words = line.split_whitespace();
        let is_of_it = words.next()?.parse::<u32>() == Ok(group);
        time(words.next()?).filter(|_| is_of_it)
    };
    lines.lines().filter_map(of_group).sum()
}

/// `[[DAYS-]HOURS:]MINUTES:SECONDS[.HUNDREDTHS]`; hours may be minutes above 60.
fn time(text: &str) -> Option<Duration> {
    let (days, rest) = text.split_once('-').unwrap_or(("0", text));
    let days: f64 = days.parse().ok()?;
    let seconds = rest.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))?;
    Duration::try_from_secs_f64(days * 86_400.0 + seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_group_is_that_of_all_its_processes() {
        let lines = "    1   5:12.34\n  420   0:01.25\n 4200   9:00.00\n  420   2:00.50\n  420  nonsense\n\n";
        assert_eq!(time_of_group(lines, 420), Duration::from_millis(121_750));
        assert_eq!(time_of_group(lines, 42), Duration::ZERO);
    }

    #[test]
    fn times_are_read_however_long_they_are() {
        let seconds = |text: &str| time(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("0:00.05"), Some(0.05));
        assert_eq!(seconds("123:45.50"), Some(7425.5));
        assert_eq!(seconds("1:02:03"), Some(3723.0));
        assert_eq!(seconds("2-01:00:00"), Some(176_400.0));
        assert_eq!((seconds("0:00,05"), seconds("-"), seconds(""), seconds("-1:00")), (None, None, None, None));
    }
}
