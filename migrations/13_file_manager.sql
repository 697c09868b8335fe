-- Files and the content behind them; folders, quotas, uploads, and what is removed when.

-- Whether a file or folder may be called so, anywhere: as `FileName` of the program says it, but for the names of devices.
create function file_mgr.is_fine_name(p_name text) returns boolean language sql immutable parallel safe
    return octet_length(p_name) between 1 and 255 and p_name is nfc normalized and p_name = btrim(p_name) and right(p_name, 1) <> '.'
       and p_name !~ '[/\\:*?"<>|\x01-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]';

-- A name as names are compared: neither case nor what cannot be seen makes two. ICU, because `lower` of some locales knows ASCII only.
create function file_mgr.name_key(p_name text) returns text language sql immutable parallel safe
    return lower(upper(translate(p_name, U&'\200c\200d\fe0e\fe0f', '') collate "und-x-icu") collate "und-x-icu") collate "default";

create table file_mgr.folders (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null,
    owner_id     uuid,
    parent_id    uuid,
    name         text not null check (file_mgr.is_fine_name(name)),
    name_key     text not null generated always as (file_mgr.name_key(name)) stored,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    trashed_at   timestamptz,
    trashed_with uuid,
    purge_after  timestamptz,
    rev          int not null default 0,
    unique (tenant_id, id),
    foreign key (tenant_id, parent_id) references file_mgr.folders (tenant_id, id),
    constraint a_folder_in_the_trash_says_with_what check ((trashed_with is null) = (trashed_at is null))
);
create unique index folders_name on file_mgr.folders (tenant_id, owner_id, parent_id, name_key) nulls not distinct where trashed_at is null;
create index folders_parent on file_mgr.folders (parent_id) where parent_id is not null;
create index folders_trash on file_mgr.folders (tenant_id, trashed_with) where trashed_at is not null;
comment on table file_mgr.folders is 'A tree for people; owner_id null: of the whole tenant.';
comment on column file_mgr.folders.owner_id is 'softref:identity.users(id)';
comment on column file_mgr.folders.trashed_with is 'What was put into the trash, and this with it: itself or a folder above it.';

-- One change of a tenant's tree at a time, until the end of the transaction: two that each look well could make a loop together.
create function file_mgr.hold_tree(p_tenant uuid) returns void language sql volatile as $$
    select pg_advisory_xact_lock(hashtextextended('folders of ' || p_tenant, 0))
$$;

-- Keeps a tree of folders: none is within itself or deeper than 20 levels, none that is there hangs below one in the trash, and
-- none is called as a file beside it.
create function file_mgr.keep_tree() returns trigger language plpgsql as $$
declare
    v_above uuid := new.parent_id;
    v_depth int := 1;
    v_height int := 0;
begin
    perform file_mgr.hold_tree(new.tenant_id);
    while v_above is not null and v_depth <= 20 loop
        if v_above = new.id then
            raise exception 'folder %: within itself', new.id using errcode = 'check_violation', constraint = 'no_folder_is_within_itself';
        end if;
        v_depth := v_depth + 1;
        select parent_id into v_above from file_mgr.folders where id = v_above;
    end loop;
    with recursive below (id, height) as (
        select id, 1 from file_mgr.folders where parent_id = new.id
        union all select f.id, b.height + 1 from file_mgr.folders f join below b on f.parent_id = b.id where b.height < 20
    ) select coalesce(max(height), 0) into v_height from below;
    if v_depth + v_height > 20 then
        raise exception 'folder %: more than 20 levels', new.id using errcode = 'check_violation', constraint = 'folders_have_20_levels';
    end if;
    if new.trashed_at is null and new.parent_id is not null then
        if exists (select from file_mgr.folders where id = new.parent_id and trashed_at is not null) then
            raise exception 'folder %: below one in the trash', new.id using errcode = 'check_violation', constraint = 'what_is_there_is_in_no_trash';
        end if;
        if exists (select from file_mgr.files where folder_id = new.parent_id and name_key = file_mgr.name_key(new.name)
                   and state not in ('trashed', 'purged', 'rejected')) then
            raise exception 'folder %: called as a file', new.id using errcode = 'unique_violation', constraint = 'folders_name';
        end if;
    end if;
    return new;
end $$;
create trigger folders_tree before insert or update of parent_id, name on file_mgr.folders
    for each row execute function file_mgr.keep_tree();

create table file_mgr.blobs (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint not null check (size_bytes > 0),
    refcount    int not null default 0 check (refcount >= 0),
    encrypted_with text check (char_length(encrypted_with) between 1 and 100),
    wanted_until timestamptz,
    doomed_at   timestamptz,
    removed_at  timestamptz,
    created_at  timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, sha256),
    constraint what_is_used_is_there check (refcount = 0 or doomed_at is null and removed_at is null)
);
create index blobs_unused on file_mgr.blobs (created_at) where refcount = 0;
comment on table file_mgr.blobs is 'Content, once a tenant; stored under its SHA-256, never under a name that somebody chose.';
comment on column file_mgr.blobs.refcount is 'How many files use it; kept by a trigger of files.';
comment on column file_mgr.blobs.wanted_until is 'Until when it is not removed although nobody uses it: somebody has stored it and will record it.';
comment on column file_mgr.blobs.doomed_at is 'Since when its object is being removed: until that is done nobody may use it, and whoever wants to tries again.';
comment on column file_mgr.blobs.removed_at is 'Since when its object is gone; null again once the same content is stored again.';

create table file_mgr.files (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    owner_id      uuid,
    folder_id     uuid,
    blob_id       uuid not null,
    name          text not null check (file_mgr.is_fine_name(name)),
    name_key      text not null generated always as (file_mgr.name_key(name)) stored,
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
    trashed_with  uuid,
    purge_after   timestamptz,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    rev           int not null default 0,
    unique (tenant_id, id),
    foreign key (tenant_id, blob_id) references file_mgr.blobs (tenant_id, id),
    foreign key (tenant_id, folder_id) references file_mgr.folders (tenant_id, id),
    constraint a_trashed_file_says_when check ((state = 'trashed') <= (trashed_at is not null)),
    -- Pixels in an encoding of ours and nothing else: what somebody uploaded runs nowhere in our name.
    constraint what_is_public_is_a_picture check (visibility = 'private'
        or purpose in ('asset', 'avatar') and kind = 'image' and mime_detected in ('image/png', 'image/jpeg', 'image/webp'))
);
create index files_blob on file_mgr.files (blob_id);
create index files_public on file_mgr.files (blob_id) where visibility = 'public' and state = 'ready';
create index files_folder on file_mgr.files (folder_id) where folder_id is not null;
create unique index files_name on file_mgr.files (folder_id, name_key)
    where folder_id is not null and state not in ('trashed', 'purged', 'rejected');
create index files_list on file_mgr.files (tenant_id, id) where state <> 'purged';
create index files_trash on file_mgr.files (tenant_id, trashed_with) where state = 'trashed';
create index files_purged on file_mgr.files (updated_at) where state = 'purged' and purpose not in ('export', 'contact_sheet');
create index files_to_purge on file_mgr.files (purge_after) where purge_after is not null and state <> 'purged';
comment on table file_mgr.files is 'A named use of a blob.';
comment on column file_mgr.files.owner_id is 'softref:identity.users(id)';
comment on column file_mgr.files.folder_id is 'Null: in no folder. There names may repeat: uploads and films land there.';
comment on column file_mgr.files.visibility is 'Public: everybody sees the content at an address of its own, while the file is ready.';
comment on column file_mgr.files.trashed_with is 'What was put into the trash, and this with it: itself or a folder above it; null: itself.';

-- A file that is there lies in a folder that is there, and is called otherwise than the folders beside it.
create function file_mgr.keep_in_folder() returns trigger language plpgsql as $$
begin
    perform file_mgr.hold_tree(new.tenant_id);
    if exists (select from file_mgr.folders where id = new.folder_id and trashed_at is not null) then
        raise exception 'file %: in a folder in the trash', new.id using errcode = 'check_violation', constraint = 'what_is_there_is_in_no_trash';
    end if;
    if exists (select from file_mgr.folders where parent_id = new.folder_id and name_key = file_mgr.name_key(new.name) and trashed_at is null) then
        raise exception 'file %: called as a folder', new.id using errcode = 'unique_violation', constraint = 'files_name';
    end if;
    return new;
end $$;
create trigger files_in_folder before insert or update of folder_id, name, state on file_mgr.files
    for each row when (new.folder_id is not null and new.state not in ('trashed', 'purged', 'rejected'))
    execute function file_mgr.keep_in_folder();
create trigger files_ended before update on file_mgr.files
    for each row when (old.state = 'purged' and new.state <> old.state or old.state = 'rejected' and new.state not in ('rejected', 'purged'))
    execute function platform.refuse_to_go_on();

create table file_mgr.quotas (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    owner_id       uuid,
    soft_bytes     bigint check (soft_bytes >= 0),
    limit_bytes    bigint check (limit_bytes >= 0),
    used_bytes     bigint not null default 0 check (used_bytes >= 0),
    reserved_bytes bigint not null default 0 check (reserved_bytes >= 0),
    excess_bytes   bigint not null default 0 check (excess_bytes >= 0),
    limit_files    bigint check (limit_files >= 0),
    used_files     bigint not null default 0 check (used_files >= 0),
    excess_files   bigint not null default 0 check (excess_files >= 0),
    updated_at     timestamptz not null default now(),
    unique (tenant_id, id),
    constraint one_quota_an_owner unique nulls not distinct (tenant_id, owner_id),
    constraint the_soft_limit_comes_first check (soft_bytes <= limit_bytes),
    constraint no_more_bytes_than_allowed check (used_bytes + reserved_bytes <= limit_bytes + excess_bytes),
    constraint no_more_files_than_allowed check (used_files <= limit_files + excess_files)
);
comment on table file_mgr.quotas is 'What may be kept and is, of a tenant (owner_id null; content counts once) and of each person in it (each file counts); no limit where none was agreed.';
comment on column file_mgr.quotas.owner_id is 'softref:identity.users(id)';
comment on column file_mgr.quotas.excess_bytes is 'What is there above the limit because the limit came later, or because it was made and not uploaded: films are refused when they are ordered.';

-- What is above the limit only ever becomes less, unless the limit is changed or the change says that it may be more.
create function file_mgr.trim_excess() returns trigger language plpgsql as $$
begin
    if new.limit_bytes is distinct from old.limit_bytes then
        new.excess_bytes := new.used_bytes + new.reserved_bytes;
    end if;
    if new.limit_files is distinct from old.limit_files then
        new.excess_files := new.used_files;
    end if;
    -- Without a limit nothing is above it.
    new.excess_bytes := greatest(0, least(new.excess_bytes, coalesce(new.used_bytes + new.reserved_bytes - new.limit_bytes, 0)));
    new.excess_files := greatest(0, least(new.excess_files, coalesce(new.used_files - new.limit_files, 0)));
    return new;
end $$;
create trigger quotas_excess before update on file_mgr.quotas for each row execute function file_mgr.trim_excess();

create table file_mgr.quota_reservations (
    id           uuid primary key default gen_random_uuid(),
    tenant_id    uuid not null,
    owner_id     uuid,
    amount_bytes bigint not null check (amount_bytes > 0),
    purpose      text not null check (char_length(purpose) between 1 and 200),
    state        text not null default 'held' check (state in ('held', 'used', 'released')),
    expires_at   timestamptz not null,
    created_at   timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, purpose)
);
create index quota_reservations_open on file_mgr.quota_reservations (expires_at) where state = 'held';
create index quota_reservations_ended on file_mgr.quota_reservations (expires_at) where state <> 'held';
comment on table file_mgr.quota_reservations is 'Room set aside of a tenant''s quota and of its owner''s; purpose, such as upload:<id>, reserves once.';
comment on column file_mgr.quota_reservations.owner_id is 'softref:identity.users(id)';
comment on column file_mgr.quota_reservations.amount_bytes is 'Bytes, not money.';
create trigger quota_reservations_ended before update on file_mgr.quota_reservations
    for each row when (old.state <> 'held' and new.state <> old.state) execute function platform.refuse_to_go_on();

-- Whoever changes what a tenant keeps takes turns: its quota is locked before anything else that others share, so that nobody
-- waits for somebody who waits for them. Makes the quotas that are not there yet.
create function file_mgr.take_turn(p_tenant uuid, p_owner uuid) returns void language plpgsql as $$
begin
    perform from file_mgr.quotas where tenant_id = p_tenant and owner_id is null for no key update;
    if not found then
        insert into file_mgr.quotas (tenant_id) values (p_tenant) on conflict do nothing;
        perform from file_mgr.quotas where tenant_id = p_tenant and owner_id is null for no key update;
    end if;
    if p_owner is not null and not exists (select from file_mgr.quotas where tenant_id = p_tenant and owner_id = p_owner) then
        insert into file_mgr.quotas (tenant_id, owner_id) values (p_tenant, p_owner) on conflict do nothing;
    end if;
end $$;

-- Whether so many bytes more fit into both quotas as this statement sees them, and one file more beside those that are on their way.
create function file_mgr.has_room(p_tenant uuid, p_owner uuid, p_bytes bigint) returns boolean language sql stable
    return not exists (select from file_mgr.quotas q where q.tenant_id = p_tenant and (q.owner_id is null or q.owner_id = p_owner)
                       and (q.used_bytes + q.reserved_bytes + p_bytes > q.limit_bytes
                            or q.limit_files is not null and q.limit_files <= q.used_files + (
                                select count(*) from file_mgr.quota_reservations r
                                where r.tenant_id = p_tenant and (q.owner_id is null or r.owner_id = q.owner_id) and r.state = 'held'
                                  and (starts_with(r.purpose, 'upload:') or starts_with(r.purpose, 'file:')))));

-- Sets room aside in both quotas, or in none and gives null. For the same purpose again it gives what was set aside.
create function file_mgr.reserve(p_tenant uuid, p_owner uuid, p_bytes bigint, p_purpose text, p_until timestamptz) returns uuid
language plpgsql as $$
declare
    v_id uuid;
begin
    -- Who finds no room need not wait for those who have some.
    if not file_mgr.has_room(p_tenant, p_owner, p_bytes) then
        return null;
    end if;
    perform file_mgr.take_turn(p_tenant, p_owner);
    insert into file_mgr.quota_reservations (tenant_id, owner_id, amount_bytes, purpose, expires_at)
    select p_tenant, p_owner, p_bytes, p_purpose, p_until where file_mgr.has_room(p_tenant, p_owner, p_bytes)
    returning id into v_id;
    return v_id;
end $$;

-- The room of a reservation is taken while it is held.
create function file_mgr.count_reservation() returns trigger language plpgsql as $$
declare
    v_by bigint := 0;
begin
    if tg_op <> 'INSERT' and old.state = 'held' then
        v_by := v_by - old.amount_bytes;
    end if;
    if tg_op <> 'DELETE' and new.state = 'held' then
        v_by := v_by + new.amount_bytes;
    end if;
    if v_by <> 0 then
        perform file_mgr.take_turn(coalesce(new.tenant_id, old.tenant_id), coalesce(new.owner_id, old.owner_id));
        update file_mgr.quotas set reserved_bytes = reserved_bytes + v_by, updated_at = now()
        where tenant_id = coalesce(new.tenant_id, old.tenant_id) and (owner_id is null or owner_id = coalesce(new.owner_id, old.owner_id));
    end if;
    return null;
end $$;
create trigger quota_reservations_count after insert or delete or update of state on file_mgr.quota_reservations
    for each row execute function file_mgr.count_reservation();

-- Counts a file in or out, with its content. What was uploaded, or is made while somebody waits, is refused beyond the limit; what was ordered
-- and made is not.
create function file_mgr.count_file(p_file file_mgr.files, p_by int) returns void language plpgsql as $$
declare
    v_bytes bigint;
    v_uses int;
    v_made boolean := p_file.purpose in ('export', 'contact_sheet', 'snapshot', 'invoice');
begin
    update file_mgr.blobs set refcount = refcount + p_by where id = p_file.blob_id returning size_bytes, refcount into v_bytes, v_uses;
    -- The first use of content takes its room from the tenant, and the last gives it back.
    update file_mgr.quotas q
    set used_bytes = used_bytes + c.bytes, used_files = used_files + p_by, updated_at = now(),
        excess_bytes = excess_bytes + case when v_made then greatest(0, c.bytes) else 0 end,
        excess_files = excess_files + case when v_made then greatest(0, p_by) else 0 end
    from (values (true, case when v_uses = greatest(0, p_by) then p_by * v_bytes else 0 end), (false, p_by * v_bytes)) c (whole, bytes)
    where q.tenant_id = p_file.tenant_id and c.whole = (q.owner_id is null) and (q.owner_id is null or q.owner_id = p_file.owner_id);
end $$;

-- A purged file uses nothing any more: when its row goes nothing changes.
create function file_mgr.count_use() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and old.state = 'purged' then
        return null;
    end if;
    perform file_mgr.take_turn(coalesce(new.tenant_id, old.tenant_id), coalesce(new.owner_id, old.owner_id));
    if tg_op <> 'INSERT' and old.state <> 'purged' then
        perform file_mgr.count_file(old, -1);
    end if;
    if tg_op <> 'DELETE' and new.state <> 'purged' then
        perform file_mgr.count_file(new, 1);
    end if;
    return null;
end $$;
create trigger files_count_use after insert or delete on file_mgr.files
    for each row execute function file_mgr.count_use();
create trigger files_count_use_again after update of blob_id, owner_id, state on file_mgr.files
    for each row when (old.blob_id <> new.blob_id or old.owner_id is distinct from new.owner_id or (old.state = 'purged') <> (new.state = 'purged'))
    execute function file_mgr.count_use();

-- Content is recorded before the file that uses it.
create function file_mgr.take_turn_for_blob() returns trigger language plpgsql as $$
begin
    perform file_mgr.take_turn(new.tenant_id, null);
    return new;
end $$;
create trigger blobs_turn before insert on file_mgr.blobs for each row execute function file_mgr.take_turn_for_blob();

create table file_mgr.upload_sessions (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    owner_id        uuid,
    folder_id       uuid,
    file_id         uuid,
    protocol        text not null check (protocol in ('tus', 'multipart')),
    name            text not null check (char_length(name) between 1 and 255 and name !~ '[/\x01-\x1f]'),
    purpose         text not null default 'asset' check (purpose in ('asset', 'voiceover', 'music', 'package', 'avatar', 'font')),
    total_bytes     bigint not null check (total_bytes > 0),
    offset_bytes    bigint not null default 0,
    part_bytes      bigint check (part_bytes between 5242880 and 5368709120),
    part_count      int check (part_count between 1 and 10000),
    storage_upload  text check (char_length(storage_upload) between 1 and 1024),
    sha256_expected text check (sha256_expected ~ '^[0-9a-f]{64}$'),
    state           text not null default 'open' check (state in ('open', 'completing', 'completed', 'refused', 'aborted', 'expired')),
    refusal_code    text check (char_length(refusal_code) <= 128),
    refusal         text check (char_length(refusal) <= 1000),
    expires_at      timestamptz not null,
    cleared_at      timestamptz,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (tenant_id, id),
    foreign key (tenant_id, folder_id) references file_mgr.folders (tenant_id, id),
    foreign key (tenant_id, file_id) references file_mgr.files (tenant_id, id),
    constraint no_more_than_announced check (offset_bytes between 0 and total_bytes),
    constraint the_parts_make_the_whole check (part_count = (total_bytes + part_bytes - 1) / part_bytes),
    constraint parts_of_others_are_announced check ((protocol = 'multipart') = (part_bytes is not null and part_count is not null)),
    constraint a_completed_upload_is_a_file check ((state = 'completed') = (file_id is not null)),
    constraint a_refused_upload_says_why check ((state = 'refused') = (refusal_code is not null))
);
create index upload_sessions_due on file_mgr.upload_sessions (expires_at) where state in ('open', 'completing');
create index upload_sessions_open on file_mgr.upload_sessions (tenant_id) where state in ('open', 'completing');
create index upload_sessions_to_clear on file_mgr.upload_sessions (updated_at) where cleared_at is null and state not in ('open', 'completing');
create index upload_sessions_cleared on file_mgr.upload_sessions (cleared_at) where cleared_at is not null;
create index upload_sessions_file on file_mgr.upload_sessions (file_id) where file_id is not null;
create index upload_sessions_folder on file_mgr.upload_sessions (folder_id) where folder_id is not null;
comment on table file_mgr.upload_sessions is 'Uploads that come in pieces: by tus, or as parts that go to the storage itself. Their room is the reservation upload:<id>.';
comment on column file_mgr.upload_sessions.owner_id is 'softref:identity.users(id)';
comment on column file_mgr.upload_sessions.offset_bytes is 'Bytes that are kept, from the beginning on.';
comment on column file_mgr.upload_sessions.cleared_at is 'When its pieces were removed, after its end.';
create trigger upload_sessions_ended before update on file_mgr.upload_sessions
    for each row when (old.state in ('completed', 'refused', 'aborted', 'expired') and new.state <> old.state) execute function platform.refuse_to_go_on();

create table file_mgr.upload_parts (
    tenant_id   uuid not null,
    session_id  uuid not null,
    part_no     int not null check (part_no between 1 and 10000),
    size_bytes  bigint not null check (size_bytes > 0),
    sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    uploaded_at timestamptz not null default now(),
    primary key (session_id, part_no),
    foreign key (tenant_id, session_id) references file_mgr.upload_sessions (tenant_id, id) on delete cascade
);
comment on table file_mgr.upload_parts is 'Pieces of uploads by tus that have arrived, in order; all but the last are of the same length.';

-- What nobody may remove, whatever its retention says: everything of a tenant, what one of its people owns, or a file.
create table file_mgr.holds (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    owner_id    uuid,
    file_id     uuid,
    reason      text not null check (char_length(reason) between 1 and 1000),
    placed_by   text not null check (char_length(placed_by) between 1 and 100),
    created_at  timestamptz not null default now(),
    released_by text check (char_length(released_by) between 1 and 100),
    released_at timestamptz,
    unique (tenant_id, id),
    foreign key (tenant_id, file_id) references file_mgr.files (tenant_id, id),
    constraint a_hold_is_of_one_thing check (owner_id is null or file_id is null),
    constraint a_released_hold_says_by_whom check ((released_at is null) = (released_by is null))
);
create index holds_live on file_mgr.holds (tenant_id) where released_at is null;
create index holds_file on file_mgr.holds (file_id) where file_id is not null;
comment on table file_mgr.holds is 'Legal holds: while one is not released, what it covers is not removed. Neither owner nor file: all of the tenant.';
comment on column file_mgr.holds.owner_id is 'softref:identity.users(id)';
create trigger holds_ended before update on file_mgr.holds
    for each row when (old.released_at is not null and new.released_at is distinct from old.released_at) execute function platform.refuse_to_go_on();

create table file_mgr.cleanup_schedules (
    id                 uuid primary key default gen_random_uuid(),
    tenant_id          uuid not null,
    name               text not null check (char_length(name) between 1 and 100),
    target             text not null check (target in ('trash', 'exports', 'previews', 'uploads', 'temp')),
    older_than         interval not null check (older_than >= interval '1 hour'),
    filter             jsonb not null default '{}' check (jsonb_typeof(filter) = 'object' and octet_length(filter::text) <= 8192),
    cron               text not null check (char_length(cron) between 9 and 100),
    timezone           text not null default 'UTC' check (char_length(timezone) between 1 and 64),
    enabled            boolean not null default true,
    dry_run            boolean not null default true,
    max_delete_per_run int not null default 10000 check (max_delete_per_run between 1 and 1000000),
    changed_by         text not null check (char_length(changed_by) between 1 and 100),
    workflow_schedule_id uuid not null unique,
    last_run_id        uuid,
    created_at         timestamptz not null default now(),
    updated_at         timestamptz not null default now(),
    rev                int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, name)
);
comment on table file_mgr.cleanup_schedules is 'What a tenant wants removed, and when: a schedule of the engine fires it. Objects without rows and old logs are looked after for all tenants alike.';
comment on column file_mgr.cleanup_schedules.changed_by is 'Who said so last: somebody else approves what is beyond the guard.';
comment on column file_mgr.cleanup_schedules.workflow_schedule_id is 'opaque: the schedule of the engine that fires it';

create table file_mgr.cleanup_runs (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    schedule_id     uuid not null,
    fire_time       timestamptz not null,
    cutoff          timestamptz not null,
    dry_run         boolean not null,
    started_by      text check (char_length(started_by) between 1 and 100),
    state           text not null default 'running' check (state in ('running', 'awaiting_approval', 'done', 'cancelled', 'failed')),
    guard           text check (char_length(guard) between 1 and 500),
    decided_by      text check (char_length(decided_by) between 1 and 100),
    planned_count   bigint not null default 0 check (planned_count >= 0),
    planned_bytes   bigint not null default 0 check (planned_bytes >= 0),
    deleted_count   bigint not null default 0 check (deleted_count >= 0),
    deleted_bytes   bigint not null default 0 check (deleted_bytes >= 0),
    skipped_count   bigint not null default 0 check (skipped_count >= 0),
    workflow_run_id uuid unique,
    created_at      timestamptz not null default now(),
    finished_at     timestamptz,
    unique (tenant_id, id),
    unique (schedule_id, fire_time),
    foreign key (tenant_id, schedule_id) references file_mgr.cleanup_schedules (tenant_id, id) on delete cascade,
    constraint an_ended_run_says_when check ((state in ('done', 'cancelled', 'failed')) = (finished_at is not null)),
    constraint what_waits_says_why check (state <> 'awaiting_approval' or guard is not null),
    constraint no_more_than_planned check (deleted_count + skipped_count <= planned_count)
);
comment on table file_mgr.cleanup_runs is 'What was removed: one run a schedule and time.';
comment on column file_mgr.cleanup_runs.started_by is 'Who asked for it; null: the clock did.';
comment on column file_mgr.cleanup_runs.guard is 'Why somebody else has to approve it first; null: nobody has to.';
comment on column file_mgr.cleanup_runs.decided_by is 'Who approved or rejected it.';
comment on column file_mgr.cleanup_runs.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';
create trigger cleanup_runs_ended before update on file_mgr.cleanup_runs
    for each row when (old.finished_at is not null and new.state <> old.state) execute function platform.refuse_to_go_on();
alter table file_mgr.cleanup_schedules add constraint cleanup_schedules_last_run
    foreign key (tenant_id, last_run_id) references file_mgr.cleanup_runs (tenant_id, id) on delete set null (last_run_id);
create index cleanup_schedules_run on file_mgr.cleanup_schedules (last_run_id) where last_run_id is not null;

create table file_mgr.cleanup_items (
    tenant_id  uuid not null,
    run_id     uuid not null,
    seq        int not null check (seq > 0),
    file_id    uuid not null,
    size_bytes bigint not null check (size_bytes >= 0),
    state      text not null default 'planned' check (state in ('planned', 'deleted', 'skipped')),
    why        text check (char_length(why) <= 200),
    primary key (run_id, seq),
    unique (run_id, file_id),
    foreign key (tenant_id, run_id) references file_mgr.cleanup_runs (tenant_id, id) on delete cascade,
    foreign key (tenant_id, file_id) references file_mgr.files (tenant_id, id),
    constraint what_is_skipped_says_why check ((state = 'skipped') = (why is not null))
);
create index cleanup_items_open on file_mgr.cleanup_items (run_id, seq) where state = 'planned';
create index cleanup_items_file on file_mgr.cleanup_items (file_id);
comment on table file_mgr.cleanup_items is 'What a run was planned to remove, frozen, and what became of each.';

create table file_mgr.deletion_queue (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    not_before  timestamptz not null,
    attempts    int not null default 0 check (attempts >= 0),
    last_error  text check (char_length(last_error) <= 1000),
    created_at  timestamptz not null default now(),
    done_at     timestamptz
);
create unique index deletion_queue_open on file_mgr.deletion_queue (tenant_id, sha256) where done_at is null;
create index deletion_queue_due on file_mgr.deletion_queue (not_before) where done_at is null;
create index deletion_queue_done on file_mgr.deletion_queue (done_at) where done_at is not null;
comment on table file_mgr.deletion_queue is 'Objects to delete, once the last file that used them is gone and committed.';

-- Content that no file uses any more is queued, in the transaction of the last file; content that is used again leaves the queue.
create function file_mgr.queue_unused() returns trigger language plpgsql as $$
begin
    if new.refcount = 0 then
        insert into file_mgr.deletion_queue (tenant_id, sha256, not_before)
        values (new.tenant_id, new.sha256, workflow.now() + interval '1 hour') on conflict do nothing;
    else
        delete from file_mgr.deletion_queue where tenant_id = new.tenant_id and sha256 = new.sha256 and done_at is null;
    end if;
    return null;
end $$;
create trigger blobs_queue_unused after update of refcount on file_mgr.blobs
    for each row when ((old.refcount = 0) <> (new.refcount = 0)) execute function file_mgr.queue_unused();

-- 40001: the caller may try again, and finds the content gone or free.
create function file_mgr.refuse_doomed() returns trigger language plpgsql as $$
begin
    raise exception 'content % is being removed', old.sha256 using errcode = 'serialization_failure';
end $$;
create trigger blobs_doomed before update of refcount on file_mgr.blobs
    for each row when (old.doomed_at is not null and new.refcount > 0) execute function file_mgr.refuse_doomed();

-- What is recorded is claimed no longer: from here on its files keep it.
create function file_mgr.end_claim() returns trigger language plpgsql as $$
begin
    new.wanted_until := null;
    return new;
end $$;
create trigger blobs_recorded before update of refcount on file_mgr.blobs
    for each row when (new.refcount > old.refcount and old.wanted_until is not null) execute function file_mgr.end_claim();

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
create index share_links_file on file_mgr.share_links (file_id, id);
create index share_links_ended on file_mgr.share_links ((least(expires_at, revoked_at)));
comment on table file_mgr.share_links is 'Links to a file for somebody without an account.';
comment on column file_mgr.share_links.token_hash is 'secret:sha256';

call platform.keep_tenants_apart('file_mgr');
