//! Where After Effects is installed, newest first. Folder names: "Install After Effects", Adobe help; one folder a
//! version, `Adobe After Effects 2024`, before 2020 `CC 2019`, before 2013 `CS6`, and `(Beta)` beside them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const PRODUCT: &str = "Adobe After Effects";

/// The command-line renderer of every After Effects in the usual folders of this system, and of those that its
/// installer wrote down, on whichever disk they are.
pub fn renderers() -> Vec<PathBuf> {
    let windows = ["ProgramW6432", "ProgramFiles"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let mut found: Vec<PathBuf> = windows.flat_map(|folder| in_folder(&folder.join("Adobe"))).collect();
    found.extend(in_folder(Path::new("/Applications")));
    found.extend(std::env::home_dir().into_iter().flat_map(|home| in_folder(&home.join("Applications"))));
    found.extend(registered());
    let mut seen = BTreeSet::new();
    found.retain(|program| seen.insert(program.clone()));
    found
}

/// `HKLM\SOFTWARE\Adobe\After Effects\24.5`, value `InstallPath`: the folder `Support Files` of each version.
#[cfg(windows)]
fn registered() -> Vec<PathBuf> {
    let Ok(versions) = windows_registry::LOCAL_MACHINE.open(r"SOFTWARE\Adobe\After Effects") else { return Vec::new() };
    let mut names: Vec<String> = versions.keys().into_iter().flatten().collect();
    let number = |name: &str| -> Vec<u32> { name.split('.').filter_map(|n| n.parse().ok()).collect() };
    names.sort_by_key(|name| std::cmp::Reverse(number(name)));
    let folders = names.iter().filter_map(|name| versions.open(name).ok()?.get_string("InstallPath").ok());
    folders.map(|folder| Path::new(&folder).join("aerender.exe")).filter(|program| program.is_file()).collect()
}

#[cfg(not(windows))]
fn registered() -> Vec<PathBuf> {
    Vec::new()
}

/// The same for one folder of applications.
fn in_folder(applications: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(applications).into_iter().flatten().flatten().map(|e| e.path());
    let mut versions: Vec<(Age, PathBuf)> = entries
        .filter_map(|path| Some((age(path.file_name()?.to_str()?)?, path)))
        .filter_map(|(age, path)| Some((age, program(&path)?)))
        .collect();
    versions.sort();
    versions.into_iter().map(|(_, program)| program).collect()
}

/// Smaller is preferred: versions from new to old, then those that have no year, betas last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Year(std::cmp::Reverse<u32>),
    Older,
    Beta,
}

fn age(folder: &str) -> Option<Age> {
    let version = folder.strip_prefix(PRODUCT)?.trim();
    let year = version.split_whitespace().find_map(|word| word.parse().ok().filter(|y| (2013..2100).contains(y)));
    Some(match year {
        _ if version.to_lowercase().contains("beta") => Age::Beta,
        Some(year) => Age::Year(std::cmp::Reverse(year)),
        None => Age::Older,
    })
}

/// On Windows below `Support Files`, on macOS beside the application.
fn program(install: &Path) -> Option<PathBuf> {
    let places = [install.join("Support Files").join("aerender.exe"), install.join("aerender")];
    places.into_iter().find(|path| path.is_file())
}

/// Main number of a version line, `aerender version 23.2.1x3`; none when noise tore it apart.
pub fn major(line: &str) -> Option<u32> {
    // The word after `aerender version`.
    line.split_whitespace().nth(2)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_newest_after_effects_comes_first_and_betas_last() {
        let folder = tempfile::tempdir().unwrap();
        let install = |name: &str, program: &str| {
            let path = folder.path().join(name).join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        };
        for name in ["CS6", "CC 2019", "2022", "2025", "(Beta)", "CC"] {
            install(&format!("Adobe After Effects {name}"), "Support Files/aerender.exe");
        }
        install("Adobe After Effects 2024", "aerender");
        install("Adobe After Effects 2026", "something else");
        install("Adobe Premiere Pro 2026", "aerender");
        let names: Vec<String> = in_folder(folder.path())
            .iter()
            .map(|p| p.strip_prefix(folder.path()).unwrap().iter().next().unwrap().to_string_lossy().into_owned())
            .collect();
        let versions: Vec<&str> = names.iter().map(|n| n.trim_start_matches(PRODUCT).trim()).collect();
        assert_eq!(versions, ["2025", "2024", "2022", "CC 2019", "CC", "CS6", "(Beta)"]);
        assert!(in_folder(&folder.path().join("nowhere")).is_empty());
    }

    #[test]
    fn a_version_line_has_a_main_number_unless_it_is_torn() {
        assert_eq!(major("aerender version 23.2.1x3"), Some(23));
        assert_eq!(major("aerender version 16.0"), Some(16));
        assert_eq!(major("aerender version Using DXGI adapter 0"), None);
    }
}
