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
    /// Name of the composition.
    pub composition: String,
    /// The frames of this run.
    pub frames: FrameRange,
    /// Folder that receives the frames.
    pub output: PathBuf,
    /// Private folder for temporary files.
    pub temp: PathBuf,
}

impl Plan {
    /// The document to open: After Effects gets its project file, our renderer the Lottie document.
    pub fn project(&self) -> PathBuf {
        self.package.join(match self.engine {
            Engine::Lottie => "project.json",
            Engine::AfterEffects => "project.aep",
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
    let mut args: Vec<OsString> = vec![
        "-project".into(),
        plan.project().into(),
        "-comp".into(),
        plan.composition.clone().into(),
        "-s".into(),
        plan.frames.first.to_string().into(),
        "-e".into(),
        plan.frames.last.to_string().into(),
        "-output".into(),
        plan.output.join(OUTPUT_PATTERN).into(),
    ];
    let fixed =
        ["-OMtemplate", "PNG Sequence", "-v", "ERRORS_AND_PROGRESS", "-close", "DO_NOT_SAVE_CHANGES", "-sound", "OFF"];
    args.extend(fixed.map(OsString::from));
    // Two values always; versions before 22 do not know the flag and are not supported.
    args.extend(["-mfr", "ON", "100"].map(OsString::from));
    args
}

fn environment(temp: &Path) -> Vec<(OsString, OsString)> {
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
            composition: "scene:title; rm -rf".into(),
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
    fn after_effects_opens_its_own_project_file() {
        assert!(plan(Engine::AfterEffects).project().ends_with("project.aep"));
    }
}
