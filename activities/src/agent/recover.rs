//! What an earlier process of this agent left: its renderers are killed, its attempts taken up again.

use super::{journal::Entry, probe, work::Node};
use crate::aerender::process;
use std::{collections::HashSet, fs};

/// Kills whatever still runs for attempts in the journal, and removes folders that belong to none.
/// Gives the attempts: whether they are still ours is found out by renewing them.
pub async fn recover(node: &Node) -> Vec<Entry> {
    probe::clear_away(&node.config).await;
    let entries = node.journal.entries();
    for entry in &entries {
        let token = entry.task.lease_token;
        if process::kill_remains(entry.renderer.as_ref(), token).await {
            tracing::info!(task.id = entry.task.task_id, run.id = %entry.task.run_id, "taking up an earlier attempt");
        } else {
            tracing::error!(task.id = entry.task.task_id, "processes of an earlier attempt cannot be killed");
        }
    }
    remove_strays(node, &entries);
    entries
}

fn remove_strays(node: &Node, entries: &[Entry]) {
    let ours: HashSet<String> = entries.iter().map(|e| e.task.lease_token.to_string()).collect();
    let folders = fs::read_dir(node.attempts()).into_iter().flatten().flatten();
    for stray in folders.filter(|f| !ours.contains(f.file_name().to_string_lossy().as_ref())) {
        if let Err(error) = fs::remove_dir_all(stray.path()) {
            tracing::warn!(path = %stray.path().display(), %error, "cannot remove a stray folder");
        }
    }
}
