//! Whether the jail of programs that read what strangers made has walls on this machine. Time, memory and files are counted without them.

use super::{
    process,
    process::{Jail, Process},
};
use std::{ffi::OsString, io, path::Path, time::Duration};

/// A look takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES: u64 = 4096;
const OF_A_LOOK: Jail = Jail { cpu_seconds: 5, memory_bytes: 2 << 30, open_files: 32 };
/// Says that it lives, what lies beside its folder, and what network it is in, by the name that Linux has for that.
const LOOK: &str = "echo alive; cat ../canary; readlink /proc/self/ns/net; exit 0";
const ALIVE: &str = "alive";
const CANARY: &str = "in sight";
/// What those names begin with.
const NETWORK: &str = "net:";

/// What a jail shuts out on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    /// The network.
    pub network: bool,
    /// Files other than a program's own and those that it takes to run.
    pub files: bool,
}

impl Walls {
    /// Jails a program and sees how far it gets.
    ///
    /// # Errors
    /// It cannot be tried here.
    pub async fn tried() -> io::Result<Self> {
        let yard = tempfile::tempdir()?;
        let job = yard.path().join("job");
        std::fs::create_dir(&job)?;
        std::fs::write(yard.path().join("canary"), format!("{CANARY}\n"))?;
        let looked = tokio::time::timeout(PATIENCE, look(&job)).await;
        let said = looked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let ours = std::fs::read_link("/proc/self/ns/net").unwrap_or_default();
        judge(&said, &ours.to_string_lossy()).ok_or_else(|| io::Error::other("a program in a jail says nothing"))
    }

    /// Whether all of them stand.
    pub fn stand(self) -> bool {
        self.network && self.files
    }
}

async fn look(job: &Path) -> io::Result<String> {
    let args: [OsString; 2] = ["-c".into(), LOOK.into()];
    let mut prisoner = Process::spawn_within(Some(OF_A_LOOK), Path::new("/bin/sh"), job, &args)?;
    let (stdout, stderr) = prisoner.outputs()?;
    let (said, _) = tokio::try_join!(process::whole(stdout, ANSWER_BYTES), process::tail(stderr))?;
    prisoner.wait().await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// What a prisoner's words say, whose jailer is in the network `ours`; none when it has not said any.
fn judge(said: &str, ours: &str) -> Option<Walls> {
    let mut lines = said.lines();
    if lines.next() != Some(ALIVE) {
        return None;
    }
    let (mut files, mut network) = (true, None);
    for line in lines {
        files &= line != CANARY;
        network = network.or(line.starts_with(NETWORK).then_some(line));
    }
    // Files are walled off within namespaces of its own alone: there its network has no name that it could see.
    let network = network.map_or(files, |theirs| theirs != ours);
    Some(Walls { network, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_stand_where_nothing_is_seen_through_them() {
        let ours = "net:[4026531840]";
        for (said, walls) in [
            ("alive\n", Some((true, true))),
            ("alive\nin sight\nnet:[4026532201]\n", Some((true, false))),
            ("alive\nin sight\nnet:[4026531840]\n", Some((false, false))),
            ("alive\nnet:[4026531840]\n", Some((false, true))),
            ("alive\nin sight\n", Some((false, false))),
            ("", None),
        ] {
            assert_eq!(judge(said, ours), walls.map(|(network, files)| Walls { network, files }), "{said}");
        }
    }

    /// What is told of this machine is what its programs meet.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn walls_stand_where_everybody_may_make_namespaces() {
        let walls = Walls::tried().await.unwrap();
        assert!(process::tests::has_walls() || !walls.network, "no walls without namespaces");
    }
}
