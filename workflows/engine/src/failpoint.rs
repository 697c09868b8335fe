//! Named points before and after every statement, commit and wake-up, at which a test may kill or stop this process, or cut
//! its connection. Without the feature `failpoints` nothing of it is left in the program.
//!
//! ```text
//!   FLATRENDER_FAILPOINTS          task.pump.after:3=kill,step.commit.after=cut      the third pass, the first pass
//!   FLATRENDER_FAILPOINTS_REACHED  a file that gets a line for each point and side when it is first reached
//! ```
//! `kill` ends the process on the spot; `stop` stops it until somebody sends SIGCONT; `cut` before a statement is one that was
//! never sent, after it one that was done and whose answer is lost.

macro_rules! points {
    ($($point:ident $name:literal)+) => {
        /// Where something leaves this process for the database or for another part of it. Named `noun.verb`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // The name says it.
        pub enum Point { $($point),+ }

        #[cfg(any(test, feature = "failpoints"))]
        impl Point {
            /// All of them: a suite that goes through this list forgets none.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name),+ }
            }
        }
    };
}

points! {
    // Runs, for whoever starts and steers them.
    RunInsert "run.insert"
    RunInsertAll "run.insert_all"
    RunByKey "run.by_key"
    RunId "run.id"
    RunNow "run.now"
    RunCancel "run.cancel"
    RunSignal "run.signal"
    RunResume "run.resume"
    // Steps and the record.
    StepBegin "step.begin"
    StepRecord "step.record"
    StepCommit "step.commit"
    StepRollback "step.rollback"
    StepFind "step.find"
    StepsSettle "step.settle"
    RecordAll "record.all"
    RecordNewer "record.newer"
    // The round trips of a worker.
    TaskPump "task.pump"
    TaskStart "task.start"
    TaskDisown "task.disown"
    TaskRenew "task.renew"
    TaskStanding "task.standing"
    TaskEndedAs "task.ended_as"
    JobPump "job.pump"
    JobDisown "job.disown"
    JobInsert "job.insert"
    JobRevive "job.revive"
    // Its life.
    WorkerConnect "worker.connect"
    WorkerNumber "worker.number"
    WorkerLock "worker.lock"
    WorkerInsert "worker.insert"
    WorkerOffer "worker.offer"
    ResumeMismatched "worker.resume_mismatched"
    WorkerTryLock "worker.try_lock"
    WorkerResume "worker.resume"
    WorkerSweep "worker.sweep"
    WorkerReleaseJobs "worker.release_jobs"
    WorkerEnd "worker.end"
    RemoteSeen "remote.seen"
    // Wake-ups: sent, received, handed on inside the process.
    Notify "wakeup.notify"
    ListenConnect "wakeup.connect"
    Listen "wakeup.listen"
    Heard "wakeup.heard"
    Ring "wakeup.ring"
    Deliver "wakeup.deliver"
    // Operations.
    Audit "operation.audit"
    RetryNow "operation.retry_now"
    ForceRelease "operation.force_release"
    Skip "operation.skip"
    SetPriority "operation.set_priority"
    Purge "operation.purge"
    Fork "operation.fork"
    SetAttributes "operation.set_attributes"
    PauseQueue "operation.pause_queue"
    ResumeQueue "operation.resume_queue"
    // The clerk.
    FoldCounts "clerk.fold"
    RunsByKind "clerk.runs"
    ReadyByQueue "clerk.queues"
    ParkedByReason "clerk.parked"
    OldestSnapshot "clerk.snapshot"
    BulkInsert "bulk.insert"
    BulkTurn "bulk.turn"
    BulkBegin "bulk.begin"
    BulkPick "bulk.pick"
    BulkFind "bulk.find"
    BulkItems "bulk.items"
    BulkItemBegin "bulk.item_begin"
    BulkItemCommit "bulk.item_commit"
    BulkItemRollback "bulk.item_rollback"
    BulkEndItems "bulk.end_items"
    BulkCommit "bulk.commit"
    // Schedules.
    ScheduleInsert "schedule.insert"
    ScheduleUpdate "schedule.update"
    SchedulePause "schedule.pause"
    ScheduleDelete "schedule.delete"
    ScheduleLock "schedule.lock"
    ScheduleFind "schedule.find"
    ScheduleBegin "schedule.begin"
    SchedulePick "schedule.pick"
    SchedulePickBuffered "schedule.pick_buffered"
    ScheduleLive "schedule.live"
    ScheduleNote "schedule.note"
    ScheduleAdvance "schedule.advance"
    ScheduleCommit "schedule.commit"
    // Retention.
    RetentionFind "retention.find"
    RetentionHurry "retention.hurry"
    RetentionRetire "retention.retire"
    RetentionPartition "retention.partition"
    RetentionCommit "retention.commit"
    // The schema.
    SchemaCommit "schema.commit"
}

/// Something asynchronous that has points around it.
pub(crate) trait At: Future + Sized {
    /// Passes the point before it begins and after it has ended.
    #[cfg(feature = "failpoints")]
    fn at<T, E>(self, point: Point) -> impl Future<Output = Result<T, E>> + Send
    where
        Self: Future<Output = Result<T, E>> + Send,
        E: From<sqlx::Error>,
    {
        async move {
            armed::pass(point, armed::Side::Before)?;
            let outcome = self.await;
            armed::pass(point, armed::Side::After)?;
            outcome
        }
    }

    /// Nothing.
    #[cfg(not(feature = "failpoints"))]
    #[inline(always)]
    fn at(self, _: Point) -> Self {
        self
    }
}

impl<F: Future> At for F {}

/// Passes the point before and after something that happens at once; it cannot be cut.
#[inline(always)]
pub(crate) fn around<T>(point: Point, what: impl FnOnce() -> T) -> T {
    #[cfg(feature = "failpoints")]
    let _ = armed::pass(point, armed::Side::Before);
    let done = what();
    #[cfg(feature = "failpoints")]
    let _ = armed::pass(point, armed::Side::After);
    let _ = point;
    done
}

#[cfg(feature = "failpoints")]
mod armed {
    use super::Point;
    use std::{
        collections::HashSet,
        io::Write as _,
        sync::{
            Mutex, OnceLock, PoisonError,
            atomic::{AtomicU32, Ordering},
        },
    };

    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(super) enum Side {
        Before,
        After,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        Kill,
        Stop,
        Cut,
    }

    /// What is to happen at the n-th pass of a point.
    #[derive(Debug)]
    struct Trap {
        place: String,
        pass: u32,
        action: Action,
        passed: AtomicU32,
    }

    impl Trap {
        fn read(text: &str) -> Self {
            let (place, action) = text.split_once('=').unwrap_or((text, "kill"));
            let (place, pass) = place.split_once(':').unwrap_or((place, "1"));
            let action = match action {
                "kill" => Action::Kill,
                "stop" => Action::Stop,
                "cut" => Action::Cut,
                other => panic!("a failpoint kills, stops or cuts; it cannot {other:?}"),
            };
            let known = Point::ALL
                .iter()
                .any(|point| place.strip_prefix(point.name()).is_some_and(|side| matches!(side, ".before" | ".after")));
            assert!(known, "there is no failpoint {place:?}");
            let pass = pass.parse().unwrap_or_else(|_| panic!("{text:?} has no number of a pass"));
            Self { place: place.to_owned(), pass, action, passed: AtomicU32::new(0) }
        }
    }

    pub(super) fn pass(point: Point, side: Side) -> Result<(), sqlx::Error> {
        static TRAPS: OnceLock<Vec<Trap>> = OnceLock::new();
        note(point, side);
        let traps = TRAPS.get_or_init(|| {
            let traps = std::env::var("FLATRENDER_FAILPOINTS").unwrap_or_default();
            traps.split(',').filter(|text| !text.is_empty()).map(Trap::read).collect()
        });
        if traps.is_empty() {
            return Ok(());
        }
        let place = place(point, side);
        for trap in traps.iter().filter(|trap| trap.place == place) {
            if trap.passed.fetch_add(1, Ordering::SeqCst) + 1 != trap.pass {
                continue;
            }
            match trap.action {
                Action::Kill => std::process::abort(),
                Action::Stop => stop(),
                Action::Cut => {
                    let gone = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "cut at a failpoint");
                    return Err(sqlx::Error::Io(gone));
                }
            }
        }
        Ok(())
    }

    fn place(point: Point, side: Side) -> String {
        format!("{}.{}", point.name(), if side == Side::Before { "before" } else { "after" })
    }

    /// Stops this process until somebody lets it go on.
    fn stop() {
        let me = std::process::id().to_string();
        let _ = std::process::Command::new("kill").args(["-STOP", &me]).status();
    }

    /// Writes down that a point was reached, once.
    fn note(point: Point, side: Side) {
        type Notes = Mutex<(std::fs::File, HashSet<(Point, Side)>)>;
        static FILE: OnceLock<Option<Notes>> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let path = std::env::var_os("FLATRENDER_FAILPOINTS_REACHED")?;
            let file = std::fs::File::options().create(true).append(true).open(path).ok()?;
            Some(Mutex::new((file, HashSet::new())))
        });
        let Some(file) = file else { return };
        let (file, known) = &mut *file.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert((point, side)) {
            let _ = writeln!(file, "{}", place(point, side));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Point;
    use std::{collections::HashSet, path::Path};

    /// Functions of the store that only look, and only for people who ask: nothing depends on their end.
    const LOOKS: &[&str] = &[
        "runs.rs find",
        "runs.rs tenant_of",
        "steps.rs history",
        "steps.rs newest",
        "tasks.rs holds",
        "tasks.rs holds_for_share",
        "tasks.rs input",
        "tasks.rs tenant_of",
        "tasks.rs lease_of",
        "tasks.rs past_lease",
        "tasks.rs had_lease",
        "tasks.rs of_run",
        "jobs.rs unfinished",
        "retention.rs named_payloads",
        "limits.rs terms",
        "limits.rs all_terms",
        "limits.rs shares",
        "limits.rs limits",
        "bulk.rs bulk_counts",
        "bulk.rs left_over",
        "bulk.rs mended",
        "bulk.rs evidence_of",
        "bulk.rs causes",
        "overview.rs children",
        "overview.rs offers_now",
        "overview.rs leased_by_queue",
        "overview.rs versions",
        "overview.rs failed_lately",
        "overview.rs culprits",
        "overview.rs bulks",
        "overview.rs audit_before",
        "overview.rs audit_window_end",
        "overview.rs audit_after",
        "overview.rs newest_audit",
        "find.rs window_end",
        "find.rs find",
        "find.rs lines",
        "operations.rs audit_of",
        "operations.rs task_of",
        "operations.rs lineage_of",
        "operations.rs made_from",
        "operations.rs attempts_of",
        "operations.rs marks_of",
        "operations.rs totals",
        "operations.rs totals_by_kind",
        "operations.rs paused_queues",
        "operations.rs paused",
        "operations.rs facts",
        "operations.rs offers",
        "operations.rs ahead",
        "operations.rs in_use",
        "operations.rs live_child",
        "schedules.rs id_of",
        "schedules.rs list",
        "schedules.rs failing",
        "schedules.rs fires",
    ];

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }

    fn all_sources() -> Vec<(String, String)> {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        found
    }

    #[test]
    fn every_statement_of_the_store_has_a_point() {
        let mut bare = Vec::new();
        for (path, text) in all_sources().iter().filter(|(path, _)| path.contains("/store/")) {
            let file = path.rsplit('/').next().unwrap();
            for function in text.split("async fn ").skip(1) {
                let name = function.split(['(', '<']).next().unwrap();
                let statements = function.matches(".execute(").count() + function.matches(".fetch_").count();
                let points = function.matches(".at(Point::").count();
                if points < statements && !LOOKS.contains(&format!("{file} {name}").as_str()) {
                    bare.push(format!("{file} {name}: {statements} statements, {points} points"));
                }
            }
        }
        assert!(bare.is_empty(), "give these statements an `.at(Point::…)`, see src/failpoint.rs: {bare:#?}");
    }

    #[test]
    fn every_commit_and_every_point_is_in_its_place() {
        let sources: Vec<_> = all_sources()
            .into_iter()
            .filter(|(path, _)| !path.ends_with("failpoint.rs") && !path.contains("/testing"))
            .collect();
        for (path, text) in &sources {
            let code = text.split("#[cfg(test)]").next().unwrap();
            let commits = code.lines().filter(|line| line.contains(".commit()") && !line.trim().starts_with("//"));
            for line in commits {
                assert!(line.contains(".at(Point::"), "a commit without a point in {path}: {line}");
            }
        }
        let used = |point: &Point| sources.iter().any(|(_, text)| text.contains(&format!("Point::{point:?}")));
        let unused: Vec<_> = Point::ALL.iter().filter(|point| !used(point)).collect();
        assert!(unused.is_empty(), "nothing passes {unused:?}");
        let names: HashSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
    }
}
