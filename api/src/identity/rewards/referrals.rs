//! `/v1/referrals`

use crate::{
    app::App,
    auth::SignedIn,
    extract::Json,
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::identity::referral::{self, Joined, MOST_OPEN, Referral};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// An invitation of yours.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReferralView {
    /// Its id.
    id: Uuid,
    /// Always `referral`.
    #[schema(example = "referral")]
    object: &'static str,
    /// What the other one types. It is good for one person.
    #[schema(example = "K7QX2M9PRT")]
    code: String,
    /// `open`, `joined`, `rewarded` (with their first film or payment) or `refused`.
    #[schema(example = "open")]
    state: String,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<Referral> for ReferralView {
    fn from(r: Referral) -> Self {
        Self { id: r.id, object: "referral", code: r.code, state: r.state, created_at: r.created_at }
    }
}

/// Your invitations.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReferralList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first; the last hundred.
    data: Vec<ReferralView>,
    /// Always false.
    has_more: bool,
}

/// Who brought you.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The code that you were given.
    #[schema(example = "K7QX2M9PRT")]
    code: String,
}

/// `GET /v1/referrals`
#[utoipa::path(
    get, path = "/v1/referrals", tag = "Rewards", operation_id = "list_referrals", summary = "List your invitations",
    description = "And what became of them.", responses((status = 200, description = "The last hundred", body = ReferralList))
)]
pub async fn list(State(app): State<App>, person: SignedIn) -> Result<Json<ReferralList>, Problem> {
    let mut tx = super::begin(&app, &person).await?;
    let all = referral::list(&mut tx, person.tenant_id, person.user_id).await?;
    Ok(Json(ReferralList { object: "list", data: all.into_iter().map(Into::into).collect(), has_more: false }))
}

/// `POST /v1/referrals`
#[utoipa::path(
    post, path = "/v1/referrals", tag = "Rewards", operation_id = "create_referral", summary = "Invite somebody",
    description = "The code is good for one person. You have points once they have finished a film or paid something.",
    responses(
        (status = 201, description = "Made", body = ReferralView),
        (status = 409, description = "`referral.too_many`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(State(app): State<App>, person: SignedIn) -> Result<(StatusCode, Json<ReferralView>), Problem> {
    let mut tx = super::begin(&app, &person).await?;
    let made = referral::invite(&mut tx, person.tenant_id, person.user_id).await?;
    let full = || Problem::new(Code::ReferralsFull, format!("{MOST_OPEN} of your invitations have not been used yet"));
    let made = made.ok_or_else(full)?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// `POST /v1/referrals/join`: once, within a month of registering.
#[utoipa::path(
    post, path = "/v1/referrals/join", tag = "Rewards", operation_id = "join_by_referral", summary = "Say who brought you",
    description = "Once, within 30 days of registering. A code that is unknown and one that was used look the same.", request_body = Join,
    responses(
        (status = 204, description = "It counts"),
        (status = 404, description = "`referral.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`referral.self`, `referral.late`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn join(State(app): State<App>, person: SignedIn, Json(body): Json<Join>) -> Result<StatusCode, Problem> {
    let mut tx = super::begin(&app, &person).await?;
    match referral::join(&mut tx, person.tenant_id, person.user_id, &body.code).await? {
        Joined::Now => tx.commit().await?,
        Joined::Unknown => return Err(Problem::not_found(Code::ReferralNotFound, "invitation")),
        Joined::Oneself => return Err(Problem::new(Code::ReferralSelf, "nobody brings themselves")),
        Joined::Late => {
            let detail = "somebody brought you before, or you have been here for longer than 30 days";
            return Err(Problem::new(Code::ReferralLate, detail));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
