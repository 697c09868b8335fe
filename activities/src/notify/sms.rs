//! Text messages: Twilio and Kavenegar, and whoever speaks like them.

use super::{
    Config, Courier,
    accounts::{Kavenegar, Twilio},
    by_status, failed,
};
use crate::egress::client::Reply;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::notify::{Class, SendSms, Verdict};
use reqwest::{Method, Request, StatusCode, Url, header};
use serde_json::Value;
use uuid::Uuid;

/// Longest text, in characters: of ten parts in the Latin alphabet, of twenty in others.
const LONGEST: usize = 1340;
/// A message that is asked for was sent within this time.
const RECENT: TimeDelta = TimeDelta::minutes(15);

impl Handler<SendSms> for Courier {
    async fn handle(&self, _: &Attempt, sms: SendSms) -> Result<Verdict, Failure> {
        let text: String = self.plain(&sms.envelope.said).chars().take(LONGEST).collect();
        Ok(self
            .by(sms.envelope.delivery_id, &sms.envelope.carriers, async |config, account_id| {
                let sent = match config {
                    Config::Twilio(account) => self.by_twilio(&account, &sms, &text, account_id).await,
                    Config::Kavenegar(account) => self.by_kavenegar(&account, &sms, &text, account_id).await,
                    _ => Err(failed(Class::Config, "the account is none for text messages")),
                };
                sent.unwrap_or_else(|verdict| verdict)
            })
            .await)
    }
}

impl Courier {
    async fn by_twilio(&self, account: &Twilio, sms: &SendSms, text: &str, id: Uuid) -> Result<Verdict, Verdict> {
        let path = format!("2010-04-01/Accounts/{}/Messages.json", account.account_sid);
        let mut url = below(&account.base_url, &path)?;
        let credential = format!("Basic {}", BASE64.encode(format!("{}:{}", account.account_sid, account.auth_token)));
        if sms.envelope.doubtful {
            let mut list = url.clone();
            list.query_pairs_mut().append_pair("To", &sms.to).append_pair("PageSize", "20");
            let found = self.ask(with(Request::new(Method::GET, list), &credential)?).await?;
            if let Some(message) = twilio_has(&found, text) {
                return Ok(Verdict::Accepted { account_id: Some(id), message: Some(message) });
            }
        }
        url.set_query(None);
        let form = [("To", sms.to.as_str()), ("From", &account.from), ("Body", text)];
        let reply = self.ask(with(post(url, &form), &credential)?).await?;
        Ok(of_twilio(&reply, id))
    }

    async fn by_kavenegar(&self, account: &Kavenegar, sms: &SendSms, text: &str, id: Uuid) -> Result<Verdict, Verdict> {
        let local = local_id(sms.envelope.delivery_id).to_string();
        let at = |what: &str| below(&account.base_url, &format!("v1/{}/sms/{what}.json", account.api_key));
        if sms.envelope.doubtful {
            let found = self.ask(post(at("statuslocalmessageid")?, &[("localid", &local)])).await?;
            if let Some(message) = kavenegar_has(&found) {
                return Ok(Verdict::Accepted { account_id: Some(id), message: Some(message) });
            }
        }
        let form = [("receptor", sms.to.as_str()), ("sender", &account.sender), ("message", text), ("localid", &local)];
        let reply = self.ask(post(at("send")?, &form)).await?;
        Ok(of_kavenegar(&reply, id))
    }
}

/// What Kavenegar calls a message by our name: a number that fits into 63 bits.
fn local_id(delivery_id: Uuid) -> i64 {
    (delivery_id.as_u128() >> 65) as i64
}

fn below(base: &str, path: &str) -> Result<Url, Verdict> {
    Url::parse(&format!("{}/{path}", base.trim_end_matches('/')))
        .map_err(|_| failed(Class::Config, "the address of the provider is none"))
}

fn with(mut request: Request, credential: &str) -> Result<Request, Verdict> {
    let value = credential.parse().map_err(|_| failed(Class::Config, "the credential of the account is none"))?;
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Ok(request)
}

fn post(url: Url, form: &[(&str, &str)]) -> Request {
    let mut request = Request::new(Method::POST, url);
    let body = Url::parse_with_params("http://form/", form).ok().and_then(|url| url.query().map(str::to_owned));
    let kind = header::HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    *request.body_mut() = Some(body.unwrap_or_default().into());
    request
}

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or_default()
}

/// Text of a field, whether it is one or a number.
fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|n| n.to_string()))
}

/// The message of this text that was sent just now; one that failed does not count.
fn twilio_has(reply: &Reply, text: &str) -> Option<String> {
    let json = json(reply);
    let recent = |message: &Value| {
        let at = message["date_created"].as_str().and_then(|at| DateTime::parse_from_rfc2822(at).ok());
        at.is_some_and(|at| Utc::now() - at.to_utc() < RECENT)
    };
    let ours = |message: &&Value| {
        message["body"] == text && recent(message) && !matches!(message["status"].as_str(), Some("failed" | "canceled"))
    };
    json["messages"].as_array()?.iter().find(ours).and_then(|message| text_of(&message["sid"]))
}

fn of_twilio(reply: &Reply, account_id: Uuid) -> Verdict {
    let json = json(reply);
    if reply.status.is_success()
        && let Some(message) = text_of(&json["sid"])
    {
        return Verdict::Accepted { account_id: Some(account_id), message: Some(message) };
    }
    if let Some(verdict) = by_status(reply) {
        return verdict;
    }
    let class = match (reply.status, json["code"].as_i64()) {
        (status, _) if status.is_success() => Class::Unknown,
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Class::Config,
        // No number; none in that country; none for text messages.
        (_, Some(21211 | 21214 | 21217 | 21614)) => Class::HardBounce,
        // Its reader answered STOP.
        (_, Some(21610)) => Class::Blocked,
        (StatusCode::NOT_FOUND, _) => Class::Config,
        _ => Class::Refused,
    };
    failed(class, json["message"].as_str().unwrap_or("the provider refused"))
}

fn kavenegar_has(reply: &Reply) -> Option<String> {
    let json = json(reply);
    let entry = json["entries"].as_array()?.first()?;
    // 100: there is no such message. 6, 11: it did not arrive.
    let known = !matches!(entry["status"].as_i64(), None | Some(6 | 11 | 13 | 100));
    known.then(|| text_of(&entry["messageid"])).flatten()
}

fn of_kavenegar(reply: &Reply, account_id: Uuid) -> Verdict {
    let json = json(reply);
    let status = json["return"]["status"].as_i64();
    if status == Some(200)
        && let Some(message) = json["entries"].get(0).and_then(|entry| text_of(&entry["messageid"]))
    {
        return Verdict::Accepted { account_id: Some(account_id), message: Some(message) };
    }
    if let Some(verdict) = by_status(reply) {
        return verdict;
    }
    let class = match status {
        Some(200) | None if reply.status.is_success() => Class::Unknown,
        // No number.
        Some(411 | 417) => Class::HardBounce,
        // The server is busy.
        Some(409) => Class::Transient,
        // The key, the line, the credit.
        Some(401 | 403 | 407 | 412 | 418 | 501) => Class::Config,
        _ => Class::Refused,
    };
    failed(class, json["return"]["message"].as_str().unwrap_or("the provider refused"))
}
