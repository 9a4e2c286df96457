//! Replays the checked-in corpus, so that what the fuzzer has found stays mended where nobody fuzzes.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus");

fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(CORPUS).join(target);
    let mut inputs: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|cause| panic!("{}: {cause}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", directory.display());
    let mut failed = Vec::new();
    for input in inputs {
        let bytes = fs::read(&input).unwrap();
        if catch_unwind(|| run(&bytes)).is_err() {
            failed.push(input.file_name().unwrap_or_default().to_owned());
        }
    }
    // Each has said above what went wrong.
    assert!(failed.is_empty(), "{target}: {failed:?}");
}

#[test]
fn login_answer() {
    replay("login_answer", super::login_answer);
}

#[test]
fn query_answer() {
    replay("query_answer", super::query_answer);
}

#[test]
fn put_answer() {
    replay("put_answer", super::put_answer);
}

#[test]
fn error_answer() {
    replay("error_answer", super::error_answer);
}

#[test]
fn chunk() {
    replay("chunk", super::chunk);
}

#[test]
fn account_identifier() {
    replay("account_identifier", super::account_identifier);
}

#[test]
fn private_key() {
    replay("private_key", super::private_key);
}
