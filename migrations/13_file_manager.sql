-- Files and the content behind them.

create table file_mgr.blobs (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint not null check (size_bytes > 0),
    created_at  timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, sha256)
);
comment on table file_mgr.blobs is 'Content, once a tenant; stored under its SHA-256.';

create table file_mgr.files (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    blob_id       uuid not null,
    name          text not null check (char_length(name) between 1 and 255 and name !~ '[/\x01-\x1f]'),
    purpose       text not null check (purpose in ('asset', 'export', 'contact_sheet')),
    kind          text not null check (kind in ('image', 'audio', 'video')),
    mime_detected text not null check (char_length(mime_detected) <= 127),
    width         int check (width > 0),
    height        int check (height > 0),
    duration_ms   bigint check (duration_ms >= 0),
    created_at    timestamptz not null default now(),
    unique (tenant_id, id),
    foreign key (tenant_id, blob_id) references file_mgr.blobs (tenant_id, id)
);
create index files_newest on file_mgr.files (tenant_id, id desc);
comment on table file_mgr.files is 'A named use of a blob.';
