-- Where the wall time of one render went. psql -v render=UUID -f bench/share.sql
-- A moment counts for the first kind of work that was under way in it: rendering, then encoding, then the others.
with job as (
    select * from render.render_jobs where id = :'render'
), work as (
    select case split_part(a.step_key, ':', 1)
               when 'render' then '1 rendering on a node'
               when 'encode' then '2 encoding'
               when 'assemble' then '3 joining parts and sound (AAC)'
               when 'verify' then '4 verifying frames'
               when 'verify_video' then '5 verifying the film'
               when 'mix_audio' then '6 mixing sound'
               when 'contact_sheet' then '7 contact sheet'
           end as kind,
           tstzrange(greatest(a.started_at, j.created_at), least(a.ended_at, j.finished_at)) as span
    from job j join workflow.attempts a on a.run_id = j.workflow_run_id
    where a.started_at < j.finished_at and a.step_key <> ''
), kinds as (
    select kind, range_agg(span) as spans from work where kind is not null group by kind
), own as (
    select kind, spans - coalesce((select range_agg(r) from kinds before, unnest(before.spans) r
                                   where before.kind < kinds.kind), '{}'::tstzmultirange) as spans
    from kinds
), shares as (
    select kind, (select coalesce(sum(extract(epoch from upper(r) - lower(r))), 0) from unnest(spans) r) as seconds
    from own
), whole as (
    select extract(epoch from finished_at - created_at) as seconds from job
)
select kind as "what", round(seconds, 3) as "seconds", round(100 * seconds / (select seconds from whole), 1) as "percent"
from (select * from shares
      union all select '8 nothing under way', (select seconds from whole) - (select sum(seconds) from shares)
      union all select '9 all', seconds from whole) lines
order by kind;
