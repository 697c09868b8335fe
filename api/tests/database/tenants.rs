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
    join pg_type t on t.oid = a.atttypid
    where c.relnamespace::regnamespace::text in $schemas and c.relkind in ('r', 'p') and not c.relispartition
    and (c.oid = 'identity.tenants'::regclass or exists (select from pg_attribute x where x.attrelid = c.oid and x.attname = 'tenant_id'))
    group by c.oid order by c.oid::regclass::text";

/// As tenant B, and as nobody, no service sees, changes or adds a row of A in any table.
#[sqlx::test(migrations = "../migrations")]
async fn no_service_sees_a_row_of_another_tenant(db: PgPool) {
    let checks = rows(&db, "select format('alter table %s drop constraint %I', conrelid::regclass, conname) from pg_constraint k
        join pg_class c on c.oid = k.conrelid where contype = 'c' and c.relnamespace::regnamespace::text in $schemas and k.coninhcount = 0").await;
    let inserts = rows(&db, &MADE_UP.replace("$tenant", A)).await;
    let mut connection = db.acquire().await.unwrap();
    // Only the fence is looked at: values need no sense, and nothing they refer to exists.
    run(&mut connection, &checks.join(";")).await;
    run(&mut connection, "set session_replication_role = replica").await;
    for insert in &inserts {
        run(&mut connection, insert).await;
    }
    let mut swept = 0;
    for role in ["identity_svc", "content_svc", "studio_svc", "render_svc", "file_svc", "notification_svc"] {
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
    run(&mut connection, "reset role; set app.tenant_id = ''; set app.platform = 'on'; set role file_svc").await;
    assert_eq!(sqlx::query("select from file_mgr.files").fetch_all(&mut *connection).await.unwrap().len(), 1);
}
