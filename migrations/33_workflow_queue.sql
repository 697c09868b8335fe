-- The queue: ends of attempts, claims, the round trip of a worker, leases. See 31_workflow_engine.sql.

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

-- ---------------------------------------------------------------------------------------- claiming

-- Leases ready tasks to a worker: `p_claims` is an array of {queue, want, names, holds}, names null for any, holds null for nothing.
-- A paused queue gives nothing. Never waits: a row that somebody else has locked is skipped. Labels are a filter inside the ordered scan, so work
-- that nobody here may do does not hide the work behind it. A queue with terms is claimed from as workflow.admit allows.
create function workflow.claim(p_claims jsonb, p_labels jsonb, p_worker text, p_worker_id bigint)
returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_claim record;
    v_admitted record;
    v_warm bigint[];
begin
    for v_claim in
        select c.queue, c.want, c.names, c.holds
        from jsonb_to_recordset(p_claims) as c (queue text, want int, names text[], holds text[])
    loop
        continue when exists (select from workflow.queue_controls q where q.queue = v_claim.queue);
        v_now := workflow.now(); -- The claims before this one took their time; a lease begins when it is given.
        if exists (select from workflow.queue_terms q where q.queue = v_claim.queue) then
            select * into v_admitted from workflow.admit('task', v_claim.queue, v_claim.want,
                row (p_worker, p_worker_id, null, v_claim.names, p_labels, v_claim.holds)::workflow.claimant);
            if v_admitted.governed then
                return query select * from workflow.admitted_tasks(v_admitted.ids);
                if cardinality(v_admitted.ids) < v_claim.want then
                    return query select 'held', v_claim.queue, null::bigint, null::uuid, null::uuid, null::text, null::text,
                        null::jsonb, null::int, null::uuid, null::float8, null::float8, null::bigint, v_admitted.again_at,
                        null::bigint, null::text;
                end if;
                continue;
            end if;
        end if;
        if v_claim.holds is not null then
            v_warm := workflow.lease_warm('task', v_claim.queue, null, null, v_claim.want,
                row (p_worker, p_worker_id, null, v_claim.names, p_labels, v_claim.holds)::workflow.claimant, v_now);
            return query select * from workflow.admitted_tasks(v_warm);
            v_claim.want := v_claim.want - cardinality(v_warm);
        end if;
        return query
        -- `= any (array (…))`, not a join: with the limit as a parameter the planner would hash the whole table.
        update workflow.tasks t
        set state = 'leased', attempt_no = t.attempt_no + 1, lease_token = gen_random_uuid(), leased_by = p_worker,
            worker_id = p_worker_id, leased_at = v_now, lease_expires_at = v_now + make_interval(secs => t.lease_seconds)
        where t.id = any (array (
            select r.id from workflow.tasks r
            where r.queue = v_claim.queue and r.state = 'ready' and not r.lined
              and (r.required_labels = '{}' or r.required_labels <@ p_labels)
              and (v_claim.names is null or r.activity = any (v_claim.names))
            order by r.priority desc, r.run_at, r.id
            limit v_claim.want
            for update skip locked))
        returning t.kind::text, t.queue::text, t.id, t.run_id, t.tenant_id, t.step_key::text, t.activity::text,
            (case t.kind when 'run' then (select r.input from workflow.runs r where r.id = t.run_id) else t.input end)::jsonb,
            t.attempt_no, t.lease_token, t.lease_seconds::float8, t.start_to_close_seconds::float8, t.wake_seq,
            case t.kind when 'run' then (select r.created_at from workflow.runs r where r.id = t.run_id) else t.run_at end,
            t.worker_id, t.traceparent::text;
    end loop;
end $$;

-- Leases those of `p_ids` that are still ready to a remote worker, whoever has chosen them and why. What somebody else has by now is
-- passed over, as is what stands in no queue of `p_queues`, is not among `p_names` (null: any), asks for a label that is missing, or
-- stands in a queue that is paused or has terms: where there are turns and caps, workflow.claim alone keeps them.
create function workflow.claim_these(p_ids bigint[], p_queues text[], p_names text[], p_labels jsonb, p_worker text)
returns setof workflow.news language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_open text[] := array (
        select q from unnest(p_queues) q
        where not exists (select from workflow.queue_controls c where c.queue = q)
          and not exists (select from workflow.queue_terms t where t.queue = q and not t.ended));
begin
    return query
    update workflow.tasks t
    set state = 'leased', attempt_no = t.attempt_no + 1, lease_token = gen_random_uuid(), leased_by = p_worker,
        leased_at = v_now, lease_expires_at = v_now + make_interval(secs => t.lease_seconds)
    where t.id = any (array (
        select r.id from workflow.tasks r
        where r.id = any (p_ids) and r.kind = 'activity' and r.state = 'ready' and not r.lined and r.queue = any (v_open)
          and r.required_labels <@ p_labels and (p_names is null or r.activity = any (p_names))
        order by r.id for update skip locked))
    returning t.kind::text, t.queue::text, t.id, t.run_id, t.tenant_id, t.step_key::text, t.activity::text, t.input::jsonb,
        t.attempt_no, t.lease_token, t.lease_seconds::float8, t.start_to_close_seconds::float8, t.wake_seq, t.run_at,
        t.worker_id, t.traceparent::text;
end $$;

-- Starts runs that a client of a worker's own process asks for: an array of {id, tenant_id, kind, version, input, priority,
-- traceparent}.
-- The first `p_lease` are the worker's at once, without a claim; their input is not sent back. A run that is there already is
-- passed over.
create function workflow.start_here(p_starts jsonb, p_queue text, p_max_losses int, p_lease int, p_worker text, p_worker_id bigint)
returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
begin
    return query
    with fresh as (
        insert into workflow.runs (id, tenant_id, kind, version, input, priority, created_at, traceparent)
        select id, tenant_id, kind, version, coalesce(input, 'null'), priority, v_now, traceparent
        from jsonb_to_recordset(p_starts)
            as g (id uuid, tenant_id uuid, kind text, version int, input jsonb, priority smallint, traceparent text)
        on conflict do nothing
        returning id, tenant_id, kind || '.v' || version as name, priority, traceparent
    ), placed as (
        select fresh.*, row_number() over () <= p_lease as here from fresh
    ), queued as (
        insert into workflow.tasks
            (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses, backoff_base_seconds,
             backoff_cap_seconds, lease_seconds, start_to_close_seconds, state, attempt_no, lease_token, leased_by, worker_id, leased_at,
             lease_expires_at, traceparent)
        select 'run', id, tenant_id, '', p_queue, name, priority, v_now, 1, p_max_losses, 0, 0, 30, 1e9,
               case when here then 'leased' else 'ready' end, here::int, case when here then gen_random_uuid() end,
               case when here then p_worker end, case when here then p_worker_id end, case when here then v_now end,
               case when here then v_now + interval '30 s' end, traceparent
        from placed
        returning id, run_id, tenant_id, activity, lease_token, traceparent
    )
    select case when lease_token is null then 'woken' else 'run' end, p_queue, id, run_id, tenant_id, '', activity::text, null::jsonb, 1,
           lease_token, 30::float8, 1e9::float8, 0::bigint, v_now, p_worker_id, traceparent::text
    from queued;
end $$;

-- One round trip of a worker: ends of attempts, progress of runs, then new work; one commit. Claims come last:
-- they never wait, so a worker that has claimed waits for nobody.
--
-- Plans that hash or scan the whole queue are never right here, however small it looks at the moment; and without scans
-- their estimates are so high that PostgreSQL would compile them each time (jit), for 100 ms.
create function workflow.pump(
    p_worker_id bigint, p_worker text, p_attempts jsonb, p_ops jsonb, p_claims jsonb, p_labels jsonb,
    -- Columns of `advance_plain`, in the order of the ids.
    p_ids bigint[] default '{}', p_tokens uuid[] default '{}', p_whats text[] default '{}', p_keys text[] default '{}',
    p_names text[] default '{}', p_bodies jsonb[] default '{}', p_seqs bigint[] default '{}', p_ats timestamptz[] default '{}',
    p_again boolean default true,
    -- Of `start_here`.
    p_starts jsonb default '[]', p_queue text default null, p_max_losses int default null, p_lease int default 0)
returns setof workflow.news language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_ids bigint[] := '{}';
    v_ends bigint[];
    v_runs uuid[];
    v_parents uuid[];
begin
    -- Nothing of what follows is looked for where it was: see `workflow.lock_series`.
    lock table only workflow.runs in access share mode;
    -- Records alone lock their tasks in order as they update them. What needs more locks takes all of them first.
    if array_position(p_keys, null) is not null then
        -- What stands around runs that end: their activities and children, and who waits for them.
        v_ends := array (select g.id from unnest(p_ids, p_keys) as g (id, key) where g.key is null);
        select array_agg(t.run_id), array_agg(t.parent_run_id) filter (where t.parent_run_id is not null) into v_runs, v_parents
        from workflow.tasks t where t.id = any (v_ends);
        v_ids := p_ids
            || array (select a.id from workflow.tasks a where a.run_id = any (v_runs) and a.kind = 'activity')
            || array (select p.id from workflow.tasks p where p.run_id = any (v_parents) and p.kind = 'run' and p.step_key = '');
    end if;
    if jsonb_array_length(p_attempts) > 0 or jsonb_array_length(p_ops) > 0 then
        select p_ids || v_ids || array_agg(id) into v_ids from (
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
            union
            select p.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint)
                join workflow.tasks t on t.id = g.task_id
                join workflow.tasks p on p.run_id = t.parent_run_id and p.kind = 'run' and p.step_key = ''
                where g.op = 'end'
            union
            select a.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text)
                join workflow.tasks t on t.id = g.task_id
                join workflow.tasks a on a.run_id = t.run_id and a.kind = 'activity' and a.step_key = g.key
                where g.op = 'withdraw'
        ) touched;
    end if;
    if v_ids <> '{}' then
        perform workflow.lock_tasks(v_ids);
    end if;
    if jsonb_array_length(p_attempts) > 0 then
        return query select * from workflow.settle(p_attempts);
    end if;
    if jsonb_array_length(p_ops) > 0 then
        return query select * from workflow.advance(p_ops);
    end if;
    if p_ids <> '{}' then
        return query select * from workflow.advance_plain(p_ids, p_tokens, p_whats, p_keys, p_names, p_bodies, p_seqs, p_ats, p_again);
    end if;
    if jsonb_array_length(p_starts) > 0 then
        return query select * from workflow.start_here(p_starts, p_queue, p_max_losses, p_lease, p_worker, p_worker_id);
    end if;
    if jsonb_array_length(p_claims) > 0 then
        return query select * from workflow.claim(p_claims, p_labels, p_worker, p_worker_id);
    end if;
end $$;

-- ---------------------------------------------------------------------------------------- renewing

-- Renews leases and stores progress; the answer lists the tasks that are still held. A row that somebody is writing
-- right now is skipped: there is time for another try before the lease ends.
create function workflow.renew(p_ids bigint[], p_tokens uuid[], p_progress jsonb[])
returns table (task_id bigint, cancel_requested boolean) language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan as $$
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
