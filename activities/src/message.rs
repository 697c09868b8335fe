//! Letters: written in the reader's language, sent by SMTP or laid into a folder.

mod letters;

use crate::smtp::{BadPlace, Place, SendError, Server};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::message::SendMail;
use lettre::{
    Address, Message,
    message::{Mailbox, MultiPart},
};
use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::lookup_host, time::timeout};
use uuid::Uuid;

/// For how long a server is waited for, from the connection to its last word: a little less than an attempt may take. A server may think
/// about what it has read for ten minutes, and whoever leaves before sends it again (RFC 5321, 4.5.3.2.6).
const PATIENCE: Duration = Duration::from_secs(110);

/// Makes the text of a link from its id.
pub type Links = Arc<dyn Fn(Uuid) -> String + Send + Sync>;

/// Where letters go.
#[derive(Clone)]
enum Way {
    /// A file each, for whoever tries things out.
    Folder(PathBuf),
    /// A server that takes them on.
    Smtp(Arc<Server>),
}

/// Writes and sends letters. Cheap to clone.
#[derive(Clone)]
pub struct Mailer {
    way: Way,
    from: Address,
    public_url: String,
    links: Links,
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailer").field("from", &self.from).field("public_url", &self.public_url).finish_non_exhaustive()
    }
}

/// Why there is no mailer.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    /// The sender's address is none.
    #[error("the sender {0:?} is no e-mail address")]
    From(String),
    /// The address of the server is none.
    #[error("the mail server's address does not fit `smtp://user:password@host:port?tls=required` or `smtps://…`: {0}")]
    Server(#[from] BadPlace),
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Unsent {
    /// It cannot be laid into its folder.
    #[error("cannot lay the message into its folder")]
    Folder(#[source] io::Error),
    /// Nobody knows the server's name, or whoever would is away.
    #[error("cannot find the mail server by its name")]
    Name(#[source] io::Error),
    /// The server did not take it, or nobody knows.
    #[error(transparent)]
    Server(#[from] lettre::transport::smtp::Error),
    /// The server was waited for, and nobody knows what became of it.
    #[error("the mail server did not answer in time")]
    Silent,
}

impl Unsent {
    /// In words, with what was behind it.
    pub(crate) fn in_full(&self) -> String {
        match self {
            Self::Folder(error) | Self::Name(error) => format!("{self}: {error}"),
            Self::Server(_) | Self::Silent => self.to_string(),
        }
    }
}

/// What a mailer is made of.
pub struct MailerConfig {
    /// The mail server as a URL; without one letters are laid into `folder`.
    pub server: Option<String>,
    /// Where letters are laid that no server takes.
    pub folder: PathBuf,
    /// The address they come from.
    pub from: String,
    /// Where the pages are that links lead to. Never what a request says of itself.
    pub public_url: String,
    /// Makes the text of a link.
    pub links: Links,
}

impl Mailer {
    /// A mailer. Connects when it sends.
    ///
    /// # Errors
    /// [`MailerError`]
    pub fn new(config: MailerConfig) -> Result<Self, MailerError> {
        let from = config.from.parse().map_err(|_| MailerError::From(config.from.clone()))?;
        let way = match config.server {
            Some(url) => Way::Smtp(Server::new(Place::read(&url)?)?),
            None => Way::Folder(config.folder),
        };
        let public_url = config.public_url.trim_end_matches('/').to_owned();
        Ok(Self { way, from, public_url, links: config.links })
    }

    /// The address that letters come from.
    pub fn from_address(&self) -> &Address {
        &self.from
    }

    /// Sends a message that is written already, or lays it into the folder under its id. The server is waited for no longer than
    /// `patience`.
    ///
    /// # Errors
    /// The server refused it, is away or says nothing; the folder takes nothing.
    pub async fn send(&self, id: Uuid, message: Message, patience: Duration) -> Result<(), Unsent> {
        match &self.way {
            Way::Folder(folder) => lay(folder, id, &message.formatted()).await.map_err(Unsent::Folder),
            Way::Smtp(server) => timeout(patience, by_server(server, &message)).await.unwrap_or(Err(Unsent::Silent)),
        }
    }

    fn write(&self, mail: &SendMail) -> Result<(String, Message), Failure> {
        let refused = |why: String| Failure::permanent("message.refused", why);
        let to: Address = mail.to.parse().map_err(|_| refused("the address is none".to_owned()))?;
        let id = format!("<{}@{}>", mail.id, self.from.domain());
        let letter = letters::write(mail, &self.public_url, &self.links);
        let mut message = Message::builder();
        if let Some(address) = &mail.brand.support_email {
            let address = address.parse().map_err(|_| refused("the support address is none".to_owned()))?;
            message = message.reply_to(Mailbox::new(None, address));
        }
        let message = message
            .message_id(Some(id.clone()))
            .from(Mailbox::new(Some(on_one_line(&mail.product)), self.from.clone()))
            .to(Mailbox::new(None, to))
            .subject(on_one_line(&letter.subject))
            .multipart(MultiPart::alternative_plain_html(letter.text(), letter.html()))
            .map_err(|e| refused(e.to_string()))?;
        Ok((id, message))
    }
}

impl Handler<SendMail> for Mailer {
    async fn handle(&self, _: &Attempt, mail: SendMail) -> Result<String, Failure> {
        let (id, message) = self.write(&mail)?;
        self.send(mail.id, message, PATIENCE).await.map_err(sorted)?;
        Ok(id)
    }
}

/// A header's value ends with its line: what could end it is left out.
fn on_one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Sends a message by the server of the platform, wherever its name leads: it is whoever runs the platform that named it.
async fn by_server(server: &Arc<Server>, message: &Message) -> Result<(), Unsent> {
    let (host, port) = (server.place.host.as_str(), server.place.port);
    let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(Unsent::Name)?.collect();
    match server.send(&found, message).await {
        Ok(_) => Ok(()),
        Err(SendError::Server(error)) => Err(Unsent::Server(error)),
        Err(SendError::Nowhere) => Err(Unsent::Name(io::ErrorKind::NotFound.into())),
    }
}

async fn lay(folder: &std::path::Path, id: Uuid, letter: &[u8]) -> io::Result<()> {
    tokio::fs::create_dir_all(folder).await?;
    let draft = folder.join(format!(".{id}.new"));
    tokio::fs::write(&draft, letter).await?;
    tokio::fs::rename(&draft, folder.join(format!("{id}.eml"))).await
}

/// A server's answer of 5xx is its last word (RFC 5321, 4.2.1).
fn sorted(unsent: Unsent) -> Failure {
    match &unsent {
        Unsent::Server(error) if error.is_permanent() => Failure::permanent("message.refused", error.to_string()),
        _ => Failure::transient("message.unreachable", unsent.in_full()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::fake::{self, Fake, Manner};
    use flatrender_workflows::contracts::message::{Brand, Letter};

    fn made(server: Option<&str>) -> Result<Mailer, MailerError> {
        let links: Links = Arc::new(|id| format!("link-{id}"));
        let (from, public_url) = ("noreply@example.com".to_owned(), "https://example.com/".to_owned());
        Mailer::new(MailerConfig { server: server.map(str::to_owned), folder: PathBuf::new(), from, public_url, links })
    }

    fn mailer() -> Mailer {
        made(None).unwrap()
    }

    fn mail(to: &str, locale: &str) -> SendMail {
        let letter = Letter::VerifyEmail { link: Uuid::nil() };
        SendMail {
            id: Uuid::nil(),
            to: to.into(),
            locale: locale.into(),
            product: "Film & <Co>".into(),
            brand: Brand::default(),
            letter,
        }
    }

    #[test]
    fn a_letter_looks_like_its_sender_and_answers_go_to_their_support() {
        let brand = Brand {
            color: Some("#0055aa".into()),
            logo: Some("/v1/branding/acme/logo?v=1".into()),
            support_email: Some("help@acme.example".into()),
            footer: Some("Acme <Ltd>".into()),
        };
        let mail = SendMail { brand, ..mail("a@b.c", "en") };
        let written = letters::write(&mail, "https://example.com", &mailer().links);
        let (text, html) = (written.text(), written.html());
        assert!(text.contains("Questions? help@acme.example") && text.ends_with("Acme <Ltd>\n"), "{text}");
        assert!(
            html.contains("src=\"https://example.com/v1/branding/acme/logo?v=1\" alt=\"Film &amp; &lt;Co&gt;\""),
            "{html}"
        );
        assert!(html.contains("solid #0055aa") && html.contains("Acme &lt;Ltd&gt;"), "{html}");
        let sent = String::from_utf8(mailer().write(&mail).unwrap().1.formatted()).unwrap();
        assert!(sent.contains("Reply-To: help@acme.example\r\n"), "{sent}");
    }

    #[test]
    fn a_letter_has_its_link_its_language_and_no_markup_of_others() {
        let written = letters::write(&mail("a@b.c", "en"), "https://example.com", &mailer().links);
        assert!(
            written.text().contains("https://example.com/account/verify-email#link-00000000-"),
            "{}",
            written.text()
        );
        assert!(written.html().contains("Film &amp; &lt;Co&gt;"), "{}", written.html());
        let persian = letters::write(&mail("a@b.c", "fa-IR"), "https://example.com", &mailer().links);
        assert!(persian.html().contains("dir=\"rtl\"") && persian.subject.contains("نشانی"));
    }

    #[test]
    fn headers_cannot_be_smuggled_in() {
        let message = mailer().write(&SendMail { product: "A\r\nBcc: x@y.z".into(), ..mail("a@b.c", "en") });
        let text = String::from_utf8(message.unwrap().1.formatted()).unwrap();
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!headers.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc:")), "{headers}");
        assert_eq!(mailer().write(&mail("a@b.c\r\nBcc: x@y.z", "en")).unwrap_err().code, "message.refused");
    }

    #[test]
    fn a_mailer_is_made_before_anything_runs_and_only_for_a_mail_server() {
        for url in ["smtp://us%40er:pass@mail.internal:2525?tls=required", "smtps://mail.example", "smtp://127.0.0.1"] {
            assert!(made(Some(url)).is_ok(), "{url}");
        }
        for none in ["mail.example", "http://mail.example", "smtp://mail.example?tls=perhaps"] {
            let refused = made(Some(none)).unwrap_err().to_string();
            assert!(refused.starts_with("the mail server's address does not fit `smtp://user:pass"), "{refused}");
        }
    }

    #[tokio::test]
    async fn letters_go_over_one_line_each_in_one_write() {
        let fake = Fake::new(Manner::Usual).await;
        let mailer = made(Some(&format!("smtp://localhost:{}", fake.address.port()))).unwrap();
        for _ in 0..3 {
            let (_, message) = mailer.write(&mail("a@b.c", "en")).unwrap();
            mailer.send(Uuid::nil(), message, PATIENCE).await.unwrap();
        }
        assert_eq!(fake.lines(), [0, 0, 0]);
        assert!(fake.mails().iter().all(|mail| mail.contains("To: a@b.c\r\n") && mail.ends_with("\r\n.\r\n")));
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_found_again_when_it_is_back() {
        let fake = Fake::new(Manner::Usual).await;
        let mailer = made(Some(&fake.url())).unwrap();
        let send = async || mailer.send(Uuid::nil(), fake::mail(), PATIENCE).await;
        send().await.unwrap();
        let address = fake.go().await;
        let gone = sorted(send().await.unwrap_err());
        assert!(gone.retryable && gone.code == "message.unreachable", "{gone:?}");
        let back = Fake::at(address, &["550 5.1.1 no such user"], Manner::Usual).await;
        let refused = sorted(send().await.unwrap_err());
        assert!(!refused.retryable && refused.code == "message.refused", "{refused:?}");
        send().await.unwrap();
        assert_eq!(back.lines(), [1]);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_waited_for_no_longer_than_was_said() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mailer = made(Some(&format!("smtp://{}", silent.local_addr().unwrap()))).unwrap();
        let sent = mailer.send(Uuid::nil(), fake::mail(), Duration::from_millis(10)).await;
        assert!(matches!(sent, Err(Unsent::Silent)), "{sent:?}");
    }
}
