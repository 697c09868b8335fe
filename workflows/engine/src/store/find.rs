//! Lists of runs: by key, each look at a bounded number of rows.

use crate::operations::{Filter, Line};
use sqlx::{PgConnection, Postgres, QueryBuilder, Result};
use uuid::Uuid;

/// The last run that a look at `window` of them reaches, whether it fits or not; none when it reaches the oldest.
pub(crate) async fn window_end(
    db: &mut PgConnection,
    filter: &Filter,
    after: Option<Uuid>,
    window: i64,
) -> Result<Option<Uuid>> {
    let (table, column) = gone_through(filter);
    let mut sql = QueryBuilder::<Postgres>::new(format!("select w.{column} from workflow.{table} w where true"));
    narrow(&mut sql, filter, after);
    // Of the live ones those of one tenant could be anywhere: they are chosen from the window.
    if let (Some(tenant), true) = (filter.tenant, table != "tasks") {
        sql.push(" and w.tenant_id = ").push_bind(tenant);
    }
    sql.push(format!(" order by w.{column} desc offset ")).push_bind(window - 1).push(" limit 1");
    sql.build_query_scalar().fetch_optional(db).await
}

/// A run as lists show it, of a row `r`.
const LINE: &str = "r.id, r.tenant_id, r.kind, r.version, r.business_key, r.state, r.priority,
    r.error ->> 'code' as error_code, left(r.error ->> 'message', 500) as error_message, r.error_fingerprint as fingerprint,
    (select a.attributes from workflow.run_attributes a where a.run_id = r.id) as attributes,
    r.cancel_requested_at, r.created_at, r.finished_at";

/// Up to `limit` runs that fit, newest first: of those before `after`, down to `end`.
pub(crate) async fn find(
    db: &mut PgConnection,
    filter: &Filter,
    after: Option<Uuid>,
    end: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Line>> {
    let (table, column) = gone_through(filter);
    let run = match table {
        "runs" => "select w.*",
        // By one look each: a planner that joined the tables would read all runs there are.
        _ => "select * from workflow.runs where id = w.run_id limit 1",
    };
    let sql = format!("select {LINE} from workflow.{table} w cross join lateral ({run}) r where true");
    let mut sql = QueryBuilder::<Postgres>::new(sql);
    narrow(&mut sql, filter, after);
    if let Some(end) = end {
        sql.push(format!(" and w.{column} >= ")).push_bind(end);
    }
    if let Some(tenant) = filter.tenant {
        sql.push(" and w.tenant_id = ").push_bind(tenant);
    }
    fit(&mut sql, filter, column);
    sql.push(format!(" order by w.{column} desc limit ")).push_bind(limit);
    sql.build_query_as().fetch_all(db).await
}

/// Runs with these ids, newest first.
pub(crate) async fn lines(db: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Line>> {
    let sql = format!("select {LINE} from workflow.runs r where r.id = any ($1) order by r.id desc");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(ids).fetch_all(db).await
}

/// The table that is gone through for a filter, newest first, and its column with the run: the narrowest that there is.
fn gone_through(filter: &Filter) -> (&'static str, &'static str) {
    match filter {
        Filter { business_key: Some(_), tenant: Some(_), .. } => ("runs", "id"),
        Filter { attributes: Some(_), .. } => ("run_attributes", "run_id"),
        _ if filter.of_live() => ("tasks", "run_id"),
        _ => ("runs", "id"),
    }
}

/// Adds what an index answers of a filter, of rows `w` of the table that is gone through.
fn narrow(sql: &mut QueryBuilder<Postgres>, filter: &Filter, after: Option<Uuid>) {
    let (table, column) = gone_through(filter);
    match table {
        "run_attributes" => sql.push(" and w.attributes @> ").push_bind(&filter.attributes),
        "tasks" => sql.push(" and w.kind = 'run'"),
        _ if filter.business_key.is_some() && filter.tenant.is_some() => {
            sql.push(" and w.business_key = ").push_bind(&filter.business_key)
        }
        _ if filter.only_failed() => sql.push(" and w.error_fingerprint is not null"),
        _ => &mut *sql,
    };
    // Of one cause those of one tenant could be anywhere.
    if let (Some(fingerprint), None, "runs") = (&filter.fingerprint, filter.tenant, table) {
        sql.push(" and w.error_fingerprint = ").push_bind(fingerprint);
    }
    if let Some(after) = after {
        sql.push(format!(" and w.{column} < ")).push_bind(after);
    }
}

/// Adds what is left to be looked at in each run `r`, found by a row `w`.
fn fit(sql: &mut QueryBuilder<Postgres>, filter: &Filter, column: &str) {
    if !filter.kinds.is_empty() {
        sql.push(" and r.kind = any (").push_bind(&filter.kinds).push(")");
    }
    if !filter.states.is_empty() {
        sql.push(" and r.state = any (")
            .push_bind(filter.states.iter().map(|s| s.as_str()).collect::<Vec<_>>())
            .push(")");
    }
    if let Some(key) = &filter.business_key {
        sql.push(" and r.business_key = ").push_bind(key);
    }
    if let Some(attributes) = &filter.attributes {
        sql.push(" and (select a.attributes from workflow.run_attributes a where a.run_id = r.id) @> ")
            .push_bind(attributes);
    }
    if let Some(fingerprint) = &filter.fingerprint {
        sql.push(" and r.error_fingerprint = ").push_bind(fingerprint);
    }
    if let Some(code) = &filter.code {
        // A fingerprint begins with the code; the error itself may be long, and lie elsewhere.
        sql.push(" and r.error_fingerprint = ").push_bind(code).push(" || ':' || right(r.error_fingerprint, 12)");
    }
    if let Some(queue) = &filter.queue {
        // Not `exists`: the planner might look through the whole queue.
        sql.push(format!(" and (select q.id from workflow.tasks q where q.run_id = w.{column} and q.queue = "))
            .push_bind(queue)
            .push(" limit 1) is not null");
    }
    if let Some(from) = filter.created_from {
        sql.push(" and r.created_at >= ").push_bind(from);
    }
    if let Some(until) = filter.created_until {
        sql.push(" and r.created_at < ").push_bind(until);
    }
}
