//! Watched relations: rows of `watches`, and the SQL names of what they point to.

mod held;
mod key;
mod result;

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, SpiTupleTable};

use crate::error::{Error, Result};
use crate::owner::{Owner, is_member_of, is_superuser};
use crate::statement::kept;
use crate::{guards, tx};
pub use held::{Access, Held, others_with_trigger, tree};
pub use key::{IdType, Key};
pub use result::{ResultQuery, ResultSource};

/// A watched relation, its owner, and which of its columns mean what.
#[derive(Debug, Clone)]
pub struct Watch {
    pub id: i64,
    pub relation: pg_sys::Oid,
    pub owner: Owner,
    pub act_for_users: bool,
    /// False after unwatch.
    pub is_active: bool,
    pub finished: Vec<String>,
    pub columns: Columns,
    pub result: ResultSource,
}

/// The names of a watched relation's columns.
#[derive(Debug, Clone)]
pub struct Columns {
    pub execution_id: String,
    pub status: String,
    pub user_id: Option<String>,
}

/// The triggers of a watched relation: those before and after the change of a row, and those before and after a statement.
pub fn trigger_names() -> [&'static str; 4] {
    [
        "snowflake_bridge_pending",
        "snowflake_bridge_upload",
        "snowflake_bridge_begin",
        "snowflake_bridge_end",
    ]
}

/// The start of every query for watches, as a literal that [`concat!`] takes.
macro_rules! select_watches {
    () => {
        "select w.id, w.relation::pg_catalog.oid, w.user_id, w.owner_oid, w.act_for_users, w.finished, \
         w.execution_id_column, w.status_column, w.user_id_column, w.result_rows_column, w.result_columns_column, w.is_active, \
         w.result_function, w.result_relation::pg_catalog.oid from snowflake_bridge.watches w"
    };
}
const SELECT: &str = select_watches!();

/// A relation that was dropped has left its watch behind.
const WATCHED: &str = "w.is_active and exists (select from pg_catalog.pg_class c \
    where c.oid operator(pg_catalog.=) w.relation::pg_catalog.oid)";

impl Watch {
    /// The watch with this id. The caller has raised its rights.
    ///
    /// # Errors
    /// If the query fails.
    pub fn load(id: i64) -> Result<Option<Self>> {
        const LOAD: &str = concat!(select_watches!(), " where w.id operator(pg_catalog.=) $1");
        let args = [id.into()];
        Spi::connect(|client| {
            Self::first(client.select(kept(client, LOAD, &args)?, Some(1), &args)?)
        })
    }

    /// Every watch that is in force and whose relation is there. The caller has raised its rights.
    ///
    /// # Errors
    /// If the query fails.
    pub fn all() -> Result<Vec<Self>> {
        let query = format!("{SELECT} where {WATCHED} order by w.id");
        Spi::connect(|client| {
            client
                .select(&query, None, &[])?
                .map(|row| Self::of_row(&row))
                .collect()
        })
    }

    /// The watch of this relation. The caller has raised its rights.
    ///
    /// # Errors
    /// If the query fails.
    pub fn of_relation(relation: pg_sys::Oid) -> Result<Option<Self>> {
        Spi::connect(|client| {
            let query = format!(
                "{SELECT} where w.is_active and w.relation::pg_catalog.oid operator(pg_catalog.=) $1"
            );
            Self::first(client.select(&query, Some(1), &[relation.into()])?)
        })
    }

    /// The watch that is meant where none is named: the only one of those whose triggers and policies `caller` need not fear,
    /// because the relation is a superuser's or of a role that the caller has, or because a superuser has let it act for users.
    /// Anybody may watch a table of theirs, and that is nobody else's business. The caller has raised its rights.
    ///
    /// # Errors
    /// If there is none, or more than one.
    pub fn only(caller: pg_sys::Oid) -> Result<Self> {
        let mut meant = Vec::new();
        for watch in Self::all()? {
            if !guards::ON || watch.is_trusted_by(caller)? {
                meant.push(watch);
            }
        }
        match meant.len() {
            0 | 1 => meant.pop().ok_or_else(|| {
                Error::missing("no relation is watched").hint(
                    "Call snowflake_bridge.watch('public.workflow_executions', create_if_missing => true) first, \
                     or name the relation if it is another role's.",
                )
            }),
            count => Err(
                Error::invalid(format!("{count} relations are watched")).hint("Name the relation.")
            ),
        }
    }

    fn is_trusted_by(&self, caller: pg_sys::Oid) -> Result<bool> {
        let owner = tx::read::<pg_sys::Oid>(
            "select c.relowner from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) $1",
            &[self.relation.into()],
        )?;
        Ok(owner.is_some_and(|owner| {
            is_superuser(owner)
                || is_member_of(caller, owner)
                || self.act_for_users && owner == self.owner.oid()
        }))
    }

    fn first(mut rows: SpiTupleTable<'_>) -> Result<Option<Self>> {
        rows.next().map(|row| Self::of_row(&row)).transpose()
    }

    fn of_row(row: &SpiHeapTupleData<'_>) -> Result<Self> {
        let missing = || Error::missing("a row of snowflake_bridge.watches is incomplete");
        let text = |ordinal| -> Result<String> { row.get::<String>(ordinal)?.ok_or_else(missing) };
        Ok(Self {
            id: row.get(1)?.ok_or_else(missing)?,
            relation: row.get(2)?.ok_or_else(missing)?,
            owner: Owner::Role {
                name: text(3)?,
                oid: row.get(4)?.ok_or_else(missing)?,
            },
            act_for_users: row.get(5)?.unwrap_or(false),
            is_active: row.get(12)?.unwrap_or(false),
            finished: row.get(6)?.unwrap_or_default(),
            columns: Columns {
                execution_id: text(7)?,
                status: text(8)?,
                user_id: row.get(9)?,
            },
            result: match (row.get(10)?, row.get(13)?, row.get(14)?) {
                (Some(rows), None, None) => ResultSource::Columns {
                    rows,
                    columns: row.get(11)?,
                },
                (None, Some(function), None) => ResultSource::Function(function),
                (None, None, Some(relation)) => ResultSource::Relation(relation),
                _ => return Err(missing()),
            },
        })
    }

    /// The relation's name, quoted and with its schema; `None` if it was dropped.
    ///
    /// # Errors
    /// If the query fails.
    pub fn qualified_name(&self) -> Result<Option<String>> {
        qualified_name(self.relation)
    }

    /// The same, of a relation that has to be there.
    ///
    /// # Errors
    /// If it was dropped.
    pub fn existing_name(&self) -> Result<String> {
        self.qualified_name()?.ok_or_else(Self::is_gone)
    }

    /// What is to be read for this watch must still be watched.
    ///
    /// # Errors
    /// If it has ended.
    pub fn require_active(&self) -> Result<()> {
        self.is_active.then_some(()).ok_or_else(Self::has_ended)
    }

    /// What is said of an upload whose watch has ended.
    pub fn has_ended() -> Error {
        Error::missing("the relation of this upload is not watched any more")
    }

    fn is_gone() -> Error {
        Error::missing("the watched relation does not exist any more")
    }
}

/// A relation's name, quoted and with its schema; `None` if there is none with this OID.
///
/// # Errors
/// If the query fails.
pub fn qualified_name(relation: pg_sys::Oid) -> Result<Option<String>> {
    const NAME: &str = "select pg_catalog.format('%I.%I', n.nspname, c.relname) from pg_catalog.pg_class c \
        join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace \
        where c.oid operator(pg_catalog.=) $1";
    let args = [relation.into()];
    Spi::connect(|client| {
        let mut rows = client.select(kept(client, NAME, &args)?, Some(1), &args)?;
        Ok(rows.next().map_or(Ok(None), |row| row.get::<String>(1))?)
    })
}

/// A column's type.
///
/// # Errors
/// If there is no such column.
pub fn column_type(relation: pg_sys::Oid, column: &str) -> Result<pg_sys::Oid> {
    const TYPE: &str = "select a.atttypid from pg_catalog.pg_attribute a \
        where a.attrelid operator(pg_catalog.=) $1 and a.attname operator(pg_catalog.=) $2::pg_catalog.name \
        and a.attnum operator(pg_catalog.>) 0 and not a.attisdropped";
    let args = [relation.into(), column.into()];
    let found = Spi::connect(|client| {
        let mut rows = client.select(kept(client, TYPE, &args)?, Some(1), &args)?;
        let found = rows
            .next()
            .map_or(Ok(None), |row| row.get::<pg_sys::Oid>(1));
        Ok::<_, Error>(found?)
    })?;
    found.ok_or_else(|| {
        Error::user(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("the watched relation has no column \"{column}\""),
        )
    })
}
