//! `POST /v1/notification-feedback/{account}/{mark}`: what providers tell later. The address is given to the provider alone.

use super::{browsers::open, chats};
use crate::{
    app::App,
    extract::Path,
    openapi::Binary,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use flatrender_activities::notify::accounts::Config;
use flatrender_workflows::{
    contracts::notify::Carrier,
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        notification::{
            account, address,
            outcome::{self, Feedback},
            suppression,
        },
        time_series,
    },
};
use serde_json::Value;
use std::collections::HashMap;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// Messages of one call.
const MOST_EVENTS: usize = 500;
/// Longest body.
const MOST_BYTES: usize = 256 << 10;

/// What the address of an account is marked for.
pub(super) fn purpose(account_id: Uuid) -> String {
    format!("notification feedback {account_id}")
}

/// `POST /v1/notification-feedback/{account}/{mark}`
#[utoipa::path(
    post, path = "/v1/notification-feedback/{account}/{mark}", tag = "Notifications", operation_id = "hear_notification_feedback", security(()),
    summary = "Tell what became of messages",
    description = "For providers, at the address that an account shows. E-mail: JSON, one event or a list of them, `{\"event\": \"delivered\" | \"bounce\" | \
                   \"soft_bounce\" | \"complaint\", \"message_id\": \"<…>\"}`. Twilio: the form of a status callback. Kavenegar: the form with `messageid` \
                   and `status`. Telegram: updates of the bot. What is not known is answered with 200 all the same. Repeating it is harmless.",
    params(("account" = Uuid, Path, description = "The account"), ("mark" = String, Path, description = "What only we can make")),
    request_body(content = Binary, content_type = "application/octet-stream", description = "What the provider says"),
    responses(
        (status = 200, description = "Heard"),
        (status = 404, description = "`unsubscribe.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn hear(
    State(app): State<App>,
    Path((account_id, mark)): Path<(Uuid, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let right: bool = app.vault.mark(&purpose(account_id)).as_bytes().ct_eq(mark.as_bytes()).into();
    let unknown = || Problem::not_found(Code::UnsubscribeInvalid, "address for feedback");
    if !right || body.len() > MOST_BYTES {
        return Err(unknown());
    }
    let mut tx = app.db.begin(Scope::platform(Role::Admin)).await?;
    let (tenant_id, carrier) = account::open(&mut tx, account_id).await?.ok_or_else(unknown)?;
    let said = Said::read(&headers, &body);
    match carrier.provider.as_str() {
        "telegram" => update(&app, &mut tx, (tenant_id, &carrier), &said.json).await?,
        _ => {
            // The platform's accounts carry for every tenant.
            let whose = (tenant_id != DEFAULT_TENANT).then_some(tenant_id);
            for (message, feedback) in said.events(&carrier.provider).into_iter().take(MOST_EVENTS) {
                outcome::hear(&mut tx, whose, &message, feedback).await?;
            }
        }
    }
    tx.commit().await?;
    Ok(StatusCode::OK)
}

/// What came, as JSON and as a form: one of them is empty.
struct Said {
    json: Value,
    form: HashMap<String, String>,
}

impl Said {
    fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/x-www-form-urlencoded") {
            let text = String::from_utf8_lossy(body);
            let form = reqwest::Url::parse(&format!("http://form/?{text}"))
                .map(|url| url.query_pairs().into_owned().collect());
            return Self { json: Value::Null, form: form.unwrap_or_default() };
        }
        Self { json: serde_json::from_slice(body).unwrap_or_default(), form: HashMap::new() }
    }

    /// Messages, and what became of each.
    fn events(&self, provider: &str) -> Vec<(String, Feedback)> {
        let form = |name: &str| self.form.get(name).map(String::as_str);
        match provider {
            "twilio" => {
                let feedback = match (form("MessageStatus"), form("ErrorCode")) {
                    (Some("delivered"), _) => Feedback::Delivered,
                    // The number is unknown, or a landline.
                    (Some("undelivered" | "failed"), Some("30005" | "30006")) => Feedback::HardBounce,
                    (Some("undelivered" | "failed"), _) => Feedback::Failed,
                    _ => return vec![],
                };
                form("MessageSid").map(|message| (message.to_owned(), feedback)).into_iter().collect()
            }
            "kavenegar" => {
                let feedback = match form("status") {
                    Some("10") => Feedback::Delivered,
                    Some("6" | "11" | "13") => Feedback::Failed,
                    // The reader has shut out messages of this kind.
                    Some("14") => Feedback::HardBounce,
                    _ => return vec![],
                };
                form("messageid").map(|message| (message.to_owned(), feedback)).into_iter().collect()
            }
            _ => {
                let events = self.json.as_array().cloned().unwrap_or_else(|| vec![self.json.clone()]);
                let read = |event: &Value| {
                    let feedback = match event["event"].as_str()? {
                        "delivered" => Feedback::Delivered,
                        "bounce" => Feedback::HardBounce,
                        "soft_bounce" => Feedback::SoftBounce,
                        "complaint" => Feedback::Complaint,
                        _ => return None,
                    };
                    Some((event["message_id"].as_str()?.to_owned(), feedback))
                };
                events.iter().filter_map(read).collect()
            }
        }
    }
}

/// What somebody says to a bot: `/start` with a link of ours, or that it be quiet.
async fn update(app: &App, db: Db<'_>, (tenant_id, carrier): (Uuid, &Carrier), update: &Value) -> Result<(), Problem> {
    if !matches!(open(app, carrier), Some(Config::Telegram(_))) {
        return Ok(());
    }
    let message = &update["message"];
    let Some(chat) = message["chat"]["id"].as_i64().map(|id| id.to_string()) else { return Ok(()) };
    let text = message["text"].as_str().unwrap_or_default();
    if text == "/stop" {
        address::hush_chat(&mut *db, tenant_id, &chat).await?;
        return Ok(());
    }
    // In a group others would read along.
    let Some(token) = text.strip_prefix("/start ").filter(|_| message["chat"]["type"] == "private") else {
        return Ok(());
    };
    let now = time_series::moment(&mut *db).await?;
    let Some(user_id) = chats::read_token(app, token.trim(), now) else { return Ok(()) };
    let Some(of_user) = suppression::tenant_of(&mut *db, user_id).await? else { return Ok(()) };
    if tenant_id == of_user || tenant_id == DEFAULT_TENANT {
        let sealed = app.vault.seal(&address::chat_place(user_id), chat.as_bytes());
        address::connect_chat(db, of_user, user_id, &chat, &sealed).await?;
    }
    Ok(())
}
