-- The reporting functions as relations, for those who would rather select, join and filter. They show what the functions
-- show to whoever asks: a view runs functions with the rights of its reader.
create view snowflake_bridge.upload_progress as
    select * from snowflake_bridge.upload_progress();
comment on view snowflake_bridge.upload_progress is
    'API: public (read). The reader''s unfinished uploads, live.';

create view snowflake_bridge.upload_stats as
    select * from snowflake_bridge.upload_stats();
comment on view snowflake_bridge.upload_stats is
    'API: public (read). The reader''s uploads in the history, in numbers for each user and target table.';

create view snowflake_bridge.execution_status as
    select * from snowflake_bridge.execution_status();
comment on view snowflake_bridge.execution_status is
    'API: public (read). How the latest upload of each execution stands: the reader''s own, and those of tables that are watched for the reader.';

create view snowflake_bridge.worker_status as
    select * from snowflake_bridge.worker_status();
comment on view snowflake_bridge.worker_status is
    'API: public (read). The worker of this database and its queue, in numbers over all users.';
