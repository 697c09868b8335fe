-- How templates are found: categories, tags, styles, shapes and languages.

create table content.languages (
    code       text primary key check (code ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$' and char_length(code) <= 35),
    name       text not null check (char_length(name) between 1 and 100),
    is_rtl     boolean not null,
    active     boolean not null default true
);
comment on table content.languages is 'Languages of texts, the same for every tenant.';
insert into content.languages (code, name, is_rtl) values ('en', 'English', false), ('fa', 'فارسی', true);

create table content.categories (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    parent_id  uuid,
    slug       text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    title      jsonb not null check (octet_length(title::text) <= 4096),
    path       text not null default '' check (char_length(path) <= 400),
    position   int not null default 0,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant_id, id),
    constraint a_slug_counts_once_below_its_parent unique nulls not distinct (tenant_id, parent_id, slug),
    foreign key (tenant_id, parent_id) references content.categories (tenant_id, id),
    constraint at_most_five_levels check (cardinality(string_to_array(path, '/')) <= 5)
);
create index categories_parent on content.categories (parent_id) where parent_id is not null;
comment on table content.categories is 'A tree of subjects, at most five levels deep.';
comment on column content.categories.path is 'Slugs from the root, with slashes; kept by a trigger for its own row.';
create trigger categories_tree before insert or update of parent_id on content.categories
    for each row when (new.parent_id is not null) execute function platform.refuse_cycle();
create function content.set_category_path() returns trigger language plpgsql as $$
begin
    new.path := concat_ws('/', (select path from content.categories where id = new.parent_id), new.slug);
    return new;
end $$;
create trigger categories_z_path before insert or update of parent_id, slug on content.categories
    for each row execute function content.set_category_path();

create table content.tags (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    slug       text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    title      jsonb not null check (octet_length(title::text) <= 4096),
    created_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, slug)
);
comment on table content.tags is 'Words that templates are found by.';

create table content.styles (
    id         uuid primary key default gen_random_uuid(),
    tenant_id  uuid not null,
    slug       text not null check (slug ~ '^[a-z0-9-]{1,64}$'),
    title      jsonb not null check (octet_length(title::text) <= 4096),
    created_at timestamptz not null default now(),
    unique (tenant_id, id),
    unique (tenant_id, slug)
);
comment on table content.styles is 'Looks: flat, hand-drawn, corporate.';

create table content.aspect_ratios (
    id     uuid primary key default gen_random_uuid(),
    width  int not null check (width between 1 and 100),
    height int not null check (height between 1 and 100),
    name   text not null check (char_length(name) between 1 and 40),
    unique (width, height)
);
comment on table content.aspect_ratios is 'Shapes of films, the same for every tenant.';
insert into content.aspect_ratios (id, width, height, name) values
    ('00000000-0000-0000-0000-000000160009', 16, 9, 'landscape'), ('00000000-0000-0000-0000-000000090016', 9, 16, 'story'),
    ('00000000-0000-0000-0000-000000010001', 1, 1, 'square'), ('00000000-0000-0000-0000-000000040005', 4, 5, 'portrait');
