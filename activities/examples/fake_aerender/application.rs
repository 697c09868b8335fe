//! The application: renders frame after frame into files written in place, and speaks over the socket.

use super::{
    arguments::Arguments,
    launcher::DONE,
    picture,
    scenario::{Bad, Composition, Hang, Lines, Project, Scenario},
};
use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

pub fn run(port: &str, arguments: &Arguments) -> Result<ExitCode, String> {
    let socket = TcpStream::connect(port).map_err(|e| e.to_string())?;
    let scenario = Scenario::take(&arguments.project)?;
    let mut application = Application { socket, arguments, scenario };
    let code = application.render();
    application.say(&format!("{DONE}{code}"));
    if application.scenario.zombie {
        hang();
    }
    Ok(ExitCode::from(code))
}

struct Application<'a> {
    socket: TcpStream,
    arguments: &'a Arguments,
    scenario: Scenario,
}

impl Application<'_> {
    /// The exit code of After Effects' own script: 0, or 7 for what was not found, or 9 for what failed.
    fn render(&mut self) -> u8 {
        self.hang_at(Hang::Launch);
        let project = match Project::read(&self.arguments.project) {
            Ok(project) => project,
            Err(problem) => return self.error(7, &problem),
        };
        let wanted = &self.arguments.composition;
        let Some(composition) = project.compositions.iter().find(|c| &c.name == wanted) else {
            return self.error(7, "No comp was found with the given name.");
        };
        for line in self.scenario.say.clone() {
            self.say(&line);
        }
        if self.scenario.no_output {
            return 0;
        }
        self.announce(composition);
        match self.frames(composition) {
            Ok(()) => {
                let name = &composition.name;
                self.say(&format!("PROGRESS:  4/30/2019 1:59:21 AM: Finished composition “{name}”.\r\n\r"));
                self.say("PROGRESS:  Total Time Elapsed: 0 Seconds\r");
                self.hang_at(Hang::AfterFinished);
                0
            }
            Err(problem) => {
                let code = self.error(9, &problem);
                self.say("INFO: Render aborted.");
                code
            }
        }
    }

    fn announce(&mut self, composition: &Composition) {
        if self.arguments.last >= composition.frames {
            self.say(
                "WARNING:After Effects warning: timeSpanStart of 0 will cause render to have frames outside of \
                 range. Render will succeed, but may have blank frames.",
            );
        }
        let [width, height] = composition.size;
        self.say("PROGRESS: Adding specified comp to Render Queue");
        self.say(&format!("PROGRESS:  4/30/2019 1:59:13 AM: Starting composition “{}”.\r", composition.name));
        self.say(&format!("PROGRESS:  Size: {width} x {height}\r"));
        self.say("PROGRESS:  Frame Rate: 30.00 (comp)\r");
    }

    fn frames(&mut self, composition: &Composition) -> Result<(), String> {
        let data = fs::read(self.arguments.project.with_file_name("data.json")).unwrap_or_default();
        let mut unsaid = Vec::new();
        for frame in self.arguments.first..=self.arguments.last {
            self.spend_time(frame);
            if self.scenario.disk_full_at == Some(frame) {
                return Err("After Effects error: could not write the frame. No space left on device".into());
            }
            let path = self.arguments.frame_path(frame);
            self.write(&path, frame, &picture::png(&composition.name, frame, &data, composition.size))?;
            unsaid.push(frame);
            if self.scenario.lines != Lines::OutOfOrder || unsaid.len() == 2 {
                self.speak_of(&mut unsaid);
            }
        }
        self.speak_of(&mut unsaid);
        Ok(())
    }

    fn spend_time(&self, frame: u32) {
        std::thread::sleep(Duration::from_millis(self.scenario.frame_ms));
        if let Some((_, ms)) = self.scenario.busy.filter(|(at, _)| *at == frame) {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(ms) {
                std::hint::black_box(picture::png("busy", frame, b"", [64, 64]));
            }
        }
    }

    /// In place and in two pieces, so that whoever is killed between them leaves half a frame.
    fn write(&mut self, path: &Path, frame: u32, png: &[u8]) -> Result<(), String> {
        let bad = self.scenario.bad.filter(|(at, _)| *at == frame).map(|(_, bad)| bad);
        let png = match bad {
            None => png.to_vec(),
            Some(Bad::Absent) => return Ok(()),
            Some(Bad::Empty) => Vec::new(),
            Some(Bad::Short) => png[..png.len() - 20].to_vec(),
            Some(Bad::WrongSize) => picture::png("wrong", frame, b"", [3, 3]),
            Some(Bad::Crc) => {
                let middle = png.len() / 2;
                png.iter().enumerate().map(|(at, b)| if at == middle { b ^ 1 } else { *b }).collect()
            }
        };
        let mut file = fs::File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        let (front, back) = png.split_at(png.len() / 2);
        file.write_all(front).map_err(|e| e.to_string())?;
        if self.scenario.crash_at == Some(frame) {
            std::process::abort();
        }
        self.hang_at(Hang::Frame(frame));
        std::thread::sleep(Duration::from_millis(2));
        file.write_all(back).map_err(|e| e.to_string())
    }

    fn speak_of(&mut self, frames: &mut Vec<u32>) {
        for frame in std::mem::take(frames).into_iter().rev() {
            if self.scenario.lines != Lines::None {
                let ordinal = frame - self.arguments.first + 1;
                let (second, rest) = (frame / 30, frame % 30);
                self.say(&format!("PROGRESS:  0:00:{second:02}:{rest:02} ({ordinal}): 0 Seconds\r"));
            }
        }
    }

    fn hang_at(&self, place: Hang) {
        if self.scenario.hang == Some(place) {
            hang();
        }
    }

    fn error(&mut self, code: u8, problem: &str) -> u8 {
        self.say(&format!("aerender ERROR: {problem}"));
        code
    }

    /// Nobody there to hear it: it goes on regardless, as in life.
    fn say(&mut self, line: &str) {
        let _ = self.socket.write_all(format!("{line}\n").as_bytes());
    }
}

fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
