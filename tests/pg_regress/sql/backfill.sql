-- What should have been uploaded and never was. The worker does not run here.
\set SHOW_CONTEXT never
create role app;
create role other;
create extension snowflake_bridge;
select snowflake_bridge.grant_usage('app'), snowflake_bridge.grant_usage('other');
create schema app authorization app;
create view queue as
select u.id, u.execution_id, u.state, u.user_id, u.row_user_id, u.options from snowflake_bridge.uploads u order by u.id;
set role app;
set search_path = app;
grant usage on schema app to other;

-- Rows that were there before the watch; only what is finished and enabled counts.
create table runs (execution_id text primary key, status text, user_id text, result_rows jsonb, result_columns jsonb,
                   completed_at timestamptz, ended timestamptz, snowflake_enabled boolean not null default false);
insert into runs (execution_id, status, user_id, completed_at, ended, snowflake_enabled) values
    ('old', 'completed', 'u1', '2024-01-01', '2024-03-01', true),
    ('new', 'completed', 'u2', '2024-02-01', '2024-01-01', true),
    ('off', 'completed', 'u2', '2024-02-01', '2024-01-01', false),
    ('going', 'running', 'u2', null, null, true);
select snowflake_bridge.watch('runs') > 0 as watched;
update runs set snowflake_options = '{"strategy": "replace"}', snowflake_table_name = 't' where execution_id = 'new';
select snowflake_bridge.backfill('2024-01-15', 'runs');
select snowflake_bridge.backfill('2024-01-15', 'runs', time_column => 'ended');
select snowflake_bridge.backfill(null);
reset role;
table public.queue;
set role app;
select snowflake_bridge.backfill('2024-01-01', 'runs', time_column => 'no such');
\echo :LAST_ERROR_SQLSTATE

-- A trigger that was disabled, or that could only warn.
alter table runs disable trigger snowflake_bridge_upload;
insert into runs (execution_id, status, snowflake_enabled) values ('silent', 'completed', true);
alter table runs enable trigger snowflake_bridge_upload;
reset role;
alter table snowflake_bridge.uploads add constraint full_disk check (execution_id <> 'warned');
alter table snowflake_bridge.missed add constraint full_disk check (execution_id <> 'warned');
set role app;
insert into runs (execution_id, status, snowflake_enabled) values ('warned', 'completed', true);
reset role;
alter table snowflake_bridge.uploads drop constraint full_disk;
set role app;
-- How many there are, without queueing them.
select snowflake_bridge.backfill(null, 'runs', dry_run => true);
select snowflake_bridge.backfill(null, 'runs');
select snowflake_bridge.backfill(null, 'runs', dry_run => true);

-- A result that changed unseen after it was uploaded. What waits, has failed or was canceled by hand is left alone.
reset role;
begin;
update snowflake_bridge.uploads u set state = s.state from (values ('old', 'completed'), ('new', 'failed'), ('silent', 'canceled')) s (id, state)
 where s.id = u.execution_id;
set role app;
select snowflake_bridge.backfill(null, 'runs') as without_again, snowflake_bridge.backfill(null, 'runs', again => true, dry_run => true) as dry,
       snowflake_bridge.backfill(null, 'runs', again => true), snowflake_bridge.backfill(null, 'runs', again => true) as once_more;
reset role;
select execution_id, state from public.queue;
rollback;
set role app;

-- unwatch cancels what waits, and says so on the rows; a new watch and backfill bring it back. What was canceled by hand
-- stays so.
select u.id as canceled from snowflake_bridge.uploads u where u.execution_id = 'old' \gset
select snowflake_bridge.cancel_upload(:canceled);
select snowflake_bridge.unwatch('runs');
select snowflake_bridge.backfill(null, 'runs');
select snowflake_bridge.backfill(null);
reset role;
select u.execution_id, u.state, u.error_message, u.error_hint, u.needs_mirror from snowflake_bridge.uploads u order by u.id;
set role app;
select snowflake_bridge.watch('runs') > 0 as watched;
select snowflake_bridge.backfill(null);
select snowflake_bridge.backfill(null);
reset role;
select execution_id, state from public.queue;

-- Only of one's own tables.
set role other;
select snowflake_bridge.backfill(null, 'app.runs');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.backfill(null);

-- Many rows at once, and partitions.
set role app;
create table parted (execution_id text primary key, status text, user_id text, result_rows jsonb, result_columns jsonb)
    partition by list (execution_id);
create table parted_rest partition of parted default;
insert into parted select 'p-' || n, 'completed' from generate_series(1, 2500) n;
select snowflake_bridge.watch('parted') > 0 as watched;
alter table parted disable trigger user;
update parted set snowflake_enabled = true;
alter table parted enable trigger user;
select snowflake_bridge.backfill(null, 'parted');
select snowflake_bridge.backfill(null, 'parted');

-- For the user that the row names, who is no role.
reset role;
select snowflake_bridge.watch('served', create_if_missing => true, act_for_users => true) > 0 as watched;
alter table served disable trigger user;
insert into served (execution_id, user_id, status, snowflake_enabled) values ('of ann', 'ann', 'completed', true);
alter table served enable trigger user;
select snowflake_bridge.backfill(null, 'served');
select execution_id, user_id, owner_kind, owner_oid from snowflake_bridge.uploads where execution_id = 'of ann';
-- While it waits, it goes over to whom the row names.
update served set user_id = 'ben', result_rows = '[]';
select user_id, row_user_id, owner_kind, owner_oid from snowflake_bridge.uploads where execution_id = 'of ann';
update served set user_id = null, result_rows = '[1]';
select user_id, row_user_id, owner_kind, owner_oid = 'postgres'::regrole as is_owners from snowflake_bridge.uploads where execution_id = 'of ann';

set client_min_messages = warning;
drop table served;
drop extension snowflake_bridge cascade;
drop schema app cascade;
drop view if exists queue;
drop role app;
drop role other;
