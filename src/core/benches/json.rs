//! A JSON result of objects with ten keys: reading its text, finding the types of its columns, and its values on their way
//! into record batches. The latter two are fed with tokens, as they are where a result is kept in another form than text.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::hint::black_box;

use bridge_core::Result;
use bridge_core::batch::BatchBuilder;
use bridge_core::json::{Inference, Plan, PlanOptions, Rows, Token, TokenSink, parse_text};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const OBJECTS: u64 = 10_000;

/// A token that owns its text.
enum Kept {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Key(String),
    BeginArray,
    EndArray,
    BeginObject,
    EndObject,
}

#[derive(Default)]
struct Keeper(Vec<Kept>);

impl TokenSink for Keeper {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        self.0.push(match token {
            Token::Null => Kept::Null,
            Token::Bool(value) => Kept::Bool(value),
            Token::Number(text) => Kept::Number(text.to_owned()),
            Token::String(text) => Kept::String(text.to_owned()),
            Token::Key(text) => Kept::Key(text.to_owned()),
            Token::BeginArray => Kept::BeginArray,
            Token::EndArray => Kept::EndArray,
            Token::BeginObject => Kept::BeginObject,
            Token::EndObject => Kept::EndObject,
        });
        Ok(())
    }
}

impl Keeper {
    fn replay(&self, sink: &mut impl TokenSink) {
        for kept in &self.0 {
            sink.token(match kept {
                Kept::Null => Token::Null,
                Kept::Bool(value) => Token::Bool(*value),
                Kept::Number(text) => Token::Number(text),
                Kept::String(text) => Token::String(text),
                Kept::Key(text) => Token::Key(text),
                Kept::BeginArray => Token::BeginArray,
                Kept::EndArray => Token::EndArray,
                Kept::BeginObject => Token::BeginObject,
                Kept::EndObject => Token::EndObject,
            })
            .unwrap();
        }
    }
}

/// Takes tokens and does nothing.
struct Nowhere;

impl TokenSink for Nowhere {
    fn token(&mut self, token: Token<'_>) -> Result<()> {
        black_box(token);
        Ok(())
    }
}

fn document() -> String {
    let mut text = String::from("[");
    for n in 1..=OBJECTS {
        let comma = if n == 1 { "" } else { "," };
        write!(
            text,
            "{comma}{{\"id\":{n},\"customer\":\"customer {}\",\"product\":{},\"note\":\"order {n}\",\"day\":\"2024-01-{:02}\",\
             \"amount\":{}.{:02},\"weight\":{}.125,\"code\":{},\"paid\":{},\"tags\":[\"a\",{},null]}}",
            n % 1_000,
            n * 7_919 % 1_000,
            n % 28 + 1,
            n * 48_271 % 1_000_000,
            n % 100,
            n * 16_807 % 100_000,
            n * 69_621 % 2_147_483_647,
            n % 3 == 0,
            n % 10,
        )
        .unwrap();
    }
    text.push(']');
    text
}

fn plan(tokens: &Keeper) -> Plan {
    let mut inference = Inference::new(None, PlanOptions::default());
    tokens.replay(&mut inference);
    inference.finish().unwrap()
}

fn json(criterion: &mut Criterion) {
    let text = document();
    let mut tokens = Keeper::default();
    parse_text(&text, &mut tokens).unwrap();
    let mut group = criterion.benchmark_group("JSON result");
    group.throughput(Throughput::Elements(OBJECTS));
    group.bench_function("reading its text", |bencher| {
        bencher.iter(|| parse_text(black_box(&text), &mut Nowhere).unwrap());
    });
    group.bench_function("finding types", |bencher| bencher.iter(|| plan(&tokens)));
    let plan = plan(&tokens);
    let columns = plan.result_columns();
    group.bench_function("values into batches", |bencher| {
        bencher.iter(|| {
            let mut batch = BatchBuilder::new(&columns);
            let mut rows = Rows::new(&plan, &mut batch);
            tokens.replay(&mut rows);
            rows.finish().unwrap();
            batch.finish_batch().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, json);
criterion_main!(benches);
