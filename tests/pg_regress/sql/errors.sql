-- What is refused, with which SQLSTATE, and what the user is told to do.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
set search_path = snowflake_bridge;

-- Exactly one credential.
select create_config('myorg-myacct', username => 'u', verify => false);
\echo :LAST_ERROR_SQLSTATE
select create_config('myorg-myacct', username => 'u', password => '', verify => false);
select create_config('myorg-myacct', username => 'u', password => 'p', private_key => 'k', verify => false);
select create_config('myorg-myacct', username => 'u', password => 'p', private_key => 'k', token => 't', verify => false);
select create_config('myorg-myacct', username => 'u', private_key_passphrase => 'x', verify => false);
select create_config('myorg-myacct', username => 'u', password => 'p', private_key_passphrase => 'x', verify => false);

-- What has to be there, and how long it may be.
select create_config(null, username => 'u', password => 'p', verify => false);
select create_config('myorg-myacct', password => 'p', verify => false);
select create_config('myorg-myacct', username => 'u', password => 'p', name => '', verify => false);
select create_config('myorg-myacct', username => 'u', password => 'p', warehouse => repeat('w', 256), verify => false);
select create_config('acme-demo.localhost', username => 'u', password => 'p', warehouse => repeat('ü', 255), verify => false) is not null as created;
select create_config('myorg-myacct', username => 'u', password => 'p', database => E'a\nb', verify => false);
select create_config('myorg-myacct', username => 'u', password => repeat('p', 16385), verify => false);

-- An account is never a URL, and not repeated: it may hold a password.
select create_config('https://user:hunter2@myorg-myacct.snowflakecomputing.com/x', username => 'u', password => 'p', verify => false);
\echo :LAST_ERROR_SQLSTATE
select create_config('169.254.169.254', username => 'u', password => 'p', verify => false);
select create_config('attacker.example/foo', username => 'u', password => 'p', verify => false);

-- A test that fails is an answer; settings that make no sense are an error.
select success, message, version, account, error_code, hint from test_connection();
select success, message, version, account, error_code, hint
  from test_connection('{"account_identifier": "acme-demo.localhost", "warehouse": "COMPUTE_WH", "database": "ANALYTICS_DB",
                         "schema": "REPORTS", "role": "ANALYST_ROLE", "username": "myuser", "password": "mypassword"}'::jsonb);
select success, message, hint from test_connection(settings => '{"account_identifier": "http://x", "username": "u", "password": "p"}');
select * from test_connection('{"account": "x", "user": "u", "password": "p"}'::jsonb);
\echo :LAST_ERROR_SQLSTATE
select * from test_connection('{"account_identifier": "x", "username": 7, "password": "p"}'::jsonb);
select * from test_connection('{"account_identifier": "x", "username": "u"}'::jsonb);
select * from test_connection('{"username": "u", "password": "p"}'::jsonb);
select * from test_connection('["x"]'::jsonb);
select * from test_connection('{"account_identifier": "x"}');
select * from test_connection('no such');
\echo :LAST_ERROR_SQLSTATE
select count(*) from test_connection(settings => null);

-- The outcome of a test is noted.
select create_config('acme-demo.localhost', username => 'u', password => 'p', name => 'unreachable', verify => false) is not null as created;
select success from test_connection('unreachable');
select is_active, last_tested_at is not null as tested, last_test_error is not null as failed from get_config('unreachable');
begin read only;
select success from test_connection('unreachable');
commit;
select list_tables(config => 'unreachable');
\echo :LAST_ERROR_SQLSTATE

-- Nothing answers where the current user is not the one who asked.
create materialized view asked as select name from get_config();
\echo :LAST_ERROR_SQLSTATE

-- Functions for superusers.
select grant_usage('no such role');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY sqlstate
select generate_key_file();

drop extension snowflake_bridge;
