-- The schema and its tables. Runs first.
-- A plain CREATE SCHEMA: a schema that somebody made before is an error, never adopted with its owner and contents.
create schema snowflake_bridge;
comment on schema snowflake_bridge is 'Loads finished results into Snowflake. Managed by the extension snowflake_bridge.';

-- For the rest of the install script: functions are made where this points. pg_catalog is searched before it.
set local search_path = snowflake_bridge, pg_temp;

create table snowflake_bridge.installation (
    singleton         boolean not null default true primary key check (singleton),
    id                uuid not null default gen_random_uuid(),
    database_oid      oid not null,
    system_identifier bigint not null,
    timeline          text not null default left(pg_walfile_name(pg_current_wal_lsn()), 8),
    may_be_loaded_up_to bigint not null default 0,
    created_at        timestamptz not null default now()
);
insert into snowflake_bridge.installation (database_oid, system_identifier)
select d.oid, c.system_identifier from pg_database d, pg_control_system() c where d.datname = current_database();
comment on table snowflake_bridge.installation is
    'API: private. One row: the identity under which this database writes to a Snowflake stage, so that two databases never meet there. Not dumped: a restored copy is another installation.';
comment on column snowflake_bridge.installation.database_oid is
    'The database that it was made for; with system_identifier tells a copy, which sends nothing until adopt() is called.';
comment on column snowflake_bridge.installation.system_identifier is 'The server that it was made for.';
comment on column snowflake_bridge.installation.timeline is
    'The WAL timeline on which its worker last started. Another one tells that the server went on from an earlier state.';
comment on column snowflake_bridge.installation.may_be_loaded_up_to is
    'Uploads with an id up to this one may have been loaded without a trace here, since these records went back in time: loading one of them replaces its rows.';

create table snowflake_bridge.snowflake_configurations (
    id                               uuid not null default gen_random_uuid() primary key,
    user_id                          text not null check (user_id <> ''),
    owner_kind                       text not null check (owner_kind in ('role', 'jwt')),
    owner_oid                        oid not null default 0,
    name                             text not null default 'default' check (name <> ''),
    account_identifier               text not null,
    warehouse                        text,
    database                         text,
    schema                           text,
    role                             text,
    username                         text check (username <> ''),
    auth_method                      text not null check (auth_method in ('password', 'key_pair', 'token', 'oauth')),
    oauth_client_id                  text,
    oauth_token_url                  text,
    oauth_scope                      text,
    password_encrypted               bytea,
    private_key_encrypted            bytea,
    private_key_passphrase_encrypted bytea,
    token_encrypted                  bytea,
    oauth_token_encrypted            bytea,
    oauth_client_secret_encrypted    bytea,
    is_active                        boolean not null default true,
    last_tested_at                   timestamptz,
    last_test_error                  text,
    version                          bigint not null default 1,
    created_at                       timestamptz not null default now(),
    updated_at                       timestamptz not null default now(),
    check ((owner_kind = 'role') = (owner_oid <> 0)),
    constraint only_oauth_needs_no_username check (username is not null or auth_method = 'oauth'),
    constraint oauth_client_has_secret check ((oauth_client_id is not null) = (oauth_client_secret_encrypted is not null)),
    constraint oauth_details_have_client check (oauth_client_id is not null or (oauth_token_url is null and oauth_scope is null)),
    unique (owner_kind, user_id, owner_oid, name)
);
comment on table snowflake_bridge.snowflake_configurations is
    'API: public (read). Snowflake connections; each owner sees only their own. Written by create_config, update_config and delete_config. Secrets are encrypted with a key that is not in the database.';
comment on column snowflake_bridge.snowflake_configurations.user_id is
    'Whose it is: the name of a PostgreSQL role, or the subject of a JWT, as owner_kind says.';
comment on column snowflake_bridge.snowflake_configurations.owner_oid is
    'The OID of that role, 0 for a JWT subject: a role that is dropped and made again under the same name is somebody else.';
comment on column snowflake_bridge.snowflake_configurations.username is
    'The user''s login name in Snowflake. Absent only with OAuth, where the access token names the user.';
comment on column snowflake_bridge.snowflake_configurations.auth_method is
    'Which secret there is: password; key_pair (private_key, perhaps private_key_passphrase); token (a programmatic access token); oauth (oauth_token, or oauth_client_secret where oauth_client_id says so).';
comment on column snowflake_bridge.snowflake_configurations.oauth_client_id is
    'The client that fetches access tokens with its secret, by the grant client_credentials. Sealed into the secret together with oauth_token_url: neither can be changed without it.';
comment on column snowflake_bridge.snowflake_configurations.oauth_token_url is
    'Where the client gets them; absent for the account''s own. Any other host must be in snowflake_bridge.allowed_hosts.';
comment on column snowflake_bridge.snowflake_configurations.oauth_scope is
    'The scope it asks for; absent for session:role: and the role, if there is one.';
comment on column snowflake_bridge.snowflake_configurations.is_active is
    'False once Snowflake refused the credentials: nothing is tried with them again until update_config brings others.';
comment on column snowflake_bridge.snowflake_configurations.version is
    'Counts changes, so that a pooled session is never used after one.';

create table snowflake_bridge.watches (
    id                    bigint generated always as identity primary key,
    installation_id       uuid not null,
    relation              regclass not null unique,
    user_id               text not null,
    owner_oid             oid not null,
    act_for_users         boolean not null default false,
    finished              text[] not null check (array_length(finished, 1) > 0),
    execution_id_column   text not null,
    status_column         text not null,
    user_id_column        text,
    result_rows_column    text,
    result_columns_column text,
    result_function       text,
    result_relation       regclass,
    is_active             boolean not null default true,
    created_at            timestamptz not null default now(),
    constraint one_source_of_results check (num_nonnulls(result_rows_column, result_function, result_relation) = 1)
);
comment on table snowflake_bridge.watches is
    'API: private. One row per watched relation: its owner (name and OID), which of its columns mean what, and where the results are. Written by watch and unwatch.';
comment on column snowflake_bridge.watches.installation_id is
    'The installation in which it was made. Another one than this database''s came with a dump, and so did its uploads.';
comment on column snowflake_bridge.watches.result_function is
    'The function that gives an execution''s rows, with schema and argument types: text, since pg_upgrade moves no column of type regprocedure.';
comment on column snowflake_bridge.watches.result_relation is
    'The view or table that holds the rows of all executions.';

create table snowflake_bridge.uploads (
    id              bigint generated always as identity primary key,
    upload_id       uuid not null default gen_random_uuid() unique,
    watch_id        bigint,
    execution_id    text not null,
    user_id         text not null,
    owner_kind      text not null,
    owner_oid       oid not null default 0,
    row_user_id     text,
    options         jsonb not null default '{}',
    state           text not null default 'queued',
    generation      bigint not null default 1,
    claim_count     integer not null default 0,
    attempt_count   integer not null default 0,
    crash_count     integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    throttled_since timestamptz,
    needs_table     boolean not null default false,
    config_id       uuid,
    target          text,
    manifest        jsonb,
    staged_claim    integer,
    staged_for      text,
    transaction_id  text,
    transaction_table text[],
    may_be_loaded   boolean not null default false,
    row_count       bigint,
    byte_count      bigint,
    out_of_range_count bigint not null default 0,
    error_message   text,
    error_hint      text,
    error_code      text,
    error_sqlstate  text,
    query_id        text,
    needs_mirror    boolean not null default true,
    mirror_error    text,
    mirror_after    timestamptz not null default now(),
    clean_up_after  timestamptz,
    created_at      timestamptz not null default now(),
    claimed_at      timestamptz,
    server_started_at timestamptz,
    is_let_in       boolean not null default false,
    completed_at    timestamptz
);
comment on column snowflake_bridge.watches.is_active is
    'False after unwatch. The row stays, so that a later watch goes on from the uploads of this one.';

comment on table snowflake_bridge.uploads is
    'API: public (read). Every upload: its place in the queue, its state, and what came of it; each owner sees only their own. This row is the truth about an upload; the application''s row is a mirror of it.';
comment on column snowflake_bridge.uploads.state is
    'queued, claimed (being read), staged (files are in Snowflake''s stage), copying (a load was begun), completed; retry (waits for next_attempt_at), failed, canceled, needs_credentials (waits for update_config).';
comment on column snowflake_bridge.uploads.upload_id is 'Written to every loaded row as UPLOAD_ID.';
comment on column snowflake_bridge.uploads.options is
    'How it is loaded, from the row''s snowflake_options, snowflake_table_name and snowflake_schema_name: table_name, schema_name, database, config, column_case, numeric, strategy (append, upsert, replace), key_columns, cluster_by, evolve_schema.';
comment on column snowflake_bridge.uploads.generation is 'Counts changes of the execution that this upload already covers.';
comment on column snowflake_bridge.uploads.row_user_id is 'The user that the execution''s row names; loaded as USER_ID.';
comment on column snowflake_bridge.uploads.attempt_count is 'Attempts begun. Counted and committed before the row is touched, so that a row that kills the process has spent one.';
comment on column snowflake_bridge.uploads.throttled_since is 'When Snowflake first asked this upload to come later. For a day, such attempts are not counted.';
comment on column snowflake_bridge.uploads.needs_table is 'An attempt has found that a column of the table must be made anew, for which nobody else may be loading into it.';
comment on column snowflake_bridge.uploads.crash_count is 'Attempts during which the worker process died.';
comment on column snowflake_bridge.uploads.manifest is 'The columns and files that were staged; later attempts load these instead of reading the row again.';
comment on column snowflake_bridge.uploads.server_started_at is
    'When the server started under which it was claimed last: the same as of the one that runs, or another. Which of two times is later tells nothing if the clock was set back.';
comment on column snowflake_bridge.uploads.claim_count is 'How often a worker took this upload; names the directory of its files in the stage, and is never used twice.';
comment on column snowflake_bridge.uploads.staged_claim is 'The claim that put every file into the stage, under its own directory; null if none has.';
comment on column snowflake_bridge.uploads.staged_for is 'Account and user whose stage that is (id and version of the configuration where only an OAuth token names the user): with another, everything begins anew.';
comment on column snowflake_bridge.uploads.watch_id is
    'The watch, which is never deleted; no foreign key, since pg_restore may bring watches later. Null for upload_query and upload_table, whose rows were read by their caller and wait in the spool.';
comment on column snowflake_bridge.uploads.byte_count is
    'The size of its files: of upload_query and upload_table from the beginning, otherwise once they are loaded.';
comment on column snowflake_bridge.uploads.out_of_range_count is 'Values that Snowflake cannot hold and that were loaded as NULL or text, as on_out_of_range says.';
comment on column snowflake_bridge.uploads.clean_up_after is
    'Files of this upload may lie in the stage: once it has ended, they are removed from then on. Null when they have been.';
comment on column snowflake_bridge.uploads.transaction_id is 'The Snowflake transaction of the last load; tells after a lost answer whether it was committed.';
comment on column snowflake_bridge.uploads.is_let_in is
    'While a worker is at it: when it was taken, Snowflake was known to let its connection in, and it takes turns at its table with those of others. Otherwise this attempt only logs in.';
comment on column snowflake_bridge.uploads.may_be_loaded is
    'A load of it was begun, so that rows of it may be in Snowflake, whatever became of the transaction and whichever account that was: whoever loads it again, or a later result of the execution, deletes them first.';
comment on column snowflake_bridge.uploads.transaction_table is 'Database, schema and table that this transaction was about, each as Snowflake calls it. The target of the next attempt may be another one.';

-- At most one upload of an execution waits; a change of the execution while it waits is covered by it.
create unique index uploads_waiting on snowflake_bridge.uploads (watch_id, execution_id) where state = 'queued';
-- What waits, lane by lane (an owner and a connection) and stream by stream (what goes to one table, as far as the options
-- tell), so that finding the next of them costs the same however much waits.
create index uploads_lanes on snowflake_bridge.uploads
    (owner_kind, user_id, owner_oid, (coalesce(options ->> 'config', 'default')),
     (coalesce((options -> 'database')::text, '') || ' ' || coalesce((options -> 'schema_name')::text, '') || ' ' ||
        coalesce((options -> 'table_name')::text, '') || ' ' || coalesce(watch_id::text, '')), next_attempt_at, id)
    where state in ('queued', 'retry');
-- The first of each stream, in the order of entry.
create index uploads_streams on snowflake_bridge.uploads
    (owner_kind, user_id, owner_oid, (coalesce(options ->> 'config', 'default')),
     (coalesce((options -> 'database')::text, '') || ' ' || coalesce((options -> 'schema_name')::text, '') || ' ' ||
        coalesce((options -> 'table_name')::text, '') || ' ' || coalesce(watch_id::text, '')), id)
    where state in ('queued', 'retry', 'claimed', 'staged', 'copying');
create index uploads_retry on snowflake_bridge.uploads (next_attempt_at) where state = 'retry';
create index uploads_in_flight on snowflake_bridge.uploads (id) where state in ('claimed', 'staged', 'copying');
-- Uploads that want a table for themselves: usually none, and then nobody has to wait for one.
create index uploads_alone on snowflake_bridge.uploads
    (owner_kind, user_id, owner_oid, (coalesce(options ->> 'config', 'default')),
     (coalesce((options -> 'database')::text, '') || ' ' || coalesce((options -> 'schema_name')::text, '') || ' ' ||
        coalesce((options -> 'table_name')::text, '') || ' ' || coalesce(watch_id::text, '')), id)
    where (needs_table or options ->> 'strategy' in ('upsert', 'replace')) and state in ('queued', 'retry', 'claimed', 'staged', 'copying');
-- What is to be shown to the application, owner by owner, and when the first of it is due.
create index uploads_mirror on snowflake_bridge.uploads (owner_kind, user_id, owner_oid, mirror_after) where needs_mirror;
create index uploads_mirror_due on snowflake_bridge.uploads (mirror_after) where needs_mirror;
create index uploads_clean_up on snowflake_bridge.uploads (clean_up_after)
    where clean_up_after is not null and state in ('completed', 'failed', 'canceled');
-- What an owner's files in the spool take, which wait until their upload has completed or was canceled.
create index uploads_spooled on snowflake_bridge.uploads (owner_kind, user_id, owner_oid)
    where watch_id is null and state not in ('completed', 'canceled');
create index uploads_execution on snowflake_bridge.uploads (watch_id, execution_id, id);

create table snowflake_bridge.cancellations (
    upload       bigint not null primary key,
    requested_at timestamptz not null default now(),
    is_hastened  boolean not null default false
);
comment on column snowflake_bridge.cancellations.is_hastened is
    'Its next attempt, which is to find out what became of the rows, was made due at once. Those after it wait as any other.';
comment on table snowflake_bridge.cancellations is
    'API: private. Uploads that somebody has asked to stop while a worker was at them: it stops, unless the rows are already being committed. Not a column of uploads, so that nobody''s open transaction holds a row that the worker has to write.';

create table snowflake_bridge.missed (
    watch_id     bigint not null,
    execution_id text not null,
    user_id      text not null,
    owner_kind   text not null,
    owner_oid    oid not null,
    row_user_id  text,
    options      jsonb not null,
    missed_at    timestamptz not null default clock_timestamp()
);
comment on table snowflake_bridge.missed is
    'API: private. Executions that could not be entered in the queue at once, because another transaction was entering them or the queue could not be written: the worker does so when it sees them here. Without a key or an index, so that nobody waits for anybody, and none can be broken. Not dumped: backfill finds these executions in a copy.';

create table snowflake_bridge.sent_bytes (
    owner_kind text not null,
    user_id    text not null,
    owner_oid  oid not null,
    hour       timestamptz not null,
    bytes      bigint not null,
    primary key (owner_kind, user_id, owner_oid, hour)
);
comment on table snowflake_bridge.sent_bytes is
    'API: private. How much each owner has sent to Snowflake in which hour of the last day, while max_daily_upload_per_owner is set: a day is the sum of 25 rows, however many uploads it had. Not dumped.';

select pg_extension_config_dump('snowflake_bridge.snowflake_configurations', '');
select pg_extension_config_dump('snowflake_bridge.watches', '');
select pg_extension_config_dump('snowflake_bridge.watches_id_seq', '');
select pg_extension_config_dump('snowflake_bridge.uploads', '');
select pg_extension_config_dump('snowflake_bridge.uploads_id_seq', '');
select pg_extension_config_dump('snowflake_bridge.cancellations', '');
