//! Films whose time is over.

use crate::models::{Db, Role, Scope, render::export};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Films a step.
const BATCH: u64 = 500;

/// Lets go of every film whose time is over, previews above all, with what was made of it. Its bytes follow through the queue of deletions.
/// Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireExports {}

impl Workflow for ExpireExports {
    const NAME: &'static str = "expire_exports";
    /// How many films.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let mut films = 0;
        for batch in 1.. {
            let expired = cx
                .step(&format!("batch {batch}"), async move |db: Db<'_>| {
                    let expire = async |db: Db<'_>| Ok::<_, Failure>(export::expire(db, BATCH as i64).await?);
                    Scope::platform(Role::Admin).within(db, expire).await
                })
                .await?;
            films += expired;
            if expired < BATCH {
                break;
            }
        }
        Ok(films)
    }
}
