//! Removes what a render needed only while it ran.

use super::{Media, render, unless_ended};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::media::ClearShelf;

impl Handler<ClearShelf> for Media {
    async fn handle(&self, cx: &Attempt, input: ClearShelf) -> Result<(), Failure> {
        let shelf = render(cx, input.render_id);
        let cleared = async { self.storage.clear(&shelf).await.map_err(|e| crate::storage::failure(&e)) };
        unless_ended(cx, cleared).await
    }
}
