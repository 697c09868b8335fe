//! What a person's plan allows of a film. What it allows to keep stands with the files, and seconds of rendering are credits.

use crate::problem::{Code, Problem};
use axum::http::header;
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::{plan::Entitlements, subscription, tenant_branding},
    render::{bill, spec::RenderSpec},
};
use uuid::Uuid;

/// When to ask again while others are under way.
const SOON_SECONDS: u64 = 30;
/// The longest that a plan keeps films, in days: what is longer is for ever.
const MOST_DAYS: i64 = 36_500;

/// Whether a plan allows a film of this size; marks it where the plan marks films, and says how long it is kept. Gives what the plan allows. The transaction goes on
/// as of the tenant's identity service.
///
/// # Errors
/// `plan.limit`
pub async fn check_shape(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    spec: &mut RenderSpec,
) -> Result<Entitlements, Problem> {
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    let rights = subscription::rights(&mut *db, tenant_id, user_id).await?;
    let shorter = i64::from(spec.size[0].min(spec.size[1]));
    if let Some(most) = rights.get("max_resolution").filter(|most| shorter > **most) {
        let detail = format!("your plan allows films of {most} pixels, by the shorter side; this one has {shorter}");
        return Err(Problem::new(Code::PlanLimit, detail));
    }
    if rights.get("watermark").is_some_and(|mark| *mark > 0) && spec.watermark.is_none() {
        spec.watermark = tenant_branding::find(db, tenant_id).await?.map(|b| b.look.product_name);
        // A scene with a mark is none for other films, nor the other way round.
        spec.reuse = false;
    }
    let kept = rights.get("retention_days").map(|days| (*days).clamp(1, MOST_DAYS));
    spec.retention_days = kept.and_then(|days| u32::try_from(days).ok());
    Ok(rights)
}

/// Whether a plan allows one more film at a time. Orders of a person with such a plan take turns from here to the end of the
/// transaction, which goes on as of the tenant's renders.
///
/// # Errors
/// `plan.limit`
pub async fn check_turn(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, rights: &Entitlements) -> Result<(), Problem> {
    let Some(most) = rights.get("concurrency") else { return Ok(()) };
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    if bill::under_way(db, tenant_id, user_id).await? < *most {
        return Ok(());
    }
    let detail = format!("your plan allows {most} films at a time; wait until one has ended, or cancel one");
    Err(Problem::new(Code::PlanLimit, detail).with_header(header::RETRY_AFTER, SOON_SECONDS.into()))
}
