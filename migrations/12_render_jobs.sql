-- Render jobs and their frames: projections committed together with the workflow's own record.

create table render.render_jobs (
    id                  uuid primary key default gen_random_uuid(),
    tenant_id           uuid not null,
    user_id             uuid,
    saved_project_id    uuid,
    project_id          uuid not null,
    project_version_id  uuid not null,
    template            text not null check (char_length(template) between 1 and 64),
    template_version    int not null check (template_version > 0),
    kind                text not null default 'final' check (kind in ('preview', 'final')),
    priority            smallint not null default 0,
    status              text not null default 'queued' check (status in
        ('queued', 'preparing', 'rendering', 'verifying', 'repairing', 'encoding', 'uploading', 'finalizing', 'completed', 'failed', 'cancelled')),
    spec                jsonb not null check (octet_length(spec::text) <= 1048576),
    spec_sha256         text check (spec_sha256 ~ '^[0-9a-f]{64}$'),
    request_sha256      text not null check (request_sha256 ~ '^[0-9a-f]{64}$'),
    idempotency_key     text check (char_length(idempotency_key) between 1 and 255),
    width               int not null check (width between 2 and 8192),
    height              int not null check (height between 2 and 8192),
    fps                 int not null check (fps between 1 and 120),
    frame_count         int not null check (frame_count > 0),
    frames_verified     int not null default 0 check (frames_verified between 0 and frame_count),
    has_music           boolean not null,
    has_voiceover       boolean not null,
    has_sfx             boolean not null,
    music_volume        numeric(4, 3) check (music_volume between 0 and 2),
    voiceover_volume    numeric(4, 3) check (voiceover_volume between 0 and 2),
    sfx_volume          numeric(4, 3) check (sfx_volume between 0 and 2),
    output_format       text not null default 'mp4' check (output_format in ('mp4', 'mov', 'webm', 'gif', 'png')),
    progress            numeric(5, 2) not null default 0 check (progress between 0 and 100),
    eta_at              timestamptz,
    credit_hold_id      uuid,
    cost_units          bigint check (cost_units >= 0),
    attempt             int not null default 1 check (attempt > 0),
    metadata            jsonb not null default '{}' check (octet_length(metadata::text) <= 16384),
    warnings            jsonb not null default '[]' check (octet_length(warnings::text) <= 65536),
    workflow_run_id     uuid not null unique,
    error_code          text check (char_length(error_code) <= 128),
    error_detail        text check (char_length(error_detail) <= 4000),
    cancel_requested_at timestamptz,
    created_at          timestamptz not null default now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    updated_at          timestamptz not null default now(),
    tidied_at           timestamptz,
    unique (tenant_id, id),
    unique (tenant_id, idempotency_key),
    check ((finished_at is not null) = (status in ('completed', 'failed', 'cancelled'))),
    check ((error_code is not null) = (status in ('failed', 'cancelled')))
);
create index render_jobs_voices on render.render_jobs (tenant_id, created_at) where has_voiceover;
create index render_jobs_of on render.render_jobs (tenant_id, created_at);
create index render_jobs_previews on render.render_jobs (tenant_id, spec_sha256, created_at) where kind = 'preview';
create index render_jobs_under_way on render.render_jobs (tenant_id) where finished_at is null;
create index render_jobs_live on render.render_jobs (status) where finished_at is null;
create index render_jobs_untidied on render.render_jobs (finished_at) where tidied_at is null and finished_at is not null;
comment on column render.render_jobs.tidied_at is 'When its frames and parts were removed from storage.';
comment on column render.render_jobs.template is 'Slug of the template, as it was.';
comment on table render.render_jobs is 'One film: its frozen input, what became of it. Projection of workflow run workflow_run_id.';
comment on column render.render_jobs.user_id is 'softref:identity.users(id)';
comment on column render.render_jobs.saved_project_id is 'softref:studio.saved_projects(id)';
comment on column render.render_jobs.project_id is 'softref:content.projects(id)';
comment on column render.render_jobs.project_version_id is 'softref:content.project_versions(id)';
comment on column render.render_jobs.credit_hold_id is 'softref:identity.credit_holds(id)';
comment on column render.render_jobs.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end';

create table render.joined_previews (
    tenant_id       uuid not null,
    idempotency_key text not null check (char_length(idempotency_key) between 1 and 255),
    request_sha256  text not null check (request_sha256 ~ '^[0-9a-f]{64}$'),
    render_job_id   uuid not null,
    created_at      timestamptz not null default now(),
    primary key (tenant_id, idempotency_key),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id)
);
create index joined_previews_of on render.joined_previews (tenant_id, render_job_id);
create index joined_previews_old on render.joined_previews (created_at);
comment on table render.joined_previews is 'Orders with a key of the client''s that were answered with a preview that another order had made.';

-- A film that has ended stays as it ended, and what it was made from stays as it was accepted.
create function render.guard_job() returns trigger language plpgsql as $$
begin
    raise exception 'render job % is % and its input is fixed', old.id, old.status using errcode = 'restrict_violation';
end $$;
create trigger render_jobs_terminal before update on render.render_jobs for each row when (
    old.finished_at is not null and (new.status, new.finished_at, new.error_code)
        is distinct from (old.status, old.finished_at, old.error_code)
    or (new.tenant_id, new.project_version_id, new.workflow_run_id, new.request_sha256, new.frame_count)
        is distinct from (old.tenant_id, old.project_version_id, old.workflow_run_id, old.request_sha256, old.frame_count))
    execute function render.guard_job();

alter table render.node_crashes add constraint node_crashes_job foreign key (tenant_id, render_job_id)
    references render.render_jobs (tenant_id, id);
create index node_crashes_of_job on render.node_crashes (render_job_id) where render_job_id is not null;

create table render.frame_jobs (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    chunk_no       int not null check (chunk_no >= 0),
    first_frame    int not null check (first_frame >= 0),
    last_frame     int not null,
    status         text not null default 'queued' check (status in ('queued', 'leased', 'rendered', 'verified', 'failed', 'superseded')),
    node_id        uuid references render.nodes (id),
    attempts       int not null default 0 check (attempts >= 0),
    crash_count    int not null default 0 check (crash_count >= 0),
    accepted_attempt int check (accepted_attempt > 0),
    output_prefix  text check (char_length(output_prefix) between 1 and 1024),
    frames_ok      int not null default 0,
    frames_wasted  int not null default 0 check (frames_wasted >= 0),
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    unique (tenant_id, id),
    unique (render_job_id, chunk_no),
    check (last_frame >= first_frame),
    check (frames_ok between 0 and last_frame - first_frame + 1),
    check ((status = 'verified') <= (frames_ok = last_frame - first_frame + 1)),
    check (accepted_attempt <= attempts and crash_count <= attempts),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id),
    -- with render.refuse_holes: cover without overlap
    constraint no_frame_is_in_two_chunks
        exclude using gist (render_job_id with =, int4range(first_frame, last_frame, '[]') with &&) where (status <> 'superseded')
);
create index frame_jobs_node on render.frame_jobs (node_id) where node_id is not null;
comment on table render.frame_jobs is 'A chunk: the frames that are rendered together. accepted_attempt is the last that gave frames to it; null when all were kept ones.';
comment on column render.frame_jobs.frames_wasted is 'Frames of nodes that were late with them and overtaken by a second one, as far as they had come.';
comment on column render.frame_jobs.output_prefix is 'Where the accepted attempt worked: its folder on its node.';

create trigger frame_jobs_ended before update on render.frame_jobs
    for each row when (old.status in ('verified', 'superseded') and new.status <> old.status) execute function platform.refuse_to_go_on();

-- A plan is whole: no two chunks share a frame, so when their lengths sum up to the film and none goes beyond its end, each
-- frame is in one.
create function render.refuse_holes() returns trigger language plpgsql as $$
declare
    v_plan record;
begin
    for v_plan in
        select j.id, j.frame_count, sum(f.last_frame - f.first_frame + 1) as planned, max(f.last_frame) as last
        from (select distinct render_job_id from planned) p
        join render.render_jobs j on j.id = p.render_job_id
        join render.frame_jobs f on f.render_job_id = j.id and f.status <> 'superseded'
        group by j.id, j.frame_count
    loop
        if v_plan.planned <> v_plan.frame_count or v_plan.last >= v_plan.frame_count then
            raise exception 'the chunks of render % have % frames up to number %, the film has %',
                v_plan.id, v_plan.planned, v_plan.last, v_plan.frame_count
                using errcode = 'check_violation', constraint = 'the_chunks_cover_every_frame', table = 'frame_jobs', schema = 'render';
        end if;
    end loop;
    return null;
end $$;
create trigger frame_jobs_cover after insert on render.frame_jobs referencing new table as planned
    for each statement execute function render.refuse_holes();

create table render.frame_job_attempts (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    frame_job_id  uuid not null,
    attempt_no    int not null check (attempt_no > 0),
    node_id       uuid not null references render.nodes (id),
    epoch         bigint not null check (epoch > 0),
    lease_token   uuid not null unique,
    output_prefix text not null unique check (char_length(output_prefix) between 1 and 1024),
    outcome       text not null check (outcome in ('ok', 'failed', 'lost', 'fenced', 'cancelled', 'timeout')),
    error_code    text check (char_length(error_code) <= 128),
    frames        int check (frames >= 0),
    render_ms     bigint check (render_ms >= 0),
    project_version_id uuid not null,
    size_class    smallint not null check (size_class between 0 and 9),
    started_at    timestamptz not null,
    ended_at      timestamptz not null,
    unique (tenant_id, id),
    unique (frame_job_id, attempt_no),
    foreign key (tenant_id, frame_job_id) references render.frame_jobs (tenant_id, id),
    check (ended_at >= started_at),
    check ((outcome = 'ok') = (frames is not null) and (frames is null) = (render_ms is null)),
    constraint no_two_attempts_write_to_one_place check (position(lease_token::text in output_prefix) > 0)
);
create index frame_job_attempts_node on render.frame_job_attempts (node_id, ended_at desc);
create index frame_job_attempts_pace on render.frame_job_attempts (project_version_id, size_class, ended_at desc) where frames >= 10;
comment on table render.frame_job_attempts is 'Who tried a chunk, and what became of it: a row for each attempt of the engine at it.';
comment on column render.frame_job_attempts.project_version_id is 'softref:content.project_versions(id)';
comment on column render.frame_job_attempts.epoch is 'Of the node, when the attempt was noted.';
comment on column render.frame_job_attempts.output_prefix is 'Its folder on the node. Frames leave it for the shelf of the render, where they are named by content.';
comment on column render.frame_job_attempts.frames is 'Frames it gave; null unless it succeeded. With render_ms and size_class: how fast the template renders.';
create trigger frame_job_attempts_append_only before update or delete on render.frame_job_attempts
    for each row execute function platform.refuse_change();
create trigger frame_job_attempts_no_truncate before truncate on render.frame_job_attempts
    for each statement execute function platform.refuse_change();

-- Frames that nodes have stored on the shelf of a render under way, proven or not: what is left of an attempt that fails or is
-- lost is not rendered again. The newest one of a number counts.
create table render.stored_frames (
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    frame_no       int not null check (frame_no >= 0),
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    lease_token    uuid not null,
    stored_at      timestamptz not null,
    primary key (render_job_id, frame_no),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id)
);
create index stored_frames_newest on render.stored_frames (render_job_id, stored_at desc);
comment on table render.stored_frames is 'Frames on the shelf of a render under way, and by which attempt. Gone when the render has ended.';

create table render.frame_manifests (
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    frame_no       int not null check (frame_no >= 0),
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    width          int check (width > 0),
    height         int check (height > 0),
    attempt_id     uuid,
    flags          text[] check (flags <@ array['black', 'duplicate', 'transparent', 'repaired', 'reused']),
    verified_at    timestamptz not null default now(),
    primary key (render_job_id, frame_no),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id),
    foreign key (tenant_id, attempt_id) references render.frame_job_attempts (tenant_id, id)
);
create index frame_manifests_attempt on render.frame_manifests (attempt_id) where attempt_id is not null;
comment on table render.frame_manifests is 'Accepted frames: one owner each, by primary key.';
comment on column render.frame_manifests.flags is 'black, transparent, duplicate: it looks wrong and came out alike on another try. reused: of a scene that was rendered before.';
create trigger frame_manifests_append_only before update or delete on render.frame_manifests
    for each row execute function platform.refuse_change();
create trigger frame_manifests_no_truncate before truncate on render.frame_manifests
    for each statement execute function platform.refuse_change();

create table render.frame_replacements (
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    frame_no       int not null,
    no             int not null check (no > 0),
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    attempt_id     uuid,
    verified_at    timestamptz not null default now(),
    primary key (render_job_id, frame_no, no),
    foreign key (render_job_id, frame_no) references render.frame_manifests (render_job_id, frame_no),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id),
    foreign key (tenant_id, attempt_id) references render.frame_job_attempts (tenant_id, id)
);
create index frame_replacements_job on render.frame_replacements (tenant_id, render_job_id);
create index frame_replacements_attempt on render.frame_replacements (attempt_id) where attempt_id is not null;
comment on table render.frame_replacements is 'Accepted frames that were lost before they were used, and are in the film as they were rendered again: the last one of a number counts.';
create trigger frame_replacements_append_only before update or delete on render.frame_replacements
    for each row execute function platform.refuse_change();
create trigger frame_replacements_no_truncate before truncate on render.frame_replacements
    for each statement execute function platform.refuse_change();

create table render.frame_repair_jobs (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    chunk_no       int not null check (chunk_no >= 0),
    round          int not null check (round between 1 and 1000),
    frames         int4multirange not null check (not isempty(frames) and lower(frames) >= 0 and upper(frames) is not null),
    reason         text not null check (reason in ('missing', 'corrupt', 'black', 'dimension', 'duplicate')),
    status         text not null default 'running' check (status in ('queued', 'running', 'done', 'failed')),
    excluded_nodes uuid[] not null default '{}' check (cardinality(excluded_nodes) <= 100),
    created_at     timestamptz not null default now(),
    finished_at    timestamptz,
    unique (render_job_id, chunk_no, round, reason),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id),
    constraint an_ended_repair_says_when check ((status in ('done', 'failed')) = (finished_at is not null))
);
comment on table render.frame_repair_jobs is 'Frames rendered again, alone: no more than those that are missing or bad.';
comment on column render.frame_repair_jobs.excluded_nodes is 'Nodes that had them before: others are asked first.';
create trigger frame_repair_jobs_ended before update on render.frame_repair_jobs
    for each row when (old.finished_at is not null and new.status <> old.status) execute function platform.refuse_to_go_on();

create table render.snapshots (
    id                 uuid primary key default gen_random_uuid(),
    tenant_id          uuid not null,
    cache_key          bytea not null check (octet_length(cache_key) = 32),
    project_version_id uuid not null,
    scene_id           uuid not null,
    frame              int not null check (frame >= 0),
    width              int not null check (width > 0),
    height             int not null check (height > 0),
    inputs_hash        text not null check (inputs_hash ~ '^[0-9a-f]{64}$'),
    renderer_version   text not null check (char_length(renderer_version) between 1 and 100),
    file_id            uuid,
    public_url         text not null check (public_url ~ '^https?://' and char_length(public_url) <= 2048
                           or public_url ~ '^data:image/png;base64,' and octet_length(public_url) <= 16384),
    size_bytes         bigint not null check (size_bytes > 0),
    sha256             text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    small_url          text check (small_url ~ '^https?://' and char_length(small_url) <= 2048),
    source             text not null check (source in ('aerender', 'mock')),
    created_at         timestamptz not null default now(),
    last_used_at       timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, cache_key),
    constraint only_the_mock_writes_pictures_into_rows check (source = 'mock' or public_url !~ '^data:')
);
create index snapshots_scene on render.snapshots (scene_id, created_at desc);
-- Every still that everybody may see is looked for by night, hash by hash, in both sizes.
create index snapshots_stills on render.snapshots (sha256) where source = 'aerender';
create index snapshots_small_stills on render.snapshots (right(small_url, 64)) where source = 'aerender';
comment on table render.snapshots is 'Stills that were rendered; the key is the hash of all that decides how they look, so each is rendered once.';
comment on column render.snapshots.project_version_id is 'softref:content.project_versions(id)';
comment on column render.snapshots.scene_id is 'softref:content.scenes(id)';
comment on column render.snapshots.file_id is 'softref:file_mgr.files(id)';

create table render.kept_scenes (
    tenant_id      uuid not null,
    key            text not null check (key ~ '^[0-9a-f]{64}$'),
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    frame_sha256   text[] not null check (cardinality(frame_sha256) between 1 and 500 and array_position(frame_sha256, null) is null),
    frame_bytes    bigint[] not null check (cardinality(frame_bytes) = cardinality(frame_sha256)),
    render_job_id  uuid not null,
    created_at     timestamptz not null default now(),
    last_used_at   timestamptz not null default now(),
    evicted_at     timestamptz,
    primary key (tenant_id, key),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id)
);
create index kept_scenes_used on render.kept_scenes (last_used_at) where evicted_at is null;
create index kept_scenes_evicted on render.kept_scenes (evicted_at) where evicted_at is not null;
create index kept_scenes_job on render.kept_scenes (render_job_id);
comment on table render.kept_scenes is 'Encoded stretches of scenes, by the hash of all that decides how they look: what a tenant had rendered once is not rendered again.';
comment on column render.kept_scenes.sha256 is 'The encoded part, on a shelf of its own.';
comment on column render.kept_scenes.frame_sha256 is 'The frames it was made from, in order.';
comment on column render.kept_scenes.render_job_id is 'The film it was made for first.';
comment on column render.kept_scenes.evicted_at is 'When it was let go: its content is about to be removed.';

create table render.exports (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    profile        text not null check (profile in ('preview', 'final', 'master')),
    file_id        uuid not null,
    sheet_file_id  uuid,
    sheet_sha256   text not null check (sheet_sha256 ~ '^[0-9a-f]{64}$'),
    sheet_bytes    bigint not null check (sheet_bytes > 0),
    format         text not null default 'mp4' check (format in ('mp4', 'mov', 'webm', 'gif', 'png')),
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    duration_ms    bigint not null check (duration_ms > 0),
    frame_count    int not null check (frame_count > 0),
    state          text not null default 'ready' check (state in ('uploading', 'ready', 'expired', 'deleted')),
    expires_at     timestamptz,
    warned_at      timestamptz,
    download_count bigint not null default 0 check (download_count >= 0),
    created_at     timestamptz not null default now(),
    unique (tenant_id, id),
    unique (render_job_id, profile),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id)
);
create index exports_expiring on render.exports (expires_at) where state = 'ready' and expires_at is not null;
create index exports_file on render.exports (file_id);
create index exports_sheet on render.exports (sheet_file_id) where sheet_file_id is not null;
comment on table render.exports is 'A finished, verified, stored film.';
comment on column render.exports.file_id is 'softref:file_mgr.files(id)';
comment on column render.exports.sheet_file_id is 'softref:file_mgr.files(id)';
comment on column render.exports.sheet_bytes is 'Of the contact sheet as it was made; it may be removed before its film, and then has no file.';
comment on column render.exports.warned_at is 'When whoever ordered it was told that it goes soon.';
create trigger exports_ended before update on render.exports for each row when (
    old.state = 'deleted' and new.state <> old.state or old.state = 'expired' and new.state not in ('expired', 'deleted')
    or (old.sha256, old.size_bytes, old.frame_count) is distinct from (new.sha256, new.size_bytes, new.frame_count))
    execute function platform.refuse_to_go_on();

create table render.derivatives (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    export_id   uuid not null,
    kind        text not null check (kind in ('poster', 'gif', 'small', 'prores', 'webm')),
    state       text not null default 'queued' check (state in ('queued', 'ready', 'failed')),
    tries       int not null default 1 check (tries > 0),
    file_id     uuid,
    sha256      text check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes  bigint check (size_bytes > 0),
    error_code  text check (char_length(error_code) <= 128),
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    unique (tenant_id, id),
    unique (export_id, kind),
    foreign key (tenant_id, export_id) references render.exports (tenant_id, id),
    constraint a_derivative_that_is_ready_is_there check ((state = 'ready') = (file_id is not null) and (file_id is null) = (sha256 is null)
        and (file_id is null) = (size_bytes is null)),
    constraint a_failed_derivative_says_why check ((state = 'failed') = (error_code is not null))
);
create index derivatives_file on render.derivatives (file_id) where file_id is not null;
comment on table render.derivatives is 'What else was made of a finished film, each by itself: one that fails spoils nothing, and can be asked for again.';
comment on column render.derivatives.file_id is 'softref:file_mgr.files(id)';
comment on column render.derivatives.tries is 'How often it was asked for.';

call platform.keep_tenants_apart('render');
