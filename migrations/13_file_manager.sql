-- Files and the content behind them; folders, quotas, uploads, and what is removed when.

create table file_mgr.folders (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    owner_id   uuid,
    parent_id  uuid,
    name       text not null check (char_length(name) between 1 and 255 and name !~ '[/\\\x01-\x1f]' and name not in ('.', '..')
                   and name is nfc normalized and name = btrim(name)),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    trashed_at timestamptz,
    rev        int not null default 0,
    unique (tenant_id, id),
    foreign key (tenant_id, parent_id) references file_mgr.folders (tenant_id, id)
);
create unique index folders_name on file_mgr.folders (tenant_id, owner_id, parent_id, lower(name)) nulls not distinct where trashed_at is null;
create index folders_parent on file_mgr.folders (parent_id) where parent_id is not null;
comment on table file_mgr.folders is 'A tree for people; owner_id null: of the whole tenant.';
comment on column file_mgr.folders.owner_id is 'softref:identity.users(id)';
create trigger folders_tree before insert or update of parent_id on file_mgr.folders
    for each row when (new.parent_id is not null) execute function platform.refuse_cycle();

create table file_mgr.blobs (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint not null check (size_bytes > 0),
    refcount    int not null default 0 check (refcount >= 0),
    encrypted_with text check (char_length(encrypted_with) between 1 and 100),
    created_at  timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, sha256)
);
create index blobs_unused on file_mgr.blobs (created_at) where refcount = 0;
comment on table file_mgr.blobs is 'Content, once a tenant; stored under its SHA-256, never under a name that somebody chose.';
comment on column file_mgr.blobs.refcount is 'How many files use it; kept by a trigger of files.';

create table file_mgr.files (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    owner_id      uuid,
    folder_id     uuid,
    blob_id       uuid not null,
    name          text not null check (char_length(name) between 1 and 255 and name !~ '[/\x01-\x1f]'),
    purpose       text not null check (purpose in ('asset', 'export', 'contact_sheet', 'voiceover', 'music', 'package', 'snapshot', 'avatar', 'invoice', 'archive', 'font', 'preview')),
    kind          text not null check (kind in ('image', 'audio', 'video', 'document', 'archive', 'font', 'data')),
    mime_declared text check (char_length(mime_declared) <= 127),
    mime_detected text not null check (char_length(mime_detected) <= 127),
    width         int check (width > 0),
    height        int check (height > 0),
    duration_ms   bigint check (duration_ms >= 0),
    state         text not null default 'ready' check (state in ('uploading', 'scanning', 'ready', 'rejected', 'trashed', 'purged')),
    visibility    text not null default 'private' check (visibility in ('private', 'public')),
    retention     text not null default 'keep' check (retention in ('keep', 'plan', 'preview', 'temp')),
    trashed_at    timestamptz,
    purge_after   timestamptz,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    rev           int not null default 0,
    unique (tenant_id, id),
    foreign key (tenant_id, blob_id) references file_mgr.blobs (tenant_id, id),
    foreign key (tenant_id, folder_id) references file_mgr.folders (tenant_id, id),
    constraint a_trashed_file_says_when check ((state = 'trashed') <= (trashed_at is not null))
);
create index files_blob on file_mgr.files (blob_id);
create index files_folder on file_mgr.files (folder_id) where folder_id is not null;
create index files_to_purge on file_mgr.files (purge_after) where purge_after is not null and state <> 'purged';
comment on table file_mgr.files is 'A named use of a blob.';
comment on column file_mgr.files.owner_id is 'softref:identity.users(id)';
create trigger files_ended before update on file_mgr.files
    for each row when (old.state = 'purged' and new.state <> old.state or old.state = 'rejected' and new.state not in ('rejected', 'purged'))
    execute function platform.refuse_to_go_on();

-- A purged file uses nothing any more.
create function file_mgr.count_use() returns trigger language plpgsql as $$
begin
    if tg_op <> 'INSERT' and old.state <> 'purged' then
        update file_mgr.blobs set refcount = refcount - 1 where id = old.blob_id;
    end if;
    if tg_op <> 'DELETE' and new.state <> 'purged' then
        update file_mgr.blobs set refcount = refcount + 1 where id = new.blob_id;
    end if;
    return null;
end $$;
create trigger files_count_use after insert or delete on file_mgr.files
    for each row execute function file_mgr.count_use();
create trigger files_count_use_again after update of blob_id, state on file_mgr.files
    for each row when (old.blob_id <> new.blob_id or (old.state = 'purged') <> (new.state = 'purged')) execute function file_mgr.count_use();

create table file_mgr.quotas (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    owner_id       uuid,
    limit_bytes    bigint not null check (limit_bytes >= 0),
    used_bytes     bigint not null default 0 check (used_bytes >= 0),
    reserved_bytes bigint not null default 0 check (reserved_bytes >= 0),
    limit_files    bigint not null check (limit_files >= 0),
    used_files     bigint not null default 0 check (used_files >= 0),
    updated_at     timestamptz not null default now(),
    unique (tenant_id, id),
    constraint one_quota_an_owner unique nulls not distinct (tenant_id, owner_id),
    constraint no_more_bytes_than_allowed check (used_bytes + reserved_bytes <= limit_bytes),
    constraint no_more_files_than_allowed check (used_files <= limit_files)
);
comment on table file_mgr.quotas is 'What may be kept, by a tenant (owner_id null) or a user; a single update reserves, or is refused.';
comment on column file_mgr.quotas.owner_id is 'softref:identity.users(id)';

create table file_mgr.quota_reservations (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null,
    quota_id     uuid not null,
    amount_bytes bigint not null check (amount_bytes > 0),
    purpose      text not null check (char_length(purpose) between 1 and 200),
    state        text not null default 'held' check (state in ('held', 'used', 'released')),
    expires_at   timestamptz not null,
    created_at   timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, purpose),
    foreign key (tenant_id, quota_id) references file_mgr.quotas (tenant_id, id)
);
create index quota_reservations_open on file_mgr.quota_reservations (expires_at) where state = 'held';
create index quota_reservations_quota on file_mgr.quota_reservations (quota_id);
comment on table file_mgr.quota_reservations is 'Room set aside; purpose, such as upload:<id>, reserves once.';
comment on column file_mgr.quota_reservations.amount_bytes is 'Bytes, not money.';
create trigger quota_reservations_ended before update on file_mgr.quota_reservations
    for each row when (old.state <> 'held' and new.state <> old.state) execute function platform.refuse_to_go_on();

create table file_mgr.upload_sessions (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    owner_id        uuid,
    file_id         uuid,
    reservation_id  uuid,
    name            text not null check (char_length(name) between 1 and 255 and name !~ '[/\x01-\x1f]'),
    total_bytes     bigint not null check (total_bytes > 0),
    part_bytes      bigint not null check (part_bytes between 5242880 and 5368709120),
    part_count      int not null check (part_count between 1 and 10000),
    storage_upload  text check (char_length(storage_upload) between 1 and 1024),
    sha256_expected text check (sha256_expected ~ '^[0-9a-f]{64}$'),
    state           text not null default 'open' check (state in ('open', 'completing', 'completed', 'aborted', 'expired')),
    expires_at      timestamptz not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (tenant_id, id),
    foreign key (tenant_id, file_id) references file_mgr.files (tenant_id, id),
    foreign key (tenant_id, reservation_id) references file_mgr.quota_reservations (tenant_id, id),
    constraint the_parts_make_the_whole check (part_count = (total_bytes + part_bytes - 1) / part_bytes),
    constraint a_completed_upload_is_a_file check ((state = 'completed') = (file_id is not null))
);
create index upload_sessions_due on file_mgr.upload_sessions (expires_at) where state in ('open', 'completing');
create index upload_sessions_file on file_mgr.upload_sessions (file_id) where file_id is not null;
create index upload_sessions_reservation on file_mgr.upload_sessions (reservation_id) where reservation_id is not null;
comment on table file_mgr.upload_sessions is 'Uploads in parts.';
comment on column file_mgr.upload_sessions.owner_id is 'softref:identity.users(id)';
create trigger upload_sessions_ended before update on file_mgr.upload_sessions
    for each row when (old.state in ('completed', 'aborted', 'expired') and new.state <> old.state) execute function platform.refuse_to_go_on();

create table file_mgr.upload_parts (
    tenant_id   uuid not null,
    session_id  uuid not null,
    part_no     int not null check (part_no between 1 and 10000),
    size_bytes  bigint not null check (size_bytes > 0),
    sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    etag        text check (char_length(etag) <= 255),
    uploaded_at timestamptz not null default now(),
    primary key (session_id, part_no),
    foreign key (tenant_id, session_id) references file_mgr.upload_sessions (tenant_id, id) on delete cascade
);
comment on table file_mgr.upload_parts is 'Parts that have arrived.';

create table file_mgr.cleanup_schedules (
    id                 uuid primary key default gen_random_uuid(),
    tenant_id          uuid not null,
    name               text not null check (char_length(name) between 1 and 100),
    target             text not null check (target in ('trash', 'exports', 'previews', 'uploads', 'temp', 'orphans', 'logs')),
    older_than         interval not null check (older_than >= interval '1 hour'),
    filter             jsonb not null default '{}' check (jsonb_typeof(filter) = 'object' and octet_length(filter::text) <= 8192),
    cron               text not null check (char_length(cron) between 9 and 100),
    timezone           text not null default 'UTC' check (char_length(timezone) between 1 and 64),
    enabled            boolean not null default true,
    dry_run            boolean not null default true,
    max_delete_per_run int not null default 10000 check (max_delete_per_run between 1 and 1000000),
    last_run_id        uuid,
    created_at         timestamptz not null default now(),
    updated_at         timestamptz not null default now(),
    rev                int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, name)
);
comment on table file_mgr.cleanup_schedules is 'What a tenant wants removed, and when.';

create table file_mgr.cleanup_runs (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    schedule_id     uuid not null,
    fire_time       timestamptz not null,
    state           text not null default 'running' check (state in ('running', 'awaiting_approval', 'done', 'cancelled', 'failed')),
    planned_count   bigint not null default 0 check (planned_count >= 0),
    deleted_count   bigint not null default 0 check (deleted_count >= 0),
    deleted_bytes   bigint not null default 0 check (deleted_bytes >= 0),
    workflow_run_id uuid unique,
    created_at      timestamptz not null default now(),
    finished_at     timestamptz,
    unique (tenant_id, id),
    unique (schedule_id, fire_time),
    foreign key (tenant_id, schedule_id) references file_mgr.cleanup_schedules (tenant_id, id) on delete cascade,
    constraint an_ended_run_says_when check ((state in ('done', 'cancelled', 'failed')) = (finished_at is not null))
);
comment on table file_mgr.cleanup_runs is 'What was removed: one run a schedule and nominal time.';
comment on column file_mgr.cleanup_runs.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
create trigger cleanup_runs_ended before update on file_mgr.cleanup_runs
    for each row when (old.finished_at is not null and new.state <> old.state) execute function platform.refuse_to_go_on();
alter table file_mgr.cleanup_schedules add constraint cleanup_schedules_last_run
    foreign key (tenant_id, last_run_id) references file_mgr.cleanup_runs (tenant_id, id) on delete set null (last_run_id);
create index cleanup_schedules_run on file_mgr.cleanup_schedules (last_run_id) where last_run_id is not null;

create table file_mgr.deletion_queue (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    storage_key text not null check (char_length(storage_key) between 1 and 1024),
    not_before  timestamptz not null,
    attempts    int not null default 0 check (attempts >= 0),
    last_error  text check (char_length(last_error) <= 1000),
    created_at  timestamptz not null default now(),
    done_at     timestamptz
);
create unique index deletion_queue_open on file_mgr.deletion_queue (tenant_id, storage_key) where done_at is null;
create index deletion_queue_due on file_mgr.deletion_queue (not_before) where done_at is null;
comment on table file_mgr.deletion_queue is 'Objects to delete, once the row that named them is gone and committed.';

create table file_mgr.share_links (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    file_id       uuid not null,
    token_hash    bytea not null unique check (octet_length(token_hash) = 32),
    expires_at    timestamptz not null,
    max_downloads int check (max_downloads > 0),
    used          int not null default 0,
    revoked_at    timestamptz,
    created_at    timestamptz not null default now(),
    foreign key (tenant_id, file_id) references file_mgr.files (tenant_id, id) on delete cascade,
    constraint no_more_downloads_than_allowed check (used >= 0 and used <= coalesce(max_downloads, used))
);
create index share_links_file on file_mgr.share_links (file_id);
comment on table file_mgr.share_links is 'Links to a file for somebody without an account.';
comment on column file_mgr.share_links.token_hash is 'secret:sha256';

call platform.keep_tenants_apart('file_mgr');
