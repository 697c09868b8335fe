//! aerender's arguments: flags are case-sensitive, a value is the next item, anything unknown is an error.

use std::path::PathBuf;

/// What it was asked to do.
#[derive(Debug, Default)]
pub struct Arguments {
    pub project: PathBuf,
    pub composition: String,
    pub first: u32,
    pub last: u32,
    /// With `[#####]` where the frame's number goes.
    pub output: String,
    /// Address of the launcher; only the application gets it.
    pub port: Option<String>,
}

impl Arguments {
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(flag) = words.next() {
            let mut value = || words.next().cloned().ok_or_else(|| format!("no value given for flag: {flag}"));
            match flag.as_str() {
                "-project" => parsed.project = value()?.into(),
                "-comp" => parsed.composition = value()?,
                "-s" => parsed.first = number(&value()?)?,
                "-e" => parsed.last = number(&value()?)?,
                "-output" => parsed.output = value()?,
                "-port" => parsed.port = Some(value()?),
                "-OMtemplate" | "-RStemplate" | "-v" | "-close" | "-sound" => drop(value()?),
                "-mfr" | "-mem_usage" => drop((value()?, value()?)),
                other => return Err(format!("Illegal argument flag: {other}")),
            }
        }
        Ok(parsed)
    }

    /// Where a frame goes.
    pub fn frame_path(&self, frame: u32) -> PathBuf {
        self.output.replace("[#####]", &format!("{frame:05}")).into()
    }
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("illegal number: {text}"))
}
