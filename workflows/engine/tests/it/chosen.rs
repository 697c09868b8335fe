//! Tasks that the application chooses itself, and renewals that are written together.

use crate::world::{OneWork, Work, World};
use flatrender_engine::{
    Failure, Labels, Progress,
    operations::{By, Operations, Terms},
    remote::{Refused, RemoteWorker, Service, wire},
};
use sqlx::PgPool;
use uuid::Uuid;

const READY: &str = "select count(*) from workflow.tasks where kind = 'activity' and state = 'ready'";

fn node(name: &str) -> RemoteWorker {
    RemoteWorker { name: name.into(), queues: vec!["work".into()] }
}

fn asked() -> wire::Claim {
    serde_json::from_value(serde_json::json!({ "incarnation": Uuid::new_v4() })).unwrap()
}

/// So many tasks that are ready, and their ids.
async fn ready(world: &mut World, works: impl IntoIterator<Item = Work>) -> Vec<i64> {
    world.worker(|w| w.workflow::<OneWork>());
    let mut n = 0;
    for work in works {
        world.start(OneWork(work)).await;
        n += 1;
    }
    world.until(n, READY).await;
    ids(world).await
}

async fn ids(world: &World) -> Vec<i64> {
    sqlx::query_scalar("select id from workflow.tasks where kind = 'activity' order by id")
        .fetch_all(&world.db)
        .await
        .unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_chosen_task_is_leased_to_whoever_comes_first(db: PgPool) {
    let mut world = World::new(db).await;
    let ids = ready(&mut world, (0..6).map(Work::new)).await;
    let services: Vec<Service> = (0..8).map(|_| Service::new(world.client.clone())).collect();
    let claims = services.iter().enumerate().map(|(n, service)| {
        let ids = &ids;
        async move { service.claim_these(&node(&format!("node{n}")), &asked(), ids).await.unwrap() }
    });
    let leased: Vec<i64> = futures::future::join_all(claims).await.into_iter().flatten().map(|t| t.task_id).collect();
    let mut each_once = leased.clone();
    each_once.sort_unstable();
    assert_eq!(each_once, ids);
    let first = services[0].claim_these(&node("node0"), &asked(), &ids).await.unwrap();
    assert_eq!(first.len(), 0, "nobody has it twice");
}

#[sqlx::test(migrations = false)]
async fn only_what_is_chosen_is_leased(db: PgPool) {
    let mut world = World::new(db).await;
    let ids = ready(&mut world, (0..3).map(Work::new)).await;
    let service = Service::new(world.client.clone());
    let task = service.claim_these(&node("node"), &asked(), &ids[1..2]).await.unwrap().remove(0);
    assert_eq!((task.task_id, task.attempt_no, &task.input["n"]), (ids[1], 1, &serde_json::json!(1)));
    service
        .complete(&node("node"), task.task_id, wire::Complete { lease_token: task.lease_token, output: 2.into() })
        .await
        .unwrap();
    world.until(2, READY).await;
}

#[sqlx::test(migrations = false)]
async fn a_choice_opens_no_queue_and_replaces_no_label(db: PgPool) {
    let mut world = World::new(db).await;
    let mut picky = Work::new(1);
    picky.labels = Labels::from([("gpu".to_owned(), "yes".to_owned())]);
    let ids = ready(&mut world, [picky]).await;
    let service = Service::new(world.client.clone());
    assert!(service.claim_these(&node("node"), &asked(), &ids).await.unwrap().is_empty(), "it has no gpu");
    let able = wire::Claim { labels: Labels::from([("gpu".to_owned(), "yes".to_owned())]), ..asked() };
    let other = wire::Claim { activities: vec!["Play".into()], ..able.clone() };
    assert!(service.claim_these(&node("node"), &other, &ids).await.unwrap().is_empty(), "it only plays");
    let elsewhere = RemoteWorker { queues: vec!["other".into()], ..node("node") };
    assert!(service.claim_these(&elsewhere, &able, &ids).await.unwrap().is_empty());
    let forbidden = wire::Claim { queues: vec!["work".into()], ..able.clone() };
    assert!(matches!(service.claim_these(&elsewhere, &forbidden, &ids).await, Err(Refused::Queue(_))));
    assert_eq!(service.claim_these(&node("node"), &able, &ids).await.unwrap().len(), 1);
}

#[sqlx::test(migrations = false)]
async fn a_choice_respects_pauses_and_terms(db: PgPool) {
    let mut world = World::new(db).await;
    let ids = ready(&mut world, [Work::new(1)]).await;
    let (service, operations) = (Service::new(world.client.clone()), Operations::new(world.client.clone()));
    let by = By::new("ada");
    let mut tx = world.db.begin().await.unwrap();
    assert!(operations.pause_queue(&mut tx, &by, "work").await.unwrap());
    tx.commit().await.unwrap();
    assert!(service.claim_these(&node("node"), &asked(), &ids).await.unwrap().is_empty(), "paused");
    let mut tx = world.db.begin().await.unwrap();
    operations.resume_queue(&mut tx, &by, "work").await.unwrap();
    operations.set_terms(&mut tx, &by, "work", &Terms { cap: Some(1), ..Terms::default() }).await.unwrap();
    tx.commit().await.unwrap();
    assert!(
        service.claim_these(&node("node"), &asked(), &ids).await.unwrap().is_empty(),
        "its claims go one at a time"
    );
    assert_eq!(service.claim(&node("node"), &asked()).await.unwrap().len(), 1);
}

#[sqlx::test(migrations = false)]
async fn renewals_of_one_time_are_written_together_and_answered_each(db: PgPool) {
    let mut world = World::new(db).await;
    let ids = ready(&mut world, (0..40).map(Work::new)).await;
    world.stop().await;
    let service = Service::new(world.client.clone());
    let tasks = service.claim_these(&node("node"), &asked(), &ids).await.unwrap();
    assert_eq!(tasks.len(), 40);
    let me = node("node");
    let renewals = tasks.iter().enumerate().map(|(n, task)| {
        let progress = Progress { done: n as u32, total: 40, ..Progress::default() };
        service.renew(&me, task.task_id, wire::Renew { lease_token: task.lease_token, progress: Some(progress) })
    });
    let answers = futures::future::join_all(renewals).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|renewed| !renewed.cancelled)), "{answers:?}");
    let wrote = world.count("select count(distinct xmin::text) from workflow.tasks where kind = 'activity'").await;
    assert!(wrote <= 4, "{wrote} transactions wrote 40 renewals");
    assert_eq!(
        world.count("select sum((progress ->> 'done')::int) from workflow.tasks where kind = 'activity'").await,
        780
    );
}

#[sqlx::test(migrations = false)]
async fn a_stale_fence_beside_a_good_one_is_told_so(db: PgPool) {
    let mut world = World::new(db).await;
    let ids = ready(&mut world, [Work::new(1)]).await;
    let client = world.client.clone();
    let service = Service::new(client.clone());
    let old = service.claim_these(&node("node"), &asked(), &ids).await.unwrap().remove(0);
    service.release(&node("node"), old.task_id, &wire::Release { lease_token: old.lease_token }).await.unwrap();
    let new = service.claim_these(&node("node"), &asked(), &ids).await.unwrap().remove(0);
    let both = [old.lease_token, new.lease_token, old.lease_token, new.lease_token];
    let renewals = both.map(|token| client.renew(new.task_id, token, None));
    let answers: Vec<String> =
        futures::future::join_all(renewals).await.into_iter().map(|a| format!("{:?}", a.unwrap())).collect();
    assert_eq!(answers, ["Lost", "Held", "Lost", "Held"]);
    let failure = Failure::permanent("test.over", "over");
    client.fail(new.task_id, new.lease_token, &failure).await.unwrap();
    assert_eq!(format!("{:?}", client.renew(new.task_id, new.lease_token, None).await.unwrap()), "Lost");
}
