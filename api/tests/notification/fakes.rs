//! Providers that speak the real protocols, keep what they accepted, and fail on command.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// What a provider does with a call instead of accepting it.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Answers this.
    Answer(u16, &'static [(&'static str, &'static str)], Value),
    /// Accepts it and says nothing.
    AcceptInSilence,
}

/// A call that came.
#[derive(Debug, Clone)]
pub struct Call {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Text messages, chats and browsers, behind one address.
#[derive(Debug, Clone, Default)]
pub struct Web {
    pub url: String,
    plan: Arc<Mutex<VecDeque<Deed>>>,
    calls: Arc<Mutex<Vec<Call>>>,
    accepted: Arc<Mutex<Vec<Value>>>,
}

impl Web {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let web = Self { url: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let router = Router::new().fallback(answer).with_state(web.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        web
    }

    /// The next calls end like this.
    pub fn then(&self, deeds: impl IntoIterator<Item = Deed>) {
        self.plan.lock().unwrap().extend(deeds);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// What was accepted, in its order.
    pub fn accepted(&self) -> Vec<Value> {
        self.accepted.lock().unwrap().clone()
    }

    fn accept(&self, message: Value) -> usize {
        let mut accepted = self.accepted.lock().unwrap();
        accepted.push(message);
        accepted.len()
    }
}

fn form(body: &[u8]) -> Value {
    let url = reqwest::Url::parse(&format!("http://form/?{}", String::from_utf8_lossy(body))).unwrap();
    let pairs = url.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())));
    Value::Object(pairs.collect())
}

async fn answer(State(web): State<Web>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let call = Call { headers, body: body.clone() };
    let asks = method == Method::GET || path.contains("statuslocalmessageid");
    web.calls.lock().unwrap().push(call);
    let deed = if asks { None } else { web.plan.lock().unwrap().pop_front() };
    match deed {
        Some(Deed::Answer(status, headers, body)) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            response
        }
        Some(Deed::AcceptInSilence) => {
            accept(&web, &path, &body);
            std::future::pending().await
        }
        None if asks => asked(&web, &path, &body),
        None => accept(&web, &path, &body),
    }
}

/// As each provider does when all is well.
fn accept(web: &Web, path: &str, body: &[u8]) -> Response {
    if path.starts_with("/2010-04-01/") {
        let mut message = form(body);
        message["date_created"] = chrono::Utc::now().to_rfc2822().into();
        let sid = format!("SM{}", web.accept(message));
        return (StatusCode::CREATED, axum::Json(json!({ "sid": sid, "status": "queued" }))).into_response();
    }
    if path.ends_with("/sms/send.json") {
        let id = web.accept(form(body));
        let entry = json!({ "messageid": id, "status": 1 });
        return axum::Json(json!({ "return": { "status": 200, "message": "ok" }, "entries": [entry] })).into_response();
    }
    if path.ends_with("/sendMessage") {
        let id = web.accept(serde_json::from_slice(body).unwrap());
        return axum::Json(json!({ "ok": true, "result": { "message_id": id } })).into_response();
    }
    let id = web.accept(json!({ "path": path, "bytes": body.len() }));
    (StatusCode::CREATED, [("location", format!("{}/message/{id}", web.url))]).into_response()
}

/// As each provider answers when it is asked for a message.
fn asked(web: &Web, path: &str, body: &[u8]) -> Response {
    let accepted = web.accepted();
    if path.starts_with("/2010-04-01/") {
        let message = |(n, m): (usize, &Value)| json!({ "sid": format!("SM{}", n + 1), "to": m["To"], "body": m["Body"], "status": "sent", "date_created": m["date_created"] });
        let messages: Vec<Value> = accepted.iter().enumerate().map(message).collect();
        return axum::Json(json!({ "messages": messages })).into_response();
    }
    let local = form(body)["localid"].clone();
    let entry = match accepted.iter().position(|m| m["localid"] == local) {
        Some(place) => json!({ "messageid": place + 1, "localid": local, "status": 5 }),
        None => json!({ "messageid": 0, "localid": local, "status": 100 }),
    };
    axum::Json(json!({ "return": { "status": 200 }, "entries": [entry] })).into_response()
}

/// What a mail server does with a mail instead of taking it.
#[derive(Debug, Clone, Copy)]
pub enum Mishap {
    /// Refuses the recipient.
    Refuse(&'static str),
    /// Takes it and hangs up before it says so.
    TakeAndHangUp,
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct MailServer {
    pub url: String,
    plan: Arc<Mutex<VecDeque<Mishap>>>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let server = Self { url, plan: Arc::default(), mails: Arc::default() };
        let each = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(each.clone().serve(stream));
            }
        });
        server
    }

    /// The next mails end like this.
    pub fn then(&self, mishaps: impl IntoIterator<Item = Mishap>) {
        self.plan.lock().unwrap().extend(mishaps);
    }

    /// What it has, as it came.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    /// One that takes every connection and never says a word; its address.
    pub async fn silent() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = vec![];
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        url
    }

    async fn serve(self, stream: TcpStream) {
        // It answers commands that came together one by one: none of its words waits until the one before was acknowledged.
        stream.set_nodelay(true).unwrap();
        let _ = self.converse(BufReader::new(stream)).await;
    }

    async fn converse(&self, mut stream: BufReader<TcpStream>) -> std::io::Result<()> {
        stream.write_all(b"220 fake ESMTP\r\n").await?;
        let mut hang_up = false;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let reply = match verb.as_str() {
                "EHLO" => "250-fake\r\n250-PIPELINING\r\n250 SMTPUTF8".to_owned(),
                "RCPT" => match self.plan.lock().unwrap().pop_front() {
                    Some(Mishap::Refuse(reply)) => reply.to_owned(),
                    Some(Mishap::TakeAndHangUp) => {
                        hang_up = true;
                        "250 ok".to_owned()
                    }
                    None => "250 ok".to_owned(),
                },
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mut mail = String::new();
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).await? == 0 {
                            return Ok(());
                        }
                        if line == ".\r\n" {
                            break;
                        }
                        mail += line.strip_prefix('.').unwrap_or(&line);
                    }
                    self.mails.lock().unwrap().push(mail);
                    if hang_up {
                        return Ok(());
                    }
                    "250 taken".to_owned()
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "250 ok".to_owned(),
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
    }
}
