//! Whether an account at a gateway opens, asked right after somebody has said what it opens with: who mistypes a key hears of it before a
//! payer does.

use crate::{
    contracts::pay::{Account, CheckGateway},
    models::{Db, Role, Scope, identity::gateway},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Asks the gateway, and notes what it says with the account. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckAccount {
    /// The account.
    pub gateway_id: Uuid,
}

impl Workflow for CheckAccount {
    const NAME: &'static str = "check_gateway";
    /// Whether it opens; none when it was removed or changed meanwhile.
    type Output = Option<bool>;

    async fn run(self, cx: &Context) -> Result<Option<bool>, Failure> {
        let (scope, tenant_id, id) = (Scope::platform(Role::Identity), cx.tenant_id(), self.gateway_id);
        let account: Option<Account> = cx
            .step("account", async move |db: Db<'_>| {
                let find = async |db: Db<'_>| {
                    let found = gateway::find(db, id).await?.filter(|gateway| gateway.tenant_id == tenant_id);
                    Ok::<_, Failure>(found.and_then(|gateway| gateway.account()))
                };
                scope.within(db, find).await
            })
            .await?;
        let Some(account) = account else { return Ok(None) };
        let seen = match cx.activity("ask", CheckGateway { account: account.clone() }).await {
            Ok(facts) => Ok(facts.merchant),
            Err(failure) if failure.is_cancelled() => return Err(failure),
            Err(failure) => Err(failure.code),
        };
        let (seen, opens) = (&seen, seen.is_ok());
        let noted = cx
            .step("note", async move |db: Db<'_>| {
                let note =
                    async |db: Db<'_>| Ok::<_, Failure>(gateway::note_check(db, &account, seen.as_deref()).await?);
                scope.within(db, note).await
            })
            .await?;
        Ok(noted.then_some(opens))
    }
}
