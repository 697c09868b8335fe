//! Films whose time is over.

use super::events::{self, Event};
use crate::models::{
    Db, Role, Scope,
    render::export::{self, Expiring},
};
use flatrender_engine::{Client, Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Films a step.
const BATCH: u64 = 500;
/// Films a step that somebody is told of.
const TOLD: u64 = 100;

/// Tells whose film goes within a day, once, and lets go of every film whose time is over, previews above all, with what was made of it. Its bytes follow through the queue of deletions.
/// Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExpireExports {}

impl Workflow for ExpireExports {
    const NAME: &'static str = "expire_exports";
    /// How many films.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        for batch in 1.. {
            let told = cx
                .step(&format!("warn {batch}"), async move |db: Db<'_>| {
                    let client = cx.client()?;
                    Scope::platform(Role::Admin).within(db, async |db: Db<'_>| warn(&client, db).await).await
                })
                .await?;
            if told < TOLD {
                break;
            }
        }
        let mut films = 0;
        for batch in 1.. {
            let expired = cx
                .step(&format!("batch {batch}"), async move |db: Db<'_>| {
                    let expire = async |db: Db<'_>| Ok::<_, Failure>(export::expire(db, BATCH as i64).await?);
                    Scope::platform(Role::Admin).within(db, expire).await
                })
                .await?;
            films += expired;
            // Of a full batch some may have been held meanwhile: only nothing is the end.
            if expired == 0 {
                break;
            }
        }
        Ok(films)
    }
}

async fn warn(client: &Client, db: Db<'_>) -> Result<u64, Failure> {
    let expiring = export::warn(&mut *db, TOLD as i64).await?;
    let count = expiring.len() as u64;
    for film in expiring {
        let Expiring { id, tenant_id, render_id, user_id, template, expires_at, warned_at } = film;
        let expires = expires_at.format("%Y-%m-%d %H:%M UTC").to_string();
        let data = json!({"object": "export", "render_id": render_id, "expires_at": expires_at, "title": template, "expires": expires});
        let event = Event { tenant_id, kind: "export.expiring", subject: id, user_id, data, occurred_at: warned_at };
        events::happened(client, &mut *db, event).await?;
    }
    Ok(count)
}
