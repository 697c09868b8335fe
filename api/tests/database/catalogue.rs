//! Facts of the catalogue that hold for every table.

use super::{assert_none, attempt, rows, run};
use sqlx::PgPool;

/// Tables of the services with their columns; partitions have those of their parent.
const COLUMNS: &str = "pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace::regnamespace::text in $schemas and c.relkind in ('r', 'p') and not c.relispartition";

#[sqlx::test(migrations = "../migrations")]
async fn s013_every_service_has_a_schema(db: PgPool) {
    let found = rows(&db, "select nspname::text from pg_namespace where nspname in $schemas").await;
    assert_eq!(found.len(), 6);
}

#[sqlx::test(migrations = "../migrations")]
async fn s021_every_table_says_what_it_is_for(db: PgPool) {
    let sql = "select oid::regclass::text from pg_class where relkind in ('r', 'p')
        and (relnamespace::regnamespace::text in $schemas or relnamespace = 'platform'::regnamespace)
        and obj_description(oid, 'pg_class') is null";
    assert_none(&rows(&db, sql).await);
}

/// `softref:schema.table(column)`, or `opaque:` when it names no row of ours.
#[sqlx::test(migrations = "../migrations")]
async fn s022_every_reference_is_hard_or_documented(db: PgPool) {
    let sql = format!(
        "select c.oid::regclass || '.' || a.attname from {COLUMNS} and a.attname ~ '_id$'
         and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and a.attnum = any (k.conkey))
         and coalesce(col_description(c.oid, a.attnum), '') !~ '^(softref:[a-z_]+\\.[a-z_]+\\([a-z0-9_]+\\)|opaque: .)'"
    );
    assert_none(&rows(&db, &sql).await);
    // What they name is there, but for what the engine still gets.
    let sql = format!(
        "select c.oid::regclass || '.' || a.attname || ' ' || m[1] from {COLUMNS}
         and col_description(c.oid, a.attnum) ~ '^softref:'"
    );
    let sql = sql.replace(
        "where c.",
        "cross join lateral regexp_match(col_description(c.oid, a.attnum), '^softref:([a-z_]+\\.[a-z_]+)\\(([a-z0-9_]+)\\)') m where c.",
    ) + " and m[1] <> 'workflow.outbox' and not exists (select from pg_attribute t where t.attrelid = to_regclass(m[1]) and t.attname = m[2])";
    assert_none(&rows(&db, &sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn s023_one_foreign_key_crosses_schemas(db: PgPool) {
    let sql = "select c.conrelid::regclass || ' ' || c.confrelid::regclass from pg_constraint c
        join pg_class a on a.oid = c.conrelid join pg_class b on b.oid = c.confrelid
        where c.contype = 'f' and a.relnamespace <> b.relnamespace";
    assert_eq!(rows(&db, sql).await, ["identity.earned_gifts notification.notifications"]);
}

const GIFT: &str = "
    insert into identity.users (id, tenant_id, email) values ('00000000-0000-0000-0000-0000000000aa', '00000000-0000-0000-0000-000000000001', 'a@b.c');
    insert into identity.gift_catalog (id, tenant_id, code, title, kind, value, stock)
    values ('00000000-0000-0000-0000-0000000000bb', '00000000-0000-0000-0000-000000000001', 'g', '{}', 'credits', 1, 1);
    insert into notification.notifications (id, tenant_id, user_id, category, template_code, title, dedupe_key)
    values ('00000000-0000-0000-0000-0000000000cc', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-0000000000aa', 'gift', 'gift', 'Yours', 'k');";
const SERVES: &str = "set app.tenant_id = '00000000-0000-0000-0000-000000000001';";

#[sqlx::test(migrations = "../migrations")]
async fn s024_a_gifts_notification_is_checked_for_either_service(db: PgPool) {
    let mut db = db.acquire().await.unwrap();
    run(&mut db, GIFT).await;
    let gift = |notification: &str| {
        format!(
            "insert into identity.earned_gifts (tenant_id, user_id, gift_id, period_key, reason, notification_id)
             values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-0000000000aa',
                     '00000000-0000-0000-0000-0000000000bb', '2026', 'r', '{notification}')"
        )
    };
    run(&mut db, &format!("{SERVES} set role identity_svc")).await;
    assert_eq!(attempt(&mut db, &gift("00000000-0000-0000-0000-0000000000dd")).await, Err("23503".into()));
    run(&mut db, &gift("00000000-0000-0000-0000-0000000000cc")).await;
    assert_eq!(
        attempt(&mut db, &gift("00000000-0000-0000-0000-0000000000cc")).await,
        Err("23505".into()),
        "once a period"
    );
    run(&mut db, "set role notification_svc").await;
    assert_eq!(attempt(&mut db, "delete from notification.notifications").await, Ok(1));
    run(&mut db, "set role identity_svc").await;
    let left = "select from identity.earned_gifts where notification_id is null";
    assert_eq!(sqlx::query(left).fetch_all(&mut *db).await.unwrap().len(), 1);
}

/// Time series are apart: they outlive what they name.
#[sqlx::test(migrations = "../migrations")]
async fn s025_a_reference_within_a_schema_is_a_foreign_key(db: PgPool) {
    let sql = format!(
        "select c.oid::regclass || '.' || a.attname from {COLUMNS} and c.relkind = 'r'
         and col_description(c.oid, a.attnum) like 'softref:' || c.relnamespace::regnamespace || '.%(id)'"
    );
    assert_none(&rows(&db, &sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn s028_every_foreign_key_has_an_index_and_no_index_is_there_twice(db: PgPool) {
    // Its first column is one of the key's own: the tenant alone would find too much, unless it is all there is.
    let sql = "select k.conrelid::regclass || ' ' || k.conname from pg_constraint k join pg_class c on c.oid = k.conrelid
        where k.contype = 'f' and c.relnamespace::regnamespace::text in $schemas and k.conparentid = 0
        and not exists (
            select from pg_index i where i.indrelid = k.conrelid
            and (i.indkey[0] = k.conkey[cardinality(k.conkey)] or i.indkey[1] = k.conkey[cardinality(k.conkey)] and i.indkey[0] = k.conkey[1]
                 or i.indkey[2] = k.conkey[cardinality(k.conkey)] and c.relkind = 'p' or i.indkey[1] = k.conkey[cardinality(k.conkey)] and c.relkind = 'p'))";
    assert_none(&rows(&db, sql).await);
    let sql = "select a.indexrelid::regclass || ' ' || b.indexrelid::regclass from pg_index a join pg_index b
        on a.indrelid = b.indrelid and a.indexrelid < b.indexrelid and a.indkey::text = b.indkey::text and a.indclass = b.indclass
        and pg_get_expr(a.indpred, a.indrelid) is not distinct from pg_get_expr(b.indpred, b.indrelid)
        and pg_get_expr(a.indexprs, a.indrelid) is not distinct from pg_get_expr(b.indexprs, b.indrelid)
        join pg_class c on c.oid = a.indrelid join pg_class ia on ia.oid = a.indexrelid join pg_class ib on ib.oid = b.indexrelid and ia.relam = ib.relam
        where c.relnamespace::regnamespace::text in $schemas";
    assert_none(&rows(&db, sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn s029_every_time_knows_its_zone(db: PgPool) {
    let sql = format!(
        "select c.oid::regclass || '.' || a.attname from {COLUMNS}
        and (a.atttypid = 'timestamp'::regtype or a.attname ~ '_at$' and a.atttypid <> 'timestamptz'::regtype)"
    );
    assert_none(&rows(&db, &sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn s030_money_is_a_whole_number_with_a_currency(db: PgPool) {
    let sql = format!(
        "select c.oid::regclass || '.' || a.attname from {COLUMNS}
        and (a.attname ~ '(^|_)(amount|price)$' and a.atttypid <> 'bigint'::regtype or a.atttypid = 'money'::regtype)"
    );
    assert_none(&rows(&db, &sql).await);
    let sql = "select c.oid::regclass::text from pg_class c where c.relnamespace = 'identity'::regnamespace and c.relkind = 'r'
        and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'amount')
        and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'currency') order by 1";
    // Credits are counted in seconds of film, and a refund is in the currency of its payment.
    assert_eq!(rows(&db, sql).await, ["identity.credit_holds", "identity.refunds"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn s036_every_tenants_row_leads_to_a_tenant(db: PgPool) {
    let sql = format!("select c.oid::regclass::text from {COLUMNS} and a.attname = 'tenant_id'
        and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and a.attnum = any (k.conkey))
        and coalesce(col_description(c.oid, a.attnum), '') <> 'softref:identity.tenants(id)'");
    assert_none(&rows(&db, &sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn s037_the_default_tenant_stays(db: PgPool) {
    let id = "00000000-0000-0000-0000-000000000001";
    assert_eq!(rows(&db, "select id::text from identity.tenants").await, [id]);
    let mut db = db.acquire().await.unwrap();
    for harm in [
        format!("delete from identity.tenants where id = '{id}'"),
        format!("update identity.tenants set id = gen_random_uuid() where id = '{id}'"),
        format!("update identity.tenants set status = 'closed', closed_at = now() where id = '{id}'"),
        "truncate identity.tenants cascade".to_owned(),
    ] {
        assert_eq!(attempt(&mut db, &harm).await, Err("23001".into()), "{harm}");
    }
    assert_eq!(attempt(&mut db, &format!("update identity.tenants set name = 'Ours' where id = '{id}'")).await, Ok(1));
}

#[sqlx::test(migrations = "../migrations")]
async fn s038_nobody_forgets_a_rows_tenant(db: PgPool) {
    let carries =
        "('identity.users', 'content.projects', 'render.render_jobs', 'file_mgr.files', 'notification.notifications')";
    let sql = format!(
        "select c.oid::regclass::text from {COLUMNS} and a.attname = 'tenant_id' and a.attnotnull
        and c.oid::regclass::text in {carries}"
    );
    assert_eq!(rows(&db, &sql).await.len(), 5);
    // No default, and null only where it means all tenants.
    let sql = format!(
        "select c.oid::regclass::text from {COLUMNS} and a.attname = 'tenant_id' and (a.atthasdef or not a.attnotnull)
        order by 1"
    );
    assert_eq!(rows(&db, &sql).await, ["render.node_crashes", "render.nodes"]);
}

/// No text and no JSON grows without a bound.
#[sqlx::test(migrations = "../migrations")]
async fn every_text_has_a_limit(db: PgPool) {
    let sql = format!(
        "select c.oid::regclass || '.' || a.attname from {COLUMNS}
         and a.atttypid in ('text'::regtype, 'jsonb'::regtype, 'bytea'::regtype, 'text[]'::regtype) and a.attgenerated = ''
         and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'c' and a.attnum = any (k.conkey))
         and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and k.conkey = array[a.attnum])"
    );
    assert_none(&rows(&db, &sql).await);
}

/// What only grows refuses every change, whoever asks.
#[sqlx::test(migrations = "../migrations")]
async fn append_only_tables_refuse_even_their_owner(db: PgPool) {
    let sql = "select c.oid::regclass::text from pg_class c join pg_trigger t on t.tgrelid = c.oid and t.tgname ~ '_append_only$'
        where c.relnamespace::regnamespace::text in $schemas and c.relkind = 'r' and not c.relispartition
        and not exists (select from pg_trigger x where x.tgrelid = c.oid and x.tgname ~ '_no_truncate$')";
    assert_none(&rows(&db, sql).await);
    let mut db = db.acquire().await.unwrap();
    run(&mut db, "insert into identity.users (id, tenant_id, email) values ('00000000-0000-0000-0000-0000000000aa', '00000000-0000-0000-0000-000000000001', 'a@b.c');
        insert into identity.points_ledger (tenant_id, user_id, points, source_type, source_id)
        values ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-0000000000aa', 5, 'film', gen_random_uuid())").await;
    for harm in [
        "update identity.points_ledger set points = 6",
        "delete from identity.points_ledger",
        "truncate identity.points_ledger",
    ] {
        assert_eq!(attempt(&mut db, harm).await, Err("23001".into()), "{harm}");
    }
}

/// One thousand invoices at once: no number is missing, none is given twice, and none changes afterwards.
#[sqlx::test(migrations = "../migrations")]
async fn s053_invoices_are_numbered_without_gaps(db: PgPool) {
    const DRAFTS: &str = "insert into identity.invoices (tenant_id, series, year, buyer, currency, net_amount, tax_amount, total_amount)
        select '00000000-0000-0000-0000-000000000001', 'A', 2026, '{}', 'IRR', 100, 9, 109 from generate_series(1, 1000)";
    run(&mut db.acquire().await.unwrap(), DRAFTS).await;
    let drafts = rows(&db, "select id::text from identity.invoices").await;
    let issue = drafts.chunks(125).map(|some| {
        let db = db.clone();
        async move {
            let mut db = db.acquire().await.unwrap();
            for (n, id) in some.iter().enumerate() {
                let end = if n % 10 == 3 { "rollback" } else { "commit" };
                let sql = format!("begin; select identity.issue_invoice('{id}', '2026-06-11'); {end}");
                run(&mut db, &sql).await;
            }
        }
    });
    futures::future::join_all(issue).await;
    let sql = "select (count(number) = max(number) and count(distinct number) = count(number))::text from identity.invoices where state = 'issued'";
    assert_eq!(rows(&db, sql).await, ["true"]);
    let harm = "update identity.invoices set total_amount = 0, net_amount = -9 where state = 'issued'";
    assert_eq!(attempt(&mut db.acquire().await.unwrap(), harm).await, Err("23001".into()));
}

#[sqlx::test(migrations = "../migrations")]
async fn s067_s068_a_saved_project_has_a_voice_and_volumes(db: PgPool) {
    let sql = "select attname::text from pg_attribute where attrelid = 'studio.saved_projects'::regclass and attname like 'voiceover_%'";
    assert!(rows(&db, sql).await.len() >= 4);
    let sql = "select attname::text from pg_attribute where attrelid = 'studio.saved_projects'::regclass and attname like '%_volume' and attnotnull";
    assert_eq!(rows(&db, sql).await.len(), 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn s077_a_snapshot_job_has_four_states_and_a_picture_when_done(db: PgPool) {
    let sql = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'snapshot_jobs_status'";
    let states = rows(&db, sql).await.pop().unwrap();
    for state in ["queued", "running", "done", "error"] {
        assert!(states.contains(&format!("'{state}'")), "{states}");
    }
    assert_eq!(states.matches("::text").count() - states.matches("status::text").count(), 4, "{states}");
    let mut db = db.acquire().await.unwrap();
    let job = |status: &str, url: &str| {
        format!(
            "insert into render.snapshot_jobs (tenant_id, project_id, project_version_id, scene_id, scene_key, status, image_url, workflow_run_id, finished_at)
             values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '00000000-0000-0000-0000-0000000000aa', 'intro', '{status}', {url},
                     gen_random_uuid(), case '{status}' when 'done' then now() end)"
        )
    };
    assert_eq!(attempt(&mut db, &job("done", "null")).await, Err("23514".into()));
    assert_eq!(attempt(&mut db, &job("queued", "'https://a.b/c'")).await, Err("23514".into()));
    run(&mut db, &job("done", "'https://a.b/c'")).await;
    run(&mut db, &job("queued", "null")).await;
    assert_eq!(attempt(&mut db, &job("queued", "null")).await, Err("23505".into()), "one of a scene lives");
}
