//! SQL as text for Snowflake: names and literals that cannot end early, and the statements of a load.
//!
//! Nothing is checked here but what would change the meaning of a statement: Snowflake itself says what is too long.

mod load;
mod parameters;
mod retention;
mod strategies;
mod tables;

use std::fmt;

pub(crate) use load::check_names;
pub use load::{
    CopyColumn, abort_transaction, begin, commit, copy_into, count_upload, current_transaction,
    delete_uploads, describe_transaction, list, put, remove, remove_uploads, rollback,
    set_autocommit, show_tables,
};
pub use parameters::{show_network_policy_of_account, show_network_policy_of_user};
pub use retention::delete_uploaded_before;
pub use strategies::{
    count_keys, count_rows, create_temporary_table, delete_dates, drop_table, has_rows,
    insert_from, insert_overwrite, merge, ordinal_column, temporary_table,
};
pub use tables::{
    add_columns, copy_column, create_table, describe_table, drop_columns, drop_not_null,
    equal_column, rename_column, show_table, widen_column,
};

/// A table by its full name, each part exactly as it is to be quoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The database.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// The name as SQL.
    #[must_use]
    pub fn quoted(&self) -> String {
        [&self.database, &self.schema, &self.table]
            .map(|part| quote_ident(part))
            .join(".")
    }
}

impl From<[String; 3]> for TableName {
    fn from([database, schema, table]: [String; 3]) -> Self {
        Self {
            database,
            schema,
            table,
        }
    }
}

impl fmt::Display for TableName {
    /// For messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.database, self.schema, self.table)
    }
}

/// A name in double quotes, which keeps its case and every character.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal. Snowflake reads `\` in it as an escape, so that is doubled like the quote.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A directory below the user's own stage, such as `~/a/b/`, as a literal.
#[must_use]
pub fn stage_path(directory: &str) -> String {
    quote_literal(&format!("@{directory}"))
}

/// Whether a text is a plain file name, the same to Snowflake, to cloud storage and in SQL.
pub(crate) fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a quoted text as Snowflake does, and gives it back with what follows it.
    fn read_quoted(sql: &str, quote: char, escapes: bool) -> Option<(String, String)> {
        let mut chars = sql.strip_prefix(quote)?.chars().peekable();
        let mut text = String::new();
        while let Some(c) = chars.next() {
            if c == '\\' && escapes {
                text.push(chars.next()?);
            } else if c == quote && chars.peek() == Some(&quote) {
                chars.next();
                text.push(quote);
            } else if c == quote {
                return Some((text, chars.collect()));
            } else {
                text.push(c);
            }
        }
        None
    }

    proptest! {
        #[test]
        fn identifiers_end_where_they_should(name in r#"["\\'a]{0,20}|(?s).*"#) {
            let quoted = quote_ident(&name);
            prop_assert_eq!(read_quoted(&quoted, '"', false), Some((name, String::new())));
        }

        #[test]
        fn literals_end_where_they_should(text in r#"[\\'"a\n;-]{0,40}|(?s).*"#) {
            let quoted = quote_literal(&text);
            prop_assert_eq!(read_quoted(&quoted, '\'', true), Some((text, String::new())));
        }
    }

    #[test]
    fn quoting() {
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's \\"), "'it''s \\\\'");
        assert_eq!(stage_path("~/a-1/2/"), "'@~/a-1/2/'");
    }

    #[test]
    fn plain_file_names() {
        assert!(is_file_name("part-00000.parquet"));
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a'b",
            "*",
            "a b",
            "a\\b",
            "ä",
            &"x".repeat(256),
        ] {
            assert!(!is_file_name(name), "{name}");
        }
    }
}
