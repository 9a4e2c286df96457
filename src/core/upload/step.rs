//! One statement that changes the target table.

use super::execute;
use crate::error::{Error, Result};
use crate::snowflake::{Warehouse, sql};

/// One statement that changes the table.
pub(super) struct Step {
    pub(super) statement: String,
    /// Whether it changes rows. DDL commits itself, and such a statement has to as well.
    pub(super) is_update: bool,
    /// What it is for, where the user should be told.
    pub(super) purpose: Option<(String, String)>,
    /// Statements that take back what led to it, if it can never succeed; and why that is.
    pub(super) undo: Option<(Vec<String>, Error)>,
    /// Whether the upload goes on without it.
    pub(super) is_optional: bool,
    /// The column whose rebuilding begins with it, and the error if the table is clustered by that.
    pub(super) rebuilds: Option<(String, Error)>,
}

impl Step {
    pub(super) fn new(statement: String) -> Self {
        Self {
            statement,
            is_update: false,
            purpose: None,
            undo: None,
            is_optional: false,
            rebuilds: None,
        }
    }

    pub(super) fn update(statement: String) -> Self {
        Self {
            is_update: true,
            ..Self::new(statement)
        }
    }

    /// Executes it; whatever it does is committed.
    pub(super) async fn execute(&self, warehouse: &mut dyn Warehouse) -> Result<()> {
        if self.is_update {
            return execute_committed(warehouse, self.statement.clone()).await;
        }
        execute(warehouse, self.statement.clone()).await.map(drop)
    }
}

/// Executes a statement that commits itself, in a session in which nothing else does: if we die, no transaction is left that
/// holds the table's lock until Snowflake ends the session.
async fn execute_committed(warehouse: &mut dyn Warehouse, statement: String) -> Result<()> {
    execute(warehouse, sql::set_autocommit(true)).await?;
    let executed = execute(warehouse, statement).await;
    // Where this fails, the session is not what the load expects of it, whatever became of the statement.
    execute(warehouse, sql::set_autocommit(false)).await?;
    executed.map(drop)
}
