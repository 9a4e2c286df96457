-- Options that make no sense are refused by name where somebody waits for the answer.
\set SHOW_CONTEXT never
create extension snowflake_bridge;
set search_path = snowflake_bridge;

select create_execution('{"snowflake_options": {"strategy": "merge"}}');
\echo :LAST_ERROR_SQLSTATE
select create_execution('{"snowflake_options": {"key_columns": ["id"]}}');
select create_execution('{"snowflake_options": {"strategy": "replace", "key_columns": ["id"]}}');
select create_execution('{"snowflake_options": {"strategy": "upsert", "key_columns": []}}');
select create_execution('{"snowflake_options": {"strategy": "upsert", "key_columns": [""]}}');
select create_execution('{"snowflake_options": {"strategy": "upsert", "key_columns": "id"}}');
select create_execution('{"snowflake_options": {"cluster_by": []}}');
select create_execution('{"snowflake_options": {"cluster_by": "day"}}');
select create_execution('{"snowflake_options": {"evolve_schema": "no"}}');

-- These make sense; what is missing is a watched table.
select create_execution('{"snowflake_options": {"strategy": "upsert", "key_columns": ["id"], "cluster_by": "auto", "evolve_schema": false}}');
select create_execution('{"snowflake_options": {"strategy": null, "key_columns": null, "cluster_by": ["day"]}}');

drop extension snowflake_bridge;
