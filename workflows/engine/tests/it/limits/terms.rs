//! Terms that are set, change and end while work waits for them, and what is said of work that they hold back.

use super::{A, B, OK, enqueue, keyed, set};
use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    Failure, Labels,
    operations::{By, Limited, OperationError, Operations, Rate, Reason, Share, Terms},
};
use sqlx::PgPool;
use std::time::Duration;

#[sqlx::test(migrations = false)]
async fn terms_come_and_go_while_work_waits(db: PgPool) {
    let mut world = World::new(db).await;
    enqueue(&world, A, (0..1000).map(|_| Work::new(0))).await;
    world.worker(|w| w.handler::<Work>(Tool::doubling()).queue("work", 4));
    set(&world, &Terms { tenant_cap: Some(2), ..Terms::default() }).await;
    enqueue(&world, A, (0..1000).map(|_| Work::new(0))).await;
    world.until(1, "select least(count(*), 1) from workflow.finished_jobs").await;
    let operations = Operations::new(world.client.clone());
    let mut tx = world.db.begin().await.unwrap();
    assert!(operations.end_terms(&mut tx, &By::new("ada"), "work").await.unwrap());
    assert!(!operations.end_terms(&mut tx, &By::new("ada"), "work").await.unwrap());
    tx.commit().await.unwrap();
    world.until(2000, OK).await;
    assert_eq!(world.count("select count(*) from workflow.jobs").await, 0);
    assert_eq!(operations.terms("work").await.unwrap(), None);
}

#[sqlx::test(migrations = false)]
async fn work_that_comes_back_stands_in_line_again(db: PgPool) {
    let mut world = World::new(db).await;
    set(&world, &Terms { tenant_cap: Some(1), ..Terms::default() }).await;
    let tool = Tool::new(|cx, work| async move {
        match cx.task().attempt_no {
            1 => Err(Failure::transient("test.no", "not yet").after(Duration::ZERO)),
            _ => Ok(work.n),
        }
    });
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool));
    enqueue(&world, A, (0..5).map(Work::new)).await;
    let run_id = world.start(OneWork(Work::new(9))).await;
    world.until(5, OK).await;
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(9));
    assert_eq!(world.count("select count(*) from workflow.finished_jobs where attempt_no = 2").await, 5);
}

#[sqlx::test(migrations = false)]
async fn terms_are_set_by_somebody_and_noted(db: PgPool) {
    let world = World::new(db).await;
    let operations = Operations::new(world.client.clone());
    let mut tx = world.db.begin().await.unwrap();
    let by = By::new("ada");
    let share = Share { weight: 2.5, cap: Some(9) };
    let refused = operations.set_share(&mut tx, &by, "work", A, Some(share)).await.unwrap_err();
    assert!(matches!(refused, OperationError::NotFound(_)), "{refused}");
    for bad in [
        Terms { cap: Some(0), ..Terms::default() },
        Terms { rate: Some(Rate::new(0, Duration::from_secs(1))), ..Terms::default() },
        Terms { key_rate: Some(Rate::new(1, Duration::ZERO)), ..Terms::default() },
    ] {
        let refused = operations.set_terms(&mut tx, &by, "work", &bad).await.unwrap_err();
        assert!(matches!(refused, OperationError::Bad(_)), "{refused}");
    }
    let refused = operations.set_terms(&mut tx, &by, "workflows", &Terms::default()).await.unwrap_err();
    assert!(matches!(refused, OperationError::Bad(_)), "{refused}");
    let terms =
        Terms { cap: Some(5), key_rate: Some(Rate::new(10, Duration::from_millis(2500)).burst(3)), ..Terms::default() };
    operations.set_terms(&mut tx, &by, "work", &terms).await.unwrap();
    operations.set_share(&mut tx, &by, "work", A, Some(share)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(operations.all_terms().await.unwrap(), [("work".to_owned(), terms)]);
    assert_eq!(operations.shares("work").await.unwrap(), [(A, share)]);
    let audit = operations.audit_of("queue:work", 10).await.unwrap();
    let actions: Vec<_> = audit.iter().map(|row| (row.action.as_str(), row.tenant_id)).collect();
    assert_eq!(actions, [("set_share", Some(A)), ("set_terms", None)]);
    assert_eq!(audit[1].after.as_ref().unwrap()["cap"], 5);
}

#[sqlx::test(migrations = false)]
async fn what_the_terms_hold_back_says_so(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let mut runs = Vec::new();
    for n in 0..3 {
        runs.push(world.start(OneWork(keyed(n, "shop 7"))).await);
    }
    world.until(3, "select count(*) from workflow.tasks where queue = 'work'").await;
    let operations = Operations::new(world.client.clone());
    let minute = Duration::from_secs(60);
    let named = |of: Limited| move |reason: Reason| matches!(reason, Reason::Capped { of: o, running: 1, cap: 1, .. } if o == of);
    for (terms, fits, text) in [
        (Terms { cap: Some(1), ..Terms::default() }, named(Limited::Queue), "the queue has 1 of 1 under way"),
        (Terms { tenant_cap: Some(1), ..Terms::default() }, named(Limited::Tenant), "its tenant has 1 of 1 under way"),
        (
            Terms { key_cap: Some(1), ..Terms::default() },
            named(Limited::Key("shop 7".into())),
            r#"its limit key "shop 7" has 1 of 1 under way"#,
        ),
    ] {
        set(&world, &terms).await;
        let taken = world.client.claim(&["work"], &Labels::new(), "node", 3).await.unwrap().remove(0);
        let waiting = runs.iter().find(|run| **run != taken.run_id).unwrap();
        let why = operations.explain_run(*waiting).await.unwrap();
        assert!(why.text.contains(text), "{}", why.text);
        assert!(fits(why.reason));
        world.client.release(taken.task_id, taken.lease_token).await.unwrap();
    }
    set(&world, &Terms { rate: Some(Rate::new(1, minute)), ..Terms::default() }).await;
    let taken = world.client.claim(&["work"], &Labels::new(), "node", 3).await.unwrap();
    assert_eq!(taken.len(), 1);
    let waiting = runs.iter().find(|run| **run != taken[0].run_id).unwrap();
    let why = operations.explain_run(*waiting).await.unwrap();
    assert!(matches!(why.reason, Reason::RateLimited { of: Limited::Queue, .. }), "{why:?}");
    // Another tenant comes in: one of the two has used less.
    set(&world, &Terms::default()).await;
    world.tenant = B;
    for n in 0..2 {
        runs.push(world.start(OneWork(Work::new(n))).await);
    }
    world.until(5, "select count(*) from workflow.tasks where queue = 'work'").await;
    world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap();
    let mut waiting = 0;
    for run in runs {
        let why = operations.explain_run(run).await.unwrap();
        waiting += usize::from(matches!(why.reason, Reason::OthersTurn { tenants: 1, .. }));
    }
    assert!((1..=2).contains(&waiting), "{waiting}");
}
