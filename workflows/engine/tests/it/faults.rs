//! Connections that break.

use crate::world::{Tool, Work, World, effect};
use flatrender_engine::{Context, Failure, Workflow, client::RunState};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Busy;

impl Workflow for Busy {
    const NAME: &'static str = "busy";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        for n in 0..8u32 {
            let key = format!("step {n}");
            cx.step(&key, async |db| effect(db, run_id, &key).await).await?;
            cx.activity(&format!("work {n}"), Work::new(n)).await?;
        }
        Ok(())
    }
}

#[sqlx::test(migrations = false)]
async fn runs_survive_the_end_of_every_session(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Busy>().handler::<Work>(Tool::doubling()));
    let mut runs = Vec::new();
    for _ in 0..10 {
        runs.push(world.start(Busy).await);
    }
    for _ in 0..10 {
        // Sessions end all at once, this one excepted, as in a failover.
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
            .execute(&world.db)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    for run_id in runs {
        let run = world.end(run_id).await;
        assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    }
    assert_eq!(world.count("select count(*) from effects").await, 80);
    assert_eq!(world.count("select count(*) from (select distinct run_id, key from effects) e").await, 80);
}

/// Its step loses the connection right when it commits: the commit goes through, the answer does not arrive.
#[derive(Serialize, Deserialize)]
struct Unheard;

impl Workflow for Unheard {
    const NAME: &'static str = "unheard";
    type Output = i32;

    async fn run(self, cx: &Context) -> Result<i32, Failure> {
        let run_id = cx.run_id();
        cx.step("write", async |db| {
            effect(db, run_id, "write").await?;
            Ok(sqlx::query_scalar::<_, i32>("select pg_backend_pid()").fetch_one(db).await?)
        })
        .await
    }
}

#[sqlx::test(migrations = false)]
async fn a_commit_whose_answer_is_lost_counts_once(db: PgPool) {
    let mut world = World::new(db).await;
    // A commit trigger that ends its own session after the work is durable cannot exist; the closest: the record is
    // written by the first try, and the session ends before the engine hears of it.
    sqlx::raw_sql(
        "create function lose_answer() returns trigger language plpgsql as $$
         begin
             if new.kind = 'step' and (select count(*) from pg_stat_activity where application_name = 'deaf') = 0 then
                 perform pg_terminate_backend(pg_backend_pid());
             end if;
             return new;
         end $$;
         create constraint trigger lose_answer after insert on workflow.steps deferrable initially deferred
             for each row execute function lose_answer()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.workflow::<Unheard>());
    let run_id = world.start(Unheard).await;
    // The session dies inside COMMIT, again and again: whatever the server decided, the record tells.
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::raw_sql("drop trigger lose_answer on workflow.steps").execute(&world.db).await.unwrap();
    assert_eq!(world.end(run_id).await.state, RunState::Succeeded);
    assert_eq!(world.count("select count(*) from effects").await, 1);
}
