//! The checker: quiet about a sound database, and naming the row that was planted.

use super::{attempt, rows, run};
use flatrender_workflows::models::invariants;
use sqlx::PgPool;
use std::process::Command;

/// What breaks which rule. Triggers and foreign keys are off while it is planted: a fault is what they did not stop.
const PLANTED: &[(u8, &str)] = &[
    (7, "insert into identity.credit_accounts (tenant_id, balance) values ('00000000-0000-0000-0000-000000000001', 5)"),
    (8, "insert into identity.invoices (tenant_id, series, year, number, state, issue_date, buyer, currency, net_amount, tax_amount, total_amount)
         values ('00000000-0000-0000-0000-000000000001', 'A', 2026, 2, 'issued', '2026-06-11', '{}', 'IRR', 1, 0, 1);
         insert into identity.invoice_counters values ('00000000-0000-0000-0000-000000000001', 'A', 2026, 3)"),
    (9, "insert into identity.coupons (tenant_id, code, kind, value, max_redemptions, redeemed, valid_from, valid_to)
         values ('00000000-0000-0000-0000-000000000001', 'abc', 'percent', 5, 2, 1, '2026-01-01Z', '2027-01-01Z')"),
    (10, "insert into file_mgr.quotas (tenant_id, limit_bytes, used_bytes, limit_files) values ('00000000-0000-0000-0000-000000000001', 9, 5, 1)"),
    (12, "insert into file_mgr.blobs (tenant_id, sha256, size_bytes, refcount) values ('00000000-0000-0000-0000-000000000001', repeat('a', 64), 1, 1)"),
    (17, "insert into identity.tenants (id, slug, name) values ('00000000-0000-0000-0000-00000000000a', 'a', 'A'), ('00000000-0000-0000-0000-00000000000b', 'b', 'B');
          insert into file_mgr.folders (tenant_id, owner_id, name) values ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-0000000000bb', 'x');
          insert into identity.users (id, tenant_id, email) values ('00000000-0000-0000-0000-0000000000bb', '00000000-0000-0000-0000-00000000000b', 'b@b.b')"),
    (18, "insert into file_mgr.folders (tenant_id, owner_id, name, created_at) values ('00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'x', '2026-01-01Z')"),
    (19, "insert into workflow.runs (id, tenant_id, kind, version, input, created_at)
          values (gen_random_uuid(), '00000000-0000-0000-0000-000000000001', 'render_video', 1, '{}', now())"),
    (23, "insert into identity.audit_log (at, tenant_id, seq, actor, action, object, chain_hash)
          values ('2026-01-02Z', '00000000-0000-0000-0000-000000000001', 1, 'somebody', 'deletes', 'everything', sha256('x'))"),
    (24, "do $$ begin execute format('alter table identity.audit_log detach partition %s',
          platform.month_table('identity.audit_log', (now() at time zone 'UTC' + interval '2 months')::date)); end $$"),
];

#[sqlx::test(migrations = "../migrations")]
async fn a_sound_database_is_sound(db: PgPool) {
    let audit = "insert into identity.audit_log (at, tenant_id, seq, actor, action, object, chain_hash)
        select '2026-01-02Z', '00000000-0000-0000-0000-000000000001', 1, 'somebody', 'looks', 'n' || n, sha256('x') from generate_series(1, 3) n";
    run(&mut db.acquire().await.unwrap(), audit).await;
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}

#[sqlx::test(migrations = "../migrations")]
async fn s026_every_planted_fault_is_named(db: PgPool) {
    for (invariant, fault) in PLANTED {
        let mut connection = db.acquire().await.unwrap();
        run(
            &mut connection,
            &format!("set session_replication_role = replica; {fault}; reset session_replication_role"),
        )
        .await;
        let breaches = invariants::check(&db, false).await.unwrap();
        assert!(breaches.iter().any(|b| b.invariant == *invariant), "{invariant}: {breaches:#?}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn the_command_ends_with_one_and_names_the_row(db: PgPool) {
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&db).await.unwrap();
    let url = std::env::var("DATABASE_URL").unwrap();
    let url = format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    let check =
        || Command::new(env!("CARGO_BIN_EXE_flatrender")).args(["check", "--database-url", &url]).output().unwrap();
    let sound = check();
    assert_eq!(
        (sound.status.code(), String::from_utf8_lossy(&sound.stdout).as_ref()),
        (Some(0), "every rule is kept\n"),
        "{sound:?}"
    );
    run(&mut db.acquire().await.unwrap(), PLANTED[0].1).await;
    let broken = check();
    assert_eq!(broken.status.code(), Some(1));
    let said = String::from_utf8_lossy(&broken.stdout);
    assert!(said.starts_with(" 7  credits are the sum of their ledger"), "{said}");
}

/// No service can begin a chain anew, or go back in it.
#[sqlx::test(migrations = "../migrations")]
async fn s023_the_chain_of_the_audit_log_is_its_triggers_alone(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    run(&mut connection, "set app.platform = 'on'").await;
    let entry = "insert into identity.audit_log (at, tenant_id, seq, actor, action, object, chain_hash)
        values ('2026-01-02Z', '00000000-0000-0000-0000-000000000001', 7, 'somebody', 'looks', 'around', sha256('x'))";
    for role in ["identity_svc", "admin_api"] {
        run(&mut connection, &format!("set role {role}")).await;
        run(&mut connection, entry).await;
        for harm in [
            "insert into identity.audit_heads values ('00000000-0000-0000-0000-000000000001', 9, sha256('x'))",
            "update identity.audit_heads set seq = 1",
            "delete from identity.audit_heads",
            "update identity.audit_log set actor = 'nobody'",
            "delete from identity.audit_log",
            "select identity.chain_audit()",
        ] {
            assert_eq!(attempt(&mut connection, harm).await, Err("42501".into()), "{role}: {harm}");
        }
        run(&mut connection, "reset role").await;
    }
    assert_eq!(rows(&db, "select seq::text from identity.audit_log order by seq").await, ["1", "2"]);
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}
