//! How we speak to mail servers, whoever named them. Where their names lead is for the caller to find out.
//!
//! lettre's own transport writes a mail and the dot that ends it one after the other. The dot then waits until the server has acknowledged
//! the mail (RFC 896, Nagle), and a server that has nothing to answer yet takes 40 ms for that. Here both are one write, and so is
//! what comes before the mail where the server takes that (RFC 2920). Lines are kept for the next mail.

#[cfg(test)]
pub(crate) mod fake;

use lettre::{
    Message,
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls, TlsParameters},
        commands::{Data, Ehlo, Mail, Rcpt},
        extension::ClientId,
        response::Response,
    },
};
use reqwest::Url;
use std::{
    net::SocketAddr,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// A connection may take so long; so may the answer of one that was kept whether it is still there, and a goodbye.
const CONNECT: Duration = Duration::from_secs(8);
/// Addresses of a server that are tried: whoever waits has so much time.
const MOST_ADDRESSES: usize = 3;
/// Lines that are kept.
const MOST_IDLE: usize = 8;
/// For how long a line is kept that nobody needs; at most twice that.
const IDLE: Duration = Duration::from_secs(30);

/// What the address of a mail server says, as lettre reads it: `smtp://user:password@host:port/hello?tls=required` or `smtps://…`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    security: Security,
    credentials: Option<Credentials>,
    hello: ClientId,
}

/// When a line is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Never,
    IfOffered,
    AfterHello,
    AtOnce,
}

/// Why a text is no address of a mail server.
#[derive(Debug, thiserror::Error)]
pub enum BadPlace {
    /// It is no URL.
    #[error("it is no URL")]
    Url(#[source] <Url as FromStr>::Err),
    /// It names no host.
    #[error("it names no host")]
    Host,
    /// It names a way to speak that is none.
    #[error("its scheme is neither smtp nor smtps, or its tls neither required nor opportunistic")]
    Scheme,
    /// Its user or password is no text.
    #[error("its user or password is no text")]
    Credentials,
    /// There is no certificate of what it names.
    #[error(transparent)]
    Certificate(#[from] Error),
}

impl Place {
    /// Reads an address.
    ///
    /// # Errors
    /// [`BadPlace`]
    pub(crate) fn read(url: &str) -> Result<Self, BadPlace> {
        let url = Url::parse(url).map_err(BadPlace::Url)?;
        let tls = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let (security, port) = match (url.scheme(), tls.as_deref()) {
            ("smtp", None) => (Security::Never, 25),
            ("smtp", Some("opportunistic")) => (Security::IfOffered, 587),
            ("smtp", Some("required")) => (Security::AfterHello, 587),
            ("smtps", _) => (Security::AtOnce, 465),
            _ => return Err(BadPlace::Scheme),
        };
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(BadPlace::Host);
        }
        let text = |part| decoded(part).ok_or(BadPlace::Credentials);
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(text(url.username())?, text(password)?)),
            None => None,
        };
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        Ok(Self { host, port: url.port().unwrap_or(port), security, credentials, hello })
    }

    /// A certificate is one of the name, whichever of its addresses is spoken to.
    fn tls(&self) -> Result<Tls, Error> {
        let parameters = || TlsParameters::new(self.host.clone());
        Ok(match self.security {
            Security::Never => Tls::None,
            Security::IfOffered => Tls::Opportunistic(parameters()?),
            Security::AfterHello => Tls::Required(parameters()?),
            Security::AtOnce => Tls::Wrapper(parameters()?),
        })
    }
}

/// What stands in a URL, without its `%xx`; none when that is no text.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (vec![], text.as_bytes());
    while let [first, tail @ ..] = rest {
        match tail.get(..2).filter(|_| *first == b'%').and_then(|digits| hex::decode(digits).ok()) {
            Some(byte) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// There is no address to send it to.
    #[error("the name of the mail server leads nowhere")]
    Nowhere,
    /// What came of it.
    #[error(transparent)]
    Server(#[from] Error),
}

/// A mail server.
pub(crate) struct Server {
    /// What its address says.
    pub(crate) place: Place,
    tls: Tls,
    /// Only lines on which all that was said is answered.
    idle: Mutex<Vec<(Instant, Line)>>,
    /// Begins with the first line: there may be no runtime before.
    tidied: Once,
}

/// A line to a mail server.
struct Line {
    address: SocketAddr,
    connection: AsyncSmtpConnection,
    /// The server takes commands before it has answered those before them.
    pipelines: bool,
}

impl Server {
    /// Connects when it sends.
    ///
    /// # Errors
    /// The name of the server is none that a certificate could be of.
    pub(crate) fn new(place: Place) -> Result<Arc<Self>, BadPlace> {
        let tls = place.tls()?;
        Ok(Arc::new(Self { place, tls, idle: Mutex::default(), tidied: Once::new() }))
    }

    /// Sends a mail, once, by the first of `addresses` that there is a connection to. Whoever stops waiting for it takes its line with them.
    ///
    /// # Errors
    /// [`SendError`]
    pub(crate) async fn send(
        self: &Arc<Self>,
        addresses: &[SocketAddr],
        message: &Message,
    ) -> Result<Response, SendError> {
        let mut line = self.line(addresses).await?;
        let sent = line.say(message.envelope(), &message.formatted()).await;
        match sent {
            Ok(_) => self.keep(line),
            Err(_) => leave(line),
        }
        Ok(sent?)
    }

    /// A line that is there: the one that was needed last, or a new one.
    async fn line(&self, addresses: &[SocketAddr]) -> Result<Line, SendError> {
        if let Some((since, mut line)) = self.kept(addresses) {
            if timeout(CONNECT, line.connection.test_connected()).await.unwrap_or(false) {
                return Ok(line);
            }
            // The server has been away, or waits for nobody: so for those that were left alone for longer.
            self.idle().retain(|(later, _)| *later > since);
        }
        self.connect(addresses).await
    }

    /// The line that was needed last. One to where the name leads no more is none.
    fn kept(&self, addresses: &[SocketAddr]) -> Option<(Instant, Line)> {
        let mut idle = self.idle();
        idle.extract_if(.., |(_, line)| !addresses.contains(&line.address)).for_each(|(_, line)| leave(line));
        idle.pop()
    }

    /// A new line, to the first address that there is a connection to. Who has no way to IPv6 is not to wait for it.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Line, SendError> {
        let mut tried = addresses.to_vec();
        tried.sort_by_key(SocketAddr::is_ipv6);
        let mut unconnected = SendError::Nowhere;
        for address in tried.into_iter().take(MOST_ADDRESSES) {
            match self.connect_to(address).await {
                Err(error) if is_unconnected(&error) => unconnected = error.into(),
                connected => return Ok(connected?),
            }
        }
        Err(unconnected)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Line, Error> {
        let wrapper = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let hello = &self.place.hello;
        let mut connection = AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), hello, wrapper, None).await?;
        match &self.tls {
            Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), hello).await?;
            }
            Tls::Required(parameters) => connection.starttls(parameters.clone(), hello).await?,
            _ => {}
        }
        // lettre has heard this, and keeps of it what it has a use for. Who does not say it twice can do without.
        let pipelines = match connection.command(Ehlo::new(hello.clone())).await {
            Ok(greeting) => greeting.message().any(|word| word.eq_ignore_ascii_case("PIPELINING")),
            Err(refused) if refused.status().is_some() => false,
            Err(error) => return Err(error),
        };
        if let Some(credentials) = &self.place.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(Line { address, connection, pipelines })
    }

    fn keep(self: &Arc<Self>, line: Line) {
        self.tidied.call_once(|| {
            tokio::spawn(tidy(Arc::downgrade(self)));
        });
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push((Instant::now(), line));
        } else {
            leave(line);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, Line)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there was not even a connection: nothing was said.
pub(crate) fn is_unconnected(error: &Error) -> bool {
    error.is_tls() || error.to_string().starts_with("Connection error")
}

/// Leaves the lines that nobody has needed for a while, for as long as there is the server.
async fn tidy(server: Weak<Server>) {
    loop {
        sleep(IDLE).await;
        let Some(server) = server.upgrade() else { return };
        server.idle().extract_if(.., |(since, _)| since.elapsed() > IDLE).for_each(|(_, line)| leave(line));
    }
}

/// Says goodbye. Nobody waits for it.
fn leave(mut line: Line) {
    tokio::spawn(async move { timeout(CONNECT, line.connection.abort()).await });
}

impl Line {
    async fn say(&mut self, envelope: &Envelope, mail: &[u8]) -> Result<Response, Error> {
        let plain = envelope.from().into_iter().chain(envelope.to()).all(|address| address.to_string().is_ascii());
        let text = match str::from_utf8(mail) {
            Ok(text) if plain && text.is_ascii() => text,
            // Only an address can be the reason: everything else is encoded. lettre asks whether the server takes it, and says so.
            _ => return self.connection.send(envelope, mail).await,
        };
        let mut begin = vec![Mail::new(envelope.from().cloned(), vec![]).to_string()];
        begin.extend(envelope.to().iter().map(|address| Rcpt::new(address.clone(), vec![]).to_string()));
        begin.push(Data.to_string());
        self.commands(begin).await?;
        self.connection.command(stuffed(text)).await
    }

    /// Ends at the first that is refused. What the server has not answered then is nothing that anybody waits for: the line is left.
    async fn commands(&mut self, commands: Vec<String>) -> Result<(), Error> {
        if !self.pipelines {
            for command in commands {
                self.connection.command(command).await?;
            }
            return Ok(());
        }
        self.connection.command(commands.concat()).await?;
        for _ in 1..commands.len() {
            self.connection.read_response().await?;
        }
        Ok(())
    }
}

/// A mail to its end: a dot on a line of its own. One that begins a line of the mail is doubled (RFC 5321, 4.5.2).
fn stuffed(text: &str) -> String {
    let dot = if text.starts_with('.') { "." } else { "" };
    format!("{dot}{}\r\n.\r\n", text.replace("\r\n.", "\r\n.."))
}

#[cfg(test)]
mod tests {
    use super::{
        fake::{Fake, Manner, mail},
        *,
    };
    use futures::FutureExt as _;

    fn server(fake: &Fake) -> Arc<Server> {
        Server::new(Place::read(&fake.url()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn mails_go_over_one_line_each_in_one_write() {
        let fake = Fake::new(Manner::Usual).await;
        let server = server(&fake);
        for _ in 0..3 {
            server.send(&[fake.address], &mail()).await.unwrap();
        }
        assert_eq!(fake.lines(), [0, 0, 0]);
        for mail in fake.mails() {
            assert!(mail.contains("\r\n\r\n..\r\n...b") && mail.ends_with("\r\n.\r\n"), "{mail}");
        }
    }

    #[tokio::test]
    async fn a_line_that_the_server_has_closed_is_replaced() {
        let fake = Fake::new(Manner::HangsUp).await;
        let server = server(&fake);
        for _ in 0..3 {
            server.send(&[fake.address], &mail()).await.unwrap();
        }
        assert_eq!(fake.lines(), [0, 1, 2], "each once");
    }

    #[tokio::test]
    async fn a_server_gets_commands_together_if_it_says_that_it_takes_them_so() {
        for manner in [Manner::Pipelines, Manner::Curt] {
            let fake = Fake::new(manner).await;
            let server = server(&fake);
            for _ in 0..2 {
                timeout(CONNECT, server.send(&[fake.address], &mail())).await.unwrap().unwrap();
            }
            assert_eq!(fake.lines(), [0, 0]);
        }
    }

    #[tokio::test]
    async fn whoever_stops_waiting_takes_the_line_along() {
        let fake = Fake::new(Manner::Usual).await;
        let server = server(&fake);
        server.send(&[fake.address], &mail()).await.unwrap();
        assert!(server.send(&[fake.address], &mail()).now_or_never().is_none());
        server.send(&[fake.address], &mail()).await.unwrap();
        assert_eq!(fake.lines(), [0, 1]);
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over() {
        let fake = Fake::new(Manner::Usual).await;
        let server = server(&fake);
        let nobody = SocketAddr::from(([127, 0, 0, 2], fake.address.port()));
        let refused = server.send(&[nobody], &mail()).await.unwrap_err();
        assert!(matches!(refused, SendError::Server(error) if is_unconnected(&error)));
        for _ in 0..2 {
            server.send(&[nobody, fake.address], &mail()).await.unwrap();
        }
        assert_eq!(fake.lines(), [0, 0]);
        assert!(matches!(server.send(&[], &mail()).await, Err(SendError::Nowhere)));
    }

    #[tokio::test]
    async fn a_line_to_where_the_name_leads_no_more_is_not_used() {
        let (fake, other) = (Fake::new(Manner::Usual).await, Fake::new(Manner::Usual).await);
        let server = server(&fake);
        for at in [&fake, &other] {
            server.send(&[at.address], &mail()).await.unwrap();
        }
        assert_eq!((fake.lines(), other.lines()), (vec![0], vec![0]));
    }

    #[test]
    fn a_dot_that_begins_a_line_is_doubled() {
        assert_eq!(stuffed(".a\r\n.\r\n.\r\nb.\r\n"), "..a\r\n..\r\n..\r\nb.\r\n\r\n.\r\n");
    }

    #[test]
    fn the_address_of_a_mail_server_is_read_as_it_was() {
        let place = Place::read("smtp://us%40er:p%25ss@[2606:2800::1]/films.example?tls=required").unwrap();
        assert_eq!(
            place,
            Place {
                host: "2606:2800::1".into(),
                port: 587,
                security: Security::AfterHello,
                credentials: Some(Credentials::new("us@er".into(), "p%ss".into())),
                hello: ClientId::Domain("films.example".into()),
            }
        );
        for (url, port, security) in [
            ("smtp://mail.example:2525", 2525, Security::Never),
            ("smtp://mail.example", 25, Security::Never),
            ("smtp://mail.example?tls=opportunistic", 587, Security::IfOffered),
            ("smtps://mail.example/", 465, Security::AtOnce),
        ] {
            let host = "mail.example".to_owned();
            let plain = Place { host, port, security, credentials: None, hello: ClientId::default() };
            assert_eq!(Place::read(url).unwrap(), plain, "{url}");
        }
        for none in [
            "http://mail.example",
            "smtp://mail.example?tls=perhaps",
            "mail.example",
            "smtp:mail.example",
            "smtp://",
            "smtp://a:%ff@mail.example",
        ] {
            assert!(Place::read(none).is_err(), "{none}");
        }
        assert_eq!(decoded("100%"), Some("100%".to_owned()));
    }
}
