-- Who may do what. Runs last: first what each function is for, then away with every privilege that somebody would get
-- without having been given it.
--
-- "API: public" is what snowflake_bridge.grant_usage() gives to a role; "API: superuser" and "API: private" it does not.

comment on function snowflake_bridge.create_config(text, text, text, text, text, text, text, text, text, text, text, boolean, text) is
    'API: public. Saves a Snowflake connection with exactly one of password, private_key or token, after it has worked; verify => false saves it untested.';
comment on function snowflake_bridge.update_config(text, text, text, text, text, text, text, text, text, text, text, boolean, text) is
    'API: public. Changes what is given of a Snowflake connection, after the outcome has worked; an empty string takes an optional value away. A change of account, user name or method needs the secret again.';
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
comment on function snowflake_bridge.check() is
    'API: public. What is right and what is wrong with this installation, and what to do about it.';
comment on function snowflake_bridge.caller() is
    'API: public. Whom the extension takes the caller for. Row level security compares with it.';
comment on function snowflake_bridge.grant_usage(text) is
    'API: superuser. Lets a role use the extension: call its public functions, and read its own configurations and uploads.';
comment on function snowflake_bridge.revoke_usage(text) is
    'API: superuser. Takes back what grant_usage gave.';
comment on function snowflake_bridge.generate_key_file() is
    'API: superuser. Makes the file that snowflake_bridge.key_file names, with a new key, and returns its path.';

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
            select 'function', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
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
