//! What goes wrong: knobs, and names for settings of them.

use super::afterfx::Prepare;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// The settings by name.
const NAMED: &str = include_str!("scenarios.json");
/// Environment variable that names a scenario where there is no file: `crash_at_frame` or `crash_at_frame:7`.
const VARIABLE: &str = "FAKE_AERENDER";

/// `scenario.json`; absent: all goes well.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Decides which frame a `"seeded"` one is, and where reads are split.
    pub seed: u32,
    /// Only the first run goes wrong.
    pub once: bool,
    /// How later runs go, where only the first goes so.
    pub then: Value,

    /// Each frame waits so long.
    pub frame_ms: u64,
    /// One frame computes so long: number, milliseconds.
    pub busy: Option<(At, u64)>,
    /// So much memory is taken at each frame and never given back.
    pub leak_mb: usize,

    /// How frames are spoken of.
    pub lines: Lines,
    /// How a frame's time is written.
    pub time: Time,
    /// The language of the application.
    pub locale: Locale,
    /// The launcher's own lines come after all others.
    pub launcher_last: bool,
    /// Noise tears the version line apart.
    pub torn_version: bool,
    /// What drivers and plug-ins say meanwhile.
    pub noise: Vec<String>,
    /// The launcher writes a few bytes at a time.
    pub split_reads: bool,
    /// Said by the launcher instead of starting anything.
    pub launcher_refuses: Vec<String>,
    /// Said once the project is open.
    pub say: Vec<String>,
    /// Said after the last frame.
    pub say_after: Vec<String>,

    /// Where it stops for ever.
    pub hang: Option<Hang>,
    /// The application dies in the middle of this frame.
    pub crash_at: Option<At>,
    /// It fails at this frame, saying so.
    pub fail_at: Option<(At, String)>,
    /// The disk is full at this frame.
    pub disk_full_at: Option<At>,
    /// The disk is full after so many bytes.
    pub disk_full_bytes: Option<usize>,
    /// One frame is written badly.
    pub bad: Option<(At, Bad)>,
    /// These frames are black: first and last.
    pub black: Option<(At, At)>,
    /// Nothing is rendered at all.
    pub no_output: bool,
    /// The output module writes something else.
    pub writes: Writes,
    /// Output modules that this user does not have.
    pub lacks_template: bool,
    /// Frames that a stale time span leaves out at the end.
    pub span_cut: u32,

    /// What goes wrong while the project is prepared.
    pub prepare: Prepare,

    /// The launcher's exit code, whatever happened.
    pub exit: Option<u8>,
    /// The application lives on after the launcher has ended.
    pub zombie: bool,
    /// The launcher ends as soon as rendering begins, the application renders on.
    pub early_exit: bool,
    /// The application leaves the launcher's process group.
    pub escape: bool,
}

/// A frame: by its number, or one of the run's that the seed decides.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum At {
    Frame(u32),
    Chosen(Chosen),
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    Seeded,
    First,
    Last,
}

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

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Time {
    #[default]
    Timecode,
    DropFrame,
    Frames,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locale {
    #[default]
    En,
    De,
    Fr,
    Ja,
    Ko,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hang {
    /// Before the first word.
    Launch,
    /// While the project is opened.
    Load,
    /// In the middle of writing a frame.
    Frame(At),
    /// After the last line.
    AfterFinished,
    /// With the socket closed.
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bad {
    /// One bit is another.
    Crc,
    /// The second half is zeros.
    Zero,
    /// The end is missing.
    Short,
    /// No byte.
    Empty,
    WrongSize,
    Absent,
    /// The picture of the frame before.
    Duplicate,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writes {
    #[default]
    Png,
    /// JPEGs, with the extension that belongs to them.
    Jpeg,
    /// TIFFs, likewise.
    Tiff,
    /// One film.
    Film,
    /// One film of 2 KB that shows nothing.
    BlankFilm,
    /// PNGs numbered from 0, wherever the run begins.
    Renumbered,
}

impl At {
    /// Whether this is `frame` of a run from `first` to `last`.
    pub fn is(self, frame: u32, (first, last): (u32, u32), seed: u32) -> bool {
        frame == self.frame((first, last), seed)
    }

    pub fn frame(self, (first, last): (u32, u32), seed: u32) -> u32 {
        match self {
            Self::Frame(frame) => frame,
            Self::Chosen(Chosen::First) => first,
            Self::Chosen(Chosen::Last) => last,
            Self::Chosen(Chosen::Seeded) => first + seed % (last - first + 1),
        }
    }
}

impl Scenario {
    /// Reads the scenario beside a project.
    pub fn read(project: &Path) -> Result<Self, String> {
        let text = std::fs::read(project.with_file_name("scenario.json"));
        let given = match (text, std::env::var(VARIABLE)) {
            (Ok(text), _) => serde_json::from_slice(&text).map_err(|e| format!("scenario: {e}"))?,
            (Err(_), Ok(name)) => named(&name),
            (Err(_), Err(_)) => Map::new(),
        };
        Self::of(given)
    }

    /// Takes the scenario for the application, which alone forgets one that counts once.
    pub fn take(project: &Path) -> Result<Self, String> {
        let scenario = Self::read(project)?;
        if scenario.once {
            let path = project.with_file_name("scenario.json");
            // A package's files are links into a cache: replaced, never written through.
            let taken = std::fs::remove_file(&path).and_then(|()| match &scenario.then {
                Value::Null => Ok(()),
                then => std::fs::write(&path, then.to_string()),
            });
            taken.map_err(|e| format!("scenario: {e}"))?;
        }
        Ok(scenario)
    }

    /// The named settings, with the others on top.
    fn of(mut given: Map<String, Value>) -> Result<Self, String> {
        let mut settings = Map::new();
        if let Some(name) = given.remove("name") {
            let mut all: Map<String, Value> = serde_json::from_str(NAMED).map_err(|e| format!("scenarios: {e}"))?;
            match name.as_str().and_then(|n| all.remove(n)) {
                Some(Value::Object(named)) => settings = named,
                _ => return Err(format!("scenario: there is none named {name}")),
            }
        }
        settings.extend(given);
        serde_json::from_value(settings.into()).map_err(|e| format!("scenario: {e}"))
    }
}

fn named(text: &str) -> Map<String, Value> {
    let (name, seed) = text.split_once(':').unwrap_or((text, "0"));
    let seed: u32 = seed.parse().unwrap_or_default();
    Map::from_iter([("name".into(), name.into()), ("seed".into(), seed.into())])
}
