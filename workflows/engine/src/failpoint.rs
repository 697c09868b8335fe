//! Named points at which a test may kill this process. Empty unless the feature `failpoints` is on.

/// Dies like `kill -9` when `FLATRENDER_KILL_AT` is `name` or `name:n` and this is the n-th pass.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };
    static PASSES: AtomicU32 = AtomicU32::new(0);
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let value = std::env::var("FLATRENDER_KILL_AT").ok()?;
        let (name, pass) = value.split_once(':').unwrap_or((&value, "1"));
        Some((name.to_owned(), pass.parse().unwrap_or(1)))
    });
    if let Some((point, pass)) = wanted
        && point == name
        && PASSES.fetch_add(1, Ordering::SeqCst) + 1 == *pass
    {
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn reach(_name: &str) {}
