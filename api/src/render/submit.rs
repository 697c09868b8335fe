//! Accepting an order: checked and frozen, its run started and its row written in one transaction.

use super::view;
use crate::{
    app::App,
    auth::Tenant,
    identity::{
        billing::{credits, limits},
        quotas,
    },
    problem::{Code, Problem},
};
use axum::http::HeaderMap;
use flatrender_engine::payload::INLINE;
use flatrender_workflows::{
    contracts::{storage::BlobHash, template::is_slug},
    definitions::render_video::RenderVideo,
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        content::project::{self, Template},
        file_mgr::file::{self, File},
        identity::tenant_branding,
        render::{
            bill,
            freeze::{self, Fault},
            order::RenderOrder,
            render_job::{self, NewRenderJob, RenderJob},
            room,
            spec::RenderSpec,
        },
    },
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The header of a client that may ask twice.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest key.
pub(super) const KEY_BYTES: usize = 255;
/// Longest metadata, as JSON. The column holds 16 KiB as PostgreSQL prints it, with spaces.
const METADATA_BYTES: usize = 16 * 1024;
/// Longest specification of a film, as JSON; the rest of a task's input says which frames, and who is to avoid them.
const SPEC_BYTES: usize = INLINE - 32 * 1024;

/// What became of an order.
pub enum Submitted {
    /// A new render.
    New(view::Render),
    /// The render that an earlier request with this key made, or the preview that is the same.
    Replayed(view::Render),
}

/// Accepts `order`. With a key, the same order gives the same render, however often and however concurrently.
///
/// # Errors
/// Every fault of the order; `idempotency.key_reused` when the key belongs to another order.
pub async fn submit(app: &App, tenant: &Tenant, key: Option<&str>, order: &RenderOrder) -> Result<Submitted, Problem> {
    let request_sha256 = fingerprint(order);
    if let Some(known) = replay(app, tenant, key, &request_sha256).await? {
        return Ok(Submitted::Replayed(known));
    }
    match accept(app, tenant, key, order, &request_sha256).await? {
        Some(submitted) => Ok(submitted),
        // Another request with this key has committed in between.
        None => replay(app, tenant, key, &request_sha256).await?.map(Submitted::Replayed).ok_or_else(gone),
    }
}

/// The key of a request, if it has one.
///
/// # Errors
/// `header.invalid` when it is not 1 to 255 printable ASCII characters.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().ok().filter(|k| (1..=KEY_BYTES).contains(&k.len()));
    let invalid = || Problem::new(Code::HeaderInvalid, "an idempotency key is 1 to 255 printable ASCII characters");
    key.ok_or_else(invalid).map(Some)
}

/// What makes two requests the same: their meaning, not their spaces and the order of their keys.
pub fn fingerprint(asked: &impl Serialize) -> String {
    let asked = serde_json::to_value(asked).map(in_order).unwrap_or_default();
    BlobHash::of(asked.to_string().as_bytes()).to_string()
}

/// The same value with the keys of its objects in order, however maps are kept.
fn in_order(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<String, Value> = map.into_iter().map(|(k, v)| (k, in_order(v))).collect();
            sorted.into_iter().collect()
        }
        Value::Array(values) => values.into_iter().map(in_order).collect(),
        other => other,
    }
}

async fn replay(app: &App, tenant: &Tenant, key: Option<&str>, sha256: &str) -> Result<Option<view::Render>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let mut tx = app.begin(tenant, Role::Render).await?;
    let Some((job, asked)) = render_job::find_by_key(&mut tx, tenant.id, key).await? else { return Ok(None) };
    if asked != sha256 {
        return Err(Problem::new(Code::IdempotencyKeyReused, "this idempotency key was used with another body"));
    }
    Ok(Some(view::of_job(&mut tx, tenant.id, job).await?))
}

/// One transaction: freeze, start, insert, hold what it costs and the room that it takes. None when the key was taken meanwhile; then
/// nothing was done.
async fn accept(
    app: &App,
    tenant: &Tenant,
    key: Option<&str>,
    order: &RenderOrder,
    request_sha256: &str,
) -> Result<Option<Submitted>, Problem> {
    check_metadata(order)?;
    let mut tx = app.begin(tenant, Role::Content).await?;
    let template = template(&mut tx, tenant, order).await?;
    let files = files(&mut tx, tenant, order).await?;
    let mut spec =
        freeze::freeze(tenant.id, &template, order, &files).map_err(|f| Problem::faulty(Code::RequestInvalid, f))?;
    let user_id = tenant.actor.user_id();
    let mut rights = None;
    if let Some(user_id) = user_id {
        rights = Some((user_id, limits::check_shape(&mut tx, tenant.id, user_id, &mut spec).await?));
    }
    if spec.is_preview() {
        Scope::tenant(Role::Identity, tenant.id).enter(&mut tx).await?;
        spec.watermark = tenant_branding::find(&mut tx, tenant.id).await?.map(|b| b.look.product_name);
        Scope::tenant(Role::Render, tenant.id).enter(&mut tx).await?;
        if let Some(same) = render_job::find_preview(&mut tx, tenant.id, &spec).await? {
            // Whoever asks again with this key gets it however old it is by then, or has failed.
            if let Some(key) = key
                && !render_job::join(&mut tx, &same, tenant.id, key, request_sha256).await?
            {
                return Ok(None);
            }
            let joined = view::of_job(&mut tx, tenant.id, same).await?;
            tx.commit().await?;
            return Ok(Some(Submitted::Replayed(joined)));
        }
    }
    check_size(&spec)?;
    quotas::check_order(&mut tx, tenant.id).await?;
    if let Some((user_id, rights)) = &rights {
        limits::check_turn(&mut tx, tenant.id, *user_id, rights).await?;
    }
    let id = Uuid::now_v7();
    let workflow = RenderVideo::new(id, spec.kind, app.limits);
    Scope::tenant(Role::Workflow, tenant.id).enter(&mut tx).await?;
    let run = app.workflows.start(&mut tx, tenant.id, Some(&id.to_string()), workflow).await?;
    let new = NewRenderJob {
        id,
        tenant_id: tenant.id,
        template: &template,
        order,
        spec: &spec,
        request_sha256,
        idempotency_key: key,
        workflow_run_id: run.run_id,
    };
    Scope::tenant(Role::Render, tenant.id).enter(&mut tx).await?;
    if !render_job::insert(&mut tx, &new).await? {
        return Ok(None);
    }
    let unshown = freeze::unshown(&template.manifest, &order.data);
    if !unshown.is_empty() {
        render_job::warn(&mut tx, id, &unshown).await?;
    }
    let (run_id, project_version_id) = (run.run_id, template.version_id);
    let film = bill::Order { tenant_id: tenant.id, user_id, render_id: id, run_id, project_version_id, spec: &spec };
    credits::afforded(bill::hold(&mut tx, &film).await?)?;
    let job: RenderJob = render_job::find(&mut tx, tenant.id, id).await?.ok_or_else(gone)?;
    let accepted = view::of_job(&mut tx, tenant.id, job).await?;
    if !room::hold(&mut tx, tenant.id, id, &spec).await? {
        return Err(quotas::no_room_for_film(room::ordered_bytes(&spec)));
    }
    // Whoever purges files from here on waits for the tenant's turn, and finds the film. Who was faster is found here.
    if !files.is_empty() {
        let still = self::files(&mut tx, tenant, order).await?;
        freeze::freeze(tenant.id, &template, order, &still).map_err(|f| Problem::faulty(Code::RequestInvalid, f))?;
    }
    tx.commit().await?;
    app.workflows.announce();
    Ok(Some(Submitted::New(accepted)))
}

async fn template(db: Db<'_>, tenant: &Tenant, order: &RenderOrder) -> Result<Template, Problem> {
    let found = match is_slug(&order.template) {
        true => project::find(db, tenant.id, DEFAULT_TENANT, &order.template, order.version).await?,
        false => None,
    };
    found.ok_or_else(|| {
        let version = order.version.map(|v| format!(" in version {v}")).unwrap_or_default();
        let detail = format!("there is no template {:?}{version}; GET /v1/templates lists them", order.template);
        let code = Code::TemplateUnknown;
        Problem::faulty(code, vec![Fault { pointer: "/template".into(), code: code.as_str().into(), detail }])
    })
}

/// The tenant's files that an order names.
async fn files(db: Db<'_>, tenant: &Tenant, order: &RenderOrder) -> Result<Vec<File>, Problem> {
    let ids = freeze::file_ids(order);
    if ids.is_empty() {
        return Ok(vec![]);
    }
    Scope::tenant(Role::File, tenant.id).enter(&mut *db).await?;
    Ok(file::find(db, tenant.id, &ids).await?)
}

fn check_metadata(order: &RenderOrder) -> Result<(), Problem> {
    let json = serde_json::to_string(&order.metadata).unwrap_or_default();
    let fault = |code: &str, detail: &str| Err(Problem::fault("/metadata", code, detail));
    if json.len() + spaces(&json) > METADATA_BYTES {
        return fault("metadata.too_large", "metadata has at most 16 KiB as JSON");
    }
    if json.contains("\\u0000") {
        return fault("metadata.control_character", "metadata may not hold the character NUL");
    }
    Ok(())
}

/// What is to be rendered goes along with every task, whose input has at most [`INLINE`] bytes.
fn check_size(spec: &RenderSpec) -> Result<(), Problem> {
    let bytes = serde_json::to_string(spec).map_or(0, |json| json.len());
    if bytes > SPEC_BYTES {
        let detail = format!("the texts and other values make {bytes} bytes of JSON; there is room for {SPEC_BYTES}");
        return Err(Problem::fault("", "order.too_large", detail));
    }
    Ok(())
}

/// Spaces that PostgreSQL adds when it prints JSON: at most one after each comma and colon.
fn spaces(json: &str) -> usize {
    json.bytes().filter(|b| matches!(b, b',' | b':')).count()
}

fn gone() -> Problem {
    Problem::internal(&sqlx::Error::RowNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_makes_no_other_order() {
        let order = |json: &str| serde_json::from_str::<RenderOrder>(json).unwrap();
        let one = order(r#"{"template": "promo", "metadata": {"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 2}}"#);
        let same = order(r#"{"metadata": {"b": 2, "a": {"y": [{"q": 2, "p": 1}], "x": 1}}, "template": "promo"}"#);
        let other = order(r#"{"template": "promo", "metadata": {"a": {"x": 2}}}"#);
        assert_eq!(fingerprint(&one), fingerprint(&same));
        assert_ne!(fingerprint(&one), fingerprint(&other));
    }
}
