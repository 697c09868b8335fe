//! What every handler may use.

use crate::{
    auth::Tenant,
    file_mgr::{probe::MediaProbe, uploads},
    identity::RelyingParty,
    nodes::{health::Samples, placement::Placement},
    operate::now::Pulse,
    peer::Proxies,
    problem::Problem,
    render::{feed::Feeds, last_frame::LastFrames},
    request_log::RequestLog,
    vault::Vault,
};
use flatrender_activities::{dns::Resolver, egress::Egress};
use flatrender_engine::Client;
use flatrender_workflows::{
    contracts::storage::{BlobStore, Shelf},
    definitions::limit::Limits,
    models::{Database, Role, Scope, scope::Scoped},
};
use sqlx::PgPool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The state of the API. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The database: every use says as whom, and of which tenant. Handlers of tenants use [`App::begin`].
    pub db: Database,
    /// The engine: starts, cancels, and the queue of nodes.
    pub workflows: Client,
    /// Where bytes live.
    pub storage: Arc<dyn BlobStore>,
    /// Looks at uploads.
    pub probe: Arc<dyn MediaProbe>,
    /// How long what is ordered may take.
    pub limits: Limits,
    /// The longest upload.
    pub most_upload_bytes: u64,
    /// Turns to take bytes of uploads in: whoever has one holds a piece in memory.
    pub intakes: uploads::Intakes,
    /// Live renders that somebody watches.
    pub feeds: Arc<Feeds>,
    /// How things stand, for those who follow it.
    pub pulse: Arc<Pulse>,
    /// Which node gets which task.
    pub placement: Arc<Placement>,
    /// Pictures of renders under way.
    pub last_frames: Arc<LastFrames>,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Proxies,
    /// How nodes fare, waiting to be written down.
    pub samples: Samples,
    /// Requests that wait to be written down.
    pub request_log: RequestLog,
    /// What only servers and workers know.
    pub vault: Vault,
    /// What passkeys are bound to; none where the public address does not allow for any.
    pub relying_party: Option<RelyingParty>,
    /// Says whose a host name is.
    pub dns: Resolver,
    /// Calls where tenants have us call.
    pub egress: Egress,
    /// Where people see our pages, without a slash at the end.
    pub public_url: String,
    /// Ends event streams and long polls when the server stops.
    pub stopping: CancellationToken,
}

impl App {
    /// The parts of an API; it stops when `stopping` is cancelled.
    pub fn new(
        db: PgPool,
        workflows: Client,
        storage: Arc<dyn BlobStore>,
        probe: Arc<dyn MediaProbe>,
        vault: Vault,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            db: Database::new(db),
            workflows,
            storage,
            probe,
            limits: Limits::default(),
            most_upload_bytes: uploads::LIMIT_BYTES,
            intakes: uploads::Intakes::default(),
            feeds: Arc::default(),
            pulse: Arc::default(),
            placement: Arc::default(),
            last_frames: Arc::default(),
            proxies: Proxies::default(),
            samples: Samples::default(),
            request_log: RequestLog::default(),
            vault,
            relying_party: None,
            dns: Resolver::system(),
            egress: Egress::default(),
            public_url: String::new(),
            stopping,
        }
    }

    /// A transaction of one service that sees one tenant.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn begin(&self, tenant: &Tenant, role: Role) -> Result<Scoped, Problem> {
        Ok(self.db.begin(Scope::tenant(role, tenant.id)).await?)
    }
}

/// The shelf of what a tenant keeps.
pub fn files(tenant_id: Uuid) -> Shelf {
    Shelf::Files { tenant_id }
}
