//! Whether proven host names are still those of their tenants.

use crate::{
    contracts::dns::LookUpTexts,
    models::{
        Db, Role, Scope,
        identity::{
            audit::{self, Entry},
            tenant_domain::{self, Proven, Rechecked, record_of},
        },
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Names a run.
const MOST: i64 = 200;

/// Looks for the records of host names that were last looked for a day ago or earlier. A name whose record was missing three times
/// is nobody's any more: whoever owns it now may prove it, and it vouches for no address. One that nobody can tell of stays what it is.
/// Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecheckDomains {}

impl Workflow for RecheckDomains {
    const NAME: &'static str = "recheck_domains";
    /// Names that are nobody's any more.
    type Output = Vec<String>;

    async fn run(self, cx: &Context) -> Result<Vec<String>, Failure> {
        let scope = Scope::platform(Role::Identity);
        let due: Vec<Proven> = cx
            .step("due", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(tenant_domain::due(db, MOST).await?)).await
            })
            .await?;
        let mut lapsed = vec![];
        for domain in due {
            let question = LookUpTexts { name: record_of(&domain.hostname) };
            let seen = match cx.activity(&format!("look for {}", domain.id), question).await {
                Ok(texts) => Some(texts.contains(&domain.dns_token)),
                Err(failure) if failure.is_cancelled() => return Err(failure),
                Err(_) => None,
            };
            let id = domain.id;
            let lapses = cx
                .step(&format!("note {id}"), async move |db: Db<'_>| {
                    scope.within(db, async |db: Db<'_>| note(db, id, seen).await).await
                })
                .await?;
            lapsed.extend(lapses.then_some(domain.hostname));
        }
        Ok(lapsed)
    }
}

/// Keeps what was seen of a name; true when it is nobody's any more, which its tenant finds in its audit.
async fn note(db: Db<'_>, id: uuid::Uuid, seen: Option<bool>) -> Result<bool, Failure> {
    let Some(Rechecked { tenant_id, lapsed: true }) = tenant_domain::recheck(&mut *db, id, seen).await? else {
        return Ok(false);
    };
    let entry = Entry {
        tenant_id,
        actor: "system",
        action: "domain.lapse",
        object: &format!("domain:{id}"),
        reason: Some("its TXT record was missing three times"),
        before: None,
        after: None,
        ip: None,
        request_id: None,
    };
    audit::record(db, &entry).await?;
    Ok(true)
}
