//! Large files over a wire that is cut, sent by our own command and by a client that we did not write.

use crate::platform::Platform;
use flatrender_workflows::models::invariants;
use rand::RngExt as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    collections::VecDeque,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const MIB: u64 = 1024 * 1024;
/// The most memory a server may ever have had, in bytes.
const MOST_BYTES: u64 = 80_000_000;
/// The same of a worker that puts a gibibyte together: a fraction of it.
const MOST_OF_A_WORKER: u64 = 256_000_000;

/// Uploads by tus with the client `tuspy` of PyPI, as its manual says.
const STRANGER: &str = r#"
import sys
from tusclient import client
url, key, path = sys.argv[1:4]
tus = client.TusClient(url + "/v1/uploads", headers={"Authorization": "Bearer " + key})
uploader = tus.uploader(path, chunk_size=64 * 1024 * 1024, retries=50, retry_delay=1, metadata={"filename": "sound.wav"})
uploader.upload()
print(uploader.url.rsplit("/", 1)[1])
"#;

/// A sound of so many bytes that nobody has heard before, and its hash.
fn sound(folder: &Path, bytes: u64) -> (PathBuf, String) {
    let path = folder.join("sound.wav");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let data = (bytes - 44) / 8 * 8;
    let mut header = b"RIFF".to_vec();
    header.extend((36 + data as u32).to_le_bytes());
    // Two channels of 32 bits, 48000 times a second.
    header.extend(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    header.extend(48_000u32.to_le_bytes());
    header.extend(384_000u32.to_le_bytes());
    header.extend(b"\x08\0\x20\0data");
    header.extend((data as u32).to_le_bytes());
    let mut hasher = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes).unwrap();
    };
    put(&header);
    let (mut random, mut left, mut chunk) = (rand::rng(), data as usize, vec![0u8; 1 << 20]);
    while left > 0 {
        let length = left.min(chunk.len());
        random.fill(&mut chunk[..64]);
        for n in 64..chunk.len() {
            chunk[n] = chunk[n - 64].wrapping_mul(31).wrapping_add(n as u8);
        }
        put(&chunk[..length]);
        left -= length;
    }
    file.flush().unwrap();
    (path, hex::encode(hasher.finalize()))
}

/// A way to the server that is cut each time so many bytes have gone there.
struct Leaky {
    url: String,
    cuts: Arc<Mutex<VecDeque<u64>>>,
}

impl Leaky {
    async fn to(server: &str, cuts: impl IntoIterator<Item = u64>) -> Self {
        let address = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cuts = Arc::new(Mutex::new(cuts.into_iter().collect::<VecDeque<_>>()));
        let left = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, address.clone(), left.clone()));
            }
        });
        Self { url, cuts }
    }

    fn cuts_left(&self) -> usize {
        self.cuts.lock().unwrap().len()
    }
}

async fn carry(client: TcpStream, address: String, cuts: Arc<Mutex<VecDeque<u64>>>) {
    let Ok(server) = TcpStream::connect(address).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let there = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut bytes).await {
            let passes = take(&cuts, read as u64);
            if to_server.write_all(&bytes[..passes]).await.is_err() || passes < read {
                return;
            }
        }
    };
    let back = async { tokio::io::copy(&mut from_server, &mut to_client).await.ok() };
    tokio::select! {
        () = there => {}
        _ = back => {}
    }
}

/// How many of these bytes pass before the wire is cut.
fn take(cuts: &Mutex<VecDeque<u64>>, read: u64) -> usize {
    let mut cuts = cuts.lock().unwrap();
    match cuts.front_mut() {
        Some(left) if *left < read => {
            let passes = *left as usize;
            cuts.pop_front();
            passes
        }
        Some(left) => {
            *left -= read;
            read as usize
        }
        None => read as usize,
    }
}

/// The most memory that a process has ever had, in bytes.
fn most_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The file that an upload became, once it has.
async fn became(platform: &Platform, upload: &str) -> Value {
    let ask = |path: String| {
        let call = platform.http.get(format!("{}{path}", platform.url)).bearer_auth(platform.key());
        async move { call.send().await.unwrap().json::<Value>().await.unwrap() }
    };
    for _ in 0..1200 {
        let seen = ask(format!("/v1/uploads/{upload}")).await;
        match seen["state"].as_str() {
            Some("completing") => tokio::time::sleep(Duration::from_millis(100)).await,
            Some("completed") => return ask(format!("/v1/files/{}", seen["file_id"].as_str().unwrap())).await,
            _ => panic!("{seen}"),
        }
    }
    panic!("nothing becomes of the upload");
}

/// P14 on real processes: cut at every end of a piece and within, the server killed in between, the worker while it finishes.
#[tokio::test(flavor = "multi_thread")]
async fn p14_a_file_of_32_mib_survives_cuts_and_kills() {
    let mut platform = Platform::without_nodes(0).await;
    let (path, sha256) = sound(platform.folder(), 32 * MIB);
    let wire = Leaky::to(&platform.url, (0..12).map(|n| if n % 2 == 0 { 4 * MIB } else { MIB + 977 * n })).await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_flatrender"));
    command
        .args(["files", "upload"])
        .arg(&path)
        .args(["--server", &wire.url])
        .env("FLATRENDER_API_KEY", platform.key());
    let sending = tokio::spawn(async move { command.kill_on_drop(true).output().await.unwrap() });
    while wire.cuts_left() > 6 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    platform.kill_and_restart_api();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        platform.kill_and_restart_worker();
    }
    let sent = tokio::time::timeout(Duration::from_secs(120), sending).await.expect("it comes to an end").unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let file = String::from_utf8(sent.stdout).unwrap();
    let file = format!("{}/v1/files/{}", platform.url, file.trim());
    let file: Value = platform.http.get(file).bearer_auth(platform.key()).send().await.unwrap().json().await.unwrap();
    assert_eq!((file["sha256"].as_str(), file["name"].as_str()), (Some(sha256.as_str()), Some("sound.wav")), "{file}");
    assert_eq!(wire.cuts_left(), 0, "it was cut as often as it should be");
    assert_eq!(invariants::check(&platform.db, true).await.unwrap(), []);
    platform.stop().await;
}

/// The long form: a gibibyte, ten cuts, by `tuspy`. `FLATRENDER_TUS_PYTHON` names a Python that has it; `scripts/tus.sh` makes one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a gibibyte, a client of Python and an optimised build: scripts/tus.sh"]
async fn f_tus_a_client_that_we_did_not_write_uploads_a_gibibyte_through_ten_cuts() {
    let python = std::env::var("FLATRENDER_TUS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let platform = Platform::without_nodes(0).await;
    let (path, sha256) = sound(platform.folder(), 1024 * MIB);
    let idle = most_memory(platform.api_pid());
    let cuts = (0..10).map(|_| rand::rng().random_range(60 * MIB..90 * MIB));
    let wire = Leaky::to(&platform.url, cuts).await;
    let began = Instant::now();
    let sent = tokio::process::Command::new(python)
        .args(["-c", STRANGER, &wire.url, platform.key()])
        .arg(&path)
        .kill_on_drop(true)
        .output();
    let sent = tokio::time::timeout(Duration::from_secs(900), sent).await.expect("it comes to an end").unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    let took = began.elapsed();
    let upload = String::from_utf8(sent.stdout).unwrap();
    let file = became(&platform, upload.trim()).await;
    let whole = began.elapsed();
    let (server, worker) = (most_memory(platform.api_pid()), most_memory(platform.worker_pid()));
    println!(
        "1 GiB in {:.1} s, a file after {:.1} s; the most memory of the server {} MB ({} MB before), of the worker {} MB",
        took.as_secs_f64(),
        whole.as_secs_f64(),
        server / 1_000_000,
        idle / 1_000_000,
        worker / 1_000_000
    );
    assert_eq!((file["sha256"].as_str(), wire.cuts_left()), (Some(sha256.as_str()), 0), "{file}");
    assert!(server < MOST_BYTES, "{server} bytes, {idle} before: optimised, the program itself takes little");
    assert!(worker < MOST_OF_A_WORKER, "{worker} bytes");
    assert_eq!(invariants::check(&platform.db, true).await.unwrap(), []);
    platform.stop().await;
}
