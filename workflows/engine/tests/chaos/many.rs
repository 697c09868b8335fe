//! Operations on many runs and jobs at once, while those who do them are killed and others do the same.

use crate::{
    program::Duties,
    scenario::{Scenario, sized},
    work::{Errand, Manner, Single, mended},
};
use flatrender_engine::{
    Enqueued, JobOptions, Unique,
    client::RunState,
    operations::{Action, Bulk, By, Filter, Operations, Preview, Revival},
};
use serde_json::Value;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn by() -> By {
    By::new("operator").because("the road is mended")
}

fn failed(s: &Scenario) -> Filter {
    let (tenant, kinds) = (Some(s.tenant), vec!["single".to_owned()]);
    Filter { tenant, kinds, states: vec![RunState::Failed], ..Filter::default() }
}

/// A run that has failed, and as many more that are like it in every respect but their ids.
async fn failures(s: &Scenario, key: &str, more: u32) -> Uuid {
    let run_id = s.start(key, Single(Errand::that(4, Manner::Closed))).await;
    assert_eq!(s.end(run_id, Duration::from_secs(30)).await.state, RunState::Failed);
    let sql = "with new as materialized (
            select n, workflow.new_run_id(workflow.now() + n * interval '1 us') as id from generate_series(1, $2) n
        ), runs as (
            insert into workflow.runs select (jsonb_populate_record(r, jsonb_build_object('id', n.id, 'business_key', null))).*
            from workflow.runs r cross join new n where r.id = $1
        ), steps as (
            insert into workflow.steps select (jsonb_populate_record(r, jsonb_build_object('run_id', n.id))).*
            from workflow.steps r cross join new n where r.run_id = $1
        ), attempts as (
            insert into workflow.attempts select (jsonb_populate_record(r, jsonb_build_object('run_id', x.id, 'task_id', -1000 * x.n - r.task_id % 1000))).*
            from workflow.attempts r cross join new x where r.run_id = $1
        ), told as (
            insert into transitions (run_id, was, became) select id, 'running', 'failed' from new
        )
        insert into accepted (key, what, run_id) select 'like ' || id, 'single', id from new";
    sqlx::query(sql).bind(run_id).bind(more as i32).execute(&s.db).await.unwrap();
    run_id
}

async fn preview(s: &Scenario, operations: &Operations) -> Preview {
    let mut tx = s.db.begin().await.unwrap();
    let preview = operations.preview(&mut tx, &by(), Action::Retry, &failed(s), None).await.unwrap();
    tx.commit().await.unwrap();
    preview
}

async fn begin(s: &Scenario, operations: &Operations, bulk: &Preview) {
    let mut tx = s.db.begin().await.unwrap();
    operations.begin(&mut tx, &by(), bulk.id, bulk.total).await.unwrap();
    tx.commit().await.unwrap();
}

/// The operation, once `far` of it is done.
async fn done(operations: &Operations, id: Uuid, far: i32, patience: Duration) -> Bulk {
    let began = Instant::now();
    loop {
        let bulk = operations.bulk(id).await.unwrap().unwrap();
        if bulk.next_n > far && (far < bulk.total || bulk.state == "finished") {
            return bulk;
        }
        assert!(began.elapsed() < patience, "{bulk:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn f25_a_bulk_retry_does_its_frozen_set_once_though_its_workers_die_and_the_filter_fits_more() {
    let mut s = Scenario::new("F25", "exactly the frozen set, each once; outcome per item; audit").await;
    let operations = Operations::new(s.client.clone());
    s.worker("first", Duties::default());
    let many = sized(300, 50_000);
    failures(&s, "frozen", many - 1).await;
    let frozen = "create table frozen as select id from workflow.runs where state = 'failed'";
    sqlx::raw_sql(frozen).execute(&s.db).await.unwrap();
    let bulk = preview(&s, &operations).await;
    assert_eq!((bulk.total, bulk.counts.len(), bulk.counts[0].n), (many as i32, 1, i64::from(many)));
    s.stop_workers().await;
    std::fs::write(mended(s.folder()), "").unwrap();
    let began = Instant::now();
    begin(&s, &operations, &bulk).await;
    // One dies between the items of a batch, the next ones wherever they are.
    let doomed = s.doomed("doomed", Duties::default(), "bulk.item_commit.after:150");
    s.process(doomed).dismissed = true;
    s.process(doomed).ended(Duration::from_secs(60)).await.expect("nobody does the operation");
    s.injected(1);
    assert_eq!(operations.bulk(bulk.id).await.unwrap().unwrap().next_n, 101, "half a batch counts");
    for n in 0..sized(1, 3) {
        let workers = [s.worker("one", Duties::default()), s.worker("two", Duties::default())];
        done(&operations, bulk.id, bulk.total * (n + 2) / sized(3, 5), Duration::from_secs(300)).await;
        for worker in workers {
            s.process(worker).kill();
            s.injected(1);
        }
        // What fits the filter since then is not in the set.
        sqlx::query(LATE).bind(s.tenant).bind(100).execute(&s.db).await.unwrap();
    }
    for name in ["last", "last too"] {
        s.worker(name, Duties { slots: 32, ..Duties::default() });
    }
    let end = done(&operations, bulk.id, bulk.total, Duration::from_secs(400)).await;
    s.note(format!("{many} runs in {:.0?}", began.elapsed()));
    assert_eq!((end.done, end.skipped, end.conflicts, end.failed), (bulk.total, 0, 0, 0));
    for (wrong, sql) in [
        (
            "not in the set",
            "select count(*) from workflow.run_lineage where origin_run_id not in (select id from frozen)",
        ),
        ("left out", "select count(*) from frozen where id not in (select origin_run_id from workflow.run_lineage)"),
        ("twice", "select count(*) - count(distinct origin_run_id) from workflow.run_lineage"),
        (
            "without an outcome",
            "select count(*) from workflow.bulk_items where outcome is distinct from 'done' or result_run_id is null",
        ),
        (
            "with another result",
            "select count(*) from workflow.bulk_items i where not exists (
                select from workflow.run_lineage l where l.run_id = i.result_run_id and l.origin_run_id = i.run_id)",
        ),
    ] {
        assert_eq!(s.count(sql).await, 0, "{wrong}");
    }
    let audit = "select count(*) from workflow.audit where actor = 'operator' and reason like 'the road is mended%' and action = ";
    for (action, times) in [("bulk_preview", 1), ("bulk_begin", 1), ("retry", i64::from(many))] {
        let sql = sqlx::AssertSqlSafe(format!("{audit}'{action}'"));
        let n: i64 = sqlx::query_scalar(sql).fetch_one(&s.db).await.unwrap();
        assert_eq!(n, times, "{action}");
    }
    let counted = operations.audit_of(&format!("bulk:{}", bulk.id), 10).await.unwrap();
    let total = counted.iter().find(|a| a.action == "bulk_preview").and_then(|a| a.after.clone()).unwrap();
    assert_eq!(total["total"], bulk.total);
    let mended = "select count(*) from workflow.run_lineage l join workflow.runs r on r.id = l.run_id where r.state = 'succeeded'";
    s.until(i64::from(many), mended, Duration::from_secs(120)).await;
    s.note(format!("all of them mended after {:.0?}", began.elapsed()));
    s.finish(Duration::from_secs(60)).await;
}

/// More that have failed, like one that has.
const LATE: &str = "with new as materialized (
        select workflow.new_run_id(workflow.now() + n * interval '1 us') as id from generate_series(1, $2) n
    ), like_this as (
        select to_jsonb(r) as it from workflow.runs r where tenant_id = $1 and state = 'failed' limit 1
    ), told as (
        insert into transitions (run_id, was, became) select id, 'running', 'failed' from new
    )
    insert into workflow.runs select (jsonb_populate_record(null::workflow.runs, it || jsonb_build_object('id', id, 'business_key', null))).*
    from like_this cross join new";

async fn enqueue(s: &Scenario, n: u32, key: &str, manner: Manner) -> Enqueued {
    let mut tx = s.db.begin().await.unwrap();
    let options = JobOptions { unique: Some(Unique::new(key)), ..JobOptions::default() };
    let job = s.client.enqueue(&mut tx, s.tenant, Errand::that(n, manner), &options).await.unwrap();
    sqlx::query("insert into accepted (key, what) values ($1, 'job')")
        .bind(format!("job {n}"))
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    s.client.announce();
    job
}

/// All that is known of jobs, dead or alive.
async fn rows(s: &Scenario, ids: &[i64]) -> Vec<Value> {
    let sql = "select to_jsonb(j) from workflow.jobs j where id = any ($1)
               union all select to_jsonb(f) from workflow.finished_jobs f where id = any ($1) order by 1";
    sqlx::query_scalar(sql).bind(ids).fetch_all(&s.db).await.unwrap()
}

#[tokio::test]
async fn f26_what_another_has_taken_the_place_of_is_a_conflict_and_stays_as_it_is() {
    let mut s = Scenario::new("F26", "conflict per item, row untouched; of many who try the same one does it").await;
    let operations = Operations::new(s.client.clone());
    s.worker("first", Duties::default());
    let count = sized(6, 60);
    let mut dead = Vec::new();
    for n in 0..count {
        dead.push(enqueue(&s, n, &format!("key {n}"), Manner::Closed).await.job_id);
    }
    let run = failures(&s, "run", count - 1).await;
    s.until(0, "select count(*) from workflow.jobs", Duration::from_secs(30)).await;
    s.stop_workers().await;
    std::fs::write(mended(s.folder()), "").unwrap();
    // Every other key has a newer job by now.
    let mut newer = Vec::new();
    for n in (0..count).step_by(2) {
        let job = enqueue(&s, n + 1000, &format!("key {n}"), Manner::Plain).await;
        assert!(job.new);
        newer.push(job.job_id);
    }
    let taken: Vec<i64> = dead.iter().copied().step_by(2).collect();
    let before = rows(&s, &[taken.clone(), newer.clone()].concat()).await;
    let tries = (0..8).map(|_| async {
        let mut tx = s.db.begin().await.unwrap();
        let outcomes = operations.retry_jobs(&mut tx, &by(), &dead).await.unwrap();
        tx.commit().await.unwrap();
        outcomes
    });
    let tries = futures::future::join_all(tries).await;
    s.injected(tries.len() as u32);
    for (n, id) in dead.iter().enumerate() {
        let outcomes: Vec<Revival> = tries.iter().flatten().filter(|(of, _)| of == id).map(|(_, o)| *o).collect();
        let (done, other) = if n % 2 == 0 { (0, Revival::Conflict) } else { (1, Revival::Moved) };
        assert_eq!(outcomes.iter().filter(|o| **o == Revival::Done).count(), done, "{n}: {outcomes:?}");
        assert_eq!(outcomes.iter().filter(|o| **o == other).count(), 8 - done, "{n}: {outcomes:?}");
    }
    assert_eq!(rows(&s, &[taken, newer].concat()).await, before);

    // The same for runs: one has been tried again by hand, and two operations are about all of them.
    let (one, other) = (preview(&s, &operations).await, preview(&s, &operations).await);
    let mut tx = s.db.begin().await.unwrap();
    operations.retry(&mut tx, &by(), run, &Default::default()).await.unwrap();
    tx.commit().await.unwrap();
    for bulk in [&one, &other] {
        begin(&s, &operations, bulk).await;
    }
    for name in ["one", "two"] {
        s.worker(name, Duties::default());
    }
    let mut sum = (0, 0, 0, 0);
    for bulk in [&one, &other] {
        let end = done(&operations, bulk.id, bulk.total, Duration::from_secs(60)).await;
        sum = (sum.0 + end.done, sum.1 + end.conflicts, sum.2 + end.skipped, sum.3 + end.failed);
    }
    let all = count as i32;
    assert_eq!(sum, (all - 1, all + 1, 0, 0), "each run has one retry");
    let named =
        "select count(*) from workflow.bulk_items where outcome = 'conflict' and note <> '' and result_run_id is null";
    assert_eq!(s.count(named).await, i64::from(all + 1));
    assert_eq!(s.count("select count(*) - count(distinct origin_run_id) from workflow.run_lineage").await, 0);
    assert_eq!(s.count("select count(*) from workflow.run_lineage").await, i64::from(all));
    s.finish(Duration::from_secs(60)).await;
}
