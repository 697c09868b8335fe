-- What a tenant's site says: posts, pages, menus, banners, questions, redirects. Texts by language.

create table content.posts (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    language_code text not null references content.languages (code),
    slug          text not null check (char_length(slug) between 1 and 200 and slug !~ '[/?#\s\x01-\x1f]'),
    title         text not null check (char_length(title) between 1 and 300),
    summary       text check (char_length(summary) <= 2000),
    source        text not null default '' check (octet_length(source) <= 524288),
    html          text not null default '' check (octet_length(html) <= 1048576),
    state         text not null default 'draft' check (state in ('draft', 'scheduled', 'published')),
    publish_at    timestamptz,
    cover_file_id uuid,
    author_user_id uuid,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    deleted_at    timestamptz,
    rev           int not null default 0,
    unique (tenant_id, id),
    constraint a_planned_post_says_when check (state = 'draft' or publish_at is not null)
);
create unique index posts_slug on content.posts (tenant_id, language_code, slug) where deleted_at is null;
create index posts_due on content.posts (publish_at) where state = 'scheduled' and deleted_at is null;
create index posts_language on content.posts (language_code);
comment on table content.posts is 'Blog posts; html is made from the source and cleaned.';
comment on column content.posts.cover_file_id is 'softref:file_mgr.files(id)';
comment on column content.posts.author_user_id is 'softref:identity.users(id)';

create table content.post_translations (
    tenant_id     uuid not null,
    post_id       uuid not null,
    language_code text not null references content.languages (code),
    title         text not null check (char_length(title) between 1 and 300),
    summary       text check (char_length(summary) <= 2000),
    source        text not null check (octet_length(source) <= 524288),
    html          text not null check (octet_length(html) <= 1048576),
    updated_at    timestamptz not null default now(),
    primary key (post_id, language_code),
    foreign key (tenant_id, post_id) references content.posts (tenant_id, id) on delete cascade
);
create index post_translations_language on content.post_translations (language_code);
comment on table content.post_translations is 'A post in further languages.';

create table content.post_categories (
    tenant_id   uuid not null,
    post_id     uuid not null,
    category_id uuid not null,
    primary key (post_id, category_id),
    foreign key (tenant_id, post_id) references content.posts (tenant_id, id) on delete cascade,
    foreign key (tenant_id, category_id) references content.categories (tenant_id, id) on delete cascade
);
create index post_categories_category on content.post_categories (category_id);
comment on table content.post_categories is 'Subjects of posts.';

create table content.pages (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    slug       text not null check (char_length(slug) between 1 and 200 and slug !~ '[?#\s\x01-\x1f]'),
    state      text not null default 'draft' check (state in ('draft', 'published')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    rev        int not null default 0,
    unique (tenant_id, id),
    unique (tenant_id, slug)
);
comment on table content.pages is 'Pages that stay.';

create table content.page_translations (
    tenant_id     uuid not null,
    page_id       uuid not null,
    language_code text not null references content.languages (code),
    title         text not null check (char_length(title) between 1 and 300),
    source        text not null check (octet_length(source) <= 524288),
    html          text not null check (octet_length(html) <= 1048576),
    updated_at    timestamptz not null default now(),
    primary key (page_id, language_code),
    foreign key (tenant_id, page_id) references content.pages (tenant_id, id) on delete cascade
);
create index page_translations_language on content.page_translations (language_code);
comment on table content.page_translations is 'What a page says.';

create table content.menus (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    code       text not null check (code ~ '^[a-z0-9_-]{1,64}$'),
    created_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, code)
);
comment on table content.menus is 'Menus by the place where they stand.';

create table content.menu_items (
    id        uuid primary key default gen_random_uuid(),
    tenant_id uuid not null,
    menu_id   uuid not null,
    parent_id uuid,
    page_id   uuid,
    label     jsonb not null check (octet_length(label::text) <= 4096),
    url       text check (url ~ '^(https://|/)' and char_length(url) <= 2048),
    position  int not null default 0,
    unique (tenant_id, id),
    foreign key (tenant_id, menu_id) references content.menus (tenant_id, id) on delete cascade,
    foreign key (tenant_id, parent_id) references content.menu_items (tenant_id, id) on delete cascade,
    foreign key (tenant_id, page_id) references content.pages (tenant_id, id) on delete cascade,
    constraint an_item_leads_to_one_place check (page_id is null or url is null)
);
create index menu_items_menu on content.menu_items (menu_id, position);
create index menu_items_parent on content.menu_items (parent_id) where parent_id is not null;
create index menu_items_page on content.menu_items (page_id) where page_id is not null;
comment on table content.menu_items is 'A tree of links.';
create trigger menu_items_tree before insert or update of parent_id on content.menu_items
    for each row when (new.parent_id is not null) execute function platform.refuse_cycle();

create table content.banners (
    id            uuid primary key default gen_random_uuid(),
    tenant_id     uuid not null,
    place         text not null check (place ~ '^[a-z0-9_-]{1,64}$'),
    title         jsonb not null check (octet_length(title::text) <= 4096),
    image_file_id uuid,
    url           text check (url ~ '^(https://|/)' and char_length(url) <= 2048),
    shown_from    timestamptz not null,
    shown_to      timestamptz,
    active        boolean not null default true,
    created_at    timestamptz not null default now(),
    constraint a_banner_is_shown_for_a_time check (shown_to > shown_from)
);
create index banners_place on content.banners (tenant_id, place) where active;
comment on table content.banners is 'Announcements for a time.';
comment on column content.banners.image_file_id is 'softref:file_mgr.files(id)';

create table content.faqs (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    question   jsonb not null check (octet_length(question::text) <= 4096),
    answer     jsonb not null check (octet_length(answer::text) <= 65536),
    position   int not null default 0,
    active     boolean not null default true,
    created_at timestamptz not null default now()
);
create index faqs_order on content.faqs (tenant_id, position) where active;
comment on table content.faqs is 'Questions that are often asked.';

create table content.redirects (
    tenant_id  uuid not null,
    from_path  text not null check (from_path ~ '^/' and char_length(from_path) <= 1024),
    to_path    text not null check (to_path ~ '^(https://|/)' and char_length(to_path) <= 2048),
    status     int not null default 301 check (status in (301, 302, 307, 308)),
    created_at timestamptz not null default now(),
    primary key (tenant_id, from_path)
);
comment on table content.redirects is 'Old addresses. They lead somewhere within ten steps.';
create function content.refuse_redirect_loop() returns trigger language plpgsql as $$
declare
    v_at text := new.to_path;
begin
    for step in 1..10 loop
        if v_at = new.from_path then
            raise exception 'the redirect of % leads back to it', new.from_path using errcode = 'check_violation';
        end if;
        select to_path into v_at from content.redirects where tenant_id = new.tenant_id and from_path = v_at;
        if not found then
            return new;
        end if;
    end loop;
    raise exception 'the redirect of % takes more than ten steps', new.from_path using errcode = 'check_violation';
end $$;
create trigger redirects_no_loop before insert or update on content.redirects
    for each row execute function content.refuse_redirect_loop();

create table content.seo_meta (
    tenant_id     uuid not null,
    entity        text not null check (entity in ('project', 'post', 'page', 'category')),
    entity_id     uuid not null,
    language_code text not null references content.languages (code),
    title         text check (char_length(title) <= 300),
    description   text check (char_length(description) <= 1000),
    image_file_id uuid,
    primary key (entity_id, language_code)
);
create index seo_meta_language on content.seo_meta (language_code);
comment on table content.seo_meta is 'What search engines are told.';
comment on column content.seo_meta.entity_id is 'opaque: what entity says';
comment on column content.seo_meta.image_file_id is 'softref:file_mgr.files(id)';

call platform.keep_tenants_apart('content');

-- The published templates of the default tenant are there for every tenant to read, with their versions and scenes.
create policy shared_with_all on content.projects for select
    using (tenant_id = '00000000-0000-0000-0000-000000000001' and state = 'published');
create policy shared_with_all on content.project_versions for select
    using (tenant_id = '00000000-0000-0000-0000-000000000001' and state = 'ready'
           and exists (select from content.projects p where p.id = project_id));
create policy shared_with_all on content.scenes for select
    using (tenant_id = '00000000-0000-0000-0000-000000000001' and deleted_at is null
           and exists (select from content.project_versions v where v.id = project_version_id));
create policy shared_with_all on content.scene_inputs for select
    using (tenant_id = '00000000-0000-0000-0000-000000000001' and exists (select from content.scenes s where s.id = scene_id));
create policy shared_with_all on content.scene_colors for select
    using (tenant_id = '00000000-0000-0000-0000-000000000001' and exists (select from content.scenes s where s.id = scene_id));
