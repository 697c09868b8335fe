//! A mail server, and the lines to it that are kept for the next mail.
//!
//! lettre's own transport writes a mail and the dot that ends it one after the other. The dot then waits until the server has acknowledged
//! the mail (RFC 896, Nagle), and a server that has nothing to answer yet takes 40 ms for that. Here both are one write, and so is
//! what comes before the mail where the server takes that (RFC 2920).

use super::{Place, held};
use lettre::{
    Message,
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, Tls},
        commands::{Data, Ehlo, Mail, Rcpt},
        extension::ClientId,
        response::Response,
    },
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

/// A connection may take so long; so may the answer of one that was kept whether it is still there, and a goodbye.
const CONNECT: Duration = Duration::from_secs(8);
/// Lines that are kept.
const MOST_IDLE: usize = 8;
/// For how long a line is kept that nobody needs; at most twice that.
const IDLE: Duration = Duration::from_secs(30);

/// An address of a mail server.
pub(in crate::notify) struct Server {
    address: SocketAddr,
    tls: Tls,
    hello: ClientId,
    credentials: Option<Credentials>,
    /// Only lines on which all that was said is answered.
    idle: Mutex<Vec<(Instant, Line)>>,
}

/// A line to a mail server.
struct Line {
    connection: AsyncSmtpConnection,
    /// The server takes commands before it has answered those before them.
    pipelines: bool,
}

impl Server {
    /// Connects when it sends.
    ///
    /// # Errors
    /// The name of the server is none that a certificate could be of.
    pub(super) fn new(place: &Place, address: SocketAddr) -> Result<Arc<Self>, Error> {
        let tls = place.tls()?;
        let hello = place.hello.clone().map(ClientId::Domain).unwrap_or_default();
        let credentials = place.credentials.clone().map(|(user, password)| Credentials::new(user, password));
        let server = Arc::new(Self { address, tls, hello, credentials, idle: Mutex::default() });
        tokio::spawn(tidy(Arc::downgrade(&server)));
        Ok(server)
    }

    /// Sends a mail, once. Whoever stops waiting for it takes its line with them.
    pub(super) async fn send(&self, message: &Message) -> Result<Response, Error> {
        let mut line = self.line().await?;
        let sent = line.say(message.envelope(), &message.formatted()).await;
        match sent {
            Ok(_) => self.keep(line),
            Err(_) => leave(line),
        }
        sent
    }

    /// A line that is there: the one that was needed last, or a new one.
    async fn line(&self) -> Result<Line, Error> {
        let kept = held(&self.idle).pop();
        if let Some((since, mut line)) = kept {
            if timeout(CONNECT, line.connection.test_connected()).await.unwrap_or(false) {
                return Ok(line);
            }
            // The server has been away, or waits for nobody: so for those that were left alone for longer.
            held(&self.idle).retain(|(later, _)| *later > since);
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<Line, Error> {
        let wrapper = match &self.tls {
            Tls::Wrapper(parameters) => Some(parameters.clone()),
            _ => None,
        };
        let (address, hello) = (self.address, &self.hello);
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
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(Line { connection, pipelines })
    }

    fn keep(&self, line: Line) {
        let mut idle = held(&self.idle);
        if idle.len() < MOST_IDLE {
            idle.push((Instant::now(), line));
        } else {
            leave(line);
        }
    }
}

/// Leaves the lines that nobody has needed for a while, for as long as there is the server.
async fn tidy(server: Weak<Server>) {
    loop {
        sleep(IDLE).await;
        let Some(server) = server.upgrade() else { return };
        held(&server.idle).extract_if(.., |(since, _)| since.elapsed() > IDLE).for_each(|(_, line)| leave(line));
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
    use super::*;
    use crate::notify::{
        email::{CLOSED, sorted},
        throttled,
    };
    use flatrender_workflows::contracts::notify::{Class, Verdict};
    use std::{collections::VecDeque, io};
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
        net::{TcpListener, TcpStream},
    };

    /// The mails that were taken, each with the number of its line.
    type Taken = Arc<Mutex<Vec<(usize, String)>>>;

    /// How a mail server is.
    #[derive(Clone, Copy, PartialEq)]
    enum Manner {
        /// Hangs up on who speaks too early.
        Usual,
        /// The same, and greets but once.
        Curt,
        /// The same, and hangs up after a mail.
        HangsUp,
        /// Takes commands together, and answers what comes before a mail when it has heard all of it.
        Pipelines,
    }

    /// A mail server that talks on one line after the other. `replies` are for the first recipients.
    async fn server(replies: &[&'static str], manner: Manner) -> (Arc<Server>, Taken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, mut replies) = (Taken::default(), VecDeque::from(replies.to_vec()));
        let keeps = taken.clone();
        tokio::spawn(async move {
            for line in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = converse(BufReader::new(stream), line, &mut replies, manner, &keeps).await;
            }
        });
        let place = Place::read(&format!("smtp://{address}")).unwrap();
        (Server::new(&place, address).unwrap(), taken)
    }

    async fn converse(
        mut stream: BufReader<TcpStream>,
        line: usize,
        replies: &mut VecDeque<&'static str>,
        manner: Manner,
        taken: &Taken,
    ) -> io::Result<()> {
        stream.write_all(b"220 fake\r\n").await?;
        let (mut held, mut refused, mut greeted) = (String::new(), false, false);
        loop {
            let mut heard = String::new();
            if stream.read_line(&mut heard).await? == 0 {
                return Ok(());
            }
            if manner != Manner::Pipelines && !stream.buffer().is_empty() {
                return Ok(());
            }
            let verb = heard.get(..4).unwrap_or_default();
            let reply = match verb {
                "EHLO" if manner == Manner::Pipelines => "250-fake\r\n250 PIPELINING",
                "EHLO" if manner == Manner::Curt && std::mem::replace(&mut greeted, true) => "503 5.5.1 duplicate EHLO",
                "RCPT" => {
                    let reply = replies.pop_front().unwrap_or("250 ok");
                    refused = reply != "250 ok";
                    reply
                }
                "DATA" if refused => "503 5.5.1 nobody to send it to",
                "DATA" => {
                    stream.write_all(format!("{}354 go on\r\n", std::mem::take(&mut held)).as_bytes()).await?;
                    // What was not written at once is not waited for.
                    let mut mail = vec![0; 64 << 10];
                    let length = stream.read(&mut mail).await?;
                    taken.lock().unwrap().push((line, String::from_utf8_lossy(&mail[..length]).into_owned()));
                    "250 taken"
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            held += &format!("{reply}\r\n");
            if manner == Manner::Pipelines && matches!(verb, "MAIL" | "RCPT") {
                continue;
            }
            stream.write_all(std::mem::take(&mut held).as_bytes()).await?;
            if reply == "221 bye" || manner == Manner::HangsUp && reply == "250 taken" {
                return Ok(());
            }
        }
    }

    fn mail() -> Message {
        let message = Message::builder()
            .from("films@acme.example".parse().unwrap())
            .to("jane@example.com".parse().unwrap())
            .subject("Dots");
        message.body(".\r\n..b".to_owned()).unwrap()
    }

    fn lines(taken: &Taken) -> Vec<usize> {
        taken.lock().unwrap().iter().map(|(line, _)| *line).collect()
    }

    #[tokio::test]
    async fn mails_go_over_one_line_each_in_one_write() {
        let (server, taken) = server(&[], Manner::Usual).await;
        for _ in 0..3 {
            server.send(&mail()).await.unwrap();
        }
        assert_eq!(lines(&taken), [0, 0, 0]);
        for (_, mail) in taken.lock().unwrap().iter() {
            assert!(mail.contains("\r\n\r\n..\r\n...b") && mail.ends_with("\r\n.\r\n"), "{mail}");
        }
    }

    #[tokio::test]
    async fn a_line_that_the_server_has_closed_is_replaced() {
        let (server, taken) = server(&[], Manner::HangsUp).await;
        for _ in 0..3 {
            server.send(&mail()).await.unwrap();
        }
        assert_eq!(lines(&taken), [0, 1, 2], "each once");
    }

    #[tokio::test]
    async fn a_server_gets_commands_together_if_it_says_that_it_takes_them_so() {
        for manner in [Manner::Pipelines, Manner::Curt] {
            let (server, taken) = server(&[], manner).await;
            for _ in 0..2 {
                timeout(CONNECT, server.send(&mail())).await.unwrap().unwrap();
            }
            assert_eq!(lines(&taken), [0, 0]);
        }
    }

    #[tokio::test]
    async fn a_refusal_means_what_it_says_and_ends_its_line() {
        for manner in [Manner::Usual, Manner::Pipelines] {
            let (server, taken) = server(&["550 5.1.1 no such user", "421 4.3.2 closing"], manner).await;
            let refused = sorted(&server.send(&mail()).await.unwrap_err());
            assert!(matches!(refused, Verdict::Failed { class: Class::HardBounce, .. }), "{refused:?}");
            assert_eq!(sorted(&server.send(&mail()).await.unwrap_err()), throttled(CLOSED));
            server.send(&mail()).await.unwrap();
            assert_eq!(lines(&taken), [2]);
        }
    }

    #[test]
    fn a_dot_that_begins_a_line_is_doubled() {
        assert_eq!(stuffed(".a\r\n.\r\n.\r\nb.\r\n"), "..a\r\n..\r\n..\r\nb.\r\n\r\n.\r\n");
    }
}
