//! Which node gets which task: the farm of [`flatrender_dispatch`], kept from the database.
//!
//! ```text
//!   claim ──▶ polls that wait ─┐
//!                              ├─ assign ──▶ chosen tasks ──▶ lease, if they are still ready ──▶ answer
//!   tasks, nodes ──read──▶ Farm┘                                 └ somebody was faster: again
//! ```
//! Each process of the API keeps a farm of its own. It is a picture and may be late: PostgreSQL alone leases, and what another
//! process has taken meanwhile is chosen again from a new picture. It is read anew when work is announced, and at least every
//! second while nodes wait.

use crate::{app::App, problem::Problem};
use flatrender_dispatch::{Class, Farm, Item, Labels, Node, Policy, Why};
use flatrender_engine::Activity as _;
use flatrender_engine::remote::wire::Claim;
use flatrender_workflows::{
    contracts::{
        node::labels,
        render::{Late, NODE_QUEUE, RenderFrames},
        snapshot::{RenderStills, SNAPSHOT_QUEUE},
        storage::BlobHash,
    },
    models::{
        Role, Scope,
        identity::quota,
        render::{
            backlog::{self, Backlog, Detail},
            frame_attempt,
            node::{self, Known},
        },
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// A picture that is older is read anew before anything is decided by it.
const PICTURE: Duration = Duration::from_secs(1);
/// Nodes that do not ask are looked at this often.
const NODES: Duration = Duration::from_secs(5);
/// Nodes that were heard of are noted together this often.
const NOTES: Duration = Duration::from_secs(2);
/// Most ready tasks of a queue that are looked at.
const MOST_READY: i64 = 20_000;
/// Whoever was given a task and has not leased it by then has gone away.
const LEASED_WITHIN: Duration = Duration::from_secs(5);
/// Seconds of a frame, and of a still, of which nothing is known.
const FRAME_SECONDS: f64 = 0.25;
const STILL_SECONDS: f64 = 2.0;
/// Stands before the name of an activity, as a label of nodes that can do it.
const DOES: &str = "does.";

/// The farm of this process.
#[derive(Debug)]
pub struct Placement {
    state: Mutex<State>,
    /// When the reading began that the picture comes from.
    reading: tokio::sync::Mutex<Option<Instant>>,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct State {
    farm: Farm,
    names: HashMap<String, Uuid>,
    polls: Vec<Poll>,
    /// Chosen here, and not seen leased yet.
    given: HashMap<i64, Instant>,
    /// Tasks that rather do not go to nodes of these names.
    avoid: HashMap<i64, Vec<String>>,
    /// How well nodes have done of late; 1 where nothing is known.
    health: HashMap<Uuid, f64>,
    /// Runs that ask for tasks, and under which key.
    asked_by: HashMap<i64, (Uuid, String)>,
    /// Tasks that nodes are late with, and whose runs have not been told.
    late: Vec<LateTask>,
    /// The clock of the database, and when it was read.
    clock: (f64, Instant),
    nodes_read: Option<Instant>,
}

/// A task that a node is late with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateTask {
    /// Whose it is.
    pub tenant_id: Uuid,
    /// The run that asks for it.
    pub run_id: Uuid,
    /// Its key in the run.
    pub key: String,
    /// Who is late.
    pub late: Late,
}

#[derive(Debug)]
struct Poll {
    node: Uuid,
    slots: usize,
    answer: oneshot::Sender<Vec<i64>>,
}

#[derive(Debug, Default)]
struct Notes {
    heard: HashMap<Uuid, Uuid>,
    written: Option<Instant>,
}

impl Default for Placement {
    fn default() -> Self {
        let state = State {
            farm: Farm::new(Policy::production()),
            names: HashMap::new(),
            polls: Vec::new(),
            given: HashMap::new(),
            avoid: HashMap::new(),
            health: HashMap::new(),
            asked_by: HashMap::new(),
            late: Vec::new(),
            clock: (0.0, Instant::now()),
            nodes_read: None,
        };
        Self { state: Mutex::new(state), reading: tokio::sync::Mutex::default(), notes: Mutex::default() }
    }
}

/// The queues of nodes.
pub fn queues() -> [String; 2] {
    [NODE_QUEUE.to_owned(), SNAPSHOT_QUEUE.to_owned()]
}

impl Placement {
    /// Notes that a node was heard of. Those of one time are written together.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn note(&self, app: &App, node_id: Uuid, incarnation: Uuid) -> Result<(), Problem> {
        let due: Vec<(Uuid, Uuid)> = {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            notes.heard.insert(node_id, incarnation);
            if notes.written.is_some_and(|at| at.elapsed() < NOTES) {
                return Ok(());
            }
            notes.written = Some(Instant::now());
            std::mem::take(&mut notes.heard).into_iter().collect()
        };
        let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
        node::seen(&mut tx, &due).await?;
        Ok(tx.commit().await?)
    }

    /// A node says what it is and does, as it asks for work.
    pub fn greet(&self, known: &Known, asked: &Claim) {
        let mut state = self.state();
        let mut node = Node { present: true, ..state.as_node(known) };
        for (label, value) in &asked.labels {
            node.labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
        for (name, queue) in [(RenderFrames::NAME, NODE_QUEUE), (RenderStills::NAME, SNAPSHOT_QUEUE)] {
            let does = |named: &[String], one: &str| named.is_empty() || named.iter().any(|each| each == one);
            if !does(&asked.activities, name) || !does(&asked.queues, queue) {
                node.labels.remove(&format!("{DOES}{name}"));
            }
        }
        state.names.insert(known.name.clone(), known.id);
        state.farm.set_node(node);
    }

    /// What is known of the nodes holds no longer: it is read anew with the next picture.
    pub fn nodes_have_changed(&self) {
        self.state().nodes_read = None;
    }

    /// A node waits for work with so many free slots.
    pub fn wait(self: &Arc<Self>, node: Uuid, slots: u32) -> Place {
        let (answer, chosen) = oneshot::channel();
        self.state().polls.push(Poll { node, slots: slots.clamp(1, 64) as usize, answer });
        Place { placement: self.clone(), chosen }
    }

    /// Whether one of these tasks waits for a node, as far as is known.
    pub fn one_waits(&self, ids: &[i64]) -> bool {
        let state = self.state();
        ids.iter().any(|id| state.farm.waits(*id))
    }

    /// Gives out what can be given to the nodes that wait.
    pub fn assign(&self) {
        let mut state = self.state();
        state.polls.retain(|poll| !poll.answer.is_closed());
        if state.polls.is_empty() {
            return;
        }
        let began = Instant::now();
        let now = state.now();
        let idle: Vec<Uuid> = state.polls.iter().flat_map(|poll| vec![poll.node; poll.slots]).collect();
        let mut chosen: HashMap<Uuid, Vec<Vec<i64>>> = HashMap::new();
        for given in state.farm.assign(now, &idle) {
            chosen.entry(given.node).or_default().push(given.items);
        }
        metrics::histogram!("flatrender_farm_decision_seconds").record(began.elapsed().as_secs_f64());
        for poll in std::mem::take(&mut state.polls) {
            let share =
                chosen.get_mut(&poll.node).map(|visits| visits.split_off(visits.len().saturating_sub(poll.slots)));
            let ids: Vec<i64> = share.into_iter().flatten().flatten().collect();
            if ids.is_empty() {
                state.polls.push(poll);
                continue;
            }
            state.given.extend(ids.iter().map(|id| (*id, began)));
            if let Err(ids) = poll.answer.send(ids) {
                ids.into_iter().for_each(|id| state.put_back(id));
            }
        }
        state.look_for_late(now);
    }

    /// Tasks that nodes are late with while others have nothing to do. Each stands here until it is [`Placement::told`].
    pub fn late(&self) -> Vec<LateTask> {
        self.state().late.clone()
    }

    /// These runs know.
    pub fn told(&self, late: &[LateTask]) {
        self.state().late.retain(|task| !late.contains(task));
    }

    /// What became of tasks that were chosen: those that are not `leased` went to somebody else.
    pub fn settle(&self, chosen: &[i64], leased: &[i64]) {
        let mut state = self.state();
        let now = state.now();
        for id in chosen {
            state.given.remove(id);
            if !leased.contains(id) {
                state.farm.finish(*id, now);
            }
        }
    }

    /// Why a run of a tenant waits for nodes, in a sentence; none when it does not, or they work on it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn why_waiting(&self, app: &App, tenant_id: Uuid, run_id: Uuid) -> Result<Option<String>, Problem> {
        Ok(self.why(app, tenant_id, run_id).await?.as_ref().map(sentence))
    }

    /// The same, as the farm says it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn why(&self, app: &App, tenant_id: Uuid, run_id: Uuid) -> Result<Option<Why>, Problem> {
        let mut tx = app.db.begin(Scope::tenant(Role::Workflow, tenant_id)).await?;
        let tasks = backlog::waiting_of(&mut tx, run_id, &queues()).await?;
        drop(tx);
        if tasks.is_empty() {
            return Ok(None);
        }
        self.refresh(app).await?;
        let state = self.state();
        Ok(tasks.iter().find_map(|id| state.farm.why_waiting(*id, state.now()).into_iter().next()))
    }

    /// Reads where things stand, unless somebody has since `since`. Whoever comes while it is read waits for the next reading.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn read(&self, app: &App, since: Instant) -> Result<(), Problem> {
        let mut reading = self.reading.lock().await;
        if reading.is_some_and(|began| began >= since) {
            return Ok(());
        }
        let began = Instant::now();
        let queues = queues();
        let mut tx = app.db.begin(Scope::platform(Role::Workflow)).await?;
        let backlog = backlog::read(&mut tx, &queues, MOST_READY).await?;
        let unknown = self.state().unknown(&backlog);
        let details = if unknown.is_empty() { vec![] } else { backlog::details(&mut tx, &unknown).await? };
        if self.state().nodes_read.is_none_or(|at| at.elapsed() > NODES) {
            Scope::platform(Role::Render).enter(&mut tx).await?;
            let (nodes, health) = (node::standings(&mut tx, None).await?, frame_attempt::health(&mut tx).await?);
            Scope::platform(Role::Identity).enter(&mut tx).await?;
            let weights = quota::render_weights(&mut tx).await?;
            let mut state = self.state();
            state.health = health.into_iter().collect();
            state.farm.set_weights(weights.into_iter().map(|(tenant, weight)| (tenant, weight as f64)));
            state.meet(&nodes);
        }
        tx.commit().await?;
        self.state().see(&backlog, details, began);
        *reading = Some(began);
        metrics::histogram!("flatrender_farm_picture_seconds").record(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Reads where things stand when the picture is older than a second.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn refresh(&self, app: &App) -> Result<(), Problem> {
        let since = Instant::now().checked_sub(PICTURE);
        self.read(app, since.unwrap_or_else(Instant::now)).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's place among those that wait. Whoever leaves it gives back what was chosen for it.
#[derive(Debug)]
pub struct Place {
    placement: Arc<Placement>,
    chosen: oneshot::Receiver<Vec<i64>>,
}

impl Place {
    /// What was chosen for the node; waits for it.
    pub async fn chosen(&mut self) -> Vec<i64> {
        (&mut self.chosen).await.unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.chosen.close();
        if let Ok(ids) = self.chosen.try_recv() {
            let mut state = self.placement.state();
            ids.into_iter().for_each(|id| state.put_back(id));
        }
    }
}

impl State {
    /// The time, by the clock of the database.
    fn now(&self) -> f64 {
        self.clock.0 + self.clock.1.elapsed().as_secs_f64()
    }

    /// Tasks of which nothing is known yet, and those that came back from a node: who had them is news.
    fn unknown(&self, backlog: &Backlog) -> Vec<i64> {
        let back = |task: &backlog::Standing| task.leased_by.is_none() && !self.given.contains_key(&task.id);
        let known = |task: &&backlog::Standing| {
            self.farm.waits(task.id) || self.farm.worked_on(task.id).is_some() && !back(task)
        };
        backlog.tasks.iter().filter(|task| !known(task)).map(|task| task.id).collect()
    }

    /// Takes over all nodes there are. Those that wait for work have told more of themselves.
    fn meet(&mut self, nodes: &[Known]) {
        self.nodes_read = Some(Instant::now());
        self.names = nodes.iter().map(|known| (known.name.clone(), known.id)).collect();
        let heard: HashSet<Uuid> = self.polls.iter().map(|poll| poll.node).collect();
        let met = nodes.iter().map(|known| {
            let fresh = self.as_node(known);
            match self.farm.node(known.id) {
                // What it can do it has said itself; whether it may, only we know.
                Some(before) if heard.contains(&known.id) => Node { labels: before.labels.clone(), ..fresh },
                _ => fresh,
            }
        });
        let met: Vec<Node> = met.collect();
        self.farm.set_nodes(met);
    }

    /// Takes over a picture.
    fn see(&mut self, backlog: &Backlog, details: Vec<Detail>, began: Instant) {
        self.clock = (backlog.now, began);
        self.given.retain(|_, at| at.elapsed() < LEASED_WITHIN);
        let mut details: HashMap<i64, Detail> = details.into_iter().map(|detail| (detail.id, detail)).collect();
        let there: HashSet<i64> = backlog.tasks.iter().map(|task| task.id).collect();
        let gone = |id: &i64| !there.contains(id);
        let waiting: Vec<i64> = self.farm.waiting().map(|item| item.id).filter(gone).collect();
        waiting.into_iter().for_each(|id| drop(self.farm.withdraw(id)));
        let running: Vec<i64> = self.farm.running().map(|run| run.item.id).filter(gone).collect();
        // One that was chosen after the picture was begun is in nobody's picture yet.
        for id in running.into_iter().filter(|id| !self.given.contains_key(id)).collect::<Vec<_>>() {
            self.farm.finish(id, backlog.now);
        }
        for task in &backlog.tasks {
            if let Some(detail) = details.remove(&task.id) {
                if detail.activity == RenderFrames::NAME {
                    self.asked_by.insert(detail.id, (detail.run_id, detail.step_key.clone()));
                }
                if !detail.avoid.is_empty() {
                    self.avoid.insert(detail.id, detail.avoid.clone());
                }
                // One that still runs here stays as it is until it is put back.
                self.farm.add(as_item(detail, task.ready_at));
            }
            self.place(task);
        }
        self.avoid.retain(|id, _| there.contains(id));
        self.asked_by.retain(|id, _| there.contains(id));
        self.ask_last();
        self.farm.charge_more(backlog.now);
    }

    /// Where one task stands is where it stands for the farm.
    fn place(&mut self, task: &backlog::Standing) {
        let ours = self.farm.worked_on(task.id).map(|run| run.node);
        match (&task.leased_by, ours) {
            (None, Some(_)) if !self.given.contains_key(&task.id) => self.put_back(task.id),
            (Some(holder), ours) => {
                let node = self.node_of(holder);
                if ours.is_some_and(|ours| ours != node) {
                    self.put_back(task.id);
                }
                self.farm.start(task.id, node, task.leased_at.unwrap_or(self.clock.0));
            }
            _ => {}
        }
    }

    /// The engine's name of a remote worker is `node:`, the node's name, a colon and its incarnation.
    fn node_of(&self, holder: &str) -> Uuid {
        let name = holder.strip_prefix("node:").and_then(|rest| rest.rsplit_once(':')).map(|(name, _)| name);
        name.and_then(|name| self.names.get(name)).copied().unwrap_or_default()
    }

    fn put_back(&mut self, id: i64) {
        let now = self.now();
        self.given.remove(&id);
        if let Some(item) = self.farm.finish(id, now) {
            self.farm.add(item);
        }
    }

    /// What nodes that still wait might do a second time.
    fn look_for_late(&mut self, now: f64) {
        let idle: Vec<Uuid> = self.polls.iter().map(|poll| poll.node).collect();
        for id in self.farm.late(now, &idle) {
            let (Some((run_id, key)), Some(run)) = (self.asked_by.get(&id), self.farm.worked_on(id)) else { continue };
            let Some((node, _)) = self.names.iter().find(|(_, node)| **node == run.node) else { continue };
            let (run_id, key, late) = (*run_id, key.clone(), Late { node: node.clone() });
            self.late.push(LateTask { tenant_id: run.item.tenant, run_id, key, late });
        }
    }

    /// Nodes that an item had better not go to are left out while another node may do it; for what is done a second time, always.
    fn ask_last(&mut self) {
        let waiting: HashMap<i64, Item> = self
            .farm
            .waiting()
            .filter(|item| self.avoid.contains_key(&item.id))
            .map(|item| (item.id, item.clone()))
            .collect();
        for (id, item) in waiting {
            let ids: Vec<Uuid> = self.avoid[&id].iter().filter_map(|name| self.names.get(name).copied()).collect();
            let left_out = Item { avoid: ids, ..item.clone() };
            let others = item.class == Class::Spare || self.farm.somebody_may_do(&left_out);
            let avoid = if others { left_out.avoid } else { Vec::new() };
            if avoid != item.avoid {
                self.farm.add(Item { avoid, ..item });
            }
        }
    }

    /// A node as it is known.
    fn as_node(&self, known: &Known) -> Node {
        let standing = &known.standing;
        let package = |hash: &BlobHash| hash.to_string().into();
        let mut labels = standing.labels.clone();
        labels.extend([RenderFrames::NAME, RenderStills::NAME].map(|name| (format!("{DOES}{name}"), String::new())));
        Node {
            may_work: standing.may_work,
            present: known.present,
            tenant: standing.tenant_id,
            held: standing.held_packages.keys().map(package).collect(),
            warm: None, // Renderers are started for each visit.
            health: self.health.get(&known.id).copied().unwrap_or(1.0),
            blocked: standing.blocked_packages.iter().map(package).collect(),
            ..Node::new(known.id, labels, known.slots)
        }
    }
}

/// What an item asks of a node, for people.
/// A reason in words.
pub fn sentence(why: &Why) -> String {
    why.sentence(in_words)
}

/// Labels in words.
pub fn labels_in_words(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| in_words(key, value)).collect::<Vec<_>>().join(", ")
}

fn in_words(key: &str, value: &str) -> String {
    match key.strip_prefix(DOES) {
        Some(activity) => format!("an agent that can do {activity}"),
        None => labels::in_words(key, value),
    }
}

fn as_item(detail: Detail, ready_at: f64) -> Item {
    let stills = detail.activity == RenderStills::NAME;
    let frames = detail.frames.unwrap_or(1).max(1) as f64;
    let each = detail.p50_ms.map_or(if stills { STILL_SECONDS } else { FRAME_SECONDS }, |ms| ms as f64 / 1000.0);
    let mut needs = detail.labels.0;
    needs.insert(format!("{DOES}{}", detail.activity), String::new());
    Item {
        id: detail.id,
        class: match detail.class.as_deref() {
            _ if stills => Class::Snapshot,
            Some("preview") => Class::Preview,
            Some("repair") => Class::Repair,
            Some("spare") => Class::Spare,
            _ => Class::Final,
        },
        tenant: detail.tenant_id,
        package: detail.package.map(Into::into),
        package_bytes: detail.package_bytes.unwrap_or(0).unsigned_abs(),
        seconds: frames * each,
        is_known: detail.p50_ms.is_some(),
        needs,
        avoid: Vec::new(),
        ready_at,
        priority: detail.priority,
    }
}
