//! The simulated farm: events in order of time, nodes with caches, and the production decision in the middle.
//!
//! ```text
//!   arrives ─▶ waits ─▶ assign ─▶ visit: fetch, start, open, item, item … ─▶ done
//!                ▲                   │ fails, crashes          │ node lost
//!                └──── a second ─────┴───── the lease ends ────┘
//!   late ─▶ a twin waits for a node that has nothing to do ─▶ the first that is done stops the other
//! ```

use super::{
    Variant,
    chance::Chance,
    measures::{Outcome, Watch},
    workload::{Job, Parameters},
};
use crate::{Class, Farm, Item, Labels, Node, Package};
use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap, HashSet},
};
use uuid::Uuid;

/// A task that failed is ready again after so long.
const PAUSE: f64 = 1.0;

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Arrives(usize),
    /// An item of a visit is done, or has failed.
    Ends {
        node: usize,
        epoch: u32,
        id: i64,
        well: bool,
    },
    /// A slot is free again, after a visit that began with an item.
    Free {
        node: usize,
        epoch: u32,
        first: i64,
    },
    /// Something may be late.
    Look,
    /// Items wait again.
    Back(Vec<i64>),
    Lost(usize),
    Returns(usize),
    Window,
}

#[derive(Debug)]
struct At(f64, u64, Event);

impl PartialEq for At {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for At {}
impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for At {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

/// A machine.
struct Machine {
    id: Uuid,
    up: bool,
    epoch: u32,
    free: u32,
    /// Packages it holds, the one used last at the end.
    held: Vec<(Package, u64)>,
    warm: Option<Package>,
    running: HashSet<i64>,
    /// Items that it was told to stop, whose visits have not ended yet.
    stopped: HashSet<i64>,
}

/// A task of a job.
pub(super) struct Task {
    pub job: usize,
    /// Even numbers for the chunks of a job, the next odd one for its twin: chance is the same under every policy.
    no: usize,
    pub frames: u32,
    pub seconds: f64,
    pub ready_at: f64,
    pub begun_at: Option<f64>,
    pub done: bool,
    attempts: u64,
    /// The task of the same frames, where there are two.
    twin: Option<i64>,
    pub class: Class,
    avoid: Option<Uuid>,
}

impl Task {
    fn new((job, no): (usize, usize), frames: u32, seconds: f64, class: Class) -> Self {
        let (ready_at, begun_at, done, attempts, twin, avoid) = (0.0, None, false, 0, None, None);
        Self { job, no, frames, seconds, ready_at, begun_at, done, attempts, twin, class, avoid }
    }
}

/// The whole of it.
pub(super) struct Yard<'a> {
    p: &'a Parameters,
    jobs: &'a [Job],
    seed: u64,
    chunk_seconds: f64,
    now: f64,
    events: BinaryHeap<Reverse<At>>,
    sequence: u64,
    farm: Farm,
    machines: Vec<Machine>,
    by_id: HashMap<Uuid, usize>,
    tasks: Vec<Task>,
    /// Tasks of a job that are not done.
    left: Vec<usize>,
    packages: HashMap<usize, Package>,
    watch: Watch,
    open: usize,
}

/// Who a tenant is.
pub(super) fn tenant(n: usize) -> Uuid {
    Uuid::from_u128(n as u128 + 1)
}

/// Runs a workload under a policy until everything is done.
pub fn run(p: &Parameters, jobs: &[Job], variant: &Variant, seed: u64) -> Outcome {
    let mut yard = Yard::new(p, jobs, variant, seed);
    yard.go();
    let Yard { watch, tasks, jobs, now, .. } = yard;
    watch.outcome(p, jobs, &tasks, now)
}

impl<'a> Yard<'a> {
    fn new(p: &'a Parameters, jobs: &'a [Job], variant: &Variant, seed: u64) -> Self {
        let policy =
            crate::Policy { start_seconds: p.start_seconds.0, open_seconds: p.open_seconds, ..variant.policy.clone() };
        let machine = |n: u32| Machine {
            id: Uuid::from_u128(1_000_000 + u128::from(n)),
            up: true,
            epoch: 0,
            free: p.slots,
            held: Vec::new(),
            warm: None,
            running: HashSet::new(),
            stopped: HashSet::new(),
        };
        let machines: Vec<Machine> = (0..p.nodes).map(machine).collect();
        let by_id = machines.iter().enumerate().map(|(n, machine)| (machine.id, n)).collect();
        let mut yard = Self {
            p,
            jobs,
            seed,
            chunk_seconds: variant.chunk_seconds,
            now: 0.0,
            events: BinaryHeap::new(),
            sequence: 0,
            farm: Farm::new(policy),
            machines,
            by_id,
            tasks: Vec::new(),
            left: vec![0; jobs.len()],
            packages: HashMap::new(),
            watch: Watch::default(),
            open: jobs.len(),
        };
        (0..yard.machines.len()).for_each(|n| yard.tell(n));
        for (n, job) in jobs.iter().enumerate() {
            yard.at(job.at, Event::Arrives(n));
        }
        for node in 0..p.nodes as usize {
            yard.fate(node);
        }
        yard.at(super::measures::WINDOW, Event::Window);
        yard
    }

    fn at(&mut self, time: f64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse(At(time, self.sequence, event)));
    }

    fn go(&mut self) {
        while self.open > 0 {
            let Some(Reverse(At(time, _, event))) = self.events.pop() else { return };
            self.now = time;
            self.happen(event);
            let more = self.events.peek().is_some_and(|Reverse(next)| next.0 <= time);
            if !more {
                self.give_out();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(job) => self.arrive(job),
            Event::Ends { node, epoch, id, well } if self.machines[node].epoch == epoch => self.end(node, id, well),
            Event::Free { node, epoch, first } if self.machines[node].epoch == epoch => {
                // Whoever was stopped is free since.
                let machine = &mut self.machines[node];
                machine.free += u32::from(!machine.stopped.remove(&first));
            }
            Event::Ends { .. } | Event::Free { .. } | Event::Look => {}
            Event::Back(ids) => ids.into_iter().for_each(|id| self.again(id)),
            Event::Lost(node) => self.lose(node),
            Event::Returns(node) => {
                let machine = &mut self.machines[node];
                (machine.up, machine.free, machine.warm) = (true, self.p.slots, None);
                self.tell(node);
                self.fate(node);
            }
            Event::Window => {
                if self.now <= self.p.hours * 3600.0 {
                    self.watch.window(self.now);
                    self.at(self.now + super::measures::WINDOW, Event::Window);
                }
            }
        }
    }

    /// When a node is lost next.
    fn fate(&mut self, node: usize) {
        if self.p.node_mtbf > 0.0 {
            let mut chance = Chance::of(&[self.seed, 4, node as u64, u64::from(self.machines[node].epoch)]);
            let time = self.now + chance.exponential(self.p.node_mtbf);
            self.at(time, Event::Lost(node));
        }
    }

    fn arrive(&mut self, job: usize) {
        let asked = &self.jobs[job];
        let chunks = asked.chunks(self.chunk_seconds);
        self.left[job] = chunks.len();
        for (n, frames) in chunks.into_iter().enumerate() {
            let seconds = f64::from(frames) * asked.frame_seconds;
            self.ask_for(Task::new((job, 2 * n), frames, seconds, asked.class));
        }
    }

    /// A task waits from now on; its number.
    fn ask_for(&mut self, task: Task) -> i64 {
        self.tasks.push(Task { ready_at: self.now, ..task });
        let id = self.tasks.len() as i64 - 1;
        let item = self.item(id);
        self.watch.waits(&item, self.now);
        self.farm.add(item);
        id
    }

    fn item(&mut self, id: i64) -> Item {
        let task = &self.tasks[id as usize];
        let job = &self.jobs[task.job];
        let package = self.packages.entry(job.template).or_insert_with(|| job.template.to_string().into());
        Item {
            id,
            class: task.class,
            tenant: tenant(job.tenant),
            package: Some(package.clone()),
            package_bytes: job.package_bytes,
            seconds: f64::from(task.frames) * job.expected_frame_seconds,
            is_known: true,
            needs: Labels::new(),
            avoid: task.avoid.into_iter().collect(),
            ready_at: task.ready_at,
            priority: 0,
        }
    }

    fn give_out(&mut self) {
        self.give_what_waits();
        let late = self.farm.late(self.now, &self.idle());
        for id in late {
            let Task { job, no, frames, seconds, twin: None, .. } = self.tasks[id as usize] else { continue };
            let avoid = self.farm.worked_on(id).map(|run| run.node);
            let twin = Task { twin: Some(id), avoid, ..Task::new((job, no + 1), frames, seconds, Class::Spare) };
            self.tasks[id as usize].twin = Some(self.ask_for(twin));
            self.give_what_waits();
        }
    }

    fn idle(&self) -> Vec<Uuid> {
        let up = self.machines.iter().filter(|machine| machine.up);
        up.flat_map(|machine| std::iter::repeat_n(machine.id, machine.free as usize)).collect()
    }

    fn give_what_waits(&mut self) {
        let idle = self.idle();
        if idle.is_empty() || self.farm.waiting().len() == 0 {
            return;
        }
        let given = self.farm.assign(self.now, &idle);
        let busy = given.len();
        for visit in given {
            self.visit(self.by_id[&visit.node], visit.items);
        }
        if busy < idle.len() && self.is_idle_with_work(idle.len() - busy) {
            self.watch.idle_with_work += 1;
        }
    }

    /// Whether so many slots are more than are kept for stills while something waits, or a still waits for them. What waits to be done
    /// a second time may wait for another node.
    fn is_idle_with_work(&self, free: usize) -> bool {
        let waits = |stills: bool| {
            let mut others = self.farm.waiting().filter(|item| item.class != Class::Spare);
            others.any(|item| (item.class == Class::Snapshot) == stills)
        };
        let up = |machine: &&Machine| machine.up;
        let slots = self.machines.iter().filter(up).count() as f64 * f64::from(self.p.slots);
        // The farm hears of what a lost node had only when its lease has ended.
        let lost = self.farm.running().filter(|run| !self.machines[self.by_id[&run.node]].up).count();
        let kept = (slots * self.farm.policy().reserve).round() as usize + lost;
        waits(true) || free > kept && waits(false)
    }

    /// A node does some items, one after the other.
    fn visit(&mut self, node: usize, ids: Vec<i64>) {
        let first = ids[0];
        let begins_with = self.item(first);
        let mut time = self.now + self.prepare(node, &begins_with);
        let machine = &mut self.machines[node];
        machine.free -= 1;
        let epoch = machine.epoch;
        let mut left = ids.into_iter();
        for id in left.by_ref() {
            let task = &mut self.tasks[id as usize];
            task.attempts += 1;
            task.begun_at.get_or_insert(self.now);
            let item = self.farm.worked_on(id).map(|run| run.item.clone());
            item.iter().for_each(|item| self.watch.begins(item, self.now));
            self.machines[node].running.insert(id);
            if let Some(from) = self.farm.late_from(id).filter(|from| from.is_finite() && self.p.slow.0 > 0.0) {
                self.at(from + 1e-3, Event::Look);
            }
            let mut chance = self.chance(3, id);
            let crashes = chance.happens(self.p.crash);
            let fails = crashes || chance.happens(self.p.task_failure);
            let chunk = item.is_some_and(|item| item.class != Class::Snapshot);
            let slow = chunk && self.p.slow.0 > 0.0 && chance.happens(self.p.slow.0);
            let seconds = self.tasks[id as usize].seconds * if slow { self.p.slow.1 } else { 1.0 };
            time += if fails { seconds * chance.even() } else { seconds };
            self.at(time, Event::Ends { node, epoch, id, well: !fails });
            if crashes {
                break;
            }
        }
        // What the renderer took with it when it crashed.
        let rest: Vec<i64> = left.collect();
        for id in &rest {
            let item = self.farm.worked_on(*id).map(|run| run.item.clone());
            item.iter().for_each(|item| self.watch.begins(item, self.now));
            self.at(time, Event::Ends { node, epoch, id: *id, well: false });
        }
        self.machines[node].running.extend(rest);
        self.at(time, Event::Free { node, epoch, first });
    }

    /// What chance has in store for an attempt at a task.
    fn chance(&self, what: u64, id: i64) -> Chance {
        let Task { job, no, attempts, .. } = self.tasks[id as usize];
        Chance::of(&[self.seed, what, job as u64, no as u64, attempts])
    }

    /// Fetches a package if it must, starts the renderer and opens it; how long that takes.
    fn prepare(&mut self, node: usize, first: &Item) -> f64 {
        let Some(package) = first.package.clone() else { return 0.0 };
        let mut chance = self.chance(2, first.id);
        let start = chance.lognormal(self.p.start_seconds.0, self.p.start_seconds.1);
        let machine = &mut self.machines[node];
        let held = machine.held.iter().position(|(one, _)| *one == package);
        let warm = self.p.keep_warm && machine.warm.as_ref() == Some(&package);
        self.watch.visit(held.is_some(), !warm);
        let missing = if held.is_some() { 0 } else { first.package_bytes };
        let entry = held.map_or((package.clone(), first.package_bytes), |at| machine.held.remove(at));
        machine.held.push(entry);
        while machine.held.len() > 1
            && machine.held.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() > self.p.cache_bytes
        {
            machine.held.remove(0);
        }
        machine.warm = Some(package).filter(|_| self.p.keep_warm);
        self.tell(node);
        let opened = if warm { 0.0 } else { start + self.p.open_seconds };
        missing as f64 / self.p.bytes_per_second + opened
    }

    /// Tells the farm how a node is.
    fn tell(&mut self, node: usize) {
        let machine = &self.machines[node];
        self.farm.set_node(Node {
            may_work: machine.up,
            held: machine.held.iter().map(|(package, _)| package.clone()).collect(),
            warm: machine.warm.clone(),
            bytes_per_second: self.p.bytes_per_second,
            ..Node::new(machine.id, Labels::new(), self.p.slots)
        });
    }

    fn end(&mut self, node: usize, id: i64, well: bool) {
        self.machines[node].running.remove(&id);
        let Some(run) = self.farm.worked_on(id).cloned() else { return };
        self.farm.finish(id, self.now);
        self.watch.ends(&run, self.now, well);
        let task = &mut self.tasks[id as usize];
        if !well {
            self.at(self.now + PAUSE, Event::Back(vec![id]));
            return;
        }
        self.watch.frames += u64::from(task.frames);
        self.watch.twice += u64::from(std::mem::replace(&mut task.done, true));
        let (job, twin) = (task.job, task.twin);
        twin.into_iter().for_each(|twin| self.stop(twin));
        self.left[job] -= 1;
        if self.left[job] == 0 {
            self.open -= 1;
            self.watch.done.push((job, self.now));
        }
    }

    /// What somebody else was faster at is over, wherever it stands.
    fn stop(&mut self, id: i64) {
        self.tasks[id as usize].done = true;
        if let Some(item) = self.farm.withdraw(id) {
            self.watch.waits_no_more(&item);
        }
        let Some(run) = self.farm.worked_on(id).cloned() else { return };
        self.farm.finish(id, self.now);
        self.watch.ends(&run, self.now, false);
        let machine = &mut self.machines[self.by_id[&run.node]];
        // One that is lost has nothing to stop.
        if machine.running.remove(&id) {
            machine.free += 1;
            machine.stopped.insert(id);
        }
    }

    fn again(&mut self, id: i64) {
        if self.tasks[id as usize].done {
            return;
        }
        if let Some(run) = self.farm.worked_on(id).cloned() {
            self.farm.finish(id, self.now);
            self.watch.ends(&run, self.now, false);
        }
        let item = Item { ready_at: self.now, ..self.item(id) };
        self.watch.waits(&item, self.now);
        self.farm.add(item);
    }

    fn lose(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.up = false;
        machine.epoch += 1;
        machine.stopped.clear();
        let lost: Vec<i64> = machine.running.drain().collect();
        self.tell(node);
        self.at(self.now + self.p.lease_seconds, Event::Back(lost));
        self.at(self.now + self.p.node_away, Event::Returns(node));
    }
}
