//! Chats: a bot of Telegram's. No call carries a key, so one whose outcome nobody knows may have arrived.

use super::{Config, Courier, accounts::Telegram, by_status, failed, held, held_up, throttled};
use crate::egress::client::Reply;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::notify::{Class, SendTelegram, Verdict};
use reqwest::{Method, Request, StatusCode, Url, header};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A chat is written to this often (Bots FAQ: "avoid sending more than one message per second").
const EACH: Duration = Duration::from_secs(1);
/// Longest text, in characters (Bot API, sendMessage).
const LONGEST: usize = 4096;

impl Handler<SendTelegram> for Courier {
    async fn handle(&self, _: &Attempt, message: SendTelegram) -> Result<Verdict, Failure> {
        let Some(chat) = (self.0.config.opener)(&message.chat).and_then(|chat| String::from_utf8(chat).ok()) else {
            return Ok(failed(Class::Config, "the chat does not open"));
        };
        if let Err(wait) = self.turn(&message.chat.place) {
            return Ok(held_up(wait));
        }
        let text: String = self.plain(&message.envelope.said).chars().take(LONGEST).collect();
        Ok(self
            .by(message.envelope.delivery_id, &message.envelope.carriers, async |config, account_id| {
                let Config::Telegram(bot) = config else { return failed(Class::Config, "the account is no bot") };
                match request(&bot, &chat, &text) {
                    Ok(request) => match self.ask(request).await {
                        Ok(reply) => verdict(&reply, account_id),
                        Err(verdict) => verdict,
                    },
                    Err(verdict) => verdict,
                }
            })
            .await)
    }
}

impl Courier {
    /// Whether a chat may be written to now.
    fn turn(&self, chat: &str) -> Result<(), Duration> {
        let (mut chats, now) = (held(&self.0.chats), Instant::now());
        if let Some(last) = chats.get(chat)
            && now.duration_since(*last) < EACH
        {
            return Err(EACH - now.duration_since(*last));
        }
        chats.retain(|_, last| now.duration_since(*last) < EACH);
        chats.insert(chat.to_owned(), now);
        Ok(())
    }
}

fn request(bot: &Telegram, chat: &str, text: &str) -> Result<Request, Verdict> {
    let url = format!("{}/bot{}/sendMessage", bot.base_url.trim_end_matches('/'), bot.token);
    let url = Url::parse(&url).map_err(|_| failed(Class::Config, "the address of the bot is none"))?;
    let mut request = Request::new(Method::POST, url);
    // Without a parse mode: what is said is text, whatever it holds.
    let body = json!({ "chat_id": chat, "text": text, "link_preview_options": { "is_disabled": true } });
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(body.to_string().into());
    Ok(request)
}

fn verdict(reply: &Reply, account_id: Uuid) -> Verdict {
    let json: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let said = json["description"].as_str().unwrap_or_default();
    if json["ok"] == true {
        let message = json["result"]["message_id"].as_i64().map(|id| id.to_string());
        return Verdict::Accepted { account_id: Some(account_id), message };
    }
    if let Some(seconds) = json["parameters"]["retry_after"].as_f64() {
        return throttled(seconds);
    }
    if let Some(verdict) = by_status(reply) {
        return verdict;
    }
    let class = match reply.status {
        StatusCode::BAD_REQUEST if said.contains("chat not found") => Class::Gone,
        StatusCode::FORBIDDEN => Class::Blocked,
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => Class::Config,
        status if status.is_success() => Class::Unknown,
        _ => Class::Refused,
    };
    failed(class, said)
}
