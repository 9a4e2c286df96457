-- OAuth: a given access token, or a client that fetches its own; what belongs together, and what a stored secret is for.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
set search_path = snowflake_bridge;

-- An access token as it is. It names the user, so that nobody else has to.
select create_config('myorg-myacct', oauth_token => 'marker-Xyzzy-1', name => 'given', verify => false) is not null as created;
-- A client at the account's own address, and one at an OAuth server that a superuser listed.
select create_config('myorg-myacct', username => 'LOADER', oauth_client_id => 'client-1', oauth_client_secret => 'marker-Xyzzy-2',
                     name => 'own', verify => false) is not null as created;
select create_config('myorg-myacct', oauth_client_id => 'client-2', oauth_client_secret => 'marker-Xyzzy-3',
                     oauth_token_url => 'http://acme-demo.localhost:9/oauth/token', oauth_scope => 'session:role:INGEST offline',
                     name => 'listed', verify => false) is not null as created;
select name, username, auth_method, oauth_client_id, oauth_token_url, oauth_scope from get_config();
select name, octet_length(oauth_token_encrypted) as token, octet_length(oauth_client_secret_encrypted) as secret,
       position('Xyzzy' in encode(coalesce(oauth_token_encrypted, oauth_client_secret_encrypted), 'escape')) as readable_at,
       num_nonnulls(password_encrypted, private_key_encrypted, private_key_passphrase_encrypted, token_encrypted) as others
  from snowflake_configurations order by name;

-- One credential, and all of it.
select create_config('myorg-myacct', oauth_client_id => 'c', verify => false);
\echo :LAST_ERROR_SQLSTATE
select create_config('myorg-myacct', oauth_client_secret => 's', verify => false);
select create_config('myorg-myacct', oauth_client_id => '', oauth_client_secret => 's', verify => false);
select create_config('myorg-myacct', oauth_token_url => 'https://idp.example.com/token', verify => false);
select create_config('myorg-myacct', oauth_token => 't', oauth_scope => 'x', verify => false);
select create_config('myorg-myacct', oauth_token => 't', oauth_client_id => 'c', oauth_client_secret => 's', verify => false);
select create_config('myorg-myacct', username => 'u', password => 'p', oauth_token => 't', verify => false);
select create_config('myorg-myacct', password => 'p', oauth_token => '', verify => false);
select create_config('myorg-myacct', oauth_client_id => E'a\nb', oauth_client_secret => 's', verify => false);
select create_config('myorg-myacct', oauth_token => repeat('t', 16385), verify => false);
select create_config('myorg-myacct', oauth_client_id => 'c', oauth_client_secret => 's', oauth_scope => repeat('s', 2049), verify => false);

-- A secret goes to the account itself, or to a host that a superuser listed. An address is not repeated where it may hold
-- a password.
select create_config('myorg-myacct', oauth_client_id => 'c', oauth_client_secret => 's', oauth_token_url => 'https://idp.example.com/oauth/token', name => 'url', verify => false);
\echo :LAST_ERROR_SQLSTATE
select create_config('myorg-myacct', oauth_client_id => 'c', oauth_client_secret => 's', oauth_token_url => 'https://acme-demo.localhost:9/token', name => 'url', verify => false);
select create_config('myorg-myacct', oauth_client_id => 'c', oauth_client_secret => 's', oauth_token_url => 'http://u:hunter2@acme-demo.localhost:9/token', name => 'url', verify => false);
select create_config('myorg-myacct', oauth_client_id => 'c', oauth_client_secret => 's', oauth_token_url => 'hunter2', name => 'url', verify => false);
select create_config('myorg-myacct', oauth_client_id => 'c', oauth_client_secret => 's',
                     oauth_token_url => 'https://MYORG-myacct.snowflakecomputing.com/oauth/token-request', name => 'url', verify => false) is not null as created;

-- A stored secret is only ever sent to the account, the user and the OAuth server it was given for.
select update_config('own', oauth_token_url => 'http://acme-demo.localhost:9/oauth/token', verify => false);
\echo :LAST_ERROR_SQLSTATE
select update_config('own', oauth_client_id => 'client-9', verify => false);
select update_config('listed', oauth_token_url => '', verify => false);
select update_config('listed', account_identifier => 'evil-acct', verify => false);
select update_config('listed', username => 'SOMEBODY', verify => false);
select update_config('given', username => 'SOMEBODY', verify => false);
-- What is not said of a client stays; a new secret needs no more than itself.
select update_config('listed', warehouse => 'LOAD_WH', oauth_client_id => 'client-2', oauth_scope => 'session:role:OTHER', verify => false);
select warehouse, oauth_client_id, oauth_token_url, oauth_scope from get_config('listed');
select update_config('listed', oauth_client_secret => 'marker-Xyzzy-4', oauth_scope => '', verify => false);
select oauth_client_id, oauth_token_url, oauth_scope from get_config('listed');
select update_config('listed', oauth_client_id => 'client-3', oauth_token_url => '', oauth_client_secret => 'marker-Xyzzy-5', verify => false);
select oauth_client_id, oauth_token_url, oauth_scope from get_config('listed');
-- The user name can go where the token tells it, and only there.
select update_config('own', username => '', oauth_client_secret => 'marker-Xyzzy-6', verify => false);
select update_config('own', password => 'p', verify => false);
-- Another method takes the client away with its secret, and the other way round.
select update_config('own', username => 'LOADER', password => 'p', verify => false);
select username, auth_method, oauth_client_id, oauth_token_url from get_config('own');
select update_config('own', username => '', verify => false);
select update_config('own', oauth_scope => 'x', verify => false);
select update_config('own', oauth_client_id => 'client-1', verify => false);
select update_config('own', oauth_token => 'marker-Xyzzy-7', verify => false);
select username, auth_method, oauth_client_id from get_config('own');
select num_nonnulls(password_encrypted, oauth_client_secret_encrypted) as others from snowflake_configurations where name = 'own';

-- A row that was changed by hand cannot be opened: no secret leaves with a name or an address it was not given for.
begin;
update snowflake_configurations set oauth_client_id = 'client-9' where name = 'listed';
select success, message, error_code, hint from test_connection('listed');
rollback;
begin;
update snowflake_configurations set oauth_token_url = 'http://acme-demo.localhost:9/evil' where name = 'listed';
select success, message, error_code from test_connection('listed');
rollback;
begin;
update snowflake_configurations set username = 'SOMEBODY' where name = 'given';
select success, message, error_code from test_connection('given');
rollback;
begin;
update snowflake_configurations set oauth_token_encrypted = null where name = 'given';
select success, message, error_code from test_connection('given');
rollback;
-- Nor does the table take half a credential.
\set VERBOSITY terse
update snowflake_configurations set oauth_client_id = null where name = 'listed';
update snowflake_configurations set auth_method = 'token', username = null where name = 'given';
update snowflake_configurations set oauth_scope = 'x' where name = 'given';
\set VERBOSITY default

-- Settings that are not saved: OAuth, and a password with its one-time code. Nobody listens here.
select success, message from test_connection('{"account_identifier": "acme-demo.localhost", "oauth_token": "t"}'::jsonb);
select success, message from test_connection('{"account_identifier": "acme-demo.localhost", "oauth_client_id": "c", "oauth_client_secret": "s",
                                               "oauth_token_url": "http://acme-demo.localhost:9/t", "oauth_scope": "x"}'::jsonb);
select success, message, hint from test_connection('{"account_identifier": "acme-demo.localhost", "oauth_client_id": "c", "oauth_client_secret": "s",
                                                     "oauth_token_url": "https://idp.example.com/t"}'::jsonb);
select success, message from test_connection('{"account_identifier": "acme-demo.localhost", "username": "u", "password": "p", "passcode": "123456"}'::jsonb);
select success from test_connection('{"account_identifier": "acme-demo.localhost", "username": "u", "passcode": "123456"}'::jsonb);
\echo :LAST_ERROR_SQLSTATE
select success from test_connection('{"account_identifier": "acme-demo.localhost", "username": "u", "token": "t", "passcode": "123456"}'::jsonb);
select success from test_connection('{"account_identifier": "acme-demo.localhost", "oauth_client_secret": "s"}'::jsonb);

drop extension snowflake_bridge;
