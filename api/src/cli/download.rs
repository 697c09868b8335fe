//! Bringing a finished file here: whole and proven, or not at all.

use super::answers::Export;
use super::client::Client;
use super::failure::CliError;
use anyhow::{Context as _, anyhow};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// A download that breaks off is begun again this many times.
const ATTEMPTS: u32 = 4;

/// Downloads the film to `out`, which is written only once all of it has come and its hash is right.
///
/// # Errors
/// The server refuses, the connection breaks again and again, or the folder cannot be written.
pub async fn film(client: &Client, export: &Export, out: &Path) -> Result<(), CliError> {
    let proof = Proof { sha256: &export.sha256, size_bytes: export.size_bytes };
    file(client, &export.url, Some(proof), out).await
}

/// What a file has to be.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    sha256: &'a str,
    size_bytes: u64,
}

/// Downloads `url` to `out`.
///
/// # Errors
/// As [`film`].
pub async fn file(client: &Client, url: &str, proof: Option<Proof<'_>>, out: &Path) -> Result<(), CliError> {
    let mut attempt = 1;
    loop {
        match once(client, url, proof, out).await {
            Err(CliError::NoServer(_)) if attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(300) * 4u32.pow(attempt - 1)).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}

async fn once(client: &Client, url: &str, proof: Option<Proof<'_>>, out: &Path) -> Result<(), CliError> {
    let mut part = part_file(out)?;
    let (mut hasher, mut size) = (Sha256::new(), 0u64);
    let mut body = client.download(url).await?;
    while let Some(bytes) = body.chunk().await.map_err(|e| client.lost(&e))? {
        hasher.update(&bytes);
        size += bytes.len() as u64;
        part.write_all(&bytes).with_context(|| format!("cannot write beside {}", out.display()))?;
    }
    if let Some(proof) = proof {
        let found = hex::encode(hasher.finalize());
        if size != proof.size_bytes || found != proof.sha256 {
            let line = format!("the download is damaged: {size} bytes of {} came, hash {found}", proof.size_bytes);
            return Err(CliError::Here(anyhow!(line)));
        }
    }
    part.as_file().sync_all().context("cannot write the film to the disk")?;
    part.persist(out).map_err(|e| anyhow!("cannot write {}: {}", out.display(), e.error))?;
    Ok(())
}

/// A hidden file beside `out`, gone again unless it is renamed.
pub(super) fn part_file(out: &Path) -> Result<tempfile::NamedTempFile, CliError> {
    let dir = out.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any new file: the mask of the process decides who may read it.
    builder.prefix(".flatrender-").suffix(".part").permissions(std::fs::Permissions::from_mode(0o666));
    let part = builder.tempfile_in(dir).map_err(|e| anyhow!("cannot write into {}: {e}", dir.display()))?;
    Ok(part)
}
