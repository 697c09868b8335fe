-- Templates and their immutable versions. A render pins a version, so edits never change a queued job.

create table content.projects (
    id          uuid primary key default gen_random_uuid(),
    tenant_id   uuid not null,
    slug        text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    kind        text not null check (kind in ('lottie', 'after_effects')),
    title       jsonb not null check (octet_length(title::text) <= 4096),
    description jsonb not null check (octet_length(description::text) <= 16384),
    state       text not null default 'published' check (state in ('draft', 'ingesting', 'review', 'published', 'unpublished', 'archived')),
    current_version_id    uuid,
    aspect_ratio_id       uuid references content.aspect_ratios (id),
    duration_ms           int check (duration_ms > 0),
    base_fps              int check (base_fps between 1 and 120),
    is_premium            boolean not null default false,
    min_plan              text check (min_plan ~ '^[a-z0-9_-]{1,64}$'),
    author                text check (char_length(author) between 1 and 200),
    cover_file_id         uuid,
    preview_video_file_id uuid,
    usage_count           bigint not null default 0 check (usage_count >= 0),
    rating_sum            bigint not null default 0 check (rating_sum >= 0),
    rating_count          bigint not null default 0 check (rating_count >= 0),
    search      tsvector generated always as (to_tsvector('simple', slug || ' ' || coalesce(jsonb_path_query_array(title, '$.*')::text, '')
                    || ' ' || coalesce(jsonb_path_query_array(description, '$.*')::text, ''))) stored,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    rev         int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, slug)
);
create index projects_search on content.projects using gin (search);
create index projects_shape on content.projects (aspect_ratio_id) where aspect_ratio_id is not null;
comment on table content.projects is 'A template as customers know it.';
comment on column content.projects.cover_file_id is 'softref:file_mgr.files(id)';
comment on column content.projects.preview_video_file_id is 'softref:file_mgr.files(id)';

create table content.project_versions (
    id              uuid primary key default gen_random_uuid(),
    tenant_id       uuid not null,
    project_id      uuid not null,
    number          int not null check (number > 0),
    package_sha256  text not null check (package_sha256 ~ '^[0-9a-f]{64}$'),
    package_bytes   bigint not null check (package_bytes > 0),
    package_file_id uuid,
    preview_sha256  text check (preview_sha256 ~ '^[0-9a-f]{64}$'),
    preview_bytes   bigint check (preview_bytes > 0),
    manifest        jsonb not null check (octet_length(manifest::text) <= 1048576),
    ae_version      text check (char_length(ae_version) <= 40),
    composition     text check (char_length(composition) between 1 and 255),
    fps_num         int check (fps_num > 0),
    fps_den         int check (fps_den > 0),
    width           int check (width between 2 and 16384),
    height          int check (height between 2 and 16384),
    frame_count     int check (frame_count > 0),
    required_fonts  jsonb not null default '[]' check (octet_length(required_fonts::text) <= 65536),
    required_plugins jsonb not null default '[]' check (octet_length(required_plugins::text) <= 65536),
    analysis        jsonb check (octet_length(analysis::text) <= 1048576),
    state           text not null default 'ready' check (state in ('analysing', 'needs_fix', 'ready', 'rejected', 'failed')),
    ingest_run_id   uuid,
    created_at      timestamptz not null default now(),
    unique (tenant_id, id),
    unique (project_id, number),
    unique (project_id, package_sha256),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id)
);
comment on table content.project_versions is 'What a render pins: package and manifest, fixed once the version is ready.';
comment on column content.project_versions.package_sha256 is 'softref:file_mgr.blobs(sha256)';
comment on column content.project_versions.package_file_id is 'softref:file_mgr.files(id)';
comment on column content.project_versions.ingest_run_id is 'opaque: a run of the engine, which may be purged after its end';
create trigger project_versions_append_only before update or delete on content.project_versions
    for each row when (old.state = 'ready') execute function platform.refuse_change();
create trigger project_versions_no_truncate before truncate on content.project_versions
    for each statement execute function platform.refuse_change();

alter table content.projects add constraint projects_current_version foreign key (tenant_id, current_version_id)
    references content.project_versions (tenant_id, id);
create index projects_version on content.projects (current_version_id) where current_version_id is not null;

create table content.project_categories (
    tenant_id   uuid not null,
    project_id  uuid not null,
    category_id uuid not null,
    primary key (project_id, category_id),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, category_id) references content.categories (tenant_id, id) on delete cascade
);
create index project_categories_category on content.project_categories (category_id);
comment on table content.project_categories is 'Which subjects a template has.';

create table content.project_tags (
    tenant_id  uuid not null,
    project_id uuid not null,
    tag_id     uuid not null,
    primary key (project_id, tag_id),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, tag_id) references content.tags (tenant_id, id) on delete cascade
);
create index project_tags_tag on content.project_tags (tag_id);
comment on table content.project_tags is 'Which words a template is found by.';

create table content.project_styles (
    tenant_id  uuid not null,
    project_id uuid not null,
    style_id   uuid not null,
    primary key (project_id, style_id),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    foreign key (tenant_id, style_id) references content.styles (tenant_id, id) on delete cascade
);
create index project_styles_style on content.project_styles (style_id);
comment on table content.project_styles is 'Which looks a template has.';

create table content.project_languages (
    tenant_id     uuid not null,
    project_id    uuid not null,
    language_code text not null references content.languages (code),
    primary key (project_id, language_code),
    foreign key (tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade
);
create index project_languages_language on content.project_languages (language_code);
comment on table content.project_languages is 'Languages a template can be filled in.';

create table content.project_assets (
    id                 uuid primary key default gen_random_uuid(),
    tenant_id          uuid not null,
    project_version_id uuid not null,
    path               text not null check (path !~ '(^/|\\|\.\.|[\x01-\x1f])' and char_length(path) between 1 and 400),
    sha256             text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes         bigint not null check (size_bytes >= 0),
    kind               text not null check (kind in ('project', 'image', 'audio', 'video', 'font', 'data', 'other')),
    unique (project_version_id, path),
    foreign key (tenant_id, project_version_id) references content.project_versions (tenant_id, id) on delete cascade
);
comment on table content.project_assets is 'Files inside a package.';

create table content.project_fonts (
    tenant_id          uuid not null,
    project_version_id uuid not null,
    family             text not null check (char_length(family) between 1 and 200),
    style              text not null check (char_length(style) between 1 and 100),
    found              boolean not null,
    primary key (project_version_id, family, style),
    foreign key (tenant_id, project_version_id) references content.project_versions (tenant_id, id) on delete cascade
);
comment on table content.project_fonts is 'Fonts a version asks for.';

-- A customer may like a template of its own tenant or one that is shared by all: those of the default tenant.
create table content.project_favourites (
    tenant_id         uuid not null,
    user_id           uuid not null,
    project_tenant_id uuid not null,
    project_id        uuid not null,
    created_at        timestamptz not null default now(),
    primary key (user_id, project_id),
    foreign key (project_tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    constraint own_or_shared check (project_tenant_id in (tenant_id, '00000000-0000-0000-0000-000000000001'))
);
create index project_favourites_project on content.project_favourites (project_id);
comment on table content.project_favourites is 'Who likes what.';
comment on column content.project_favourites.user_id is 'softref:identity.users(id)';

create table content.project_reviews (
    id                uuid primary key default gen_random_uuid(),
    tenant_id         uuid not null,
    user_id           uuid not null,
    project_tenant_id uuid not null,
    project_id        uuid not null,
    stars             smallint not null check (stars between 1 and 5),
    body              text check (char_length(body) <= 4000),
    state             text not null default 'pending' check (state in ('pending', 'shown', 'hidden')),
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    unique (user_id, project_id),
    foreign key (project_tenant_id, project_id) references content.projects (tenant_id, id) on delete cascade,
    constraint own_or_shared check (project_tenant_id in (tenant_id, '00000000-0000-0000-0000-000000000001'))
);
create index project_reviews_project on content.project_reviews (project_id);
comment on table content.project_reviews is 'What customers say of a template; once each.';
comment on column content.project_reviews.user_id is 'softref:identity.users(id)';
