//! `flatrender notifications …`: telling people something, and who carries it.

mod settings;

use super::{client::path_part, failure::CliError, server::ServerArgs};
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
        server: ServerArgs,
    },
    /// Lists who carries messages.
    Accounts {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Lists addresses that are not written to.
    Suppressions {
        #[command(flatten)]
        server: ServerArgs,
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
        Deed::Tell { subject, text, to, news, path, key, server } => {
            let to = if matches!(to, To::Managers) { "managers" } else { "everyone" };
            let kind = if news { "news" } else { "announcement" };
            let key = key.unwrap_or_else(|| Uuid::now_v7().to_string());
            let body = json!({"key": key, "to": to, "kind": kind, "subject": subject, "text": text, "path": path});
            let client = server.connect().await?;
            let call = client.call(Method::POST, "/v1/notification-broadcasts").json(&body);
            let answer = client.json::<Value>(call).await?.value;
            println!("{key} {}", if answer["started"] == true { "begun" } else { "was begun before" });
        }
        Deed::Accounts { server } => {
            let client = server.connect().await?;
            let all = client.json::<Value>(client.call(Method::GET, "/v1/notification-accounts")).await?.value;
            for account in all["data"].as_array().into_iter().flatten() {
                let text = |name: &str| account[name].as_str().unwrap_or_default().to_owned();
                let [id, channel, provider, state, name] = ["id", "channel", "provider", "state", "name"].map(text);
                println!("{id} {channel:<9} {provider:<10} {state:<7} {name}");
            }
        }
        Deed::Suppressions { server } => {
            let client = server.connect().await?;
            let mut after: Option<String> = None;
            loop {
                let call = client.call(Method::GET, "/v1/notification-suppressions").query(&[("limit", "100")]);
                let call = if let Some(cursor) = &after { call.query(&[("starting_after", cursor)]) } else { call };
                let page = client.json::<Value>(call).await?.value;
                for row in page["data"].as_array().into_iter().flatten() {
                    let text = |name: &str| row[name].as_str().unwrap_or_default();
                    println!(
                        "{:<9} {} {:<12} {}",
                        text("channel"),
                        text("address_hash"),
                        text("reason"),
                        text("until")
                    );
                }
                after = page["next_cursor"].as_str().map(str::to_owned);
                if after.is_none() {
                    break;
                }
            }
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
