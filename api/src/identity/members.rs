//! `/v1/members`: the people of a tenant and their roles.

use super::{
    Steward, Trustee, account, letters, quotas,
    steward::{Change, made},
};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    limits::{self, Notes},
    problem::{Code, Problem, ProblemBody},
};
use axum::{Extension, extract::State, http::StatusCode};
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::{
        rate_bucket::{self, Rate},
        role_binding::{self, Member},
        user::{self, NewUser},
        user_session,
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The rank of an API key that manages: that of the role `admin`.
const RANK_OF_A_KEY: i32 = 40;
/// Invitations that one tenant may send.
const OF_INVITATIONS: Rate = Rate { limit: 100.0, window_seconds: 3600.0 };

/// A person of the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct MemberView {
    /// Their id.
    id: Uuid,
    /// Always `member`.
    #[schema(example = "member")]
    object: &'static str,
    /// Their address.
    #[schema(example = "jane@example.com")]
    email: Option<String>,
    /// What they are called.
    #[schema(example = "Jane")]
    display_name: String,
    /// `invited`, `active`, `locked` or `disabled`.
    #[schema(example = "active")]
    status: String,
    /// Their roles, the highest first.
    #[schema(example = json!(["editor"]))]
    roles: Vec<String>,
}

impl From<Member> for MemberView {
    fn from(m: Member) -> Self {
        let Member { id, email, display_name, status, roles, .. } = m;
        Self { id, object: "member", email, display_name, status, roles }
    }
}

/// Somebody to be invited.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteMember {
    /// Their address.
    #[schema(example = "jane@example.com")]
    email: String,
    /// What they are called.
    #[schema(example = "Jane", max_length = 200)]
    #[serde(default)]
    display_name: String,
    /// The language of their mail, by BCP 47; English when absent.
    #[schema(example = "fa")]
    locale: Option<String>,
    /// What they are to be: of `viewer billing editor admin owner`.
    #[schema(example = json!(["editor"]))]
    roles: Vec<String>,
}

/// What somebody is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRoles {
    /// Of `viewer billing editor admin owner`.
    #[schema(example = json!(["viewer", "billing"]))]
    roles: Vec<String>,
}

/// Which people to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListMembers {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those after this person: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `GET /v1/members`
#[utoipa::path(
    get, path = "/v1/members", tag = "Tenant", operation_id = "list_members", summary = "List the people of the tenant",
    description = "In the order in which they came, a page at a time; those without a role, too.", params(ListMembers),
    responses((status = 200, description = "A page", body = Page<MemberView>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListMembers>,
) -> Result<Json<Page<MemberView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let members = role_binding::members(&mut tx, steward.tenant_id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(members, size, |m| m.id.to_string())))
}

/// `POST /v1/members`: gives somebody roles; who is new gets a letter with a link to set a password.
#[utoipa::path(
    post, path = "/v1/members", tag = "Tenant", operation_id = "invite_member", summary = "Invite somebody",
    description = "Who is new gets a letter with a link to set a password, good for three days. Who is there gets the roles. At most a \
                   hundred an hour.",
    request_body = InviteMember,
    responses(
        (status = 201, description = "Invited", body = MemberView),
        (status = 403, description = "`auth.step_up`, `member.outranked`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`quota.seats`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`rate.limited`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn invite(
    State(app): State<App>,
    steward: Trustee,
    Extension(notes): Extension<Notes>,
    Json(body): Json<InviteMember>,
) -> Result<(StatusCode, Json<MemberView>), Problem> {
    let email = account::email("/email", &body.email)?;
    let locale = body.locale.as_deref().unwrap_or("en");
    account::check_profile(Some(&body.display_name), Some(locale), None)?;
    take_invitation(&app, &steward, &notes).await?;
    let mut tx = steward.begin(&app).await?;
    let new = NewUser { email: &email, display_name: body.display_name.trim(), locale };
    let created = user::create(&mut tx, steward.tenant_id, new).await?;
    let user = user::by_email(&mut tx, steward.tenant_id, &email).await?.ok_or_else(missing)?;
    let before = changeable(&mut tx, &steward, user.id).await?;
    check_roles(&mut tx, &steward, &body.roles).await?;
    let mut roles = before.roles.clone();
    roles.extend(body.roles.iter().filter(|role| !before.roles.contains(role)).cloned());
    let member = apply(&mut tx, &steward, &before, &roles).await?;
    if user.status == "disabled" {
        role_binding::set_active(&mut tx, user.id, true).await?;
    }
    let member = Member { status: found(&mut tx, steward.tenant_id, user.id).await?.status, ..member };
    if created.is_some() || member.status == "invited" {
        letters::invite(&app, &mut tx, &user, user.email.as_deref().unwrap_or_default()).await?;
    }
    steward.record(&mut tx, "member.invite", &object(user.id), made(&member)).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::CREATED, Json(member.into())))
}

/// `PUT /v1/members/{id}/roles`: counts from the person's next request on.
#[utoipa::path(
    put, path = "/v1/members/{id}/roles", tag = "Tenant", operation_id = "set_member_roles", summary = "Say what somebody is",
    description = "Counts from the person's next request on. Nobody gives or takes what is above their own role, and somebody owns the tenant.",
    params(("id" = Uuid, Path, description = "The person")), request_body = SetRoles,
    responses(
        (status = 200, description = "The person, afterwards", body = MemberView),
        (status = 403, description = "`auth.step_up`, `member.outranked`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`member.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`member.last_owner`, `quota.seats`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set_roles(
    State(app): State<App>,
    steward: Trustee,
    Path(id): Path<Uuid>,
    Json(body): Json<SetRoles>,
) -> Result<Json<MemberView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = changeable(&mut tx, &steward, id).await?;
    check_roles(&mut tx, &steward, &body.roles).await?;
    let after = apply(&mut tx, &steward, &before, &body.roles).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "member.set_roles", &object(id), change).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// `DELETE /v1/members/{id}`: takes every role, and ends every session.
#[utoipa::path(
    delete, path = "/v1/members/{id}", tag = "Tenant", operation_id = "remove_member", summary = "Remove somebody",
    description = "They lose their roles and sessions, and cannot sign in any more. What they made stays.",
    params(("id" = Uuid, Path, description = "The person")),
    responses(
        (status = 204, description = "Removed"),
        (status = 403, description = "`auth.step_up`, `member.outranked`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`member.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`member.last_owner`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, steward: Trustee, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = changeable(&mut tx, &steward, id).await?;
    apply(&mut tx, &steward, &before, &[]).await?;
    role_binding::set_active(&mut tx, id, false).await?;
    user_session::revoke_all(&mut tx, id, None, "removed from the tenant").await?;
    let after = found(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: Some(&after) };
    steward.record(&mut tx, "member.remove", &object(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Letters go to whom the tenant names: so many an hour.
async fn take_invitation(app: &App, steward: &Steward, notes: &Notes) -> Result<(), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let budget =
        rate_bucket::take_public(&mut tx, "invitations", &steward.tenant_id.to_string(), OF_INVITATIONS).await?;
    tx.commit().await?;
    limits::settle(notes, vec![budget])
}

/// A person whom this steward may change: nobody changes those above them.
pub(super) async fn changeable(db: Db<'_>, steward: &Steward, id: Uuid) -> Result<Member, Problem> {
    let member = role_binding::member_to_change(&mut *db, steward.tenant_id, id).await?.ok_or_else(missing)?;
    if member.rank > rank(db, steward).await? {
        return Err(outranked());
    }
    Ok(member)
}

async fn rank(db: Db<'_>, steward: &Steward) -> Result<i32, Problem> {
    let Some(user_id) = steward.user_id else { return Ok(RANK_OF_A_KEY) };
    Ok(role_binding::member(db, steward.tenant_id, user_id).await?.map_or(0, |m| m.rank))
}

async fn check_roles(db: Db<'_>, steward: &Steward, roles: &[String]) -> Result<(), Problem> {
    let known = role_binding::roles(&mut *db).await?;
    let own = rank(db, steward).await?;
    for (i, role) in roles.iter().enumerate() {
        let Some(found) = known.iter().find(|k| k.name == *role) else {
            let names: Vec<_> = known.iter().map(|k| k.name.as_str()).collect();
            let detail = format!("there is no role {role:?}; there are {}", names.join(", "));
            return Err(Problem::fault(format!("/roles/{i}"), "role.unknown", detail));
        };
        if found.rank > own {
            return Err(outranked());
        }
    }
    Ok(())
}

async fn apply(db: Db<'_>, steward: &Steward, before: &Member, roles: &[String]) -> Result<Member, Problem> {
    if !role_binding::set(&mut *db, steward.tenant_id, before.id, roles, steward.user_id).await? {
        return Err(Problem::new(
            Code::MemberLastOwner,
            "somebody has to own the tenant: make another person its owner first",
        ));
    }
    if before.roles.is_empty() && !roles.is_empty() {
        quotas::check_seats(&mut *db, steward.tenant_id).await?;
    }
    found(db, steward.tenant_id, before.id).await
}

pub(super) async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Member, Problem> {
    role_binding::member(db, tenant_id, id).await?.ok_or_else(missing)
}

fn outranked() -> Problem {
    Problem::new(Code::MemberOutranked, "nobody gives or takes what is above their own role")
}

fn missing() -> Problem {
    Problem::not_found(Code::MemberNotFound, "person in the tenant")
}

pub(super) fn object(id: Uuid) -> String {
    format!("user:{id}")
}
