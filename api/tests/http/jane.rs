//! A person with a password who signs in, and the letters that she gets.

use crate::world::{Answer, World, request, with_json};
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request, StatusCode},
};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::user};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};
use totp_rs::Builder;
use uuid::Uuid;

pub const PASSWORD: &str = "correct horse battery staple";
pub const OTHER: &str = "seven blue umbrellas dance";

/// A person who signs in.
pub struct Jane<'a> {
    pub world: &'a World,
    pub id: Uuid,
    pub access: String,
    pub refresh: String,
}

pub async fn post(world: &World, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    world.send(request.body(Body::from(body.to_string())).unwrap()).await
}

pub async fn post_from(world: &World, address: &str, path: &str, body: Value) -> Answer {
    let peer: SocketAddr = format!("{address}:1234").parse().unwrap();
    let request = Request::builder().method(Method::POST).uri(path).header("content-type", "application/json");
    world.send(request.extension(ConnectInfo(peer)).body(Body::from(body.to_string())).unwrap()).await
}

pub fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

/// A person with a password.
pub async fn person(world: &World, email: &str, roles: &[&str]) -> Uuid {
    let id = world.person(DEFAULT_TENANT, email, roles).await;
    let hash = flatrender_api::identity::passwords::hash(PASSWORD.into()).await.unwrap();
    let mut db = world.db.acquire().await.unwrap();
    user::set_password(&mut db, DEFAULT_TENANT, id, &hash).await.unwrap();
    id
}

pub async fn jane<'a>(world: &'a World, roles: &[&str]) -> Jane<'a> {
    let id = person(world, "jane@example.com", roles).await;
    let answer = post(world, "/v1/auth/sign-in", credentials("Jane@Example.com", PASSWORD)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let text = |name: &str| answer.json()[name].as_str().unwrap().to_owned();
    Jane { world, id, access: text("access_token"), refresh: text("refresh_token") }
}

impl Jane<'_> {
    pub async fn get(&self, path: &str) -> Answer {
        self.world.send(request(Method::GET, path, &self.access).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(Method::POST, path, &self.access), &body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.world.send(request(Method::DELETE, path, &self.access).body(Body::empty()).unwrap()).await
    }

    /// Adds a second factor; gives its secret and the recovery codes.
    /// At the beginning of a step: the next codes belong to the same one, however busy the machine is.
    pub async fn with_factor(&self) -> (Vec<u8>, Vec<String>) {
        let left = "update workflow.clock set moved_by = moved_by
                    + make_interval(secs => (30 - mod(extract(epoch from workflow.now()), 30))::float8)";
        sqlx::query(left).execute(&self.world.db).await.unwrap();
        let added = self.post("/v1/me/factors/totp", json!({ "label": "Phone" })).await;
        assert_eq!(added.status, StatusCode::CREATED, "{:?}", added.body);
        let secret = totp_rs::Secret::try_from_base32(added.json()["secret"].as_str().unwrap()).unwrap();
        let secret = secret.as_bytes().to_vec();
        let path = format!("/v1/me/factors/{}/confirm", added.json()["id"].as_str().unwrap());
        let confirmed = self.post(&path, json!({ "code": code(self.world, &secret, 0).await })).await;
        assert_eq!(confirmed.status, StatusCode::OK, "{:?}", confirmed.body);
        let confirmed = confirmed.json();
        let codes = confirmed["recovery_codes"].as_array().unwrap().iter();
        (secret, codes.map(|c| c.as_str().unwrap().to_owned()).collect())
    }
}

/// The code of a secret, some steps from now.
pub async fn code(world: &World, secret: &[u8], steps: i64) -> String {
    let now: f64 =
        sqlx::query_scalar("select extract(epoch from workflow.now())::float8").fetch_one(&world.db).await.unwrap();
    let totp = Builder::new().with_secret(secret).with_account_name("a").build().unwrap();
    totp.generate((now as i64 + 30 * steps) as u64).to_string()
}

pub async fn pass(world: &World, seconds: i32) {
    let sql = "update workflow.clock set moved_by = moved_by + make_interval(secs => $1)";
    sqlx::query(sql).bind(f64::from(seconds)).execute(&world.db).await.unwrap();
}

/// The text of the newest link of a person.
pub async fn link(world: &World, kind: &str) -> String {
    let sql = "select id from identity.auth_challenges where kind = $1 order by created_at desc, id desc limit 1";
    let id: Uuid = sqlx::query_scalar(sql).bind(kind).fetch_one(&world.db).await.unwrap();
    world.app.vault.link(id)
}

/// What letters say that came to an address, once there are `count`.
pub async fn letters(world: &World, to: &str, count: usize) -> Vec<String> {
    let folder = world.folder.path().join("mail");
    for _ in 0..600 {
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mail = files.filter(|f| f.path().extension().is_some_and(|e| e == "eml"));
        let texts = mail.map(|f| std::fs::read_to_string(f.path()).unwrap().replace("=\r\n", ""));
        let mine: Vec<_> = texts.filter(|text| text.contains(&format!("To: {to}"))).collect();
        if mine.len() >= count {
            return mine;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there are fewer than {count} letters to {to}");
}
