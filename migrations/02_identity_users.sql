-- Users of a tenant and how they prove who they are. The same person in two tenants is two users.

create table identity.users (
    id                uuid primary key default gen_random_uuid(),
    tenant_id         uuid not null references identity.tenants (id),
    email             text check (email ~ '^[^@\s]+@[^@\s]+$' and char_length(email) <= 254),
    email_verified_at timestamptz,
    phone             text check (phone ~ '^\+[1-9][0-9]{6,14}$'),
    phone_verified_at timestamptz,
    display_name      text not null default '' check (char_length(display_name) <= 200),
    avatar_file_id    uuid,
    locale            text not null default 'en' check (locale ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$' and char_length(locale) <= 35),
    timezone          text not null default 'UTC' check (char_length(timezone) between 1 and 64),
    status            text not null default 'invited' check (status in ('invited', 'active', 'locked', 'disabled', 'deleting', 'deleted')),
    is_platform_staff boolean not null default false,
    last_login_at     timestamptz,
    deleted_at        timestamptz,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    rev               int not null default 0,
    unique (tenant_id, id),
    constraint a_user_can_be_reached check (email is not null or phone is not null or status = 'deleted'),
    constraint a_deleted_user_says_when check ((status = 'deleted') = (deleted_at is not null)),
    constraint staff_belongs_to_the_platform check (not is_platform_staff or tenant_id = '00000000-0000-0000-0000-000000000001')
);
create unique index users_email on identity.users (tenant_id, lower(email)) where deleted_at is null;
create unique index users_phone on identity.users (tenant_id, phone) where deleted_at is null;
comment on table identity.users is 'A person within one tenant.';
comment on column identity.users.email is 'pii:email';
comment on column identity.users.phone is 'pii:phone';
comment on column identity.users.display_name is 'pii:name';
comment on column identity.users.avatar_file_id is 'softref:file_mgr.files(id)';
create trigger users_deleted before update on identity.users
    for each row when (old.status = 'deleted' and new.status <> 'deleted') execute function platform.refuse_to_go_on();

alter table identity.tenants add constraint tenants_owner foreign key (id, owner_user_id) references identity.users (tenant_id, id);
create index tenants_owned on identity.tenants (owner_user_id) where owner_user_id is not null;
alter table identity.tenant_api_keys add constraint tenant_api_keys_created_by
    foreign key (tenant_id, created_by) references identity.users (tenant_id, id);
create index tenant_api_keys_creator on identity.tenant_api_keys (created_by) where created_by is not null;
alter table identity.role_bindings add constraint role_bindings_user
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade;
alter table identity.role_bindings add constraint role_bindings_granted_by
    foreign key (tenant_id, granted_by) references identity.users (tenant_id, id);
create index role_bindings_granter on identity.role_bindings (granted_by) where granted_by is not null;

create table identity.user_credentials (
    user_id       uuid primary key,
    tenant_id     uuid not null,
    password_hash text not null check (password_hash ~ '^\$argon2id\$' and char_length(password_hash) <= 512),
    changed_at    timestamptz not null default now(),
    must_change   boolean not null default false,
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade
);
comment on table identity.user_credentials is 'Passwords, apart from users so that no profile ever loads one.';
comment on column identity.user_credentials.password_hash is 'secret:argon2id, parameters included';

create table identity.user_identities (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    user_id    uuid not null,
    provider   text not null check (provider ~ '^https?://' and char_length(provider) <= 500),
    subject    text not null check (char_length(subject) between 1 and 255),
    created_at timestamptz not null default now(),
    unique (tenant_id, provider, subject),
    -- An address that was given to somebody else does not bring them the account of who had it before.
    constraint one_login_at_a_provider unique (tenant_id, user_id, provider),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade
);
comment on table identity.user_identities is 'Logins by other providers. Never linked by an e-mail address alone.';
comment on column identity.user_identities.provider is 'The issuer, as its tokens name it: stays what it is when its configuration is made anew.';
comment on column identity.user_identities.subject is 'pii:identifier';

create table identity.user_sessions (
    id                  uuid primary key default gen_random_uuid(),
    tenant_id           uuid not null,
    user_id             uuid not null,
    token_family        uuid not null unique,
    access_hash         bytea unique check (octet_length(access_hash) = 32),
    access_expires_at   timestamptz,
    ip                  inet,
    user_agent          text check (char_length(user_agent) <= 512),
    auth_level          smallint not null default 1 check (auth_level between 1 and 3),
    mfa_at              timestamptz,
    created_at          timestamptz not null default now(),
    last_seen_at        timestamptz not null default now(),
    idle_expires_at     timestamptz not null,
    absolute_expires_at timestamptz not null,
    revoked_at          timestamptz,
    revoke_reason       text check (char_length(revoke_reason) <= 200),
    unique (tenant_id, id),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade,
    constraint a_session_ends check (absolute_expires_at > created_at and idle_expires_at <= absolute_expires_at),
    constraint an_access_token_ends check ((access_hash is null) = (access_expires_at is null)),
    constraint only_a_revoked_session_says_why check (revoke_reason is null or revoked_at is not null)
);
create index user_sessions_user on identity.user_sessions (user_id, created_at desc);
comment on table identity.user_sessions is 'Logins that may go on.';
comment on column identity.user_sessions.ip is 'pii:ip';
comment on column identity.user_sessions.access_hash is 'secret:sha256';
create trigger user_sessions_revoked before update on identity.user_sessions
    for each row when (old.revoked_at is not null and new.revoked_at is distinct from old.revoked_at) execute function platform.refuse_to_go_on();

create table identity.refresh_tokens (
    token_hash  bytea primary key check (octet_length(token_hash) = 32),
    tenant_id   uuid not null,
    session_id  uuid not null,
    parent_hash bytea unique references identity.refresh_tokens (token_hash) on delete cascade,
    expires_at  timestamptz not null,
    used_at     timestamptz,
    created_at  timestamptz not null default now(),
    foreign key (tenant_id, session_id) references identity.user_sessions (tenant_id, id) on delete cascade
);
create index refresh_tokens_session on identity.refresh_tokens (session_id);
comment on table identity.refresh_tokens is 'A chain a session: each token has one child at most. One that is used twice ends the session.';
comment on column identity.refresh_tokens.token_hash is 'secret:sha256';
comment on column identity.refresh_tokens.parent_hash is 'secret:sha256';

create table identity.mfa_factors (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    user_id        uuid not null,
    kind           text not null check (kind in ('totp', 'webauthn', 'sms')),
    label          text not null check (char_length(label) between 1 and 100),
    secret_enc     bytea check (octet_length(secret_enc) <= 1024),
    webauthn_credential bytea unique check (octet_length(webauthn_credential) <= 1024),
    passkey        jsonb check (octet_length(passkey::text) <= 16384),
    sign_count     bigint not null default 0 check (sign_count >= 0),
    aaguid         uuid,
    last_totp_step bigint,
    confirmed_at   timestamptz,
    last_used_at   timestamptz,
    disabled_at    timestamptz,
    created_at     timestamptz not null default now(),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade,
    constraint a_totp_has_a_secret check ((kind = 'totp') = (secret_enc is not null)),
    constraint a_webauthn_has_a_key check ((kind = 'webauthn') = (webauthn_credential is not null and passkey is not null)),
    constraint only_a_totp_has_steps check (last_totp_step is null or kind = 'totp')
);
create index mfa_factors_user on identity.mfa_factors (user_id);
comment on table identity.mfa_factors is 'Second factors.';
comment on column identity.mfa_factors.secret_enc is 'secret:aead';
comment on column identity.mfa_factors.webauthn_credential is 'The id that the authenticator gave it: one key is one person''s.';
comment on column identity.mfa_factors.passkey is 'The credential with its public key, as webauthn-rs writes it down.';
comment on column identity.mfa_factors.last_totp_step is 'The newest step that was accepted: a code works once.';
-- A step, or a signature count, that was accepted cannot be accepted again.
create function identity.refuse_replay() returns trigger language plpgsql as $$
begin
    raise exception 'a second factor was shown twice' using errcode = 'restrict_violation';
end $$;
create trigger mfa_factors_replay before update on identity.mfa_factors
    for each row when (new.last_totp_step < old.last_totp_step or new.sign_count < old.sign_count)
    execute function identity.refuse_replay();

create table identity.mfa_recovery_codes (
    tenant_id uuid not null,
    user_id   uuid not null,
    code_hash bytea not null check (octet_length(code_hash) = 32),
    used_at   timestamptz,
    primary key (user_id, code_hash),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade
);
comment on table identity.mfa_recovery_codes is 'One-time codes for when a factor is lost.';
comment on column identity.mfa_recovery_codes.code_hash is 'secret:sha256';

create table identity.auth_challenges (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    user_id     uuid not null,
    session_id  uuid,
    kind        text not null check (kind in ('verify_email', 'reset', 'login_otp', 'phone', 'mfa', 'webauthn')),
    email       text check (char_length(email) <= 254),
    token_hash  bytea not null unique check (octet_length(token_hash) = 32),
    state       jsonb check (octet_length(state::text) <= 262144),
    attempts    int not null default 0 check (attempts between 0 and 5),
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    consumed_at timestamptz,
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade,
    foreign key (tenant_id, session_id) references identity.user_sessions (tenant_id, id) on delete cascade,
    constraint a_code_lives_ten_minutes check (kind in ('verify_email', 'reset') or expires_at <= created_at + interval '10 minutes'),
    constraint a_webauthn_is_of_a_session check (kind <> 'webauthn' or (session_id is not null and state is not null)),
    constraint only_a_factor_has_a_state check (state is null or kind in ('mfa', 'webauthn')),
    constraint a_link_lives_three_days check (expires_at <= created_at + interval '3 days')
);
create index auth_challenges_expired on identity.auth_challenges (expires_at);
create index auth_challenges_user on identity.auth_challenges (user_id, kind);
create index auth_challenges_session on identity.auth_challenges (session_id) where session_id is not null;
comment on table identity.auth_challenges is 'Codes and links that were sent; each is good once.';
comment on column identity.auth_challenges.token_hash is 'secret:sha256';
comment on column identity.auth_challenges.state is 'What was asked of an authenticator, as webauthn-rs writes it down; browsers never get it.';
comment on column identity.auth_challenges.email is 'pii:email. The address that the link proves.';
create trigger auth_challenges_consumed before update on identity.auth_challenges
    for each row when (old.consumed_at is not null) execute function platform.refuse_to_go_on();

create table identity.openid_sign_ins (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null,
    provider_id  uuid not null,
    user_id      uuid,
    token_hash   bytea not null unique check (octet_length(token_hash) = 32),
    redirect_uri text not null check (char_length(redirect_uri) <= 2048),
    created_at   timestamptz not null default now(),
    expires_at   timestamptz not null,
    consumed_at  timestamptz,
    foreign key (tenant_id, provider_id) references identity.tenant_identity_providers (tenant_id, id) on delete cascade,
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade,
    constraint a_sign_in_lives_ten_minutes check (expires_at <= created_at + interval '10 minutes')
);
create index openid_sign_ins_expired on identity.openid_sign_ins (expires_at);
create index openid_sign_ins_provider on identity.openid_sign_ins (provider_id);
create index openid_sign_ins_user on identity.openid_sign_ins (user_id) where user_id is not null;
comment on table identity.openid_sign_ins is 'People who are at a provider right now. State, nonce and verifier are made of the id by a key that only servers have.';
comment on column identity.openid_sign_ins.token_hash is 'secret:sha256. What binds it to the browser that began it.';
comment on column identity.openid_sign_ins.user_id is 'Who adds this login to their account; none when somebody signs in.';
create trigger openid_sign_ins_consumed before update on identity.openid_sign_ins
    for each row when (old.consumed_at is not null) execute function platform.refuse_to_go_on();

create table identity.auth_throttle (
    tenant_id    uuid not null references identity.tenants (id),
    key          text not null check (char_length(key) between 1 and 200),
    failures     int not null default 0 check (failures >= 0),
    window_start timestamptz not null,
    locked_until timestamptz,
    primary key (tenant_id, key)
);
comment on table identity.auth_throttle is 'Failed logins by account, by address and by both, hashed.';

create table identity.push_subscriptions (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    user_id         uuid not null,
    endpoint        text not null check (endpoint ~ '^https://' and char_length(endpoint) <= 2048),
    endpoint_hash   bytea not null generated always as (sha256(endpoint::bytea)) stored unique,
    p256dh          bytea not null check (octet_length(p256dh) = 65),
    auth_enc        bytea not null check (octet_length(auth_enc) <= 256),
    vapid_key       text not null check (char_length(vapid_key) between 1 and 100),
    user_agent      text check (char_length(user_agent) <= 512),
    state           text not null default 'active' check (state in ('active', 'gone', 'failed')),
    failure_count   int not null default 0 check (failure_count >= 0),
    expires_at      timestamptz,
    last_success_at timestamptz,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id) on delete cascade
);
create index push_subscriptions_user on identity.push_subscriptions (user_id) where state = 'active';
comment on table identity.push_subscriptions is 'Browsers that want to be told (RFC 8030); an endpoint counts once.';
comment on column identity.push_subscriptions.auth_enc is 'secret:aead';
comment on column identity.push_subscriptions.endpoint is 'pii:identifier';

create table identity.consents (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    user_id    uuid not null,
    purpose    text not null check (purpose ~ '^[a-z_]{1,64}$'),
    given      boolean not null,
    text_hash  bytea not null check (octet_length(text_hash) = 32),
    source     text not null check (char_length(source) between 1 and 200),
    created_at timestamptz not null default now(),
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id)
);
create index consents_user on identity.consents (user_id, purpose, created_at desc);
comment on table identity.consents is 'What a user agreed to, and took back; the newest row of a purpose counts.';
create trigger consents_append_only before update or delete on identity.consents
    for each row execute function platform.refuse_change();
create trigger consents_no_truncate before truncate on identity.consents
    for each statement execute function platform.refuse_change();

create table identity.privacy_requests (
    id               uuid primary key default gen_random_uuid(),
    tenant_id        uuid not null,
    user_id          uuid not null,
    kind             text not null check (kind in ('export', 'delete')),
    state            text not null default 'requested' check (state in ('requested', 'cooling_off', 'running', 'held', 'done', 'cancelled', 'failed')),
    legal_hold       boolean not null default false,
    due_at           timestamptz not null,
    workflow_run_id  uuid unique,
    result_file_id   uuid,
    created_at       timestamptz not null default now(),
    finished_at      timestamptz,
    foreign key (tenant_id, user_id) references identity.users (tenant_id, id),
    constraint the_law_gives_thirty_days check (due_at <= created_at + interval '30 days'),
    constraint an_ended_request_says_when check ((state in ('done', 'cancelled', 'failed')) = (finished_at is not null))
);
create unique index privacy_requests_live on identity.privacy_requests (user_id, kind) where finished_at is null;
create index privacy_requests_user on identity.privacy_requests (user_id);
comment on table identity.privacy_requests is 'Exports and deletions of a person''s data that were asked for.';
comment on column identity.privacy_requests.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
comment on column identity.privacy_requests.result_file_id is 'softref:file_mgr.files(id)';
create trigger privacy_requests_ended before update on identity.privacy_requests
    for each row when (old.finished_at is not null and new.state <> old.state) execute function platform.refuse_to_go_on();
