"""The demo's three executions as an application writes them: plain SQL on its own table."""

COUNT = 100_000

LARGE = f"""
insert into workflow_executions (execution_id, user_id, name, status, snowflake_enabled, result_columns, result_rows)
select 'large', 'ada', 'Campaign Performance Report', 'completed', true,
       '["n", {{"name": "day", "type": "date"}}, {{"name": "seen_at", "type": "timestamptz"}},
         "campaign", "cost", "active", "detail"]',
       jsonb_agg(jsonb_build_object(
           'n', n,
           'day', date '2024-01-01' + n % 366,
           'seen_at', timestamptz '2024-02-29 12:00:00.123456+00' + n * interval '1 second',
           'campaign', (array['Frühling 🌷', '夏のセール', 'O''Brien "quoted" \\', 'Распродажа'])[1 + n % 4],
           'cost', (n * 37 % 100003)::numeric / 1000,
           'active', n % 3 = 0,
           'detail', jsonb_build_object('rank', n % 100, 'tags', jsonb_build_array('t' || n % 7, null, n / 8.0))))
from generate_series(1, {COUNT}) n
"""

BAD = """
insert into workflow_executions (execution_id, user_id, name, status, snowflake_enabled, result_columns, result_rows)
values ('bad', 'ada', 'Broken Report', 'completed', true, '[{"name": "day", "type": "date"}]',
        '[{"day": "2024-01-01"}, {"day": "the day after"}]')
"""

NOT_ENABLED = """
insert into workflow_executions (execution_id, user_id, name, status, result_rows)
values ('private', 'ada', 'Not For Snowflake', 'completed', '[{"day": "2024-01-01"}]')
"""

ALL = (LARGE, BAD, NOT_ENABLED)

PROGRESS = """select execution_id, coalesce(phase, state) as phase, rows, staged_bytes, total_bytes
from snowflake_bridge.upload_progress()"""

STATUS = """select execution_id, status, snowflake_enabled, snowflake_status,
       snowflake_row_count, snowflake_uploaded_at, snowflake_error_message
from workflow_executions order by created_at, execution_id"""
