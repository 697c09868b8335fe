//! Who may do what.

use super::{
    assert_none, attempt,
    files::{Databases, migrate, pool},
    rows, run,
};
use flatrender_workflows::models::{Database, Role, Scope};
use sqlx::PgPool;

/// The services and the schemas that are theirs.
const SERVICES: [(&str, &str); 7] = [
    ("identity_svc", "identity"),
    ("content_svc", "content"),
    ("studio_svc", "studio"),
    ("render_svc", "render"),
    ("file_svc", "file_mgr"),
    ("notification_svc", "notification"),
    ("workflow_svc", "workflow"),
];

/// Every role against every table that is not its own, by really trying.
#[sqlx::test(migrations = "../migrations")]
async fn s031_no_service_touches_a_table_of_another(db: PgPool) {
    let tables = rows(&db, "select oid::regclass::text from pg_class where relkind in ('r', 'p') and oid <> 'workflow.clock'::regclass
        and (relnamespace::regnamespace::text in $schemas or relnamespace::regnamespace::text in ('workflow', 'platform'))").await;
    let mut db = db.acquire().await.unwrap();
    run(&mut db, "set app.platform = 'on'").await;
    let mut tried = 0;
    for (role, schema) in SERVICES {
        run(&mut db, &format!("set role {role}")).await;
        for table in tables.iter().filter(|t| !t.starts_with(&format!("{schema}."))) {
            for harm in [
                format!("select from {table}"),
                format!("insert into {table} default values"),
                format!("delete from {table}"),
                format!("truncate {table}"),
            ] {
                assert_eq!(attempt(&mut db, &harm).await, Err("42501".into()), "{role}: {harm}");
                tried += 1;
            }
        }
        run(&mut db, "reset role").await;
    }
    assert!(tried > 4000, "{tried}");
}

/// Nobody but the owner makes anything, anywhere.
/// On a database that was migrated where it is: what is granted on a database itself does not go along with copies of it.
#[sqlx::test(migrations = false)]
async fn s032_no_service_makes_tables(db: PgPool) {
    let mut databases = Databases(&db, vec![]);
    let fresh = pool(databases.create("fresh", "").await).await;
    migrate(&fresh).await;
    let mut connection = fresh.acquire().await.unwrap();
    for (role, schema) in SERVICES {
        run(&mut connection, &format!("set role {role}")).await;
        for place in [schema, "public", "platform", "workflow", "pg_temp"] {
            let harm = format!("create table {place}.mine (n int)");
            assert_eq!(attempt(&mut connection, &harm).await, Err("42501".into()), "{role}: {harm}");
        }
        run(&mut connection, "reset role").await;
    }
    drop(connection);
    let sql = "select rolname::text from pg_roles where rolname in ('identity_svc', 'content_svc', 'studio_svc', 'render_svc', 'file_svc',
        'notification_svc', 'workflow_svc', 'admin_api', 'readonly') and (rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication)";
    assert_none(&rows(&fresh, sql).await);
    fresh.close().await;
    databases.drop_all().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn s033_one_function_writes_across_schemas(db: PgPool) {
    // Functions that run with the owner's rights, and who besides the owner may call them.
    let sql = "select p.oid::regprocedure || ' ' || string_agg(r.rolname, ' ' order by r.rolname) from pg_proc p, aclexplode(p.proacl) a
        join pg_roles r on r.oid = a.grantee where p.prosecdef and a.grantee <> p.proowner group by p.oid order by 1";
    let sql = format!("select replace(x, 'timestamp with time zone', 'timestamptz') from ({sql}) f (x) order by 1");
    let allowed = [
        "content.set_scene_snapshot(uuid,uuid,text,text,timestamptz) render_svc",
        "file_mgr.in_use(uuid[]) admin_api file_svc",
        "identity.forget_webhook_events(integer) admin_api",
        "platform.ensure_month(text,timestamptz) admin_api identity_svc notification_svc render_svc",
        "platform.ensure_months(timestamptz,timestamptz) admin_api",
        "platform.faults_of_months(timestamptz) admin_api",
        "platform.note_archive(text,bigint,text,timestamptz) admin_api",
        "platform.retire_months(timestamptz,text) admin_api",
        "workflow.purge_run(uuid) admin_api",
    ];
    assert_eq!(rows(&db, &sql).await, allowed);
    // None of them looks where its caller may put things: what is temporary comes last, where it is said and not first, where it is not.
    let sql = "select oid::regprocedure::text from pg_proc where prosecdef and (proacl is null or not coalesce(proconfig::text, '') like '%search_path=pg_catalog, pg_temp%')";
    assert_none(&rows(&db, sql).await);
}

const SCENE: &str = "
    insert into content.projects (id, tenant_id, slug, kind, title, description)
    values ('00000000-0000-0000-0000-0000000000a1', '00000000-0000-0000-0000-0000000000aa', 'p', 'lottie', '{}', '{}');
    insert into content.project_versions (id, tenant_id, project_id, number, package_sha256, package_bytes, manifest)
    values ('00000000-0000-0000-0000-0000000000a2', '00000000-0000-0000-0000-0000000000aa', '00000000-0000-0000-0000-0000000000a1', 1, repeat('a', 64), 1, '{}');
    insert into content.scenes (id, tenant_id, project_version_id, scene_key, position, title, comp_name, start_frame, frame_count, still_frame)
    values ('00000000-0000-0000-0000-0000000000a3', '00000000-0000-0000-0000-0000000000aa', '00000000-0000-0000-0000-0000000000a2', 'intro', 0, '{}', 'c', 0, 10, 5);";

#[sqlx::test(migrations = "../migrations")]
async fn a_scenes_picture_is_written_by_its_function_only(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, SCENE).await;
    let write = "update content.scenes set snapshot_url = 'https://a.b/c', snapshot_source_hash = repeat('b', 64), snapshot_at = now()";
    let set = |tenant: &str, url: &str, at: &str| {
        format!("do $$ begin if not content.set_scene_snapshot('00000000-0000-0000-0000-0000000000{tenant}',
            '00000000-0000-0000-0000-0000000000a3', '{url}', repeat('b', 64), '{at}') then raise exception 'no' using errcode = 'P0002'; end if; end $$")
    };
    run(&mut connection, "set app.tenant_id = '00000000-0000-0000-0000-0000000000aa'; set role content_svc").await;
    assert_eq!(attempt(&mut connection, write).await, Err("42501".into()));
    assert_eq!(attempt(&mut connection, &set("aa", "https://a.b/c", "2026-06-11Z")).await, Err("42501".into()));
    run(&mut connection, "set role render_svc").await;
    assert_eq!(attempt(&mut connection, write).await, Err("42501".into()));
    run(&mut connection, &set("aa", "data:image/png;base64,AAAA", "2026-06-10Z")).await;
    run(&mut connection, &set("aa", "https://a.b/new", "2026-06-11Z")).await;
    assert_eq!(
        attempt(&mut connection, &set("aa", "https://a.b/late", "2026-06-10Z")).await,
        Err("P0002".into()),
        "a late one"
    );
    assert_eq!(
        attempt(&mut connection, &set("aa", "data:image/png;base64,AAAA", "2026-06-12Z")).await,
        Err("P0002".into()),
        "the mock's"
    );
    assert_eq!(
        attempt(&mut connection, &set("bb", "https://a.b/foreign", "2026-06-12Z")).await,
        Err("P0002".into()),
        "another tenant's"
    );
    run(&mut connection, "reset role").await;
    assert_eq!(rows(&db, "select snapshot_url from content.scenes").await, ["https://a.b/new"]);
}

/// A render node reaches the server over HTTP and the database not at all: no role is its, its program links no SQL (which the
/// script of the tests looks at), and where it is started nothing says where the database is.
#[sqlx::test(migrations = "../migrations")]
async fn s035_a_node_has_no_way_into_the_database(db: PgPool) {
    assert_none(&rows(&db, "select rolname::text from pg_roles where rolname ~ '(^|_)nodes?(_|$)'").await);
    let compose = include_str!("../../../compose.yaml");
    let services: Vec<&str> = compose.split("\n  ").collect();
    let begins = services.iter().position(|line| line.starts_with("node:")).unwrap();
    let node: Vec<&str> = services[begins + 1..].iter().take_while(|line| line.starts_with(' ')).copied().collect();
    let node = node.join("\n");
    // Its own environment takes the place of the one that all others share.
    assert!(node.contains("FLATRENDER_NODE_TOKEN") && node.contains("environment:"), "{node}");
    for word in ["DATABASE_URL", "postgres", "*environment"] {
        assert!(!node.contains(word), "{word}: {node}");
    }
    assert!(compose.contains("environment: &environment\n    DATABASE_URL"), "the others do have it");
    let started = include_str!("../../src/platform/node_process.rs");
    assert!(started.contains(".env_remove(\"DATABASE_URL\")"));
    let script = include_str!("../../../scripts/test.sh");
    assert!(script.contains("-p flatrender-activities -i sqlx"));
}

#[sqlx::test(migrations = "../migrations")]
async fn s034_no_role_waits_or_connects_without_a_bound(db: PgPool) {
    let sql = "select rolname || ' ' || rolconnlimit || ' ' || array_to_string(array(select unnest(rolconfig) order by 1), ' ') from pg_roles
        where rolname in ('render_svc', 'readonly') order by 1";
    let found = rows(&db, sql).await;
    let limits = "idle_in_transaction_session_timeout=60s lock_timeout=2s search_path=pg_catalog statement_timeout=60s";
    assert_eq!(found[0], format!("readonly 10 {limits}"));
    let limits = "idle_in_transaction_session_timeout=60s lock_timeout=5s search_path=pg_catalog statement_timeout=30s";
    assert_eq!(found[1], format!("render_svc 60 {limits}"));
    let sql = "select rolname::text from pg_roles where rolname in ('identity_svc', 'content_svc', 'studio_svc', 'render_svc', 'file_svc',
        'notification_svc', 'workflow_svc', 'admin_api', 'readonly') and (rolconnlimit < 1 or cardinality(rolconfig) < 4)";
    assert_none(&rows(&db, sql).await);
}

#[sqlx::test(migrations = "../migrations")]
async fn no_statement_of_a_request_is_compiled_before_it_runs(db: PgPool) {
    let jit = async |db: &mut sqlx::PgConnection| {
        sqlx::query_scalar::<_, String>("select current_setting('jit')").fetch_one(db).await.unwrap()
    };
    let mut tx = Scope::platform(Role::Identity).begin(&db).await.unwrap();
    assert_eq!(jit(&mut tx).await, "off");
    drop(tx);
    let mut tx = Database::new(db).look(Scope::platform(Role::Render)).await.unwrap();
    assert_eq!(jit(&mut tx).await, "off");
}

/// It reads every table, all tenants, and not one secret.
#[sqlx::test(migrations = "../migrations")]
async fn readonly_reads_everything_but_secrets(db: PgPool) {
    let sql = "select c.oid::regclass || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = c.oid and d.objsubid = a.attnum
        where c.relnamespace::regnamespace::text in $schemas and c.relkind in ('r', 'p') and not c.relispartition
        and has_column_privilege('readonly', c.oid, a.attnum, 'select') = coalesce(d.description like 'secret:%', false)";
    assert_none(&rows(&db, sql).await);
    let sql = "select oid::regclass::text from pg_class where relkind in ('r', 'p') and has_table_privilege('readonly', oid, 'insert, update, delete, truncate')
        and relnamespace::regnamespace::text in $schemas";
    assert_none(&rows(&db, sql).await);
}
