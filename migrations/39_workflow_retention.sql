-- Retention: what is old goes by dropping partitions, never row by row. See 31_workflow_engine.sql.
--
--   partitioned   the series: tables that are cut at the same moments, and how long their pieces are
--   partitions    view: the pieces there are
--
--   series  tables                                    cut by                       made by the clock
--   runs    runs, steps, attempts, run_attributes     the time in the run's id     workflow.now()
--   fires   schedule_fires                            nominal_at                   workflow.now()
--   jobs    finished_jobs                             finished_at                  the real one, as finished_at is
--
-- Whoever looks around makes the pieces of this day or month and of the next. A row whose piece is missing lands in the
-- rest of its table and moves when the piece is made, so no insert ever fails; the rest also takes ids that hold no time.
--
-- A piece of runs that is older than the retention goes with everything in it, but for
--   * runs that are not over, or ended within the retention: they are kept with their record and attempts;
--   * runs that went on as others, while what came of them is there: their row alone is kept, so that a signal or a
--     cancellation still finds its way.
-- What is kept is copied beside the piece and takes its place. Copying waits for nobody and nobody waits for it; then, for
-- some milliseconds, the tables are locked, what was written in between is copied too, and the pieces change places. If that lock is not to
-- be had at once, it is tried again a moment later: what waits behind it waits no longer than the attempt.

create table workflow.partitioned (
    series text primary key,
    -- The first one stands for all: they have the same pieces.
    tables text[] not null,
    keys   text[] not null,
    unit   text not null default 'month' check (unit in ('day', 'month')),
    constraint a_key_a_table check (cardinality(tables) = cardinality(keys))
);
comment on column workflow.partitioned.unit is 'How long the next pieces are. Those that are there stay as they are.';
insert into workflow.partitioned (series, tables, keys) values
    ('runs', '{runs,steps,attempts,run_attributes}', '{id,run_id,run_id,run_id}'),
    ('fires', '{schedule_fires}', '{nominal_at}'),
    ('jobs', '{finished_jobs}', '{finished_at}');

create table workflow.runs_rest partition of workflow.runs default;
create table workflow.steps_rest partition of workflow.steps default;
create table workflow.attempts_rest partition of workflow.attempts default;
create table workflow.run_attributes_rest partition of workflow.run_attributes default;
create table workflow.schedule_fires_rest partition of workflow.schedule_fires default;
create table workflow.finished_jobs_rest partition of workflow.finished_jobs default;

create view workflow.partitions as
    select p.series, c.relname::text as name, substr(c.relname, length(p.tables[1]) + 1) as suffix,
           case p.series when 'runs' then workflow.moment_of(m[1]::uuid) else m[1]::timestamptz end as from_at,
           case p.series when 'runs' then workflow.moment_of(m[2]::uuid) else m[2]::timestamptz end as until_at
    from workflow.partitioned p
    join pg_catalog.pg_inherits i on i.inhparent = ('workflow.' || p.tables[1])::regclass
    join pg_catalog.pg_class c on c.oid = i.inhrelid
    cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES FROM \(''(.+)''\) TO \(''(.+)''\)$') m
    where m is not null;
comment on view workflow.partitions is 'Every piece of a series, under the name of its first table; those of the others end in the same suffix.';

-- A moment as a bound of a series.
create function workflow.bound_of(p_series text, p_at timestamptz) returns text language sql stable as $$
    select quote_literal(case p_series when 'runs' then workflow.first_run_id(p_at)::text else p_at::text end)
$$;

-- ---------------------------------------------------------------------------------------- making pieces

-- Makes the piece of a series from `p_from` to `p_until`, or what of that is not there yet, and moves what came before it
-- into it. False: there was nothing to make.
create function workflow.make_partition(p_series text, p_from timestamptz, p_until timestamptz) returns boolean language plpgsql as $$
declare
    v_series workflow.partitioned;
    v_from timestamptz;
    v_until timestamptz;
    v_piece text;
    v_range text;
begin
    select * into v_series from workflow.partitioned where series = p_series;
    -- Pieces that are longer or shorter may be in the way: the unit was another once.
    v_from := greatest(p_from, (select max(until_at) from workflow.partitions where series = p_series and from_at <= p_from));
    v_until := least(p_until, (select min(from_at) from workflow.partitions where series = p_series and from_at > v_from));
    if v_from >= v_until then
        return false;
    end if;
    for i in 1..cardinality(v_series.tables) loop
        v_piece := v_series.tables[i] || to_char(v_from, '_YYYY_MM_DD');
        execute format('create table workflow.%I (like workflow.%I including all)', v_piece, v_series.tables[i]);
        if v_series.tables[i] = 'runs' then
            -- Room for the end of each run beside its beginning, so that no index hears of it.
            execute format('alter table workflow.%I set (fillfactor = 60)', v_piece);
        end if;
        perform workflow.close_partition(v_piece);
    end loop;
    perform workflow.lock_series(v_series.tables);
    perform set_config('workflow.purging', 'on', true);
    for i in 1..cardinality(v_series.tables) loop
        v_piece := v_series.tables[i] || to_char(v_from, '_YYYY_MM_DD');
        v_range := format('%1$I >= %2$s and %1$I < %3$s', v_series.keys[i], workflow.bound_of(p_series, v_from), workflow.bound_of(p_series, v_until));
        execute workflow.copying(v_series.tables[i], v_piece, format('workflow.%I where %s', v_series.tables[i] || '_rest', v_range));
        execute format('delete from workflow.%I where %s', v_series.tables[i] || '_rest', v_range);
        execute format('alter table workflow.%I attach partition workflow.%I for values from (%s) to (%s)', v_series.tables[i], v_piece,
                       workflow.bound_of(p_series, v_from), workflow.bound_of(p_series, v_until));
    end loop;
    perform set_config('workflow.purging', '', true);
    return true;
end $$;

-- Locks tables and their rests against everybody, for the rest of the transaction. A statement that had to wait for a piece alone would
-- look for its rows where they were when it was planned, or with a snapshot from before they came to where they are: it would not find
-- them. Statements of clients are planned and see what there is once they have the table itself. Functions see, in each of their
-- statements, what there was before it waited: those that change runs wait for the first table before anything else.
create function workflow.lock_series(p_tables text[]) returns void language plpgsql as $$
begin
    execute format('lock table %s in access exclusive mode',
                   (select string_agg(format('only workflow.%I, workflow.%I', t, t || '_rest'), ', ') from unnest(p_tables) t));
end $$;

-- A statement that copies rows from a source, in SQL, into a table of the same shape.
create function workflow.copying(p_shape text, p_into text, p_source text) returns text language sql stable as $$
    select format('insert into workflow.%I (%s) select %2$s from %3$s', p_into, string_agg(quote_ident(attname), ', ' order by attnum), p_source)
    from pg_catalog.pg_attribute
    where attrelid = ('workflow.' || p_shape)::regclass and attnum > 0 and not attisdropped and attgenerated = ''
$$;

-- A piece is reached through its table, by nobody directly.
create function workflow.close_partition(p_piece text) returns void language plpgsql as $$
declare
    v_role text;
begin
    for v_role in
        select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
        from pg_class c cross join lateral aclexplode(c.relacl) a
        where c.oid = ('workflow.' || p_piece)::regclass and a.grantee <> c.relowner
    loop
        execute format('revoke all on workflow.%I from %s', p_piece, v_role);
    end loop;
end $$;

-- Makes the pieces of this day or month and of the next, of every series; part of the look around. Days and months are those
-- of UTC. While somebody else is busy with the tables it is left for the next look.
create function workflow.make_partitions() returns void language plpgsql
security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' set lock_timeout = '50ms' as $$
declare
    v_series record;
    v_from timestamptz;
begin
    for v_series in
        select series, tables[1] as first, ('1 ' || unit)::interval as length,
               date_trunc(unit, case series when 'jobs' then clock_timestamp() else workflow.now() end) as this
        from workflow.partitioned
    loop
        begin
            for i in 0..1 loop
                v_from := v_series.this + i * v_series.length;
                continue when to_regclass('workflow.' || v_series.first || to_char(v_from, '_YYYY_MM_DD')) is not null;
                perform workflow.make_partition(v_series.series, v_from, v_from + v_series.length);
            end loop;
        exception
            when lock_not_available or deadlock_detected then null;
            -- The rest takes what has no piece: nothing that goes wrong here may keep anybody from looking around.
            when others then raise warning 'cannot make the partitions of %: %', v_series.series, sqlerrm;
        end;
    end loop;
end $$;
revoke execute on function workflow.make_partitions from public;
select workflow.make_partitions();

-- ---------------------------------------------------------------------------------------- dropping pieces

-- What became of a piece: dropped; condensed: what is kept took its place; kept: too little would go; busy: try again later.
create type workflow.retirement as (outcome text, gone bigint, kept bigint);

-- Locks tables, one of their pieces and their rests against everybody, for the rest of the transaction: false when that was not
-- to be had. Whoever holds one for longer, such as a dump or a vacuum, is left in peace.
create function workflow.lock_piece(p_tables text[], p_suffix text) returns boolean language plpgsql set lock_timeout = '25ms' as $$
declare
    v_names text := (select string_agg(format('only workflow.%I, workflow.%I, workflow.%I', t, t || p_suffix, t || '_rest'), ', ') from unnest(p_tables) t);
begin
    for i in 1..20 loop
        begin
            execute format('lock table %s in access exclusive mode', v_names);
            return true;
        exception when lock_not_available or deadlock_detected then
            perform pg_sleep(0.02 + random() * 0.2);
        end;
    end loop;
    return false;
end $$;

-- Drops a piece of jobs or fires.
create function workflow.retire_rows(p_series text, p_suffix text) returns workflow.retirement language plpgsql
security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    v_tables text[] := (select tables from workflow.partitioned where series = p_series and series <> 'runs');
begin
    if not exists (select from workflow.partitions where series = p_series and suffix = p_suffix) or not workflow.lock_piece(v_tables, p_suffix) then
        return ('busy', 0, 0)::workflow.retirement;
    end if;
    execute format('drop table workflow.%I', v_tables[1] || p_suffix);
    return ('dropped', null, 0)::workflow.retirement;
end $$;

-- Drops a piece of runs, but for what is to be kept: see above. `p_before`: runs that ended before may go.
create function workflow.retire_runs(p_suffix text, p_before timestamptz) returns workflow.retirement language plpgsql
security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_tables text[] := (select tables from workflow.partitioned where series = 'runs');
    v_from uuid;
    v_until uuid;
    v_total bigint;
    v_links uuid[];   -- whose rows are kept
    v_whole uuid[];   -- kept with all they have
    v_live uuid[];    -- of these, who may still get more
begin
    -- One at a time, and nobody purges meanwhile.
    if not pg_try_advisory_xact_lock(17997, 2) then
        return ('busy', 0, 0)::workflow.retirement;
    end if;
    select workflow.first_run_id(from_at), workflow.first_run_id(until_at) into v_from, v_until
    from workflow.partitions where series = 'runs' and suffix = p_suffix;
    if not found then
        return ('busy', 0, 0)::workflow.retirement;
    end if;

    execute format($q$
        with recursive own as materialized (
            select id, continued_from, finished_at, finished_at is null or finished_at >= $1 as whole from workflow.%1$I r
            where finished_at is null or finished_at >= $1
               or (continued_as is not null and (continued_as < $2 or continued_as >= $3)
                   and exists (select from workflow.runs n where n.id = r.continued_as))
        ), kept (id, continued_from) as (
            select id, continued_from from own
            union
            select r.id, r.continued_from from kept k join workflow.%1$I r on r.id = k.continued_from
        )
        select array (select id from kept except select id from own where whole), array (select id from own where whole),
               array (select id from own where finished_at is null), (select count(*) from workflow.%1$I) $q$, 'runs' || p_suffix)
    into v_links, v_whole, v_live, v_total using p_before, v_from, v_until;
    -- Copying many to be rid of few is not worth it.
    if v_total > 0 and v_total - cardinality(v_links) - cardinality(v_whole) < greatest(cardinality(v_whole), 1) then
        return ('kept', 0, v_total)::workflow.retirement;
    end if;
    execute format('insert into workflow.run_count_deltas select kind, tenant_id, state, -count(*) from workflow.%I
                    where id <> all ($1) group by kind, tenant_id, state', 'runs' || p_suffix) using v_links || v_whole;
    if v_links || v_whole <> '{}' then
        perform workflow.keep_beside(p_suffix, v_links, v_whole, v_live);
    end if;

    if not workflow.lock_piece(v_tables, p_suffix)
       -- Somebody has begun something here since.
       or exists (select from workflow.tasks where run_id >= v_from and run_id < v_until and kind = 'run' and run_id <> all (v_live)) then
        raise lock_not_available using message = 'the runs are in use';
    end if;
    if v_links || v_whole <> '{}' then
        perform workflow.keep_up(p_suffix, v_whole, v_live);
    end if;
    for i in 1..cardinality(v_tables) loop
        execute format('drop table workflow.%I', v_tables[i] || p_suffix);
        if v_links || v_whole <> '{}' then
            execute format('alter table workflow.%I rename to %I', v_tables[i] || '_kept', v_tables[i] || p_suffix);
            execute format('alter table workflow.%I attach partition workflow.%I for values from (%L) to (%L)',
                           v_tables[i], v_tables[i] || p_suffix, v_from, v_until);
        end if;
    end loop;
    return (case when v_links || v_whole = '{}' then 'dropped' else 'condensed' end,
            v_total - cardinality(v_links) - cardinality(v_whole), cardinality(v_links) + cardinality(v_whole))::workflow.retirement;
exception when lock_not_available then
    return ('busy', 0, 0)::workflow.retirement;
end $$;

-- Copies what is to be kept of a piece of runs, as far as it is there: part of `retire_runs`.
create function workflow.keep_beside(p_suffix text, p_links uuid[], p_whole uuid[], p_live uuid[]) returns void language plpgsql as $$
declare
    v_table text;
begin
    foreach v_table in array array['runs', 'steps', 'attempts', 'run_attributes'] loop
        execute format('create table workflow.%I (like workflow.%I including all)', v_table || '_kept', v_table);
        perform workflow.close_partition(v_table || '_kept');
    end loop;
    execute workflow.copying('runs', 'runs_kept', format('workflow.%I where id = any ($1) and id <> all ($2)', 'runs' || p_suffix))
        using p_links || p_whole, p_live;
    execute workflow.copying('steps', 'steps_kept', format('workflow.%I where run_id = any ($1)', 'steps' || p_suffix)) using p_whole;
    execute workflow.copying('attempts', 'attempts_kept', format('workflow.%I where run_id = any ($1)', 'attempts' || p_suffix))
        using p_whole;
end $$;

-- Copies what was written meanwhile, and what may have been changed; the tables are locked.
create function workflow.keep_up(p_suffix text, p_whole uuid[], p_live uuid[]) returns void language plpgsql as $$
begin
    execute workflow.copying('runs', 'runs_kept', format('workflow.%I where id = any ($1)', 'runs' || p_suffix)) using p_live;
    execute workflow.copying('steps', 'steps_kept', format(
        'unnest($1) l (id)
         cross join lateral (select coalesce(max(k.seq), 0) as last from workflow.steps_kept k where k.run_id = l.id) known
         cross join lateral (select * from workflow.%I s where s.run_id = l.id and s.seq > known.last) newer', 'steps' || p_suffix)) using p_live;
    execute workflow.copying('attempts', 'attempts_kept', format('workflow.%I where run_id = any ($1)', 'attempts' || p_suffix))
        || ' on conflict do nothing' using p_live;
    execute workflow.copying('run_attributes', 'run_attributes_kept', format('workflow.%I where run_id = any ($1)', 'run_attributes' || p_suffix))
        using p_whole;
end $$;

revoke execute on function workflow.retire_runs, workflow.retire_rows, workflow.make_partition, workflow.lock_series, workflow.keep_beside, workflow.keep_up,
    workflow.close_partition, workflow.lock_piece from public;
