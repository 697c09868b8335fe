//! What was gathered is told together.

use super::deliver::Deliver;
use crate::models::{
    Db,
    notification::{delivery::SCOPE, digest},
};
use flatrender_engine::{Context, Failure, Workflow};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};

/// Rounds of a run; the next run goes on.
const ROUNDS: usize = 100;

/// Makes the digests that are due and has them carried out. An item is in one digest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SendDigests {}

impl Workflow for SendDigests {
    const NAME: &'static str = "send_digests";
    /// How many.
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        let mut sent = 0;
        for round in 1..=ROUNDS {
            let made = cx
                .step(&format!("make {round}"), async move |db: Db<'_>| {
                    SCOPE.within(db, async |db: Db<'_>| digest::make(db).await).await
                })
                .await?;
            let runs = made.iter().map(async |digest| {
                let key = format!("deliver:{}", digest.notification_id);
                let digest::Made { tenant_id, notification_id, channel } = *digest;
                let deliver = Deliver { tenant_id, notification_id, ways: vec![vec![channel]] };
                cx.start_detached(&key, Some(&key), deliver).await
            });
            try_join_all(runs).await?;
            sent += made.len();
            if made.is_empty() {
                break;
            }
        }
        Ok(sent)
    }
}
