//! What an upload's state is to the application: SQL over a row `u` of `uploads`, for where nobody chose the `search_path`.

/// The status of the execution.
pub const STATUS: &str = "case u.state when 'completed' then 'completed' \
     when 'queued' then 'pending' when 'retry' then 'pending' \
     when 'claimed' then 'uploading' when 'staged' then 'uploading' when 'copying' then 'uploading' \
     else 'failed' end";

/// What went wrong, and what to do; empty where nothing has.
pub const MESSAGE: &str = "concat_ws(' ', u.error_message, \
     case when u.error_code is not null then format('(Snowflake %s%s)', u.error_code, ', query ' || u.query_id) end, \
     u.error_hint)";
