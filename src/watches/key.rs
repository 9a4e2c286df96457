//! How one execution is found: by a column and its id, which is a value of the column's own type, so that its index serves.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::column_type;
use crate::bound;
use crate::error::Result;

/// A column of execution ids.
pub struct Key {
    /// Its name, quoted.
    pub column: String,
    pub id: IdType,
}

/// The type of an execution's id. It is never named: a name may mean another type a moment later.
#[derive(Debug, Clone, Copy)]
pub struct IdType(pub pg_sys::Oid);

impl Key {
    /// # Errors
    /// If there is no such column.
    pub fn of(relation: pg_sys::Oid, column: &str) -> Result<Self> {
        Ok(Self {
            column: quote_identifier(column),
            id: IdType(column_type(relation, column)?),
        })
    }

    /// The id as the queue and Snowflake have it: as its type writes it, without the blanks that fill up a `char(n)`.
    pub fn text(&self) -> String {
        if bound::base_type(self.id.0) == pg_sys::BPCHAROID {
            format!("{}::pg_catalog.text", self.column)
        } else {
            format!("pg_catalog.format('%s', {})", self.column)
        }
    }

    /// True of the rows whose id is `$1`.
    pub fn condition(&self) -> String {
        format!("{} = $1", self.column)
    }
}

impl IdType {
    /// An id as an argument of a statement; to be made as whoever runs that.
    ///
    /// # Errors
    /// If it holds a NUL. One that the type cannot hold is an ERROR.
    pub fn value(self, id: &str) -> Result<DatumWithOid<'static>> {
        bound::value_of_type(id, self.0)
    }
}
