-- upload_query and upload_table: what is refused before, while and after rows are read, and what is entered in the queue.
-- No worker runs here, so that everything stays where it was put.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
create role reader;
create role outsider;
select snowflake_bridge.grant_usage('reader');
create table fruit (id int, name text, price numeric(6,2));
insert into fruit values (1, 'apple', 1.20), (2, 'pear', null);
create table secret (id int);
grant select, insert, update, delete on fruit to reader;

-- Nobody may without being allowed to, and nothing is read before it is known where it goes.
set role outsider;
select snowflake_bridge.upload_query('values (1)', 't');
set role reader;
select snowflake_bridge.upload_query('select * from fruit', 't');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.create_config('myorg-myacct', username => 'u', password => 'p', verify => false) is not null as created;
select snowflake_bridge.upload_query('select * from fruit', 't', config => 'other');

-- Arguments and options.
select snowflake_bridge.upload_query(null, 't');
select snowflake_bridge.upload_query('values (1)', null);
select snowflake_bridge.upload_query('values (1)', '');
select snowflake_bridge.upload_query('values (1)', repeat('t', 256));
select snowflake_bridge.upload_query('values (1)', 't', execution_id => '');
select snowflake_bridge.upload_query('values (1)', 't', user_id => 'somebody');
select snowflake_bridge.upload_query('values (1)', 't', options => '[]');
select snowflake_bridge.upload_query('values (1)', 't', options => '{"colour": "red"}');
select snowflake_bridge.upload_query('values (1)', 't', options => '{"on_out_of_range": "ignore"}');
select snowflake_bridge.upload_query('values (1)', 't', options => '{"table_name": "u"}');
select snowflake_bridge.upload_table(null);
select snowflake_bridge.upload_table('nowhere');
select snowflake_bridge.upload_table(4294967295);

-- Exactly one statement that returns rows.
select snowflake_bridge.upload_query(query, 't')
  from (values ('')) q (query);
select snowflake_bridge.upload_query('select 1; select 2', 't');
\echo :LAST_ERROR_SQLSTATE
select snowflake_bridge.upload_query('insert into fruit values (3)', 't');
select snowflake_bridge.upload_query('select 1 as a into temporary copied', 't');
select snowflake_bridge.upload_query('explain select 1', 't');
select snowflake_bridge.upload_query('show search_path', 't');
select snowflake_bridge.upload_query('commit', 't');
select snowflake_bridge.upload_query('copy fruit to stdout', 't');
select snowflake_bridge.upload_query('selekt 1', 't');
select snowflake_bridge.upload_query('select $1', 't');

-- As the caller.
select snowflake_bridge.upload_query('select * from secret', 't');
select snowflake_bridge.upload_table('secret');
select snowflake_bridge.upload_query('select id, 1 / (id - 2) as odd from fruit order by id', 't');
select count(*) from fruit where id = 3;

-- Where somebody else's code decides whose rights count, nothing is read.
reset role;
create table guarded (id int);
create function spy(int) returns int language plpgsql immutable as $$
begin
    perform snowflake_bridge.upload_query('values (1)', 't');
    return 1;
end;
$$;
insert into guarded values (1);
create index on guarded (spy(id));
create materialized view spied as select spy(1) as x;
\echo :LAST_ERROR_SQLSTATE
set role reader;
begin read only;
select snowflake_bridge.upload_query('values (1)', 't');
rollback;

-- What is entered: who, where to, which columns; and no SQL.
begin;
select snowflake_bridge.upload_query('insert into fruit values (3, ''fig'', 0.5) returning id, name, price, price * 1.333 as taxed',
                                     'prices', schema_name => 'reports', execution_id => 'run 1') > 0 as queued;
select snowflake_bridge.upload_table('fruit', options => '{"column_case": "preserve"}') > 0 as queued;
select watch_id, user_id, row_user_id, execution_id = upload_id::text as own_id, state, options, out_of_range_count
  from snowflake_bridge.uploads order by id;
reset role;
select manifest ->> 'rows' as rows, c ->> 'name' as name, c ->> 'type' as type
  from snowflake_bridge.uploads u, jsonb_array_elements(manifest -> 'columns') with ordinality e (c, n)
 where n < 5 order by u.id, n;
rollback;
select count(*) from snowflake_bridge.uploads;

-- Values out of range, by name and row, or counted.
set role reader;
select snowflake_bridge.upload_query('select n, case when n = 3 then ''infinity'' else date ''2024-01-01'' end::date as day
                                      from generate_series(1, 5) n', 't');
\echo :LAST_ERROR_SQLSTATE
begin;
select snowflake_bridge.upload_query('select ''infinity''::date as day, ''nan''::numeric as x from generate_series(1, 5) n', 't',
                                     options => '{"on_out_of_range": "null"}') > 0 as queued;
select snowflake_bridge.upload_query('select time ''24:00'' as t, time ''12:00'' as u from generate_series(1, 2) n', 't',
                                     options => '{"on_out_of_range": "text"}') > 0 as queued;
select out_of_range_count from snowflake_bridge.uploads order by id;
rollback;
select snowflake_bridge.upload_query('select 1 as a, 2 as "A"', 't');

-- In a savepoint.
begin;
savepoint s;
select snowflake_bridge.upload_query('values (1)', 't') > 0 as queued;
rollback to s;
select count(*) from snowflake_bridge.uploads;
commit;

-- Canceled before a worker saw it: its rows are gone, and cannot be sent again.
select snowflake_bridge.upload_query('values (1)', 't') as id \gset
select snowflake_bridge.retry_upload(:id);
select snowflake_bridge.cancel_upload(:id);
select snowflake_bridge.cancel_upload(:id);
select snowflake_bridge.retry_upload(:id);
reset role;
select state, manifest, error_message from snowflake_bridge.uploads;

select snowflake_bridge.revoke_usage('reader');
drop table fruit, secret, guarded cascade;
drop function spy(int);
drop extension snowflake_bridge;
drop owned by reader, outsider;
drop role reader, outsider;
