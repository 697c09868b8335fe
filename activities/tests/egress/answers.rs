//! Answers of receivers that mean ill.

use crate::{Canary, get, says};
use flatrender_activities::egress::{
    Egress, Reach,
    client::{EgressError, Reply},
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// In a hurry: what waits for nothing need not wait for long.
fn egress() -> Egress {
    Egress::new(Reach::Anywhere).with_patience(Duration::from_millis(400))
}

async fn briefly(canary: &Canary) -> Result<Reply, EgressError> {
    egress().send_briefly(get(&canary.url()), 4096).await
}

/// A gibibyte, or for ever: the begin is read, and nobody listens any longer.
#[tokio::test]
async fn of_an_endless_answer_the_begin_is_read() {
    let written = Arc::<AtomicUsize>::default();
    let count = written.clone();
    let canary = Canary::new(move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n");
        while let Ok(n) = stream.write(&[b'x'; 65536]) {
            count.fetch_add(n, Ordering::SeqCst);
        }
    });
    let reply = briefly(&canary).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.body), (200, vec![b'x'; 4096]));
    assert!(written.load(Ordering::SeqCst) < 64 << 20, "what lies in buffers, no more");
}

#[tokio::test]
async fn what_is_compressed_is_not_blown_up() {
    // Ten bytes of a header that promises deflate, and 100 that would be a megabyte of nothing.
    let bomb = [b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &[0xec; 100]].concat();
    for coding in ["gzip", "br", "deflate", "zstd"] {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: 110\r\n\r\n");
        let reply = briefly(&Canary::new(says([head.as_bytes(), &bomb].concat()))).await.unwrap();
        assert_eq!((reply.body, reply.headers["content-encoding"].to_str().unwrap()), (bomb.clone(), coding));
    }
}

#[tokio::test]
async fn too_many_and_too_long_headers_are_no_answer() {
    let long = (0..100).map(|n| format!("x-{n}: {}\r\n", "x".repeat(64 * 1024))).collect::<String>();
    let many = (0..10_000).map(|n| format!("x-{n}: x\r\n")).collect::<String>();
    for headers in [long, many] {
        let canary = Canary::new(says(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n")));
        assert!(matches!(briefly(&canary).await, Err(EgressError::Silent(_))));
    }
}

/// Writes a byte at a time until nobody listens.
fn drips(head: &'static str, drop: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(drop).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[tokio::test]
async fn nobody_who_drips_is_waited_for() {
    assert!(matches!(briefly(&Canary::new(drips("HTTP/1.1 200 OK\r\nx: ", b"x"))).await, Err(EgressError::Silent(_))));
    let late = briefly(&Canary::new(drips("HTTP/1.1 503 Wait\r\ncontent-length: 4096\r\n\r\n", b"x"))).await.unwrap();
    assert_eq!(late.status, 503, "what has been said counts, however slowly the rest comes");
    assert!(!late.body.is_empty() && late.body.len() < 4096);
}

#[tokio::test]
async fn what_is_no_http_or_no_tls_is_no_answer() {
    for nonsense in ["", "\0\0\0\0", "SSH-2.0-OpenSSH\r\n", "HTTP/9.9 200 OK\r\n\r\n", "HTTP/1.1 2000000 OK\r\n\r\n"] {
        assert!(matches!(briefly(&Canary::new(says(nonsense))).await, Err(EgressError::Silent(_))), "{nonsense:?}");
    }
    let plain = Canary::new(says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
    let tls = format!("https://{}/", plain.address);
    assert!(matches!(egress().send_briefly(get(&tls), 1).await, Err(EgressError::Silent(_))));
}

#[tokio::test]
async fn a_port_that_is_closed_and_one_that_says_nothing_are_told_alike() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let urls = [&silent, &closed].map(|l| format!("http://{}/", l.local_addr().unwrap()));
    drop(closed);
    let mut said = vec![];
    for url in urls {
        said.push(egress().send_briefly(get(&url), 1).await.unwrap_err().to_string());
    }
    assert_eq!(said[0], said[1]);
}
