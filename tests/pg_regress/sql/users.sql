-- Users who are no roles: those of a web application, named by the claims of a trusted session or by a trusted backend.
\set SHOW_CONTEXT never
create role authenticator noinherit;
create role web;
create role service_role;
create role pretender;
grant web, service_role to authenticator;
create extension snowflake_bridge;
select snowflake_bridge.grant_usage('web'), snowflake_bridge.grant_usage('service_role'), snowflake_bridge.grant_usage('pretender');
create function public.who_asks() returns text language sql security definer as
    $$ select c.owner_kind || ' ' || c.user_id from snowflake_bridge.caller() c $$;
alter function public.who_asks() owner to pretender;

-- PostgREST logs in as authenticator, and says in each transaction who asks.
set session authorization authenticator;
begin;
set local role web;
set local request.jwt.claims = '{"sub": "9f8e-ann", "role": "web"}';
select owner_kind, user_id from snowflake_bridge.caller();
select snowflake_bridge.create_config('myorg-ann', username => 'ann', password => 'p', verify => false) is not null as created;
commit;
begin;
set local role web;
set local request.jwt.claims = '{"sub": "1a2b-ben", "role": "web"}';
select name from snowflake_bridge.get_config();
select count(*) from snowflake_bridge.snowflake_configurations;
select snowflake_bridge.create_config('myorg-ben', username => 'ben', password => 'p', verify => false) is not null as created;
select account_identifier from snowflake_bridge.get_config();
select account_identifier, user_id, owner_kind from snowflake_bridge.snowflake_configurations;
select snowflake_bridge.get_config(user_id => '9f8e-ann');
rollback;
-- Without a subject it is the role that asks; claims that cannot be read are refused.
begin;
set local role web;
set local request.jwt.claims = '{"role": "web"}';
select owner_kind, user_id from snowflake_bridge.caller();
-- What it saved would be everybody's who has no subject.
savepoint before;
select snowflake_bridge.create_config('myorg-web', username => 'web', password => 'p', verify => false);
\echo :LAST_ERROR_SQLSTATE
rollback to before;
select snowflake_bridge.update_config(warehouse => 'W', verify => false);
rollback to before;
select snowflake_bridge.delete_config();
rollback to before;
-- Nor does SQL of a user's run in this session, whoever asks; a table's rows do.
set local request.jwt.claims = '{"sub": "9f8e-ann", "role": "web"}';
select snowflake_bridge.upload_query('select 1 as n', 't');
\echo :LAST_ERROR_SQLSTATE
rollback to before;
set local role service_role;
select snowflake_bridge.upload_query('select 1 as n', 't', user_id => '9f8e-ann');
rollback to before;
set local request.jwt.claims = '{"sub": "9f8e-ann", "role": "web"}';
select snowflake_bridge.upload_table('pg_catalog.pg_am', 'methods') > 0 as queued;
-- In a SECURITY DEFINER function its owner asks, whatever the claims say.
select public.who_asks();
set local request.jwt.claims = '{"sub": ';
select owner_kind, user_id from snowflake_bridge.caller();
rollback;
-- A backend that acts for its users names them.
begin;
set local role service_role;
select account_identifier from snowflake_bridge.get_config(user_id => '9f8e-ann');
select snowflake_bridge.update_config(warehouse => 'W', verify => false, user_id => '9f8e-ann');
select warehouse from snowflake_bridge.get_config(user_id => '9f8e-ann');
select snowflake_bridge.get_config(user_id => '');
rollback;
reset session authorization;

-- The same words from any other session change nothing.
set session authorization pretender;
set request.jwt.claims = '{"sub": "9f8e-ann", "role": "service_role"}';
select owner_kind, user_id from snowflake_bridge.caller();
select count(*) from snowflake_bridge.get_config();
select count(*) from snowflake_bridge.snowflake_configurations;
select snowflake_bridge.delete_config(user_id => '9f8e-ann');
reset session authorization;
reset request.jwt.claims;

-- A superuser may act for anybody.
select account_identifier from snowflake_bridge.get_config(user_id => '9f8e-ann');
select snowflake_bridge.delete_config(user_id => '9f8e-ann');

drop extension snowflake_bridge;
drop owned by web, service_role, pretender;
drop role authenticator, web, service_role, pretender;
