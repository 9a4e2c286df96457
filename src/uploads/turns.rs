//! Whose turn it is at a table that somebody wants to have alone: a part of the statement that claims uploads.

use std::sync::LazyLock;

use super::claim::{CONFIG, STREAM, lane};

/// Uploads that replace rows of others, or have found out that a column must be made anew, are alone at their table, in the
/// order of entry; those that only add rows stand beside each other. A table is told by the account of the configuration that will be used and by the names as far as
/// they are known here: what only Snowflake knows (a user's default schema) is another table than one that is named.
/// Names are folded as they are for Snowflake; two that `column_case` keeps apart take turns all the same. Whom an account
/// has not let in takes turns with nobody else, and goes no further than to log in: whoever only names somebody's account and table
/// does not keep them waiting. Who was let in when an upload was taken is in the way until that one's attempt has ended, whatever
/// became of the credentials meanwhile.
///
/// `held` has each stream at whose table turns are taken, and the last of its uploads, in the order of entry, that may be
/// taken now. It is found by the first upload of each stream: what it costs depends on how many streams there are, and not on how
/// many uploads wait in them.
pub(super) static TURNS: LazyLock<String> = LazyLock::new(|| {
    let stream = format!("u.owner_kind, u.user_id, u.owner_oid, {CONFIG}, {STREAM}");
    let first = |condition: &str| {
        format!(
            "select u.owner_kind, u.user_id, u.owner_oid, {CONFIG} as config, {STREAM} as stream, u.id as first \
             from snowflake_bridge.uploads u where {UNENDED} and {condition} order by {stream}, u.id limit 1"
        )
    };
    format!(
        "streams as ( \
             ({first}) union all select n.* from streams s cross join lateral ({next}) n), \
         in_flight as materialized ( \
             select u.owner_kind, u.user_id, u.owner_oid, {CONFIG} as config, {STREAM} as stream, bool_or({ALONE}) as alone, \
                 bool_or(u.is_let_in) as is_let_in \
             from snowflake_bridge.uploads u where u.state in ('claimed', 'staged', 'copying') group by {stream}), \
         targets as materialized ( \
             select s.*, i.stream is not null as is_busy, coalesce(i.alone, false) as is_taken, \
                 (select u.id from snowflake_bridge.uploads u where {ALONE} and {UNENDED} \
                    and ({stream}) = ({s}, s.stream) order by u.id limit 1) as first_alone, \
                 coalesce(case when i.is_let_in or {IS_LET_IN} then {ACCOUNT} end, concat_ws('/', '', {s})) as account, \
                 snowflake_bridge.upper_name(coalesce(nullif(u.options ->> 'database', ''), o.database, '')) as database, \
                 snowflake_bridge.upper_name(coalesce(nullif(u.options ->> 'schema_name', ''), o.schema, '')) as schema, \
                 snowflake_bridge.upper_name(coalesce(nullif(u.options ->> 'table_name', ''), c.relname || '_results', '')) as name \
             from streams s join snowflake_bridge.uploads u on u.id = s.first \
             left join in_flight i on ({i}, i.stream) = ({s}, s.stream) \
             left join snowflake_bridge.watches w on w.id = u.watch_id \
             left join pg_catalog.pg_class c on c.oid = w.relation::oid \
             left join snowflake_bridge.snowflake_configurations o on (o.owner_kind, o.user_id, o.owner_oid, o.name) = ({s})), \
         turns as materialized ( \
             select account, database, schema, name, \
                 case when bool_or(is_taken) then 0 \
                     when bool_or(is_busy) or min(first) < min(first_alone) then min(first_alone) - 1 \
                     else min(first_alone) end as last \
             from targets group by account, database, schema, name having min(first_alone) is not null), \
         held as materialized ( \
             select {s}, s.stream, t.last from targets s join turns t using (account, database, schema, name))",
        first = first("true"),
        next = first(&format!("({stream}) > ({}, s.stream)", lane("s"))),
        s = lane("s"),
        i = lane("i"),
    )
});

/// What tells the account of the configuration `o`, of which `account_identifier` is but an address; NULL where there is none.
const ACCOUNT: &str = "snowflake_bridge.account_identity(o.account_identifier)";

/// Whether the last that was heard of the connection is that Snowflake lets it in.
pub(super) const IS_LET_IN: &str =
    "coalesce(o.last_tested_at is not null and o.last_test_error is null, false)";

/// Of `uploads u`; the index `uploads_alone` has the same expression.
pub(super) const ALONE: &str =
    "(u.needs_table or u.options ->> 'strategy' in ('upsert', 'replace'))";
pub(super) const UNENDED: &str = "u.state in ('queued', 'retry', 'claimed', 'staged', 'copying')";
