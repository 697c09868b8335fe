-- Who may do what. The last word on rights: services own the rows of their schema, nobody owns another's.

grant usage on schema identity to identity_svc, admin_api, readonly;
grant usage on schema content to content_svc, render_svc, admin_api, readonly;
grant usage on schema studio to studio_svc, admin_api, readonly;
grant usage on schema render to render_svc, admin_api, readonly;
grant usage on schema file_mgr to file_svc, admin_api, readonly;
grant usage on schema notification to notification_svc, admin_api, readonly;
grant usage on schema workflow to workflow_svc, admin_api, readonly;
-- The clock and the months are for all. Nobody reads the rest of either schema through this.
grant usage on schema workflow to identity_svc, content_svc, studio_svc, render_svc, file_svc, notification_svc;
grant usage on schema platform to identity_svc, content_svc, studio_svc, render_svc, file_svc, notification_svc, workflow_svc, admin_api, readonly;
grant select on workflow.clock to identity_svc, content_svc, studio_svc, render_svc, file_svc, notification_svc;

grant select, insert, update, delete on all tables in schema identity to identity_svc, admin_api;
grant select, insert, update, delete on all tables in schema content to content_svc, admin_api;
grant select, insert, update, delete on all tables in schema studio to studio_svc, admin_api;
grant select, insert, update, delete on all tables in schema render to render_svc, admin_api;
grant select, insert, update, delete on all tables in schema file_mgr to file_svc, admin_api;
grant select, insert, update, delete on all tables in schema notification to notification_svc, admin_api;
grant select, insert, update, delete on all tables in schema workflow to workflow_svc, admin_api;
grant usage on all sequences in schema workflow to workflow_svc, admin_api;
grant select on platform.time_series, platform.retired_months to admin_api, readonly;

-- Tables of later files belong to the same services.
alter default privileges in schema identity grant select, insert, update, delete on tables to identity_svc, admin_api;
alter default privileges in schema content grant select, insert, update, delete on tables to content_svc, admin_api;
alter default privileges in schema studio grant select, insert, update, delete on tables to studio_svc, admin_api;
alter default privileges in schema render grant select, insert, update, delete on tables to render_svc, admin_api;
alter default privileges in schema file_mgr grant select, insert, update, delete on tables to file_svc, admin_api;
alter default privileges in schema notification grant select, insert, update, delete on tables to notification_svc, admin_api;
alter default privileges in schema workflow grant select, insert, update, delete on tables to workflow_svc, admin_api;
alter default privileges in schema workflow grant usage on sequences to workflow_svc, admin_api;

grant execute on function platform.ensure_month to identity_svc, render_svc, notification_svc, admin_api;
grant execute on function platform.ensure_months, platform.retire_months, platform.note_archive, platform.faults_of_months to admin_api;
grant execute on function file_mgr.in_use to file_svc, admin_api;
grant execute on function file_mgr.forget_files, file_mgr.content_of_films_under_way, file_mgr.cleanup_candidates, file_mgr.is_of_film, identity.usage_of,
    identity.forget_webhook_events to admin_api;
grant execute on function content.set_scene_snapshot to render_svc;
grant execute on function workflow.purge_run to admin_api;

-- What only grows is not changed by any service; the rows of reference tables and the tenants themselves are not theirs.
revoke update, delete on identity.tenant_webhook_events, identity.tenant_api_request_logs, identity.audit_log, identity.consents,
    identity.credit_ledger, identity.points_ledger, identity.tenant_usage_corrections, render.node_health_logs, render.frame_job_attempts, render.frame_manifests, render.frame_replacements,
    workflow.steps, workflow.attempts
    from identity_svc, render_svc, workflow_svc, admin_api;
revoke update on studio.saved_project_revisions from studio_svc, admin_api;
revoke insert, update, delete on identity.roles from identity_svc;
revoke insert, update, delete on content.languages, content.aspect_ratios from content_svc;
revoke insert, update, delete on identity.audit_heads from identity_svc, admin_api;
revoke delete on identity.tenants from identity_svc, admin_api;
-- Nobody but the function for it writes a scene's picture.
revoke update on content.scenes from content_svc;
grant update (scene_key, position, title, comp_name, start_frame, frame_count, still_frame, image, deleted_at, updated_at) on content.scenes to content_svc;

-- readonly sees everything but secrets: in a table that has some, only the other columns.
do $$
declare
    v_table record;
begin
    for v_table in
        select c.oid::regclass as name, bool_or(d.description like 'secret:%') as secret,
               string_agg(quote_ident(a.attname), ', ' order by a.attnum) filter (where d.description is null or d.description not like 'secret:%') as columns
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = c.oid and d.objsubid = a.attnum
        where c.relnamespace::regnamespace::text in ('identity', 'content', 'studio', 'render', 'file_mgr', 'notification', 'workflow')
          and c.relkind in ('r', 'p') and not c.relispartition
        group by c.oid, c.relname order by c.oid
    loop
        execute format(case when v_table.secret then 'grant select (%s) on %s to readonly' else 'grant select on %2$s to readonly' end,
                       v_table.columns, v_table.name);
    end loop;
end $$;

-- A month is reached through its series, by nobody directly.
do $$
declare
    v_month regclass;
begin
    for v_month in select inhrelid::regclass from pg_inherits i join platform.time_series s on i.inhparent = s.name::regclass order by 1 loop
        execute format('revoke all on %s from identity_svc, render_svc, notification_svc, admin_api', v_month);
    end loop;
end $$;
do $$
declare
    v_piece text;
begin
    for v_piece in select c.relname from pg_class c where c.relnamespace = 'workflow'::regnamespace and c.relkind = 'r' and c.relispartition order by 1 loop
        perform workflow.close_partition(v_piece);
    end loop;
end $$;
select platform.ensure_months(now(), '2026-01-01 00:00:00+00');

-- Of the engine's tables a service sees what is of its tenant, as of any other. But the fence binds nobody who owns them: the
-- engine works as their owner, for every tenant at once, and none of its statements may carry a filter. So no `force` here, and
-- what serves every tenant logs in as the owner, or asks in the scope of the platform. Pieces are nobody's to reach directly.
do $$
declare
    v_table record;
begin
    for v_table in
        select c.oid::regclass as name, f.whose
        from pg_class c
        join lateral (
            select 'tenant_id = platform.tenant()' as whose where exists (
                select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
            -- Those that tell of tenants without naming one; the last are for operators alone.
            union all
            select whose from (values
                ('run_lineage', 'exists (select from workflow.runs r where r.id = run_id)'),
                ('errands', 'exists (select from workflow.runs r where r.id = run_id)'),
                ('schedule_fires', 'exists (select from workflow.schedules s where s.id = schedule_id)'),
                ('throttles', 'starts_with(key, platform.tenant() || '':'')'),
                ('bulk_operations', 'false'),
                ('bulk_items', 'false')
            ) by_itself (name, whose) where name = c.relname) f on true
        where c.relnamespace = 'workflow'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition and not c.relrowsecurity
        order by c.relname
    loop
        execute format('alter table %s enable row level security', v_table.name);
        execute format('create policy of_one_tenant on %s using (%s or platform.is_wide())', v_table.name, v_table.whose);
    end loop;
end $$;
-- A view reads as its owner unless it is told not to.
alter view workflow.run_totals set (security_invoker = true);
grant select on workflow.run_totals to readonly;

-- Who renders what is decided by what gives out the work of nodes, by tenants, classes and packages. Turns of the engine's own would
-- pass all of that by.
create function render.refuse_terms() returns trigger language plpgsql as $$
begin
    raise exception 'the queue % is given out by the farm, and has no terms', new.queue using errcode = 'restrict_violation';
end $$;
create trigger queues_of_nodes_have_no_terms before insert or update on workflow.queue_terms
    for each row when (new.queue in ('node.render', 'node.snapshot')) execute function render.refuse_terms();
