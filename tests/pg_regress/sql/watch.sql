-- From the application's table to the queue: which rows are entered, with what, and that nothing in it can fail the
-- application. The worker does not run here.
\set SHOW_CONTEXT never
create role app;
create role other;
create extension snowflake_bridge;
select snowflake_bridge.grant_usage('app'), snowflake_bridge.grant_usage('other');
create schema app authorization app;
create schema other authorization other;
create view queue as
select u.execution_id, u.state, u.user_id, u.row_user_id, u.options, u.generation from snowflake_bridge.uploads u order by u.id;

-- The standard table, or one's own; by its owner.
set role app;
set search_path = app;
grant usage on schema app to other;
select snowflake_bridge.watch('workflow_executions');
select snowflake_bridge.watch('workflow_executions', create_if_missing => true) > 0 as watched;
select a.attname, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null
  from pg_attribute a where a.attrelid = 'workflow_executions'::regclass and a.attnum > 0 order by a.attnum;
set role other;
select snowflake_bridge.watch('app.workflow_executions');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.watch('app.workflow_executions', act_for_users => true);
\echo :LAST_ERROR_SQLSTATE
set role app;
create table mine (run integer primary key, state text, rows jsonb, note text);
select snowflake_bridge.watch('mine', execution_id_column => 'run', status_column => 'state', result_rows_column => 'no such',
                              user_id_column => null, result_columns_column => null);
select snowflake_bridge.watch('mine', execution_id_column => 'note', status_column => 'state', result_rows_column => 'rows',
                              user_id_column => null, result_columns_column => null);
select snowflake_bridge.watch('mine', execution_id_column => 'run', status_column => 'state', result_rows_column => 'note',
                              user_id_column => null, result_columns_column => null);
select snowflake_bridge.watch('mine', execution_id_column => 'run', status_column => 'state', result_rows_column => 'rows',
                              user_id_column => null, result_columns_column => null, finished => '{done, "also done"}') > 0 as watched;

-- Nobody else may attach code to it: what runs there has the owner's rights.
reset role;
alter default privileges for role app grant all on tables to other, public;
set role app;
create table shared (execution_id text unique, user_id text, status text, result_rows jsonb, result_columns jsonb);
select snowflake_bridge.watch('shared');
\echo :LAST_ERROR_SQLSTATE
revoke trigger on shared from other, public;
select snowflake_bridge.watch('shared') > 0 as watched;
reset role;
create function app.of_other() returns trigger language plpgsql as 'begin return new; end';
alter function app.of_other() owner to other;
create trigger of_other before update on app.shared for each row execute function app.of_other();
set role app;
select snowflake_bridge.watch('shared');
drop trigger of_other on shared;
select snowflake_bridge.watch('unshared', create_if_missing => true) > 0 as watched;
select has_table_privilege('other', 'unshared', 'trigger') as may_attach_code, has_table_privilege('other', 'unshared', 'select') as may_read;
create table parted_shared (execution_id text primary key, user_id text, status text, result_rows jsonb, result_columns jsonb)
    partition by hash (execution_id);
revoke trigger on parted_shared from other, public;
create table parted_shared_0 partition of parted_shared for values with (modulus 1, remainder 0);
select snowflake_bridge.watch('parted_shared');
revoke trigger on parted_shared_0 from other, public;
select snowflake_bridge.watch('parted_shared') > 0 as watched;
reset role;
alter table app.parted_shared_0 owner to other;
set role app;
select snowflake_bridge.watch('parted_shared');
reset role;
drop table app.shared, app.unshared, app.parted_shared;
drop function app.of_other();
alter default privileges for role app revoke all on tables from other, public;
set role app;

-- The JSON of a report request becomes a row.
select snowflake_bridge.create_execution('{
    "name": "Campaign Performance Report", "template_id": "template_123", "instance_id": "instance_456",
    "parameters": {"campaign_ids": ["123", "456"], "date_range": "30d"}, "execution_type": "once",
    "snowflake_enabled": true, "snowflake_table_name": "campaign_performance", "snowflake_schema_name": "marketing"
}', 'workflow_executions') as id \gset
select name, template_id, instance_id, parameters, execution_type, status, user_id, snowflake_enabled, snowflake_table_name,
       snowflake_schema_name, snowflake_status
  from workflow_executions where execution_id = :'id';
select snowflake_bridge.create_execution('{"name": "x", "snowflake_enable": true}', 'workflow_executions');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.create_execution('{"name": "x", "snowflake_options": {"tabel_name": "t"}}', 'workflow_executions');
select snowflake_bridge.create_execution('{"name": "x", "user_id": "somebody"}', 'workflow_executions');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.create_execution('{"name": "x"}');
-- What others watch is nobody else's business, unless it is a superuser's or acts for users by a superuser's leave.
set role other;
select snowflake_bridge.create_execution('{"name": "x"}');
reset role;
select snowflake_bridge.upload('x');
create table public.of_boss (execution_id text unique, user_id text, status text, result_rows jsonb, result_columns jsonb);
select snowflake_bridge.watch('public.of_boss') > 0 as watched;
set role other;
select snowflake_bridge.create_execution('{"name": "x"}');
reset role;
drop table public.of_boss;
select snowflake_bridge.watch('app.workflow_executions', act_for_users => true, user_id_column => null);
select snowflake_bridge.watch('app.workflow_executions', act_for_users => true) > 0 as watched;
set role other;
select snowflake_bridge.upload('x');
set role app;
select snowflake_bridge.watch('workflow_executions') > 0 as watched;
set role other;
select snowflake_bridge.upload('x');
set role app;

-- A row is entered once it is finished and wants it, in the transaction that finishes it.
reset role;
table public.queue;
set role app;
begin;
update workflow_executions set status = 'completed', result_rows = '[{"a": 1}]' where execution_id = :'id';
rollback;
update workflow_executions set status = 'running';
update workflow_executions set status = 'completed', result_rows = '[{"a": 1}]' where execution_id = :'id';
select status, snowflake_status from workflow_executions;
reset role;
select replace(execution_id, :'id', 'the id') as execution, state, user_id, row_user_id, options, generation from public.queue;
set role app;
-- What changes nothing about the result enters nothing; another result does, in the upload that still waits.
update workflow_executions set completed_at = now(), snowflake_status = 'uploading', status = 'completed';
update workflow_executions set result_rows = '[{"a": 2}]';
insert into workflow_executions (execution_id, user_id, status, snowflake_enabled, result_rows, snowflake_options) values
    ('inserted', 'ann', 'completed', true, '[]', '{"config": "second"}'), ('not wanted', 'ann', 'completed', false, '[]', null),
    ('failed', 'ann', 'failed', true, null, null);
insert into mine (run, state, rows, snowflake_enabled) values (1, 'done', '[]', true), (2, 'undone', '[]', true), (3, 'also done', '[]', true);
reset role;
select replace(execution_id, :'id', 'the id') as execution, state, user_id, row_user_id, options, generation from public.queue;

-- Options that make no sense are entered as they are: they fail the upload, not the application.
set role app;
insert into workflow_executions (execution_id, status, snowflake_enabled, result_rows, snowflake_options)
values ('bad options', 'completed', true, '[]', '{"no such option": 1}'), ('no options', 'completed', true, '[]', '[1]');
select snowflake_status from workflow_executions where execution_id like '% options';
-- Neither does a watch that is gone, or somebody else's.
reset role;
select id as watch_id from snowflake_bridge.watches where relation = 'app.workflow_executions'::regclass \gset
create table other.trap (like app.workflow_executions including all);
alter table other.trap owner to other;
set role other;
select format('create trigger trap after insert on other.trap for each row execute function snowflake_bridge.enqueue(%L)', :'watch_id') \gexec
insert into other.trap (execution_id, status, snowflake_enabled, result_rows) values ('stolen', 'completed', true, '[]');
create trigger trip after insert on other.trap for each row execute function snowflake_bridge.enqueue('no number');
drop trigger trap on other.trap;
insert into other.trap (execution_id, status, snowflake_enabled, result_rows) values ('stolen too', 'completed', true, '[]');
select count(*) from other.trap;
reset role;
select execution_id, options from public.queue where execution_id like 'stolen%' or execution_id like '% options' order by 1;

-- Partitions count as the table they belong to.
set role app;
create table parts (execution_id text primary key, user_id text, status text, result_rows jsonb, result_columns jsonb) partition by list (execution_id);
create table part_one partition of parts for values in ('one');
select snowflake_bridge.watch('parts') > 0 as watched;
insert into parts (execution_id, status, result_rows, snowflake_enabled) values ('one', 'completed', '[]', true);
reset role;
select execution_id, state from public.queue where execution_id = 'one';

-- One execution on request, whatever its flag; only what the caller can see, and wait, cancel and retry only what is theirs.
set role app;
select snowflake_bridge.upload('not wanted', 'workflow_executions') as upload \gset
select snowflake_bridge.upload('no such', 'workflow_executions');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.upload('1', 'mine') > 0 as queued;
select snowflake_bridge.upload('1', 'part_one');
set role other;
select snowflake_bridge.upload('not wanted', 'app.workflow_executions');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
select snowflake_bridge.cancel_upload(:upload);
select snowflake_bridge.retry_upload(:upload);
select snowflake_bridge.wait_for_upload(:upload);
set role app;
set client_min_messages = warning;
select snowflake_bridge.wait_for_upload(:upload, '0');
begin;
select snowflake_bridge.upload('failed', 'workflow_executions') as own \gset
select snowflake_bridge.wait_for_upload(:own);
rollback;
reset client_min_messages;
\set VERBOSITY default
select snowflake_bridge.cancel_upload(:upload), snowflake_bridge.cancel_upload(:upload) as again;
select snowflake_bridge.retry_upload(:upload), snowflake_bridge.retry_upload(:upload) as again;

-- Nothing is done where the owner of an index, a materialized view or the like did not ask.
create function app.within(call text) returns text language plpgsql immutable as
    'begin execute call; return call; exception when others then raise notice ''%: %'', call, sqlerrm; return call; end';
create table app.calls as
select 'select snowflake_bridge.' || call as call
  from unnest(array['watch(''app.workflow_executions'')', 'unwatch(''app.workflow_executions'')',
                    'upload(''failed'', ''app.workflow_executions'')', 'wait_for_upload(1)', 'retry_upload(1)', 'cancel_upload(1)',
                    'backfill(null, ''app.workflow_executions'')', 'create_execution(''{}'', ''app.workflow_executions'')',
                    'get_config()', 'delete_config()', 'test_connection()', 'upload_query(''select 1'', ''t'')']) call;
create index on app.calls (app.within(call));
reset role;
create table app.calls_of_boss as
select 'select snowflake_bridge.' || call as call from unnest(array['generate_key_file()', 'adopt()', 'grant_usage(''app'')', 'encryption_keys()']) call;
create index on app.calls_of_boss (app.within(call));
set role app;

-- unwatch ends what waits, and leaves the table to its owner, who alone may do it; only tables are watched at all.
set role other;
select snowflake_bridge.unwatch('app.workflow_executions');
set role app;
create view app.seen as select '1'::text as execution_id, 'completed'::text as status;
select snowflake_bridge.watch('seen');
-- Nobody but its session can read a temporary one.
create temporary table fleeting (like workflow_executions including all);
create temporary view fleeting_rows as select execution_id, 1 as a from fleeting;
create unlogged table unlogged (like workflow_executions including all);
select snowflake_bridge.watch('fleeting');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.watch('pg_temp.made', create_if_missing => true);
select snowflake_bridge.watch('unlogged', result_relation => 'fleeting_rows');
select snowflake_bridge.watch('unlogged') > 0 as watched;
drop table fleeting cascade;
drop table unlogged;
select snowflake_bridge.unwatch('workflow_executions'), snowflake_bridge.unwatch('workflow_executions') as again;
select tgname from pg_trigger where tgrelid = 'workflow_executions'::regclass;
insert into workflow_executions (execution_id, status, snowflake_enabled, result_rows) values ('after', 'completed', true, '[]');
reset role;
select state, count(*) from public.queue group by state order by state;

-- The extension does not go while its triggers are in use.
\set VERBOSITY terse
drop extension snowflake_bridge;
drop view public.queue;
drop extension snowflake_bridge cascade;
select tgname from pg_trigger where tgname like 'snowflake_bridge%';
drop schema app, other cascade;
drop role app, other;
