//! `flatrender plans`, `flatrender credits` and `flatrender coupons`: what is sold and what films may take, over HTTP, with a key that may
//! administer its tenant.

use super::{
    client::{Client, path_part},
    failure::CliError,
    server::ServerArgs,
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Lists what is sold, and sells something else.
#[derive(Debug, Args)]
pub struct PlansArgs {
    #[command(subcommand)]
    deed: Option<PlanDeed>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum PlanDeed {
    /// Lists every version, drafts and retired ones, too.
    Versions,
    /// Makes the next version of a plan from a JSON file, as `POST /v1/plans` takes it.
    Create {
        /// The file.
        file: PathBuf,
    },
    /// Sells a version, instead of the one that was sold before.
    Activate {
        /// Its id.
        id: String,
    },
    /// Sells a version no longer.
    Retire {
        /// Its id.
        id: String,
    },
}

/// Shows the credits that pay for your films, and gives some to others.
#[derive(Debug, Args)]
pub struct CreditsArgs {
    #[command(subcommand)]
    deed: Option<CreditDeed>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum CreditDeed {
    /// Lists what came and went, the newest first.
    Ledger,
    /// Gives a person seconds of rendering, or takes some with a negative number.
    Give {
        /// The person's id.
        person: String,
        /// Seconds.
        #[arg(allow_negative_numbers = true)]
        seconds: i64,
        /// Why: it stands in the audit.
        #[arg(long)]
        reason: String,
        /// Counts once, however often it is sent.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
}

/// Lists coupons, makes and ends them.
#[derive(Debug, Args)]
pub struct CouponsArgs {
    #[command(subcommand)]
    deed: Option<CouponDeed>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum CouponDeed {
    /// Makes a coupon.
    Create {
        /// What people type.
        code: String,
        /// Percent that it takes off.
        #[arg(long, conflicts_with_all = ["amount", "currency"], required_unless_present = "amount")]
        percent: Option<i64>,
        /// Minor units that it takes off.
        #[arg(long, requires = "currency")]
        amount: Option<i64>,
        /// In which currency.
        #[arg(long)]
        currency: Option<String>,
        /// How often it can be used in all.
        #[arg(long, default_value_t = 1)]
        times: i32,
        /// Until when, such as 2026-12-31T00:00:00Z.
        #[arg(long)]
        until: String,
    },
    /// Ends a coupon: nobody can use it from now on.
    End {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Args)]
struct How {
    /// Print what the server says, as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// `flatrender plans`
///
/// # Errors
/// See [`CliError`].
pub async fn plans(args: PlansArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let answer = match &args.deed {
        None => ask(&client, Method::GET, "/v1/plans", None).await?,
        Some(PlanDeed::Versions) => ask(&client, Method::GET, "/v1/plans/versions", None).await?,
        Some(PlanDeed::Create { file }) => {
            let text = std::fs::read_to_string(file).map_err(|e| CliError::unreadable("read", file, e))?;
            let plan: Value =
                serde_json::from_str(&text).map_err(|e| CliError::Usage(format!("{}: {e}", file.display())))?;
            ask(&client, Method::POST, "/v1/plans", Some(plan)).await?
        }
        Some(PlanDeed::Activate { id }) => {
            ask(&client, Method::POST, &format!("/v1/plans/{}/activate", path_part(id)), Some(json!({}))).await?
        }
        Some(PlanDeed::Retire { id }) => {
            ask(&client, Method::POST, &format!("/v1/plans/{}/retire", path_part(id)), Some(json!({}))).await?
        }
    };
    show(args.how.json, &answer, |plan| {
        let prices = plan["prices"].as_array().into_iter().flatten();
        let price = |p: &Value| format!("{} {}/{}", p["amount"], text(&p["currency"]), text(&p["interval"]));
        let prices = prices.map(price).collect::<Vec<_>>().join(", ");
        format!(
            "{}  {:<16} {:>3}  {:<8} {prices}",
            text(&plan["id"]),
            text(&plan["code"]),
            plan["version"],
            text(&plan["state"])
        )
    })
}

/// `flatrender credits`
///
/// # Errors
/// See [`CliError`].
pub async fn credits(args: CreditsArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let answer = match &args.deed {
        None => ask(&client, Method::GET, "/v1/credits", None).await?,
        Some(CreditDeed::Ledger) => ask(&client, Method::GET, "/v1/credits/ledger?limit=100", None).await?,
        Some(CreditDeed::Give { person, seconds, reason, key }) => {
            let path = format!("/v1/members/{}/credits", path_part(person));
            let mut call = client.call(Method::POST, &path).json(&json!({ "seconds": seconds, "reason": reason }));
            if let Some(key) = key {
                call = call.header("idempotency-key", key);
            }
            client.json::<Value>(call).await?.json
        }
    };
    show(args.how.json, &answer, |line| match line["delta"].as_i64() {
        Some(delta) => format!(
            "{:<27} {delta:>+10}  {:>10}  {:<10} {}",
            text(&line["created_at"]),
            line["balance_after"],
            text(&line["reason"]),
            text(&line["entry_key"])
        ),
        None => {
            let owner = line["owner"].as_str().map(|owner| format!(" ({owner})")).unwrap_or_default();
            format!("{} s of rendering, {} s of them held{owner}", line["balance"], line["held"])
        }
    })
}

/// `flatrender coupons`
///
/// # Errors
/// See [`CliError`].
pub async fn coupons(args: CouponsArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let answer = match &args.deed {
        None => ask(&client, Method::GET, "/v1/coupons?limit=100", None).await?,
        Some(CouponDeed::Create { code, percent, amount, currency, times, until }) => {
            let (kind, value) = percent.map_or(("amount", amount.unwrap_or_default()), |percent| ("percent", percent));
            let mut coupon =
                json!({"code": code, "kind": kind, "value": value, "max_redemptions": times, "valid_to": until});
            if let Some(currency) = currency {
                coupon["currency"] = json!(currency);
            }
            ask(&client, Method::POST, "/v1/coupons", Some(coupon)).await?
        }
        Some(CouponDeed::End { id }) => {
            client.send(client.call(Method::DELETE, &format!("/v1/coupons/{}", path_part(id)))).await?;
            ask(&client, Method::GET, &format!("/v1/coupons/{}", path_part(id)), None).await?
        }
    };
    show(args.how.json, &answer, |c| {
        let unit = c["currency"].as_str().unwrap_or("%");
        let used = format!("{}/{}", c["redeemed"], c["max_redemptions"]);
        format!(
            "{}  {:<20} {:>8} {unit:<3}  {used:>9}  until {}",
            text(&c["id"]),
            text(&c["code"]),
            c["value"],
            text(&c["valid_to"])
        )
    })
}

async fn ask(client: &Client, method: Method, path: &str, body: Option<Value>) -> Result<Value, CliError> {
    let call = client.call(method, path);
    let call = if let Some(body) = body { call.json(&body) } else { call };
    Ok(client.json::<Value>(call).await?.json)
}

/// Prints an answer: as it is, or a line for each thing of a list.
fn show(as_json: bool, answer: &Value, line: impl Fn(&Value) -> String) -> Result<(), CliError> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(answer).context("cannot write JSON")?);
        return Ok(());
    }
    match answer["data"].as_array() {
        Some(all) => all.iter().for_each(|one| println!("{}", line(one))),
        None => println!("{}", line(answer)),
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
