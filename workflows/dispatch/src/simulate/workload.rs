//! What is asked of a simulated farm: invented after what is known of such farms, or replayed.

use super::chance::{Chance, Zipf};
use crate::Class;

/// Everything that can be said of an invented workload and of the machines; times in seconds. No trace of an After Effects farm
/// is public: the defaults are guesses, and each can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    /// Nodes.
    pub nodes: u32,
    /// Things that a node does at a time.
    pub slots: u32,
    /// Length of the time in which work comes.
    pub hours: f64,
    /// Work, with a cold start for each task, over what the nodes could do in that time.
    pub load: f64,
    /// Tenants there are.
    pub tenants: usize,
    /// How unequal their sizes are: exponent of Zipf's law.
    pub tenant_skew: f64,
    /// Templates there are.
    pub templates: usize,
    /// How unequal their popularity is.
    pub template_skew: f64,
    /// Median bytes of a package, and its spread.
    pub package_bytes: (f64, f64),
    /// Median seconds a frame of a template, and its spread.
    pub frame_seconds: (f64, f64),
    /// Spread of a film's seconds a frame around its template's.
    pub film_spread: f64,
    /// Median frames of a film, and its spread.
    pub film_frames: (f64, f64),
    /// Snapshots of a session, at least and at most.
    pub snapshots: (u64, u64),
    /// Median pause before the next snapshot, and its spread.
    pub think_seconds: (f64, f64),
    /// Previews of a session, at least and at most.
    pub previews: (u64, u64),
    /// What a preview costs of its film.
    pub preview_cost: f64,
    /// Probability that a session ends with a film.
    pub film_probability: f64,
    /// Share of the load that comes as campaigns.
    pub campaign_share: f64,
    /// Films of a campaign: shape of Pareto's law, at least, at most.
    pub campaign_films: (f64, f64, f64),
    /// How much the day goes up and down around its mean, 0 to 1.
    pub day_curve: f64,
    /// Bursts an hour, how many times as much comes in one, and how long it lasts.
    pub bursts: (f64, f64, f64),
    /// Median seconds until a renderer has started, and its spread.
    pub start_seconds: (f64, f64),
    /// Seconds until a renderer has opened a package.
    pub open_seconds: f64,
    /// Whether a renderer stays up between visits.
    pub keep_warm: bool,
    /// How fast a node fetches packages.
    pub bytes_per_second: f64,
    /// Bytes of packages that a node keeps.
    pub cache_bytes: f64,
    /// Probability that a task fails and is done again.
    pub task_failure: f64,
    /// Probability that a renderer crashes in a task.
    pub crash: f64,
    /// Probability that an attempt at a chunk drags on, and how many times as long it takes then.
    pub slow: (f64, f64),
    /// Mean seconds between the losses of a node; 0: none is lost.
    pub node_mtbf: f64,
    /// Seconds that a lost node is away.
    pub node_away: f64,
    /// Seconds until what it had is given to somebody else.
    pub lease_seconds: f64,
    /// Seconds of work of a chunk.
    pub chunk_seconds: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            nodes: 8,
            slots: 1,
            hours: 8.0,
            load: 0.7,
            tenants: 40,
            tenant_skew: 1.1,
            templates: 60,
            template_skew: 0.9,
            package_bytes: (350e6, 0.9),
            frame_seconds: (0.25, 0.9),
            film_spread: 0.3,
            film_frames: (600.0, 0.6),
            snapshots: (5, 40),
            think_seconds: (8.0, 1.0),
            previews: (1, 3),
            preview_cost: 0.25,
            film_probability: 0.4,
            campaign_share: 0.2,
            campaign_films: (1.3, 20.0, 1000.0),
            day_curve: 0.5,
            bursts: (0.25, 5.0, 600.0),
            start_seconds: (15.0, 0.4),
            open_seconds: 3.0,
            keep_warm: false,
            bytes_per_second: 60e6,
            cache_bytes: 20e9,
            task_failure: 0.01,
            crash: 0.013,
            slow: (0.0, 10.0),
            node_mtbf: 3.0 * 86_400.0,
            node_away: 300.0,
            lease_seconds: 45.0,
            chunk_seconds: 60.0,
        }
    }
}

/// Something that is asked for: a still, a preview, a film.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// When, in seconds.
    pub at: f64,
    /// By whom.
    pub tenant: usize,
    /// What.
    pub class: Class,
    /// Of which template.
    pub template: usize,
    /// Its frames.
    pub frames: u32,
    /// What a frame takes.
    pub frame_seconds: f64,
    /// What one is thought to take.
    pub expected_frame_seconds: f64,
    /// Bytes of the template's package.
    pub package_bytes: u64,
    /// The campaign it is part of.
    pub campaign: Option<usize>,
}

impl Job {
    /// Its chunks, in frames: none longer than `seconds` as far as anybody knows, none overlapping, all frames.
    pub fn chunks(&self, seconds: f64) -> Vec<u32> {
        let most = (seconds / self.expected_frame_seconds).clamp(1.0, f64::from(u32::MAX)) as u32;
        let n = self.frames.div_ceil(most).max(1);
        (0..n).map(|i| self.frames / n + u32::from(i < self.frames % n)).collect()
    }
}

/// Bounds of what can be simulated.
const MOST_NODES: u32 = 10_000;
const MOST_SLOTS: u32 = 256;
const MOST_HOURS: f64 = 8_784.0;
const MOST_BURSTS: f64 = 1_000.0;

struct Template {
    bytes: u64,
    frame_seconds: f64,
}

struct Inventor<'a> {
    p: &'a Parameters,
    chance: Chance,
    tenants: Zipf,
    popularity: Zipf,
    templates: Vec<Template>,
    bursts: Vec<f64>,
    jobs: Vec<Job>,
    /// Slot-seconds of what was invented.
    work: f64,
}

impl Parameters {
    /// Why no workload can be made of these; none when one can.
    pub fn impossible(&self) -> Option<&'static str> {
        let takes_time = [self.frame_seconds.0, self.start_seconds.0, self.open_seconds].iter().any(|s| *s > 0.0);
        let sessions = self.snapshots.1 > 0 || self.previews.1 > 0 || self.film_probability > 0.0;
        if !(1..=MOST_NODES).contains(&self.nodes) || !(1..=MOST_SLOTS).contains(&self.slots) {
            Some("there are 1 to 10,000 nodes with 1 to 256 slots each")
        } else if !(self.hours > 0.0 && self.hours <= MOST_HOURS) || self.bursts.0 > MOST_BURSTS {
            Some("there are up to 8,784 hours with up to 1,000 bursts in each")
        } else if !takes_time {
            Some("work has to take time: seconds a frame, a start, or the opening of a package")
        } else if !sessions || self.campaign_share > 0.0 && self.campaign_films.2 < 1.0 {
            Some("work has to come: snapshots, previews, films, or campaigns with films")
        } else {
            None
        }
    }
}

/// Invents a workload; the same for the same seed. Sessions and campaigns come until they make the load.
pub fn invent(p: &Parameters, seed: u64) -> Vec<Job> {
    let mut chance = Chance::of(&[seed, 1]);
    let templates = (0..p.templates.max(1)).map(|_| Template {
        bytes: chance.lognormal(p.package_bytes.0, p.package_bytes.1) as u64,
        frame_seconds: chance.lognormal(p.frame_seconds.0, p.frame_seconds.1),
    });
    let templates = templates.collect();
    let (seconds, mut bursts, mut at) = (p.hours * 3600.0, Vec::new(), 0.0);
    let mut pause = || if p.bursts.0 > 0.0 { chance.exponential(3600.0 / p.bursts.0) } else { f64::INFINITY };
    at += pause();
    while at <= seconds {
        bursts.push(at);
        at += pause();
    }
    let (tenants, popularity) = (Zipf::new(p.tenants, p.tenant_skew), Zipf::new(p.templates, p.template_skew));
    let mut inventor = Inventor { p, chance, tenants, popularity, templates, bursts, jobs: Vec::new(), work: 0.0 };
    let wanted = p.load * f64::from(p.nodes) * f64::from(p.slots) * seconds;
    let mut campaigns = 0;
    // A campaign may be longer than its share: then it is cut, so that every seed has the same load.
    while inventor.work < wanted * p.campaign_share {
        inventor.campaign(campaigns, wanted * p.campaign_share);
        campaigns += 1;
    }
    while inventor.work < wanted {
        inventor.session();
    }
    let mut jobs = inventor.jobs;
    jobs.sort_by(|a, b| a.at.total_cmp(&b.at));
    jobs
}

impl Inventor<'_> {
    /// When something begins: more at the busy time of the day, and much more in a burst.
    fn begin(&mut self) -> f64 {
        let seconds = self.p.hours * 3600.0;
        let (_, times, lasts) = self.p.bursts;
        let most = (1.0 + self.p.day_curve) * times.max(1.0);
        loop {
            let at = self.chance.even() * seconds;
            let day = 1.0 - self.p.day_curve * (std::f64::consts::TAU * at / seconds).cos();
            let burst = self.bursts.iter().any(|from| (*from..from + lasts).contains(&at));
            if self.chance.happens(day * if burst { times } else { 1.0 } / most) {
                return at;
            }
        }
    }

    fn job(&mut self, at: f64, tenant: usize, template: usize, class: Class, campaign: Option<usize>) {
        let p = self.p;
        let Template { bytes, frame_seconds } = self.templates[template];
        let frames = match class {
            Class::Snapshot => 1,
            _ => self.chance.lognormal(p.film_frames.0, p.film_frames.1).max(1.0) as u32,
        };
        let cost = if class == Class::Preview { p.preview_cost } else { 1.0 };
        let expected = frame_seconds * cost;
        let job = Job {
            at,
            tenant,
            class,
            template,
            frames,
            frame_seconds: self.chance.lognormal(expected, p.film_spread),
            expected_frame_seconds: expected,
            package_bytes: bytes,
            campaign,
        };
        let starts = job.chunks(p.chunk_seconds).len() as f64 * (p.start_seconds.0 + p.open_seconds);
        self.work += f64::from(job.frames) * job.frame_seconds + starts;
        self.jobs.push(job);
    }

    /// Somebody works on a video: looks at scenes, looks at previews, orders it perhaps.
    fn session(&mut self) {
        let (tenant, template) = (self.tenants.draw(&mut self.chance), self.popularity.draw(&mut self.chance));
        let mut at = self.begin();
        let snapshots = self.chance.whole(self.p.snapshots.0, self.p.snapshots.1);
        let previews = self.chance.whole(self.p.previews.0, self.p.previews.1);
        let every = snapshots / (previews + 1);
        for n in 1..=snapshots {
            self.job(at, tenant, template, Class::Snapshot, None);
            if every > 0 && n % every == 0 && n / every <= previews {
                self.job(at, tenant, template, Class::Preview, None);
            }
            at += self.chance.lognormal(self.p.think_seconds.0, self.p.think_seconds.1);
        }
        if self.chance.happens(self.p.film_probability) {
            self.job(at, tenant, template, Class::Final, None);
        }
    }

    fn campaign(&mut self, number: usize, until: f64) {
        let (tenant, template) = (self.tenants.draw(&mut self.chance), self.popularity.draw(&mut self.chance));
        let at = self.begin();
        let (shape, least, most) = self.p.campaign_films;
        for _ in 0..self.chance.pareto(shape, least, most) as u64 {
            if self.work >= until {
                return;
            }
            self.job(at, tenant, template, Class::Final, Some(number));
        }
    }
}

/// Columns of a replay, in any order; others are passed over. A missing class is a film.
pub const COLUMNS: &str = "arrival_s,tenant,class,template,frames,s_per_frame,bytes";

/// Reads what really came: CSV with a header of [`COLUMNS`]; `arrival_s` in seconds from any begin, `class` one of snapshot,
/// preview, repair, final; `bytes` of the template's package.
///
/// # Errors
/// The line that cannot be read, and why.
pub fn replay(csv: &str) -> Result<Vec<Job>, String> {
    let mut lines = csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().ok_or("the file is empty")?;
    let names: Vec<&str> = header.split(',').map(str::trim).collect();
    let column = |name: &str| names.iter().position(|n| *n == name);
    let needed = |name: &str| column(name).ok_or(format!("there is no column {name}; the header is {COLUMNS}"));
    let at = needed("arrival_s")?;
    let (tenant, template) = (needed("tenant")?, needed("template")?);
    let (frames, pace, bytes, class) = (needed("frames")?, needed("s_per_frame")?, column("bytes"), column("class"));
    let (mut tenants, mut templates) = (Vec::new(), Vec::new());
    let mut jobs = Vec::new();
    for (n, line) in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let number = |at: usize| {
            let read = cell(at).parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            read.ok_or(format!("line {}: {:?} is no number of {}", n + 1, cell(at), names[at]))
        };
        let class = match class.map(cell) {
            None | Some("" | "final") => Class::Final,
            Some("snapshot") => Class::Snapshot,
            Some("preview") => Class::Preview,
            Some("repair") => Class::Repair,
            Some(other) => return Err(format!("line {}: there is no class {other:?}", n + 1)),
        };
        let seconds = number(pace)?.max(1e-3);
        jobs.push(Job {
            at: number(at)?,
            tenant: numbered(&mut tenants, cell(tenant)),
            class,
            template: numbered(&mut templates, cell(template)),
            frames: number(frames)?.clamp(1.0, 1e6) as u32,
            frame_seconds: seconds,
            expected_frame_seconds: seconds,
            package_bytes: bytes.map_or(Ok(0.0), number)? as u64,
            campaign: None,
        });
    }
    jobs.sort_by(|a, b| a.at.total_cmp(&b.at));
    let first = jobs.first().map_or(0.0, |job| job.at);
    jobs.iter_mut().for_each(|job| job.at -= first);
    Ok(jobs)
}

fn numbered(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invented_workload_has_the_load_that_was_asked_for() {
        let p = Parameters::default();
        for seed in 0..5 {
            let jobs = invent(&p, seed);
            let work =
                |job: &Job| f64::from(job.frames) * job.frame_seconds + job.chunks(p.chunk_seconds).len() as f64 * 18.0;
            let load = jobs.iter().map(work).sum::<f64>() / (8.0 * 8.0 * 3600.0);
            assert!((load - 0.7).abs() < 0.02, "{load}");
            assert_eq!(jobs, invent(&p, seed));
            assert!(jobs.iter().filter(|job| job.class == Class::Snapshot).count() > 1000);
        }
    }

    #[test]
    fn chunks_are_bounded_and_make_the_film() {
        let jobs = invent(&Parameters::default(), 1);
        for job in jobs {
            let chunks = job.chunks(60.0);
            assert_eq!(chunks.iter().sum::<u32>(), job.frames);
            assert!(chunks.iter().all(|n| f64::from(*n) * job.expected_frame_seconds <= 60.0 || *n == 1));
        }
    }

    #[test]
    fn a_replay_reads_what_it_knows_and_says_what_it_does_not() {
        let jobs = replay(
            "tenant,arrival_s,class,template,frames,s_per_frame,bytes,more\na,20,final,t,100,0.5,7,x\nb,10,snapshot,t,1,2,7,x\n",
        );
        let jobs = jobs.unwrap();
        assert_eq!((jobs.len(), jobs[0].at, jobs[0].class, jobs[1].at), (2, 0.0, Class::Snapshot, 10.0));
        assert_eq!((jobs[0].template, jobs[1].template, jobs[0].tenant, jobs[1].tenant), (0, 0, 1, 0));
        assert_eq!(
            replay("tenant,class\n").unwrap_err(),
            format!("there is no column arrival_s; the header is {COLUMNS}")
        );
        let wrong = format!("{COLUMNS}\n1,a,film,t,1,1,1\n");
        assert_eq!(replay(&wrong).unwrap_err(), "line 2: there is no class \"film\"");
    }
}
