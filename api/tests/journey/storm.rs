//! Twenty films at a time while everything is killed, stopped, cut off and silenced at random; each is the film of a quiet day.

use crate::{
    netns::Namespace,
    platform::Platform,
    wire::{State, Wire},
};
use chrono::{DateTime, Utc};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, RngExt as _, SeedableRng, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    io::Write as _,
    process::{Child, Command},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Nodes of the farm.
const NODES: usize = 4;
/// Height of the films in pixels: small, since it is not pixels that are tried.
const HEIGHT: u32 = 144;
/// A renderer is gone so long after its node was told to end the attempt, or has said itself how it ended.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// A renderer is gone so long after its attempt has ended and its node is well, whether it was seen to be told or not: it may wait for an
/// answer for a third of a lease, five seconds, and asks again two later.
const GONE_UNTOLD_AFTER: Duration = Duration::from_secs(10);

/// How hard it blows.
struct Storm {
    faults: u32,
    films: usize,
    /// Shortest and longest pause between faults, in milliseconds.
    pause: (u64, u64),
    /// The longest that something is stopped or cut off, in milliseconds.
    longest: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_storm_changes_no_frame() {
    weather(Storm { faults: 15, films: 3, pause: (200, 900), longest: 6_000 }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the long form, a quarter of an hour: make chaos"]
async fn f_500_faults_while_20_films_are_made_change_no_frame() {
    weather(Storm { faults: 500, films: 20, pause: (300, 2_000), longest: 25_000 }).await;
}

async fn weather(storm: Storm) {
    let seed = std::env::var("FLATRENDER_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().next_u64() % 1_000_000);
    println!("FLATRENDER_CHAOS_SEED={seed}");
    let began = Instant::now();
    let mut farm = Farm::start(seed, storm).await;
    let titles = farm.blow().await;
    let (waste, disturbed) = farm.films(&titles).await;
    farm.platform.has_charged_once(titles.len()).await;
    farm.check().await;
    let (faults, notes) = (farm.injected(), farm.report());
    farm.stop().await;

    let calm = Platform::start(2).await;
    let mut again = vec![];
    for (title, frames) in &disturbed {
        again.push((title, frames, calm.order_titled(title, HEIGHT).await));
    }
    for (title, frames, id) in again {
        calm.completed(&id).await;
        assert!(
            frames_of(&calm, &id).await == *frames,
            "the film {title:?} is not the one of a quiet day (seed {seed})"
        );
    }
    calm.stop().await;
    let note = format!("{} films, {notes}, {waste}", disturbed.len());
    println!("{faults} faults: {note}");
    record(faults, seed, began.elapsed(), &note);
}

/// Hash of every accepted frame, in order.
async fn frames_of(platform: &Platform, id: &str) -> Vec<String> {
    let sql = "select sha256 from render.frame_manifests where render_job_id = $1 order by frame_no";
    sqlx::query_scalar(sql).bind(Uuid::parse_str(id).unwrap()).fetch_all(&platform.db).await.unwrap()
}

/// A line of the table that `make chaos` prints.
fn record(faults: u32, seed: u64, took: Duration, note: &str) {
    let Ok(path) = std::env::var("FLATRENDER_CHAOS_REPORT") else { return };
    let Ok(mut file) = std::fs::File::options().append(true).open(path) else { return };
    let checks = "frames of a quiet day, one owner each, charged once, no process left, foreign ones alive";
    let _ = writeln!(file, "farm\t{faults}\t{checks}\tok\t{seed}\t{:.0}\t{note}", took.as_secs_f64());
}

/// What can befall the farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillRenderer,
    StopRenderer,
    KillNode,
    StopNode,
    /// Its connections are closed.
    CutNode,
    /// Its link is down, and what is sent vanishes.
    UnplugNode,
    SilenceNode,
    KillWorker,
    StopWorker,
    KillApi,
    StopApi,
    KillBackend,
    KillPostgres,
}

/// Each with how often it is drawn.
const FAULTS: [(Fault, u32); 13] = [
    (Fault::KillRenderer, 22),
    (Fault::StopRenderer, 10),
    (Fault::KillNode, 14),
    (Fault::StopNode, 10),
    (Fault::CutNode, 6),
    (Fault::UnplugNode, 6),
    (Fault::SilenceNode, 6),
    (Fault::KillWorker, 8),
    (Fault::StopWorker, 4),
    (Fault::KillApi, 6),
    (Fault::StopApi, 3),
    (Fault::KillBackend, 3),
    (Fault::KillPostgres, 2),
];

/// What is made good again, and when.
enum Cure {
    Continue(i32),
    Mend(usize),
}

struct Farm {
    platform: Platform,
    wires: Vec<Wire>,
    storm: Storm,
    chance: StdRng,
    injected: BTreeMap<Fault, u32>,
    cures: Vec<(Instant, Cure)>,
    /// Since when each node is as it should be: runs, not stopped, not cut off.
    well: Vec<Instant>,
    /// Since when each node runs and is not stopped.
    awake: Vec<Instant>,
    foreign: Child,
    stood_still: BTreeSet<i32>,
    /// When a renderer was last seen at work, by attempt.
    seen: HashMap<Uuid, DateTime<Utc>>,
    /// How long renderers outlived their attempts, in words.
    stays: String,
}

impl Farm {
    async fn start(seed: u64, storm: Storm) -> Self {
        let mut platform = Platform::without_nodes(NODES).await;
        platform.give_credits().await;
        let mut wires = vec![];
        for n in 0..NODES {
            let link = Namespace::new();
            platform.namespaces[n] = link.as_ref().map(|link| link.name.clone());
            let wire = Wire::to(&platform.url, link).await;
            platform.routes[n] = Some(wire.url.clone());
            platform.start_node(n);
            wires.push(wire);
        }
        Self {
            foreign: foreign(&platform),
            platform,
            wires,
            storm,
            chance: StdRng::seed_from_u64(seed),
            injected: BTreeMap::new(),
            cures: vec![],
            well: vec![Instant::now(); NODES],
            awake: vec![Instant::now(); NODES],
            stood_still: BTreeSet::new(),
            seen: HashMap::new(),
            stays: String::new(),
        }
    }

    /// Keeps so many films under way until there were enough faults, then lets all come to their end. Titles and ids.
    async fn blow(&mut self) -> Vec<(String, String)> {
        let mut films = vec![];
        let mut under_way = BTreeSet::new();
        loop {
            let enough = self.injected() >= self.storm.faults;
            while !enough && under_way.len() < self.storm.films {
                let title = format!("The film no. {}", films.len() + 1);
                let id = self.order(&title).await;
                under_way.insert(id.clone());
                films.push((title, id));
            }
            if !enough {
                self.befall().await;
            }
            let pause = self.chance.random_range(self.storm.pause.0..=self.storm.pause.1);
            let until = Instant::now() + Duration::from_millis(pause);
            while Instant::now() < until {
                self.cure();
                self.platform.keep_worker();
                self.look_for_strays().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let ended = self.ended(&under_way).await;
            under_way.retain(|id| !ended.contains(id));
            if enough && under_way.is_empty() && self.cures.is_empty() {
                return films;
            }
        }
    }

    /// Orders a film; what is stopped goes on meanwhile.
    async fn order(&mut self, title: &str) -> String {
        for (_, cure) in std::mem::take(&mut self.cures) {
            self.make_good(cure);
        }
        self.platform.order_titled(title, HEIGHT).await
    }

    /// Those films that have ended, as far as can be seen at the moment.
    async fn ended(&self, ids: &BTreeSet<String>) -> BTreeSet<String> {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::parse_str(id).unwrap()).collect();
        let sql = "select id from render.render_jobs where id = any($1) and finished_at is not null";
        let ended: Vec<Uuid> = sqlx::query_scalar(sql).bind(ids).fetch_all(&self.platform.db).await.unwrap_or_default();
        ended.iter().map(Uuid::to_string).collect()
    }

    async fn befall(&mut self) {
        let all: u32 = FAULTS.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.chance.random_range(0..all);
        let fault = FAULTS.iter().find(|(_, weight)| {
            let hit = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            hit
        });
        let fault = fault.expect("the weights cover what can be drawn").0;
        let node = self.chance.random_range(0..NODES);
        // Where there is no link to take down it is cut off by other means.
        let fault = if fault == Fault::UnplugNode && !self.wires[node].has_link() { Fault::CutNode } else { fault };
        let befallen = match fault {
            Fault::KillRenderer => self.renderer().is_some_and(|pid| signal(pid, Signal::SIGKILL)),
            Fault::StopRenderer => self.renderer().is_some_and(|pid| self.stop_for_a_while(pid)),
            Fault::KillNode => {
                self.platform.kill_node(node);
                self.platform.start_node(node);
                self.wakes(node);
                true
            }
            Fault::StopNode => self.platform.node_pid(node).is_some_and(|pid| self.stop_for_a_while(pid)),
            Fault::CutNode => self.disturb_wire(node, State::Cut),
            Fault::UnplugNode => self.disturb_wire(node, State::Unplugged),
            Fault::SilenceNode => self.disturb_wire(node, State::Silent),
            Fault::KillWorker => {
                self.platform.kill_and_restart_worker();
                true
            }
            Fault::StopWorker => self.stop_for_a_while(self.platform.worker_pid()),
            Fault::KillApi => {
                self.platform.kill_and_restart_api();
                self.well.fill(Instant::now());
                true
            }
            Fault::StopApi => self.stop_for_a_while(self.platform.api_pid()),
            Fault::KillBackend => {
                self.well.fill(Instant::now() + Duration::from_secs(5));
                self.platform.backend_pid().await.is_some_and(|pid| signal(pid, Signal::SIGKILL))
            }
            Fault::KillPostgres => {
                self.well.fill(Instant::now() + Duration::from_secs(10));
                self.platform.kill_postgres();
                true
            }
        };
        if befallen {
            *self.injected.entry(fault).or_default() += 1;
        }
    }

    fn renderer(&mut self) -> Option<i32> {
        let renderers = self.platform.renderers();
        let n = self.chance.random_range(0..renderers.len().max(1));
        renderers.get(n).copied()
    }

    /// Some time, mostly short.
    fn a_while(&mut self) -> Instant {
        let part: f64 = self.chance.random_range(0.0..1.0);
        Instant::now() + Duration::from_millis(300 + (part * part * self.storm.longest as f64) as u64)
    }

    fn stop_for_a_while(&mut self, pid: i32) -> bool {
        let until = self.a_while();
        let stopped = self.stood_still.insert(pid) && signal(pid, Signal::SIGSTOP);
        if stopped {
            self.cures.push((until, Cure::Continue(pid)));
        }
        stopped
    }

    fn wakes(&mut self, node: usize) {
        (self.well[node], self.awake[node]) = (Instant::now(), Instant::now());
    }

    fn disturb_wire(&mut self, node: usize, state: State) -> bool {
        let until = self.a_while();
        let disturbed = self.wires[node].is_whole();
        if disturbed {
            self.wires[node].set(state);
            self.cures.push((until, Cure::Mend(node)));
        }
        disturbed
    }

    /// Makes good what has been bad for long enough.
    fn cure(&mut self) {
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut self.cures).into_iter().partition(|(until, _)| *until <= now);
        self.cures = later;
        let due: Vec<(Instant, Cure)> = due;
        due.into_iter().for_each(|(_, cure)| self.make_good(cure));
    }

    fn make_good(&mut self, cure: Cure) {
        match cure {
            Cure::Continue(pid) => {
                self.stood_still.remove(&pid);
                signal(pid, Signal::SIGCONT);
                match (0..NODES).find(|n| self.platform.node_pid(*n) == Some(pid)) {
                    Some(node) => self.wakes(node),
                    None if pid == self.platform.api_pid() => self.well.fill(Instant::now()),
                    None => {}
                }
            }
            Cure::Mend(node) => {
                self.wires[node].set(State::Whole);
                self.well[node] = Instant::now();
            }
        }
    }

    /// Nobody renders for an attempt that is over.
    async fn look_for_strays(&mut self) {
        let now = Utc::now();
        let works = |n| self.platform.renderers_of(n).into_iter().filter_map(move |pid| Some((n, pid, mark(pid)?)));
        let mut attempts: Vec<(usize, i32, Uuid)> = (0..NODES).flat_map(works).collect();
        self.seen.extend(attempts.iter().map(|(_, _, token)| (*token, now)));
        attempts.retain(|(n, ..)| self.is_awake(*n));
        self.none_outlives_what_its_node_was_told(&attempts);
        if !self.stood_still.contains(&self.platform.api_pid()) {
            self.none_outlives_its_attempt(attempts).await;
        }
    }

    /// Whether a node has been running for long enough to have heard what there was to hear.
    fn is_awake(&self, n: usize) -> bool {
        let pid = self.platform.node_pid(n);
        !pid.is_some_and(|pid| self.stood_still.contains(&pid)) && self.awake[n].elapsed() > GONE_UNTOLD_AFTER
    }

    /// A node needs nobody to end what it was told to end, whatever befalls the others, or its wire.
    fn none_outlives_what_its_node_was_told(&self, attempts: &[(usize, i32, Uuid)]) {
        let ended: Vec<_> = self.wires.iter().map(Wire::ended).collect();
        // What was told to a process that was killed since, the one after it has not heard.
        let heard = |n: usize, at: &Instant| *at > self.awake[n] && at.elapsed() > GONE_AFTER;
        let is_late = |n: usize, token: &Uuid| ended[n].get(token).is_some_and(|at| heard(n, at));
        // It may have gone while this was asked.
        let stray = attempts.iter().find(|(n, pid, token)| is_late(*n, token) && mark(*pid) == Some(*token));
        assert!(stray.is_none(), "a renderer works for an attempt that its node was long told to end: {stray:?}");
    }

    /// Held against it are those whose node could know: one that was not disturbed meanwhile, whatever befalls the others.
    async fn none_outlives_its_attempt(&self, mut attempts: Vec<(usize, i32, Uuid)>) {
        attempts.retain(|(n, ..)| self.wires[*n].is_whole() && self.well[*n].elapsed() > GONE_UNTOLD_AFTER);
        let tokens: Vec<Uuid> = attempts.iter().map(|(_, _, token)| *token).collect();
        // One that was lost may have been given back to its node, under the same token.
        let sql = "select lease_token from workflow.attempts a where lease_token = any($1)
                   and ended_at < clock_timestamp() - make_interval(secs => $2)
                   and not exists (select from workflow.tasks t where t.lease_token = a.lease_token)";
        let patience = GONE_UNTOLD_AFTER.as_secs_f64();
        let ended = sqlx::query_scalar(sql).bind(tokens).bind(patience).fetch_all(&self.platform.db).await;
        let ended: Vec<Uuid> = ended.unwrap_or_default();
        // It may have gone while the question was asked.
        let stray = attempts.iter().find(|(_, pid, token)| ended.contains(token) && mark(*pid) == Some(*token));
        assert!(stray.is_none(), "a renderer works for an attempt that has ended: {stray:?}");
    }

    /// Every attempt of a node that has ended, and until when a renderer was seen at work for it. How many were seen at all, and what that
    /// comes to. A node says how an attempt ended when nothing of it is left; where it did not say, it was looked at meanwhile.
    async fn judge(&self) -> (usize, String) {
        let sql = "select distinct on (lease_token) lease_token, outcome in ('ok', 'failed'), ended_at
                   from workflow.attempts where worker like 'node:%' order by lease_token, attempt_no desc";
        let ended: Vec<(Uuid, bool, DateTime<Utc>)> = sqlx::query_as(sql).fetch_all(&self.platform.db).await.unwrap();
        // By whether the node has said it.
        let (mut seen, mut longest) = ([0, 0], [Duration::ZERO; 2]);
        for &(token, is_said, ended_at) in &ended {
            let Some(last) = self.seen.get(&token) else { continue };
            // Mostly it is before the end.
            let stay = (*last - ended_at).to_std().unwrap_or_default();
            assert!(!is_said || stay <= GONE_AFTER, "a renderer of {token} was there {stay:?} after its node's word");
            let kind = usize::from(is_said);
            seen[kind] += 1;
            longest[kind] = longest[kind].max(stay);
        }
        let ([taken, said], [taken_stay, said_stay]) = (seen, longest.map(|stay| stay.as_secs_f64()));
        let stays = format!(
            "{} attempts of nodes ended, a renderer was seen of {}: until {said_stay:.1} s at most after its node said so ({said}), until \
             {taken_stay:.1} s after it was lost, cancelled or given back ({taken})",
            ended.len(),
            taken + said
        );
        (taken + said, stays)
    }

    fn injected(&self) -> u32 {
        self.injected.values().sum()
    }

    /// The frames of each film, by title; and what was rendered beyond them.
    async fn films(&self, films: &[(String, String)]) -> (String, Vec<(String, Vec<String>)>) {
        let mut frames = vec![];
        for (title, id) in films {
            self.platform.completed(id).await;
            frames.push((title.clone(), frames_of(&self.platform, id).await));
        }
        let planned: u64 = frames.iter().map(|(_, frames)| frames.len() as u64).sum();
        let rendered: u64 = self.wires.iter().map(Wire::frames).sum();
        let beyond = rendered.saturating_sub(planned);
        (
            format!("{beyond} frames beyond the {planned} planned ({:.1} %)", 100.0 * beyond as f64 / planned as f64),
            frames,
        )
    }

    /// What must hold whatever happened.
    async fn check(&mut self) {
        let quiet = Instant::now();
        while !self.platform.renderers().is_empty() {
            assert!(quiet.elapsed() < Duration::from_secs(5), "renderers are left: {:?}", self.platform.renderers());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let short_form = self.storm.faults < 100;
        let (seen, stays) = self.judge().await;
        assert!(seen > 0 || short_form, "no renderer was ever held against its attempt");
        self.stays = stays;
        assert!(self.told() > 0 || short_form, "no node was ever told to end an attempt");
        assert!(self.foreign.try_wait().unwrap().is_none(), "a foreign process of the renderer's name was ended");
        let twice: i64 = self.number("select count(*) from (select task_id from workflow.attempts where outcome = 'ok' group by 1 having count(*) > 1) t").await;
        assert_eq!(twice, 0, "tasks that were completed twice");
        let exports: i64 = self.number("select count(*) from (select render_job_id, profile from render.exports group by 1, 2 having count(*) > 1) t").await;
        assert_eq!(exports, 0, "films that were published twice");
        let short: i64 = self
            .number("select count(*) from render.render_jobs j where j.status = 'completed' and j.frame_count <> (select count(*) from render.frame_manifests m where m.render_job_id = j.id)")
            .await;
        assert_eq!(short, 0, "films without all of their frames");
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.platform.db).await.unwrap()
    }

    /// Attempts that nodes were told to end.
    fn told(&self) -> usize {
        self.wires.iter().map(|wire| wire.ended().len()).sum()
    }

    fn report(&self) -> String {
        let told = self.told();
        let links = self.wires.iter().filter(|wire| wire.has_link()).count();
        let mut report = format!(
            "{}, {told} attempts that a node was told to end, {} servers and workers started once more as their database was away, {links} \
             of {NODES} nodes in network namespaces (CutNode closes connections, UnplugNode takes the link down)",
            self.stays, self.platform.started_again
        );
        for (fault, times) in &self.injected {
            let _ = write!(report, ", {times} {fault:?}");
        }
        report
    }

    async fn stop(mut self) {
        let _ = self.foreign.kill();
        let _ = self.foreign.wait();
        self.platform.stop().await;
    }
}

/// Something else that is called as a renderer is.
fn foreign(platform: &Platform) -> Child {
    let program = platform.folder().join("flatrender-aerender");
    std::fs::copy("/bin/sleep", &program).unwrap();
    Command::new(program).arg("86400").spawn().unwrap()
}

/// The attempt that a process belongs to.
fn mark(pid: i32) -> Option<Uuid> {
    let variables = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mark = variables.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(b"FLATRENDER_ATTEMPT="))?;
    std::str::from_utf8(mark).ok()?.parse().ok()
}

fn signal(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}
