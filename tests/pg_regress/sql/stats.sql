-- Uploads in numbers: each owner's own, from the function and from the view of the same name.
create extension snowflake_bridge;
create role stats_one login;
create role stats_two login;
select snowflake_bridge.grant_usage('stats_one'), snowflake_bridge.grant_usage('stats_two');
insert into snowflake_bridge.uploads (execution_id, user_id, owner_kind, owner_oid, state, target, row_count, byte_count,
                                      out_of_range_count, claimed_at, completed_at)
select n::text, role, 'role', role::regrole, state, target, rows, 10 * rows, odd, timestamptz '2026-01-01 10:00+00',
       timestamptz '2026-01-01 10:00+00' + n * interval '1 second'
  from (values (1, 'stats_one', 'completed', 'DB.S.A', 5, 0), (2, 'stats_one', 'completed', 'DB.S.A', 7, 2),
               (3, 'stats_one', 'completed', 'DB.S.B', 1, 0), (4, 'stats_one', 'failed', null, null, 0),
               (5, 'stats_one', 'queued', null, null, 0), (6, 'stats_one', 'copying', null, null, 0),
               (7, 'stats_two', 'canceled', null, null, 0), (8, 'stats_two', 'retry', null, null, 0),
               (9, 'stats_two', 'needs_credentials', null, null, 0)) v (n, role, state, target, rows, odd);

set role stats_one;
select target, waiting, in_flight, needs_credentials, completed, failed, canceled from snowflake_bridge.upload_stats();
select target, row_count, byte_count, out_of_range_count, average_seconds, last_completed_at at time zone 'UTC' as last
  from snowflake_bridge.upload_stats where completed > 0;
set role stats_two;
select user_id, target, waiting, needs_credentials, canceled from snowflake_bridge.upload_stats;
select count(*) from snowflake_bridge.upload_progress;
select queued, in_flight, retrying, failed, completed, readers, version ~ '^\d' as version, running, pid, memory_bytes
  from snowflake_bridge.worker_status;
reset role;
select user_id, sum(completed + failed + canceled + waiting + in_flight + needs_credentials) as uploads
  from snowflake_bridge.upload_stats group by user_id order by user_id;

drop extension snowflake_bridge;
drop role stats_one, stats_two;
