-- Schemas, roles, and the rules that every table of the platform keeps. May be applied again.
-- Plain SQL: applied in numeric order by `flatrender migrate` or `psql -X -v ON_ERROR_STOP=1 -1 -f`.
--
-- Recipe, once a cluster, by whoever administers it; everything else is done as the owner, who is no superuser:
--
--     create role fr_migrator login createrole password '…';
--     create database flatrender owner fr_migrator;
--
-- The roles of the services are made below, without passwords: a deployment that lets a service log in by itself sets
-- one (`alter role render_svc password '…'`). An owner who may not create roles finds them made by somebody else, and
-- is made a member of each: `grant render_svc to the_owner`. A program that logs in as the owner takes, for each
-- transaction, the role of the service that it is at that moment (`set local role`), so it never has more rights.
--
--     role = which tables      identity_svc content_svc studio_svc render_svc file_svc notification_svc: their own schema
--                              workflow_svc: the engine's; admin_api: all; readonly: all that is no secret, to read
--     setting = which rows     app.tenant_id: those of one tenant; app.platform = 'on': of all; neither: none

create schema if not exists platform;
create schema if not exists identity;
create schema if not exists content;
create schema if not exists studio;
create schema if not exists render;
create schema if not exists file_mgr;
create schema if not exists notification;

comment on schema platform is 'Rules that every schema keeps, and the months of the time series.';
comment on schema identity is 'Tenants, users, keys, plans and money.';
comment on schema content is 'Templates, their versions and scenes.';
comment on schema studio is 'What customers edit and keep.';
comment on schema render is 'Render jobs, frames, exports and nodes.';
comment on schema file_mgr is 'Files, blobs, quotas and uploads.';
comment on schema notification is 'Messages to people.';

-- ---------------------------------------------------------------------------------------- roles

-- Roles belong to the cluster, databases are many: a role that is there is left alone, and of two that create the same
-- one at the same time the second waits for the first and takes its role.
do $$
declare
    v_role record;
begin
    for v_role in
        select * from (values
            ('fr_migrator',      5,  '0',   '60s', '10min'),
            ('identity_svc',     60, '30s', '5s',  '60s'),
            ('content_svc',      60, '30s', '5s',  '60s'),
            ('studio_svc',       60, '30s', '5s',  '60s'),
            ('render_svc',       60, '30s', '5s',  '60s'),
            ('file_svc',         60, '30s', '5s',  '60s'),
            ('notification_svc', 60, '30s', '5s',  '60s'),
            ('workflow_svc',     60, '30s', '5s',  '60s'),
            ('admin_api',        20, '60s', '5s',  '60s'),
            ('readonly',         10, '60s', '2s',  '60s')
        ) as r (name, connections, statement_timeout, lock_timeout, idle_timeout)
        where not exists (select from pg_catalog.pg_roles where rolname = r.name)
    loop
        begin
            execute format('create role %I login connection limit %s', v_role.name, v_role.connections);
            execute format('alter role %I set statement_timeout = %L', v_role.name, v_role.statement_timeout);
            execute format('alter role %I set lock_timeout = %L', v_role.name, v_role.lock_timeout);
            execute format('alter role %I set idle_in_transaction_session_timeout = %L', v_role.name, v_role.idle_timeout);
            execute format('alter role %I set search_path = pg_catalog', v_role.name);
        exception when duplicate_object or unique_violation then null;
        end;
    end loop;
    for v_role in
        select rolname as name from pg_catalog.pg_roles
        where rolname in ('identity_svc', 'content_svc', 'studio_svc', 'render_svc', 'file_svc', 'notification_svc',
                          'workflow_svc', 'admin_api', 'readonly')
          and not pg_has_role(current_user, oid, 'usage')
    loop
        begin
            execute format('grant %I to current_user', v_role.name);
        exception when unique_violation then null;
        end;
    end loop;
    execute format('revoke create, temporary on database %I from public', current_database());
    revoke all on schema public from public;
end $$;

-- ---------------------------------------------------------------------------------------- whose rows

-- The tenant of this transaction; null when it has none.
create or replace function platform.tenant() returns uuid language sql stable parallel safe
    return nullif(current_setting('app.tenant_id', true), '')::uuid;

-- Whether this transaction is of the platform itself: nodes, workers and operators serve every tenant.
create or replace function platform.is_wide() returns boolean language sql stable parallel safe
    return coalesce(current_setting('app.platform', true), '') = 'on' or current_user in ('admin_api', 'readonly');

-- Puts row-level security on the tables of a schema that hold rows of tenants and have none yet: a file that makes
-- tables ends with it. Partitions are reached through their parent; by themselves they show nothing to anybody.
create or replace procedure platform.keep_tenants_apart(p_schema text) language plpgsql as $$
declare
    v_table record;
begin
    for v_table in
        select c.oid::regclass as name, c.relispartition as partition,
               p_schema = 'identity' and exists (
                   select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and a.attnum = any (k.conkey)) as bound
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
        where c.relnamespace = p_schema::regnamespace and c.relkind in ('r', 'p') and not c.relrowsecurity
        order by c.relname
    loop
        execute format('alter table %s enable row level security, force row level security', v_table.name);
        continue when v_table.partition;
        execute format('create policy of_one_tenant on %s using (tenant_id = platform.tenant() or platform.is_wide())', v_table.name);
        if not v_table.bound then
            execute format('comment on column %s.tenant_id is %L', v_table.name, 'softref:identity.tenants(id)');
        end if;
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------- what may not change

-- Refuses every change of a row: for tables that only ever grow.
create or replace function platform.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;

-- Refuses to leave a terminal state. The trigger says, in its `when`, which states those are.
create or replace function platform.refuse_to_go_on() returns trigger language plpgsql as $$
begin
    raise exception '% %: it has ended and stays as it ended', tg_table_name, old.id using errcode = 'restrict_violation';
end $$;

-- Refuses a row that is its own ancestor. The table has the columns id and parent_id; at most 20 levels.
create or replace function platform.refuse_cycle() returns trigger language plpgsql as $$
declare
    v_above uuid := new.parent_id;
    v_depth int := 0;
begin
    -- One move at a time: two that each look well could make a loop together.
    if v_above is not null then
        perform pg_advisory_xact_lock(hashtextextended('cycle of ' || tg_table_schema || '.' || tg_table_name, 0));
    end if;
    while v_above is not null loop
        v_depth := v_depth + 1;
        if v_above = new.id or v_depth > 20 then
            raise exception '% %: a loop, or more than 20 levels', tg_table_name, new.id using errcode = 'check_violation';
        end if;
        execute format('select parent_id from %I.%I where id = $1', tg_table_schema, tg_table_name) into v_above using v_above;
    end loop;
    return new;
end $$;

-- ---------------------------------------------------------------------------------------- months

create table if not exists platform.time_series (
    name        text primary key check (name ~ '^[a-z_]+\.[a-z_]+$'),
    keep_months int not null check (keep_months > 0),
    archive     boolean not null default false
);
comment on table platform.time_series is 'Tables partitioned by month, for how many months each keeps its rows, and whether a month is stored as a file before it goes.';

create table if not exists platform.retired_months (
    name        text not null check (char_length(name) <= 130),
    series      text not null references platform.time_series (name),
    detached_at timestamptz not null,
    archived_at timestamptz,
    rows        bigint check (rows >= 0),
    sha256      text check (sha256 ~ '^[0-9a-f]{64}$'),
    dropped_at  timestamptz,
    primary key (name, detached_at),
    constraint an_archive_says_what_it_holds check ((archived_at is null) = (rows is null) and (archived_at is null) = (sha256 is null))
);
create unique index if not exists retired_months_waiting on platform.retired_months (name) where dropped_at is null;
comment on table platform.retired_months is 'Months that are detached and wait to be dropped, and those that were: nothing else knows how many rows the file of an archived one has, and its hash. A month that came back has a row for each time.';

-- The month of a time series: `identity.tenant_api_request_logs` and 2026-01 give `…_2026_01`.
create or replace function platform.month_table(p_series text, p_month date) returns text language sql immutable
    return p_series || '_' || lpad(extract(year from p_month)::text, 4, '0') || '_' || lpad(extract(month from p_month)::text, 2, '0');

-- Makes the month that `p_at` falls in, by UTC, and says whether it was missing. Of several at once one makes it.
-- Made beside the series and then attached, because that does not stop who reads and writes it.
-- No default partition: once it held a row of a month, that month could not be made any more.
create or replace function platform.ensure_month(p_series text, p_at timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    v_first timestamptz := date_trunc('month', p_at);
    v_name text := platform.month_table(p_series, v_first::date);
begin
    if not exists (select from platform.time_series where name = p_series) then
        raise exception '% is no time series', p_series using errcode = 'undefined_table';
    end if;
    if p_at < '2020-01-01' or p_at > now() + interval '10 years' then
        raise exception 'no month of % is made for %', p_series, p_at using errcode = 'check_violation';
    end if;
    if to_regclass(v_name) is not null then
        return false;
    end if;
    perform pg_advisory_xact_lock(17998, hashtext(p_series));
    -- Asked of the table, not of to_regclass: what that remembers is not renewed by waiting for this lock.
    if exists (select from pg_class c where c.relnamespace::regnamespace::text || '.' || c.relname = v_name) then
        return false;
    end if;
    execute format('create table %s (like %s including all)', v_name, p_series);
    execute format('alter table %s enable row level security, force row level security', v_name);
    execute format('revoke all on %s from identity_svc, render_svc, notification_svc, admin_api', v_name);
    execute format('comment on table %s is %L', v_name, 'A month of ' || p_series || '.');
    execute format('alter table %s attach partition %s for values from (%L) to (%L)', p_series, v_name, v_first, v_first + interval '1 month');
    return true;
end $$;
comment on function platform.ensure_month(text, timestamptz) is 'For cron, and for a writer whose month is missing (23514), who then tries again.';

-- Makes every month of every time series from `p_from` to three months after `p_at`; gives how many were missing.
create or replace function platform.ensure_months(p_at timestamptz default now(), p_from timestamptz default null) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    v_made int;
begin
    select count(*) filter (where platform.ensure_month(s.name, m.first)) into v_made
    from (select name from platform.time_series order by name) s
    cross join generate_series(date_trunc('month', coalesce(p_from, p_at - interval '1 month')),
                               date_trunc('month', p_at + interval '3 months'), '1 month') as m (first);
    return v_made;
end $$;

-- Detaches the months that every series has kept long enough, and drops those that were detached a week ago and, where the series
-- wants that, are archived. What somebody is using for longer than two seconds is left for the next time, with what comes after it in
-- its series: meanwhile nobody gets at a series that has lost a month. `p_series`: of this one alone; null: of all.
create or replace function platform.retire_months(p_at timestamptz default now(), p_series text default null)
returns table (what text, month text)
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '2s' as $$
declare
    v_month record;
    v_busy text;
begin
    for v_month in
        select r.name from platform.retired_months r join platform.time_series s on s.name = r.series
        where r.dropped_at is null and (p_series is null or r.series = p_series) and r.detached_at < p_at - interval '7 days' and (r.archived_at is not null or not s.archive) order by r.name
    loop
        begin
            execute format('drop table if exists %s', v_month.name);
            update platform.retired_months r set dropped_at = p_at where r.name = v_month.name and r.dropped_at is null;
            return query select 'dropped', v_month.name;
        exception when lock_not_available then
            return query select 'busy', v_month.name;
        end;
    end loop;
    for v_month in
        select s.name as series, n.nspname || '.' || c.relname as name
        from platform.time_series s
        join pg_inherits i on i.inhparent = s.name::regclass
        join pg_class c on c.oid = i.inhrelid
        join pg_namespace n on n.oid = c.relnamespace
        where (p_series is null or s.name = p_series)
          and c.relname < split_part(platform.month_table(s.name, (date_trunc('month', p_at) - make_interval(months => s.keep_months))::date), '.', 2)
        order by 1, 2
    loop
        continue when v_month.series = v_busy;
        begin
            execute format('alter table %s detach partition %s', v_month.series, v_month.name);
            -- Whoever owns it reads it, to archive it; nobody else has a right to it.
            execute format('alter table %s no force row level security', v_month.name);
            insert into platform.retired_months (name, series, detached_at) values (v_month.name, v_month.series, p_at);
            return query select 'detached', v_month.name;
        exception when lock_not_available then
            v_busy := v_month.series;
            return query select 'busy', v_month.name;
        end;
    end loop;
end $$;

-- Notes that a detached month is stored as a file; false when it is not there to be archived.
create or replace function platform.note_archive(p_name text, p_rows bigint, p_sha256 text, p_at timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update platform.retired_months set archived_at = p_at, rows = p_rows, sha256 = p_sha256
    where name = p_name and archived_at is null and dropped_at is null;
    return found;
end $$;

-- What is wrong with the months around `p_at`: missing ones, and those without the indexes or the row-level security of their series.
create or replace function platform.faults_of_months(p_at timestamptz default now()) returns table (fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
    select s.name || ' has no month of ' || to_char(m.first, 'YYYY-MM')
    from platform.time_series s
    cross join generate_series(date_trunc('month', p_at), date_trunc('month', p_at) + interval '3 months', '1 month') as m (first)
    where not exists (select from pg_inherits i where i.inhparent = s.name::regclass
        and i.inhrelid = to_regclass(platform.month_table(s.name, m.first::date))
        and pg_get_expr((select relpartbound from pg_class where oid = i.inhrelid), i.inhrelid)
            like '%(''' || to_char(m.first, 'YYYY-MM-DD') || ' 00:00:00+00'')%')
    union all
    select c.oid::regclass || ' has ' || own.n || ' indexes, ' || s.name || ' has ' || whole.n
    from platform.time_series s
    join pg_inherits i on i.inhparent = s.name::regclass
    join pg_class c on c.oid = i.inhrelid
    cross join lateral (select count(*) as n from pg_index x where x.indrelid = c.oid and x.indisvalid) own
    cross join lateral (select count(*) as n from pg_index x where x.indrelid = s.name::regclass) whole
    where own.n < whole.n
    union all
    select c.oid::regclass || ' shows its rows to everybody'
    from platform.time_series s
    join pg_inherits i on i.inhparent = s.name::regclass
    join pg_class c on c.oid = i.inhrelid
    where not (c.relrowsecurity and c.relforcerowsecurity)
$$;

revoke execute on function platform.ensure_month, platform.ensure_months, platform.retire_months, platform.note_archive,
    platform.faults_of_months from public;
revoke execute on procedure platform.keep_tenants_apart from public;
