//! Measures drawing and encoding: `cargo run --release -p flatrender-renderer --example bench -- PACKAGE [COMPOSITION]`.
//!
//! Prints one JSON line for each size, number of threads, and with or without PNG encoding (into memory).
//! `fps_wall` is what a clock sees; `fps_cpu` counts the process's own CPU seconds, so that a busy machine
//! does not blur the figure; it is null where the system does not tell them.

use std::{error::Error, time::Instant};

use flatrender_renderer::{Composition, Frame, MissingImages, Project, RenderError, RenderPlan, encode_png, render};
use serde_json::json;

/// Every how manieth frame is drawn.
const STEP: u32 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let package = arguments.next().ok_or("usage: bench PACKAGE [COMPOSITION]")?;
    let project = Project::open(package.as_ref())?;
    let name = arguments.next().unwrap_or_else(|| project.main().to_owned());
    for long_side in [1280, 1920] {
        let begun = Instant::now();
        let composition = scaled(project.composition(&name, MissingImages::Refuse)?, long_side);
        let bake_seconds = begun.elapsed().as_secs_f64();
        for threads in [1, 2] {
            for png in [false, true] {
                let (wall, cpu, bytes) = measure(&composition, threads, png)?;
                let frames = plan(&composition, threads)?.frames().len();
                let fps = |seconds: f64| (frames as f64 / seconds * 10.0).round() / 10.0;
                let line = json!({
                    "package": package, "composition": name, "width": composition.size().0,
                    "height": composition.size().1, "threads": threads, "png": png, "frames": frames,
                    "bake_seconds": (bake_seconds * 1000.0).round() / 1000.0, "fps_wall": fps(wall),
                    "fps_cpu": cpu.map(fps), "png_bytes": bytes,
                });
                println!("{line}");
            }
        }
    }
    Ok(())
}

/// The same picture with its long side at `long_side` pixels.
fn scaled(composition: Composition, long_side: u32) -> Composition {
    let (width, height) = composition.size();
    let scale = |side: u32| (f64::from(side) * f64::from(long_side) / f64::from(width.max(height))).round() as u32;
    composition.at_size(scale(width), scale(height))
}

fn plan(composition: &Composition, threads: usize) -> Result<RenderPlan, RenderError> {
    let every = RenderPlan::new(composition, 0, composition.frames() - 1, STEP)?;
    Ok(every.on_threads(threads))
}

/// Wall seconds, CPU seconds, and the PNG bytes that came of it.
fn measure(composition: &Composition, threads: usize, png: bool) -> Result<(f64, Option<f64>, u64), RenderError> {
    let bytes = std::sync::atomic::AtomicU64::new(0);
    let sink = || {
        |frame: &Frame<'_>| {
            if png {
                let size = encode_png(frame)?.len() as u64;
                bytes.fetch_add(size, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        }
    };
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    render(composition, &plan(composition, threads)?, sink, |_| {})?;
    let cpu = cpu.zip(cpu_seconds()).map(|(before, after)| after - before);
    Ok((begun.elapsed().as_secs_f64(), cpu, bytes.into_inner()))
}

/// This process's CPU seconds; only Linux tells them in a file.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name in brackets, user and system time are the 12th and 13th fields, in hundredths.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
