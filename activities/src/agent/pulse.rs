//! What the node tells the server beside its work: what it has, at its start and when that has changed, and every ten seconds how it
//! fares. The answer says what is wanted of it.
//!
//! ```text
//! hello ─▶ orders ─▶ 10 s ─▶ health ─▶ orders ─▶ …      a server that is away is asked again
//!   ▲                 every five minutes: what is here? │
//!   └───────────────── something else than before ──────┘
//! ```

use super::{
    client::ClientError,
    credential, disk,
    inventory::{Inventory, Watch},
    work::Node,
};
use flatrender_workflows::contracts::{
    node::{CachedPackage, Health, Hello, Orders},
    storage::BlobHash,
};
use std::{sync::Arc, time::Instant};

/// Speaks for the node until it is dropped.
pub async fn keep(node: Arc<Node>) {
    let mut gauge = Gauge::default();
    let mut known: Option<Vec<CachedPackage>> = None;
    let mut forgotten = Vec::new();
    let mut rtt_ms = None;
    let (mut machine, mut looked) = (Watch::of(&node.inventory), Instant::now());
    loop {
        if looked.elapsed() >= node.config.look_again {
            if machine.look(&node.config).await {
                tracing::info!("what is installed here has changed: the server is told");
                known = None;
            }
            looked = Instant::now();
        }
        let asked = Instant::now();
        let answer = match &known {
            None => hello(&node, machine.inventory()).await.map(|(orders, cache)| {
                known = Some(cache);
                orders
            }),
            Some(before) => {
                let (cache, news) = news(before, packages(&node).await, &forgotten);
                let free = disk::free_bytes(&node.config.data);
                let health = Health {
                    is_full: free.is_some_and(|free| free < node.config.disk_reserve_bytes),
                    incarnation: node.incarnation,
                    running_tasks: node.running().len() as u32,
                    cpu_percent: gauge.cpu_percent(),
                    ram_mb: ram_in_use_mb(),
                    disk_free_mb: free.map(|bytes| bytes >> 20),
                    rtt_ms,
                    cache: news.then(|| cache.clone()),
                };
                let answer = node.client.health(&health).await;
                if answer.is_ok() {
                    known = Some(cache);
                    forgotten.clear();
                }
                answer
            }
        };
        rtt_ms = Some(asked.elapsed().as_millis() as u32);
        match answer {
            Ok(orders) => forgotten.extend(obey(&node, orders).await),
            // Whoever claims finds out what that means.
            Err(ClientError::Unauthorized) => {}
            Err(error) => tracing::debug!(%error, "cannot tell the server how the node fares"),
        }
        tokio::time::sleep(node.config.pulse).await;
    }
}

/// What is to be told of the cache, and whether that is news. A package that was forgotten by order is told of as gone once, even if
/// it is there again: it is another, and the order was not for it.
fn news(before: &[CachedPackage], mut cache: Vec<CachedPackage>, forgotten: &[BlobHash]) -> (Vec<CachedPackage>, bool) {
    cache.retain(|package| !forgotten.contains(&package.sha256));
    // Idle times differ always, and are no news.
    let news = !before.iter().map(told).eq(cache.iter().map(told));
    (cache, news)
}

/// What makes a package news: all but how long it is idle.
fn told(package: &CachedPackage) -> (&str, u64, u64) {
    (package.sha256.as_str(), package.bytes, package.hits)
}

/// The packages that are there. Each file of each is looked at: that is for a thread that may wait.
async fn packages(node: &Arc<Node>) -> Vec<CachedPackage> {
    let node = node.clone();
    // A look that broke has seen nothing.
    tokio::task::spawn_blocking(move || node.aerender.cache.packages()).await.unwrap_or_default()
}

async fn hello(node: &Arc<Node>, inventory: &Inventory) -> Result<(Orders, Vec<CachedPackage>), ClientError> {
    let cache = packages(node).await;
    let hello = Hello {
        incarnation: node.incarnation,
        capabilities: inventory.capabilities.clone(),
        inventory: inventory.installed.clone(),
        cache: cache.clone(),
        cache_limit: node.aerender.cache.limit_bytes(),
    };
    Ok((node.client.hello(&hello).await?, cache))
}

/// Does what is wanted. The packages that were forgotten.
async fn obey(node: &Node, orders: Orders) -> Vec<BlobHash> {
    node.aerender.cache.keep(orders.keep.into_iter().collect());
    let mut forgotten = orders.evict;
    forgotten.retain(|package| {
        let gone = node.aerender.cache.evict(package);
        if !gone {
            tracing::info!(%package, "a package that is to be forgotten is in use; later");
        }
        gone
    });
    if orders.give_back {
        let running = node.running();
        if !running.is_empty() {
            tracing::warn!(attempts = running.len(), "an operator wants the node's work back at once");
        }
        running.values().for_each(tokio_util::sync::CancellationToken::cancel);
    }
    if orders.rotate {
        match node.client.rotate().await {
            // Kept before it is used: from the first use on the old one is worthless.
            Ok(rotated) => match credential::replace(&node.config, &rotated.credential) {
                Ok(()) => node.client.set_credential(&rotated.credential),
                Err(error) => tracing::warn!(%error, "cannot keep another credential"),
            },
            Err(error) => tracing::warn!(%error, "cannot get another credential"),
        }
    }
    forgotten
}

/// Share of the processors that was used since the last look.
#[derive(Default)]
struct Gauge {
    before: Option<(u64, u64)>,
}

impl Gauge {
    /// None at the first look, and where the system does not tell.
    fn cpu_percent(&mut self) -> Option<f32> {
        let now = processor_times()?;
        let (busy, total) =
            self.before.replace(now).map(|(busy, total)| (now.0 - busy.min(now.0), now.1 - total.min(now.1)))?;
        (total > 0).then(|| busy as f32 * 100.0 / total as f32)
    }
}

/// Busy and all times of all processors, in whatever unit: from `/proc/stat`; none where there is none, as on macOS.
#[cfg(not(windows))]
fn processor_times() -> Option<(u64, u64)> {
    ticks(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// Busy and all times of all processors, in units of 100 ns.
#[cfg(windows)]
#[expect(unsafe_code, reason = "the system's own interface")]
fn processor_times() -> Option<(u64, u64)> {
    use windows_sys::Win32::{Foundation::FILETIME, System::Threading::GetSystemTimes};
    let (mut idle, mut kernel, mut user) = (FILETIME::default(), FILETIME::default(), FILETIME::default());
    // SAFETY: the three outlive the call.
    let told = unsafe { GetSystemTimes(&raw mut idle, &raw mut kernel, &raw mut user) };
    let of = |time: FILETIME| (u64::from(time.dwHighDateTime) << 32) | u64::from(time.dwLowDateTime);
    // The time of the kernel has the idle time in it (GetSystemTimes, Win32).
    let total = of(kernel) + of(user);
    (told != 0).then(|| (total - of(idle).min(total), total))
}

/// Busy and all ticks of all processors, from the text of `/proc/stat`.
#[cfg(any(not(windows), test))]
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let times: Vec<u64> = stat.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let total = times.iter().take(8).sum::<u64>();
    // Idle, and waiting for a disk.
    Some((total - times.get(3)? - times.get(4)?, total))
}

/// From `/proc/meminfo`; none where there is none, as on macOS.
#[cfg(not(windows))]
fn ram_in_use_mb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
    };
    Some(of("MemTotal:")?.saturating_sub(of("MemAvailable:")?) / 1024)
}

/// As the system tells.
#[cfg(windows)]
#[expect(unsafe_code, reason = "the system's own interface")]
fn ram_in_use_mb() -> Option<u64> {
    use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
    let mut told = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: the structure has its length set and outlives the call.
    let asked = unsafe { GlobalMemoryStatusEx(&raw mut told) };
    (asked != 0).then(|| told.ullTotalPhys.saturating_sub(told.ullAvailPhys) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_was_forgotten_and_fetched_again_is_told_of_as_gone_and_then_as_there() {
        let sha256 = BlobHash::of(b"package");
        let there = vec![CachedPackage { sha256: sha256.clone(), bytes: 9, idle_seconds: 1, hits: 0, in_use: false }];
        let (told, is_news) = news(&there, there.clone(), &[sha256]);
        assert_eq!((told.len(), is_news), (0, true));
        assert_eq!(news(&told, there.clone(), &[]), (there.clone(), true));
        assert_eq!(news(&there, there.clone(), &[]), (there.clone(), false));
    }

    #[test]
    fn processors_are_busy_when_they_are_not_idle() {
        assert_eq!(ticks("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1"), Some((150, 1000)));
        assert_eq!(ticks("intr 1"), None);
    }

    #[test]
    #[cfg(any(windows, target_os = "linux"))]
    fn the_system_tells_how_busy_it_is_and_how_much_memory_is_in_use() {
        let (busy, total) = processor_times().unwrap();
        assert!(0 < busy && busy <= total, "{busy} of {total}");
        assert!(ram_in_use_mb().unwrap() > 0);
    }
}
