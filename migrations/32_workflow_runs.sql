-- Runs: their record, their progress, their children, their ends. See 31_workflow_engine.sql.
--
--   errands   what one run owes another and could not do at once without waiting for a lock

create table workflow.errands (
    run_id        uuid not null,
    what          text not null check (what in ('cancel', 'deliver')),
    parent_run_id uuid,
    parent_key    text,
    primary key (run_id, what)
);
create index errands_of_parent on workflow.errands (parent_run_id, parent_key) where parent_run_id is not null;
comment on column workflow.errands.parent_run_id is 'softref:workflow.runs(id). Who is to hear of it, and under which key; null for cancel.';
comment on table workflow.errands is
    'cancel: the run is to be asked to stop, as its parent was. deliver: the run is over, its parent is to hear of it. Nearly always empty.';

-- Appends facts to the records of their runs and wakes runs that sleep. The tasks of the runs must be locked
-- by the caller. A run that has ended records nothing; a key that is recorded already stays as it is.
create function workflow.record(p_facts workflow.fact[]) returns setof workflow.news
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
        where not exists (select from workflow.steps s where s.run_id = f.run_id and s.key = f.key)
        group by f.run_id
    ), bumped as (
        update workflow.tasks t
        set wake_seq = t.wake_seq + cardinality(g.facts), losses = 0,
            run_at = case when t.state = 'waiting' and t.parked_reason is null then v_now else t.run_at end,
            state = case when t.state = 'waiting' and t.parked_reason is null then 'ready' else t.state end
        -- Found by one look each: told the kind as well, the planner would believe that there is one run, and read them all.
        from given g
        cross join lateral (select r.id from workflow.tasks r
                            where r.run_id = g.run_id and r.kind = 'run' and r.step_key = '' limit 1) r
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

-- ---------------------------------------------------------------------------------------- progress of runs

-- What executors ask for. `p_ops` is an array of {op, task_id, token, …}, op one of
--   request  key, queue, activity, input, labels, shielded, traceparent, and the policy: schedules an activity; repeating it is harmless
--   child    key, kind, version, activity, queue, priority, max_losses, input, traceparent: starts a child; repeating it is harmless
--   start    the same, business_key: starts a run of its own, and records which
--   withdraw key: nobody waits for this activity or child any more
--   timer    key, outcome: a timer is over
--   mark     key, kind, name, output: records that the definition came by
--   park     seq, due: sleep until `due` or the next record, unless a record newer than `seq` is there already;
--            with reason, failure: sleep until somebody resumes it
--   release  the run is ready for another worker
--   end      state, output, error: the run is over; what it left running is fenced off. next: it goes on as another
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
        select t.run_id, t.tenant_id, t.priority, t.cancel_requested and not coalesce(g.shielded, false) as cancelled, g.*
        from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text, queue text, activity text, input jsonb,
            labels jsonb, max_failures int, max_losses int, backoff_base float8, backoff_cap float8,
            lease float8, start_to_close float8, shielded boolean, traceparent text, limit_key text, warm_key text)
        join workflow.tasks t on t.id = g.task_id
        where g.op = 'request'
          and not exists (select from workflow.steps s where s.run_id = t.run_id and s.key = g.key)
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
            from asked where cancelled)
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
        join workflow.tasks t on t.id = g.task_id
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
    join workflow.tasks t on t.id = g.task_id
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

-- The ops `child` and `start` of `advance`. Answers what is to be recorded of them now.
create function workflow.start_runs(p_ops jsonb) returns workflow.fact[] language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_op record;
    v_run uuid;
    v_facts workflow.fact[] := '{}';
begin
    for v_op in
        select t.run_id, t.tenant_id, t.cancel_requested, t.attempt_no, t.lease_token as token,
               coalesce(r.root_run_id, r.id) as root, g.*
        from jsonb_array_elements(p_ops) with ordinality as o (op, place)
        cross join lateral jsonb_to_record(o.op) as g (op text, task_id bigint, key text, kind text, version int,
            activity text, queue text, priority smallint, max_losses int, input jsonb, business_key text, traceparent text)
        join workflow.tasks t on t.id = g.task_id
        join workflow.runs r on r.id = t.run_id
        where g.op in ('child', 'start')
          and not exists (select from workflow.steps s where s.run_id = t.run_id and s.key = g.key)
        order by o.place
    loop
        if v_op.op = 'child' and v_op.cancel_requested then
            v_facts := v_facts || row (v_op.run_id, v_op.key, 'child', v_op.kind, 'cancelled', null,
                                       workflow.cancelled_failure(), 0, null)::workflow.fact;
            continue;
        end if;
        -- Asked for again, because the answer was lost: it is under way, or over and on its way into the record.
        continue when v_op.op = 'child' and (
            exists (select from workflow.tasks c where c.parent_run_id = v_op.run_id and c.parent_key = v_op.key)
            or exists (select from workflow.errands e where e.parent_run_id = v_op.run_id and e.parent_key = v_op.key));
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

-- The op `withdraw` of `advance`, for activities, which the caller has locked: those nobody works on are recorded as
-- cancelled, the others are told to stop.
create function workflow.withdraw(p_ops jsonb) returns workflow.fact[] language plpgsql as $$
#variable_conflict use_column
declare
    v_facts workflow.fact[];
begin
    with given as (
        select t.run_id, g.key from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text)
        join workflow.tasks t on t.id = g.task_id where g.op = 'withdraw'
    ), told as (
        update workflow.tasks t set cancel_requested = true
        from given g where t.run_id = g.run_id and t.kind = 'activity' and t.step_key = g.key and t.state = 'leased'
    ), gone as (
        delete from workflow.tasks t
        using given g where t.run_id = g.run_id and t.kind = 'activity' and t.step_key = g.key and t.state <> 'leased'
        returning t.*
    )
    select array_agg(row (run_id, step_key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(),
                          attempt_no, null)::workflow.fact order by id)
    into v_facts from gone;
    return v_facts;
end $$;

-- The op `withdraw` of `advance`, for children.
create function workflow.withdraw_children(p_ops jsonb) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
begin
    return query select * from workflow.cascade(array (
        select c.run_id from jsonb_to_recordset(p_ops) as g (op text, task_id bigint, key text)
        join workflow.tasks t on t.id = g.task_id
        join workflow.tasks c on c.parent_run_id = t.run_id and c.parent_key = g.key
        where g.op = 'withdraw'));
end $$;

-- The ops of `advance` that give a run away: park, release, end. Their fences hold.
create function workflow.leave(p_ops jsonb) returns setof workflow.news language plpgsql as $$
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
        from given g join workflow.tasks t on t.id = g.task_id
    ), left_alone as (
        update workflow.tasks t
        set state = case when g.op = 'park' and (t.wake_seq = g.seq or g.reason is not null) then 'waiting' else 'ready' end,
            run_at = case when g.op = 'park' and (t.wake_seq = g.seq or g.reason is not null)
                          then coalesce(g.due, 'infinity') else v_now end,
            parked_reason = g.reason, parked_failure = g.failure,
            lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null
        from given g where t.id = g.task_id
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

-- Ends of runs, whose fences hold: those that leave nothing behind and owe nobody anything all at once, the others one by one.
-- A body is the output of a run that succeeded, else its error.
create function workflow.end_runs(p_ids bigint[], p_states text[], p_bodies jsonb[], p_nexts jsonb[])
returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_plain bigint[];
begin
    with plain as materialized (
        select t.id, t.run_id, t.tenant_id, t.attempt_no, t.lease_token, t.leased_by, t.leased_at, g.state, g.body
        from unnest(p_ids, p_states, p_bodies, p_nexts) as g (id, state, body, next)
        join workflow.tasks t on t.id = g.id
        where g.next is null and not t.cancel_requested and t.parent_run_id is null
          -- Not `not exists`: while the table is new the planner would join it whole.
          and (select a.id from workflow.tasks a where a.run_id = t.run_id and a.kind = 'activity' limit 1) is null
          and (select c.id from workflow.tasks c where c.parent_run_id = t.run_id limit 1) is null
    ), noted as (
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome, failure)
        select id, attempt_no, run_id, tenant_id, '', lease_token, leased_by, leased_at, v_now,
               case state when 'succeeded' then 'ok' else state end, case when state <> 'succeeded' then body end
        from plain
    ), gone as (
        delete from workflow.tasks t using plain p where t.id = p.id
    ), over as (
        update workflow.runs r
        set state = p.state, finished_at = v_now, output = case p.state when 'succeeded' then p.body end,
            error = case when p.state <> 'succeeded' then p.body end,
            error_fingerprint = case when p.state <> 'succeeded' then workflow.fingerprint(p.body) end
        from plain p where r.id = p.run_id
    )
    select array_agg(id) into v_plain from plain;
    if cardinality(v_plain) = cardinality(p_ids) then
        return;
    end if;
    return query
    select n.* from unnest(p_ids, p_states, p_bodies, p_nexts) as g (id, state, body, next)
    cross join lateral workflow.end_run(g.id, g.state, case g.state when 'succeeded' then g.body end,
                                        case when g.state <> 'succeeded' then g.body end, g.next) n
    where g.id <> all (coalesce(v_plain, '{}'));
end $$;

-- What most runs ask for, without JSON around it: to record one thing that the definition came by (`what` is its kind, the body
-- its output, `at` its time, null for now), or, without a key, to end (`what` is the state, the body the output or the error).
-- One entry a run, or two: its last record and its end, both with the number `seq` that the record is to have. If that is taken,
-- the definition has not heard of everything: the record is written, the run does not end, and is given back.
-- As with `advance`, an entry whose token no longer holds the run changes nothing. An entry counts as settled when it is reported
-- so, or as recorded. The caller has locked the tasks of runs that end; records lock theirs as they go, in the order of `p_ids`,
-- which is that of the ids. `p_again`: some of it may have been written before, by a trip whose answer was lost; without it a key
-- that is recorded already fails the whole trip.
create function workflow.advance_plain(
    p_ids bigint[], p_tokens uuid[], p_whats text[], p_keys text[], p_names text[], p_bodies jsonb[], p_seqs bigint[],
    p_ats timestamptz[], p_again boolean)
returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_recorded bigint;
    v_ids bigint[];
    v_tokens uuid[];
    v_states text[];
    v_bodies jsonb[];
    v_lasts boolean := cardinality(array_remove(p_seqs, null)) > 0;
begin
    if v_lasts then
        -- Not counted in the task, which leaves with the run.
        insert into workflow.steps (run_id, seq, tenant_id, key, kind, name, outcome, output, attempt_no, lease_token, recorded_at)
        select t.run_id, g.seq, t.tenant_id, g.key, g.what, g.name, 'ok', g.body, t.attempt_no, t.lease_token, coalesce(g.at, v_now)
        from unnest(p_ids, p_tokens, p_whats, p_keys, p_names, p_bodies, p_seqs, p_ats) as g (id, token, what, key, name, body, seq, at)
        join workflow.tasks t on t.id = g.id and t.lease_token = g.token
        where g.key is not null and g.seq = t.wake_seq + 1;
    end if;
    -- Tasks are found by id and token alone, which only a leased one has: told more, the planner would believe that there is one
    -- such task, and read them all.
    if cardinality(array_remove(p_keys, null)) > 0 then
        return query
        with bumped as (
            update workflow.tasks t set wake_seq = t.wake_seq + 1, losses = 0
            from unnest(p_ids, p_tokens, p_whats, p_keys, p_names, p_bodies, p_seqs, p_ats) as g (id, token, what, key, name, body, seq, at)
            where t.id = g.id and t.lease_token = g.token and g.key is not null and (g.seq is null or g.seq <> t.wake_seq + 1)
              -- Not `not exists`: while the table is new the planner would join it whole.
              and (not p_again or (select s.seq from workflow.steps s where s.run_id = t.run_id and s.key = g.key) is null)
            returning t.id, t.run_id, t.tenant_id, t.wake_seq, t.attempt_no, t.lease_token, t.worker_id, g.what, g.key, g.name, g.body,
                g.seq is null as stays, coalesce(g.at, v_now) as at
        ), written as (
            insert into workflow.steps (run_id, seq, tenant_id, key, kind, name, outcome, output, attempt_no, lease_token, recorded_at)
            select run_id, wake_seq, tenant_id, key, what, name, 'ok', body, attempt_no, lease_token, at from bumped
        )
        select 'recorded', null::text, id, run_id, tenant_id, key, 'ok', null::jsonb, attempt_no, lease_token,
               null::float8, null::float8, wake_seq, at, worker_id, null::text
        from bumped where stays;
        get diagnostics v_recorded = row_count;
        if v_recorded < cardinality(array_remove(p_keys, null)) then
            -- Recorded before, stale, or the last of its run.
            return query
            select n.* from unnest(p_ids, p_tokens, p_keys, p_seqs) as g (id, token, key, seq)
            join workflow.tasks t on t.id = g.id and t.lease_token = g.token
            cross join lateral workflow.told('settled', null, t.id, t.lease_token) n
            where g.key is not null and g.seq is null;
        end if;
    end if;

    select array_agg(t.id), array_agg(t.lease_token), array_agg(g.what), array_agg(g.body)
    into v_ids, v_tokens, v_states, v_bodies
    from unnest(p_ids, p_tokens, p_whats, p_keys, p_bodies, p_seqs) as g (id, token, what, key, body, seq)
    join workflow.tasks t on t.id = g.id and t.lease_token = g.token
    where g.key is null and (g.seq is null or g.seq = t.wake_seq + 1);
    if v_lasts then
        -- A child may be asked to stop by the end of its parent in this trip, which is recorded.
        update workflow.tasks t set wake_seq = g.seq
        from unnest(p_ids, p_tokens, p_keys, p_seqs) as g (id, token, key, seq)
        where t.id = g.id and t.lease_token = g.token and g.key is null and g.seq = t.wake_seq + 1 and t.parent_run_id is not null;
    end if;
    if v_ids is not null then
        return query select t.* from unnest(v_ids, v_tokens) s (id, token)
            cross join lateral workflow.told('settled', null, s.id, s.token) t;
        return query select * from workflow.end_runs(v_ids, v_states, v_bodies, array_fill(null::jsonb, array[cardinality(v_ids)]));
    end if;
    if v_lasts then
        -- Those that have ended are gone.
        return query
        select n.* from (
            select jsonb_agg(jsonb_build_object('op', 'release', 'task_id', t.id)) as ops
            from unnest(p_ids, p_tokens, p_keys, p_seqs) as g (id, token, key, seq)
            join workflow.tasks t on t.id = g.id and t.lease_token = g.token
            where g.key is null and g.seq is not null) late
        cross join lateral workflow.leave(late.ops) n
        where late.ops is not null;
    end if;
end $$;

-- Ends a run whose tasks the caller has locked. Activities it did not wait for are recorded as cancelled;
-- whoever works on one loses the lease. Children it did not wait for are asked to stop. Its parent hears of the end, unless
-- the run goes on as another: `p_next` is what that is started with, and which signals it takes along.
create function workflow.end_run(p_task bigint, p_state text, p_output jsonb, p_error jsonb, p_next jsonb default null)
returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_run workflow.tasks;
    v_next uuid := case when p_next is not null then workflow.new_run_id(v_now) end;
    v_facts workflow.fact[];
    v_children uuid[];
begin
    select * into v_run from workflow.tasks where id = p_task;
    v_children := array (select c.run_id from workflow.tasks c where c.parent_run_id = v_run.run_id);
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
    select v_facts || array_agg(row (v_run.run_id, c.parent_key, 'child', r.kind, 'cancelled', null, workflow.cancelled_failure(),
                                     0, null)::workflow.fact order by r.id)
    into v_facts from workflow.tasks c join workflow.runs r on r.id = c.run_id where c.parent_run_id = v_run.run_id
    having count(*) > 0 or v_facts is not null;
    if v_facts is not null then
        -- Its last record may have come with its end, and is not counted then.
        update workflow.tasks t set wake_seq = s.seq
        from (select max(seq) as seq from workflow.steps where run_id = v_run.run_id) s where t.id = p_task and s.seq > t.wake_seq;
        perform workflow.record(v_facts);
    end if;
    if v_run.lease_token is not null then
        insert into workflow.attempts
            (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome, failure)
        values (v_run.id, v_run.attempt_no, v_run.run_id, v_run.tenant_id, '', v_run.lease_token, v_run.leased_by, v_run.leased_at,
                v_now, case p_state when 'succeeded' then 'ok' else p_state end, p_error);
    end if;
    delete from workflow.tasks where id = p_task;
    delete from workflow.errands where run_id = v_run.run_id and what = 'cancel';
    update workflow.runs set state = p_state, output = p_output, error = p_error, finished_at = v_now,
                             error_fingerprint = case when p_error is not null then workflow.fingerprint(p_error) end,
                             continued_as = v_next
    where id = v_run.run_id;
    if p_next is not null then
        perform workflow.succeed(v_run, v_next, p_next);
        return query select * from workflow.told('woken', v_run.queue, null, null);
    else
        return query select * from workflow.deliver(v_run.run_id);
    end if;
    if v_children <> '{}' then
        return query select * from workflow.cascade(v_children);
    end if;
end $$;

-- Starts the run `p_id` that goes on in place of `p_run`, which has ended in this transaction: with its business key, its
-- parent, the signals it has not taken, and the request to stop that it may not have heard.
create function workflow.succeed(p_run workflow.tasks, p_id uuid, p_next jsonb) returns void language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_carried bigint;
begin
    insert into workflow.runs (id, tenant_id, kind, version, business_key, input, priority, created_at, parent_run_id, parent_key,
                               root_run_id, detached, continued_from, cancel_requested_at, cancel_reason, traceparent)
    select p_id, r.tenant_id, r.kind, (p_next ->> 'version')::int, r.business_key, p_next -> 'input',
           (p_next ->> 'priority')::smallint, v_now, r.parent_run_id, r.parent_key, r.root_run_id, r.detached, r.id,
           r.cancel_requested_at, r.cancel_reason, r.traceparent
    from workflow.runs r where r.id = p_run.run_id;
    update workflow.run_keys k set run_id = p_id
    from workflow.runs r
    where r.id = p_run.run_id and k.kind = r.kind and k.tenant_id = r.tenant_id and k.business_key = r.business_key
      and k.run_id = r.id;
    insert into workflow.steps (run_id, seq, tenant_id, key, kind, name, outcome, output, recorded_at)
    select p_id, row_number() over (order by s.seq), s.tenant_id, s.key, s.kind, s.name, 'ok', s.output, v_now
    from workflow.steps s
    where s.run_id = p_run.run_id
      and (s.kind = 'cancel' or s.kind = 'signal' and (s.seq > (p_next ->> 'seq')::bigint or p_next -> 'signals' ? s.key));
    get diagnostics v_carried = row_count;
    insert into workflow.tasks
        (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses, backoff_base_seconds,
         backoff_cap_seconds, lease_seconds, start_to_close_seconds, wake_seq, cancel_requested, traceparent, parent_run_id,
         parent_key)
    values ('run', p_id, p_run.tenant_id, '', p_run.queue, p_next ->> 'activity', (p_next ->> 'priority')::smallint, v_now, 1,
            p_run.max_losses, 0, 0, 30, 1e9, v_carried, p_run.cancel_requested, p_run.traceparent, p_run.parent_run_id, p_run.parent_key);
end $$;

-- ---------------------------------------------------------------------------------------- cancelling

-- Asks a run to stop. Activities nobody works on are recorded as cancelled at once, the others are marked, and the run
-- hears of it through its record; so do its children. Nothing when the run has ended or was asked before.
create function workflow.cancel(p_run uuid, p_reason text) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_run uuid := p_run;
begin
    lock table only workflow.runs in access share mode;
    loop
        perform workflow.lock_tasks(array (select id from workflow.tasks where run_id = v_run));
        if exists (select from workflow.tasks where run_id = v_run and kind = 'run') then
            exit;
        end if;
        -- Over; it may have gone on as another.
        v_run := (select continued_as from workflow.runs where id = v_run);
        if v_run is null then
            return;
        end if;
    end loop;
    if exists (select from workflow.tasks where run_id = v_run and kind = 'run' and not cancel_requested) then
        return query select * from workflow.cancel_locked(array[v_run], p_reason);
    end if;
end $$;

-- Asks runs to stop that were not asked before; the caller has locked their tasks.
create function workflow.cancel_locked(p_runs uuid[], p_reason text) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_facts workflow.fact[];
    v_children uuid[];
begin
    update workflow.runs set cancel_requested_at = workflow.now(), cancel_reason = left(p_reason, 250) where id = any (p_runs);
    update workflow.tasks set cancel_requested = true where run_id = any (p_runs) and not shielded;
    with gone as (
        delete from workflow.tasks where run_id = any (p_runs) and kind = 'activity' and state <> 'leased' and not shielded returning *
    ), facts as (
        select 0 as id, row (r, '$cancel', 'cancel', null, 'ok', to_jsonb(left(p_reason, 250)), null, 0, null)::workflow.fact as fact
        from unnest(p_runs) r
        union all
        select id, row (run_id, step_key, 'activity', activity, 'cancelled', null, workflow.cancelled_failure(),
                        attempt_no, null)::workflow.fact
        from gone
    )
    select array_agg(fact order by id) into v_facts from facts;
    return query select * from workflow.record(v_facts);
    v_children := array (select c.run_id from workflow.tasks c where c.parent_run_id = any (p_runs) and not c.cancel_requested);
    if v_children <> '{}' then
        return query select * from workflow.cascade(v_children);
    end if;
end $$;

-- Asks children to stop because of their parents. Never waits for a lock: what is busy at the moment is left to the next
-- look around.
create function workflow.cascade(p_runs uuid[]) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_free bigint[];
    v_runs uuid[];
begin
    v_free := array (select id from workflow.tasks where run_id = any (p_runs) for update skip locked);
    v_runs := array (
        select run_id from workflow.tasks where run_id = any (p_runs)
        group by run_id having bool_and(id = any (v_free)) and bool_or(kind = 'run' and not cancel_requested));
    insert into workflow.errands (run_id, what)
    select distinct run_id, 'cancel' from workflow.tasks
    where run_id = any (p_runs) and run_id <> all (v_runs) and kind = 'run' and not cancel_requested
    on conflict do nothing;
    if v_runs <> '{}' then
        return query select * from workflow.cancel_locked(v_runs, 'the run that asked for it was cancelled or is over');
    end if;
end $$;

-- Tells the parent of a run that is over how it ended. Never waits for a lock, as `cascade`.
create function workflow.deliver(p_run uuid) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_run workflow.runs;
begin
    select * into v_run from workflow.runs where id = p_run;
    if v_run.parent_run_id is null or v_run.detached then
        return;
    end if;
    perform 1 from workflow.tasks where run_id = v_run.parent_run_id and kind = 'run' and step_key = '' for update skip locked;
    if found then
        delete from workflow.errands where run_id = p_run and what = 'deliver';
        return query select * from workflow.record(array[row (
            v_run.parent_run_id, v_run.parent_key, 'child', v_run.kind,
            case v_run.state when 'succeeded' then 'ok' else v_run.state end, v_run.output, v_run.error, 0, null)::workflow.fact]);
    elsif exists (select from workflow.tasks where run_id = v_run.parent_run_id and kind = 'run') then
        insert into workflow.errands values (p_run, 'deliver', v_run.parent_run_id, v_run.parent_key) on conflict do nothing;
    else
        delete from workflow.errands where run_id = p_run and what = 'deliver';
    end if;
end $$;

-- Does what was left for later; part of the look around.
create function workflow.run_errands() returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_runs uuid[];
    v_run uuid;
begin
    if not exists (select from workflow.errands) then
        return;
    end if;
    with taken as (
        delete from workflow.errands where (run_id, what) in (
            select run_id, what from workflow.errands where what = 'cancel' limit 1000 for update skip locked)
        returning run_id
    )
    select array_agg(run_id) into v_runs from taken;
    if v_runs is not null then
        return query select * from workflow.cascade(v_runs);
    end if;
    for v_run in
        select run_id from workflow.errands where what = 'deliver' limit 1000 for update skip locked
    loop
        return query select * from workflow.deliver(v_run);
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------- signals

-- Records a signal, whether its run waits for it or not. Answers one row `signalled`, name = accepted, repeated (the run, or
-- one before or after it in its chain, has had a signal with this key), closed (the run is over), unknown (there is no such run); then what
-- was recorded. A run that went on as another passes its signals on.
create function workflow.signal(p_run uuid, p_name text, p_dedupe text, p_payload jsonb) returns setof workflow.news
language plpgsql as $$
#variable_conflict use_column
declare
    v_run uuid := p_run;
    v_key text := '$signal:' || p_name || ':' || coalesce(p_dedupe, '#' || gen_random_uuid());
begin
    lock table only workflow.runs in access share mode;
    loop
        perform 1 from workflow.tasks where run_id = v_run and kind = 'run' and step_key = '' for update;
        if p_dedupe is not null and exists (select from workflow.steps where run_id = v_run and key = v_key) then
            return query select * from workflow.signalled('repeated');
            return;
        end if;
        if exists (select from workflow.tasks where run_id = v_run and kind = 'run') then
            if p_dedupe is not null and workflow.had_signal(v_run, v_key) then
                return query select * from workflow.signalled('repeated');
                return;
            end if;
            return query select * from workflow.signalled('accepted');
            return query select * from workflow.record(
                array[row (v_run, v_key, 'signal', p_name, 'ok', p_payload, null, 0, null)::workflow.fact]);
            return;
        end if;
        v_run := (select continued_as from workflow.runs where id = v_run);
        if v_run is null then
            return query select * from workflow.signalled(
                case when exists (select from workflow.runs where id = p_run) then 'closed' else 'unknown' end);
            return;
        end if;
    end loop;
end $$;

-- Whether one of the runs that `p_run` goes on for has had a signal under this key, for as long as retention keeps its record.
-- Nearly always answered by one look at an index: only a key that somebody has had is looked for along the chain.
create function workflow.had_signal(p_run uuid, p_key text) returns boolean language plpgsql stable as $$
declare
    v_run uuid := (select continued_from from workflow.runs where id = p_run);
begin
    if v_run is null or not exists (select from workflow.steps where kind = 'signal' and key = p_key and run_id <> p_run) then
        return false;
    end if;
    while v_run is not null loop
        if exists (select from workflow.steps where run_id = v_run and key = p_key) then
            return true;
        end if;
        v_run := (select continued_from from workflow.runs where id = v_run);
    end loop;
    return false;
end $$;

create function workflow.signalled(p_name text) returns setof workflow.news language sql immutable as $$
    select 'signalled', null::text, null::bigint, null::uuid, null::uuid, null::text, p_name, null::jsonb, null::int, null::uuid,
           null::float8, null::float8, null::bigint, null::timestamptz, null::bigint, null::text
$$;

-- ---------------------------------------------------------------------------------------- resuming

-- Lets a parked run go on. Answers the queue that has work now; nothing when the run is not parked.
create function workflow.resume(p_run uuid) returns setof workflow.news language sql as $$
    with resumed as (
        update workflow.tasks
        set state = 'ready', run_at = workflow.now(), losses = 0, parked_reason = null, parked_failure = null
        where run_id = p_run and kind = 'run' and parked_reason is not null
        returning queue
    )
    select t.* from resumed r cross join lateral workflow.told('woken', r.queue, null, null) t
$$;

-- A worker begins: what did not fit older code may fit its.
create function workflow.resume_mismatched() returns void language sql as $$
    update workflow.tasks set state = 'ready', run_at = workflow.now(), parked_reason = null, parked_failure = null
    where id = any (array (
        select id from workflow.tasks where parked_reason = 'version_mismatch' for update skip locked))
$$;
