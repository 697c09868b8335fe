//! What was agreed of what a tenant may use. What it uses is counted where it is kept.

use crate::models::Db;
use uuid::Uuid;

/// Films ordered on a day, by UTC.
pub const RENDERS_PER_DAY: &str = "renders_per_day";
/// Films under way.
pub const CONCURRENT_RENDERS: &str = "concurrent_renders";
/// Bytes kept: uploads and films. What was agreed of them stands with the files, see [`crate::models::file_mgr::quota`].
pub const STORAGE_BYTES: &str = "storage_bytes";
/// People with a role.
pub const SEATS: &str = "seats";
/// All of them.
pub const QUOTAS: [&str; 4] = [RENDERS_PER_DAY, CONCURRENT_RENDERS, STORAGE_BYTES, SEATS];

/// Parts of the render nodes that a tenant gets while others want them, too; 1 where nothing is agreed. No quota: it limits nothing.
pub const RENDER_WEIGHT: &str = "render_weight";

/// The weights that were agreed on, by tenant.
///
/// # Errors
/// Those of the database.
pub async fn render_weights(db: Db<'_>) -> sqlx::Result<Vec<(Uuid, i64)>> {
    let rows = sqlx::query!("select tenant_id, hard from identity.tenant_limits where name = $1", RENDER_WEIGHT);
    Ok(rows.fetch_all(db).await?.into_iter().map(|r| (r.tenant_id, r.hard)).collect())
}

/// What was agreed of some quotas. What is not agreed is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed(Vec<(String, i64)>);

impl Agreed {
    /// The most there may be.
    pub fn of(&self, name: &str) -> Option<i64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, most)| *most)
    }

    /// Whether nothing of it is limited.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was agreed of the quotas `names`.
///
/// # Errors
/// Those of the database.
pub async fn agreed(db: Db<'_>, tenant_id: Uuid, names: &[&str]) -> sqlx::Result<Agreed> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        "select name, hard from identity.tenant_limits where tenant_id = $1 and name = any($2)",
        tenant_id,
        &names
    );
    Ok(Agreed(rows.fetch_all(db).await?.into_iter().map(|r| (r.name, r.hard)).collect()))
}

/// The same, held until the transaction ends: whoever counts against one of them takes turns, on all servers. What is counted
/// afterwards, in a statement of its own, is there to stay.
///
/// # Errors
/// Those of the database.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, names: &[&str]) -> sqlx::Result<Agreed> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let rows = sqlx::query!(
        "select name, hard from identity.tenant_limits where tenant_id = $1 and name = any($2) order by name for no key update",
        tenant_id,
        &names
    );
    Ok(Agreed(rows.fetch_all(db).await?.into_iter().map(|r| (r.name, r.hard)).collect()))
}
