//! A small OpenID provider: it speaks the protocol over HTTP, signs with a key of its own, and misbehaves when it is told to.

use axum::{
    Form, Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{
    Engine as _, engine::general_purpose::STANDARD as BASE64, engine::general_purpose::URL_SAFE_NO_PAD as B64,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Url;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

pub const CLIENT: &str = "flatrender";
pub const SECRET: &str = "a secret of the provider's: 1+1=2";

/// How ID tokens are signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sign {
    /// With the key that it shows.
    #[default]
    Well,
    /// With another key, under the name of its own.
    WithAnotherKey,
    /// Not at all.
    None,
    /// By the secret that is in fact its public key.
    ByPublicKey,
    /// By the secret that we share with it.
    ByClientSecret,
}

/// What it does next.
#[derive(Clone, Debug, Default)]
pub struct Mood {
    /// Replaces what tokens say; a null takes it away.
    pub claims: Value,
    pub sign: Sign,
    /// Replaces what its description says; a null takes it away.
    pub described: Value,
    /// What the endpoint `userinfo` tells.
    pub told_apart: Value,
    /// Answers of an endpoint instead of its own: of `discovery`, `jwks`, `token`.
    pub instead: HashMap<&'static str, (u16, &'static str)>,
    /// An endpoint that never answers.
    pub silent: Option<&'static str>,
}

struct Grant {
    nonce: String,
    challenge: String,
    redirect_uri: String,
}

struct Inner {
    url: String,
    key: EcdsaKeyPair,
    another: EcdsaKeyPair,
    mood: Mutex<Mood>,
    grants: Mutex<HashMap<String, Grant>>,
    codes: AtomicUsize,
    /// Requests to where its redirects lead.
    lured: AtomicUsize,
}

/// A provider on this machine.
#[derive(Clone)]
pub struct Fake(Arc<Inner>);

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
}

fn overlay(base: &mut Value, with: &Value) {
    for (name, value) in with.as_object().into_iter().flatten() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
            value => base[name] = value.clone(),
        }
    }
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self(Arc::new(Inner {
            url,
            key: key(),
            another: key(),
            mood: Mutex::default(),
            grants: Mutex::default(),
            codes: AtomicUsize::new(1),
            lured: AtomicUsize::new(0),
        }));
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .route("/secret", get(secret))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        fake
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// From here on.
    pub fn be(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    /// From here on its tokens say this, too.
    pub fn says(&self, claims: Value) {
        self.be(Mood { claims, ..Mood::default() });
    }

    pub fn lured(&self) -> usize {
        self.0.lured.load(Ordering::Relaxed)
    }

    /// A browser goes where it is sent, signs in there, and tells where it is sent back to: its address, `code` and `state`.
    pub async fn visit(&self, authorization_url: &str) -> (Url, String, String) {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap();
        let answer = client.get(authorization_url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FOUND, "{}", answer.text().await.unwrap());
        let back = Url::parse(answer.headers()[header::LOCATION].to_str().unwrap()).unwrap();
        let query: HashMap<_, _> = back.query_pairs().into_owned().collect();
        (back, query["code"].clone(), query["state"].clone())
    }

    fn mood(&self) -> Mood {
        self.0.mood.lock().unwrap().clone()
    }

    /// What an endpoint answers instead of what it should.
    async fn otherwise(&self, endpoint: &str) -> Option<Response> {
        let mood = self.mood();
        if mood.silent == Some(endpoint) {
            std::future::pending::<()>().await;
        }
        let (status, body) = mood.instead.get(endpoint).copied()?;
        let answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
        let lure = format!("{}/secret", self.0.url);
        Some(answer.header(header::LOCATION, lure).body(Body::from(body)).unwrap())
    }

    fn id_token(&self, nonce: &str) -> String {
        let mood = self.mood();
        let now = chrono::Utc::now().timestamp();
        let mut claims = json!({
            "iss": self.0.url, "sub": "248289761001", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce,
            "email": "jane@acme.example", "email_verified": true, "name": "Jane Doe"
        });
        overlay(&mut claims, &mood.claims);
        let (alg, kid) = match mood.sign {
            Sign::None => ("none", None),
            Sign::ByPublicKey | Sign::ByClientSecret => ("HS256", Some("first")),
            Sign::Well | Sign::WithAnotherKey => ("ES256", Some("first")),
        };
        let header = json!({"typ": "JWT", "alg": alg, "kid": kid});
        let said = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let by_secret = |secret: &[u8]| {
            Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(&said).finalize().into_bytes().to_vec()
        };
        let by = |key: &EcdsaKeyPair| key.sign(&SystemRandom::new(), said.as_bytes()).unwrap().as_ref().to_vec();
        let signature = match mood.sign {
            Sign::Well => by(&self.0.key),
            Sign::WithAnotherKey => by(&self.0.another),
            Sign::None => vec![],
            Sign::ByPublicKey => by_secret(self.0.key.public_key().as_ref()),
            Sign::ByClientSecret => by_secret(SECRET.as_bytes()),
        };
        format!("{said}.{}", B64.encode(signature))
    }
}

async fn discovery(State(fake): State<Fake>) -> Response {
    if let Some(answer) = fake.otherwise("discovery").await {
        return answer;
    }
    let at = |path: &str| format!("{}{path}", fake.0.url);
    let mut described = json!({
        "issuer": fake.0.url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"), "jwks_uri": at("/jwks"),
        "response_types_supported": ["code", "id_token"], "subject_types_supported": ["public"],
        // As many do; who believes what is said here believes anybody.
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"]
    });
    overlay(&mut described, &fake.mood().described);
    Json(described).into_response()
}

async fn jwks(State(fake): State<Fake>) -> Response {
    if let Some(answer) = fake.otherwise("jwks").await {
        return answer;
    }
    // SEC 1, 2.3.3: 4, then x and y.
    let point = fake.0.key.public_key().as_ref();
    let (x, y) = (B64.encode(&point[1..33]), B64.encode(&point[33..]));
    Json(json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "first", "x": x, "y": y}]})).into_response()
}

async fn authorize(State(fake): State<Fake>, uri: Uri, Query(query): Query<HashMap<String, String>>) -> Response {
    let is = |name: &str, value: &str| query.get(name).is_some_and(|v| v == value);
    let asks = query.get("scope").is_some_and(|scope| scope.split(' ').any(|s| s == "openid"));
    if !is("response_type", "code") || !is("client_id", CLIENT) || !is("code_challenge_method", "S256") || !asks {
        return (StatusCode::BAD_REQUEST, uri.to_string()).into_response();
    }
    let code = format!("code-{}", fake.0.codes.fetch_add(1, Ordering::Relaxed));
    let take = |name: &str| query[name].clone();
    let grant = Grant { nonce: take("nonce"), challenge: take("code_challenge"), redirect_uri: take("redirect_uri") };
    let mut back = Url::parse(&grant.redirect_uri).unwrap();
    back.query_pairs_mut().append_pair("code", &code).append_pair("state", &take("state"));
    fake.0.grants.lock().unwrap().insert(code, grant);
    (StatusCode::FOUND, [(header::LOCATION, String::from(back))]).into_response()
}

async fn token(State(fake): State<Fake>, headers: HeaderMap, Form(form): Form<HashMap<String, String>>) -> Response {
    if let Some(answer) = fake.otherwise("token").await {
        return answer;
    }
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    // RFC 6749, 2.3.1: both are encoded as in a form.
    let encode = |text: &str| Url::parse_with_params("x:", [("a", text)]).unwrap().query().unwrap()[2..].to_owned();
    let known = format!("Basic {}", BASE64.encode(format!("{CLIENT}:{}", encode(SECRET))));
    if headers.get(header::AUTHORIZATION).is_none_or(|sent| sent.as_bytes() != known.as_bytes()) {
        return refuse("invalid_client");
    }
    let text = |name: &str| form.get(name).cloned().unwrap_or_default();
    let Some(grant) = fake.0.grants.lock().unwrap().remove(&text("code")) else { return refuse("invalid_grant") };
    let shown = B64.encode(Sha256::digest(text("code_verifier")));
    if text("grant_type") != "authorization_code"
        || shown != grant.challenge
        || text("redirect_uri") != grant.redirect_uri
    {
        return refuse("invalid_grant");
    }
    let id_token = fake.id_token(&grant.nonce);
    Json(json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": id_token}))
        .into_response()
}

/// Asked only when the provider describes it, and told what stands in no token.
async fn userinfo(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|sent| sent.as_bytes() != b"Bearer opaque") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(fake.mood().told_apart).into_response()
}

async fn secret(State(fake): State<Fake>) -> &'static str {
    fake.0.lured.fetch_add(1, Ordering::Relaxed);
    "what nobody outside may see"
}
