//! Bodies that are too long or too slow.

use axum::{body::Body, http::HeaderMap, http::header};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::{io, time::Duration};

/// Most of a refused body that is read and thrown away.
const DRAIN_BYTES: usize = 256 * 1024 * 1024;
/// Longest time for that.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// A body that sends nothing for this long is given up.
const IDLE: Duration = Duration::from_secs(30);

/// Reads on and throws away what the client still sends of a refused body, so that it gets to read the answer:
/// many clients look at it only after their last byte, and closing before that loses it. A client that waits for
/// `100 Continue` sends nothing and is answered at once.
pub async fn drain(headers: &HeaderMap, rest: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    // Whether all of it came does not matter: the request is refused either way.
    let _ = tokio::time::timeout(DRAIN_TIME, swallow(rest)).await;
}

async fn swallow(mut rest: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    let mut read = 0;
    while read < DRAIN_BYTES
        && let Some(Ok(chunk)) = rest.next().await
    {
        read += chunk.len();
    }
}

/// The chunks of a body; an error when it stops coming.
pub fn idle_limited(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin {
    let chunks = futures::stream::unfold(body.into_data_stream(), |mut chunks| async move {
        let next = tokio::time::timeout(IDLE, chunks.next()).await;
        let late = || Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the body stopped coming")));
        let item = next.map_or_else(|_| late(), |chunk| chunk.map(|c| c.map_err(io::Error::other)));
        item.map(|item| (item, chunks))
    });
    Box::pin(chunks)
}
