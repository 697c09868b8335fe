//! Attacks by the letter: what a caller may not set, whose ids a caller may not name, what an answer may not hold. Where an attack
//! is possible at many places, the places come from the API's own document.
//!
//! The numbers are those of the list of attacks. M1 and M5 are in `matrix`, too, M4 in `secrets`, M6 in `keys`, M7 in `domains`, M8
//! in `nodes`, M9, M10, M14 and M16 in `people`, M11 to M13 in `guesses`.

use crate::{
    jane::{PASSWORD, credentials, jane},
    world::{Answer, World, order, png, request, with_json},
};
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, StatusCode},
};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use uuid::Uuid;

/// Every operation that a person or a key may be let in to: its method, path and description.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(m, o)| (path, m, o)));
    all.filter(|(path, ..)| !path.starts_with("/v1/nodes"))
        .map(|(path, method, operation)| (method.to_uppercase().parse().unwrap(), path.clone(), operation.clone()))
        .collect()
}

fn json_body(operation: &Value) -> Option<&Value> {
    operation.pointer("/requestBody/content/application~1json/schema")
}

/// Where in a schema an id stands: by its format, or by its name.
fn ids(document: &Value, schema: &Value, place: &str, found: &mut BTreeSet<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return ids(document, document.pointer(target.trim_start_matches('#')).unwrap(), place, found);
    }
    let name = place.rsplit('.').next().unwrap_or_default();
    if schema["format"] == "uuid" || name.ends_with("_id") || name.ends_with("_ids") {
        found.insert(place.to_owned());
        return;
    }
    let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        ids(document, schema, &below(name), found);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            ids(document, &schema[key], &below("*"), found);
        }
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        for schema in schema[key].as_array().into_iter().flatten() {
            ids(document, schema, place, found);
        }
    }
}

/// All that is kept, by table, but for what every request leaves behind.
async fn everything(world: &World) -> BTreeMap<String, String> {
    let sql = "select format('%I.%I', schemaname, tablename) from pg_tables
        where schemaname not in ('pg_catalog', 'information_schema', 'public')
        and tablename !~ '^(rate_buckets|auth_throttle|tenant_api_request_logs)'";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&world.db).await.unwrap();
    let mut all = BTreeMap::new();
    for table in tables {
        let sql = format!("select coalesce(md5(string_agg(t::text, ' ' order by t::text)), '') from only {table} t");
        let digest: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&world.db).await.unwrap();
        all.insert(table, digest);
    }
    all
}

/// An answer without what differs from request to request.
pub fn plain(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let passing = ["x-request-id", "ratelimit", "ratelimit-remaining", "ratelimit-reset", "date"];
    let headers = answer.headers.iter().filter(|(name, _)| !passing.contains(&name.as_str()));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let mut json = if answer.body.is_empty() { Value::Null } else { answer.json() };
    if let Some(instance) = json.get_mut("instance") {
        instance.take();
    }
    (answer.status.as_u16(), headers, json)
}

fn wav() -> Vec<u8> {
    let mut bytes =
        b"RIFF\xa4\x3e\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x80\x3e\0\0".to_vec();
    bytes.resize(44 + 16000, 0);
    bytes
}

/// What an attacker has of one tenant: an id of each kind that a request may name.
async fn upload(world: &World, key: &str, name: &str, content: Vec<u8>) -> Uuid {
    let ask = request(Method::POST, &format!("/v1/files?name={name}"), key).body(Body::from(content)).unwrap();
    let answer = world.send(ask).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.body);
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

async fn folder(world: &World, key: &str, name: &str) -> Uuid {
    let answer = world.send(with_json(request(Method::POST, "/v1/folders", key), &json!({ "name": name }))).await;
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

/// Puts an id where a place of an order or a brand is.
fn body_with(place: &str, id: Uuid) -> Value {
    let mut film = order();
    match place {
        "logo_file_id" | "favicon_file_id" => return json!({ "product_name": "Acme", place: id }),
        "folder_id" | "parent_id" => return json!({ "name": format!("New {}", Uuid::now_v7()), place: id }),
        "data.images.*" => film["data"]["images"] = json!({ "logo": id }),
        "audio.music.file" => film["audio"] = json!({ "music": { "file": id } }),
        "audio.voice_over.file" => film["audio"] = json!({ "voice_over": { "file": id } }),
        _ => panic!("nobody says how to put an id at {place}"),
    }
    film
}

/// Places whose ids are no tenant's: what another server calls us, and the provider that somebody who is nobody yet goes to, which
/// says itself whose people it knows. Or only those of the project in the path, which `snapshots` tries.
const OF_NO_TENANT: &[&str] = &[
    "POST /v1/scene-snapshots/{project_id} scenes.*",
    "POST /v1/identity-providers client_id",
    "PATCH /v1/identity-providers/{id} client_id",
    "POST /v1/auth/openid/start provider",
    // For people only, and the server of the provider has to be there: `openid` tries it by itself.
    "POST /v1/me/identities/start provider",
    // Among the tenant's own files: those of nobody else are looked at, so nothing has to be there.
    "POST /v1/cleanup-schedules filter.folder_id",
    "POST /v1/cleanup-schedules filter.owner_id",
    "PUT /v1/cleanup-schedules/{id} filter.folder_id",
    "PUT /v1/cleanup-schedules/{id} filter.owner_id",
    // The storage has to be a bucket: `direct_uploads` tries it by itself.
    "POST /v1/uploads/direct folder_id",
    // Each as `POST /v1/renders` takes it, in the same code.
    "POST /v1/renders/batch orders.*.audio.music.file",
    "POST /v1/renders/batch orders.*.audio.voice_over.file",
    "POST /v1/renders/batch orders.*.data.images.*",
    // The template has to be one's own: `svg_previews` tries it by itself.
    "POST /v1/templates/{slug}/svg-previews file_id",
    // Of another tenant: `runs` tries it by itself.
    "POST /v1/operate/bulk filter.tenant_id",
    "POST /v1/operate/bulk rest_of",
    // By whoever runs the platform.
    "POST /v1/platform/tenants/{id}/holds file_id",
    "POST /v1/platform/tenants/{id}/holds owner_id",
    // For people only, or of a person and a gift at once: the tests of credits try them by themselves.
    "POST /v1/coupons/check plan_id",
    "POST /v1/gift-catalogue/{id}/give user_id",
    "POST /v1/subscription/change plan_id",
    "POST /v1/subscription/trial plan_id",
    "POST /v1/payments plan_id",
    "POST /v1/payments credit_pack_id",
];

/// Every place of every body where an id may stand is tried with an id of another tenant's: it is as if there were no such thing.
#[sqlx::test(migrations = "../migrations")]
async fn m2_an_id_in_a_body_reaches_nothing_of_another_tenant(db: PgPool) {
    let world = World::new(db).await;
    let document = world.get("/openapi.json").await.json();
    let me = world.key_for(world.tenant("stranger").await, &SCOPES).await.1;
    let theirs =
        (upload(&world, &world.key, "a.png", png([1, 2, 3])).await, upload(&world, &world.key, "a", wav()).await);
    let mine = (upload(&world, &me, "b.png", png([3, 2, 1])).await, upload(&world, &me, "b", wav()).await);
    let folders = (folder(&world, &world.key, "Mine").await, folder(&world, &me, "Mine").await);
    let moved = folder(&world, &me, "Moved").await;
    let mut tried = vec![];
    for (method, path, operation) in operations(&document) {
        let mut places = BTreeSet::new();
        if let Some(schema) = json_body(&operation) {
            ids(&document, schema, "", &mut places);
        }
        for place in places {
            let name = format!("{method} {path} {place}");
            if OF_NO_TENANT.contains(&name.as_str()) {
                tried.push(name);
                continue;
            }
            let of = |(picture, sound): (Uuid, Uuid), folder: Uuid| match place.as_str() {
                "folder_id" | "parent_id" => folder,
                place => {
                    if place.starts_with("audio") {
                        sound
                    } else {
                        picture
                    }
                }
            };
            let at = path.replace("{id}", &if path.starts_with("/v1/folders") { moved } else { mine.0 }.to_string());
            let ask =
                async |id: Uuid| world.send(with_json(request(method.clone(), &at, &me), &body_with(&place, id))).await;
            let before = everything(&world).await;
            let nothing = Uuid::now_v7();
            let (real, none) = (ask(of(theirs, folders.0)).await, ask(nothing).await);
            assert_eq!(real.status, StatusCode::UNPROCESSABLE_ENTITY, "{method} {path} {place}: {:?}", real.body);
            let as_text = |answer: &Answer, id: Uuid| format!("{:?}", plain(answer)).replace(&id.to_string(), "it");
            assert_eq!(as_text(&real, of(theirs, folders.0)), as_text(&none, nothing), "{method} {path} {place}");
            assert_eq!(everything(&world).await, before, "{method} {path} {place}");
            let own = ask(of(mine, folders.1)).await;
            assert!(own.status.is_success(), "{method} {path} {place}: it was the id alone: {:?}", own.body);
            tried.push(name);
        }
    }
    tried.sort();
    assert_eq!(
        tried,
        [
            "PATCH /v1/files/{id} folder_id",
            "PATCH /v1/folders/{id} parent_id",
            "PATCH /v1/identity-providers/{id} client_id",
            "POST /v1/auth/openid/start provider",
            "POST /v1/cleanup-schedules filter.folder_id",
            "POST /v1/cleanup-schedules filter.owner_id",
            "POST /v1/coupons/check plan_id",
            "POST /v1/folders parent_id",
            "POST /v1/gift-catalogue/{id}/give user_id",
            "POST /v1/identity-providers client_id",
            "POST /v1/me/identities/start provider",
            "POST /v1/operate/bulk filter.tenant_id",
            "POST /v1/operate/bulk rest_of",
            "POST /v1/payments credit_pack_id",
            "POST /v1/payments plan_id",
            "POST /v1/platform/tenants/{id}/holds file_id",
            "POST /v1/platform/tenants/{id}/holds owner_id",
            "POST /v1/renders audio.music.file",
            "POST /v1/renders audio.voice_over.file",
            "POST /v1/renders data.images.*",
            "POST /v1/renders/batch orders.*.audio.music.file",
            "POST /v1/renders/batch orders.*.audio.voice_over.file",
            "POST /v1/renders/batch orders.*.data.images.*",
            "POST /v1/scene-snapshots/{project_id} scenes.*",
            "POST /v1/subscription/change plan_id",
            "POST /v1/subscription/trial plan_id",
            "POST /v1/templates/{slug}/svg-previews file_id",
            "POST /v1/uploads/direct folder_id",
            "PUT /v1/cleanup-schedules/{id} filter.folder_id",
            "PUT /v1/cleanup-schedules/{id} filter.owner_id",
            "PUT /v1/tenant/branding favicon_file_id",
            "PUT /v1/tenant/branding logo_file_id"
        ]
    );
}

/// So is every id in a query: a list begins where it would without any.
#[sqlx::test(migrations = "../migrations")]
async fn m2_an_id_in_a_query_reaches_nothing_of_another_tenant(db: PgPool) {
    let world = World::new(db).await;
    let document = world.get("/openapi.json").await.json();
    let stranger = world.tenant("stranger").await;
    let me = world.key_for(stranger, &SCOPES).await.1;
    let (key_id, _) = world.key_for(DEFAULT_TENANT, &["render"]).await;
    let render = world.order().await;
    let folder = folder(&world, &world.key, "Mine").await;
    let file = upload(&world, &world.key, "a.png", png([1, 2, 3])).await;
    let link = world.post(&format!("/v1/files/{file}/share-links"), json!({})).await.json()["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mine = upload(&world, &me, "b.png", png([3, 2, 1])).await.to_string();
    let rule = crate::cleanup::rule(&world, DEFAULT_TENANT, "trash", false).await;
    let member = world.person(DEFAULT_TENANT, "jane@example.com", &["viewer"]).await;
    let coupon = "insert into identity.coupons (tenant_id, code, kind, value, max_redemptions, valid_from, valid_to)
                  values ($1, 'SPRING', 'percent', 5, 1, '2026-01-01Z', '2099-01-01Z') returning id";
    let coupon: Uuid = sqlx::query_scalar(coupon).bind(DEFAULT_TENANT).fetch_one(&world.db).await.unwrap();
    world.person(stranger, "joe@example.com", &["viewer"]).await;
    world.send(with_json(request(Method::POST, "/v1/renders", &me), &order())).await;
    let mut tried = vec![];
    for (method, path, operation) in
        operations(&document).into_iter().filter(|(_, p, _)| !p.starts_with("/v1/platform"))
    {
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query") {
            let (mut places, name) = (BTreeSet::new(), parameter["name"].as_str().unwrap());
            ids(&document, &parameter["schema"], name, &mut places);
            if places.is_empty() {
                continue;
            }
            let id = match path.as_str() {
                "/v1/api-keys" | "/v1/request-logs" => key_id,
                "/v1/files" if method == Method::POST => folder,
                "/v1/files" if name == "starting_after" => file,
                "/v1/files/{id}/share-links" => link,
                "/v1/files" | "/v1/folders" => folder,
                "/v1/members" => member,
                "/v1/renders" => render,
                "/v1/cleanup-schedules" | "/v1/cleanup-schedules/{id}/runs" => rule,
                "/v1/coupons" => coupon,
                // Runs, and whose: of another tenant it is told, not what is there.
                _ if path.starts_with("/v1/operate/") && name != "tenant_id" => world.run_of(render).await,
                _ if path.starts_with("/v1/operate/") => DEFAULT_TENANT,
                // Of people alone, or of the account that pays: a key has none of them.
                "/v1/credits/ledger"
                | "/v1/gifts"
                | "/v1/invoices"
                | "/v1/me/points"
                | "/v1/payment-differences"
                | "/v1/payments"
                | "/v1/refunds"
                | "/v1/subscription/change"
                | "/v1/subscriptions" => coupon,
                _ => panic!("nobody says which id to try at {path} {name}"),
            };
            let ask = async |id: Uuid| {
                let path = format!("{}?{name}={id}", path.replace("{id}", &mine));
                world.send(request(method.clone(), &path, &me).body(Body::empty()).unwrap()).await
            };
            let before = everything(&world).await;
            // The control is the next id, which is nobody's: where a list begins may depend on the number, never on whose it is.
            let (real, none) = (ask(id).await, ask(Uuid::from_u128(id.as_u128() + 1)).await);
            assert_eq!(plain(&real), plain(&none), "{method} {path} {name}");
            assert!(!format!("{:?}", real.body).contains(&id.to_string()), "{method} {path} {name}");
            assert_eq!(everything(&world).await, before, "{method} {path} {name}");
            tried.push(format!("{method} {path} {name}"));
        }
    }
    assert_eq!(
        tried,
        [
            "GET /v1/api-keys starting_after",
            "GET /v1/cleanup-schedules starting_after",
            "GET /v1/cleanup-schedules/{id}/runs starting_after",
            "GET /v1/coupons starting_after",
            "GET /v1/credits/ledger starting_after",
            "GET /v1/files folder_id",
            "GET /v1/files starting_after",
            "POST /v1/files folder_id",
            "GET /v1/files/{id}/share-links starting_after",
            "GET /v1/folders parent_id",
            "GET /v1/folders starting_after",
            "GET /v1/gifts starting_after",
            "GET /v1/invoices starting_after",
            "GET /v1/invoices payment_id",
            "GET /v1/me/points starting_after",
            "GET /v1/members starting_after",
            "GET /v1/operate/audit tenant_id",
            "GET /v1/operate/bulk starting_after",
            "GET /v1/operate/dead-letters starting_after",
            "GET /v1/operate/dead-letters tenant_id",
            "GET /v1/operate/events run_id",
            "GET /v1/operate/failures tenant_id",
            "GET /v1/operate/failures/{fingerprint} tenant_id",
            "GET /v1/operate/runs starting_after",
            "GET /v1/operate/runs tenant_id",
            "GET /v1/payment-differences starting_after",
            "GET /v1/payments starting_after",
            "GET /v1/refunds starting_after",
            "GET /v1/renders starting_after",
            "GET /v1/request-logs api_key_id",
            "GET /v1/subscription/change plan_id",
            "GET /v1/subscriptions starting_after"
        ]
    );
}

/// What the platform decides cannot be said by whoever asks: names of columns in a body are refused, not ignored.
#[sqlx::test(migrations = "../migrations")]
async fn m3_no_body_takes_what_the_platform_decides(db: PgPool) {
    let world = World::new(db).await;
    let document = world.get("/openapi.json").await.json();
    let jane = jane(&world, &["owner", "platform_admin"]).await;
    let columns = [
        "tenant_id",
        "user_id",
        "id",
        "role",
        "is_platform_staff",
        "status",
        "state",
        "price",
        "amount",
        "cost_units",
        "priority",
        "node_id",
        "created_at",
        "email_verified_at",
        "workflow_run_id",
        "key_hash",
        "refcount",
        "rev",
    ];
    let before = everything(&world).await;
    let mut tried = 0;
    for (method, path, operation) in operations(&document) {
        let Some(schema) = json_body(&operation) else { continue };
        let target = schema["$ref"].as_str().unwrap_or_default().trim_start_matches('#');
        let properties = document.pointer(target).unwrap_or(schema)["properties"].clone();
        let id = Uuid::now_v7().to_string();
        let at = path.replace("{id}", &id).replace("{project_id}", &id).replace("{name}", "requests");
        let at = at.replace("{number}", "1").replace("{provider}", "stripe");
        for column in columns.iter().filter(|column| properties.get(**column).is_none()) {
            let mut body = json!({ *column: "00000000-0000-0000-0000-000000000001" });
            // Which fields there are is the action's to say.
            if path.ends_with("/actions") {
                body["action"] = json!(if path.contains("cleanup") { "cancel" } else { "resume" });
            }
            // Each from another address: some are answered only so often to one.
            let peer = SocketAddr::from(([10, 0, (tried / 250) as u8, (tried % 250) as u8], 1234));
            let ask = request(method.clone(), &at, &jane.access).extension(ConnectInfo(peer));
            let answer = world.send(with_json(ask, &body)).await;
            assert_eq!(answer.faults(), [format!("/{column} field.unknown")], "{method} {path} {column}");
            tried += 1;
        }
    }
    assert!(tried > 400, "{tried}");
    let after = everything(&world).await;
    let changed: Vec<_> = after.iter().filter(|(table, digest)| before.get(*table) != Some(*digest)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

/// Whether a value has nothing that its schema does not name.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return fits(document, document.pointer(target.trim_start_matches('#')).unwrap(), value, place, wrong);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let whole =
            |part: &Value| document.pointer(part["$ref"].as_str().unwrap_or_default().trim_start_matches('#')).cloned();
        let parts: Vec<Value> = parts
            .iter()
            .map(|part| whole(part).filter(|w| w["properties"].is_object()).unwrap_or(part.clone()))
            .collect();
        let named = parts.iter().flat_map(|part| part["properties"].as_object().cloned().unwrap_or_default());
        let merged: serde_json::Map<String, Value> = named.collect();
        return fits(document, &json!({ "properties": merged }), value, place, wrong);
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(kinds) = schema[key].as_array() {
            let mut tried = kinds.iter().filter(|kind| kind["type"] != "null").map(|kind| {
                let mut wrong = vec![];
                fits(document, kind, value, place, &mut wrong);
                wrong
            });
            return wrong
                .extend(tried.find(Vec::is_empty).map_or_else(|| vec![format!("{place}: of no kind")], |_| vec![]));
        }
    }
    match value {
        Value::Object(fields) if schema["properties"].is_object() || schema["additionalProperties"].is_object() => {
            for (name, value) in fields {
                let place = format!("{place}.{name}");
                match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (Some(schema), _) => fits(document, schema, value, &place, wrong),
                    (None, rest) if rest.is_object() => fits(document, rest, value, &place, wrong),
                    _ => wrong.push(place),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fits(document, &schema["items"], item, place, wrong)),
        _ => {}
    }
}

/// Answers hold what their schema names and nothing else: no column comes along by itself, and no secret.
#[sqlx::test(migrations = "../migrations")]
async fn m4_an_answer_holds_what_its_schema_names_and_nothing_else(db: PgPool) {
    let world = World::new(db).await;
    let document = world.get("/openapi.json").await.json();
    let jane = jane(&world, &["owner", "platform_admin"]).await;
    let id_of = |answer: Answer| answer.json()["id"].as_str().unwrap_or_else(|| panic!("{:?}", answer.body)).to_owned();
    let render = world.order().await;
    let export = crate::exports::publish(&world, render, b"a film").await.to_string();
    let file = upload(&world, &world.key, "a.png", png([1, 2, 3])).await.to_string();
    let kept_in = folder(&world, &world.key, "Mine").await.to_string();
    let begun =
        request(Method::POST, "/v1/uploads", &jane.access).header("tus-resumable", "1.0.0").header("upload-length", 5);
    let begun = world.send(begun.body(Body::empty()).unwrap()).await;
    let under_way = begun.header("location").rsplit('/').next().unwrap().to_owned();
    let link = jane.post(&format!("/v1/files/{file}/share-links"), json!({})).await.json();
    let token = link["url"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    let hook = id_of(jane.post("/v1/webhooks", json!({ "url": "https://example.com/" })).await);
    let told = id_of(jane.post(&format!("/v1/webhooks/{hook}/test"), json!({})).await);
    jane.post("/v1/domains", json!({ "hostname": "films.acme.example" })).await;
    let price = json!({"currency": "USD", "interval": "month", "amount": 1900});
    let plan = json!({"code": "pro", "name": {"en": "Pro"}, "prices": [price], "entitlements": {"render_minutes": 10}});
    let plan = id_of(jane.post("/v1/plans", plan).await);
    let coupon = "insert into identity.coupons (tenant_id, code, kind, value, max_redemptions, valid_from, valid_to)
                  values ($1, 'SPRING', 'percent', 5, 1, '2026-01-01Z', '2099-01-01Z') returning id";
    let coupon: Uuid = sqlx::query_scalar(coupon).bind(DEFAULT_TENANT).fetch_one(&world.db).await.unwrap();
    let title = json!({"en": "Your first film"});
    let achievement =
        json!({"code": "first_film", "title": title, "points": 25, "rule": {"source": "render", "count": 1}});
    let achievement = id_of(jane.post("/v1/achievements", achievement).await);
    let gift = json!({"code": "present", "title": title, "kind": "credits", "value": 600, "stock": 9});
    let gift = id_of(jane.post("/v1/gift-catalogue", gift).await);
    let paid = "insert into identity.payments (tenant_id, user_id, purpose, credits, amount, currency, state, provider, provider_txn, idempotency_key,
                    price_snapshot, expires_at, paid_at, workflow_run_id)
                values ($1, $2, 'credits', 1, 9, 'USD', 'paid', 'manual', 't', 'k', '{}', workflow.now(), workflow.now(), gen_random_uuid()) returning id";
    let paid: Uuid = sqlx::query_scalar(paid).bind(DEFAULT_TENANT).bind(jane.id).fetch_one(&world.db).await.unwrap();
    let refund =
        id_of(jane.post(&format!("/v1/payments/{paid}/refunds"), json!({"amount": 4, "reason": "late"})).await);
    let bill = "with made as (insert into identity.invoices (tenant_id, series, year, buyer, currency, net_amount, tax_amount, total_amount, payment_id)
                    values ($1, 'INV', 2026, '{}', 'USD', 9, 0, 9, $2) returning id) select id from made";
    let bill: Uuid = sqlx::query_scalar(bill).bind(DEFAULT_TENANT).bind(paid).fetch_one(&world.db).await.unwrap();
    sqlx::query("select identity.issue_invoice($1, '2026-06-11')").bind(bill).execute(&world.db).await.unwrap();
    let differs = "insert into identity.provider_reconciliations (tenant_id, provider, day, currency, our_amount, their_amount, state, note)
                   values ($1, 'stripe', '2026-11-26', 'USD', 5, 9, 'open', 'pi_1: not ours, 4') returning id";
    let differs: Uuid = sqlx::query_scalar(differs).bind(DEFAULT_TENANT).fetch_one(&world.db).await.unwrap();
    let account =
        json!({"mode": "test", "settings": {"secret_key": "sk_test_hidden", "webhook_secrets": ["whsec_hidden"]}});
    let put = request(Method::PUT, "/v1/gateways/stripe", &jane.access);
    assert_eq!(world.send(with_json(put, &account)).await.status, StatusCode::OK);
    id_of(
        jane.post("/v1/credit-packs", json!({"code": "hour", "seconds": 3600, "amount": 500, "currency": "USD"})).await,
    );
    let rule = json!({"name": "old", "target": "trash", "older_than_seconds": 86_400, "cron": "30 3 * * *"});
    let rule = id_of(jane.post("/v1/cleanup-schedules", rule).await);
    let run = id_of(jane.post(&format!("/v1/cleanup-schedules/{rule}/runs"), json!({"dry_run": true})).await);
    let hold = json!({"reason": "court order 17"});
    id_of(jane.post(&format!("/v1/platform/tenants/{DEFAULT_TENANT}/holds"), hold).await);
    let schedule: Uuid = sqlx::query_scalar("select id from workflow.schedules").fetch_one(&world.db).await.unwrap();
    jane.post("/v1/api-keys", json!({ "name": "Shop" })).await;
    jane.with_factor().await;
    let kept = "select string_agg(encode(h, 'hex'), ' ') from (select key_hash from identity.tenant_api_keys
        union all select access_hash from identity.user_sessions union all select secret_enc from identity.tenant_webhooks
        union all select secret_enc from identity.mfa_factors) k (h)";
    let kept: String = sqlx::query_scalar(kept).fetch_one(&world.db).await.unwrap();
    world.node("n1").await;
    let node: Uuid = sqlx::query_scalar("select id from render.nodes").fetch_one(&world.db).await.unwrap();
    let project: Uuid = sqlx::query_scalar("select id from content.projects").fetch_one(&world.db).await.unwrap();
    let failed = r#"insert into workflow.runs (id, tenant_id, kind, version, input, priority, state, error, created_at, finished_at, error_fingerprint)
        values (workflow.new_run_id(workflow.now()), $1, 'notify', 1, '{}', 0, 'failed', '{"code": "a.b", "message": "m", "retryable": false}',
                workflow.now(), workflow.now(), 'a.b:0')"#;
    sqlx::query(failed).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let bulk = json!({"action": "cancel", "filter": {"states": ["running"]}, "reason": "because"});
    let bulk = id_of(jane.post("/v1/operate/bulk", bulk).await);
    let mut looked = vec![];
    for (_, path, operation) in operations(&document).into_iter().filter(|(method, ..)| *method == Method::GET) {
        // One that is there needs a server to be found at: see `identity_providers`.
        // A change is looked at for a plan: see `credits`.
        // Parts are listed by a bucket: see `direct_uploads`.
        if matches!(path.as_str(), "/v1/identity-providers/{id}" | "/v1/subscription/change" | "/v1/uploads/{id}/parts")
        {
            continue;
        }
        let Some(schema) = operation.pointer("/responses/200/content/application~1json/schema") else { continue };
        let id = match path.split('/').nth(2).unwrap_or_default() {
            "renders" => render.to_string(),
            "exports" => export.clone(),
            "files" => file.clone(),
            "folders" => kept_in.clone(),
            "uploads" => under_way.clone(),
            "webhooks" => hook.clone(),
            "cleanup-schedules" => rule.clone(),
            "cleanup-runs" => run.clone(),
            "plans" => plan.clone(),
            "coupons" => coupon.to_string(),
            "achievements" => achievement.clone(),
            "gift-catalogue" => gift.clone(),
            "payment-differences" => differs.to_string(),
            "payments" => paid.to_string(),
            "refunds" => refund.clone(),
            "invoices" => bill.to_string(),
            "members" if path.ends_with("/storage") => jane.id.to_string(),
            "operate" if path.contains("/bulk/") => bulk.clone(),
            "operate" => world.run_of(render).await.to_string(),
            "platform" if path.contains("/nodes/") => node.to_string(),
            "platform" if path.contains("/schedules/") => schedule.to_string(),
            _ => DEFAULT_TENANT.to_string(),
        };
        let at = path
            .replace("{id}", &id)
            .replace("{delivery_id}", &told)
            .replace("{slug}", "tiny")
            .replace("{fingerprint}", "a.b:0")
            .replace("{project_id}", &project.to_string());
        let ask = request(Method::GET, &at, &jane.access).body(Body::empty()).unwrap();
        let answer = world.send(ask).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
        let mut wrong = vec![];
        fits(&document, schema, &answer.json(), "", &mut wrong);
        assert!(wrong.is_empty(), "{path}: {wrong:?}");
        let text = String::from_utf8_lossy(&answer.body).to_lowercase();
        for secret in kept.split(' ').chain([
            PASSWORD,
            "argon2",
            "sk_test_hidden",
            "whsec_hidden",
            &jane.access,
            &jane.refresh,
            &world.key,
            &token,
        ]) {
            assert!(!text.contains(&secret.to_lowercase()), "{path} tells {secret}");
        }
        looked.push(path);
    }
    assert!(looked.len() >= 20, "{looked:?}");
}

/// An address that is written otherwise, or a method that is said to be another, leads no further.
#[sqlx::test(migrations = "../migrations")]
async fn m5_no_spelling_leads_where_somebody_may_not_go(db: PgPool) {
    let world = World::new(db).await;
    let joe = world.person(DEFAULT_TENANT, "joe@example.com", &["viewer"]).await;
    let joe = world.session(DEFAULT_TENANT, joe).await;
    let before = everything(&world).await;
    for path in [
        "/v1/platform/tenants",
        "/V1/platform/tenants",
        "/v1/Platform/Tenants",
        "/v1/%70latform/tenants",
        "/v1/platform%2ftenants",
        "/v1//platform/tenants",
        "//v1/platform/tenants",
        "/v1/./platform/tenants",
        "/v1/me/../platform/tenants",
        "/v1/me/%2e%2e/platform/tenants",
        "/v1/platform/tenants/",
        "/v1/platform/tenants;x=1",
        "/v1/platform/tenants%00",
        "/v1/platform/tenants%20",
        "/v1/platform/tenants?x=/v1/me",
        "/v1/api-keys",
        "/v1/%61pi-keys",
        "/v1/audit",
        "/v1/members",
    ] {
        for method in [Method::GET, Method::POST] {
            let ask =
                with_json(request(method.clone(), path, &joe), &json!({ "slug": "x", "name": "x", "email": "x@x.x" }));
            let answer = world.send(ask).await;
            assert!(matches!(answer.status.as_u16(), 401 | 403 | 404 | 405), "{method} {path}: {}", answer.status);
        }
    }
    let render = world.order().await;
    let after_order = everything(&world).await;
    for name in ["x-http-method-override", "x-method-override", "x-http-method"] {
        for method in ["POST", "DELETE"] {
            let ask =
                request(Method::GET, &format!("/v1/renders/{render}?_method={method}"), &joe).header(name, method);
            assert_eq!(world.send(ask.body(Body::empty()).unwrap()).await.status, StatusCode::OK, "it stays a GET");
        }
    }
    assert_eq!(everything(&world).await, after_order);
    assert_ne!(before, after_order, "what is looked at does change");
}

/// Who somebody is stands in their credential: what they write into other headers is believed by nobody.
#[sqlx::test(migrations = "../migrations")]
async fn m6_headers_make_nobody_of_somebody_else(db: PgPool) {
    let world = World::new(db).await;
    let me = world.stranger().await;
    let jane = world.person(DEFAULT_TENANT, "jane@example.com", &["owner"]).await;
    world.order().await;
    let (tenant, jane) = (DEFAULT_TENANT.to_string(), jane.to_string());
    let key = format!("Bearer {}", world.key);
    let headers = [
        ("x-user-id", jane.as_str()),
        ("x-tenant-id", &tenant),
        ("x-tenant", "default"),
        ("x-user", "jane@example.com"),
        ("x-role", "owner"),
        ("x-forwarded-user", "jane@example.com"),
        ("x-remote-user", "jane@example.com"),
        ("remote-user", "jane"),
        ("x-authenticated-userid", &jane),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-forwarded-host", "localhost"),
        ("x-original-url", "/metrics"),
        ("x-rewrite-url", "/healthz"),
        ("x-internal", "true"),
        ("proxy-authorization", &key),
        ("x-authorization", &key),
        ("cookie", &key),
        ("x-api-key", &world.key),
    ];
    for (name, value) in headers {
        let bare = axum::http::Request::get("/v1/renders").header(name, value).body(Body::empty()).unwrap();
        assert_eq!(world.send(bare).await.problem(), "auth.missing", "{name}");
        let mine = request(Method::GET, "/v1/renders", &me).header(name, value).body(Body::empty()).unwrap();
        assert_eq!(world.send(mine).await.json()["data"], json!([]), "{name}");
    }
    // Two credentials: the first one counts, and it has to be good by itself.
    let both = request(Method::GET, "/v1/renders", &me).header("authorization", &key).body(Body::empty()).unwrap();
    let both = world.send(both).await;
    assert!(both.status == StatusCode::UNAUTHORIZED || both.json()["data"] == json!([]), "{:?}", both.body);
}

/// PostgreSQL takes every text but one with a NUL: wherever somebody puts one, it is their mistake and not the server's.
#[sqlx::test(migrations = "../migrations")]
async fn a_nul_in_a_text_is_told_and_no_internal_problem(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &["owner"]).await;
    for path in
        ["/v1/branding?tenant=%00", "/v1/branding/a%00/logo", "/v1/auth/openid?tenant=a%00b", "/v1/audit?action=%00"]
    {
        assert_eq!(jane.get(path).await.problem(), "request.invalid", "{path}");
    }
    for path in ["/v1/auth/sign-in", "/v1/auth/register", "/v1/auth/forgot-password"] {
        let mut body = json!({ "tenant": "a\0", "email": "a@b.example" });
        if !path.ends_with("password") {
            body["password"] = json!(PASSWORD);
        }
        assert_eq!(jane.post(path, body).await.problem(), "request.invalid", "{path}");
    }
}

/// An answer says that it may be kept, or nobody keeps it: what is somebody's own is not left behind in a browser.
#[sqlx::test(migrations = "../migrations")]
async fn nobody_keeps_an_answer_that_is_somebodys_own(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &["owner"]).await;
    for path in ["/v1/me", "/v1/me/sessions", "/v1/members", "/v1/renders", "/v1/api-keys", "/v1/tenant"] {
        assert_eq!(jane.get(path).await.header("cache-control"), "no-store", "{path}");
    }
    let factor = jane.post("/v1/me/factors/totp", json!({ "label": "Phone" })).await;
    assert_eq!(factor.header("cache-control"), "no-store", "a secret");
    assert!(jane.get("/v1/branding").await.header("cache-control").starts_with("public"));
    // What a client has already it may go on keeping as long as it might before.
    let export = crate::exports::publish(&world, world.order().await, b"a film").await;
    let path = format!("/v1/exports/{export}/download");
    let film = world.get(&path).await;
    let same = world.request(Method::GET, &path).header("if-none-match", film.header("etag"));
    let same = world.send(same.body(Body::empty()).unwrap()).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    assert_eq!(same.header("cache-control"), film.header("cache-control"));
    assert!(film.header("cache-control").starts_with("private"));
}

/// A browser that somebody else's page makes ask carries nothing along: there are no cookies, no other origin may read an answer,
/// and no page of ours stands in another.
#[sqlx::test(migrations = "../migrations")]
async fn m15_nothing_of_ours_is_used_from_another_page(db: PgPool) {
    let world = World::new(db).await;
    let document = world.get("/openapi.json").await.json();
    let jane = jane(&world, &["owner"]).await;
    let mut asked = 0;
    for (method, path, _) in operations(&document) {
        let at = path.replace("{id}", &Uuid::nil().to_string()).replace("{slug}", "tiny").replace("{name}", "requests");
        for (method, credential) in [(method.clone(), Some(&jane.access)), (method, None), (Method::OPTIONS, None)] {
            let mut ask =
                axum::http::Request::builder().method(method.clone()).uri(&at).header("origin", "https://evil.example");
            ask = ask
                .header("access-control-request-method", "POST")
                .header("cookie", format!("session={}", jane.access));
            if let Some(credential) = credential {
                ask = ask.header("authorization", format!("Bearer {credential}"));
            }
            let answer = world.send(ask.header("content-type", "text/plain").body(Body::from("{}")).unwrap()).await;
            let names: Vec<&str> = answer.headers.keys().map(|name| name.as_str()).collect();
            assert!(
                !names.iter().any(|n| n.starts_with("access-control-") || *n == "set-cookie"),
                "{method} {at}: {names:?}"
            );
            assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{method} {at}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff", "{method} {at}");
            asked += 1;
        }
    }
    assert!(asked > 150, "{asked}");
    // A form of another page can send this without asking first; it is no JSON.
    let form = axum::http::Request::post("/v1/auth/sign-in").header("content-type", "text/plain");
    let form = form.body(Body::from(credentials("jane@example.com", PASSWORD).to_string())).unwrap();
    assert_eq!(world.send(form).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    // Signing in while one has a session makes another: nobody can be given one to sign in with.
    let again =
        with_json(request(Method::POST, "/v1/auth/sign-in", &jane.access), &credentials("jane@example.com", PASSWORD));
    let again = world.send(again).await.json();
    assert!(again["access_token"].is_string() && again["access_token"] != json!(jane.access));
}
