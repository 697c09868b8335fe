-- Terms of queues: whose turn it is, how much at once, how fast. See 31_workflow_engine.sql.
--
--   queue_terms   what a queue allows; a queue without a row is claimed from as ever, and costs one look at this key
--   queue_shares  tenants that are not like the others: their weight, their cap
--   turns         a tenant in a queue with terms: what it has used, what it holds, whether it waits
--   lines         a tenant and limit key in such a queue: the same, for the key
--   arrivals      that something was put in a line; written with the work, read by the next claim
--   permits       one row a lease that was given under terms
--
-- Claims from a queue with terms go one at a time: each takes the row of its terms, or, when somebody else has it, comes back a
-- little later. Under that lock a claim drops the permits whose leases are over, looks at what is left, and writes permits for
-- what it leases, in the transaction of the lease. So a cap holds at every instant, whoever claims from wherever; there is
-- nobody who decides for all, whose death others would have to wait for, and no counter that a crash could leave wrong: a permit
-- is worth what the lease it names is worth.
--
-- Turns go by slot-seconds: the tenant goes next whose virtual time, slot-seconds over weight, is the lowest. A lease is charged
-- with the mean of its tenant when it is given, with more as it lasts, and with what it really took when it is over. Who comes
-- after an absence begins where the others are: nobody saves up. Within a tenant its limit keys take turns; within both goes
-- priority.
--
-- What is ready stands in tasks and jobs either in the order of the claim (not lined), or in the line of its tenant and limit
-- key (lined), and is in the index for that order alone. Rows of a queue with terms that are not lined yet, such as those that
-- come back to be tried again, are put in their lines by the next claim.

-- ---------------------------------------------------------------------------------------- what is allowed

-- At most `n` in any `seconds`, evenly, and `burst` beyond that in any one such window.
create type workflow.rate as (n int, seconds float8, burst int);

create table workflow.queue_terms (
    queue        text primary key check (queue ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' and queue <> 'workflows'),
    ended        boolean not null default false,
    cap          int check (cap > 0),
    tenant_cap   int check (tenant_cap > 0),
    key_cap      int check (key_cap > 0),
    rate         workflow.rate,
    tenant_rate  workflow.rate,
    key_rate     workflow.rate,
    set_at       timestamptz not null,
    set_by       text not null check (octet_length(set_by) <= 200),
    running      int not null default 0,
    picks        bigint not null default 0,
    virtual_time float8 not null default 0,
    mean_seconds float8 not null default 0.01,
    booked_until timestamptz not null default '-infinity'
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table workflow.queue_terms is 'A row: claims from this queue follow these terms, and tenants take turns.';
comment on column workflow.queue_terms.ended is 'The queue has no terms any more. The row stays: somebody may still have seen it as it was.';
comment on column workflow.queue_terms.running is 'Permits there are.';
comment on column workflow.queue_terms.virtual_time is 'That of the tenant whose turn it last was.';
comment on column workflow.queue_terms.booked_until is 'When the rate is used up to the last of what was claimed; see workflow.rate_room.';

create table workflow.queue_shares (
    queue     text not null references workflow.queue_terms,
    tenant_id uuid not null,
    weight    float8 not null check (weight between 0.001 and 1000),
    cap       int check (cap > 0),
    primary key (queue, tenant_id)
);
comment on table workflow.queue_shares is 'Tenants without a row weigh 1 and have the cap of the terms.';

-- ---------------------------------------------------------------------------------------- where things stand

create table workflow.turns (
    queue         text not null,
    tenant_id     uuid not null,
    waiting       boolean not null,
    blocked_until timestamptz,
    virtual_time  float8 not null,
    mean_seconds  float8 not null,
    running       int not null default 0,
    booked_until  timestamptz not null default '-infinity',
    primary key (queue, tenant_id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table workflow.turns is 'Written under the lock of the queue''s terms only.';
comment on column workflow.turns.waiting is 'One of its lines waits and is not blocked, as far as anybody has looked.';
comment on column workflow.turns.blocked_until is 'Its rate is used up until then; infinity: its cap is reached. To be looked at again then.';
create index turns_next on workflow.turns (queue, virtual_time, tenant_id) where waiting and blocked_until is null;
create index turns_active on workflow.turns (queue, virtual_time) where waiting or running > 0;
create index turns_blocked on workflow.turns (queue, blocked_until) where blocked_until is not null;
create index turns_idle on workflow.turns (queue, virtual_time) where not waiting and running = 0;

create table workflow.lines (
    queue         text not null,
    tenant_id     uuid not null,
    limit_key     text not null,
    waiting       boolean not null,
    blocked_until timestamptz,
    last_pick     bigint not null default 0,
    running       int not null default 0,
    booked_until  timestamptz not null default '-infinity',
    primary key (queue, tenant_id, limit_key)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table workflow.lines is 'As workflow.turns. The empty limit key is for work without one: neither cap nor rate of keys is about it.';
create index lines_next on workflow.lines (queue, tenant_id, last_pick, limit_key) where waiting and blocked_until is null;
create index lines_blocked on workflow.lines (queue, blocked_until) where blocked_until is not null;
create index lines_idle on workflow.lines (queue, booked_until) where not waiting and running = 0;

create table workflow.arrivals (
    queue     text not null,
    tenant_id uuid not null,
    limit_key text not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table workflow.arrivals is 'Nearly always empty: nobody waits for whoever inserts, and nobody is waited for.';
create index arrivals_of_queue on workflow.arrivals (queue);

create table workflow.permits (
    queue           text not null,
    lane            text not null check (lane in ('task', 'job')),
    id              bigint not null,
    attempt_no      int not null,
    tenant_id       uuid not null,
    limit_key       text not null,
    leased_at       timestamptz not null,
    charged_seconds float8 not null,
    primary key (queue, lane, id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
comment on table workflow.permits is 'softref:workflow.tasks(id) or softref:workflow.jobs(id), by lane. Worth nothing once that attempt is over.';
comment on column workflow.permits.charged_seconds is 'What its tenant was charged with so far.';

-- ---------------------------------------------------------------------------------------- rates

-- A rate as a bucket that leaks at an even pace (generic cell rate algorithm, ITU-T I.371): `booked` moves on by one interval
-- for each that is let through, and may be ahead of the clock by `burst` of them. No window of `seconds` sees more than n + burst.
create function workflow.rate_interval(p_rate workflow.rate) returns interval language plpgsql immutable as $$
begin
    return make_interval(secs => ceil(p_rate.seconds * 1e6 / p_rate.n) / 1e6);
end $$;

-- How many may pass at `p_at`. A rate of null lets everything pass.
create function workflow.rate_room(p_rate workflow.rate, p_booked timestamptz, p_at timestamptz) returns int
language plpgsql immutable as $$
begin
    return case
        when p_rate.n is null then 2147483647
        when p_booked <= p_at then p_rate.burst + 1
        else greatest(0, floor(p_rate.burst + 1
                 - extract(epoch from p_booked - p_at) / extract(epoch from workflow.rate_interval(p_rate)))) end;
end $$;

create function workflow.rate_book(p_rate workflow.rate, p_booked timestamptz, p_at timestamptz, p_n int) returns timestamptz
language plpgsql immutable as $$
begin
    return case when p_rate.n is null then '-infinity'
                else greatest(p_booked, p_at) + p_n * workflow.rate_interval(p_rate) end;
end $$;

-- When the next may pass.
create function workflow.rate_free_at(p_rate workflow.rate, p_booked timestamptz) returns timestamptz
language plpgsql immutable as $$
begin
    return p_booked - p_rate.burst * workflow.rate_interval(p_rate);
end $$;

-- ---------------------------------------------------------------------------------------- before a claim

-- Drops the permits whose leases are over, and settles what they cost. The caller has the lock of the terms.
create function workflow.drop_permits(p_queue text, p_now timestamptz) returns int language plpgsql as $$
#variable_conflict use_column
declare
    v_begin float8 := workflow.turn_begins_at(p_queue);
    v_gone int;
begin
    with gone as (
        delete from workflow.permits p
        -- Not a join: this is a handful of looks at keys, however large the tables.
        where p.queue = p_queue and p.attempt_no is distinct from case p.lane
            when 'task' then (select t.attempt_no from workflow.tasks t where t.id = p.id and t.lease_token is not null)
            else (select j.attempt_no from workflow.jobs j where j.id = p.id and j.lease_token is not null) end
        returning p.tenant_id, p.limit_key, p.charged_seconds, greatest(extract(epoch from p_now - p.leased_at), 0)::float8 as took
    ), of_lines as (
        update workflow.lines l
        set running = l.running - g.n, blocked_until = nullif(l.blocked_until, 'infinity')
        from (select tenant_id, limit_key, count(*)::int as n from gone group by tenant_id, limit_key) g
        where l.queue = p_queue and l.tenant_id = g.tenant_id and l.limit_key = g.limit_key
        returning l.tenant_id, l.waiting
    ), of_turns as (
        update workflow.turns t
        set running = t.running - g.n, blocked_until = nullif(t.blocked_until, 'infinity'),
            waiting = t.waiting or exists (select from of_lines l where l.tenant_id = t.tenant_id and l.waiting),
            -- Whoever could not have had more has saved nothing up.
            virtual_time = greatest(t.virtual_time + (g.took - g.charged) / workflow.weight_of(p_queue, t.tenant_id),
                                    case when t.blocked_until = 'infinity' or not t.waiting then v_begin end),
            mean_seconds = t.mean_seconds + (g.took / g.n - t.mean_seconds) * (1 - power(0.8, g.n))
        from (select tenant_id, count(*)::int as n, sum(took) as took, sum(charged_seconds) as charged from gone group by tenant_id) g
        where t.queue = p_queue and t.tenant_id = g.tenant_id
    ), of_queue as (
        update workflow.queue_terms q
        set running = q.running - g.n, mean_seconds = q.mean_seconds + (g.mean - q.mean_seconds) * (1 - power(0.8, g.n))
        from (select count(*)::int as n, avg(took) as mean from gone) g
        where q.queue = p_queue and g.n > 0
    )
    select count(*) into v_gone from gone;
    return v_gone;
end $$;

create function workflow.weight_of(p_queue text, p_tenant uuid) returns float8 language plpgsql stable as $$
begin
    return coalesce((select s.weight from workflow.queue_shares s where s.queue = p_queue and s.tenant_id = p_tenant), 1);
end $$;

-- Where a tenant begins that comes, or comes back: where those are that never left.
create function workflow.turn_begins_at(p_queue text) returns float8 language plpgsql stable as $$
begin
    return greatest(
        (select q.virtual_time from workflow.queue_terms q where q.queue = p_queue),
        (select t.virtual_time from workflow.turns t
         where t.queue = p_queue and (t.waiting or t.running > 0) order by t.virtual_time limit 1));
end $$;

-- Leases that last longer than what was charged for them are charged with more: their tenant is not to be ahead for the time
-- that nobody knows yet. Doubling, so that it costs a few writes a lease.
create function workflow.charge_more(p_queue text, p_now timestamptz) returns void language plpgsql as $$
#variable_conflict use_column
begin
    with longer as (
        update workflow.permits p
        set charged_seconds = greatest(2 * p.charged_seconds, extract(epoch from p_now - p.leased_at))
        from workflow.permits before
        where p.queue = p_queue and p_now > p.leased_at + make_interval(secs => p.charged_seconds)
          and before.queue = p.queue and before.lane = p.lane and before.id = p.id
        returning p.tenant_id, p.charged_seconds - before.charged_seconds as more
    )
    update workflow.turns t set virtual_time = t.virtual_time + l.more / workflow.weight_of(p_queue, t.tenant_id)
    from (select tenant_id, sum(more) as more from longer group by tenant_id) l
    where t.queue = p_queue and t.tenant_id = l.tenant_id;
end $$;

-- Opens lines: something was put in them.
create function workflow.open_lines(p_queue text, p_tenants uuid[], p_keys text[]) returns void language plpgsql as $$
#variable_conflict use_column
declare
    v_begin float8 := workflow.turn_begins_at(p_queue);
begin
    insert into workflow.lines as l (queue, tenant_id, limit_key, waiting)
    select distinct p_queue, g.tenant_id, g.limit_key, true from unnest(p_tenants, p_keys) as g (tenant_id, limit_key)
    on conflict (queue, tenant_id, limit_key) do update set waiting = true where not l.waiting;
    insert into workflow.turns as t (queue, tenant_id, waiting, virtual_time, mean_seconds)
    select distinct p_queue, g.tenant_id, true, v_begin, (select q.mean_seconds from workflow.queue_terms q where q.queue = p_queue)
    from unnest(p_tenants) as g (tenant_id)
    on conflict (queue, tenant_id) do update
        set waiting = true, virtual_time = greatest(t.virtual_time, excluded.virtual_time) where not t.waiting;
end $$;

-- Opens the lines of what has arrived, for a few milliseconds at most; true when there is more.
create function workflow.receive(p_lane text, p_queue text, p_now timestamptz) returns boolean language plpgsql as $$
#variable_conflict use_column
declare
    v_until timestamptz := clock_timestamp() + interval '4 ms';
    v_tenants uuid[];
    v_keys text[];
    v_n int;
begin
    loop
        with taken as (
            delete from workflow.arrivals a
            where a.ctid = any (array (select f.ctid from workflow.arrivals f where f.queue = p_queue limit 500))
            returning a.tenant_id, a.limit_key
        )
        select array_agg(d.tenant_id), array_agg(d.limit_key), sum(d.n) into v_tenants, v_keys, v_n
        from (select tenant_id, limit_key, count(*) as n from taken group by tenant_id, limit_key) d;
        if v_tenants is not null then
            perform workflow.open_lines(p_queue, v_tenants, v_keys);
        end if;
        if p_lane = 'task' then
            with lined as (
                update workflow.tasks t set lined = true
                where t.id = any (array (
                    select r.id from workflow.tasks r where r.queue = p_queue and r.state = 'ready' and not r.lined
                    order by r.priority desc, r.run_at, r.id limit 200 for update skip locked))
                returning t.tenant_id, t.limit_key
            )
            select array_agg(tenant_id), array_agg(limit_key) into v_tenants, v_keys from lined;
        else
            with lined as (
                update workflow.jobs j set lined = true
                where j.id = any (array (
                    select r.id from workflow.jobs r
                    where r.queue = p_queue and r.worker_id is null and not r.lined and r.run_at <= p_now
                    order by r.priority desc, r.run_at, r.id limit 200 for update skip locked))
                returning j.tenant_id, j.limit_key
            )
            select array_agg(tenant_id), array_agg(limit_key) into v_tenants, v_keys from lined;
        end if;
        if v_tenants is not null then
            perform workflow.open_lines(p_queue, v_tenants, v_keys);
        end if;
        if coalesce(v_n, 0) < 500 and coalesce(cardinality(v_tenants), 0) < 200 then
            return false;
        elsif clock_timestamp() >= v_until then
            return true;
        end if;
    end loop;
end $$;

-- Looks again at what was blocked until now.
create function workflow.unblock(p_queue text, p_now timestamptz) returns void language plpgsql as $$
#variable_conflict use_column
declare
    v_begin float8 := workflow.turn_begins_at(p_queue);
    v_tenants uuid[];
begin
    update workflow.turns t set blocked_until = null, virtual_time = greatest(t.virtual_time, v_begin)
    where t.queue = p_queue and t.blocked_until <= p_now;
    with free as (
        update workflow.lines l set blocked_until = null where l.queue = p_queue and l.blocked_until <= p_now
        returning l.tenant_id, l.waiting
    )
    select array_agg(distinct tenant_id) into v_tenants from free where waiting;
    if v_tenants is not null then
        update workflow.turns t set waiting = true, virtual_time = greatest(t.virtual_time, v_begin)
        where t.queue = p_queue and t.tenant_id = any (v_tenants) and not t.waiting;
    end if;
end $$;

-- ---------------------------------------------------------------------------------------- the claim

-- Who claims: `token` becomes the fence of jobs, each task gets its own. `names` null: whatever there is. `holds` null: nothing.
create type workflow.claimant as (name text, worker_id bigint, token uuid, names text[], labels jsonb, holds text[]);

-- Leases what goes with what the claimer holds, if it may come first: nothing of a higher priority is ready, and what is ready has
-- not waited for a minute. From the line of a tenant and limit key, or, without a tenant, from what is in no line.
create function workflow.lease_warm(
    p_lane text, p_queue text, p_tenant uuid, p_key text, p_limit int, p_who workflow.claimant, p_now timestamptz)
returns bigint[] language plpgsql as $$
#variable_conflict use_column
declare
    v_head record;
    v_ids bigint[];
begin
    if p_lane = 'task' then
        if p_tenant is null then
            select r.priority, r.run_at into v_head from workflow.tasks r
            where r.queue = p_queue and r.state = 'ready' and not r.lined
              and (r.required_labels = '{}' or r.required_labels <@ p_who.labels)
              and (p_who.names is null or r.activity = any (p_who.names))
            order by r.priority desc, r.run_at, r.id limit 1;
        else
            select r.priority, r.run_at into v_head from workflow.tasks r
            where r.queue = p_queue and r.tenant_id = p_tenant and r.limit_key = p_key and r.state = 'ready' and r.lined
              and (r.required_labels = '{}' or r.required_labels <@ p_who.labels)
              and (p_who.names is null or r.activity = any (p_who.names))
            order by r.priority desc, r.run_at, r.id limit 1;
        end if;
        if v_head.run_at is null or v_head.run_at < p_now - interval '1 min' then
            return '{}';
        end if;
        with taken as (
            update workflow.tasks t
            set state = 'leased', attempt_no = t.attempt_no + 1, lease_token = gen_random_uuid(), leased_by = p_who.name,
                worker_id = p_who.worker_id, leased_at = p_now, lease_expires_at = p_now + make_interval(secs => t.lease_seconds),
                lined = false
            where t.id = any (array (
                select r.id from workflow.tasks r
                where r.queue = p_queue and r.warm_key = any (p_who.holds) and r.state = 'ready' and r.priority = v_head.priority
                  and (p_tenant is null and not r.lined or r.lined and r.tenant_id = p_tenant and r.limit_key = p_key)
                  and (r.required_labels = '{}' or r.required_labels <@ p_who.labels)
                  and (p_who.names is null or r.activity = any (p_who.names))
                order by r.run_at, r.id limit p_limit for update skip locked))
            returning t.id
        )
        select array_agg(id) into v_ids from taken;
    else
        if p_tenant is null then
            select r.priority, r.run_at into v_head from workflow.jobs r
            where r.queue = p_queue and r.worker_id is null and not r.lined and r.run_at <= p_now
              and (r.required_labels is null or r.required_labels <@ p_who.labels)
              and (p_who.names is null or r.activity = any (p_who.names))
            order by r.priority desc, r.run_at, r.id limit 1;
        else
            select r.priority, r.run_at into v_head from workflow.jobs r
            where r.queue = p_queue and r.tenant_id = p_tenant and r.limit_key = p_key and r.worker_id is null and r.lined
              and r.run_at <= p_now
              and (r.required_labels is null or r.required_labels <@ p_who.labels)
              and (p_who.names is null or r.activity = any (p_who.names))
            order by r.priority desc, r.run_at, r.id limit 1;
        end if;
        if v_head.run_at is null or v_head.run_at < p_now - interval '1 min' then
            return '{}';
        end if;
        with taken as (
            update workflow.jobs j
            set worker_id = p_who.worker_id, lease_token = p_who.token, leased_at = p_now, attempt_no = j.attempt_no + 1, lined = false,
                unique_key = case when j.unique_for ->> 'until' is null then j.unique_key end
            where j.id = any (array (
                select r.id from workflow.jobs r
                where r.queue = p_queue and r.warm_key = any (p_who.holds) and r.worker_id is null and r.priority = v_head.priority
                  and r.run_at <= p_now
                  and (p_tenant is null and not r.lined or r.lined and r.tenant_id = p_tenant and r.limit_key = p_key)
                  and (r.required_labels is null or r.required_labels <@ p_who.labels)
                  and (p_who.names is null or r.activity = any (p_who.names))
                order by r.run_at, r.id limit p_limit for update skip locked))
            returning j.id
        )
        select array_agg(id) into v_ids from taken;
    end if;
    return coalesce(v_ids, '{}');
end $$;

-- Leases the first of a line that the claimer can do, with permits; passes over what somebody else has locked. What goes with
-- something that the claimer holds may come first.
create function workflow.take_from_line(
    p_lane text, p_queue text, p_tenant uuid, p_key text, p_limit int, p_charge float8, p_who workflow.claimant, p_now timestamptz)
returns bigint[] language plpgsql as $$
#variable_conflict use_column
declare
    v_warm bigint[] := '{}';
    v_ids bigint[];
begin
    if p_who.holds is not null then
        v_warm := workflow.lease_warm(p_lane, p_queue, p_tenant, p_key, p_limit, p_who, p_now);
    end if;
    if p_lane = 'task' then
        with taken as (
            update workflow.tasks t
            set state = 'leased', attempt_no = t.attempt_no + 1, lease_token = gen_random_uuid(), leased_by = p_who.name,
                worker_id = p_who.worker_id, leased_at = p_now, lease_expires_at = p_now + make_interval(secs => t.lease_seconds),
                lined = false
            where t.id = any (array (
                select r.id from workflow.tasks r
                where r.queue = p_queue and r.tenant_id = p_tenant and r.limit_key = p_key and r.state = 'ready' and r.lined
                  and (r.required_labels = '{}' or r.required_labels <@ p_who.labels)
                  and (p_who.names is null or r.activity = any (p_who.names))
                order by r.priority desc, r.run_at, r.id limit p_limit - cardinality(v_warm) for update skip locked))
            returning t.id
        )
        select array_agg(id) into v_ids from taken;
        v_ids := v_warm || v_ids;
        insert into workflow.permits (queue, lane, id, attempt_no, tenant_id, limit_key, leased_at, charged_seconds)
        select p_queue, 'task', t.id, t.attempt_no, p_tenant, p_key, p_now, p_charge from workflow.tasks t where t.id = any (v_ids);
    else
        with taken as (
            update workflow.jobs j
            set worker_id = p_who.worker_id, lease_token = p_who.token, leased_at = p_now, attempt_no = j.attempt_no + 1, lined = false,
                unique_key = case when j.unique_for ->> 'until' is null then j.unique_key end
            where j.id = any (array (
                select r.id from workflow.jobs r
                where r.queue = p_queue and r.tenant_id = p_tenant and r.limit_key = p_key and r.worker_id is null and r.lined
                  and r.run_at <= p_now
                  and (r.required_labels is null or r.required_labels <@ p_who.labels)
                  and (p_who.names is null or r.activity = any (p_who.names))
                order by r.priority desc, r.run_at, r.id limit p_limit - cardinality(v_warm) for update skip locked))
            returning j.id
        )
        select array_agg(id) into v_ids from taken;
        v_ids := v_warm || v_ids;
        insert into workflow.permits (queue, lane, id, attempt_no, tenant_id, limit_key, leased_at, charged_seconds)
        select p_queue, 'job', j.id, j.attempt_no, p_tenant, p_key, p_now, p_charge from workflow.jobs j where j.id = any (v_ids);
    end if;
    return coalesce(v_ids, '{}');
end $$;

create function workflow.line_is_empty(p_queue text, p_tenant uuid, p_key text) returns boolean language plpgsql as $$
begin
    return not exists (
            select from workflow.tasks r
            where r.queue = p_queue and r.tenant_id = p_tenant and r.limit_key = p_key and r.state = 'ready' and r.lined)
        and not exists (
            select from workflow.jobs r
            where r.queue = p_queue and r.tenant_id = p_tenant and r.limit_key = p_key and r.worker_id is null and r.lined);
end $$;

create function workflow.has_lines(p_lane text, p_queue text) returns boolean language plpgsql as $$
begin
    return case p_lane
        when 'task' then exists (select from workflow.tasks r where r.queue = p_queue and r.state = 'ready' and r.lined)
        else exists (select from workflow.jobs r where r.queue = p_queue and r.worker_id is null and r.lined) end;
end $$;

-- Leases up to `p_want` tasks or jobs of a queue with terms, as they allow. Not governed: the terms have ended, the queue is as any
-- other. `again_at`: when it is worth asking again, if that is known. Never waits.
create function workflow.admit(
    p_lane text, p_queue text, p_want int, p_who workflow.claimant, out governed boolean, out ids bigint[], out again_at timestamptz)
language plpgsql
-- Planning these statements costs more than they do.
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    v_now timestamptz := workflow.now();
    v_terms workflow.queue_terms;
    v_more boolean;
    v_want int;
    v_turn record;
    v_line record;
    v_room int;
    v_ids bigint[];
    v_after_time float8 := '-infinity';
    v_after_tenant uuid := '00000000-0000-0000-0000-000000000000';
    v_passed_tenant uuid;
    v_after_pick bigint := -1;
    v_after_key text := '';
begin
    ids := '{}';
    governed := not (select q.ended from workflow.queue_terms q where q.queue = p_queue);
    if not governed then
        perform workflow.leave_lines(p_lane, p_queue);
        return;
    end if;
    select * into v_terms from workflow.queue_terms q where q.queue = p_queue and not q.ended for no key update skip locked;
    if not found then
        again_at := v_now + make_interval(secs => 0.005 + 0.01 * random());
        return;
    end if;
    v_now := workflow.now();
    if workflow.rate_room(v_terms.rate, v_terms.booked_until, v_now) = 0 then
        again_at := workflow.rate_free_at(v_terms.rate, v_terms.booked_until);
        return;
    end if;
    if workflow.drop_permits(p_queue, v_now) > 0 then
        select * into v_terms from workflow.queue_terms q where q.queue = p_queue;
    end if;
    perform workflow.charge_more(p_queue, v_now);
    perform workflow.unblock(p_queue, v_now);
    v_more := workflow.receive(p_lane, p_queue, v_now);
    v_want := least(p_want, coalesce(v_terms.cap - v_terms.running, p_want),
                    workflow.rate_room(v_terms.rate, v_terms.booked_until, v_now));

    while cardinality(ids) < v_want loop
        -- Whose turn it is; then how much of it before it is somebody else's.
        select t.*, coalesce(s.weight, 1) as weight, coalesce(s.cap, v_terms.tenant_cap) as cap,
               (select n.virtual_time from workflow.turns n
                where n.queue = p_queue and n.waiting and n.blocked_until is null
                  and (n.virtual_time, n.tenant_id) > (t.virtual_time, t.tenant_id)
                order by n.virtual_time, n.tenant_id limit 1) as next_time
        into v_turn
        from (select * from workflow.turns t
              where t.queue = p_queue and t.waiting and t.blocked_until is null
                and (t.virtual_time, t.tenant_id) > (v_after_time, v_after_tenant)
              order by t.virtual_time, t.tenant_id limit 1) t
        left join workflow.queue_shares s on s.queue = p_queue and s.tenant_id = t.tenant_id;
        exit when not found;
        v_room := least(coalesce(v_turn.cap - v_turn.running, v_want),
                        workflow.rate_room(v_terms.tenant_rate, v_turn.booked_until, v_now));
        if v_room <= 0 then
            update workflow.turns t
            set blocked_until = case when v_turn.running >= v_turn.cap then 'infinity'
                                     else workflow.rate_free_at(v_terms.tenant_rate, t.booked_until) end
            where t.queue = p_queue and t.tenant_id = v_turn.tenant_id;
            continue;
        end if;
        if v_turn.tenant_id is distinct from v_passed_tenant then
            v_after_pick := -1;
            v_after_key := '';
        end if;
        select l.*, exists (select from workflow.lines o
                            where o.queue = p_queue and o.tenant_id = l.tenant_id and o.waiting and o.blocked_until is null
                              and o.limit_key <> l.limit_key) as has_others
        into v_line
        from (select * from workflow.lines l
              where l.queue = p_queue and l.tenant_id = v_turn.tenant_id and l.waiting and l.blocked_until is null
                and (l.last_pick, l.limit_key) > (v_after_pick, v_after_key)
              order by l.last_pick, l.limit_key limit 1) l;
        if not found then
            if v_after_pick < 0 then
                update workflow.turns t set waiting = false where t.queue = p_queue and t.tenant_id = v_turn.tenant_id;
            else
                -- What is left of it is not for this claimer: on with the others.
                v_after_time := v_turn.virtual_time;
                v_after_tenant := v_turn.tenant_id;
            end if;
            continue;
        end if;
        v_room := least(v_room, v_want - cardinality(ids), case
            when v_line.has_others then 1
            when v_turn.next_time is null then v_want
            else greatest(1, least(ceil((v_turn.next_time - v_turn.virtual_time) * v_turn.weight
                                        / greatest(v_turn.mean_seconds, 1e-6)), v_want)) end);
        if v_line.limit_key <> '' then
            v_room := least(v_room, coalesce(v_terms.key_cap - v_line.running, v_room),
                            workflow.rate_room(v_terms.key_rate, v_line.booked_until, v_now));
            if v_room <= 0 then
                update workflow.lines l
                set blocked_until = case when v_line.running >= v_terms.key_cap then 'infinity'
                                         else workflow.rate_free_at(v_terms.key_rate, l.booked_until) end
                where l.queue = p_queue and l.tenant_id = v_line.tenant_id and l.limit_key = v_line.limit_key;
                continue;
            end if;
        end if;
        v_ids := workflow.take_from_line(
            p_lane, p_queue, v_line.tenant_id, v_line.limit_key, v_room, v_turn.mean_seconds, p_who, v_now);
        if v_ids = '{}' then
            if workflow.line_is_empty(p_queue, v_line.tenant_id, v_line.limit_key) then
                update workflow.lines l set waiting = false
                where l.queue = p_queue and l.tenant_id = v_line.tenant_id and l.limit_key = v_line.limit_key;
            else
                v_passed_tenant := v_turn.tenant_id;
                v_after_pick := v_line.last_pick;
                v_after_key := v_line.limit_key;
            end if;
            continue;
        end if;
        v_terms.picks := v_terms.picks + 1;
        v_terms.virtual_time := greatest(v_terms.virtual_time, v_turn.virtual_time);
        update workflow.lines l
        set running = l.running + cardinality(v_ids), last_pick = v_terms.picks,
            booked_until = case when l.limit_key = '' then l.booked_until
                                else workflow.rate_book(v_terms.key_rate, l.booked_until, v_now, cardinality(v_ids)) end
        where l.queue = p_queue and l.tenant_id = v_line.tenant_id and l.limit_key = v_line.limit_key;
        update workflow.turns t
        set running = t.running + cardinality(v_ids),
            virtual_time = t.virtual_time + cardinality(v_ids) * t.mean_seconds / v_turn.weight,
            booked_until = workflow.rate_book(v_terms.tenant_rate, t.booked_until, v_now, cardinality(v_ids))
        where t.queue = p_queue and t.tenant_id = v_turn.tenant_id;
        ids := ids || v_ids;
    end loop;

    if ids <> '{}' then
        update workflow.queue_terms q
        set running = q.running + cardinality(ids), picks = v_terms.picks, virtual_time = v_terms.virtual_time,
            booked_until = workflow.rate_book(q.rate, q.booked_until, v_now, cardinality(ids))
        where q.queue = p_queue
        returning booked_until into v_terms.booked_until;
    end if;
    perform workflow.forget_idle(p_queue, v_terms.virtual_time, v_now);
    if cardinality(ids) < p_want and workflow.has_lines(p_lane, p_queue) then
        again_at := least(
            case when v_more then v_now end,
            case when workflow.rate_room(v_terms.rate, v_terms.booked_until, v_now) = 0
                 then workflow.rate_free_at(v_terms.rate, v_terms.booked_until) end,
            (select min(t.blocked_until) from workflow.turns t where t.queue = p_queue and t.blocked_until < 'infinity'),
            (select min(l.blocked_until) from workflow.lines l where l.queue = p_queue and l.blocked_until < 'infinity'));
    end if;
end $$;

-- Activities that `admit` has leased.
create function workflow.admitted_tasks(p_ids bigint[]) returns setof workflow.news language plpgsql as $$
#variable_conflict use_column
begin
    return query
    select t.kind::text, t.queue::text, t.id, t.run_id, t.tenant_id, t.step_key::text, t.activity::text, t.input::jsonb, t.attempt_no,
           t.lease_token, t.lease_seconds::float8, t.start_to_close_seconds::float8, t.wake_seq, t.run_at, t.worker_id, t.traceparent::text
    from workflow.tasks t where t.id = any (p_ids);
end $$;

-- Forgets, a few at a time, lines and turns that nothing depends on: whoever comes back begins as if it had never been here.
create function workflow.forget_idle(p_queue text, p_time float8, p_now timestamptz) returns void language plpgsql as $$
begin
    delete from workflow.lines l
    where l.ctid = any (array (
        select i.ctid from workflow.lines i
        where i.queue = p_queue and not i.waiting and i.running = 0 and i.booked_until < p_now limit 10));
    delete from workflow.turns t
    where t.ctid = any (array (
        select i.ctid from workflow.turns i
        where i.queue = p_queue and not i.waiting and i.running = 0 and i.virtual_time <= p_time and i.booked_until < p_now
          and not exists (select from workflow.lines l where l.queue = p_queue and l.tenant_id = i.tenant_id)
        limit 10));
end $$;

-- ---------------------------------------------------------------------------------------- setting terms

-- The terms of a queue have changed: everything is to be looked at anew, and what is leased counts.
create function workflow.terms_changed(p_queue text) returns void language plpgsql as $$
#variable_conflict use_column
begin
    update workflow.lines l set blocked_until = null where l.queue = p_queue and l.blocked_until is not null;
    update workflow.turns t set blocked_until = null where t.queue = p_queue and t.blocked_until is not null;
    update workflow.turns t set waiting = true
    where t.queue = p_queue and not t.waiting
      and exists (select from workflow.lines l where l.queue = p_queue and l.tenant_id = t.tenant_id and l.waiting);
    with held as (
        insert into workflow.permits (queue, lane, id, attempt_no, tenant_id, limit_key, leased_at, charged_seconds)
        select t.queue, 'task', t.id, t.attempt_no, t.tenant_id, t.limit_key, t.leased_at, 0
        from workflow.tasks t where t.lease_expires_at is not null and t.queue = p_queue
        union all
        select j.queue, 'job', j.id, j.attempt_no, j.tenant_id, j.limit_key, j.leased_at, 0
        from workflow.jobs j where j.worker_id is not null and j.queue = p_queue
        on conflict (queue, lane, id) do nothing
        returning tenant_id, limit_key
    ), of_lines as (
        insert into workflow.lines as l (queue, tenant_id, limit_key, waiting, running)
        select p_queue, tenant_id, limit_key, false, count(*) from held group by tenant_id, limit_key
        on conflict (queue, tenant_id, limit_key) do update set running = l.running + excluded.running
    ), of_turns as (
        insert into workflow.turns as t (queue, tenant_id, waiting, virtual_time, mean_seconds, running)
        select p_queue, h.tenant_id, false, q.virtual_time, q.mean_seconds, count(*)
        from held h join workflow.queue_terms q on q.queue = p_queue group by h.tenant_id, q.virtual_time, q.mean_seconds
        on conflict (queue, tenant_id) do update set running = t.running + excluded.running
    )
    update workflow.queue_terms q set running = q.running + (select count(*) from held) where q.queue = p_queue;
end $$;

-- Takes ready work out of the lines of a queue whose terms have ended, some at each claim.
create function workflow.leave_lines(p_lane text, p_queue text) returns void language plpgsql as $$
begin
    if p_lane = 'task' then
        update workflow.tasks t set lined = false
        where t.id = any (array (select r.id from workflow.tasks r
            where r.queue = p_queue and r.state = 'ready' and r.lined limit 2000 for update skip locked));
    else
        update workflow.jobs j set lined = false
        where j.id = any (array (select r.id from workflow.jobs r
            where r.queue = p_queue and r.worker_id is null and r.lined limit 2000 for update skip locked));
    end if;
end $$;

-- ---------------------------------------------------------------------------------------- one job a key

-- The key that a job keeps when it ends so, if it does.
create function workflow.kept_key(p_key text, p_for jsonb, p_outcome text) returns text language sql immutable as $$
    select case when p_for -> 'outcomes' ? p_outcome then p_key end
$$;

create function workflow.kept_for(p_for jsonb) returns interval language sql immutable as $$
    select make_interval(secs => (p_for ->> 'seconds')::float8)
$$;

-- Puts a job in its queue unless its unique key is taken; answers the job that has the key. With `p_wait` the job is put off: each
-- further call replaces its input and puts it off again, until it has waited for `p_max_wait` or is claimed.
--
-- The index decides: whoever comes second waits for the first to commit. Only then can it be seen whether a job that has ended
-- still keeps the key: whatever ended before this row took its place in the index is visible to the next statement.
create function workflow.enqueue_keyed(
    p_tenant uuid, p_queue text, p_activity text, p_input jsonb, p_priority smallint, p_run_at timestamptz, p_policy jsonb,
    p_labels jsonb, p_limit_key text, p_warm_key text, p_key text, p_for jsonb, p_wait interval, p_max_wait interval, p_traceparent text,
    out job_id bigint, out fresh boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v_holder bigint;
begin
    loop
        v_now := workflow.now();
        insert into workflow.jobs as j
            (tenant_id, queue, activity, input, priority, run_at, policy, required_labels, limit_key, warm_key, unique_key, unique_for,
             latest_at, traceparent)
        values (p_tenant, p_queue, p_activity, p_input, p_priority,
                coalesce(p_run_at, v_now + least(p_wait, p_max_wait), v_now), p_policy, p_labels, p_limit_key, p_warm_key, p_key, p_for,
                v_now + p_max_wait, p_traceparent)
        on conflict (unique_key) where unique_key is not null do update
            set input = excluded.input, warm_key = excluded.warm_key, traceparent = excluded.traceparent, run_at = least(j.latest_at, excluded.run_at), lined = false
            where p_wait is not null and j.worker_id is null
        returning j.id, j.xmax = 0 into job_id, fresh;
        if not found then
            fresh := false;
            select j.id into job_id from workflow.jobs j where j.unique_key = p_key;
            exit when found;
            -- Whoever had it has ended since.
            continue;
        end if;
        exit when not fresh;
        select f.id into v_holder from workflow.finished_jobs f
        where f.unique_key = p_key and f.unique_until > v_now order by f.unique_until desc limit 1;
        if found then
            delete from workflow.jobs j where j.id = job_id;
            job_id := v_holder;
            fresh := false;
        end if;
        exit;
    end loop;
end $$;

-- Takes up a job again that did not go well, under its id. Outcomes as those of operations on runs: conflict: another job has its
-- unique key by now.
create function workflow.revive_job(p_id bigint) returns text language plpgsql as $$
#variable_conflict use_column
declare
    v_job workflow.finished_jobs;
begin
    select * into v_job from workflow.finished_jobs f
    where f.id = p_id and (f.outcome <> 'ok' or f.revived) order by f.finished_at desc limit 1;
    if not found then
        return case when exists (select from workflow.jobs where id = p_id) then 'moved' else 'not_found' end;
    elsif v_job.outcome = 'ok' then
        return 'moved';
    end if;
    insert into workflow.jobs (id, tenant_id, queue, activity, input, priority, run_at, attempt_no, policy, required_labels, limit_key,
                               warm_key, unique_key, unique_for, revived)
    overriding system value
    values (v_job.id, v_job.tenant_id, v_job.queue, v_job.activity, v_job.input, (v_job.options ->> 'priority')::smallint,
            workflow.now(), v_job.attempt_no, v_job.options -> 'policy', v_job.options -> 'labels', v_job.options ->> 'limit_key',
            v_job.options ->> 'warm_key', v_job.options ->> 'unique_key', v_job.options -> 'unique_for', true)
    on conflict do nothing;
    if not found then
        return case when exists (select from workflow.jobs where id = p_id) then 'moved' else 'conflict' end;
    end if;
    -- The insert may have waited for somebody else who took it up, and has seen it end.
    if exists (select from workflow.finished_jobs f where f.id = p_id and f.finished_at > v_job.finished_at and (f.outcome <> 'ok' or f.revived)) then
        delete from workflow.jobs where id = p_id;
        return 'moved';
    end if;
    if exists (select from workflow.finished_jobs f
               where f.unique_key = v_job.options ->> 'unique_key' and f.unique_until > workflow.now() and f.id <> p_id) then
        delete from workflow.jobs where id = p_id;
        return 'conflict';
    end if;
    return 'done';
end $$;

-- ---------------------------------------------------------------------------------------- throttled starts

create table workflow.throttles (
    key     text primary key check (octet_length(key) between 1 and 600),
    starts  timestamptz[] not null,
    idle_at timestamptz not null
);
comment on table workflow.throttles is 'Starts of late, the oldest first; some are still to come. Whoever starts holds the row until it has committed.';
comment on column workflow.throttles.idle_at is 'From then on the row says nothing.';
create index throttles_idle on workflow.throttles (idle_at);

-- When something with this key may start, so that no window sees more than `p_n` starts; null: not at all. Whoever is told a time
-- has taken a place. Waits for others with the same key that have not committed.
create function workflow.throttle(p_key text, p_n int, p_window interval, p_defer boolean) returns timestamptz language plpgsql as $$
declare
    v_starts timestamptz[];
    v_now timestamptz;
    v_at timestamptz;
begin
    loop
        insert into workflow.throttles (key, starts, idle_at) values (p_key, '{}', workflow.now() + p_window) on conflict do nothing;
        select t.starts into v_starts from workflow.throttles t where t.key = p_key for update;
        exit when found;
    end loop;
    v_now := workflow.now();
    v_at := greatest(v_now, v_starts[cardinality(v_starts)], v_starts[cardinality(v_starts) - p_n + 1] + p_window);
    if v_at > v_now and not p_defer then
        return null;
    end if;
    v_starts := v_starts || v_at;
    update workflow.throttles t
    set starts = v_starts[greatest(cardinality(v_starts) - p_n + 1, 1):], idle_at = greatest(t.idle_at, v_at + p_window)
    where t.key = p_key;
    delete from workflow.throttles t
    where t.key <> p_key and t.key = any (array (
        select i.key from workflow.throttles i where i.idle_at < v_now order by i.idle_at limit 2 for update skip locked));
    return v_at;
end $$;
