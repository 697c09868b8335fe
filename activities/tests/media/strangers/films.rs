//! Sounds and films that are lists of other files, that break decoders, or that never end. A program that is not ours looks at them:
//! what it opens is told by the kernel, where `strace` is installed.

use super::{Yard, inspector};
use crate::world::{World, tone, wav};
use flatrender_activities::media::upload::UploadError;
use futures::StreamExt as _;
use nix::sys::stat::Mode;
use std::{
    fs::OpenOptions,
    io::Read as _,
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// One look has to end within this time, on a machine that does more than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sound ones of each container, made by ffmpeg.
fn sound_ones(world: &World) -> Vec<(&'static str, Vec<u8>)> {
    std::fs::write(world.folder.path().join("tone.wav"), wav(8_000, 1, 0.4, tone(440.0, 0.5))).unwrap();
    let names = ["out.mp4", "out.mov", "out.webm", "out.m4a", "out.mp3", "out.aac", "out.ogg", "out.flac"];
    let mut args = vec!["-v", "error", "-y", "-i", "tone.wav", "-f", "lavfi", "-i", "testsrc=d=0.4:s=64x36:r=10"];
    for name in names {
        let film = matches!(name, "out.mp4" | "out.mov" | "out.webm");
        args.extend(if film { &["-map", "1:v", "-map", "0:a"][..] } else { &["-map", "0:a"] });
        args.extend(match name {
            "out.webm" => &["-c:v", "libvpx", "-c:a", "libopus"][..],
            "out.mp4" | "out.mov" => &["-c:v", "libx264", "-preset", "ultrafast"],
            _ => &[],
        });
        args.push(name);
    }
    world.ask("ffmpeg", &args);
    let read = |name| (name, std::fs::read(world.folder.path().join(name)).unwrap());
    names.map(read).into_iter().chain([("out.wav", wav(8_000, 1, 0.4, tone(440.0, 0.5)))]).collect()
}

/// Lists that lead to `canary` and to `at`.
fn lists(canary: &Path, at: &str) -> Vec<Vec<u8>> {
    let path = canary.display();
    [
        format!("#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\nfile://{path}\n#EXT-X-ENDLIST\n"),
        format!("#EXTM3U\n#EXTINF:5,\nhttp://{at}/a.ts\n#EXT-X-ENDLIST\n"),
        format!("#EXTM3U\n#EXTINF:5,\nconcat:{path}|{path}\n#EXT-X-ENDLIST\n"),
        format!("#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"file://{path}\"\n#EXTINF:5,\nfile://{path}\n"),
        format!("#EXTM3U\n#EXTINF:5,\nsubfile,,start,0,end,9,,:{path}\n"),
        format!("ffconcat version 1.0\nfile '{path}'\n"),
        format!("ffconcat version 1.0\nfile 'http://{at}/'\n"),
        format!("<?xml version=\"1.0\"?><MPD><Period><BaseURL>file://{path}</BaseURL></Period></MPD>"),
        format!("<?xml version=\"1.0\"?><MPD><Location>http://{at}/</Location></MPD>"),
        format!("[playlist]\nFile1=file://{path}\n"),
        format!("v=0\no=- 0 0 IN IP4 {at}\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n"),
        format!("RTSPtext\nrtsp://{at}/\n"),
    ]
    .map(String::into_bytes)
    .into()
}

/// Files of strangers with a word on each.
fn odd(world: &World, canary: &Path, at: &str) -> Vec<(String, Vec<u8>)> {
    let sound = sound_ones(world);
    let mut all: Vec<(String, Vec<u8>)> = vec![];
    let lists = lists(canary, at);
    for (n, list) in lists.iter().enumerate() {
        all.push((format!("list {n}"), list.clone()));
    }
    // Lists behind the first bytes of something that is taken in.
    let heads: [&[u8]; 8] = [
        b"\0\0\0\x18ftypisom\0\0\0\0isommp41",
        b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm",
        b"ID3\x03\0\0\0\0\0\0",
        b"OggS\0",
        b"fLaC",
        b"RIFF\0\0\0\0WAVE",
        b"\xff\xfb\x90\x64",
    ];
    for (n, head) in heads.iter().enumerate() {
        all.push((format!("list behind head {n}"), [head, &lists[n % lists.len()][..]].concat()));
    }
    for (name, whole) in &sound {
        all.push((format!("half of {name}"), whole[..whole.len() / 2].to_vec()));
        let mut broken = whole.clone();
        for at in (40..broken.len()).step_by(97) {
            broken[at] ^= 0x5a;
        }
        all.push((format!("{name} with errors"), broken));
        all.push((format!("{name} and a list"), [&whole[..], &lists[0]].concat()));
    }
    let of = |name: &str| sound.iter().find(|(n, _)| *n == name).unwrap().1.clone();
    // QuickTime that says its samples lie in another file.
    for name in ["out.mov", "out.mp4"] {
        let mut film = of(name);
        let reference = film.windows(4).position(|w| w == b"url ").unwrap();
        film[reference + 7] = 0;
        all.push((format!("{name} of samples elsewhere"), film.clone()));
        film[reference..reference + 4].copy_from_slice(b"alis");
        all.push((format!("{name} of an alias"), film));
    }
    // Lengths and counts that are not true, and boxes that hold themselves.
    for (what, at, value) in [
        ("entries", *b"stts", u32::MAX),
        ("samples", *b"stsz", u32::MAX),
        ("chunks", *b"stco", u32::MAX),
        ("header", *b"mvhd", 1),
    ] {
        let mut film = of("out.mp4");
        let place = film.windows(4).position(|w| *w == at).unwrap();
        film[place + 8..place + 12].copy_from_slice(&value.to_be_bytes());
        if what == "samples" {
            film[place + 12..place + 16].copy_from_slice(&value.to_be_bytes());
        }
        all.push((format!("too many {what}"), film));
    }
    all.push((
        "boxes in boxes".into(),
        [&b"\0\0\0\x18ftypisom\0\0\0\0isommp41"[..], &b"\0\x0f\xff\xffmoov".repeat(20_000)].concat(),
    ));
    // What never ends: a sound of days, frames of nothing, a stream of no length.
    let mut endless = of("out.wav");
    endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let data = endless.windows(4).position(|w| w == b"data").unwrap();
    endless[data + 4..data + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    all.push(("WAV without an end".into(), endless));
    all.push(("MP3 of a hundred thousand frames".into(), of("out.mp3").repeat(200)));
    all.push(("Ogg again and again".into(), of("out.ogg").repeat(200)));
    all.push(("zeros behind a head".into(), [&b"\xff\xf1\x50\x80"[..], &vec![0; 4 << 20]].concat()));
    let mut webm = of("out.webm");
    let cluster = webm.windows(4).position(|w| *w == [0x1f, 0x43, 0xb6, 0x75]).unwrap();
    let again = webm[cluster..].to_vec();
    (0..100).for_each(|_| webm.extend(&again));
    all.push(("WebM again and again".into(), webm));
    all
}

/// `ffprobe`, and what it asks of the kernel is written into a pipe; none where there is no `strace`.
struct Watched {
    program: PathBuf,
    pipe: PathBuf,
    log: std::thread::JoinHandle<String>,
    hold: std::fs::File,
}

fn watched(folder: &Path) -> Option<Watched> {
    std::process::Command::new("strace").arg("-V").output().ok().filter(|out| out.status.success())?;
    let (program, pipe) = (folder.join("watched"), folder.join("pipe"));
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    // Not in its own place: it would wait for the guard as well, which waits for it.
    let script = format!(
        "#!/bin/sh\nunset LD_LIBRARY_PATH\nstrace -f -qq -s 200 --seccomp-bpf -e trace={CALLS} -o {} ffprobe \"$@\"\n",
        pipe.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let hold = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut from = std::fs::File::open(&pipe).unwrap();
    let log = std::thread::spawn(move || {
        let mut text = vec![];
        from.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    Some(Watched { program, pipe, log, hold })
}

/// What is told of what it asks of the kernel: all that opens, makes, moves or removes something, or speaks with somebody.
const CALLS: &str = "open,openat,openat2,creat,mkdir,mkdirat,rename,renameat2,unlink,unlinkat,link,symlink,socket,connect,bind,sendto,sendmsg";

/// What a look at a file may open: itself, libraries and what they ask of the system, and nothing to write.
fn is_harmless(line: &str) -> bool {
    let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
    if ["+++", "---", "<..."].iter().any(|known| call.starts_with(known)) {
        return true;
    }
    let Some(rest) = call.strip_prefix("openat(AT_FDCWD, \"").or_else(|| call.strip_prefix("open(\"")) else {
        return false;
    };
    let path = rest.split('"').next().unwrap_or_default();
    let reads = rest.contains("O_RDONLY") && !rest.contains("O_CREAT");
    let known = [
        "/lib",
        "/usr/",
        "/etc/ld.so",
        "/etc/OpenCL",
        "/etc/ssl",
        "/etc/gcrypt",
        "/etc/libva",
        "/etc/pulse",
        "/proc/",
        "/sys/",
        "/dev/",
    ];
    reads && (path.starts_with("./") || known.iter().any(|k| path.starts_with(k)))
}

#[tokio::test]
async fn m33_nothing_but_the_file_itself_is_opened() {
    let (world, yard) = (World::new(), Yard::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap().to_string();
    // Whoever opens this pipe to read waits, and is found waiting.
    let canary = world.folder.path().join("canary");
    nix::unistd::mkfifo(&canary, Mode::S_IRWXU).unwrap();
    let odd = odd(&world, &canary, &at);
    assert!(odd.len() >= 50, "{}", odd.len());
    let watched = watched(world.folder.path());
    let close = inspector(watched.as_ref().map_or("ffprobe".into(), |w| w.program.clone()));
    let (plain, turn) = (inspector("ffprobe".into()), tokio::sync::Mutex::new(()));
    let (mut taken, begun) = (0, Instant::now());
    let looks = odd.iter().enumerate().map(|(n, (what, bytes))| {
        // Watching takes its time: it is done where a file names another.
        let names_another = ["list", "elsewhere", "alias"].iter().any(|word| what.contains(word));
        let inspector = if names_another { close.clone() } else { plain.clone() };
        let (path, turn) = (yard.jail().join(format!("{n}.mp4")), &turn);
        async move {
            std::fs::write(&path, bytes).unwrap();
            // One at a time, so that lines stay whole.
            let _turn = if names_another { Some(turn.lock().await) } else { None };
            let begun = Instant::now();
            let found = inspector.inspect(&path).await;
            assert_eq!(std::fs::read(&path).unwrap(), *bytes, "{what}: it stays as it is");
            (what, found, begun.elapsed())
        }
    });
    let mut looks = futures::stream::iter(looks).buffer_unordered(2);
    while let Some((what, found, took)) = looks.next().await {
        assert!(took < PATIENCE, "{what}: {took:?}");
        if let Err(UploadError::Unchecked(why)) = &found {
            panic!("{what}: {why}");
        }
        assert!(found.is_err() || !what.starts_with("list"), "{what}: {found:?}");
        taken += usize::from(found.is_ok());
        let waiting = OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&canary);
        assert!(waiting.is_err(), "{what}: the canary is being read");
    }
    assert!(taken < odd.len() / 2, "{taken} of {}", odd.len());
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody was called");
    yard.is_as_before(Duration::from_secs(60));
    eprintln!("{} files in {:?}, {taken} of them taken in", odd.len(), begun.elapsed());
    let Some(Watched { log, hold, pipe, .. }) = watched else { return eprintln!("strace is not installed") };
    drop(hold);
    let log = log.join().unwrap();
    std::fs::remove_file(pipe).unwrap();
    assert!(log.lines().filter(|l| l.contains(".mp4\"")).count() >= 15, "it was watched: {log}");
    let harm: Vec<&str> = log.lines().filter(|line| !is_harmless(line)).take(20).collect();
    assert!(harm.is_empty(), "{harm:#?}");
}

/// A program that does not end by itself is ended, and the file is to blame for it.
#[tokio::test]
async fn m33_whoever_takes_too_long_is_killed() {
    let (world, yard) = (World::new(), Yard::new());
    let program = world.folder.path().join("endless");
    std::fs::write(&program, "#!/bin/sh\nulimit -t 1\nwhile :; do :; done\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = yard.jail().join("song.wav");
    std::fs::write(&path, wav(8_000, 1, 0.2, tone(440.0, 0.5))).unwrap();
    let found = inspector(program).inspect(&path).await;
    assert!(matches!(found, Err(UploadError::Corrupt)), "{found:?}");
    yard.is_as_before(Duration::from_secs(30));
}

/// One that is made to talk without an end, or to say what makes no sense, is ended too: so it would be the next time.
#[tokio::test]
async fn m33_whoever_makes_a_program_talk_nonsense_is_refused() {
    let (world, yard) = (World::new(), Yard::new());
    let path = yard.jail().join("song.wav");
    std::fs::write(&path, wav(8_000, 1, 0.2, tone(440.0, 0.5))).unwrap();
    for (name, says) in [("talkative", "yes"), ("confused", "echo no")] {
        let program = world.folder.path().join(name);
        std::fs::write(&program, format!("#!/bin/sh\n{says}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = inspector(program).inspect(&path).await;
        assert!(matches!(found, Err(UploadError::Corrupt)), "{name}: {found:?}");
    }
    yard.is_as_before(Duration::from_secs(30));
}
