//! What is measured of a simulated farm, and what can be said of many runs of it.

use super::{
    workload::{Job, Parameters},
    yard::Task,
};
use crate::{Class, Item, Running};
use std::collections::HashMap;
use uuid::Uuid;

/// Fairness is looked at in stretches of so many seconds.
pub const WINDOW: f64 = 1800.0;

/// Something that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Seconds until a node begins with a snapshot.
    SnapshotP50,
    /// The same.
    SnapshotP95,
    /// The same.
    SnapshotP99,
    /// Seconds until a snapshot is there.
    SnapshotDoneP95,
    /// Seconds until a node begins with a chunk of a preview.
    PreviewP50,
    /// The same.
    PreviewP95,
    /// The same.
    PreviewP99,
    /// Seconds until a node begins with a chunk of a film.
    FilmP50,
    /// The same.
    FilmP95,
    /// The same.
    FilmP99,
    /// Seconds until a film that is part of no campaign is there.
    FilmDoneP50,
    /// The same.
    FilmDoneP95,
    /// Mean of the time that something took over the time it takes on an empty farm.
    Slowdown,
    /// Jain's index of the slot-seconds that tenants had for films, in stretches of half an hour in which all of them had films
    /// waiting all the time.
    Jain,
    /// Share of visits whose package was there.
    CacheHits,
    /// Starts of renderers for each task.
    ColdStarts,
    /// Share of the slots that were in use while work came.
    Utilisation,
    /// Slot-seconds of attempts that came to nothing.
    Wasted,
    /// Mean seconds until all of a campaign is there.
    Makespan,
    /// The longest that anything waited, in seconds.
    MaxWait,
}

impl Metric {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 20] = [
        Self::SnapshotP50,
        Self::SnapshotP95,
        Self::SnapshotP99,
        Self::SnapshotDoneP95,
        Self::PreviewP50,
        Self::PreviewP95,
        Self::PreviewP99,
        Self::FilmP50,
        Self::FilmP95,
        Self::FilmP99,
        Self::FilmDoneP50,
        Self::FilmDoneP95,
        Self::Slowdown,
        Self::Jain,
        Self::CacheHits,
        Self::ColdStarts,
        Self::Utilisation,
        Self::Wasted,
        Self::Makespan,
        Self::MaxWait,
    ];

    /// As it stands in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::SnapshotP50 => "snapshot wait p50 s",
            Self::SnapshotP95 => "snapshot wait p95 s",
            Self::SnapshotP99 => "snapshot wait p99 s",
            Self::SnapshotDoneP95 => "snapshot there p95 s",
            Self::PreviewP50 => "preview wait p50 s",
            Self::PreviewP95 => "preview wait p95 s",
            Self::PreviewP99 => "preview wait p99 s",
            Self::FilmP50 => "chunk wait p50 s",
            Self::FilmP95 => "chunk wait p95 s",
            Self::FilmP99 => "chunk wait p99 s",
            Self::FilmDoneP50 => "film there p50 s",
            Self::FilmDoneP95 => "film there p95 s",
            Self::Slowdown => "slowdown",
            Self::Jain => "Jain's index",
            Self::CacheHits => "cache hits",
            Self::ColdStarts => "cold starts a task",
            Self::Utilisation => "utilisation",
            Self::Wasted => "wasted slot-s",
            Self::Makespan => "campaign s",
            Self::MaxWait => "longest wait s",
        }
    }
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Each metric; NaN where there was nothing to measure.
    pub values: HashMap<Metric, f64>,
    /// Waits of all tasks, the shortest first.
    pub waits: Vec<f64>,
    /// Frames that were rendered for good.
    pub frames: u64,
    /// Tasks that ended well although they had before.
    pub twice: u64,
    /// Moments in which a node had nothing to do while something waited, under a policy that keeps no reserve.
    pub idle_with_work: u64,
    /// Slot-seconds of attempts that ended well or not.
    pub busy: f64,
}

/// Looks on.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pub frames: u64,
    pub twice: u64,
    pub idle_with_work: u64,
    pub done: Vec<(usize, f64)>,
    busy: f64,
    busy_while_work_comes: Vec<(f64, f64)>,
    wasted: f64,
    visits: (u64, u64, u64),
    tasks: u64,
    /// Items of films that wait, by tenant, and since when there are any.
    backlog: HashMap<Uuid, (usize, f64)>,
    /// Slot-seconds of this window, by tenant; and what runs, with the moment up to which it was counted.
    had: HashMap<Uuid, f64>,
    running: HashMap<i64, (Uuid, f64)>,
    window_from: f64,
    jains: Vec<f64>,
    /// Items of a visit share its time.
    visits_since: HashMap<(Uuid, u64), f64>,
}

impl Watch {
    pub fn waits(&mut self, item: &Item, now: f64) {
        if !item.class.is_interactive() {
            let (n, since) = self.backlog.entry(item.tenant).or_insert((0, now));
            if *n == 0 {
                *since = now;
            }
            *n += 1;
        }
    }

    pub fn waits_no_more(&mut self, item: &Item) {
        if let Some((n, _)) = self.backlog.get_mut(&item.tenant).filter(|_| !item.class.is_interactive()) {
            *n -= 1;
        }
    }

    pub fn begins(&mut self, item: &Item, now: f64) {
        self.tasks += 1;
        if !item.class.is_interactive() {
            if let Some((n, _)) = self.backlog.get_mut(&item.tenant) {
                *n -= 1;
            }
            self.running.insert(item.id, (item.tenant, now));
        }
    }

    pub fn ends(&mut self, run: &Running, now: f64, well: bool) {
        let since = self.visits_since.insert((run.node, run.since.to_bits()), now).unwrap_or(run.since);
        self.busy += now - since;
        self.busy_while_work_comes.push((since, now));
        if !well {
            self.wasted += now - since;
        }
        if let Some((tenant, from)) = self.running.remove(&run.item.id) {
            *self.had.entry(tenant).or_default() += now - from;
        }
    }

    pub fn visit(&mut self, held: bool, cold: bool) {
        self.visits.0 += 1;
        self.visits.1 += u64::from(held);
        self.visits.2 += u64::from(cold);
    }

    pub fn window(&mut self, now: f64) {
        for (tenant, from) in self.running.values_mut() {
            *self.had.entry(*tenant).or_default() += now - *from;
            *from = now;
        }
        let waited = self.backlog.iter().filter(|(_, (n, since))| *n > 0 && *since <= self.window_from);
        let shares: Vec<f64> = waited.map(|(tenant, _)| self.had.get(tenant).copied().unwrap_or(0.0)).collect();
        if shares.len() > 1 {
            self.jains.push(jain(&shares));
        }
        self.had.clear();
        self.window_from = now;
    }

    pub fn outcome(self, p: &Parameters, jobs: &[Job], tasks: &[Task], end: f64) -> Outcome {
        let wait = |task: &Task| task.begun_at.unwrap_or(end) - task.ready_at;
        let of = |classes: &[Class]| {
            let of = tasks.iter().filter(|task| classes.contains(&task.class));
            sorted(of.map(wait).collect())
        };
        let (snapshots, previews, films) =
            (of(&[Class::Snapshot]), of(&[Class::Preview]), of(&[Class::Final, Class::Repair]));
        let took = |wanted: fn(&Job) -> bool| {
            let of = self.done.iter().filter(|(job, _)| wanted(&jobs[*job]));
            sorted(of.map(|(job, at)| at - jobs[*job].at).collect())
        };
        let snapshots_there = took(|job| job.class == Class::Snapshot);
        let films_there = took(|job| job.class == Class::Final && job.campaign.is_none());
        let mut longest: HashMap<usize, f64> = HashMap::new();
        for task in tasks {
            let most = longest.entry(task.job).or_default();
            *most = most.max(task.seconds);
        }
        let start = p.start_seconds.0 + p.open_seconds;
        let slowdowns = self.done.iter().map(|(job, at)| (at - jobs[*job].at) / (longest[job] + start).max(1e-9));
        let mut campaigns: HashMap<usize, f64> = HashMap::new();
        for (job, at) in &self.done {
            if let Some(campaign) = jobs[*job].campaign {
                let last = campaigns.entry(campaign).or_default();
                *last = last.max(at - jobs[*job].at);
            }
        }
        let seconds = p.hours * 3600.0;
        let busy: f64 = self.busy_while_work_comes.iter().map(|(from, to)| (to.min(seconds) - from).max(0.0)).sum();
        let waits = sorted(tasks.iter().filter(|task| task.class != Class::Spare).map(wait).collect());
        let (visits, held, cold) = self.visits;
        let values = HashMap::from([
            (Metric::SnapshotP50, quantile(&snapshots, 0.5)),
            (Metric::SnapshotP95, quantile(&snapshots, 0.95)),
            (Metric::SnapshotP99, quantile(&snapshots, 0.99)),
            (Metric::SnapshotDoneP95, quantile(&snapshots_there, 0.95)),
            (Metric::PreviewP50, quantile(&previews, 0.5)),
            (Metric::PreviewP95, quantile(&previews, 0.95)),
            (Metric::PreviewP99, quantile(&previews, 0.99)),
            (Metric::FilmP50, quantile(&films, 0.5)),
            (Metric::FilmP95, quantile(&films, 0.95)),
            (Metric::FilmP99, quantile(&films, 0.99)),
            (Metric::FilmDoneP50, quantile(&films_there, 0.5)),
            (Metric::FilmDoneP95, quantile(&films_there, 0.95)),
            (Metric::Slowdown, mean(&slowdowns.collect::<Vec<_>>())),
            (Metric::Jain, mean(&self.jains)),
            (Metric::CacheHits, held as f64 / visits as f64),
            (Metric::ColdStarts, cold as f64 / self.tasks as f64),
            (Metric::Utilisation, busy / (f64::from(p.nodes) * f64::from(p.slots) * seconds)),
            (Metric::Wasted, self.wasted),
            (Metric::Makespan, mean(&campaigns.into_values().collect::<Vec<_>>())),
            (Metric::MaxWait, waits.last().copied().unwrap_or(f64::NAN)),
        ]);
        Outcome {
            values,
            waits,
            frames: self.frames,
            twice: self.twice,
            idle_with_work: self.idle_with_work,
            busy: self.busy,
        }
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which this share of sorted values lies; NaN of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (share * sorted.len() as f64).ceil().max(1.0) as usize - 1;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// NaN of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Jain's index: 1 when all have the same, `1/n` when one has all.
pub fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|s| s * s).sum::<f64>());
    if squares == 0.0 { 1.0 } else { sum * sum / (shares.len() as f64 * squares) }
}

/// A mean and how far the true one may be from it, with 95 % confidence (Student's t). NaN are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub within: f64,
}

impl Estimate {
    /// Of independent runs.
    pub fn of(values: &[f64]) -> Self {
        let values: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
        let (n, mean) = (values.len() as f64, mean(&values));
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        Self { mean, within: student(n - 1.0) * (variance / n).sqrt() }
    }
}

/// The 97.5 % point of Student's t, by the expansion of Cornish and Fisher; within 1 % from 4 degrees on.
fn student(degrees: f64) -> f64 {
    let (z, v) = (1.959_964_f64, degrees);
    let z3 = z.powi(3);
    let z5 = z.powi(5);
    let z7 = z.powi(7);
    z + (z3 + z) / (4.0 * v)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * v * v)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * v.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_those_of_the_textbooks() {
        assert!((student(19.0) - 2.093).abs() < 0.001);
        assert!((student(4.0) - 2.776).abs() < 0.02);
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0, f64::NAN]);
        assert!((estimate.mean - 3.0).abs() < 1e-12 && (estimate.within - 1.963).abs() < 0.02, "{estimate:?}");
        assert_eq!((quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), quantile(&[1.0], 0.99)), (2.0, 1.0));
        assert_eq!((jain(&[1.0, 1.0]), jain(&[1.0, 0.0])), (1.0, 0.5));
    }
}
