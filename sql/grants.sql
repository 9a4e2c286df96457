-- Who may do what. Runs last: first what each function is for, then away with every privilege that somebody would get
-- without having been given it.
--
-- "API: public" is what snowflake_bridge.grant_usage() gives to a role; "API: superuser" and "API: private" it does not.

comment on function snowflake_bridge.create_config(text, text, text, text, text, text, text, text, text, text, text, text, text, text, text, text, boolean, text) is
    'API: public. Saves a Snowflake connection with exactly one of password, private_key, token, oauth_token or oauth_client_id with oauth_client_secret, after it has worked; verify => false saves it untested.';
comment on function snowflake_bridge.update_config(text, text, text, text, text, text, text, text, text, text, text, text, text, text, text, text, boolean, text) is
    'API: public. Changes what is given of a Snowflake connection, after the outcome has worked; an empty string takes an optional value away. A change of account, user name, method, OAuth client or token URL needs the secret again.';
comment on function snowflake_bridge.get_config(text, text) is
    'API: public. The caller''s Snowflake connections, or the one of that name; never a secret.';
comment on function snowflake_bridge.delete_config(text, text) is
    'API: public. Deletes a Snowflake connection; uploads that wait to use it fail.';
comment on function snowflake_bridge.public_key(text, text) is
    'API: public. The ALTER USER statement with which Snowflake learns the public half of the stored private key.';
comment on function snowflake_bridge.test_connection(text, text) is
    'API: public. Tests a saved Snowflake connection. Always one row: a connection that does not work is an answer, not an error.';
comment on function snowflake_bridge.test_connection(jsonb) is
    'API: public. Tests settings that are not saved. Always one row: a connection that does not work is an answer, not an error.';
comment on function snowflake_bridge.list_tables(text, text, text, text) is
    'API: public. The tables of a Snowflake schema or database, by SHOW TABLES, which wakes no warehouse.';
comment on function snowflake_bridge.delete_uploaded(interval, text, text, text, text, text) is
    'API: public. Deletes the rows of a Snowflake table that uploads brought longer ago than older_than; returns how many. Rows that came otherwise stay.';
comment on function snowflake_bridge.watch(text, boolean, boolean, text, text, text, text, text, text[], text, text) is
    'API: public. Makes a table one whose finished rows are uploaded: adds the snowflake_* columns and four triggers. By the table''s owner, who also owns the result_function or result_relation that gives the rows, if one does. With act_for_users, which takes a superuser, each row goes out over the connection of the user it names, and over no other.';
comment on function snowflake_bridge.unwatch(text) is
    'API: public. Takes the triggers of watch away; columns and rows stay.';
comment on function snowflake_bridge.mark_pending() is
    'API: public. Trigger of a watched table: a row that has just finished gets snowflake_status = pending.';
comment on function snowflake_bridge.enqueue() is
    'API: public. Trigger of a watched table: has a row that has just finished entered in the queue.';
comment on function snowflake_bridge.gather() is
    'API: public. Trigger of a watched table, before and after a statement: what its rows have brought goes into the queue together.';
comment on function snowflake_bridge.create_execution(jsonb, text) is
    'API: public. Inserts an execution into a watched table from the JSON of a report request; returns its execution_id.';
comment on function snowflake_bridge.upload(text, text) is
    'API: public. Queues one execution now, whatever its snowflake_enabled says; returns the id of the upload.';
comment on function snowflake_bridge.upload_query(text, text, text, text, text, text, jsonb, text) is
    'API: public. Runs a query as the caller, in the caller''s snapshot, and queues its rows for a Snowflake table; returns the id of the upload. The query''s text is not kept. Not through a gateway, whose users it would let leave their role.';
comment on function snowflake_bridge.upload_table(regclass, text, text, text, text, text, jsonb, text) is
    'API: public. As upload_query, for all rows of a table, view or other relation; the target''s name is the relation''s unless given.';
comment on function snowflake_bridge.wait_for_upload(bigint, interval) is
    'API: public. Waits until an upload has ended, and sends its progress as notices; returns its state.';
comment on function snowflake_bridge.backfill(timestamptz, text, text, boolean, boolean) is
    'API: public. Queues finished, enabled executions of the caller''s watched tables that were never queued, or whose upload unwatch canceled, and that finished at since or later by time_column; NULL is all of them. again takes also those whose last upload has completed, and replaces their rows. Returns how many; dry_run only counts them.';
comment on function snowflake_bridge.retry_upload(bigint) is
    'API: public. Queues an upload that has failed again; false if it had not, or if its rows went when it was canceled.';
comment on function snowflake_bridge.cancel_upload(bigint) is
    'API: public. Ends an upload, also one under way unless its rows are being committed; false if it has ended. A failed upload of a query lets go of its files.';
comment on function snowflake_bridge.upload_progress() is
    'API: public. The caller''s unfinished uploads, live.';
comment on function snowflake_bridge.upload_stats() is
    'API: public. The caller''s uploads in the history, in numbers for each user and target table.';
comment on function snowflake_bridge.execution_status() is
    'API: public. How the latest upload of each execution stands, as the execution''s own row shows it; for tables that cannot be written to.';
comment on function snowflake_bridge.worker_status() is
    'API: public. The worker of this database, how many uploads are in which state, and what the caller''s last error was.';
comment on function snowflake_bridge.notify_launcher() is
    'API: private. Called by the install script, so that a worker starts when CREATE EXTENSION commits.';
comment on function snowflake_bridge.is_upload(text, text, oid) is
    'API: private. Whether a row of uploads can be: its state is one, and its owner a role with an OID or a JWT subject without.';
comment on function snowflake_bridge.upper_name(text) is
    'API: private. A name in upper case, as names are folded for Snowflake, whatever the locale.';
comment on function snowflake_bridge.account_identity(text) is
    'API: private. An account identifier as it is told from others: however it is written, an account has one.';
comment on function snowflake_bridge.check() is
    'API: public. What is right and what is wrong with this installation, and what to do about it.';
comment on function snowflake_bridge.caller() is
    'API: public. Whom the extension takes the caller for. Row level security compares with it.';
comment on function snowflake_bridge.grant_usage(text) is
    'API: superuser. Lets a role use the extension: call its public functions, and read its own configurations and uploads.';
comment on function snowflake_bridge.revoke_usage(text) is
    'API: superuser. Takes back what grant_usage gave.';
comment on function snowflake_bridge.adopt(boolean) is
    'API: superuser. Makes a copy of a database an installation of its own; the unfinished uploads that it has brought along are canceled, or, with take_over, sent from here. Returns how many there were.';
comment on function snowflake_bridge.generate_key_file(boolean) is
    'API: superuser. Makes the file that snowflake_bridge.key_file names, with a new key, and returns its path. With replace_lost also where secrets exist that only a lost file decrypts: each then has to be brought again.';
comment on function snowflake_bridge.encryption_keys() is
    'API: superuser. The keys of the key file, and those that are missing there, with the number of stored secrets that each encrypts. A key without secrets is needed for old backups only.';
comment on procedure snowflake_bridge.rotate_encryption_key() is
    'API: superuser. Adds a new key to the key file and encrypts all secrets anew with it, each configuration in a transaction of its own; goes on with a rotation that was interrupted. Older keys stay, to decrypt.';

-- PUBLIC may execute new functions by default, and default privileges may give anything to anybody: on Supabase they give
-- the role of anonymous visitors all privileges on what an extension makes.
do $$
declare
    object record;
begin
    for object in
        with object (kind, name, owner, privileges) as (
            select 'schema', quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
              from pg_namespace n
             where n.nspname = 'snowflake_bridge'
            union all
            select case c.relkind when 'S' then 'sequence' else 'table' end, c.oid::regclass::text, c.relowner,
                   coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner))
              from pg_class c
             where c.relnamespace = 'snowflake_bridge'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
            union all
            select 'routine', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
              from pg_proc p
             where p.pronamespace = 'snowflake_bridge'::regnamespace
        )
        select distinct o.kind, o.name, a.grantee
          from object o, aclexplode(o.privileges) a
         where a.grantee <> o.owner
    loop
        execute format('revoke all on %s %s from %s', object.kind, object.name,
                       case when object.grantee = 0 then 'public' else object.grantee::regrole::text end);
    end loop;
end;
$$;

-- The database has the extension as soon as this commits, and wants its worker.
do $$
begin
    perform snowflake_bridge.notify_launcher();
end;
$$;
