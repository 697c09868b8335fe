//! Runs, failures, queues and operations on many runs, as those see and steer them who look after them.

use crate::world::{Answer, World, request, with_json};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_api::render::again;
use flatrender_engine::{
    Client, Failure, Worker,
    operations::{By, Fork, OperationError, Operations},
};
use flatrender_workflows::{
    definitions::keep_months::KeepMonths,
    models::{
        DEFAULT_TENANT,
        identity::{credit, tenant, tenant_api_key::SCOPES},
        render::render_job,
    },
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};
use uuid::Uuid;

/// Somebody with a credential.
struct Hand<'w> {
    world: &'w World,
    token: String,
}

impl<'w> Hand<'w> {
    async fn of(world: &'w World, tenant_id: Uuid, role: &str) -> Self {
        let id = world.person(tenant_id, &format!("{role}@example.com"), &[role]).await;
        Self { world, token: world.session(tenant_id, id).await }
    }

    async fn ask(&self, path: &str) -> Answer {
        let path = format!("/v1/operate{path}");
        self.world.send(request(Method::GET, &path, &self.token).body(Body::empty()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
        answer.json()
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        let path = format!("/v1/operate{path}");
        self.world.send(with_json(request(Method::POST, &path, &self.token), &body)).await
    }

    async fn act(&self, run: Uuid, body: Value) -> Answer {
        self.post(&format!("/runs/{run}/actions"), body).await
    }

    async fn ids(&self, query: &str) -> Vec<String> {
        let page = self.get(&format!("/runs?limit=100&{query}")).await;
        page["data"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
    }
}

/// A run that has failed like this.
async fn failed(world: &World, tenant_id: Uuid, kind: &str, message: &str) -> Uuid {
    let sql = "insert into workflow.runs (id, tenant_id, kind, version, input, priority, state, error, created_at, finished_at, error_fingerprint)
        values (workflow.new_run_id(workflow.now()), $1, $2, 1, '{\"access_token\": \"abc\", \"to\": \"jane\"}', 0, 'failed',
                jsonb_build_object('code', 'smtp.down', 'message', $3, 'retryable', true), workflow.now(), workflow.now(),
                workflow.fingerprint(jsonb_build_object('code', 'smtp.down', 'message', $3::text)))
        returning id";
    sqlx::query_scalar(sql).bind(tenant_id).bind(kind).bind(message).fetch_one(&world.db).await.unwrap()
}

/// A run that nobody works on.
async fn waiting(world: &World, tenant_id: Uuid) -> Uuid {
    let mut tx = world.db.begin().await.unwrap();
    let client = Client::new(world.db.clone());
    let run = client.start(&mut tx, tenant_id, None, KeepMonths { at: None }).await.unwrap();
    tx.commit().await.unwrap();
    run.run_id
}

async fn deeds(world: &World) -> (i64, i64) {
    let chain = "identity.audit_log where action ~ '^(run|bulk|queue)[.]'";
    (world.count("workflow.audit").await, world.count(chain).await)
}

#[sqlx::test(migrations = "../migrations")]
async fn runs_are_listed_by_key_and_by_filter_within_reach(db: PgPool) {
    let world = World::new(db).await;
    let stranger = world.tenant("stranger").await;
    let (admin, owner) =
        (Hand::of(&world, DEFAULT_TENANT, "platform_admin").await, Hand::of(&world, stranger, "owner").await);
    let mut mine = vec![];
    for n in 0..5 {
        mine.push(failed(&world, DEFAULT_TENANT, "notify", &format!("mail {n} was refused")).await.to_string());
    }
    let theirs = failed(&world, stranger, "webhook", "no answer").await.to_string();
    let live = waiting(&world, stranger).await.to_string();
    assert_eq!(admin.ids("").await.len(), 7);
    assert_eq!(owner.ids("").await, [live.clone(), theirs.clone()]);
    assert_eq!(admin.ids("state=failed&kind=webhook").await, std::slice::from_ref(&theirs));
    assert_eq!(admin.ids("state=running").await, std::slice::from_ref(&live));
    assert_eq!(admin.ids("queue=workflows").await, [live]);
    assert_eq!(admin.ids(&format!("code=smtp.down&tenant_id={stranger}")).await, std::slice::from_ref(&theirs));
    assert_eq!(admin.ids("code=other").await, [""; 0]);
    assert_eq!(owner.ask(&format!("/runs?tenant_id={DEFAULT_TENANT}")).await.problem(), "auth.forbidden");
    assert_eq!(admin.ask("/runs?state=lost").await.problem(), "query.invalid");

    // Page by page, without a gap or a repeat.
    let (mut seen, mut at) = (vec![], String::new());
    loop {
        let page = admin.get(&format!("/runs?limit=2&kind=notify{at}")).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => at = format!("&starting_after={next}"),
            None => break,
        }
    }
    mine.reverse();
    assert_eq!(seen, mine);

    let groups = admin.get("/failures").await;
    let group = &groups["data"][0];
    assert_eq!(
        (&group["runs"], &group["code"], &group["versions"]),
        (&json!(5), &json!("smtp.down"), &json!(["notify.v1"]))
    );
    let one = admin.get(&format!("/failures/{}", group["fingerprint"].as_str().unwrap())).await;
    assert_eq!(one["runs"], 5);
    assert_eq!(owner.get("/failures").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        owner.ask(&format!("/failures/{}", group["fingerprint"].as_str().unwrap())).await.problem(),
        "run.not_found"
    );
    let now = owner.get("/now").await;
    assert_eq!((&now["runs"][1]["failed"], &now["queues"], &now["nodes"]), (&json!(1), &json!([]), &json!([])));
    assert_eq!(admin.get("/dead-letters").await["data"].as_array().unwrap().len(), 6);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_run_is_shown_without_secrets_and_says_why_it_waits(db: PgPool) {
    let world = World::new(db).await;
    let stranger = world.tenant("stranger").await;
    let (viewer, owner) =
        (Hand::of(&world, DEFAULT_TENANT, "platform_viewer").await, Hand::of(&world, stranger, "owner").await);
    let (run, over) = (waiting(&world, DEFAULT_TENANT).await, failed(&world, DEFAULT_TENANT, "notify", "no").await);
    let seen = viewer.get(&format!("/runs/{run}")).await;
    assert_eq!((&seen["why"]["reason"], &seen["tasks"][0]["state"]), (&json!("no_worker"), &json!("ready")));
    assert!(seen["why"]["text"].as_str().unwrap().contains("no live worker"), "{}", seen["why"]);
    assert_eq!(seen["actions"], json!([]), "who may only look does nothing");
    let seen = viewer.get(&format!("/runs/{over}")).await;
    assert_eq!(seen["input"], json!({ "access_token": "•••", "to": "jane" }));
    assert_eq!((&seen["error"]["code"], &seen["state"]), (&json!("smtp.down"), &json!("failed")));
    assert_eq!(viewer.act(run, json!({ "action": "cancel", "reason": "x" })).await.problem(), "auth.forbidden");
    for path in [format!("/runs/{run}"), format!("/runs/{}", Uuid::now_v7())] {
        assert_eq!(owner.ask(&path).await.problem(), "run.not_found");
    }
    assert_eq!(owner.act(run, json!({ "action": "cancel", "reason": "x" })).await.problem(), "run.not_found");
    assert_eq!(deeds(&world).await, (0, 0));
}

#[sqlx::test(migrations = "../migrations")]
async fn each_deed_takes_its_rank_and_is_written_down_once(db: PgPool) {
    let world = World::new(db).await;
    let tenant = world.tenant("acme").await;
    let owner = Hand::of(&world, tenant, "owner").await;
    let editor = Hand::of(&world, tenant, "editor").await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let admin = Hand::of(&world, DEFAULT_TENANT, "platform_admin").await;
    let run = waiting(&world, tenant).await;
    let priority = json!({ "action": "set_priority", "priority": 7 });
    let fork = json!({ "action": "fork", "reason": "to see", "input": {} });
    let cancel = json!({ "action": "cancel", "reason": "it's twice" });
    assert_eq!(editor.act(run, cancel.clone()).await.problem(), "auth.forbidden");
    assert_eq!(owner.act(run, priority.clone()).await.problem(), "auth.forbidden");
    assert_eq!(owner.act(run, fork.clone()).await.problem(), "auth.forbidden");
    assert_eq!(operator.act(run, fork.clone()).await.problem(), "auth.forbidden");
    assert_eq!(owner.act(run, json!({ "action": "cancel" })).await.faults(), ["/reason operate.reason"]);
    assert_eq!(operator.act(run, json!({ "action": "set_priority" })).await.faults(), ["/priority field.missing"]);
    assert_eq!(operator.act(run, json!({ "action": "resume" })).await.problem(), "run.moved");
    assert_eq!(deeds(&world).await, (0, 0), "nothing was done, and nothing written down");

    assert_eq!(operator.act(run, priority).await.status, StatusCode::OK);
    assert_eq!(deeds(&world).await, (1, 1));
    let forked = admin.act(run, fork).await;
    assert_eq!(forked.status, StatusCode::OK, "{:?}", forked.body);
    assert_eq!(deeds(&world).await, (2, 2));
    let copy = forked.json()["new_run_id"].as_str().unwrap().to_owned();
    let bad = json!({ "action": "fork", "reason": "x", "input": [1, 2, "no"] });
    assert_eq!(admin.act(run, bad).await.problem(), "request.invalid");
    let done = owner.act(run, cancel.clone()).await;
    let cli = format!(r"flatrender runs cancel {run} --reason 'it'\''s twice'");
    assert_eq!((done.status, &done.json()["cli"]), (StatusCode::OK, &json!(cli)));
    assert_eq!(owner.act(run, cancel).await.problem(), "run.moved");
    assert_eq!(deeds(&world).await, (3, 3));

    let seen = owner.get("/audit").await;
    let actions: Vec<_> = seen["data"].as_array().unwrap().iter().map(|d| d["action"].clone()).collect();
    assert_eq!(actions, ["cancel", "fork", "set_priority"], "the tenant sees what the platform did, too");
    assert_eq!(seen["data"][0]["reason"], "it's twice");
    assert_eq!(admin.get(&format!("/audit?target=run:{run}&action=fork")).await["data"].as_array().unwrap().len(), 1);
    let detail = admin.get(&format!("/runs/{copy}")).await;
    assert_eq!((&detail["origin"]["how"], &detail["origin"]["origin_run_id"]), (&json!("fork"), &json!(run)));
    assert_eq!(Hand::of(&world, world.tenant("other").await, "viewer").await.get("/audit").await["data"], json!([]));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_fork_keeps_what_was_hidden_from_whoever_edited_its_input(db: PgPool) {
    let world = World::new(db).await;
    let admin = Hand::of(&world, DEFAULT_TENANT, "platform_admin").await;
    let run = failed(&world, DEFAULT_TENANT, "keep_months", "no").await;
    let mut input = admin.get(&format!("/runs/{run}")).await["input"].clone();
    assert_eq!(input["access_token"], "•••");
    input["to"] = json!("ana");
    let fork = |input: &Value| json!({ "action": "fork", "reason": "another address", "input": input });
    let made = admin.act(run, fork(&input)).await;
    assert_eq!(made.status, StatusCode::OK, "{:?}", made.body);
    let copy: Uuid = made.json()["new_run_id"].as_str().unwrap().parse().unwrap();
    let stored = Client::new(world.db.clone()).run(copy).await.unwrap().unwrap().input;
    assert_eq!(stored, json!({ "access_token": "abc", "to": "ana" }));
    // It is in the run alone: what is written down of the deed stays for ever.
    let told = r#"workflow.audit a where to_jsonb(a)::text like '%"abc"%'"#;
    let edited = "workflow.audit where action = 'fork' and (after ->> 'edited')::boolean";
    assert_eq!((world.count(told).await, world.count(edited).await), (0, 1));
    input["to"] = json!("ana, •••");
    assert_eq!(admin.act(run, fork(&input)).await.faults(), ["/input/to operate.hidden"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_failed_run_is_tried_again_once_and_a_film_that_is_gone_not_at_all(db: PgPool) {
    let world = World::new(db).await;
    let owner = Hand::of(&world, DEFAULT_TENANT, "owner").await;
    let run = failed(&world, DEFAULT_TENANT, "keep_months", "no").await;
    let film = failed(&world, DEFAULT_TENANT, "render_video", "no").await;
    let retry = json!({ "action": "retry" });
    assert_eq!(owner.act(film, retry.clone()).await.problem(), "run.no_copies");
    let step = json!({ "action": "retry", "from_step": "nowhere" });
    assert_eq!(owner.act(run, step).await.faults(), ["/from_step operate.step"]);
    let made = owner.act(run, retry.clone()).await;
    assert_eq!(made.status, StatusCode::OK, "{:?}", made.body);
    assert_eq!(owner.act(run, retry).await.problem(), "run.conflict", "one is under way");
    let dead = owner.get("/dead-letters").await;
    let dead: Vec<_> = dead["data"].as_array().unwrap().iter().map(|r| r["id"].clone()).collect();
    assert_eq!(dead, [json!(film)], "what is tried again is none");
    assert_eq!(owner.get(&format!("/runs/{film}")).await["actions"], json!([]));
}

/// A film that was ordered and has failed: its run.
async fn failed_film(world: &World) -> Uuid {
    failed_film_of(world, &world.key).await
}

/// The same, ordered by somebody with this token.
async fn failed_film_of(world: &World, token: &str) -> Uuid {
    let order = json!({ "metadata": { "order": 4711 } });
    let mut whole = crate::world::order();
    whole.as_object_mut().unwrap().extend(order.as_object().unwrap().clone());
    let ordered = world.send(with_json(request(Method::POST, "/v1/renders", token), &whole)).await;
    let film = ordered.json()["id"].as_str().unwrap().parse().unwrap();
    let run = world.run_of(film).await;
    let sql = "with gone as (delete from workflow.tasks where run_id = $1)
        update workflow.runs set state = 'failed', finished_at = workflow.now(), error = e, error_fingerprint = workflow.fingerprint(e)
        from jsonb_build_object('code', 'render.missing_font', 'message', 'no font', 'retryable', false) e where id = $1";
    sqlx::query(sql).bind(run).execute(&world.db).await.unwrap();
    let failure = Failure::permanent("render.missing_font", "no font");
    let mut db = world.db.acquire().await.unwrap();
    assert!(render_job::settle(&mut db, film, run, Err(&failure)).await.unwrap());
    run
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_failed_is_ordered_again_as_it_was_and_once(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let run = failed_film(&world).await;
    assert_eq!(operator.get(&format!("/runs/{run}")).await["actions"], json!(["retry"]));
    let retry = json!({ "action": "retry", "reason": "the font is installed now" });
    let step = json!({ "action": "retry", "from_step": "plan" });
    assert_eq!(operator.act(run, step).await.problem(), "request.invalid");
    let made = operator.act(run, retry.clone()).await;
    assert_eq!(made.status, StatusCode::OK, "{:?}", made.body);
    let again: Uuid = made.json()["new_run_id"].as_str().unwrap().parse().unwrap();
    let same = "select count(*) from render.render_jobs a join render.render_jobs b on a.spec = b.spec and a.metadata = b.metadata
        and a.project_version_id = b.project_version_id where a.status = 'failed' and b.status = 'queued'";
    assert_eq!(sqlx::query_scalar::<_, i64>(same).fetch_one(&world.db).await.unwrap(), 1);
    let seen = operator.get(&format!("/runs/{again}")).await;
    assert_eq!((&seen["origin"]["how"], &seen["origin"]["origin_run_id"]), (&json!("retry"), &json!(run)));
    assert_eq!((&seen["state"], &seen["kind"]), (&json!("running"), &json!("render_video")));
    assert_eq!(operator.act(run, retry).await.problem(), "run.conflict");
    assert_eq!(operator.get(&format!("/runs/{run}")).await["actions"], json!([]), "nobody is offered what is refused");
    assert_eq!(world.count("render.render_jobs").await, 2);
    assert_eq!(operator.get("/dead-letters").await["data"], json!([]));
    assert_eq!(deeds(&world).await, (1, 1));
}

/// What tries runs again as workers do.
fn operations(world: &World) -> Operations {
    Operations::new(Client::new(world.db.clone())).anew(Some(again::films(world.app.limits)))
}

/// An operation that tries all runs again that have failed, so many: it is begun, and nobody has worked on it.
async fn begun(hand: &Hand<'_>, total: i64) -> String {
    let retry = json!({ "action": "retry", "filter": { "states": ["failed"] }, "reason": "the font is installed now" });
    let preview = hand.post("/bulk", retry).await.json();
    assert_eq!((&preview["total"], &preview["left_out"]), (&json!(total), &json!([])));
    let id = preview["id"].as_str().unwrap().to_owned();
    let begin = json!({ "action": "begin", "confirm": total });
    assert_eq!(hand.post(&format!("/bulk/{id}/actions"), begin).await.status, StatusCode::OK);
    id
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_nobody_can_pay_is_not_ordered_again(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let run = failed_film(&world).await;
    let mut db = world.db.acquire().await.unwrap();
    credit::set_paid(&mut db, DEFAULT_TENANT, true).await.unwrap();
    drop(db);
    let runs = world.count("workflow.runs").await;
    let refused = operator.act(run, json!({ "action": "retry" })).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::PAYMENT_REQUIRED, "credits.insufficient"));
    assert_eq!((world.count("render.render_jobs").await, world.count("workflow.runs").await), (1, runs));
    assert_eq!(deeds(&world).await, (0, 0));
    // Of many, it is one that could not be done, and says why.
    let id = begun(&operator, 1).await;
    assert_eq!(operations(&world).work_on_bulk().await.unwrap(), 1);
    let item = operator.get(&format!("/bulk/{id}/items")).await["data"][0].clone();
    assert_eq!(item["outcome"], "failed");
    assert!(item["note"].as_str().unwrap().contains("s of rendering"), "{item}");
    assert_eq!(world.count("render.render_jobs").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_beyond_what_was_agreed_is_not_ordered_again_before_it_is_said_when(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let run = failed_film(&world).await;
    crate::quotas::agree(&world, "renders_per_day", 1).await;
    let refused = operator.act(run, json!({ "action": "retry" })).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "quota.renders_per_day"));
    assert!((1..=86_400).contains(&refused.header("retry-after").parse::<u64>().unwrap()));
}

#[sqlx::test(migrations = "../migrations")]
async fn nothing_is_made_again_for_a_tenant_that_is_suspended(db: PgPool) {
    let world = World::new(db).await;
    let run = failed_film(&world).await;
    let mut tx = world.db.begin().await.unwrap();
    assert!(tenant::suspend(&mut tx, DEFAULT_TENANT, Some("not paid")).await.unwrap());
    let refused = operations(&world).retry(&mut tx, &By::new("cli"), run, &Fork::from_failure()).await;
    let Err(OperationError::Refused(failure)) = &refused else { panic!("{refused:?}") };
    assert_eq!((failure.code.as_str(), failure.retryable), ("tenant.suspended", false));
}

#[sqlx::test(migrations = "../migrations")]
async fn films_of_two_people_are_ordered_again_in_a_transaction_each(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let mut people = BTreeSet::new();
    for email in ["ana@example.com", "ben@example.com"] {
        let id = world.person(DEFAULT_TENANT, email, &["editor"]).await;
        failed_film_of(&world, &world.session(DEFAULT_TENANT, id).await).await;
        people.insert(id);
    }
    begun(&operator, 2).await;
    // Whoever orders waits for one of them at most, and nobody for both.
    let operations = operations(&world);
    for items in [1, 1, 0] {
        assert_eq!(operations.work_on_bulk().await.unwrap(), items);
    }
    let again = "select user_id from render.render_jobs where status = 'queued'";
    let again: Vec<Uuid> = sqlx::query_scalar(again).fetch_all(&world.db).await.unwrap();
    assert_eq!((again.len(), again.into_iter().collect::<BTreeSet<_>>()), (2, people));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_something_passing_was_in_the_way_of_is_taken_up_again(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    failed_film(&world).await;
    let (id, operations) = (begun(&operator, 1).await, operations(&world));
    for passing in ["deadlock_detected", "lock_not_available", "query_canceled"] {
        let in_the_way = format!(
            "create function in_the_way() returns trigger language plpgsql as $$ begin raise 'in the way' using errcode = '{passing}'; end $$;
             create trigger in_the_way before insert on render.render_jobs for each row execute function in_the_way()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(in_the_way)).execute(&world.db).await.unwrap();
        assert!(operations.work_on_bulk().await.is_err(), "{passing}");
        sqlx::raw_sql("drop function in_the_way() cascade").execute(&world.db).await.unwrap();
        let bulk = operator.get(&format!("/bulk/{id}")).await;
        assert_eq!((&bulk["state"], &bulk["turned"]), (&json!("running"), &json!(0)), "{passing}");
    }
    assert_eq!(operations.work_on_bulk().await.unwrap(), 1);
    assert_eq!(operator.get(&format!("/bulk/{id}")).await["done"], 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn films_that_failed_are_ordered_again_among_many(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let film = failed_film(&world).await;
    let gone = failed(&world, DEFAULT_TENANT, "render_video", "its film was removed").await;
    let (id, operations) = (begun(&operator, 2).await, operations(&world));
    assert_eq!((operations.work_on_bulk().await.unwrap(), operations.work_on_bulk().await.unwrap()), (1, 1));
    let items = operator.get(&format!("/bulk/{id}/items")).await;
    let outcome = |run: Uuid| {
        let items = items["data"].as_array().unwrap();
        items.iter().find(|item| item["run_id"] == json!(run)).unwrap()["outcome"].clone()
    };
    assert_eq!((outcome(film), outcome(gone)), (json!("done"), json!("failed")));
    assert_eq!(world.count("render.render_jobs where status = 'queued'").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn many_runs_are_previewed_confirmed_and_done_one_by_one(db: PgPool) {
    let world = World::new(db).await;
    let tenant = world.tenant("acme").await;
    let (owner, admin) =
        (Hand::of(&world, tenant, "owner").await, Hand::of(&world, DEFAULT_TENANT, "platform_admin").await);
    for n in 0..3 {
        failed(&world, tenant, "keep_months", &format!("attempt {n}")).await;
    }
    failed(&world, tenant, "scene_snapshot", "attempt 9").await;
    let elsewhere = failed(&world, DEFAULT_TENANT, "keep_months", "attempt 5").await;
    let bulk = |reason: Value| json!({ "action": "retry", "filter": { "code": "smtp.down" }, "reason": reason });
    assert_eq!(owner.post("/bulk", bulk(json!(null))).await.faults(), ["/reason operate.reason"]);
    let foreign = json!({ "action": "retry", "filter": { "tenant_id": DEFAULT_TENANT }, "reason": "x" });
    assert_eq!(owner.post("/bulk", foreign).await.problem(), "auth.forbidden");
    let preview = owner.post("/bulk", bulk(json!("mail is back"))).await;
    assert_eq!(preview.status, StatusCode::CREATED, "{:?}", preview.body);
    let preview = preview.json();
    assert_eq!(
        (&preview["total"], &preview["counts"][0]["n"]),
        (&json!(3), &json!(3)),
        "no snapshot, no other tenant's"
    );
    let left_out = &preview["left_out"][0];
    assert_eq!((&left_out["kind"], &left_out["n"]), (&json!("scene_snapshot"), &json!(1)));
    assert!(left_out["why"].as_str().unwrap().contains("again"), "{left_out}");
    let named = json!({ "action": "retry", "filter": { "kinds": ["scene_snapshot"] }, "reason": "x" });
    assert_eq!(owner.post("/bulk", named).await.problem(), "run.no_copies");
    // What fails later is not in the set.
    failed(&world, tenant, "keep_months", "attempt 7").await;
    let id = preview["id"].as_str().unwrap();
    let at = format!("/bulk/{id}/actions");
    let begin = |n: i32| json!({ "action": "begin", "confirm": n });
    assert_eq!(owner.post(&at, begin(4)).await.problem(), "request.invalid");
    assert_eq!(owner.post(&at, json!({ "action": "resume" })).await.problem(), "run.moved");
    assert_eq!(owner.post(&at, begin(3)).await.json()["state"], "running");
    let operations = Operations::new(Client::new(world.db.clone()));
    assert_eq!(operations.work_on_bulk().await.unwrap(), 3);
    let done = owner.get(&format!("/bulk/{id}")).await;
    assert_eq!((&done["state"], &done["done"], &done["turned"]), (&json!("finished"), &json!(3), &json!(3)));
    let items = owner.get(&format!("/bulk/{id}/items?limit=2")).await;
    assert_eq!((items["data"].as_array().unwrap().len(), &items["next_cursor"]), (2, &json!("2")));
    assert!(items["data"][0]["new_run_id"].is_string());
    let cancel = json!({ "action": "cancel", "filter": { "states": ["running"] }, "reason": "enough" });
    let all = admin.post("/bulk", cancel).await.json();
    assert_eq!(all["total"], 3);
    assert_eq!(owner.ask(&format!("/bulk/{}", all["id"].as_str().unwrap())).await.problem(), "run.not_found");
    assert_eq!(owner.get("/bulk").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(admin.get("/bulk").await["data"].as_array().unwrap().len(), 2);
    assert_eq!(admin.get("/now").await["bulk"].as_array().unwrap().len(), 1);
    assert!(admin.ids("state=failed").await.contains(&elsewhere.to_string()));
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_key_and_request_give_the_same_preview(db: PgPool) {
    let world = World::new(db).await;
    let owner = Hand::of(&world, DEFAULT_TENANT, "owner").await;
    failed(&world, DEFAULT_TENANT, "keep_months", "attempt 1").await;
    failed(&world, DEFAULT_TENANT, "scene_snapshot", "attempt 2").await;
    let ask = async |key: &str, reason: &str| {
        let body = json!({ "action": "retry", "filter": { "code": "smtp.down" }, "reason": reason });
        let request = request(Method::POST, "/v1/operate/bulk", &owner.token).header("idempotency-key", key);
        world.send(with_json(request, &body)).await
    };
    let (first, second) = tokio::join!(ask("k", "mail is back"), ask("k", "mail is back"));
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_eq!(first.json(), second.json());
    // What fails later is not in it, whenever it is asked for again.
    failed(&world, DEFAULT_TENANT, "keep_months", "attempt 3").await;
    let third = ask("k", "mail is back").await;
    assert_eq!((third.json(), third.header("idempotent-replayed")), (first.json(), "true"));
    assert_eq!(ask("k", "another reason").await.problem(), "idempotency.key_reused");
    assert_ne!(ask("other", "mail is back").await.json()["id"], first.json()["id"]);
    assert_eq!((world.count("workflow.bulk_operations").await, deeds(&world).await), (2, (2, 2)));
}

#[sqlx::test(migrations = "../migrations")]
async fn all_dead_letters_are_tried_again_without_those_that_were(db: PgPool) {
    let world = World::new(db).await;
    let owner = Hand::of(&world, DEFAULT_TENANT, "owner").await;
    let mended = failed(&world, DEFAULT_TENANT, "keep_months", "attempt 1").await;
    failed(&world, DEFAULT_TENANT, "keep_months", "attempt 2").await;
    assert_eq!(owner.act(mended, json!({ "action": "retry" })).await.status, StatusCode::OK);
    let filter = json!({ "states": ["failed"], "dead": true });
    let retry = json!({ "action": "retry", "filter": filter, "reason": "mail is back" });
    let preview = owner.post("/bulk", retry).await.json();
    assert_eq!(preview["total"], owner.get("/dead-letters").await["data"].as_array().unwrap().len());
    assert_eq!(preview["total"], 1);
    // Whoever says dead means what has failed: what is under way is none.
    let of = |action: &str, filter: Value| json!({ "action": action, "filter": filter, "reason": "mail is back" });
    let dead = owner.post("/bulk", of("cancel", json!({ "dead": true }))).await.json();
    assert_eq!((&dead["total"], &dead["counts"][0]["state"]), (&json!(1), &json!("failed")));
    let live = owner.post("/bulk", of("cancel", json!({ "dead": true, "states": ["running"] }))).await;
    assert_eq!(live.faults(), [" operate.bad"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_operation_on_many_runs_is_aborted_with_a_reason_that_its_tenant_reads(db: PgPool) {
    let world = World::new(db).await;
    let tenant = world.tenant("acme").await;
    let owner = Hand::of(&world, tenant, "owner").await;
    failed(&world, tenant, "keep_months", "attempt 1").await;
    let retry = json!({ "action": "retry", "filter": { "code": "smtp.down" }, "reason": "mail is back" });
    let preview = owner.post("/bulk", retry).await.json();
    let at = format!("/bulk/{}/actions", preview["id"].as_str().unwrap());
    assert_eq!(owner.post(&at, json!({ "action": "abort" })).await.faults(), ["/reason operate.reason"]);
    let abort = json!({ "action": "abort", "reason": "mail is away again" });
    assert_eq!(owner.post(&at, abort).await.json()["state"], "aborted");
    let seen = owner.get("/audit").await;
    assert_eq!(
        (&seen["data"][0]["action"], &seen["data"][0]["reason"], &seen["data"][0]["tenant_id"]),
        (&json!("bulk_abort"), &json!("mail is away again"), &json!(tenant))
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_queue_is_paused_with_a_reason_and_the_run_says_so(db: PgPool) {
    let world = World::new(db).await;
    let operator = Hand::of(&world, DEFAULT_TENANT, "platform_operator").await;
    let owner = Hand::of(&world, DEFAULT_TENANT, "owner").await;
    let run = waiting(&world, DEFAULT_TENANT).await;
    let at = "/queues/workflows/actions";
    let pause = json!({ "action": "pause", "reason": "moving" });
    assert_eq!(owner.post(at, pause.clone()).await.problem(), "auth.forbidden");
    assert_eq!(operator.post("/queues/none/actions", pause.clone()).await.problem(), "queue.not_found");
    assert_eq!(operator.post(at, json!({ "action": "pause" })).await.faults(), ["/reason operate.reason"]);
    assert_eq!(operator.post(at, json!({ "action": "end_terms" })).await.problem(), "auth.forbidden");
    let paused = operator.post(at, pause.clone()).await.json();
    assert_eq!((&paused["changed"], &paused["queue"]["pause_reason"]), (&json!(true), &json!("moving")));
    assert_eq!(operator.post(at, pause).await.json()["changed"], false);
    assert_eq!(deeds(&world).await, (1, 1), "what changes nothing is not written down");
    let why = operator.get(&format!("/runs/{run}")).await["why"].clone();
    assert_eq!((&why["reason"], &why["details"]["why"]), (&json!("queue_paused"), &json!("moving")));
    assert_eq!(operator.get("/now").await["queues"][0]["paused"], true);
    operator.post(at, json!({ "action": "resume" })).await;

    let worker = Worker::builder(world.db.clone()).workflow::<KeepMonths>().build();
    let stop = world.stopping.child_token();
    tokio::spawn(async move { worker.run(stop).await.unwrap() });
    let ended = async {
        while operator.get(&format!("/runs/{run}")).await["state"] != "succeeded" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it goes on");
    let seen = operator.get(&format!("/runs/{run}")).await;
    let doing: Vec<_> = seen["timeline"].as_array().unwrap().iter().map(|s| s["doing"].clone()).collect();
    assert!(doing.contains(&json!("queued")) && doing.contains(&json!("working")), "{doing:?}");
    let versions = operator.get("/versions").await;
    let known =
        versions["versions"].as_array().unwrap().iter().find(|v| v["name"] == "keep_months.v1").unwrap().clone();
    assert_eq!((&known["workers"], &known["standing"]), (&json!(1), &json!("safe_to_remove")));
}

/// An event of a stream: its kind, its id, what it tells.
type Told = (String, String, Value);

/// Events of a stream, until there are so many.
async fn events(world: &World, token: &str, last: Option<&str>, many: usize) -> Vec<Told> {
    events_until(world, token, last, |found| found.len() >= many).await
}

/// Events of a stream, until they are enough.
async fn events_until(world: &World, token: &str, last: Option<&str>, enough: impl Fn(&[Told]) -> bool) -> Vec<Told> {
    use tower::ServiceExt as _;
    let mut ask = request(Method::GET, "/v1/operate/events", token);
    if let Some(last) = last {
        ask = ask.header("last-event-id", last);
    }
    let answer = world.router.clone().oneshot(ask.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut stream = answer.into_body().into_data_stream();
    let (mut text, mut found): (String, Vec<Told>) = (String::new(), vec![]);
    while !enough(&found) {
        let chunk = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("an event").unwrap();
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            let field = |name: &str| {
                let line = event.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
                line.trim().to_owned()
            };
            if !field("event:").is_empty() {
                found.push((field("event:"), field("id:"), serde_json::from_str(&field("data:")).unwrap()));
            }
        }
    }
    found
}

#[sqlx::test(migrations = "../migrations")]
async fn deeds_of_a_long_transaction_are_told_however_many_others_came_before(db: PgPool) {
    let world = World::new(db).await;
    let admin = Hand::of(&world, DEFAULT_TENANT, "platform_admin").await;
    let written = "insert into workflow.audit (at, actor, action, target) select workflow.now(), 'cli', 'cancel', $1 from generate_series(1, $2)";
    let (stands, heard) = (AtomicBool::new(false), AtomicUsize::new(0));
    let of = |all: &[Told], target: &str| all.iter().filter(|event| event.2["target"] == target).count();
    let writing = async {
        let until = async |met: &dyn Fn() -> bool| {
            while !met() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        until(&|| stands.load(Ordering::Relaxed)).await;
        let mut late = world.db.begin().await.unwrap();
        sqlx::query(written).bind("run:late").bind(100).execute(&mut *late).await.unwrap();
        sqlx::query(written).bind("run:soon").bind(300).execute(&world.db).await.unwrap();
        until(&|| heard.load(Ordering::Relaxed) == 300).await;
        late.commit().await.unwrap();
    };
    let enough = |all: &[Told]| {
        stands.store(!all.is_empty(), Ordering::Relaxed);
        heard.store(of(all, "run:soon"), Ordering::Relaxed);
        of(all, "run:late") >= 100
    };
    let (told, ()) = tokio::join!(events_until(&world, &admin.token, None, enough), writing);
    let deeds: BTreeSet<_> = told.iter().filter(|event| event.0 == "deed").map(|event| event.1.as_str()).collect();
    assert_eq!(deeds.len(), 400, "each once");
}

#[sqlx::test(migrations = "../migrations")]
async fn who_comes_back_to_the_stream_misses_no_deed(db: PgPool) {
    let world = World::new(db).await;
    let tenant = world.tenant("acme").await;
    let admin = Hand::of(&world, DEFAULT_TENANT, "platform_admin").await;
    let (first, second) = (waiting(&world, DEFAULT_TENANT).await, waiting(&world, tenant).await);
    let cancel = json!({ "action": "cancel", "reason": "enough" });
    assert_eq!(admin.act(first, cancel.clone()).await.status, StatusCode::OK);
    let seen = events(&world, &admin.token, None, 1).await;
    assert_eq!((seen[0].0.as_str(), &seen[0].2["object"]), ("now", &json!("now")), "old deeds are not told");
    let last = seen[0].1.clone();
    assert_eq!(admin.act(second, cancel).await.status, StatusCode::OK);
    let missed = events(&world, &admin.token, Some(&last), 3).await;
    let targets: Vec<_> = missed.iter().filter(|e| e.0 == "deed").map(|e| e.2["target"].clone()).collect();
    assert!(targets.contains(&json!(format!("run:{second}"))), "{targets:?}");
    let key = world.key_for(tenant, &SCOPES).await.1;
    let theirs = events(&world, &key, Some("0"), 2).await;
    let targets: Vec<_> = theirs.iter().filter(|e| e.0 == "deed").map(|e| e.2["target"].clone()).collect();
    assert_eq!(targets, [json!(format!("run:{second}"))], "a tenant hears of its own runs");
}
