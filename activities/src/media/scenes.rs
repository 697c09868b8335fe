//! Carries encoded scenes between a render's shelf and those where a tenant keeps them. Contents are proven on the way.

use super::{Media, render, unless_ended};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::{
    media::{KeepScene, KeptScene, TakeScenes, TakenScenes},
    storage::{Shelf, StorageError},
};

const PART: &str = "part.mp4";

impl Handler<TakeScenes> for Media {
    async fn handle(&self, cx: &Attempt, input: TakeScenes) -> Result<TakenScenes, Failure> {
        let (shelf, total) = (render(cx, input.render_id), input.scenes.len() as u32);
        let mut taken = vec![];
        for (done, scene) in (1..).zip(input.scenes) {
            let carried =
                unless_ended(cx, async { Ok(self.carry(cx, &scene, &kept(cx, &scene), &shelf).await) }).await?;
            match carried {
                Ok(()) => taken.push(scene),
                Err(StorageError::NotFound(_) | StorageError::Mismatch { .. } | StorageError::TooLong { .. }) => {}
                Err(error) => return Err(crate::storage::failure(&error)),
            }
            cx.heartbeat(Progress { done, total, ..Progress::default() })?;
        }
        Ok(TakenScenes { taken })
    }
}

impl Handler<KeepScene> for Media {
    async fn handle(&self, cx: &Attempt, input: KeepScene) -> Result<(), Failure> {
        let KeepScene { render_id, scene } = input;
        let carried = async { Ok(self.carry(cx, &scene, &render(cx, render_id), &kept(cx, &scene)).await) };
        unless_ended(cx, carried).await?.map_err(|e| crate::storage::failure(&e))
    }
}

impl Media {
    async fn carry(&self, cx: &Attempt, scene: &KeptScene, from: &Shelf, to: &Shelf) -> Result<(), StorageError> {
        let scratch = self.scratch(cx).map_err(|f| StorageError::Io(f.message.into()))?;
        let path = scratch.path().join(PART);
        self.storage.fetch(from, &scene.part.blob.sha256, &path).await?;
        self.storage.put_file(to, &path).await.map(drop)
    }
}

/// The shelf where the tenant of this attempt keeps a scene.
fn kept(cx: &Attempt, scene: &KeptScene) -> Shelf {
    Shelf::Scene { tenant_id: cx.task().tenant_id, key: scene.key.clone() }
}
