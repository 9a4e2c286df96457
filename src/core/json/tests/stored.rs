//! A result in its stored form is the result that its text is.

use proptest::prelude::*;

use super::*;
use crate::json::stored::tests::{Steps, Tree, any_number, any_tree};

/// What both walks make of it: the plan and its rows, or what is wrong.
fn batch(
    columns: &str,
    options: PlanOptions,
    walk: impl Fn(&mut dyn TokenSink) -> Result<()>,
) -> std::result::Result<(Plan, arrow::array::RecordBatch), String> {
    let read = || {
        let declared = parse_result_columns(columns)?;
        let mut inference = Inference::new(declared.as_deref(), options);
        walk(&mut inference)?;
        let plan = inference.finish()?;
        let mut batch = BatchBuilder::new(&plan.result_columns());
        let mut rows = Rows::new(&plan, &mut batch);
        walk(&mut rows)?;
        rows.finish()?;
        let batch = batch.finish_batch()?;
        Ok((plan, batch))
    };
    read().map_err(|error: Error| error.to_string())
}

fn any_rows() -> impl Strategy<Value = Vec<Tree>> {
    let numbers = prop_oneof![4 => any_number(), 1 => Just(Tree::Null)];
    let row = |value: BoxedStrategy<Tree>| {
        prop::collection::btree_map("[a-d]", value, 0..4)
            .prop_map(|fields| Tree::Object(fields.into_iter().collect()))
    };
    prop_oneof![
        3 => prop::collection::vec(row(numbers.boxed()), 0..20),
        1 => prop::collection::vec(row(any_tree(5).boxed()), 0..20),
        1 => prop::collection::vec(prop::collection::vec(any_number(), 2..=2).prop_map(Tree::Array), 0..20),
        1 => prop::collection::vec(any_tree(5), 0..5),
    ]
}

proptest! {
    #[test]
    fn stored_rows_are_those_of_the_text(
        rows in any_rows(),
        columns in prop_oneof![
            Just("null"),
            Just(r#"["b", {"name": "a", "type": "numeric"}]"#),
            Just(r#"[{"name": "a", "type": "numeric(12,2)"}, {"name": "b", "type": "bigint"}, {"name": "c", "type": "text"}, {"name": "d", "type": "float"}]"#),
        ],
        on_out_of_range in prop_oneof![Just(OutOfRange::Error), Just(OutOfRange::Null), Just(OutOfRange::Text)],
        numeric in prop_oneof![4 => Just(Numeric::Number), 1 => Just(Numeric::Varchar)],
    ) {
        let options = PlanOptions { on_out_of_range, numeric, ..PlanOptions::default() };
        let tree = Tree::Array(rows);
        let (text, stored) = (tree.text(), tree.stored());
        let of_text = batch(columns, options, |sink| parse_text(&text, sink));
        let of_stored = batch(columns, options, |sink| Stored::new(&stored).walk(sink, &mut Steps(usize::MAX)));
        prop_assert_eq!(of_stored, of_text);
    }
}

#[test]
fn counted_numbers_travel_in_as_few_bytes_as_hold_them() {
    let plan =
        plan(r#"[{"a": 1, "b": 19.99, "c": 12345678901234567890}, {"a": -99, "b": 1e9}]"#).unwrap();
    let types: Vec<_> = plan
        .result_columns()
        .iter()
        .map(|column| (column.column_type, column.type_in_file()))
        .collect();
    let number = |precision, scale| ColumnType::Number { precision, scale };
    assert_eq!(
        types,
        [
            (number(38, 0), number(2, 0)),
            (number(38, 10), number(12, 2)),
            (number(38, 0), number(38, 0)),
        ]
    );
}
