-- Render nodes: machines with a renderer, known by name, fenced by epoch.

create table render.nodes (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid,
    name           text not null unique check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    status         text not null default 'online' check (status in ('online', 'draining', 'quarantined', 'retired')),
    epoch          bigint not null default 1 check (epoch > 0),
    incarnation    uuid,
    capabilities   jsonb not null check (octet_length(capabilities::text) <= 65536),
    credential_hash bytea not null unique check (octet_length(credential_hash) = 32),
    last_seen_at   timestamptz not null,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now()
);
comment on table render.nodes is 'A machine that renders. tenant_id null: shared by all tenants.';
comment on column render.nodes.epoch is 'Raised at each enrolment: an older process of the same name has no credential any more.';
comment on column render.nodes.credential_hash is 'secret:sha256';

create table render.node_tokens (
    id          uuid primary key default gen_random_uuid(),
    token_hash  bytea not null unique check (octet_length(token_hash) = 32),
    expires_at  timestamptz not null,
    used_at     timestamptz,
    used_by     uuid references render.nodes (id),
    created_at  timestamptz not null default now(),
    check ((used_at is null) = (used_by is null))
);
comment on table render.node_tokens is 'One-time enrolment tokens.';
comment on column render.node_tokens.token_hash is 'secret:sha256';
