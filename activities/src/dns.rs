//! What the DNS says of a name (RFC 1035): TXT records, which prove whose it is.
//!
//! Asks the servers that the machine is set up with and remembers nothing: who has just changed a record asks again. An answer counts
//! when it comes from the server that was asked, with the number and the question that it was asked with.

use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::dns::LookUpTexts;
use rand::RngExt as _;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often each of the servers is asked.
const ROUNDS: usize = 2;
/// Longest answer by UDP that we say we take: what passes everywhere in one piece (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;
const PORT: u16 = 53;
const TXT: u16 = 16;
const OPT: u16 = 41;
const INTERNET: u16 = 1;
const NO_SUCH_NAME: u16 = 3;

/// Whom to ask.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resolver {
    server: Option<SocketAddr>,
}

/// Why it is not known what the DNS says.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// Nobody could be asked, or answered in time.
    #[error("no name server answers")]
    Unreachable(#[source] io::Error),
    /// A server says that it cannot tell.
    #[error("the name server answers with the error {0}")]
    Failed(u16),
    /// An answer makes no sense.
    #[error("the answer of the name server cannot be read")]
    Garbled,
    /// No DNS has such a name.
    #[error("{0:?} is no name")]
    NotAName(String),
}

impl Resolver {
    /// Asks those that the machine is set up with.
    pub fn system() -> Self {
        Self::default()
    }

    /// Asks this one only.
    pub fn at(server: SocketAddr) -> Self {
        Self { server: Some(server) }
    }

    /// The TXT records of a full name, each as one text; none when there is no such name. The pieces of a record are joined, and what is
    /// no UTF-8 is left out.
    ///
    /// # Errors
    /// [`DnsError`]
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let servers = match self.server {
            Some(server) => vec![server],
            None => system_servers().await,
        };
        let mut last = DnsError::Unreachable(io::ErrorKind::NotFound.into());
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match ask(*server, name).await {
                Err(DnsError::NotAName(name)) => return Err(DnsError::NotAName(name)),
                Err(error) => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }
}

impl Handler<LookUpTexts> for Resolver {
    async fn handle(&self, _: &Attempt, input: LookUpTexts) -> Result<Vec<String>, Failure> {
        self.texts(&input.name).await.map_err(|error| Failure::transient("dns.no_answer", error.to_string()))
    }
}

/// The name servers of this machine; one on it when it names none.
async fn system_servers() -> Vec<SocketAddr> {
    let text = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
    let named = named_servers(&text);
    if named.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))] } else { named }
}

fn named_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    text.lines().filter_map(address).map(|address| SocketAddr::new(address, PORT)).take(3).collect()
}

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<String>, DnsError> {
    let query = Query::new(name)?;
    let late = |_| DnsError::Unreachable(io::ErrorKind::TimedOut.into());
    match timeout(PATIENCE, by_udp(server, &query)).await.map_err(late)?? {
        Answer::Texts(texts) => Ok(texts),
        Answer::Cut => match timeout(PATIENCE, by_tcp(server, &query)).await.map_err(late)?? {
            Answer::Texts(texts) => Ok(texts),
            Answer::Cut => Err(DnsError::Garbled),
        },
    }
}

/// Every query has a socket, and so a port, of its own: who wants to answer in place of the server has to guess both that and the number.
async fn by_udp(server: SocketAddr, query: &Query) -> Result<Answer, DnsError> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(DnsError::Unreachable)?;
    socket.connect(server).await.map_err(DnsError::Unreachable)?;
    socket.send(&query.bytes).await.map_err(DnsError::Unreachable)?;
    let mut packet = [0; 4096];
    loop {
        let length = socket.recv(&mut packet).await.map_err(DnsError::Unreachable)?;
        // What answers nothing of ours is somebody else's try, or late.
        if query.is_of(&packet[..length]) {
            return query.read(&packet[..length]);
        }
    }
}

async fn by_tcp(server: SocketAddr, query: &Query) -> Result<Answer, DnsError> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = query.bytes.len() as u16;
        stream.write_all(&[&length.to_be_bytes(), query.bytes.as_slice()].concat()).await?;
        let mut packet = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut packet).await?;
        Ok(packet)
    };
    let packet = exchange.await.map_err(DnsError::Unreachable)?;
    if query.is_of(&packet) { query.read(&packet) } else { Err(DnsError::Garbled) }
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Texts(Vec<String>),
    /// It is longer than what passes by UDP.
    Cut,
}

/// A question for TXT records.
struct Query {
    bytes: Vec<u8>,
    /// Where the question ends that every answer repeats.
    end: usize,
}

impl Query {
    fn new(name: &str) -> Result<Self, DnsError> {
        let name = name.trim_end_matches('.');
        let number: u16 = rand::rng().random();
        // Recursion is wanted; one question, and one record that says how long an answer may be.
        let mut bytes = [number.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 1]].concat();
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
            bytes.push(length.ok_or_else(|| DnsError::NotAName(name.to_owned()))?);
            bytes.extend(label.as_bytes());
        }
        if name.len() > 253 {
            return Err(DnsError::NotAName(name.to_owned()));
        }
        bytes.push(0);
        bytes.extend([TXT.to_be_bytes(), INTERNET.to_be_bytes()].concat());
        let end = bytes.len();
        // RFC 6891: the name of nothing, our length in place of the class, no flags, no options.
        bytes.push(0);
        bytes.extend([OPT.to_be_bytes(), UDP_BYTES.to_be_bytes(), [0; 2], [0; 2], [0; 2]].concat());
        Ok(Self { bytes, end })
    }

    /// Whether a packet answers this question: the same number, and the same question in whatever case.
    fn is_of(&self, packet: &[u8]) -> bool {
        let asked = |bytes: &[u8]| bytes.get(12..self.end).map(<[u8]>::to_ascii_lowercase);
        packet.len() >= self.end
            && packet[..2] == self.bytes[..2]
            && packet[2] & 0x80 != 0
            && packet[4..6] == [0, 1]
            && asked(packet) == asked(&self.bytes)
    }

    fn read(&self, packet: &[u8]) -> Result<Answer, DnsError> {
        let mut reader = Reader { bytes: packet, at: 2 };
        let (flags, _, answers) = (reader.number(), reader.number(), reader.number());
        let (flags, answers) = flags.zip(answers).ok_or(DnsError::Garbled)?;
        match flags & 0x000f {
            _ if flags & 0x0200 != 0 => return Ok(Answer::Cut),
            0 => {}
            NO_SUCH_NAME => return Ok(Answer::Texts(vec![])),
            error => return Err(DnsError::Failed(error)),
        }
        reader.at = self.end;
        let records: Option<Vec<_>> = (0..answers).map(|_| reader.record()).collect();
        Ok(Answer::Texts(records.ok_or(DnsError::Garbled)?.into_iter().flatten().collect()))
    }
}

/// Reads on in a packet, never beyond its end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// A name, which a pointer to an earlier one ends; where it points to matters to nobody here.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.byte()? {
                0 => return Some(()),
                length @ 1..=63 => drop(self.take(length.into())?),
                0xc0.. => return self.byte().map(drop),
                _ => return None,
            }
        }
    }

    /// The text of a record, when it is a TXT record that holds one; none when the packet ends before it.
    fn record(&mut self) -> Option<Option<String>> {
        self.skip_name()?;
        let (kind, class) = (self.number()?, self.number()?);
        self.take(4)?;
        let length = self.number()?;
        let data = self.take(length.into())?;
        if (kind, class) != (TXT, INTERNET) {
            return Some(None);
        }
        let (mut pieces, mut text) = (Reader { bytes: data, at: 0 }, vec![]);
        while let Some(length) = pieces.byte() {
            text.extend(pieces.take(length.into())?);
        }
        Some(String::from_utf8(text).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    /// An answer to a query: its flags, and its records as they are.
    fn answer(query: &[u8], end: usize, flags: [u8; 2], records: &[&[u8]]) -> Vec<u8> {
        let counts = [0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        [&query[..2], &flags, &counts, &query[12..end], &records.concat()].concat()
    }

    /// `alias CNAME real`, and its text in two pieces.
    const ALIAS: &[u8] = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x07\x04real\xc0\x12";
    const TEXT: &[u8] = b"\x04real\xc0\x12\0\x10\0\x01\0\0\0\x3c\0\x0d\x05hello\x06 world";
    const NOT_UTF8: &[u8] = b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x02\x01\xff";

    #[test]
    fn a_query_is_what_the_standard_says() {
        let query = Query::new("a.Example.").unwrap();
        let expected = b"\x01\0\0\x01\0\0\0\0\0\x01\x01a\x07Example\0\0\x10\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
        assert_eq!(query.bytes[2..], expected[..]);
        for wrong in ["", "a..b", &"x".repeat(64), &["x".repeat(60).as_str(); 5].join(".")] {
            assert!(matches!(Query::new(wrong), Err(DnsError::NotAName(_))), "{wrong}");
        }
    }

    #[test]
    fn pieces_are_joined_and_other_records_left_out() {
        let query = Query::new("alias.example").unwrap();
        let packet = answer(&query.bytes, query.end, [0x81, 0x80], &[ALIAS, TEXT, NOT_UTF8]);
        assert_eq!(query.read(&packet).unwrap(), Answer::Texts(vec!["hello world".into()]));
        assert!(query.is_of(&packet));
        for cut in query.end..packet.len() {
            assert!(matches!(query.read(&packet[..cut]), Err(DnsError::Garbled)), "{cut}");
        }
        let no_name = answer(&query.bytes, query.end, [0x81, 0x83], &[]);
        assert_eq!(query.read(&no_name).unwrap(), Answer::Texts(vec![]));
        let failed = answer(&query.bytes, query.end, [0x81, 0x82], &[]);
        assert!(matches!(query.read(&failed), Err(DnsError::Failed(2))));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let query = Query::new("alias.example").unwrap();
        let packet = answer(&query.bytes, query.end, [0x81, 0x80], &[TEXT]);
        for wrong in [0, 1, 2, 5, 14, query.end - 3] {
            let mut other = packet.clone();
            other[wrong] ^= 0x81;
            assert!(!query.is_of(&other), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<(u8, u8)>()) {
            let query = Query::new("alias.example").unwrap();
            let _ = (query.is_of(&bytes), query.read(&bytes));
            let mut near = answer(&query.bytes, query.end, [0x81, 0x80], &[ALIAS, TEXT]);
            let at = usize::from(flip.0) % near.len();
            near[at] = flip.1;
            let _ = (query.is_of(&near), query.read(&near));
        }
    }

    #[tokio::test]
    async fn what_is_too_long_for_a_packet_comes_by_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut packet = [0; 512];
            let (length, peer) = socket.recv_from(&mut packet).await.unwrap();
            let end = length - 11;
            // Somebody else is faster and guesses wrong; nobody listens to them.
            let mut forged = answer(&packet, end, [0x81, 0x80], &[TEXT]);
            forged[0] ^= 1;
            socket.send_to(&forged, peer).await.unwrap();
            socket.send_to(&answer(&packet, end, [0x83, 0x80], &[]), peer).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let whole = answer(&query, end, [0x81, 0x80], &[TEXT]);
            stream.write_all(&[&(whole.len() as u16).to_be_bytes(), whole.as_slice()].concat()).await.unwrap();
        });
        assert_eq!(Resolver::at(address).texts("alias.example").await.unwrap(), ["hello world"]);
    }

    #[test]
    fn the_machine_names_its_servers() {
        let text = "# by hand\nsearch example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 \nnameserver nonsense\n";
        assert_eq!(
            named_servers(text),
            ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse::<SocketAddr>().unwrap()]
        );
    }
}
