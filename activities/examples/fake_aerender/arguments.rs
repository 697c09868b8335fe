//! aerender's arguments: flags are case-sensitive, a value is the next item, one pair of quotes is taken off it,
//! anything unknown is an error. Whether a value makes sense is found out later, as in life.

use std::path::PathBuf;

/// What it was asked to do.
#[derive(Debug, Default)]
pub struct Arguments {
    pub project: Option<PathBuf>,
    pub composition: Option<String>,
    pub queue_index: Option<String>,
    pub first: Option<u32>,
    pub last: Option<u32>,
    pub step: Option<String>,
    /// With `[#####]` where the frame's number goes.
    pub output: Option<String>,
    pub render_template: Option<String>,
    pub output_template: Option<String>,
    pub log: Option<PathBuf>,
    pub verbosity: Option<String>,
    pub sound: Option<String>,
    pub close: Option<String>,
    /// `-renderSettings` or `-outputSettings` was given.
    pub settings: bool,
    /// Address of the launcher; only the application gets it.
    pub port: Option<String>,
}

impl Arguments {
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(flag) = words.next() {
            let mut value = || match words.next().map(|v| unquoted(v)) {
                Some(value) if !value.is_empty() => Ok(value.to_owned()),
                _ => Err(format!("no value given for flag: {flag}")),
            };
            match flag.as_str() {
                "-project" => parsed.project = Some(value()?.into()),
                "-comp" => parsed.composition = Some(value()?),
                "-rqindex" => parsed.queue_index = Some(value()?),
                "-s" => parsed.first = Some(number(&value()?)?),
                "-e" => parsed.last = Some(number(&value()?)?),
                "-i" => parsed.step = Some(value()?),
                "-output" => parsed.output = Some(value()?),
                "-RStemplate" => parsed.render_template = Some(value()?),
                "-OMtemplate" => parsed.output_template = Some(value()?),
                "-log" => parsed.log = Some(value()?.into()),
                "-v" => parsed.verbosity = Some(value()?),
                "-sound" => parsed.sound = Some(value()?),
                "-close" => parsed.close = Some(value()?),
                "-port" => parsed.port = Some(value()?),
                "-renderSettings" | "-outputSettings" => (parsed.settings, _) = (true, value()?),
                "-mfr" | "-mem_usage" => drop((value()?, value()?)),
                "-continueOnMissingFootage" => {}
                other => return Err(format!("Illegal argument flag: {other}")),
            }
        }
        Ok(parsed)
    }

    /// Values that are looked at only once the application runs, in its order.
    pub fn late_problem(&self) -> Option<String> {
        let wrong = |value: &Option<String>, fine: &[&str]| {
            value.as_ref().filter(|v| !fine.contains(&v.as_str())).map(|v| format!("illegal value: {v}"))
        };
        wrong(&self.verbosity, &["ERRORS", "ERRORS_AND_PROGRESS"])
            .or_else(|| wrong(&self.close, &["DO_NOT_SAVE_CHANGES", "SAVE_CHANGES", "DO_NOT_CLOSE"]))
            .or_else(|| wrong(&self.sound, &["ON", "OFF", "on", "off"]))
    }

    /// Arguments that mean nothing when the whole queue is rendered, in the words of the warning.
    pub fn ignored(&self) -> Vec<&'static str> {
        let span = self.first.is_some() || self.last.is_some();
        let given = [
            (self.render_template.is_some(), "-RStemplate argument ignored since no -comp or -rqindex provided."),
            (self.output_template.is_some(), "-OMtemplate argument ignored since no -comp  or -rqindex provided."),
            (self.output.is_some(), "-output argument ignored since no -comp  or -rqindex provided."),
            (span, "-s and/or -e arguments ignored since no -comp  or -rqindex provided."),
            (self.step.is_some(), "-i argument ignored since no -comp  or -rqindex provided."),
        ];
        given.into_iter().filter(|(is, _)| *is).map(|(_, words)| words).collect()
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("illegal number: {text}"))
}
