//! What is always true of the database, whatever was killed when: each rule as a query that finds what breaks it.
//!
//! Read-only, on one snapshot. Rules about several services look at all of them, which no service may: this is for
//! operators, cron and CI. The rules of references make themselves from the catalogue and its comments.

use super::{Role, Scope, scope::Scoped};
use serde::Serialize;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Number of the invariant.
    pub invariant: u8,
    /// What should be true.
    pub rule: String,
    /// Which row it is.
    pub row: String,
}

const INVARIANTS: &[Invariant] = &[
    Invariant {
        number: 1,
        rule: "a run that has ended has nothing left to do",
        sql: "select 'run ' || r.id || ' is ' || r.state from workflow.runs r where r.state <> 'running'
              and exists (select from workflow.tasks t where t.run_id = r.id and t.kind = 'run')",
    },
    Invariant {
        number: 3,
        rule: "one attempt of a task succeeds at most, and none comes after it",
        sql: "select 'task ' || task_id from workflow.attempts group by task_id
              having count(*) filter (where outcome = 'ok') > 1
                  or max(attempt_no) filter (where outcome = 'ok') < max(attempt_no)",
    },
    Invariant {
        number: 4,
        rule: "a film has ended as its run has",
        sql: "select 'render ' || j.id || ' is ' || j.status || ', its run ' || coalesce(r.state, 'not there')
              from render.render_jobs j left join workflow.runs r on r.id = j.workflow_run_id
              where r.id is null and j.finished_at is null or r.tenant_id <> j.tenant_id
                 or j.status = 'completed' and r.state in ('failed', 'cancelled')
                 or j.status in ('failed', 'cancelled') and r.state = 'succeeded'
                 or j.finished_at is null and r.finished_at < workflow.now() - interval '5 minutes'",
    },
    Invariant {
        number: 6,
        rule: "a plan is active once it is paid",
        sql: "select 'subscription ' || s.id from identity.subscriptions s join identity.payments p on p.id = s.activated_by_payment_id
              where s.state in ('active', 'past_due', 'paused') and p.paid_at is null",
    },
    Invariant {
        number: 7,
        rule: "credits are the sum of their ledger, and what is held is the sum of the open holds",
        sql: "select 'account ' || a.id || ': ' || a.balance || ' and ' || a.held || ', by its rows ' || l.balance || ' and ' || h.held
              from identity.credit_accounts a
              cross join lateral (select coalesce(sum(delta), 0) as balance from identity.credit_ledger where account_id = a.id) l
              cross join lateral (select coalesce(sum(amount), 0) as held from identity.credit_holds where account_id = a.id and state = 'held') h
              where a.balance <> l.balance or a.held <> h.held",
    },
    Invariant {
        number: 8,
        rule: "the numbers of invoices have no gaps",
        sql: "select 'series ' || i.series || ' ' || i.year || ' of ' || i.tenant_id from identity.invoices i
              join identity.invoice_counters c using (tenant_id, series, year)
              where i.number is not null group by i.tenant_id, i.series, i.year, c.next
              having count(*) <> max(i.number) or c.next <> max(i.number) + 1",
    },
    Invariant {
        number: 9,
        rule: "a coupon was redeemed as often as it says, and a gift given",
        sql: "select 'coupon ' || c.id from identity.coupons c
              where c.redeemed <> (select count(*) from identity.coupon_redemptions where coupon_id = c.id)
              union all select 'gift ' || g.id from identity.gift_catalog g
              where g.redeemed <> (select count(*) from identity.earned_gifts where gift_id = g.id and state = 'claimed')",
    },
    Invariant {
        number: 10,
        rule: "a quota counts the files that are there and the room that is reserved",
        sql: "select 'quota ' || q.id || ': ' || q.used_bytes || ' B in ' || q.used_files || ', by its rows ' || f.bytes || ' B in ' || f.files
              from file_mgr.quotas q
              cross join lateral (select coalesce(sum(b.size_bytes), 0) as bytes, count(*) as files
                  from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
                  where f.tenant_id = q.tenant_id and (q.owner_id is null or f.owner_id = q.owner_id) and f.state not in ('purged', 'rejected')) f
              cross join lateral (select coalesce(sum(amount_bytes), 0) as bytes from file_mgr.quota_reservations
                  where quota_id = q.id and state = 'held') r
              where q.used_bytes <> f.bytes or q.used_files <> f.files or q.reserved_bytes <> r.bytes",
    },
    Invariant {
        number: 11,
        rule: "a finished film has every frame once, and its export as many",
        sql: "select 'render ' || j.id || ': ' || j.frame_count || ' frames, ' || m.frames || ' verified, ' || c.frames || ' in chunks'
              from render.render_jobs j
              cross join lateral (select count(*) as frames, min(frame_no) as first, max(frame_no) as last
                  from render.frame_manifests where render_job_id = j.id) m
              cross join lateral (select coalesce(sum(last_frame - first_frame + 1), 0) as frames
                  from render.frame_jobs where render_job_id = j.id and status <> 'superseded') c
              where j.status = 'completed' and (m.frames <> j.frame_count or m.first <> 0 or m.last <> j.frame_count - 1
                  or c.frames <> j.frame_count or j.frames_verified <> j.frame_count
                  or not exists (select from render.exports e where e.render_job_id = j.id and e.frame_count = j.frame_count))",
    },
    Invariant {
        number: 12,
        rule: "content knows how many files use it",
        sql: "select 'blob ' || b.id || ': ' || b.refcount || ', by its files ' || f.uses from file_mgr.blobs b
              cross join lateral (select count(*) as uses from file_mgr.files where blob_id = b.id and state <> 'purged') f
              where b.refcount <> f.uses",
    },
    Invariant {
        number: 13,
        rule: "a scene shows the picture of its newest finished job",
        sql: "select 'scene ' || s.id from content.scenes s
              join lateral (select image_url from render.snapshot_jobs where scene_id = s.id and status = 'done'
                            order by created_at desc limit 1) j on true
              where s.deleted_at is null and s.snapshot_url is distinct from j.image_url
                and (j.image_url ~ '^https?:' or s.snapshot_url is null or s.snapshot_url !~ '^https?:')",
    },
    Invariant {
        number: 19,
        rule: "a run that goes on has a task that makes it go on",
        sql: "select 'run ' || r.id || ' (' || r.kind || ')' from workflow.runs r
              where r.state = 'running' and not exists (select from workflow.tasks t where t.run_id = r.id and t.kind = 'run')",
    },
    Invariant {
        number: 23,
        rule: "the audit log is unbroken",
        sql: "select 'entry ' || seq || ' of ' || tenant_id from (
                  select l.*, identity.audit_hash(coalesce(lag(l.chain_hash) over chain, sha256('')), l) as hash,
                         lag(l.seq) over chain as before, row_number() over chain as n from identity.audit_log l
                  window chain as (partition by tenant_id order by seq)) l
              -- What is kept may begin later than the chain: its oldest link then has nothing to be held against.
              where (n > 1 or seq = 1) and (hash <> chain_hash or n > 1 and before <> seq - 1)
              union all
              select 'the newest entry of ' || h.tenant_id from identity.audit_heads h
              where exists (select from identity.audit_log where tenant_id = h.tenant_id)
                and not exists (select from identity.audit_log l where l.tenant_id = h.tenant_id and l.seq = h.seq and l.chain_hash = h.chain_hash)",
    },
    Invariant {
        number: 24,
        rule: "there is a month for now and for each of the next three",
        sql: "select s.name || ' has no month of ' || to_char(m, 'YYYY-MM') from platform.time_series s
              cross join generate_series(date_trunc('month', workflow.now() at time zone 'UTC'),
                  date_trunc('month', workflow.now() at time zone 'UTC') + interval '3 months', '1 month') m
              where not exists (select from pg_inherits i where i.inhparent = s.name::regclass
                  and i.inhrelid = to_regclass(platform.month_table(s.name, m::date))
                  and pg_get_expr((select relpartbound from pg_class where oid = i.inhrelid), i.inhrelid)
                      like '%(''' || to_char(m, 'YYYY-MM-DD') || ' 00:00:00+00'')%')",
    },
];

/// No picture is kept in a row where real ones are made: those are the mock's. No event is told without TLS.
const NO_MOCKS: Invariant = Invariant {
    number: 13,
    rule: "no picture of the mock and no webhook without TLS is left in production",
    sql: "select 'scene ' || id from content.scenes where snapshot_url like 'data:%'
          union all select 'snapshot ' || id from render.snapshots where public_url like 'data:%'
          union all select 'webhook ' || id from identity.tenant_webhooks where url not like 'https:%'",
};

/// Looks at every rule and gives the rows that break one; `production` also forbids what only development may have.
///
/// # Errors
/// The database cannot be reached, or has no tables.
pub async fn check(pool: &PgPool, production: bool) -> sqlx::Result<Vec<Breach>> {
    let mut tx = Scope::platform(Role::Admin).begin(pool).await?;
    let terms = "set transaction isolation level repeatable read, read only; set local statement_timeout = 0; set local timezone = 'UTC'";
    sqlx::raw_sql(terms).execute(&mut *tx).await?;
    let mut breaches = vec![];
    for invariant in INVARIANTS.iter().chain(production.then_some(&NO_MOCKS)) {
        breaches.extend(find(&mut tx, invariant.number, invariant.rule, invariant.sql).await?);
    }
    for (number, rule, sql) in references(&mut tx).await? {
        breaches.extend(find(&mut tx, number, &rule, &sql).await?);
    }
    Ok(breaches)
}

async fn find(tx: &mut Scoped, number: u8, rule: &str, sql: &str) -> sqlx::Result<Vec<Breach>> {
    let limited = format!("select * from ({sql}) broken (row) limit {SHOWN}");
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(limited)).fetch_all(&mut **tx).await?;
    Ok(rows.into_iter().map(|row| Breach { invariant: number, rule: rule.to_owned(), row }).collect())
}

/// Rules of references, made from the catalogue: what a documented reference names is there (18) and is of the same
/// tenant (17), or of the default one, which shares with all. Rows of the last hour may still be waiting for theirs, and
/// logs outlive what they name.
async fn references(tx: &mut Scoped) -> sqlx::Result<Vec<(u8, String, String)>> {
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
    .fetch_all(&mut **tx)
    .await?;
    Ok(made.into_iter().map(|r| (r.number.unsigned_abs() as u8, r.rule, r.sql)).collect())
}
