//! A gate before everything that a run writes down, where its worker is killed: at each, before it was written, and after it was and nobody
//! heard of it.

use flatrender_engine::{Client, schedules::Schedules};
use flatrender_workflows::{definitions::schedules, models::DEFAULT_TENANT};
use sqlx::{AssertSqlSafe, PgPool};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The longest that a worker takes until it is where it is killed.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long whoever has come to such a place waits for the others.
const TOGETHER: Duration = Duration::from_millis(700);

/// What is written down of these runs, and their end, stays within its transaction until it is let through: it stands in the commit, with
/// all that is written in it. Whoever waits there is told by a lock for each. What they are told by others is not theirs.
pub const GATE: &str = "
    create table public.gated (run_id uuid primary key);
    create table public.gated_kinds (kind text primary key);
    create table public.let_through (place bigint primary key);
    create function public.place(p_run text, p_key text) returns bigint language sql immutable as $$
        select abs(hashtext(p_run || p_key) % 1000000000)::bigint
    $$;
    create function public.gate_new() returns trigger language plpgsql security definer set search_path = public, pg_catalog as $$
    begin
        insert into gated select new.id from gated_kinds where kind = new.kind;
        return null;
    end $$;
    create function public.note_place() returns trigger language plpgsql security definer set search_path = public, pg_catalog as $$
    declare
        v_row jsonb := to_jsonb(new);
        v_run text := coalesce(v_row ->> 'run_id', v_row ->> 'id');
        v_places text := coalesce(current_setting('gate.places', true), '');
    begin
        if v_row ->> 'kind' is distinct from 'signal' and exists (select from gated where run_id = v_run::uuid) then
            perform set_config('gate.places', ltrim(v_places || ' ' || place(v_run, coalesce(v_row ->> 'key', ' its end'))), true);
        end if;
        return new;
    end $$;
    create function public.gate() returns trigger language plpgsql security definer set search_path = public, pg_catalog as $$
    declare
        v_places bigint[] := array (
            select p::bigint from string_to_table(nullif(current_setting('gate.places', true), ''), ' ') p
            except select place from let_through order by 1);
        v_place bigint;
    begin
        perform set_config('gate.places', '', true);
        foreach v_place in array v_places loop
            perform pg_advisory_xact_lock(4711, v_place::int);
        end loop;
        while exists (select unnest(v_places) except select place from let_through) loop
            perform pg_sleep(0.005);
        end loop;
        return null;
    end $$;
    create trigger gate_new after insert on workflow.runs for each row execute function public.gate_new();
    create trigger note_place before insert on workflow.steps for each row execute function public.note_place();
    create trigger note_place before update on workflow.runs for each row
        when (old.state = 'running' and new.state <> 'running') execute function public.note_place();
    create constraint trigger gate after insert on workflow.steps deferrable initially deferred
        for each row execute function public.gate();
    create constraint trigger gate after update on workflow.runs deferrable initially deferred
        for each row when (old.state = 'running' and new.state <> 'running') execute function public.gate()";
pub const NO_GATE: &str = "drop function public.gate, public.note_place, public.gate_new, public.place cascade;
    drop table public.gated, public.gated_kinds, public.let_through";
/// Who waits, and where.
const WAITING: &str = "select pid, objid::bigint from pg_locks
    where locktype = 'advisory' and classid = 4711 and granted and database = (select oid from pg_database where datname = current_database())
    order by objid";
/// What was on its way to such a place when its worker was killed for the sake of others is not to blame, and waits for nothing.
const FORGIVE: &str = "update workflow.tasks set losses = 0, run_at = least(run_at, workflow.now()) where id in (
    select id from workflow.tasks where losses > 0 and run_id in (select run_id from public.gated) for update skip locked)";
const UNDER_WAY: &str =
    "select count(*) from workflow.runs r join public.gated g on g.run_id = r.id where r.state = 'running'";
/// What they had written down before nobody is killed for.
const BEFORE: &str = "insert into public.let_through
    select public.place(s.run_id::text, s.key) from workflow.steps s join public.gated g on g.run_id = s.run_id on conflict do nothing";
/// What they have, and nobody was.
const MISSED: &str = "select s.key from workflow.steps s join public.gated g on g.run_id = s.run_id
    where s.kind <> 'signal' and not exists (select from public.let_through l where l.place = public.place(s.run_id::text, s.key))";

/// A worker that is a process.
pub trait Mortal {
    fn start_worker(&mut self);
    fn kill_worker(&mut self);
}

/// Waits for the schedules that a worker makes, and has none of them fire.
pub async fn quiet_schedules(db: &PgPool) {
    let (schedules, wanted) = (Schedules::new(Client::new(db.clone())), schedules::all(false).unwrap().len());
    let began = Instant::now();
    while schedules.list(Some(DEFAULT_TENANT), None, 500).await.unwrap().len() < wanted {
        assert!(began.elapsed() < PATIENCE, "there are no schedules");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut tx = db.begin().await.unwrap();
    for schedule in schedules.list(Some(DEFAULT_TENANT), None, 500).await.unwrap() {
        assert!(schedules.pause(&mut tx, schedule.id).await.unwrap());
    }
    tx.commit().await.unwrap();
}

/// Kills the worker twice at each thing that the gated runs write down, and once they are over gives how often that was. The first time
/// it was never written; the last time it was, and nobody heard of it. What is written together goes so once each of it has gone the other
/// way.
pub async fn kill_at_each(worker: &mut impl Mortal, db: &PgPool) -> BTreeMap<i64, u32> {
    sqlx::query(BEFORE).execute(db).await.unwrap();
    let mut kills = BTreeMap::<i64, u32>::new();
    loop {
        worker.start_worker();
        let began = Instant::now();
        let mut since = None;
        let waiting = loop {
            let waiting: Vec<(i32, i64)> = sqlx::query_as(WAITING).fetch_all(db).await.unwrap();
            let under_way: i64 = sqlx::query_scalar(UNDER_WAY).fetch_one(db).await.unwrap();
            if under_way == 0 {
                let missed: Vec<String> = sqlx::query_scalar(MISSED).fetch_all(db).await.unwrap();
                assert!(missed.is_empty(), "nobody was killed at {missed:?}");
                return kills;
            }
            if !waiting.is_empty() {
                let since = *since.get_or_insert_with(Instant::now);
                if waiting.len() as i64 >= under_way || since.elapsed() > TOGETHER {
                    break waiting;
                }
            }
            assert!(began.elapsed() < PATIENCE, "nothing goes on, after {kills:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        worker.kill_worker();
        let mut standing = BTreeMap::<i32, Vec<i64>>::new();
        for (pid, place) in waiting {
            standing.entry(pid).or_default().push(place);
        }
        for (pid, places) in standing {
            let mut is_new = false;
            for place in &places {
                let times = kills.entry(*place).or_default();
                *times += 1;
                is_new |= *times == 1;
            }
            let sql = match is_new {
                true => format!("select pg_terminate_backend({pid})"),
                false => format!(
                    "insert into public.let_through select unnest(array{places:?}::bigint[]) on conflict do nothing"
                ),
            };
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await.unwrap();
        }
        sqlx::raw_sql(FORGIVE).execute(db).await.unwrap();
    }
}
