//! Something happened, and people are told.
//!
//! ```text
//!   page of people ─▶ their messages, within the platform at once ─▶ a run each that carries it out ─▶ next page, as a new run
//! ```

use super::deliver::Deliver;
use crate::models::{
    Db,
    notification::{
        audience::{self, Audience, News},
        catalogue,
        delivery::SCOPE,
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Tells an audience of an event, each person once however often it is started. Each page is one commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notify {
    /// What happened, and who is told.
    pub news: News,
    /// Who was told last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Uuid>,
    /// How many were.
    #[serde(default)]
    pub told: u64,
}

impl Notify {
    /// Of this news.
    pub fn of(news: News) -> Self {
        Self { news, after: None, told: 0 }
    }

    /// Of an event, for whom it concerns: `user_id`, or whoever sees to things of its kind. None when nobody is told of it. `event_id` is the
    /// same for the same event.
    pub fn of_event(kind: &str, event_id: Uuid, user_id: Option<Uuid>, subject: Uuid, data: Value) -> Option<Self> {
        let found = catalogue::find(kind)?;
        let audience = match (found.category, user_id) {
            ("operation", _) => Audience::Operators,
            ("usage" | "integration", _) => Audience::Managers,
            (_, Some(id)) => Audience::User(id),
            // What keys of a tenant do is nobody's in particular; its money is theirs who see to it all the same.
            ("billing", None) => Audience::Treasurers,
            _ => return None,
        };
        Some(Self::of(News { event_id, code: kind.to_owned(), audience, subject: Some(subject), data }))
    }

    /// The business key: one run an event and kind.
    pub fn key(&self) -> String {
        format!("{}:{}", self.news.event_id, self.news.code)
    }
}

impl Workflow for Notify {
    const NAME: &'static str = "notify";
    /// How many people were told.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let kind = audience::kind(&self.news.code)?;
        let (tenant_id, this) = (cx.tenant_id(), &self);
        let page = cx
            .step("tell", async move |db: Db<'_>| {
                SCOPE.within(db, async |db: Db<'_>| audience::tell(db, tenant_id, &this.news, this.after).await).await
            })
            .await?;
        let told = self.told + page.told.len() as u64;
        if !kind.ways.is_empty() {
            let ways: Vec<Vec<_>> = kind.ways.iter().map(|way| way.to_vec()).collect();
            let runs =
                page.told.iter().map(|id| {
                    let (key, ways) = (format!("deliver:{id}"), ways.clone());
                    async move {
                        cx.start_detached(&key, Some(&key), Deliver { tenant_id, notification_id: *id, ways }).await
                    }
                });
            try_join_all(runs).await?;
        }
        match page.next {
            Some(after) => cx.continue_as_new(Self { after: Some(after), told, ..self }),
            None => Ok(told),
        }
    }
}
