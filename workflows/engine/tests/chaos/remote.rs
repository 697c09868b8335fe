//! Workers that have no database and a bad network, and a server that dies under them.

use crate::{
    ledger::{Entry, Ledger, What},
    program::{Duties, Role},
    scenario::{Scenario, sized},
    work::{Errand, Single, Trip},
};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use flatrender_engine::{Attempt, Client, Failure, LeasedTask, remote};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use uuid::Uuid;

/// A worker's name is its secret.
async fn who(headers: HeaderMap) -> Option<remote::RemoteWorker> {
    let name = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned();
    Some(remote::RemoteWorker { name, queues: vec!["errands".to_owned()] })
}

/// Answers remote workers until it is killed.
pub async fn serve(client: Client, port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, remote::router(remote::Service::new(client), who)).await.unwrap();
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().unwrap()
}

/// A network through which nothing passes while it is cut; what was under way then is over when it is mended.
struct Cable {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Cable {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    let talk = async {
                        if let Ok(mut far) = TcpStream::connect(("127.0.0.1", server)).await {
                            let _ = copy_bidirectional(&mut near, &mut far).await;
                        }
                    };
                    tokio::select! {
                        biased;
                        _ = is_cut.wait_for(|cut| *cut) => {}
                        () = talk => return,
                    }
                    // Neither side hears that the other is gone.
                    let _ = is_cut.wait_for(|cut| !*cut).await;
                });
            }
        });
        Self { port, cut }
    }
}

/// Calls that are made by hand, with their entries in the ledger.
struct Hand {
    http: reqwest::Client,
    port: u16,
    ledger: Ledger,
}

impl Hand {
    async fn call(&self, name: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://127.0.0.1:{}/{path}", self.port);
        let began = Instant::now();
        loop {
            // The server may be about to come up.
            match self.http.post(&url).bearer_auth(name).json(body).send().await {
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    return (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default());
                }
                Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn claim(&self, name: &str) -> Attempt {
        let asked = json!({ "incarnation": Uuid::new_v4(), "wait_seconds": 20 });
        let (status, claimed) = self.call(name, "claims", &asked).await;
        assert_eq!(status, 200, "{claimed}");
        let task: LeasedTask = serde_json::from_value(claimed["tasks"][0].clone()).unwrap();
        let attempt = Attempt::new(task).0;
        self.ledger.note(What::Begun, &attempt, 0);
        attempt
    }

    async fn complete(&self, name: &str, attempt: &Attempt, output: u32) -> (u16, Value) {
        let body = json!({ "lease_token": attempt.lease_token(), "output": output });
        self.call(name, &format!("tasks/{}/complete", attempt.task().task_id), &body).await
    }

    /// Every call about a task, the worst last: how each is answered.
    async fn every_call(&self, name: &str, attempt: &Attempt) -> Vec<(u16, String)> {
        let failure = Failure::permanent("test.forged", "not so");
        let mut answers = Vec::new();
        for (what, mut body) in [
            ("renew", json!({})),
            ("release", json!({})),
            ("fail", json!({ "failure": failure })),
            ("complete", json!({ "output": 666 })),
        ] {
            body["lease_token"] = json!(attempt.lease_token());
            let (status, problem) = self.call(name, &format!("tasks/{}/{what}", attempt.task().task_id), &body).await;
            answers.push((status, problem["code"].as_str().unwrap_or_default().to_owned()));
        }
        answers
    }
}

fn all(answers: &[(u16, String)], status: u16, code: &str) {
    assert!(answers.iter().all(|answer| *answer == (status, code.to_owned())), "{answers:?}");
}

#[tokio::test]
async fn f32_remote_workers_are_held_to_their_tokens_and_outlive_cuts_and_restarts() {
    let mut s = Scenario::new("F32", "only the current token counts; a cut and a restart cost no attempt").await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let server = s.start_process("server", Role::Server { port });
    s.worker("runs", Duties { errands: false, ..Duties::default() });
    let hand = Hand { http: http(), port, ledger: Ledger::open(s.folder(), "hand") };

    // Shown by another, a token is worth nothing.
    let run_id = s.start("by hand", Single(Errand::new(1))).await;
    let attempt = hand.claim("a").await;
    for thief in ["b", "a:x", "ab"] {
        all(&hand.every_call(thief, &attempt).await, 403, "lease.foreign");
        s.injected(4);
    }
    // Told twice, over a crash of the server, an end counts once.
    hand.ledger.note(What::Done, &attempt, 2);
    assert_eq!(hand.complete("a", &attempt, 2).await.0, 204);
    s.process(server).signal("KILL");
    s.process(server).ended(Duration::from_secs(5)).await;
    s.revive();
    assert_eq!(hand.complete("a", &attempt, 999).await.0, 204);
    s.injected(2);
    s.succeeded(run_id, 2).await;

    // Past its lease, a token is too late for everything.
    let run_id = s.start("too late", Single(Errand::of(2, 0, 1000))).await;
    let late = hand.claim("a").await;
    let next = hand.claim("b").await;
    assert_eq!((next.task().task_id, next.task().attempt_no), (late.task().task_id, 2));
    all(&hand.every_call("a", &late).await, 409, "lease.lost");
    s.injected(4);
    hand.ledger.note(What::Done, &next, 4);
    assert_eq!(hand.complete("b", &next, 4).await.0, 204);
    s.succeeded(run_id, 4).await;

    // From here on a process does the work, by way of a network.
    let cable = Cable::to(port).await;
    let base = format!("http://127.0.0.1:{}", cable.port);
    let node = s.start_process("node", Role::Node { base: base.clone() });
    let trip = s.start("trip", Trip::new(3)).await;
    s.succeeded(trip, Trip::new(3).answer(0)).await;
    let (cut, lease_ms, takes_ms) =
        sized((Duration::from_millis(1_500), 8_000, 700), (Duration::from_secs(60), 90_000, 20_000));
    // One is done while nobody can be told, one goes on after the cut.
    let during = s.start("during", Single(Errand::of(5, takes_ms, lease_ms))).await;
    let beyond = s.start("beyond", Single(Errand::of(6, cut.as_millis() as u64 + 500, lease_ms))).await;
    for run_id in [during, beyond] {
        s.noted(|e| e.run_id == run_id && e.what == What::Begun, Duration::from_secs(20)).await;
    }
    cable.cut.send_replace(true);
    s.injected(1);
    tokio::time::sleep(cut).await;
    let told = "select count(*) from workflow.runs where business_key in ('during', 'beyond') and state <> 'running'";
    assert_eq!(s.count(told).await, 0, "the cut is real");
    assert!(s.ledger().iter().any(|e| e.run_id == during && e.what == What::Done), "it is done already");
    cable.cut.send_replace(false);
    s.succeeded(during, 10).await;
    s.succeeded(beyond, 12).await;

    // The server is killed under an attempt, and comes back.
    for round in 0..sized(1, 5) {
        let under = s.start(&format!("under {round}"), Single(Errand::of(7, 900, 10_000))).await;
        s.noted(|e| e.run_id == under && e.what == What::Begun, Duration::from_secs(20)).await;
        s.process(server).signal("KILL");
        s.process(server).ended(Duration::from_secs(5)).await;
        s.injected(1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        s.revive();
        s.succeeded(under, 14).await;
    }
    let once = "select count(*) from workflow.attempts a join workflow.runs r on r.id = a.run_id
                where a.step_key = 'errand' and (r.business_key in ('during', 'beyond') or r.business_key like 'under%')";
    assert_eq!(s.count(once).await, 2 + sized(1, 5), "an attempt was lost");

    // A node that dies is noticed by the end of its lease.
    let orphan = s.start("orphan", Single(Errand::of(8, 1_500, 1_000))).await;
    s.noted(|e| e.run_id == orphan && e.what == What::Begun, Duration::from_secs(20)).await;
    s.process(node).kill();
    let killed = Instant::now();
    s.injected(1);
    s.start_process("node too", Role::Node { base });
    let again = |e: &Entry| e.run_id == orphan && e.what == What::Begun && e.worker == "node too";
    s.noted(again, Duration::from_secs(20)).await;
    let took = killed.elapsed();
    s.note(format!("cut for {cut:?}; taken over {took:.1?} after a death, with a lease of 1 s"));
    assert!(took < sized(Duration::from_secs(12), Duration::from_secs(3)), "{took:?}");
    s.succeeded(orphan, 16).await;
    s.finish(Duration::from_secs(30)).await;
}
