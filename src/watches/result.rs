//! Where the rows of an execution are: in its own row, or in what a function or relation of the watch's owner makes of it.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::{Held, IdType, Key, qualified_name};
use crate::bound::Bound;
use crate::error::{Error, Result};
use crate::{guards, sandbox, tx};

/// Where a watch finds the rows of an execution.
#[derive(Debug, Clone)]
pub enum ResultSource {
    /// In a column of the execution's row, as JSON; maybe with names and types in another.
    Columns {
        rows: String,
        columns: Option<String>,
    },
    /// What this function returns: its name with its schema and argument types.
    Function(String),
    /// What this relation has under the execution's id.
    Relation(pg_sys::Oid),
}

impl ResultSource {
    /// Whether the execution's own row has them.
    pub fn is_in_row(&self) -> bool {
        matches!(self, Self::Columns { .. })
    }

    /// Resolves a function as the caller would: by its name, or by its name and argument types.
    ///
    /// # Errors
    /// If there is none, or several of that name.
    pub fn function(name: &str) -> Result<Self> {
        let resolve = if name.contains('(') {
            "select pg_catalog.to_regprocedure($1)::pg_catalog.oid"
        } else {
            "select pg_catalog.to_regproc($1)::pg_catalog.oid"
        };
        let found = Spi::get_one_with_args::<pg_sys::Oid>(resolve, &[name.into()])?;
        let function = found.ok_or_else(|| {
            Error::user(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!("there is no function \"{name}\", or more than one"),
            )
            .hint("Name it with its argument types, as in result_function => 'reports.rows_of(text)'.")
        })?;
        // Written under a search_path that nothing of the caller's is in, so that every name has its schema.
        let signature = sandbox::as_extension_owner(|| {
            Ok(Spi::get_one_with_args::<String>(
                "select $1::pg_catalog.regprocedure::pg_catalog.text",
                &[function.into()],
            )?)
        })?;
        Ok(Self::Function(signature.unwrap_or_default()))
    }

    /// Adds to an error of reading what the function's writer may not know: names mean nothing there without a schema.
    pub fn explain(&self, error: Error) -> Error {
        match (self, &error) {
            (
                Self::Function(signature),
                Error::Server {
                    sqlstate:
                        PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE
                        | PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION
                        | PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                    hint: None,
                    ..
                },
            ) => error.hint(format!(
                "The function runs with an empty search_path: write schemas before names, or alter function {signature} set search_path = ….",
            )),
            _ => error,
        }
    }

    /// The columns of the execution's row of which a change is a changed result.
    pub fn watched_columns(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::Columns { rows, columns } => [Some(rows), columns.as_ref()],
            Self::Function(_) | Self::Relation(_) => [None, None],
        }
        .into_iter()
        .flatten()
        .map(String::as_str)
    }
}

/// A query that gives an execution's rows, `$1` being its id.
pub struct ResultQuery {
    pub statement: Bound,
    pub id: IdType,
}

impl Held<'_> {
    /// The query that gives an execution's rows; `None` where they are in the execution's own row. The function or relation
    /// must belong to the watch's owner, as whom it is read: whoever else owned it would decide what runs with the owner's rights.
    ///
    /// # Errors
    /// If it is gone, is somebody else's, or cannot be asked for an execution.
    pub fn result_query(&self) -> Result<Option<ResultQuery>> {
        // Under a `search_path` of ours, in which a function's signature was written.
        sandbox::as_caller(|| {
            Ok(match &self.watch.result {
                ResultSource::Columns { .. } => None,
                ResultSource::Function(signature) => Some(self.function_query(signature)?),
                ResultSource::Relation(relation) => Some(self.relation_query(*relation)?),
            })
        })
    }

    fn function_query(&self, signature: &str) -> Result<ResultQuery> {
        let found = Spi::connect(|client| {
            let rows = client.select(
                "select p.proowner, pg_catalog.format('%I.%I', n.nspname, p.proname), \
                     pg_catalog.quote_ident(case p.proname when 'execution' then 'result' else p.proname end), \
                     p.proargtypes[0], \
                     coalesce(t.typrelid operator(pg_catalog.=) $2, false), \
                     p.prokind operator(pg_catalog.=) 'f' and p.provariadic operator(pg_catalog.=) 0 \
                         and p.pronargs operator(pg_catalog.>=) 1 \
                         and p.pronargs operator(pg_catalog.-) p.pronargdefaults operator(pg_catalog.<=) 1, \
                     p.oid \
                 from pg_catalog.pg_proc p \
                 join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) p.pronamespace \
                 left join pg_catalog.pg_type t on t.oid operator(pg_catalog.=) p.proargtypes[0] \
                 where p.oid operator(pg_catalog.=) pg_catalog.to_regprocedure($1)::pg_catalog.oid",
                Some(1),
                &[signature.into(), self.watch.relation.into()],
            )?;
            let Some(row) = rows.into_iter().next() else {
                return Ok(None);
            };
            let missing = || Error::missing(format!("function {signature} is being dropped"));
            Ok::<_, Error>(Some(Function {
                oid: row.get(7)?.ok_or_else(missing)?,
                owner: row.get(1)?.ok_or_else(missing)?,
                name: row.get(2)?.ok_or_else(missing)?,
                alias: row.get(3)?.ok_or_else(missing)?,
                argument: row.get(4)?,
                takes_row: row.get(5)?.unwrap_or(false),
                is_suitable: row.get(6)?.unwrap_or(false),
            }))
        })?;
        let function = found.ok_or_else(|| {
            Error::user(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                format!("the watch's function {signature} does not exist any more"),
            )
            .hint("Call snowflake_bridge.watch again, with the function that gives the rows now.")
        })?;
        self.check_source_owner(function.owner, &format!("function {signature}"))?;
        let (true, Some(argument)) = (function.is_suitable, function.argument) else {
            return Err(Error::invalid(format!(
                "function {signature} does not take an execution's id, or its row, as its one argument"
            )));
        };
        let (name, alias) = (function.name, function.alias);
        if !function.takes_row {
            return Ok(ResultQuery {
                statement: Bound::to_function(
                    format!("select * from {name}($1)"),
                    function.oid,
                    &[],
                ),
                id: IdType(argument),
            });
        }
        let key = self.key()?;
        let text = format!(
            "select {alias}.* from {} execution cross join lateral {name}(execution) {alias} where execution.{}",
            self.name,
            key.condition()
        );
        Ok(ResultQuery {
            statement: Bound::to_function(text, function.oid, &[self.watch.relation]),
            id: key.id,
        })
    }

    fn relation_query(&self, relation: pg_sys::Oid) -> Result<ResultQuery> {
        if guards::ON {
            tx::lock_to_read(relation);
        }
        let (owner, name, columns) = tx::with_latest_snapshot(|| self.describe(relation))?;
        self.check_source_owner(owner, &format!("relation {name}"))?;
        let column = &self.watch.columns.execution_id;
        let key = Key::of(relation, column).map_err(|_| {
            Error::user(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("relation {name} has no column \"{column}\""),
            )
            .hint("It tells the rows of one execution from those of others.")
        })?;
        Ok(ResultQuery {
            statement: Bound::to_relations(
                format!("select {columns} from {name} where {}", key.condition()),
                &[relation],
            ),
            id: key.id,
        })
    }

    /// Owner, name and columns of a relation with results. The id is left out: it is loaded as EXECUTION_ID anyway.
    fn describe(&self, relation: pg_sys::Oid) -> Result<(pg_sys::Oid, String, String)> {
        let name = qualified_name(relation)?.ok_or_else(|| {
            Error::user(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                "the relation with the watch's results does not exist any more",
            )
            .hint("Call snowflake_bridge.watch again, with the relation that holds the rows now.")
        })?;
        let (owner, columns) = tx::read_two(
            "select c.relowner, (select pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' order by a.attnum) \
                 from pg_catalog.pg_attribute a where a.attrelid operator(pg_catalog.=) c.oid \
                 and a.attnum operator(pg_catalog.>) 0 and not a.attisdropped \
                 and a.attname operator(pg_catalog.<>) $2::pg_catalog.name) \
             from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) $1",
            &[
                relation.into(),
                self.watch.columns.execution_id.as_str().into(),
            ],
        )?;
        Ok((
            owner.unwrap_or(pg_sys::InvalidOid),
            name,
            columns.unwrap_or_default(),
        ))
    }

    fn check_source_owner(&self, owner: pg_sys::Oid, what: &str) -> Result<()> {
        let expected = &self.watch.owner;
        if owner == expected.oid() || !guards::ON {
            return Ok(());
        }
        Err(Error::denied(format!(
            "{what} does not belong to role \"{}\", which owns the watched relation",
            expected.user_id()
        ))
        .hint(
            "The results are read with that role's rights, so that it has to own what decides how.",
        ))
    }
}

/// What the catalog says of a function that is to give rows.
struct Function {
    oid: pg_sys::Oid,
    owner: pg_sys::Oid,
    name: String,
    /// What it is called in FROM, and with it the column of a function that returns no rows but values.
    alias: String,
    /// The type of its first argument.
    argument: Option<pg_sys::Oid>,
    /// Whether that is the watched relation's row type.
    takes_row: bool,
    /// Whether one argument is enough, and it returns rows by being called in FROM.
    is_suitable: bool,
}
