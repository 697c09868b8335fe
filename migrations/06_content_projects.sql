-- Templates and their immutable versions. A render pins a version, so edits never change a queued job.

create table content.projects (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    slug        text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    kind        text not null check (kind in ('lottie', 'after_effects')),
    title       jsonb not null check (octet_length(title::text) <= 4096),
    description jsonb not null check (octet_length(description::text) <= 16384),
    state       text not null default 'published' check (state in ('draft', 'published', 'unpublished', 'archived')),
    current_version_id uuid,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, slug)
);
comment on table content.projects is 'A template as customers know it.';
comment on column content.projects.tenant_id is 'softref:identity.tenants';

create table content.project_versions (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    project_id      uuid not null,
    number          int not null check (number > 0),
    package_sha256  text not null check (package_sha256 ~ '^[0-9a-f]{64}$'),
    package_bytes   bigint not null check (package_bytes > 0),
    preview_sha256  text check (preview_sha256 ~ '^[0-9a-f]{64}$'),
    preview_bytes   bigint check (preview_bytes > 0),
    manifest        jsonb not null check (octet_length(manifest::text) <= 1048576),
    created_at      timestamptz not null default now(),
    unique (tenant_id, id),
    unique (project_id, number),
    unique (project_id, package_sha256),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id)
);
comment on table content.project_versions is 'What a render pins: package and manifest, never changed.';
comment on column content.project_versions.package_sha256 is 'softref:file_mgr.blobs.sha256';
create trigger project_versions_append_only before update or delete on content.project_versions
    for each row execute function public.refuse_change();

alter table content.projects add foreign key (tenant_id, current_version_id)
    references content.project_versions (tenant_id, id);
