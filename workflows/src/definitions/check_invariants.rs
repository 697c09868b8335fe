//! What is always true, looked at every night.

use crate::models::{
    Db, Role, Scope,
    invariants::{self, Breach},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Breaches that the failure names.
const NAMED: usize = 20;

/// Looks at every rule. A run that finds a breach fails with `platform.unsound`, which names it: somebody has to look.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckInvariants {
    /// Whether what only development may have is a breach.
    pub production: bool,
}

impl Workflow for CheckInvariants {
    const NAME: &'static str = "check_invariants";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let breaches: Vec<Breach> = cx
            .step("check", async move |db: Db<'_>| {
                let look = async |db: Db<'_>| Ok::<_, Failure>(invariants::check_in(db, self.production).await?);
                Scope::platform(Role::Admin).within(db, look).await
            })
            .await?;
        if breaches.is_empty() {
            return Ok(());
        }
        let named: Vec<&Breach> = breaches.iter().take(NAMED).collect();
        let failure = Failure::permanent("platform.unsound", format!("{} rows break a rule", breaches.len()));
        Err(failure.with_details(serde_json::json!({ "breaches": named })))
    }
}
