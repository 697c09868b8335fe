-- What is cleaned up and counted over several services: for cron and operators, who see all of them.

-- Which of these files somebody needs, and why: what is held, what a film under way is made of, an export whose time is not over,
-- and whatever a documented reference of another service names. Asked before anything is purged, by whoever purges it.
create function file_mgr.in_use(p_files uuid[]) returns table (file_id uuid, why text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_scope text := coalesce(current_setting('app.platform', true), '');
    v_place record;
begin
    -- It looks into every service. Not in the function's own settings: only a superuser may put one there.
    perform set_config('app.platform', 'on', true);
    return query
        select f.id, 'it is held' from file_mgr.files f
        where f.id = any (p_files) and exists (select from file_mgr.holds h where h.tenant_id = f.tenant_id and h.released_at is null
            and (h.file_id = f.id or h.file_id is null and (h.owner_id is null or h.owner_id = f.owner_id)))
        union all
        -- Films are nobody's own; they are held with the files of whoever ordered them.
        select u.id, 'it is held' from file_mgr.holds h
        join render.render_jobs j on j.tenant_id = h.tenant_id and j.user_id = h.owner_id
        join render.exports e on e.render_job_id = j.id
        cross join lateral (select unnest(array[e.file_id, e.sheet_file_id]) as id union all
                            select d.file_id from render.derivatives d where d.export_id = e.id and d.file_id is not null) u
        where h.released_at is null and h.file_id is null and u.id = any (p_files)
        union all
        select f.id, 'a film under way is made of it' from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
        where f.id = any (p_files) and b.sha256 in (select file_mgr.content_of_films_under_way())
        union all
        select u.id, u.what from render.exports e
        cross join lateral (
            select unnest(array[e.file_id, e.sheet_file_id]) as id, 'its export is kept for now' as what
            where e.state = 'ready' and e.expires_at > workflow.now()
            union all
            select e.file_id, 'something is being made of its film'
            where exists (select from render.derivatives d where d.export_id = e.id and d.state = 'queued')
            union all
            select unnest(array[e.file_id, e.sheet_file_id]), 'what was made of its film is held'
            where exists (select from render.derivatives d join file_mgr.holds h on h.tenant_id = e.tenant_id and h.file_id = d.file_id
                          where d.export_id = e.id and h.released_at is null)) u
        where (e.file_id = any (p_files) or e.sheet_file_id = any (p_files)) and u.id = any (p_files);
    for v_place in
        select c.oid::regclass::text as place, quote_ident(a.attname) as col
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace <> 'render'::regnamespace
          and col_description(c.oid, a.attnum) = 'softref:file_mgr.files(id)'
        order by 1, 2
    loop
        return query execute format('select distinct r.%s, %L from %s r where r.%1$s = any ($1)', v_place.col,
                                    v_place.place || ' names it', v_place.place) using p_files;
    end loop;
    perform set_config('app.platform', v_scope, true);
end $$;
comment on function file_mgr.in_use is 'Whatever names files has to say so in a comment: softref:file_mgr.files(id).';

-- Forgets files that were purged three months ago and that nothing names, whether by a foreign key or by a documented reference; gives how
-- many. What films were made into stays named by them for ever, and is not looked at. Links to a file go with it.
create function file_mgr.forget_files(p_limit int) returns int language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    v_unnamed text;
    v_gone int;
begin
    select string_agg(format('and not exists (select from %s r where r.%I = f.id)', p.place, p.col), ' ') into v_unnamed
    from (
        select c.oid::regclass::text as place, a.attname as col
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relkind in ('r', 'p') and not c.relispartition and col_description(c.oid, a.attnum) = 'softref:file_mgr.files(id)'
        union
        select k.conrelid::regclass::text, a.attname
        from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[cardinality(k.conkey)]
        where k.contype = 'f' and k.confrelid = 'file_mgr.files'::regclass and k.confdeltype <> 'c') p;
    execute format('delete from file_mgr.files where id in (
        select f.id from file_mgr.files f
        where f.state = ''purged'' and f.purpose not in (''export'', ''contact_sheet'') and f.updated_at < workflow.now() - interval ''90 days'' %s
        order by f.updated_at limit $1)', v_unnamed) using p_limit;
    get diagnostics v_gone = row_count;
    return v_gone;
end $$;

-- Forgets events that nobody was told of, or whose deliveries went with their months; gives how many. Nobody else removes any.
create function identity.forget_webhook_events(p_limit int) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_scope text := coalesce(current_setting('app.platform', true), '');
    v_before timestamptz;
    v_gone int;
begin
    perform set_config('app.platform', 'on', true);
    select workflow.now() - make_interval(months => keep_months + 1) into v_before
    from platform.time_series where name = 'identity.tenant_webhook_deliveries';
    delete from identity.tenant_webhook_events where id in (
        select e.id from identity.tenant_webhook_events e
        where e.created_at < least(v_before, now() - interval '6 months')
          and not exists (select from identity.tenant_webhook_deliveries d where d.event_id = e.id)
        limit p_limit);
    get diagnostics v_gone = row_count;
    perform set_config('app.platform', v_scope, true);
    return v_gone;
end $$;

-- Hashes of what films under way are made of: whatever looks like one in their frozen orders.
create function file_mgr.content_of_films_under_way() returns setof text language sql stable as $$
    select distinct m[1] from render.render_jobs j cross join lateral regexp_matches(j.spec::text, '[0-9a-f]{64}', 'g') m
    where j.finished_at is null
$$;

-- Whether a file is a film of this kind, its contact sheet, or was made of it.
create function file_mgr.is_of_film(p_file uuid, p_kind text) returns boolean language sql stable as $$
    select exists (
        select from render.exports e join render.render_jobs j on j.id = e.render_job_id
        where j.kind = p_kind and (p_file in (e.file_id, e.sheet_file_id)
            or exists (select from render.derivatives d where d.export_id = e.id and d.file_id = p_file)))
$$;

-- What a rule would remove: files of the tenant that its target means, not touched since the cutoff, through its filter.
-- `p_only`: of these alone; null: of all.
create function file_mgr.cleanup_candidates(p_tenant uuid, p_target text, p_cutoff timestamptz, p_filter jsonb, p_only uuid[] default null)
returns table (file_id uuid, size_bytes bigint) language sql stable as $$
    select f.id, b.size_bytes
    from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
    where f.tenant_id = p_tenant and (p_only is null or f.id = any (p_only))
      and case p_target
          when 'trash' then f.state = 'trashed' and f.trashed_at < p_cutoff
          when 'temp' then f.state in ('ready', 'trashed') and f.retention = 'temp' and f.created_at < p_cutoff
          when 'uploads' then f.state = 'ready' and f.purpose in ('asset', 'music', 'voiceover') and f.created_at < p_cutoff
          when 'exports' then f.state = 'ready' and f.created_at < p_cutoff and file_mgr.is_of_film(f.id, 'final')
          when 'previews' then f.state = 'ready' and f.created_at < p_cutoff and (f.purpose = 'preview' or file_mgr.is_of_film(f.id, 'preview'))
          end
      and (p_filter ->> 'owner_id' is null or f.owner_id = (p_filter ->> 'owner_id')::uuid)
      and (p_filter ->> 'folder_id' is null or f.folder_id = (p_filter ->> 'folder_id')::uuid)
      and (p_filter ->> 'at_least_bytes' is null or b.size_bytes >= (p_filter ->> 'at_least_bytes')::bigint)
      and (p_filter -> 'kinds' is null or p_filter -> 'kinds' ? f.kind)
$$;

-- What every tenant used on a day, by UTC, from what was written down: the one source of daily figures and of their check.
create function identity.usage_of(p_day date) returns table (tenant_id uuid, metric text, quantity bigint) language sql stable as $$
    with bounds as (
        select p_day::timestamp at time zone 'UTC' as first, (p_day + 1)::timestamp at time zone 'UTC' as next
    ), requests as (
        select r.tenant_id, count(*) as calls, sum(r.bytes_out)::bigint as bytes from identity.tenant_api_request_logs r, bounds
        where r.at >= first and r.at < next group by 1
    ), films as (
        select e.tenant_id, count(*) as films, sum(e.frame_count)::bigint as frames from render.exports e, bounds
        where e.created_at >= first and e.created_at < next group by 1
    ), seconds as (
        select a.tenant_id, (sum(a.render_ms) / 1000)::bigint as seconds from render.frame_job_attempts a, bounds
        where a.ended_at >= first and a.ended_at < next and a.outcome = 'ok' group by 1
    ), stills as (
        select s.tenant_id, count(*) as stills from render.snapshot_jobs s, bounds
        where s.status = 'done' and s.finished_at >= first and s.finished_at < next group by 1
    ), stored as (
        -- An hour without a sample is like the one before it; the hours that are still to come are not counted.
        select t.id as tenant_id, sum(s.bytes)::bigint as byte_hours
        from identity.tenants t
        cross join bounds
        cross join lateral generate_series(first, least(next - interval '1 hour', workflow.now()), interval '1 hour') as h (hour)
        cross join lateral (select bytes from identity.storage_samples x where x.tenant_id = t.id and x.hour <= h.hour
                            order by x.hour desc limit 1) s
        group by 1
    )
    select u.tenant_id, u.metric, u.quantity from (
        select r.tenant_id, 'api_calls' as metric, calls as quantity from requests r
        union all select r.tenant_id, 'egress_bytes', bytes from requests r
        union all select f.tenant_id, 'exports', films from films f
        union all select f.tenant_id, 'frames', frames from films f
        union all select s.tenant_id, 'render_seconds', seconds from seconds s
        union all select s.tenant_id, 'snapshots', stills from stills s
        union all select s.tenant_id, 'storage_byte_hours', byte_hours from stored s
        union all
        select d.tenant_id, 'notifications_' || d.channel, count(*) from notification.notification_deliveries d, bounds
        where d.sent_at is not null and d.created_at >= first and d.created_at < next group by 1, 2) u
    where u.quantity > 0
$$;

revoke execute on function file_mgr.in_use, file_mgr.forget_files, file_mgr.content_of_films_under_way, file_mgr.cleanup_candidates, file_mgr.is_of_film,
    identity.usage_of, identity.forget_webhook_events from public;
