-- How snapshot jobs and chunks stand while nodes work on them: written in the transaction in which the engine changes the task, so that
-- no crash of ours can make the two differ. Only the words queued and running are written here; how a job ends is the run's to say.

create function render.follow_still() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_leased boolean := new.state = 'leased';
    v_scope text := coalesce(current_setting('app.platform', true), '');
begin
    -- The engine says of no tenant that it works for it. Not in the function's own settings: only a superuser may put one there.
    perform set_config('app.platform', 'on', true);
    update render.snapshot_jobs j
    set status = case when v_leased then 'running' else 'queued' end,
        attempts = greatest(j.attempts, new.attempt_no),
        lease_token = case when v_leased then new.lease_token end,
        -- node:<name>:<incarnation>; the mock is no node.
        node_id = case when v_leased then (select n.id from render.nodes n where new.leased_by like 'node:%' and n.name = split_part(new.leased_by, ':', 2))
                       else j.node_id end,
        started_at = coalesce(j.started_at, case when v_leased then workflow.now() end),
        updated_at = workflow.now()
    where j.workflow_run_id = new.run_id and j.status in ('queued', 'running');
    perform set_config('app.platform', v_scope, true);
    return null;
end $$;
revoke execute on function render.follow_still from public;
create trigger tasks_of_stills after update of state, lease_token on workflow.tasks
    for each row when (new.activity = 'RenderStills' and (old.state, old.lease_token) is distinct from (new.state, new.lease_token))
    execute function render.follow_still();
-- A frame that was lost is rendered again, by another task.
create trigger more_tasks_of_stills after insert on workflow.tasks
    for each row when (new.activity = 'RenderStills' and new.step_key <> 'render:1')
    execute function render.follow_still();

-- The same for chunks of films until they are rendered: leased while a node has their task, and by whom. A task that is done is no
-- task any more: what became of its chunk is the run's to say. Nor does what is rendered again, or beside a node that is late, change it.
create function render.follow_chunk() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_leased boolean := new.state = 'leased';
    v_scope text := coalesce(current_setting('app.platform', true), '');
begin
    perform set_config('app.platform', 'on', true);
    update render.frame_jobs f
    set status = case when v_leased then 'leased' else 'queued' end,
        node_id = case when v_leased then (select n.id from render.nodes n where new.leased_by like 'node:%' and n.name = split_part(new.leased_by, ':', 2))
                       else f.node_id end,
        updated_at = workflow.now()
    from render.render_jobs j
    where j.workflow_run_id = new.run_id and f.render_job_id = j.id and f.status in ('queued', 'leased')
      and new.input ->> 'class' is distinct from 'spare'
      and (new.input #>> '{frames,first}')::int between f.first_frame and f.last_frame;
    perform set_config('app.platform', v_scope, true);
    return null;
end $$;
revoke execute on function render.follow_chunk from public;
create trigger tasks_of_chunks after update of state, lease_token on workflow.tasks
    for each row when (new.activity = 'RenderFrames' and (old.state, old.lease_token) is distinct from (new.state, new.lease_token))
    execute function render.follow_chunk();
