-- Schemas of the platform, one a domain. Everything else is created by the file of its domain.
-- Plain SQL: applied in numeric order by `flatrender migrate` or `psql -X -v ON_ERROR_STOP=1 -1 -f`.

create schema if not exists identity;
create schema if not exists content;
create schema if not exists studio;
create schema if not exists render;
create schema if not exists file_mgr;
create schema if not exists notification;

comment on schema identity is 'Tenants, users, keys, plans and money.';
comment on schema content is 'Templates, their versions and scenes.';
comment on schema studio is 'What customers edit and keep.';
comment on schema render is 'Render jobs, frames, exports and nodes.';
comment on schema file_mgr is 'Files, blobs, quotas and uploads.';
comment on schema notification is 'Messages to people.';

-- Refuses every change of a row: for tables that only ever grow.
create function public.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;
