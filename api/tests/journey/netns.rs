//! A network namespace with one link to this machine, where the machine allows it: Linux, root, and `ip`. What is sent over a link that
//! is down vanishes, as with a cable that was pulled; nobody is told.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// How all of ours are called: this, the process that made it, and a number.
const PREFIX: &str = "fr-";
/// Their end of the link.
const END: &str = "node";

/// A namespace, gone when it is dropped.
pub struct Namespace {
    /// Its name, and that of our end of the link.
    pub name: String,
    /// Our address on the link.
    pub ours: Ipv4Addr,
}

impl Namespace {
    /// A new one, from which this machine can be reached; none where that is not allowed.
    pub fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let (pid, n) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        // Those of processes that begin at one moment lie apart.
        let net = free_net(pid.wrapping_add(64 * n))?;
        let namespace = Self { name: format!("{PREFIX}{pid}-{n}"), ours: Ipv4Addr::new(10, 213, net, 1) };
        (namespace.make() && namespace.reaches_us()).then_some(namespace)
    }

    fn make(&self) -> bool {
        let Self { name, ours } = self;
        let [a, b, c, _] = ours.octets();
        let steps = [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name {END} netns {name}"),
            format!("addr add {ours}/30 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {a}.{b}.{c}.2/30 dev {END}"),
            format!("-n {name} link set {END} up"),
            format!("-n {name} link set lo up"),
        ];
        steps.iter().all(|step| ip(step))
    }

    /// A wall may stand before our end.
    fn reaches_us(&self) -> bool {
        let Ok(listener) = TcpListener::bind((self.ours, 0)) else { return false };
        let Ok(address) = listener.local_addr() else { return false };
        let connect = format!(": </dev/tcp/{}/{}", address.ip(), address.port());
        let mut command = Command::new("timeout");
        command.args(["5", "ip", "netns", "exec", &self.name, "bash", "-c", &connect]);
        succeeds(command)
    }

    /// Starts a program in the namespace of that name, as the process that is started.
    pub fn command(name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, program]);
        // It reaches us, and nobody else.
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    /// Sets their end of the link up or down. Addresses and routes come back with it.
    pub fn set_link(&self, state: &str) {
        let set = ip(&format!("-n {} link set {END} {state}", self.name));
        assert!(set, "the link of {} cannot be set {state}", self.name);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// The third part of an address in a net that nobody here uses.
fn free_net(from: u32) -> Option<u8> {
    let used = said("-4 -o addr show") + &said("-4 route show table all");
    let mut nets = (0..256).map(|n| (from.wrapping_add(n) % 256) as u8);
    nets.find(|net| !used.contains(&format!("10.213.{net}.")))
}

/// Removes those of processes that were killed before they could.
fn remove_leftovers() {
    let folders = ["/var/run/netns", "/sys/class/net"].into_iter().flat_map(fs::read_dir);
    for entry in folders.flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if maker(&name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// A namespace lives on while a process is in it: the link does not.
fn remove(name: &str) {
    ip(&format!("netns del {name}"));
    ip(&format!("link del {name}"));
}

fn ip(words: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    succeeds(command)
}

fn said(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn succeeds(mut command: Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
