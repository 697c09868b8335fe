//! The graphics processor of this machine, by the name that its maker gave it.

use std::path::Path;

/// The first one there is; none where the system does not tell.
pub fn installed() -> Option<String> {
    let name = system()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.chars().take(200).collect())
}

/// `DriverDesc` of the first display adapter. Source: "Display adapters" in the registry's device classes, Windows documentation.
#[cfg(windows)]
fn system() -> Option<String> {
    const ADAPTERS: &str = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}\0000";
    windows_registry::LOCAL_MACHINE.open(ADAPTERS).ok()?.get_string("DriverDesc").ok()
}

/// As `system_profiler` tells.
#[cfg(target_os = "macos")]
fn system() -> Option<String> {
    let told = std::process::Command::new("/usr/sbin/system_profiler").arg("SPDisplaysDataType").output().ok()?;
    value(&String::from_utf8_lossy(&told.stdout), "Chipset Model")
}

/// As NVIDIA's driver tells, or else the numbers of maker and device on the bus.
#[cfg(not(any(windows, target_os = "macos")))]
fn system() -> Option<String> {
    by_driver(Path::new("/proc/driver/nvidia/gpus")).or_else(|| by_bus(Path::new("/sys/class/drm")))
}

#[cfg_attr(any(windows, target_os = "macos"), allow(dead_code, reason = "only Linux has such folders"))]
fn by_driver(cards: &Path) -> Option<String> {
    let told = sorted(cards).into_iter().find_map(|card| std::fs::read_to_string(card.join("information")).ok())?;
    value(&told, "Model")
}

#[cfg_attr(any(windows, target_os = "macos"), allow(dead_code, reason = "only Linux has such folders"))]
fn by_bus(cards: &Path) -> Option<String> {
    let number = |card: &Path, what: &str| {
        let text = std::fs::read_to_string(card.join("device").join(what)).ok()?;
        Some(text.trim().trim_start_matches("0x").to_owned())
    };
    let named =
        |card: std::path::PathBuf| Some(format!("PCI {}:{}", number(&card, "vendor")?, number(&card, "device")?));
    sorted(cards).into_iter().find_map(named)
}

#[cfg_attr(any(windows, target_os = "macos"), allow(dead_code, reason = "only Linux has such folders"))]
fn sorted(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    entries
}

/// What stands behind `key:`.
#[cfg_attr(windows, allow(dead_code, reason = "Windows tells it otherwise"))]
fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
    lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_named_by_its_driver_or_else_by_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(by_driver(folder.path()), None);
        write("gpus/0000:00:1e.0/information", "Model: \t\t Tesla T4\nIRQ:   \t\t 10\n");
        assert_eq!(by_driver(&folder.path().join("gpus")).as_deref(), Some("Tesla T4"));
        write("drm/card0/device/vendor", "0x1af4\n");
        assert_eq!(by_bus(&folder.path().join("drm")), None);
        write("drm/card1/device/vendor", "0x10de\n");
        write("drm/card1/device/device", "0x1eb8\n");
        assert_eq!(by_bus(&folder.path().join("drm")).as_deref(), Some("PCI 10de:1eb8"));
        let told = "Graphics/Displays:\n\n    Apple M1:\n\n      Chipset Model: Apple M1\n      Type: GPU\n";
        assert_eq!(value(told, "Chipset Model").as_deref(), Some("Apple M1"));
    }
}
