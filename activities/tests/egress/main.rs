//! Calls to addresses that somebody else named: none of them reaches our own network, however it is spelled, and none of their answers
//! takes more of us than it was given.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod answers;
mod corpus;

use flatrender_activities::egress::{
    Egress, Reach,
    client::{EgressError, LookUp, Reply},
    target,
};
use reqwest::{Method, Request};
use std::{
    collections::VecDeque,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A server in our own network that counts who comes, and answers what it is told to.
#[derive(Clone)]
struct Canary {
    address: SocketAddr,
    seen: Arc<AtomicUsize>,
}

impl Canary {
    fn at(address: &str, answer: impl Fn(TcpStream) + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let (address, seen) = (listener.local_addr()?, Arc::<AtomicUsize>::default());
        let (counted, answer) = (seen.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                thread::spawn(move || answer(stream));
            }
        });
        Ok(Self { address, seen })
    }

    fn new(answer: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer).unwrap()
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

/// Reads a request's begin, then says these bytes.
fn says(bytes: impl Into<Vec<u8>>) -> impl Fn(TcpStream) + Send + Sync + 'static {
    let bytes = bytes.into();
    move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(&bytes);
    }
}

fn get(url: &str) -> Request {
    Request::new(Method::GET, url.parse().unwrap())
}

/// Every name leads there; says how often somebody asked.
fn leading_to(addresses: Vec<SocketAddr>) -> (LookUp, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let counted = asked.clone();
    let names: LookUp = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    });
    (names, asked)
}

/// Why it was not called.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

async fn ask(egress: &Egress, text: &str) -> Result<Reply, EgressError> {
    let url = target(text, egress.reach())?;
    egress.send(Request::new(Method::GET, url), 4096).await
}

#[tokio::test]
async fn no_spelling_of_an_address_in_our_network_is_called() {
    let canaries = [Canary::new(says("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))];
    // Where somebody is let, also where a call without a port would go.
    let low = ["127.0.0.1:443", "127.0.0.1:80", "[::1]:443", "[::1]:80"];
    let canaries: Vec<Canary> =
        canaries.into_iter().chain(low.iter().filter_map(|at| Canary::at(at, |_| {}).ok())).collect();
    // Every name leads to a canary, at its port.
    let (names, asked) = leading_to(vec![canaries[0].address]);
    let public = Egress::new(Reach::Public).with_names(names.clone());
    let all = corpus::all();
    assert!(all.len() >= 400, "{}", all.len());
    for text in &all {
        let answer = ask(&public, text).await;
        let refused = match &answer {
            Err(EgressError::Refused(_)) => true,
            Err(error @ EgressError::Silent(_)) => {
                why(error).contains("does not lead to a host that everybody can reach")
            }
            _ => false,
        };
        assert!(refused, "{text:?}: {:?}", answer.map(|reply| reply.status));
    }
    assert!(asked.load(Ordering::SeqCst) >= 5, "names that could be anybody's are looked up");
    assert_eq!(canaries.iter().map(Canary::seen).sum::<usize>(), 0);
    // Whoever develops gets there: the canary sings.
    let anywhere = Egress::new(Reach::Anywhere).with_names(names);
    assert_eq!(ask(&anywhere, "http://receiver.example/").await.unwrap().status, 200);
    assert_eq!(canaries[0].seen(), 1);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_next_moment_is_called_where_it_was_looked_at() {
    let (first, second) =
        (Canary::new(says("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")), Canary::new(|_| {}));
    let answers = Arc::new(Mutex::new(VecDeque::from([vec![first.address], vec![second.address]])));
    let flips = |answers: Arc<Mutex<VecDeque<Vec<SocketAddr>>>>| -> LookUp {
        Arc::new(move |_| {
            let next = answers.lock().unwrap().pop_front().unwrap_or_default();
            Box::pin(async move { Ok(next) })
        })
    };
    let egress = Egress::new(Reach::Anywhere).with_names(flips(answers.clone()));
    assert_eq!(ask(&egress, "http://rebind.example/").await.unwrap().status, 200);
    assert_eq!((first.seen(), second.seen(), answers.lock().unwrap().len()), (1, 0, 1), "it was looked up once");

    // Nowhere at first, then into our network, alone and beside an address of everybody's.
    let public: SocketAddr = "93.184.215.14:9".parse().unwrap();
    let answers =
        VecDeque::from([vec![], vec![second.address], vec![public, second.address], vec![second.address, public]]);
    let answers = Arc::new(Mutex::new(answers));
    let egress = Egress::new(Reach::Public).with_names(flips(answers.clone()));
    for _ in 0..4 {
        assert!(ask(&egress, "https://rebind.example/").await.is_err());
    }
    assert_eq!((second.seen(), answers.lock().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let canary = Canary::new(|_| {});
    for status in 300..=308 {
        let to = canary.url();
        let redirect = Canary::new(says(format!(
            "HTTP/1.1 {status} Over there\r\nlocation: {to}\r\nrefresh: 0; url={to}\r\ncontent-length: 0\r\n\r\n"
        )));
        let reply = ask(&Egress::new(Reach::Anywhere), &redirect.url()).await.unwrap();
        assert_eq!(reply.status.as_u16(), status);
    }
    assert_eq!(canary.seen(), 0);
}

const CALLED: &str = "FLATRENDER_TEST_CALLED";

/// The environment belongs to a whole process, so the call is made by another one.
#[tokio::test]
async fn no_proxy_of_the_environment_is_used() {
    if let Ok(url) = std::env::var(CALLED) {
        let reply = ask(&Egress::new(Reach::Anywhere), &url).await.unwrap();
        assert_eq!(reply.body, b"hi");
        return;
    }
    let (proxy, called) = (Canary::new(|_| {}), Canary::new(says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")));
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "no_proxy_of_the_environment_is_used"]).env(CALLED, called.url()).env_remove("NO_PROXY");
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, format!("http://{}", proxy.address));
    }
    let done = again.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    assert_eq!((proxy.seen(), called.seen()), (0, 1));
}
