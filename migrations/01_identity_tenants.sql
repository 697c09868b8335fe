-- Tenants, their brand, keys, webhooks, limits and use. Every other row of the platform carries a tenant's id.

create table identity.tenants (
    id               uuid primary key default gen_random_uuid(),
    parent_tenant_id uuid references identity.tenants (id),
    slug             text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    name             text not null check (char_length(name) between 1 and 200),
    kind             text not null default 'reseller' check (kind in ('platform', 'reseller')),
    status           text not null default 'active' check (status in ('active', 'suspended', 'closed')),
    country          char(2) check (country ~ '^[A-Z]{2}$'),
    locale           text not null default 'en' check (locale ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$' and char_length(locale) <= 35),
    timezone         text not null default 'UTC' check (char_length(timezone) between 1 and 64),
    default_currency char(3) not null default 'USD' check (default_currency ~ '^[A-Z]{3}$'),
    owner_user_id    uuid,
    settings         jsonb not null default '{}' check (jsonb_typeof(settings) = 'object' and octet_length(settings::text) <= 16384),
    suspended_reason text check (char_length(suspended_reason) <= 1000),
    closed_at        timestamptz,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    rev              int not null default 0,
    constraint a_tenant_is_not_its_own_parent check (parent_tenant_id <> id),
    constraint a_closed_tenant_says_when check ((status = 'closed') = (closed_at is not null)),
    constraint only_a_suspended_tenant_has_a_reason check (suspended_reason is null or status <> 'active')
);
create unique index tenants_slug on identity.tenants (lower(slug));
create index tenants_parent on identity.tenants (parent_tenant_id) where parent_tenant_id is not null;
comment on table identity.tenants is 'A reseller or customer organisation: the root of all ownership.';
alter table identity.tenants enable row level security, force row level security;
create policy of_one_tenant on identity.tenants using (id = platform.tenant() or platform.is_wide());

-- The default tenant can be neither deleted nor given another key.
create function identity.protect_default_tenant() returns trigger language plpgsql as $$
begin
    raise exception 'the default tenant cannot be closed, deleted or re-keyed' using errcode = 'restrict_violation';
end $$;
create trigger tenants_protect_default before delete on identity.tenants
    for each row when (old.id = '00000000-0000-0000-0000-000000000001')
    execute function identity.protect_default_tenant();
create trigger tenants_protect_default_key before update on identity.tenants
    for each row when (old.id = '00000000-0000-0000-0000-000000000001' and (new.id <> old.id or new.status = 'closed'))
    execute function identity.protect_default_tenant();
create trigger tenants_protect_default_truncate before truncate on identity.tenants
    for each statement execute function identity.protect_default_tenant();
create trigger tenants_closed before update on identity.tenants
    for each row when (old.status = 'closed' and new.status <> 'closed') execute function platform.refuse_to_go_on();

select set_config('app.platform', 'on', true);
insert into identity.tenants (id, slug, name, kind)
values ('00000000-0000-0000-0000-000000000001', 'default', 'Default', 'platform')
on conflict do nothing;
select set_config('app.platform', '', true);

create table identity.tenant_branding (
    tenant_id         uuid primary key references identity.tenants (id),
    product_name      text not null check (char_length(product_name) between 1 and 100),
    logo_file_id      uuid,
    favicon_file_id   uuid,
    watermark_file_id uuid,
    primary_color     text check (primary_color ~ '^#[0-9a-f]{6}$'),
    accent_color      text check (accent_color ~ '^#[0-9a-f]{6}$'),
    font              text check (char_length(font) between 1 and 100),
    mail_from_name    text check (char_length(mail_from_name) between 1 and 100 and mail_from_name !~ '[\x01-\x1f<>"]'),
    mail_from_address text check (mail_from_address ~ '^[^@\s<>]+@[^@\s<>]+$' and char_length(mail_from_address) <= 254),
    mail_verified_at  timestamptz,
    support_url       text check (support_url ~ '^https://' and char_length(support_url) <= 2048),
    support_email     text check (support_email ~ '^[^@\s<>]+@[^@\s<>]+$' and char_length(support_email) <= 254),
    legal_footer      text check (char_length(legal_footer) <= 4000),
    css_vars          jsonb not null default '{}' check (jsonb_typeof(css_vars) = 'object' and octet_length(css_vars::text) <= 8192),
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    rev               int not null default 0,
    constraint only_an_address_is_verified check (mail_verified_at is null or mail_from_address is not null)
);
comment on table identity.tenant_branding is 'How a tenant''s pages, mails and films look.';
comment on column identity.tenant_branding.logo_file_id is 'softref:file_mgr.files(id)';
comment on column identity.tenant_branding.favicon_file_id is 'softref:file_mgr.files(id)';
comment on column identity.tenant_branding.watermark_file_id is 'softref:file_mgr.files(id)';

create table identity.tenant_domains (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null references identity.tenants (id),
    hostname    text not null check (hostname ~ '^[a-z0-9-]+(\.[a-z0-9-]+)+$' and char_length(hostname) <= 253),
    state       text not null default 'pending' check (state in ('pending', 'verified', 'failed')),
    dns_token   text not null check (char_length(dns_token) between 20 and 100),
    verified_at timestamptz,
    checked_at  timestamptz,
    misses      int not null default 0 check (misses between 0 and 3),
    last_error  text check (char_length(last_error) <= 500),
    tls_state   text not null default 'none' check (tls_state in ('none', 'issuing', 'ready', 'failed')),
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    unique (tenant_id, hostname),
    constraint a_verified_domain_says_when check ((state = 'verified') = (verified_at is not null))
);
create unique index tenant_domains_proven on identity.tenant_domains (hostname) where state = 'verified';
comment on table identity.tenant_domains is 'Host names of a tenant. One counts once it is proven, and then for one tenant only.';
comment on column identity.tenant_domains.misses is 'How often in a row its record was not there: after the third time it counts no more.';

-- Whether a host name is proven to be another tenant's: who comes there with what is this one's is not let in.
create function identity.is_elsewhere(p_tenant uuid, p_host text) returns boolean language sql stable
    return exists (select from identity.tenant_domains d where d.hostname = p_host and d.state = 'verified' and d.tenant_id <> p_tenant);

create table identity.tenant_api_keys (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null references identity.tenants (id),
    name          text not null check (char_length(name) between 1 and 200),
    mode          text not null default 'live' check (mode in ('live', 'test')),
    prefix        text not null unique check (char_length(prefix) between 8 and 24),
    last4         text not null check (char_length(last4) = 4),
    key_hash      bytea not null unique check (octet_length(key_hash) = 32),
    scopes        text[] not null default '{render,files,templates}' check (scopes <@ array['render', 'files', 'templates', 'studio',
                      'notifications', 'billing', 'webhooks', 'admin'] and cardinality(scopes) between 1 and 20),
    allowed_cidrs cidr[] check (cardinality(allowed_cidrs) between 1 and 100),
    created_by    uuid,
    rotated_from  uuid,
    expires_at    timestamptz,
    revoked_at    timestamptz,
    last_used_at  timestamptz,
    created_at    timestamptz not null default now(),
    unique (tenant_id, id),
    foreign key (tenant_id, rotated_from) references identity.tenant_api_keys (tenant_id, id)
);
create index tenant_api_keys_live on identity.tenant_api_keys (tenant_id) where revoked_at is null;
-- A key has one successor.
create unique index tenant_api_keys_rotated on identity.tenant_api_keys (rotated_from) where rotated_from is not null;
comment on table identity.tenant_api_keys is 'API keys: only the SHA-256, a public prefix and the last four characters are kept.';
comment on column identity.tenant_api_keys.key_hash is 'secret:sha256';
comment on column identity.tenant_api_keys.last_used_at is 'Coarse: written at most once a minute.';
create trigger tenant_api_keys_revoked before update on identity.tenant_api_keys
    for each row when (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at)
    execute function platform.refuse_to_go_on();

create table identity.tenant_webhooks (
    id                   uuid primary key default gen_random_uuid(),
    tenant_id            uuid not null references identity.tenants (id),
    url                  text not null check (url ~ '^https?://' and char_length(url) <= 2048),
    event_types          text[] not null check (cardinality(event_types) between 1 and 100),
    state                text not null default 'active' check (state in ('active', 'paused', 'disabled')),
    secret_enc           bytea not null check (octet_length(secret_enc) <= 1024),
    prev_secret_enc      bytea check (octet_length(prev_secret_enc) <= 1024),
    prev_valid_until     timestamptz,
    signing              text not null default 'v1' check (signing in ('v1', 'v1a')),
    api_version          text not null default 'v1' check (char_length(api_version) <= 32),
    max_in_flight        int not null default 4 check (max_in_flight between 1 and 64),
    consecutive_failures int not null default 0 check (consecutive_failures >= 0),
    first_failure_at     timestamptz,
    eased_until          timestamptz,
    recent_ms            int[] not null default '{}' check (cardinality(recent_ms) <= 20),
    disabled_reason      text check (char_length(disabled_reason) <= 1000),
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    rev                  int not null default 0,
    unique (tenant_id, id),
    constraint an_old_secret_ends check ((prev_secret_enc is null) = (prev_valid_until is null)),
    constraint a_disabled_webhook_says_why check ((state = 'disabled') <= (disabled_reason is not null)),
    constraint failures_began_at_some_time check ((consecutive_failures = 0) = (first_failure_at is null))
);
comment on table identity.tenant_webhooks is 'Where a tenant hears of its events, signed by Standard Webhooks.';
comment on column identity.tenant_webhooks.url is 'Without TLS in development only.';
comment on column identity.tenant_webhooks.first_failure_at is 'Since when nothing has arrived.';
comment on column identity.tenant_webhooks.eased_until is 'It said that it has too much to do: until then half as much is sent at a time.';
comment on column identity.tenant_webhooks.recent_ms is 'How long the last calls took, newest first: who is slow waits among the slow.';
comment on column identity.tenant_webhooks.disabled_reason is 'Why the platform has paused or disabled it.';
comment on column identity.tenant_webhooks.secret_enc is 'secret:aead';
comment on column identity.tenant_webhooks.prev_secret_enc is 'secret:aead';

-- At most 20 webhooks a tenant. The lock makes two that are added at the same time take turns.
create function identity.limit_webhooks() returns trigger language plpgsql as $$
begin
    perform 1 from identity.tenants where id = new.tenant_id for no key update;
    if (select count(*) from identity.tenant_webhooks where tenant_id = new.tenant_id) >= 20 then
        raise exception 'a tenant has at most 20 webhooks' using errcode = 'check_violation', constraint = 'at_most_20_webhooks';
    end if;
    return new;
end $$;
create trigger tenant_webhooks_limit before insert on identity.tenant_webhooks
    for each row execute function identity.limit_webhooks();

create table identity.tenant_identity_providers (
    id                uuid primary key default gen_random_uuid(),
    tenant_id         uuid not null references identity.tenants (id),
    name              text not null check (char_length(name) between 1 and 100),
    issuer            text not null check (issuer ~ '^https?://' and char_length(issuer) <= 500),
    client_id         text not null check (char_length(client_id) between 1 and 255),
    client_secret_enc bytea not null check (octet_length(client_secret_enc) <= 2048),
    scopes            text[] not null default '{email,profile}' check (cardinality(scopes) <= 20),
    email_domains     text[] not null default '{}' check (cardinality(email_domains) <= 20),
    default_role      text check (default_role in ('viewer', 'billing', 'editor', 'admin')),
    enabled           boolean not null default true,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    rev               int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, issuer)
);
comment on table identity.tenant_identity_providers is 'OpenID providers that people of a tenant sign in with.';
comment on column identity.tenant_identity_providers.issuer is 'As its tokens name it. Without TLS in development only.';
comment on column identity.tenant_identity_providers.client_id is 'opaque: what the provider calls us';
comment on column identity.tenant_identity_providers.client_secret_enc is 'secret:aead';
comment on column identity.tenant_identity_providers.email_domains is 'Whose people are linked or added by their address; all proven host names of the tenant when empty.';
comment on column identity.tenant_identity_providers.default_role is 'What somebody new is; nobody new comes in without it.';

create table identity.tenant_webhook_events (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null references identity.tenants (id),
    type            text not null check (type ~ '^[a-z_]+(\.[a-z_]+)+$' and char_length(type) <= 100),
    data            jsonb not null check (octet_length(data::text) <= 65536),
    occurred_at     timestamptz not null,
    source_event_id uuid not null,
    created_at      timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, source_event_id)
);
comment on table identity.tenant_webhook_events is 'What is told to webhooks; its id is the webhook-id of every delivery.';
comment on column identity.tenant_webhook_events.source_event_id is 'opaque: made of what happened, so that what is told twice is there once';
create trigger tenant_webhook_events_append_only before update on identity.tenant_webhook_events
    for each row execute function platform.refuse_change();
-- By the clock of the machine: no test moves what is kept.
create trigger tenant_webhook_events_kept before delete on identity.tenant_webhook_events
    for each row when (old.created_at > now() - interval '6 months') execute function platform.refuse_change();
create trigger tenant_webhook_events_no_truncate before truncate on identity.tenant_webhook_events
    for each statement execute function platform.refuse_change();

create table identity.tenant_webhook_deliveries (
    id               uuid not null default gen_random_uuid(),
    occurred_at      timestamptz not null,
    tenant_id        uuid not null,
    webhook_id       uuid not null,
    event_id         uuid not null,
    replay_no        int not null default 0 check (replay_no >= 0),
    state            text not null default 'pending' check (state in ('pending', 'delivered', 'failed', 'cancelled', 'missed')),
    attempt_no       int not null default 0 check (attempt_no >= 0),
    attempts         jsonb not null default '[]' check (jsonb_typeof(attempts) = 'array' and octet_length(attempts::text) <= 8192),
    next_at          timestamptz,
    last_status      int check (last_status between 100 and 599),
    last_error       varchar(1000),
    response_excerpt varchar(4096),
    latency_ms       int check (latency_ms >= 0),
    workflow_run_id  uuid,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    primary key (occurred_at, webhook_id, event_id, replay_no),
    foreign key (tenant_id, webhook_id) references identity.tenant_webhooks (tenant_id, id) on delete cascade,
    foreign key (tenant_id, event_id) references identity.tenant_webhook_events (tenant_id, id)
) partition by range (occurred_at);
create index tenant_webhook_deliveries_of on identity.tenant_webhook_deliveries (webhook_id, occurred_at desc);
create index tenant_webhook_deliveries_id on identity.tenant_webhook_deliveries (id);
create index tenant_webhook_deliveries_pending on identity.tenant_webhook_deliveries (workflow_run_id) where state = 'pending';
create index tenant_webhook_deliveries_event on identity.tenant_webhook_deliveries (event_id);
comment on table identity.tenant_webhook_deliveries is 'One delivery an event and webhook, in the month of the event, so that the key really is unique; replays count up.';
comment on column identity.tenant_webhook_deliveries.state is 'missed: the webhook was paused or disabled; it can be sent by hand.';
comment on column identity.tenant_webhook_deliveries.attempts is 'What came of each: no, at, status, error, latency_ms.';
comment on column identity.tenant_webhook_deliveries.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';

create function identity.refuse_webhook_delivery_to_go_on() returns trigger language plpgsql as $$
begin
    raise exception 'the delivery of event % has ended as %', old.event_id, old.state using errcode = 'restrict_violation';
end $$;
create trigger tenant_webhook_deliveries_ended before update on identity.tenant_webhook_deliveries
    for each row when (old.state <> 'pending' and new.state <> old.state)
    execute function identity.refuse_webhook_delivery_to_go_on();

create table identity.tenant_usage_daily (
    tenant_id        uuid not null references identity.tenants (id),
    day              date not null,
    metric           text not null check (metric in ('api_calls', 'render_seconds', 'frames', 'exports', 'storage_byte_hours', 'egress_bytes',
                         'snapshots', 'notifications_inapp', 'notifications_push', 'notifications_email', 'notifications_sms', 'notifications_telegram')),
    quantity         bigint not null check (quantity >= 0),
    source_watermark timestamptz,
    computed_at      timestamptz not null default now(),
    final            boolean not null default false,
    primary key (tenant_id, day, metric)
);
comment on table identity.tenant_usage_daily is 'What a tenant used on a day, by UTC. Written by replacing, so that counting again changes nothing.';
create function identity.refuse_final_usage() returns trigger language plpgsql as $$
begin
    raise exception 'usage of % is final', old.day using errcode = 'restrict_violation';
end $$;
create trigger tenant_usage_daily_final before update or delete on identity.tenant_usage_daily
    for each row when (old.final) execute function identity.refuse_final_usage();

create table identity.tenant_usage_corrections (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    day        date not null,
    metric     text not null check (char_length(metric) <= 64),
    delta      bigint not null check (delta <> 0),
    reason     text not null check (char_length(reason) between 1 and 500),
    made_by    text not null check (char_length(made_by) between 1 and 100),
    created_at timestamptz not null default now(),
    foreign key (tenant_id, day, metric) references identity.tenant_usage_daily (tenant_id, day, metric)
);
create index tenant_usage_corrections_of on identity.tenant_usage_corrections (tenant_id, metric, day);
comment on table identity.tenant_usage_corrections is 'What was found out about a day after it was final: rows that only grow; what a tenant used is the day and its corrections.';
create trigger tenant_usage_corrections_append_only before update or delete on identity.tenant_usage_corrections
    for each row execute function platform.refuse_change();
create trigger tenant_usage_corrections_no_truncate before truncate on identity.tenant_usage_corrections
    for each statement execute function platform.refuse_change();

create table identity.storage_samples (
    tenant_id uuid not null references identity.tenants (id),
    hour      timestamptz not null check (hour = date_trunc('hour', hour, 'UTC')),
    bytes     bigint not null check (bytes >= 0),
    primary key (tenant_id, hour)
);
create index storage_samples_hour on identity.storage_samples (hour);
comment on table identity.storage_samples is 'What a tenant kept at the begin of an hour. An hour that nobody took a sample of is like the one before it.';

create table identity.tenant_api_request_logs (
    at                   timestamptz not null,
    id                   uuid not null default gen_random_uuid(),
    tenant_id            uuid not null,
    api_key_id           uuid,
    user_id              uuid,
    method               varchar(10) not null,
    route                varchar(200) not null,
    status               smallint not null check (status between 100 and 599),
    latency_us           bigint not null check (latency_us >= 0),
    bytes_in             bigint not null check (bytes_in >= 0),
    bytes_out            bigint not null check (bytes_out >= 0),
    ip                   inet,
    request_id           varchar(64) not null,
    idempotency_key_hash bytea check (octet_length(idempotency_key_hash) = 32),
    error_type           varchar(64),
    primary key (at, id)
) partition by range (at);
create index tenant_api_request_logs_of on identity.tenant_api_request_logs (tenant_id, at desc);
create index tenant_api_request_logs_at on identity.tenant_api_request_logs using brin (at);
comment on table identity.tenant_api_request_logs is 'Requests: the route, never bodies or query strings. A log outlives what it names, so it references softly.';
comment on column identity.tenant_api_request_logs.api_key_id is 'softref:identity.tenant_api_keys(id)';
comment on column identity.tenant_api_request_logs.user_id is 'softref:identity.users(id)';
comment on column identity.tenant_api_request_logs.request_id is 'opaque: the x-request-id of the answer';
comment on column identity.tenant_api_request_logs.ip is 'pii:ip';
create trigger tenant_api_request_logs_append_only before update or delete on identity.tenant_api_request_logs
    for each row execute function platform.refuse_change();

create table identity.tenant_limits (
    tenant_id      uuid not null references identity.tenants (id),
    name           text not null check (name ~ '^[a-z_.]{1,64}$' and name <> 'storage_bytes'),
    soft           bigint check (soft >= 0),
    hard           bigint not null check (hard >= 0),
    window_seconds int check (window_seconds > 0),
    updated_at     timestamptz not null default now(),
    primary key (tenant_id, name),
    constraint the_soft_limit_comes_first check (soft <= hard)
);
comment on table identity.tenant_limits is 'What a tenant may use: rates, concurrency, seats. What it may keep is agreed on with its files: file_mgr.quotas.';

create unlogged table identity.rate_buckets (
    tenant_id  uuid not null references identity.tenants (id),
    key        text not null check (char_length(key) between 1 and 200),
    capacity   double precision not null check (capacity >= 0),
    per_second double precision not null check (per_second >= 0),
    tokens     double precision not null check (tokens >= 0),
    granted    boolean not null,
    updated_at timestamptz not null,
    primary key (tenant_id, key)
) with (fillfactor = 50);
create index rate_buckets_idle on identity.rate_buckets (updated_at);
comment on table identity.rate_buckets is 'Token buckets. Not logged: after a crash everybody starts with a full one. Those of nobody''s requests are the platform''s.';
comment on column identity.rate_buckets.granted is 'Whether the last request got its token.';

-- How many requests a tenant and each of its callers may make, and within how many seconds: as agreed, else the defaults.
create function identity.request_limits(p_tenant uuid, p_of_tenant double precision, p_of_tenant_in double precision,
                                        p_of_caller double precision, p_of_caller_in double precision)
returns table (of_tenant double precision, of_tenant_in double precision, of_caller double precision, of_caller_in double precision)
language sql stable as $$
    select coalesce(t.hard, p_of_tenant), coalesce(t.window_seconds, p_of_tenant_in), coalesce(c.hard, p_of_caller), coalesce(c.window_seconds, p_of_caller_in)
    from (select) one
    left join identity.tenant_limits t on t.tenant_id = p_tenant and t.name = 'requests'
    left join identity.tenant_limits c on c.tenant_id = p_tenant and c.name = 'caller_requests'
$$;

-- What a bucket holds at a time, before anything is taken.
create function identity.refilled(p_bucket identity.rate_buckets, p_capacity double precision, p_per_second double precision, p_at timestamptz)
returns double precision language sql immutable
    return least(p_capacity, p_bucket.tokens + p_per_second * greatest(0, extract(epoch from p_at - p_bucket.updated_at)));

-- Takes a token for the time p_at out of a bucket that is full with p_capacity and fills up within p_seconds; says
-- whether there was one and how many are left. No row, and nothing taken, unless p_asked. Requests of all servers meet
-- in the row: of any number at once no more get a token than there are. plpgsql, because its plan is kept.
create function identity.take_token(p_asked boolean, p_tenant uuid, p_key text, p_capacity double precision, p_seconds double precision, p_at timestamptz)
returns table (granted boolean, tokens double precision) language plpgsql volatile as $$
#variable_conflict use_column
begin
    return query insert into identity.rate_buckets as b
    select p_tenant, p_key, p_capacity, p_capacity / p_seconds, greatest(p_capacity - 1, 0), p_capacity >= 1, p_at where p_asked
    on conflict (tenant_id, key) do update set
        capacity = excluded.capacity, per_second = excluded.per_second, updated_at = greatest(b.updated_at, excluded.updated_at),
        granted = identity.refilled(b, excluded.capacity, excluded.per_second, excluded.updated_at) >= 1,
        tokens = identity.refilled(b, excluded.capacity, excluded.per_second, excluded.updated_at)
            - case when identity.refilled(b, excluded.capacity, excluded.per_second, excluded.updated_at) >= 1 then 1 else 0 end
    returning b.granted, b.tokens;
end $$;

create table identity.roles (
    name       text primary key check (name ~ '^[a-z_]{1,40}$'),
    rank       int not null unique,
    rights     text[] not null check (cardinality(rights) <= 100),
    platform   boolean not null
);
comment on table identity.roles is 'What people may be: within a tenant, or for the whole platform.';
insert into identity.roles (name, rank, rights, platform) values
    ('viewer', 10, '{read}', false), ('billing', 20, '{read,pay}', false), ('editor', 30, '{read,edit,render}', false),
    ('admin', 40, '{read,edit,render,manage}', false), ('owner', 50, '{read,edit,render,manage,pay,close}', false),
    ('platform_viewer', 55, '{observe}', true), ('platform_operator', 60, '{operate}', true),
    ('platform_admin', 70, '{operate,administer}', true);

create table identity.role_bindings (
    tenant_id  uuid not null,
    user_id    uuid not null,
    role       text not null references identity.roles (name),
    granted_by uuid,
    created_at timestamptz not null default now(),
    primary key (tenant_id, user_id, role)
);
create index role_bindings_role on identity.role_bindings (role);
comment on table identity.role_bindings is 'Who is what.';

create table identity.audit_log (
    at           timestamptz not null,
    id           uuid not null default gen_random_uuid(),
    tenant_id    uuid not null,
    seq          bigint not null check (seq > 0),
    actor        varchar(200) not null,
    action       varchar(100) not null,
    object       varchar(200) not null,
    reason       varchar(1000),
    before_hash  bytea check (octet_length(before_hash) = 32),
    after_hash   bytea check (octet_length(after_hash) = 32),
    ip           inet,
    request_id   varchar(64),
    chain_hash   bytea not null check (octet_length(chain_hash) = 32),
    primary key (at, id)
) partition by range (at);
create index audit_log_chain on identity.audit_log (tenant_id, seq);
comment on table identity.audit_log is 'What people did. Each row holds the hash of the one before it of its tenant: a row that is changed or missing shows.';
comment on column identity.audit_log.request_id is 'opaque: the x-request-id of the answer';
comment on column identity.audit_log.ip is 'pii:ip';
create trigger audit_log_append_only before update or delete on identity.audit_log
    for each row execute function platform.refuse_change();

create table identity.audit_heads (
    tenant_id  uuid primary key references identity.tenants (id),
    seq        bigint not null check (seq > 0),
    chain_hash bytea not null check (octet_length(chain_hash) = 32)
);
comment on table identity.audit_heads is 'The newest link of each tenant''s chain; its lock puts the rows in order.';

-- What a row of the audit log is hashed to, after the row before it.
-- An array in JSON: no value can pass for a part of its neighbour, and none depends on a setting of the session.
create function identity.audit_hash(p_previous bytea, p_row identity.audit_log) returns bytea language sql stable
    return sha256(p_previous || convert_to(jsonb_build_array(
        p_row.tenant_id, p_row.seq, extract(epoch from p_row.at), p_row.actor, p_row.action, p_row.object, p_row.reason,
        encode(p_row.before_hash, 'hex'), encode(p_row.after_hash, 'hex'), host(p_row.ip), p_row.request_id)::text, 'utf8'));

-- Gives a row its number and its hash, whatever the writer says they are. With the owner's rights: nobody else writes
-- the heads, so that no service can begin a chain anew.
create function identity.chain_audit() returns trigger language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_head identity.audit_heads;
begin
    insert into identity.audit_heads values (new.tenant_id, 1, sha256(''))
    on conflict (tenant_id) do update set seq = identity.audit_heads.seq + 1
    returning * into v_head;
    new.seq := v_head.seq;
    new.chain_hash := identity.audit_hash(v_head.chain_hash, new);
    update identity.audit_heads set chain_hash = new.chain_hash where tenant_id = new.tenant_id;
    return new;
end $$;
revoke execute on function identity.chain_audit() from public;
create trigger audit_log_chain before insert on identity.audit_log
    for each row execute function identity.chain_audit();

insert into platform.time_series values
    ('identity.tenant_api_request_logs', 13), ('identity.tenant_webhook_deliveries', 6), ('identity.audit_log', 84)
on conflict do nothing;
select platform.ensure_month(name, '2026-01-01 00:00:00+00') from platform.time_series where name like 'identity.%' order by name;
