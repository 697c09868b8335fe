//! The HTTP client for addresses that somebody else named. It follows nobody, waits for nobody and reads no more than it was told to.

use super::{Reach, Refused, is_public, is_public_host, target};
use crate::agent::client::install_crypto;
use futures::future::BoxFuture;
use reqwest::{
    Request, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
    redirect::Policy,
};
use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::sync::OnceCell;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a call may take when nothing else is said, from the name to the last byte.
const WHOLE: Duration = Duration::from_secs(8);
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How long the body of an answer is waited for of which only the begin is wanted.
const BRIEF: Duration = Duration::from_secs(2);

/// Tells the addresses of a name. The port of each is that of the URL where it is 0.
pub type LookUp = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Calls addresses of somebody else's. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    reach: Reach,
    patience: Duration,
    names: LookUp,
    http: Arc<OnceCell<reqwest::Client>>,
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("reach", &self.reach).field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// What came back; a redirect is not followed.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// We do not go there.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There was no answer in time, or none at all.
    #[error("there is no answer")]
    Silent(#[source] reqwest::Error),
    /// There was more than was asked for.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Why there is nowhere to connect to.
#[derive(Debug, thiserror::Error)]
pub enum Nowhere {
    /// We do not go there.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nobody knows the name, or whoever would is away.
    #[error("the name {0:?} is not known")]
    Unknown(String),
}

impl Default for Egress {
    fn default() -> Self {
        Self::new(Reach::default())
    }
}

impl Egress {
    /// A client that goes so far.
    pub fn new(reach: Reach) -> Self {
        Self { reach, patience: WHOLE, names: Arc::new(of_this_machine), http: Arc::default() }
    }

    /// A call may take so long, from the name to the last byte; eight seconds where nothing is said.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, http: Arc::default(), ..self }
    }

    /// Asks this for the addresses of names, instead of the machine.
    #[must_use]
    pub fn with_names(self, names: LookUp) -> Self {
        Self { names, http: Arc::default(), ..self }
    }

    /// How far it goes.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Where a host is that is spoken to otherwise than by HTTP, for whoever connects to one of these addresses and does not ask a second
    /// time. All of them may be connected to.
    ///
    /// # Errors
    /// [`Nowhere`]
    pub async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Nowhere> {
        if self.reach == Reach::Public && !is_public_host(host) {
            return Err(Refused::Private.into());
        }
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => (self.names)(host.to_owned()).await.unwrap_or_default(),
        };
        if found.is_empty() {
            return Err(Nowhere::Unknown(host.to_owned()));
        }
        let mut found = reachable(found, self.reach).map_err(|_| Refused::Private)?;
        found.iter_mut().for_each(|address| address.set_port(port));
        Ok(found)
    }

    /// Sends a request and reads an answer of at most `limit` bytes.
    ///
    /// # Errors
    /// [`EgressError`]
    pub async fn send(&self, request: Request, limit: usize) -> Result<Reply, EgressError> {
        let mut response = self.ask(request).await?;
        let mut body = vec![];
        while let Some(chunk) = response.chunk().await.map_err(EgressError::Silent)? {
            if body.len() + chunk.len() > limit {
                return Err(EgressError::TooLong(limit));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
    }
}

impl Egress {
    /// Sends a request and reads the begin of the answer: at most `limit` bytes, and no longer than two seconds once it has begun.
    /// However much there is, and however slowly it comes, its status counts.
    ///
    /// # Errors
    /// [`EgressError::Refused`] and [`EgressError::Silent`]
    pub async fn send_briefly(&self, request: Request, limit: usize) -> Result<Reply, EgressError> {
        let mut response = self.ask(request).await?;
        let mut body = vec![];
        let read = async {
            while body.len() < limit
                && let Ok(Some(chunk)) = response.chunk().await
            {
                body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
            }
        };
        let _ = tokio::time::timeout(BRIEF, read).await;
        Ok(Reply { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
    }

    async fn ask(&self, mut request: Request) -> Result<reqwest::Response, EgressError> {
        *request.url_mut() = target(request.url().as_str(), self.reach)?;
        let http = self.http.get_or_try_init(async || self.client()).await.map_err(EgressError::Silent)?;
        http.execute(request).await.map_err(EgressError::Silent)
    }

    fn client(&self) -> reqwest::Result<reqwest::Client> {
        client(Names { reach: self.reach, names: self.names.clone() }, self.patience)
    }
}

fn client(names: Names, patience: Duration) -> reqwest::Result<reqwest::Client> {
    install_crypto();
    reqwest::Client::builder()
        .redirect(Policy::none())
        // A proxy would look up names in our place.
        .no_proxy()
        .referer(false)
        // A little that becomes a lot is read as the little that it is.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .dns_resolver(Arc::new(names))
        .connect_timeout(CONNECT)
        .timeout(patience)
        .pool_idle_timeout(IDLE)
        .user_agent(concat!("flatrender/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Looks names up, each time anew, and gives addresses that everybody can reach.
struct Names {
    reach: Reach,
    names: LookUp,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, found) = (self.reach, (self.names)(name.as_str().to_owned()));
        // What is looked at here is what is connected to: nobody asks a second time.
        Box::pin(async move { Ok(Box::new(reachable(found.await?, reach)?.into_iter()) as Addrs) })
    }
}

fn of_this_machine(name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
}

/// Those of the addresses that may be called. A name that also leads elsewhere is nobody's whom we call.
fn reachable(found: Vec<SocketAddr>, reach: Reach) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
    if reach == Reach::Public && !found.iter().all(|address| is_public(address.ip())) {
        return Err(Box::new(io::Error::other(Refused::Private)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        thread,
    };

    fn get(url: &str) -> Request {
        Request::new(reqwest::Method::GET, url.parse().unwrap())
    }

    /// A server that answers each request with these bytes; its address.
    fn answering(reply: &'static str) -> String {
        use io::{Read as _, Write as _};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream: TcpStream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(reply.as_bytes());
            }
        });
        format!("http://{address}/")
    }

    #[tokio::test]
    async fn nothing_within_our_own_network_is_called() {
        let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
        let public = Egress::new(Reach::Public);
        assert!(matches!(public.send(get(&url), 10).await, Err(EgressError::Refused(Refused::NotHttps))));
        let secret = public.send(get("https://169.254.169.254/latest/meta-data"), 10).await;
        assert!(matches!(secret, Err(EgressError::Refused(Refused::Private))));
        assert_eq!(Egress::new(Reach::Anywhere).send(get(&url), 10).await.unwrap().body, b"hi");
    }

    #[test]
    fn a_name_that_also_leads_into_our_network_is_not_called() {
        let addresses = |ips: &[&str]| ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect::<Vec<_>>();
        assert_eq!(reachable(addresses(&["93.184.215.14"]), Reach::Public).unwrap().len(), 1);
        for mixed in [&["93.184.215.14", "10.0.0.1"][..], &["127.0.0.1"], &["2606:2800:21f::1", "::1"]] {
            assert!(reachable(addresses(mixed), Reach::Public).is_err(), "{mixed:?}");
            assert!(reachable(addresses(mixed), Reach::Anywhere).is_ok());
        }
    }

    #[tokio::test]
    async fn what_is_connected_to_is_what_was_looked_at() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        // For everybody when it is asked for the first time, and within our network from then on.
        let flips: LookUp = Arc::new(move |_| {
            let ip: &str = if count.fetch_add(1, Ordering::SeqCst) == 0 { "93.184.215.14" } else { "10.0.0.5" };
            let found = vec![SocketAddr::new(ip.parse().unwrap(), 0)];
            Box::pin(async move { Ok(found) })
        });
        let egress = Egress::new(Reach::Public).with_names(flips);
        let found = egress.addresses("mail.acme.example", 587).await.unwrap();
        assert_eq!(found, ["93.184.215.14:587".parse::<SocketAddr>().unwrap()]);
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let again = egress.addresses("mail.acme.example", 587).await;
        assert!(matches!(again, Err(Nowhere::Refused(Refused::Private))), "{again:?}");
        for private in ["127.0.0.1", "::1", "10.0.0.1", "localhost", "relay.internal"] {
            let refused = egress.addresses(private, 25).await;
            assert!(matches!(refused, Err(Nowhere::Refused(_))), "{private}: {refused:?}");
        }
        let nobody: LookUp = Arc::new(|_| Box::pin(async { Ok(vec![]) }));
        let unknown = Egress::new(Reach::Public).with_names(nobody).addresses("mail.acme.example", 25).await;
        assert!(matches!(unknown, Err(Nowhere::Unknown(_))), "{unknown:?}");
    }

    #[tokio::test]
    async fn nobody_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let egress = Egress::new(Reach::Anywhere).with_patience(Duration::from_millis(50));
        assert!(matches!(egress.send(get(&url), 10).await, Err(EgressError::Silent(error)) if error.is_timeout()));
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_a_long_answer_not_read() {
        let egress = Egress::new(Reach::Anywhere);
        let url = answering("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(egress.send(get(&url), 10).await.unwrap().status, StatusCode::FOUND);
        let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nelevenbytes");
        assert!(matches!(egress.send(get(&url), 10).await, Err(EgressError::TooLong(10))));
        assert_eq!(egress.send(get(&url), 11).await.unwrap().body.len(), 11);
    }
}
