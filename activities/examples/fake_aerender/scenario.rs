//! What there is to render, and what goes wrong with it.

use serde::Deserialize;
use std::path::Path;

/// `project.json`.
#[derive(Debug, Deserialize)]
pub struct Project {
    pub compositions: Vec<Composition>,
}

#[derive(Debug, Deserialize)]
pub struct Composition {
    pub name: String,
    pub frames: u32,
    pub size: [u32; 2],
}

/// `scenario.json`; absent: all goes well.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Each frame waits so long.
    pub frame_ms: u64,
    /// One frame computes so long: number, milliseconds.
    pub busy: Option<(u32, u64)>,
    /// How frames are spoken of.
    pub lines: Lines,
    /// Where it stops for ever.
    pub hang: Option<Hang>,
    /// The application dies in the middle of this frame.
    pub crash_at: Option<u32>,
    /// One frame is written badly.
    pub bad: Option<(u32, Bad)>,
    /// The disk is full at this frame.
    pub disk_full_at: Option<u32>,
    /// Nothing is rendered at all.
    pub no_output: bool,
    /// Said before the first frame.
    pub say: Vec<String>,
    /// The launcher's exit code, whatever happened.
    pub exit: Option<u8>,
    /// The application lives on after the launcher has ended.
    pub zombie: bool,
    /// The application leaves the launcher's process group.
    pub escape: bool,
    /// Only the first run goes wrong.
    pub once: bool,
}

/// How frames are spoken of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lines {
    #[default]
    InOrder,
    /// Not at all.
    None,
    /// In twos, the later first, as multi-frame rendering does.
    OutOfOrder,
}

/// Where it stops for ever.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    Launch,
    Frame(u32),
    AfterFinished,
}

/// How a frame is bad.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bad {
    Crc,
    Short,
    Empty,
    WrongSize,
    Absent,
}

impl Project {
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|e| format!("project could not be opened: {e}"))?;
        serde_json::from_slice(&text).map_err(|e| format!("project could not be opened: {e}"))
    }
}

impl Scenario {
    /// Reads the scenario beside a project; with `once`, the first reader is the only one.
    pub fn read(project: &Path) -> Result<Self, String> {
        let path = project.with_file_name("scenario.json");
        let Ok(text) = std::fs::read(&path) else { return Ok(Self::default()) };
        serde_json::from_slice(&text).map_err(|e| format!("scenario: {e}"))
    }

    /// Takes the scenario for the application, which alone forgets one that counts once.
    pub fn take(project: &Path) -> Result<Self, String> {
        let scenario = Self::read(project)?;
        if scenario.once {
            std::fs::remove_file(project.with_file_name("scenario.json")).map_err(|e| format!("scenario: {e}"))?;
        }
        Ok(scenario)
    }
}
