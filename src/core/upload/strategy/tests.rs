//! What an upsert matches by, for results of all sorts.

use super::*;

const NUMBER: ColumnType = ColumnType::Number {
    precision: 38,
    scale: 0,
};

fn manifest(columns: &[(&str, ColumnType)]) -> Manifest {
    let mut columns: Vec<Column> = columns
        .iter()
        .map(|(name, column_type)| Column::new(*name, *column_type))
        .collect();
    columns.extend(metadata_columns());
    Manifest {
        columns,
        files: Vec::new(),
        rows: 1,
        bytes: 0,
        window: None,
        relation: None,
    }
}

fn upsert(keys: Option<&[&str]>, case: ColumnCase, manifest: &Manifest) -> Result<Match> {
    let keys: Option<Vec<String>> =
        keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
    match Strategy::choose(StrategyName::Upsert, keys.as_deref(), case, manifest)? {
        Strategy::Upsert(found) => Ok(found),
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_fold_as_columns_do() {
    let upper = manifest(&[("ID", NUMBER), ("RESULT_USER_ID", ColumnType::Text)]);
    assert_eq!(
        upsert(Some(&["id", "user_id"]), ColumnCase::Upper, &upper).unwrap(),
        Match::Keys(vec!["ID".to_owned(), "RESULT_USER_ID".to_owned()])
    );
    let exact = manifest(&[("Id", NUMBER)]);
    assert_eq!(
        upsert(Some(&["Id"]), ColumnCase::Preserve, &exact).unwrap(),
        Match::Keys(vec!["Id".to_owned()])
    );
    assert!(upsert(Some(&["id"]), ColumnCase::Preserve, &exact).is_err());
}

#[test]
fn keys_that_are_no_columns_are_named() {
    let result = manifest(&[("ID", NUMBER)]);
    for keys in [&["id", "colour", "size"][..], &["execution_id"]] {
        let error = upsert(Some(keys), ColumnCase::Upper, &result).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        for key in keys.iter().filter(|key| **key != "id") {
            assert!(error.message().contains(&shown(key)), "{error}");
        }
        assert!(!error.message().contains("\"id\""), "{error}");
        assert!(error.hint().unwrap().contains("\"ID\""));
    }
    let twice = upsert(Some(&["id", "ID"]), ColumnCase::Upper, &result).unwrap_err();
    assert!(twice.message().contains("twice"), "{twice}");
    let mut empty = result;
    empty.rows = 0;
    assert!(upsert(Some(&["colour"]), ColumnCase::Upper, &empty).is_ok());
}

#[test]
fn a_window_comes_before_a_date_column() {
    let mut result = manifest(&[("DAY", ColumnType::Date)]);
    let dates = Match::Dates(DateColumn {
        name: "DAY".to_owned(),
        is_timestamp: false,
    });
    assert_eq!(upsert(None, ColumnCase::Upper, &result).unwrap(), dates);
    result.window = TimeWindow::new(Some("2024-01-01".to_owned()), Some("20240131".to_owned()));
    let found = upsert(None, ColumnCase::Upper, &result).unwrap();
    let window = TimeWindow {
        start: "2024-01-01".to_owned(),
        end: "20240131".to_owned(),
    };
    assert_eq!(found, Match::Window(window));
    assert_eq!(Strategy::Upsert(found).constants().len(), 2);
    result
        .columns
        .push(Column::new("time_window_end", ColumnType::Text));
    let error = upsert(None, ColumnCase::Preserve, &result).unwrap_err();
    assert!(error.message().contains("TIME_WINDOW_END"), "{error}");
}

#[test]
fn json_is_no_key() {
    for (column_type, is_key) in [
        (ColumnType::Variant, false),
        (ColumnType::Array, false),
        (ColumnType::Binary, true),
        (ColumnType::Float, true),
    ] {
        let chosen = upsert(
            Some(&["k"]),
            ColumnCase::Upper,
            &manifest(&[("K", column_type)]),
        );
        assert_eq!(chosen.is_ok(), is_key, "{column_type:?}");
    }
}

#[test]
fn half_a_window_is_none() {
    for (start, end) in [
        (Some("x"), None),
        (None, Some("x")),
        (Some(""), Some("x")),
        (None, None),
    ] {
        let window = TimeWindow::new(start.map(str::to_owned), end.map(str::to_owned));
        assert_eq!(window, None);
    }
}

#[test]
fn date_columns_by_type_then_by_name() {
    use ColumnType::{Date, Text, TimestampNtz, TimestampTz};
    type Case<'a> = (
        &'a [(&'a str, ColumnType)],
        Result<Option<(&'a str, bool)>, usize>,
    );
    let cases: [Case<'_>; 10] = [
        (&[("N", NUMBER), ("NAME", Text)], Ok(None)),
        (&[("WHEN", Date)], Ok(Some(("WHEN", false)))),
        (
            &[("WHEN", Date), ("AT", TimestampNtz)],
            Ok(Some(("WHEN", false))),
        ),
        (
            &[("AT", TimestampTz), ("DATE", Text)],
            Ok(Some(("AT", true))),
        ),
        (&[("REPORT_DATE", Text)], Ok(Some(("REPORT_DATE", false)))),
        (&[("birthday", Text)], Ok(None)),
        (&[("UPDATE", Text)], Ok(None)),
        (&[("A", Date), ("date", Date)], Ok(Some(("date", false)))),
        (&[("A", Date), ("DAY", Date)], Ok(Some(("DAY", false)))),
        (&[("A", Date), ("B", Date)], Err(2)),
    ];
    for (columns, wanted) in cases {
        let found = DateColumn::detect(&manifest(columns).columns);
        let found = found
            .map(|found| found.map(|column| (column.name, column.is_timestamp)))
            .map_err(|candidates| candidates.len());
        let wanted = wanted.map(|wanted| wanted.map(|(name, at)| (name.to_owned(), at)));
        assert_eq!(found, wanted, "{columns:?}");
    }
}

#[test]
fn an_upsert_by_nothing_is_refused_unless_there_is_nothing() {
    let mut result = manifest(&[("N", NUMBER)]);
    let error = upsert(None, ColumnCase::Upper, &result).unwrap_err();
    assert!(error.message().contains("key_columns"), "{error}");
    assert!(error.message().contains("time_window_start"), "{error}");
    let several = manifest(&[("A", ColumnType::Date), ("B", ColumnType::Date)]);
    let error = upsert(None, ColumnCase::Upper, &several).unwrap_err();
    assert!(error.message().contains("\"A\", \"B\""), "{error}");
    result.rows = 0;
    assert_eq!(
        upsert(None, ColumnCase::Upper, &result).unwrap(),
        Match::Nothing
    );
}
