//! What a node is told when it is started.

use crate::aerender::Limits;
use flatrender_engine::Labels;
use std::{
    path::{self, Path, PathBuf},
    time::Duration,
};

/// Settings of an agent. How long leases and waits are is the server's to say.
#[derive(Clone)]
pub struct AgentConfig {
    /// Address of the server, such as `https://render.example.com`.
    pub server: String,
    /// One-time token; needed until the node is enrolled.
    pub token: Option<String>,
    /// Name of the machine.
    pub name: String,
    /// Folder for everything the agent keeps; a full path, since renderers work in folders of their own.
    pub data: PathBuf,
    /// Attempts at a time.
    pub slots: u32,
    /// Renderers by path; empty: the one beside this program and those in their usual places.
    pub renderers: Vec<PathBuf>,
    /// When a renderer is given up.
    pub limits: Limits,
    /// Longest wait of one request for work, at most 25 s.
    pub claim_wait: Duration,
    /// How long running attempts may go on after a shutdown was asked for.
    pub drain_grace: Duration,
    /// How long an attempt goes on without a word from the server, and how long its report is offered: whoever comes back in time
    /// has its task again, if nobody else was given it.
    pub offline_patience: Duration,
    /// No work is claimed with less room than this on the disk.
    pub disk_reserve_bytes: u64,
    /// What is said of the machine beside what it finds out itself: other labels that tasks may require.
    pub labels: Labels,
    /// Pause between reports of how it fares.
    pub pulse: Duration,
    /// Pause between looks for fonts, plug-ins and renderers that have come, gone or changed.
    pub look_again: Duration,
    /// Package of a probe for the engine that the node offers; none: the built-in one, which is for the built-in renderer.
    pub probe: Option<PathBuf>,
    /// Room for packages and assets that were fetched before.
    pub cache_bytes: u64,
    /// First and longest pause between requests that fail.
    pub retry: (Duration, Duration),
}

impl AgentConfig {
    /// The usual settings for a node that keeps its things in `data`.
    pub fn new(server: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            server: server.into().trim_end_matches('/').to_owned(),
            token: None,
            name: machine_name(),
            data: data.into(),
            slots: 1,
            renderers: Vec::new(),
            limits: Limits::default(),
            claim_wait: Duration::from_secs(20),
            drain_grace: Duration::from_secs(5),
            offline_patience: Duration::from_secs(3600),
            disk_reserve_bytes: 2 << 30,
            labels: Labels::new(),
            pulse: Duration::from_secs(10),
            look_again: Duration::from_secs(300),
            probe: None,
            cache_bytes: 20 << 30,
            retry: (Duration::from_millis(200), Duration::from_secs(10)),
        }
    }
}

/// Without the token.
impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("server", &self.server)
            .field("name", &self.name)
            .field("data", &self.data)
            .field("slots", &self.slots)
            .field("renderers", &self.renderers)
            .finish_non_exhaustive()
    }
}

/// The node's command line, the same for `flatrender node` and `flatrender-node`.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeArgs {
    /// Address of the server
    #[arg(long, env = "FLATRENDER_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// One-time token, needed until the node is enrolled
    #[arg(long, env = "FLATRENDER_NODE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Name of the machine; default: its host name
    #[arg(long, env = "FLATRENDER_NODE_NAME")]
    pub name: Option<String>,
    /// Folder for everything the node keeps
    #[arg(long, env = "FLATRENDER_NODE_DATA", value_name = "DIR", default_value = "flatrender-node-data")]
    pub data: PathBuf,
    /// Renders at a time
    #[arg(long, env = "FLATRENDER_NODE_SLOTS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub slots: u32,
    /// Renderer; may be given more than once; default: the built-in one and an installed After Effects
    #[arg(long = "renderer", env = "FLATRENDER_AERENDER", value_name = "PATH")]
    pub renderers: Vec<PathBuf>,
    /// Seconds that running attempts may go on after a shutdown was asked for
    #[arg(long, env = "FLATRENDER_NODE_DRAIN_SECONDS", default_value_t = 5)]
    pub drain_seconds: u64,
    /// A label that tasks may require, such as zone=b; may be given more than once
    #[arg(long = "label", env = "FLATRENDER_NODE_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Package that shows whether the renderer works (After Effects, where there is one, which needs it)
    #[arg(long, env = "FLATRENDER_NODE_PROBE", value_name = "ZIP")]
    pub probe: Option<PathBuf>,
    /// GiB of the disk that are left alone
    #[arg(long, env = "FLATRENDER_NODE_DISK_RESERVE_GB", default_value_t = 2)]
    pub disk_reserve_gb: u64,
    /// GiB for packages and assets that were fetched before
    #[arg(long, env = "FLATRENDER_NODE_CACHE_GB", default_value_t = 20)]
    pub cache_gb: u64,
}

impl From<NodeArgs> for AgentConfig {
    fn from(args: NodeArgs) -> Self {
        let usual = Self::new(args.server.unwrap_or_default(), full(args.data));
        Self {
            token: args.token.filter(|t| !t.is_empty()),
            name: args.name.unwrap_or_else(|| usual.name.clone()),
            slots: args.slots,
            renderers: args.renderers.into_iter().map(program).collect(),
            drain_grace: Duration::from_secs(args.drain_seconds),
            disk_reserve_bytes: args.disk_reserve_gb << 30,
            cache_bytes: args.cache_gb << 30,
            probe: args.probe.map(full),
            labels: args.labels.into_iter().collect(),
            ..usual
        }
    }
}

/// A path as it is seen from where the node is started. Renderers are started below the data folder, and read it from there.
fn full(path: PathBuf) -> PathBuf {
    path::absolute(&path).unwrap_or(path)
}

/// A renderer's path. A bare name stays one: the system looks for it among its programs, never in this folder.
fn program(path: PathBuf) -> PathBuf {
    if path.parent() == Some(Path::new("")) { path } else { full(path) }
}

/// `KEY=VALUE`.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    let fits = |part: &str| (1..=120).contains(&part.len()) && !part.contains(char::is_control);
    if fits(key) && fits(value) {
        Ok((key.to_owned(), value.to_owned()))
    } else {
        Err("key and value have 1 to 120 bytes".to_owned())
    }
}

/// The host's name, of the characters a node's name may have.
fn machine_name() -> String {
    let fine = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = host_name().chars().filter(fine).take(64).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

#[cfg(unix)]
fn host_name() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        node: NodeArgs,
    }

    #[test]
    fn every_path_of_the_command_line_is_a_full_one() {
        let words =
            ["node", "--data", "data", "--probe", "probe.zip", "--renderer", "bin/aerender", "--renderer", "aerender"];
        let config = AgentConfig::from(Line::parse_from(words).node);
        let here = std::env::current_dir().unwrap();
        assert_eq!((config.data, config.probe), (here.join("data"), Some(here.join("probe.zip"))));
        assert_eq!(config.renderers, [here.join("bin/aerender"), "aerender".into()]);
    }
}
