"""A Snowflake stand-in for tests: the driver protocol, stages on a real S3 server, and SQL by DuckDB."""
