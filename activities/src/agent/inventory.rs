//! What this machine can do: processors, memory, and the renderers that answer when they are asked.

use super::{AgentConfig, AgentError, disk, fonts, gpu, installs, plugins::Plugins};
use crate::aerender::process::{CommandLine, Tree};
use flatrender_engine::Labels;
use flatrender_workflows::contracts::{
    node::{Capabilities, Inventory as Installed, labels::OFFERED},
    render::Engine,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::io::{AsyncRead, AsyncReadExt};
use uuid::Uuid;

/// How long a renderer may take to say its version; After Effects may take a while on a cold disk.
const VERSION_PATIENCE: Duration = Duration::from_secs(60);
const VERSION_BYTES: u64 = 16 * 1024;
/// Main number of After Effects 2022.
const OLDEST: u32 = 22;
/// The label that says which engine a node offers.
const ENGINE: &str = "engine";
/// A word in the version line of our own renderer.
const OURS: &str = "flatrender";

/// The machine and its renderers.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// As the server is told.
    pub capabilities: Capabilities,
    /// Fonts, plug-ins, disk.
    pub installed: Installed,
    /// Program by engine label.
    pub programs: BTreeMap<&'static str, PathBuf>,
}

impl Inventory {
    /// Looks around. A renderer that does not answer is not offered.
    ///
    /// # Errors
    /// [`AgentError::NoRenderer`] when none answers.
    pub async fn take(config: &AgentConfig) -> Result<Self, AgentError> {
        let mut programs = BTreeMap::new();
        let mut renderers = BTreeMap::new();
        for program in candidates(config) {
            match ask_version(&program).await {
                Some((Engine::AfterEffects, version)) if is_too_old(&version) => {
                    tracing::warn!(program = %program.display(), version, "this After Effects is too old to be used");
                }
                Some((engine, version)) if !programs.contains_key(engine.label()) => {
                    tracing::info!(program = %program.display(), version, engine = engine.label(), "found a renderer");
                    programs.insert(engine.label(), program);
                    renderers.insert(engine.label().to_owned(), version);
                }
                Some(_) => {}
                None => tracing::warn!(program = %program.display(), "this is no renderer, or it does not answer"),
            }
        }
        if programs.is_empty() {
            return Err(AgentError::NoRenderer);
        }
        let capabilities = Capabilities {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            os: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            ram_mb: ram_mb(),
            slots: config.slots,
            labels: labels(&programs).into_iter().chain(config.labels.clone()).collect(),
            renderers,
        };
        Ok(Self { capabilities, installed: Installed::default(), programs }.with(&mut Plugins::default(), config).await)
    }

    /// The program of the engine that the node offers: tasks of another never come here, so that a probe has nothing to show of it.
    pub fn offered(&self) -> BTreeMap<&'static str, PathBuf> {
        let engine = self.capabilities.labels.get(ENGINE).map(String::as_str);
        let offered = self.programs.iter().filter(|(label, _)| engine == Some(**label));
        offered.map(|(label, program)| (*label, program.clone())).collect()
    }

    /// The same with what is installed now.
    async fn with(self, plugins: &mut Plugins, config: &AgentConfig) -> Self {
        let after_effects = Engine::AfterEffects.label();
        let newest = self.capabilities.renderers.get(after_effects).and_then(|line| installs::major(line));
        let renderer = self.programs.get(after_effects).cloned();
        let mut known = std::mem::take(plugins);
        let looked = tokio::task::spawn_blocking(move || {
            let plugins = renderer.map(|renderer| known.of(&renderer)).unwrap_or_default();
            (known, fonts::installed(), plugins, gpu::installed())
        });
        // A look that broke has seen nothing.
        let (known, mut fonts, mut effects, gpu) = looked.await.unwrap_or_default();
        *plugins = known;
        for (what, names) in [("fonts", &mut fonts), ("plug-ins", &mut effects)] {
            if names.len() > OFFERED.0 {
                tracing::warn!(what, found = names.len(), most = OFFERED.0, "there are more than can be told");
                names.truncate(OFFERED.0);
            }
        }
        let disk_free_mb = disk::free_bytes(&config.data).map(|bytes| bytes >> 20);
        let installed = Installed { after_effects: newest, fonts, plugins: effects, gpu, disk_free_mb };
        Self { installed, ..self }
    }
}

/// Looks at the machine again and again: what was installed, removed or updated is told without a start of the agent.
#[derive(Debug)]
pub struct Watch {
    now: Inventory,
    plugins: Plugins,
    /// How each renderer's file was when it was asked for its version.
    programs: BTreeMap<&'static str, Stamp>,
}

type Stamp = Option<(u64, Option<SystemTime>)>;

impl Watch {
    /// From what was found at the start.
    pub fn of(inventory: &Inventory) -> Self {
        let programs = inventory.programs.iter().map(|(engine, program)| (*engine, stamp(program))).collect();
        Self { now: inventory.clone(), plugins: Plugins::default(), programs }
    }

    /// What is there, as it was last looked at.
    pub fn inventory(&self) -> &Inventory {
        &self.now
    }

    /// Looks again; whether anything is other than before.
    pub async fn look(&mut self, config: &AgentConfig) -> bool {
        let mut found = self.now.clone();
        for (engine, program) in &self.now.programs {
            let stamp = stamp(program);
            if self.programs.get(engine) == Some(&stamp) {
                continue;
            }
            match ask_version(program).await {
                Some((same, version)) if same.label() == *engine => {
                    tracing::warn!(program = %program.display(), version, "the renderer was changed");
                    found.capabilities.renderers.insert((*engine).to_owned(), version);
                    self.programs.insert(*engine, stamp);
                }
                // It may be in the middle of an update: it is asked again with the next look.
                _ => tracing::warn!(program = %program.display(), "the renderer was changed, and does not answer"),
            }
        }
        let found = found.with(&mut self.plugins, config).await;
        let is_other = found.capabilities != self.now.capabilities || !same(&found.installed, &self.now.installed);
        self.now = found;
        is_other
    }
}

/// Whether the same is installed, however full the disk is.
fn same(one: &Installed, other: &Installed) -> bool {
    *one == Installed { disk_free_mb: one.disk_free_mb, ..other.clone() }
}

fn stamp(program: &Path) -> Stamp {
    program.metadata().ok().map(|file| (file.len(), file.modified().ok()))
}

/// Versions before 2022 do not know arguments that every render is started with.
fn is_too_old(version: &str) -> bool {
    installs::major(version).is_some_and(|major| major < OLDEST)
}

/// A task asks for one engine, so a node says one: After Effects where it is installed.
fn labels(programs: &BTreeMap<&'static str, PathBuf>) -> Labels {
    let preferred = [Engine::AfterEffects, Engine::Lottie].map(Engine::label);
    let engine = preferred.into_iter().find(|label| programs.contains_key(label));
    engine.map(|label| (ENGINE.to_owned(), label.to_owned())).into_iter().collect()
}

/// Named ones, or else the one beside this program and those in After Effects' usual places.
fn candidates(config: &AgentConfig) -> Vec<PathBuf> {
    if !config.renderers.is_empty() {
        return config.renderers.clone();
    }
    let name = format!("flatrender-aerender{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(name)));
    let mut found = installs::renderers();
    found.extend(beside);
    found.retain(|program| program.is_file());
    found
}

async fn ask_version(program: &Path) -> Option<(Engine, String)> {
    let line = CommandLine {
        program: program.to_owned(),
        args: vec!["-version".into()],
        folder: std::env::temp_dir(),
        env: Vec::new(),
    };
    let (mut tree, pipes) = Tree::spawn(&line, Uuid::new_v4()).ok()?;
    let said = tokio::time::timeout(VERSION_PATIENCE, async {
        let (out, err) = tokio::join!(words(pipes.stdout), words(pipes.stderr));
        format!("{out}\n{err}")
    });
    let said = said.await.ok();
    tree.kill().await;
    version(&said?)
}

async fn words(pipe: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // What was read until then may be enough.
    let _ = pipe.take(VERSION_BYTES).read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The version line, which noise may stand before, in or after.
fn version(said: &str) -> Option<(Engine, String)> {
    let line = said.lines().map(str::trim).find(|l| l.to_lowercase().starts_with("aerender version"))?;
    let ours = said.to_lowercase().contains(OURS);
    let engine = if ours { Engine::Lottie } else { Engine::AfterEffects };
    Some((engine, line.chars().take(200).collect()))
}

/// As the system tells; 0 where it does not.
#[cfg(windows)]
#[expect(unsafe_code, reason = "the system's own interface")]
fn ram_mb() -> u64 {
    use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
    let mut told = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: the structure has its length set and outlives the call.
    let asked = unsafe { GlobalMemoryStatusEx(&raw mut told) };
    if asked == 0 { 0 } else { told.ullTotalPhys >> 20 }
}

/// From `/proc/meminfo`; 0 where there is none.
#[cfg(not(windows))]
fn ram_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|t| t.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_line_tells_whose_it_is() {
        let (engine, line) = version("Qt chatter\r\naerender version 0.1.0 (FlatRender)\r\n").unwrap();
        assert_eq!((engine, line.as_str()), (Engine::Lottie, "aerender version 0.1.0 (FlatRender)"));
        assert_eq!(version("aerender version 23.2.1x3").unwrap().0, Engine::AfterEffects);
        assert_eq!(version("bash: -version: command not found"), None);
    }

    #[test]
    fn an_after_effects_without_the_arguments_we_use_is_not_offered() {
        assert!(is_too_old("aerender version 18.4.1x4"));
        assert!(!is_too_old("aerender version 22.0x111"));
        assert!(!is_too_old("aerender version Using DXGI"), "unknown is not old");
    }

    #[test]
    fn a_node_with_both_renderers_offers_the_rarer_one() {
        let both = BTreeMap::from([("lottie", PathBuf::from("a")), ("after_effects", PathBuf::from("b"))]);
        assert_eq!(labels(&both)["engine"], "after_effects");
    }

    #[test]
    fn only_the_engine_that_is_offered_has_to_pass_a_probe() {
        let programs = BTreeMap::from([("lottie", PathBuf::from("a")), ("after_effects", PathBuf::from("b"))]);
        let capabilities = Capabilities {
            agent_version: String::new(),
            os: String::new(),
            cpus: 1,
            ram_mb: 0,
            slots: 1,
            labels: labels(&programs),
            renderers: BTreeMap::new(),
        };
        let mut both = Inventory { capabilities, installed: Installed::default(), programs };
        assert_eq!(both.offered(), BTreeMap::from([("after_effects", PathBuf::from("b"))]));
        both.capabilities.labels.insert(ENGINE.into(), "lottie".into());
        assert_eq!(both.offered(), BTreeMap::from([("lottie", PathBuf::from("a"))]));
    }
}
