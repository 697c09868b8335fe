//! What may be kept: counted by the database itself, in every transaction that adds, removes or sets room aside.

use super::{attempt, rows, run};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    file_mgr::quota::{self, Limits},
    invariants,
};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

const CLIENTS: usize = 64;
const ROUNDS: usize = 1000;
/// Bytes that each reserves, and how often that fits.
const BYTES: i64 = 7;
const FITS: i64 = 5;

fn scope() -> Scope {
    Scope::tenant(Role::File, DEFAULT_TENANT)
}

async fn agree(db: &PgPool, owner: Option<Uuid>, bytes: i64) {
    let mut tx = scope().begin(db).await.unwrap();
    quota::agree(&mut tx, DEFAULT_TENANT, owner, Limits { bytes: Some(bytes), ..Limits::default() }).await.unwrap();
    tx.commit().await.unwrap();
}

async fn person(db: &PgPool, n: u128) -> Uuid {
    let id = Uuid::from_u128(n);
    let sql =
        format!("insert into identity.users (id, tenant_id, email) values ('{id}', '{DEFAULT_TENANT}', '{n}@a.b')");
    run(&mut db.acquire().await.unwrap(), &sql).await;
    id
}

/// A file of so many bytes whose content is `of`.
fn upload(of: char, bytes: i64, owner: &str, purpose: &str) -> String {
    format!(
        "insert into file_mgr.blobs (tenant_id, sha256, size_bytes) values ('{DEFAULT_TENANT}', repeat('{of}', 64), {bytes}) on conflict do nothing;
         insert into file_mgr.files (tenant_id, blob_id, owner_id, name, purpose, kind, mime_detected)
         select '{DEFAULT_TENANT}', id, {owner}, '{of}', '{purpose}', 'image', 'image/png' from file_mgr.blobs where sha256 = repeat('{of}', 64);"
    )
}

async fn used(db: &PgPool) -> Vec<String> {
    rows(
        db,
        "select concat_ws(' ', used_bytes, reserved_bytes, excess_bytes, used_files) from file_mgr.quotas order by owner_id nulls first",
    )
    .await
}

/// One client: reserves, then uses or gives back what it got, in transactions of their own. Gives how often it got any.
async fn client(db: PgPool, owner: Uuid, n: usize) -> i64 {
    let mut connection = db.acquire().await.unwrap();
    run(
        &mut connection,
        &format!("set role file_svc; set app.tenant_id = '{DEFAULT_TENANT}'; set lock_timeout = '60s'"),
    )
    .await;
    let race = format!(
        "do $$ declare v_id uuid; v_got int := 0; begin
             for round in 1..{ROUNDS} loop
                 v_id := file_mgr.reserve('{DEFAULT_TENANT}', '{owner}', {BYTES}, 'race:{n}:' || round, now() + interval '1 hour');
                 commit;
                 if v_id is not null then
                     v_got := v_got + 1;
                     update file_mgr.quota_reservations set state = case round % 2 when 0 then 'released' else 'used' end where id = v_id;
                     commit;
                 end if;
             end loop;
             perform set_config('race.got', v_got::text, false);
         end $$"
    );
    run(&mut connection, &race).await;
    sqlx::query_scalar("select current_setting('race.got')::bigint").fetch_one(&mut *connection).await.unwrap()
}

/// Looks as often as it can, and keeps the most it has seen.
async fn watch(db: PgPool, done: Arc<AtomicBool>, most: Arc<AtomicI64>, looks: Arc<AtomicI64>) {
    while !done.load(Ordering::Relaxed) {
        let mut tx = scope().begin(&db).await.unwrap();
        let seen = quota::find(&mut tx, DEFAULT_TENANT, None).await.unwrap();
        most.fetch_max(seen.used_bytes + seen.reserved_bytes, Ordering::Relaxed);
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Half of the clients share a person's quota that is smaller than the tenant's; the others' own is larger.
#[sqlx::test(migrations = "../migrations")]
async fn m43_sixty_four_clients_never_reserve_more_than_agreed_and_leave_nothing_reserved(db: PgPool) {
    let options = (*db.connect_options()).clone();
    let clients = sqlx::postgres::PgPoolOptions::new().max_connections(CLIENTS as u32 + 1).connect_with(options).await;
    let clients = clients.unwrap();
    let (small, large) = (person(&db, 11).await, person(&db, 12).await);
    let limit = FITS * BYTES + BYTES / 2;
    agree(&db, None, limit).await;
    agree(&db, Some(small), 2 * BYTES).await;
    let (done, most, looks) =
        (Arc::new(AtomicBool::new(false)), Arc::<AtomicI64>::default(), Arc::<AtomicI64>::default());
    let watcher = tokio::spawn(watch(clients.clone(), done.clone(), most.clone(), looks.clone()));
    let owner = |n: usize| if n.is_multiple_of(2) { small } else { large };
    let racing: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(client(clients.clone(), owner(n), n))).collect();
    let mut got = vec![];
    for client in racing {
        got.push(client.await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    watcher.await.unwrap();
    let (most, looks) = (most.load(Ordering::Relaxed), looks.load(Ordering::Relaxed));
    assert!(most <= limit && looks > 100, "{most} of {limit} seen in {looks} looks");
    assert!(got.iter().sum::<i64>() > CLIENTS as i64, "some got it, again and again: {got:?}");
    assert_eq!(used(&db).await, ["0 0 0 0", "0 0 0 0", "0 0 0 0"], "nothing is left reserved");
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_last_room_is_given_once(db: PgPool) {
    agree(&db, None, BYTES).await;
    let ask = |n: usize| {
        let db = db.clone();
        async move {
            let mut tx = scope().begin(&db).await.unwrap();
            let (purpose, hour) = (n.to_string(), chrono::TimeDelta::hours(1));
            let got = quota::reserve(&mut tx, DEFAULT_TENANT, None, BYTES, &purpose, hour).await.unwrap();
            tx.commit().await.unwrap();
            got
        }
    };
    let answers = futures::future::join_all((0..8).map(ask)).await;
    assert_eq!(answers.iter().filter(|got| **got).count(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn content_counts_once_for_a_tenant_and_each_file_for_its_owner(db: PgPool) {
    let owner = format!("'{}'", person(&db, 11).await);
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, "set app.platform = 'on'").await;
    run(
        &mut connection,
        &(upload('a', 6, &owner, "asset") + &upload('a', 6, &owner, "asset") + &upload('b', 5, "null", "export")),
    )
    .await;
    assert_eq!(used(&db).await, ["11 0 0 3", "12 0 0 2"]);
    run(&mut connection, "update file_mgr.files set state = 'purged' where name = 'a'").await;
    assert_eq!(used(&db).await, ["5 0 0 1", "0 0 0 0"], "all at once");
    run(&mut connection, &upload('a', 6, &owner, "asset")).await;
    run(&mut connection, "update file_mgr.files set owner_id = null where state <> 'purged' and name = 'a'").await;
    assert_eq!(used(&db).await, ["11 0 0 2", "0 0 0 0"], "what somebody loses is not theirs");
    run(&mut connection, "delete from file_mgr.files").await;
    assert_eq!(used(&db).await, ["0 0 0 0", "0 0 0 0"]);
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_is_refused_beyond_the_limit_and_a_film_that_was_ordered_is_not(db: PgPool) {
    agree(&db, None, 10).await;
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, "set app.platform = 'on'").await;
    run(&mut connection, &upload('a', 6, "null", "asset")).await;
    assert_eq!(attempt(&mut connection, &upload('b', 5, "null", "asset")).await, Err("23514".into()));
    run(&mut connection, &upload('c', 50, "null", "export")).await;
    assert_eq!(used(&db).await, ["56 0 46 2"]);
    assert_eq!(
        attempt(&mut connection, &upload('b', 1, "null", "asset")).await,
        Err("23514".into()),
        "there is less than no room"
    );
    run(&mut connection, "update file_mgr.files set state = 'purged' where name = 'c'").await;
    assert_eq!(used(&db).await, ["6 0 0 1"], "what was above the limit may not come back");
    run(&mut connection, &upload('b', 4, "null", "asset")).await;
    agree(&db, None, 3).await;
    assert_eq!(used(&db).await, ["10 0 7 2"], "a limit that comes later takes nothing away");
    assert_eq!(attempt(&mut connection, &upload('d', 1, "null", "asset")).await, Err("23514".into()));
    run(&mut connection, "update file_mgr.files set state = 'purged' where name = 'a'").await;
    assert_eq!(used(&db).await, ["4 0 1 1"]);
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}

/// Those who purge many files at once, and those who add the same contents in another order, wait for each other and for nobody in a ring.
#[sqlx::test(migrations = "../migrations")]
async fn who_adds_and_who_purges_do_not_wait_for_each_other_for_ever(db: PgPool) {
    let contents = ['a', 'b', 'c', 'd', 'e', 'f'];
    let add = async |order: Vec<char>| {
        for _ in 0..25 {
            let mut tx = Scope::platform(Role::File).begin(&db).await.unwrap();
            for content in &order {
                run(&mut tx, &upload(*content, 6, "null", "asset")).await;
            }
            tx.commit().await.unwrap();
        }
    };
    let purge = async || {
        for _ in 0..25 {
            let mut tx = Scope::platform(Role::File).begin(&db).await.unwrap();
            run(&mut tx, "update file_mgr.files set state = 'purged' where state <> 'purged'").await;
            tx.commit().await.unwrap();
        }
    };
    let race =
        async { tokio::join!(add(contents.into()), add(contents.into_iter().rev().collect()), purge(), purge()) };
    tokio::time::timeout(Duration::from_secs(60), race).await.expect("nobody waits for ever");
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}
