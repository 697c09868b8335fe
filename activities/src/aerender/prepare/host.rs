//! After Effects as the host of a script: which program it is, and how it is asked.
//!
//! Windows: `AfterFX.exe -m -noui -r SCRIPT` ("Running scripts from the command line", After Effects scripting guide): `-m` is an instance
//! of its own, `-noui` one without windows. macOS: the guide names Apple events only, `DoScriptFile` of the application.

use crate::aerender::{command, process::CommandLine};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// A program that runs scripts in After Effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The application itself, as a child of ours.
    Program(PathBuf),
    /// An application of macOS, by its name, asked by Apple events. It is no child of ours: dropping the attempt ends
    /// the question, not the application.
    AppleEvents(String),
}

impl Host {
    /// The application that a command-line renderer belongs to: it lies beside it.
    pub fn beside(aerender: &Path) -> Option<Self> {
        let folder = aerender.parent()?;
        let program = folder.join(format!("AfterFX{}", std::env::consts::EXE_SUFFIX));
        if program.is_file() {
            return Some(Self::Program(program));
        }
        let bundles = fs::read_dir(folder).ok()?.flatten().filter_map(|e| e.file_name().into_string().ok());
        let names = bundles.filter_map(|name| name.strip_suffix(".app").map(str::to_owned));
        names.filter(|name| is_after_effects(name)).max().map(Self::AppleEvents)
    }

    /// The command that runs a script.
    pub fn command_line(&self, script: &Path, folder: &Path, temp: &Path) -> CommandLine {
        let (program, args): (PathBuf, Vec<OsString>) = match self {
            Self::Program(program) => {
                (program.clone(), ["-m".into(), "-noui".into(), "-r".into(), script.into()].to_vec())
            }
            Self::AppleEvents(name) => {
                let ask = format!("tell application \"{name}\" to DoScriptFile (item 1 of argv)");
                let lines = ["on run argv", "with timeout of 3600 seconds", &ask, "end timeout", "end run"];
                let lines = lines.into_iter().flat_map(|line| ["-e".into(), line.into()]);
                ("/usr/bin/osascript".into(), lines.chain([script.into()]).collect())
            }
        };
        CommandLine { program, args, folder: folder.to_owned(), env: command::environment(temp) }
    }
}

/// A name that the installer gives; it goes into an AppleScript, so it may hold nothing else.
fn is_after_effects(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '(' | ')' | '.');
    name.starts_with("Adobe After Effects") && !name.contains("Render Engine") && name.chars().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(host: &Host) -> Vec<String> {
        let line = host.command_line(Path::new("/a/prepare.jsx"), Path::new("/a"), Path::new("/a/temp"));
        line.args.iter().map(|a| a.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_script_is_run_by_the_application_beside_the_renderer() {
        let folder = tempfile::tempdir().unwrap();
        let aerender = folder.path().join("aerender");
        assert_eq!(Host::beside(&aerender), None);
        for name in
            ["Adobe After Effects 2024.app", "Adobe After Effects Render Engine 2024.app", "Adobe After Effects 'x.app"]
        {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let apple = Host::beside(&aerender).unwrap();
        assert_eq!(apple, Host::AppleEvents("Adobe After Effects 2024".into()));
        let program = folder.path().join(format!("AfterFX{}", std::env::consts::EXE_SUFFIX));
        fs::write(&program, b"").unwrap();
        assert_eq!(Host::beside(&aerender), Some(Host::Program(program.clone())));
        assert_eq!(args(&Host::Program(program)), ["-m", "-noui", "-r", "/a/prepare.jsx"]);
        assert_eq!(args(&apple).last().unwrap(), "/a/prepare.jsx", "the path is an argument, not a part of the script");
    }
}
