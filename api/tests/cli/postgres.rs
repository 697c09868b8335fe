//! The private PostgreSQL: made, adopted, recovered, stopped. With the real server programs.

use flatrender_api::platform::account::{Account, is_root};
use flatrender_api::platform::postgres::PrivatePostgres;
use flatrender_api::platform::postgres::programs::Programs;
use flatrender_api::platform::process;
use nix::sys::signal::Signal;
use sqlx::{Connection as _, PgConnection, Row as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder the account of the database can reach; none, with a word why, where there are no server programs.
pub fn folder() -> Option<TempDir> {
    let runner = is_root().then(Account::unprivileged).flatten();
    if let Err(e) = Programs::discover(runner.as_ref()) {
        eprintln!("skipped: {e}");
        return None;
    }
    let dir = tempfile::Builder::new().prefix("fr-pg").tempdir().expect("a temporary folder");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("it is ours");
    Some(dir)
}

async fn connect(url: &str) -> sqlx::Result<PgConnection> {
    PgConnection::connect(url).await
}

async fn connect_in_time(url: &str) -> PgConnection {
    let begun = Instant::now();
    loop {
        match connect(url).await {
            Ok(connection) => return connection,
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(60), "no connection: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn postmaster(postgres: &PrivatePostgres) -> i32 {
    let file = postgres.cluster().place.data.join("postmaster.pid");
    std::fs::read_to_string(file).unwrap().lines().next().unwrap().parse().unwrap()
}

/// Processes that work in `data`, as every process of a server does. Known on Linux only.
fn processes_in(data: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(|p| std::fs::read_link(p.join("cwd")).is_ok_and(|cwd| cwd == data)).collect()
}

async fn count(url: &str) -> i64 {
    let mut db = connect_in_time(url).await;
    sqlx::query("select count(*) from kept").fetch_one(&mut db).await.unwrap().get(0)
}

async fn keep_a_row(url: &str) {
    let mut db = connect_in_time(url).await;
    sqlx::raw_sql("create table if not exists kept (at timestamptz default now()); insert into kept default values")
        .execute(&mut db)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cluster_keeps_its_rows_over_a_stop_and_leaves_no_process() {
    let Some(dir) = folder() else { return };
    let postgres = PrivatePostgres::start(dir.path()).await.unwrap();
    keep_a_row(&postgres.database_url()).await;
    let mut db = connect(&postgres.database_url()).await.unwrap();
    let fsync: String = sqlx::query("show fsync").fetch_one(&mut db).await.unwrap().get(0);
    let addresses: String = sqlx::query("show listen_addresses").fetch_one(&mut db).await.unwrap().get(0);
    assert_eq!((fsync.as_str(), addresses.as_str()), ("on", ""));
    let (data, pid) = (postgres.cluster().place.data.clone(), postmaster(&postgres));
    // An open connection does not hold up the stop.
    let begun = Instant::now();
    postgres.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "took {:?}", begun.elapsed());
    assert!(!process::is_alive(pid) && processes_in(&data).is_empty());

    let again = PrivatePostgres::start(dir.path()).await.unwrap();
    assert!(!again.was_adopted());
    assert_eq!(count(&again.database_url()).await, 1);
    again.stop().await;
}

#[tokio::test]
async fn a_server_left_by_a_killed_parent_is_adopted_and_can_be_stopped() {
    let Some(dir) = folder() else { return };
    let first = PrivatePostgres::start(dir.path()).await.unwrap();
    keep_a_row(&first.database_url()).await;
    let (pid, data) = (postmaster(&first), first.cluster().place.data.clone());
    std::mem::forget(first); // What a parent killed with -9 does for its server: nothing.
    let second = PrivatePostgres::start(dir.path()).await.unwrap();
    assert!(second.was_adopted());
    assert_eq!(postmaster(&second), pid);
    assert_eq!(count(&second.database_url()).await, 1);
    second.stop().await;
    assert!(!process::is_alive(pid) && processes_in(&data).is_empty());
}

#[tokio::test]
async fn a_killed_server_is_started_again_with_its_rows() {
    let Some(dir) = folder() else { return };
    let postgres = PrivatePostgres::start(dir.path()).await.unwrap();
    for rows in 1..=3 {
        keep_a_row(&postgres.database_url()).await;
        let pid = postmaster(&postgres);
        process::signal(pid, Signal::SIGKILL);
        while process::is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(count(&postgres.database_url()).await, rows);
        assert_ne!(postmaster(&postgres), pid);
    }
    let data = postgres.cluster().place.data.clone();
    postgres.stop().await;
    assert!(processes_in(&data).is_empty());
}

#[tokio::test]
async fn a_stale_pid_file_and_a_half_made_cluster_are_no_obstacle() {
    let Some(dir) = folder() else { return };
    let half = dir.path().join("postgres/data.new");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::set_permissions(half.parent().unwrap(), std::fs::Permissions::from_mode(0o711)).unwrap();
    std::fs::write(half.join("PG_VERSION"), "15").unwrap();
    let postgres = PrivatePostgres::start(dir.path()).await.unwrap();
    let data = postgres.cluster().place.data.clone();
    postgres.stop().await;
    // A number that is alive, and not a server: this test.
    let me = std::process::id();
    std::fs::write(data.join("postmaster.pid"), format!("{me}\n{}\n", data.display())).unwrap();
    let again = PrivatePostgres::start(dir.path()).await.unwrap();
    assert!(!again.was_adopted());
    again.stop().await;
}

#[tokio::test]
async fn two_clusters_live_side_by_side() {
    let (Some(a), Some(b)) = (folder(), folder()) else { return };
    let (a, b) = tokio::join!(PrivatePostgres::start(a.path()), PrivatePostgres::start(b.path()));
    let (a, b) = (a.unwrap(), b.unwrap());
    keep_a_row(&a.database_url()).await;
    assert!(sqlx::query("select 1 from kept").fetch_one(&mut connect(&b.database_url()).await.unwrap()).await.is_err());
    b.stop().await;
    assert_eq!(count(&a.database_url()).await, 1);
    a.stop().await;
}

#[tokio::test]
async fn a_very_long_folder_gets_a_short_socket() {
    let Some(dir) = folder() else { return };
    let deep = dir.path().join("a-rather-long-name-for-a-folder/".repeat(4));
    std::fs::create_dir_all(&deep).unwrap();
    let postgres = PrivatePostgres::start(&deep).await.unwrap();
    let sockets = postgres.cluster().place.socket_dir.clone();
    assert!(sockets.starts_with("/tmp"));
    assert_eq!(std::fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    connect(&postgres.database_url()).await.unwrap();
    postgres.stop().await;
    assert!(!sockets.exists(), "a stopped server leaves nothing in /tmp");
}

#[tokio::test]
async fn root_runs_it_as_an_account_without_rights_even_for_a_closed_folder() {
    let Some(dir) = folder() else { return };
    if !is_root() {
        eprintln!("skipped: only root has to give up its rights");
        return;
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let postgres = PrivatePostgres::start(dir.path()).await.unwrap();
    let home = postgres.cluster().place.home.clone();
    let owner = std::fs::metadata(format!("/proc/{}", postmaster(&postgres))).map(|m| m.uid());
    assert!(owner.is_ok_and(|uid| uid != 0));
    assert!(home.starts_with("/var/lib/flatrender/clusters"));
    keep_a_row(&postgres.database_url()).await;
    postgres.stop().await;
    assert!(dir.path().join("postgres").is_symlink(), "the folder says where its database is");
    let again = PrivatePostgres::start(dir.path()).await.unwrap();
    assert_eq!(count(&again.database_url()).await, 1);
    again.stop().await;
    std::fs::remove_dir_all(&home).unwrap();
    // What held only this test's cluster goes with it; what holds others stays.
    let _ = home.ancestors().skip(1).take(2).try_for_each(std::fs::remove_dir);
}
