-- CREATE EXTENSION makes everything in one schema of its own, and says of each thing what it is for.
\set VERBOSITY terse

-- A schema that somebody made before is not adopted.
create schema snowflake_bridge;
create extension snowflake_bridge;
drop schema snowflake_bridge;
create extension snowflake_bridge;

-- Nothing lies outside the schema.
select pg_describe_object(d.classid, d.objid, d.objsubid) as elsewhere
  from pg_depend d
  join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
  left join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
  left join pg_proc p on d.classid = 'pg_proc'::regclass and p.oid = d.objid
  left join pg_type t on d.classid = 'pg_type'::regclass and t.oid = d.objid
  left join pg_namespace n on d.classid = 'pg_namespace'::regclass and n.oid = d.objid
 where e.extname = 'snowflake_bridge'
   and coalesce(c.relnamespace, p.pronamespace, t.typnamespace, n.oid) is distinct from 'snowflake_bridge'::regnamespace;

-- Relations, and whether row level security is forced on them.
select c.relname, c.relkind, c.relrowsecurity and c.relforcerowsecurity as protected,
       split_part(obj_description(c.oid, 'pg_class'), '.', 1) as marked
  from pg_class c
 where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind in ('r', 'v')
 order by c.relname collate "C";

-- Functions: none runs with its owner's rights from its first line, none is parallel safe by accident.
select p.oid::regprocedure as function, p.provolatile as volatility, p.proisstrict as strict, p.proparallel as parallel,
       p.prosecdef as definer, split_part(obj_description(p.oid, 'pg_proc'), '.', 1) as marked
  from pg_proc p
 where p.pronamespace = 'snowflake_bridge'::regnamespace
 order by p.oid::regprocedure::text collate "C";

-- What pg_dump takes along.
select c.oid::regclass as dumped
  from pg_extension e, unnest(e.extconfig) config
  join pg_class c on c.oid = config
 where e.extname = 'snowflake_bridge'
 order by c.relname collate "C";

-- What no row of uploads can be.
select state, kind, owner, snowflake_bridge.is_upload(state, kind, owner)
  from (values ('queued', 'role', 10::oid), ('gone', 'role', 10), ('queued', 'role', 0), ('failed', 'jwt', 0), ('failed', 'jwt', 10),
               ('queued', 'else', 0)) v (state, kind, owner);
insert into snowflake_bridge.uploads (execution_id, user_id, owner_kind, owner_oid, state) values ('a', 'b', 'role', 10, 'gone');

-- Nothing stays behind.
drop extension snowflake_bridge;
select count(*) from pg_namespace where nspname = 'snowflake_bridge';
