//! An authenticator in software: it makes and signs what real ones do (WebAuthn 6, CTAP 2.1 6.1 and 6.2), for whichever page it is told.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use serde_cbor_2::Value as Cbor;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Somebody was there.
pub const PRESENT: u8 = 0x01;
/// It made sure who.
pub const VERIFIED: u8 = 0x04;
/// A public key comes with it.
const ATTESTED: u8 = 0x40;
/// The model that it says it is.
pub const AAGUID: [u8; 16] = *b"a software model";

/// A key, and the browser around it. Its clone is a copy of the key.
#[derive(Clone)]
pub struct Authenticator {
    key: SigningKey,
    /// The id of its credential.
    pub id: Vec<u8>,
    /// Whose it is, as it says.
    pub user: Option<Value>,
    /// How often it has signed.
    pub count: u32,
    /// What it adds to the count each time; nothing when it is kept in step on many devices.
    pub step: u32,
    /// What it says of whoever was there.
    pub flags: u8,
    /// The page that asked.
    pub origin: String,
    /// The host name that the key is for.
    pub rp_id: String,
    /// What it signs instead of the challenge that it was given.
    pub challenge: Option<Value>,
}

impl Authenticator {
    /// A new one, at the page of the platform.
    pub fn new() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self {
            key: SigningKey::from_slice(&bytes).unwrap(),
            id: Sha256::digest(bytes).to_vec(),
            user: None,
            count: 0,
            step: 1,
            flags: PRESENT | VERIFIED,
            origin: "https://films.example".into(),
            rp_id: "films.example".into(),
            challenge: None,
        }
    }

    /// What `navigator.credentials.create` makes of the options, as JSON.
    pub fn create(&mut self, options: &Value) -> Value {
        self.user = Some(options["publicKey"]["user"]["id"].clone());
        let point = self.key.verifying_key().to_sec1_point(false);
        let number = |n: i128| Cbor::Integer(n);
        // ES256 on P-256 (RFC 9053, 2.1 and 7.1.1).
        let key = Cbor::Map(BTreeMap::from([
            (number(1), number(2)),
            (number(3), number(-7)),
            (number(-1), number(1)),
            (number(-2), Cbor::Bytes(point.x().unwrap().to_vec())),
            (number(-3), Cbor::Bytes(point.y().unwrap().to_vec())),
        ]));
        let length = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let attested = [&AAGUID[..], &length, &self.id, &serde_cbor_2::to_vec(&key).unwrap()].concat();
        let data = [self.data(ATTESTED), attested].concat();
        let text = |t: &str| Cbor::Text(t.into());
        let attestation = Cbor::Map(BTreeMap::from([
            (text("fmt"), text("none")),
            (text("attStmt"), Cbor::Map(BTreeMap::new())),
            (text("authData"), Cbor::Bytes(data)),
        ]));
        let response = json!({
            "clientDataJSON": encoded(self.client_data("webauthn.create", options)),
            "attestationObject": encoded(serde_cbor_2::to_vec(&attestation).unwrap()),
            "transports": ["internal", "hybrid"],
        });
        self.credential(response)
    }

    /// What `navigator.credentials.get` makes of the options, as JSON.
    pub fn sign(&mut self, options: &Value) -> Value {
        let (data, client) = (self.data(0), self.client_data("webauthn.get", options));
        let signature: Signature = self.key.sign(&[&data[..], &Sha256::digest(&client)].concat());
        let response = json!({
            "clientDataJSON": encoded(client),
            "authenticatorData": encoded(data),
            "signature": encoded(signature.to_der()),
            "userHandle": self.user,
        });
        self.credential(response)
    }

    fn data(&mut self, more: u8) -> Vec<u8> {
        self.count += self.step;
        [&Sha256::digest(&self.rp_id)[..], &[self.flags | more], &self.count.to_be_bytes()].concat()
    }

    fn client_data(&self, kind: &str, options: &Value) -> String {
        let challenge = self.challenge.as_ref().unwrap_or(&options["publicKey"]["challenge"]);
        json!({ "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false }).to_string()
    }

    fn credential(&self, response: Value) -> Value {
        let id = encoded(&self.id);
        json!({ "id": id, "rawId": id, "type": "public-key", "response": response, "authenticatorAttachment": "platform",
                "clientExtensionResults": {} })
    }
}

/// In base64url without padding, as WebAuthn has it in JSON.
pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
