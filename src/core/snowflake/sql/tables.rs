//! The statements that make a table what a result needs. All of them but the copying of a column commit what is open.

use super::{TableName, quote_ident, quote_literal};
use crate::types::Column;

/// Creates the table unless there is one of this name, clustered by these expressions, if there are any.
#[must_use]
pub fn create_table(
    table: &TableName,
    columns: &[Column],
    cluster_by: &[String],
    comment: &str,
) -> String {
    let cluster_by = match cluster_by {
        [] => String::new(),
        keys => format!(" CLUSTER BY ({})", keys.join(", ")),
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {} ({}){cluster_by} COMMENT = {}",
        table.quoted(),
        definitions(columns),
        quote_literal(comment)
    )
}

/// Adds columns, all nullable, so that rows already there stay as they are.
#[must_use]
pub fn add_columns(table: &TableName, columns: &[Column]) -> String {
    format!(
        "ALTER TABLE {} ADD COLUMN {}",
        table.quoted(),
        definitions(columns)
    )
}

/// Gives a column a wider type, as SQL spells it.
#[must_use]
pub fn widen_column(table: &TableName, column: &str, wider: &str) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {} SET DATA TYPE {wider}",
        table.quoted(),
        quote_ident(column)
    )
}

/// Lets a column take NULLs.
#[must_use]
pub fn drop_not_null(table: &TableName, column: &str) -> String {
    format!(
        "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL",
        table.quoted(),
        quote_ident(column)
    )
}

/// Gives a column another name; its values stay where they are.
#[must_use]
pub fn rename_column(table: &TableName, from: &str, to: &str) -> String {
    format!(
        "ALTER TABLE {} RENAME COLUMN {} TO {}",
        table.quoted(),
        quote_ident(from),
        quote_ident(to)
    )
}

/// Drops columns with their values.
#[must_use]
pub fn drop_columns(table: &TableName, columns: &[&str]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
    format!(
        "ALTER TABLE {} DROP COLUMN {}",
        table.quoted(),
        columns.join(", ")
    )
}

/// Makes the values of a column those of another, and marks all rows in a third.
#[must_use]
pub fn equal_column(table: &TableName, from: &str, to: &str, mark: &str) -> String {
    format!(
        "UPDATE {} SET {1} = {2}, {3} = TRUE WHERE {1} IS DISTINCT FROM {2} OR {3} IS NULL",
        table.quoted(),
        quote_ident(to),
        quote_ident(from),
        quote_ident(mark)
    )
}

/// Copies the values of a column into another in the rows that have none there and are not marked yet, and marks these.
#[must_use]
pub fn copy_column(table: &TableName, from: &str, to: &str, mark: &str) -> String {
    format!(
        "UPDATE {} SET {1} = {2}, {3} = TRUE WHERE {3} IS NULL AND {1} IS NULL AND {2} IS NOT NULL",
        table.quoted(),
        quote_ident(to),
        quote_ident(from),
        quote_ident(mark)
    )
}

/// Lists the columns of a table, with `name`, `type`, `null?` and `default`.
#[must_use]
pub fn describe_table(table: &TableName) -> String {
    format!("DESCRIBE TABLE {}", table.quoted())
}

/// Shows the table, with `name` and `cluster_by`; others, too, whose names differ in case or where it has `_` or `%`.
#[must_use]
pub fn show_table(table: &TableName) -> String {
    format!(
        "SHOW TABLES LIKE {} IN SCHEMA {}.{}",
        quote_literal(&table.table),
        quote_ident(&table.database),
        quote_ident(&table.schema)
    )
}

fn definitions(columns: &[Column]) -> String {
    let definitions: Vec<String> = columns
        .iter()
        .map(|column| {
            format!(
                "{} {}",
                quote_ident(&column.name),
                column.column_type.snowflake()
            )
        })
        .collect();
    definitions.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ColumnType;

    fn table() -> TableName {
        TableName {
            database: "DB".into(),
            schema: "S".into(),
            table: "t\"; DROP TABLE x".into(),
        }
    }

    fn columns() -> Vec<Column> {
        let number = ColumnType::Number {
            precision: 38,
            scale: 2,
        };
        vec![
            Column::new("A", number),
            Column::new("b\"c", ColumnType::Variant),
        ]
    }

    #[test]
    fn statements() {
        let quoted = "\"DB\".\"S\".\"t\"\"; DROP TABLE x\"";
        for (made, wanted) in [
            (
                create_table(&table(), &columns(), &[], "it's"),
                format!(
                    "CREATE TABLE IF NOT EXISTS {quoted} (\"A\" NUMBER(38,2), \"b\"\"c\" VARIANT) COMMENT = 'it''s'"
                ),
            ),
            (
                create_table(
                    &table(),
                    &columns()[..1],
                    &["\"A\"".to_owned(), "\"B\"".to_owned()],
                    "",
                ),
                format!(
                    "CREATE TABLE IF NOT EXISTS {quoted} (\"A\" NUMBER(38,2)) CLUSTER BY (\"A\", \"B\") COMMENT = ''"
                ),
            ),
            (
                rename_column(&table(), "a", "b\"c"),
                format!("ALTER TABLE {quoted} RENAME COLUMN \"a\" TO \"b\"\"c\""),
            ),
            (
                drop_columns(&table(), &["a", "b\"c"]),
                format!("ALTER TABLE {quoted} DROP COLUMN \"a\", \"b\"\"c\""),
            ),
            (
                equal_column(&table(), "a", "b", "m"),
                format!(
                    "UPDATE {quoted} SET \"b\" = \"a\", \"m\" = TRUE WHERE \"b\" IS DISTINCT FROM \"a\" OR \"m\" IS NULL"
                ),
            ),
            (
                copy_column(&table(), "a", "b", "m"),
                format!(
                    "UPDATE {quoted} SET \"b\" = \"a\", \"m\" = TRUE WHERE \"m\" IS NULL AND \"b\" IS NULL AND \"a\" IS NOT NULL"
                ),
            ),
            (
                add_columns(&table(), &columns()[..1]),
                format!("ALTER TABLE {quoted} ADD COLUMN \"A\" NUMBER(38,2)"),
            ),
            (
                widen_column(&table(), "A", "NUMBER(38,2)"),
                format!("ALTER TABLE {quoted} ALTER COLUMN \"A\" SET DATA TYPE NUMBER(38,2)"),
            ),
            (
                drop_not_null(&table(), "b\"c"),
                format!("ALTER TABLE {quoted} ALTER COLUMN \"b\"\"c\" DROP NOT NULL"),
            ),
            (describe_table(&table()), format!("DESCRIBE TABLE {quoted}")),
            (
                show_table(&table()),
                "SHOW TABLES LIKE 't\"; DROP TABLE x' IN SCHEMA \"DB\".\"S\"".to_owned(),
            ),
        ] {
            assert_eq!(made, wanted);
        }
    }
}
