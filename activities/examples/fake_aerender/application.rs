//! The application: opens the project, finds the item, renders frame after frame, and speaks over the socket.

use super::{
    arguments::Arguments,
    frames::Frames,
    launcher::DONE,
    project::{Item, Project},
    report,
    scenario::{Hang, Lines, Scenario},
    words,
};
use std::{fs, io::Write, net::TcpStream, path::Path, process::ExitCode, time::Duration};

/// Exit codes of the command-line script.
const ARGUMENTS: u8 = 3;
const NOT_FOUND: u8 = 7;
const FAILED: u8 = 9;

pub fn run(port: &str, arguments: &Arguments) -> Result<ExitCode, String> {
    let socket = TcpStream::connect(port).map_err(|e| e.to_string())?;
    let scenario = Scenario::take(arguments.project.as_deref().unwrap_or(Path::new("")))?;
    let log = arguments.log.as_ref().map(fs::File::create).transpose().map_err(|e| format!("no log: {e}"))?;
    let mut application = Application { socket, log, arguments, scenario };
    let code = application.work();
    // Whatever goes to the log: the launcher has to hear of the end.
    application.log = None;
    application.say(&format!("{DONE}{code}"));
    drop(application.socket);
    if application.scenario.zombie || application.scenario.hang == Some(Hang::Quit) {
        hang();
    }
    Ok(ExitCode::from(code))
}

struct Application<'a> {
    socket: TcpStream,
    /// In place of the socket.
    log: Option<fs::File>,
    arguments: &'a Arguments,
    scenario: Scenario,
}

impl Application<'_> {
    /// The exit code: what cannot be found is told apart from what fails.
    fn work(&mut self) -> u8 {
        self.hang_at(Hang::Launch);
        self.say("PROGRESS: ...After Effects successfully launched");
        self.hang_at(Hang::Load);
        if let Some(problem) = self.arguments.late_problem() {
            self.say(&format!("aerender SYNTAX ERROR: {problem}"));
            return ARGUMENTS;
        }
        let items = match self.items() {
            Ok(items) => items,
            Err(problem) => return self.error(NOT_FOUND, &problem),
        };
        for line in self.scenario.say.clone() {
            self.say(&line);
        }
        if self.scenario.no_output {
            return 0;
        }
        for item in items {
            if let Err(problem) = self.render(&item) {
                let code = self.error(FAILED, &problem);
                self.say("INFO: Render aborted.");
                return code;
            }
        }
        for line in self.scenario.say_after.clone() {
            self.say(&line);
        }
        self.hang_at(Hang::AfterFinished);
        0
    }

    /// What is to be rendered: one item by its composition or number, else the whole queue as it stands.
    fn items(&mut self) -> Result<Vec<Item>, String> {
        let arguments = self.arguments;
        let path = arguments.project.as_ref().ok_or("No project provided and no project open.")?;
        let project = Project::read(path)?;
        let mut item = match (&arguments.composition, &arguments.queue_index) {
            (Some(name), _) => project.by_name(name)?,
            (None, Some(index)) => {
                // Its own literal words, blanks and all.
                self.say(&format!("rqindex {index}num {}", project.queue.len()));
                project.by_index(index)?
            }
            (None, None) if arguments.settings => return Err("settings need -comp or -rqindex".into()),
            (None, None) => {
                for words in arguments.ignored() {
                    self.say(&format!("WARNING: {words}"));
                }
                return project.queue.iter().map(|queued| project.queued(queued)).collect();
            }
        };
        if let Some(template) = &arguments.output_template
            && (self.scenario.lacks_template || !project.templates.contains(template))
        {
            return Err("No output module template was found with the given name.".into());
        }
        item.output = arguments.output.clone().or(item.output);
        if item.output.is_none() {
            return Err("Specified render queue item needs output file but none provided.".into());
        }
        item.first = arguments.first.unwrap_or(item.first);
        item.last = arguments.last.unwrap_or(item.last) - self.scenario.span_cut;
        match arguments.step.as_deref().map(str::parse::<u32>) {
            None | Some(Ok(1..=100)) => Ok(vec![item]),
            Some(_) => Err("the step must be a number from 1 to 100".into()),
        }
    }

    fn render(&mut self, item: &Item) -> Result<(), String> {
        let composition = &item.composition;
        let output = item.output.clone().ok_or("the render queue item has no output file")?;
        if item.last >= composition.display_start + composition.frames {
            self.say(
                "WARNING:After Effects warning: timeSpanStart of 0 will cause render to have frames outside of \
                 range. Render will succeed, but may have blank frames.",
            );
        }
        for line in report::opening(item, self.scenario.locale, self.scenario.time, &output) {
            self.tell(&line);
        }
        for line in self.scenario.noise.clone() {
            // Straight to the console, past the launcher.
            println!("{line}");
        }
        self.frames(item, output)?;
        for line in report::closing(item, self.scenario.locale) {
            self.tell(&line);
        }
        Ok(())
    }

    fn frames(&mut self, item: &Item, output: String) -> Result<(), String> {
        let scenario = std::mem::take(&mut self.scenario);
        let project = self.arguments.project.as_deref().unwrap_or(Path::new(""));
        let mut frames = Frames {
            scenario: &scenario,
            item,
            output,
            data: Project::shown(project)
                .unwrap_or_else(|| fs::read(project.with_file_name("data.json")).unwrap_or_default()),
            film: Vec::new(),
            written: 0,
            leaked: Vec::new(),
        };
        let step = self.arguments.step.as_deref().and_then(|s| s.parse().ok()).unwrap_or(1);
        let mut unsaid = Vec::new();
        let mut rendered = Ok(());
        for frame in (item.first..=item.last).step_by(step) {
            rendered = frames.render(frame);
            if rendered.is_err() {
                break;
            }
            unsaid.push(frame);
            if scenario.lines != Lines::OutOfOrder || unsaid.len() == 2 {
                self.speak_of(item, &mut unsaid, &scenario);
            }
        }
        self.speak_of(item, &mut unsaid, &scenario);
        rendered = rendered.and_then(|()| frames.finish());
        self.scenario = scenario;
        rendered
    }

    fn speak_of(&mut self, item: &Item, frames: &mut Vec<u32>, scenario: &Scenario) {
        for frame in std::mem::take(frames).into_iter().rev().filter(|_| scenario.lines != Lines::None) {
            let line = report::frame(item, frame, scenario.locale, scenario.time);
            if self.is_talkative() {
                self.send(&words::bytes(scenario.locale, &line));
            }
        }
    }

    fn hang_at(&self, place: Hang) {
        if self.scenario.hang == Some(place) {
            hang();
        }
    }

    fn error(&mut self, code: u8, problem: &str) -> u8 {
        // An error of the application's own comes as the script's error object prints itself.
        let word = if problem.starts_with("After Effects error") { "Error" } else { "ERROR" };
        self.say(&format!("aerender {word}: {problem}"));
        code
    }

    /// A line of the queue's log, which `-v ERRORS` silences.
    fn tell(&mut self, line: &str) {
        if self.is_talkative() {
            self.say(line);
        }
    }

    fn is_talkative(&self) -> bool {
        self.arguments.verbosity.as_deref() != Some("ERRORS")
    }

    fn say(&mut self, line: &str) {
        self.send(&words::bytes(self.scenario.locale, line));
    }

    /// Nobody there to hear it: it goes on regardless, as in life.
    fn send(&mut self, line: &[u8]) {
        let line = [line, b"\n"].concat();
        let _ = match &mut self.log {
            Some(log) => log.write_all(&line),
            None => self.socket.write_all(&line),
        };
    }
}

pub fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
