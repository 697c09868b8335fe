-- Operations: what people may do to runs, and what they need to see. See 31_workflow_engine.sql.
--
--   audit            one row per operation, in its transaction; append only
--   run_attributes   what a run may be found by, besides its columns; apart from the hot rows
--   run_lineage      which run was made from which
--   queue_controls   queues that nobody may claim from
--   run_counts       runs by kind, tenant and state; run_count_deltas: what happened since it was last folded
--   bulk_*           one operation on many runs: a frozen set, and what became of each
--   worker_offers    what live workers can do; remote_workers: who claims over HTTP
--
-- A function that changes a leased task either leaves its lease alone or ends it: the attempt is noted, the token is
-- gone, and whatever its holder still writes is refused.

-- ---------------------------------------------------------------------------------------- audit

create table workflow.audit (
    id        bigint generated always as identity primary key,
    at        timestamptz not null,
    actor     text not null check (octet_length(actor) between 1 and 200),
    action    text not null check (action ~ '^[a-z_]{1,40}$'),
    tenant_id uuid,
    target    text not null check (octet_length(target) between 1 and 250),
    reason    text check (octet_length(reason) <= 1000),
    before    jsonb,
    after     jsonb
);
comment on column workflow.audit.target is 'run:<id>, task:<id>, job:<id>, queue:<name>, bulk:<id>.';
create index audit_of_target on workflow.audit (target, id);
create index audit_of_tenant on workflow.audit (tenant_id, id) where tenant_id is not null;
create trigger audit_append_only before update or delete on workflow.audit
    for each row execute function workflow.refuse_change();

-- ---------------------------------------------------------------------------------------- finding runs

create table workflow.run_attributes (
    run_id     uuid primary key,
    tenant_id  uuid not null,
    attributes jsonb not null check (jsonb_typeof(attributes) = 'object' and octet_length(attributes::text) <= 8192)
) partition by range (run_id);
comment on column workflow.run_attributes.run_id is 'softref:workflow.runs(id).';
create index run_attributes_search on workflow.run_attributes using gin (attributes jsonb_path_ops);

-- Failures with one cause have one fingerprint: the code, and a hash of the message without what differs each time.
create function workflow.fingerprint(p_failure jsonb) returns text language sql immutable parallel safe as $$
    select coalesce(p_failure ->> 'code', 'unknown') || ':' || left(md5(
        regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
            left(lower(coalesce(p_failure ->> 'message', '')), 1000),
            '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '<id>', 'g'),
            '"[^"]*"|''[^'']*''|`[^`]*`', '<text>', 'g'),
            '(/[^\s:,;]+)+', '<path>', 'g'),
            '\m[0-9a-f]{8,}\M', '<hex>', 'g'),
            '[0-9]+(\.[0-9]+)?', '<n>', 'g')), 12)
$$;

-- Null for every run that has not failed: the indexes hold failures only, and the end of a good run touches none of them.
-- locks: workflow.runs, which is empty: it was made right before.
alter table workflow.runs add column error_fingerprint text,
    add constraint an_error_has_a_fingerprint check ((error is null) = (error_fingerprint is null));
create index runs_by_fingerprint on workflow.runs (error_fingerprint, id) where error_fingerprint is not null;
create index runs_failed on workflow.runs (id) where error_fingerprint is not null;
create index runs_failed_of_tenant on workflow.runs (tenant_id, id) where error_fingerprint is not null;

-- ---------------------------------------------------------------------------------------- counters

create table workflow.run_counts (
    kind      text not null,
    tenant_id uuid not null,
    state     text not null,
    n         bigint not null,
    primary key (kind, tenant_id, state)
);
create table workflow.run_count_deltas (
    kind      text not null,
    tenant_id uuid not null,
    state     text not null,
    n         bigint not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table workflow.run_count_deltas is 'A row per statement and group, never updated; a run is counted by run_counts and these together.';

create function workflow.count_started() returns trigger language plpgsql as $$
begin
    insert into workflow.run_count_deltas (kind, tenant_id, state, n)
    select kind, tenant_id, state, count(*) from fresh group by kind, tenant_id, state;
    return null;
end $$;
create trigger runs_count_started after insert on workflow.runs
    referencing new table as fresh for each statement execute function workflow.count_started();

create function workflow.count_changed() returns trigger language plpgsql as $$
begin
    insert into workflow.run_count_deltas (kind, tenant_id, state, n)
    select kind, tenant_id, state, sum(n) from (
        select a.kind, a.tenant_id, a.state, -1 as n from before a
        union all
        select b.kind, b.tenant_id, b.state, 1 from after b) c
    group by kind, tenant_id, state having sum(n) <> 0;
    return null;
end $$;
create trigger runs_count_changed after update on workflow.runs
    referencing old table as before new table as after for each statement execute function workflow.count_changed();

create function workflow.count_gone() returns trigger language plpgsql as $$
begin
    insert into workflow.run_count_deltas (kind, tenant_id, state, n)
    select kind, tenant_id, state, -count(*) from gone group by kind, tenant_id, state;
    return null;
end $$;
create trigger runs_count_gone after delete on workflow.runs
    referencing old table as gone for each statement execute function workflow.count_gone();

-- Folds up to `p_limit` deltas into the counts. One at a time; answers how many it folded.
create function workflow.fold_counts(p_limit int) returns bigint language plpgsql as $$
declare
    v_folded bigint;
begin
    if not pg_try_advisory_xact_lock(17997, 1) then
        return 0;
    end if;
    with taken as (
        delete from workflow.run_count_deltas
        where ctid = any (array (select ctid from workflow.run_count_deltas limit p_limit))
        returning kind, tenant_id, state, n
    ), summed as (
        select kind, tenant_id, state, sum(n) as n, count(*) as rows from taken group by kind, tenant_id, state
    ), written as (
        insert into workflow.run_counts as c (kind, tenant_id, state, n)
        select kind, tenant_id, state, n from summed
        on conflict (kind, tenant_id, state) do update set n = c.n + excluded.n
    )
    select coalesce(sum(rows), 0) into v_folded from summed;
    return v_folded;
end $$;

create view workflow.run_totals as
    select kind, tenant_id, state, sum(n)::bigint as n from (
        select kind, tenant_id, state, n from workflow.run_counts
        union all
        select kind, tenant_id, state, n from workflow.run_count_deltas) c
    group by kind, tenant_id, state having sum(n) <> 0;

-- ---------------------------------------------------------------------------------------- queues and workers

create table workflow.queue_controls (
    queue     text primary key,
    paused_at timestamptz not null,
    paused_by text not null check (octet_length(paused_by) <= 200),
    reason    text check (octet_length(reason) <= 1000)
);
comment on table workflow.queue_controls is 'A row: nobody claims from this queue. What is leased goes on.';

create table workflow.worker_offers (
    worker_id bigint not null references workflow.workers,
    queue     text not null,
    names     text[] not null,
    labels    jsonb not null,
    slots     int not null,
    primary key (worker_id, queue)
);

create table workflow.remote_workers (
    name    text primary key check (octet_length(name) <= 200),
    queues  text[] not null,
    labels  jsonb not null,
    seen_at timestamptz not null
);
comment on table workflow.remote_workers is 'Who claims over HTTP, noted at most twice a minute each.';

-- ---------------------------------------------------------------------------------------- one run

create table workflow.run_lineage (
    run_id        uuid primary key,
    origin_run_id uuid not null,
    root_run_id   uuid not null,
    how           text not null check (how in ('retry', 'fork')),
    from_key      text,
    copied        bigint not null,
    edited        boolean not null,
    created_at    timestamptz not null
);
comment on table workflow.run_lineage is 'softref:workflow.runs(id), all three.';
comment on column workflow.run_lineage.copied is 'Its first so many records are those of its origin.';
create index run_lineage_of_origin on workflow.run_lineage (origin_run_id);
create index run_lineage_of_root on workflow.run_lineage (root_run_id);

-- The outcomes of all functions below: done; not_found; moved: it is no longer in a state that this makes sense for;
-- conflict: something else stands in its way; no_such_step.

-- Ends the pause of an activity after a failure.
create function workflow.retry_now(p_task bigint) returns text language plpgsql as $$
declare
    v_task workflow.tasks;
begin
    select * into v_task from workflow.tasks where id = p_task for update;
    if not found then
        return 'not_found';
    elsif v_task.kind <> 'activity' or v_task.state <> 'waiting' then
        return 'moved';
    end if;
    update workflow.tasks set state = 'ready', run_at = workflow.now() where id = p_task;
    return 'done';
end $$;

-- Locks a task and its run.
create function workflow.lock_run_of(p_task bigint) returns void language plpgsql as $$
begin
    perform workflow.lock_tasks(array (
        select r.id from workflow.tasks t join workflow.tasks r on r.run_id = t.run_id and (r.id = t.id or r.kind = 'run')
        where t.id = p_task));
end $$;

-- Takes a task away from its holder; neither a failure nor a loss. An activity that was asked to stop is over with that.
create function workflow.force_release(p_task bigint, p_why text) returns text language plpgsql as $$
declare
    v_task workflow.tasks;
begin
    lock table only workflow.runs in access share mode;
    perform workflow.lock_run_of(p_task);
    select * into v_task from workflow.tasks where id = p_task;
    if not found then
        return 'not_found';
    elsif v_task.state <> 'leased' then
        return 'moved';
    end if;
    insert into workflow.attempts
        (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome, failure)
    values (v_task.id, v_task.attempt_no, v_task.run_id, v_task.tenant_id, v_task.step_key, v_task.lease_token, v_task.leased_by,
            v_task.leased_at, workflow.now(), 'released',
            jsonb_build_object('code', 'workflow.force_released', 'message', left(p_why, 500), 'retryable', true));
    if v_task.kind = 'activity' and v_task.cancel_requested then
        delete from workflow.tasks where id = p_task;
        perform workflow.record(array[row (v_task.run_id, v_task.step_key, 'activity', v_task.activity, 'cancelled', null,
                                           workflow.cancelled_failure(), v_task.attempt_no, null)::workflow.fact]);
        return 'done';
    end if;
    update workflow.tasks
    set state = 'ready', run_at = workflow.now(), lease_token = null, leased_by = null, worker_id = null, leased_at = null,
        lease_expires_at = null, progress = null
    where id = p_task;
    return 'done';
end $$;

-- Records an output for an activity that has none yet; whoever works on it loses the lease.
create function workflow.skip_activity(p_task bigint, p_output jsonb) returns text language plpgsql as $$
declare
    v_task workflow.tasks;
begin
    lock table only workflow.runs in access share mode;
    perform workflow.lock_run_of(p_task);
    delete from workflow.tasks where id = p_task and kind = 'activity' returning * into v_task;
    if not found then
        return case when exists (select from workflow.tasks where id = p_task) then 'moved' else 'not_found' end;
    end if;
    if v_task.state = 'leased' then
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
        values (v_task.id, v_task.attempt_no, v_task.run_id, v_task.tenant_id, v_task.step_key, v_task.lease_token,
                v_task.leased_by, v_task.leased_at, workflow.now(), 'cancelled');
    end if;
    perform workflow.record(array[row (v_task.run_id, v_task.step_key, 'activity', v_task.activity, 'ok', p_output, null,
                                       v_task.attempt_no, null)::workflow.fact]);
    return 'done';
end $$;

-- Changes the priority of a live run and of what it has asked for; leases go on.
create function workflow.set_priority(p_run uuid, p_priority smallint) returns text language plpgsql as $$
begin
    lock table only workflow.runs in access share mode;
    perform workflow.lock_tasks(array (select id from workflow.tasks where run_id = p_run));
    update workflow.tasks set priority = p_priority where run_id = p_run;
    if not found then
        return case when exists (select from workflow.runs where id = p_run) then 'moved' else 'not_found' end;
    end if;
    update workflow.runs set priority = p_priority where id = p_run;
    return 'done';
end $$;

-- Makes a run out of another: the records before the step `p_from` are copied, the rest happens anew. `p_from` null: the
-- step whose failure ended the run, or the beginning when the run has taken back what it had done. The origin is not touched. A retry is of a run that did not succeed, one at a time.
-- `p_step`, if given, is the activity of that step as it is to be done now: {activity, queue, input, labels, limit_key, warm_key,
-- policy}.
create function workflow.fork_run(p_origin uuid, p_new uuid, p_how text, p_from text, p_input jsonb, p_version int, p_step jsonb)
returns text language plpgsql as $$
declare
    v_now timestamptz := workflow.now();
    v_origin workflow.runs;
    v_root uuid;
    v_from text := p_from;
    v_before bigint;
    v_copied bigint;
begin
    lock table only workflow.runs in access share mode;
    select * into v_origin from workflow.runs where id = p_origin;
    if not found then
        return 'not_found';
    end if;
    v_root := coalesce((select root_run_id from workflow.run_lineage where run_id = p_origin), p_origin);
    perform pg_advisory_xact_lock(17998, hashtext(v_root::text));
    if p_how = 'retry' then
        if v_origin.state not in ('failed', 'cancelled') then
            return 'moved';
        elsif exists (select from workflow.run_lineage l join workflow.runs r on r.id = l.run_id
                      where l.root_run_id = v_root and l.how = 'retry' and r.state in ('running', 'succeeded')) then
            return 'conflict';
        elsif v_origin.error ->> 'code' = 'workflow.compensation_failed' then
            -- Something of it still stands: a second one beside it is for people to decide.
            return 'conflict';
        end if;
    end if;

    if v_from is null and exists (
        select from workflow.steps m where m.run_id = p_origin and m.kind = 'compensation'
            and exists (select from workflow.steps u where u.run_id = p_origin and u.key = substr(m.key, 13))) then
        v_before := 1;
    elsif v_from is null then
        select s.key into v_from from workflow.steps s
        where s.run_id = p_origin and s.outcome <> 'ok'
        order by s.failure ->> 'code' is distinct from v_origin.error ->> 'code', s.seq limit 1;
    end if;
    if v_from is not null then
        select seq into v_before from workflow.steps where run_id = p_origin and key = v_from;
    end if;
    if v_before is null and p_from is not null
       and not exists (select from workflow.tasks where run_id = p_origin and kind = 'activity' and step_key = p_from) then
        return 'no_such_step';
    end if;
    -- Nothing of a cancellation, or of what came after it, is what a new run wants.
    v_before := least(coalesce(v_before, 'infinity'::float8),
        coalesce((select seq from workflow.steps where run_id = p_origin and kind = 'cancel'), 'infinity'::float8),
        (select count(*) + 1 from workflow.steps where run_id = p_origin));

    insert into workflow.runs (id, tenant_id, kind, version, input, priority, created_at, traceparent)
    values (p_new, v_origin.tenant_id, v_origin.kind, coalesce(p_version, v_origin.version), coalesce(p_input, v_origin.input),
            v_origin.priority, v_now, v_origin.traceparent);
    insert into workflow.steps
        (run_id, seq, tenant_id, key, kind, name, outcome, output, failure, attempt_no, recorded_at)
    select p_new, seq, tenant_id, key, kind, name, outcome, output, failure, attempt_no, recorded_at
    from workflow.steps where run_id = p_origin and seq < v_before;
    get diagnostics v_copied = row_count;
    insert into workflow.tasks
        (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses,
         backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, wake_seq, traceparent)
    select 'run', id, tenant_id, '', 'workflows', kind || '.v' || version, priority, v_now, 1, 10, 0, 0, 30, 1e9, v_copied, traceparent
    from workflow.runs where id = p_new;
    if p_step is not null then
        insert into workflow.tasks
            (kind, run_id, tenant_id, step_key, queue, activity, input, required_labels, priority, run_at, max_failures,
             max_losses, backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, traceparent, limit_key,
             warm_key)
        select 'activity', p_new, v_origin.tenant_id, v_from, g.queue, g.activity, coalesce(g.input, 'null'),
               coalesce(g.labels, '{}'), v_origin.priority, v_now, g.max_failures, g.max_losses, g.backoff_base, g.backoff_cap,
               g.lease, g.start_to_close, v_origin.traceparent, coalesce(g.limit_key, ''), g.warm_key
        from jsonb_to_record(p_step) as g (queue text, activity text, input jsonb, labels jsonb, max_failures int,
            max_losses int, backoff_base float8, backoff_cap float8, lease float8, start_to_close float8, limit_key text,
            warm_key text)
        where v_from is not null;
    end if;
    insert into workflow.run_lineage
    values (p_new, p_origin, v_root, p_how, v_from, v_copied, p_input is not null or p_step is not null, v_now);
    insert into workflow.run_attributes select p_new, tenant_id, attributes from workflow.run_attributes where run_id = p_origin;
    return 'done';
end $$;

-- Removes a run that is over, its record and its attempts; what was decided about it stays in the audit. For single runs
-- that nobody may keep: age is a matter of retention.
-- With its maker's rights: no service may delete records.
create function workflow.purge_run(p_run uuid) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_gone int;
begin
    -- Not while retention counts what goes.
    perform pg_advisory_xact_lock_shared(17997, 2);
    lock table only workflow.runs in access share mode;
    if exists (select from workflow.tasks where run_id = p_run) then
        return 'moved';
    end if;
    perform set_config('workflow.purging', 'on', true);
    delete from workflow.attempts where run_id = p_run;
    delete from workflow.steps where run_id = p_run;
    delete from workflow.run_attributes where run_id = p_run;
    delete from workflow.run_keys k using workflow.runs r
    where r.id = p_run and k.kind = r.kind and k.tenant_id = r.tenant_id and k.business_key = r.business_key and k.run_id = p_run;
    delete from workflow.runs where id = p_run;
    get diagnostics v_gone = row_count;
    perform set_config('workflow.purging', '', true);
    return case when v_gone > 0 then 'done' else 'not_found' end;
end $$;

revoke execute on function workflow.purge_run from public;

create or replace function workflow.refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and tg_argv[0] in ('steps', 'attempts') and current_setting('workflow.purging', true) = 'on' then
        return old;
    end if;
    raise exception 'workflow.% is append only', coalesce(tg_argv[0], tg_table_name) using errcode = 'integrity_constraint_violation';
end $$;

-- ---------------------------------------------------------------------------------------- many runs

create table workflow.bulk_operations (
    id              uuid primary key,
    actor           text not null check (octet_length(actor) between 1 and 200),
    action          text not null check (action in ('retry', 'cancel', 'set_priority')),
    params          jsonb not null default '{}',
    filter          jsonb not null,
    reason          text not null check (octet_length(reason) between 1 and 1000),
    state           text not null check (state in ('previewed', 'running', 'paused', 'aborted', 'finished')),
    rate_per_second float8 check (rate_per_second between 0.001 and 100000),
    total           int not null,
    next_n          int not null default 1,
    done            int not null default 0,
    skipped         int not null default 0,
    conflicts       int not null default 0,
    failed          int not null default 0,
    created_at      timestamptz not null,
    started_at      timestamptz,
    last_batch_at   timestamptz,
    finished_at     timestamptz
);
comment on column workflow.bulk_operations.next_n is 'The first item that nothing has been done about. Items and this number commit together.';
create index bulk_running on workflow.bulk_operations (id) where state = 'running';

create table workflow.bulk_items (
    bulk_id       uuid not null references workflow.bulk_operations,
    n             int not null,
    run_id        uuid not null,
    outcome       text check (outcome in ('done', 'skipped', 'conflict', 'failed')),
    note          text,
    result_run_id uuid,
    done_at       timestamptz,
    primary key (bulk_id, n),
    unique (bulk_id, run_id)
);
