//! Sending letters: a link is made and its letter is started in the transaction of what they tell of.

use super::branding;
use crate::{app::App, problem::Problem};
use flatrender_workflows::{
    contracts::message::{Brand, Letter, SendMail},
    definitions::send_message::SendMessage,
    models::{
        Db, Role, Scope, Secret,
        identity::{
            auth_challenge::{self, Challenge, Kind},
            tenant_branding,
            user::User,
        },
    },
};
use uuid::Uuid;

/// Starts a letter to `to`. The transaction goes on as of the identity of the person's tenant. After its commit, call
/// `app.workflows.announce()`.
pub(super) async fn send(app: &App, db: Db<'_>, user: &User, to: &str, letter: Letter) -> Result<(), Problem> {
    let id = Uuid::now_v7();
    let sender = tenant_branding::find(&mut *db, user.tenant_id).await?.ok_or(sqlx::Error::RowNotFound)?;
    let brand = Brand {
        logo: branding::address(&sender.slug, "logo", sender.look.logo_file_id),
        color: sender.look.primary_color,
        support_email: sender.look.support_email,
        footer: sender.look.legal_footer,
    };
    let product = sender.look.product_name;
    let mail = SendMail { id, to: to.to_owned(), locale: user.locale.clone(), product, brand, letter };
    Scope::tenant(Role::Workflow, user.tenant_id).enter(&mut *db).await?;
    app.workflows.start(&mut *db, user.tenant_id, Some(&id.to_string()), SendMessage { mail }).await?;
    Scope::tenant(Role::Identity, user.tenant_id).enter(db).await?;
    Ok(())
}

/// Tells a person of their account, if they have an address. The transaction goes on as with [`send`].
pub(super) async fn tell(app: &App, db: Db<'_>, user: &User, letter: Letter) -> Result<(), Problem> {
    match &user.email {
        Some(email) => send(app, db, user, email, letter).await,
        None => Ok(()),
    }
}

/// Makes a link to prove the address `email` and sends it there.
pub(super) async fn prove(app: &App, db: Db<'_>, user: &User, email: &str) -> Result<(), Problem> {
    let link = issue(app, &mut *db, Kind::VerifyEmail, user, Some(email)).await?;
    send(app, db, user, email, Letter::VerifyEmail { link }).await
}

/// Makes a link to set a password and sends it to the person's address.
pub(super) async fn reset(app: &App, db: Db<'_>, user: &User, email: &str) -> Result<(), Problem> {
    let link = issue(app, &mut *db, Kind::Reset, user, None).await?;
    send(app, db, user, email, Letter::ResetPassword { link }).await
}

/// Makes a link for somebody who was invited and sends it to them.
pub(super) async fn invite(app: &App, db: Db<'_>, user: &User, email: &str) -> Result<(), Problem> {
    let link = issue(app, &mut *db, Kind::Invitation, user, None).await?;
    send(app, db, user, email, Letter::Invitation { link }).await
}

async fn issue(app: &App, db: Db<'_>, kind: Kind, user: &User, email: Option<&str>) -> Result<Uuid, Problem> {
    let challenge = Challenge { email: email.map(str::to_owned), ..Challenge::of(user.tenant_id, user.id) };
    auth_challenge::issue(db, kind, &challenge, &Secret::hash_of(&app.vault.link(challenge.id))).await?;
    Ok(challenge.id)
}
