//! Whose turn it is at a table that somebody wants to have alone: a part of the statement that claims uploads.

/// Uploads that replace rows of others are alone at their table, in the order of entry; those that only add rows stand
/// beside each other. A table is told by the account of the configuration that will be used and by the names as far as
/// they are known here: what only Snowflake knows (a user's default schema) is another table than one that is named.
///
/// For each table that any waiting or running upload wants for itself: the first of its uploads, the first that wants it
/// for itself, and how many are in flight.
pub(super) const TURNS: &str = "\
    wanted as materialized ( \
        select u.id, u.state, u.options ->> 'strategy' in ('upsert', 'replace') as alone, \
            concat_ws(chr(10), \
                lower(coalesce(o.account_identifier, f.account_identifier, '')), \
                upper(coalesce(nullif(u.options ->> 'database', ''), o.database, f.database, '')), \
                upper(coalesce(nullif(u.options ->> 'schema_name', ''), o.schema, f.schema, '')), \
                upper(coalesce(nullif(u.options ->> 'table_name', ''), c.relname || '_results', ''))) as target \
        from snowflake_bridge.uploads u \
        left join snowflake_bridge.watches w on w.id = u.watch_id \
        left join pg_catalog.pg_class c on c.oid = w.relation::oid \
        left join snowflake_bridge.snowflake_configurations o on (o.owner_kind, o.user_id, o.owner_oid, o.name) \
            = (u.owner_kind, u.user_id, u.owner_oid, coalesce(u.options ->> 'config', 'default')) \
        left join snowflake_bridge.snowflake_configurations f on o.id is null and (f.owner_kind, f.user_id, f.owner_oid, f.name) \
            = ('role', w.user_id, w.owner_oid, coalesce(u.options ->> 'config', 'default')) \
        where u.state in ('queued', 'retry', 'claimed', 'staged', 'copying') \
          and exists (select from snowflake_bridge.uploads a \
              where a.options ->> 'strategy' in ('upsert', 'replace') \
                and a.state in ('queued', 'retry', 'claimed', 'staged', 'copying'))), \
    turns as materialized ( \
        select target, min(id) as first, min(id) filter (where alone) as first_alone, \
            count(*) filter (where state in ('claimed', 'staged', 'copying')) as in_flight, \
            count(*) filter (where alone and state in ('claimed', 'staged', 'copying')) as alone_in_flight \
        from wanted group by target having bool_or(alone)), \
    waiting as materialized ( \
        select w.id from wanted w join turns t using (target) \
        where case when w.alone then w.id > t.first or t.in_flight > 0 \
              else w.id > t.first_alone or t.alone_in_flight > 0 end)";
