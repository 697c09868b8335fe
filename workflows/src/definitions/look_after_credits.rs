//! What credits and subscriptions lose when something dies is found again.

use super::subscription::keep;
use crate::models::{
    Db, Role, Scope,
    identity::{
        credit::{self, Looked},
        subscription::{self, Unkept},
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Holds and subscriptions a run.
const MOST: i64 = 500;

/// Frees credits that are held for runs that are over or gone, and starts the runs of subscriptions that have none, or whose run was
/// lost. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LookAfterCredits {}

impl Workflow for LookAfterCredits {
    const NAME: &'static str = "look_after_credits";
    type Output = Looked;

    async fn run(self, cx: &Context) -> Result<Looked, Failure> {
        let scope = Scope::platform(Role::Identity);
        let looked = cx
            .step("holds", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(credit::look_after(db, MOST).await?)).await
            })
            .await?;
        let unkept: Vec<Unkept> = cx
            .step("unkept", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(subscription::unkept(db, MOST).await?)).await
            })
            .await?;
        for Unkept { tenant_id, id, was_kept_by } in unkept {
            // In the subscription's tenant, not in ours: whoever wakes it looks for it there.
            let scope = Scope::tenant(Role::Identity, tenant_id);
            cx.step(&format!("keep {id}"), async move |db: Db<'_>| {
                let keep = async |db: Db<'_>| keep(&cx.client()?, db, tenant_id, id, was_kept_by).await;
                scope.within(db, keep).await
            })
            .await?;
        }
        Ok(looked)
    }
}
