//! The checks of `doctor` that only look.

use super::{Finding, Verdict};
use crate::cli::server::ServerArgs;
use crate::platform::account::{Account, is_root};
use crate::platform::postgres::programs::{Programs, install_command};
use crate::platform::samples;
use flatrender_activities::media::Media;
use flatrender_activities::media::jail::Walls;
use flatrender_activities::storage::{ObjectStorage, StorageSettings};
use flatrender_workflows::contracts::storage::BlobStore as _;
use sqlx::{Connection as _, PgConnection};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Below this a render of an hour may not fit.
const LITTLE_ROOM: u64 = 5 << 30;
/// Below this a node takes no work.
const NO_ROOM: u64 = 2 << 30;

/// The database named by DATABASE_URL, or the programs for a private one.
pub async fn postgres() -> Finding {
    if let Some(url) = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty()) {
        let connected = tokio::time::timeout(Duration::from_secs(5), PgConnection::connect(&url)).await;
        return match connected {
            Ok(Ok(_)) => Finding::ok("postgresql", "the database in DATABASE_URL answers"),
            Ok(Err(e)) => Finding::bad("postgresql", Verdict::Fail, e.to_string(), "check DATABASE_URL, or unset it"),
            Err(_) => Finding::bad("postgresql", Verdict::Fail, "no answer in 5 s", "check DATABASE_URL, or unset it"),
        };
    }
    let runner = is_root().then(Account::unprivileged).flatten();
    if is_root() && runner.is_none() {
        let mend = "useradd --system flatrender";
        return Finding::bad(
            "postgresql",
            Verdict::Fail,
            "it does not run as root, and there is no account for it",
            mend,
        );
    }
    match Programs::discover(runner.as_ref()) {
        Ok(found) => Finding::ok("postgresql", format!("version {} in {}", found.major, found.bin.display())),
        Err(e) => Finding::bad("postgresql", Verdict::Fail, e.to_string(), install_command()),
    }
}

/// ffmpeg, ffprobe, their encoders and filters.
pub async fn media() -> Vec<Finding> {
    let install = if cfg!(target_os = "macos") { "brew install ffmpeg" } else { "sudo apt install ffmpeg" };
    let Ok(scratch) = tempfile::tempdir() else {
        let mend = "make room in the temporary folder, or set TMPDIR";
        return vec![Finding::bad("scratch", Verdict::Fail, "no temporary folder can be made", mend)];
    };
    let Ok(storage) = ObjectStorage::local(&scratch.path().join("storage")) else {
        return vec![Finding::bad("scratch", Verdict::Fail, "the temporary folder cannot be written", "set TMPDIR")];
    };
    let found = Media::new(Arc::new(storage), scratch.path().join("scratch")).doctor().await;
    let name = |name: &str| ["ffmpeg", "ffprobe", "encoders", "filters"].into_iter().find(|known| *known == name);
    let finding = |f: flatrender_activities::media::Finding| {
        let name = name(&f.name)?;
        Some(if f.ok { Finding::ok(name, f.detail) } else { Finding::bad(name, Verdict::Fail, f.detail, install) })
    };
    found.into_iter().filter_map(finding).collect()
}

/// Whether programs that read what others send are walled in.
pub async fn jail() -> Finding {
    let mend = "install util-linux, and let everybody make user namespaces: docs/production.md, \"Files of strangers\"";
    match Walls::tried().await {
        Ok(walls) if walls.stand() => {
            Finding::ok("jail", "programs that read what others send have no network and see no other files")
        }
        Ok(walls) => {
            let open = match walls {
                Walls { network: true, .. } => "files",
                Walls { files: true, .. } => "the network",
                _ => "the network and files",
            };
            let detail = format!("programs that read what others send reach {open}; only time and memory are limited");
            Finding::bad("jail", Verdict::Warn, detail, mend)
        }
        Err(error) => Finding::bad("jail", Verdict::Warn, format!("it cannot be tried: {error}"), mend),
    }
}

/// Every font the templates name is there, and is a font.
pub fn fonts() -> Finding {
    let packages = match samples::packages(None) {
        Ok(packages) => packages,
        Err(e) => return Finding::bad("fonts", Verdict::Fail, e.to_string(), "build or download the program again"),
    };
    let mut families = std::collections::BTreeSet::new();
    for package in &packages {
        for font in &package.manifest.fonts {
            if !package.files.get(&font.file).is_some_and(|bytes| is_font(bytes)) {
                let detail = format!("{}: {} is not a font", package.manifest.slug, font.file);
                return Finding::bad("fonts", Verdict::Fail, detail, "build or download the program again");
            }
            families.insert(format!("{} {}", font.family, font.style));
        }
    }
    let families: Vec<String> = families.into_iter().collect();
    Finding::ok("fonts", format!("{} for {} templates", families.join(", "), packages.len()))
}

/// The first bytes of TrueType, OpenType and collections.
fn is_font(bytes: &[u8]) -> bool {
    [b"\0\x01\0\0", b"OTTO", b"true", b"ttcf"].iter().any(|magic| bytes.starts_with(*magic))
}

/// Room where the data is, or will be.
pub fn disk(server: &ServerArgs) -> Finding {
    let dir = match server.data_dir() {
        Ok(dir) => dir.path().to_path_buf(),
        Err(e) => return Finding::bad("disk", Verdict::Warn, e.line(), "choose a folder with --data-dir"),
    };
    let existing = dir.ancestors().find(|a| a.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(existing) else {
        return Finding::bad("disk", Verdict::Warn, format!("cannot look at {}", dir.display()), "check its rights");
    };
    #[allow(clippy::unnecessary_cast, reason = "these are 32 bits wide on some systems")]
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    let detail = format!("{:.1} GB free for {}", free as f64 / 1e9, dir.display());
    let mend = "make room, or choose another folder with --data-dir";
    match free {
        0..NO_ROOM => Finding::bad("disk", Verdict::Fail, detail, mend),
        NO_ROOM..LITTLE_ROOM => Finding::bad("disk", Verdict::Warn, detail, mend),
        _ => Finding::ok("disk", detail),
    }
}

/// Whether a small object can be written, read and removed where FLATRENDER_STORAGE says, or in the data folder.
pub async fn storage(server: &ServerArgs) -> Finding {
    let mend = "check FLATRENDER_STORAGE and the AWS_ variables, or unset it";
    let bad = |detail: String| Finding::bad("storage", Verdict::Fail, detail, mend);
    let settings = match std::env::var("FLATRENDER_STORAGE").ok().filter(|text| !text.is_empty()) {
        Some(text) => match text.parse::<StorageSettings>() {
            Ok(settings) => settings,
            Err(error) => return bad(error.to_string()),
        },
        None => match server.data_dir().map(|dir| dir.path().join("storage")) {
            Ok(folder) if folder.exists() => StorageSettings::Folder(folder),
            _ => return Finding::ok("storage", "a folder, made when the platform starts"),
        },
    };
    let tried = async { settings.open()?.probe().await };
    match tokio::time::timeout(Duration::from_secs(10), tried).await {
        Ok(Ok(())) => Finding::ok("storage", format!("{settings} can be written, read and removed")),
        Ok(Err(error)) => bad(format!("{settings}: {:#}", anyhow::Error::from(error))),
        Err(_) => bad(format!("{settings}: no answer in 10 s")),
    }
}

/// Whether a server answers. None is no fault: `render` starts one.
pub async fn server(args: &ServerArgs) -> Finding {
    let start = "flatrender up (or nothing: `flatrender render` starts one for itself)";
    match args.running().await {
        Ok(Some(client)) if client.is_ready().await => Finding::ok("server", format!("{} is ready", client.url())),
        Ok(Some(client)) => {
            Finding::bad("server", Verdict::Fail, format!("{} does not answer", client.url()), "check --server")
        }
        Ok(None) => Finding::bad("server", Verdict::Warn, "none runs on this machine", start),
        Err(e) => Finding::bad("server", Verdict::Warn, e.line(), "set FLATRENDER_API_KEY"),
    }
}
