//! The rules that are one query each: it finds the rows that break the rule, as text.

use super::Invariant;

pub(super) const INVARIANTS: &[Invariant] = &[
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
        // A run that the engine gave up after it had published its film leaves a film.
        rule: "a film has ended as its run has, or as it was published",
        sql: "select 'render ' || j.id || ' is ' || j.status || ', its run ' || coalesce(r.state, 'not there')
              from render.render_jobs j left join workflow.runs r on r.id = j.workflow_run_id
              where r.id is null and j.finished_at is null or r.tenant_id <> j.tenant_id
                 or j.status = 'completed' and r.state in ('failed', 'cancelled')
                    and not exists (select from render.exports e where e.render_job_id = j.id)
                 or j.status in ('failed', 'cancelled') and r.state = 'succeeded'
                 or j.finished_at is null and r.finished_at < workflow.now() - interval '5 minutes'",
    },
    Invariant {
        number: 4,
        rule: "a still has ended as its run has, and is running while a node has it",
        sql: "select 'snapshot job ' || j.id || ' is ' || j.status || ', its run ' || coalesce(r.state, 'not there')
              from render.snapshot_jobs j left join workflow.runs r on r.id = j.workflow_run_id
              where r.id is null and j.finished_at is null or r.tenant_id <> j.tenant_id
                 or j.status = 'done' and r.state in ('failed', 'cancelled')
                 or j.status = 'error' and r.state = 'succeeded'
                 or j.finished_at is null and r.finished_at < workflow.now() - interval '5 minutes'
              union all
              select 'snapshot job ' || j.id || ' is ' || j.status || ', its task ' || t.state
              from render.snapshot_jobs j join workflow.tasks t on t.run_id = j.workflow_run_id and t.activity = 'RenderStills'
              where j.finished_at is null and (j.status = 'running') <> (t.state = 'leased')",
    },
    Invariant {
        number: 4,
        rule: "a request for stills is open while one of them is",
        sql: "select 'batch ' || b.id || ' is open, and its stills have ended' from render.snapshot_batches b
              where b.finished_at is null
                and not exists (select from render.snapshot_jobs j where j.id = any (b.job_ids) and j.status in ('queued', 'running'))",
    },
    Invariant {
        number: 5,
        rule: "money went as the providers say, and back as its refunds say",
        sql: "select 'the ' || provider || ' of ' || day || ' in ' || currency || ' differs by ' || diff_amount
              from identity.provider_reconciliations where state = 'open' and diff_amount <> 0
              union all
              select 'payment ' || p.id || ': ' || p.refunded_amount || ' given back, by its refunds ' || r.amount
              from identity.payments p
              cross join lateral (select coalesce(sum(amount), 0) as amount from identity.refunds
                  where payment_id = p.id and state not in ('refused', 'failed')) r
              where p.refunded_amount <> r.amount",
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
        number: 7,
        rule: "what is held for a film is spent when it is finished, and free when it is not",
        sql: "select 'hold ' || h.id || ' is ' || h.state || ', its film ' || j.status from identity.credit_holds h
              join render.render_jobs j on j.workflow_run_id = h.run_id
              where j.finished_at is not null and (h.state = 'held' or h.state = 'captured' and j.status <> 'completed')
              union all
              select 'hold ' || h.id || ' took ' || coalesce(h.captured, 0) || ', its ledger ' || coalesce(-l.delta, 0)
              from identity.credit_holds h
              full join identity.credit_ledger l on l.tenant_id = h.tenant_id and l.entry_key = 'run:' || h.run_id || ':capture'
              where (h.id is not null or l.entry_key like 'run:%:capture') and coalesce(h.captured, 0) <> coalesce(-l.delta, 0)",
    },
    Invariant {
        number: 6,
        rule: "what was paid for was given once, with one bill, or the money went back",
        sql: "select 'payment ' || p.id || ' ' || w.what from identity.payments p
              cross join lateral (values
                  ('has no bill of what was paid', p.settled_at is not null and not exists (select from identity.invoices i
                      where i.payment_id = p.id and i.refund_id is null and i.state = 'issued' and i.total_amount = p.amount)),
                  ('gave no credits', p.settled_at is not null and p.purpose = 'credits' and not exists (select from identity.credit_ledger l
                      where l.tenant_id = p.tenant_id and l.entry_key = 'payment:' || p.id and l.delta = p.credits)),
                  ('paid no period', p.settled_at is not null and p.purpose = 'plan'
                      and p.price_snapshot #>> '{what,prospect,did}' in ('begun', 'renewed')
                      and not exists (select from identity.subscription_periods n where n.payment_id = p.id)),
                  ('changed no plan', p.settled_at is not null and p.purpose = 'plan'
                      and p.price_snapshot #>> '{what,prospect,did}' = 'changed'
                      and not exists (select from identity.subscription_changes c where c.payment_id = p.id)),
                  ('was paid, and neither given nor given back', p.paid_at is not null and p.settled_at is null and not exists (
                      select from identity.refunds r where r.payment_id = p.id and r.state not in ('refused', 'failed'))),
                  ('gave something that was not paid', p.settled_at is null and (exists (select from identity.credit_ledger l
                      where l.tenant_id = p.tenant_id and l.entry_key = 'payment:' || p.id)
                      or exists (select from identity.invoices i where i.payment_id = p.id)))
              ) w (what, wrong) where p.gateway_id is not null and w.wrong",
    },
    Invariant {
        number: 8,
        rule: "a refund of what was billed has its credit note",
        sql: "select 'refund ' || r.id from identity.refunds r join identity.payments p on p.id = r.payment_id
              where r.state = 'done' and p.settled_at is not null and p.gateway_id is not null
                and not exists (select from identity.invoices i where i.refund_id = r.id and i.state = 'issued' and i.total_amount = -r.amount)",
    },
    Invariant {
        number: 4,
        rule: "somebody sees to a payment that is open, and to a refund that is on its way",
        sql: "select 'payment ' || p.id || ' is ' || p.state || ', its run ' || coalesce(r.state, 'not there') from identity.payments p
              left join workflow.runs r on r.id = p.workflow_run_id
              where p.gateway_id is not null and p.state in ('created', 'pending', 'verifying')
                and (r.id is null or r.tenant_id <> p.tenant_id or r.finished_at < workflow.now() - interval '5 minutes')
              union all
              select 'refund ' || f.id || ' is ' || f.state || ', its run ' || coalesce(r.state, 'not there') from identity.refunds f
              join identity.payments p on p.id = f.payment_id left join workflow.runs r on r.id = f.workflow_run_id
              where p.gateway_id is not null and f.state in ('approved', 'sending')
                and (r.id is null or r.tenant_id <> f.tenant_id or r.finished_at < workflow.now() - interval '5 minutes')",
    },
    Invariant {
        number: 6,
        rule: "a plan is had until the end of the last period that was paid for",
        sql: "select 'subscription ' || s.id || ' is in period ' || s.period_no || ' until ' || s.current_period_end || ', paid are ' || coalesce(p.last, 0)
              from identity.subscriptions s
              join lateral (select max(period_no) as last, max(ends_at) as ends_at from identity.subscription_periods where subscription_id = s.id) p on p.last is not null
              where p.last <> s.period_no or p.ends_at <> s.current_period_end
              union all
              select 'period ' || n.period_no || ' of subscription ' || n.subscription_id || ' is not paid' from identity.subscription_periods n
              join identity.payments y on y.id = n.payment_id where y.paid_at is null",
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
        number: 9,
        rule: "points are the sum of their ledger",
        sql: "select 'user ' || user_id || ': ' || coalesce(p.points, 0) || ', by the ledger ' || coalesce(l.points, 0)
              from identity.user_progress p full join (select user_id, sum(points) as points from identity.points_ledger group by 1) l using (user_id)
              where coalesce(p.points, 0) <> coalesce(l.points, 0)",
    },
    Invariant {
        number: 10,
        rule: "a quota counts what is kept and the room that is reserved",
        sql: "select 'quota ' || q.id || ': ' || q.used_bytes || ' B in ' || q.used_files || ' and ' || q.reserved_bytes || ' B, by its rows '
                     || k.bytes || ' B in ' || f.files || ' and ' || r.bytes || ' B'
              from file_mgr.quotas q
              cross join lateral (select coalesce(sum(b.size_bytes), 0) as bytes, count(*) as files
                  from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
                  where f.tenant_id = q.tenant_id and (q.owner_id is null or f.owner_id = q.owner_id) and f.state <> 'purged') f
              cross join lateral (select case when q.owner_id is not null then f.bytes else coalesce(sum(b.size_bytes), 0) end as bytes
                  from file_mgr.blobs b where b.tenant_id = q.tenant_id and b.refcount > 0) k
              cross join lateral (select coalesce(sum(amount_bytes), 0) as bytes from file_mgr.quota_reservations r
                  where r.tenant_id = q.tenant_id and (q.owner_id is null or r.owner_id = q.owner_id) and r.state = 'held') r
              where q.used_bytes <> k.bytes or q.used_files <> f.files or q.reserved_bytes <> r.bytes
              union all
              select 'no quota counts the files of ' || f.tenant_id from file_mgr.files f where f.state <> 'purged'
                and not exists (select from file_mgr.quotas q where q.tenant_id = f.tenant_id and q.owner_id is null)
              group by f.tenant_id",
    },
    Invariant {
        number: 10,
        rule: "an upload has its room until it ends, and knows how far it has come",
        sql: "select 'upload ' || s.id || ' is ' || s.state || ', its room ' || coalesce(r.state, 'not there')
              from file_mgr.upload_sessions s
              left join file_mgr.quota_reservations r on r.tenant_id = s.tenant_id and r.purpose = 'upload:' || s.id
              where (s.state in ('open', 'completing')) <> (r.state is not distinct from 'held')
              union all
              select 'upload ' || s.id || ' has ' || s.offset_bytes || ' B, its pieces ' || p.bytes
              from file_mgr.upload_sessions s
              cross join lateral (select coalesce(sum(size_bytes), 0) as bytes from file_mgr.upload_parts where session_id = s.id) p
              where s.protocol = 'tus' and s.offset_bytes <> p.bytes",
    },
    Invariant {
        number: 10,
        rule: "a film has its room until it is kept or ends, and what else is made of it until it is made",
        sql: "select 'render ' || j.id || ' is ' || j.status || case when e.id is null then '' else ' and kept' end || ', its room ' || r.state
              from file_mgr.quota_reservations r
              join render.render_jobs j on j.tenant_id = r.tenant_id and r.purpose = 'film:' || j.id
              left join render.exports e on e.render_job_id = j.id
              where r.state <> case when e.id is not null then 'used' when j.finished_at is null then 'held' else 'released' end
                -- What nothing ends for a year is freed.
                and r.created_at > workflow.now() - interval '360 days'
              union all
              select 'the ' || split_part(r.purpose, ':', 3) || ' of render ' || j.id || ' is ' || coalesce(d.state, 'not asked for') || ', its room held'
              from file_mgr.quota_reservations r
              join render.render_jobs j on j.tenant_id = r.tenant_id and j.id::text = split_part(r.purpose, ':', 2)
              left join render.exports e on e.render_job_id = j.id
              left join render.derivatives d on d.export_id = e.id and d.kind = split_part(r.purpose, ':', 3)
              where r.state = 'held' and r.purpose like 'derivative:%'
                and ((e.id is null and j.status in ('failed', 'cancelled')) or d.state <> 'queued' or d.tries::text <> split_part(r.purpose, ':', 4))
              union all
              select 'what is held for ' || r.purpose || ' is for no film' from file_mgr.quota_reservations r
              where r.state = 'held' and r.purpose ~ '^(film|derivative):'
                and not exists (select from render.render_jobs j where j.tenant_id = r.tenant_id and j.id::text = split_part(r.purpose, ':', 2))",
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
        number: 12,
        rule: "what is there lies in a folder that is there, at most 20 levels deep, and what goes with a folder lies in it",
        sql: "with recursive tree (id, trashed_at, path) as (
                  select id, trashed_at, array[id] from file_mgr.folders where parent_id is null
                  union all select f.id, f.trashed_at, t.path || f.id from file_mgr.folders f join tree t on f.parent_id = t.id
                  where not f.id = any (t.path) and cardinality(t.path) < 21)
              select 'folder ' || f.id || ' is ' || case when t.id is null then 'reached from nowhere' else 'too deep' end
              from file_mgr.folders f left join tree t on t.id = f.id where t.id is null or cardinality(t.path) > 20
              union all
              select 'folder ' || f.id || ' lies in the trash' from file_mgr.folders f join file_mgr.folders p on p.id = f.parent_id
              where f.trashed_at is null and p.trashed_at is not null
              union all
              select 'file ' || f.id || ' lies in the trash' from file_mgr.files f join file_mgr.folders p on p.id = f.folder_id
              where f.state not in ('trashed', 'purged', 'rejected') and p.trashed_at is not null
              union all
              select 'file ' || f.id || ' goes with no folder above it' from file_mgr.files f left join tree t on t.id = f.folder_id
              where f.state = 'trashed' and f.trashed_with <> f.id and (t.id is null or not f.trashed_with = any (t.path))
              union all
              select 'folder ' || f.id || ' goes with no folder above it' from file_mgr.folders f join tree t on t.id = f.id
              where f.trashed_with is not null and not f.trashed_with = any (t.path)",
    },
    Invariant {
        number: 12,
        rule: "of a folder and a file in the same folder each has a name of its own",
        sql: "select 'file ' || f.id || ' is called as folder ' || d.id from file_mgr.files f
              join file_mgr.folders d on d.parent_id = f.folder_id and d.name_key = f.name_key and d.tenant_id = f.tenant_id
              where f.state not in ('trashed', 'purged', 'rejected') and d.trashed_at is null",
    },
    Invariant {
        number: 12,
        rule: "content that no file uses is queued for removal, being removed or gone",
        sql: "select 'blob ' || b.id from file_mgr.blobs b
              -- What was recorded within a week may still get its first file; a template is made of what no file names.
              where b.refcount = 0 and b.removed_at is null and b.created_at < workflow.now() - interval '9 days'
                and coalesce(b.wanted_until < workflow.now() - interval '2 days', true)
                and not exists (select from file_mgr.deletion_queue q where q.tenant_id = b.tenant_id and q.sha256 = b.sha256 and q.done_at is null)
                and not exists (select from content.project_versions v where b.sha256 in (v.package_sha256, v.preview_sha256))",
    },
    Invariant {
        number: 4,
        rule: "a clean-up counts what it removed, and has ended as its run has",
        sql: "select 'clean-up ' || c.id || ': ' || c.deleted_count || ' gone and ' || c.skipped_count || ' not, by its files ' || i.gone || ' and ' || i.stayed
              from file_mgr.cleanup_runs c
              cross join lateral (select count(*) filter (where state = 'deleted') as gone, count(*) filter (where state = 'skipped') as stayed,
                                         count(*) filter (where state = 'planned') as open, count(*) as listed
                                  from file_mgr.cleanup_items where run_id = c.id) i
              -- Of former runs the sums alone are kept.
              where (i.listed > 0 or not exists (select from file_mgr.cleanup_runs n where n.schedule_id = c.schedule_id and n.created_at > c.created_at))
                and (c.deleted_count <> i.gone or c.skipped_count <> i.stayed
                 or c.state = 'done' and not c.dry_run and i.open > 0)
              union all
              select 'clean-up ' || c.id || ' is ' || c.state || ', its run ' || r.state
              from file_mgr.cleanup_runs c join workflow.runs r on r.id = c.workflow_run_id
              where c.finished_at is null and r.finished_at < workflow.now() - interval '5 minutes'",
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
        number: 14,
        rule: "what was sent was tried, and sent once unless nobody can tell",
        sql: "select 'delivery ' || id || ' is ' || state || ' and was never tried' from notification.notification_deliveries
              where state in ('sent', 'delivered') and channel <> 'inapp' and attempt_no = 0
              union all
              select 'key ' || idempotency_key || ' of ' || tenant_id || ' was sent ' || count(*) || ' times'
              from notification.notification_deliveries where state in ('sent', 'delivered')
              group by tenant_id, idempotency_key having count(*) > 1 and not bool_or(outcome_unknown)
              union all
              -- Its key is unique only where it lies in the month of its notification.
              select 'delivery ' || d.id || ' is not of the time of its notification' from notification.notification_deliveries d
              join notification.notifications n on n.id = d.notification_id where n.created_at <> d.created_at",
    },
    Invariant {
        number: 15,
        rule: "an event is told to every webhook that was waiting for it, once",
        sql: "select 'event ' || e.id || ' has no delivery to webhook ' || w.id
              from identity.tenant_webhook_events e
              join identity.tenant_webhooks w on w.tenant_id = e.tenant_id and w.state = 'active'
              -- Since when it is as it is. What tries a webhook is for that one alone.
              where w.updated_at < e.occurred_at - interval '10 seconds' and (e.type = any (w.event_types) or '*' = any (w.event_types))
                and e.type <> 'webhook.test'
                and e.created_at < workflow.now() - interval '1 minute'
                and e.occurred_at >= (select date_trunc('month', workflow.now()) - make_interval(months => keep_months - 1)
                                      from platform.time_series where name = 'identity.tenant_webhook_deliveries')
                and not exists (select from identity.tenant_webhook_deliveries d
                                where d.occurred_at = e.occurred_at and d.webhook_id = w.id and d.event_id = e.id and d.replay_no = 0)
              union all
              select 'the delivery of event ' || d.event_id || ' is not of its time' from identity.tenant_webhook_deliveries d
              join identity.tenant_webhook_events e on e.id = d.event_id where d.occurred_at <> e.occurred_at
              union all
              select 'the delivery of event ' || event_id || ' counts as delivered with status ' || coalesce(last_status::text, 'none')
              from identity.tenant_webhook_deliveries where state = 'delivered' and (last_status between 200 and 299) is not true",
    },
    Invariant {
        number: 15,
        rule: "a delivery knows its attempts, ended with the last of them, and has a run until it ends",
        sql: "select 'delivery ' || d.id || ' is ' || d.state || ' after ' || d.attempt_no || ' attempts, and knows of ' || jsonb_array_length(d.attempts)
              from identity.tenant_webhook_deliveries d
              where jsonb_array_length(d.attempts) <> d.attempt_no
                 or d.state = 'delivered' and (d.attempt_no = 0 or (d.attempts -> -1 ->> 'status')::int is distinct from d.last_status)
                 or d.state = 'failed' and d.attempt_no = 0 and d.last_error is distinct from 'webhook.abandoned'
                 or d.attempts @? '$[0 to last - 1] ? (@.status >= 200 && @.status < 300)'
                 or (d.state = 'pending') < (d.next_at is not null)
              union all
              select 'delivery ' || d.id || ' is pending, its run ' || coalesce(r.state, 'not there')
              from identity.tenant_webhook_deliveries d left join workflow.runs r on r.id = d.workflow_run_id
              where d.state = 'pending' and (r.id is null or r.tenant_id <> d.tenant_id or r.finished_at < workflow.now() - interval '5 minutes')
              union all
              select 'delivery ' || d.id || ' is the repetition ' || d.replay_no || ' of what was never sent'
              from identity.tenant_webhook_deliveries d where d.replay_no > 0
                and not exists (select from identity.tenant_webhook_deliveries o where o.occurred_at = d.occurred_at
                                and o.webhook_id = d.webhook_id and o.event_id = d.event_id and o.replay_no = d.replay_no - 1)",
    },
    Invariant {
        number: 16,
        rule: "a time of a schedule led to one decision, by its policy, and to one run at most",
        sql: "select 'schedule ' || s.name || ' at ' || f.nominal_at || ': ' || w.what
              from workflow.schedule_fires f
              join workflow.schedules s on s.id = f.schedule_id
              left join workflow.runs r on r.id = f.run_id
              cross join lateral (values
                  ('its run is another tenant''s', r.tenant_id <> s.tenant_id),
                  ('its run is also of another time', f.run_id is not null and exists (
                      select from workflow.schedule_fires o where o.run_id = f.run_id and (o.schedule_id, o.nominal_at) <> (f.schedule_id, f.nominal_at))),
                  ('decided before it came', f.decided_at < f.nominal_at),
                  ('decided, and to be decided again', f.nominal_at > s.decided_until and f.decision <> 'manual'),
                  -- What was decided by terms that are no longer known is not judged.
                  ('missed, though it could be caught up with', f.revision = s.revision and f.decision = 'missed'
                      and s.catch_up = 'all' and f.decided_at - f.nominal_at < make_interval(secs => s.catch_up_seconds)),
                  (f.decision || ', though runs may overlap', f.revision = s.revision and s.overlap = 'allow'
                      and f.decision in ('overlapped', 'buffered', 'superseded')),
                  ('buffered, though it should be left out', f.revision = s.revision and s.overlap = 'skip' and f.decision = 'buffered')
              ) w (what, wrong) where w.wrong",
    },
    Invariant {
        number: 17,
        rule: "what belongs to a run is of its tenant",
        sql: "select w.what || ' of run ' || r.id from workflow.runs r
              join (select 'a task' as what, run_id, tenant_id from workflow.tasks
                    union all select 'record ' || seq, run_id, tenant_id from workflow.steps
                    union all select 'an attempt', run_id, tenant_id from workflow.attempts
                    union all select 'the attributes', run_id, tenant_id from workflow.run_attributes
                    union all select 'a child', parent_run_id, tenant_id from workflow.runs where parent_run_id is not null
                    union all select 'the key ' || business_key, run_id, tenant_id from workflow.run_keys) w on w.run_id = r.id
              where w.tenant_id <> r.tenant_id",
    },
    Invariant {
        number: 19,
        rule: "a run that goes on has a task that makes it go on",
        sql: "select 'run ' || r.id || ' (' || r.kind || ')' from workflow.runs r
              where r.state = 'running' and not exists (select from workflow.tasks t where t.run_id = r.id and t.kind = 'run')",
    },
    Invariant {
        number: 20,
        rule: "what a provider told us and signed is dealt with within a minute",
        sql: "select 'event ' || event_id || ' of ' || provider from identity.payment_events
              where signature_ok and processed_at is null and received_at < workflow.now() - interval '1 minute'",
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
    Invariant {
        number: 25,
        rule: "what was used on a day that is final is what its sources say, with its corrections",
        sql: "select b.metric || ' of ' || b.tenant_id || ' on ' || d.day || ': ' || b.told || ', by its sources ' || b.found
              -- Two months: as far back as every source is kept for certain.
              from (select distinct day from identity.tenant_usage_daily
                    where final and day >= (workflow.now() at time zone 'UTC')::date - 60) d
              cross join lateral (
                  select coalesce(u.tenant_id, s.tenant_id) as tenant_id, coalesce(u.metric, s.metric) as metric,
                         coalesce(u.quantity, 0) as told, coalesce(s.quantity, 0) as found
                  from (select t.tenant_id, t.metric, t.quantity + (select coalesce(sum(delta), 0) from identity.tenant_usage_corrections c
                            where (c.tenant_id, c.day, c.metric) = (t.tenant_id, t.day, t.metric)) as quantity
                        from identity.tenant_usage_daily t where t.day = d.day) u
                  full join identity.usage_of(d.day) s on s.tenant_id = u.tenant_id and s.metric = u.metric) b
              where b.told <> b.found",
    },
];

/// No picture is kept in a row where real ones are made: those are the mock's. No event is told without TLS.
pub(super) const NO_MOCKS: Invariant = Invariant {
    number: 13,
    rule: "no picture of the mock and no webhook without TLS is left in production",
    sql: "select 'scene ' || id from content.scenes where snapshot_url like 'data:%'
          union all select 'snapshot ' || id from render.snapshots where public_url like 'data:%'
          union all select 'webhook ' || id from identity.tenant_webhooks where url not like 'https:%'",
};
