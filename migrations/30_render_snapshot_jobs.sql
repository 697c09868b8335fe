-- Requests for pictures of scenes.

create table render.snapshot_jobs (
    id                 uuid primary key default gen_random_uuid(),
    tenant_id          uuid not null,
    project_id         uuid not null,
    project_version_id uuid not null,
    scene_id           uuid not null,
    scene_key          text not null check (scene_key ~ '^[a-z0-9_\-]{1,64}$'),
    status             text not null default 'queued' constraint snapshot_jobs_status check (status in ('queued', 'running', 'done', 'error')),
    image_url          text check (image_url ~ '^https?://' and char_length(image_url) <= 2048
                           or image_url ~ '^data:image/png;base64,' and octet_length(image_url) <= 16384),
    snapshot_id        uuid,
    cache_key          bytea check (octet_length(cache_key) = 32),
    attempts           int not null default 0 check (attempts >= 0),
    node_id            uuid references render.nodes (id),
    lease_token        uuid unique,
    error_code         text check (char_length(error_code) between 1 and 128),
    error_detail       text check (char_length(error_detail) <= 4000),
    requested_by       text check (char_length(requested_by) between 1 and 200),
    workflow_run_id    uuid,
    created_at         timestamptz not null default now(),
    started_at         timestamptz,
    finished_at        timestamptz,
    updated_at         timestamptz not null default now(),
    tidied_at          timestamptz,
    unique (tenant_id, id),
    foreign key (tenant_id, snapshot_id) references render.snapshots (tenant_id, id),
    constraint a_done_job_has_a_picture check ((status = 'done') = (image_url is not null)),
    constraint a_job_that_is_not_done_at_once_has_a_run check (workflow_run_id is not null or status = 'done'),
    constraint an_error_says_why check ((status = 'error') = (error_code is not null)),
    constraint an_ended_job_says_when check ((status in ('done', 'error')) = (finished_at is not null)),
    constraint a_lease_is_of_a_running_job check (lease_token is null or status = 'running')
);
create unique index snapshot_jobs_one_live on render.snapshot_jobs (scene_id) where status in ('queued', 'running');
create index snapshot_jobs_newest on render.snapshot_jobs (tenant_id, scene_id, created_at desc, id desc);
create index snapshot_jobs_untidied on render.snapshot_jobs (finished_at) where tidied_at is null and finished_at is not null;
create index snapshot_jobs_old on render.snapshot_jobs (finished_at) where tidied_at is not null;
create unique index snapshot_jobs_run on render.snapshot_jobs (workflow_run_id);
create index snapshot_jobs_snapshot on render.snapshot_jobs (snapshot_id) where snapshot_id is not null;
create index snapshot_jobs_node on render.snapshot_jobs (node_id) where node_id is not null;
comment on table render.snapshot_jobs is 'One request a scene; at most one of them lives. A projection: what retries and leases there were is the engine''s.';
comment on column render.snapshot_jobs.tidied_at is 'When its frame was removed from storage.';
comment on column render.snapshot_jobs.lease_token is 'The lease of the attempt under way. How long it holds is known to the engine alone.';
comment on column render.snapshot_jobs.project_id is 'softref:content.projects(id)';
comment on column render.snapshot_jobs.project_version_id is 'softref:content.project_versions(id)';
comment on column render.snapshot_jobs.scene_id is 'softref:content.scenes(id)';
comment on column render.snapshot_jobs.workflow_run_id is 'opaque: a run of the engine, which may be purged after its end; null: the still was there already';
create trigger snapshot_jobs_ended before update on render.snapshot_jobs
    for each row when (old.status in ('done', 'error') and (new.status, new.image_url, new.error_code) is distinct from (old.status, old.image_url, old.error_code))
    execute function platform.refuse_to_go_on();

create table render.snapshot_requests (
    tenant_id       uuid not null,
    idempotency_key text not null check (char_length(idempotency_key) between 1 and 255),
    request_sha256  text not null check (request_sha256 ~ '^[0-9a-f]{64}$'),
    project_id      uuid not null,
    job_ids         uuid[] not null default '{}' check (cardinality(job_ids) <= 10000),
    created_at      timestamptz not null default now(),
    primary key (tenant_id, idempotency_key)
);
comment on table render.snapshot_requests is 'Requests that carried a key of the client''s, and the jobs each was answered with.';
comment on column render.snapshot_requests.project_id is 'softref:content.projects(id)';

create table render.snapshot_batches (
    id          uuid primary key,
    tenant_id   uuid not null,
    project_id  uuid not null,
    asked_by    uuid,
    job_ids     uuid[] not null check (cardinality(job_ids) between 1 and 10000),
    done        int check (done >= 0),
    failed      int check (failed >= 0),
    created_at  timestamptz not null default now(),
    finished_at timestamptz,
    unique (tenant_id, id),
    constraint an_ended_batch_says_how check ((finished_at is null) = (done is null) and (done is null) = (failed is null))
);
create index snapshot_batches_live on render.snapshot_batches (tenant_id) where finished_at is null;
create index snapshot_batches_ended on render.snapshot_batches (finished_at) where finished_at is not null;
comment on table render.snapshot_batches is 'Requests for stills as a whole: one has ended when no job of it lives. A job may be of several.';
comment on column render.snapshot_batches.asked_by is 'softref:identity.users(id)';
comment on column render.snapshot_batches.project_id is 'softref:content.projects(id)';
create trigger snapshot_batches_ended before update on render.snapshot_batches
    for each row when (old.finished_at is not null) execute function platform.refuse_to_go_on();

call platform.keep_tenants_apart('render');
