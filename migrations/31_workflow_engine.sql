-- The durable workflow engine: runs, their record, one hot queue, and who is working on it.
--
--   runs      what was asked for and how it ended; one row a run
--   run_keys  which run is about what; outlives the run
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
--   * The id of a run begins with its time. What belongs to a run lies in the partition of that time and is looked for by
--     the id of the run; see 39_workflow_retention.sql.

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

-- ---------------------------------------------------------------------------------------- types

-- What one column may hold stands in domains: a domain is looked at when its column is written, a constraint of the table at
-- every update of the row, and it is read from its text anew by every statement that writes. Both count where claims and
-- records come by the thousand. Lengths stand beside the patterns, not in them: `{0,99}` costs a hundred times what `*` does.
create domain workflow.short_name as text
    check (octet_length(value) <= 100 and value ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]*$');
create domain workflow.kind_name as text
    check (octet_length(value) <= 63 and value ~ '^[a-z][a-z0-9_.]*$');
create domain workflow.payload as jsonb
    check (octet_length(value::text) <= 262144);
create domain workflow.label_set as jsonb
    check (jsonb_typeof(value) = 'object' and octet_length(value::text) <= 2048);
create domain workflow.traceparent as text check (octet_length(value) = 55);
create domain workflow.key as text check (octet_length(value) between 1 and 200);
create domain workflow.key_or_none as text check (octet_length(value) <= 200);
create domain workflow.progress as jsonb check (octet_length(value::text) <= 16384);
create domain workflow.positive as int check (value > 0);
create domain workflow.backoff_seconds as float8 check (value between 0 and 86400);
create domain workflow.lease_seconds as float8 check (value between 0.1 and 86400);
create domain workflow.limit_seconds as float8 check (value > 0);
create domain workflow.run_state as text check (value in ('running', 'succeeded', 'failed', 'cancelled'));
create domain workflow.task_kind as text check (value in ('run', 'activity'));
create domain workflow.task_state as text check (value in ('ready', 'waiting', 'leased'));
create domain workflow.parked_reason as text check (value in ('version_mismatch', 'lost_too_often', 'unrecordable', 'unreadable'));
create domain workflow.record_kind as text
    check (value in ('step', 'activity', 'timer', 'cancel', 'signal', 'child', 'start', 'patch', 'compensation'));
create domain workflow.record_outcome as text check (value in ('ok', 'failed', 'cancelled'));
create domain workflow.attempt_outcome as text check (value in ('ok', 'failed', 'lost', 'released', 'cancelled', 'timeout'));
create domain workflow.seq as bigint check (value > 0);
comment on domain workflow.payload is 'Input, output or failure: 256 KiB at most, as PostgreSQL writes it.';

-- ---------------------------------------------------------------------------------------- ids of runs

-- A new id for a run of this moment: a UUIDv7 (RFC 9562, method 3 of 6.2), milliseconds and 1/4096 of one, then chance.
create function workflow.new_run_id(p_at timestamptz) returns uuid language sql volatile parallel safe as $$
    select encode(
        substr(int8send(us / 1000), 3) || int2send((28672 + us % 1000 * 4096 / 1000)::int2) || substr(uuid_send(gen_random_uuid()), 9),
        'hex')::uuid
    from (select (extract(epoch from p_at) * 1000000)::bigint as us) t
$$;

-- Where the ids of this moment begin, by its millisecond.
create function workflow.first_run_id(p_at timestamptz) returns uuid language sql immutable parallel safe as $$
    select encode(substr(int8send(floor(extract(epoch from p_at) * 1000)::bigint), 3) || '\x00000000000000000000', 'hex')::uuid
$$;

-- The moment that an id begins with.
create function workflow.moment_of(p_run uuid) returns timestamptz language sql immutable parallel safe as $$
    select to_timestamp(('x' || left(replace(p_run::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
$$;

-- ---------------------------------------------------------------------------------------- tables

create table workflow.runs (
    id                  uuid primary key,
    tenant_id           uuid not null,
    kind                workflow.kind_name not null,
    version             workflow.positive not null,
    business_key        workflow.key,
    state               workflow.run_state not null default 'running',
    input               workflow.payload not null,
    output              workflow.payload,
    error               workflow.payload,
    priority            smallint not null default 0,
    cancel_requested_at timestamptz,
    cancel_reason       text check (octet_length(cancel_reason) <= 1000),
    created_at          timestamptz not null,
    finished_at         timestamptz,
    parent_run_id       uuid,
    parent_key          workflow.key,
    root_run_id         uuid,
    detached            boolean not null default false,
    continued_from      uuid,
    continued_as        uuid,
    traceparent         workflow.traceparent,
    unique (tenant_id, id),
    constraint a_finished_run_has_an_end check ((state = 'running') = (finished_at is null)),
    constraint a_failed_run_has_an_error check ((state in ('failed', 'cancelled')) = (error is not null)),
    constraint only_success_has_output check (output is null or state = 'succeeded'),
    constraint a_reason_needs_a_cancellation check (cancel_reason is null or cancel_requested_at is not null),
    constraint a_child_is_whole check (
        (parent_run_id is null) = (parent_key is null) and (parent_run_id is null) = (root_run_id is null)),
    constraint only_success_is_continued check (continued_as is null or state = 'succeeded' and output is null)
) partition by range (id);
comment on column workflow.runs.business_key is 'What the run is about, such as an order; see workflow.run_keys. Null: nothing in particular.';
comment on column workflow.runs.parent_run_id is 'softref:workflow.runs(id). The run that asked for it, under parent_key.';
comment on column workflow.runs.root_run_id is 'The first of its ancestors; null when it has none.';
comment on column workflow.runs.detached is 'True: its parent does not wait for it, and it outlives its parent.';
comment on column workflow.runs.continued_as is
    'softref:workflow.runs(id). The run that goes on in its place, with its business key and its parent.';
comment on column workflow.runs.traceparent is
    'Where it was started, in which trace, as W3C Trace Context writes it; null: in none. The same in tasks and jobs.';
create index runs_business_key on workflow.runs (tenant_id, business_key) where business_key is not null;

create table workflow.run_keys (
    kind         text not null,
    tenant_id    uuid not null,
    business_key workflow.key not null,
    run_id       uuid not null,
    primary key (kind, tenant_id, business_key)
);
comment on table workflow.run_keys is
    'One run for ever per kind, tenant and key, also when its row is gone. A run that goes on as another leaves its key to that one.';

create table workflow.steps (
    run_id      uuid not null,
    seq         workflow.seq not null,
    tenant_id   uuid not null,
    key         workflow.key not null,
    kind        workflow.record_kind not null,
    name        text,
    outcome     workflow.record_outcome not null,
    output      workflow.payload,
    failure     workflow.payload,
    attempt_no  int not null default 0,
    lease_token uuid,
    recorded_at timestamptz not null,
    primary key (run_id, key),
    unique (run_id, seq),
    constraint a_failure_says_why check ((outcome = 'ok') = (failure is null)),
    constraint only_success_has_output check (output is null or outcome = 'ok')
) partition by range (run_id);
-- Whether a chain of runs has had a signal: see workflow.had_signal.
create index steps_signals on workflow.steps (key) where kind = 'signal';
comment on column workflow.steps.seq is 'From 1, without gaps, in the order of commits: a replay hands the records out in this order.';
comment on column workflow.steps.name is
    'The activity, the kind of a child or of a run that was started, the name of a signal; null for other kinds.';
comment on column workflow.steps.lease_token is 'The fence of the attempt that wrote it; null when nobody held a lease.';

create table workflow.workers (
    id           bigint generated always as identity primary key,
    name         text not null check (octet_length(name) <= 200),
    started_at   timestamptz not null,
    seen_at      timestamptz not null,
    suspected_at timestamptz,
    ended_at     timestamptz,
    jobs_freed   boolean not null default false
);
comment on table workflow.workers is
    'An incarnation holds the advisory lock (17996, id) on a session of its own; a free lock means a dead process.';
comment on column workflow.workers.jobs_freed is 'Whether the jobs it held when it ended are back in their queues.';
create index workers_alive on workflow.workers (id) where ended_at is null;
create index workers_ended on workflow.workers (ended_at) where ended_at is not null;
create index workers_holding_jobs on workflow.workers (id) where ended_at is not null and not jobs_freed;

create table workflow.last_sweep (
    only_row boolean primary key default true check (only_row),
    swept_at timestamptz not null,
    partitions_at timestamptz not null
);
comment on table workflow.last_sweep is
    'One row. When somebody last looked for lost work, by the real clock: a gap means that nobody could renew either.';
comment on column workflow.last_sweep.partitions_at is 'When somebody last made the partitions that will be needed.';
insert into workflow.last_sweep (swept_at, partitions_at) values (clock_timestamp(), clock_timestamp());

create table workflow.tasks (
    id                     bigint generated always as identity primary key,
    kind                   workflow.task_kind not null,
    run_id                 uuid not null,
    tenant_id              uuid not null,
    step_key               workflow.key_or_none not null,
    queue                  workflow.short_name not null,
    activity               workflow.key not null,
    input                  workflow.payload,
    required_labels        workflow.label_set not null default '{}',
    limit_key              workflow.key_or_none not null default '',
    warm_key               workflow.key,
    lined                  boolean not null default false,
    priority               smallint not null default 0,
    run_at                 timestamptz not null,
    state                  workflow.task_state not null default 'ready',
    attempt_no             int not null default 0,
    failures               int not null default 0,
    max_failures           workflow.positive not null,
    losses                 int not null default 0,
    max_losses             workflow.positive not null,
    backoff_base_seconds   workflow.backoff_seconds not null,
    backoff_cap_seconds    workflow.backoff_seconds not null,
    lease_seconds          workflow.lease_seconds not null,
    start_to_close_seconds workflow.limit_seconds not null,
    lease_token            uuid,
    leased_by              workflow.key_or_none,
    worker_id              bigint,
    leased_at              timestamptz,
    lease_expires_at       timestamptz,
    progress               workflow.progress,
    cancel_requested       boolean not null default false,
    shielded               boolean not null default false,
    parked_reason          workflow.parked_reason,
    parked_failure         workflow.payload,
    wake_seq               bigint not null default 0,
    traceparent            workflow.traceparent,
    parent_run_id          uuid,
    parent_key             workflow.key,
    unique (run_id, kind, step_key),
    constraint a_run_has_no_key check ((kind = 'run') = (step_key = '')),
    constraint an_activity_has_input check (kind = 'run' or input is not null),
    constraint only_a_run_counts_records check (kind = 'run' or wake_seq = 0),
    constraint only_a_run_is_parked check (parked_reason is null or kind = 'run' and state = 'waiting'),
    constraint only_a_run_waits_for_ever check (kind = 'run' or run_at < 'infinity'),
    constraint only_a_run_is_waited_for check (
        (parent_run_id is null) = (parent_key is null) and (parent_run_id is null or kind = 'run')),
    constraint a_lease_is_whole check (
        (state = 'leased') = (lease_token is not null)
        and (state = 'leased') = (leased_by is not null)
        and (state = 'leased') = (leased_at is not null)
        and (state = 'leased') = (lease_expires_at is not null)
        and (state = 'leased' or worker_id is null))
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000,
        autovacuum_analyze_scale_factor = 0.1, autovacuum_analyze_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
comment on column workflow.tasks.state is 'ready: may be claimed now. waiting: at run_at, or when a record arrives. leased: somebody works on it.';
comment on column workflow.tasks.limit_key is 'What of its tenant it counts against, where its queue has terms: see 38_workflow_limits.sql.';
comment on column workflow.tasks.warm_key is 'What a worker had better hold already, such as a package: see workflow.warm_ids.';
comment on column workflow.tasks.lined is 'Ready, and in the line of its tenant and limit key: only queues with terms have lines.';
comment on column workflow.tasks.shielded is 'A compensation: done also when its run is cancelled.';
comment on column workflow.tasks.parked_reason is
    'Why nobody goes on with the run, whatever is recorded, until somebody resumes it. Null: nothing stands in its way.';
comment on column workflow.tasks.wake_seq is 'Number of the newest record of the run. A run may only fall asleep on what it has seen.';
comment on column workflow.tasks.parent_run_id is 'softref:workflow.runs(id). The run that waits for the end of this one, under parent_key; null: none does.';
comment on column workflow.tasks.worker_id is 'The incarnation that holds the lease; null for a node that speaks HTTP: its lease can only expire.';

-- The order of the claim, exactly: the scan stops at the first rows it may take.
create index tasks_ready on workflow.tasks (queue, priority desc, run_at, id) where state = 'ready' and not lined;
create index tasks_lined on workflow.tasks (queue, tenant_id, limit_key, priority desc, run_at, id) where state = 'ready' and lined;
create index tasks_warm on workflow.tasks (queue, warm_key, priority desc, run_at, id) where state = 'ready' and warm_key is not null;
create index tasks_due on workflow.tasks (run_at) where state = 'waiting';
create index tasks_parked on workflow.tasks (parked_reason) where parked_reason is not null;
-- Not `where state = 'leased'`: the planner, believing that few tasks are leased, would answer completions from it.
create index tasks_leased on workflow.tasks (lease_expires_at) where lease_expires_at is not null;
create unique index tasks_children on workflow.tasks (parent_run_id, parent_key) where parent_run_id is not null;

create table workflow.attempts (
    task_id     bigint not null,
    attempt_no  workflow.positive not null,
    run_id      uuid not null,
    tenant_id   uuid not null,
    step_key    text not null,
    lease_token uuid not null,
    worker      text not null,
    started_at  timestamptz not null,
    ended_at    timestamptz not null,
    outcome     workflow.attempt_outcome not null,
    failure     jsonb,
    primary key (task_id, attempt_no, run_id)
) partition by range (run_id);
comment on table workflow.attempts is 'softref:workflow.tasks(task_id), whose rows leave when they are done.';
create index attempts_of_run on workflow.attempts (run_id, step_key);

create function workflow.refuse_change() returns trigger language plpgsql as $$
begin
    -- Of a partition the name is not what anybody knows it by.
    raise exception 'workflow.% is append only', coalesce(tg_argv[0], tg_table_name) using errcode = 'integrity_constraint_violation';
end $$;
create trigger steps_append_only before update or delete on workflow.steps
    for each row execute function workflow.refuse_change('steps');
create trigger attempts_append_only before update or delete on workflow.attempts
    for each row execute function workflow.refuse_change('attempts');

create function workflow.guard_run() returns trigger language plpgsql as $$
begin
    if old.state <> 'running' then
        raise exception 'run % has ended as %', old.id, old.state using errcode = 'integrity_constraint_violation';
    end if;
    raise exception 'what run % was asked to do cannot change', old.id using errcode = 'integrity_constraint_violation';
end $$;
-- The condition costs little; calling a function for every run that ends would not.
create trigger runs_guard before update on workflow.runs
    for each row when (
        old.state <> 'running'
        or (new.id, new.tenant_id, new.kind, new.version, new.business_key, new.input, new.created_at, new.parent_run_id,
            new.parent_key, new.continued_from)
           is distinct from (old.id, old.tenant_id, old.kind, old.version, old.business_key, old.input, old.created_at,
            old.parent_run_id, old.parent_key, old.continued_from))
    execute function workflow.guard_run();

-- ---------------------------------------------------------------------------------------- what functions pass on

-- A record about to be written.
create type workflow.fact as (
    run_id uuid, key text, kind text, name text, outcome text, output jsonb, failure jsonb,
    attempt_no int, lease_token uuid);

-- What the engine tells a worker after a round trip. `what` is one of
--   settled   task_id, lease_token: a write with this fence was accepted
--   recorded  run_id, step_key, name (outcome), body (failure), seq, at, worker_id (who holds the run, if anyone); task_id: settled too
--   woken     queue: has ready work that it did not have before
--   run       a claimed run: body = input, seq = newest record, at = creation
--   activity  a claimed activity: body = input, at = since when it was ready
--   held      queue: its terms let nothing more be claimed, for a time that ends at `at` if that is known
--   clock     at = now, lease_seconds = seconds until the next task falls due
create type workflow.news as (
    what text, queue text, task_id bigint, run_id uuid, tenant_id uuid, step_key text, name text, body jsonb,
    attempt_no int, lease_token uuid, lease_seconds float8, start_to_close_seconds float8,
    seq bigint, at timestamptz, worker_id bigint, traceparent text);

create function workflow.told(p_what text, p_queue text, p_task bigint, p_token uuid) returns setof workflow.news language sql immutable as $$
    select p_what, p_queue, p_task, null::uuid, null::uuid, null::text, null::text, null::jsonb, null::int, p_token,
           null::float8, null::float8, null::bigint, null::timestamptz, null::bigint, null::text
$$;

-- Locks tasks in the order of their ids, so that two writers wait for each other in one direction only.
create function workflow.lock_tasks(p_ids bigint[]) returns void language plpgsql as $$
begin
    perform 1 from workflow.tasks where id = any (p_ids) order by id for update;
end $$;
