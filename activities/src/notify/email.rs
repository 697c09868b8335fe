//! E-mail, by a server of the platform or of a tenant.

use super::{Config, Courier, accounts::Smtp, failed, held, letter, throttled};
use crate::{
    egress::{Reach, client::Nowhere},
    message::Unsent,
    smtp::{Place, SendError, Server, is_unconnected},
};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::notify::{Class, SendEmail, Verdict};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};
use std::{net::SocketAddr, sync::Arc};
use tokio::time::timeout;
use uuid::Uuid;

/// When a server closes its doors for the moment (421), in seconds.
const CLOSED: f64 = 60.0;

/// A server of a tenant, and the address of it that the tenant has named.
pub(super) type Named = (String, Arc<Server>);

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
            return Ok(match mailer.send(mail.envelope.delivery_id, message, self.0.config.mail_patience).await {
                Ok(()) => Verdict::Accepted { account_id: None, message: Some(id) },
                Err(Unsent::Server(error)) => sorted(&error),
                Err(unsent @ Unsent::Silent) => failed(Class::Unknown, unsent.to_string()),
                Err(unsent) => failed(Class::Transient, unsent.in_full()),
            });
        }
        Ok(self
            .by(mail.envelope.delivery_id, &carriers, async |config, account_id| {
                let Config::Smtp(smtp) = config else { return failed(Class::Config, "the account is none for e-mail") };
                let sent = timeout(self.0.config.mail_patience, self.by_server(&mail, &smtp, account_id)).await;
                sent.unwrap_or_else(|_| failed(Class::Unknown, Unsent::Silent.to_string()))
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
        let (place, found) = match self.find(&smtp.url).await {
            Ok(found) => found,
            Err(verdict) => return verdict,
        };
        let server = match self.server(account_id, &smtp.url, place) {
            Ok(server) => server,
            Err(verdict) => return verdict,
        };
        match server.send(&found, &message).await {
            Ok(_) => Verdict::Accepted { account_id: Some(account_id), message: Some(message_id(mail, &from)) },
            Err(SendError::Server(error)) => sorted(&error),
            Err(nowhere @ SendError::Nowhere) => failed(Class::Transient, nowhere.to_string()),
        }
    }

    /// Where a server of a tenant is, by its address as a URL: where everybody can reach, as with all else that a tenant names. What comes
    /// of it is what is connected to: a name that leads elsewhere when it is asked a second time is not asked a second time.
    async fn find(&self, url: &str) -> Result<(Place, Vec<SocketAddr>), Verdict> {
        let egress = &self.0.config.egress;
        let place = Place::read(url).map_err(|_| failed(Class::Config, "the address of the mail server is none"))?;
        let away = || failed(Class::Config, "the mail server is not where everybody can reach");
        if egress.reach() == Reach::Public && !matches!(place.port, 25 | 465 | 587 | 2525) {
            return Err(away());
        }
        let found = egress.addresses(&place.host, place.port).await.map_err(|nowhere| match nowhere {
            Nowhere::Refused(_) => away(),
            Nowhere::Unknown(_) => failed(Class::Transient, "the mail server's name is not known"),
        })?;
        Ok((place, found))
    }

    /// The server of an account, with the lines to it.
    fn server(&self, account_id: Uuid, url: &str, place: Place) -> Result<Arc<Server>, Verdict> {
        let mut servers = held(&self.0.servers);
        if let Some((named, server)) = servers.get(&account_id)
            && named == url
        {
            return Ok(server.clone());
        }
        let server =
            Server::new(place).map_err(|_| failed(Class::Config, "the name of the mail server has no certificate"))?;
        servers.insert(account_id, (url.to_owned(), server.clone()));
        Ok(server)
    }
}

/// What an address to unsubscribe is marked for.
pub fn unsubscribe_purpose(user_id: Uuid, category: &str) -> String {
    format!("unsubscribe {user_id} {category}")
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
        Some(code) => class_of(code, &said(error)),
        None if error.is_client() => Class::Config,
        None if is_unconnected(error) => Class::Transient,
        // It was cut off, perhaps after the last dot.
        None => Class::Unknown,
    };
    failed(class, text)
}

/// The words of the server alone.
fn said(error: &lettre::transport::smtp::Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// What a code means with what stands behind it. The mailbox is to blame only where the server says that there is none: most refusals
/// are about us, our address or what we say, and whoever took those for a missing mailbox would write to nobody any more once we are on
/// somebody's list.
fn class_of(code: u16, said: &str) -> Class {
    // `5.1.1 no such user`: class, subject and detail, at the very begin (RFC 2034, 4).
    let status = said.split_whitespace().next().unwrap_or_default();
    let says = |prefix: &str| status.strip_prefix(prefix).is_some_and(|detail| detail.parse::<u16>().is_ok());
    let is_enhanced = (0..=7).any(|subject| says(&format!("5.{subject}.")));
    match code {
        530 | 534 | 535 | 538 => Class::Config,
        // The mailbox is full, for the moment.
        552 => Class::SoftBounce,
        500.. if status == "5.2.2" => Class::SoftBounce,
        // 5.1.7 and 5.1.8 are of the sender's address.
        500.. if matches!(status, "5.1.7" | "5.1.8") => Class::Refused,
        // No such mailbox, no such system, an address that is none, one that has moved, one that takes nothing; it is disabled.
        500.. if says("5.1.") || status == "5.2.1" => Class::HardBounce,
        550 | 551 | 553 if !is_enhanced && names_a_mailbox(said) => Class::HardBounce,
        500.. => Class::Refused,
        _ => Class::SoftBounce,
    }
}

/// Whether a refusal without an enhanced code is about who was written to.
fn names_a_mailbox(said: &str) -> bool {
    let said = said.to_lowercase();
    let about_us = ["spf", "dkim", "dmarc", "spam", "block", "black", "list", "policy", "reput", "http", "relay"];
    let about_them = ["user", "mailbox", "recipient", "account", "no such"];
    !about_us.iter().any(|word| said.contains(word)) && about_them.iter().any(|word| said.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        egress::{Egress, client::LookUp},
        message::{Mailer, MailerConfig},
        notify::{CourierConfig, MAIL_PATIENCE},
        smtp::fake::{Fake, Manner, mail},
    };
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    #[test]
    fn our_own_bad_name_is_no_missing_mailbox() {
        for (code, text) in [
            (550, "SPF check failed"),
            (550, "blocked, see https://lookup.example/?ip=185.1.20.3"),
            (554, "Service unavailable; client host [185.1.20.3] blocked"),
            (550, "message for this user was rejected as spam"),
            (550, "5.4.1 access denied"),
            (550, "5.1.8 the sender's domain is not known"),
            (550, "rejected"),
        ] {
            assert_eq!(class_of(code, text), Class::Refused, "{code} {text}");
        }
    }

    fn courier(egress: Egress) -> Courier {
        let mailer = Mailer::new(MailerConfig {
            server: None,
            folder: "mail".into(),
            from: "noreply@films.example".into(),
            public_url: "https://films.example".into(),
            links: Arc::new(|id: Uuid| id.to_string()),
        });
        Courier::new(CourierConfig {
            mailer: mailer.unwrap(),
            egress,
            opener: Arc::new(|_| None),
            marks: Arc::new(str::to_owned),
            public_url: "https://films.example".into(),
            mail_patience: MAIL_PATIENCE,
        })
    }

    #[tokio::test]
    async fn a_mail_server_within_our_own_network_is_not_called() {
        let public = courier(Egress::new(Reach::Public));
        for url in
            ["smtp://127.0.0.1:25", "smtp://[::1]:25", "smtp://10.0.0.1:587", "smtp://93.184.215.14:6379", "smtp://"]
        {
            assert!(public.find(url).await.is_err(), "{url}");
        }
        let (_, found) = public.find("smtps://93.184.215.14").await.unwrap();
        assert_eq!(found, ["93.184.215.14:465".parse::<SocketAddr>().unwrap()]);
    }

    /// The name leads to everybody's address when it is asked, and into our network a moment later.
    #[tokio::test]
    async fn a_mail_server_is_connected_to_where_it_was_looked_at() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let flips: LookUp = Arc::new(move |_| {
            let ip: &str = if count.fetch_add(1, Ordering::SeqCst) == 0 { "93.184.215.14" } else { "10.0.0.5" };
            let found = vec![SocketAddr::new(ip.parse().unwrap(), 0)];
            Box::pin(async move { Ok(found) })
        });
        let courier = courier(Egress::new(Reach::Public).with_names(flips));
        let url = "smtp://mail.acme.example:587";
        let (_, found) = courier.find(url).await.unwrap();
        assert_eq!(found, ["93.184.215.14:587".parse::<SocketAddr>().unwrap()], "which is where it is sent");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "nobody asks a second time");
        assert!(courier.find(url).await.is_err(), "the next mail is for where it leads by then");
    }

    #[test]
    fn lines_are_kept_for_as_long_as_an_account_names_their_server() {
        let courier = courier(Egress::default());
        let server = |url: &str| courier.server(Uuid::nil(), url, Place::read(url).unwrap()).unwrap();
        let (one, other) = ("smtp://one.example", "smtp://other.example");
        let first = server(one);
        assert!(Arc::ptr_eq(&first, &server(one)));
        assert!(!Arc::ptr_eq(&first, &server(other)) && !Arc::ptr_eq(&first, &server(one)));
    }

    #[tokio::test]
    async fn a_refusal_means_what_it_says_and_ends_its_line() {
        for manner in [Manner::Usual, Manner::Pipelines] {
            let fake = Fake::saying(&["550 5.1.1 no such user", "421 4.3.2 closing"], manner).await;
            let server = Server::new(Place::read(&fake.url()).unwrap()).unwrap();
            let refused = async || match server.send(&[fake.address], &mail()).await {
                Err(SendError::Server(error)) => sorted(&error),
                other => panic!("{other:?}"),
            };
            let first = refused().await;
            assert!(matches!(first, Verdict::Failed { class: Class::HardBounce, .. }), "{first:?}");
            assert_eq!(refused().await, throttled(CLOSED));
            server.send(&[fake.address], &mail()).await.unwrap();
            assert_eq!(fake.lines(), [2]);
        }
    }
}
