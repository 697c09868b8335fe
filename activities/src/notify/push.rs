//! Web push: what a browser gets is encrypted for it alone (RFC 8291), and signed for its push service (RFC 8292).

use super::{Config, Courier, accounts::Vapid, by_status, failed};
use crate::egress::{Reach, client::Reply};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use chrono::Utc;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::notify::{Class, Line, SendPush, Verdict};
use reqwest::{Method, Request, StatusCode, Url};
use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Bytes of what is told: push services take 4096 with all that is around it.
const MOST_BYTES: usize = 3 << 10;
/// Bytes of a point, uncompressed.
pub const POINT_BYTES: usize = 65;
/// Bytes of the secret that a browser shares with us.
pub const AUTH_BYTES: usize = 16;
/// Bytes of one record: all there is.
const RECORD_BYTES: u32 = 4096;
/// How long a signature is good: push services take a day at most.
const SIGNED_SECONDS: i64 = 12 * 3600;
/// Push services that there are. A browser names the address of its own; nobody else's is called.
const SERVICES: [&str; 6] = [
    "fcm.googleapis.com",
    "android.googleapis.com",
    "updates.push.services.mozilla.com",
    "push.services.mozilla.com",
    "notify.windows.com",
    "push.apple.com",
];

/// Whether an address is one of a push service.
pub fn is_service(endpoint: &str, reach: Reach) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let known = |service: &&str| host.strip_suffix(*service).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    match reach {
        Reach::Anywhere => matches!(url.scheme(), "https" | "http"),
        Reach::Public => url.scheme() == "https" && url.port().is_none() && SERVICES.iter().any(known),
    }
}

/// A new key that browsers can be told of.
///
/// # Errors
/// The machine has no chance to give.
pub fn new_key(subject: String) -> Result<Vapid, ring::error::Unspecified> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &SystemRandom::new())
        .map_err(|_| ring::error::Unspecified)?;
    Ok(Vapid { pkcs8: BASE64.encode(pkcs8.as_ref()), public: BASE64URL.encode(key.public_key().as_ref()), subject })
}

impl Handler<SendPush> for Courier {
    async fn handle(&self, _: &Attempt, push: SendPush) -> Result<Verdict, Failure> {
        if !is_service(&push.endpoint, self.0.config.egress.reach()) {
            return Ok(failed(Class::Gone, "the address is none of a push service"));
        }
        // A browser takes messages from whoever has the key that it was told of.
        let theirs = push.envelope.carriers.iter().filter(|carrier| match self.open(carrier) {
            Ok(Config::Vapid(vapid)) => vapid.public == push.vapid_key,
            _ => false,
        });
        let theirs: Vec<_> = theirs.cloned().collect();
        Ok(self
            .by(push.envelope.delivery_id, &theirs, async |config, account_id| match (config, self.payload(&push)) {
                (Config::Vapid(vapid), Ok(payload)) => match self.request(&push, &vapid, &payload) {
                    Ok(request) => match self.ask(request).await {
                        Ok(reply) => verdict(&reply, account_id),
                        Err(verdict) => verdict,
                    },
                    Err(verdict) => verdict,
                },
                (_, Err(verdict)) => verdict,
                _ => failed(Class::Config, "the account is none for browsers"),
            })
            .await)
    }
}

impl Courier {
    /// What the browser shows: short enough to be taken.
    fn payload(&self, push: &SendPush) -> Result<Vec<u8>, Verdict> {
        let said = &push.envelope.said;
        let mut body: Vec<&str> = vec![];
        let mut url = None;
        for line in &said.lines {
            match line {
                Line::Words(words) => body.push(words),
                Line::Link(link) => url = Some(self.absolute(link)),
            }
        }
        let written = |body: &str| {
            let message = json!({
                "id": push.envelope.delivery_id, "title": said.subject, "body": body, "url": url, "lang": push.envelope.language,
                "dir": if super::letter::is_rtl(&push.envelope.language) { "rtl" } else { "ltr" },
            });
            message.to_string().into_bytes()
        };
        let whole = written(&body.join("\n"));
        let fits = if whole.len() <= MOST_BYTES { whole } else { written("") };
        if fits.len() <= MOST_BYTES {
            Ok(fits)
        } else {
            Err(failed(Class::Refused, "the message is too long for a browser"))
        }
    }

    fn request(&self, push: &SendPush, vapid: &Vapid, payload: &[u8]) -> Result<Request, Verdict> {
        let broken = || failed(Class::Gone, "the keys of the browser are none");
        let endpoint = Url::parse(&push.endpoint).map_err(|_| broken())?;
        let point = hex::decode(&push.p256dh).map_err(|_| broken())?;
        let auth = (self.0.config.opener)(&push.auth).ok_or_else(broken)?;
        let body = encrypt(payload, &point, &auth).map_err(|_| broken())?;
        let token =
            sign(vapid, &endpoint).map_err(|_| failed(Class::Config, "the key of the account does not sign"))?;
        // A copy that was not shown yet is replaced: of 32 characters of base64url (RFC 8030, 5.4).
        let topic = BASE64URL.encode(&Sha256::digest(push.envelope.delivery_id.as_bytes())[..24]);
        let ttl = push.envelope.ttl_seconds.to_string();
        let headers = [
            ("content-encoding", "aes128gcm"),
            ("content-type", "application/octet-stream"),
            ("ttl", &ttl),
            ("topic", &topic),
            ("urgency", "normal"),
            ("authorization", &token),
        ];
        let mut request = Request::new(Method::POST, endpoint);
        for (name, value) in headers {
            let value = value.parse().map_err(|_| failed(Class::Config, "the key of the account is none"))?;
            request.headers_mut().insert(name, value);
        }
        *request.body_mut() = Some(body.into());
        Ok(request)
    }
}

fn verdict(reply: &Reply, account_id: uuid::Uuid) -> Verdict {
    if let Some(verdict) = by_status(reply) {
        return verdict;
    }
    let said = || String::from_utf8_lossy(&reply.body).into_owned();
    match reply.status {
        status if status.is_success() => {
            let location = reply.headers.get("location").and_then(|v| v.to_str().ok());
            let place =
                location.map(|place| place.chars().rev().take(255).collect::<Vec<_>>().into_iter().rev().collect());
            Verdict::Accepted { account_id: Some(account_id), message: place }
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => failed(Class::Gone, "the browser is told no more"),
        StatusCode::PAYLOAD_TOO_LARGE => failed(Class::TooLong, "the message is too long"),
        // It is our key that is not liked: not the reader's fault.
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => failed(Class::Config, said()),
        status => failed(Class::Refused, format!("the push service answered {status}")),
    }
}

/// `vapid t=…, k=…` for the service at `endpoint` (RFC 8292, 3).
fn sign(vapid: &Vapid, endpoint: &Url) -> Result<String, ring::error::Unspecified> {
    let bad = |_| ring::error::Unspecified;
    let pkcs8 = BASE64.decode(&vapid.pkcs8).map_err(|_| ring::error::Unspecified)?;
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).map_err(bad)?;
    let claims = json!({
        "aud": endpoint.origin().ascii_serialization(),
        "exp": Utc::now().timestamp() + SIGNED_SECONDS,
        "sub": vapid.subject,
    });
    let head = BASE64URL.encode(r#"{"typ":"JWT","alg":"ES256"}"#);
    let text = format!("{head}.{}", BASE64URL.encode(claims.to_string()));
    let signature = key.sign(&random, text.as_bytes())?;
    Ok(format!("vapid t={text}.{}, k={}", BASE64URL.encode(signature.as_ref()), vapid.public))
}

/// Encrypts for a browser with this public key and shared secret: one record, by a key that is used once (RFC 8291, RFC 8188).
///
/// # Errors
/// The key is none.
pub fn encrypt(plain: &[u8], browser: &[u8], auth: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
    if browser.len() != POINT_BYTES || auth.len() != AUTH_BYTES {
        return Err(ring::error::Unspecified);
    }
    let random = SystemRandom::new();
    let mut salt = [0; 16];
    random.fill(&mut salt)?;
    let ours = EphemeralPrivateKey::generate(&ECDH_P256, &random)?;
    let point = ours.compute_public_key()?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, browser);
    agree_ephemeral(ours, &peer, |shared| seal(plain, browser, auth, point.as_ref(), &salt, shared))?
}

/// What is left of RFC 8291 once both sides have their secret.
fn seal(
    plain: &[u8],
    browser: &[u8],
    auth: &[u8],
    point: &[u8],
    salt: &[u8; 16],
    shared: &[u8],
) -> Result<Vec<u8>, ring::error::Unspecified> {
    let info = [b"WebPush: info\0".as_slice(), browser, point].concat();
    let secret: [u8; 32] = expand(&Salt::new(HKDF_SHA256, auth).extract(shared), &info)?;
    let derived = Salt::new(HKDF_SHA256, salt).extract(&secret);
    let key: [u8; 16] = expand(&derived, b"Content-Encoding: aes128gcm\0")?;
    let nonce: [u8; 12] = expand(&derived, b"Content-Encoding: nonce\0")?;
    // The last record ends with 2.
    let mut sealed = [plain, &[2]].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)?;
    let length = [u8::try_from(point.len()).map_err(|_| ring::error::Unspecified)?];
    Ok([salt.as_slice(), &RECORD_BYTES.to_be_bytes(), &length, point, &sealed].concat())
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(secret: &Prk, info: &[u8]) -> Result<[u8; N], ring::error::Unspecified> {
    let mut out = [0; N];
    secret.expand(&[info], Bytes(N))?.fill(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        BASE64URL.decode(text).unwrap()
    }

    /// RFC 8291, appendix A.
    #[test]
    fn the_example_of_the_standard_comes_out_to_the_byte() {
        let browser = bytes("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4");
        let ours = bytes("BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8");
        let (auth, salt) = (bytes("BTBZMqHH6r4Tts7J_aSIgg"), bytes("DGv6ra1nlYgDCS1FRnbzlw"));
        let shared = bytes("kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
        let plain = b"When I grow up, I want to be a watermelon";
        let sealed = seal(plain, &browser, &auth, &ours, salt.as_slice().try_into().unwrap(), &shared).unwrap();
        assert_eq!(
            BASE64URL.encode(sealed),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn only_push_services_are_told() {
        for service in [
            "https://fcm.googleapis.com/fcm/send/x",
            "https://updates.push.services.mozilla.com/wpush/v2/x",
            "https://wns2-par02p.notify.windows.com/w/?token=x",
            "https://web.push.apple.com/x",
        ] {
            assert!(is_service(service, Reach::Public), "{service}");
        }
        for none in [
            "https://fcm.googleapis.com.evil.example/x",
            "https://evilfcm.googleapis.com.x/",
            "https://notpush.apple.com/x",
            "http://fcm.googleapis.com/x",
            "https://fcm.googleapis.com:8443/x",
            "https://169.254.169.254/x",
            "https://localhost/x",
            "fcm.googleapis.com",
        ] {
            assert!(!is_service(none, Reach::Public), "{none}");
        }
    }

    #[test]
    fn a_key_that_is_none_encrypts_nothing() {
        assert!(encrypt(b"x", &[4; 65], &[0; 16]).is_err(), "no point of the curve");
        assert!(encrypt(b"x", &[4; 64], &[0; 16]).is_err());
        let key = BASE64URL.decode(new_key("mailto:a@b.c".into()).unwrap().public).unwrap();
        assert!(encrypt(b"x", &key, &[0; 15]).is_err());
        assert_eq!(encrypt(b"x", &key, &[0; 16]).unwrap().len(), 16 + 4 + 1 + 65 + 1 + 1 + 16);
    }
}
