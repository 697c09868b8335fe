//! The renderer's argument list, made from a plan. Never a shell string, never a word of the customer's.

use super::process::CommandLine;
use flatrender_workflows::contracts::render::{Engine, FrameRange};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Output pattern of the frames; the renderer puts the frame's number for `[#####]`.
pub const OUTPUT_PATTERN: &str = "frame_[#####].png";

/// What one run of the renderer is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The renderer, by full path.
    pub program: PathBuf,
    /// Which renderer it is.
    pub engine: Engine,
    /// Folder of the package, data and assets in place.
    pub package: PathBuf,
    /// What of the project is rendered.
    pub source: Source,
    /// The frames of this run.
    pub frames: FrameRange,
    /// Folder that receives the frames.
    pub output: PathBuf,
    /// Private folder for temporary files.
    pub temp: PathBuf,
}

/// What of a project is rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The composition of this name, to the pattern and with the template that we name.
    Composition(String),
    /// The item of the render queue of this number, from 1, with all settings that the project keeps for it.
    Queued(u32),
}

impl Plan {
    /// The document to open: After Effects gets the prepared project, our renderer the Lottie document.
    pub fn project(&self) -> PathBuf {
        self.package.join(match self.engine {
            Engine::Lottie => "project.json",
            Engine::AfterEffects => "prepared.aep",
        })
    }

    /// The whole command.
    pub fn command_line(&self) -> CommandLine {
        CommandLine {
            program: self.program.clone(),
            args: arguments(self),
            folder: self.package.clone(),
            env: environment(&self.temp),
        }
    }
}

/// The flags of "Automated rendering and network rendering" (After Effects manual); every value is its own item.
fn arguments(plan: &Plan) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["-project".into(), plan.project().into()];
    match &plan.source {
        Source::Composition(name) => args.extend(["-comp".into(), name.into()]),
        Source::Queued(item) => args.extend(["-rqindex".into(), item.to_string().into()]),
    }
    args.extend(["-s".into(), plan.frames.first.to_string().into(), "-e".into(), plan.frames.last.to_string().into()]);
    if let Source::Composition(_) = plan.source {
        args.extend(["-output".into(), plan.output.join(OUTPUT_PATTERN).into()]);
        args.extend(["-OMtemplate", "PNG Sequence"].map(OsString::from));
    }
    let fixed = ["-v", "ERRORS_AND_PROGRESS", "-close", "DO_NOT_SAVE_CHANGES", "-sound", "OFF"];
    args.extend(fixed.map(OsString::from));
    // Two values always; versions before 22 do not know the flag and are not supported.
    args.extend(["-mfr", "ON", "100"].map(OsString::from));
    args
}

/// Private folders for temporary files, and what is known to help.
pub fn environment(temp: &Path) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> =
        ["TMPDIR", "TEMP", "TMP"].into_iter().map(|name| (name.into(), temp.into())).collect();
    // Plug-ins that bring their own OpenMP abort the process otherwise ("OMP: Error #15").
    env.push(("KMP_DUPLICATE_LIB_OK".into(), "TRUE".into()));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(engine: Engine) -> Plan {
        Plan {
            program: "/opt/aerender".into(),
            engine,
            package: "/job/package".into(),
            source: Source::Composition("scene:title; rm -rf".into()),
            frames: FrameRange { first: 30, last: 59 },
            output: "/job/frames".into(),
            temp: "/job/temp".into(),
        }
    }

    #[test]
    fn the_arguments_are_aerenders_own() {
        let line = plan(Engine::Lottie).command_line();
        let args: Vec<_> = line.args.iter().map(|a| a.to_string_lossy().replace('\\', "/")).collect();
        let expected = [
            ["-project", "/job/package/project.json"],
            ["-comp", "scene:title; rm -rf"],
            ["-s", "30"],
            ["-e", "59"],
            ["-output", "/job/frames/frame_[#####].png"],
            ["-OMtemplate", "PNG Sequence"],
            ["-v", "ERRORS_AND_PROGRESS"],
            ["-close", "DO_NOT_SAVE_CHANGES"],
            ["-sound", "OFF"],
        ];
        assert_eq!(args[..18], expected.concat());
        assert_eq!(args[18..], ["-mfr", "ON", "100"]);
    }

    #[test]
    fn after_effects_renders_an_item_of_the_prepared_project_with_the_settings_kept_there() {
        let line = Plan { source: Source::Queued(1), ..plan(Engine::AfterEffects) }.command_line();
        let args: Vec<_> = line.args.iter().map(|a| a.to_string_lossy().replace('\\', "/")).collect();
        let expected = ["-project", "/job/package/prepared.aep", "-rqindex", "1", "-s", "30", "-e", "59"];
        assert_eq!(args[..8], expected);
        assert!(!args.iter().any(|a| a == "-comp" || a == "-output" || a == "-OMtemplate"), "{args:?}");
    }
}
