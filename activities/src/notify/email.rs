//! E-mail, by a server of the platform or of a tenant.

use super::{Config, Courier, accounts::Smtp, failed, held, letter, throttled};
use crate::{
    egress::{Reach, is_public},
    message::Unsent,
};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::notify::{Class, SendEmail, Verdict};
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use std::time::Duration;
use uuid::Uuid;

/// A server may take this long for each of its answers.
const PATIENCE: Duration = Duration::from_secs(15);
/// When a server closes its doors for the moment (421).
const CLOSED: Duration = Duration::from_secs(60);

impl Handler<SendEmail> for Courier {
    async fn handle(&self, _: &Attempt, mail: SendEmail) -> Result<Verdict, Failure> {
        let carriers = mail.envelope.carriers.clone();
        if carriers.is_empty() {
            let mailer = &self.0.config.mailer;
            let message = match self.write(&mail, mailer.from_address()) {
                Ok(message) => message,
                Err(verdict) => return Ok(verdict),
            };
            let id = message_id(&mail, mailer.from_address());
            return Ok(match mailer.send(mail.envelope.delivery_id, message).await {
                Ok(()) => Verdict::Accepted { account_id: None, message: Some(id) },
                Err(Unsent::Server(error)) => sorted(&error),
                Err(Unsent::Folder(error)) => failed(Class::Transient, error.to_string()),
            });
        }
        Ok(self
            .by(&carriers, async |config, account_id| {
                let Config::Smtp(smtp) = config else { return failed(Class::Config, "the account is none for e-mail") };
                self.by_server(&mail, &smtp, account_id).await
            })
            .await)
    }
}

fn message_id(mail: &SendEmail, from: &Address) -> String {
    format!("<{}@{}>", mail.envelope.delivery_id, from.domain())
}

impl Courier {
    fn write(&self, mail: &SendEmail, from: &Address) -> Result<Message, Verdict> {
        let envelope = &mail.envelope;
        let refused = |why: String| failed(Class::Refused, why);
        let to: Address = mail.to.parse().map_err(|_| failed(Class::HardBounce, "the address is none"))?;
        let leave = envelope.may_unsubscribe.then(|| self.unsubscribe(envelope.user_id, &envelope.category));
        let public_url = &self.0.config.public_url;
        let letter = letter::write(&envelope.said, &envelope.sender, &envelope.language, public_url, leave.as_deref());
        let mut message = Message::builder()
            .message_id(Some(message_id(mail, from)))
            .from(Mailbox::new(Some(on_one_line(&envelope.sender.product)), from.clone()))
            .to(Mailbox::new(None, to))
            .subject(on_one_line(&letter.subject));
        if let Some(address) = envelope.sender.support_email.as_ref().and_then(|address| address.parse().ok()) {
            message = message.reply_to(Mailbox::new(None, address));
        }
        if let Some(leave) = leave {
            // RFC 8058: whoever shows the mail may offer it as a button.
            let header = |name, value| HeaderValue::new(HeaderName::new_from_ascii_str(name), value);
            message = message
                .raw_header(header("List-Unsubscribe", format!("<{leave}>")))
                .raw_header(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click".into()));
        }
        message
            .multipart(MultiPart::alternative_plain_html(letter.text, letter.html))
            .map_err(|error| refused(error.to_string()))
    }

    /// Where a user says that there be no more of a category by e-mail. Nobody else can make the address.
    fn unsubscribe(&self, user_id: Uuid, category: &str) -> String {
        let mark = (self.0.config.marks)(&unsubscribe_purpose(user_id, category));
        format!("{}/v1/unsubscribe?user={user_id}&category={category}&mark={mark}", self.0.config.public_url)
    }

    async fn by_server(&self, mail: &SendEmail, smtp: &Smtp, account_id: Uuid) -> Verdict {
        let Ok(from) = smtp.from.parse::<Address>() else { return failed(Class::Config, "the sender is no address") };
        let message = match self.write(mail, &from) {
            Ok(message) => message,
            Err(verdict) => return verdict,
        };
        let server = match self.server(smtp, account_id).await {
            Ok(server) => server,
            Err(verdict) => return verdict,
        };
        match server.send(message).await {
            Ok(_) => Verdict::Accepted { account_id: Some(account_id), message: Some(message_id(mail, &from)) },
            Err(error) => sorted(&error),
        }
    }

    /// The connections to a server of a tenant: to where everybody can reach, as with all else that a tenant names.
    async fn server(&self, smtp: &Smtp, account_id: Uuid) -> Result<AsyncSmtpTransport<Tokio1Executor>, Verdict> {
        if self.0.config.egress.reach() == Reach::Public {
            is_reachable(&smtp.url).await?;
        }
        if let Some((url, server)) = held(&self.0.servers).get(&account_id)
            && *url == smtp.url
        {
            return Ok(server.clone());
        }
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(&smtp.url)
            .map_err(|_| failed(Class::Config, "the address of the mail server is none"))?
            .timeout(Some(PATIENCE))
            .build();
        held(&self.0.servers).insert(account_id, (smtp.url.clone(), server.clone()));
        Ok(server)
    }
}

/// What an address to unsubscribe is marked for.
pub fn unsubscribe_purpose(user_id: Uuid, category: &str) -> String {
    format!("unsubscribe {user_id} {category}")
}

/// Whether a mail server is where everybody can reach, all of its addresses.
async fn is_reachable(url: &str) -> Result<(), Verdict> {
    let away = || failed(Class::Config, "the mail server is not where everybody can reach");
    let url = reqwest::Url::parse(url).map_err(|_| away())?;
    let host = url.host_str().ok_or_else(away)?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port().unwrap_or(465);
    if !matches!(port, 25 | 465 | 587 | 2525) {
        return Err(away());
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|_| failed(Class::Transient, "the mail server's name is not known"))?.peekable();
    if found.peek().is_some() && found.all(|address| is_public(address.ip())) { Ok(()) } else { Err(away()) }
}

/// A header's value ends with its line: what could end it is left out.
fn on_one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// What a server's refusal means (RFC 5321, 4.2.1; RFC 3463).
fn sorted(error: &lettre::transport::smtp::Error) -> Verdict {
    let text = error.to_string();
    let class = match error.status().map(u16::from) {
        Some(421) => return throttled(CLOSED),
        Some(code) => class_of(code, &text),
        None if error.is_client() => Class::Config,
        None if error.is_tls() || text.starts_with("Connection error") => Class::Transient,
        // It was cut off, perhaps after the last dot.
        None => Class::Unknown,
    };
    failed(class, text)
}

fn class_of(code: u16, text: &str) -> Class {
    let says = |status: &str| text.contains(status);
    match code {
        530 | 534 | 535 | 538 => Class::Config,
        // The mailbox is full, for the moment.
        552 => Class::SoftBounce,
        500.. if says("5.2.2") => Class::SoftBounce,
        // What we say is not liked, or we are not: it says nothing of the mailbox.
        500.. if says("5.7.") => Class::Refused,
        550 | 551 | 553 => Class::HardBounce,
        500.. if says("5.1.") => Class::HardBounce,
        500.. => Class::Refused,
        _ => Class::SoftBounce,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_is_no_missing_one_and_a_policy_is_neither() {
        for (code, text, class) in [
            (550, "5.1.1 no such user", Class::HardBounce),
            (550, "mailbox unavailable", Class::HardBounce),
            (553, "5.1.3 bad address", Class::HardBounce),
            (554, "5.1.1 unknown", Class::HardBounce),
            (550, "5.7.1 blocked by policy", Class::Refused),
            (554, "5.6.0 no", Class::Refused),
            (552, "5.2.2 full", Class::SoftBounce),
            (450, "4.2.1 later", Class::SoftBounce),
            (451, "4.7.1 greylisted", Class::SoftBounce),
            (535, "5.7.8 who are you", Class::Config),
        ] {
            assert_eq!(class_of(code, text), class, "{code} {text}");
        }
    }

    #[tokio::test]
    async fn a_mail_server_within_our_own_network_is_not_called() {
        for url in
            ["smtp://127.0.0.1:25", "smtp://[::1]:25", "smtp://10.0.0.1:587", "smtp://93.184.215.14:6379", "smtp://"]
        {
            assert!(is_reachable(url).await.is_err(), "{url}");
        }
        assert!(is_reachable("smtps://93.184.215.14").await.is_ok());
    }
}
