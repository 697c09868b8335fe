//! A real browser, driven by the protocol of WebDriver (W3C, "WebDriver Level 2").

use serde_json::{Value, json};
use std::{
    io::{self, BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// How long a page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub struct Browser {
    driver: Child,
    http: reqwest::Client,
    base: String,
    /// A program that speaks to nobody may be ended for it.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Starts one that nobody sees.
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let program = std::env::var("FLATRENDER_CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".into());
        let mut driver = Command::new(&program)
            .args(["--port=0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.rsplit_once("successfully on port ").map(|(_, port)| port.trim_matches('.').to_owned())
            })
            .expect("a port");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1360,900", "--hide-scrollbars",
                "--force-color-profile=srgb"],
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let address = format!("http://127.0.0.1:{port}/session");
        let made: Value = http.post(&address).json(&wanted).send().await.unwrap().json().await.unwrap();
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        Self { driver, http, base: format!("{address}/{id}"), _said: lines }
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, String> {
        let answer = self.http.post(format!("{}/{path}", self.base)).json(&body).send().await.unwrap();
        let (good, json) = (answer.status().is_success(), answer.json::<Value>().await.unwrap());
        if good { Ok(json["value"].clone()) } else { Err(json["value"]["message"].to_string()) }
    }

    /// Goes to an address.
    pub async fn go(&self, url: &str) {
        self.post("url", json!({ "url": url })).await.unwrap();
    }

    /// What a script gives; it may give a promise.
    pub async fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.post("execute/sync", body).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// Waits until an expression is true.
    pub async fn until(&self, what: &str) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if self.run(&format!("return Boolean({what})")).await == true {
                return;
            }
            if tokio::time::Instant::now() > end {
                let seen = self.run("return document.body.innerText").await;
                panic!("it never came to be: {what}\n{}", seen.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Writes into what a selector finds.
    pub async fn write(&self, selector: &str, text: &str) {
        self.act(selector, "clear", json!({})).await;
        self.act(selector, "value", json!({ "text": text })).await;
    }

    /// Chooses a file of this machine in the input that a selector finds.
    pub async fn choose(&self, selector: &str, path: &str) {
        self.act(selector, "value", json!({ "text": path })).await;
    }

    /// Clicks on what a selector finds.
    pub async fn click(&self, selector: &str) {
        self.act(selector, "click", json!({})).await;
    }

    /// Does something with what a selector finds; again when the page has drawn it anew in between.
    async fn act(&self, selector: &str, what: &str, with: Value) {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            self.until(&format!("document.querySelector({selector:?})")).await;
            let found = self.post("element", json!({ "using": "css selector", "value": selector })).await;
            let done = match found {
                Ok(found) => {
                    let id = found[ELEMENT].as_str().unwrap();
                    self.post(&format!("element/{id}/{what}"), with.clone()).await
                }
                Err(gone) => Err(gone),
            };
            match done {
                Ok(_) => return,
                Err(e) if is_gone(&e) && tokio::time::Instant::now() < end => {}
                Err(e) => panic!("{selector}: {e}"),
            }
        }
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn keys(&self, keys: &[&str]) {
        let actions: Vec<Value> = keys
            .iter()
            .flat_map(|key| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })])
            .collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.post("actions", body).await.unwrap();
    }

    /// A picture of the window, as PNG.
    pub async fn picture(&self) -> Vec<u8> {
        use base64::Engine as _;
        let answer = self.http.get(format!("{}/screenshot", self.base)).send().await.unwrap();
        let text = answer.json::<Value>().await.unwrap()["value"].as_str().unwrap().to_owned();
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    }

    /// What the browser complained of since it was asked before.
    pub async fn complaints(&self) -> Vec<String> {
        let said = self.post("se/log", json!({ "type": "browser" })).await.unwrap();
        let severe = said.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE");
        severe.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = end_session(&self.base);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Whether an element was there when it was looked for, and is not any more.
fn is_gone(why: &str) -> bool {
    why.contains("stale element") || why.contains("no such element")
}

/// Ends a session, and with it the browser: one whose driver is killed lives on. Waits for the answer, which comes when it is gone.
fn end_session(session: &str) -> io::Result<()> {
    let address = session.trim_start_matches("http://");
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let mut wire = TcpStream::connect(host)?;
    wire.set_read_timeout(Some(PATIENCE))?;
    write!(wire, "DELETE /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    wire.read_exact(&mut [0])
}
