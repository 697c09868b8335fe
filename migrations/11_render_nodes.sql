-- Render nodes: machines with a renderer, known by name, fenced by epoch; what they hold and how they fare.

create table render.nodes (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid,
    name           text not null unique check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    status         text not null default 'online' check (status in ('registering', 'online', 'draining', 'offline', 'quarantined', 'retired')),
    epoch          bigint not null default 1 check (epoch > 0),
    incarnation    uuid,
    capabilities   jsonb not null check (octet_length(capabilities::text) <= 65536),
    pool           text not null default 'default' check (pool ~ '^[A-Za-z0-9._-]{1,64}$'),
    labels         jsonb not null default '{}' check (jsonb_typeof(labels) = 'object' and octet_length(labels::text) <= 8192),
    offers         jsonb not null default '{}' check (jsonb_typeof(offers) = 'object' and octet_length(offers::text) <= 1048576),
    agent_version  text check (char_length(agent_version) <= 40),
    ae_version     text check (char_length(ae_version) <= 40),
    renderer_version text check (char_length(renderer_version) <= 40),
    os             text check (char_length(os) <= 200),
    cpu            int check (cpu > 0),
    ram_mb         bigint check (ram_mb > 0),
    gpu            text check (char_length(gpu) <= 200),
    slots          int not null default 1 check (slots between 1 and 256),
    fonts_hash     text check (fonts_hash ~ '^[0-9a-f]{64}$'),
    fonts_count    int check (fonts_count >= 0),
    plugins        jsonb not null default '[]' check (octet_length(plugins::text) <= 1048576),
    disk_free_mb   bigint check (disk_free_mb >= 0),
    is_full        boolean not null default false,
    cache_bytes    bigint not null default 0 check (cache_bytes >= 0),
    cache_limit    bigint check (cache_limit > 0),
    credential_hash bytea not null unique check (octet_length(credential_hash) = 32),
    credential_at  timestamptz not null default now(),
    next_credential_hash bytea unique check (octet_length(next_credential_hash) = 32),
    last_credential_hash bytea unique check (octet_length(last_credential_hash) = 32),
    last_credential_until timestamptz,
    rotate_asked_at timestamptz,
    sleep          jsonb check (octet_length(sleep::text) <= 4096),
    drained        boolean not null default false,
    give_back      boolean not null default false,
    quarantine_reason text check (char_length(quarantine_reason) between 1 and 1000),
    quarantine_until timestamptz,
    probed_at      timestamptz,
    forgiven_at    timestamptz,
    probe          jsonb check (octet_length(probe::text) <= 65536),
    hello_at       timestamptz,
    last_seen_at   timestamptz not null,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    constraint a_node_is_quarantined_for_a_time check (quarantine_until is null or status = 'quarantined'),
    constraint a_draining_node_is_drained check (drained or status <> 'draining'),
    constraint a_last_credential_ends check ((last_credential_hash is null) = (last_credential_until is null))
);
comment on table render.nodes is 'A machine that renders. tenant_id null: shared by all tenants.';
comment on column render.nodes.epoch is 'Raised at each enrolment: an older process of the same name has no credential any more.';
comment on column render.nodes.credential_hash is 'secret:sha256';
comment on column render.nodes.next_credential_hash is 'secret:sha256. Rotation: both are good until this one is used, then the other only for what is under way.';
comment on column render.nodes.last_credential_hash is 'secret:sha256. The one before, good until last_credential_until: requests that were under way still arrive.';
comment on column render.nodes.drained is 'An operator wants it to get no work, whatever else becomes of it: a quarantine ends, this stays until it is resumed.';
comment on column render.nodes.rotate_asked_at is 'An operator wants it to have another credential; it is told at its next word.';
comment on column render.nodes.labels is 'What whoever made its token says of it; wins over what it offers itself.';
comment on column render.nodes.offers is 'What it offers by its own word: renderer, versions, fonts, plug-ins; see contracts/node/labels.rs.';
comment on column render.nodes.is_full is 'Its disk is fuller than its owner lets it be: it asks for no work.';
comment on column render.nodes.sleep is 'When it gets no work: {days, from, to, tz, at_once}; see models/render/node/sleep.rs.';
comment on column render.nodes.give_back is 'What it has is to be given back at once; else it finishes what it has.';
comment on column render.nodes.quarantine_until is 'Not to be probed before.';
comment on column render.nodes.forgiven_at is 'Failures before this do not count: it has passed a probe, or an operator has said so.';
comment on column render.nodes.probe is 'What the last probe found.';
create function render.refuse_older_epoch() returns trigger language plpgsql as $$
begin
    raise exception 'the epoch of node % only rises', old.name using errcode = 'restrict_violation';
end $$;
create trigger nodes_epoch before update on render.nodes
    for each row when (new.epoch < old.epoch) execute function render.refuse_older_epoch();

create table render.node_tokens (
    id          uuid primary key default gen_random_uuid(),
    token_hash  bytea not null unique check (octet_length(token_hash) = 32),
    expires_at  timestamptz not null,
    revoked_at  timestamptz,
    used_at     timestamptz,
    used_by     uuid references render.nodes (id),
    pool        text not null default 'default' check (pool ~ '^[A-Za-z0-9._-]{1,64}$'),
    labels      jsonb not null default '{}' check (jsonb_typeof(labels) = 'object' and octet_length(labels::text) <= 8192),
    probe_first boolean not null default false,
    created_by  text check (char_length(created_by) <= 100),
    created_at  timestamptz not null default now(),
    check ((used_at is null) = (used_by is null))
);
create index node_tokens_node on render.node_tokens (used_by) where used_by is not null;
comment on table render.node_tokens is 'One-time enrolment tokens.';
comment on column render.node_tokens.probe_first is 'A node that is new by it begins in quarantine: its first work is the probe.';
comment on column render.node_tokens.token_hash is 'secret:sha256';
create trigger node_tokens_used before update on render.node_tokens
    for each row when (old.used_at is not null and (old.used_at, old.used_by) is distinct from (new.used_at, new.used_by))
    execute function platform.refuse_to_go_on();

create table render.node_health_logs (
    recorded_at   timestamptz not null,
    id            uuid not null default gen_random_uuid(),
    node_id       uuid not null,
    epoch         bigint not null check (epoch > 0),
    cpu_percent   real check (cpu_percent >= 0),
    ram_mb        bigint check (ram_mb >= 0),
    disk_free_mb  bigint check (disk_free_mb >= 0),
    gpu_percent   real check (gpu_percent >= 0),
    temperature_c real,
    running_tasks int not null default 0 check (running_tasks >= 0),
    ae_alive      boolean,
    agent_rtt_ms  int check (agent_rtt_ms >= 0),
    primary key (recorded_at, id)
) partition by range (recorded_at);
create index node_health_logs_of on render.node_health_logs (node_id, recorded_at desc);
create index node_health_logs_at on render.node_health_logs using brin (recorded_at);
comment on table render.node_health_logs is 'How nodes fared. A log outlives what it names, so it references softly.';
comment on column render.node_health_logs.node_id is 'softref:render.nodes(id)';
create trigger node_health_logs_append_only before update or delete on render.node_health_logs
    for each row execute function platform.refuse_change();
insert into platform.time_series values ('render.node_health_logs', 3) on conflict do nothing;
select platform.ensure_month('render.node_health_logs', '2026-01-01 00:00:00+00');

create table render.node_template_cache (
    node_id        uuid not null references render.nodes (id) on delete cascade,
    package_sha256 text not null check (package_sha256 ~ '^[0-9a-f]{64}$'),
    bytes          bigint not null check (bytes >= 0),
    state          text not null default 'fetching' check (state in ('fetching', 'ready', 'evicting')),
    pinned_by_task bigint,
    keep           boolean not null default false,
    last_used_at   timestamptz not null default now(),
    hits           bigint not null default 0 check (hits >= 0),
    primary key (node_id, package_sha256),
    constraint what_is_pinned_is_not_evicted check (pinned_by_task is null or state <> 'evicting')
);
create index node_template_cache_warm on render.node_template_cache (package_sha256) where state = 'ready';
create index node_template_cache_oldest on render.node_template_cache (node_id, last_used_at) where pinned_by_task is null;
comment on table render.node_template_cache is 'Which packages a node holds, as it reported; the oldest that nobody uses goes first.';
comment on column render.node_template_cache.keep is 'An operator wants it to stay.';
comment on column render.node_template_cache.pinned_by_task is 'softref:workflow.tasks(id), whose rows leave when they are done';

create table render.node_crashes (
    id                 uuid primary key default gen_random_uuid(),
    node_id            uuid not null references render.nodes (id),
    tenant_id          uuid,
    epoch              bigint not null check (epoch > 0),
    task_no            bigint,
    lease_token        uuid unique,
    code               text not null default 'render.crashed' check (char_length(code) between 1 and 128),
    package_sha256     text check (package_sha256 ~ '^[0-9a-f]{64}$'),
    counts             boolean not null default true,
    render_job_id      uuid,
    template_version_id uuid,
    frame              int check (frame >= 0),
    kind               text not null check (kind in ('exit_code', 'signal', 'hang', 'oom', 'disk', 'licence', 'dialog', 'output')),
    exit_code          int,
    signature          text not null check (signature ~ '^[0-9a-f]{64}$'),
    log_tail           text not null default '' check (octet_length(log_tail) <= 16384),
    occurred_at        timestamptz not null,
    recovered_at       timestamptz,
    recovery           text check (recovery in ('requeued', 'chunk_split', 'quarantined', 'gave_up')),
    overcome_at        timestamptz,
    constraint a_recovery_says_how check ((recovered_at is null) = (recovery is null))
);
create index node_crashes_signature on render.node_crashes (signature, occurred_at desc);
create index node_crashes_node on render.node_crashes (node_id, occurred_at desc);
comment on table render.node_crashes is 'Crashes of renderers. The signature is the hash of what the driver says looks the same: code, end, and words without numbers and paths.';
comment on column render.node_crashes.template_version_id is 'softref:content.project_versions(id)';
comment on column render.node_crashes.lease_token is 'One crash an attempt: a report that is repeated adds nothing.';
comment on column render.node_crashes.counts is 'Whether it speaks against the node; disk, licences in use and the like do not.';
comment on column render.node_crashes.overcome_at is 'When the node next did well with the package: the crash keeps it from no more of it.';
create index node_crashes_counted on render.node_crashes (node_id, package_sha256, occurred_at desc) where counts;

create table render.node_blocks (
    node_id        uuid not null references render.nodes (id) on delete cascade,
    package_sha256 text not null check (package_sha256 ~ '^[0-9a-f]{64}$'),
    code           text not null check (char_length(code) between 1 and 128),
    blocked_at     timestamptz not null,
    blocked_until  timestamptz not null,
    primary key (node_id, package_sha256),
    check (blocked_until > blocked_at)
);
create index node_blocks_end on render.node_blocks (blocked_until);
comment on table render.node_blocks is 'Templates that a node gets no work of for a time, or until it succeeds with them, after they failed on it. A package is a version of a template.';
