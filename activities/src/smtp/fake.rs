//! A mail server that writes down what it takes, for tests.

use lettre::Message;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The mails that were taken, each with the number of its line.
type Taken = Arc<Mutex<Vec<(usize, String)>>>;

/// How a mail server is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    /// Hangs up on who speaks too early.
    Usual,
    /// The same, and greets but once.
    Curt,
    /// The same, and hangs up after a mail.
    HangsUp,
    /// Takes commands together, and answers what comes before a mail when it has heard all of it.
    Pipelines,
}

/// A mail server that talks on one line after the other.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    taken: Taken,
    talking: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn new(manner: Manner) -> Self {
        Self::saying(&[], manner).await
    }

    /// Says this to the first recipients.
    pub(crate) async fn saying(replies: &[&'static str], manner: Manner) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), replies, manner).await
    }

    /// Where there has been one.
    pub(crate) async fn at(address: SocketAddr, replies: &[&'static str], manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, mut replies) = (Taken::default(), VecDeque::from(replies.to_vec()));
        let keeps = taken.clone();
        let talking = tokio::spawn(async move {
            for line in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = converse(BufReader::new(stream), line, &mut replies, manner, &keeps).await;
            }
        });
        Self { address, taken, talking }
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Of each mail the number of its line.
    pub(crate) fn lines(&self) -> Vec<usize> {
        self.taken.lock().unwrap().iter().map(|(line, _)| *line).collect()
    }

    /// What was written at once of each mail.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(_, mail)| mail.clone()).collect()
    }

    /// Goes away in the middle of everything.
    pub(crate) async fn go(self) -> SocketAddr {
        self.talking.abort();
        let _ = self.talking.await;
        self.address
    }
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

/// A mail with dots at the begin of its lines.
pub(crate) fn mail() -> Message {
    let message = Message::builder()
        .from("films@acme.example".parse().unwrap())
        .to("jane@example.com".parse().unwrap())
        .subject("Dots");
    message.body(".\r\n..b".to_owned()).unwrap()
}
