//! Which installation this database is: its version, its identity, and whether it is a copy of another one.
//!
//! A copy has brought along a queue that the original works on as well. Nothing of it is sent until a superuser has said
//! by `adopt()` which of the two goes on. What tells a copy: the identity was made for another database or another server
//! (CREATE DATABASE from a template, pg_upgrade), or watches were made under another identity (a restored dump). A physical
//! copy cannot be told from a promoted standby, which has to go on by itself: there it is the key file, outside the data
//! directory, that says whether this server may.

use pgrx::pg_sys;
use pgrx::prelude::*;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::statement::kept;
use crate::{keys, tx, uploads};

/// The version of this library, and of the SQL objects that belong to it.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The extension in this database, as long as it is the same: DROP and CREATE EXTENSION make another one, and so does
/// `adopt()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    pub extension: pg_sys::Oid,
    pub version: String,
    /// The identity under which this database writes to a stage.
    pub id: Uuid,
}

/// What keeps the worker from sending anything.
#[derive(Debug)]
pub enum Obstacle {
    /// The SQL objects are of another version than this library.
    Version(String),
    Copied,
    /// There are secrets and no usable key.
    Key(Error),
}

impl Installation {
    /// The installation of this database, if it has the extension. Expects the rights of the extension's owner.
    ///
    /// # Errors
    /// If the catalog or the table cannot be read.
    pub fn find() -> Result<Option<Self>> {
        const EXTENSION: &str = "select e.oid, e.extversion from pg_catalog.pg_extension e \
            where e.extname operator(pg_catalog.=) 'snowflake_bridge'";
        let found: (Option<pg_sys::Oid>, Option<String>) = Spi::connect(|client| {
            match client
                .select(kept(client, EXTENSION, &[])?, Some(1), &[])?
                .next()
            {
                Some(row) => Ok::<_, Error>((row.get(1)?, row.get(2)?)),
                None => Ok((None, None)),
            }
        })?;
        let (Some(extension), Some(version)) = found else {
            return Ok(None);
        };
        Ok(Some(Self {
            extension,
            version,
            id: uploads::installation_id()?,
        }))
    }

    /// What keeps the worker from sending anything, if something does. Expects the rights of the extension's owner.
    ///
    /// # Errors
    /// If the tables cannot be read.
    pub fn obstacle(&self) -> Result<Option<Obstacle>> {
        match self.mismatch()? {
            Some(mismatch) => Ok(Some(mismatch)),
            None => Ok(keys::usable().err().map(Obstacle::Key)),
        }
    }

    /// The same, as far as our own tables tell.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn mismatch(&self) -> Result<Option<Obstacle>> {
        if self.version != LIBRARY {
            return Ok(Some(Obstacle::Version(self.version.clone())));
        }
        Ok(is_copied()?.then_some(Obstacle::Copied))
    }
}

impl Obstacle {
    /// What is wrong, in one line.
    pub fn message(&self) -> String {
        match self {
            Self::Version(extension) => format!("library {LIBRARY}, extension {extension}"),
            Self::Copied => {
                "this database is a copy of another one, whose uploads it has brought along"
                    .to_owned()
            }
            Self::Key(error) => error.to_string(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Version(_) => {
                "Run ALTER EXTENSION snowflake_bridge UPDATE; if the library is the older one, restart the server.".to_owned()
            }
            Self::Copied => "As a superuser, call snowflake_bridge.adopt() if the original goes on with its uploads, which are then \
                canceled here, or snowflake_bridge.adopt(take_over => true) if this database takes its place."
                .to_owned(),
            Self::Key(error) => error.sqlstate_and_hint().1.unwrap_or_default(),
        }
    }
}

/// Whether what is in our tables came from another installation.
///
/// # Errors
/// If the tables cannot be read.
pub fn is_copied() -> Result<bool> {
    const IS_COPIED: &str = "
        select (i.database_oid, i.system_identifier) is distinct from (d.oid, c.system_identifier)
            or exists (select from snowflake_bridge.watches w where w.installation_id is distinct from i.id)
          from snowflake_bridge.installation i, pg_catalog.pg_control_system() c, pg_catalog.pg_database d
         where d.datname operator(pg_catalog.=) pg_catalog.current_database()";
    Ok(tx::read(IS_COPIED, &[])?.unwrap_or(true))
}

/// Notes if the server has come from recovery with records that may be older than what was done: a standby was promoted that
/// lagged behind, or a backup was restored to a point in time. Whatever is queued may have been loaded since. Returns whether it has.
///
/// # Errors
/// If the statement fails.
pub fn note_timeline() -> Result<bool> {
    const NOTE: &str = "
        update snowflake_bridge.installation i
           set timeline = t.line, may_be_loaded_up_to = (select coalesce(pg_catalog.max(u.id), 0) from snowflake_bridge.uploads u)
          from (select pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) as line) t
         where i.timeline <> t.line returning true";
    Spi::connect_mut(|client| Ok(!client.update(NOTE, None, &[])?.is_empty()))
}

/// Makes this database an installation of its own. With `take_over` it goes on in the place of the one it was copied from,
/// under the same identity; otherwise it gets a new one, and unfinished uploads, which are the original's, are canceled: nothing
/// that the original has loaded is ever replaced from here. Returns how many unfinished uploads there were.
///
/// Roles are found by their names again: a dump that was restored on another server has their old OIDs.
///
/// # Errors
/// If a statement fails.
pub fn adopt(take_over: bool) -> Result<i64> {
    // One at a time.
    Spi::run("lock table snowflake_bridge.installation in exclusive mode")?;
    const ADOPT: &str = "
        update snowflake_bridge.installation i
           set id = case when $1 then coalesce((select w.installation_id from snowflake_bridge.watches w
                                                 where w.installation_id <> i.id order by w.id limit 1), i.id)
                         else pg_catalog.gen_random_uuid() end,
               database_oid = d.oid, system_identifier = c.system_identifier, created_at = pg_catalog.now(),
               timeline = pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8),
               may_be_loaded_up_to = case when $1 then (select coalesce(pg_catalog.max(u.id), 0) from snowflake_bridge.uploads u)
                                          else 0 end
          from pg_catalog.pg_control_system() c, pg_catalog.pg_database d
         where d.datname = pg_catalog.current_database()";
    Spi::run_with_args(ADOPT, &[take_over.into()])?;
    Spi::run(
        "update snowflake_bridge.watches w set installation_id = i.id from snowflake_bridge.installation i \
         where w.installation_id <> i.id",
    )?;
    for table in ["snowflake_configurations", "watches", "uploads"] {
        // Somebody who has made a configuration of the same name since keeps it.
        let (is_role, is_free) = match table {
            "watches" => ("true", "true"),
            "uploads" => ("t.owner_kind = 'role'", "true"),
            _ => (
                "t.owner_kind = 'role'",
                "not exists (select from snowflake_bridge.snowflake_configurations o \
                     where o.owner_kind = 'role' and o.owner_oid = r.oid and o.user_id = t.user_id and o.name = t.name)",
            ),
        };
        Spi::run(&format!(
            "update snowflake_bridge.{table} t set owner_oid = r.oid from pg_catalog.pg_roles r \
             where {is_role} and r.rolname = t.user_id::pg_catalog.name and t.owner_oid <> r.oid and {is_free}"
        ))?;
    }
    if take_over {
        uploads::count_unfinished()
    } else {
        uploads::cancel_copied()
    }
}
