-- Tenants and their API keys. Every other row of the platform carries a tenant's id.

create table identity.tenants (
    id          uuid primary key default gen_random_uuid(),
    slug        text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    name        text not null check (char_length(name) between 1 and 200),
    status      text not null default 'active' check (status in ('active', 'suspended', 'closed')),
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
create unique index tenants_slug on identity.tenants (lower(slug));
comment on table identity.tenants is 'A reseller or customer organisation: the root of all ownership.';

-- The default tenant can be neither deleted nor given another key.
create function identity.protect_default_tenant() returns trigger language plpgsql as $$
begin
    if old.id = '00000000-0000-0000-0000-000000000001' and (tg_op = 'DELETE' or new.id <> old.id) then
        raise exception 'the default tenant cannot be deleted or re-keyed' using errcode = 'restrict_violation';
    end if;
    return case when tg_op = 'DELETE' then old else new end;
end $$;
create trigger tenants_protect_default before update or delete on identity.tenants
    for each row execute function identity.protect_default_tenant();

insert into identity.tenants (id, slug, name)
values ('00000000-0000-0000-0000-000000000001', 'default', 'Default')
on conflict do nothing;

create table identity.tenant_api_keys (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null references identity.tenants (id),
    name         text not null check (char_length(name) between 1 and 200),
    prefix       text not null unique check (char_length(prefix) between 8 and 24),
    key_hash     bytea not null unique check (octet_length(key_hash) = 32),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    created_at   timestamptz not null default now(),
    unique (tenant_id, id)
);
create index tenant_api_keys_live on identity.tenant_api_keys (tenant_id) where revoked_at is null;
comment on table identity.tenant_api_keys is 'API keys: only the SHA-256 and a public prefix are kept.';
comment on column identity.tenant_api_keys.key_hash is 'secret:sha256';
comment on column identity.tenant_api_keys.last_used_at is 'Coarse: written at most once a minute.';
