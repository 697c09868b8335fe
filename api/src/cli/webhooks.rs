//! `flatrender webhooks …`: what was sent to webhooks, and sending it again.

use super::{
    client::path_part,
    failure::CliError,
    payments::{self, How, ask, text},
};
use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use flatrender_activities::webhook::is_signed;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Read as _;

/// How far the time of a message may be from ours, in seconds. Source: Standard Webhooks 1.0.
const TOLERANCE_SECONDS: i64 = 300;

/// Lists webhooks and their deliveries, tries a webhook, sends deliveries again, and checks signatures.
///
/// Takes a key that may manage the tenant.
#[derive(Debug, Clone, Args)]
pub struct WebhooksArgs {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Clone, Subcommand)]
enum Deed {
    /// Lists the webhooks.
    List(How),
    /// Lists what there is to hear of.
    Events(How),
    /// Lists the newest deliveries to a webhook.
    Deliveries {
        /// The webhook, by its id.
        webhook: String,
        /// Only those in this state: pending, delivered, failed, cancelled, missed.
        #[arg(long)]
        state: Option<String>,
        /// Only those of this event, such as render.completed.
        #[arg(long = "type", value_name = "EVENT")]
        kind: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Shows a delivery with each of its attempts.
    Show {
        /// The webhook, by its id.
        webhook: String,
        /// The delivery, by its id.
        delivery: String,
        #[command(flatten)]
        how: How,
    },
    /// Sends a delivery again, or all that are as asked for.
    Replay {
        /// The webhook, by its id.
        webhook: String,
        /// The delivery, by its id [default: all that are as asked for].
        delivery: Option<String>,
        /// Those in this state: delivered, failed, cancelled, missed.
        #[arg(long, conflicts_with = "delivery")]
        state: Option<String>,
        /// Those of this event.
        #[arg(long = "type", value_name = "EVENT", conflicts_with = "delivery")]
        kind: Option<String>,
        /// Those of events from then on, such as 2026-11-26T00:00:00Z.
        #[arg(long, conflicts_with = "delivery")]
        from: Option<DateTime<Utc>>,
        /// Those of events before.
        #[arg(long, conflicts_with = "delivery")]
        until: Option<DateTime<Utc>>,
        #[command(flatten)]
        how: How,
    },
    /// Sends a test event.
    Test {
        /// The webhook, by its id.
        webhook: String,
        #[command(flatten)]
        how: How,
    },
    /// Pauses a webhook: what it would get is remembered as missed.
    Pause {
        /// The webhook, by its id.
        webhook: String,
        #[command(flatten)]
        how: How,
    },
    /// Lets a webhook go on.
    Resume {
        /// The webhook, by its id.
        webhook: String,
        #[command(flatten)]
        how: How,
    },
    /// Checks the signature of a message whose body is on standard input, as a receiver should.
    Verify(VerifyArgs),
}

#[derive(Debug, Clone, Args)]
struct VerifyArgs {
    /// The secret of the webhook, whsec_…, or its public key, whpk_…
    #[arg(long, env = "FLATRENDER_WEBHOOK_SECRET", hide_env_values = true)]
    secret: String,
    /// The header webhook-id.
    #[arg(long)]
    id: String,
    /// The header webhook-timestamp.
    #[arg(long)]
    timestamp: i64,
    /// The header webhook-signature.
    #[arg(long)]
    signature: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Does it.
///
/// # Errors
/// See [`CliError`]; a signature that is not good is [`CliError::Unhealthy`].
pub async fn run(args: WebhooksArgs) -> Result<(), CliError> {
    match args.deed {
        Deed::List(how) => {
            let all = ask(&how.connect().await?, Method::GET, "/v1/webhooks", None).await?;
            payments::show(how.is_json(), &all, |w| {
                format!("{}  {:<8}  {}", text(&w["id"]), text(&w["state"]), text(&w["url"]))
            })
        }
        Deed::Events(how) => {
            let all = ask(&how.connect().await?, Method::GET, "/v1/webhook-events", None).await?;
            payments::show(how.is_json(), &all, |e| format!("{:<26}  {}", text(&e["type"]), text(&e["description"])))
        }
        Deed::Deliveries { webhook, state, kind, how } => {
            let mut path = format!("/v1/webhooks/{}/deliveries?limit=100", path_part(&webhook));
            for (name, value) in [("state", state), ("type", kind)] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", path_part(&value)));
                }
            }
            payments::show(how.is_json(), &ask(&how.connect().await?, Method::GET, &path, None).await?, line)
        }
        Deed::Show { webhook, delivery, how } => {
            let path = format!("/v1/webhooks/{}/deliveries/{}", path_part(&webhook), path_part(&delivery));
            show(&how, Method::GET, &path, None).await
        }
        Deed::Replay { webhook, delivery: Some(delivery), how, .. } => {
            let path = format!("/v1/webhooks/{}/deliveries/{}/replay", path_part(&webhook), path_part(&delivery));
            show(&how, Method::POST, &path, None).await
        }
        Deed::Replay { webhook, delivery: None, state, kind, from, until, how } => {
            let body = json!({"state": state, "type": kind, "from": from, "until": until});
            show(&how, Method::POST, &format!("/v1/webhooks/{}/replay", path_part(&webhook)), Some(body)).await
        }
        Deed::Test { webhook, how } => {
            show(&how, Method::POST, &format!("/v1/webhooks/{}/test", path_part(&webhook)), None).await
        }
        Deed::Pause { webhook, how } => let_go_on(&how, &webhook, false).await,
        Deed::Resume { webhook, how } => let_go_on(&how, &webhook, true).await,
        Deed::Verify(message) => {
            let mut body = vec![];
            std::io::stdin().read_to_end(&mut body).context("cannot read the body")?;
            match message.verdict(&body, Utc::now()) {
                Ok(()) if message.json => println!("{}", json!({ "good": true })),
                Ok(()) => println!("the signature is good"),
                Err(why) => return Err(CliError::Unhealthy(why)),
            }
            Ok(())
        }
    }
}

impl VerifyArgs {
    fn verdict(&self, body: &[u8], now: DateTime<Utc>) -> Result<(), String> {
        let at = DateTime::from_timestamp(self.timestamp, 0).ok_or("the timestamp is none")?;
        let good = is_signed(&self.secret, &self.id, at, body, &self.signature);
        if !good.ok_or("the secret is neither whsec_ nor whpk_ and base64")? {
            return Err("the signature is not of this message and secret".to_owned());
        }
        match (now - at).num_seconds().abs() <= TOLERANCE_SECONDS {
            true => Ok(()),
            false => Err(format!("the message was signed more than {TOLERANCE_SECONDS} seconds from now")),
        }
    }
}

async fn let_go_on(how: &How, webhook: &str, active: bool) -> Result<(), CliError> {
    let path = format!("/v1/webhooks/{}", path_part(webhook));
    show(how, Method::PATCH, &path, Some(json!({ "active": active }))).await
}

async fn show(how: &How, method: Method, path: &str, body: Option<Value>) -> Result<(), CliError> {
    let answer = ask(&how.connect().await?, method, path, body).await?;
    println!("{answer:#}");
    Ok(())
}

fn line(d: &Value) -> String {
    let status =
        d["last_status"].as_i64().map_or_else(|| text(&d["last_error"]).to_owned(), |status| status.to_string());
    let (id, at, kind, state) = (text(&d["id"]), text(&d["occurred_at"]), text(&d["event_type"]), text(&d["state"]));
    let attempts = d["attempts"].as_array().map_or(0, Vec::len);
    format!("{id}  {at:<27}  {kind:<24}  {state:<9}  {attempts:>2}  {status}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_good_for_five_minutes_and_for_its_secret() {
        let at = DateTime::from_timestamp(1_614_265_330, 0).expect("a time");
        let message = VerifyArgs {
            secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned(),
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            timestamp: at.timestamp(),
            signature: "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned(),
            json: false,
        };
        let body = b"{\"test\": 2432232314}";
        assert_eq!(message.verdict(body, at + chrono::Duration::seconds(300)), Ok(()));
        assert!(message.verdict(body, at + chrono::Duration::seconds(301)).is_err());
        assert!(message.verdict(b"{\"test\": 2432232315}", at).is_err());
        assert!(VerifyArgs { id: "other".to_owned(), ..message }.verdict(body, at).is_err());
    }
}
