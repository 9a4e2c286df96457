-- The doctor. This server is set up as it should be, but for the worker, which the tests of the SQL surface go without.
create extension snowflake_bridge;
do $$
begin
    perform snowflake_bridge.generate_key_file();
exception when duplicate_file then
    null; -- another test has stored a secret
end;
$$;
select item, ok, hint from snowflake_bridge.check();

-- What would write secrets into the server log.
set log_statement = 'all';
set debug_print_plan = on;
select ok, detail, hint from snowflake_bridge.check() where item = 'statement_logging';
reset log_statement;
reset debug_print_plan;

-- What was done to watched relations. Their names are for superusers.
create role check_app login;
grant create on schema public to check_app;
select snowflake_bridge.grant_usage('check_app');
set role check_app;
select snowflake_bridge.watch('public.check_runs', create_if_missing => true);
select snowflake_bridge.watch('public.check_more', create_if_missing => true);
select ok, detail from snowflake_bridge.check() where item = 'watches';
alter table check_runs disable trigger snowflake_bridge_upload;
alter table check_more drop column snowflake_error_message;
select ok, detail, hint from snowflake_bridge.check() where item = 'watches';
reset role;
select ok, detail from snowflake_bridge.check() where item = 'watches';
drop table check_more;
alter table check_runs enable trigger snowflake_bridge_upload;
grant trigger on check_runs to public;
select ok, detail from snowflake_bridge.check() where item = 'watches';
revoke trigger on check_runs from public;
select ok, detail from snowflake_bridge.check() where item = 'watches';
alter table check_runs owner to current_user;
select ok, detail from snowflake_bridge.check() where item = 'watches';

-- Uploads that somebody should look after.
insert into snowflake_bridge.uploads (execution_id, user_id, owner_kind, state, needs_mirror, mirror_error)
values ('1', 'u', 'jwt', 'needs_credentials', false, null), ('2', 'u', 'jwt', 'completed', true, 'no'), ('3', 'u', 'jwt', 'queued', false, null);
select item, ok, detail from snowflake_bridge.check() where item in ('mirrors', 'credentials', 'queue');
update snowflake_bridge.uploads set next_attempt_at = now() - interval '11 minutes' where state = 'queued';
select ok, detail, hint from snowflake_bridge.check() where item = 'queue';
insert into snowflake_bridge.missed (watch_id, execution_id, user_id, owner_kind, owner_oid, options) values (1, '1', 'u', 'jwt', 0, '{}');
select ok, detail from snowflake_bridge.check() where item = 'missed';
update snowflake_bridge.missed set missed_at = now() - interval '2 minutes';
select ok, detail, hint from snowflake_bridge.check() where item = 'missed';

drop extension snowflake_bridge cascade;
drop table check_runs;
revoke create on schema public from check_app;
drop role check_app;
