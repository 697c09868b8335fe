//! Host names of tenants, proven by what a name server says. The server of these tests speaks the protocol (RFC 1035) over UDP.

use crate::world::{Answer, World, request, with_json};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_activities::dns::Resolver;
use flatrender_api::{app::App, router};
use flatrender_engine::{Client, Worker};
use flatrender_workflows::{
    contracts::dns::{DNS_QUEUE, LookUpTexts},
    definitions::recheck_domains::RecheckDomains,
    models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::UdpSocket;
use tower::ServiceExt as _;
use uuid::Uuid;

/// What a server says of each name: its texts, or none when it has failed.
type Zone = Arc<Mutex<BTreeMap<String, Option<Vec<String>>>>>;

struct NameServer {
    address: SocketAddr,
    zone: Zone,
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Self { address: socket.local_addr().unwrap(), zone: Zone::default(), asked: Arc::default() };
        let (zone, asked) = (server.zone.clone(), server.asked.clone());
        tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
                let (name, end) = question(&packet[..length]);
                let says = zone.lock().unwrap().get(&name).cloned();
                asked.lock().unwrap().push(name);
                socket.send_to(&answer(&packet[..end], says), peer).await.unwrap();
            }
        });
        server
    }

    fn says(&self, name: &str, texts: &[&str]) {
        self.zone.lock().unwrap().insert(name.into(), Some(texts.iter().map(ToString::to_string).collect()));
    }

    fn fails_at(&self, name: &str) {
        self.zone.lock().unwrap().insert(name.into(), None);
    }
}

/// The name that a query asks for, and where its question ends.
fn question(query: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, vec![]);
    while query[at] > 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..=at + length].to_vec()).unwrap().to_lowercase());
        at += 1 + length;
    }
    (labels.join("."), at + 5)
}

/// An answer to a question: TXT records, NXDOMAIN when the name is not there, or SERVFAIL.
fn answer(question: &[u8], says: Option<Option<Vec<String>>>) -> Vec<u8> {
    let (code, texts) = match says {
        None => (3, vec![]),
        Some(None) => (2, vec![]),
        Some(Some(texts)) => (0, texts),
    };
    let mut packet = question.to_vec();
    // An authoritative answer that recursion was available for; one question, so many answers, nothing else.
    packet[2..4].copy_from_slice(&[0x85, 0x80 | code]);
    packet[4..12].copy_from_slice(&[0, 1, 0, texts.len() as u8, 0, 0, 0, 0]);
    for text in texts {
        // In pieces of at most 255 bytes; here shorter, so that they have to be joined.
        let pieces: Vec<u8> = text.as_bytes().chunks(20).flat_map(|p| [&[p.len() as u8], p].concat()).collect();
        packet.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
        packet.extend((pieces.len() as u16).to_be_bytes());
        packet.extend(pieces);
    }
    packet
}

/// A world whose DNS is this server.
struct Town {
    world: World,
    dns: NameServer,
    router: Router,
}

impl Town {
    async fn new(db: PgPool) -> Self {
        let (world, dns) = (World::new(db).await, NameServer::start().await);
        let router = router::router(App { dns: Resolver::at(dns.address), ..world.app.clone() });
        Self { world, dns, router }
    }

    async fn tenant(&self, slug: &str) -> Tenant<'_> {
        let id = self.world.tenant(slug).await;
        Tenant { town: self, id, key: self.world.key_for(id, &SCOPES).await.1 }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Whose pages a browser gets to see at a host name.
    async fn at(&self, host: &str) -> Value {
        let request = Request::get("/v1/branding").header(header::HOST, host).body(Body::empty()).unwrap();
        self.send(request).await.json()["tenant"].clone()
    }
}

struct Tenant<'a> {
    town: &'a Town,
    id: Uuid,
    key: String,
}

impl Tenant<'_> {
    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.town.send(with_json(request(method, path, &self.key), &body)).await
    }

    /// Adds a name: where it is verified, and the record that proves it.
    async fn add(&self, hostname: &str) -> (String, String, String) {
        let added = self.send(Method::POST, "/v1/domains", json!({ "hostname": hostname })).await;
        assert_eq!(added.status, StatusCode::CREATED, "{:?}", added.body);
        let text = |field: &str| added.json()[field].as_str().unwrap().to_owned();
        (format!("/v1/domains/{}", text("id")), text("record_name"), text("record_value"))
    }

    async fn verify(&self, path: &str) -> Answer {
        self.send(Method::POST, &format!("{path}/verify"), json!({})).await
    }
}

/// A name that somebody else owns by now is theirs to prove: it stays with its tenant for as long as its record is found, or nobody
/// can tell, and goes after the third day without.
#[sqlx::test(migrations = "../migrations")]
async fn a_host_name_whose_record_is_gone_for_three_days_is_nobodys(db: PgPool) {
    let town = Town::new(db).await;
    let (acme, other) = (town.tenant("acme").await, town.tenant("other").await);
    let (path, name, value) = acme.add("films.acme.example").await;
    town.dns.says(&name, &[&value]);
    assert_eq!(acme.verify(&path).await.status, StatusCode::OK);
    let world = &town.world;
    let worker = Worker::builder(world.db.clone()).workflow::<RecheckDomains>();
    let worker = worker.queue(DNS_QUEUE, 1).handler::<LookUpTexts>(Resolver::at(town.dns.address));
    let working = tokio::spawn(worker.run(world.stopping.child_token()));
    let client = Client::new(world.db.clone());
    let look = async || {
        let mut tx = world.db.begin().await.unwrap();
        let run = client.start(&mut tx, DEFAULT_TENANT, None, RecheckDomains {}).await.unwrap().run_id;
        tx.commit().await.unwrap();
        client.announce();
        let run = client.finished(run, Duration::from_secs(60)).await.unwrap().expect("it ends");
        run.output_as::<Vec<String>>().unwrap()
    };
    let a_day_later = async || {
        crate::jane::pass(world, 86_400).await;
        assert_eq!(town.at("films.acme.example").await, "acme");
        look().await
    };
    let asked = || town.dns.asked.lock().unwrap().len();
    let before = asked();
    assert_eq!((look().await, asked()), (vec![], before), "it was looked for today");
    assert_eq!((a_day_later().await, asked()), (vec![], before + 1), "found");
    town.dns.says(&name, &["something else"]);
    for _ in 0..2 {
        assert_eq!(a_day_later().await, Vec::<String>::new());
    }
    town.dns.says(&name, &[&value]);
    assert_eq!(a_day_later().await, Vec::<String>::new(), "found again: it counts from the beginning");
    town.dns.fails_at(&name);
    for _ in 0..4 {
        assert_eq!(a_day_later().await, Vec::<String>::new(), "nobody can tell");
    }
    town.dns.says(&name, &[]);
    for _ in 0..2 {
        assert_eq!(a_day_later().await, Vec::<String>::new());
    }
    assert_eq!(a_day_later().await, ["films.acme.example"], "the third time");
    assert_eq!(town.at("films.acme.example").await, "default");
    let domain = acme.send(Method::GET, "/v1/domains", json!({})).await.json()["data"][0].clone();
    assert_eq!((&domain["state"], &domain["verified_at"]), (&json!("failed"), &Value::Null), "{domain}");
    let written = acme.send(Method::GET, "/v1/audit?action=domain.lapse", json!({})).await.json();
    assert_eq!(written["data"][0]["actor"], "system");
    let (path, name, value) = other.add("films.acme.example").await;
    town.dns.says(&name, &[&value]);
    assert_eq!(other.verify(&path).await.status, StatusCode::OK, "whoever owns it now");
    assert_eq!(town.at("films.acme.example").await, "other");
    world.stopping.cancel();
    working.await.unwrap().unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_name_selects_its_tenant_once_the_dns_says_so(db: PgPool) {
    let town = Town::new(db).await;
    let acme = town.tenant("acme").await;
    let (path, name, value) = acme.add("Films.Acme.Example").await;
    assert_eq!(name, "_flatrender.films.acme.example");
    let unproven = async || {
        let answer = acme.verify(&path).await;
        assert_eq!((answer.problem().as_str(), answer.status), ("domain.unproven", StatusCode::CONFLICT));
        let list = acme.send(Method::GET, "/v1/domains", json!({})).await.json();
        assert_eq!(town.at("films.acme.example").await, "default");
        (list["data"][0]["state"].clone(), list["data"][0]["last_error"].as_str().unwrap().to_owned())
    };
    let (state, why) = unproven().await;
    assert_eq!((state, why.as_str()), (json!("failed"), "there is no TXT record _flatrender.films.acme.example"));
    town.dns.fails_at(&name);
    assert!(unproven().await.1.contains("gives no answer"));
    town.dns.says(&name, &["v=spf1 -all", "fr_dv_of_somebody_else"]);
    assert!(unproven().await.1.contains(&value));

    town.dns.says(&name, &["v=spf1 -all", &value]);
    let proven = acme.verify(&path).await.json();
    assert_eq!((&proven["state"], &proven["last_error"]), (&json!("verified"), &Value::Null), "{proven}");
    assert_eq!(town.at("films.acme.example:443").await, "acme");
    let asked = town.dns.asked.lock().unwrap().len();
    assert_eq!(acme.verify(&path).await.status, StatusCode::OK, "asking again is harmless");
    assert_eq!(town.dns.asked.lock().unwrap().len(), asked, "and asks nobody");
    assert_eq!(acme.send(Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(town.at("films.acme.example").await, "default");
    let sql = "select action from identity.audit_log where tenant_id = $1 order by seq";
    let actions: Vec<String> = sqlx::query_scalar(sql).bind(acme.id).fetch_all(&town.world.db).await.unwrap();
    assert_eq!(actions, ["domain.add", "domain.verify", "domain.remove"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn nobody_takes_over_somebody_elses_host_name(db: PgPool) {
    let town = Town::new(db).await;
    let (acme, thief) = (town.tenant("acme").await, town.tenant("thief").await);
    let (path, name, value) = acme.add("films.acme.example").await;
    let (stolen, _, other) = thief.add("films.acme.example").await;
    assert_ne!(value, other, "each has to show its own record");
    town.dns.says(&name, &[&value]);
    assert_eq!(
        thief.verify(&stolen).await.problem(),
        "domain.unproven",
        "the owner's record proves nothing for others"
    );
    assert_eq!(acme.verify(&path).await.status, StatusCode::OK);
    // Even somebody who got hold of the DNS for a moment.
    town.dns.says(&name, &[&value, &other]);
    assert_eq!(thief.verify(&stolen).await.problem(), "domain.taken");
    assert_eq!(town.at("films.acme.example").await, "acme");
    assert_eq!(thief.verify(&path).await.problem(), "domain.not_found");
    assert_eq!(thief.send(Method::DELETE, &path, json!({})).await.problem(), "domain.not_found");

    // Two who prove the same name at the same time: one of them has it.
    let (a, b) = (acme.add("new.acme.example").await, thief.add("new.acme.example").await);
    town.dns.says(&a.1, &[&a.2, &b.2]);
    let (one, two) = tokio::join!(acme.verify(&a.0), thief.verify(&b.0));
    let mut both = [one.status.as_u16(), two.status.as_u16()];
    both.sort_unstable();
    assert_eq!(both, [200, 409], "{:?} {:?}", one.body, two.body);
    // Whoever gives it up leaves it to the other.
    let ((winner, won), (loser, lost)) = match one.status {
        StatusCode::OK => ((&acme, a.0), (&thief, b.0)),
        _ => ((&thief, b.0), (&acme, a.0)),
    };
    assert_eq!(loser.verify(&lost).await.problem(), "domain.taken");
    assert_eq!(winner.send(Method::DELETE, &won, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(loser.verify(&lost).await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_dns_is_asked_ten_times_a_minute_at_most(db: PgPool) {
    let town = Town::new(db).await;
    let (acme, other) = (town.tenant("acme").await, town.tenant("other").await);
    let (path, ..) = acme.add("films.acme.example").await;
    let answers = futures::future::join_all((0..14).map(|_| acme.verify(&path))).await;
    let limited: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::TOO_MANY_REQUESTS).collect();
    assert!((3..=4).contains(&limited.len()), "{}", limited.len());
    assert!(
        limited.iter().all(|a| a.problem() == "rate.limited" && a.header("retry-after").parse::<u32>().unwrap() >= 1)
    );
    let (theirs, ..) = other.add("films.other.example").await;
    assert_eq!(other.verify(&theirs).await.problem(), "domain.unproven", "each tenant for itself");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_has_each_name_once_and_twenty_at_most(db: PgPool) {
    let town = Town::new(db).await;
    let acme = town.tenant("acme").await;
    let add = |name: String| acme.send(Method::POST, "/v1/domains", json!({ "hostname": name }));
    acme.add("a.acme.example").await;
    assert_eq!(add("A.acme.example.".into()).await.problem(), "domain.exists");
    for wrong in ["127.0.0.1", "acme", "localhost", "*.acme.example", "acme.example:80"] {
        assert_eq!(add(wrong.into()).await.faults(), ["/hostname domain.hostname"], "{wrong}");
    }
    let answers = futures::future::join_all((0..24).map(|n| add(format!("n{n}.acme.example")))).await;
    assert_eq!(answers.iter().filter(|a| a.status == StatusCode::CREATED).count(), 19);
    assert_eq!(answers.iter().find(|a| a.status != StatusCode::CREATED).unwrap().problem(), "domain.too_many");
}

#[sqlx::test(migrations = "../migrations")]
async fn people_sign_in_where_the_host_name_leads(db: PgPool) {
    let town = Town::new(db).await;
    let acme = town.tenant("acme").await;
    let (path, name, value) = acme.add("films.acme.example").await;
    let register = async |host: &str, email: &str| {
        let body = json!({"email": email, "password": "a few words that nobody guesses"});
        let ask = Request::post("/v1/auth/register").header(header::HOST, host);
        assert_eq!(town.send(with_json(ask, &body)).await.status, StatusCode::ACCEPTED);
        let sql = "select t.slug from identity.users u join identity.tenants t on t.id = u.tenant_id where email = $1";
        sqlx::query_scalar::<_, String>(sql).bind(email).fetch_one(&town.world.db).await.unwrap()
    };
    assert_eq!(register("films.acme.example", "ann@example.com").await, "default", "claimed is not proven");
    town.dns.says(&name, &[&value]);
    acme.verify(&path).await;
    assert_eq!(register("films.acme.example", "bob@example.com").await, "acme");
    assert_eq!(register("elsewhere.example", "cid@example.com").await, "default");
}

/// Whoever is of one tenant is not let in at the proven host name of another, with a key or as a person, wherever they ask.
#[sqlx::test(migrations = "../migrations")]
async fn m7_what_is_good_with_one_tenant_opens_nothing_at_the_door_of_another(db: PgPool) {
    let town = Town::new(db).await;
    let (acme, other) = (town.tenant("acme").await, town.tenant("other").await);
    let (path, name, value) = acme.add("films.acme.example").await;
    let at = async |host: &str, credential: &str, method: Method, path: &str| {
        let ask = request(method, path, credential).header(header::HOST, host);
        town.send(ask.body(Body::empty()).unwrap()).await
    };
    let look = async |host: &str, credential: &str| {
        let answer = at(host, credential, Method::GET, "/v1/renders").await;
        if answer.status == StatusCode::OK {
            "let in".to_owned()
        } else {
            format!("{} {}", answer.status, answer.problem())
        }
    };
    assert_eq!(look("films.acme.example", &other.key).await, "let in", "claimed is not proven");
    town.dns.says(&name, &[&value]);
    acme.verify(&path).await;

    let person = async |tenant_id, email: &str, role: &str| {
        let id = town.world.person(tenant_id, email, &[role]).await;
        town.world.session(tenant_id, id).await
    };
    let ann = person(acme.id, "ann@example.com", "owner").await;
    let bob = person(other.id, "bob@example.com", "owner").await;
    let staff = person(DEFAULT_TENANT, "kim@example.com", "platform_admin").await;
    for host in ["films.acme.example", "FILMS.Acme.example:8443", "films.acme.example."] {
        for own in [&acme.key, &ann] {
            assert_eq!(look(host, own).await, "let in", "{host}");
        }
        for foreign in [&other.key, &bob, &town.world.key, &staff] {
            assert_eq!(look(host, foreign).await, "403 Forbidden auth.host", "{host}");
        }
    }
    for host in ["films.other.example", "127.0.0.1:8787", "not a host"] {
        assert_eq!(look(host, &other.key).await, "let in", "a host name that is nobody's: {host}");
    }
    let ask = request(Method::GET, "/v1/renders", &other.key).header("x-forwarded-host", "films.acme.example");
    assert_eq!(
        town.send(ask.body(Body::empty()).unwrap()).await.status,
        StatusCode::OK,
        "what anybody may write says nothing"
    );

    // Every operation that asks who it is, by the API's own document.
    let document = town.send(Request::get("/openapi.json").body(Body::empty()).unwrap()).await.json();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if operation["security"] == json!([{}]) || path.starts_with("/v1/nodes") {
                continue;
            }
            let method: Method = method.to_uppercase().parse().unwrap();
            let filled =
                path.replace("{id}", &Uuid::nil().to_string()).replace("{slug}", "tiny").replace("{name}", "requests");
            let answer = at("films.acme.example", &bob, method.clone(), &filled).await;
            if method == Method::HEAD {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: an answer to HEAD has no body");
                continue;
            }
            assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "auth.host"), "{method} {path}");
            let by_key = at("films.acme.example", &other.key, method.clone(), &filled).await.problem();
            assert!(["auth.host", "auth.invalid"].contains(&by_key.as_str()), "{method} {path}: {by_key}");
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked}");
    assert_eq!(acme.send(Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(look("films.acme.example", &other.key).await, "let in", "given up");
}
