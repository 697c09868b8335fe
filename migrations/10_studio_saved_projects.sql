-- What customers edit: a template's version, filled in, with its sound.

create table studio.audio_tracks (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    title         text not null check (char_length(title) between 1 and 200),
    file_id       uuid not null,
    licence       text not null check (char_length(licence) between 1 and 200),
    bpm           numeric(5, 2) check (bpm > 0),
    duration_ms   int not null check (duration_ms > 0),
    loudness_lufs numeric(5, 2),
    active        boolean not null default true,
    created_at    timestamptz not null default now(),
    unique (tenant_id, id)
);
comment on table studio.audio_tracks is 'Music and effects to choose from.';
comment on column studio.audio_tracks.file_id is 'softref:file_mgr.files(id)';

create table studio.saved_projects (
    id                      uuid primary key default gen_random_uuid(),
    tenant_id               uuid not null,
    user_id                 uuid not null,
    project_id              uuid not null,
    project_version_id      uuid not null,
    title                   text not null check (char_length(title) between 1 and 200),
    state                   text not null default 'draft' check (state in ('draft', 'rendering', 'archived')),
    spec                    jsonb not null default '{}' check (jsonb_typeof(spec) = 'object' and octet_length(spec::text) <= 1048576),
    spec_version            int not null default 1 check (spec_version > 0),
    palette                 jsonb not null default '{}' check (octet_length(palette::text) <= 8192),
    music_file_id           uuid,
    music_track_id          uuid,
    music_volume            numeric(4, 3) not null default 1 check (music_volume between 0 and 2),
    music_trim_start_ms     int not null default 0 check (music_trim_start_ms >= 0),
    music_fade_ms           int not null default 0 check (music_fade_ms >= 0),
    voiceover_file_id       uuid,
    voiceover_duration_ms   int check (voiceover_duration_ms > 0),
    voiceover_offset_ms     int not null default 0 check (voiceover_offset_ms >= 0),
    voiceover_trim_start_ms int not null default 0 check (voiceover_trim_start_ms >= 0),
    voiceover_trim_end_ms   int not null default 0 check (voiceover_trim_end_ms >= 0),
    voiceover_transcript    text check (char_length(voiceover_transcript) <= 20000),
    voiceover_volume        numeric(4, 3) not null default 1 check (voiceover_volume between 0 and 2),
    sfx_volume              numeric(4, 3) not null default 1 check (sfx_volume between 0 and 2),
    last_render_job_id      uuid,
    thumbnail_url           text check (thumbnail_url ~ '^https?://' and char_length(thumbnail_url) <= 2048),
    created_at              timestamptz not null default now(),
    updated_at              timestamptz not null default now(),
    deleted_at              timestamptz,
    rev                     int not null default 0,
    unique (tenant_id, id),
    foreign key (tenant_id, music_track_id) references studio.audio_tracks (tenant_id, id),
    constraint one_music_at_most check (music_file_id is null or music_track_id is null),
    constraint a_voice_has_a_length check ((voiceover_file_id is null) = (voiceover_duration_ms is null)),
    constraint something_of_the_voice_is_left check (voiceover_trim_start_ms + voiceover_trim_end_ms < voiceover_duration_ms)
);
create index saved_projects_newest on studio.saved_projects (tenant_id, user_id, updated_at desc) where deleted_at is null;
create index saved_projects_track on studio.saved_projects (music_track_id) where music_track_id is not null;
comment on table studio.saved_projects is 'A customer''s edit of a template''s version. rev is for optimistic locking.';
comment on column studio.saved_projects.user_id is 'softref:identity.users(id)';
comment on column studio.saved_projects.project_id is 'softref:content.projects(id)';
comment on column studio.saved_projects.project_version_id is 'softref:content.project_versions(id)';
comment on column studio.saved_projects.music_file_id is 'softref:file_mgr.files(id)';
comment on column studio.saved_projects.voiceover_file_id is 'softref:file_mgr.files(id)';
comment on column studio.saved_projects.last_render_job_id is 'softref:render.render_jobs(id)';

create table studio.saved_project_scenes (
    id               uuid primary key default gen_random_uuid(),
    tenant_id        uuid not null,
    saved_project_id uuid not null,
    position         int not null check (position >= 0),
    scene_id         uuid not null,
    duration_ms      int check (duration_ms > 0),
    hidden           boolean not null default false,
    inputs           jsonb not null default '{}' check (jsonb_typeof(inputs) = 'object' and octet_length(inputs::text) <= 65536),
    unique (saved_project_id, position) deferrable initially immediate,
    foreign key (tenant_id, saved_project_id) references studio.saved_projects (tenant_id, id) on delete cascade
);
comment on table studio.saved_project_scenes is 'The scenes of an edit, in order; one may occur several times.';
comment on column studio.saved_project_scenes.scene_id is 'softref:content.scenes(id)';

create table studio.saved_project_sfx (
    id               uuid primary key default gen_random_uuid(),
    tenant_id        uuid not null,
    saved_project_id uuid not null,
    file_id          uuid,
    audio_track_id   uuid,
    start_ms         int not null check (start_ms >= 0),
    volume           numeric(4, 3) not null default 1 check (volume between 0 and 2),
    foreign key (tenant_id, saved_project_id) references studio.saved_projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, audio_track_id) references studio.audio_tracks (tenant_id, id),
    constraint an_effect_has_one_sound check ((file_id is null) <> (audio_track_id is null))
);
create index saved_project_sfx_project on studio.saved_project_sfx (saved_project_id, start_ms);
create index saved_project_sfx_track on studio.saved_project_sfx (audio_track_id) where audio_track_id is not null;
comment on table studio.saved_project_sfx is 'Where effects are heard.';
comment on column studio.saved_project_sfx.file_id is 'softref:file_mgr.files(id)';

create table studio.saved_project_revisions (
    id               uuid primary key default gen_random_uuid(),
    tenant_id        uuid not null,
    saved_project_id uuid not null,
    rev              int not null check (rev >= 0),
    snapshot         jsonb not null check (octet_length(snapshot::text) <= 2097152),
    created_by       uuid not null,
    created_at       timestamptz not null default now(),
    unique (saved_project_id, rev),
    foreign key (tenant_id, saved_project_id) references studio.saved_projects (tenant_id, id) on delete cascade
);
comment on table studio.saved_project_revisions is 'Earlier states of an edit, unchanged; the newest 50 are kept.';
create trigger saved_project_revisions_unchanged before update on studio.saved_project_revisions
    for each row execute function platform.refuse_change();
create function studio.keep_newest_revisions() returns trigger language plpgsql as $$
begin
    delete from studio.saved_project_revisions where saved_project_id = new.saved_project_id and rev <= new.rev - 50;
    return null;
end $$;
create trigger saved_project_revisions_newest after insert on studio.saved_project_revisions
    for each row execute function studio.keep_newest_revisions();

create table studio.saved_project_shares (
    id               uuid primary key default gen_random_uuid(),
    tenant_id        uuid not null,
    saved_project_id uuid not null,
    token_hash       bytea not null unique check (octet_length(token_hash) = 32),
    rights           text not null default 'view' check (rights in ('view', 'copy', 'edit')),
    expires_at       timestamptz not null,
    revoked_at       timestamptz,
    created_at       timestamptz not null default now(),
    foreign key (tenant_id, saved_project_id) references studio.saved_projects (tenant_id, id) on delete cascade
);
create index saved_project_shares_project on studio.saved_project_shares (saved_project_id);
comment on table studio.saved_project_shares is 'Links that let others see an edit.';
comment on column studio.saved_project_shares.token_hash is 'secret:sha256';

call platform.keep_tenants_apart('studio');
