//! `/v1/files/{id}/share-links`: what lets somebody without an account have a file.

use super::tree::Thing;
use crate::{
    app::App,
    auth::{Editor, Viewer},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Db, Role,
    file_mgr::{
        file,
        share_link::{self, LIVE_LINKS, ShareLink},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How long a link works when nobody says.
const USUAL_SECONDS: i32 = 7 * 24 * 3600;
/// The shortest and the longest time.
const SECONDS: std::ops::RangeInclusive<i32> = 60..=366 * 24 * 3600;
/// Most downloads that can be counted.
const DOWNLOADS: std::ops::RangeInclusive<i32> = 1..=1_000_000;

/// A link to a file, without what it takes to follow it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShareLinkView {
    /// Its id.
    id: Uuid,
    /// Always `share_link`.
    #[schema(example = "share_link")]
    object: &'static str,
    /// The file.
    file_id: Uuid,
    /// Until when it works.
    expires_at: DateTime<Utc>,
    /// How often it works; null: as often as somebody likes.
    #[schema(example = 5)]
    max_downloads: Option<i32>,
    /// How often it did.
    #[schema(example = 0)]
    downloads: i32,
    /// When somebody ended it.
    revoked_at: Option<DateTime<Utc>>,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<ShareLink> for ShareLinkView {
    fn from(l: ShareLink) -> Self {
        Self {
            id: l.id,
            object: "share_link",
            file_id: l.file_id,
            expires_at: l.expires_at,
            max_downloads: l.max_downloads,
            downloads: l.used,
            revoked_at: l.revoked_at,
            created_at: l.created_at,
        }
    }
}

/// A new link and where it leads.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewShareLinkView {
    /// What is known of it.
    #[serde(flatten)]
    link: ShareLinkView,
    /// Where anybody gets the file. It is shown this once and cannot be had again.
    #[schema(example = "https://films.example/share/fr_share_…")]
    url: String,
}

/// A link to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateShareLink {
    /// How long it works, 60 s to 366 days; 7 days when absent.
    #[schema(example = 86_400, minimum = 60, maximum = 31_622_400)]
    expires_in_seconds: Option<i32>,
    /// How often it works; as often as somebody likes when absent. Then it gives the file as a whole only.
    #[schema(example = 5, minimum = 1, maximum = 1_000_000)]
    max_downloads: Option<i32>,
}

/// Which links to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListShareLinks {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those made after this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `POST /v1/files/{id}/share-links`
#[utoipa::path(
    post, path = "/v1/files/{id}/share-links", tag = "Files", operation_id = "create_share_link", summary = "Share a file",
    description = "Whoever has the address gets the file, until it expires, is used up or revoked. It is shown this once. At most 20 \
                   links of a file work at the same time.",
    params(("id" = Uuid, Path, description = "The file")), request_body = CreateShareLink,
    responses(
        (status = 201, description = "Made", body = NewShareLinkView),
        (status = 404, description = "`file.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`file.in_trash`, `share_link.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
    Json(body): Json<CreateShareLink>,
) -> Result<(StatusCode, Json<NewShareLinkView>), Problem> {
    let seconds = body.expires_in_seconds.unwrap_or(USUAL_SECONDS);
    if !SECONDS.contains(&seconds) {
        return Err(Problem::fault("/expires_in_seconds", "seconds.range", "a link works for 60 to 31622400 seconds"));
    }
    if body.max_downloads.is_some_and(|n| !DOWNLOADS.contains(&n)) {
        return Err(Problem::fault("/max_downloads", "share_link.downloads", "a link works 1 to 1000000 times"));
    }
    let mut tx = app.begin(&tenant, Role::File).await?;
    if found(&mut tx, tenant.id, id).await?.state == "trashed" {
        return Err(Problem::new(Code::FileInTrash, "it is in the trash: restore it first"));
    }
    let made = share_link::create(&mut tx, tenant.id, id, seconds, body.max_downloads).await?;
    let (link, token) = made.ok_or_else(|| {
        Problem::new(Code::ShareLinksFull, format!("{LIVE_LINKS} links of the file work already; revoke one"))
    })?;
    tx.commit().await?;
    let url = format!("{}/share/{}", app.public_url, token.reveal());
    Ok((StatusCode::CREATED, Json(NewShareLinkView { link: link.into(), url })))
}

/// `GET /v1/files/{id}/share-links`
#[utoipa::path(
    get, path = "/v1/files/{id}/share-links", tag = "Files", operation_id = "list_share_links", summary = "List the links to a file",
    description = "In the order in which they were made, a page at a time; also those that work no more.",
    params(("id" = Uuid, Path, description = "The file"), ListShareLinks),
    responses((status = 200, description = "A page", body = Page<ShareLinkView>))
)]
pub async fn list(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
    Query(query): Query<ListShareLinks>,
) -> Result<Json<Page<ShareLinkView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.begin(&tenant, Role::File).await?;
    found(&mut tx, tenant.id, id).await?;
    let links = share_link::list(&mut tx, tenant.id, id, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(links, size, |l| l.id.to_string())))
}

/// `DELETE /v1/files/{id}/share-links/{link_id}`: it works no more.
#[utoipa::path(
    delete, path = "/v1/files/{id}/share-links/{link_id}", tag = "Files", operation_id = "revoke_share_link", summary = "Revoke a link",
    description = "It works no more; a download under way goes on. Asking twice is harmless.",
    params(("id" = Uuid, Path, description = "The file"), ("link_id" = Uuid, Path, description = "The link")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, description = "`file.not_found`, `share_link.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn revoke(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path((id, link_id)): Path<(Uuid, Uuid)>,
) -> Result<StatusCode, Problem> {
    let mut tx = app.begin(&tenant, Role::File).await?;
    found(&mut tx, tenant.id, id).await?;
    if !share_link::revoke(&mut tx, tenant.id, id, link_id).await? {
        return Err(Problem::not_found(Code::ShareLinkNotFound, "link"));
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<file::Entry, Problem> {
    file::get(db, tenant_id, id).await?.ok_or_else(|| Thing::File.missing())
}
