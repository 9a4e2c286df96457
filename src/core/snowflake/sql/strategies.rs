//! The statements by which new rows meet those that are there: through a temporary table, all of them DML, so that they
//! stand in one transaction. The temporary table has the types of the target, so that keys are compared as stored.

use uuid::Uuid;

use super::{CopyColumn, TableName, quote_ident, quote_literal};
use crate::names::ROW_ORDINAL;

/// The temporary table of an upload, beside its target. No other upload has one of this name.
#[must_use]
pub fn temporary_table(target: &TableName, upload: Uuid) -> TableName {
    TableName {
        table: format!("SNOWFLAKE_BRIDGE_{}", upload.simple()).to_uppercase(),
        ..target.clone()
    }
}

/// Makes it anew, with the columns that the target gets and the place of each row in the upload.
#[must_use]
pub fn create_temporary_table(temporary: &TableName, columns: &[CopyColumn]) -> String {
    let definitions: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}", quote_ident(&column.name), column.column_type))
        .collect();
    format!(
        "CREATE OR REPLACE TEMPORARY TABLE {} ({}) COMMENT = 'snowflake_bridge: rows on their way into another table'",
        temporary.quoted(),
        definitions.join(", ")
    )
}

/// How the place of each row comes into the temporary table.
#[must_use]
pub fn ordinal_column() -> CopyColumn {
    CopyColumn {
        field: ROW_ORDINAL.to_owned(),
        name: ROW_ORDINAL.to_owned(),
        column_type: "NUMBER(18,0)".to_owned(),
        expression: format!("$1:{}::NUMBER(18,0)", quote_ident(ROW_ORDINAL)),
    }
}

/// Ends a temporary table before its session ends.
#[must_use]
pub fn drop_table(table: &TableName) -> String {
    format!("DROP TABLE IF EXISTS {}", table.quoted())
}

/// Makes the rows of `from` those of `target`. Unlike a new table it keeps privileges, comments and all else.
#[must_use]
pub fn insert_overwrite(target: &TableName, from: &TableName, columns: &[CopyColumn]) -> String {
    insert("INSERT OVERWRITE INTO", target, from, columns)
}

/// Adds the rows of `from` to those of `target`.
#[must_use]
pub fn insert_from(target: &TableName, from: &TableName, columns: &[CopyColumn]) -> String {
    insert("INSERT INTO", target, from, columns)
}

fn insert(verb: &str, target: &TableName, from: &TableName, columns: &[CopyColumn]) -> String {
    let names = names(columns, "");
    format!(
        "{verb} {} ({names}) SELECT {names} FROM {}",
        target.quoted(),
        from.quoted()
    )
}

/// Updates the rows of `target` that have the keys of a row of `from`, and adds the others. Of several rows of `from`
/// with one key the last counts. NULL is the same key as NULL.
#[must_use]
pub fn merge(
    target: &TableName,
    from: &TableName,
    columns: &[CopyColumn],
    keys: &[&str],
) -> String {
    let on: Vec<String> = keys
        .iter()
        .map(|key| format!("EQUAL_NULL(t.{0}, s.{0})", quote_ident(key)))
        .collect();
    let set: Vec<String> = columns
        .iter()
        .filter(|column| !keys.contains(&column.name.as_str()))
        .map(|column| format!("{0} = s.{0}", quote_ident(&column.name)))
        .collect();
    format!(
        "MERGE INTO {} AS t USING (SELECT {names} FROM {} QUALIFY ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {} DESC) = 1) \
         AS s ON {} WHEN MATCHED THEN UPDATE SET {} WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})",
        target.quoted(),
        from.quoted(),
        key_list(keys),
        quote_ident(ROW_ORDINAL),
        on.join(" AND "),
        set.join(", "),
        values = names(columns, "s."),
        names = names(columns, ""),
    )
}

/// Counts how many different keys a table has, in all rows or in those that an upload brought. The column that holds the
/// uploads' ids is named by the caller.
#[must_use]
pub fn count_keys(table: &TableName, keys: &[&str], upload: Option<(&str, Uuid)>) -> String {
    let only = upload.map_or_else(String::new, |(column, upload)| {
        format!(
            " WHERE {} = {}",
            quote_ident(column),
            quote_literal(&upload.to_string())
        )
    });
    format!(
        "SELECT COUNT(*) FROM (SELECT DISTINCT {} FROM {}{only})",
        key_list(keys),
        table.quoted()
    )
}

/// Counts all rows of a table.
#[must_use]
pub fn count_rows(table: &TableName) -> String {
    format!("SELECT COUNT(*) FROM {}", table.quoted())
}

/// 0 if the table has no row, else 1.
#[must_use]
pub fn has_rows(table: &TableName) -> String {
    format!(
        "SELECT COUNT(*) FROM (SELECT 1 FROM {} LIMIT 1)",
        table.quoted()
    )
}

/// Deletes the rows of `target` that have the user and the date of any row of `from`; of moments the day in UTC counts.
#[must_use]
pub fn delete_dates(
    target: &TableName,
    from: &TableName,
    user: &str,
    date: &CopyColumn,
    is_timestamp: bool,
) -> String {
    let day = |alias: &str| {
        let column = format!("{alias}{}", quote_ident(&date.name));
        if date.column_type.starts_with("TIMESTAMP_TZ") {
            // TO_DATE alone tells the day at the value's own offset, which others may have written.
            format!("TO_DATE(CONVERT_TIMEZONE('UTC', {column}))")
        } else if is_timestamp {
            format!("TO_DATE({column})")
        } else {
            column
        }
    };
    format!(
        "DELETE FROM {} AS t USING (SELECT DISTINCT {user} AS \"U\", {} AS \"D\" FROM {}) AS s \
         WHERE EQUAL_NULL(t.{user}, s.\"U\") AND EQUAL_NULL({}, s.\"D\")",
        target.quoted(),
        day(""),
        from.quoted(),
        day("t."),
        user = quote_ident(user),
    )
}

fn key_list(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| quote_ident(key)).collect();
    keys.join(", ")
}

fn names(columns: &[CopyColumn], prefix: &str) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|column| format!("{prefix}{}", quote_ident(&column.name)))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableName {
        TableName {
            database: "DB".into(),
            schema: "S".into(),
            table: name.into(),
        }
    }

    fn column(name: &str, column_type: &str) -> CopyColumn {
        CopyColumn {
            field: name.to_owned(),
            name: name.to_owned(),
            column_type: column_type.to_owned(),
            expression: String::new(),
        }
    }

    #[test]
    fn statements() {
        let (target, from) = (table("T"), table("X"));
        let columns = [column("k\"", "NUMBER(38,0)"), column("V", "VARIANT")];
        let upload = Uuid::from_u128(1);
        for (made, wanted) in [
            (
                create_temporary_table(&from, &columns),
                r#"CREATE OR REPLACE TEMPORARY TABLE "DB"."S"."X" ("k""" NUMBER(38,0), "V" VARIANT) COMMENT = 'snowflake_bridge: rows on their way into another table'"#,
            ),
            (drop_table(&from), r#"DROP TABLE IF EXISTS "DB"."S"."X""#),
            (
                insert_overwrite(&target, &from, &columns),
                r#"INSERT OVERWRITE INTO "DB"."S"."T" ("k""", "V") SELECT "k""", "V" FROM "DB"."S"."X""#,
            ),
            (
                insert_from(&target, &from, &columns),
                r#"INSERT INTO "DB"."S"."T" ("k""", "V") SELECT "k""", "V" FROM "DB"."S"."X""#,
            ),
            (
                merge(&target, &from, &columns, &["k\""]),
                r#"MERGE INTO "DB"."S"."T" AS t USING (SELECT "k""", "V" FROM "DB"."S"."X" QUALIFY ROW_NUMBER() OVER (PARTITION BY "k""" ORDER BY "ROW_ORDINAL" DESC) = 1) AS s ON EQUAL_NULL(t."k""", s."k""") WHEN MATCHED THEN UPDATE SET "V" = s."V" WHEN NOT MATCHED THEN INSERT ("k""", "V") VALUES (s."k""", s."V")"#,
            ),
            (
                count_keys(&from, &["A", "B"], None),
                r#"SELECT COUNT(*) FROM (SELECT DISTINCT "A", "B" FROM "DB"."S"."X")"#,
            ),
            (
                count_keys(&target, &["A"], Some(("UPLOAD_ID", upload))),
                r#"SELECT COUNT(*) FROM (SELECT DISTINCT "A" FROM "DB"."S"."T" WHERE "UPLOAD_ID" = '00000000-0000-0000-0000-000000000001')"#,
            ),
            (count_rows(&target), r#"SELECT COUNT(*) FROM "DB"."S"."T""#),
            (
                has_rows(&target),
                r#"SELECT COUNT(*) FROM (SELECT 1 FROM "DB"."S"."T" LIMIT 1)"#,
            ),
            (
                delete_dates(
                    &target,
                    &from,
                    "USER_ID",
                    &column("D", "TIMESTAMP_TZ(9)"),
                    true,
                ),
                r#"DELETE FROM "DB"."S"."T" AS t USING (SELECT DISTINCT "USER_ID" AS "U", TO_DATE(CONVERT_TIMEZONE('UTC', "D")) AS "D" FROM "DB"."S"."X") AS s WHERE EQUAL_NULL(t."USER_ID", s."U") AND EQUAL_NULL(TO_DATE(CONVERT_TIMEZONE('UTC', t."D")), s."D")"#,
            ),
            (
                delete_dates(
                    &target,
                    &from,
                    "USER_ID",
                    &column("D", "TIMESTAMP_NTZ(6)"),
                    true,
                ),
                r#"DELETE FROM "DB"."S"."T" AS t USING (SELECT DISTINCT "USER_ID" AS "U", TO_DATE("D") AS "D" FROM "DB"."S"."X") AS s WHERE EQUAL_NULL(t."USER_ID", s."U") AND EQUAL_NULL(TO_DATE(t."D"), s."D")"#,
            ),
        ] {
            assert_eq!(made, wanted);
        }
    }

    #[test]
    fn a_temporary_table_is_named_by_its_upload() {
        let temporary = temporary_table(&table("T"), Uuid::from_u128(0xAB));
        assert_eq!(
            temporary.table,
            "SNOWFLAKE_BRIDGE_000000000000000000000000000000AB"
        );
        assert_eq!(
            (temporary.database, temporary.schema),
            ("DB".into(), "S".into())
        );
    }
}
