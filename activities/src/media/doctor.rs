//! Whether this machine can do media work, asked before the first attempt does.

use super::{Media, process, process::Process};
use std::{io, path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES: u64 = 1024 * 1024;
/// The oldest version, major and minor, with every filter option the recipes use.
const OLDEST: [u32; 2] = [4, 2];
const ENCODERS: [&str; 5] = ["libx264", "aac", "pcm_s24le", "pcm_f32le", "libwebp"];
const FILTERS: [&str; 6] = ["premultiply", "sidechaincompress", "alimiter", "amix", "adelay", "afade"];

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at, such as `ffmpeg`.
    pub name: String,
    /// Whether it will do.
    pub ok: bool,
    /// What was found, or what is missing and what to do.
    pub detail: String,
}

impl Media {
    /// Looks at programs, encoders, filters, the scratch folder and the storage. Changes nothing that stays.
    pub async fn doctor(&self) -> Vec<Finding> {
        let (ffmpeg, ffprobe) = (version(&self.ffmpeg, "ffmpeg"), version(&self.ffprobe, "ffprobe"));
        let encoders = self.offers("encoders", &["-encoders"], &ENCODERS);
        let filters = self.offers("filters", &["-filters"], &FILTERS);
        let (ffmpeg, ffprobe, encoders, filters) = tokio::join!(ffmpeg, ffprobe, encoders, filters);
        vec![ffmpeg, ffprobe, encoders, filters, self.scratch_works(), self.storage_works().await]
    }

    async fn offers(&self, name: &str, args: &[&str], wanted: &[&str]) -> Finding {
        let answer = match ask(&self.ffmpeg, args).await {
            Ok(answer) => answer,
            Err(error) => return finding(name, Err(format!("cannot ask ffmpeg: {error}"))),
        };
        let offered = |what: &&&str| answer.lines().any(|line| line.split_whitespace().nth(1) == Some(**what));
        let missing: Vec<_> = wanted.iter().filter(|what| !offered(what)).copied().collect();
        let verdict = match missing.is_empty() {
            true => Ok(wanted.join(", ")),
            false => Err(format!("this ffmpeg lacks {}; install a full build", missing.join(", "))),
        };
        finding(name, verdict)
    }

    fn scratch_works(&self) -> Finding {
        let tried = std::fs::create_dir_all(&self.scratch).and_then(|()| tempfile::tempfile_in(&self.scratch));
        let place = self.scratch.display();
        finding("scratch", tried.map(|_| place.to_string()).map_err(|e| format!("cannot write in {place}: {e}")))
    }

    async fn storage_works(&self) -> Finding {
        let tried = self.storage.probe().await;
        finding("storage", tried.map(|()| "writes, reads and removes".into()).map_err(|e| e.to_string()))
    }
}

fn finding(name: &str, verdict: Result<String, String>) -> Finding {
    let ok = verdict.is_ok();
    Finding { name: name.to_owned(), ok, detail: verdict.unwrap_or_else(|problem| problem) }
}

async fn version(program: &Path, name: &str) -> Finding {
    let verdict = match ask(program, &["-version"]).await {
        Err(error) => Err(format!("cannot run {}: {error}; install ffmpeg", program.display())),
        Ok(answer) => judge_version(answer.lines().next().unwrap_or_default()),
    };
    finding(name, verdict)
}

/// `ffmpeg version 5.1.9-0+deb12u1 Copyright …`; builds from a repository say `N-109542-g…` and are taken on trust.
fn judge_version(line: &str) -> Result<String, String> {
    let version = line.split_whitespace().nth(2).unwrap_or("unknown");
    let mut numbers = version.trim_start_matches('n').split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if [major, minor] < OLDEST => {
            Err(format!("version {version} is too old; {}.{} or newer is needed", OLDEST[0], OLDEST[1]))
        }
        _ => Ok(format!("version {version}")),
    }
}

async fn ask(program: &Path, args: &[&str]) -> io::Result<String> {
    let args: Vec<_> = std::iter::once(&"-hide_banner").chain(args).map(Into::into).collect();
    let mut process = Process::spawn(program, Path::new("."), &args)?;
    let (stdout, stderr) = process.outputs()?;
    let read = async {
        let (answer, _) = tokio::try_join!(process::whole(stdout, ANSWER_BYTES), process::tail(stderr))?;
        process.wait().await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_ffmpeg_is_named() {
        assert!(judge_version("ffmpeg version 4.1.11-0+deb10u1 Copyright").is_err());
        assert!(judge_version("ffmpeg version 3.4 Copyright").is_err());
        assert!(judge_version("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright").is_ok());
        assert_eq!(judge_version("ffmpeg version 5.1.9-0+deb12u1 Copyright"), Ok("version 5.1.9-0+deb12u1".into()));
        assert!(judge_version("ffmpeg version n7.1 Copyright").is_ok());
        assert!(judge_version("ffmpeg version N-109542-g1bf1d37 Copyright").is_ok());
    }
}
