//! Addresses that are good for a while for whoever has them: ours, where the storage has none of its own.
//!
//! The signature is of the path, the tenant and the time of expiry, made with the key of the installation; nothing is
//! looked up for an address that we did not sign, so that it tells nothing of what there is.

use crate::{
    app::{self, App},
    auth::{Tenant, Viewer},
    problem::{Code, Problem},
    render::download::attachment,
    vault::Vault,
};
use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use chrono::{DateTime, Utc};
use flatrender_workflows::contracts::storage::{BlobRef, SignedGet};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long an address works when nobody says.
const AN_HOUR: u32 = 3600;
/// And at most: no S3 store signs for longer.
const SEVEN_DAYS: u32 = 7 * 86_400;

/// How long an address shall work.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewLink {
    /// Seconds, a minute to seven days; an hour unless said.
    #[schema(example = 3600, minimum = 60, maximum = 604_800)]
    valid_seconds: Option<u32>,
}

impl NewLink {
    /// How long.
    ///
    /// # Errors
    /// `request.invalid`
    pub fn valid_for(self) -> Result<Duration, Problem> {
        let seconds = self.valid_seconds.unwrap_or(AN_HOUR);
        match (60..=SEVEN_DAYS).contains(&seconds) {
            true => Ok(Duration::from_secs(seconds.into())),
            false => Err(Problem::fault("/valid_seconds", "link.valid", "an address works for a minute to seven days")),
        }
    }
}

/// An address that works for a while.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LinkView {
    /// Always `link`.
    #[schema(example = "link")]
    object: &'static str,
    /// Whoever has it reads the content.
    url: String,
    /// When it ends.
    expires_at: DateTime<Utc>,
}

/// What an address of ours carries.
#[derive(Debug, Clone, Deserialize)]
struct Signature {
    /// Whose content it is.
    tenant: Uuid,
    /// When it ends, in seconds since 1970.
    exp: i64,
    sig: String,
}

/// Some content of a tenant, to be given away.
pub struct Given<'a> {
    /// Whose it is.
    pub tenant_id: Uuid,
    /// Where we serve it.
    pub path: &'a str,
    /// What it is.
    pub blob: &'a BlobRef,
    /// Its media type.
    pub content_type: &'a str,
    /// Its name when it is saved.
    pub name: &'a str,
    /// When it goes, if that is known: no address of it works for longer.
    pub until: Option<DateTime<Utc>>,
}

impl Given<'_> {
    /// An address of it that anybody may read for a while: the storage's own, so that the content does not pass through
    /// us, or else ours.
    ///
    /// # Errors
    /// The storage cannot sign.
    pub async fn link(&self, app: &App, valid_for: Duration) -> Result<LinkView, Problem> {
        let now = Utc::now();
        // No store signs for less than a second.
        let left = self.until.map(|until| (until - now).to_std().unwrap_or_default().max(Duration::from_secs(1)));
        let valid_for = left.map_or(valid_for, |left| valid_for.min(left));
        let expires_at = now + valid_for;
        let disposition = attachment(self.name);
        let says = SignedGet { valid_for, content_type: self.content_type, disposition: &disposition };
        let theirs = app.storage.sign_get(&app::files(self.tenant_id), &self.blob.sha256, says).await?;
        let url = theirs.unwrap_or_else(|| self.ours(app, expires_at.timestamp()));
        Ok(LinkView { object: "link", url, expires_at })
    }

    fn ours(&self, app: &App, exp: i64) -> String {
        let Self { path, tenant_id, .. } = self;
        format!("{}{path}?tenant={tenant_id}&exp={exp}&sig={}", app.public_url, sign(&app.vault, path, *tenant_id, exp))
    }
}

fn sign(vault: &Vault, path: &str, tenant_id: Uuid, exp: i64) -> String {
    vault.mark(&format!("address {tenant_id} {exp} {path}"))
}

/// Who may read one thing of a tenant: a [`Viewer`], or whoever has an address of it that is signed and not over.
#[derive(Debug, Clone, Copy)]
pub struct Reader(pub Uuid);

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let signed = parts.uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("sig=")));
        if !signed {
            return Viewer::from_request_parts(parts, app).await.map(|Viewer(Tenant { id, .. })| Self(id));
        }
        let forged = || Problem::new(Code::LinkForged, "this address was not signed here, or was changed since");
        let Ok(Query(asked)) = Query::<Signature>::try_from_uri(&parts.uri) else { return Err(forged()) };
        let signature = sign(&app.vault, parts.uri.path(), asked.tenant, asked.exp);
        if !bool::from(signature.as_bytes().ct_eq(asked.sig.as_bytes())) {
            return Err(forged());
        }
        if asked.exp <= Utc::now().timestamp() {
            return Err(Problem::new(
                Code::LinkExpired,
                "this address worked for a while, which is over; ask for another",
            ));
        }
        Ok(Self(asked.tenant))
    }
}
