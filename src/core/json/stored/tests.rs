//! Documents in their stored form, made here as the database makes them, beside their text.

use proptest::prelude::*;

use super::container::{HAS_END, IS_ARRAY, IS_OBJECT, IS_SCALAR};
use super::*;
use crate::error::Result;
use crate::json::parse_text;

/// A document.
#[derive(Debug, Clone)]
pub(in crate::json) enum Tree {
    Null,
    Bool(bool),
    /// In plain notation.
    Number(String, bool),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    pub(in crate::json) fn text(&self) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let joined = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text, _) => text.clone(),
            Self::String(text) => quoted(text),
            Self::Array(elements) => {
                format!("[{}]", joined(elements.iter().map(Self::text).collect()))
            }
            Self::Object(fields) => {
                let field =
                    |(key, value): &(String, Self)| format!("{}:{}", quoted(key), value.text());
                format!("{{{}}}", joined(fields.iter().map(field).collect()))
            }
        }
    }

    pub(in crate::json) fn stored(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Array(_) | Self::Object(_) => {
                self.write(&mut out);
            }
            scalar => {
                out.extend((IS_ARRAY | IS_SCALAR | 1).to_ne_bytes());
                write_all(&[scalar], &mut out);
            }
        }
        out
    }

    /// Appends it; the answer is its type.
    fn write(&self, out: &mut Vec<u8>) -> u32 {
        match self {
            Self::Null => NULL,
            Self::Bool(false) => FALSE,
            Self::Bool(true) => TRUE,
            Self::String(text) => {
                out.extend_from_slice(text.as_bytes());
                STRING
            }
            Self::Number(text, is_short) => {
                align(out);
                let number = decimal::stored(text, *is_short);
                if *is_short && number.len() < 100 {
                    let size = number.len() as u8 + 1;
                    out.push(if cfg!(target_endian = "little") {
                        size << 1 | 1
                    } else {
                        size | 0x80
                    });
                } else {
                    let size = number.len() as u32 + 4;
                    out.extend(
                        (if cfg!(target_endian = "little") {
                            size << 2
                        } else {
                            size
                        })
                        .to_ne_bytes(),
                    );
                }
                out.extend(number);
                NUMERIC
            }
            Self::Array(elements) => {
                align(out);
                out.extend((IS_ARRAY | elements.len() as u32).to_ne_bytes());
                write_all(&elements.iter().collect::<Vec<_>>(), out);
                CONTAINER
            }
            Self::Object(fields) => {
                align(out);
                out.extend((IS_OBJECT | fields.len() as u32).to_ne_bytes());
                let keys: Vec<_> = fields
                    .iter()
                    .map(|(key, _)| Self::String(key.clone()))
                    .collect();
                let all: Vec<_> = keys
                    .iter()
                    .chain(fields.iter().map(|(_, value)| value))
                    .collect();
                write_all(&all, out);
                CONTAINER
            }
        }
    }
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(WORD), 0);
}

/// Of each what says where it is, then what it is. The place of each 32nd is told, of the others how long they are.
fn write_all(parts: &[&Tree], out: &mut Vec<u8>) {
    let entries = out.len();
    out.resize(entries + parts.len() * WORD, 0);
    let data = out.len();
    let mut start = data;
    for (index, part) in parts.iter().enumerate() {
        let kind = part.write(out);
        let end = out.len();
        let entry = if index % 32 == 0 {
            HAS_END | (end - data) as u32
        } else {
            (end - start) as u32
        };
        out[entries + index * WORD..][..WORD].copy_from_slice(&(kind | entry).to_ne_bytes());
        start = end;
    }
}

pub(in crate::json) fn any_number() -> impl Strategy<Value = Tree> {
    (
        "-?[1-9][0-9]{0,25}(\\.[0-9]{1,25})?|-?[1-9][0-9]{0,7}(\\.[0-9]{1,3})?|0|0\\.0{0,3}[1-9]",
        any::<bool>(),
    )
        .prop_map(|(text, is_short)| Tree::Number(text, is_short))
}

/// Of about so many values.
pub(in crate::json) fn any_tree(size: u32) -> impl Strategy<Value = Tree> {
    let scalar = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any_number(),
        "[a-zé\"\\\\\n]{0,9}".prop_map(Tree::String),
    ];
    scalar.prop_recursive(4, size, 40, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..40).prop_map(Tree::Array),
            prop::collection::btree_map("[a-f]{0,3}", inner, 0..40)
                .prop_map(|fields| Tree::Object(fields.into_iter().collect())),
        ]
    })
}

/// Tokens as they come.
#[derive(Default)]
struct Told(Vec<String>);

impl TokenSink for Told {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        self.0.push(format!("{token:?}"));
        Ok(())
    }
}

/// Text that is UTF-8, and no more than so many steps.
pub(in crate::json) struct Steps(pub(in crate::json) usize);

impl<'a> Reader<'a> for Steps {
    type Error = Error;

    fn text(&mut self, bytes: &'a [u8]) -> Result<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| damaged())
    }

    fn step(&mut self) -> Result<()> {
        self.0 = self.0.checked_sub(1).ok_or_else(damaged)?;
        Ok(())
    }
}

fn walked(stored: &[u8]) -> Vec<String> {
    let mut told = Told::default();
    Stored::new(stored)
        .walk(&mut told, &mut Steps(usize::MAX))
        .unwrap();
    told.0
}

fn parsed(text: &str) -> Vec<String> {
    let mut told = Told::default();
    parse_text(text, &mut told).unwrap();
    told.0
}

#[test]
fn a_walk_ends_where_its_reader_wants() {
    let stored = Tree::Array(vec![Tree::Null; 100]).stored();
    let mut told = Told::default();
    assert!(
        Stored::new(&stored)
            .walk(&mut told, &mut Steps(50))
            .is_err()
    );
    assert_eq!(told.0.len(), 51);
}

#[test]
fn depth_is_no_danger() {
    let mut tree = Tree::Null;
    for _ in 0..1_000 {
        tree = Tree::Array(vec![tree]);
    }
    let stored = tree.stored();
    assert_eq!(walked(&stored).len(), 2_001);
}

proptest! {
    #[test]
    fn what_is_stored_is_walked_as_its_text(tree in any_tree(200)) {
        prop_assert_eq!(walked(&tree.stored()), parsed(&tree.text()));
    }

    /// Parts have the elements of the whole, each once and in order.
    #[test]
    fn parts_are_the_whole(elements in prop::collection::vec(any_tree(5), 0..80), bytes in 1usize..300) {
        let stored = Tree::Array(elements.clone()).stored();
        let mut told = vec![format!("{:?}", Token::BeginArray)];
        let parts = Stored::new(&stored).parts(bytes);
        for part in &parts {
            let mut some = Told::default();
            Stored::new(&stored).walk_part(part.clone(), &mut some, &mut Steps(usize::MAX)).unwrap();
            told.extend_from_slice(&some.0[1..some.0.len() - 1]);
        }
        told.push(format!("{:?}", Token::EndArray));
        prop_assert_eq!(told, walked(&stored));
        prop_assert!(elements.is_empty() || !parts.is_empty());
    }

    /// A damaged document has some answer, and no more tokens than the reader allows steps.
    #[test]
    fn no_damage_stops_it(tree in any_tree(200), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut stored = tree.stored();
        for (at, byte) in damage {
            let at = at.index(stored.len());
            stored[at] = byte;
        }
        let _ = Stored::new(&stored).walk(&mut Told::default(), &mut Steps(10_000));
        for part in Stored::new(&stored).parts(50).into_iter().take(100) {
            let _ = Stored::new(&stored).walk_part(part, &mut Told::default(), &mut Steps(10_000));
        }
    }
}
