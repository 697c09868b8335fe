//! What an earlier process of this agent left: its renderers are killed, its attempts taken up again.

use super::{journal::Entry, probe, work::Node};
use crate::aerender::process;
use std::fs;

/// Kills whatever still runs for attempts in the journal, and removes folders that belong to none.
/// Gives the attempts: whether they are still ours is found out by renewing them. One whose processes cannot be killed stays in the
/// journal for the next start: a second renderer would write into its folder, too.
pub async fn recover(node: &Node) -> Vec<Entry> {
    probe::clear_away(&node.config).await;
    let mut ours = Vec::new();
    for entry in node.journal.entries() {
        if process::kill_remains(entry.renderer.as_ref(), entry.task.lease_token).await {
            tracing::info!(task.id = entry.task.task_id, run.id = %entry.task.run_id, "taking up an earlier attempt");
            ours.push(entry);
        } else {
            tracing::error!(
                task.id = entry.task.task_id, run.id = %entry.task.run_id,
                "processes of an earlier attempt cannot be killed: it is left alone until the next start"
            );
        }
    }
    remove_strays(node);
    ours
}

fn remove_strays(node: &Node) {
    let known = node.journal.tokens();
    let folders = fs::read_dir(node.attempts()).into_iter().flatten().flatten();
    for stray in folders.filter(|f| !known.contains(f.file_name().to_string_lossy().as_ref())) {
        if let Err(error) = fs::remove_dir_all(stray.path()) {
            tracing::warn!(path = %stray.path().display(), %error, "cannot remove a stray folder");
        }
    }
}
