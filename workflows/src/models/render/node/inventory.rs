//! What a node has, as it says, and what the server wants of it.

use super::sleep::Sleep;
use crate::{
    contracts::{
        node::{CachedPackage, Hello, Orders, offers},
        render::Engine,
        storage::BlobHash,
    },
    models::Db,
};
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use sqlx::types::Json;
use uuid::Uuid;

/// Days after which a node is to ask for another credential.
const CREDENTIAL_DAYS: i32 = 30;

/// Another After Effects than a node had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The version that it had.
    pub before: String,
    /// The one that it has.
    pub now: String,
}

/// Keeps what a node says of itself at its start. One whose After Effects is another than before gets no work until it has passed a
/// probe: updates that come by themselves are what breaks farms overnight.
pub async fn hello(db: Db<'_>, id: Uuid, hello: &Hello) -> sqlx::Result<Option<Changed>> {
    keep(&mut *db, id, hello).await?;
    holds(&mut *db, id, &hello.cache).await?;
    // A start at which it is not there, or says nothing of its version, tells nothing.
    let said = hello.capabilities.renderers.get(Engine::AfterEffects.label());
    let Some(now) = said.and_then(|said| version(said)) else { return Ok(None) };
    let before = sqlx::query_scalar!(
        r#"update render.nodes n set renderer_version = $2 from render.nodes before
           where n.id = $1 and before.id = n.id and before.renderer_version is distinct from $2
           returning before.renderer_version"#,
        id,
        now
    );
    let Some(before) = before.fetch_optional(&mut *db).await?.flatten() else { return Ok(None) };
    let changed = Changed { before, now: now.to_owned() };
    super::quarantine(db, id, &format!("After Effects {} has become {}", changed.before, changed.now)).await?;
    Ok(Some(changed))
}

/// The number in what a renderer says of its version, such as `24.0` of `aerender version 24.0x52`.
fn version(said: &str) -> Option<&str> {
    let number = |word: &str| word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    said.split_whitespace().map(|word| &word[..number(word)]).find(|number| number.contains('.') && number.len() <= 40)
}

async fn keep(db: Db<'_>, id: Uuid, hello: &Hello) -> sqlx::Result<()> {
    let (said, has) = (&hello.capabilities, &hello.inventory);
    let mut offered = said.labels.clone();
    offered.extend(offers(has.after_effects, &has.fonts, &has.plugins));
    let mut fonts = has.fonts.clone();
    fonts.sort();
    let positive = |n: u64| i64::try_from(n).ok().filter(|n| *n > 0);
    sqlx::query!(
        r#"update render.nodes
           set capabilities = $2, offers = $3, agent_version = left($4, 40), os = left($5, 200), cpu = $6, ram_mb = $7,
               gpu = left($8, 200), slots = $9, ae_version = $10, fonts_hash = $11, fonts_count = $12, plugins = $13,
               disk_free_mb = $14, cache_limit = $15, incarnation = $16, hello_at = workflow.now(),
               last_seen_at = workflow.now(), updated_at = workflow.now(),
               status = case status when 'offline' then 'online' else status end
           where id = $1"#,
        id,
        Json(said) as _,
        Json(&offered) as _,
        said.agent_version,
        said.os,
        i32::try_from(said.cpus).ok().filter(|n| *n > 0),
        positive(said.ram_mb),
        has.gpu,
        i32::try_from(said.slots).unwrap_or(1).clamp(1, 256),
        has.after_effects.map(|main| main.to_string()),
        hex::encode(Sha256::digest(fonts.join("\n"))),
        i32::try_from(fonts.len()).unwrap_or(i32::MAX),
        Json(&has.plugins) as _,
        has.disk_free_mb.and_then(positive),
        positive(hello.cache_limit),
        hello.incarnation,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Keeps what a node holds in its cache, all of it.
pub async fn holds(db: Db<'_>, id: Uuid, packages: &[CachedPackage]) -> sqlx::Result<()> {
    let hashes: Vec<String> = packages.iter().map(|p| p.sha256.to_string()).collect();
    let bytes: Vec<i64> = packages.iter().map(|p| i64::try_from(p.bytes).unwrap_or(i64::MAX)).collect();
    let idle: Vec<f64> = packages.iter().map(|p| p.idle_seconds as f64).collect();
    let hits: Vec<i64> = packages.iter().map(|p| i64::try_from(p.hits).unwrap_or(i64::MAX)).collect();
    sqlx::query!(
        "delete from render.node_template_cache where node_id = $1 and package_sha256 <> all ($2)",
        id,
        &hashes
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        r#"insert into render.node_template_cache (node_id, package_sha256, bytes, state, last_used_at, hits)
           select $1, h, b, 'ready', workflow.now() - make_interval(secs => least(i, 1e9)), n
           from unnest($2::text[], $3::bigint[], $4::float8[], $5::bigint[]) g (h, b, i, n)
           on conflict (node_id, package_sha256) do update
           set bytes = excluded.bytes, last_used_at = excluded.last_used_at, hits = excluded.hits"#,
        id,
        &hashes,
        &bytes,
        &idle,
        &hits,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("update render.nodes set cache_bytes = $2 where id = $1", id, bytes.iter().sum::<i64>())
        .execute(db)
        .await?;
    Ok(())
}

/// What the server wants of a node now.
pub async fn orders(db: Db<'_>, id: Uuid) -> sqlx::Result<Orders> {
    let row = sqlx::query!(
        r#"select give_back and drained as "give_back!", sleep as "sleep: Json<Sleep>", workflow.now() as "now!: DateTime<Utc>",
                  rotate_asked_at is not null or credential_at < workflow.now() - make_interval(days => $2) as "rotate!",
                  array (select package_sha256 from render.node_template_cache c where c.node_id = n.id and keep) as "keep!",
                  array (select package_sha256 from render.node_template_cache c
                         where c.node_id = n.id and state = 'evicting') as "evict!"
           from render.nodes n where id = $1"#,
        id,
        CREDENTIAL_DAYS,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(Orders::default()) };
    let asleep = row.sleep.is_some_and(|sleep| sleep.0.at_once && sleep.0.asleep_at(row.now).is_some());
    let hashes = |texts: &[String]| texts.iter().filter_map(|text| text.parse::<BlobHash>().ok()).collect();
    Ok(Orders {
        give_back: row.give_back || asleep,
        keep: hashes(&row.keep),
        evict: hashes(&row.evict),
        rotate: row.rotate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_version_is_read_among_noise() {
        for (said, number) in [
            ("aerender version 24.0x52", Some("24.0")),
            ("aerender version 24.1.2 (build 9)", Some("24.1.2")),
            ("aerender version Using DXGI", None),
            ("aerender version 24", None),
            ("", None),
        ] {
            assert_eq!(version(said), number, "{said}");
        }
    }
}
