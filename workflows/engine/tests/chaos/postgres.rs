//! A PostgreSQL of its own for a scenario: started, stopped, killed and started again at will.

use std::{
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How a server is told to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stop {
    /// At once, as in a crash: recovery comes with the next start.
    Immediate,
    /// Sessions end, what is committed is written.
    Fast,
}

pub struct Server {
    bin: PathBuf,
    home: tempfile::TempDir,
    pub port: u16,
    password: String,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Makes a cluster and starts it. What is committed survives the end of the server, not that of the machine.
    pub fn start(settings: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("fr-chaos.").tempdir().unwrap();
        let mut server = Self {
            bin: bin(),
            home,
            port: 0,
            password: uuid::Uuid::new_v4().simple().to_string(),
            settings: settings.iter().map(|s| (*s).to_owned()).collect(),
            process: None,
        };
        server.init();
        for _ in 0..20 {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("PostgreSQL does not start: {}", server.log());
    }

    fn init(&self) {
        let home = self.home.path();
        let secret = home.join("password");
        std::fs::write(&secret, &self.password).unwrap();
        for folder in [home.to_owned(), secret] {
            give_away(&folder);
        }
        let made = self
            .command("initdb")
            .args(["--username=flatrender", "--auth=password", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", home.join("password").display()))
            .arg("-D")
            .arg(self.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    }

    /// A program of PostgreSQL, run by an account that it accepts.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.home.path()).env("LC_ALL", "C").stdin(Stdio::null());
        if let Some((uid, gid)) = account() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn launch(&mut self) -> bool {
        let log = std::fs::File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let fixed = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "synchronous_commit=on"];
        let roomy = ["max_connections=120", "shared_buffers=64MB", "full_page_writes=off"];
        for setting in fixed.into_iter().chain(roomy).chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let state = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.contains("ready")) {
                return true;
            }
            if self.process.as_mut().is_some_and(|p| p.try_wait().unwrap().is_some()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Stops the server and waits until it is gone.
    pub fn stop(&mut self, how: Stop) {
        if let Some(mut process) = self.process.take() {
            signal(process.id(), if how == Stop::Immediate { "QUIT" } else { "INT" });
            process.wait().unwrap();
        }
    }

    /// Starts it again, at the same address.
    pub fn restart(&mut self) {
        // Its port may be taken for a moment by a connection that goes out.
        for _ in 0..50 {
            if self.launch() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start again: {}", self.log());
    }

    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same database by way of another port.
    pub fn url_at(&self, port: u16) -> String {
        format!("postgres://flatrender:{}@127.0.0.1:{port}/postgres?sslmode=disable", self.password)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("FLATRENDER_CHAOS_LOG").is_some() {
            eprintln!("{}", self.log());
        }
        self.stop(Stop::Immediate);
    }
}

/// Sends a signal to a process by name.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "there is no program kill");
}

fn free_port() -> u16 {
    // Below the ports that outgoing connections get.
    loop {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where the programs are: `FLATRENDER_PG_BIN`, or the newest that is installed; as scripts/throwaway-postgres.sh.
fn bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("FLATRENDER_PG_BIN") {
        return bin.into();
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for root in
        ["/usr/lib/postgresql", "/Applications/Postgres.app/Contents/Versions", "/opt/homebrew/opt", "/usr/local/opt"]
    {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().replace("postgresql@", "");
            if let (Ok(major), true) = (name.parse(), entry.path().join("bin/initdb").exists()) {
                found.push((major, entry.path().join("bin")));
            }
        }
    }
    found.sort();
    let newest = found.pop().filter(|(major, _)| *major >= 15);
    newest.expect("PostgreSQL 15 or newer is not installed; FLATRENDER_PG_BIN says where it is").1
}

/// PostgreSQL does not run as root: an account without rights, if we are that.
fn account() -> Option<(u32, u32)> {
    let me = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = me.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(1) == Some("0"));
    if !root {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(str::parse);
        Some((ids.next()?.ok()?, ids.next()?.ok()?))
    };
    Some(["flatrender", "postgres", "nobody"].into_iter().find_map(find).expect("no account for PostgreSQL"))
}

/// Makes a file or folder the server's.
pub fn give_away(path: &Path) {
    if let Some((uid, gid)) = account() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    }
}
