-- The durable workflow engine: runs, their record, one hot queue, and who is working on it.
--
--   runs      what was asked for and how it ended; one row a run, for ever
--   steps     the record of a run: what has happened, in which order; append only
--   tasks     what is left to do: one row a live run, one a live activity; a finished task leaves the table
--   attempts  every claim and what became of it; append only
--   workers   one row per incarnation of a worker process; an id is never used twice
--
-- A task:   ready ──claim──▶ leased ──ok, failed for good, cancelled──▶ (recorded in steps, deleted)
--             ▲                │
--             │   due          ├─ failed, parked ──▶ waiting ──┐
--             └────────────────┴─ lost, released               │
--             └────────────────────────────────────────────────┘
--
-- Rules that every function below keeps:
--   * The lease token is the fence. A worker's write names task and token and changes nothing otherwise.
--   * Locks on tasks are taken in the order of their ids, or without waiting: no two writers can deadlock.
--   * A record gets its number from the task of its run, whose row is locked until the commit: numbers of a
--     run have no gaps and become visible in order.

create schema if not exists workflow;

-- ---------------------------------------------------------------------------------------- the clock

create table workflow.clock (
    only_row   boolean primary key default true check (only_row),
    moved_by   interval not null default '0'
);
comment on table workflow.clock is 'One row. Tests move time here, for all sessions at once; always 0 otherwise.';
insert into workflow.clock default values;

-- The only clock of the engine. Stable, so that an index can answer `run_at <= workflow.now()`; every statement
-- reads the time anew. plpgsql, because its plan is kept: a SQL function would be planned at each call.
create function workflow.now() returns timestamptz language plpgsql stable parallel safe as $$
begin
    return clock_timestamp() + (select moved_by from workflow.clock);
end $$;

-- ---------------------------------------------------------------------------------------- tables

create table workflow.runs (
    id                  uuid primary key,
    tenant_id           uuid not null,
    kind                text not null check (kind ~ '^[a-z][a-z0-9_.]{0,62}$'),
    version             int not null check (version > 0),
    business_key        text check (octet_length(business_key) between 1 and 200),
    state               text not null default 'running' check (state in ('running', 'succeeded', 'failed', 'cancelled')),
    input               jsonb not null check (octet_length(input::text) <= 262144),
    output              jsonb check (octet_length(output::text) <= 262144),
    error               jsonb check (octet_length(error::text) <= 262144),
    priority            smallint not null default 0,
    cancel_requested_at timestamptz,
    cancel_reason       text check (octet_length(cancel_reason) <= 1000),
    created_at          timestamptz not null,
    finished_at         timestamptz,
    unique (tenant_id, id),
    unique (kind, tenant_id, business_key),
    constraint a_finished_run_has_an_end check ((state = 'running') = (finished_at is null)),
    constraint a_failed_run_has_an_error check ((state in ('failed', 'cancelled')) = (error is not null)),
    constraint only_success_has_output check (output is null or state = 'succeeded'),
    constraint a_reason_needs_a_cancellation check (cancel_reason is null or cancel_requested_at is not null)
);
comment on column workflow.runs.business_key is
    'What the run is about, such as an order: one run for ever per kind, tenant and key. Null: no such promise.';

create table workflow.steps (
    run_id      uuid not null references workflow.runs,
    seq         bigint not null check (seq > 0),
    tenant_id   uuid not null,
    key         text not null check (octet_length(key) between 1 and 200),
    kind        text not null check (kind in ('step', 'activity', 'timer', 'cancel')),
    name        text,
    outcome     text not null check (outcome in ('ok', 'failed', 'cancelled')),
    output      jsonb check (octet_length(output::text) <= 262144),
    failure     jsonb check (octet_length(failure::text) <= 262144),
    attempt_no  int not null default 0,
    lease_token uuid,
    recorded_at timestamptz not null,
    primary key (run_id, key),
    unique (run_id, seq),
    constraint a_failure_says_why check ((outcome = 'ok') = (failure is null)),
    constraint only_success_has_output check (output is null or outcome = 'ok')
);
comment on column workflow.steps.seq is 'From 1, without gaps, in the order of commits: a replay hands the records out in this order.';
comment on column workflow.steps.name is 'The activity; null for other kinds.';
comment on column workflow.steps.lease_token is 'The fence of the attempt that wrote it; null when nobody held a lease.';

create table workflow.workers (
    id           bigint generated always as identity primary key,
    name         text not null check (octet_length(name) <= 200),
    started_at   timestamptz not null,
    seen_at      timestamptz not null,
    suspected_at timestamptz,
    ended_at     timestamptz
);
comment on table workflow.workers is
    'An incarnation holds the advisory lock (17996, id) on a session of its own; a free lock means a dead process.';
create index workers_alive on workflow.workers (id) where ended_at is null;
create index workers_ended on workflow.workers (ended_at) where ended_at is not null;

create table workflow.last_sweep (
    only_row boolean primary key default true check (only_row),
    swept_at timestamptz not null
);
comment on table workflow.last_sweep is
    'One row. When somebody last looked for lost work, by the real clock: a gap means that nobody could renew either.';
insert into workflow.last_sweep (swept_at) values (clock_timestamp());

create table workflow.tasks (
    id                     bigint generated always as identity primary key,
    kind                   text not null check (kind in ('run', 'activity')),
    run_id                 uuid not null references workflow.runs,
    tenant_id              uuid not null,
    step_key               text not null check (octet_length(step_key) <= 200),
    queue                  text not null check (queue ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$'),
    activity               text not null check (octet_length(activity) between 1 and 200),
    input                  jsonb check (octet_length(input::text) <= 262144),
    required_labels        jsonb not null default '{}' check (jsonb_typeof(required_labels) = 'object' and octet_length(required_labels::text) <= 2048),
    priority               smallint not null default 0,
    run_at                 timestamptz not null,
    state                  text not null default 'ready' check (state in ('ready', 'waiting', 'leased')),
    attempt_no             int not null default 0,
    failures               int not null default 0,
    max_failures           int not null check (max_failures > 0),
    losses                 int not null default 0,
    max_losses             int not null check (max_losses > 0),
    backoff_base_seconds   float8 not null check (backoff_base_seconds between 0 and 86400),
    backoff_cap_seconds    float8 not null check (backoff_cap_seconds between 0 and 86400),
    lease_seconds          float8 not null check (lease_seconds between 0.1 and 86400),
    start_to_close_seconds float8 not null check (start_to_close_seconds > 0),
    lease_token            uuid,
    leased_by              text check (octet_length(leased_by) <= 200),
    worker_id              bigint,
    leased_at              timestamptz,
    lease_expires_at       timestamptz,
    progress               jsonb check (octet_length(progress::text) <= 16384),
    cancel_requested       boolean not null default false,
    wake_seq               bigint not null default 0,
    unique (run_id, kind, step_key),
    constraint a_run_has_no_key check ((kind = 'run') = (step_key = '')),
    constraint an_activity_has_input check (kind = 'run' or input is not null),
    constraint only_a_run_counts_records check (kind = 'run' or wake_seq = 0),
    constraint only_a_run_waits_for_ever check (kind = 'run' or run_at < 'infinity'),
    constraint a_lease_is_whole check (
        (state = 'leased') = (lease_token is not null)
        and (state = 'leased') = (leased_by is not null)
        and (state = 'leased') = (leased_at is not null)
        and (state = 'leased') = (lease_expires_at is not null)
        and (state = 'leased' or worker_id is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000,
        autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column workflow.tasks.state is 'ready: may be claimed now. waiting: at run_at, or when a record arrives. leased: somebody works on it.';
comment on column workflow.tasks.wake_seq is 'Number of the newest record of the run. A run may only fall asleep on what it has seen.';
comment on column workflow.tasks.worker_id is 'The incarnation that holds the lease; null for a node that speaks HTTP: its lease can only expire.';

-- The order of the claim, exactly: the scan stops at the first rows it may take.
create index tasks_ready on workflow.tasks (queue, priority desc, run_at, id) where state = 'ready';
create index tasks_due on workflow.tasks (run_at) where state = 'waiting';
-- Not `where state = 'leased'`: the planner, believing that few tasks are leased, would answer completions from it.
create index tasks_leased on workflow.tasks (lease_expires_at) where lease_expires_at is not null;

create table workflow.attempts (
    task_id     bigint not null,
    attempt_no  int not null check (attempt_no > 0),
    run_id      uuid not null,
    tenant_id   uuid not null,
    step_key    text not null,
    lease_token uuid not null,
    worker      text not null,
    started_at  timestamptz not null,
    ended_at    timestamptz not null,
    outcome     text not null check (outcome in ('ok', 'failed', 'lost', 'released', 'cancelled', 'timeout')),
    failure     jsonb,
    primary key (task_id, attempt_no)
);
comment on table workflow.attempts is 'softref:workflow.tasks(task_id), whose rows leave when they are done.';
create index attempts_of_run on workflow.attempts (run_id, step_key);

create function workflow.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'workflow.% is append only', tg_table_name using errcode = 'integrity_constraint_violation';
end $$;
create trigger steps_append_only before update or delete on workflow.steps
    for each row execute function workflow.refuse_change();
create trigger attempts_append_only before update or delete on workflow.attempts
    for each row execute function workflow.refuse_change();

create function workflow.guard_run() returns trigger language plpgsql as $$
begin
    if old.state <> 'running' then
        raise exception 'run % has ended as %', old.id, old.state using errcode = 'integrity_constraint_violation';
    end if;
    if (new.id, new.tenant_id, new.kind, new.version, new.business_key, new.input, new.created_at)
       is distinct from (old.id, old.tenant_id, old.kind, old.version, old.business_key, old.input, old.created_at) then
        raise exception 'what run % was asked to do cannot change', old.id using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger runs_guard before update on workflow.runs for each row execute function workflow.guard_run();

-- ---------------------------------------------------------------------------------------- writing the record

-- A record about to be written.
create type workflow.fact as (
    run_id uuid, key text, kind text, name text, outcome text, output jsonb, failure jsonb,
    attempt_no int, lease_token uuid);

-- What the engine tells a worker after a round trip. `what` is one of
--   settled   task_id, lease_token: a write with this fence was accepted
--   recorded  run_id, step_key, name (outcome), body (failure), seq, at, worker_id (who holds the run, if anyone)
--   woken     queue: has ready work that it did not have before
--   run       a claimed run: body = input, seq = newest record, at = creation
--   activity  a claimed activity: body = input, at = since when it was ready
--   clock     at = now, lease_seconds = seconds until the next task falls due
create type workflow.news as (
    what text, queue text, task_id bigint, run_id uuid, tenant_id uuid, step_key text, name text, body jsonb,
    attempt_no int, lease_token uuid, lease_seconds float8, start_to_close_seconds float8,
    seq bigint, at timestamptz, worker_id bigint);

create function workflow.told(p_what text, p_queue text, p_task bigint, p_token uuid) returns setof workflow.news language sql immutable as $$
    select p_what, p_queue, p_task, null::uuid, null::uuid, null::text, null::text, null::jsonb, null::int, p_token,
           null::float8, null::float8, null::bigint, null::timestamptz, null::bigint
$$;

-- Locks tasks in the order of their ids, so that two writers wait for each other in one direction only.
create function workflow.lock_tasks(p_ids bigint[]) returns void language plpgsql as $$
begin
    perform 1 from workflow.tasks where id = any (p_ids) order by id for update;
end $$;

-- Appends facts to the records of their runs and wakes runs that sleep. The tasks of the runs must be locked
-- by the caller. A run that has ended records nothing; a key that is recorded already stays as it is.
create function workflow.record(p_facts workflow.fact[]) returns setof workflow.news
language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
begin
    return query
    with given as (
        select f.*, row_number() over (partition by f.run_id order by f.place) as n
        from unnest(p_facts) with ordinality
             as f (run_id, key, kind, name, outcome, output, failure, attempt_no, lease_token, place)
        where not exists (select from workflow.steps s where s.run_id = f.run_id and s.key = f.key)
    ), bumped as (
        update workflow.tasks t
        set wake_seq = t.wake_seq + g.n, losses = 0,
            run_at = case t.state when 'waiting' then v_now else t.run_at end,
            state = case t.state when 'waiting' then 'ready' else t.state end
        from (select run_id, count(*) as n from given group by run_id) g
        where t.run_id = g.run_id and t.kind = 'run' and t.step_key = ''
        returning t.run_id, t.tenant_id, t.queue, t.wake_seq - g.n as base, t.state, t.worker_id
    ), written as (
        insert into workflow.steps
            (run_id, seq, tenant_id, key, kind, name, outcome, output, failure, attempt_no, lease_token, recorded_at)
        select g.run_id, b.base + g.n, b.tenant_id, g.key, g.kind, g.name, g.outcome, g.output, g.failure,
               coalesce(g.attempt_no, 0), g.lease_token, v_now
        from given g join bumped b on b.run_id = g.run_id
        returning run_id, seq, key, outcome, failure, attempt_no, lease_token, recorded_at
    )
    select 'recorded', case b.state when 'ready' then b.queue end, null::bigint, w.run_id, b.tenant_id, w.key, w.outcome,
           w.failure, w.attempt_no, w.lease_token, null::float8, null::float8, w.seq, w.recorded_at, b.worker_id
    from written w join bumped b on b.run_id = w.run_id
    order by w.run_id, w.seq;
end $$;

-- ---------------------------------------------------------------------------------------- ends of attempts

-- When a failed attempt may be repeated: what the other side asked for (at most a day), else exponential
-- backoff with full jitter. `p_failures` is the number of failures before this one.
create function workflow.retry_delay(p_failures int, p_base float8, p_cap float8, p_failure jsonb)
returns float8 language plpgsql volatile as $$
declare
    v_asked float8 := (p_failure ->> 'retry_after_seconds')::float8;
begin
    if v_asked is not null then
        return greatest(0, least(v_asked, 86400));
    end if;
    return random() * least(p_cap, p_base * power(2, least(p_failures, 40)));
end $$;

-- Ends attempts at activities. `p_attempts` is an array of
--   {task_id, token, outcome: ok|failed|cancelled|released|lost|timeout, output, failure}
-- An entry whose token no longer holds the task changes nothing and is not reported as settled.
create function workflow.settle(p_attempts jsonb) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_facts workflow.fact[];
    v_settled bigint[];
    v_tokens uuid[];
    v_woken text[];
begin
    with given as (
        select g.* from jsonb_to_recordset(p_attempts)
            as g (task_id bigint, token uuid, outcome text, output jsonb, failure jsonb)
    ), judged as materialized (
        select t.id, t.kind, t.run_id, t.tenant_id, t.step_key, t.queue, t.activity, t.attempt_no, t.lease_token,
               t.leased_by, t.leased_at, g.outcome as ended, g.output,
               case when g.outcome = 'lost' and t.losses + 1 >= t.max_losses then jsonb_build_object(
                        'code', 'workflow.lost_too_often', 'retryable', false,
                        'message', format('given up after %s attempts were lost; the last on %s', t.losses + 1, t.leased_by),
                        'details', jsonb_build_object('losses', t.losses + 1, 'worker', t.leased_by))
                    else g.failure end as failure,
               case when g.outcome in ('failed', 'timeout') then 1 else 0 end as failed,
               case when g.outcome = 'lost' then 1 else 0 end as lost,
               case
                   when g.outcome = 'ok' then 'ok'
                   when g.outcome = 'cancelled' then 'cancelled'
                   when g.outcome in ('failed', 'timeout') and not coalesce((g.failure ->> 'retryable')::boolean, false) then 'failed'
                   when t.cancel_requested then 'cancelled'
                   when g.outcome in ('failed', 'timeout') and t.failures + 1 >= t.max_failures then 'failed'
                   when g.outcome = 'lost' and t.losses + 1 >= t.max_losses then 'failed'
                   else 'again'
               end as verdict,
               case
                   when g.outcome in ('failed', 'timeout')
                       then workflow.retry_delay(t.failures, t.backoff_base_seconds, t.backoff_cap_seconds, g.failure)
                   -- Lost for the first time: again at once. After that it may be what kills its workers: apart from
                   -- its neighbours, so that they are not lost with it again.
                   when g.outcome = 'lost' and t.losses > 0
                       then workflow.retry_delay(t.losses - 1, t.backoff_base_seconds, t.backoff_cap_seconds, null)
                   else 0
               end as delay
        from given g
        join workflow.tasks t on t.id = g.task_id and t.lease_token = g.token and t.state = 'leased' and t.kind = 'activity'
    ), noted as (
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome, failure)
        select id, attempt_no, run_id, tenant_id, step_key, lease_token, leased_by, leased_at, v_now, ended,
               case when ended not in ('ok', 'released') then failure end
        from judged
    ), gone as (
        delete from workflow.tasks t using judged j where t.id = j.id and j.verdict <> 'again'
    ), again as (
        update workflow.tasks t
        set state = case when j.delay > 0 then 'waiting' else 'ready' end,
            run_at = v_now + make_interval(secs => j.delay),
            failures = t.failures + j.failed, losses = t.losses + j.lost,
            lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null, progress = null
        from judged j where t.id = j.id and j.verdict = 'again'
    )
    select array_agg(row (run_id, step_key, 'activity', activity, verdict, case verdict when 'ok' then output end,
                          case verdict when 'cancelled' then workflow.cancelled_failure() when 'failed' then failure end,
                          attempt_no, lease_token)::workflow.fact order by id) filter (where verdict <> 'again'),
           array_agg(id), array_agg(lease_token), array_agg(distinct queue) filter (where verdict = 'again' and delay = 0)
    into v_facts, v_settled, v_tokens, v_woken
    from judged;

    return query select t.* from unnest(v_settled, v_tokens) s (id, token)
        cross join lateral workflow.told('settled', null, s.id, s.token) t;
    return query select t.* from unnest(v_woken) q cross join lateral workflow.told('woken', q, null, null) t;
    if v_facts is not null then
        return query select * from workflow.record(v_facts);
    end if;
end $$;

create function workflow.cancelled_failure() returns jsonb language sql immutable as $$
    select '{"code": "workflow.cancelled", "message": "cancelled on request", "retryable": false}'::jsonb
$$;

-- ---------------------------------------------------------------------------------------- progress of runs

-- What executors ask for. `p_ops` is an array of {op, task_id, token, …}, op one of
--   request  key, queue, activity, input, labels, and the policy: schedules an activity; repeating it is harmless
--   timer    key, outcome: a timer is over
--   park     seq, due: sleep until `due` or the next record, unless a record newer than `seq` is there already
--   release  the run is ready for another worker
--   end      state, output, error: the run is over; what it left running is fenced off
-- An op whose token no longer holds the run changes nothing; the others report the task as settled.
create function workflow.advance(p_ops jsonb) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_held bigint[];
    v_tokens uuid[];
    v_woken text[];
    v_facts workflow.fact[];
begin
    -- From here on there are only ops whose fence holds: a stale one may share its batch with a live one of the same run.
    select jsonb_agg(o.op order by o.place) into p_ops
    from jsonb_array_elements(p_ops) with ordinality as o (op, place)
    join workflow.tasks t on t.id = (o.op ->> 'task_id')::bigint and t.lease_token = (o.op ->> 'token')::uuid
        and t.state = 'leased' and t.kind = 'run';
    if p_ops is null then
        return;
    end if;
    select array_agg(task_id), array_agg(token) into v_held, v_tokens
    from (select distinct g.task_id, g.token from jsonb_to_recordset(p_ops) as g (task_id bigint, token uuid)) h;

    with asked as materialized (
        select t.run_id, t.tenant_id, t.priority, t.cancel_requested, g.*
        from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text, queue text, activity text, input jsonb,
            labels jsonb, max_failures int, max_losses int, backoff_base float8, backoff_cap float8,
            lease float8, start_to_close float8)
        join workflow.tasks t on t.id = g.task_id
        where g.op = 'request'
          and not exists (select from workflow.steps s where s.run_id = t.run_id and s.key = g.key)
    ), fresh as (
        insert into workflow.tasks
            (kind, run_id, tenant_id, step_key, queue, activity, input, required_labels, priority, run_at, max_failures,
             max_losses, backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
        select 'activity', run_id, tenant_id, key, queue, activity, coalesce(input, 'null'), coalesce(labels, '{}'), priority,
               v_now, max_failures, max_losses, backoff_base, backoff_cap, lease, start_to_close
        from asked where not cancel_requested
        on conflict (run_id, kind, step_key) do nothing
        returning run_id, queue
    ), forgiven as (
        -- Asking for something new is progress; asking again is what every replay does.
        update workflow.tasks set losses = 0
        where kind = 'run' and step_key = '' and losses > 0 and run_id = any (array (select run_id from fresh))
    )
    select (select array_agg(distinct queue) from fresh),
           (select array_agg(row (run_id, key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(), 0, null)::workflow.fact)
            from asked where cancel_requested)
    into v_woken, v_facts;

    select v_facts || array_agg(row (t.run_id, g.key, 'timer', null, g.outcome, null,
               case g.outcome when 'cancelled' then workflow.cancelled_failure() end, t.attempt_no, t.lease_token)::workflow.fact)
    into v_facts
    from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text, outcome text)
    join workflow.tasks t on t.id = g.task_id
    where g.op = 'timer'
    having count(*) > 0 or v_facts is not null;

    return query select t.* from unnest(v_held, v_tokens) s (id, token)
        cross join lateral workflow.told('settled', null, s.id, s.token) t;
    if v_facts is not null then
        return query select * from workflow.record(v_facts);
    end if;
    return query select * from workflow.leave(p_ops);
    return query select t.* from unnest(v_woken) q cross join lateral workflow.told('woken', q, null, null) t;
end $$;

-- The ops of `advance` that give a run away: park, release, end. Their fences hold.
create function workflow.leave(p_ops jsonb) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_woken text[];
begin
    with given as (
        select g.* from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, seq bigint, due timestamptz)
        where g.op in ('park', 'release')
    ), noted as (
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
        select t.id, t.attempt_no, t.run_id, t.tenant_id, '', t.lease_token, t.leased_by, t.leased_at, v_now, 'released'
        from given g join workflow.tasks t on t.id = g.task_id
    ), left_alone as (
        update workflow.tasks t
        set state = case when g.op = 'park' and t.wake_seq = g.seq then 'waiting' else 'ready' end,
            run_at = case when g.op = 'park' and t.wake_seq = g.seq then coalesce(g.due, 'infinity') else v_now end,
            lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null
        from given g where t.id = g.task_id
        returning t.queue, t.state
    )
    select array_agg(distinct queue) filter (where state = 'ready') into v_woken from left_alone;
    return query select t.* from unnest(v_woken) q cross join lateral workflow.told('woken', q, null, null) t;

    perform workflow.end_run(g.task_id, g.state, g.output, g.error)
    from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, state text, output jsonb, error jsonb)
    where g.op = 'end';
end $$;

-- Ends a run whose tasks the caller has locked. Activities it did not wait for are recorded as cancelled;
-- whoever works on one loses the lease.
create function workflow.end_run(p_task bigint, p_state text, p_output jsonb, p_error jsonb) returns void
language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_run workflow.tasks;
    v_facts workflow.fact[];
begin
    select * into v_run from workflow.tasks where id = p_task;
    with left_over as (
        delete from workflow.tasks t where t.run_id = v_run.run_id and t.kind = 'activity' returning t.*
    ), noted as (
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
        select id, attempt_no, run_id, tenant_id, step_key, lease_token, leased_by, leased_at, v_now, 'cancelled'
        from left_over where state = 'leased'
    )
    select array_agg(row (run_id, step_key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(),
                          attempt_no, lease_token)::workflow.fact order by id)
    into v_facts from left_over;
    if v_facts is not null then
        perform workflow.record(v_facts);
    end if;
    if v_run.lease_token is not null then
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome, failure)
        values (v_run.id, v_run.attempt_no, v_run.run_id, v_run.tenant_id, '', v_run.lease_token, v_run.leased_by, v_run.leased_at,
                v_now, case p_state when 'succeeded' then 'ok' else p_state end, p_error);
    end if;
    delete from workflow.tasks where id = p_task;
    update workflow.runs set state = p_state, output = p_output, error = p_error, finished_at = v_now
    where id = v_run.run_id;
end $$;

-- ---------------------------------------------------------------------------------------- claiming

-- Leases ready tasks to a worker: `p_claims` is an array of {queue, want, names}, names null for any.
-- Never waits: a row that somebody else has locked is skipped. Labels are a filter inside the ordered scan, so work
-- that nobody here may do does not hide the work behind it.
create function workflow.claim(p_claims jsonb, p_labels jsonb, p_worker text, p_worker_id bigint)
returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_claim record;
begin
    for v_claim in
        select c.queue, c.want, c.names from jsonb_to_recordset(p_claims) as c (queue text, want int, names text[])
    loop
        return query
        -- `= any (array (…))`, not a join: with the limit as a parameter the planner would hash the whole table.
        update workflow.tasks t
        set state = 'leased', attempt_no = t.attempt_no + 1, lease_token = gen_random_uuid(), leased_by = p_worker,
            worker_id = p_worker_id, leased_at = v_now, lease_expires_at = v_now + make_interval(secs => t.lease_seconds)
        where t.id = any (array (
            select r.id from workflow.tasks r
            where r.queue = v_claim.queue and r.state = 'ready'
              and (r.required_labels = '{}' or r.required_labels <@ p_labels)
              and (v_claim.names is null or r.activity = any (v_claim.names))
            order by r.priority desc, r.run_at, r.id
            limit v_claim.want
            for update skip locked))
        returning t.kind, t.queue, t.id, t.run_id, t.tenant_id, t.step_key, t.activity,
            case t.kind when 'run' then (select r.input from workflow.runs r where r.id = t.run_id) else t.input end,
            t.attempt_no, t.lease_token, t.lease_seconds, t.start_to_close_seconds, t.wake_seq,
            case t.kind when 'run' then (select r.created_at from workflow.runs r where r.id = t.run_id) else t.run_at end,
            t.worker_id;
    end loop;
end $$;

-- One round trip of a worker: ends of attempts, progress of runs, then new work; one commit. Claims come last:
-- they never wait, so a worker that has claimed waits for nobody.
--
-- Plans that hash or scan the whole queue are never right here, however small it looks at the moment; and without scans
-- their estimates are so high that PostgreSQL would compile them each time (jit), for 100 ms.
create function workflow.pump(
    p_worker_id bigint, p_worker text, p_attempts jsonb, p_ops jsonb, p_claims jsonb, p_labels jsonb)
returns setof workflow.news language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
    v_ids bigint[];
begin
    if jsonb_array_length(p_attempts) > 0 or jsonb_array_length(p_ops) > 0 then
        select array_agg(id) into v_ids from (
            select t.id from jsonb_to_recordset(p_attempts) as g (task_id bigint)
                join workflow.tasks t on t.id = g.task_id
            union
            select r.id from jsonb_to_recordset(p_attempts) as g (task_id bigint)
                join workflow.tasks t on t.id = g.task_id
                join workflow.tasks r on r.run_id = t.run_id and r.kind = 'run' and r.step_key = ''
            union
            select g.task_id from jsonb_to_recordset(p_ops) as g (task_id bigint)
            union
            select a.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint)
                join workflow.tasks t on t.id = g.task_id
                join workflow.tasks a on a.run_id = t.run_id
                where g.op = 'end'
        ) touched;
        perform workflow.lock_tasks(v_ids);
        if jsonb_array_length(p_attempts) > 0 then
            return query select * from workflow.settle(p_attempts);
        end if;
        if jsonb_array_length(p_ops) > 0 then
            return query select * from workflow.advance(p_ops);
        end if;
    end if;
    if jsonb_array_length(p_claims) > 0 then
        return query select * from workflow.claim(p_claims, p_labels, p_worker, p_worker_id);
    end if;
end $$;

-- ---------------------------------------------------------------------------------------- cancelling

-- Asks a run to stop. Activities nobody works on are recorded as cancelled at once, the others are marked, and the run
-- hears of it through its record. False when the run has ended or was asked before.
create function workflow.cancel(p_run uuid, p_reason text) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_facts workflow.fact[];
begin
    perform workflow.lock_tasks(array (select id from workflow.tasks where run_id = p_run));
    if not exists (select from workflow.tasks where run_id = p_run and kind = 'run' and not cancel_requested) then
        return;
    end if;
    update workflow.runs set cancel_requested_at = workflow.now(), cancel_reason = left(p_reason, 250) where id = p_run;
    update workflow.tasks set cancel_requested = true where run_id = p_run;
    with gone as (
        delete from workflow.tasks where run_id = p_run and kind = 'activity' and state <> 'leased' returning *
    )
    select array_agg(row (run_id, step_key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(),
                          attempt_no, null)::workflow.fact order by id)
    into v_facts from gone;
    return query select * from workflow.record(
        array[row (p_run, '$cancel', 'cancel', null, 'ok', to_jsonb(left(p_reason, 250)), null, 0, null)::workflow.fact] || v_facts);
end $$;

-- ---------------------------------------------------------------------------------------- leases and their ends

-- Renews leases and stores progress; the answer lists the tasks that are still held. A row that somebody is writing
-- right now is skipped: there is time for another try before the lease ends.
create function workflow.renew(p_ids bigint[], p_tokens uuid[], p_progress jsonb[])
returns table (task_id bigint, cancel_requested boolean) language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
begin
    return query
    update workflow.tasks t
    set lease_expires_at = v_now + make_interval(secs => t.lease_seconds), progress = coalesce(g.progress, t.progress)
    from unnest(p_ids, p_tokens, p_progress) as g (id, token, progress)
    where t.id = g.id and t.lease_token = g.token and t.state = 'leased'
      and t.id = any (array (select l.id from workflow.tasks l where l.id = any (p_ids) order by l.id for update skip locked))
    returning t.id, t.cancel_requested;
end $$;

-- Makes due tasks ready.
create function workflow.wake_due() returns setof workflow.news language sql
set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
    with due as (
        update workflow.tasks t set state = 'ready'
        where t.id = any (array (
            select d.id from workflow.tasks d where d.state = 'waiting' and d.run_at <= workflow.now()
            order by d.run_at limit 2000 for update skip locked))
        returning t.queue
    )
    select t.* from (select distinct queue from due) q cross join lateral workflow.told('woken', q.queue, null, null) t
$$;

-- Recovers what nobody works on any more: tasks of dead incarnations, leases that ended, attempts that took too long.
-- `p_gone` are incarnations that ended of late. Never waits for a lock: a hung transaction holds up only what it has
-- locked itself, and that is looked at again next time.
create function workflow.recover(p_gone bigint[]) returns setof workflow.news language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_lost bigint[];
    v_runs uuid[];
    v_attempts jsonb;
    v_run record;
    v_woken text[];
begin
    v_lost := array (
        select t.id from workflow.tasks t
        where t.lease_expires_at is not null
          and (t.lease_expires_at < v_now or t.worker_id = any (p_gone)
               or t.kind = 'activity' and t.leased_at + make_interval(secs => t.start_to_close_seconds) < v_now)
        limit 1000 for update skip locked);
    if v_lost = '{}' then
        return;
    end if;
    v_runs := array (
        select r.run_id from workflow.tasks r
        where r.kind = 'run' and r.step_key = '' and r.run_id = any (array (
            select t.run_id from workflow.tasks t where t.id = any (v_lost)))
        for update skip locked);

    select jsonb_agg(jsonb_build_object('task_id', t.id, 'token', t.lease_token,
               'outcome', case when late then 'timeout' else 'lost' end,
               'failure', case when late then jsonb_build_object('code', 'workflow.timeout', 'retryable', true,
                   'message', format('the attempt took longer than %s s', t.start_to_close_seconds)) else
                   jsonb_build_object('code', 'workflow.lost', 'retryable', true,
                   'message', format('%s stopped renewing its lease', t.leased_by)) end))
    into v_attempts
    from workflow.tasks t
    cross join lateral (select t.leased_at + make_interval(secs => t.start_to_close_seconds) < v_now as late) l
    where t.id = any (v_lost) and t.kind = 'activity' and t.run_id = any (v_runs);
    if v_attempts is not null then
        return query select * from workflow.settle(v_attempts);
    end if;

    for v_run in
        -- A run that had been waiting quietly did not kill its worker: only young leases count.
        select t.*, t.leased_at > case when t.lease_expires_at < v_now
                                       then t.lease_expires_at - make_interval(secs => t.lease_seconds)
                                       else v_now end - interval '10 s' as young
        from workflow.tasks t
        where t.id = any (v_lost) and t.kind = 'run'
        order by t.id
    loop
        v_woken := v_woken || workflow.recover_run(v_run.id, v_run.young);
    end loop;
    return query select t.* from (select distinct q from unnest(v_woken) q where q is not null) w (q) cross join lateral workflow.told('woken', q, null, null) t;
end $$;

-- Frees a run whose worker was lost, or gives it up; the caller has locked its row. Answers the queue that has work now.
create function workflow.recover_run(p_task bigint, p_young boolean) returns text language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_run workflow.tasks;
    v_pause float8;
begin
    select * into v_run from workflow.tasks where id = p_task;
    if p_young and v_run.losses + 1 >= v_run.max_losses then
        -- Ending it ends its activities: if one of them is locked, another time.
        if (select count(*) from workflow.tasks where run_id = v_run.run_id and kind = 'activity') >
           (select count(*) from (select 1 from workflow.tasks where run_id = v_run.run_id and kind = 'activity'
                                  for update skip locked) free) then
            return null;
        end if;
        perform workflow.end_run(v_run.id, 'failed', null, jsonb_build_object(
            'code', 'workflow.lost_too_often', 'retryable', false,
            'message', format('given up after %s workers in a row were lost while continuing the run', v_run.losses + 1)));
        return null;
    end if;
    insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker,
                                   started_at, ended_at, outcome)
    values (v_run.id, v_run.attempt_no, v_run.run_id, v_run.tenant_id, '', v_run.lease_token, v_run.leased_by,
            v_run.leased_at, v_now, 'lost');
    -- From the second loss in a row on the run comes back after a pause of its own: whoever is with a run that kills
    -- its workers gets away from it.
    v_pause := case when v_run.losses = 0 then 0 else (0.5 + random() / 2) * least(60, 0.1 * power(2, v_run.losses)) end;
    update workflow.tasks
    set state = case when v_pause > 0 then 'waiting' else 'ready' end, run_at = v_now + make_interval(secs => v_pause),
        losses = losses + p_young::int,
        lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null
    where id = p_task;
    return case when v_pause = 0 then v_run.queue end;
end $$;

-- Gives every lease that ended while nobody looked another length: its holder could not renew it either.
-- At most once in two seconds it notes that somebody looks.
create function workflow.note_sweep() returns void language plpgsql as $$
declare
    v_gap interval := clock_timestamp() - (select swept_at from workflow.last_sweep);
begin
    if v_gap > interval '5 s' then
        update workflow.tasks t set lease_expires_at = workflow.now() + make_interval(secs => t.lease_seconds)
        where t.id = any (array (
            select l.id from workflow.tasks l
            where l.lease_expires_at between workflow.now() - v_gap and workflow.now()
            for update skip locked));
        update workflow.workers set suspected_at = null where ended_at is null and suspected_at is not null;
    end if;
    if v_gap > interval '2 s' then
        update workflow.last_sweep set swept_at = clock_timestamp();
    end if;
end $$;

-- A look around by incarnation `p_me`: shows that it lives, wakes what is due, finds peers that died, recovers their work.
-- A peer is dead when its session lock was free at two looks at least `p_patience` apart, so that one which lost its
-- connection may come back. Answers the time and when the next task falls due in the row 'clock' (at, lease_seconds).
create function workflow.sweep(p_me bigint, p_patience interval) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_peer record;
begin
    update workflow.workers set seen_at = v_now, suspected_at = null
    where id = p_me and ended_at is null and (seen_at < v_now - interval '1 s' or suspected_at is not null);
    if pg_try_advisory_xact_lock(17997, 0) then
        perform workflow.note_sweep();
        return query select * from workflow.wake_due();
        for v_peer in select id, suspected_at from workflow.workers where ended_at is null and id <> p_me loop
            if not pg_try_advisory_xact_lock(17996, v_peer.id::int) then
                update workflow.workers set suspected_at = null where id = v_peer.id and suspected_at is not null;
            elsif v_peer.suspected_at is null then
                update workflow.workers set suspected_at = v_now where id = v_peer.id;
            elsif v_peer.suspected_at <= v_now - p_patience then
                update workflow.workers set ended_at = v_now where id = v_peer.id;
            end if;
        end loop;
        -- A task that was locked when its worker ended is still to be found at the next looks.
        return query select * from workflow.recover(array (
            select id from workflow.workers where ended_at > v_now - interval '10 min'));
    end if;
    return query select 'clock', null::text, null::bigint, null::uuid, null::uuid, null::text, null::text, null::jsonb, null::int,
        null::uuid,
        (select extract(epoch from run_at - v_now)::float8 from workflow.tasks
         where state = 'waiting' and run_at < 'infinity' order by run_at limit 1),
        null::float8, null::bigint, v_now, null::bigint
    from workflow.workers where id = p_me and ended_at is null;
end $$;
