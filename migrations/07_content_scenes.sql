-- Scenes of a template's version, what can be filled in, and traced pictures.

create table content.scenes (
    id                   uuid primary key default gen_random_uuid(),
    tenant_id            uuid not null,
    project_version_id   uuid not null,
    scene_key            text not null check (scene_key ~ '^[a-z0-9_\-]{1,64}$'),
    position             int not null check (position >= 0),
    title                jsonb not null check (octet_length(title::text) <= 4096),
    comp_name            text not null check (char_length(comp_name) between 1 and 255),
    start_frame          int not null check (start_frame >= 0),
    frame_count          int not null check (frame_count > 0),
    still_frame          int not null,
    image                text check (char_length(image) <= 2048),
    snapshot_url         text,
    snapshot_source_hash text check (snapshot_source_hash ~ '^[0-9a-f]{64}$'),
    snapshot_at          timestamptz,
    deleted_at           timestamptz,
    created_at           timestamptz not null default now(),
    updated_at           timestamptz not null default now(),
    unique (tenant_id, id),
    unique (project_version_id, scene_key),
    unique (project_version_id, position) deferrable initially immediate,
    foreign key (tenant_id, project_version_id) references content.project_versions (tenant_id, id) on delete cascade,
    constraint the_still_is_of_the_scene check (still_frame between 0 and frame_count - 1),
    constraint a_snapshot_is_short_or_a_small_picture check (snapshot_url ~ '^https?://' and char_length(snapshot_url) <= 2048
        or snapshot_url ~ '^data:image/png;base64,' and octet_length(snapshot_url) <= 16384),
    constraint a_snapshot_has_a_source_and_a_time check ((snapshot_url is null) = (snapshot_at is null)
        and (snapshot_url is null) = (snapshot_source_hash is null))
);
comment on table content.scenes is 'Scenes in order. snapshot_url is written by content.set_scene_snapshot and nobody else.';
comment on column content.scenes.image is 'Shown while there is no snapshot.';

-- The one write into another service's schema: the picture of a scene, by the render service, in its own transaction.
-- Says whether it was taken: another tenant's scene, one that is gone, and a picture that was begun before the newest
-- one change nothing; nor does a picture of the mock replace a real one.
create function content.set_scene_snapshot(
    p_tenant uuid, p_scene uuid, p_url text, p_source_hash text, p_requested_at timestamptz default now()) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if p_tenant is distinct from platform.tenant() then
        return false;
    end if;
    update content.scenes
    set snapshot_url = p_url, snapshot_source_hash = p_source_hash, snapshot_at = p_requested_at, updated_at = now()
    where id = p_scene and tenant_id = p_tenant and deleted_at is null
      and (snapshot_at is null or snapshot_at <= p_requested_at)
      and (snapshot_url is null or snapshot_url !~ '^https?:' or p_url ~ '^https?:');
    return found;
end $$;
revoke execute on function content.set_scene_snapshot from public;

create table content.scene_inputs (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    scene_id    uuid not null,
    key         text not null check (key ~ '^[a-z0-9_\-]{1,64}$'),
    kind        text not null check (kind in ('text', 'image', 'video', 'colour', 'number', 'select', 'font')),
    label       jsonb not null check (octet_length(label::text) <= 4096),
    layer_ref   text check (char_length(layer_ref) between 1 and 255),
    required    boolean not null default false,
    default_value jsonb check (octet_length(default_value::text) <= 16384),
    constraints jsonb not null default '{}' check (jsonb_typeof(constraints) = 'object' and octet_length(constraints::text) <= 16384),
    position    int not null check (position >= 0),
    unique (scene_id, key),
    unique (scene_id, position) deferrable initially immediate,
    foreign key (tenant_id, scene_id) references content.scenes (tenant_id, id) on delete cascade
);
comment on table content.scene_inputs is 'What can be filled in.';

create table content.scene_colors (
    tenant_id uuid not null,
    scene_id  uuid not null,
    key       text not null check (key ~ '^[a-z0-9_\-]{1,64}$'),
    color     text not null check (color ~ '^#[0-9a-f]{6}$'),
    label     jsonb not null check (octet_length(label::text) <= 4096),
    primary key (scene_id, key),
    foreign key (tenant_id, scene_id) references content.scenes (tenant_id, id) on delete cascade
);
comment on table content.scene_colors is 'Colours that can be changed.';

create table content.template_svg_previews (
    id             uuid primary key default gen_random_uuid(),
    tenant_id      uuid not null,
    project_id     uuid not null,
    scene_id       uuid,
    source_file_id uuid not null,
    source_sha256  text not null check (source_sha256 ~ '^[0-9a-f]{64}$'),
    svg_file_id    uuid,
    svg_bytes      int check (svg_bytes between 1 and 524288),
    palette        jsonb not null default '[]' check (octet_length(palette::text) <= 8192),
    width          int check (width > 0),
    height         int check (height > 0),
    tracer_version int not null check (tracer_version > 0),
    state          text not null default 'queued' check (state in ('queued', 'running', 'ready', 'failed')),
    error_code     text check (char_length(error_code) <= 128),
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    constraint traced_once unique nulls not distinct (project_id, scene_id, source_sha256, tracer_version),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, scene_id) references content.scenes (tenant_id, id) on delete cascade,
    constraint a_ready_preview_is_there check ((state = 'ready') = (svg_file_id is not null) and (svg_file_id is null) = (svg_bytes is null)),
    constraint a_failed_preview_says_why check ((state = 'failed') = (error_code is not null))
);
create index template_svg_previews_scene on content.template_svg_previews (scene_id) where scene_id is not null;
comment on table content.template_svg_previews is 'Pictures traced to SVG with colours that can be changed.';
comment on column content.template_svg_previews.source_file_id is 'softref:file_mgr.files(id)';
comment on column content.template_svg_previews.svg_file_id is 'softref:file_mgr.files(id)';
create trigger template_svg_previews_ended before update on content.template_svg_previews
    for each row when (old.state in ('ready', 'failed') and new.state <> old.state) execute function platform.refuse_to_go_on();
