//! Making a film with a server: upload, order, follow, download; and what a Ctrl-C does to that.

use super::answers::{Export, Render};
use super::client::{Answer, Client};
use super::failure::CliError;
use super::order::LocalOrder;
use super::progress::Progress;
use super::{download, follow};
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How long the server may take to confirm that a render was cancelled.
const CANCEL: Duration = Duration::from_secs(30);
/// Sending an order may be repeated: the key makes it one render.
const SENDS: u32 = 3;

/// A film on this machine.
#[derive(Debug)]
pub struct Film {
    /// The render that made it.
    pub render: Answer<Render>,
    /// Where it is on the server.
    pub export: Export,
    /// What took how long, in order.
    pub times: Vec<(String, Duration)>,
}

/// Makes the film of `order` and puts it at `out`.
///
/// # Errors
/// See [`CliError`]. After a Ctrl-C the render is cancelled on the server before this returns.
pub async fn make(client: &Client, order: LocalOrder, out: &Path, quiet: bool) -> Result<Film, CliError> {
    let mut interrupt = Interrupt::new()?;
    let begun = Instant::now();
    let body = tokio::select! {
        body = order.upload(client) => body?,
        () = interrupt.next() => return Err(CliError::Cancelled("cancelled before the render was ordered".into())),
    };
    let mut times = vec![("upload".to_owned(), begun.elapsed())];
    let ordered = send(client, &body).await?;
    let mut progress = Progress::new(quiet);
    progress.show(&ordered.value);
    let id = ordered.value.id;
    let ended = tokio::select! {
        ended = follow::to_the_end(client, &id, &mut progress) => ended,
        () = interrupt.next() => Err(cancel(client, &id, &progress, &mut interrupt).await),
    };
    times.extend(progress.finish().into_iter().filter(|(phase, _)| phase != "completed"));
    let render = ended?;
    let export = finished(&render.value)?;
    let begun = Instant::now();
    tokio::select! {
        done = download::film(client, &export, out) => done?,
        () = interrupt.next() => return Err(CliError::Cancelled(format!("stopped while downloading; the film is at {}", export.url))),
    }
    times.push(("download".to_owned(), begun.elapsed()));
    Ok(Film { render, export, times })
}

async fn send(client: &Client, body: &serde_json::Value) -> Result<Answer<Render>, CliError> {
    let key = Uuid::now_v7().to_string();
    let mut sent = 1;
    loop {
        match client.create_render(body, &key).await {
            Err(CliError::NoServer(_)) if sent < SENDS => tokio::time::sleep(Duration::from_millis(500)).await,
            answer => return answer,
        }
        sent += 1;
    }
}

/// The film of a finished render; else why there is none.
fn finished(render: &Render) -> Result<Export, CliError> {
    match (render.status.as_str(), &render.export, &render.error) {
        ("completed", Some(export), _) => Ok(export.clone()),
        ("cancelled", ..) => Err(CliError::Cancelled("the render was cancelled on the server".into())),
        (_, _, Some(error)) => Err(CliError::RenderFailed {
            code: error.code.clone(),
            message: error.message.trim_end_matches('.').into(),
        }),
        (status, ..) => Err(CliError::RenderFailed {
            code: "render.no_film".into(),
            message: format!("it is {status} and has no film"),
        }),
    }
}

/// Cancels the render and waits until the server says that it has ended. A second Ctrl-C does not wait.
async fn cancel(client: &Client, id: &str, progress: &Progress, interrupt: &mut Interrupt) -> CliError {
    progress.note("Cancelling the render …");
    if let Err(e) = client.cancel(id).await {
        let too_late = matches!(&e, CliError::Refused { problem, .. } if problem.status == 409);
        if !too_late {
            return CliError::Cancelled(format!("stopped, but the render {id} may go on: {}", e.line()));
        }
    }
    let confirmed = tokio::select! {
        ended = timeout(CANCEL, follow::ask_until_ended(client, id)) => ended,
        () = interrupt.next() => return CliError::Cancelled(format!("stopped without waiting for the render {id}")),
    };
    match confirmed {
        Ok(Ok(ended)) if ended.value.status == "cancelled" => CliError::Cancelled("cancelled".into()),
        Ok(Ok(ended)) => CliError::Cancelled(format!("too late to cancel: the render {id} is {}", ended.value.status)),
        Ok(Err(e)) => CliError::Cancelled(format!("stopped, but the render {id} may go on: {}", e.line())),
        Err(_) => CliError::Cancelled(format!("stopped, but the server has not confirmed that {id} ended")),
    }
}

/// Ctrl-C, or a request of the system to end.
pub struct Interrupt {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    /// From now on a Ctrl-C no longer ends the program by itself.
    ///
    /// # Errors
    /// The system has no handler left.
    pub fn new() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|e| CliError::Here(e.into()));
        Ok(Self { int: listen(SignalKind::interrupt())?, term: listen(SignalKind::terminate())? })
    }

    /// Ends at the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}
