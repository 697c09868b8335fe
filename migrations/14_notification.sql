-- Messages to people: what they say, who wants them how, and what became of each.

create table notification.notification_templates (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    code       text not null check (code ~ '^[a-z0-9_.]{1,64}$'),
    category   text not null check (category ~ '^[a-z_]{1,40}$'),
    class      text not null check (class in ('critical', 'service', 'marketing')),
    created_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, code)
);
comment on table notification.notification_templates is 'What people are told of.';

create table notification.template_versions (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    template_id uuid not null,
    channel     text not null check (channel in ('inapp', 'push', 'email', 'sms', 'telegram')),
    language    text not null check (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$' and char_length(language) <= 35),
    version     int not null check (version > 0),
    subject     text check (char_length(subject) <= 300 and subject !~ '[\x01-\x1f]'),
    body        text not null check (octet_length(body) between 1 and 131072),
    variables   jsonb not null default '{}' check (jsonb_typeof(variables) = 'object' and octet_length(variables::text) <= 16384),
    state       text not null default 'draft' check (state in ('draft', 'active', 'retired')),
    created_at  timestamptz not null default now(),
    unique (template_id, channel, language, version),
    foreign key (tenant_id, template_id) references notification.notification_templates (tenant_id, id) on delete cascade
);
create unique index template_versions_active on notification.template_versions (template_id, channel, language) where state = 'active';
comment on table notification.template_versions is 'How it is said, by channel and language; no logic, everything escaped.';
create trigger template_versions_retired before update on notification.template_versions
    for each row when (old.state = 'retired' and new.state <> 'retired' or old.state <> 'draft' and (new.body, new.subject) is distinct from (old.body, old.subject))
    execute function platform.refuse_to_go_on();

create table notification.notifications (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    user_id         uuid not null,
    category        text not null check (category ~ '^[a-z_]{1,40}$'),
    template_code   text not null check (template_code ~ '^[a-z0-9_.]{1,64}$'),
    title           text not null check (char_length(title) between 1 and 300),
    body            text not null default '' check (char_length(body) <= 4000),
    data            jsonb not null default '{}' check (octet_length(data::text) <= 16384),
    severity        text not null default 'info' check (severity in ('info', 'success', 'warning', 'critical')),
    dedupe_key      text not null check (char_length(dedupe_key) between 1 and 200),
    source_event_id uuid,
    read_at         timestamptz,
    archived_at     timestamptz,
    created_at      timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, user_id, dedupe_key)
);
create index notifications_newest on notification.notifications (tenant_id, user_id, created_at desc) where archived_at is null;
create index notifications_unread on notification.notifications (user_id) where read_at is null and archived_at is null;
create index notifications_over on notification.notifications (coalesce(read_at, archived_at)) where coalesce(read_at, archived_at) is not null;
comment on table notification.notifications is 'What a user was told. Not partitioned, because a gift refers to it; those read or put away half a year ago are purged.';
comment on column notification.notifications.user_id is 'softref:identity.users(id)';
comment on column notification.notifications.source_event_id is 'softref:workflow.outbox(id)';

create table notification.channel_addresses (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    user_id       uuid not null,
    channel       text not null check (channel in ('push', 'email', 'sms', 'telegram')),
    address_enc   bytea not null check (octet_length(address_enc) <= 4096),
    address_hash  bytea not null check (octet_length(address_hash) = 32),
    state         text not null default 'active' check (state in ('active', 'bounced', 'blocked', 'gone')),
    failure_count int not null default 0 check (failure_count >= 0),
    refused_at    timestamptz,
    verified_at   timestamptz,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    unique (tenant_id, id),
    unique (user_id, channel, address_hash)
);
comment on table notification.channel_addresses is 'Where a user can be reached.';
comment on column notification.channel_addresses.user_id is 'softref:identity.users(id)';
comment on column notification.channel_addresses.address_enc is 'secret:aead pii:address';
comment on column notification.channel_addresses.address_hash is 'pii:hash';
comment on column notification.channel_addresses.refused_at is 'When it was refused first since it was reached last: one refusal may be a slip, two an hour apart are none.';

create table notification.provider_accounts (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    channel    text not null check (channel in ('push', 'email', 'sms', 'telegram')),
    name       text not null check (char_length(name) between 1 and 100),
    provider   text not null check (provider ~ '^[a-z0-9_]{1,40}$'),
    config_enc bytea not null check (octet_length(config_enc) <= 16384),
    per_second real not null default 10 check (per_second > 0),
    position   int not null default 0,
    state      text not null default 'active' check (state in ('active', 'paused', 'broken')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, channel, name)
);
comment on table notification.provider_accounts is 'Who carries the messages; the default tenant''s serve who has none.';
comment on column notification.provider_accounts.config_enc is 'secret:aead';

create table notification.notification_deliveries (
    created_at        timestamptz not null,
    id                uuid not null,
    tenant_id         uuid not null,
    notification_id   uuid not null,
    channel           text not null check (channel in ('inapp', 'push', 'email', 'sms', 'telegram')),
    address_id        uuid,
    address_hash      bytea check (octet_length(address_hash) = 32),
    provider_account_id uuid,
    state             text not null default 'pending' check (state in ('pending', 'deferred', 'sending', 'sent', 'delivered', 'failed', 'suppressed', 'dropped')),
    attempt_no        int not null default 0 check (attempt_no >= 0),
    not_before        timestamptz,
    sent_at           timestamptz,
    provider_message  varchar(255),
    idempotency_key   varchar(200) not null,
    error_class       varchar(40),
    last_error        varchar(1000),
    outcome_unknown   boolean not null default false,
    workflow_run_id   uuid,
    updated_at        timestamptz not null default now(),
    primary key (created_at, id),
    foreign key (tenant_id, notification_id) references notification.notifications (tenant_id, id) on delete cascade,
    foreign key (tenant_id, address_id) references notification.channel_addresses (tenant_id, id) on delete set null (address_id),
    foreign key (tenant_id, provider_account_id) references notification.provider_accounts (tenant_id, id) on delete set null (provider_account_id),
    constraint what_was_sent_says_when check (state not in ('sent', 'delivered') or sent_at is not null)
) partition by range (created_at);
create index notification_deliveries_of on notification.notification_deliveries (notification_id);
create index notification_deliveries_message on notification.notification_deliveries (provider_message) where provider_message is not null;
create index notification_deliveries_address on notification.notification_deliveries (address_id) where address_id is not null;
create index notification_deliveries_account on notification.notification_deliveries (provider_account_id) where provider_account_id is not null;
comment on table notification.notification_deliveries is 'One delivery a notification, channel and address: created_at is the notification''s and id is made of the three, so that the key really is unique.';
comment on column notification.notification_deliveries.address_hash is 'pii:hash';
comment on column notification.notification_deliveries.sent_at is 'When somebody took it over. It stays when they say later that it did not arrive: what was sent counts as used.';
comment on column notification.notification_deliveries.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
create trigger notification_deliveries_ended before update on notification.notification_deliveries
    for each row when (old.state in ('delivered', 'failed', 'suppressed', 'dropped') and new.state <> old.state
                       or old.state = 'sent' and new.state not in ('sent', 'delivered', 'failed'))
    execute function platform.refuse_to_go_on();
insert into platform.time_series values ('notification.notification_deliveries', 6) on conflict do nothing;
select platform.ensure_month('notification.notification_deliveries', '2026-01-01 00:00:00+00');

create table notification.notification_preferences (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    user_id     uuid,
    category    text not null check (category ~ '^[a-z_]{1,40}$'),
    channel     text not null check (channel in ('inapp', 'push', 'email', 'sms', 'telegram')),
    enabled     boolean not null,
    quiet_start time,
    quiet_end   time,
    timezone    text check (char_length(timezone) between 1 and 64),
    digest      text not null default 'off' check (digest in ('off', 'hourly', 'daily')),
    updated_at  timestamptz not null default now(),
    rev         int not null default 0,
    constraint one_choice unique nulls not distinct (tenant_id, user_id, category, channel),
    constraint quiet_hours_begin_and_end check ((quiet_start is null) = (quiet_end is null) and quiet_start <> quiet_end)
);
create index notification_preferences_user on notification.notification_preferences (user_id) where user_id is not null;
comment on table notification.notification_preferences is 'Who wants what how. user_id null: what a tenant''s users have who chose nothing. Quiet hours may cross midnight.';
comment on column notification.notification_preferences.user_id is 'softref:identity.users(id)';

create table notification.suppressions (
    tenant_id    uuid not null,
    address_hash bytea not null check (octet_length(address_hash) = 32),
    channel      text not null check (channel in ('push', 'email', 'sms', 'telegram')),
    reason       text not null check (reason in ('hard_bounce', 'soft_bounces', 'complaint', 'unsubscribe', 'blocked', 'gone')),
    until        timestamptz,
    created_at   timestamptz not null default now(),
    primary key (tenant_id, address_hash, channel)
);
comment on table notification.suppressions is 'Addresses that are not written to.';
comment on column notification.suppressions.address_hash is 'pii:hash';

create table notification.sms_counts (
    tenant_id uuid not null,
    day       date not null,
    scope     text not null check (scope in ('number', 'country', 'tenant')),
    what      text not null check (char_length(what) <= 64),
    sent      int not null check (sent >= 0),
    primary key (tenant_id, day, scope, what)
);
comment on table notification.sms_counts is 'Text messages of a day, by UTC: to a number (its hash), to a country (its code), of the tenant. They cost money, so nobody may have us send them without end.';
comment on column notification.sms_counts.what is 'pii:hash';

create table notification.digest_items (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    user_id         uuid not null,
    notification_id uuid not null,
    channel         text not null check (channel in ('push', 'email', 'sms', 'telegram')),
    due_at          timestamptz not null,
    sent_at         timestamptz,
    unique (notification_id, channel),
    foreign key (tenant_id, notification_id) references notification.notifications (tenant_id, id) on delete cascade
);
create index digest_items_due on notification.digest_items (due_at, user_id) where sent_at is null;
comment on table notification.digest_items is 'What waits for the next digest.';
comment on column notification.digest_items.user_id is 'softref:identity.users(id)';

call platform.keep_tenants_apart('notification');

-- The one hard reference from schema to schema. PostgreSQL checks it as the owner of the tables: neither service needs a
-- right on the other's.
alter table identity.earned_gifts add constraint earned_gifts_notification
    foreign key (notification_id) references notification.notifications (id) on delete set null;
