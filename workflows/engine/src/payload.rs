//! Payloads: inputs, outputs and signals in the form in which they are stored. Small ones lie in the rows themselves. What is
//! larger than [`INLINE`] goes to a store of the user's, and the row holds a reference; a codec of the user's may seal everything.
//!
//! ```text
//! {"$blob": {"id": "…", "sha256": "…", "size": 300000}}                    in the store, under its id
//! {"$sealed": {"key": "2026-01", "data": "<base64>"}}                      by the codec, with this key
//! {"$blob": {"id": "…", "sha256": "…", "size": 300000, "key": "2026-01"}}  both
//! ```
//!
//! A value is in the store before the row that names it is committed. What nobody names, because that commit failed or because
//! the retention has dropped the row, is swept away: see [`Operations::sweep_payloads`](crate::operations::Operations::sweep_payloads).
//! Each value has an id of its own, also when there is another like it: so what nobody names at one moment, nobody will.

use crate::{
    failure::Failure,
    record::{to_json, written_size},
    retry,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};
use uuid::Uuid;

/// Longest value that lies in a row, in bytes, as PostgreSQL writes it.
pub const INLINE: usize = 256 * 1024;
/// Longest value by default when there is a store, in bytes, as PostgreSQL would write it.
pub const CEILING: usize = 64 * 1024 * 1024;

/// Tries of a client, who has somebody to tell: a fifth of a second.
pub(crate) const FEW: u32 = 3;
/// As often as it takes: whoever no longer wants it drops the future.
pub(crate) const FOR_GOOD: u32 = u32::MAX;

const BLOB: &str = "$blob";
const SEALED: &str = "$sealed";
/// Longest name of a key, in bytes.
const KEY_NAME: usize = 200;
/// Code of what may pass: the store or the codec is away.
const UNREACHABLE: &str = "workflow.payload_unreachable";
/// Code of what this process is not made for, and another may be.
const UNKNOWN: &str = "workflow.payload_unknown";

/// Keeps large payloads, such as in a bucket or below a folder: each database needs one of its own, for what its tables do not
/// name is deleted. Ids are of version 7. Every call is to end in bounded time. A failure that may pass is to be
/// [`transient`](Failure::transient): it is tried again.
pub trait PayloadStore: Send + Sync + 'static {
    /// Keeps `bytes`: for good once it returns.
    fn put<'a>(&'a self, id: Uuid, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), Failure>>;

    /// What is kept under `id`. Its hash is checked.
    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Vec<u8>, Failure>>;

    /// The next ids after `after`, in their order, as many as come in one go; none at the end.
    fn list(&self, after: Uuid) -> BoxFuture<'_, Result<Vec<Uuid>, Failure>>;

    /// Deletes what is kept under `id`, if there is anything.
    fn delete(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>>;
}

/// Seals payloads, such as by a key per tenant. Keys have names, so that new values are sealed with a new key while old ones
/// still open. Called in the middle of other work: what takes long, such as to fetch a key, belongs elsewhere.
pub trait PayloadCodec: Send + Sync + 'static {
    /// The name of the key, 1 to 200 bytes, and what is to be stored.
    ///
    /// # Errors
    /// There is no key for the tenant.
    fn seal(&self, tenant_id: Uuid, bytes: &[u8]) -> Result<(String, Vec<u8>), Failure>;

    /// What was sealed with `key`.
    ///
    /// # Errors
    /// There is no such key, or it is not what was sealed.
    fn open(&self, tenant_id: Uuid, key: &str, sealed: &[u8]) -> Result<Vec<u8>, Failure>;
}

/// How payloads are stored: by default in the rows, as they are, up to [`INLINE`]. Every client and worker of a database
/// needs the same. Cheap to clone.
#[derive(Clone, Default)]
pub struct Payloads {
    store: Option<Arc<dyn PayloadStore>>,
    codec: Option<Arc<dyn PayloadCodec>>,
    ceiling: Option<usize>,
}

impl std::fmt::Debug for Payloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payloads")
            .field("store", &self.store.is_some())
            .field("codec", &self.codec.is_some())
            .field("ceiling", &self.ceiling())
            .finish()
    }
}

impl Payloads {
    /// In the rows, as they are.
    pub fn inline() -> Self {
        Self::default()
    }

    /// Of any size: where nothing is stored.
    pub(crate) fn boundless() -> Self {
        Self::default().ceiling_bytes(usize::MAX)
    }

    /// What is too large for a row goes to `store`.
    #[must_use]
    pub fn stored_in(mut self, store: impl PayloadStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Everything is sealed by `codec`: inputs, outputs and signals; not keys, names, labels, attributes, progress and failures.
    #[must_use]
    pub fn sealed_by(mut self, codec: impl PayloadCodec) -> Self {
        self.codec = Some(Arc::new(codec));
        self
    }

    /// Longest value, in bytes as PostgreSQL would write it; [`CEILING`] by default when there is a store.
    #[must_use]
    pub fn ceiling_bytes(mut self, ceiling: usize) -> Self {
        self.ceiling = Some(ceiling);
        self
    }

    pub(crate) fn ceiling(&self) -> usize {
        self.ceiling.unwrap_or(if self.store.is_some() { CEILING } else { INLINE })
    }

    // ---- from a value to what is stored

    /// A value that may be stored.
    ///
    /// # Errors
    /// `workflow.unrecordable` when it is no JSON, holds a NUL character, looks like a reference or is too large.
    pub(crate) fn encode(&self, value: &impl Serialize) -> Result<Value, Failure> {
        self.admit(to_json(value)?)
    }

    /// As [`Payloads::encode`], of what is JSON already.
    pub(crate) fn admit(&self, value: Value) -> Result<Value, Failure> {
        let (size, ceiling) = (written_size(&value), self.ceiling());
        if size > ceiling {
            let message = format!("{size} bytes; the limit is {ceiling}: store it and pass a reference");
            return Err(Failure::permanent("workflow.unrecordable", message));
        }
        Ok(value)
    }

    /// Whether a value that may be stored is stored as it is.
    pub(crate) fn passes(&self, value: &Value) -> bool {
        value.is_null() || self.codec.is_none() && (self.ceiling() <= INLINE || written_size(value) <= INLINE)
    }

    /// The form in which a value is stored. It is in the store when this returns; tried up to `tries` times while that is away.
    ///
    /// # Errors
    /// `workflow.payload_unreachable`, which may pass, when the store or the codec is away; what they say else;
    /// `workflow.unrecordable` when it is too large for a row and there is no store.
    pub(crate) async fn keep(&self, tenant_id: Uuid, value: Value, tries: u32) -> Result<Value, Failure> {
        if self.passes(&value) {
            return Ok(value);
        }
        persist(tries, || self.put(tenant_id, &value)).await
    }

    async fn put(&self, tenant_id: Uuid, value: &Value) -> Result<Value, Failure> {
        let mut bytes = value.to_string().into_bytes();
        let mut key = None;
        if let Some(codec) = &self.codec {
            let (name, sealed) = codec.seal(tenant_id, &bytes)?;
            if name.is_empty() || name.len() > KEY_NAME || name.contains('\0') {
                let message = format!("the name of a key has 1 to {KEY_NAME} bytes, unlike {name:?}");
                return Err(Failure::permanent("workflow.bad_key", message));
            }
            if sealed.len().div_ceil(3) * 4 + 2 * KEY_NAME <= INLINE {
                return Ok(json!({ SEALED: Sealed { key: name, data: STANDARD.encode(&sealed) } }));
            }
            (key, bytes) = (Some(name), sealed);
        }
        let Some(store) = &self.store else {
            let message = format!("{} bytes, and there is no store for what does not fit a row", bytes.len());
            return Err(Failure::permanent("workflow.unrecordable", message));
        };
        let outside = Outside { id: Uuid::now_v7(), sha256: sha256(&bytes), size: bytes.len() as u64, key };
        store.put(outside.id, &bytes).await?;
        Ok(json!({ BLOB: outside }))
    }

    // ---- and back

    /// Whether something else is stored as this.
    pub(crate) fn is_reference(stored: &Value) -> bool {
        Form::of(stored).is_some()
    }

    /// The value that is stored as this, tried up to `tries` times while the store is away.
    ///
    /// # Errors
    /// `workflow.payload_corrupt` when it is not what was stored; `workflow.payload_unknown`, which may pass elsewhere, when this
    /// process has no store or codec; `workflow.payload_unreachable`, which may pass, when they are away; what they say else.
    pub(crate) async fn fetch(&self, tenant_id: Uuid, stored: Value, tries: u32) -> Result<Value, Failure> {
        match Form::of(&stored) {
            Some(form) => persist(tries, || self.get(tenant_id, &form)).await,
            None => Ok(stored),
        }
    }

    async fn get(&self, tenant_id: Uuid, form: &Form) -> Result<Value, Failure> {
        let unknown = |what| Failure::transient(UNKNOWN, format!("this process has no {what}"));
        let (key, bytes) = match form {
            Form::Sealed(Sealed { key, data }) => {
                let bytes = STANDARD.decode(data).map_err(|e| corrupt(format!("a sealed value is no base64: {e}")))?;
                (Some(key), bytes)
            }
            Form::Outside(Outside { id, sha256: hash, size, key }) => {
                let store = self.store.as_ref().ok_or_else(|| unknown("store of payloads"))?;
                let bytes = store.get(*id).await?;
                if bytes.len() as u64 != *size || sha256(&bytes) != *hash {
                    return Err(corrupt(format!("payload {id} is not what was stored")));
                }
                (key.as_ref(), bytes)
            }
        };
        let bytes = match key {
            Some(key) => {
                self.codec.as_ref().ok_or_else(|| unknown("codec of payloads"))?.open(tenant_id, key, &bytes)?
            }
            None => bytes,
        };
        serde_json::from_slice(&bytes).map_err(|e| corrupt(format!("a payload is no JSON: {e}")))
    }

    // ---- what is left behind

    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Deletes what the store has kept for longer than `older_than` and is not among `named`; says how many.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn sweep(&self, named: &HashSet<Uuid>, older_than: Duration) -> Result<u64, Failure> {
        let Some(store) = &self.store else { return Ok(0) };
        let limit =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(older_than);
        let (mut after, mut swept) = (Uuid::nil(), 0);
        loop {
            let page = store.list(after).await?;
            let Some(&last) = page.last().filter(|last| **last > after) else { return Ok(swept) };
            for id in page {
                // What is no id of ours is nothing of ours.
                let Some((seconds, nanos)) = id.get_timestamp().map(|made| made.to_unix()) else { continue };
                if Duration::new(seconds, nanos) > limit {
                    return Ok(swept);
                }
                if !named.contains(&id) {
                    store.delete(id).await?;
                    swept += 1;
                }
            }
            after = last;
        }
    }
}

/// In the store.
#[derive(Serialize, Deserialize)]
struct Outside {
    id: Uuid,
    /// Of the bytes, in hexadecimal.
    sha256: String,
    /// In bytes.
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// In the row.
#[derive(Serialize, Deserialize)]
struct Sealed {
    key: String,
    data: String,
}

enum Form {
    Outside(Outside),
    Sealed(Sealed),
}

impl Form {
    fn of(stored: &Value) -> Option<Self> {
        let (name, body) = stored.as_object().filter(|fields| fields.len() == 1)?.iter().next()?;
        match name.as_str() {
            BLOB => Outside::deserialize(body).ok().map(Self::Outside),
            SEALED => Sealed::deserialize(body).ok().map(Self::Sealed),
            _ => None,
        }
    }
}

/// Does something up to `tries` times, while the store or the codec is away.
async fn persist<F: Future<Output = Result<Value, Failure>>>(
    tries: u32,
    work: impl Fn() -> F,
) -> Result<Value, Failure> {
    let mut tried = 0;
    loop {
        tried += 1;
        match work().await {
            Err(failure) if failure.retryable && failure.code != UNKNOWN => {
                if tried >= tries {
                    return Err(Failure::transient(UNREACHABLE, format!("{}: {}", failure.code, failure.message)));
                }
                tracing::warn!(%failure, "cannot reach a payload; it is tried again");
                tokio::time::sleep(retry::step_pause(tried)).await;
            }
            done => return done,
        }
    }
}

/// Whether the store or the codec was away.
pub(crate) fn is_unreachable(failure: &Failure) -> bool {
    failure.code == UNREACHABLE
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn corrupt(message: String) -> Failure {
    Failure::permanent("workflow.payload_corrupt", message)
}
