-- Round trips find what they are about by one look each.
--
-- A plan lives as long as its session, or until the next analysis of a table. One that was made while the queue was short may begin
-- at the queue and end at what was asked for: it reads all of the queue each time, however long that has become. Whoever announced
-- something to tens of thousands had each of their messages pay for all the others. A subquery with `offset 0` stays what it is: the
-- planner neither joins it whole nor begins at it. See 32_workflow_runs.sql and 33_workflow_queue.sql, whose functions these replace.
--
-- And what was asked for before its run was cancelled, and is asked for again because the answer was lost, is not recorded as cancelled
-- while it is alive: an activity (`advance`) or a child (`start_runs`) says itself what came of it.

create function workflow.task(p_id bigint) returns setof workflow.tasks language sql stable as $$
    select * from workflow.tasks where id = p_id offset 0
$$;

create function workflow.task_of_run(p_run uuid) returns setof workflow.tasks language sql stable as $$
    select * from workflow.tasks where run_id = p_run and kind = 'run' and step_key = '' offset 0
$$;

create or replace function workflow.record(p_facts workflow.fact[]) returns setof workflow.news
language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
begin
    return query
    -- The facts of a run travel through the update as an array: joining lists of hundreds would cost their square.
    with given as (
        select f.run_id,
               array_agg(row (f.run_id, f.key, f.kind, f.name, f.outcome, f.output, f.failure, f.attempt_no,
                              f.lease_token)::workflow.fact order by f.place) as facts
        from unnest(p_facts) with ordinality
             as f (run_id, key, kind, name, outcome, output, failure, attempt_no, lease_token, place)
        -- Not `not exists`: while the table is new the planner would join it whole.
        where (select s.seq from workflow.steps s where s.run_id = f.run_id and s.key = f.key) is null
        group by f.run_id
    ), bumped as (
        update workflow.tasks t
        set wake_seq = t.wake_seq + cardinality(g.facts), losses = 0,
            run_at = case when t.state = 'waiting' and t.parked_reason is null then v_now else t.run_at end,
            state = case when t.state = 'waiting' and t.parked_reason is null then 'ready' else t.state end
        from given g
        cross join lateral workflow.task_of_run(g.run_id) r
        where t.id = r.id
        returning t.tenant_id, t.queue, t.wake_seq - cardinality(g.facts) as base, t.state, t.worker_id, g.facts
    ), numbered as (
        select b.tenant_id, b.queue, b.state, b.worker_id, b.base + f.n as seq, f.*
        from bumped b cross join lateral unnest(b.facts) with ordinality
             as f (run_id, key, kind, name, outcome, output, failure, attempt_no, lease_token, n)
    ), written as (
        insert into workflow.steps
            (run_id, seq, tenant_id, key, kind, name, outcome, output, failure, attempt_no, lease_token, recorded_at)
        select run_id, seq, tenant_id, key, kind, name, outcome, output, failure, coalesce(attempt_no, 0), lease_token, v_now
        from numbered
    )
    select 'recorded', case state when 'ready' then queue::text end, null::bigint, run_id, tenant_id, key, outcome, failure,
           coalesce(attempt_no, 0), lease_token, null::float8, null::float8, seq, v_now, worker_id, null::text
    from numbered
    order by run_id, seq;
end $$;

create or replace function workflow.advance(p_ops jsonb) returns setof workflow.news language plpgsql as $$
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
    cross join lateral workflow.task((o.op ->> 'task_id')::bigint) t
    where t.lease_token = (o.op ->> 'token')::uuid and t.state = 'leased' and t.kind = 'run';
    if p_ops is null then
        return;
    end if;
    select array_agg(task_id), array_agg(token) into v_held, v_tokens
    from (select distinct g.task_id, g.token from jsonb_to_recordset(p_ops) as g (task_id bigint, token uuid)) h;

    with asked as materialized (
        select t.run_id, t.tenant_id, t.priority, t.cancel_requested and not coalesce(g.shielded, false) as cancelled, g.*
        from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text, queue text, activity text, input jsonb,
            labels jsonb, max_failures int, max_losses int, backoff_base float8, backoff_cap float8,
            lease float8, start_to_close float8, shielded boolean, traceparent text, limit_key text, warm_key text)
        cross join lateral workflow.task(g.task_id) t
        where g.op = 'request'
          and (select s.seq from workflow.steps s where s.run_id = t.run_id and s.key = g.key) is null
    ), fresh as (
        insert into workflow.tasks
            (kind, run_id, tenant_id, step_key, queue, activity, input, required_labels, priority, run_at, max_failures,
             max_losses, backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, shielded, traceparent,
             limit_key, warm_key, lined)
        select 'activity', run_id, tenant_id, key, queue, activity, coalesce(input, 'null'), coalesce(labels, '{}'), priority,
               v_now, max_failures, max_losses, backoff_base, backoff_cap, lease, start_to_close, coalesce(shielded, false), traceparent,
               coalesce(limit_key, ''), warm_key, exists (select from workflow.queue_terms q where q.queue = asked.queue and not q.ended)
        from asked where not cancelled
        on conflict (run_id, kind, step_key) do nothing
        returning run_id, queue, tenant_id, limit_key, lined
    ), arrived as (
        insert into workflow.arrivals (queue, tenant_id, limit_key)
        select distinct queue, tenant_id, limit_key from fresh where lined
    ), forgiven as (
        -- Asking for something new is progress; asking again is what every replay does.
        update workflow.tasks set losses = 0
        where kind = 'run' and step_key = '' and losses > 0 and run_id = any (array (select run_id from fresh))
    )
    select (select array_agg(distinct queue) from fresh),
           (select array_agg(row (run_id, key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(), 0, null)::workflow.fact)
            -- One that is alive was asked for before: it hears of the cancellation, and says what came of it.
            from asked where cancelled and (select a.id from workflow.tasks a
                where a.run_id = asked.run_id and a.kind = 'activity' and a.step_key = asked.key) is null)
    into v_woken, v_facts;

    if p_ops @? '$[*] ? (@.op == "child" || @.op == "start" || @.op == "withdraw" || @.op == "mark")' then
        -- A child of a run that is being cancelled is recorded before it starts.
        v_facts := v_facts || workflow.start_runs(p_ops) || workflow.withdraw(p_ops);
        select v_facts || array_agg(row (t.run_id, g.key, g.kind, g.name, 'ok', g.output, null,
                   t.attempt_no, t.lease_token)::workflow.fact order by g.place)
        into v_facts
        from (select o.place, m.* from jsonb_array_elements(p_ops) with ordinality as o (op, place)
              cross join lateral jsonb_to_record(o.op) as m (op text, task_id bigint, key text, kind text, name text, output jsonb)
              where m.op = 'mark') g
        cross join lateral workflow.task(g.task_id) t
        having count(*) > 0 or v_facts is not null;
        if p_ops @? '$[*] ? (@.op == "child" || @.op == "start")' then
            v_woken := v_woken || array (
                select distinct g.queue from jsonb_to_recordset(p_ops) as g (op text, queue text) where g.op in ('child', 'start'));
        end if;
    end if;

    select v_facts || array_agg(row (t.run_id, g.key, 'timer', null, g.outcome, null,
               case g.outcome when 'cancelled' then workflow.cancelled_failure() end, t.attempt_no, t.lease_token)::workflow.fact)
    into v_facts
    from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text, outcome text)
    cross join lateral workflow.task(g.task_id) t
    where g.op = 'timer'
    having count(*) > 0 or v_facts is not null;

    return query select t.* from unnest(v_held, v_tokens) s (id, token)
        cross join lateral workflow.told('settled', null, s.id, s.token) t;
    if v_facts is not null then
        return query select * from workflow.record(v_facts);
    end if;
    if p_ops @? '$[*] ? (@.op == "withdraw")' then
        return query select * from workflow.withdraw_children(p_ops);
    end if;
    return query select * from workflow.leave(p_ops);
    return query select t.* from unnest(v_woken) q cross join lateral workflow.told('woken', q, null, null) t;
end $$;

create or replace function workflow.start_runs(p_ops jsonb) returns workflow.fact[] language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_op record;
    v_run uuid;
    v_facts workflow.fact[] := '{}';
begin
    for v_op in
        select t.run_id, t.tenant_id, t.cancel_requested, t.attempt_no, t.lease_token as token,
               (select coalesce(r.root_run_id, r.id) from workflow.runs r where r.id = t.run_id) as root, g.*
        from jsonb_array_elements(p_ops) with ordinality as o (op, place)
        cross join lateral jsonb_to_record(o.op) as g (op text, task_id bigint, key text, kind text, version int,
            activity text, queue text, priority smallint, max_losses int, input jsonb, business_key text, traceparent text)
        cross join lateral workflow.task(g.task_id) t
        where g.op in ('child', 'start')
          and (select s.seq from workflow.steps s where s.run_id = t.run_id and s.key = g.key) is null
        order by o.place
    loop
        -- Asked for again, because the answer was lost: it is under way, or over and on its way into the record.
        continue when v_op.op = 'child' and (
            exists (select from workflow.tasks c where c.parent_run_id = v_op.run_id and c.parent_key = v_op.key)
            or exists (select from workflow.errands e where e.parent_run_id = v_op.run_id and e.parent_key = v_op.key));
        if v_op.op = 'child' and v_op.cancel_requested then
            v_facts := v_facts || row (v_op.run_id, v_op.key, 'child', v_op.kind, 'cancelled', null,
                                       workflow.cancelled_failure(), 0, null)::workflow.fact;
            continue;
        end if;
        v_run := workflow.new_run_id(v_now);
        if v_op.business_key is not null then
            insert into workflow.run_keys values (v_op.kind, v_op.tenant_id, v_op.business_key, v_run) on conflict do nothing;
            if not found then
                v_run := (select run_id from workflow.run_keys
                          where kind = v_op.kind and tenant_id = v_op.tenant_id and business_key = v_op.business_key);
                v_facts := v_facts || row (v_op.run_id, v_op.key, 'start', v_op.kind, 'ok', to_jsonb(v_run), null,
                                           v_op.attempt_no, v_op.token)::workflow.fact;
                continue;
            end if;
        end if;
        insert into workflow.runs (id, tenant_id, kind, version, business_key, input, priority, created_at,
                                   parent_run_id, parent_key, root_run_id, detached, traceparent)
        values (v_run, v_op.tenant_id, v_op.kind, v_op.version, v_op.business_key, coalesce(v_op.input, 'null'), v_op.priority,
                v_now, v_op.run_id, v_op.key, v_op.root, v_op.op = 'start', v_op.traceparent);
        insert into workflow.tasks
            (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses,
             backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, traceparent, parent_run_id, parent_key)
        values ('run', v_run, v_op.tenant_id, '', v_op.queue, v_op.activity, v_op.priority, v_now, 1, v_op.max_losses,
                0, 0, 30, 1e9, v_op.traceparent, case v_op.op when 'child' then v_op.run_id end, case v_op.op when 'child' then v_op.key end);
        if v_op.op = 'start' then
            v_facts := v_facts || row (v_op.run_id, v_op.key, 'start', v_op.kind, 'ok', to_jsonb(v_run), null,
                                       v_op.attempt_no, v_op.token)::workflow.fact;
        end if;
    end loop;
    return nullif(v_facts, '{}');
end $$;

create or replace function workflow.withdraw(p_ops jsonb) returns workflow.fact[] language plpgsql as $$
#variable_conflict use_column
declare
    v_facts workflow.fact[];
begin
    with given as materialized (
        select a.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text)
        cross join lateral workflow.task(g.task_id) t
        cross join lateral (select id from workflow.tasks
                            where run_id = t.run_id and kind = 'activity' and step_key = g.key offset 0) a
        where g.op = 'withdraw'
    ), told as (
        update workflow.tasks t set cancel_requested = true where t.id = any (array (select id from given)) and t.state = 'leased'
    ), gone as (
        delete from workflow.tasks t where t.id = any (array (select id from given)) and t.state <> 'leased' returning t.*
    )
    select array_agg(row (run_id, step_key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(),
                          attempt_no, null)::workflow.fact order by id)
    into v_facts from gone;
    return v_facts;
end $$;

create or replace function workflow.withdraw_children(p_ops jsonb) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
begin
    return query select * from workflow.cascade(array (
        select c.run_id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text)
        cross join lateral workflow.task(g.task_id) t
        cross join lateral (select run_id from workflow.tasks where parent_run_id = t.run_id and parent_key = g.key offset 0) c
        where g.op = 'withdraw'));
end $$;

create or replace function workflow.leave(p_ops jsonb) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_woken text[];
    v_ends bigint[];
    v_states text[];
    v_bodies jsonb[];
    v_nexts jsonb[];
begin
    with given as (
        select g.* from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, seq bigint, due timestamptz, reason text, failure jsonb)
        where g.op in ('park', 'release')
    ), noted as (
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
        select t.id, t.attempt_no, t.run_id, t.tenant_id, '', t.lease_token, t.leased_by, t.leased_at, v_now, 'released'
        from given g cross join lateral workflow.task(g.task_id) t
    ), left_alone as (
        update workflow.tasks t
        set state = case when g.op = 'park' and (t.wake_seq = g.seq or g.reason is not null) then 'waiting' else 'ready' end,
            run_at = case when g.op = 'park' and (t.wake_seq = g.seq or g.reason is not null)
                          then coalesce(g.due, 'infinity') else v_now end,
            parked_reason = g.reason, parked_failure = g.failure,
            lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null
        from given g cross join lateral workflow.task(g.task_id) held where t.id = held.id
        returning t.queue, t.state
    )
    select array_agg(distinct queue) filter (where state = 'ready') into v_woken from left_alone;
    return query select t.* from unnest(v_woken) q cross join lateral workflow.told('woken', q, null, null) t;

    select array_agg(g.task_id), array_agg(g.state), array_agg(coalesce(g.output, g.error)), array_agg(g.next)
    into v_ends, v_states, v_bodies, v_nexts
    from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, state text, output jsonb, error jsonb, next jsonb)
    where g.op = 'end';
    if v_ends is not null then
        return query select * from workflow.end_runs(v_ends, v_states, v_bodies, v_nexts);
    end if;
end $$;

create or replace function workflow.settle(p_attempts jsonb) returns setof workflow.news language plpgsql as $$
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
        cross join lateral workflow.task(g.task_id) t
        where t.lease_token = g.token and t.state = 'leased' and t.kind = 'activity'
    ), noted as (
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome, failure)
        select id, attempt_no, run_id, tenant_id, step_key, lease_token, leased_by, leased_at, v_now, ended,
               case when ended not in ('ok', 'released') then failure end
        from judged
    ), gone as (
        delete from workflow.tasks t where t.id = any (array (select id from judged where verdict <> 'again'))
    ), again as (
        update workflow.tasks t
        set state = case when j.delay > 0 then 'waiting' else 'ready' end,
            run_at = v_now + make_interval(secs => j.delay),
            failures = t.failures + j.failed, losses = t.losses + j.lost,
            lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null, progress = null
        from judged j cross join lateral workflow.task(j.id) held where t.id = held.id and j.verdict = 'again'
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

-- Plans that hash or scan the whole queue are never right here, however small it looks at the moment; and without scans
-- their estimates are so high that PostgreSQL would compile them each time (jit), for 100 ms.
create or replace function workflow.pump(
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
                cross join lateral workflow.task(g.task_id) t
            union
            select r.id from jsonb_to_recordset(p_attempts) as g (task_id bigint)
                cross join lateral workflow.task(g.task_id) t
                cross join lateral workflow.task_of_run(t.run_id) r
            union
            select g.task_id from jsonb_to_recordset(p_ops) as g (task_id bigint)
            union
            select a.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint)
                cross join lateral workflow.task(g.task_id) t
                cross join lateral (select id from workflow.tasks where run_id = t.run_id offset 0) a
                where g.op = 'end'
            union
            select p.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint)
                cross join lateral workflow.task(g.task_id) t
                cross join lateral workflow.task_of_run(t.parent_run_id) p
                where g.op = 'end'
            union
            select a.id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text)
                cross join lateral workflow.task(g.task_id) t
                cross join lateral (select id from workflow.tasks
                                    where run_id = t.run_id and kind = 'activity' and step_key = g.key offset 0) a
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
