//! `upload_query` and `upload_table`: rows that their caller reads, here and now, and the worker only sends.

use std::cell::Cell;

use bridge_core::json::OutOfRange;
use bridge_core::spool::{SpoolOptions, Stamp};
use chrono::Utc;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, pg_sys};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::options::TargetOptions;
use crate::owner::{Owner, is_gateway};
use crate::source::{self, QueryOptions, spooled};
use crate::uploads::{self, Spooled};
use crate::worker::registry::{self, Wake};
use crate::{client, configs, failpoint, guards, guc, net, sandbox, tx, watches};

// In its own words: the query is text, but its bytes are left as they are, which only UTF-8 could be a Rust string of.
#[pg_extern(sql = "
create function snowflake_bridge.upload_query(
    query text, table_name text, schema_name text default null, database text default null,
    execution_id text default null, config text default 'default', options jsonb default '{}', user_id text default null
) returns bigint language c as 'MODULE_PATHNAME', 'upload_query_wrapper';
")]
#[allow(clippy::too_many_arguments)] // They are named in SQL.
fn upload_query(
    query: Option<&[u8]>,
    table_name: Option<&str>,
    schema_name: Option<&str>,
    database: Option<&str>,
    execution_id: Option<&str>,
    config: Option<&str>,
    options: Option<JsonB>,
    user_id: Option<&str>,
) -> Result<i64, ErrorReport> {
    tx::require_primary("upload_query")?;
    refuse_text_of_users()?;
    let query = query.ok_or_else(|| Error::invalid("query must not be null"))?;
    let target = Target {
        table_name,
        schema_name,
        database,
        config,
        options,
    };
    Ok(queue(query, None, target, execution_id, user_id)?)
}

/// A gateway's login role may take on any of its users' roles, and so may SQL that one of them has written: `set_config` in a query
/// is enough, for the role and for the claims. This asks who has logged in, which nothing that runs in the session can change.
fn refuse_text_of_users() -> Result<()> {
    if guards::ON && is_gateway()? {
        return Err(Error::denied(
            "upload_query cannot be called through a gateway, whose users would run SQL with its rights",
        )
        .hint(
            "Have the database's owner make a view, for upload_table, or a function, for a watch; \
             or call upload_query over a direct connection.",
        ));
    }
    Ok(())
}

// In its own words, since pgrx knows no regclass.
#[pg_extern(sql = "
create function snowflake_bridge.upload_table(
    relation regclass, table_name text default null, schema_name text default null, database text default null,
    execution_id text default null, config text default 'default', options jsonb default '{}', user_id text default null
) returns bigint language c as 'MODULE_PATHNAME', 'upload_table_wrapper';
")]
#[allow(clippy::too_many_arguments)]
fn upload_table(
    relation: Option<pg_sys::Oid>,
    table_name: Option<&str>,
    schema_name: Option<&str>,
    database: Option<&str>,
    execution_id: Option<&str>,
    config: Option<&str>,
    options: Option<JsonB>,
    user_id: Option<&str>,
) -> Result<i64, ErrorReport> {
    tx::require_primary("upload_table")?;
    let relation = relation.ok_or_else(|| Error::invalid("relation must not be null"))?;
    let (qualified, name) = names(relation)?;
    let query = format!("select * from {qualified}");
    let target = Target {
        table_name: table_name.or(Some(&name)),
        schema_name,
        database,
        config,
        options,
    };
    Ok(queue(
        query.as_bytes(),
        Some(qualified),
        target,
        execution_id,
        user_id,
    )?)
}

/// A relation's name as a statement has it, and its own.
fn names(relation: pg_sys::Oid) -> Result<(String, String)> {
    let missing = || {
        Error::user(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            "the relation does not exist",
        )
    };
    let qualified = watches::qualified_name(relation)?.ok_or_else(missing)?;
    let name = Spi::get_one_with_args::<String>(
        "select c.relname::pg_catalog.text from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) $1",
        &[relation.into()],
    )?;
    Ok((qualified, name.ok_or_else(missing)?))
}

/// Where the rows go, as the arguments say it.
struct Target<'a> {
    table_name: Option<&'a str>,
    schema_name: Option<&'a str>,
    database: Option<&'a str>,
    config: Option<&'a str>,
    options: Option<JsonB>,
}

impl Target<'_> {
    /// All of it as target options, which is what is stored.
    fn into_options(self) -> Result<Json> {
        let mut options = match self.options.map(|options| options.0) {
            None | Some(Json::Null) => serde_json::Map::new(),
            Some(Json::Object(options)) => options,
            Some(_) => return Err(Error::invalid("options is not a JSON object")),
        };
        if self.table_name.is_none_or(str::is_empty) && !options.contains_key("table_name") {
            return Err(Error::invalid("table_name must not be empty"));
        }
        // Naming the usual configuration says nothing that the options could contradict.
        let config = self.config.filter(|name| *name != configs::DEFAULT_NAME);
        for (key, argument) in [
            ("table_name", self.table_name),
            ("schema_name", self.schema_name),
            ("database", self.database),
            ("config", config),
        ] {
            let Some(argument) = argument.filter(|argument| !argument.is_empty()) else {
                continue;
            };
            if let Some(other) = options.insert(key.to_owned(), argument.into())
                && other != argument
            {
                return Err(Error::invalid(format!(
                    "{key} is both an argument and in options, and they differ"
                )));
            }
        }
        Ok(Json::Object(options))
    }
}

/// Between two looks at what an owner's uploads take, in bytes of one of them.
const LOOK_BYTES: u64 = 16 << 20;

/// What an upload takes of what its owner may have waiting.
struct Share<'a> {
    owner: &'a Owner,
    upload_id: Uuid,
    /// Bytes at which to look again.
    next: Cell<u64>,
}

impl<'a> Share<'a> {
    fn new(owner: &'a Owner, upload_id: Uuid) -> Self {
        Self {
            owner,
            upload_id,
            next: Cell::new(LOOK_BYTES),
        }
    }

    /// As [`Share::take`], now and then.
    fn take_more(&self, bytes: u64) -> Result<()> {
        if bytes < self.next.get() {
            return Ok(());
        }
        self.next.set(bytes + LOOK_BYTES);
        self.take(bytes)
    }

    /// Refuses files of that size if the owner would have more than one may have. They are announced before anything is counted:
    /// of two sessions whose files do not fit together, one at least sees the other's. And what others announce is looked at before
    /// what they have committed, so that nothing is missed in between.
    fn take(&self, bytes: u64) -> Result<()> {
        let Some(most) = guc::max_spool_per_owner().filter(|_| guards::ON) else {
            return Ok(());
        };
        let own = bytes + uploads::OVERHEAD;
        let owner = self.owner.fingerprint();
        let announced = spooled::announce(self.upload_id, owner, own)?;
        let queued = sandbox::as_extension_owner(|| uploads::spooled_bytes(self.owner))?;
        if announced + queued + spooled::removed_at_commit(owner) + own <= most {
            return Ok(());
        }
        Err(Error::user(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            format!(
                "rows of user \"{}\" that wait to be sent would take more than snowflake_bridge.max_spool_per_owner, {} MB",
                self.owner.user_id(),
                most >> 20
            ),
        )
        .hint(
            "Wait until some have been sent, or let go of failed ones with snowflake_bridge.cancel_upload(), whose files go when that \
             commits; a superuser can raise the setting.",
        ))
    }
}

/// Reads the query's rows, which are all of `relation` if that is given, and queues them.
fn queue(
    query: &[u8],
    relation: Option<String>,
    target: Target<'_>,
    execution_id: Option<&str>,
    user_id: Option<&str>,
) -> Result<i64> {
    let owner = Owner::acting_for(user_id)?;
    let stored_options = target.into_options()?;
    let options = TargetOptions::parse(&stored_options)?;
    options.target("")?;
    if execution_id == Some("") {
        return Err(Error::invalid("execution_id must not be empty"));
    }
    // Said now, and not when all rows have been read.
    sandbox::as_extension_owner(|| configs::require(&owner, Some(options.config_name())))?;

    let upload_id = Uuid::new_v4();
    let execution_id = execution_id.map_or_else(|| upload_id.to_string(), str::to_owned);
    let share = Share::new(&owner, upload_id);
    let directory = spooled::begin(upload_id)?;
    spooled::require_space()?;
    share.take(0)?;
    let mut read = client::watched(|| {
        source::read_query(
            query,
            None,
            &QueryOptions {
                stamp: Stamp {
                    execution_id: execution_id.clone(),
                    user_id: Some(owner.user_id().to_owned()),
                    upload_id,
                    uploaded_at: Utc::now(),
                },
                spool: &directory,
                plan: options.plan(),
                files: SpoolOptions {
                    aside: net::ASIDE,
                    // Its transaction commits that the files are there.
                    is_durable: true,
                    ..guc::spool_options()
                },
                progress: &|_| {},
                may_take: &|bytes| {
                    spooled::require_space()?;
                    share.take_more(bytes)
                },
            },
        )
    })?;
    share.take(read.manifest.bytes)?;
    read.manifest.relation = relation;
    // Keys that the result lacks are told to whoever can mend the query, and not to the worker.
    options.strategy(&read.manifest)?;
    for (column, count) in &read.affected {
        let fate = match options.plan().on_out_of_range {
            OutOfRange::Text => "are loaded as text",
            OutOfRange::Null | OutOfRange::Error => "are loaded as NULL",
        };
        notice!("column \"{column}\": {count} values that Snowflake cannot hold {fate}");
    }
    failpoint::reach("query-read");
    let id = sandbox::as_extension_owner(|| {
        uploads::enqueue_spooled(&Spooled {
            upload_id,
            execution_id: &execution_id,
            owner: &owner,
            options: stored_options,
            manifest: &read.manifest,
            out_of_range: read.affected.iter().map(|(_, count)| count).sum(),
        })
    })?;
    registry::wake_at_commit(Wake::Worker);
    Ok(id)
}
