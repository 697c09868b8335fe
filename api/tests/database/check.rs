//! The checker: quiet about a sound database, and naming the row that was planted.

use super::{attempt, rows, run};
use flatrender_workflows::models::invariants;
use sqlx::PgPool;
use std::{collections::BTreeSet, process::Command};
use uuid::Uuid;

/// A run in a state, of which nothing else is there.
macro_rules! run {
    ($state:literal) => {
        concat!(
            "insert into workflow.runs (id, tenant_id, kind, version, input, state, created_at, finished_at, error, error_fingerprint)
             values ('$R', '$D', 'clean', 1, '{}', '",
            $state,
            "', now(), case '",
            $state,
            "' when 'running' then null else now() end, case '",
            $state,
            "' when 'cancelled' then '{}'::jsonb end, case '",
            $state,
            "' when 'cancelled' then 'x' end)"
        )
    };
}

/// A film of run `$R` in a state.
macro_rules! film {
    ($status:literal) => {
        concat!(
            "insert into render.render_jobs (id, tenant_id, project_id, project_version_id, template, template_version, spec, request_sha256,
                 width, height, fps, frame_count, has_music, has_voiceover, has_sfx, workflow_run_id, status, finished_at)
             values ('$A', '$D', '$B', '$B', 't', 1, '{}', repeat('a', 64), 2, 2, 1, 3, false, false, false, '$R', '",
            $status, "', case '", $status, "' when 'completed' then now() end);"
        )
    };
}

/// What breaks which rule, and what is said of it. `$D` is the default tenant, `$A` and `$B` are others, `$R` is a run. Triggers
/// and foreign keys are off while it is planted: a fault is what they did not stop.
const PLANTED: &[(u8, &str, &[&str])] = &[
    (1, concat!("insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, run_at, max_failures, max_losses,
             backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
         values ('run', '$R', '$D', '', 'workflows', 'clean.v1', now(), 1, 1, 0, 0, 30, 60);", run!("succeeded")),
     &["run $R is succeeded"]),
    (2, concat!("insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, lease_token, recorded_at)
         values ('$R', 1, '$D', 'a', 'step', 'ok', '$A', now()), ('$R', 3, '$D', 'b', 'step', 'ok', '$A', now());", run!("succeeded")),
     &["run $R: record 3 comes after 1"]),
    (3, "insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
         select t, n, '$R', '$D', 'a', gen_random_uuid(), 'w', now(), now(), o
         from (values (1, 1, 'ok'), (1, 2, 'lost'), (2, 1, 'ok'), (2, 2, 'ok'), (3, 1, 'lost'), (3, 2, 'ok')) v (t, n, o)",
     &["task 1", "task 2"]),
    (4, film!("queued"), &["render $A is queued, its run not there"]),
    (4, "insert into render.snapshot_jobs (id, tenant_id, project_id, project_version_id, scene_id, scene_key, workflow_run_id, status)
         values ('$A', '$D', '$B', '$B', '$B', 'a', '$R', 'running')",
     &["snapshot job $A is running, its run not there"]),
    (4, "insert into render.snapshot_batches (id, tenant_id, project_id, job_ids) values ('$A', '$D', '$B', array['$R'::uuid])",
     &["batch $A is open, and its stills have ended"]),
    (5, "insert into identity.payments (id, tenant_id, user_id, purpose, credits, amount, currency, refunded_amount, state, provider, provider_ref,
             provider_txn, idempotency_key, price_snapshot, expires_at, paid_at, workflow_run_id)
         values ('$R', '$D', '$B', 'credits', 1, 9, 'IRR', 5, 'partially_refunded', 'zarinpal', 'r', 't', 'k', '{}', now(), now(), '$R');
         insert into identity.refunds (tenant_id, payment_id, amount, state, reason, provider, requested_by, idempotency_key, done_at)
         values ('$D', '$R', 4, 'done', 'why', 'zarinpal', '$B', 'k', now()), ('$D', '$R', 1, 'refused', 'why', 'zarinpal', '$B', 'l', null);
         insert into identity.provider_reconciliations (tenant_id, provider, day, currency, our_amount, their_amount, state)
         values ('$D', 'zarinpal', '2026-06-11', 'IRR', 9, 7, 'open'), ('$D', 'zarinpal', '2026-06-12', 'IRR', 9, 9, 'open');
         insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b')",
     &["the zarinpal of 2026-06-11 in IRR differs by 2", "payment $R: 5 given back, by its refunds 4"]),
    (6, "insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
         insert into identity.payments (id, tenant_id, user_id, purpose, credits, amount, currency, provider, idempotency_key, price_snapshot, expires_at, workflow_run_id)
         values ('$A', '$D', '$B', 'credits', 1, 9, 'IRR', 'zarinpal', 'k', '{}', now(), '$R');
         insert into identity.subscriptions (id, tenant_id, user_id, plan_id, amount, currency, state, current_period_start, current_period_end, activated_by_payment_id)
         values ('$R', '$D', '$B', '$B', 9, 'IRR', 'active', now(), now() + interval '1 day', '$A')",
     &["subscription $R"]),
    (7, "insert into identity.credit_accounts (id, tenant_id, balance) values ('$R', '$D', 5)", &["account $R: 5 and 0, by its rows 0 and 0"]),
    (7, "insert into identity.credit_accounts (id, tenant_id) values ('$A', '$D');
         insert into identity.credit_holds (id, tenant_id, account_id, run_id, amount, captured, state, expires_at, ended_at)
         values ('$B', '$D', '$A', '$R', 5, 3, 'captured', now(), now())",
     &["hold $B took 3, its ledger 0"]),
    (7, concat!("insert into identity.credit_accounts (id, tenant_id, balance, held) values ('$A', '$D', 9, 5);
         insert into identity.credit_ledger (tenant_id, account_id, entry_key, delta, balance_after, reason) values ('$D', '$A', 'k', 9, 9, 'grant');
         insert into identity.credit_holds (id, tenant_id, account_id, run_id, amount, state, expires_at) values ('$B', '$D', '$A', '$R', 5, 'held', now());
         insert into render.render_jobs (id, tenant_id, project_id, project_version_id, template, template_version, spec, request_sha256, width, height,
             fps, frame_count, has_music, has_voiceover, has_sfx, workflow_run_id, status, error_code, finished_at)
         values ('$A', '$D', '$B', '$B', 't', 1, '{}', repeat('a', 64), 2, 2, 1, 3, false, false, false, '$R', 'cancelled', 'x', now());
         insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, lease_token, recorded_at)
         values ('$R', 1, '$D', '$cancel', 'cancel', 'ok', '$A', now());", run!("cancelled")),
     &["hold $B is held, its film cancelled"]),
    (6, "insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
         insert into identity.subscriptions (id, tenant_id, user_id, plan_id, amount, currency, period_no, state, current_period_start, current_period_end)
         values ('$R', '$D', '$B', '$B', 9, 'IRR', 0, 'trialing', '2026-01-01Z', '2026-02-01Z');
         insert into identity.subscription_periods (tenant_id, subscription_id, period_no, user_id, plan_id, starts_at, ends_at)
         values ('$D', '$R', 0, '$B', '$B', '2026-01-01Z', '2026-01-15Z')",
     &["subscription $R is in period 0 until 2026-02-01 00:00:00+00, paid are 0"]),
    (4, "insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
         insert into identity.payments (id, tenant_id, user_id, purpose, credits, amount, currency, state, provider, gateway_id, idempotency_key,
             price_snapshot, expires_at, workflow_run_id)
         values ('$A', '$D', '$B', 'credits', 1, 9, 'IRR', 'pending', 'zarinpal', '$B', 'k', '{}', now(), '$R')",
     &["payment $A is pending, its run not there"]),
    (6, "insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
         insert into identity.payments (id, tenant_id, user_id, purpose, credits, amount, currency, state, provider, gateway_id, provider_txn,
             idempotency_key, price_snapshot, expires_at, paid_at, settled_at, workflow_run_id)
         values ('$A', '$D', '$B', 'credits', 1, 9, 'IRR', 'paid', 'zarinpal', '$B', 't', 'k', '{}', now(), now(), now(), '$R')",
     &["payment $A gave no credits", "payment $A has no bill of what was paid"]),
    (8, "insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
         insert into identity.payments (id, tenant_id, user_id, purpose, plan_id, amount, refunded_amount, currency, state, provider, gateway_id,
             provider_txn, idempotency_key, price_snapshot, expires_at, paid_at, settled_at, workflow_run_id)
         values ('$A', '$D', '$B', 'plan', '$B', 9, 9, 'IRR', 'refunded', 'zarinpal', '$B', 't', 'k', '{\"what\": {\"prospect\": {\"did\": \"changed\"}}}',
             now(), now(), now(), '$R');
         insert into identity.invoices (tenant_id, series, year, number, state, issue_date, buyer, currency, net_amount, tax_amount, total_amount, payment_id)
         values ('$D', 'INV', 2026, 1, 'issued', '2026-06-11', '{}', 'IRR', 9, 0, 9, '$A');
         insert into identity.invoice_counters values ('$D', 'INV', 2026, 2);
         insert into identity.subscription_changes (payment_id, tenant_id, subscription_id, period_no, from_plan_id, from_amount, to_plan_id, to_amount)
         values ('$A', '$D', '$R', 1, '$B', 5, '$B', 9);
         insert into identity.refunds (id, tenant_id, payment_id, amount, state, reason, provider, requested_by, idempotency_key, done_at)
         values ('$R', '$D', '$A', 9, 'done', 'why', 'zarinpal', '$B', 'k', now())",
     &["refund $R"]),
    (9, "insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
         insert into identity.user_progress (user_id, tenant_id, points) values ('$B', '$D', 5)",
     &["user $B: 5, by the ledger 0"]),
    (8, "insert into identity.invoices (tenant_id, series, year, number, state, issue_date, buyer, currency, net_amount, tax_amount, total_amount)
         values ('$D', 'A', 2026, 2, 'issued', '2026-06-11', '{}', 'IRR', 1, 0, 1);
         insert into identity.invoice_counters values ('$D', 'A', 2026, 3)",
     &["series A 2026 of $D"]),
    (9, "insert into identity.coupons (id, tenant_id, code, kind, value, max_redemptions, redeemed, valid_from, valid_to)
         values ('$R', '$D', 'abc', 'percent', 5, 2, 1, '2026-01-01Z', '2027-01-01Z')",
     &["coupon $R"]),
    (10, "insert into file_mgr.quotas (id, tenant_id, limit_bytes, used_bytes) values ('$R', '$D', 9, 5)",
     &["quota $R: 5 B in 0 and 0 B, by its rows 0 B in 0 and 0 B"]),
    (10, "insert into file_mgr.quotas (id, tenant_id) values ('$A', '$D');
          insert into identity.users (id, tenant_id, email) values ('$B', '$D', 'b@b.b');
          insert into file_mgr.quotas (id, tenant_id, owner_id, reserved_bytes) values ('$R', '$D', '$B', 7);
          insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, expires_at) values ('$D', 3, 'x', now())",
     &["quota $A: 0 B in 0 and 0 B, by its rows 0 B in 0 and 3 B", "quota $R: 0 B in 0 and 7 B, by its rows 0 B in 0 and 0 B"]),
    (10, "insert into file_mgr.upload_sessions (id, tenant_id, protocol, name, total_bytes, offset_bytes, state, expires_at)
          values ('$A', '$D', 'tus', 'x', 9, 3, 'aborted', now()), ('$B', '$D', 'tus', 'x', 9, 0, 'open', now()), ('$R', '$D', 'tus', 'x', 9, 0, 'aborted', now());
          insert into file_mgr.quotas (tenant_id, reserved_bytes) values ('$D', 9);
          insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, expires_at) values ('$D', 9, 'upload:$R', now())",
     &["upload $A has 3 B, its pieces 0", "upload $B is open, its room not there", "upload $R is aborted, its room held"]),
    (10, "insert into render.render_jobs (id, tenant_id, project_id, project_version_id, template, template_version, spec, request_sha256, width, height,
              fps, frame_count, has_music, has_voiceover, has_sfx, workflow_run_id, status, error_code, finished_at)
          values ('$A', '$D', '$B', '$B', 't', 1, '{}', repeat('a', 64), 2, 2, 1, 3, false, false, false, '$R', 'failed', 'x', now());
          insert into file_mgr.quotas (tenant_id, reserved_bytes) values ('$D', 12);
          insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, expires_at)
          values ('$D', 3, 'film:$A', now()), ('$D', 4, 'derivative:$A:gif:1', now()), ('$D', 5, 'film:$B', now())",
     &["render $A is failed, its room held", "the gif of render $A is not asked for, its room held", "what is held for film:$B is for no film"]),
    (11, concat!(film!("completed"), run!("succeeded")), &["render $A: 3 frames, 0 verified, 0 in chunks"]),
    (12, "insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes, refcount) values ('$R', '$D', repeat('a', 64), 1, 1)",
     &["blob $R: 1, by its files 0"]),
    (12, "insert into file_mgr.folders (id, tenant_id, parent_id, name, trashed_at, trashed_with)
         values ('$A', '$D', null, 'a', now(), '$A'), ('$B', '$D', '$A', 'b', null, null), ('$R', '$D', '$R', 'r', null, null);
         insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes, refcount) values ('$R', '$D', repeat('a', 64), 1, 3);
         insert into file_mgr.quotas (tenant_id, used_bytes, used_files) values ('$D', 1, 3);
         insert into file_mgr.files (id, tenant_id, folder_id, blob_id, name, purpose, kind, mime_detected, state, trashed_at, trashed_with)
         values ('$A', '$D', '$A', '$R', 'a', 'asset', 'image', 'image/png', 'ready', null, null),
                ('$B', '$D', '$A', '$R', 'b', 'asset', 'image', 'image/png', 'trashed', now(), '$R'),
                ('$R', '$D', '$A', '$R', 'B', 'asset', 'image', 'image/png', 'ready', null, null)",
     &["folder $R is reached from nowhere", "folder $B lies in the trash", "file $A lies in the trash", "file $R lies in the trash",
       "file $B goes with no folder above it", "file $R is called as folder $B"]),
    (12, "insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes, created_at)
          values ('$R', '$D', repeat('a', 64), 1, now() - interval '10 days'), ('$A', '$D', repeat('b', 64), 1, now()),
                 ('$B', '$D', repeat('c', 64), 1, now() - interval '10 days');
          insert into file_mgr.deletion_queue (tenant_id, sha256, not_before) values ('$D', repeat('c', 64), now())",
     &["blob $R"]),
    (4, "insert into file_mgr.cleanup_schedules (id, tenant_id, name, target, older_than, cron, changed_by, workflow_schedule_id)
         values ('$A', '$D', 'a', 'trash', '1 day', '0 3 * * *', 'x', '$B');
         insert into file_mgr.cleanup_runs (id, tenant_id, schedule_id, fire_time, cutoff, dry_run, planned_count, deleted_count)
         values ('$R', '$D', '$A', now(), now(), false, 5, 5)",
     &["clean-up $R: 5 gone and 0 not, by its files 0 and 0"]),
    (25, "insert into identity.tenant_usage_daily (tenant_id, day, metric, quantity, final) values
              ('$D', (now() at time zone 'UTC')::date - 5, 'frames', 7, true), ('$D', (now() at time zone 'UTC')::date, 'frames', 7, false)",
     &["frames of $D on $Y: 7, by its sources 0"]),
    (13, "insert into content.scenes (id, tenant_id, project_version_id, scene_key, position, title, comp_name, start_frame, frame_count, still_frame, snapshot_url,
              snapshot_source_hash, snapshot_at)
          values ('$R', '$D', '$B', 'intro', 0, '{}', 'c', 0, 10, 5, 'https://a.b/old', repeat('b', 64), now());
          insert into render.snapshot_jobs (tenant_id, project_id, project_version_id, scene_id, scene_key, workflow_run_id, status, image_url, created_at, finished_at)
          values ('$D', '$B', '$B', '$R', 'intro', '$A', 'done', 'https://a.b/old', now() - interval '1 minute', now()),
                 ('$D', '$B', '$B', '$R', 'intro', '$B', 'done', 'https://a.b/new', now(), now())",
     &["scene $R"]),
    (14, "insert into notification.notifications (id, tenant_id, user_id, category, template_code, title, dedupe_key, created_at)
          values ('$R', '$D', '$A', 'news', 'hello', 'Hello', 'k', now());
          insert into notification.notification_deliveries (created_at, id, tenant_id, notification_id, channel, state, attempt_no, sent_at, idempotency_key, outcome_unknown)
          values (now(), '$A', '$D', '$R', 'email', 'sent', 0, now(), 'first', false),
                 ('2026-01-02Z', '$R', '$D', '$R', 'email', 'delivered', 1, now(), 'other', false),
                 (now(), '$B', '$D', '$R', 'sms', 'sent', 1, now(), 'twice', false), (now(), '$D', '$D', '$R', 'push', 'delivered', 1, now(), 'twice', false),
                 (now(), gen_random_uuid(), '$D', '$R', 'sms', 'sent', 1, now(), 'unsure', true),
                 (now(), gen_random_uuid(), '$D', '$R', 'sms', 'sent', 2, now(), 'unsure', false)",
     &["delivery $A is sent and was never tried", "key twice of $D was sent 2 times", "delivery $R is not of the time of its notification"]),
    (15, "insert into identity.tenant_webhooks (id, tenant_id, url, event_types, state, secret_enc, created_at, updated_at)
          values ('$A', '$D', 'https://a.b', '{render.completed}', 'active', 'x', now() - interval '1 day', now() - interval '1 day'),
                 (gen_random_uuid(), '$D', 'https://a.b', '{render.failed}', 'active', 'x', now() - interval '1 day', now() - interval '1 day'),
                 (gen_random_uuid(), '$D', 'https://a.b', '{*}', 'paused', 'x', now() - interval '1 day', now() - interval '1 day'),
                 (gen_random_uuid(), '$D', 'https://a.b', '{*}', 'active', 'x', now() - interval '1 day', now());
          insert into identity.tenant_webhook_events (id, tenant_id, type, data, occurred_at, source_event_id, created_at)
          select id, '$D', 'render.completed', '{}', now() - age, gen_random_uuid(), now() - age
          from (values ('$A'::uuid, interval '1 hour'), ('$B', '2 hours'), ('$R', '1 s')) v (id, age);
          insert into identity.tenant_webhook_deliveries (id, occurred_at, tenant_id, webhook_id, event_id, replay_no, state, attempt_no, last_status)
          values ('$A', now() - interval '2 hours', '$D', '$A', '$B', 0, 'delivered', 1, 500),
                 ('$B', now() - interval '3 hours', '$D', '$A', '$R', 0, 'pending', 0, null),
                 ('$R', now() - interval '2 hours', '$D', '$A', '$B', 2, 'missed', 0, null)",
     &["event $A has no delivery to webhook $A", "the delivery of event $R is not of its time",
       "the delivery of event $B counts as delivered with status 500",
       "delivery $A is delivered after 1 attempts, and knows of 0", "delivery $B is pending, its run not there",
       "delivery $R is the repetition 2 of what was never sent"]),
    (16, concat!("insert into workflow.schedules (id, tenant_id, name, cron, time_zone, kind, version, input, catch_up, catch_up_seconds, overlap,
              created_at, updated_at, decided_until)
          values ('$A', '$D', 'nightly', '0 3 * * *', 'UTC', 'clean', 1, '{}', 'all', 600, 'allow', '2026-01-01Z', '2026-01-01Z', '2026-01-04Z');
          insert into workflow.schedule_fires (schedule_id, nominal_at, revision, decision, run_id, decided_at)
          values ('$A', '2026-01-01Z', 1, 'started', '$R', '2026-01-01Z'), ('$A', '2026-01-02Z', 1, 'missed', null, '2026-01-02 00:05Z'),
                 ('$A', '2026-01-03Z', 1, 'overlapped', null, '2026-01-03Z'), ('$A', '2026-01-04Z', 1, 'missed', null, '2026-01-04 00:15Z'),
                 ('$A', '2026-01-05Z', 1, 'started', '$R', '2026-01-05Z');", run!("succeeded")),
     &["schedule nightly at 2026-01-01 00:00:00+00: its run is also of another time",
       "schedule nightly at 2026-01-02 00:00:00+00: missed, though it could be caught up with",
       "schedule nightly at 2026-01-03 00:00:00+00: overlapped, though runs may overlap",
       "schedule nightly at 2026-01-05 00:00:00+00: decided, and to be decided again",
       "schedule nightly at 2026-01-05 00:00:00+00: its run is also of another time"]),
    (17, "insert into identity.tenants (id, slug, name) values ('$A', 'a', 'A'), ('$B', 'b', 'B');
          insert into file_mgr.folders (tenant_id, owner_id, name) values ('$A', '$R', 'x');
          insert into identity.users (id, tenant_id, email) values ('$R', '$B', 'b@b.b')",
     &["file_mgr.folders.owner_id = $R"]),
    (17, concat!("insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, lease_token, recorded_at)
          values ('$R', 1, '$A', 'a', 'step', 'ok', '$A', now());", run!("succeeded")),
     &["record 1 of run $R"]),
    (18, "insert into file_mgr.folders (tenant_id, owner_id, name, created_at) values ('$D', '$R', 'x', '2026-01-01Z')",
     &["file_mgr.folders.owner_id = $R"]),
    (19, run!("running"), &["run $R (clean)"]),
    (20, "insert into identity.payment_events (gateway_id, provider, event_id, tenant_id, type, signature_ok, raw_sha256, payload_enc, received_at)
          values ('$R', 'zarinpal', 'old', '$D', 'paid', true, sha256('a'), 'x', now() - interval '2 minutes'),
                 ('$R', 'zarinpal', 'new', '$D', 'paid', true, sha256('a'), 'x', now()),
                 ('$R', 'zarinpal', 'forged', '$D', 'paid', false, sha256('a'), 'x', now() - interval '2 minutes')",
     &["event old of zarinpal"]),
    (23, "insert into identity.audit_log (at, tenant_id, seq, actor, action, object, chain_hash)
          values ('2026-01-02Z', '$D', 1, 'somebody', 'deletes', 'everything', sha256('x'))",
     &["entry 1 of $D"]),
    (24, "do $$ begin execute format('alter table identity.audit_log detach partition %s',
          platform.month_table('identity.audit_log', (now() at time zone 'UTC' + interval '2 months')::date)); end $$",
     &["identity.audit_log has no month of $M"]),
];

#[sqlx::test(migrations = "../migrations")]
async fn a_sound_database_is_sound(db: PgPool) {
    let audit = "insert into identity.audit_log (at, tenant_id, seq, actor, action, object, chain_hash)
        select '2026-01-02Z', '00000000-0000-0000-0000-000000000001', 1, 'somebody', 'looks', 'n' || n, sha256('x') from generate_series(1, 3) n";
    run(&mut db.acquire().await.unwrap(), audit).await;
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
}

/// Each rule names its own row, and no other rule says anything.
#[sqlx::test(migrations = "../migrations")]
async fn s026_every_planted_fault_is_named(db: PgPool) {
    let month = "select to_char(now() at time zone 'UTC' + interval '2 months', 'YYYY-MM')";
    let month = rows(&db, month).await.remove(0);
    let day = rows(&db, "select ((now() at time zone 'UTC')::date - 5)::text").await.remove(0);
    let filled = |text: &str| {
        let ids = [("$D", 1), ("$A", 0xa), ("$B", 0xb), ("$R", 0xc)];
        ids.iter().fold(text.replace("$M", &month).replace("$Y", &day), |text, (name, n)| {
            text.replace(name, &Uuid::from_u128(*n).to_string())
        })
    };
    let numbers: BTreeSet<u8> = PLANTED.iter().map(|(number, ..)| *number).collect();
    assert_eq!(
        numbers,
        (1..=25).filter(|n| ![21, 22].contains(n)).collect(),
        "each rule that a database can break has its fault"
    );
    for (invariant, fault, rows) in PLANTED {
        let mut tx = db.begin().await.unwrap();
        run(&mut tx, &format!("set local session_replication_role = replica; {}", filled(fault))).await;
        run(
            &mut tx,
            "set local session_replication_role = origin; set local role admin_api; set local timezone = 'UTC'",
        )
        .await;
        let breaches = invariants::check_in(&mut tx, false).await.unwrap();
        assert!(breaches.iter().all(|b| b.invariant == *invariant), "{invariant}: {breaches:#?}");
        let mut said: Vec<String> = breaches.into_iter().map(|b| b.row).collect();
        let mut expected: Vec<String> = rows.iter().map(|row| filled(row)).collect();
        said.sort();
        expected.sort();
        assert_eq!(said, expected, "{invariant}");
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
    run(
        &mut db.acquire().await.unwrap(),
        "insert into identity.credit_accounts (tenant_id, balance) values ('00000000-0000-0000-0000-000000000001', 5)",
    )
    .await;
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
