//! The command line's grammar: aerender's flags, read to the end before anything else happens.
//!
//! Flags are case-sensitive; a value is whatever comes next, less one pair of quotes; an empty or absent value
//! is an error. Source: Adobe's manual, "Automated rendering", and the behaviour of its startup script.

use std::path::PathBuf;

use crate::MissingImages;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Help,
    Version,
    Render(Box<Options>),
}

/// A render's options, as given; what they name is looked up later.
#[derive(Debug, PartialEq)]
pub(super) struct Options {
    pub(super) project: Option<PathBuf>,
    pub(super) comp: Option<String>,
    pub(super) rqindex: Option<String>,
    pub(super) rs_template: Option<String>,
    pub(super) om_template: Option<String>,
    pub(super) output: Option<String>,
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) increment: Option<i64>,
    pub(super) log: Option<PathBuf>,
    /// Off with `-v ERRORS`.
    pub(super) progress: bool,
    /// The share of the machine's cores to draw on, in percent; nothing for one thread.
    pub(super) cpu_percent: Option<f64>,
    pub(super) missing_images: MissingImages,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            project: None,
            comp: None,
            rqindex: None,
            rs_template: None,
            om_template: None,
            output: None,
            start: None,
            end: None,
            increment: None,
            log: None,
            progress: true,
            cpu_percent: Some(100.0),
            missing_images: MissingImages::Refuse,
        }
    }
}

/// A command line that does not follow the grammar.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum SyntaxError {
    #[error("Illegal argument flag: {0}")]
    UnknownFlag(String),
    #[error("no value given for flag: {0}")]
    NoValue(String),
    #[error("illegal value for flag: {flag}: {value}")]
    IllegalValue { flag: String, value: String },
}

pub(super) fn parse(arguments: &[String]) -> Result<Command, SyntaxError> {
    if arguments.iter().any(|argument| argument == "-help") {
        return Ok(Command::Help);
    }
    if arguments.iter().any(|argument| argument == "-version") {
        return Ok(Command::Version);
    }
    let mut options = Options::default();
    let mut rest = Rest(arguments.iter());
    while let Some(flag) = rest.0.next() {
        read_flag(&mut options, flag, &mut rest)?;
    }
    Ok(Command::Render(Box::new(options)))
}

fn read_flag(options: &mut Options, flag: &str, rest: &mut Rest<'_>) -> Result<(), SyntaxError> {
    match flag {
        "-project" => options.project = Some(rest.value(flag)?.into()),
        "-comp" => options.comp = Some(rest.value(flag)?),
        "-rqindex" => options.rqindex = Some(rest.value(flag)?),
        "-RStemplate" => options.rs_template = Some(rest.value(flag)?),
        "-OMtemplate" => options.om_template = Some(rest.value(flag)?),
        "-output" => options.output = Some(rest.value(flag)?),
        "-log" => options.log = Some(rest.value(flag)?.into()),
        "-s" => options.start = Some(rest.whole_number(flag)?),
        "-e" => options.end = Some(rest.whole_number(flag)?),
        "-i" => options.increment = Some(rest.whole_number(flag)?),
        "-v" => options.progress = rest.one_of(flag, &["ERRORS", "ERRORS_AND_PROGRESS"])? == 1,
        "-mfr" => options.cpu_percent = read_mfr(flag, rest)?,
        "-continueOnMissingFootage" => options.missing_images = MissingImages::LeaveOut,
        // Nothing is kept open, saved, played, reused or cached here: accepted, and without effect.
        "-close" => drop(rest.one_of(flag, &["DO_NOT_SAVE_CHANGES", "SAVE_CHANGES", "DO_NOT_CLOSE"])?),
        "-sound" => drop(rest.one_of(flag, &["ON", "OFF", "on", "off"])?),
        "-mem_usage" => drop((rest.percent(flag)?, rest.percent(flag)?)),
        "-reuse" => {}
        _ => return Err(SyntaxError::UnknownFlag(flag.to_owned())),
    }
    Ok(())
}

/// Multi-frame rendering: on or off, then the share of the processor it may take.
fn read_mfr(flag: &str, rest: &mut Rest<'_>) -> Result<Option<f64>, SyntaxError> {
    let on = rest.one_of(flag, &["OFF", "ON"])? == 1;
    let percent = rest.percent(flag)?;
    Ok(on.then_some(percent))
}

/// The arguments still to read.
struct Rest<'a>(std::slice::Iter<'a, String>);

impl Rest<'_> {
    fn value(&mut self, flag: &str) -> Result<String, SyntaxError> {
        let value = self.0.next().map(|value| unquoted(value)).filter(|value| !value.is_empty());
        value.map(str::to_owned).ok_or_else(|| SyntaxError::NoValue(flag.to_owned()))
    }

    fn whole_number(&mut self, flag: &str) -> Result<i64, SyntaxError> {
        let value = self.value(flag)?;
        value.parse().map_err(|_| SyntaxError::IllegalValue { flag: flag.to_owned(), value })
    }

    fn percent(&mut self, flag: &str) -> Result<f64, SyntaxError> {
        let value = self.value(flag)?;
        match value.parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent.is_finite() => Ok(percent),
            _ => Err(SyntaxError::IllegalValue { flag: flag.to_owned(), value }),
        }
    }

    /// The place of the value among those allowed.
    fn one_of(&mut self, flag: &str, allowed: &[&str]) -> Result<usize, SyntaxError> {
        let value = self.value(flag)?;
        let place = allowed.iter().position(|word| *word == value);
        place.ok_or_else(|| SyntaxError::IllegalValue { flag: flag.to_owned(), value })
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, SyntaxError> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse(&arguments)? {
            Command::Render(options) => Ok(*options),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_command_line_is_read() {
        let line = "-project p -comp main -s 0 -e 9 -i 2 -output o_[#####].png -RStemplate \"Best\" -v ERRORS \
                    -mem_usage 50 80 -mfr ON 50 -close DO_NOT_SAVE_CHANGES -sound off -reuse -continueOnMissingFootage";
        let options = parsed(line).expect("read");
        assert_eq!((options.start, options.end, options.increment), (Some(0), Some(9), Some(2)));
        assert_eq!(options.rs_template.as_deref(), Some("Best"), "one pair of quotes is taken off");
        assert_eq!((options.progress, options.cpu_percent), (false, Some(50.0)));
    }

    #[test]
    fn an_unknown_flag_or_a_flag_in_other_letters_is_illegal() {
        for flag in ["-Project", "-r", "-mp", "-teamproject", "project"] {
            assert_eq!(parsed(flag), Err(SyntaxError::UnknownFlag(flag.into())));
        }
    }

    #[test]
    fn an_absent_or_empty_value_is_named_by_its_flag() {
        assert_eq!(parsed("-project"), Err(SyntaxError::NoValue("-project".into())));
        assert_eq!(parsed("-mem_usage 50"), Err(SyntaxError::NoValue("-mem_usage".into())));
        assert_eq!(parsed("-comp  -s 1"), Err(SyntaxError::NoValue("-comp".into())));
    }

    #[test]
    fn a_value_out_of_its_list_is_illegal() {
        for line in ["-v LOUD", "-close NOW", "-sound maybe", "-mfr YES 50", "-mfr ON 0", "-s one"] {
            assert!(matches!(parsed(line), Err(SyntaxError::IllegalValue { .. })), "{line}");
        }
    }

    #[test]
    fn help_wins_over_any_mistake() {
        assert_eq!(parse(&["-nonsense".into(), "-help".into()]), Ok(Command::Help));
    }
}
