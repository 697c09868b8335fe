-- Characters, presets, palettes and fonts.

create table content.characters (
    id                 uuid primary key default gen_random_uuid(),
    tenant_id          uuid not null,
    project_version_id uuid,
    slug               text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    title              jsonb not null check (octet_length(title::text) <= 4096),
    rig_file_id        uuid,
    preview_file_id    uuid,
    created_at         timestamptz not null default now(),
    updated_at         timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, slug),
    foreign key (tenant_id, project_version_id) references content.project_versions (tenant_id, id) on delete cascade
);
create index characters_version on content.characters (project_version_id) where project_version_id is not null;
comment on table content.characters is 'Figures, of one version or of all.';
comment on column content.characters.rig_file_id is 'softref:file_mgr.files(id)';
comment on column content.characters.preview_file_id is 'softref:file_mgr.files(id)';

create table content.character_poses (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    character_id    uuid not null,
    key             text not null check (key ~ '^[a-z0-9_\-]{1,64}$'),
    title           jsonb not null check (octet_length(title::text) <= 4096),
    preview_file_id uuid,
    position        int not null check (position >= 0),
    unique (character_id, key),
    foreign key (tenant_id, character_id) references content.characters (tenant_id, id) on delete cascade
);
comment on table content.character_poses is 'What a figure can do.';
comment on column content.character_poses.preview_file_id is 'softref:file_mgr.files(id)';

create table content.palettes (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    name       text not null check (char_length(name) between 1 and 100),
    colors     text[] not null check (cardinality(colors) between 1 and 24 and array_to_string(colors, '') ~ '^(#[0-9a-f]{6})+$'),
    created_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, name)
);
comment on table content.palettes is 'Sets of colours.';

create table content.presets (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    project_id      uuid not null,
    palette_id      uuid,
    name            jsonb not null check (octet_length(name::text) <= 4096),
    inputs          jsonb not null default '{}' check (octet_length(inputs::text) <= 262144),
    preview_file_id uuid,
    position        int not null default 0,
    active          boolean not null default true,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (tenant_id, id),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, palette_id) references content.palettes (tenant_id, id)
);
create index presets_project on content.presets (project_id, position);
create index presets_palette on content.presets (palette_id) where palette_id is not null;
comment on table content.presets is 'A ready film of a template: scenes, what they say, colours.';
comment on column content.presets.preview_file_id is 'softref:file_mgr.files(id)';

create table content.preset_scenes (
    tenant_id   uuid not null,
    preset_id   uuid not null,
    position    int not null check (position >= 0),
    scene_id    uuid not null,
    duration_ms int check (duration_ms > 0),
    primary key (preset_id, position),
    foreign key (tenant_id, preset_id) references content.presets (tenant_id, id) on delete cascade,
    foreign key (tenant_id, scene_id) references content.scenes (tenant_id, id) on delete cascade
);
create index preset_scenes_scene on content.preset_scenes (scene_id);
comment on table content.preset_scenes is 'The scenes of a preset, in order.';

create table content.fonts (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    family     text not null check (char_length(family) between 1 and 200),
    style      text not null check (char_length(style) between 1 and 100),
    file_id    uuid not null,
    sha256     text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    licence    text not null check (char_length(licence) between 1 and 200),
    created_at timestamptz not null default now(),
    unique (tenant_id, family, style)
);
comment on table content.fonts is 'Fonts that films may use.';
comment on column content.fonts.file_id is 'softref:file_mgr.files(id)';
