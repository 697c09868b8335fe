//! What a platform needs in its database before it is of use: a key, and templates.

use super::samples::{Package, PackageError};
use crate::render::scene_snapshots::enqueue;
use bytes::Bytes;
use flatrender_engine::Client;
use flatrender_workflows::contracts::storage::{BlobRef, BlobStore, Shelf, StorageError};
use flatrender_workflows::definitions::limit::Limits;
use flatrender_workflows::models::identity::tenant_api_key::{Mode, NewKey};
use flatrender_workflows::models::{DEFAULT_TENANT, Database, Role, Scope, Secret, content, identity, render};
use futures::StreamExt as _;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// An enrolment token has to be used within this time.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Why something could not be brought in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The database refused.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
    /// The storage refused.
    #[error("cannot store the template {0}: {1}")]
    Storage(String, StorageError),
    /// Nobody can be asked for stills.
    #[error("cannot ask for stills of the template {0}: {1}")]
    Stills(String, &'static str),
    /// A package is wrong.
    #[error(transparent)]
    Package(#[from] PackageError),
}

/// Makes a key for `tenant` that may do what keys usually may. Its text cannot be had again.
///
/// # Errors
/// The database refused, for instance because there is no such tenant.
pub async fn create_key(db: &PgPool, tenant: Uuid, name: &str) -> sqlx::Result<Secret> {
    let mut tx = Scope::tenant(Role::Identity, tenant).begin(db).await?;
    let key = identity::tenant_api_key::create(&mut tx, tenant, name).await?;
    tx.commit().await?;
    Ok(key)
}

/// As [`create_key`], with other scopes. None when the tenant has as many keys as it may.
///
/// # Errors
/// As there.
pub async fn create_key_for(db: &PgPool, tenant: Uuid, name: &str, scopes: &[String]) -> sqlx::Result<Option<Secret>> {
    let new = NewKey { name, mode: Mode::Live, scopes, allowed_cidrs: None, created_by: None, expires_at: None };
    let mut tx = Scope::tenant(Role::Identity, tenant).begin(db).await?;
    let key = identity::tenant_api_key::create_as(&mut tx, tenant, &new).await?;
    tx.commit().await?;
    Ok(key.map(|(_, secret)| secret))
}

/// Whether `key` opens this database for the default tenant.
///
/// # Errors
/// The database cannot be reached.
pub async fn key_works(db: &PgPool, key: &str) -> sqlx::Result<bool> {
    let mut tx = Scope::platform(Role::Identity).begin(db).await?;
    let holder = identity::tenant_api_key::authenticate(&mut tx, key, None, None).await?;
    Ok(holder.is_some_and(|h| h.tenant_id == DEFAULT_TENANT))
}

/// Makes a one-time token for a render node.
///
/// # Errors
/// The database refused.
pub async fn create_node_token(db: &PgPool) -> sqlx::Result<Secret> {
    let mut tx = Scope::platform(Role::Render).begin(db).await?;
    let token = render::node::create_token(&mut tx, TOKEN_LIFETIME).await?;
    tx.commit().await?;
    Ok(token)
}

/// Publishes `packages` for every tenant. One that is there already, byte for byte, makes no new version.
///
/// # Errors
/// See [`ImportError`]; what came before the error stays.
pub async fn templates(db: &PgPool, storage: &dyn BlobStore, packages: &[Package]) -> Result<(), ImportError> {
    for package in packages {
        let slug = &package.manifest.slug;
        let zip = put(storage, slug, package.zip()?).await?;
        let preview = match package.preview() {
            Some(png) => Some(put(storage, slug, png.to_vec()).await?),
            None => None,
        };
        let mut tx = Scope::tenant(Role::Content, DEFAULT_TENANT).begin(db).await?;
        let number =
            content::project::publish(&mut tx, DEFAULT_TENANT, &package.manifest, &zip, preview.as_ref()).await?;
        tx.commit().await?;
        tracing::debug!(template = slug, number, "template published");
    }
    Ok(())
}

/// Asks for stills of the scenes of these templates that have none; they may take what `limits` says. People reach us at `public_url`.
///
/// # Errors
/// See [`ImportError`]; what came before the error stays.
pub async fn ask_for_stills(
    db: &PgPool,
    limits: Limits,
    public_url: &str,
    packages: &[Package],
) -> Result<(), ImportError> {
    let (workflows, database) = (Client::new(db.clone()), Database::new(db.clone()));
    for package in packages {
        let slug = &package.manifest.slug;
        let asked = enqueue::at_import(&database, &workflows, limits, public_url, slug).await;
        // What went wrong was logged where it did.
        asked.map_err(|problem| ImportError::Stills(slug.clone(), problem.code().as_str()))?;
    }
    Ok(())
}

async fn put(storage: &dyn BlobStore, slug: &str, bytes: Vec<u8>) -> Result<BlobRef, ImportError> {
    let (shelf, limit) = (Shelf::Files { tenant_id: DEFAULT_TENANT }, bytes.len() as u64);
    let body = futures::stream::iter([Ok(Bytes::from(bytes))]).boxed();
    storage.put(&shelf, None, body, limit).await.map_err(|e| ImportError::Storage(slug.to_owned(), e))
}
