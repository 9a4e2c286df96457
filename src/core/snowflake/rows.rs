//! The rows of a result, counted while they are read: a short answer can hold a great many values, and each of them takes
//! far more memory than the two bytes it may be written with.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::wire::text_or_number;
use crate::{Error, ErrorKind, Result};

/// A result is what a loader reads: counts, descriptions, lists of tables. More than this is not such a thing.
pub(crate) const MAX_ROWS: usize = 200_000;
/// And so many values, as the widest lists may have; short ones take about 60 bytes each.
pub(crate) const MAX_CELLS: usize = 2_000_000;
/// And so much text in them, all parts together.
pub(crate) const MAX_TEXT: usize = 64 * 1024 * 1024;

/// Rows of text and NULL.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Vec<Option<String>>>,
    cells: usize,
    text: usize,
    /// Whether there were more than are kept.
    cut: bool,
}

impl Rows {
    /// # Errors
    /// `Internal` if there are too many.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cut || self.is_too_large() {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "Snowflake sent a result of more than {MAX_ROWS} rows, {MAX_CELLS} values or {MAX_TEXT} bytes"
                ),
            ));
        }
        Ok(())
    }

    /// Adds those of the next part.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.rows.append(&mut more.rows);
        self.cells += more.cells;
        self.text += more.text;
        self.cut |= more.cut;
    }

    fn is_too_large(&self) -> bool {
        self.rows.len() > MAX_ROWS || self.cells > MAX_CELLS || self.text > MAX_TEXT
    }
}

/// A value: text, or NULL.
struct Cell(Option<String>);

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Reader(Self::default()))
    }
}

struct Reader(Rows);

impl<'de> Visitor<'de> for Reader {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut rows: A) -> Result<Rows, A::Error> {
        while !self.0.cut {
            if rows.next_element_seed(Row(&mut self.0))?.is_none() {
                return Ok(self.0);
            }
            self.0.cut = self.0.is_too_large();
        }
        while rows.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.0)
    }
}

/// Reads one row into those before it.
struct Row<'a>(&'a mut Rows);

impl<'de> serde::de::DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<(), A::Error> {
        let mut row = Vec::new();
        while !self.0.is_too_large() {
            let Some(Cell(cell)) = cells.next_element()? else {
                self.0.rows.push(row);
                return Ok(());
            };
            self.0.cells += 1;
            self.0.text += cell.as_ref().map_or(0, String::len);
            row.push(cell);
        }
        while cells.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Rows {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn rows_are_read_as_they_are() {
        let rows = read(r#"[["a", null, 2, true], [], ["b"]]"#);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            rows.rows,
            [
                vec![text("a"), None, text("2"), text("true")],
                vec![],
                vec![text("b")]
            ]
        );
        assert!(rows.check().is_ok());
        for odd in ["{}", "[1]", "[[[]]]", r#"[[{"a": 1}]]"#, r#"["a"]"#] {
            assert!(serde_json::from_str::<Rows>(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let many = |what: &str, times: usize| vec![what; times].join(",");
        for (json, kept) in [
            (format!("[{}]", many("[]", MAX_ROWS + 2)), MAX_ROWS + 1),
            (format!("[[1],[{}],[2]]", many("1", MAX_CELLS + 1)), 1),
            (format!("[[\"{}\",1],[2]]", "x".repeat(MAX_TEXT + 1)), 0),
        ] {
            let rows = read(&json);
            assert_eq!(rows.rows.len(), kept);
            assert_eq!(rows.check().unwrap_err().kind(), ErrorKind::Internal);
        }
        let full = format!("[{}]", many("[]", MAX_ROWS));
        assert!(read(&full).check().is_ok());
    }

    #[test]
    fn parts_count_together() {
        let part = || read(&format!("[{}]", vec!["[]"; MAX_ROWS / 2 + 1].join(",")));
        let mut rows = part();
        assert!(rows.check().is_ok());
        rows.append(part());
        assert!(rows.check().is_err());
    }
}
