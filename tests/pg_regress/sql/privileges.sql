-- Who may do what: nobody anything, until grant_usage; then functions, and the rows that are one's own.
\set SHOW_CONTEXT never
create role visitor;
create role stranger;
create role alice;
create role bob;

-- Default privileges as hosting platforms have them give the role of anonymous visitors everything.
alter default privileges grant all on schemas to visitor, public;
alter default privileges grant all on tables to visitor, public;
alter default privileges grant all on sequences to visitor with grant option;
alter default privileges grant all on functions to visitor;
create extension snowflake_bridge;
alter default privileges revoke all on schemas from visitor, public;
alter default privileges revoke all on tables from visitor, public;
alter default privileges revoke all on sequences from visitor;
alter default privileges revoke all on functions from visitor;

create view held as
select r.rolname as role, o.kind, count(*) filter (where o.held) as held, count(*) as of
  from pg_roles r,
       lateral (
           select 'schema', has_schema_privilege(r.oid, n.oid, 'usage, create')
             from pg_namespace n where n.nspname = 'snowflake_bridge'
           union all
           select 'function', has_function_privilege(r.oid, p.oid, 'execute')
             from pg_proc p where p.pronamespace = 'snowflake_bridge'::regnamespace
           union all
           select 'superuser function', has_function_privilege(r.oid, p.oid, 'execute')
             from pg_proc p
            where p.pronamespace = 'snowflake_bridge'::regnamespace and obj_description(p.oid, 'pg_proc') like 'API: superuser%'
           union all
           select 'table, to write', has_table_privilege(r.oid, c.oid, 'insert, update, delete, truncate, references, trigger')
                                     or has_any_column_privilege(r.oid, c.oid, 'insert, update, references')
             from pg_class c where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind = 'r'
           union all
           select 'table, to read', has_any_column_privilege(r.oid, c.oid, 'select')
             from pg_class c where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind = 'r'
           union all
           select 'secret column', has_column_privilege(r.oid, a.attrelid, a.attnum, 'select, insert, update, references')
             from pg_attribute a
            where a.attrelid = 'snowflake_bridge.snowflake_configurations'::regclass and a.attname like '%\_encrypted'
           union all
           select 'sequence', has_sequence_privilege(r.oid, c.oid, 'usage, select, update')
             from pg_class c where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind = 'S'
       ) o (kind, held)
 where r.rolname in ('visitor', 'stranger', 'alice', 'bob')
 group by r.rolname, o.kind;

-- Nobody holds anything.
select role, kind, held from held where held > 0;

-- Only a superuser may give, to a role that exists; public is none.
set role alice;
select snowflake_bridge.grant_usage('alice');
reset role;
select snowflake_bridge.grant_usage('public');
select snowflake_bridge.grant_usage('alice'), snowflake_bridge.grant_usage('bob');
select role, kind, held > 0 as some from held order by role collate "C", kind collate "C";
-- Every public function, and no other.
select p.oid::regprocedure as refused
  from pg_proc p
 where p.pronamespace = 'snowflake_bridge'::regnamespace and not has_function_privilege('alice', p.oid, 'execute')
 order by p.oid::regprocedure::text collate "C";

-- Each sees what is theirs, under names that others use too.
set role alice;
select snowflake_bridge.create_config('myorg-alice', username => 'a', password => 'p', verify => false) is not null as created;
set role bob;
select snowflake_bridge.create_config('myorg-bob', username => 'b', password => 'p', verify => false) is not null as created;
select snowflake_bridge.create_config('myorg-bob', username => 'b', password => 'p', name => 'bobs', verify => false) is not null as created;
reset role;
insert into snowflake_bridge.uploads (execution_id, user_id, owner_kind, owner_oid)
select 'of ' || r.rolname, r.rolname, 'role', r.oid from pg_roles r where r.rolname in ('alice', 'bob');
set role alice;
select user_id, name, account_identifier from snowflake_bridge.snowflake_configurations;
select name, account_identifier from snowflake_bridge.get_config();
select execution_id from snowflake_bridge.uploads;
select owner_kind, user_id from snowflake_bridge.caller();
-- What belongs to another cannot be told from what does not exist.
select name from snowflake_bridge.get_config('bobs');
select snowflake_bridge.update_config('bobs', warehouse => 'W', verify => false);
select snowflake_bridge.update_config('nobodys', warehouse => 'W', verify => false);
select snowflake_bridge.delete_config('bobs');
-- Nobody writes but the functions, nobody reads a secret.
insert into snowflake_bridge.snowflake_configurations (user_id, owner_kind, account_identifier, username, auth_method) values ('alice', 'jwt', 'a', 'u', 'token');
update snowflake_bridge.snowflake_configurations set account_identifier = 'evil-acct';
delete from snowflake_bridge.uploads;
truncate snowflake_bridge.uploads;
select password_encrypted from snowflake_bridge.snowflake_configurations;
select * from snowflake_bridge.installation;
select * from snowflake_bridge.watches;
-- Nobody acts for others who was not allowed to.
select name from snowflake_bridge.get_config(user_id => 'bob');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.generate_key_file();
select snowflake_bridge.revoke_usage('bob');
-- Claims are words that anybody can say.
set request.jwt.claims = '{"sub": "bob", "role": "bob"}';
select owner_kind, user_id from snowflake_bridge.caller();
select account_identifier from snowflake_bridge.get_config();
select account_identifier from snowflake_bridge.snowflake_configurations;
reset request.jwt.claims;
reset role;

-- What is a superuser's stays that, also where somebody was given more than grant_usage gives.
grant execute on all routines in schema snowflake_bridge to alice;
set role alice;
select snowflake_bridge.generate_key_file(replace_lost => true);
select * from snowflake_bridge.encryption_keys();
call snowflake_bridge.rotate_encryption_key();
select snowflake_bridge.adopt(take_over => true);
select snowflake_bridge.grant_usage('visitor');
select snowflake_bridge.revoke_usage('bob');
reset role;
revoke execute on all routines in schema snowflake_bridge from alice;
select snowflake_bridge.grant_usage('alice');

-- A role that is made again under an old name is somebody else.
drop owned by bob;
drop role bob;
create role bob;
select snowflake_bridge.grant_usage('bob');
set role bob;
select count(*) from snowflake_bridge.get_config();
select count(*) from snowflake_bridge.snowflake_configurations;
reset role;

-- What was given can be taken back.
select snowflake_bridge.revoke_usage('alice'), snowflake_bridge.revoke_usage('bob');
select role, kind, held from held where held > 0;

drop view held;
drop extension snowflake_bridge;
drop role visitor, stranger, alice, bob;
