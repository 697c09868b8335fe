//! Whether this machine can be a node: each thing that goes wrong on machines with After Effects is looked at, and what is wrong
//! comes with what to do about it. Nothing is changed, and an agent that works here is not disturbed.

use super::{
    AgentConfig, AgentError, client::Client, client::ClientError, credential::Credential, disk, inventory::Inventory,
    probe,
};
use crate::aerender::process::census;
use flatrender_workflows::contracts::{node::Check, render::Engine};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How far the clocks may differ, in seconds. No decision uses the node's, but certificates and logs do.
const CLOCK_SECONDS: i64 = 120;
/// The file that makes After Effects speak English, in the account's documents. Source: "Change the language", Adobe help.
const ENGLISH: &str = "ae_force_english.txt";
/// A line of After Effects' preferences: scripts may write files.
const SCRIPTS: &str = "\"Pref_SCRIPTING_FILE_NETWORK_SECURITY\" = \"1\"";

/// Where After Effects looks for what concerns it.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The account's documents.
    pub documents: Option<PathBuf>,
    /// Below it are files called `… Prefs.txt`.
    pub preferences: Option<PathBuf>,
    /// Whether there is a desktop; none: it cannot be told here.
    pub has_desktop: Option<bool>,
}

impl Places {
    /// Those of this account.
    pub fn usual() -> Self {
        let below = |variable: &str, rest: &str| std::env::var_os(variable).map(|home| PathBuf::from(home).join(rest));
        if cfg!(windows) {
            Self {
                documents: below("USERPROFILE", "Documents"),
                preferences: below("APPDATA", "Adobe/After Effects"),
                has_desktop: census::has_desktop(),
            }
        } else {
            Self {
                documents: below("HOME", "Documents"),
                preferences: below("HOME", "Library/Preferences/Adobe/After Effects"),
                has_desktop: census::has_desktop(),
            }
        }
    }
}

/// Looks at everything.
pub async fn look(config: &AgentConfig, places: &Places) -> Vec<Check> {
    let mut checks = vec![folder(config), room(config)];
    checks.extend(server(config).await);
    match Inventory::take(config).await {
        Ok(inventory) => {
            let found: Vec<&str> = inventory.capabilities.renderers.values().map(String::as_str).collect();
            checks.push(well("renderer", found.join("; ")));
            checks.push(fonts(&inventory));
            if inventory.programs.contains_key(Engine::AfterEffects.label()) {
                checks.extend(after_effects(places));
            }
            // A second After Effects would make the first one's render fail.
            match super::lock(config) {
                Err(AgentError::FolderBusy { .. }) => {
                    checks.push(well("probe", "a node is at work here; stop it to have the probe rendered"));
                }
                _held => checks.extend(probe::run(config, &inventory.offered()).await),
            }
        }
        Err(error) => checks.push(ill(
            "renderer",
            error.to_string(),
            "Install After Effects 2022 or newer, put flatrender-aerender beside this program, or name a renderer with --renderer.",
        )),
    }
    checks
}

fn well(name: &str, found: impl Into<String>) -> Check {
    Check { name: name.to_owned(), ok: true, found: found.into(), fix: None }
}

fn ill(name: &str, found: impl Into<String>, fix: &str) -> Check {
    Check { name: name.to_owned(), ok: false, found: found.into(), fix: Some(fix.to_owned()) }
}

fn judged(name: &str, ok: bool, found: impl Into<String>, fix: &str) -> Check {
    if ok { well(name, found) } else { ill(name, found, fix) }
}

fn folder(config: &AgentConfig) -> Check {
    let written = fs::create_dir_all(&config.data).and_then(|()| tempfile::tempfile_in(&config.data));
    match written {
        Ok(_) => well("folder", format!("{} can be written", config.data.display())),
        Err(error) => ill(
            "folder",
            format!("{} cannot be written: {error}", config.data.display()),
            "Give the node a folder that its account may write, with --data.",
        ),
    }
}

fn room(config: &AgentConfig) -> Check {
    let reserve = config.disk_reserve_bytes;
    match disk::free_bytes(&config.data) {
        Some(free) => judged(
            "disk",
            free > reserve,
            format!("{} MiB are free, {} MiB are left alone", free >> 20, reserve >> 20),
            "Make room: below what is left alone no work is claimed. Or leave less alone, with --disk-reserve-gb.",
        ),
        None => well("disk", "how much is free cannot be told here"),
    }
}

async fn server(config: &AgentConfig) -> Vec<Check> {
    let away = "Give the address of the server with --server, and see that nothing between here and there blocks it.";
    let client = match Client::new(&config.server) {
        Ok(client) => client,
        Err(error) => return vec![ill("server", error.to_string(), away)],
    };
    let offset = match client.clock_offset().await {
        Ok(offset) => offset,
        Err(error) => return vec![ill("server", format!("{} does not answer: {error}", config.server), away)],
    };
    let mut checks = vec![well("server", format!("{} answers", config.server))];
    checks.push(match offset {
        Some(seconds) => judged(
            "clock",
            seconds.abs() <= CLOCK_SECONDS,
            format!("the server's clock is {seconds} s ahead of this one"),
            "Set the clock of this machine by NTP.",
        ),
        None => well("clock", "the server does not tell the time"),
    });
    checks.push(credential(config, &client).await);
    checks
}

async fn credential(config: &AgentConfig, client: &Client) -> Check {
    let enrol = "Have an operator make a one-time token, and start the node with --token.";
    let Some(kept) = Credential::load(config) else {
        let found = "this machine is no node of this server yet";
        return if config.token.is_some() { well("credential", found) } else { ill("credential", found, enrol) };
    };
    match client.with_credential(&kept.credential).is_known().await {
        Ok(()) => well("credential", "the server knows this node"),
        Err(ClientError::Unauthorized) => ill("credential", "the server does not know this node any more", enrol),
        Err(error) => ill("credential", format!("it cannot be tried: {error}"), "Look at the server."),
    }
}

fn fonts(inventory: &Inventory) -> Check {
    let count = inventory.installed.fonts.len();
    let needs = inventory.programs.contains_key(Engine::AfterEffects.label());
    judged(
        "fonts",
        count > 0 || !needs,
        format!("{count} fonts can be offered"),
        "Install fonts for all users: those that another account has installed for itself are not seen here.",
    )
}

fn after_effects(places: &Places) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(has_desktop) = places.has_desktop {
        checks.push(judged(
            "desktop",
            has_desktop,
            if has_desktop { "this session has a desktop" } else { "this session has no desktop" },
            "Start the node in a session that is signed in at the console, not as a service.",
        ));
    }
    if let Some(documents) = &places.documents {
        let file = documents.join(ENGLISH);
        checks.push(judged(
            "english",
            file.is_file(),
            format!("{} {}", file.display(), if file.is_file() { "is there" } else { "is not there" }),
            "Make an empty file of this name: After Effects then speaks English, and what it says is understood.",
        ));
    }
    if let Some(allowed) = places.preferences.as_deref().and_then(scripts_may_write) {
        checks.push(judged(
            "scripts",
            allowed,
            if allowed { "scripts may write files" } else { "scripts may not write files" },
            "In After Effects: Settings, Scripting & Expressions, \"Allow Scripts to Write Files and Access Network\".",
        ));
    }
    checks
}

/// As the newest preferences say; none when none can be read.
fn scripts_may_write(folder: &Path) -> Option<bool> {
    let versions = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_dir());
    let files = versions.flat_map(|version| fs::read_dir(version).into_iter().flatten().flatten().map(|e| e.path()));
    let prefs = files.filter(|p| p.file_name().is_some_and(|name| name.to_string_lossy().ends_with("Prefs.txt")));
    let newest = prefs.max_by_key(|p| fs::metadata(p).and_then(|m| m.modified()).ok())?;
    Some(String::from_utf8_lossy(&fs::read(newest).ok()?).contains(SCRIPTS))
}

/// Looks, and prints what was found, as JSON on request. Whether all is well.
pub async fn run(config: &AgentConfig, json: bool) -> bool {
    let checks = look(config, &Places::usual()).await;
    if json {
        println!("{}", serde_json::to_string_pretty(&checks).unwrap_or_default());
    } else {
        for check in &checks {
            println!("{:<4}  {:<22} {}", if check.ok { "ok" } else { "fail" }, check.name, check.found);
            if let Some(fix) = &check.fix {
                println!("      {:<22} → {fix}", "");
            }
        }
    }
    checks.iter().all(|check| check.ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a machine that has After Effects.
    fn ill_of(places: &Places) -> Vec<String> {
        let ill = after_effects(places).into_iter().filter(|check| !check.ok);
        ill.map(|check| check.name).collect()
    }

    #[test]
    fn a_session_without_a_desktop_another_language_and_scripts_that_may_not_write_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let prefs = at("After Effects/24.0");
        fs::create_dir_all(&prefs).unwrap();
        let file = prefs.join("Adobe After Effects 24.0 Prefs.txt");
        fs::write(&file, "\"Pref_SCRIPTING_FILE_NETWORK_SECURITY\" = \"0\"\n").unwrap();
        let places = Places {
            documents: Some(folder.path().to_owned()),
            preferences: Some(at("After Effects")),
            has_desktop: Some(false),
        };
        assert_eq!(ill_of(&places), ["desktop", "english", "scripts"]);
        fs::write(at(ENGLISH), b"").unwrap();
        fs::write(&file, format!("# of a designer\n{SCRIPTS}\n")).unwrap();
        assert_eq!(ill_of(&Places { has_desktop: Some(true), ..places.clone() }), [""; 0]);
        assert_eq!(ill_of(&Places { preferences: Some(at("nowhere")), has_desktop: None, ..places }), [""; 0]);
    }
}
