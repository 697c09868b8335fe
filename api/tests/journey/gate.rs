//! A gate before everything that a run writes down, where its worker is killed: at each, before it was written, and after it was and nobody
//! heard of it.

use sqlx::{AssertSqlSafe, PgPool};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The longest that a worker takes until it is where it is killed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long whoever has come to such a place waits for the others.
const TOGETHER: Duration = Duration::from_millis(700);

/// What is written down of these runs, and their end, stays within its transaction until it is let through. Whoever waits there is told
/// by a lock. What they are told by others is not theirs.
pub const GATE: &str = "
    create table public.gated (run_id uuid primary key);
    create table public.let_through (place bigint primary key);
    create function public.gate() returns trigger language plpgsql security definer set search_path = public, pg_catalog as $$
    declare
        v_row jsonb := to_jsonb(new);
        v_run uuid := coalesce(v_row ->> 'run_id', v_row ->> 'id');
        v_place int := abs(hashtext(v_run::text || coalesce(v_row ->> 'key', ' its end')) % 1000000000);
    begin
        if v_row ->> 'kind' is distinct from 'signal' and exists (select from gated where run_id = v_run) then
            perform pg_advisory_xact_lock(4711, v_place);
            while not exists (select from let_through where place = v_place) loop
                perform pg_sleep(0.005);
            end loop;
        end if;
        return new;
    end $$;
    create trigger gate before insert on workflow.steps for each row execute function public.gate();
    create trigger gate before update on workflow.runs for each row
        when (old.state = 'running' and new.state <> 'running') execute function public.gate()";
pub const NO_GATE: &str = "drop function public.gate cascade; drop table public.gated, public.let_through";
/// Who waits, and where.
const WAITING: &str = "select pid, objid::bigint from pg_locks
    where locktype = 'advisory' and classid = 4711 and granted and database = (select oid from pg_database where datname = current_database())
    order by objid";
/// What was on its way to such a place when its worker was killed for the sake of others is not to blame, and waits for nothing.
const FORGIVE: &str = "update workflow.tasks set losses = 0, run_at = least(run_at, workflow.now()) where id in (
    select id from workflow.tasks where losses > 0 and run_id in (select run_id from public.gated) for update skip locked)";
const UNDER_WAY: &str =
    "select count(*) from workflow.runs r join public.gated g on g.run_id = r.id where r.state = 'running'";

/// A worker that is a process.
pub trait Mortal {
    fn start_worker(&mut self);
    fn kill_worker(&mut self);
}

/// Kills the worker twice at each thing that the gated runs write down, and once they are over gives how often that was. The first time
/// it was never written; the second time it was, unless more had to follow for it to count, and nobody heard of it.
pub async fn kill_at_each(worker: &mut impl Mortal, db: &PgPool) -> BTreeMap<i64, u32> {
    let mut kills = BTreeMap::<i64, u32>::new();
    loop {
        worker.start_worker();
        let began = Instant::now();
        let mut since = None;
        let waiting = loop {
            let waiting: Vec<(i32, i64)> = sqlx::query_as(WAITING).fetch_all(db).await.unwrap();
            let under_way: i64 = sqlx::query_scalar(UNDER_WAY).fetch_one(db).await.unwrap();
            if under_way == 0 {
                return kills;
            }
            if !waiting.is_empty() {
                let since = *since.get_or_insert_with(Instant::now);
                if waiting.len() as i64 == under_way || since.elapsed() > TOGETHER {
                    break waiting;
                }
            }
            assert!(began.elapsed() < PATIENCE, "nothing goes on, after {kills:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        worker.kill_worker();
        for (pid, place) in waiting {
            let times = kills.entry(place).or_default();
            *times += 1;
            let sql = match *times {
                1 => format!("select pg_terminate_backend({pid})"),
                _ => format!("insert into public.let_through values ({place}) on conflict do nothing"),
            };
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.unwrap();
        }
        sqlx::raw_sql(FORGIVE).execute(db).await.unwrap();
    }
}
