//! What people earn: `/v1/me/progress`, `/v1/achievements`, `/v1/gifts`, `/v1/referrals`.

pub mod achievements;
pub mod gifts;
pub mod progress;
pub mod referrals;

use crate::{app::App, auth::SignedIn, problem::Problem};
use flatrender_workflows::models::{Role, Scope, scope::Scoped};

/// A transaction of the person's tenant.
async fn begin(app: &App, person: &SignedIn) -> Result<Scoped, Problem> {
    Ok(app.db.begin(Scope::tenant(Role::Identity, person.tenant_id)).await?)
}

/// Whether a code is 1 to 64 of `a-z 0-9 _`.
fn check_code(code: &str) -> Result<(), Problem> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    match (1..=64).contains(&code.len()) && code.bytes().all(fits) {
        true => Ok(()),
        false => Err(Problem::fault("/code", "code.shape", "a code is 1 to 64 of a-z 0-9 _")),
    }
}
