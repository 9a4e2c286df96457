-- The keys that secrets are encrypted with: changed for new ones, half written, lost.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
create role clerk;
select snowflake_bridge.grant_usage('clerk');
select current_setting('snowflake_bridge.key_file') as key_file \gset
\setenv KEY_FILE :key_file
-- A key file of its own for this test.
\! rm -f "$KEY_FILE"
select snowflake_bridge.generate_key_file() = :'key_file' as made;
select * from snowflake_bridge.encryption_keys();

set role clerk;
select snowflake_bridge.create_config('myorg-acct', username => 'u', password => 'p', verify => false) is not null as created;
select snowflake_bridge.create_config('myorg-acct', username => 'u', name => 'client', oauth_client_id => 'id', oauth_client_secret => 's',
    oauth_token_url => 'http://acme-demo.localhost:9/token', verify => false) is not null as created;
-- Only superusers have to do with keys.
select * from snowflake_bridge.encryption_keys();
call snowflake_bridge.rotate_encryption_key();
select snowflake_bridge.generate_key_file(replace_lost => true);
reset role;

-- It commits as it goes, so nothing can be around it.
begin;
call snowflake_bridge.rotate_encryption_key();
rollback;
create function around() returns void language sql as 'call snowflake_bridge.rotate_encryption_key()';
select around();
drop function around;

create table before as select id, password_encrypted, version, updated_at from snowflake_bridge.snowflake_configurations;
call snowflake_bridge.rotate_encryption_key();
select * from snowflake_bridge.encryption_keys();
-- The configurations say what they said, and no session that was made with them has to end.
select c.name, c.password_encrypted is distinct from b.password_encrypted as changed, c.version = b.version and c.updated_at = b.updated_at as same
  from snowflake_bridge.snowflake_configurations c join before b using (id) order by c.name;

-- One that was interrupted left secrets behind: the next goes on with the same key.
update snowflake_bridge.snowflake_configurations c set password_encrypted = b.password_encrypted from before b where b.id = c.id and c.name = 'default';
select * from snowflake_bridge.encryption_keys();
call snowflake_bridge.rotate_encryption_key();
select * from snowflake_bridge.encryption_keys();

-- What cannot be decrypted stays as it is, and stops nothing.
update snowflake_bridge.snowflake_configurations c set account_identifier = 'evil-acct' where c.name = 'default';
call snowflake_bridge.rotate_encryption_key();
select * from snowflake_bridge.encryption_keys();
update snowflake_bridge.snowflake_configurations c set account_identifier = 'myorg-acct' where c.name = 'default';
call snowflake_bridge.rotate_encryption_key();
select * from snowflake_bridge.encryption_keys();

-- Half a key file: an error that says what to do, whoever asks, and nothing of what is in it.
\! cp -p "$KEY_FILE" "$KEY_FILE.safe"; truncate -s -20 "$KEY_FILE"
\set VERBOSITY sqlstate
call snowflake_bridge.rotate_encryption_key();
set role clerk;
select snowflake_bridge.update_config(password => 'p2', verify => false);
reset role;
\set VERBOSITY default
select c.item, c.ok, replace(c.detail, :'key_file', 'KEY_FILE') as detail, c.hint from snowflake_bridge.check() c where c.item = 'key_file';
-- The line of the newest key is gone altogether: what is left only decrypts.
\! sed '/^3:/d' "$KEY_FILE.safe" > "$KEY_FILE"
call snowflake_bridge.rotate_encryption_key();
set role clerk;
select snowflake_bridge.update_config(password => 'p2', verify => false);
reset role;

-- A key file with another key of that number.
\! printf '3:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:active\n' > "$KEY_FILE"
select * from snowflake_bridge.encryption_keys();
set role clerk;
select message, error_code from snowflake_bridge.test_connection();
select snowflake_bridge.update_config(warehouse => 'W', verify => false);
-- A secret that is brought again needs no old key.
select snowflake_bridge.update_config(password => 'p2', verify => false);
reset role;
select * from snowflake_bridge.encryption_keys();

-- The key file is lost: nothing is made in its place before a superuser has said so.
\! rm "$KEY_FILE"
\set VERBOSITY sqlstate
select * from snowflake_bridge.encryption_keys();
select snowflake_bridge.generate_key_file();
set role clerk;
select snowflake_bridge.update_config(password => 'p3', verify => false);
reset role;
\set VERBOSITY default
\! test -e "$KEY_FILE" || echo none was made
select snowflake_bridge.generate_key_file(replace_lost => true) = :'key_file' as made;
-- Under a number that no secret names, so that the lost keys still have theirs.
select * from snowflake_bridge.encryption_keys();
set role clerk;
select snowflake_bridge.update_config(password => 'p3', verify => false);
reset role;
\! cat "$KEY_FILE.safe" >> "$KEY_FILE"
select * from snowflake_bridge.encryption_keys();
call snowflake_bridge.rotate_encryption_key();
select * from snowflake_bridge.encryption_keys();

\! rm "$KEY_FILE.safe"
drop table before;
drop extension snowflake_bridge;
drop role clerk;
