//! What the API says of itself.

mod examples;

use crate::world::World;
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_workflows::{
    contracts::template::Manifest,
    models::render::{freeze::freeze, order::RenderOrder},
};
use serde_json::Value;
use sqlx::PgPool;
use std::collections::BTreeSet;

async fn bare(world: &World, path: &str) -> crate::world::Answer {
    world.send(Request::builder().uri(path).body(Body::empty()).unwrap()).await
}

const OPERATIONS: &[&str] = &[
    "DELETE /v1/api-keys/{id}",
    "DELETE /v1/cleanup-schedules/{id}",
    "DELETE /v1/coupons/{id}",
    "DELETE /v1/credit-packs/{id}",
    "DELETE /v1/domains/{id}",
    "DELETE /v1/files/{id}/share-links/{link_id}",
    "DELETE /v1/gateways/{provider}",
    "DELETE /v1/identity-providers/{id}",
    "DELETE /v1/me/factors/{id}",
    "DELETE /v1/me/identities/{id}",
    "DELETE /v1/me/notification-preferences/{category}/{channel}",
    "DELETE /v1/me/push-subscriptions/{id}",
    "DELETE /v1/me/sessions/{id}",
    "DELETE /v1/me/telegram",
    "DELETE /v1/members/{id}",
    "DELETE /v1/notification-accounts/{id}",
    "DELETE /v1/notification-defaults/{category}/{channel}",
    "DELETE /v1/notification-suppressions/{channel}/{hash}",
    "DELETE /v1/notification-templates/{kind}/{channel}/{language}",
    "DELETE /v1/notifications/{id}",
    "DELETE /v1/platform/nodes/tokens/{id}",
    "DELETE /v1/templates/{slug}/svg-previews/{id}",
    "DELETE /v1/uploads/{id}",
    "DELETE /v1/webhooks/{id}",
    "GET /healthz",
    "GET /metrics",
    "GET /public/{tenant_id}/{sha256}",
    "GET /readyz",
    "GET /share/{token}",
    "GET /snap/{sha256}",
    "GET /v1/achievements",
    "GET /v1/achievements/{id}",
    "GET /v1/api-keys",
    "GET /v1/audit",
    "GET /v1/auth/openid",
    "GET /v1/branding",
    "GET /v1/branding/{slug}/favicon",
    "GET /v1/branding/{slug}/logo",
    "GET /v1/cleanup-runs/{id}",
    "GET /v1/cleanup-runs/{id}/files",
    "GET /v1/cleanup-schedules",
    "GET /v1/cleanup-schedules/{id}",
    "GET /v1/cleanup-schedules/{id}/runs",
    "GET /v1/coupons",
    "GET /v1/coupons/{id}",
    "GET /v1/credit-packs",
    "GET /v1/credits",
    "GET /v1/credits/ledger",
    "GET /v1/domains",
    "GET /v1/exports/{id}",
    "GET /v1/exports/{id}/contact-sheet",
    "GET /v1/exports/{id}/derivatives/{kind}",
    "GET /v1/exports/{id}/download",
    "GET /v1/files",
    "GET /v1/files/{id}",
    "GET /v1/files/{id}/content",
    "GET /v1/files/{id}/share-links",
    "GET /v1/folders",
    "GET /v1/folders/{id}",
    "GET /v1/gateways",
    "GET /v1/gift-catalogue",
    "GET /v1/gift-catalogue/{id}",
    "GET /v1/gifts",
    "GET /v1/identity-providers",
    "GET /v1/identity-providers/{id}",
    "GET /v1/invoices",
    "GET /v1/invoices/{id}",
    "GET /v1/invoices/{id}/pdf",
    "GET /v1/me",
    "GET /v1/me/factors",
    "GET /v1/me/identities",
    "GET /v1/me/notification-preferences",
    "GET /v1/me/points",
    "GET /v1/me/progress",
    "GET /v1/me/push-key",
    "GET /v1/me/push-subscriptions",
    "GET /v1/me/sessions",
    "GET /v1/me/telegram",
    "GET /v1/members",
    "GET /v1/members/{id}/storage",
    "GET /v1/nodes/tasks/{task_id}/frames",
    "GET /v1/nodes/tasks/{task_id}/inputs/{sha256}",
    "GET /v1/notification-accounts",
    "GET /v1/notification-defaults",
    "GET /v1/notification-suppressions",
    "GET /v1/notification-templates",
    "GET /v1/notifications",
    "GET /v1/notifications/counts",
    "GET /v1/notifications/events",
    "GET /v1/operate/audit",
    "GET /v1/operate/bulk",
    "GET /v1/operate/bulk/{id}",
    "GET /v1/operate/bulk/{id}/items",
    "GET /v1/operate/dead-letters",
    "GET /v1/operate/events",
    "GET /v1/operate/failures",
    "GET /v1/operate/failures/{fingerprint}",
    "GET /v1/operate/now",
    "GET /v1/operate/queues",
    "GET /v1/operate/runs",
    "GET /v1/operate/runs/{id}",
    "GET /v1/operate/runs/{id}/film",
    "GET /v1/operate/runs/{id}/last-frame",
    "GET /v1/operate/runs/{id}/steps",
    "GET /v1/operate/versions",
    "GET /v1/payment-differences",
    "GET /v1/payment-differences/{id}",
    "GET /v1/payments",
    "GET /v1/payments/{id}",
    "GET /v1/payments/{id}/return",
    "GET /v1/plans",
    "GET /v1/plans/versions",
    "GET /v1/plans/{id}",
    "GET /v1/platform/holds",
    "GET /v1/platform/nodes",
    "GET /v1/platform/nodes/tokens",
    "GET /v1/platform/nodes/{id}",
    "GET /v1/platform/nodes/{id}/crashes",
    "GET /v1/platform/nodes/{id}/health",
    "GET /v1/platform/schedules",
    "GET /v1/platform/schedules/{id}",
    "GET /v1/platform/tenants",
    "GET /v1/platform/tenants/{id}",
    "GET /v1/platform/tenants/{id}/usage",
    "GET /v1/referrals",
    "GET /v1/refunds",
    "GET /v1/refunds/{id}",
    "GET /v1/renders",
    "GET /v1/renders/{id}",
    "GET /v1/renders/{id}/events",
    "GET /v1/renders/{id}/last-frame",
    "GET /v1/request-logs",
    "GET /v1/scene-snapshots/{project_id}",
    "GET /v1/subscription",
    "GET /v1/subscription/change",
    "GET /v1/subscriptions",
    "GET /v1/templates",
    "GET /v1/templates/{slug}",
    "GET /v1/templates/{slug}/preview",
    "GET /v1/templates/{slug}/svg-previews",
    "GET /v1/templates/{slug}/svg-previews/{id}/svg",
    "GET /v1/tenant",
    "GET /v1/tenant/branding",
    "GET /v1/tenant/quotas",
    "GET /v1/unsubscribe",
    "GET /v1/uploads/{id}",
    "GET /v1/uploads/{id}/parts",
    "GET /v1/usage",
    "GET /v1/webhook-events",
    "GET /v1/webhooks",
    "GET /v1/webhooks/{id}",
    "GET /v1/webhooks/{id}/deliveries",
    "GET /v1/webhooks/{id}/deliveries/{delivery_id}",
    "HEAD /v1/nodes/tasks/{task_id}/frames/{sha256}",
    "HEAD /v1/uploads/{id}",
    "OPTIONS /v1/uploads",
    "PATCH /v1/achievements/{id}",
    "PATCH /v1/coupons/{id}",
    "PATCH /v1/files/{id}",
    "PATCH /v1/folders/{id}",
    "PATCH /v1/gift-catalogue/{id}",
    "PATCH /v1/identity-providers/{id}",
    "PATCH /v1/me",
    "PATCH /v1/me/factors/{id}",
    "PATCH /v1/notification-accounts/{id}",
    "PATCH /v1/notifications/{id}",
    "PATCH /v1/templates/{slug}/svg-previews/{id}",
    "PATCH /v1/tenant",
    "PATCH /v1/uploads/{id}",
    "PATCH /v1/webhooks/{id}",
    "POST /v1/achievements",
    "POST /v1/api-keys",
    "POST /v1/api-keys/{id}/rotate",
    "POST /v1/auth/forgot-password",
    "POST /v1/auth/openid/finish",
    "POST /v1/auth/openid/start",
    "POST /v1/auth/refresh",
    "POST /v1/auth/register",
    "POST /v1/auth/reset-password",
    "POST /v1/auth/second-step",
    "POST /v1/auth/sign-in",
    "POST /v1/auth/sign-out",
    "POST /v1/auth/step-up",
    "POST /v1/auth/step-up/options",
    "POST /v1/auth/verify-email",
    "POST /v1/cleanup-runs/{id}/actions",
    "POST /v1/cleanup-schedules",
    "POST /v1/cleanup-schedules/{id}/runs",
    "POST /v1/coupons",
    "POST /v1/coupons/check",
    "POST /v1/credit-packs",
    "POST /v1/domains",
    "POST /v1/domains/{id}/verify",
    "POST /v1/exports/{id}/derivatives/{kind}",
    "POST /v1/exports/{id}/links",
    "POST /v1/files",
    "POST /v1/files/{id}/links",
    "POST /v1/files/{id}/restore",
    "POST /v1/files/{id}/share-links",
    "POST /v1/files/{id}/trash",
    "POST /v1/folders",
    "POST /v1/folders/{id}/restore",
    "POST /v1/folders/{id}/trash",
    "POST /v1/gateways/{provider}/rotate",
    "POST /v1/gateways/{provider}/webhook/{account}",
    "POST /v1/gift-catalogue",
    "POST /v1/gift-catalogue/{id}/give",
    "POST /v1/gifts/{id}/claim",
    "POST /v1/identity-providers",
    "POST /v1/invoices/{id}/send",
    "POST /v1/me/email",
    "POST /v1/me/factors/totp",
    "POST /v1/me/factors/webauthn",
    "POST /v1/me/factors/webauthn/options",
    "POST /v1/me/factors/{id}/confirm",
    "POST /v1/me/identities/finish",
    "POST /v1/me/identities/start",
    "POST /v1/me/password",
    "POST /v1/me/push-subscriptions",
    "POST /v1/me/telegram",
    "POST /v1/members",
    "POST /v1/members/{id}/credits",
    "POST /v1/nodes/claims",
    "POST /v1/nodes/credential",
    "POST /v1/nodes/enrol",
    "POST /v1/nodes/health",
    "POST /v1/nodes/hello",
    "POST /v1/nodes/probe",
    "POST /v1/nodes/tasks/{task_id}/complete",
    "POST /v1/nodes/tasks/{task_id}/fail",
    "POST /v1/nodes/tasks/{task_id}/frames",
    "POST /v1/nodes/tasks/{task_id}/release",
    "POST /v1/nodes/tasks/{task_id}/renew",
    "POST /v1/notification-accounts",
    "POST /v1/notification-broadcasts",
    "POST /v1/notification-feedback/{account}/{mark}",
    "POST /v1/notification-templates/{kind}/{channel}/{language}/preview",
    "POST /v1/notifications/read-all",
    "POST /v1/operate/bulk",
    "POST /v1/operate/bulk/{id}/actions",
    "POST /v1/operate/queues/{queue}/actions",
    "POST /v1/operate/runs/{id}/actions",
    "POST /v1/payment-decisions/{id}/confirm",
    "POST /v1/payment-decisions/{id}/refuse",
    "POST /v1/payment-differences/{id}/confirm",
    "POST /v1/payment-differences/{id}/explain",
    "POST /v1/payments",
    "POST /v1/payments/{id}/cancel",
    "POST /v1/payments/{id}/decisions",
    "POST /v1/payments/{id}/refunds",
    "POST /v1/payments/{id}/verify",
    "POST /v1/plans",
    "POST /v1/plans/{id}/activate",
    "POST /v1/plans/{id}/retire",
    "POST /v1/platform/holds/{id}/release",
    "POST /v1/platform/nodes/tokens",
    "POST /v1/platform/nodes/{id}/actions",
    "POST /v1/platform/schedules/{id}/actions",
    "POST /v1/platform/tenants",
    "POST /v1/platform/tenants/{id}/close",
    "POST /v1/platform/tenants/{id}/credits",
    "POST /v1/platform/tenants/{id}/holds",
    "POST /v1/platform/tenants/{id}/resume",
    "POST /v1/platform/tenants/{id}/suspend",
    "POST /v1/platform/tenants/{id}/usage-corrections",
    "POST /v1/referrals",
    "POST /v1/referrals/join",
    "POST /v1/refunds/{id}/approve",
    "POST /v1/refunds/{id}/decisions",
    "POST /v1/refunds/{id}/refuse",
    "POST /v1/renders",
    "POST /v1/renders/batch",
    "POST /v1/renders/{id}/cancel",
    "POST /v1/scene-snapshots/{project_id}",
    "POST /v1/subscription/cancel",
    "POST /v1/subscription/change",
    "POST /v1/subscription/resume",
    "POST /v1/subscription/trial",
    "POST /v1/templates/{slug}/svg-previews",
    "POST /v1/trash/empty",
    "POST /v1/unsubscribe",
    "POST /v1/uploads",
    "POST /v1/uploads/direct",
    "POST /v1/uploads/{id}",
    "POST /v1/uploads/{id}/complete",
    "POST /v1/uploads/{id}/parts/{number}",
    "POST /v1/webhooks",
    "POST /v1/webhooks/{id}/deliveries/{delivery_id}/replay",
    "POST /v1/webhooks/{id}/replay",
    "POST /v1/webhooks/{id}/rotate-secret",
    "POST /v1/webhooks/{id}/test",
    "PUT /v1/cleanup-schedules/{id}",
    "PUT /v1/credits/terms",
    "PUT /v1/gateways/{provider}",
    "PUT /v1/me/marketing-consent",
    "PUT /v1/me/notification-preferences/{category}/{channel}",
    "PUT /v1/members/{id}/roles",
    "PUT /v1/members/{id}/storage",
    "PUT /v1/nodes/tasks/{task_id}/frames/{sha256}",
    "PUT /v1/notification-defaults/{category}/{channel}",
    "PUT /v1/notification-templates/{kind}/{channel}/{language}",
    "PUT /v1/platform/tenants/{id}/limits/{name}",
    "PUT /v1/tenant/branding",
];

/// Every operation as `METHOD path`, with its description.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let methods = paths.iter().flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |m| (path, m)));
    methods.map(|(path, (method, operation))| (format!("{} {path}", method.to_uppercase()), operation)).collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn the_document_describes_every_operation(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    assert_eq!((&document["openapi"], &document["info"]["title"]), (&"3.1.0".into(), &"FlatRender API".into()));
    let mut names: Vec<String> = operations(&document).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, OPERATIONS);
    let mut ids = vec![];
    for (name, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        let problem = &responses["default"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem", "{name}");
        assert!(operation["summary"].is_string() && operation["description"].is_string(), "{name}");
        ids.push(operation["operationId"].as_str().unwrap());
        let guarded = operation.get("security").is_none()
            || operation["security"] == serde_json::json!([{"node_credential": []}]);
        let open = operation["security"] == serde_json::json!([{}]);
        assert!(guarded ^ open, "{name}: {}", operation["security"]);
    }
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]));
}

#[sqlx::test(migrations = "../migrations")]
async fn every_reference_of_the_document_leads_somewhere(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value) {
                ("$ref", Value::String(target)) => found.push(target),
                _ => references(value, found),
            }),
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = vec![];
    references(&document, &mut found);
    assert!(found.len() > 20);
    for target in found {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
}

/// Whoever made something is led to what can be done with it: by operations that there are, and with all that their addresses take.
#[sqlx::test(migrations = "../migrations")]
async fn every_link_of_the_document_leads_to_an_operation_and_names_all_of_its_address(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    let all = operations(&document);
    let parameters = |name: &str| -> BTreeSet<String> {
        name.split('{').skip(1).map(|part| part.split('}').next().unwrap().to_owned()).collect()
    };
    let mut seen = BTreeSet::new();
    for (from, operation) in &all {
        let answers = operation["responses"].as_object().unwrap().values();
        for link in answers.filter_map(|answer| answer["links"].as_object()).flat_map(|links| links.values()) {
            let to = all.iter().find(|(_, operation)| operation["operationId"] == link["operationId"]);
            let (to, _) = to.unwrap_or_else(|| panic!("{from}: {link}"));
            let given = link["parameters"].as_object().unwrap();
            assert_eq!(given.keys().cloned().collect::<BTreeSet<_>>(), parameters(to), "{from} to {to}");
            for value in given.values().map(|value| value.as_str().unwrap()) {
                let asked = value.strip_prefix("$request.path.");
                let is_known = asked.map_or(value == "$response.body#/id", |name| parameters(from).contains(name));
                assert!(is_known, "{from} to {to}: {value}");
            }
            seen.insert(format!("{from} to {to}"));
        }
    }
    for known in [
        "POST /v1/coupons to PATCH /v1/coupons/{id}",
        "POST /v1/files/{id}/share-links to DELETE /v1/files/{id}/share-links/{link_id}",
        "POST /v1/renders to GET /v1/renders/{id}/events",
        "POST /v1/webhooks to GET /v1/webhooks/{id}/deliveries",
    ] {
        assert!(seen.contains(known), "{known} is none of {seen:?}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn the_orders_in_the_document_fit_their_template(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    let manifest = include_bytes!("../../../templates/promo/template.json");
    let template = crate::world::template(Manifest::parse(manifest).unwrap());
    let body = &document["paths"]["/v1/renders"]["post"]["requestBody"]["content"]["application/json"];
    let examples = body["examples"].as_object().unwrap();
    assert_eq!(examples.len(), 2);
    for example in examples.values() {
        let order: RenderOrder = serde_json::from_value(example["value"].clone()).unwrap();
        let faults = freeze(world.tenant, &template, &order, &[]).err().unwrap_or_default();
        // The pictures are somebody's.
        assert!(faults.iter().all(|f| f.code == "file.not_found"), "{faults:?}");
    }
}

/// What answers say of budgets, of themselves and of the request stands in the document: where they say it, and nowhere else.
#[sqlx::test(migrations = "../migrations")]
async fn the_headers_that_answers_have_in_common_stand_in_the_document(db: PgPool) {
    let world = World::new(db).await;
    let document = bare(&world, "/openapi.json").await.json();
    let file = world.upload("logo.png", crate::world::png([1, 2, 3])).await.json()["id"].as_str().unwrap().to_owned();
    let counted = ["ratelimit", "ratelimit-limit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-reset"];
    let unknown = "0".repeat(64);
    let ours = |name: &str| counted.contains(&name) || ["etag", "retry-after", "x-request-id"].contains(&name);
    for (path, id, status) in [
        ("/healthz", "", 200),
        ("/v1/renders", "", 200),
        ("/v1/renders/{id}", "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11", 404),
        ("/v1/files/{id}", file.as_str(), 200),
        ("/v1/files/{id}/content", file.as_str(), 200),
        ("/v1/branding", "", 200),
        ("/share/{token}", "guessed", 404),
        ("/snap/{sha256}", unknown.as_str(), 404),
    ] {
        let at = path.split('{').next().unwrap().to_owned() + id + path.split('}').nth(1).unwrap_or_default();
        let answer = world.get(&at).await;
        assert_eq!(answer.status.as_u16(), status, "{at}");
        let told: BTreeSet<String> = answer.headers.keys().map(ToString::to_string).filter(|name| ours(name)).collect();
        let described = document["paths"][path]["get"]["responses"][status.to_string()]["headers"].as_object().unwrap();
        assert_eq!(told, described.keys().map(|name| name.to_lowercase()).collect::<BTreeSet<_>>(), "{path} {status}");
    }
    let refused = &document["paths"]["/v1/renders"]["post"]["responses"]["429"]["headers"];
    assert_eq!(refused["Retry-After"]["$ref"], "#/components/headers/Retry-After");
}

#[sqlx::test(migrations = "../migrations")]
async fn the_documentation_needs_nothing_from_elsewhere(db: PgPool) {
    let world = World::new(db).await;
    let page = bare(&world, "/docs").await;
    assert_eq!((page.status, page.header(header::CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(page.header(header::CONTENT_SECURITY_POLICY).contains("script-src 'self'"));
    for (path, kind) in [("/docs/docs.css", "text/css"), ("/docs/docs.js", "text/javascript")] {
        let asset = bare(&world, path).await;
        assert!(asset.status == StatusCode::OK && asset.header(header::CONTENT_TYPE).starts_with(kind));
        assert!(std::str::from_utf8(&page.body).unwrap().contains(path));
        assert!(!std::str::from_utf8(&asset.body).unwrap().contains("://"), "{path} loads nothing from elsewhere");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn health_and_readiness_are_told(db: PgPool) {
    let world = World::new(db).await;
    assert_eq!(bare(&world, "/healthz").await.body, "ok");
    let ready = bare(&world, "/readyz").await;
    assert_eq!(ready.status, StatusCode::OK, "{}", ready.json());
    std::fs::remove_dir_all(world.folder.path().join("storage")).unwrap();
    std::fs::write(world.folder.path().join("storage"), "in the way").unwrap();
    let broken = bare(&world, "/readyz").await;
    assert_eq!(broken.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&broken.json()["database"], &broken.json()["storage"]), (&true.into(), &false.into()));
    world.db.close().await;
    assert_eq!(bare(&world, "/readyz").await.json()["database"], false);
    assert_eq!(bare(&world, "/healthz").await.body, "ok");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_database_that_is_away_is_told_without_details(db: PgPool) {
    let world = World::new(db).await;
    world.db.close().await;
    let answer = world.get("/v1/renders").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "server.unavailable"));
    assert_eq!(answer.header(header::RETRY_AFTER), "2");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_internal_problem_tells_nothing(db: PgPool) {
    let world = World::new(db).await;
    sqlx::query("alter table render.render_jobs rename to gone").execute(&world.db).await.unwrap();
    let answer = world.get("/v1/renders").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (500, "server.internal"));
    assert!(!std::str::from_utf8(&answer.body).unwrap().contains("render_jobs"));
}

#[sqlx::test(migrations = "../migrations")]
async fn requests_are_counted_by_route_not_by_address(db: PgPool) {
    let world = World::new(db).await;
    for id in 0..3u128 {
        world.get(&format!("/v1/renders/{}", uuid::Uuid::from_u128(id))).await;
        bare(&world, &format!("/wild/{id}")).await;
    }
    let invented = Request::builder().method(Method::from_bytes(b"BREW").unwrap()).uri("/healthz");
    world.send(invented.body(Body::empty()).unwrap()).await;
    let text = String::from_utf8(bare(&world, "/metrics").await.body.to_vec()).unwrap();
    assert!(text.contains(r#"route="/v1/renders/{id}""#), "{text}");
    assert!(text.contains("flatrender_http_request_seconds_bucket"));
    assert!(!text.contains("wild") && !text.contains("BREW"));
}
