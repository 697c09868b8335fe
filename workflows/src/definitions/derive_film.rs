//! Something else is made of a finished film. It goes its own way: the film stands, whatever comes of it.

use crate::{
    contracts::media::DerivativeKind,
    models::{Db, Role, Scope, render::derivative},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Makes a poster, a GIF, a small film, or one for editing of a finished film. Started in the transaction that asks for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeriveFilm {
    /// The finished film.
    pub export_id: Uuid,
    /// What to make.
    pub kind: DerivativeKind,
}

impl DeriveFilm {
    /// One run a try.
    pub fn business_key(&self, tries: i32) -> String {
        derivative::business_key(self.export_id, self.kind.name(), tries)
    }
}

impl Workflow for DeriveFilm {
    const NAME: &'static str = "derive_film";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let Self { export_id, kind } = self;
        let (tenant_id, scope) = (cx.tenant_id(), Scope::tenant(Role::Render, cx.tenant_id()));
        let work = async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| derivative::work(db, export_id, kind).await).await
        };
        let made = match cx.step("work", work).await {
            Ok(work) => cx.activity("make", work).await,
            Err(failure) => Err(failure),
        };
        let outcome = made.clone();
        let settle = async move |db: Db<'_>| {
            let settle =
                async |db: Db<'_>| Ok(derivative::settle(db, tenant_id, export_id, kind, outcome.as_ref()).await?);
            scope.within(db, settle).await
        };
        cx.step("settle", settle).await?;
        made.map(drop)
    }
}
