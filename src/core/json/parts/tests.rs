//! Several threads find what one finds.

use proptest::prelude::*;

use super::*;
use crate::json::stored::tests::{Steps, Tree, any_tree};
use crate::json::{Numeric, OutOfRange, Plan, parse_result_columns};

fn alone(stored: &[u8], declared: Option<&[Declared]>, options: PlanOptions) -> Result<Plan> {
    let mut inference = Inference::new(declared, options);
    Stored::new(stored).walk(&mut inference, &mut Steps(usize::MAX))?;
    inference.finish()
}

fn in_parts(
    stored: &[u8],
    declared: Option<&[Declared]>,
    options: PlanOptions,
) -> Option<Result<Plan>> {
    together(
        Stored::new(stored),
        declared,
        options,
        Aside::default(),
        2,
        100,
    )
    .map(Inference::finish)
}

fn row(fields: &[(&str, Tree)]) -> Tree {
    Tree::Object(
        fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect(),
    )
}

fn number(text: &str) -> Tree {
    Tree::Number(text.to_owned(), true)
}

#[test]
fn columns_come_in_the_order_of_their_first_value() {
    let mut rows = vec![row(&[("b", number("1"))]); 40];
    rows[20] = row(&[("z", number("1.25")), ("b", Tree::Null)]);
    rows[39] = row(&[("a", Tree::Bool(true)), ("b", number("1000"))]);
    let stored = Tree::Array(rows).stored();
    let plan = in_parts(&stored, None, PlanOptions::default())
        .unwrap()
        .unwrap();
    let names: Vec<_> = plan
        .columns
        .iter()
        .map(|column| column.source_name.as_str())
        .collect();
    assert_eq!(names, ["b", "z", "a"]);
    assert_eq!(plan.rows, 40);
    assert_eq!(plan, alone(&stored, None, PlanOptions::default()).unwrap());
}

#[test]
fn what_only_one_walk_can_tell_is_left_to_it() {
    let options = PlanOptions::default();
    let objects = vec![row(&[("a", number("1"))]); 40];
    let arrays = vec![Tree::Array(vec![number("1")]); 40];
    let mut mixed = objects.clone();
    mixed[30] = Tree::Array(vec![]);
    let mut no_row = objects.clone();
    no_row[39] = number("1");
    let mut late = objects.clone();
    late[10] = Tree::Array(vec![]);
    for rows in [arrays, mixed, no_row, late, objects[..2].to_vec()] {
        assert!(in_parts(&Tree::Array(rows).stored(), None, options).is_none());
    }
    let mut large = objects.clone();
    large[5] = row(&[("a", Tree::String("x".repeat(10_000)))]);
    assert!(in_parts(&Tree::Array(large).stored(), None, options).is_none());
    let stored = Tree::Array(objects).stored();
    let aside = Aside::default();
    assert!(together(Stored::new(&stored), None, options, aside, 0, 100).is_none());
    assert!(infer_together(Stored::new(&stored), None, options, aside).is_none());
    assert!(in_parts(&stored, None, options).is_some());
}

#[test]
fn who_wants_it_to_stop_is_asked_between_parts() {
    let stored = Tree::Array(vec![row(&[("a", number("1"))]); 200]).stored();
    let aside = Aside {
        check: || panic!("stop"),
        ..Aside::default()
    };
    let stopped = || {
        together(
            Stored::new(&stored),
            None,
            PlanOptions::default(),
            aside,
            2,
            100,
        )
    };
    assert!(std::panic::catch_unwind(stopped).is_err());
}

proptest! {
    #[test]
    fn parts_say_what_the_whole_says(
        rows in prop::collection::vec(
            prop::collection::btree_map("[a-d]", any_tree(5), 0..4).prop_map(|fields| Tree::Object(fields.into_iter().collect())),
            20..40,
        ),
        is_declared: bool,
        is_lenient: bool,
        is_text: bool,
    ) {
        let stored = Tree::Array(rows).stored();
        let columns = r#"["c", {"name": "x", "type": "text"}, {"name": "a", "type": "numeric"}]"#;
        let declared = parse_result_columns(if is_declared { columns } else { "null" }).unwrap();
        let options = PlanOptions {
            on_out_of_range: if is_lenient { OutOfRange::Null } else { OutOfRange::Error },
            numeric: if is_text { Numeric::Varchar } else { Numeric::Number },
            ..PlanOptions::default()
        };
        let one = alone(&stored, declared.as_deref(), options);
        match (in_parts(&stored, declared.as_deref(), options), one) {
            (None, _) => {}
            (Some(Ok(many)), Ok(one)) => prop_assert_eq!(many, one),
            (Some(Err(many)), Err(one)) => prop_assert_eq!(many.message(), one.message()),
            (many, one) => prop_assert!(false, "{many:?} instead of {one:?}"),
        }
    }
}
