-- Runs: their record, their progress, their ends. See 31_workflow_engine.sql.

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
