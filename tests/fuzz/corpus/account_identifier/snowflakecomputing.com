.snowflakecomputing.com
