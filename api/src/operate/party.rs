//! Who looks after runs, and whose.

use crate::{
    admission,
    app::App,
    auth::{self, Actor, SignedIn},
    identity::{Change, Steward},
    problem::{Code, Problem},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use flatrender_engine::operations::By;
use flatrender_workflows::models::{DEFAULT_TENANT, Role, Scope, identity::user_session::ACCESS_KIND, scope::Scoped};
use serde::Serialize;
use uuid::Uuid;

/// What somebody may do with runs; whoever may do more may do all that comes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Sees them.
    Viewer,
    /// Tries them again and cancels them.
    Keeper,
    /// Sees to queues, priorities, and what is stuck. Of the platform.
    Operator,
    /// Says what runs are to believe: inputs, signals. Of the platform.
    Admin,
}

/// Somebody who looks at runs: of every tenant for whoever runs the platform, of their own for everybody else.
#[derive(Debug, Clone)]
pub struct Party {
    /// Whose they reach; none: everybody's.
    pub reach: Option<Uuid>,
    /// What they may do.
    pub rank: Rank,
    person: Option<SignedIn>,
    steward: Steward,
}

impl FromRequestParts<App> for Party {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = auth::bearer(&parts.headers)?;
        if !token.starts_with(ACCESS_KIND) {
            let holder = admission::by_key(app, parts, token, auth::wrong_key).await?;
            let steward = Steward::acting(holder.tenant_id, Actor::Key(holder.key_id), parts);
            return Ok(Self { reach: Some(holder.tenant_id), rank: Rank::Keeper, person: None, steward });
        }
        let person = SignedIn::from_request_parts(parts, app).await?;
        let has = |right: &str| person.rights.iter().any(|r| r == right);
        let of_platform = |right: &str| person.tenant_id == DEFAULT_TENANT && has(right);
        let (rank, wide) = match () {
            () if of_platform("administer") => (Rank::Admin, true),
            () if of_platform("operate") => (Rank::Operator, true),
            () if of_platform("observe") => (Rank::Viewer, true),
            () if has("manage") => (Rank::Keeper, false),
            () if has("read") => (Rank::Viewer, false),
            () => return Err(refused()),
        };
        admission::check_standing(&parts.method, person.suspended)?;
        if !parts.method.is_safe() && rank == Rank::Viewer {
            return Err(refused());
        }
        let steward = Steward::acting(person.tenant_id, Actor::User(person.user_id), parts);
        let reach = (!wide).then_some(person.tenant_id);
        Ok(Self { reach, rank, person: Some(person), steward })
    }
}

fn refused() -> Problem {
    Problem::new(Code::AuthForbidden, "your role does not let you do this")
}

impl Party {
    /// Whether they may do what takes this.
    ///
    /// # Errors
    /// `auth.forbidden`; `auth.step_up` for what only an admin may, who has to have proven of late that it is them.
    pub fn may(&self, rank: Rank) -> Result<(), Problem> {
        if self.rank < rank {
            return Err(refused());
        }
        match &self.person {
            Some(person) if rank == Rank::Admin => person.is_fresh(),
            _ => Ok(()),
        }
    }

    /// Whether they reach what is this tenant's.
    pub fn reaches(&self, tenant_id: Uuid) -> bool {
        self.reach.is_none_or(|own| own == tenant_id)
    }

    /// The tenant whose runs are meant: the one that was asked for, within their reach.
    ///
    /// # Errors
    /// `auth.forbidden`
    pub fn tenant(&self, asked: Option<Uuid>) -> Result<Option<Uuid>, Problem> {
        match (self.reach, asked) {
            (Some(own), Some(asked)) if own != asked => {
                Err(Problem::new(Code::AuthForbidden, "you reach the runs of your own tenant only"))
            }
            (own, asked) => Ok(own.or(asked)),
        }
    }

    /// Who they are, for the engine's audit.
    pub fn by(&self, reason: Option<String>) -> By {
        By { actor: self.steward.name().to_owned(), reason }
    }

    /// A transaction in which the engine's rows can be changed.
    ///
    /// # Errors
    /// The database cannot be reached.
    pub async fn begin(&self, app: &App) -> Result<Scoped, Problem> {
        Ok(app.db.begin(Scope::platform(Role::Workflow)).await?)
    }

    /// Writes down in the chain of the tenant that this was done, in the transaction of the deed, which ends with that.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn note<A: Serialize>(
        &self,
        tx: &mut Scoped,
        tenant_id: Option<Uuid>,
        deed: (&str, &str),
        reason: Option<&str>,
        after: A,
    ) -> Result<(), Problem> {
        let tenant_id = tenant_id.unwrap_or(DEFAULT_TENANT);
        Scope::tenant(Role::Identity, tenant_id).enter(tx).await?;
        let steward = self.steward.clone().at(tenant_id);
        let change = Change { before: None::<()>, after: Some(after) };
        match reason {
            Some(reason) => steward.record_because(tx, deed.0, deed.1, reason, change).await?,
            None => steward.record(tx, deed.0, deed.1, change).await?,
        }
        Ok(())
    }
}
