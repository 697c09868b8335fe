//! What a tenant has set for its messages: accounts, what counts for whoever chose nothing, words of its own.

use crate::cli::{
    client::path_part,
    failure::CliError,
    payments::{self, How, show, text},
    server::ServerArgs,
};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Words of a kind, by a channel, in a language.
#[derive(Debug, Args)]
pub(super) struct Of {
    /// What the message is about, such as render.completed.
    kind: String,
    /// `inapp`, `push`, `email`, `sms` or `telegram`.
    channel: String,
    /// The language, by BCP 47.
    language: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Turn {
    On,
    Off,
}

#[derive(Debug, Subcommand)]
pub(super) enum Setting {
    /// Adds an account: from then on the messages of its channel go by it.
    Add {
        /// What it is called.
        name: String,
        /// `smtp`, `vapid`, `twilio`, `kavenegar` or `telegram`.
        provider: String,
        /// What the provider wants to know: a file of JSON, as /docs says.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Messages a second.
        #[arg(long, default_value_t = 10.0)]
        rate: f32,
        /// The lower goes first.
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        position: i32,
        #[command(flatten)]
        how: How,
    },
    /// Has an account carry nothing for now.
    Pause {
        /// Its id.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Has an account carry messages again.
    Resume {
        /// Its id.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Removes an account, and what its provider wanted to know.
    Remove {
        /// Its id.
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lists what counts for people who chose nothing.
    Defaults {
        #[command(flatten)]
        how: How,
    },
    /// Chooses for people who chose nothing.
    Default {
        /// What about, such as renders.
        category: String,
        /// `inapp`, `push`, `email`, `sms` or `telegram`.
        channel: String,
        /// Whether to be told.
        turn: Turn,
        /// Whether messages wait to be sent together: off, hourly or daily.
        #[arg(long, default_value = "off")]
        digest: String,
        /// Hours of rest, such as 22:00-07:30.
        #[arg(long, value_name = "FROM-TO", value_parser = hours)]
        rest: Option<(String, String)>,
        /// Time zone of these hours [default: each person's own].
        #[arg(long)]
        timezone: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Takes such a choice back: what is usual counts again.
    Usual {
        /// What about, such as renders.
        category: String,
        /// `inapp`, `push`, `email`, `sms` or `telegram`.
        channel: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lists the words of messages: your own, then ours.
    Words {
        /// Only those of a kind, such as render.completed.
        kind: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Says a message in words of your own.
    Say {
        #[command(flatten)]
        of: Of,
        /// In paragraphs, a line each; {{name}} is filled in.
        body: String,
        /// In one line [default: ours].
        #[arg(long)]
        subject: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Says a message in our words again.
    Unsay {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Shows how a message would be, in the words that are in use.
    Preview {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        how: How,
    },
}

const ACCOUNTS: &str = "/v1/notification-accounts";
const DEFAULTS: &str = "/v1/notification-defaults";
const WORDS: &str = "/v1/notification-templates";

/// Does it, or shows it.
///
/// # Errors
/// See [`CliError`].
pub(super) async fn run(setting: Setting) -> Result<(), CliError> {
    match setting {
        Setting::Add { name, provider, config, rate, position, how } => {
            let text = std::fs::read(&config).with_context(|| format!("cannot read {}", config.display()))?;
            let odd = |e| CliError::Usage(format!("{} is no JSON: {e}", config.display()));
            let config: Value = serde_json::from_slice(&text).map_err(odd)?;
            let body =
                json!({"name": name, "provider": provider, "config": config, "per_second": rate, "position": position});
            let made = payments::ask(&how.connect().await?, Method::POST, ACCOUNTS, Some(body)).await?;
            show(how.is_json(), &made, |made| payments::text(&made["id"]).to_owned())
        }
        Setting::Pause { id, server } => turn(&server, &id, false).await,
        Setting::Resume { id, server } => turn(&server, &id, true).await,
        Setting::Remove { id, server } => {
            tell(&server, Method::DELETE, &format!("{ACCOUNTS}/{}", path_part(&id)), None).await
        }
        Setting::Defaults { how } => defaults(&how).await,
        Setting::Default { category, channel, turn, digest, rest, timezone, server } => {
            let (start, end) = rest.unzip();
            let body = json!({"enabled": matches!(turn, Turn::On), "digest": digest, "quiet_start": start, "quiet_end": end,
                              "timezone": timezone});
            tell(&server, Method::PUT, &default_of(&category, &channel), Some(&body)).await
        }
        Setting::Usual { category, channel, server } => {
            tell(&server, Method::DELETE, &default_of(&category, &channel), None).await
        }
        Setting::Words { kind, how } => words(&how, kind.as_deref()).await,
        Setting::Say { of, body, subject, server } => {
            tell(&server, Method::PUT, &of.path(), Some(&json!({"body": body, "subject": subject}))).await
        }
        Setting::Unsay { of, server } => tell(&server, Method::DELETE, &of.path(), None).await,
        Setting::Preview { of, how } => {
            let path = format!("{}/preview", of.path());
            let seen = payments::ask(&how.connect().await?, Method::POST, &path, Some(json!({}))).await?;
            show(how.is_json(), &seen, |seen| format!("{}\n\n{}", text(&seen["subject"]), text(&seen["text"])))
        }
    }
}

impl Of {
    fn path(&self) -> String {
        format!("{WORDS}/{}/{}/{}", path_part(&self.kind), path_part(&self.channel), path_part(&self.language))
    }
}

fn default_of(category: &str, channel: &str) -> String {
    format!("{DEFAULTS}/{}/{}", path_part(category), path_part(channel))
}

/// Asks where there is nothing to hear but that it was done.
async fn tell(server: &ServerArgs, method: Method, path: &str, body: Option<&Value>) -> Result<(), CliError> {
    let client = server.connect().await?;
    let call = client.call(method, path);
    client.send(if let Some(body) = body { call.json(body) } else { call }).await?;
    Ok(())
}

async fn turn(server: &ServerArgs, id: &str, active: bool) -> Result<(), CliError> {
    tell(server, Method::PATCH, &format!("{ACCOUNTS}/{}", path_part(id)), Some(&json!({"active": active}))).await
}

async fn defaults(how: &How) -> Result<(), CliError> {
    let all = payments::ask(&how.connect().await?, Method::GET, DEFAULTS, None).await?;
    show(how.is_json(), &all, |one| {
        let of = |name: &str| one[name].as_str().unwrap_or("-");
        let told = if one["enabled"] == true { "on" } else { "off" };
        let [category, channel, digest] = ["category", "channel", "digest"].map(of);
        let [from, to, by] = ["quiet_start", "quiet_end", "chosen_by"].map(of);
        format!("{category:<14} {channel:<9} {told:<4} {digest:<7} {from}-{to} {by}")
    })
}

async fn words(how: &How, kind: Option<&str>) -> Result<(), CliError> {
    let client = how.connect().await?;
    let call = client.call(Method::GET, WORDS);
    let call = if let Some(kind) = kind { call.query(&[("kind", kind)]) } else { call };
    let all = client.json::<Value>(call).await?.value;
    show(how.is_json(), &all, |one| {
        let whose = one["version"].as_i64().map_or_else(|| "ours".to_owned(), |version| format!("v{version}"));
        let [kind, channel, language, subject] =
            ["kind", "channel", "language", "subject"].map(|name| text(&one[name]));
        format!("{kind:<26} {channel:<9} {language:<3} {whose:<5} {subject}")
    })
}

fn hours(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.split_once('-').ok_or("hours of rest are FROM-TO, such as 22:00-07:30")?;
    Ok((from.trim().to_owned(), to.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_of_rest_have_two_ends() {
        assert_eq!(hours("22:00-07:30"), Ok(("22:00".into(), "07:30".into())));
        assert!(hours("22:00").is_err());
    }
}
