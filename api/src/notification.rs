//! What people are told, and how: `/v1/notifications`, their wishes, browsers and chats, and what a tenant has of its own for it.

pub mod accounts;
pub mod broadcasts;
pub mod browsers;
pub mod chats;
pub mod feedback;
pub mod inbox;
pub mod preferences;
pub mod stream;
pub mod suppressions;
pub mod templates;
pub mod unsubscribe;

use crate::{
    app::App,
    auth::SignedIn,
    identity::Steward,
    problem::{Code, Problem},
};
use flatrender_workflows::{
    contracts::notify::Channel,
    models::{Role, Scope, notification::catalogue, scope::Scoped},
};

/// A transaction of the notifications that sees the tenant of a person.
async fn begin(app: &App, me: &SignedIn) -> Result<Scoped, Problem> {
    Ok(app.db.begin(Scope::tenant(Role::Notification, me.tenant_id)).await?)
}

/// The same for who manages a tenant.
async fn manage(app: &App, steward: &Steward) -> Result<Scoped, Problem> {
    Ok(app.db.begin(Scope::tenant(Role::Notification, steward.tenant_id)).await?)
}

/// What an address names as a channel.
fn channel(text: &str) -> Result<Channel, Problem> {
    text.parse().map_err(|_| Problem::not_found(Code::NotificationNotFound, "channel"))
}

/// What an address names as a category.
fn category(text: &str) -> Result<&'static str, Problem> {
    let found = catalogue::categories().iter().find(|category| **category == text);
    found.copied().ok_or_else(|| Problem::not_found(Code::NotificationNotFound, "category"))
}
