//! Following a render to its end, whatever happens to the connection on the way.

use super::answers::Render;
use super::client::{Answer, Client};
use super::failure::CliError;
use super::progress::Progress;
use super::sse::EventReader;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long the server may be away before we give up. The render goes on without us.
const MOST_SILENCE: Duration = Duration::from_secs(120);
/// Between two questions, when there is no stream.
const POLL: Duration = Duration::from_secs(1);
/// A stream that says nothing for this long may be dead, and is left for a question.
const QUIET: Duration = Duration::from_secs(15);

/// Shows the render `id` until it has ended, and gives it as it ended.
///
/// # Errors
/// The server refuses, or was not heard of for two minutes.
pub async fn to_the_end(client: &Client, id: &str, progress: &mut Progress) -> Result<Answer<Render>, CliError> {
    let mut heard = Instant::now();
    loop {
        match listen(client, id, progress, &mut heard).await {
            Ok(Some(last)) => return Ok(last),
            Ok(None) => {}
            Err(e) => give_up_on(e, heard)?,
        }
        // The stream is a convenience. What the server says when asked is the truth.
        match client.render(id).await {
            Ok(now) => {
                heard = Instant::now();
                progress.show(&now.value);
                if now.value.is_final() {
                    return Ok(now);
                }
            }
            Err(e) => give_up_on(e, heard)?,
        }
        sleep(POLL).await;
    }
}

/// Asks until the render `id` has ended. For a render that is about to end.
///
/// # Errors
/// The server refuses, or is not heard of.
pub async fn ask_until_ended(client: &Client, id: &str) -> Result<Answer<Render>, CliError> {
    let heard = Instant::now();
    loop {
        match client.render(id).await {
            Ok(now) if now.value.is_final() => return Ok(now),
            Ok(_) => {}
            Err(e) => give_up_on(e, heard)?,
        }
        sleep(POLL / 4).await;
    }
}

/// Listens until the render has ended (then gives it) or the stream has.
async fn listen(
    client: &Client,
    id: &str,
    progress: &mut Progress,
    heard: &mut Instant,
) -> Result<Option<Answer<Render>>, CliError> {
    let mut stream = client.events(id).await?;
    let mut reader = EventReader::default();
    while let Ok(chunk) = timeout(QUIET, stream.chunk()).await {
        let Some(bytes) = chunk.map_err(|e| client.lost(&e))? else { break };
        *heard = Instant::now();
        for event in reader.push(&bytes).iter().filter(|e| matches!(e.name.as_str(), "render" | "" | "message")) {
            let Ok(json) = serde_json::from_str::<serde_json::Value>(&event.data) else { continue };
            let Ok(value) = serde_json::from_value::<Render>(json.clone()) else { continue };
            progress.show(&value);
            if value.is_final() {
                return Ok(Some(Answer { value, json }));
            }
        }
    }
    Ok(None)
}

/// A lost connection and a server in trouble pass; a refusal does not, nor a long silence.
fn give_up_on(error: CliError, heard: Instant) -> Result<(), CliError> {
    let passes = match &error {
        CliError::NoServer(_) => true,
        CliError::Refused { problem, .. } => problem.status >= 500 || problem.status == 429,
        _ => false,
    };
    if passes && heard.elapsed() < MOST_SILENCE { Ok(()) } else { Err(error) }
}
