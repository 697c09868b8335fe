-- Schedules: cron rows, and what was decided for each of their times. See 31_workflow_engine.sql.
--
--   schedules        when what is started; `decided_until`: every nominal time up to here has been dealt with
--   schedule_fires   one row per nominal time that led to a decision; the row and the start of its run are one commit
--
-- Cron expressions are read in Rust; whoever decides holds the lock on the row of the schedule. Any number of
-- processes may try.

create table workflow.schedules (
    id                     uuid primary key,
    tenant_id              uuid not null,
    name                   workflow.short_name not null,
    cron                   text not null check (octet_length(cron) between 1 and 200),
    time_zone              text not null check (octet_length(time_zone) between 1 and 64),
    kind                   workflow.kind_name not null,
    version                int not null check (version > 0),
    input                  workflow.payload not null,
    priority               smallint not null default 0,
    catch_up               text not null check (catch_up in ('skip', 'one', 'all')),
    catch_up_seconds       float8 not null check (catch_up_seconds between 0 and 31622400),
    overlap                text not null check (overlap in ('skip', 'buffer_one', 'allow', 'cancel_other')),
    enabled                boolean not null default true,
    paused_at              timestamptz,
    revision               int not null default 1,
    created_at             timestamptz not null,
    updated_at             timestamptz not null,
    deleted_at             timestamptz,
    decided_until          timestamptz not null,
    next_at                timestamptz,
    buffered_at            timestamptz,
    live_runs              uuid[] not null default '{}',
    missed                 bigint not null default 0,
    constraint only_what_is_live_fires check (next_at is null or (enabled and paused_at is null and deleted_at is null))
);
comment on column workflow.schedules.next_at is 'The next nominal time; null: never, or not now.';
comment on column workflow.schedules.buffered_at is 'A nominal time that waits until the run before it is over.';
comment on column workflow.schedules.live_runs is 'Runs it has started that may not be over; empty when runs may overlap.';
comment on column workflow.schedules.missed is 'Nominal times that passed without a run because nobody was there in time.';
-- A schedule that is gone leaves its name to another.
create unique index schedules_name on workflow.schedules (tenant_id, name) where deleted_at is null;
create index schedules_due on workflow.schedules (next_at) where next_at is not null;
create index schedules_buffered on workflow.schedules (id) where buffered_at is not null;

create table workflow.schedule_fires (
    schedule_id uuid not null references workflow.schedules,
    nominal_at  timestamptz not null,
    revision    int not null,
    decision    text not null check (decision in ('started', 'manual', 'missed', 'overlapped', 'buffered', 'superseded')),
    run_id      uuid,
    decided_at  timestamptz not null,
    primary key (schedule_id, nominal_at),
    constraint a_start_has_a_run check ((decision in ('started', 'manual')) = (run_id is not null))
) partition by range (nominal_at);
comment on column workflow.schedule_fires.run_id is 'softref:workflow.runs(id), which may be dropped before.';
comment on column workflow.schedule_fires.decision is
    'started, manual: a run. missed: too late. overlapped: the run before it was not over. buffered: starts when that one is over. superseded: was buffered, a later time took its place.';

-- Which of these runs are not over; where one has gone on as another, the newest of them.
create function workflow.still_live(p_runs uuid[]) returns setof uuid language sql stable as $$
    with recursive chain as (
        select r.id, r.continued_as, r.finished_at from workflow.runs r where r.id = any (p_runs)
        union
        select n.id, n.continued_as, n.finished_at from chain c join workflow.runs n on n.id = c.continued_as
    )
    select id from chain where finished_at is null order by id
$$;
