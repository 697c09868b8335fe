//! How long a render will still take: what half of all renders like it would need, and what nine in ten would. Pure.
//!
//! ```text
//! node 1  ███████████░░░░░│ chunk 4 ░░░░░░░░░│         frames that are left × the pace of their template, which gives way to the
//! node 2  █████░░░░░░░░░░░░░░│ chunk 5 ░░░░░░░░░│      pace of the attempt itself; then joining and checking
//! ```
//! Frames of one film are slow or fast together, so the ninth tenth is that of the pace. What waits is given to the nodes that work on
//! the film now: how many more will come, nobody knows.

use chrono::{DateTime, Utc};
use flatrender_workflows::models::render::{live_task::LiveTask, render_job::RenderJob};
use std::collections::BTreeMap;

/// Below this share of the whole the pace so far says nothing yet.
const TELLING: f64 = 0.01;
/// The 90 % and the 99 % point of the normal distribution: a pace is taken for a lognormal one.
const Z90: f64 = 1.2816;
const Z99: f64 = 2.3263;
/// Spread of a pace of which there is no history.
const SPREAD: f64 = 0.3;
/// The history of a template counts as much as so many frames of the attempt itself.
const PRIOR_FRAMES: f64 = 10.0;
/// Joining, checking and publishing: once, and for each frame.
const FINISH_SECONDS: f64 = 2.0;
const FINISH_FRAME_SECONDS: f64 = 0.004;

/// Seconds that are left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eta {
    /// As likely less as more.
    pub p50: f64,
    /// Nine times in ten less.
    pub p90: f64,
}

/// What is left at `now` of a render that has come as far as `progress`; none when nothing can be said.
pub fn eta(job: &RenderJob, live: &[LiveTask], progress: f64, now: DateTime<Utc>) -> Option<Eta> {
    if job.has_ended() {
        return None;
    }
    let left = by_frames(job, live, now).or_else(|| by_progress(job, progress, now))?;
    let tenths = |seconds: f64| (seconds * 10.0).round() / 10.0;
    Some(Eta { p50: tenths(left.p50), p90: tenths(left.p90) })
}

/// The live chunks of a film: of two attempts at one, the one that has come further.
pub fn chunks(live: &[LiveTask]) -> impl Iterator<Item = &LiveTask> {
    let mut furthest: BTreeMap<Option<i32>, &LiveTask> = BTreeMap::new();
    let mut unnumbered = Vec::new();
    for task in live.iter().filter(|task| task.activity == "RenderFrames") {
        match task.first_frame {
            None => unnumbered.push(task),
            first => {
                let known = furthest.entry(first).or_insert(task);
                if (task.leased, task.done) > (known.leased, known.done) {
                    *known = task;
                }
            }
        }
    }
    furthest.into_values().chain(unnumbered)
}

/// From the pace of the template and of the attempts under way; none when one of them is unknown or nobody works on it.
fn by_frames(job: &RenderJob, live: &[LiveTask], now: DateTime<Utc>) -> Option<Eta> {
    let chunks: Vec<&LiveTask> = chunks(live).collect();
    let (running, waiting): (Vec<&LiveTask>, Vec<&LiveTask>) = chunks.into_iter().partition(|task| task.leased);
    if running.is_empty() {
        return None;
    }
    let finish = FINISH_SECONDS + FINISH_FRAME_SECONDS * f64::from(job.frame_count);
    let at = |of: fn(Pace) -> f64| {
        let mut lanes: Vec<f64> = running.iter().map(|task| left(task, of, now)).collect::<Option<_>>()?;
        for task in &waiting {
            let first_free = lanes.iter_mut().min_by(|a, b| a.total_cmp(b))?;
            *first_free += left(task, of, now)?;
        }
        Some(lanes.into_iter().fold(0.0, f64::max) + finish)
    };
    Some(Eta { p50: at(|pace| pace.p50)?, p90: at(|pace| pace.p90)? })
}

/// Seconds a frame.
#[derive(Debug, Clone, Copy)]
struct Pace {
    p50: f64,
    p90: f64,
}

/// Seconds until a chunk is rendered.
fn left(task: &LiveTask, of: fn(Pace) -> f64, now: DateTime<Utc>) -> Option<f64> {
    let (p50, p99) = (task.p50_ms? as f64 / 1000.0, task.p99_ms? as f64 / 1000.0);
    let p90 = p50 * (p99.max(p50) / p50.max(1e-3)).powf(Z90 / Z99);
    let (frames, done) = (f64::from(task.asked?), task.done.max(0) as f64);
    let spent = task.leased_at.map_or(0.0, |at| (now - at).as_seconds_f64().max(0.0));
    let pace = (PRIOR_FRAMES * of(Pace { p50, p90 }) + spent) / (PRIOR_FRAMES + done);
    Some((frames - done).max(0.0) * pace)
}

/// From the pace since work began.
fn by_progress(job: &RenderJob, progress: f64, now: DateTime<Utc>) -> Option<Eta> {
    let spent = (now - job.started_at?).as_seconds_f64().max(0.0);
    let p50 = (progress > TELLING).then(|| spent * (1.0 - progress) / progress)?;
    Some(Eta { p50, p90: p50 * (Z90 * SPREAD).exp() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::pace::tests::{job, task};
    use chrono::TimeDelta;

    /// A chunk of a hundred frames of a tenth of a second each.
    fn chunk(first: i32, done: i64, began: Option<DateTime<Utc>>) -> LiveTask {
        LiveTask {
            leased: began.is_some(),
            leased_at: began,
            first_frame: Some(first),
            asked: Some(100),
            p50_ms: Some(100),
            p99_ms: Some(200),
            ..task("RenderFrames", None, done, 100)
        }
    }

    fn of(live: &[LiveTask], now: DateTime<Utc>) -> Eta {
        eta(&job("rendering", 0), live, 0.0, now).unwrap()
    }

    /// Joining and checking 300 frames.
    const FINISH: f64 = 3.2;

    #[test]
    fn a_chunk_takes_what_its_template_took_before() {
        let now = Utc::now();
        let Eta { p50, p90 } = of(&[chunk(0, 0, Some(now))], now);
        assert_eq!(p50, 10.0 + FINISH);
        assert!(
            (p90 - (14.65 + FINISH)).abs() < 0.1,
            "{p90}: the 90 % point of a lognormal whose 99 % point is twice its median"
        );
    }

    #[test]
    fn what_waits_goes_to_the_nodes_that_are_at_work() {
        let now = Utc::now();
        let (one, two) = (chunk(0, 0, Some(now)), chunk(100, 0, Some(now)));
        assert_eq!(of(&[one.clone(), chunk(100, 0, None), chunk(200, 0, None)], now).p50, 30.0 + FINISH);
        assert_eq!(of(&[one, two, chunk(200, 0, None)], now).p50, 20.0 + FINISH);
        assert_eq!(eta(&job("rendering", 0), &[chunk(0, 0, None)], 0.0, now), None, "nobody is at work");
    }

    #[test]
    fn an_attempt_that_is_slower_than_others_were_is_believed() {
        let now = Utc::now();
        let Eta { p50, p90 } = of(&[chunk(0, 50, Some(now - TimeDelta::seconds(50)))], now);
        assert!(
            (38.0..46.0).contains(&(p50 - FINISH)),
            "{p50}: 50 frames of a second each, less what is still hoped for"
        );
        assert!(p90 < 1.1 * p50, "{p90}: its own pace is known");
    }

    #[test]
    fn of_two_attempts_at_a_chunk_the_one_that_has_come_further_counts() {
        let now = Utc::now();
        let late = chunk(0, 90, Some(now - TimeDelta::seconds(9)));
        let both = [late.clone(), chunk(0, 5, Some(now))];
        assert_eq!(of(&both, now), of(&[late], now));
        assert_eq!(chunks(&both).count(), 1);
    }

    #[test]
    fn without_history_the_pace_so_far_tells() {
        let mut job = job("rendering", 150);
        job.started_at = Some(Utc::now() - TimeDelta::seconds(8));
        let unknown = LiveTask { p50_ms: None, ..chunk(0, 0, Some(Utc::now())) };
        let Eta { p50, p90 } = eta(&job, &[unknown], 0.4, Utc::now()).unwrap();
        assert!((p50 - 12.0).abs() < 0.2 && (p90 / p50 - 1.47).abs() < 0.05, "{p50} {p90}");
        assert_eq!(eta(&job, &[], 0.0, Utc::now()), None);
    }

    /// A thousand films whose pace is drawn from their template's: each is asked once, at some moment of its rendering.
    #[test]
    fn half_of_all_films_keep_the_median_and_nine_in_ten_the_bound() {
        let now = Utc::now();
        let spread = 2.0_f64.ln() / Z99;
        let (mut half, mut most) = (0, 0);
        for n in 0..1000 {
            let even = (f64::from(n) + 0.5) / 1000.0;
            // The logistic curve is near enough to the normal one.
            let pace = 0.1 * (spread * (even / (1.0 - even)).ln() / 1.702).exp();
            let done = f64::from(n * 7 % 10);
            let Eta { p50, p90 } =
                of(&[chunk(0, done as i64, Some(now - TimeDelta::milliseconds((done * pace * 1000.0) as i64)))], now);
            let took = (100.0 - done) * pace + FINISH;
            half += i32::from(took <= p50);
            most += i32::from(took <= p90);
        }
        assert!((450..=550).contains(&half), "{half}");
        assert!((860..=960).contains(&most), "{most}");
    }
}
