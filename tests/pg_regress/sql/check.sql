-- The doctor. This server is set up as it should be, but for the worker, which the tests of the SQL surface go without.
create extension snowflake_bridge;
do $$
begin
    perform snowflake_bridge.generate_key_file();
exception when duplicate_file then
    null; -- another test has stored a secret
end;
$$;
select item, ok, hint from snowflake_bridge.check();

-- What would write secrets into the server log.
set log_statement = 'all';
set log_min_duration_statement = 0;
select ok, detail, hint from snowflake_bridge.check() where item = 'statement_logging';
drop extension snowflake_bridge;
