//! A proven film is published, and what was ordered with it is made of it.
//!
//! A film in which some frames are spoiled, as their node says only when they were accepted, is not published: it is made again with others.

use super::{
    FIRST, Made, Part, Source, all, encode_part, films,
    frames::{self, MOST_USES},
    join,
};
use crate::{
    contracts::media::DerivativeKind,
    definitions::{derive_film::DeriveFilm, limit},
    models::{
        Db, Role, Scope,
        render::{
            derivative,
            export::{self, NewExport},
            frame_job, render_job, scene_cache, stored_frame,
        },
        scope,
    },
};
use flatrender_engine::{Client, Context, Failure};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Publishes a film, once nothing in it is said to be spoiled; to make it again may take as long as to make it. From then on it can no longer be
/// cancelled.
pub(super) async fn publish(cx: &Context, id: Uuid, limit: Duration, mut made: Made) -> Result<Uuid, Failure> {
    let mut spoiled = vec![];
    for again in 1..=MOST_USES {
        let time = if again == 1 { FIRST.to_owned() } else { format!("_sound_{again}") };
        if !spoiled.is_empty() {
            let make = make_without(cx, id, &made, &spoiled, &time);
            made = limit::within(cx, &format!("limit{time}"), limit, make).await?;
        }
        match publish_if_sound(cx, id, &made, &time).await? {
            Published::Export(export_id) => return Ok(export_id),
            Published::Spoiled(frames) => spoiled = frames,
        }
    }
    Err(frames::repair_exhausted(&spoiled, &[]))
}

/// What came of publishing a film.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Published {
    /// It is: the export.
    Export(Uuid),
    /// It is not: these frames are spoiled, as is said since they were accepted.
    Spoiled(Vec<u32>),
}

async fn publish_if_sound(cx: &Context, id: Uuid, made: &Made, time: &str) -> Result<Published, Failure> {
    let (tenant_id, run_id, profile) = (made.job.tenant_id, cx.run_id(), made.job.spec.profile);
    let scope = films(cx);
    let publish = async move |db: Db<'_>| {
        let Made { video, probed, sheet, .. } = made;
        let new = NewExport { tenant_id, render_id: id, profile, video, sheet, probed };
        let publish = async |db: Db<'_>| -> Result<Published, Failure> {
            let spoiled = frame_job::spoiled(&mut *db, tenant_id, run_id, id).await?;
            if spoiled.is_empty() {
                let export_id = export::publish(&mut *db, &new).await?;
                // To publish may take a while. What was said meanwhile takes all of it back, and the next try finds it above.
                if !frame_job::spoiled_at_last(db, tenant_id, run_id, id).await?.is_empty() {
                    return Err(Failure::transient(
                        "render.spoiled",
                        "frames are said to be spoiled since a moment ago",
                    ));
                }
                return Ok(Published::Export(export_id));
            }
            stored_frame::forget(&mut *db, id, &spoiled).await?;
            scene_cache::let_go(db, tenant_id, id).await?;
            Ok(Published::Spoiled(spoiled))
        };
        scope.within(db, publish).await
    };
    cx.step(&format!("publish{time}"), publish).await
}

/// Makes a film again without frames that are said to be spoiled: they are rendered anew, and what they are in.
async fn make_without(cx: &Context, id: Uuid, made: &Made, spoiled: &[u32], time: &str) -> Result<Made, Failure> {
    let Made { job, parts, audio, .. } = made;
    let again = async |part: &Part| match &part.source {
        Source::Frames { range, frames } if spoiled.iter().any(|frame| range.contains(*frame)) => {
            encode_part(cx, id, job, *range, frames, spoiled, time).await
        }
        _ => Ok(part.clone()),
    };
    let parts = all(parts.iter().map(again)).await?;
    join(cx, id, job, parts, audio.clone(), time).await
}

/// Has made of the film what was ordered. Each is a run of its own, started where it is asked for: none of them keeps the film from being
/// finished.
pub(super) async fn derive(cx: &Context, id: Uuid, export_id: Uuid) -> Result<(), Failure> {
    let (tenant_id, scope) = (cx.tenant_id(), films(cx));
    // Films that were begun before the runs were started in the step start them after it.
    let at_once = cx.patched("derive in one commit").await;
    let ask = async move |db: Db<'_>| {
        let ask = async |db: Db<'_>| ask_for_derivatives(db, tenant_id, id, export_id).await;
        let asked = scope.within(&mut *db, ask).await?;
        if at_once && !asked.is_empty() {
            let (workflows, asked) = (cx.client()?, &asked);
            let start = async |db: Db<'_>| start_derivatives(&workflows, db, tenant_id, export_id, asked).await;
            Scope::tenant(Role::Workflow, tenant_id).within(db, start).await?;
        }
        Ok(asked)
    };
    let asked = cx.step("derive", ask).await?;
    for (kind, tries) in asked.into_iter().filter(|_| !at_once) {
        let film = DeriveFilm { export_id, kind };
        let key = film.business_key(tries);
        cx.start_detached(&format!("derive:{}", kind.name()), Some(&key), film).await?;
    }
    Ok(())
}

/// Has made what was ordered of a film that was published when the engine gave its run up, in the transaction that settles it; nothing of one
/// that was not published. Stays in the scope in which it is.
///
/// # Errors
/// Those of the database.
pub async fn derive_of_abandoned(workflows: &Client, db: Db<'_>, id: Uuid) -> Result<(), Failure> {
    scope::aside(db, async |db: Db<'_>| -> Result<(), Failure> {
        Scope::platform(Role::Render).enter(&mut *db).await?;
        let Some(film) = render_job::ended(&mut *db, id).await? else { return Ok(()) };
        let Some(export_id) = film.export_id else { return Ok(()) };
        Scope::tenant(Role::Render, film.tenant_id).enter(&mut *db).await?;
        let asked = ask_for_derivatives(&mut *db, film.tenant_id, id, export_id).await?;
        Scope::tenant(Role::Workflow, film.tenant_id).enter(&mut *db).await?;
        start_derivatives(workflows, db, film.tenant_id, export_id, &asked).await
    })
    .await
}

/// Asks for what was ordered with a film. What there is something to do about, and which try it is.
async fn ask_for_derivatives(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    export_id: Uuid,
) -> Result<Vec<(DerivativeKind, i32)>, Failure> {
    let mut asked = vec![];
    for kind in render_job::derivatives(&mut *db, id).await? {
        let tries = derivative::ask(&mut *db, tenant_id, export_id, kind).await?;
        asked.extend(tries.map(|tries| (kind, tries)));
    }
    Ok(asked)
}

async fn start_derivatives(
    workflows: &Client,
    db: Db<'_>,
    tenant_id: Uuid,
    export_id: Uuid,
    asked: &[(DerivativeKind, i32)],
) -> Result<(), Failure> {
    for (kind, tries) in asked {
        let film = DeriveFilm { export_id, kind: *kind };
        workflows.start(&mut *db, tenant_id, Some(&film.business_key(*tries)), film).await?;
    }
    Ok(())
}
