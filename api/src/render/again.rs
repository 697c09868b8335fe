//! Ordering a film again that failed, as whoever looks after runs tries it again: as it was frozen, in the name of who ordered it, at
//! their cost once it succeeds, within what they may have at a time.

use crate::{
    identity::{
        billing::{credits, limits},
        quotas,
    },
    problem::{Code, Problem},
};
use flatrender_engine::{
    Failure, Workflow,
    client::{Client, Run},
    operations::{Anew, OperationError},
};
use flatrender_workflows::{
    definitions::{limit::Limits, render_video::RenderVideo},
    models::{
        Db, Role, Scope,
        identity::{subscription, tenant},
        render::{
            again::{self, FailedFilm},
            bill, room,
        },
        scope,
    },
};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use std::sync::Arc;
use uuid::Uuid;

/// How films are done anew, for whoever tries runs again; they get the time that `limits` says.
pub fn films(limits: Limits) -> Arc<dyn Anew> {
    Arc::new(Films(limits))
}

#[derive(Debug)]
struct Films(Limits);

impl Anew for Films {
    fn does(&self, kind: &str) -> bool {
        kind == RenderVideo::NAME
    }

    fn start<'a>(
        &'a self,
        client: &'a Client,
        db: &'a mut PgConnection,
        failed: &'a Run,
    ) -> BoxFuture<'a, Result<Uuid, OperationError>> {
        Box::pin(async move {
            let order = async |db: Db<'_>| order(db, client, self.0, failed.tenant_id, failed.id).await;
            scope::aside(db, order).await.map_err(|problem: Problem| match problem.code() {
                Code::RunConflict => OperationError::Conflict(format!("run {}", failed.id)),
                code => OperationError::Refused(Failure {
                    retryable: code == Code::Unavailable,
                    // Of a quota, too, which is used up for whoever asks: one of many is not tried again for that.
                    retry_after_seconds: problem.retry_after_seconds(),
                    ..Failure::permanent(code.as_str(), problem.told())
                }),
            })
        })
    }
}

/// Whether the film of a run that failed may be ordered again as it was.
///
/// # Errors
/// Those of the database.
pub async fn may(db: Db<'_>, tenant_id: Uuid, run_id: Uuid) -> Result<bool, Problem> {
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    let film = again::find(&mut *db, tenant_id, run_id).await?;
    let Some(film) = film.filter(|film| !film.is_ordered_again) else { return Ok(false) };
    Ok(again::refuses(db, tenant_id, &film.spec).await?.is_none())
}

/// Orders the film of a run that failed again; gives the new run. Locks what orders lock, in their order, until the transaction ends.
async fn order(db: Db<'_>, client: &Client, limits: Limits, tenant_id: Uuid, failed: Uuid) -> Result<Uuid, Problem> {
    let refused = |why: &'static str| Problem::new(Code::RunNoCopies, why);
    let conflict = || Problem::new(Code::RunConflict, "the film was ordered again already");
    check_standing(&mut *db, tenant_id).await?;
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    let film = again::find(&mut *db, tenant_id, failed).await?;
    let FailedFilm { user_id, project_version_id, spec, is_ordered_again, .. } =
        film.ok_or_else(|| refused("its film has not failed, or is not there any more: order it anew"))?;
    if is_ordered_again {
        return Err(conflict());
    }
    if let Some(why) = again::refuses(&mut *db, tenant_id, &spec).await? {
        return Err(refused(why));
    }
    quotas::check_order(&mut *db, tenant_id).await?;
    if let Some(user_id) = user_id {
        Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
        let rights = subscription::rights(&mut *db, tenant_id, user_id).await?;
        limits::check_turn(&mut *db, tenant_id, user_id, &rights).await?;
    }
    let id = Uuid::now_v7();
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let workflow = RenderVideo::new(id, spec.kind, limits);
    let run_id = client.start(&mut *db, tenant_id, Some(&id.to_string()), workflow).await?.run_id;
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    if !again::insert(&mut *db, tenant_id, failed, id, run_id).await? {
        return Err(conflict());
    }
    let film = bill::Order { tenant_id, user_id, render_id: id, run_id, project_version_id, spec: &spec };
    credits::afforded(bill::hold(&mut *db, &film).await?)?;
    if !room::hold(&mut *db, tenant_id, id, &spec).await? {
        return Err(quotas::no_room_for_film(room::ordered_bytes(&spec)));
    }
    // Whoever purges files from here on waits for the tenant's turn, and finds the film. Who was faster is found here.
    if let Some(why) = again::refuses(db, tenant_id, &spec).await? {
        return Err(refused(why));
    }
    Ok(run_id)
}

/// Whether anything is made for a tenant, whoever asks for it: somebody of the platform may for any. The transaction goes on as of the
/// tenant's identity service.
///
/// # Errors
/// `tenant.suspended`
async fn check_standing(db: Db<'_>, tenant_id: Uuid) -> Result<(), Problem> {
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    match tenant::find(db, tenant_id).await? {
        Some(tenant) if tenant.status == "active" => Ok(()),
        Some(tenant) if tenant.status == "suspended" => {
            Err(Problem::new(Code::TenantSuspended, "the tenant is suspended: nothing is made for it"))
        }
        _ => Err(Problem::new(Code::TenantSuspended, "the tenant is closed: nothing is made for it any more")),
    }
}
