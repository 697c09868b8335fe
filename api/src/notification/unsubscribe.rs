//! `/v1/unsubscribe`: no more of a kind by e-mail, at one click (RFC 8058). Whoever has the address may: it stands in that person's mails.

use crate::{
    app::App,
    extract::Query,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{Html, IntoResponse as _, Response},
};
use flatrender_activities::notify::email::unsubscribe_purpose;
use flatrender_workflows::models::{
    Role, Scope,
    notification::{catalogue, preference, suppression},
};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use utoipa::IntoParams;
use uuid::Uuid;

/// Who wants no more of what.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Unsubscribe {
    /// Who, as it stands in the mail.
    user: String,
    /// Of what.
    #[param(example = "news")]
    category: String,
    /// What only we can make.
    mark: String,
}

impl Unsubscribe {
    /// Who it is, when the mark is ours.
    fn check(&self, app: &App) -> Result<Uuid, Problem> {
        let user_id = self.user.parse().unwrap_or_default();
        let right = app.vault.mark(&unsubscribe_purpose(user_id, &self.category));
        let fits: bool = right.as_bytes().ct_eq(self.mark.as_bytes()).into();
        if fits { Ok(user_id) } else { Err(Problem::not_found(Code::UnsubscribeInvalid, "address to unsubscribe")) }
    }
}

/// `GET /v1/unsubscribe`: a page with a button. It changes nothing: programs look at links in mails, too.
#[utoipa::path(
    get, path = "/v1/unsubscribe", tag = "Notifications", operation_id = "show_unsubscribe", summary = "Ask to unsubscribe", security(()),
    description = "A page with a button. It changes nothing by itself.", params(Unsubscribe),
    responses(
        (status = 200, description = "A page", body = String, content_type = "text/html"),
        (status = 404, description = "`unsubscribe.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn show(State(app): State<App>, Query(who): Query<Unsubscribe>) -> Result<Response, Problem> {
    who.check(&app)?;
    // The address of the form is the one of the page.
    let page = "<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Unsubscribe</title>\
                <form method=\"post\"><p>No more e-mail of this kind? <span lang=\"fa\" dir=\"rtl\">دیگر از این دست ایمیل نفرستیم؟</span></p>\
                <button>Unsubscribe · لغو</button></form>";
    let policy = HeaderValue::from_static("default-src 'none'; form-action 'self'; frame-ancestors 'none'");
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response())
}

/// `POST /v1/unsubscribe`: what a mail program does at one click.
#[utoipa::path(
    post, path = "/v1/unsubscribe", tag = "Notifications", operation_id = "unsubscribe", summary = "Unsubscribe", security(()),
    description = "As a mail program calls it (RFC 8058); its body says nothing. The person is told no more of this category by e-mail, but \
                   for what is critical; of a digest, no more of all that is gathered for them. Repeating it is harmless.",
    params(Unsubscribe),
    responses(
        (status = 200, description = "It is so", body = String, content_type = "text/plain"),
        (status = 404, description = "`unsubscribe.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn unsubscribe(
    State(app): State<App>,
    Query(who): Query<Unsubscribe>,
) -> Result<([(HeaderName, HeaderValue); 1], &'static str), Problem> {
    let user_id = who.check(&app)?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenant_id = suppression::tenant_of(&mut tx, user_id).await?;
    // Who is deleted is told nothing anyway.
    if let Some(tenant_id) = tenant_id {
        Scope::tenant(Role::Notification, tenant_id).enter(&mut tx).await?;
        match who.category.as_str() {
            catalogue::DIGEST => preference::opt_out_of_digests(&mut tx, tenant_id, user_id, "email").await?,
            category => preference::opt_out(&mut tx, tenant_id, user_id, category, "email").await?,
        }
        tx.commit().await?;
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], "No more of this kind. · دیگر از این دست نمی‌فرستیم.\n"))
}
