//! The yardsticks: what a careful person would write by hand for one purpose, on tables of its own.

use crate::spread;
use anyhow::Result;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use uuid::Uuid;

const BATCH: i64 = 1000;

/// Claims, runs and completes in batches, fenced by a token; the finished row stays where it is.
pub async fn drain(db: &PgPool, n: u64) -> Result<Value> {
    sqlx::raw_sql(
        "drop table if exists hand_jobs;
         create table hand_jobs (
            id bigint generated always as identity primary key, queue text not null, state text not null default 'ready',
            run_at timestamptz not null default now(), input jsonb not null, token uuid, worker text,
            lease_expires_at timestamptz, attempt int not null default 0, finished_at timestamptz);
         create index on hand_jobs (queue, run_at, id) where state = 'ready'",
    )
    .execute(db)
    .await?;
    sqlx::query("insert into hand_jobs (queue, input) select 'bench', jsonb_build_object('k', i, 's', 0) from generate_series(1, $1) i")
        .bind(i64::try_from(n)?)
        .execute(db)
        .await?;
    sqlx::raw_sql("analyze hand_jobs").execute(db).await?;
    let began = Instant::now();
    let mut handled = 0;
    loop {
        let token = Uuid::new_v4();
        let claimed: Vec<(i64, Value)> = sqlx::query_as(
            "update hand_jobs set state = 'running', token = $1, worker = 'hand', attempt = attempt + 1,
                lease_expires_at = now() + interval '30 s'
             where id = any (array (select id from hand_jobs where queue = 'bench' and state = 'ready' and run_at <= now()
                                    order by run_at, id limit $2 for update skip locked))
             returning id, input",
        )
        .bind(token)
        .bind(BATCH)
        .fetch_all(db)
        .await?;
        if claimed.is_empty() {
            break;
        }
        let ids: Vec<i64> = claimed.iter().map(|(id, _)| *id).collect();
        let tokens = vec![token; ids.len()];
        handled += sqlx::query(
            "update hand_jobs j set state = 'done', finished_at = now(), lease_expires_at = null
             from unnest($1::bigint[], $2::uuid[]) as g (id, token) where j.id = g.id and j.token = g.token",
        )
        .bind(ids)
        .bind(tokens)
        .execute(db)
        .await?
        .rows_affected();
    }
    Ok(json!({ "n": handled, "secs": began.elapsed().as_secs_f64() }))
}

const WORKFLOW_TABLES: &str = "drop table if exists hand_steps; drop table if exists hand_runs;
    create table hand_runs (
        id uuid primary key, state text not null default 'ready', input jsonb not null, output jsonb, token uuid,
        lease_expires_at timestamptz, created_at timestamptz not null default now(), finished_at timestamptz);
    create index on hand_runs (created_at) where state = 'ready';
    create table hand_steps (run_id uuid not null, key text not null, output jsonb, recorded_at timestamptz not null default now(),
        primary key (run_id, key))";

/// One workflow of three steps after the other, each write in a transaction of its own: start with a lease, three records, end.
pub async fn one_at_a_time(db: &PgPool, n: u64) -> Result<Value> {
    sqlx::raw_sql(WORKFLOW_TABLES).execute(db).await?;
    let mut db = db.acquire().await?;
    let mut times = Vec::new();
    for i in 0..n + 5 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..=80))).await;
        let began = Instant::now();
        let (id, token) = (Uuid::now_v7(), Uuid::new_v4());
        sqlx::query(
            "insert into hand_runs (id, input, state, token, lease_expires_at)
             values ($1, 'null', 'running', $2, now() + interval '30 s')",
        )
        .bind(id)
        .bind(token)
        .execute(&mut *db)
        .await?;
        for key in ["one", "two", "three"] {
            sqlx::query(
                "insert into hand_steps (run_id, key, output)
                 select r.id, $2, '1' from hand_runs r where r.id = $1 and r.token = $3",
            )
            .bind(id)
            .bind(key)
            .bind(token)
            .execute(&mut *db)
            .await?;
        }
        sqlx::query(
            "update hand_runs set state = 'done', output = '3', finished_at = now() where id = $1 and token = $2",
        )
        .bind(id)
        .bind(token)
        .execute(&mut *db)
        .await?;
        if i >= 5 {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok(spread(n, times))
}

/// The writes of workflows of three steps, for a batch of workflows at a time: start, claim, three records, end.
pub async fn workflows(db: &PgPool, n: u64) -> Result<Value> {
    sqlx::raw_sql(WORKFLOW_TABLES).execute(db).await?;
    let began = Instant::now();
    let mut left = n;
    while left > 0 {
        let ids: Vec<Uuid> = (0..left.min(500)).map(|_| Uuid::now_v7()).collect();
        left -= ids.len() as u64;
        let token = Uuid::new_v4();
        sqlx::query("insert into hand_runs (id, input) select id, 'null' from unnest($1::uuid[]) id")
            .bind(&ids)
            .execute(db)
            .await?;
        sqlx::query("update hand_runs set state = 'running', token = $2, lease_expires_at = now() + interval '30 s' where id = any ($1) and state = 'ready'")
            .bind(&ids)
            .bind(token)
            .execute(db)
            .await?;
        for key in ["one", "two", "three"] {
            sqlx::query(
                "insert into hand_steps (run_id, key, output)
                 select r.id, $2, '1' from hand_runs r where r.id = any ($1) and r.token = $3",
            )
            .bind(&ids)
            .bind(key)
            .bind(token)
            .execute(db)
            .await?;
        }
        sqlx::query(
            "update hand_runs set state = 'done', output = '3', finished_at = now() where id = any ($1) and token = $2",
        )
        .bind(&ids)
        .bind(token)
        .execute(db)
        .await?;
    }
    Ok(json!({ "n": n, "secs": began.elapsed().as_secs_f64() }))
}
