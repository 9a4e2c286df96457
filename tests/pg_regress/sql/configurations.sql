-- The life of a configuration: saved, shown, changed, deleted. Nobody listens on the account's host here, so nothing is
-- saved that is tested first.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
set search_path = snowflake_bridge;

-- Tested before it is saved: an account that cannot be reached leaves nothing behind.
select create_config('acme-demo.localhost', username => 'LOADER', password => 'marker-Xyzzy-1');
\echo :LAST_ERROR_SQLSTATE
select count(*) from snowflake_configurations;

-- verify => false saves it as it is.
select create_config(account_identifier => 'acme-demo.localhost', warehouse => 'COMPUTE_WH', database => 'ANALYTICS_DB',
                     username => 'LOADER', password => 'marker-Xyzzy-2', verify => false) is not null as created;
select create_config(account_identifier => 'myorg-myacct', username => 'robot', token => 'marker-Xyzzy-3', role => 'INGEST',
                     schema => null, name => 'second', verify => false) is not null as created;

-- What is shown: names as they were given, and no secret.
select name, account_identifier, warehouse, database, schema, role, username, auth_method, is_active, last_tested_at,
       last_test_error
  from get_config();
select name from get_config('second');
select name from get_config('no such');

-- What is stored: ciphertext, under a nonce of its own each time.
select name, octet_length(password_encrypted) as password, octet_length(token_encrypted) as token,
       substr(coalesce(password_encrypted, token_encrypted), 1, 3) as envelope,
       position('Xyzzy' in encode(coalesce(password_encrypted, token_encrypted), 'escape')) as readable_at
  from snowflake_configurations order by name;

-- A name is taken once.
select create_config('acme-demo.localhost', username => 'U', password => 'p', verify => false);
\echo :LAST_ERROR_SQLSTATE

-- An update changes what is given; an empty string takes an optional value away; the stored secret stays.
create temporary table before as select * from snowflake_configurations where name = 'default';
select update_config(warehouse => 'LOAD_WH', role => 'INGEST', database => '', verify => false);
select c.warehouse, c.database, c.schema, c.role, c.username, c.version - b.version as versions, c.id = b.id as same_id,
       c.password_encrypted <> b.password_encrypted as sealed_anew, c.created_at = b.created_at as same_creation
  from snowflake_configurations c, before b where c.name = 'default';

-- A stored secret is only ever sent to the account and user it was given for.
select update_config(account_identifier => 'evil-acct', verify => false);
select update_config(username => 'SOMEBODY_ELSE', verify => false);
select update_config(account_identifier => 'myorg-myacct', username => 'SOMEBODY_ELSE', password => 'p', verify => false);
-- Another spelling of the same host is the same account.
select update_config(account_identifier => 'MyOrg-MyAcct.snowflakecomputing.com', verify => false);
-- Another method brings its own secret, and the old one goes.
select update_config(token => 'marker-Xyzzy-4', verify => false);
select account_identifier, username, auth_method, password_encrypted is null as no_password, token_encrypted is not null as token
  from snowflake_configurations where name = 'default';
-- An update is tested too, and what was there stays until its replacement works.
select update_config(account_identifier => 'acme-demo.localhost', password => 'p');
select account_identifier, auth_method, version from snowflake_configurations where name = 'default';

-- Uploads that waited for other credentials go on.
insert into uploads (execution_id, user_id, owner_kind, owner_oid, state, config_id)
select 'waiting', 'postgres', 'role', c.owner_oid, 'needs_credentials', c.id
  from snowflake_configurations c where c.name = 'default';
insert into uploads (execution_id, user_id, owner_kind, owner_oid, state, options)
select e.id, c.user_id, c.owner_kind, c.owner_oid, 'needs_credentials', e.options::jsonb
  from snowflake_configurations c, (values ('not begun', '{}'), ('for another', '{"config": "second"}')) e (id, options)
 where c.name = 'default';
update snowflake_configurations set is_active = false where name = 'default';
select update_config(token => 'marker-Xyzzy-5', verify => false);
select execution_id, state, next_attempt_at <= now() as due, needs_mirror from uploads order by id;
select is_active from get_config('default');
delete from uploads where config_id is null;

-- Deleting ends the uploads that would have used it, and only those.
insert into uploads (execution_id, user_id, owner_kind, owner_oid, state, options)
select e.id, o.user_id, o.owner_kind, o.owner_oid, e.state, e.options::jsonb
  from (select c.user_id, c.owner_kind, c.owner_oid from snowflake_configurations c where c.name = 'default') o,
       (values ('by default', 'queued', '{}'), ('by name', 'queued', '{"config": "default"}'),
               ('by another name', 'queued', '{"config": "second"}'), ('done', 'completed', '{}')) e (id, state, options);
insert into uploads (execution_id, user_id, owner_kind, owner_oid) values ('of somebody else', 'somebody', 'jwt', 0);
select delete_config();
select execution_id, state, error_message, error_sqlstate, error_hint, completed_at is not null as ended
  from uploads order by id;
select delete_config();
\echo :LAST_ERROR_SQLSTATE
select name from get_config();

drop extension snowflake_bridge cascade;
