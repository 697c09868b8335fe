//! What tenants may use: counted once for all servers, refused in plain words. Reading is never refused.

use crate::{
    jane::pass,
    world::{Answer, World, order, png, request, with_json},
};
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode},
};
use flatrender_api::{app::App, router};
use flatrender_engine::Client;
use flatrender_workflows::models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES, invariants, render::render_job};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{cell::Cell, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use tower::ServiceExt as _;
use uuid::Uuid;

/// Agrees on a quota, as whoever administers the platform does.
pub async fn agree(world: &World, name: &str, hard: i64) {
    let sql = "select id from identity.users where email = 'root@example.com'";
    let known: Option<Uuid> = sqlx::query_scalar(sql).fetch_optional(&world.db).await.unwrap();
    let admin = match known {
        Some(id) => id,
        None => world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await,
    };
    let access = world.session(DEFAULT_TENANT, admin).await;
    let path = format!("/v1/platform/tenants/{DEFAULT_TENANT}/limits/{name}");
    let agreed = world.send(with_json(request(Method::PUT, &path, &access), &json!({ "hard": hard }))).await;
    assert_eq!(agreed.status, StatusCode::OK, "{:?}", agreed.body);
}

/// Another server of the same installation: it shares nothing but the database and the storage.
async fn second_server(world: &World) -> Router {
    let db = PgPool::connect_with((*world.db.connect_options()).clone()).await.unwrap();
    let app = &world.app;
    let parts = (app.storage.clone(), app.probe.clone(), app.vault.clone(), app.stopping.clone());
    router::router(App::new(db.clone(), Client::new(db), parts.0, parts.1, parts.2, parts.3))
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn codes(answers: &[Answer]) -> Vec<String> {
    let mut codes: Vec<_> = answers
        .iter()
        .filter(|a| a.status.is_client_error())
        .map(|a| format!("{} {}", a.status.as_u16(), a.problem()))
        .collect();
    codes.dedup();
    codes
}

/// What is used of a quota, and what was agreed.
async fn quota(world: &World, name: &str) -> (i64, Value) {
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    let list = world.send(request(Method::GET, "/v1/tenant/quotas", &key).body(Body::empty()).unwrap()).await.json();
    let found = list["data"].as_array().unwrap().iter().find(|q| q["name"] == name).unwrap().clone();
    (found["used"].as_i64().unwrap(), found["limit"].clone())
}

#[sqlx::test(migrations = "../migrations")]
async fn of_orders_at_once_no_more_are_taken_a_day_than_agreed_whichever_server_they_reach(db: PgPool) {
    let world = World::new(db).await;
    let servers = [world.router.clone(), second_server(&world).await];
    agree(&world, "renders_per_day", 5).await;
    let ask = |n: usize| {
        let request = world.request(Method::POST, "/v1/renders").header("idempotency-key", format!("order-{n}"));
        send(&servers[n % 2], with_json(request, &order()))
    };
    let answers = join_all((0..16).map(ask)).await;
    let taken: Vec<usize> = (0..16).filter(|n| answers[*n].status == StatusCode::ACCEPTED).collect();
    assert_eq!((taken.len(), codes(&answers)), (5, vec!["429 quota.renders_per_day".to_owned()]));
    let refused = answers.iter().find(|a| a.status == StatusCode::TOO_MANY_REQUESTS).unwrap();
    let wait: i32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert_eq!(world.count("render.render_jobs").await, 5);
    assert_eq!(world.count("workflow.runs").await, 5, "a refused order has started nothing");

    assert_eq!(ask(taken[0]).await.status, StatusCode::ACCEPTED, "an order that was taken is not a new one");
    assert_eq!(world.get("/v1/renders").await.status, StatusCode::OK, "reading goes on");
    assert_eq!(quota(&world, "renders_per_day").await, (5, json!(5)));
    pass(&world, wait).await;
    assert_eq!(quota(&world, "renders_per_day").await, (0, json!(5)));
    assert_eq!(world.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED, "a day later");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_has_to_end_before_there_may_be_another(db: PgPool) {
    let world = World::new(db).await;
    let servers = [world.router.clone(), second_server(&world).await];
    agree(&world, "concurrent_renders", 2).await;
    let ask = |n: usize| send(&servers[n % 2], with_json(world.request(Method::POST, "/v1/renders"), &order()));
    let answers = join_all((0..8).map(ask)).await;
    let taken: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::ACCEPTED).collect();
    assert_eq!((taken.len(), codes(&answers)), (2, vec!["429 quota.concurrent_renders".to_owned()]));
    assert_eq!(quota(&world, "concurrent_renders").await, (2, json!(2)));
    let one: Uuid = taken[0].json()["id"].as_str().unwrap().parse().unwrap();
    render_job::settle(&mut world.db.acquire().await.unwrap(), one, world.run_of(one).await, Ok(())).await.unwrap();
    assert_eq!(ask(1).await.status, StatusCode::ACCEPTED);
    assert_eq!(ask(0).await.problem(), "quota.concurrent_renders");
    let other = world.stranger().await;
    let theirs = world.send(with_json(request(Method::POST, "/v1/renders", &other), &order())).await;
    assert_eq!(theirs.status, StatusCode::ACCEPTED, "what one tenant uses is not another's");
}

#[sqlx::test(migrations = "../migrations")]
async fn no_more_is_kept_than_agreed_and_the_same_content_counts_once(db: PgPool) {
    let world = World::new(db).await;
    let size = png([1, 0, 0]).len() as i64;
    agree(&world, "storage_bytes", 3 * size + size / 2).await;
    let servers = [world.router.clone(), second_server(&world).await];
    let upload = |n: u8, color: [u8; 3]| {
        let request = world.request(Method::POST, "/v1/files?name=a.png");
        send(&servers[usize::from(n % 2)], request.body(Body::from(png(color))).unwrap())
    };
    let answers = join_all((1..=8).map(|n| upload(n, [n, 0, 0]))).await;
    let taken: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::CREATED).collect();
    let (used, limit) = quota(&world, "storage_bytes").await;
    assert!(used <= limit.as_i64().unwrap() && (3..=4).contains(&taken.len()), "{used} of {limit} in {}", taken.len());
    assert_eq!(codes(&answers), ["409 quota.storage"]);
    let file = format!("/v1/files/{}", taken[0].json()["id"].as_str().unwrap());
    assert_eq!(world.get(&file).await.status, StatusCode::OK, "reading goes on");
    let stored = world.stored_files();
    assert_eq!(upload(1, [99, 0, 0]).await.problem(), "quota.storage");
    assert_eq!(world.stored_files(), stored, "a refused file leaves nothing behind");

    agree(&world, "storage_bytes", used).await;
    let traced = world.post("/v1/templates/tiny/svg-previews", json!({"file_id": taken[0].json()["id"]})).await;
    assert_eq!(traced.problem(), "quota.storage");
    assert_eq!(world.post("/v1/renders", order()).await.problem(), "quota.storage", "a film needs room, too");
    agree(&world, "storage_bytes", used + 3 * size).await;
    assert_eq!(upload(1, [77, 0, 0]).await.status, StatusCode::CREATED);
    let (with_one, _) = quota(&world, "storage_bytes").await;
    assert_eq!(upload(2, [77, 0, 0]).await.status, StatusCode::CREATED);
    assert_eq!((with_one > used, quota(&world, "storage_bytes").await.0), (true, with_one), "the same content again");
}

/// Who sends slowly, or not at all, has room while it does; nobody else has that room meanwhile, and it is free when the client is gone.
#[sqlx::test(migrations = "../migrations")]
async fn a_file_has_its_room_before_a_byte_of_it_is_read(db: PgPool) {
    let world = Arc::new(World::new(db).await);
    let picture = png([1, 0, 0]);
    let size = picture.len() as i64;
    agree(&world, "storage_bytes", size + size / 2).await;
    let slowly = |comes: oneshot::Receiver<Vec<u8>>| {
        let body = futures::stream::once(async move { comes.await.map_err(std::io::Error::other) });
        let request = world.request(Method::POST, "/v1/files?name=a.png").header("content-length", size);
        let (world, request) = (world.clone(), request.body(Body::from_stream(body)).unwrap());
        tokio::spawn(async move { world.send(request).await })
    };
    let (_waits, comes) = oneshot::channel();
    let gone = slowly(comes);
    set_aside(&world, size).await;
    assert_eq!(world.upload("b.png", png([2, 0, 0])).await.problem(), "quota.storage");
    gone.abort();
    set_aside(&world, 0).await;

    let (send, comes) = oneshot::channel();
    let slow = slowly(comes);
    set_aside(&world, size).await;
    send.send(picture).unwrap();
    assert_eq!(slow.await.unwrap().status, StatusCode::CREATED);
    set_aside(&world, 0).await;
    let unknown = Body::from_stream(futures::stream::iter([std::io::Result::Ok(png([1, 0, 0]))]));
    assert_eq!(world.upload("c.png", unknown).await.problem(), "quota.storage", "it might be of any length");
    set_aside(&world, 0).await;
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_has_to_fit_into_what_the_person_may_keep_too(db: PgPool) {
    let world = World::new(db).await;
    let owner = world.person(DEFAULT_TENANT, "owner@example.com", &["owner"]).await;
    let jane = world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let (manage, access) = (world.session(DEFAULT_TENANT, owner).await, world.session(DEFAULT_TENANT, jane).await);
    let size = png([1, 0, 0]).len() as i64;
    let path = format!("/v1/members/{jane}/storage");
    let set = json!({ "limit_bytes": size + size / 2, "limit_files": 5 });
    let set = world.send(with_json(request(Method::PUT, &path, &manage), &set)).await;
    assert_eq!((set.status, set.json()["used_bytes"].as_i64()), (StatusCode::OK, Some(0)), "{:?}", set.body);
    let upload = |by: &str, n: u8| {
        let request = request(Method::POST, "/v1/files?name=a.png", by);
        world.send(request.body(Body::from(png([n, 0, 0]))).unwrap())
    };
    assert_eq!(upload(&access, 1).await.status, StatusCode::CREATED);
    assert_eq!(upload(&access, 2).await.problem(), "quota.storage");
    assert_eq!(upload(&manage, 2).await.status, StatusCode::CREATED, "what one may keep is not another's");
    let seen = world.send(request(Method::GET, &path, &manage).body(Body::empty()).unwrap()).await.json();
    let part = |name: &str| seen[name].as_i64().unwrap();
    assert!(part("used_bytes") > 0 && part("used_files") == 1 && part("limit_bytes") == size + size / 2, "{seen}");
    let negative = json!({ "limit_bytes": -1 });
    let negative = world.send(with_json(request(Method::PUT, &path, &manage), &negative)).await;
    assert_eq!(negative.faults(), ["/limit_bytes limit.value"]);
    assert_eq!(world.count("identity.audit_log where action = 'member.set_storage'").await, 1);
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
}

/// Bytes that the tenant keeps, and that are set aside of its quota.
async fn kept(world: &World) -> (i64, i64) {
    let sql = "select used_bytes, reserved_bytes from file_mgr.quotas where tenant_id = $1 and owner_id is null";
    sqlx::query_as(sql).bind(DEFAULT_TENANT).fetch_one(&world.db).await.unwrap()
}

/// Waits until so much is set aside.
async fn set_aside(world: &World, bytes: i64) {
    let looking = async {
        while kept(world).await.1 != bytes {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("the room is free again");
}

/// Whoever goes, and whatever is being committed just then, nothing is set aside for who is not there.
#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_is_cut_anywhere_leaves_no_room_set_aside(db: PgPool) {
    let world = World::new(db).await;
    let picture = png([1, 2, 3]);
    assert_eq!(world.upload("a.png", picture.clone()).await.status, StatusCode::CREATED);
    for later in 0..40 {
        let asked = world.upload("a.png", picture.clone());
        // Each is cut a little later than the one before.
        let _ = tokio::time::timeout(Duration::from_millis(later), asked).await;
    }
    set_aside(&world, 0).await;
}

async fn cancel(world: &World, film: &str) {
    let cancelled = world.post(&format!("/v1/renders/{film}/cancel"), json!({})).await;
    assert_eq!(cancelled.status, StatusCode::ACCEPTED, "{:?}", cancelled.body);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_taken_where_it_fits_and_its_room_is_free_once_it_is_cancelled(db: PgPool) {
    let world = World::new(db).await;
    let first = world.order().await;
    let (used, room) = kept(&world).await;
    assert!(room > 0, "without a limit it is counted, too");
    agree(&world, "storage_bytes", used + 2 * room + room / 2).await;
    world.order().await;
    assert_eq!(quota(&world, "storage_bytes").await.0, used + 2 * room, "what is set aside is used, too");
    let refused = world.post("/v1/renders", order()).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::CONFLICT, "quota.storage"));
    let batch = world.post("/v1/renders/batch", json!({ "orders": [order()] })).await.json();
    assert_eq!((&batch["refused"], &batch["data"][0]["problem"]["code"]), (&json!(1), &json!("quota.storage")));
    assert_eq!(world.count("render.render_jobs").await, 2);
    assert_eq!(world.count("workflow.runs").await, 2, "a refused order has started nothing");
    assert_eq!(kept(&world).await, (used, 2 * room), "and has set nothing aside");

    cancel(&world, &first.to_string()).await;
    let workflows = world.run_workflows();
    set_aside(&world, room).await;
    workflows.stop().await;
    assert_eq!(world.post("/v1/renders", order()).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.post("/v1/renders", order()).await.problem(), "quota.storage");
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_else_is_ordered_with_a_film_has_to_fit_too_and_less_quality_needs_less(db: PgPool) {
    let world = World::new(db).await;
    world.order().await;
    let (used, room) = kept(&world).await;
    agree(&world, "storage_bytes", used + 2 * room).await;
    let with = |output: Value| {
        let mut wanted = order();
        wanted["output"] = output;
        wanted
    };
    let more = with(json!({ "derivatives": ["prores", "poster"] }));
    assert_eq!(world.post("/v1/renders", more).await.problem(), "quota.storage");
    assert_eq!(kept(&world).await, (used, room), "neither the film nor a part of the rest");
    let rough = with(json!({ "quality": "preview" }));
    assert_eq!(world.post("/v1/renders", rough).await.status, StatusCode::ACCEPTED);
    let (_, both) = kept(&world).await;
    assert!(both > room && both < 2 * room, "{both} of {room} each");
}

/// Two servers, and a limit that so many films fit below that are ordered at once.
#[sqlx::test(migrations = "../migrations")]
async fn m43_sixty_four_who_order_at_once_never_have_more_set_aside_than_fits(db: PgPool) {
    const FIT: i64 = 5;
    let world = World::new(db).await;
    let servers = [world.router.clone(), second_server(&world).await];
    let first = world.order().await.to_string();
    let (used, room) = kept(&world).await;
    let limit = used + FIT * room + room / 2;
    agree(&world, "storage_bytes", limit).await;
    let done = Cell::new(false);
    let ordering = async {
        let ask = |n: usize| send(&servers[n % 2], with_json(world.request(Method::POST, "/v1/renders"), &order()));
        let answers = join_all((0..64).map(ask)).await;
        done.set(true);
        answers
    };
    let watching = async {
        let mut most = 0;
        while !done.get() {
            let (used, reserved) = kept(&world).await;
            most = most.max(used + reserved);
        }
        most
    };
    let (answers, most) = tokio::join!(ordering, watching);
    let taken: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::ACCEPTED).collect();
    assert_eq!((taken.len() as i64, codes(&answers)), (FIT - 1, vec!["409 quota.storage".to_owned()]));
    assert!(most <= limit, "{most} of {limit} seen");
    assert_eq!(kept(&world).await, (used, FIT * room));
    assert_eq!(world.count("render.render_jobs").await, FIT);

    cancel(&world, &first).await;
    for film in taken {
        cancel(&world, film.json()["id"].as_str().unwrap()).await;
    }
    let workflows = world.run_workflows();
    set_aside(&world, 0).await;
    workflows.stop().await;
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
}

/// Films are the tenant's: they need room in its quota, and take none of what a person may keep.
#[sqlx::test(migrations = "../migrations")]
async fn a_film_needs_no_room_of_the_person_who_orders_it(db: PgPool) {
    let world = World::new(db).await;
    let owner = world.person(DEFAULT_TENANT, "owner@example.com", &["owner"]).await;
    let jane = world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let (manage, access) = (world.session(DEFAULT_TENANT, owner).await, world.session(DEFAULT_TENANT, jane).await);
    let path = format!("/v1/members/{jane}/storage");
    let set = json!({ "limit_bytes": 1, "limit_files": 1 });
    assert_eq!(world.send(with_json(request(Method::PUT, &path, &manage), &set)).await.status, StatusCode::OK);
    let order_film = || world.send(with_json(request(Method::POST, "/v1/renders", &access), &order()));
    assert_eq!(order_film().await.status, StatusCode::ACCEPTED);
    let seen = world.send(request(Method::GET, &path, &manage).body(Body::empty()).unwrap()).await.json();
    assert_eq!((&seen["used_bytes"], &seen["reserved_bytes"]), (&json!(0), &json!(0)));
    let (used, room) = kept(&world).await;
    assert!(room > 0, "of the tenant's it is set aside");
    agree(&world, "storage_bytes", used + room).await;
    assert_eq!(order_film().await.problem(), "quota.storage");
}

#[sqlx::test(migrations = "../migrations")]
async fn nobody_gets_a_role_without_a_seat(db: PgPool) {
    let world = World::new(db).await;
    let owner = world.person(DEFAULT_TENANT, "owner@example.com", &["owner"]).await;
    let access = world.session(DEFAULT_TENANT, owner).await;
    agree(&world, "seats", 3).await;
    let servers = [world.router.clone(), second_server(&world).await];
    let invite = |n: usize| {
        let body = json!({"email": format!("p{n}@example.com"), "roles": ["viewer"]});
        send(&servers[n % 2], with_json(request(Method::POST, "/v1/members", &access), &body))
    };
    let answers = join_all((0..6).map(invite)).await;
    assert_eq!(answers.iter().filter(|a| a.status == StatusCode::CREATED).count(), 2, "the owner has the first");
    assert_eq!((codes(&answers), quota(&world, "seats").await), (vec!["409 quota.seats".to_owned()], (3, json!(3))));
    let seated: Vec<usize> = (0..6).filter(|n| answers[*n].status == StatusCode::CREATED).collect();
    assert_eq!(invite(seated[0]).await.status, StatusCode::CREATED, "who has a seat keeps it");
    let member = format!("/v1/members/{}", answers[seated[0]].json()["id"].as_str().unwrap());
    // Somebody who registered has no role, and gets none without a seat.
    let visitor = world.person(DEFAULT_TENANT, "visitor@example.com", &[]).await;
    let roles = || {
        let path = format!("/v1/members/{visitor}/roles");
        world.send(with_json(request(Method::PUT, &path, &access), &json!({"roles": ["editor"]})))
    };
    assert_eq!(roles().await.problem(), "quota.seats");
    world.send(request(Method::DELETE, &member, &access).body(Body::empty()).unwrap()).await;
    assert_eq!(roles().await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_suspended_tenant_reads_and_what_it_has_under_way_goes_on(db: PgPool) {
    let world = World::new(db).await;
    let film = world.order().await;
    let sql = "update identity.tenants set status = 'suspended', suspended_reason = 'unpaid'";
    sqlx::query(sql).execute(&world.db).await.unwrap();
    assert_eq!(world.post("/v1/renders", order()).await.problem(), "tenant.suspended");
    assert_eq!(world.upload("a.png", png([1, 2, 3])).await.problem(), "tenant.suspended");
    let new = json!({ "email": "new@example.com", "password": "correct horse battery staple" });
    assert_eq!(
        world.post("/v1/auth/register", new).await.problem(),
        "account.registration_closed",
        "nobody new comes in"
    );
    let path = format!("/v1/renders/{film}");
    let workflows = world.run_workflows();
    let begun = async {
        while world.get(&path).await.json()["status"] == "queued" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the film goes on");
    workflows.stop().await;
    assert_eq!(quota(&world, "concurrent_renders").await, (1, Value::Null));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_quota_is_a_number_without_a_window(db: PgPool) {
    let world = World::new(db).await;
    let admin = world.person(DEFAULT_TENANT, "root@example.com", &["platform_admin"]).await;
    let access = world.session(DEFAULT_TENANT, admin).await;
    let path = format!("/v1/platform/tenants/{DEFAULT_TENANT}/limits/seats");
    let wrong = json!({"hard": 3, "window_seconds": 60});
    assert_eq!(
        world.send(with_json(request(Method::PUT, &path, &access), &wrong)).await.faults(),
        ["/window_seconds limit.value"]
    );
}

/// The buckets are rows: two servers let in no more than one would, and each tells what is left of it for both.
#[sqlx::test(migrations = "../migrations")]
async fn s047_of_requests_at_once_no_more_are_let_in_than_agreed_whichever_server_they_reach(db: PgPool) {
    let world = World::new(db).await;
    let other = second_server(&world).await;
    // So long a window that nothing comes back meanwhile.
    let agreed =
        "insert into identity.tenant_limits (tenant_id, name, hard, window_seconds) values ($1, 'requests', 20, 86400)";
    sqlx::query(agreed).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let ask = |n: usize| {
        let server = if n.is_multiple_of(2) { &world.router } else { &other };
        send(server, world.request(Method::GET, "/v1/renders").body(Body::empty()).unwrap())
    };
    let answers = join_all((0..60).map(ask)).await;
    let (granted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == StatusCode::OK);
    assert_eq!((granted.len(), refused.len()), (20, 40));
    let mut left: Vec<u32> = granted.iter().map(|a| a.header("ratelimit-remaining").parse().unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, (0..20).collect::<Vec<_>>(), "no token was given twice");
    for answer in refused {
        assert_eq!(answer.problem(), "rate.limited");
        assert!(answer.header("retry-after").parse::<u32>().unwrap() > 60);
        assert_eq!(answer.header("ratelimit-limit"), "20");
    }
}
