//! `flatrender notifications …`: telling people something, and who carries it.

mod settings;

use super::{
    client::path_part,
    failure::CliError,
    payments::{How, ask, show, text},
    server::ServerArgs,
};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// Tells people of a tenant something, and looks at how messages go out.
///
/// Takes a key that may manage the tenant.
#[derive(Debug, Args)]
pub struct NotificationsArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Tells everybody, or those who manage the tenant, each in the way that they want.
    Tell {
        /// In one line.
        subject: String,
        /// More, as text.
        text: String,
        /// Who is told.
        #[arg(long, default_value = "everyone")]
        to: To,
        /// As marketing: only those are told who agreed to it.
        #[arg(long)]
        news: bool,
        /// Where to go from here, as a path.
        #[arg(long)]
        path: Option<String>,
        /// With the same one nobody is told twice [default: a new one].
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Lists who carries messages.
    Accounts {
        #[command(flatten)]
        how: How,
    },
    /// Lists addresses that are not written to.
    Suppressions {
        #[command(flatten)]
        how: How,
    },
    /// Writes to an address again.
    Lift {
        /// `email` or `sms`.
        channel: String,
        /// Its hash, as listed.
        hash: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    #[command(flatten)]
    Setting(settings::Setting),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum To {
    Everyone,
    Managers,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: NotificationsArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::Tell { subject, text, to, news, path, key, how } => {
            let to = if matches!(to, To::Managers) { "managers" } else { "everyone" };
            let kind = if news { "news" } else { "announcement" };
            let key = key.unwrap_or_else(|| Uuid::now_v7().to_string());
            let body = json!({"key": key, "to": to, "kind": kind, "subject": subject, "text": text, "path": path});
            let path = "/v1/notification-broadcasts";
            let answer = ask(&how.connect().await?, Method::POST, path, Some(body)).await?;
            show(how.is_json(), &json!({ "key": key, "started": answer["started"] }), |told| {
                format!("{key} {}", if told["started"] == true { "begun" } else { "was begun before" })
            })?;
        }
        Deed::Accounts { how } => {
            let all = ask(&how.connect().await?, Method::GET, "/v1/notification-accounts", None).await?;
            show(how.is_json(), &all, |account| {
                let of = |name: &str| text(&account[name]);
                let [id, channel, provider, state, name] = ["id", "channel", "provider", "state", "name"].map(of);
                format!("{id} {channel:<9} {provider:<10} {state:<7} {name}")
            })?;
        }
        Deed::Suppressions { how } => {
            let client = how.connect().await?;
            let (mut all, mut after): (Vec<Value>, Option<String>) = (vec![], None);
            loop {
                let call = client.call(Method::GET, "/v1/notification-suppressions").query(&[("limit", "100")]);
                let call = if let Some(cursor) = &after { call.query(&[("starting_after", cursor)]) } else { call };
                let page = client.json::<Value>(call).await?.value;
                all.extend(page["data"].as_array().cloned().unwrap_or_default());
                after = page["next_cursor"].as_str().map(str::to_owned);
                if after.is_none() {
                    break;
                }
            }
            show(how.is_json(), &json!({ "object": "list", "data": all }), |row| {
                let of = |name: &str| text(&row[name]);
                let [channel, hash, reason, until] = ["channel", "address_hash", "reason", "until"].map(of);
                format!("{channel:<9} {hash} {reason:<12} {until}")
            })?;
        }
        Deed::Lift { channel, hash, server } => {
            let client = server.connect().await?;
            let path = format!("/v1/notification-suppressions/{}/{}", path_part(&channel), path_part(&hash));
            client.send(client.call(Method::DELETE, &path)).await?;
        }
        Deed::Setting(setting) => settings::run(setting).await?,
    }
    Ok(())
}
