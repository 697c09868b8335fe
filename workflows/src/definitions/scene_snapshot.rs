//! A request for a still becomes a picture of its scene.
//!
//! ```text
//! render (a node, one frame) ─▶ make (a media worker, ffmpeg) ─▶ settle: picture kept, job done, scene shows it
//!    ▲                             │ frame lost                      one commit, with the record of the step
//!    └─────────────────────────────┘
//! ```

use super::{
    events::{self, Event},
    limit::{self, Limits},
};
use crate::{
    contracts::{
        media::FRAME_LOST,
        snapshot::{MadeStill, MakeStill, RenderStills, Still},
    },
    models::{
        Db, Role, Scope,
        render::{
            snapshot_batch::{self, Finished},
            snapshot_job,
            still_key::StillKey,
        },
    },
};
use flatrender_engine::{Client, Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// Makes the still of a scene, as it was when it was asked for. The scene shows it unless a newer one is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SceneSnapshot {
    /// The job.
    pub job_id: Uuid,
    /// What decides how the still looks.
    pub key: StillKey,
    /// What a node is asked for.
    pub work: RenderStills,
    /// Where the public reaches us: pictures are below `/snap/`. Without a slash at the end.
    pub base_url: String,
    /// How long it may take, in seconds; the usual time when it was asked for before that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_seconds: Option<u64>,
}

/// How often a frame is rendered that is lost before its pictures are made.
const MOST_RENDERS: u32 = 3;

/// What there is to show.
enum Shown {
    Made(MadeStill),
    Placeholder(String),
}

impl Workflow for SceneSnapshot {
    const NAME: &'static str = "scene_snapshot";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let limit = self.limit_seconds.map_or(Limits::default().still, Duration::from_secs);
        let shown = limit::within(cx, "limit", limit, produce(cx, &self)).await;
        let scope = Scope::tenant(Role::Render, cx.tenant_id());
        let (this, outcome, tenant_id) = (&self, shown.as_ref(), cx.tenant_id());
        cx.step("settle", async move |db: Db<'_>| {
            let settle = async |db: Db<'_>| settle(db, tenant_id, this, outcome).await;
            match scope.within(&mut *db, settle).await? {
                ended if ended.is_empty() => Ok(()),
                ended => Ok(tell(&cx.client()?, db, ended).await?),
            }
        })
        .await?;
        shown.map(drop)
    }
}

/// Tells of requests whose stills have all ended, in the transaction in which they have.
///
/// # Errors
/// Those of the database.
pub async fn tell(
    workflows: &Client,
    db: Db<'_>,
    ended: Vec<Finished>,
) -> Result<(), flatrender_engine::client::Error> {
    for batch in ended {
        let Finished { id: subject, tenant_id, project_id, asked_by: user_id, done, failed, finished_at: occurred_at } =
            batch;
        let data = json!({"object": "snapshot_batch", "project_id": project_id, "done": done, "failed": failed,
            "finished_at": occurred_at});
        let kind = "snapshot_batch.completed";
        let event = Event { tenant_id, kind, subject, user_id, data, occurred_at };
        events::happened(workflows, &mut *db, event).await?;
    }
    Ok(())
}

/// Ends the job, shows the picture if there is one, and ends the requests that waited for nothing else; gives those.
async fn settle(
    db: Db<'_>,
    tenant_id: Uuid,
    this: &SceneSnapshot,
    outcome: Result<&Shown, &Failure>,
) -> Result<Vec<Finished>, Failure> {
    let id = this.job_id;
    match outcome {
        Ok(Shown::Made(made)) => snapshot_job::publish(&mut *db, id, &this.key, made, &this.base_url).await?,
        Ok(Shown::Placeholder(url)) => snapshot_job::publish_placeholder(&mut *db, id, &this.key, url).await?,
        Err(failure) => snapshot_job::fail(&mut *db, id, failure).await?,
    }
    Ok(snapshot_batch::settle(db, tenant_id, id).await?)
}

async fn produce(cx: &Context, this: &SceneSnapshot) -> Result<Shown, Failure> {
    let mut round = 1;
    loop {
        let rendered = match cx.activity(&format!("render:{round}"), this.work.clone()).await? {
            Still::Rendered(rendered) => rendered,
            Still::Placeholder(url) => return Ok(Shown::Placeholder(url)),
        };
        let make = MakeStill { job_id: this.job_id, frame: rendered.frame, size: this.work.size };
        match cx.activity(&format!("make:{round}"), make).await {
            Err(failure) if failure.code == FRAME_LOST && round < MOST_RENDERS => round += 1,
            made => return made.map(Shown::Made),
        }
    }
}
