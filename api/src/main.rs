//! `flatrender`: the whole platform, each of its parts, and the command line that makes films with it.

use std::process::ExitCode;

fn main() -> ExitCode {
    give_large_buffers_back();
    run()
}

#[tokio::main]
async fn run() -> ExitCode {
    flatrender_activities::agent::client::install_crypto();
    flatrender_api::cli::main().await
}

/// Has buffers that were dropped go back to the system. Without that glibc takes large ones that come and go for a reason to keep their room,
/// in each thread for itself: a server through which a gibibyte had come kept 15 MB of it. Source: `M_MMAP_THRESHOLD`, mallopt(3).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator's own interface; it says why it is sound")]
fn give_large_buffers_back() {
    const LARGE_BYTES: libc::c_int = 256 * 1024;
    // SAFETY: it takes two numbers, and there is no other thread yet.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_large_buffers_back() {}
