-- Recovery: what is due, what is lost, who is gone. See 31_workflow_engine.sql.

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
    v_failure jsonb;
    v_parked boolean := false;
begin
    select * into v_run from workflow.tasks where id = p_task;
    -- A run that others work for most likely waited for them when its worker was lost. Whether it kills its workers is seen
    -- when they are done: what they bring is progress, and the count begins anew.
    if p_young and v_run.losses + 1 >= v_run.max_losses
       and not exists (select from workflow.tasks where run_id = v_run.run_id and kind = 'activity')
       and not exists (select from workflow.tasks where parent_run_id = v_run.run_id) then
        v_failure := jsonb_build_object(
            'code', 'workflow.lost_too_often', 'retryable', false,
            'message', format('given up after %s workers in a row were lost while continuing the run', v_run.losses + 1));
        if not exists (select from workflow.steps where run_id = v_run.run_id and kind = 'compensation') then
            perform workflow.end_run(v_run.id, 'failed', null, v_failure);
            return null;
        end if;
        -- Only its definition can undo what it has done: it waits until somebody has mended that.
        v_parked := true;
    end if;
    insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker,
                                   started_at, ended_at, outcome)
    values (v_run.id, v_run.attempt_no, v_run.run_id, v_run.tenant_id, '', v_run.lease_token, v_run.leased_by,
            v_run.leased_at, v_now, 'lost');
    -- From the second loss in a row on the run comes back after a pause of its own: whoever is with a run that kills
    -- its workers gets away from it.
    v_pause := case when v_parked then 1 when v_run.losses = 0 then 0 else (0.5 + random() / 2) * least(60, 0.1 * power(2, v_run.losses)) end;
    update workflow.tasks
    set state = case when v_pause > 0 then 'waiting' else 'ready' end,
        run_at = case when v_parked then 'infinity' else v_now + make_interval(secs => v_pause) end,
        losses = least(losses + p_young::int, max_losses),
        parked_reason = case when v_parked then 'lost_too_often' end, parked_failure = case when v_parked then v_failure end,
        lease_token = null, leased_by = null, worker_id = null, leased_at = null, lease_expires_at = null
    where id = p_task;
    return case when v_pause = 0 then v_run.queue end;
end $$;

-- Gives every lease that ended while nobody looked another length: its holder could not renew it either.
-- At most once in two seconds it notes that somebody looks, and once in a minute it sees to the partitions and to
-- those who are long gone.
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
    if exists (select from workflow.last_sweep where partitions_at < clock_timestamp() - interval '1 min') then
        update workflow.last_sweep set partitions_at = clock_timestamp();
        perform workflow.make_partitions();
        perform workflow.forget_workers();
    end if;
end $$;

-- Forgets who is long gone: every start of a process, with or without a database, is somebody new.
create function workflow.forget_workers() returns void language plpgsql as $$
begin
    delete from workflow.worker_offers o using workflow.workers w
    where w.id = o.worker_id and w.ended_at < workflow.now() - interval '1 hour';
    delete from workflow.workers w
    where w.ended_at < workflow.now() - interval '30 days' and w.jobs_freed
      and not exists (select from workflow.worker_offers o where o.worker_id = w.id);
    delete from workflow.remote_workers where seen_at < workflow.now() - interval '1 hour';
end $$;

-- A look around by incarnation `p_me`: shows that it lives, wakes what is due, finds peers that died, recovers their work.
-- A peer is dead when its session lock was free at two looks at least `p_patience` apart, so that one which lost its
-- connection may come back; or when it has not looked around itself for half a minute. Answers the time and when the next
-- task falls due in the row 'clock' (at, lease_seconds).
create function workflow.sweep(p_me bigint, p_patience interval) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_peer record;
    v_gone bigint[];
begin
    lock table only workflow.runs in access share mode;
    update workflow.workers set seen_at = v_now, suspected_at = null
    where id = p_me and ended_at is null and (seen_at < v_now - interval '1 s' or suspected_at is not null);
    if pg_try_advisory_xact_lock(17997, 0) then
        perform workflow.note_sweep();
        return query select * from workflow.wake_due();
        return query select * from workflow.run_errands();
        for v_peer in select id, seen_at, suspected_at from workflow.workers where ended_at is null and id <> p_me loop
            if v_peer.seen_at < v_now - interval '30 s' and v_peer.suspected_at <= v_now - interval '5 s' then
                -- It may hold its lock and do nothing: stopped, or out of time for itself.
                update workflow.workers set ended_at = v_now where id = v_peer.id;
            elsif v_peer.seen_at < v_now - interval '30 s' then
                update workflow.workers set suspected_at = coalesce(suspected_at, v_now) where id = v_peer.id;
            elsif not pg_try_advisory_xact_lock(17996, v_peer.id::int) then
                update workflow.workers set suspected_at = null where id = v_peer.id and suspected_at is not null;
            elsif v_peer.suspected_at is null then
                update workflow.workers set suspected_at = v_now where id = v_peer.id;
            elsif v_peer.suspected_at <= v_now - p_patience then
                update workflow.workers set ended_at = v_now where id = v_peer.id;
            end if;
        end loop;
        v_gone := array (select id from workflow.workers where ended_at is not null and not jobs_freed order by id limit 100);
        if v_gone <> '{}' then
            return query select t.* from workflow.recover_jobs(v_gone, 'lost') q
                cross join lateral workflow.told('woken', q, null, null) t;
            -- A statement takes 12 s at most: what they claimed just before their end is here by then.
            update workflow.workers w set jobs_freed = true
            where w.id = any (v_gone) and w.ended_at < v_now - interval '30 s'
              and not exists (select from workflow.jobs j where j.worker_id = w.id);
        end if;
        -- A task that was locked when its worker ended is still to be found at the next looks.
        return query select * from workflow.recover(array (
            select id from workflow.workers where ended_at > v_now - interval '10 min'));
    end if;
    return query select 'clock', null::text, null::bigint, null::uuid, null::uuid, null::text, null::text, null::jsonb, null::int,
        null::uuid,
        -- Whoever is suspected is looked at again as soon as there is something to see.
        least((select extract(epoch from run_at - v_now)::float8 from workflow.tasks
               where state = 'waiting' and run_at < 'infinity' order by run_at limit 1),
              (select extract(epoch from p_patience)::float8 from workflow.workers
               where ended_at is null and suspected_at is not null limit 1)),
        null::float8, null::bigint, v_now, null::bigint, null::text
    from workflow.workers where id = p_me and ended_at is null;
end $$;
