-- Render jobs and their frames: projections committed together with the workflow's own record.

create extension if not exists btree_gist;

create table render.render_jobs (
    id                  uuid primary key default gen_random_uuid(),
    tenant_id           uuid not null,
    project_id          uuid not null,
    project_version_id  uuid not null,
    status              text not null default 'queued' check (status in
        ('queued', 'preparing', 'rendering', 'encoding', 'finalizing', 'completed', 'failed', 'cancelled')),
    spec                jsonb not null check (octet_length(spec::text) <= 262144),
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
create index render_jobs_newest on render.render_jobs (tenant_id, id desc);
create index render_jobs_live on render.render_jobs (status) where finished_at is null;
create index render_jobs_untidied on render.render_jobs (finished_at) where tidied_at is null and finished_at is not null;
comment on column render.render_jobs.tidied_at is 'When its frames and parts were removed from storage.';
comment on table render.render_jobs is 'One film: its frozen input, what became of it. Projection of workflow run workflow_run_id.';
comment on column render.render_jobs.project_version_id is 'softref:content.project_versions';
comment on column render.render_jobs.workflow_run_id is 'softref:workflow.runs';

-- A film that has ended stays as it ended.
create function render.guard_terminal_job() returns trigger language plpgsql as $$
begin
    if old.finished_at is not null and (new.status, new.finished_at, new.error_code)
        is distinct from (old.status, old.finished_at, old.error_code) then
        raise exception 'render job % has ended as %', old.id, old.status using errcode = 'restrict_violation';
    end if;
    return new;
end $$;
create trigger render_jobs_terminal before update on render.render_jobs
    for each row execute function render.guard_terminal_job();

create table render.frame_jobs (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    chunk_no       int not null check (chunk_no >= 0),
    first_frame    int not null check (first_frame >= 0),
    last_frame     int not null,
    status         text not null default 'queued' check (status in ('queued', 'verified', 'failed')),
    frames_ok      int not null default 0,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    unique (render_job_id, chunk_no),
    check (last_frame >= first_frame),
    check (frames_ok between 0 and last_frame - first_frame + 1),
    check ((status = 'verified') <= (frames_ok = last_frame - first_frame + 1)),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id),
    -- with the job's frame_count: cover without overlap
    exclude using gist (render_job_id with =, int4range(first_frame, last_frame, '[]') with &&)
);
comment on table render.frame_jobs is 'A chunk: the frames one attempt on a node renders.';

create table render.frame_manifests (
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    frame_no       int not null check (frame_no >= 0),
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    verified_at    timestamptz not null default now(),
    primary key (render_job_id, frame_no),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id)
);
comment on table render.frame_manifests is 'Accepted frames: one owner each, by primary key.';
create trigger frame_manifests_append_only before update or delete on render.frame_manifests
    for each row execute function public.refuse_change();

create table render.exports (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    render_job_id  uuid not null,
    profile        text not null check (profile in ('preview', 'final', 'master')),
    file_id        uuid not null,
    sheet_file_id  uuid not null,
    sha256         text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes     bigint not null check (size_bytes > 0),
    duration_ms    bigint not null check (duration_ms > 0),
    frame_count    int not null check (frame_count > 0),
    state          text not null default 'ready' check (state in ('ready', 'expired', 'deleted')),
    created_at     timestamptz not null default now(),
    unique (tenant_id, id),
    unique (render_job_id, profile),
    foreign key (tenant_id, render_job_id) references render.render_jobs (tenant_id, id)
);
comment on table render.exports is 'A finished, verified, stored film.';
comment on column render.exports.file_id is 'softref:file_mgr.files';
