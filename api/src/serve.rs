//! Serving the API until it is told to stop.

use crate::{
    app::App,
    file_mgr::{probe::MediaProbe, uploads},
    identity::RelyingParty,
    metrics,
    peer::{BadNetwork, Proxies},
    router,
    vault::Vault,
    worker::walls,
};
use axum::{Router, serve::ListenerExt as _};
use flatrender_activities::egress::{Egress, Reach};
use flatrender_engine::Client;
use flatrender_workflows::{contracts::storage::BlobStore, definitions::limit::Limits};
use sqlx::PgPool;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests may go on after the server was told to stop.
const GRACE: Duration = Duration::from_secs(15);
/// How long the last requests may take to be written down.
const LAST_WRITE: Duration = Duration::from_secs(3);

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// An address to bind; port 0 takes any that is free.
    Address(SocketAddr),
    /// A socket that is bound already.
    Bound(TcpListener),
}

/// What a server is made of.
pub struct ServeConfig {
    /// Where it listens.
    pub listen: Listen,
    /// Where it listens for machines of ours, at addresses that the public listener does not have; none for not at all.
    pub internal: Option<TcpListener>,
    /// Its database, migrated.
    pub pool: PgPool,
    /// Where bytes live.
    pub storage: Arc<dyn BlobStore>,
    /// How long what is ordered may take.
    pub limits: Limits,
    /// Looks at uploads.
    pub probe: Arc<dyn MediaProbe>,
    /// What only servers and workers know.
    pub vault: Vault,
    /// Under which address people reach it, and see our pages.
    pub public_url: String,
}

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] io::Error),
    /// The environment names proxies that are none.
    #[error(transparent)]
    Proxies(#[from] BadNetwork),
    /// The socket broke.
    #[error("cannot serve any longer")]
    Serve(#[source] io::Error),
}

/// Serves until `shutdown`: then event streams and long polls end, and other requests have 15 s.
///
/// # Errors
/// When it cannot listen.
pub async fn run(config: ServeConfig, shutdown: CancellationToken) -> Result<(), ServeError> {
    let listener = match config.listen {
        Listen::Bound(listener) => listener,
        Listen::Address(address) => TcpListener::bind(address).await.map_err(|e| ServeError::Bind(address, e))?,
    };
    metrics::install();
    walls::show(walls::tried().await);
    let _ = tokio::task::spawn_blocking(crate::file_mgr::upload::remove_stale).await;
    let reach = Reach::from_env();
    if reach == Reach::Anywhere {
        tracing::warn!("FLATRENDER_DEV_EGRESS is on: tenants may have this server call into its own network");
    }
    let relying_party = RelyingParty::at(&config.public_url);
    if relying_party.is_none() {
        tracing::warn!(
            public_url = config.public_url,
            "nobody can have a passkey: the public address has no host name"
        );
    }
    let workflows = Client::new(config.pool.clone());
    let app = App {
        proxies: Proxies::from_env()?,
        limits: config.limits,
        most_upload_bytes: uploads::limit_from_env(),
        egress: Egress::new(reach),
        public_url: config.public_url.trim_end_matches('/').to_owned(),
        relying_party,
        ..App::new(config.pool, workflows, config.storage, config.probe, config.vault, shutdown.clone())
    };
    let (log, samples, db) = (app.request_log.clone(), app.samples.clone(), app.db.clone());
    tracing::info!(address = ?listener.local_addr().ok(), "the API is served");
    let served = tokio::select! {
        served = serve(listener, router::router(app.clone()), shutdown.clone()) => served,
        served = serve_internal(config.internal, app, shutdown.clone()) => served,
        () = metrics::keep_up() => Ok(()),
        () = log.keep_writing(&db) => Ok(()),
        () = samples.keep_writing(&db) => Ok(()),
        () = grace_after(shutdown) => {
            tracing::warn!("requests were cut off: they went on too long after the stop");
            Ok(())
        }
    };
    match tokio::time::timeout(LAST_WRITE, log.flush(&db)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the end of the request log is lost"),
        Err(_) => tracing::warn!("the end of the request log is lost: the database took too long"),
    }
    served
}

/// Ends only when it fails: the public listener says when serving is over.
async fn serve_internal(
    listener: Option<TcpListener>,
    app: App,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    if let Some(listener) = listener {
        serve(listener, router::internal(app), shutdown).await?;
    }
    std::future::pending().await
}

async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> Result<(), ServeError> {
    // Answers are small and waited for: none is held back to be joined with the next.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let stop = shutdown.cancelled_owned();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await.map_err(ServeError::Serve)
}

async fn grace_after(shutdown: CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
