//! `/v1/domains`: host names of a tenant. One counts once the DNS says that it is the tenant's.

use super::{
    Steward,
    steward::{Change, made},
};
use crate::{
    app::App,
    extract::{Json, Path},
    limits::{self, Notes},
    problem::{Code, Problem, ProblemBody},
};
use axum::{Extension, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_activities::{dns::DnsError, egress};
use flatrender_workflows::models::{
    Db, Role, Scope, Secret,
    identity::{
        rate_bucket::{self, Rate},
        tenant_domain::{self, Added, Domain, LABEL, MOST_DOMAINS, record_of},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What the record says begins with this.
const TOKEN_KIND: &str = "fr_dv_";
/// Longest name: with the label before it the DNS still takes it.
const NAME_BYTES: usize = 253 - LABEL.len() - 1;
/// Looks at the DNS that a tenant may cause.
const OF_CHECKS: Rate = Rate { limit: 10.0, window_seconds: 60.0 };

/// A host name of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct DomainView {
    /// Its id.
    id: Uuid,
    /// Always `domain`.
    #[schema(example = "domain")]
    object: &'static str,
    /// The name, in small letters; in ASCII, whatever its script is.
    #[schema(example = "films.acme.example")]
    hostname: String,
    /// `pending`, `verified`, or `failed` when it was looked for in vain.
    #[schema(example = "pending")]
    state: String,
    /// The name of the TXT record that proves it.
    #[schema(example = "_flatrender.films.acme.example")]
    record_name: String,
    /// What the record has to say.
    #[schema(example = "fr_dv_…")]
    record_value: String,
    /// When it was proven.
    verified_at: Option<DateTime<Utc>>,
    /// When it was looked for.
    checked_at: Option<DateTime<Utc>>,
    /// Why it was not found.
    last_error: Option<String>,
    /// When it was added.
    created_at: DateTime<Utc>,
}

impl From<Domain> for DomainView {
    fn from(d: Domain) -> Self {
        Self {
            id: d.id,
            object: "domain",
            record_name: record_of(&d.hostname),
            record_value: d.dns_token,
            hostname: d.hostname,
            state: d.state,
            verified_at: d.verified_at,
            checked_at: d.checked_at,
            last_error: d.last_error,
            created_at: d.created_at,
        }
    }
}

/// Every host name of the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct DomainList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In their order; at most 20.
    data: Vec<DomainView>,
    /// Always false.
    has_more: bool,
}

/// A host name to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddDomain {
    /// A full name, without a port.
    #[schema(example = "films.acme.example", max_length = 241, format = IdnHostname)]
    hostname: String,
}

/// `POST /v1/domains`: answers 201 with the record that has to be made.
#[utoipa::path(
    post, path = "/v1/domains", tag = "Tenant", operation_id = "add_domain", summary = "Add a host name",
    description = "Make the TXT record that the answer names, then have it looked for with `verify`. Until then the name counts for nothing.",
    request_body = AddDomain,
    responses(
        (status = 201, description = "Added", body = DomainView),
        (status = 409, description = "`domain.exists`, `domain.too_many`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn add(
    State(app): State<App>,
    steward: Steward,
    Json(body): Json<AddDomain>,
) -> Result<(StatusCode, Json<DomainView>), Problem> {
    let hostname = hostname(&body.hostname)?;
    let token = Secret::generate(TOKEN_KIND);
    let mut tx = steward.begin(&app).await?;
    let id = match tenant_domain::add(&mut tx, steward.tenant_id, &hostname, token.reveal()).await? {
        Added::Done(id) => id,
        Added::Again => return Err(Problem::new(Code::DomainExists, "the tenant has this host name already")),
        Added::Full => {
            return Err(Problem::new(Code::DomainsFull, format!("a tenant has at most {MOST_DOMAINS} host names")));
        }
    };
    let domain = found(&mut tx, steward.tenant_id, id).await?;
    steward.record(&mut tx, "domain.add", &object(id), made(&domain)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(domain.into())))
}

/// `GET /v1/domains`
#[utoipa::path(
    get, path = "/v1/domains", tag = "Tenant", operation_id = "list_domains", summary = "List host names",
    description = "All of them, with the records that prove them.",
    responses((status = 200, description = "All of them", body = DomainList))
)]
pub async fn list(State(app): State<App>, steward: Steward) -> Result<Json<DomainList>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let data = tenant_domain::list(&mut tx, steward.tenant_id).await?.into_iter().map(Into::into).collect();
    Ok(Json(DomainList { object: "list", data, has_more: false }))
}

/// `POST /v1/domains/{id}/verify`: looks for the record. No connection waits meanwhile.
#[utoipa::path(
    post, path = "/v1/domains/{id}/verify", tag = "Tenant", operation_id = "verify_domain", summary = "Have a host name looked for",
    description = "Looks for its TXT record, at most ten times a minute. Once it is found the name selects the tenant. A name that selects \
                   another tenant stays with that one. It is looked for again every day: a name whose record was missing three times selects \
                   nobody any more.",
    params(("id" = Uuid, Path, description = "The host name")),
    responses(
        (status = 200, description = "It is proven", body = DomainView),
        (status = 404, description = "`domain.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`domain.unproven`, `domain.taken`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`rate.limited`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn verify(
    State(app): State<App>,
    steward: Steward,
    Extension(notes): Extension<Notes>,
    Path(id): Path<Uuid>,
) -> Result<Json<DomainView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    let domain = found(&mut tx, steward.tenant_id, id).await?;
    if domain.state == "verified" {
        return Ok(Json(domain.into()));
    }
    drop(tx);
    take_check(&app, &steward, &notes).await?;
    let texts = app.dns.texts(&record_of(&domain.hostname)).await;
    let proof = shows(&domain, texts);
    let mut tx = steward.begin(&app).await?;
    let Err((code, reason)) = proof else { return settle(tx, &steward, &domain).await };
    tenant_domain::fail(&mut tx, steward.tenant_id, id, &reason).await?;
    tx.commit().await?;
    Err(Problem::new(code, reason))
}

/// The name is proven, unless it selects another tenant.
async fn settle(
    mut tx: flatrender_workflows::models::scope::Scoped,
    steward: &Steward,
    before: &Domain,
) -> Result<Json<DomainView>, Problem> {
    if !tenant_domain::prove(&mut tx, steward.tenant_id, before.id).await? {
        return Err(Problem::new(
            Code::DomainTaken,
            "this host name is another tenant's; ask the platform if it is yours",
        ));
    }
    let after = found(&mut tx, steward.tenant_id, before.id).await?;
    let change = Change { before: Some(before), after: Some(&after) };
    steward.record(&mut tx, "domain.verify", &object(before.id), change).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// `DELETE /v1/domains/{id}`
#[utoipa::path(
    delete, path = "/v1/domains/{id}", tag = "Tenant", operation_id = "remove_domain", summary = "Remove a host name",
    description = "It selects nobody any more, from the next request on.", params(("id" = Uuid, Path, description = "The host name")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "`domain.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn remove(State(app): State<App>, steward: Steward, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, steward.tenant_id, id).await?;
    tenant_domain::remove(&mut tx, steward.tenant_id, id).await?;
    let change = Change { before: Some(&before), after: None::<()> };
    steward.record(&mut tx, "domain.remove", &object(id), change).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether the DNS says that the name is the tenant's; else why not.
fn shows(domain: &Domain, texts: Result<Vec<String>, DnsError>) -> Result<(), (Code, String)> {
    let name = record_of(&domain.hostname);
    match texts {
        Ok(texts) if texts.contains(&domain.dns_token) => Ok(()),
        Ok(texts) if texts.is_empty() => Err((Code::DomainUnproven, format!("there is no TXT record {name}"))),
        Ok(_) => Err((Code::DomainUnproven, format!("no TXT record {name} says {}", domain.dns_token))),
        Err(error) => {
            tracing::info!(error = &error as &dyn std::error::Error, "a host name could not be looked for");
            Err((Code::DomainUnproven, format!("the DNS gives no answer for {name}; try again later")))
        }
    }
}

async fn take_check(app: &App, steward: &Steward, notes: &Notes) -> Result<(), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let budget = rate_bucket::take_public(&mut tx, "domain_checks", &steward.tenant_id.to_string(), OF_CHECKS).await?;
    tx.commit().await?;
    limits::settle(notes, vec![budget])
}

async fn found(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Domain, Problem> {
    let missing = || Problem::not_found(Code::DomainNotFound, "host name");
    tenant_domain::find(db, tenant_id, id).await?.ok_or_else(missing)
}

fn object(id: Uuid) -> String {
    format!("domain:{id}")
}

/// A host name as browsers ask for it.
fn hostname(text: &str) -> Result<String, Problem> {
    let text = text.trim().trim_end_matches('.');
    let url = egress::target(&format!("https://{text}/"), egress::Reach::Public).ok();
    let alone =
        |name: &str| !text.contains(['/', '?', '#', '@', ':', '\\']) && name.parse::<std::net::IpAddr>().is_err();
    let label =
        |l: &str| (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(of_a_host);
    let name = url.as_ref().and_then(|url| url.host_str()).filter(|name| alone(name));
    let name = name.filter(|name| name.len() <= NAME_BYTES && name.split('.').all(label));
    let wrong =
        || Problem::fault("/hostname", "domain.hostname", "this is no full name of a host that everybody can reach");
    name.map(str::to_owned).ok_or_else(wrong)
}

fn of_a_host(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_browsers_ask_for_it() {
        assert_eq!(hostname(" Films.Acme.Example. ").unwrap(), "films.acme.example");
        assert_eq!(hostname("bücher.example").unwrap(), "xn--bcher-kva.example");
        let long = format!("{0}.{0}.{0}.{0}.example", "a".repeat(60));
        for wrong in [
            "",
            "acme",
            "localhost",
            "films.local",
            "127.0.0.1",
            "0x7f.1",
            "[::1]",
            "acme.example:8443",
            "acme.example/x",
            "a@acme.example",
            "*.acme.example",
            "a_b.acme.example",
            "-a.acme.example",
            "a..acme.example",
            "https://acme.example",
            "acme.example#x",
            &long,
        ] {
            assert!(hostname(wrong).is_err(), "{wrong}");
        }
    }
}
