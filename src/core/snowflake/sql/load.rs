//! The statements of a load. What Snowflake might decide by a default is said in full, so that none can change.

use uuid::Uuid;

use super::{TableName, is_file_name, quote_ident, quote_literal, stage_path};
use crate::{Error, ErrorKind, Result};

/// Lists tables; needs no warehouse. Without a database all of the account, without a schema all of the database.
///
/// # Errors
/// `Configuration` for a schema without its database.
pub fn show_tables(database: Option<&str>, schema: Option<&str>) -> Result<String> {
    match (database, schema) {
        (None, None) => Ok("SHOW TABLES IN ACCOUNT".to_owned()),
        (Some(database), None) => Ok(format!("SHOW TABLES IN DATABASE {}", quote_ident(database))),
        (Some(database), Some(schema)) => Ok(format!(
            "SHOW TABLES IN SCHEMA {}.{}",
            quote_ident(database),
            quote_ident(schema)
        )),
        (None, Some(_)) => Err(Error::new(
            ErrorKind::Configuration,
            "a schema can only be named together with its database",
        )),
    }
}

/// Opens a transaction.
#[must_use]
pub fn begin() -> String {
    "BEGIN".to_owned()
}

/// Keeps what the transaction did.
#[must_use]
pub fn commit() -> String {
    "COMMIT".to_owned()
}

/// Undoes what the transaction did.
#[must_use]
pub fn rollback() -> String {
    "ROLLBACK".to_owned()
}

/// Makes each statement of the session that changes rows its own transaction, or not. It commits whatever is open.
#[must_use]
pub fn set_autocommit(on: bool) -> String {
    format!(
        "ALTER SESSION SET AUTOCOMMIT = {}",
        if on { "TRUE" } else { "FALSE" }
    )
}

/// Asks for the id of the open transaction.
#[must_use]
pub fn current_transaction() -> String {
    "SELECT CURRENT_TRANSACTION()".to_owned()
}

/// Asks what became of a transaction: `state` is `running`, `committed` or `rolled back`.
///
/// # Errors
/// `Internal` if the id is none.
pub fn describe_transaction(id: &str) -> Result<String> {
    Ok(format!("DESCRIBE TRANSACTION {}", transaction_id(id)?))
}

/// Rolls back a transaction of another session of the user.
///
/// # Errors
/// `Internal` if the id is none.
pub fn abort_transaction(id: &str) -> Result<String> {
    Ok(format!(
        "SELECT SYSTEM$ABORT_TRANSACTION({})",
        transaction_id(id)?
    ))
}

/// Ids of transactions are numbers, and stand in statements without quotes.
fn transaction_id(id: &str) -> Result<&str> {
    if !id.is_empty() && id.len() <= 38 && id.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(id)
    } else {
        Err(Error::new(
            ErrorKind::Internal,
            "the id of a transaction is not a number",
        ))
    }
}

/// A column that COPY fills: its name in the table, and the expression over the file's row that gives its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyColumn {
    /// The column of the result.
    pub field: String,
    /// The column of the table.
    pub name: String,
    /// Its type there.
    pub column_type: String,
    /// What COPY's SELECT says.
    pub expression: String,
}

/// Loads Parquet files, at most 1000, from a directory of the user's stage, all or none.
///
/// With `force` files are loaded even if Snowflake remembers them, which is right only after their rows were deleted in
/// the same transaction.
#[must_use]
pub fn copy_into(
    table: &TableName,
    columns: &[CopyColumn],
    directory: &str,
    files: &[impl AsRef<str>],
    force: bool,
) -> String {
    let names = join(columns, |column| quote_ident(&column.name));
    let expressions = join(columns, |column| column.expression.clone());
    let files = join(files, |file| quote_literal(file.as_ref()));
    format!(
        "COPY INTO {} ({names}) FROM (SELECT {expressions} FROM {}) FILES = ({files}) \
         FILE_FORMAT = (TYPE = PARQUET COMPRESSION = AUTO USE_VECTORIZED_SCANNER = TRUE USE_LOGICAL_TYPE = TRUE \
         BINARY_AS_TEXT = FALSE TRIM_SPACE = FALSE REPLACE_INVALID_CHARACTERS = FALSE NULL_IF = ()) \
         ON_ERROR = ABORT_STATEMENT TRUNCATECOLUMNS = FALSE FORCE = {}",
        table.quoted(),
        stage_path(directory),
        if force { "TRUE" } else { "FALSE" }
    )
}

/// Deletes the rows that uploads brought, by the column that holds the uploads' ids: those that have these values.
#[must_use]
pub fn delete_uploads(
    table: &TableName,
    column: &str,
    uploads: &[Uuid],
    values: &[(&str, &str)],
) -> String {
    let ids = join(uploads, |upload| quote_literal(&upload.to_string()));
    let having: String = values
        .iter()
        .map(|(column, value)| format!(" AND {} = {}", quote_ident(column), quote_literal(value)))
        .collect();
    format!(
        "DELETE FROM {} WHERE {} IN ({ids}){having}",
        table.quoted(),
        quote_ident(column)
    )
}

/// Counts the rows that an upload brought, by the column that holds the uploads' ids.
#[must_use]
pub fn count_upload(table: &TableName, column: &str, upload: Uuid) -> String {
    format!(
        "SELECT COUNT(*) FROM {} WHERE {} = {}",
        table.quoted(),
        quote_ident(column),
        quote_literal(&upload.to_string())
    )
}

/// Removes everything in a directory of the user's stage.
#[must_use]
pub fn remove(directory: &str) -> String {
    format!("REMOVE {}", stage_path(directory))
}

/// Removes everything in the directories of these uploads, below one of the user's stage.
#[must_use]
pub fn remove_uploads(directory: &str, uploads: &[Uuid]) -> String {
    let uploads: Vec<String> = uploads.iter().map(Uuid::to_string).collect();
    format!(
        "REMOVE {} PATTERN = {}",
        stage_path(directory),
        quote_literal(&format!("(.*/)?({})/.*", uploads.join("|")))
    )
}

/// Lists everything in a directory of the user's stage; needs no warehouse.
#[must_use]
pub fn list(directory: &str) -> String {
    format!("LIST {}", stage_path(directory))
}

/// Asks for the means to put files into a directory of the user's stage. Their paths on this machine are not told: the server
/// only echoes them, and takes a pattern for any number of files.
///
/// # Errors
/// `Internal` unless the names are plain ones, the same to Snowflake, to cloud storage and in SQL; a file may lie in
/// directories below, which have plain names too.
pub fn put(directory: &str, names: &[&str]) -> Result<String> {
    let local = match names {
        [one] => one,
        _ => "*",
    };
    check_names(names)?;
    Ok(format!(
        "PUT 'file:///snowflake_bridge/{local}' {} \
         PARALLEL=1 AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE OVERWRITE=TRUE",
        stage_path(directory)
    ))
}

/// # Errors
/// As [`put`].
pub(crate) fn check_names(names: &[&str]) -> Result<()> {
    let is_plain = |name: &&str| name.split('/').all(is_file_name);
    if !names.is_empty() && names.iter().all(is_plain) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        "files to be staged have no plain names",
    ))
}

fn join<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::UPLOAD_ID;
    use crate::types::{Column, ColumnType};

    fn table() -> TableName {
        TableName {
            database: "DB".into(),
            schema: "S".into(),
            table: "t\"; DROP TABLE x".into(),
        }
    }

    fn copy_columns() -> Vec<CopyColumn> {
        columns()
            .into_iter()
            .map(|column| CopyColumn {
                field: column.name.clone(),
                column_type: column.column_type.snowflake(),
                expression: column.column_type.copy_expression(&column.name),
                name: column.name,
            })
            .collect()
    }

    fn columns() -> Vec<Column> {
        vec![
            Column::new(
                "A",
                ColumnType::Number {
                    precision: 38,
                    scale: 2,
                },
            ),
            Column::new("b\"c", ColumnType::Variant),
        ]
    }

    #[test]
    fn statements() {
        let quoted = "\"DB\".\"S\".\"t\"\"; DROP TABLE x\"";
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = "00000000-0000-0000-0000-000000000001";
        let second = "00000000-0000-0000-0000-000000000002";
        for (made, wanted) in [
            (
                delete_uploads(&table(), UPLOAD_ID, &[a, b], &[]),
                format!("DELETE FROM {quoted} WHERE \"UPLOAD_ID\" IN ('{first}', '{second}')"),
            ),
            (
                delete_uploads(&table(), UPLOAD_ID, &[a], &[("A", "it's"), ("B", "\\")]),
                format!(
                    r#"DELETE FROM {quoted} WHERE "UPLOAD_ID" IN ('{first}') AND "A" = 'it''s' AND "B" = '\\'"#
                ),
            ),
            (
                count_upload(&table(), UPLOAD_ID, a),
                format!("SELECT COUNT(*) FROM {quoted} WHERE \"UPLOAD_ID\" = '{first}'"),
            ),
            (remove("~/a/1/"), "REMOVE '@~/a/1/'".to_owned()),
            (list("~/a/"), "LIST '@~/a/'".to_owned()),
            (
                show_tables(Some("D"), Some("s")).unwrap(),
                "SHOW TABLES IN SCHEMA \"D\".\"s\"".to_owned(),
            ),
            (
                show_tables(Some("D"), None).unwrap(),
                "SHOW TABLES IN DATABASE \"D\"".to_owned(),
            ),
            (
                put("~/a/1/", &["part-00000.parquet"]).unwrap(),
                "PUT 'file:///snowflake_bridge/part-00000.parquet' '@~/a/1/' \
                 PARALLEL=1 AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE OVERWRITE=TRUE"
                    .to_owned(),
            ),
            (
                describe_transaction("17").unwrap(),
                "DESCRIBE TRANSACTION 17".to_owned(),
            ),
            (
                abort_transaction("17").unwrap(),
                "SELECT SYSTEM$ABORT_TRANSACTION(17)".to_owned(),
            ),
        ] {
            assert_eq!(made, wanted);
        }
        assert!(show_tables(None, Some("s")).is_err());
        for id in ["", "x", "1; DROP", "-1", &"1".repeat(39)] {
            assert!(
                describe_transaction(id).is_err() && abort_transaction(id).is_err(),
                "{id}"
            );
        }
        for names in [&["a'b"][..], &["a", "../b"], &["a/"], &[]] {
            assert!(put("~/a/", names).is_err(), "{names:?}");
        }
    }

    #[test]
    fn copy_reads_every_column_by_name() {
        let files = ["part-00000.parquet", "part-00001.parquet"];
        let copy = copy_into(&table(), &copy_columns(), "~/a/1/", &files, true);
        assert!(
            copy.starts_with(
                "COPY INTO \"DB\".\"S\".\"t\"\"; DROP TABLE x\" (\"A\", \"b\"\"c\") FROM (SELECT \
                 $1:\"A\"::NUMBER(38,2), PARSE_JSON($1:\"b\"\"c\") FROM '@~/a/1/') \
                 FILES = ('part-00000.parquet', 'part-00001.parquet') FILE_FORMAT = (TYPE = PARQUET "
            ),
            "{copy}"
        );
        assert!(
            copy.ends_with("ON_ERROR = ABORT_STATEMENT TRUNCATECOLUMNS = FALSE FORCE = TRUE"),
            "{copy}"
        );
    }
}
