//! `flatrender payments`, `flatrender refunds`, `flatrender invoices` and `flatrender gateways`: money, over HTTP. Lists take a key that may
//! administer its tenant; what decides about money takes a person's token.

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

/// Lists payments, and sees to one.
#[derive(Debug, Args)]
pub struct PaymentsArgs {
    #[command(subcommand)]
    deed: Option<PaymentDeed>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum PaymentDeed {
    /// Shows one, with what people have said of it.
    Show {
        /// Its id.
        id: String,
    },
    /// Cancels one that is not paid.
    Cancel {
        /// Its id.
        id: String,
    },
    /// Asks its gateway again.
    Verify {
        /// Its id.
        id: String,
    },
    /// Says what became of one; another person confirms it.
    Decide {
        /// Its id.
        id: String,
        /// paid, refund or failed.
        outcome: String,
        /// What the bank calls the movement of money.
        #[arg(long)]
        transaction: Option<String>,
        /// How much came, in minor units.
        #[arg(long, requires = "currency")]
        amount: Option<i64>,
        /// Of what.
        #[arg(long)]
        currency: Option<String>,
        /// How you know.
        #[arg(long)]
        evidence: String,
    },
    /// Confirms what another person has said.
    Confirm {
        /// The id of the decision.
        decision: String,
    },
    /// Refuses what somebody has said.
    Refuse {
        /// The id of the decision.
        decision: String,
    },
}

/// Lists refunds, asks for one, agrees to one.
#[derive(Debug, Args)]
pub struct RefundsArgs {
    #[command(subcommand)]
    deed: Option<RefundDeed>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum RefundDeed {
    /// Asks for money of a payment to go back: all that is left, or so much.
    Request {
        /// The payment's id.
        payment: String,
        /// Minor units.
        #[arg(long)]
        amount: Option<i64>,
        /// Why: it stands in the audit.
        #[arg(long)]
        reason: String,
        /// Leave what was bought with who bought it.
        #[arg(long)]
        keep: bool,
        /// Counts once, however often it is sent.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Agrees to one that another person asked for.
    Approve {
        /// Its id.
        id: String,
    },
    /// Refuses one.
    Refuse {
        /// Its id.
        id: String,
    },
    /// Says what became of one that is for people; another person confirms it with `flatrender payments confirm`.
    Decide {
        /// Its id.
        id: String,
        /// refunded or given_up.
        outcome: String,
        /// What the bank calls the movement of money; for refunded.
        #[arg(long)]
        transaction: Option<String>,
        /// How you know.
        #[arg(long)]
        evidence: String,
    },
}

/// Lists bills and credit notes, shows one, or has it sent again.
#[derive(Debug, Args)]
pub struct InvoicesArgs {
    /// The id of one.
    id: Option<String>,
    /// Lists those of this payment.
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    payment: Option<String>,
    /// Writes it as PDF to this file.
    #[arg(long, value_name = "FILE", requires = "id")]
    pdf: Option<PathBuf>,
    /// Tells whoever paid of it again.
    #[arg(long, requires = "id")]
    send: bool,
    #[command(flatten)]
    how: How,
}

/// Lists who takes money, and says who does.
#[derive(Debug, Args)]
pub struct GatewaysArgs {
    #[command(subcommand)]
    deed: Option<GatewayDeed>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, Subcommand)]
enum GatewayDeed {
    /// Has money taken by an account, as a JSON file tells of it, as `PUT /v1/gateways/{provider}` takes it.
    Put {
        /// stripe, zarinpal or manual.
        provider: String,
        /// The file.
        file: PathBuf,
    },
    /// Changes what an account opens with, as a JSON file tells, as `POST /v1/gateways/{provider}/rotate` takes it.
    Rotate {
        /// stripe, zarinpal or manual.
        provider: String,
        /// The file.
        file: PathBuf,
    },
    /// Has an account take no more money.
    Remove {
        /// stripe, zarinpal or manual.
        provider: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Print what the server says, as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl How {
    pub(super) async fn connect(&self) -> Result<Client, CliError> {
        self.server.connect().await
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }
}

/// `flatrender payments`
///
/// # Errors
/// See [`CliError`].
pub async fn payments(args: PaymentsArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let post = async |path: String, body: Value| ask(&client, Method::POST, &path, Some(body)).await;
    let answer = match &args.deed {
        None => ask(&client, Method::GET, "/v1/payments?limit=100", None).await?,
        Some(PaymentDeed::Show { id }) => {
            ask(&client, Method::GET, &format!("/v1/payments/{}", path_part(id)), None).await?
        }
        Some(PaymentDeed::Cancel { id }) => post(format!("/v1/payments/{}/cancel", path_part(id)), json!({})).await?,
        Some(PaymentDeed::Verify { id }) => post(format!("/v1/payments/{}/verify", path_part(id)), json!({})).await?,
        Some(PaymentDeed::Decide { id, outcome, transaction, amount, currency, evidence }) => {
            let mut body = json!({ "outcome": outcome, "evidence": evidence });
            let more = [("transaction", json!(transaction)), ("amount", json!(amount)), ("currency", json!(currency))];
            for (name, value) in more.into_iter().filter(|(_, value)| !value.is_null()) {
                body[name] = value;
            }
            post(format!("/v1/payments/{}/decisions", path_part(id)), body).await?
        }
        Some(PaymentDeed::Confirm { decision }) => {
            post(format!("/v1/payment-decisions/{}/confirm", path_part(decision)), json!({})).await?
        }
        Some(PaymentDeed::Refuse { decision }) => {
            post(format!("/v1/payment-decisions/{}/refuse", path_part(decision)), json!({})).await?
        }
    };
    show(args.how.json, &answer, |p| match p["outcome"].as_str() {
        Some(outcome) => {
            format!("{}  {:<10} {:<10} {}", text(&p["id"]), text(&p["state"]), outcome, text(&p["evidence"]))
        }
        None => format!(
            "{}  {:<18} {:>12} {:<3}  {:<8}  {}",
            text(&p["id"]),
            text(&p["state"]),
            p["amount"],
            text(&p["currency"]),
            text(&p["provider"]),
            text(&p["created_at"])
        ),
    })
}

/// `flatrender refunds`
///
/// # Errors
/// See [`CliError`].
pub async fn refunds(args: RefundsArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let answer = match &args.deed {
        None => ask(&client, Method::GET, "/v1/refunds?limit=100", None).await?,
        Some(RefundDeed::Request { payment, amount, reason, keep, key }) => {
            let mut body = json!({ "reason": reason, "revoke": !keep });
            if let Some(amount) = amount {
                body["amount"] = json!(amount);
            }
            let path = format!("/v1/payments/{}/refunds", path_part(payment));
            let mut call = client.call(Method::POST, &path).json(&body);
            if let Some(key) = key {
                call = call.header("idempotency-key", key);
            }
            client.json::<Value>(call).await?.json
        }
        Some(RefundDeed::Approve { id }) => {
            ask(&client, Method::POST, &format!("/v1/refunds/{}/approve", path_part(id)), Some(json!({}))).await?
        }
        Some(RefundDeed::Refuse { id }) => {
            ask(&client, Method::POST, &format!("/v1/refunds/{}/refuse", path_part(id)), Some(json!({}))).await?
        }
        Some(RefundDeed::Decide { id, outcome, transaction, evidence }) => {
            let mut body = json!({ "outcome": outcome, "evidence": evidence });
            if let Some(transaction) = transaction {
                body["transaction"] = json!(transaction);
            }
            ask(&client, Method::POST, &format!("/v1/refunds/{}/decisions", path_part(id)), Some(body)).await?
        }
    };
    show(args.how.json, &answer, |r| match r["outcome"].as_str() {
        Some(outcome) => {
            format!("{}  {:<10} {outcome:<10} {}", text(&r["id"]), text(&r["state"]), text(&r["evidence"]))
        }
        None => format!(
            "{}  {:<10} {:>12}  of {}  {}",
            text(&r["id"]),
            text(&r["state"]),
            r["amount"],
            text(&r["payment_id"]),
            text(&r["reason"])
        ),
    })
}

/// `flatrender invoices`
///
/// # Errors
/// See [`CliError`].
pub async fn invoices(args: InvoicesArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let path = match (&args.id, &args.payment) {
        (Some(id), _) => format!("/v1/invoices/{}", path_part(id)),
        (None, Some(payment)) => format!("/v1/invoices?limit=100&payment_id={}", path_part(payment)),
        (None, None) => "/v1/invoices?limit=100".to_owned(),
    };
    if let Some(file) = &args.pdf {
        let answer = client.send(client.call(Method::GET, &format!("{path}/pdf"))).await?;
        let bytes = answer.bytes().await.context("the bill ended early")?;
        std::fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    }
    let answer = match args.send {
        true => ask(&client, Method::POST, &format!("{path}/send"), Some(json!({}))).await?,
        false => ask(&client, Method::GET, &path, None).await?,
    };
    show(args.how.json, &answer, |i| {
        format!(
            "{}  {:<18} {}  {:>12} {:<3}  {}",
            text(&i["id"]),
            text(&i["number"]),
            text(&i["issue_date"]),
            i["total_amount"],
            text(&i["currency"]),
            text(&i["buyer"])
        )
    })
}

/// `flatrender gateways`
///
/// # Errors
/// See [`CliError`].
pub async fn gateways(args: GatewaysArgs) -> Result<(), CliError> {
    let client = args.how.server.connect().await?;
    let of = |provider: &String, rest: &str| format!("/v1/gateways/{}{rest}", path_part(provider));
    let answer = match &args.deed {
        None => ask(&client, Method::GET, "/v1/gateways", None).await?,
        Some(GatewayDeed::Put { provider, file }) => {
            ask(&client, Method::PUT, &of(provider, ""), Some(read(file)?)).await?
        }
        Some(GatewayDeed::Rotate { provider, file }) => {
            ask(&client, Method::POST, &of(provider, "/rotate"), Some(read(file)?)).await?
        }
        Some(GatewayDeed::Remove { provider }) => {
            client.send(client.call(Method::DELETE, &of(provider, ""))).await?;
            ask(&client, Method::GET, "/v1/gateways", None).await?
        }
    };
    show(args.how.json, &answer, |g| {
        let opens = match (g["checked_at"].is_null(), g["check_error"].as_str()) {
            (true, _) => "not asked yet",
            (_, Some(code)) => code,
            _ => "opens",
        };
        let (id, provider, mode) = (text(&g["id"]), text(&g["provider"]), text(&g["mode"]));
        format!("{id}  {provider:<8}  {mode:<4}  {opens:<20}  {}", text(&g["webhook_url"]))
    })
}

fn read(file: &PathBuf) -> Result<Value, CliError> {
    let text = std::fs::read_to_string(file).map_err(|e| CliError::unreadable("read", file, e))?;
    serde_json::from_str(&text).map_err(|e| CliError::Usage(format!("{}: {e}", file.display())))
}

pub(super) async fn ask(client: &Client, method: Method, path: &str, body: Option<Value>) -> Result<Value, CliError> {
    let call = client.call(method, path);
    let call = if let Some(body) = body { call.json(&body) } else { call };
    Ok(client.json::<Value>(call).await?.json)
}

/// Prints an answer: as it is, or a line for each thing of a list.
pub(super) fn show(as_json: bool, answer: &Value, line: impl Fn(&Value) -> String) -> Result<(), CliError> {
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

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
