//! What the server answered, on its way to standard output or into a file.

use super::{document::Operation, request::Request};
use crate::cli::{client::Client, download::part_file, failure::CliError, sse::EventReader};
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use reqwest::{Response, header::CONTENT_TYPE};
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{IsTerminal as _, Write},
    path::Path,
};

/// Where an answer goes, and for whom it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) out: Option<&'a Path>,
    /// For a program.
    pub(super) json: bool,
}

impl To<'_> {
    /// Passes an answer on as it comes: JSON in lines for people, events as they happen, all else byte by byte.
    ///
    /// # Errors
    /// It breaks off, cannot be written, or would spoil a terminal.
    pub(super) async fn pass(self, client: &Client, of: &Operation<'_>, answer: Response) -> Result<(), CliError> {
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        match kind.as_str() {
            _ if matches!(of.method, "head" | "options") => self.headers(&answer, None),
            "" => self.headers(&answer, Some(&of.answer_headers(answer.status().as_u16()))),
            "application/json" => {
                let bytes = answer.bytes().await.map_err(|e| client.lost(&e))?;
                match serde_json::from_slice::<Value>(&bytes) {
                    Ok(value) if !self.json => self.value(&value),
                    _ => self.line(&bytes),
                }
            }
            "text/event-stream" => self.events(client, answer).await,
            _ => self.bytes(client, answer, &kind).await,
        }
    }

    /// All pages of a list, as one.
    ///
    /// # Errors
    /// As [`Self::pass`], and where the list leads nowhere.
    pub(super) async fn pass_all(self, client: &Client, mut request: Request) -> Result<(), CliError> {
        let (mut all, mut last) = (vec![], None);
        loop {
            let page = client.json::<Value>(request.call(client).await?).await?.json;
            all.extend(page["data"].as_array().cloned().unwrap_or_default());
            let next = match &page["next_cursor"] {
                Value::Null => break,
                Value::String(cursor) => cursor.clone(),
                cursor => cursor.to_string(),
            };
            if last.replace(next.clone()).is_some_and(|last| last == next) {
                return Err(anyhow!("the list does not go on after {next}").into());
            }
            request.after(next);
        }
        self.value(&json!({ "object": "list", "data": all, "next_cursor": null }))
    }

    fn value(self, value: &Value) -> Result<(), CliError> {
        let text = if self.json { value.to_string() } else { format!("{value:#}") };
        self.line(text.as_bytes())
    }

    fn line(self, text: &[u8]) -> Result<(), CliError> {
        let mut to = self.open()?;
        Ok(to.write_all(text).and_then(|()| to.write_all(b"\n")).context("cannot write the answer")?)
    }

    /// What an answer without a body says; of these headers alone, or of all.
    fn headers(self, answer: &Response, of: Option<&[&str]>) -> Result<(), CliError> {
        let is_told = |name: &str| of.is_none_or(|of| of.iter().any(|one| one.eq_ignore_ascii_case(name)));
        let all = answer.headers().iter().filter(|(name, _)| is_told(name.as_str()));
        let all = all.map(|(name, value)| (name.to_string(), Value::from(String::from_utf8_lossy(value.as_bytes()))));
        let told: Map<String, Value> = all.collect();
        if told.is_empty() {
            return Ok(());
        }
        if self.json {
            return self.value(&Value::Object(told));
        }
        let lines = told.iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or_default()));
        self.line(lines.collect::<Vec<_>>().join("\n").as_bytes())
    }

    async fn events(self, client: &Client, mut answer: Response) -> Result<(), CliError> {
        let (mut to, mut reader) = (self.open()?, EventReader::default());
        while let Some(bytes) = answer.chunk().await.map_err(|e| client.lost(&e))? {
            let text = match self.json {
                true => {
                    let told = reader.push(&bytes).into_iter().map(|event| {
                        let data = serde_json::from_str(&event.data).unwrap_or(Value::String(event.data));
                        format!("{}\n", json!({ "event": event.name, "data": data }))
                    });
                    Bytes::from(told.collect::<String>())
                }
                false => bytes,
            };
            to.write_all(&text).and_then(|()| to.flush()).context("cannot write the answer")?;
        }
        Ok(())
    }

    async fn bytes(self, client: &Client, answer: Response, kind: &str) -> Result<(), CliError> {
        let Some(out) = self.out else {
            if std::io::stdout().is_terminal() && !kind.starts_with("text/") && !kind.ends_with("+xml") {
                return Err(CliError::Usage(format!("the answer is {kind}: say where it goes with --out FILE")));
            }
            return copy(client, answer, &mut std::io::stdout()).await;
        };
        // Whole, or not at all.
        let mut part = part_file(out)?;
        copy(client, answer, &mut part).await?;
        part.persist(out).map_err(|e| anyhow!("cannot write {}: {}", out.display(), e.error))?;
        Ok(())
    }

    fn open(self) -> Result<Box<dyn Write>, CliError> {
        let Some(out) = self.out else { return Ok(Box::new(std::io::stdout())) };
        Ok(Box::new(File::create(out).with_context(|| format!("cannot write {}", out.display()))?))
    }
}

async fn copy(client: &Client, mut answer: Response, to: &mut impl Write) -> Result<(), CliError> {
    while let Some(bytes) = answer.chunk().await.map_err(|e| client.lost(&e))? {
        to.write_all(&bytes).context("cannot write the answer")?;
    }
    Ok(to.flush().context("cannot write the answer")?)
}
