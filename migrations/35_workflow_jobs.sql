-- Jobs: single activities that belong to no run. See 31_workflow_engine.sql.
--
--   jobs           what is left to do: enqueued, perhaps leased; a job that ends leaves the table
--   finished_jobs  what became of them; append only; see 39_workflow_retention.sql
--
-- A job has no record to append to and nobody who waits for it, so its way is short: a claim is one update, an end is one
-- delete and one insert, and both happen for hundreds of jobs in one statement and one commit. A lease lasts as long as the
-- incarnation that holds it, so it is never renewed. Measured against other layouts in bench/README.md.

create table workflow.jobs (
    id              bigint generated always as identity primary key,
    tenant_id       uuid not null,
    queue           workflow.short_name not null,
    activity        workflow.key not null,
    input           workflow.payload not null,
    limit_key       workflow.key_or_none not null default '',
    warm_key        workflow.key,
    lined           boolean not null default false,
    priority        smallint not null default 0,
    run_at          timestamptz not null,
    attempt_no      int not null default 0,
    failures        int not null default 0,
    losses          int not null default 0,
    policy          jsonb,
    required_labels workflow.label_set,
    unique_key      text check (octet_length(unique_key) between 1 and 600),
    unique_for      jsonb,
    latest_at       timestamptz,
    revived         boolean not null default false,
    worker_id       bigint,
    lease_token     uuid,
    leased_at       timestamptz,
    last_failure    jsonb,
    traceparent     workflow.traceparent,
    constraint a_lease_is_whole check (
        (worker_id is null) = (lease_token is null) and (worker_id is null) = (leased_at is null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
        autovacuum_analyze_scale_factor = 0.2, autovacuum_analyze_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
comment on table workflow.jobs is 'Activities that belong to no run, until they end.';
comment on column workflow.jobs.policy is 'As the columns of workflow.tasks; null: the default of the engine.';
comment on column workflow.jobs.unique_key is 'One job has it, for as long as unique_for says. It begins with its scope: see workflow.enqueue_keyed.';
comment on column workflow.jobs.unique_for is
    '{"until": "claimed"}: it is given up with the first claim. {"seconds", "outcomes"}: kept after such an end. Null: until the end.';
comment on column workflow.jobs.latest_at is 'A debounced job is put off until then at most.';
comment on column workflow.jobs.revived is 'It had ended, and was taken up again under its id.';
comment on column workflow.jobs.limit_key is 'As in workflow.tasks, and so are warm_key and lined.';
comment on column workflow.jobs.worker_id is 'The incarnation that works on it; softref:workflow.workers(id).';

-- The order of the claim, exactly. A job that is to run later needs no write when its time comes.
create index jobs_ready on workflow.jobs (queue, priority desc, run_at, id) where worker_id is null and not lined;
create index jobs_lined on workflow.jobs (queue, tenant_id, limit_key, priority desc, run_at, id) where worker_id is null and lined;
create index jobs_warm on workflow.jobs (queue, warm_key, priority desc, run_at, id) where worker_id is null and warm_key is not null;
create index jobs_held on workflow.jobs (worker_id) where worker_id is not null;
create unique index jobs_unique on workflow.jobs (unique_key) where unique_key is not null;

create table workflow.finished_jobs (
    id           bigint not null,
    tenant_id    uuid not null,
    queue        text not null,
    activity     text not null,
    input        jsonb not null,
    run_at       timestamptz not null,
    attempt_no   int not null,
    outcome      workflow.record_outcome not null,
    output       jsonb,
    failure      jsonb,
    started_at   timestamptz,
    finished_at  timestamptz not null,
    unique_key   text,
    unique_until timestamptz,
    options      jsonb,
    revived      boolean not null default false,
    primary key (finished_at, id)
) partition by range (finished_at);
create index finished_jobs_unique on workflow.finished_jobs (unique_key) where unique_key is not null;
create index finished_jobs_bad on workflow.finished_jobs (id) where outcome <> 'ok' or revived;
comment on column workflow.finished_jobs.unique_until is 'Until then it keeps its unique key.';
comment on column workflow.finished_jobs.options is 'What else it takes to do it again, unless it went well.';
comment on table workflow.finished_jobs is 'What became of jobs. finished_at is of the real clock: it decides the partition.';

-- ---------------------------------------------------------------------------------------- the round trip of a worker

-- A job on its way to a worker; what = 'stale': a write about it was refused, its lease is lost; 'later': it is to be tried
-- again at run_at; 'held': the terms of the queue let nothing more be claimed, for a time that ends at run_at if that is known.
create type workflow.job_news as (
    what text, id bigint, tenant_id uuid, queue text, activity text, input jsonb, attempt_no int, policy jsonb,
    run_at timestamptz, traceparent text);

create type workflow.job_later as (id bigint, queue text, run_at timestamptz);

-- One round trip and one commit: ends of jobs, then claims.
--   p_done     ids, tokens and outputs of jobs that went well
--   p_ended    others: an array of {id, token, outcome: failed|cancelled|released, failure}
--   p_claims   an array of {queue, want, names, holds}; `p_token` becomes the fence of everything claimed
-- A queue with terms is claimed from as workflow.admit allows.
create function workflow.pump_jobs(
    p_worker_id bigint, p_done bigint[], p_tokens uuid[], p_outputs jsonb[], p_ended jsonb,
    p_claims jsonb, p_token uuid, p_labels jsonb)
returns setof workflow.job_news language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_claim record;
    v_admitted record;
    v_warm bigint[];
    v_accepted bigint[];
begin
    if cardinality(p_done) > 0 then
        with ended as (
            delete from workflow.jobs j using unnest(p_done, p_tokens, p_outputs) as g (id, token, output)
            where j.id = g.id and j.lease_token = g.token
            returning j.*, g.output
        ), kept as (
            insert into workflow.finished_jobs
                (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, output, started_at, finished_at,
                 unique_key, unique_until, revived)
            select id, tenant_id, queue, activity, input, run_at, attempt_no, 'ok', output, leased_at, clock_timestamp(),
                   case when unique_for is not null then workflow.kept_key(unique_key, unique_for, 'ok') end,
                   case when unique_for is not null then v_now + workflow.kept_for(unique_for) end, revived
            from ended
            returning id
        )
        select array_agg(id) into v_accepted from kept;
        if cardinality(v_accepted) is distinct from cardinality(p_done) then
            return query select 'stale', d.id, null::uuid, null::text, null::text, null::jsonb, null::int, null::jsonb,
                                null::timestamptz, null::text
                from unnest(p_done) d (id) where d.id <> all (coalesce(v_accepted, '{}'));
        end if;
    end if;
    if jsonb_array_length(p_ended) > 0 then
        return query select * from workflow.end_jobs(p_ended);
    end if;
    -- An incarnation that was given up claims nothing more: nobody would look for what it holds.
    if not exists (select from workflow.workers where id = p_worker_id and ended_at is null) then
        return;
    end if;
    v_now := workflow.now();
    for v_claim in
        select c.queue, c.want, c.names, c.holds
        from jsonb_to_recordset(p_claims) as c (queue text, want int, names text[], holds text[])
    loop
        continue when exists (select from workflow.queue_controls q where q.queue = v_claim.queue);
        if exists (select from workflow.queue_terms q where q.queue = v_claim.queue) then
            select * into v_admitted from workflow.admit('job', v_claim.queue, v_claim.want,
                row (null, p_worker_id, p_token, v_claim.names, p_labels, v_claim.holds)::workflow.claimant);
            if v_admitted.governed then
                return query
                select 'job', j.id, j.tenant_id, j.queue::text, j.activity::text, j.input::jsonb, j.attempt_no, j.policy, j.run_at, j.traceparent::text
                from workflow.jobs j where j.id = any (v_admitted.ids);
                if cardinality(v_admitted.ids) < v_claim.want then
                    return query select 'held', 0::bigint, null::uuid, v_claim.queue, null::text, null::jsonb, null::int,
                                        null::jsonb, v_admitted.again_at, null::text;
                end if;
                continue;
            end if;
        end if;
        if v_claim.holds is not null then
            v_warm := workflow.lease_warm('job', v_claim.queue, null, null, v_claim.want,
                row (null, p_worker_id, p_token, v_claim.names, p_labels, v_claim.holds)::workflow.claimant, v_now);
            return query
            select 'job', j.id, j.tenant_id, j.queue::text, j.activity::text, j.input::jsonb, j.attempt_no, j.policy, j.run_at, j.traceparent::text
            from workflow.jobs j where j.id = any (v_warm);
            v_claim.want := v_claim.want - cardinality(v_warm);
        end if;
        return query
        update workflow.jobs j
        set worker_id = p_worker_id, lease_token = p_token, leased_at = v_now, attempt_no = j.attempt_no + 1,
            unique_key = case when j.unique_for is null or j.unique_for ->> 'until' is null then j.unique_key end
        where j.id = any (array (
            select r.id from workflow.jobs r
            where r.queue = v_claim.queue and r.worker_id is null and not r.lined and r.run_at <= v_now
              and (r.required_labels is null or r.required_labels <@ p_labels)
              and r.activity = any (v_claim.names)
            order by r.priority desc, r.run_at, r.id
            limit v_claim.want
            for update skip locked))
        returning 'job', j.id, j.tenant_id, j.queue::text, j.activity::text, j.input::jsonb, j.attempt_no, j.policy, j.run_at, j.traceparent::text;
    end loop;
end $$;

-- Ends of jobs that did not go well, of which `lost` counts apart; the rules are those of workflow.settle.
create function workflow.end_jobs(p_ended jsonb) returns setof workflow.job_news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_stale bigint[];
    v_later workflow.job_later[];
begin
    with given as (
        select * from jsonb_to_recordset(p_ended) as g (id bigint, token uuid, outcome text, failure jsonb)
    ), judged as materialized (
        select j.*, g.outcome as ended,
            case when g.outcome = 'lost' and j.losses + 1 >= coalesce((j.policy ->> 'max_losses')::int, 5)
                then jsonb_build_object('code', 'workflow.lost_too_often', 'retryable', false,
                    'message', format('given up after %s attempts were lost', j.losses + 1))
                else g.failure end as failure,
            case
                when g.outcome = 'cancelled' then 'cancelled'
                when g.outcome = 'failed' and (not coalesce((g.failure ->> 'retryable')::boolean, false)
                    or j.failures + 1 >= coalesce((j.policy ->> 'max_failures')::int, 4)) then 'failed'
                when g.outcome = 'lost' and j.losses + 1 >= coalesce((j.policy ->> 'max_losses')::int, 5) then 'failed'
                else 'again'
            end as verdict,
            case
                when g.outcome = 'failed' then workflow.retry_delay(j.failures,
                    coalesce((j.policy ->> 'backoff_base')::float8, 1), coalesce((j.policy ->> 'backoff_cap')::float8, 60), g.failure)
                when g.outcome = 'lost' and j.losses > 0 then workflow.retry_delay(j.losses - 1, 1, 60, null)
                else 0
            end as delay
        from given g join workflow.jobs j on j.id = g.id and j.lease_token = g.token
    ), gone as (
        delete from workflow.jobs j using judged d where j.id = d.id and d.verdict <> 'again'
    ), again as (
        update workflow.jobs j
        set worker_id = null, lease_token = null, leased_at = null,
            run_at = case when d.ended = 'released' then j.run_at else v_now + make_interval(secs => d.delay) end,
            failures = j.failures + (d.ended = 'failed')::int, losses = j.losses + (d.ended = 'lost')::int,
            last_failure = coalesce(d.failure, j.last_failure)
        from judged d where j.id = d.id and d.verdict = 'again'
    ), kept as (
        insert into workflow.finished_jobs
            (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, failure, started_at, finished_at,
             unique_key, unique_until, revived, options)
        select id, tenant_id, queue, activity, input, run_at, attempt_no, verdict, failure, leased_at, clock_timestamp(),
               workflow.kept_key(unique_key, unique_for, verdict), v_now + workflow.kept_for(unique_for), revived,
               jsonb_strip_nulls(jsonb_build_object('priority', priority, 'policy', policy, 'labels', required_labels,
                   'limit_key', limit_key, 'warm_key', warm_key, 'unique_key', unique_key, 'unique_for', unique_for))
        from judged where verdict <> 'again'
    )
    select array_agg(g.id) filter (where d.id is null),
           array_agg((g.id, d.queue, v_now + make_interval(secs => d.delay))::workflow.job_later)
               filter (where d.verdict = 'again')
    into v_stale, v_later
    from given g left join judged d on d.id = g.id;
    return query select 'stale', s.id, null::uuid, null::text, null::text, null::jsonb, null::int, null::jsonb, null::timestamptz, null::text
        from unnest(v_stale) s (id);
    return query select 'later', l.id, null::uuid, l.queue, null::text, null::jsonb, null::int, null::jsonb, l.run_at, null::text
        from unnest(v_later) l;
end $$;

-- ---------------------------------------------------------------------------------------- recovery

-- Frees the jobs of incarnations that have ended: lost, or given back uncounted when the incarnation took its leave.
-- Answers the queues that have work now, or soon. A claim of such an incarnation may still be on its way to its commit: ask again.
create function workflow.recover_jobs(p_gone bigint[], p_outcome text) returns setof text language plpgsql
set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_lost jsonb;
begin
    select jsonb_agg(jsonb_build_object('id', l.id, 'token', l.lease_token, 'outcome', p_outcome, 'failure',
               case p_outcome when 'lost' then jsonb_build_object('code', 'workflow.lost', 'retryable', true,
                   'message', 'the worker that held the job is gone') end))
    into v_lost
    from (select j.id, j.lease_token from workflow.jobs j where j.worker_id = any (p_gone) for update skip locked) l;
    if v_lost is not null then
        return query select distinct e.queue from workflow.end_jobs(v_lost) e where e.what = 'later';
    end if;
end $$;
