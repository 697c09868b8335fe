//! C1: who writes to the tables of work, and by which right. No database: the statements themselves are read.

use std::path::Path;

/// What a worker writes about an attempt: the token is in the statement, or in the one that has chosen its rows.
const FENCED: &[(&str, usize)] = &[
    ("advance", 1),
    ("advance_plain", 2),
    ("settle", 2),
    ("renew", 1),
    ("pump_jobs", 2), // The second is a claim.
    ("end_jobs", 2),
    ("steps.rs record", 1),
];

/// What those do with rows that their fence has let through, and that are locked.
const BEHIND_A_FENCE: &[(&str, usize)] = &[("withdraw", 2), ("leave", 1), ("end_runs", 1), ("end_run", 3)];

/// Adds a record to a run whose row is locked, whoever works on that run: the number of the record is all that changes.
const RECORDS: &[(&str, usize)] = &[("record", 1)];

/// Rows that nobody has leased.
const FREE_ROWS: &[(&str, usize)] = &[
    ("claim", 1),
    ("claim_these", 1),
    ("tasks.rs adopt", 1), // Back to its last holder, while it is nobody's.
    ("wake_due", 1),
    ("receive", 2),
    ("lease_warm", 2),
    ("take_from_line", 2),
    ("leave_lines", 2),
    ("enqueue_keyed", 1),
    ("revive_job", 2),
    ("resume", 1),
    ("resume_mismatched", 1),
    ("retry_now", 1),
];

/// What is not a worker's, and takes a lease away or leaves it as it is: a cancellation, a recovery, an operator, the end of an
/// incarnation that gives back what it has.
const OVER_LEASES: &[(&str, usize)] = &[
    ("cancel_locked", 2),
    ("recover_run", 1),
    ("note_sweep", 1),
    ("force_release", 2),
    ("skip_activity", 1),
    ("set_priority", 1),
    ("tasks.rs disown", 1),
    ("jobs.rs disown", 1),
];

/// Every function that writes to `workflow.tasks` or `workflow.jobs`, with its text.
fn writers() -> Vec<(String, usize, String)> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = [engine.join("../../migrations"), engine.join("src/store")]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let mut found: Vec<(String, usize, String)> = Vec::new();
    for file in files {
        let (name, text) = (file.file_name().unwrap().to_str().unwrap(), std::fs::read_to_string(&file).unwrap());
        let (begin, prefix) = match name.rsplit_once('.') {
            Some((_, "sql")) if name.contains("_workflow_") => ("function workflow.", String::new()),
            Some((_, "rs")) => ("async fn ", format!("{name} ")),
            _ => continue,
        };
        for function in text.split(begin).skip(1) {
            let called = function.split(['(', '<']).next().unwrap();
            let tables = ["tasks", "jobs"];
            let writes: usize = ["update workflow.", "delete from workflow."]
                .iter()
                .flat_map(|verb| tables.map(|table| format!("{verb}{table}")))
                .map(|write| {
                    function.match_indices(&write).filter(|(at, _)| ends_here(&function[at + write.len()..])).count()
                })
                .sum();
            let name = format!("{prefix}{called}");
            if writes > 0 {
                // A later migration replaces what an earlier one has made.
                found.retain(|(known, ..)| !prefix.is_empty() || *known != name);
                found.push((name, writes, function.to_owned()));
            }
        }
    }
    found
}

/// Whether the name of a table ends where `rest` begins.
fn ends_here(rest: &str) -> bool {
    !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

#[test]
fn whoever_writes_about_work_does_so_by_a_right_that_is_named_here() {
    let mut known: Vec<(&str, usize)> =
        [FENCED, BEHIND_A_FENCE, RECORDS, FREE_ROWS, OVER_LEASES].into_iter().flatten().copied().collect();
    let writers = writers();
    let mut found: Vec<(&str, usize)> = writers.iter().map(|(name, writes, _)| (name.as_str(), *writes)).collect();
    known.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, known, "a writer, and how often it writes: by which right?");
    for (name, _) in FENCED {
        let (_, _, text) = writers.iter().find(|(writer, ..)| writer == name).unwrap();
        let fenced = ["lease_token = g.token", "lease_token = $2", "lease_token = (o.op ->> 'token')::uuid"];
        assert!(fenced.iter().any(|fence| text.contains(fence)), "{name} writes without looking at the token");
    }
}
