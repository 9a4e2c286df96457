//! What docs/types.md says of the database's types is what happens.

use std::collections::HashSet;

use super::*;

/// The names of the first table of a section of docs/types.md, each with the column that it says they get.
fn documented(heading: &str) -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/types.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let (_, section) = documentation.split_once(heading).unwrap();
    let (_, table) = section.split_once("\n|").unwrap();
    let quoted = |cell: &str| -> Vec<String> {
        let parts = cell.split('`').skip(1).step_by(2);
        parts.map(str::to_owned).collect()
    };
    let lines = table.lines().skip(2);
    lines
        .take_while(|line| line.starts_with('|'))
        .flat_map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let column = quoted(cells[2]).swap_remove(0);
            let names = quoted(cells[1]).into_iter();
            names.map(move |name| (name, column.clone()))
        })
        .collect()
}

/// A name with digits in the place of what stands for them.
fn with_digits(text: &str) -> String {
    text.replace("(p,s)", "(7,3)").replace("(n)", "(5)")
}

/// The column in the words of the documentation.
fn words(found: SourceType, money: &str) -> String {
    match found.column_type() {
        Some(column_type) => column_type.snowflake(),
        None if found == SourceType::Money => money.to_owned(),
        None => "NUMBER(38,s)".to_owned(),
    }
}

#[test]
fn the_documentation_says_what_declared_types_become() {
    let documented = documented("## Declared types");
    for (name, column) in &documented {
        let found = SourceType::declared(&with_digits(name)).unwrap();
        let text = ColumnType::Text.snowflake();
        assert_eq!(words(found, &text), with_digits(column), "{name}");
    }
    let known: HashSet<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    for (found, names) in NAMES {
        for name in names {
            let is_declarable = found != SourceType::Geometry;
            assert_eq!(known.contains(name), is_declarable, "{name} in the table");
        }
    }
}

#[test]
fn the_documentation_says_what_the_types_of_queries_become() {
    let documented = documented("## Queries and tables");
    let mut seen = Vec::new();
    for (name, column) in &documented {
        let found = SourceType::named(&with_digits(name));
        let found = found.unwrap_or_else(|| panic!("{name} is no type"));
        let money = format!("NUMBER({MONEY_PRECISION},s)");
        assert_eq!(words(found, &money), with_digits(column), "{name}");
        seen.push(found);
    }
    for (found, _) in NAMES {
        assert!(seen.contains(&found), "{found:?} is not in the table");
    }
}

#[test]
fn digits_that_no_number_has_are_those_of_the_data() {
    let number = |precision, scale| SourceType::Number { precision, scale };
    for (precision, scale, expected) in [
        (12, 2, number(12, 2)),
        (38, 37, number(38, 37)),
        (3, -2, number(5, 0)),
        (3, 5, number(5, 5)),
        (38, 38, SourceType::Numeric),
        (39, 0, SourceType::Numeric),
        (38, -1, SourceType::Numeric),
        (1, 38, SourceType::Numeric),
        (1000, -1000, SourceType::Numeric),
        (0, 0, SourceType::Numeric),
    ] {
        assert_eq!(SourceType::numeric(precision, scale), expected);
    }
}
