//! Whose rows are seen. The tests make themselves from the catalogue: a table that is added is swept, too.

use super::{assert_none, attempt, rows, run};
use sqlx::PgPool;

const A: &str = "00000000-0000-0000-0000-00000000000a";
const B: &str = "00000000-0000-0000-0000-00000000000b";

#[sqlx::test(migrations = "../migrations")]
async fn s045_every_tenants_table_is_fenced(db: PgPool) {
    let sql = "select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
        where c.relnamespace::regnamespace::text in $schemas and c.relkind in ('r', 'p')
        and not (c.relrowsecurity and c.relforcerowsecurity)";
    assert_none(&rows(&db, sql).await);
    let sql = "select oid::regclass::text from pg_class where oid = 'identity.tenants'::regclass and relrowsecurity and relforcerowsecurity";
    assert_eq!(rows(&db, sql).await.len(), 1);
}

/// The engine owns its tables and works for every tenant at once: the fence binds everybody but it, so none of its statements
/// carries a filter. A piece of a table is no way around, and neither is a view.
#[sqlx::test(migrations = "../migrations")]
async fn s045_the_engines_tables_are_fenced_from_all_but_the_engine(db: PgPool) {
    let sql = "select c.oid::regclass::text from pg_class c where c.relnamespace = 'workflow'::regnamespace and c.relkind in ('r', 'p')
        and not c.relispartition and (c.relforcerowsecurity or not c.relrowsecurity and exists (
            select from pg_attribute a where a.attrelid = c.oid and a.attname in ('tenant_id', 'run_id', 'schedule_id', 'bulk_id')))";
    assert_none(&rows(&db, sql).await);
    let sql = "select c.oid::regclass || ' ' || r.rolname from pg_class c, pg_roles r where c.relnamespace = 'workflow'::regnamespace
        and (c.relispartition or c.relkind = 'v' and c.relname <> 'partitions' and not coalesce(c.reloptions @> '{security_invoker=true}', false))
        and c.relkind in ('r', 'p', 'v') and has_table_privilege(r.oid, c.oid, 'select, insert, update, delete')
        and r.rolname in ('identity_svc', 'content_svc', 'studio_svc', 'render_svc', 'file_svc', 'notification_svc', 'workflow_svc', 'admin_api', 'readonly')";
    assert_none(&rows(&db, sql).await);
    // A piece that the engine makes later is closed by itself.
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, "do $$ begin perform workflow.make_partition('runs', '2031-01-01Z', '2031-02-01Z'); end $$")
        .await;
    assert_none(&rows(&db, &sql.replace("select c.oid", "select distinct c.oid")).await);
    run(&mut connection, "set app.platform = 'on'; set role workflow_svc").await;
    assert_eq!(attempt(&mut connection, "select from workflow.runs_2031_01_01").await, Err("42501".into()));
}

/// What tells of a tenant's runs without naming a tenant follows them; what operators do is for nobody else.
#[sqlx::test(migrations = "../migrations")]
async fn what_goes_with_a_run_is_seen_with_it(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, &format!("set session_replication_role = replica;
        insert into workflow.runs (id, tenant_id, kind, version, input, created_at) values ('{A}', '{A}', 'clean', 1, '{{}}', now());
        insert into workflow.run_lineage select '{A}', '{A}', '{A}', 'retry', null, 0, false, now();
        insert into workflow.errands values ('{A}', 'cancel');
        insert into workflow.throttles values ('{A}:mail', '{{}}', now());
        insert into workflow.schedules (id, tenant_id, name, cron, time_zone, kind, version, input, catch_up, catch_up_seconds, overlap,
            created_at, updated_at, decided_until)
        values ('{A}', '{A}', 'nightly', '0 3 * * *', 'UTC', 'clean', 1, '{{}}', 'all', 600, 'allow', now(), now(), now());
        insert into workflow.schedule_fires (schedule_id, nominal_at, revision, decision, run_id, decided_at) values ('{A}', now(), 1, 'started', '{A}', now());
        insert into workflow.bulk_operations (id, actor, action, filter, reason, state, total, created_at) values ('{A}', 'me', 'retry', '{{}}', 'why', 'running', 1, now());
        insert into workflow.bulk_items (bulk_id, n, run_id) values ('{A}', 1, '{A}');
        insert into workflow.audit (at, actor, action, target) values (now(), 'me', 'retry', 'everything');
        insert into workflow.run_counts values ('clean', '{A}', 'running', 1)")).await;
    let follow = ["runs", "run_lineage", "errands", "throttles", "schedules", "schedule_fires", "run_totals"];
    let operators = ["bulk_operations", "bulk_items", "audit"];
    for (who, role, of_runs, of_operators) in [
        (format!("set app.tenant_id = '{A}'; set app.platform = 'off'"), "workflow_svc", 1, 0),
        (format!("set app.tenant_id = '{B}'; set app.platform = 'off'"), "workflow_svc", 0, 0),
        ("set app.tenant_id = ''; set app.platform = 'off'".into(), "workflow_svc", 0, 0),
        ("set app.tenant_id = ''; set app.platform = 'on'".into(), "workflow_svc", 1, 1),
        ("set app.tenant_id = ''; set app.platform = 'off'".into(), "readonly", 1, 1),
    ] {
        run(&mut connection, &format!("reset role; {who}; set role {role}")).await;
        for (tables, expected) in [(&follow[..], of_runs), (&operators[..], of_operators)] {
            for table in tables {
                let seen = sqlx::query(sqlx::AssertSqlSafe(format!("select from workflow.{table}")))
                    .fetch_all(&mut *connection)
                    .await;
                assert_eq!(seen.unwrap().len(), expected, "{table}: {who} as {role}");
            }
        }
    }
}

/// Between two tables that both have tenants, a reference carries the tenant; one that may lead to what all share says so.
#[sqlx::test(migrations = "../migrations")]
async fn a_reference_cannot_leave_its_tenant(db: PgPool) {
    let sql = "select k.conrelid::regclass || ' ' || k.conname from pg_constraint k
        join pg_attribute a on a.attrelid = k.conrelid and a.attname = 'tenant_id'
        join pg_attribute b on b.attrelid = k.confrelid and b.attname = 'tenant_id'
        where k.contype = 'f' and k.conparentid = 0 and k.connamespace::regnamespace::text in $schemas
        and k.confrelid <> 'render.nodes'::regclass -- a shared node works for every tenant
        and not exists (
            select from unnest(k.conkey, k.confkey) as p (mine, its) where p.its = b.attnum and p.mine = a.attnum)
        order by 1";
    let excused = [
        // What is shared is the default tenant's: the row says whose, and a check says which two are possible.
        "content.project_favourites project_favourites_project_tenant_id_project_id_fkey",
        "content.project_reviews project_reviews_project_tenant_id_project_id_fkey",
        // The one hard reference from schema to schema.
        "identity.earned_gifts earned_gifts_notification",
        // A chain within one session, by hash.
        "identity.refresh_tokens refresh_tokens_parent_hash_fkey",
        // A frame has the tenant of its film, which another reference of the row asks for.
        "render.frame_replacements frame_replacements_render_job_id_frame_no_fkey",
    ];
    assert_eq!(rows(&db, sql).await, excused);
    let mut db = db.acquire().await.unwrap();
    run(&mut db, &format!("insert into file_mgr.folders (id, tenant_id, name) values ('{A}', '{A}', 'mine')")).await;
    let into = |tenant: &str| {
        format!("insert into file_mgr.folders (tenant_id, parent_id, name) values ('{tenant}', '{A}', 'below')")
    };
    assert_eq!(attempt(&mut db, &into(B)).await, Err("23503".into()));
    run(&mut db, &into(A)).await;
}

/// An insert of one row of tenant A with made-up values, for every table that has tenants.
const MADE_UP: &str = "
    select format('insert into %s (%s) values (%s)', c.oid::regclass,
        string_agg(quote_ident(a.attname), ', ' order by a.attnum),
        string_agg(case
            when a.attname = 'tenant_id' or c.oid = 'identity.tenants'::regclass and a.attname = 'id' then quote_literal('$tenant')
            when t.typname = 'uuid' then 'gen_random_uuid()'
            when t.typname in ('text', 'varchar', 'bpchar') then quote_literal(left(md5(random()::text), case t.typname when 'bpchar' then 2 else 10 end))
            when t.typname in ('int2', 'int4', 'int8', 'numeric', 'float4', 'float8') then '1'
            when t.typname = 'timestamptz' then quote_literal('2026-01-02 00:00:00+00')
            when t.typname = 'date' then quote_literal('2026-01-02')
            when t.typname = 'time' then quote_literal('10:00')
            when t.typname = 'interval' then quote_literal('1 day')
            when t.typname = 'bool' then 'true'
            when t.typname = 'jsonb' then quote_literal('{}')
            when t.typname = 'bytea' then 'sha256(gen_random_uuid()::text::bytea)'
            when t.typname = 'inet' then quote_literal('10.0.0.1')
            when t.typname = 'int4multirange' then quote_literal('{[0,2)}')
            else quote_literal('{}') end, ', ' order by a.attnum))
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity = ''
    join pg_type d on d.oid = a.atttypid join pg_type t on t.oid = coalesce(nullif(d.typbasetype, 0), d.oid)
    where (c.relnamespace::regnamespace::text in $schemas or c.relnamespace = 'workflow'::regnamespace)
    and c.relkind in ('r', 'p') and not c.relispartition
    and (c.oid = 'identity.tenants'::regclass or exists (select from pg_attribute x where x.attrelid = c.oid and x.attname = 'tenant_id'))
    group by c.oid order by c.oid::regclass::text";

/// As tenant B, and as nobody, no service sees, changes or adds a row of A in any table.
#[sqlx::test(migrations = "../migrations")]
async fn no_service_sees_a_row_of_another_tenant(db: PgPool) {
    let checks = rows(
        &db,
        "select format('alter table %s drop constraint %I', conrelid::regclass, conname) from pg_constraint k
        join pg_class c on c.oid = k.conrelid where contype = 'c' and k.coninhcount = 0
        and (c.relnamespace::regnamespace::text in $schemas or c.relnamespace = 'workflow'::regnamespace)
        union all select format('alter domain %s drop constraint %I', contypid::regtype, conname) from pg_constraint
        where contypid <> 0 and connamespace = 'workflow'::regnamespace",
    )
    .await;
    let inserts = rows(&db, &MADE_UP.replace("$tenant", A)).await;
    let mut connection = db.acquire().await.unwrap();
    // Only the fence is looked at: values need no sense, and nothing they refer to exists.
    run(&mut connection, &checks.join(";")).await;
    run(&mut connection, "set session_replication_role = replica").await;
    for insert in &inserts {
        run(&mut connection, insert).await;
    }
    let mut swept = 0;
    for role in
        ["identity_svc", "content_svc", "studio_svc", "render_svc", "file_svc", "notification_svc", "workflow_svc"]
    {
        for tenant in [B, ""] {
            run(&mut connection, &format!("reset role; set app.tenant_id = '{tenant}'; set role {role}")).await;
            for insert in &inserts {
                let table = insert.split(' ').nth(2).unwrap();
                match sqlx::query(sqlx::AssertSqlSafe(format!("select from {table}"))).fetch_all(&mut *connection).await
                {
                    Ok(seen) => assert_eq!(seen.len(), 0, "{role} as {tenant:?} sees {table}"),
                    Err(error) => {
                        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{table}: {error}")
                    }
                }
                for change in [format!("delete from {table}"), format!("update {table} set tenant_id = tenant_id")] {
                    let done = attempt(&mut connection, &change).await;
                    assert!(
                        matches!(done.as_ref().map_err(String::as_str), Ok(0) | Err("42501" | "42703")),
                        "{role}: {change}: {done:?}"
                    );
                }
                assert_eq!(
                    attempt(&mut connection, insert).await,
                    Err("42501".into()),
                    "{role} as {tenant:?}: {insert}"
                );
                swept += 1;
            }
        }
    }
    assert!(swept > 1000, "{swept}");
    // The same rows are there for A and for the platform: the sweep looked at something.
    run(&mut connection, &format!("reset role; set app.tenant_id = '{A}'; set role file_svc")).await;
    assert_eq!(sqlx::query("select from file_mgr.files").fetch_all(&mut *connection).await.unwrap().len(), 1);
    run(&mut connection, "reset role; set role workflow_svc").await;
    assert_eq!(sqlx::query("select from workflow.steps").fetch_all(&mut *connection).await.unwrap().len(), 1);
    run(&mut connection, "reset role; set app.tenant_id = ''; set app.platform = 'on'; set role file_svc").await;
    assert_eq!(sqlx::query("select from file_mgr.files").fetch_all(&mut *connection).await.unwrap().len(), 1);
}
