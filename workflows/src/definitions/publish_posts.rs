//! Posts whose time has come.

use crate::models::{Db, Role, Scope, content::post};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Posts a step.
const BATCH: i64 = 500;

/// Publishes every post that was scheduled for now or earlier, of all tenants. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishPosts {}

impl Workflow for PublishPosts {
    const NAME: &'static str = "publish_posts";
    /// How many posts.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let mut posts = 0;
        for batch in 1.. {
            let published = cx
                .step(&format!("batch {batch}"), async move |db: Db<'_>| {
                    let publish = async |db: Db<'_>| Ok::<_, Failure>(post::publish_due(db, BATCH).await?);
                    Scope::platform(Role::Content).within(db, publish).await
                })
                .await?;
            posts += published;
            if published < BATCH as u64 {
                break;
            }
        }
        Ok(posts)
    }
}
