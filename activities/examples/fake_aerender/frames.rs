//! Frames written in place and in pieces, so that whoever is killed between them leaves half a frame.

use super::{
    film, picture,
    project::Item,
    scenario::{Bad, Hang, Scenario, Writes},
};
use image::{Rgba, RgbaImage};
use std::{
    fs,
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

const DISK_FULL: &str = "After Effects error: could not write the frame. No space left on device";

/// Writes the frames of one run.
pub struct Frames<'a> {
    pub scenario: &'a Scenario,
    pub item: &'a Item,
    /// With `[#####]` where the number goes.
    pub output: String,
    /// The customer's data, as bytes.
    pub data: Vec<u8>,
    pub film: Vec<RgbaImage>,
    pub written: usize,
    pub leaked: Vec<Vec<u8>>,
}

impl Frames<'_> {
    /// Renders a frame and writes it, or what goes wrong with it.
    pub fn render(&mut self, frame: u32) -> Result<(), String> {
        self.spend(frame);
        if let Some((_, problem)) = self.scenario.fail_at.as_ref().filter(|(at, _)| self.is(*at, frame)) {
            return Err(problem.clone());
        }
        if self.scenario.disk_full_at.is_some_and(|at| self.is(at, frame)) {
            return Err(DISK_FULL.into());
        }
        let picture = self.picture(frame);
        match self.item.writes.unwrap_or(self.scenario.writes) {
            Writes::Png => self.write(self.path(frame, "png"), frame, &self.spoil(frame, picture::encoded(&picture))),
            Writes::Renumbered => {
                self.write(self.path(frame - self.item.first, "png"), frame, &picture::encoded(&picture))
            }
            Writes::Tiff => self.write(self.path(frame, "tif"), frame, &film::tiff(&picture)),
            Writes::Jpeg => self.write(self.path(frame, "jpg"), frame, &film::jpeg(&picture)),
            Writes::Film | Writes::BlankFilm => {
                self.film.push(picture);
                Ok(())
            }
        }
    }

    /// Writes what is made of all frames together.
    pub fn finish(&mut self) -> Result<(), String> {
        let path: PathBuf = self.output.replace("[#####]", "").replace(".png", ".avi").into();
        let bytes = match self.scenario.writes {
            Writes::Film => film::avi(&self.film, self.item.composition.fps),
            Writes::BlankFilm => vec![0; 2048],
            _ => return Ok(()),
        };
        fs::write(&path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))
    }

    fn is(&self, at: super::scenario::At, frame: u32) -> bool {
        at.is(frame, (self.item.first, self.item.last), self.scenario.seed)
    }

    fn path(&self, number: u32, extension: &str) -> PathBuf {
        self.output.replace("[#####]", &format!("{number:05}")).replace(".png", &format!(".{extension}")).into()
    }

    fn picture(&self, frame: u32) -> RgbaImage {
        let composition = &self.item.composition;
        let [width, height] = composition.size;
        let range = (self.item.first, self.item.last);
        let black = self.scenario.black.is_some_and(|(from, to)| {
            (from.frame(range, self.scenario.seed)..=to.frame(range, self.scenario.seed)).contains(&frame)
        });
        if black {
            return RgbaImage::from_pixel(width, height, Rgba([0, 0, 0, 255]));
        }
        let twice = self.scenario.bad.is_some_and(|(at, bad)| bad == Bad::Duplicate && self.is(at, frame));
        let shown = if twice { frame.saturating_sub(1) } else { frame };
        picture::pixels(&composition.name, shown, &self.data, composition.size)
    }

    fn spoil(&self, frame: u32, mut png: Vec<u8>) -> Vec<u8> {
        let middle = png.len() / 2;
        match self.scenario.bad.filter(|(at, _)| self.is(*at, frame)).map(|(_, bad)| bad) {
            None | Some(Bad::Duplicate | Bad::Absent) => {}
            Some(Bad::Empty) => png.clear(),
            Some(Bad::Short) => png.truncate(png.len() - 20),
            Some(Bad::Zero) => png[middle..].fill(0),
            Some(Bad::Crc) => png[middle] ^= 1,
            Some(Bad::WrongSize) => png = picture::png("wrong", frame, b"", [3, 3]),
        }
        png
    }

    fn spend(&mut self, frame: u32) {
        std::thread::sleep(Duration::from_millis(self.scenario.frame_ms));
        if let Some((_, ms)) = self.scenario.busy.filter(|(at, _)| self.is(*at, frame)) {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(ms) {
                std::hint::black_box(picture::png("busy", frame, b"", [64, 64]));
            }
        }
        // Written to, or the system would not count it.
        self.leaked.push(vec![1; self.scenario.leak_mb << 20]);
    }

    fn write(&mut self, path: PathBuf, frame: u32, bytes: &[u8]) -> Result<(), String> {
        if self.scenario.bad.is_some_and(|(at, bad)| bad == Bad::Absent && self.is(at, frame)) {
            return Ok(());
        }
        let mut file = fs::File::create(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let room = self.scenario.disk_full_bytes.map_or(bytes.len(), |limit| limit - self.written.min(limit));
        if room < bytes.len() {
            file.write_all(&bytes[..room]).map_err(|e| e.to_string())?;
            self.written += room;
            return Err(DISK_FULL.into());
        }
        self.written += bytes.len();
        let (front, back) = bytes.split_at(bytes.len() / 2);
        file.write_all(front).map_err(|e| e.to_string())?;
        if self.scenario.crash_at.is_some_and(|at| self.is(at, frame)) {
            std::process::abort();
        }
        if let Some(Hang::Frame(at)) = self.scenario.hang
            && self.is(at, frame)
        {
            super::application::hang();
        }
        std::thread::sleep(Duration::from_millis(2));
        file.write_all(back).map_err(|e| e.to_string())
    }
}
