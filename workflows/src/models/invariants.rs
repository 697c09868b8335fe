//! What is always true of the database, whatever was killed when: each rule as a query that finds what breaks it.
//!
//! Read-only, on one snapshot. Rules about several services look at all of them, which no service may: this is for
//! operators, cron and CI. The rules of references make themselves from the catalogue and its comments; what runs have done is
//! read by [`automaton`].
//!
//! Not here: the outbox of events (20), which there is none of yet; and what a node has running and lying about (21), which
//! no database knows: the node sees to it at each start.

mod rules;

use super::{Db, Role, Scope};
use flatrender_engine::automaton;
use rules::{INVARIANTS, NO_MOCKS};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgPool};

/// Rows shown of one broken rule.
const SHOWN: usize = 50;

/// A rule.
struct Invariant {
    /// Its number in the list of all invariants.
    number: u8,
    rule: &'static str,
    /// One text column; a row for each breach.
    sql: &'static str,
}

/// A row that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// Number of the invariant.
    pub invariant: u8,
    /// What should be true.
    pub rule: String,
    /// Which row it is.
    pub row: String,
}

/// Looks at every rule and gives the rows that break one; `production` also forbids what only development may have.
///
/// # Errors
/// The database cannot be reached, or has no tables.
pub async fn check(pool: &PgPool, production: bool) -> sqlx::Result<Vec<Breach>> {
    let mut tx = Scope::platform(Role::Admin).begin(pool).await?;
    let terms = "set transaction isolation level repeatable read, read only; set local statement_timeout = 0; set local timezone = 'UTC'";
    sqlx::raw_sql(terms).execute(&mut *tx).await?;
    check_in(&mut tx, production).await
}

/// The same, as whoever `db` is at the moment and by what it sees.
///
/// # Errors
/// The database cannot be reached, or has no tables.
pub async fn check_in(db: Db<'_>, production: bool) -> sqlx::Result<Vec<Breach>> {
    let mut breaches = vec![];
    for invariant in INVARIANTS.iter().chain(production.then_some(&NO_MOCKS)) {
        breaches.extend(find(db, invariant.number, invariant.rule, invariant.sql).await?);
    }
    let refused = automaton::refused(db, None, SHOWN).await?;
    breaches.extend(refused.into_iter().map(|run| Breach {
        invariant: 2,
        rule: "a run has done what runs may do".into(),
        row: format!("run {}: {}", run.run_id, run.why),
    }));
    for (number, rule, sql) in references(db).await? {
        breaches.extend(find(db, number, &rule, &sql).await?);
    }
    Ok(breaches)
}

async fn find(db: Db<'_>, number: u8, rule: &str, sql: &str) -> sqlx::Result<Vec<Breach>> {
    let limited = format!("select * from ({sql}) broken (row) limit {SHOWN}");
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(limited)).fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| Breach { invariant: number, rule: rule.to_owned(), row }).collect())
}

/// Rules of references, made from the catalogue: what a documented reference names is there (18) and is of the same
/// tenant (17), or of the default one, which shares with all. Rows of the last hour may still be waiting for theirs, and
/// logs outlive what they name.
async fn references(db: Db<'_>) -> sqlx::Result<Vec<(u8, String, String)>> {
    let made = sqlx::query!(
        r#"with refs as (
               select c.oid::regclass::text as child, quote_ident(a.attname) as col, m[1] as parent, quote_ident(m[2]) as key,
                      exists (select from pg_attribute x where x.attrelid = c.oid and x.attname = 'created_at') as aged,
                      exists (select from pg_attribute x where x.attrelid = c.oid and x.attname = 'tenant_id')
                          and exists (select from pg_attribute x where x.attrelid = to_regclass(m[1]) and x.attname = 'tenant_id') as owned
               from pg_class c
               join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               cross join lateral regexp_match(col_description(c.oid, a.attnum), '^softref:([a-z_]+\.[a-z_]+)\(([a-z0-9_]+)\)$') m
               where c.relkind = 'r' and not c.relispartition and has_table_privilege(c.oid, 'select')
                 and exists (select from pg_attribute x where x.attrelid = to_regclass(m[1]) and x.attname = m[2]))
           select 18::smallint as "number!", child || '.' || col || ' names a row of ' || parent as "rule!",
                  format('select %L || c.%s::text from %s c where c.%s is not null %s and not exists (select from %s p where p.%s = c.%s)',
                         child || '.' || col || ' = ', col, child, col,
                         case when aged then 'and c.created_at < workflow.now() - interval ''1 hour''' else '' end, parent, key, col) as "sql!"
           from refs
           union all
           select 17::smallint, child || '.' || col || ' stays within its tenant',
                  format('select %L || c.%s::text from %s c where c.%s is not null
                          and exists (select from %s p where p.%s = c.%s) and not exists (select from %s p where p.%s = c.%s
                          and (p.tenant_id is null or p.tenant_id in (c.tenant_id, %L)))', child || '.' || col || ' = ', col, child, col,
                         parent, key, col, parent, key, col, '00000000-0000-0000-0000-000000000001')
           from refs where owned
           order by 1, 2"#
    )
    .fetch_all(db)
    .await?;
    Ok(made.into_iter().map(|r| (r.number.unsigned_abs() as u8, r.rule, r.sql)).collect())
}
