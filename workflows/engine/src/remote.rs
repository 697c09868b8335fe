//! Remote workers: who does activities over HTTP, with lease tokens and without a database.
//!
//! ```text
//!   worker ──claim, by long poll──▶ server ──▶ PostgreSQL      POST {base}/claims
//!      │  ◀── tasks, a lease and a token each ──┤              POST {base}/tasks/{task_id}/renew
//!      ├──renew, with progress ─────────────────┤              POST {base}/tasks/{task_id}/complete
//!      └──result, failure, or back──────────────┘              POST {base}/tasks/{task_id}/fail, …/release
//! ```
//! The words of the wire are in [`wire`]; they, and the ready-made `Worker` (feature `remote-worker`), build without the feature
//! `store`. On the server's side [`Service`] does what is asked without knowing of HTTP, and `router` (feature `http`) puts it behind
//! routes. Who a caller is, and which queues are open to it, says the application that mounts them: see [`RemoteWorker`].
//!
//! What holds for every call:
//!
//! | | status and code |
//! |---|---|
//! | the newest token of the task, shown by the worker it was given to | 200 or 204, also past its end while nobody else has the task |
//! | that, after the lease was taken for lost, and the task was given to nobody since | as above, for renewals and results: once |
//! | the same report again, because its answer was lost | as the first time; nothing is changed |
//! | a token whose attempt is over in another way | 409 `lease.lost` |
//! | a token that this worker was never given for this task: another's, another task's, an invented one | 403 `lease.foreign` |
//! | a queue that is not open to the worker | 403 `queue.forbidden` |
//! | a caller that the application does not know | 401 `worker.unknown` |
//! | a body that cannot be read, or an output that cannot be stored | 422 `request.invalid` |
//! | the database is away: ask again | 503 `server.unavailable` |
//!
//! Jobs, which belong to no run, are leased to processes with a database only.

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "store")]
mod service;
pub mod wire;
#[cfg(feature = "remote-worker")]
mod worker;

#[cfg(feature = "http")]
pub(crate) use http::problem;
#[cfg(feature = "http")]
pub use http::router;
#[cfg(feature = "store")]
pub use service::{Hold, Lease, Refused, RemoteWorker, Service};
#[cfg(feature = "remote-worker")]
pub use worker::{Builder, CallError, Worker};
