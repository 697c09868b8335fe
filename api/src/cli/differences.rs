//! `flatrender differences`: what differs between our books and those of gateways, over HTTP. The list takes a key that may administer its
//! tenant; what is said of one takes a person's token, and another person's.

use super::{
    client::path_part,
    failure::CliError,
    payments::{How, ask, show, text},
};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

/// Lists what differs from gateways, and says what it was.
#[derive(Debug, Args)]
pub struct DifferencesArgs {
    #[command(subcommand)]
    deed: Option<Deed>,
    /// Also those that two people have explained.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// Says what one was; another person confirms it.
    Explain {
        /// Its id.
        id: String,
        /// What it was, and how you know.
        explanation: String,
    },
    /// Confirms what another person has said.
    Confirm {
        /// Its id.
        id: String,
        /// What they have said, as you have read it.
        explanation: String,
    },
}

/// `flatrender differences`
///
/// # Errors
/// See [`CliError`].
pub async fn differences(args: DifferencesArgs) -> Result<(), CliError> {
    let client = args.how.connect().await?;
    let at = |id: &String| format!("/v1/payment-differences/{}", path_part(id));
    let answer = match &args.deed {
        None => ask(&client, Method::GET, &format!("/v1/payment-differences?limit=100&all={}", args.all), None).await?,
        Some(deed) => {
            let (id, explanation, what) = match deed {
                Deed::Explain { id, explanation } => (id, explanation, "explain"),
                Deed::Confirm { id, explanation } => (id, explanation, "confirm"),
            };
            let now = ask(&client, Method::GET, &at(id), None).await?;
            let said = json!({"explanation": explanation, "our_amount": now["our_amount"], "their_amount": now["their_amount"]});
            ask(&client, Method::POST, &format!("{}/{what}", at(id)), Some(said)).await?
        }
    };
    if answer["has_more"] == true {
        eprintln!("these are the newest hundred; there are more");
    }
    show(args.how.is_json(), &answer, |d| {
        let what = if d["day"].is_null() { &d["reference"] } else { &d["day"] };
        format!(
            "{}  {:<9}  {:<8}  {:<10}  {:>12} {:>12} {:<3}  {}  {}",
            text(&d["id"]),
            text(&d["kind"]),
            text(&d["provider"]),
            text(what),
            d["our_amount"].to_string(),
            d["their_amount"].to_string(),
            text(&d["currency"]),
            text(&d["detail"]),
            text(&d["explanation"])
        )
    })
}
