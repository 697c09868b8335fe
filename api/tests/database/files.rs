//! The files: their names, and that every way of applying them ends in the same place.

use super::{rows, run};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{collections::BTreeSet, path::PathBuf, process::Command};

/// The same files as `flatrender migrate` applies.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

pub async fn migrate(db: &PgPool) {
    MIGRATIONS.run(&mut db.acquire().await.unwrap()).await.unwrap();
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

fn names() -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn s014_s015_the_files_have_their_names() {
    let ours: BTreeSet<String> = names();
    let given = [
        "00_setup",
        "01_identity_tenants",
        "02_identity_users",
        "03_identity_billing",
        "04_identity_gamification",
        "05_content_taxonomy",
        "06_content_projects",
        "07_content_scenes",
        "08_content_characters_presets",
        "09_content_cms",
        "10_studio_saved_projects",
        "11_render_nodes",
        "12_render_jobs",
        "13_file_manager",
        "14_notification",
        "30_render_snapshot_jobs",
    ];
    for name in given {
        assert!(ours.contains(&format!("{name}.sql")), "{name}");
    }
    for name in &ours {
        let number: u32 = name[..2].parse().unwrap();
        assert!(name.ends_with(".sql") && !(15..=29).contains(&number), "{name}");
        assert!(number > 30 || given.contains(&name.trim_end_matches(".sql")), "{name}");
    }
}

/// A name for more than a test's own database, short enough to be added to.
pub async fn unique(db: &PgPool) -> String {
    sqlx::query_scalar("select 'fr_test_' || left(md5(current_database()), 20)").fetch_one(db).await.unwrap()
}

/// Databases made for a test, dropped at its end by [`Databases::drop_all`].
pub struct Databases<'a>(pub &'a PgPool, pub Vec<String>);

impl Databases<'_> {
    pub async fn create(&mut self, suffix: &str, more: &str) -> PgConnectOptions {
        let name = format!("{}_{suffix}", unique(self.0).await);
        run(&mut self.0.acquire().await.unwrap(), &format!("create database {name} template template0 {more}")).await;
        self.1.push(name.clone());
        (*self.0.connect_options()).clone().database(&name)
    }

    pub async fn drop_all(self) {
        for name in self.1 {
            run(&mut self.0.acquire().await.unwrap(), &format!("drop database {name} with (force)")).await;
        }
    }
}

pub async fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap()
}

/// A client program of PostgreSQL, told where the server of the tests is.
fn client(program: &str, database: &str) -> Command {
    let url = std::env::var("DATABASE_URL").unwrap();
    let (server, _) = url.rsplit_once('/').unwrap();
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin").join(program));
    let found = newest.filter(|p| p.is_file()).max();
    let mut command = Command::new(found.unwrap_or_else(|| program.into()));
    command.args(["-d", &format!("{server}/{database}")]);
    command
}

/// What `pg_dump -s` says of a database, without sqlx' own table and the tokens of newer versions.
fn dump(database: &str) -> String {
    let out = client("pg_dump", database).args(["-s", "-T", "public._sqlx_migrations"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[sqlx::test(migrations = false)]
async fn s016_s017_psql_and_the_program_make_the_same(db: PgPool) {
    let mut databases = Databases(&db, vec![]);
    let by_psql = databases.create("psql", "").await;
    let by_program = databases.create("program", "").await;
    let database = |o: &PgConnectOptions| o.get_database().unwrap().to_owned();
    for name in names() {
        let out = client("psql", &database(&by_psql))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f"])
            .arg(folder().join(&name))
            .output()
            .unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(
            !String::from_utf8_lossy(&out.stderr).contains("WARNING"),
            "{name}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let program = pool(by_program.clone()).await;
    migrate(&program).await;
    let first = dump(&database(&by_program));
    assert_eq!(dump(&database(&by_psql)), first);
    migrate(&program).await;
    assert_eq!(dump(&database(&by_program)), first, "twice changes nothing");
    program.close().await;
    databases.drop_all().await;
}

/// Nothing knows how the database is called, and a name may be one that has to be quoted.
#[sqlx::test(migrations = false)]
async fn s018_the_database_may_have_any_name(db: PgPool) {
    let name = format!("{} of: Ünal", unique(&db).await);
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, &format!("create database \"{name}\" template template0")).await;
    let url = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{}", url.rsplit_once('/').unwrap().0, name.replace(' ', "%20").replace('Ü', "%C3%9C"));
    for command in ["migrate", "check"] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flatrender"));
        let out = program.arg(command).env("DATABASE_URL", &url).output().unwrap();
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    }
    run(&mut connection, &format!("drop database \"{name}\" with (force)")).await;
    for file in names() {
        let text = std::fs::read_to_string(folder().join(&file)).unwrap();
        let named = text.lines().find(|line| !line.trim_start().starts_with("--") && line.contains("flatrender"));
        assert_eq!(named, None, "{file}");
    }
}

/// Statements of a file that hold a table for as long as it is large, or write all of it anew, without saying so: a table that
/// the file makes is empty, and of any other a line `-- locks:` right before tells why that is no harm.
fn silent_locks(sql: &str) -> Vec<String> {
    // Of comments only the notes are left: a semicolon in any other ends nothing.
    let kept = |line: &&str| !line.trim_start().starts_with("--") || line.trim_start().starts_with("-- locks:");
    let lower = sql.lines().filter(kept).collect::<Vec<_>>().join("\n").to_lowercase();
    let name_after = |text: &str, word: &str| -> Option<String> {
        let rest = &text[text.find(word)? + word.len()..];
        let rest = rest.trim_start().trim_start_matches("if not exists ").trim_start_matches("only ");
        Some(rest.chars().take_while(|c| c.is_alphanumeric() || "_.".contains(*c)).collect())
    };
    let (mut made, mut found, mut noted) = (BTreeSet::new(), vec![], false);
    for statement in lower.split(';') {
        let code: Vec<&str> = statement.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
        let code = code.join(" ").trim().to_owned();
        let says_so = statement.lines().any(|line| line.trim_start().starts_with("-- locks:"));
        let table = if code.starts_with("create table") || code.starts_with("create unlogged table") {
            made.extend(name_after(&code, "table "));
            noted = false;
            continue;
        } else if code.starts_with("alter table") {
            let heavy = [
                "type ",
                "add column",
                "add constraint",
                "set not null",
                "set logged",
                "set unlogged",
                "set tablespace",
                "access method",
            ];
            heavy.iter().any(|word| code.contains(word)).then(|| name_after(&code, "alter table ")).flatten()
        } else if code.starts_with("create index") || code.starts_with("create unique index") {
            (!code.contains("concurrently")).then(|| name_after(&code, " on ")).flatten()
        } else if code.starts_with("vacuum full") || code.starts_with("cluster") {
            Some(code.clone())
        } else {
            None
        };
        // A note is about the statements on the same table that follow it.
        noted = table.is_some() && (says_so || noted);
        found.extend(table.filter(|table| !made.contains(table) && !noted));
    }
    found
}

#[test]
fn s020_no_later_file_holds_a_table_without_saying_so() {
    let bad = [
        "alter table a.b alter column c type bigint;",
        "alter table a.b add column c text not null default gen_random_uuid();",
        "create index x on a.b (c);",
        "-- locks: nothing\nselect 1; alter table a.b set logged;",
        "vacuum full;",
    ];
    for sql in bad {
        assert_eq!(silent_locks(sql).len(), 1, "{sql}");
    }
    let good = [
        "create table a.b (c int); create index x on a.b (c); alter table a.b add constraint d check (c > 0);",
        "create index concurrently x on a.b (c);",
        "-- locks: a.b, which is small.\nalter table a.b alter column c type bigint; create index x on a.b (c);",
        "alter table a.b enable row level security;",
    ];
    for sql in good {
        assert_eq!(silent_locks(sql), [""; 0], "{sql}");
    }
    for name in names().iter().filter(|name| name[..2].parse::<u32>().unwrap() > 30) {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        assert_eq!(silent_locks(&text), [""; 0], "{name}");
    }
}

/// Whoever migrates waits for nobody for longer than a minute: behind whoever waits, everybody would.
#[sqlx::test(migrations = "../migrations")]
async fn s020_whoever_migrates_waits_a_minute_at_most(db: PgPool) {
    let sql = "select setting from pg_roles r cross join unnest(r.rolconfig) setting where rolname = 'fr_migrator' and setting like 'lock%'";
    assert_eq!(rows(&db, sql).await, ["lock_timeout=60s"]);
}

/// Roles belong to the cluster: databases that are made at the same time, and twice by two, do not trip over them.
#[sqlx::test(migrations = false)]
async fn s019_two_databases_and_two_migrators_at_once(db: PgPool) {
    let mut databases = Databases(&db, vec![]);
    let one = databases.create("one", "").await;
    let two = databases.create("two", "").await;
    let pools = [pool(one.clone()).await, pool(one).await, pool(two.clone()).await, pool(two).await];
    futures::future::join_all(pools.iter().map(migrate)).await;
    for pool in &pools {
        assert_eq!(rows(pool, "select count(*)::text from identity.tenants").await, ["1"]);
        run(&mut pool.acquire().await.unwrap(), include_str!("../../../migrations/00_setup.sql")).await;
        pool.close().await;
    }
    databases.drop_all().await;
}

#[sqlx::test(migrations = false)]
async fn s027_the_owner_is_no_superuser(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let owner = format!("{}_owner", unique(&db).await);
    run(&mut connection, &format!("create role {owner} login createrole password 'p'")).await;
    // The roles are there from other tests, made by somebody else, who makes the owner a member of each.
    migrate(&db).await;
    for role in [
        "identity_svc",
        "content_svc",
        "studio_svc",
        "render_svc",
        "file_svc",
        "notification_svc",
        "workflow_svc",
        "admin_api",
        "readonly",
    ] {
        run(&mut connection, &format!("grant {role} to {owner}")).await;
    }
    let mut databases = Databases(&db, vec![]);
    let options = databases.create("owned", &format!("owner {owner}")).await;
    let owned = pool(options.username(&owner).password("p")).await;
    migrate(&owned).await;
    // The engine is the owner of its tables: what it asks carries no filter.
    let plan = "explain update workflow.tasks set state = 'ready' where id = 1 and lease_token = gen_random_uuid()";
    let plan = rows(&owned, plan).await.join("\n");
    assert!(plan.contains("tasks_pkey") && !plan.contains("tenant") && !plan.contains("app."), "{plan}");
    // Even the owner sees no row of a tenant without saying whose, and takes any role without being one of them.
    assert_eq!(rows(&owned, "select count(*)::text from identity.tenants where not platform.is_wide()").await, ["0"]);
    let scoped = "begin; set local role identity_svc; set local app.platform = 'on'; select 1 / count(*) from identity.tenants; rollback";
    run(&mut owned.acquire().await.unwrap(), scoped).await;
    owned.close().await;
    databases.drop_all().await;
    run(&mut connection, &format!("drop owned by {owner}; drop role {owner}")).await;
}
