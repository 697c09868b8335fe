//! The check of `doctor` that renders: one frame of a sample, by the renderer a node would use.

use super::{Finding, Verdict};
use crate::platform::process::sibling;
use crate::platform::samples;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// The sample that is rendered.
const TEMPLATE: &str = "promo";
/// How long one frame may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Renders a frame and looks whether it is a picture of something.
pub async fn renderer() -> Finding {
    let begun = Instant::now();
    match render().await {
        Ok((width, height)) => {
            let took = begun.elapsed().as_secs_f64();
            Finding::ok("renderer", format!("a frame of {TEMPLATE}, {width}×{height}, in {took:.1} s"))
        }
        Err(why) => {
            let mend = "build it with `cargo build --release -p flatrender-renderer`, or put it beside this program";
            Finding::bad("renderer", Verdict::Fail, why, mend)
        }
    }
}

async fn render() -> Result<(u32, u32), String> {
    let packages = samples::packages(None).map_err(|e| e.to_string())?;
    let package = packages.iter().find(|p| p.manifest.slug == TEMPLATE).ok_or("the sample template is missing")?;
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    package.unpack(folder.path()).map_err(|e| e.to_string())?;
    // Halfway through a scene that shows words and shapes.
    let frame = package.manifest.scenes.first().map_or(0, |scene| scene.still_frame);
    run(folder.path(), &package.manifest.composition, frame).await?;
    let picture = format!("probe_{frame:05}.png");
    let image =
        image::open(folder.path().join(&picture)).map_err(|e| format!("{picture} is no picture: {e}"))?.into_rgba8();
    let first = image.pixels().next().copied();
    if image.pixels().all(|pixel| Some(*pixel) == first) {
        return Err("the frame is empty".into());
    }
    let (expected, found) = ((package.manifest.width, package.manifest.height), image.dimensions());
    if found == expected { Ok(found) } else { Err(format!("the frame is {found:?} and should be {expected:?}")) }
}

async fn run(folder: &Path, composition: &str, frame: u32) -> Result<(), String> {
    let program = sibling("flatrender-aerender");
    let mut command = Command::new(&program);
    command.arg("-project").arg(folder).args(["-comp", composition]);
    command.args(["-s", &frame.to_string(), "-e", &frame.to_string()]);
    command.arg("-output").arg(folder.join("probe_[#####].png")).kill_on_drop(true);
    let answer = tokio::time::timeout(PATIENCE, command.output()).await;
    let out = answer.map_err(|_| format!("{} took longer than {} s", program.display(), PATIENCE.as_secs()))?;
    let out = out.map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    let line = said.lines().find(|l| l.to_lowercase().contains("error")).or_else(|| said.lines().last());
    Err(format!("{}: {}", out.status, line.unwrap_or("it said nothing")))
}
