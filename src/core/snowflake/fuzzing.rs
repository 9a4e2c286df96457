//! What the fuzz targets in `tests/fuzz/` run, one function each: input in place of what a server or a user says, and
//! assertions on what becomes of it. Built for cargo-fuzz, and for the unit test that replays the corpus; never part of
//! a release.
//!
//! The client is the real one. Only the network is replaced, by the answers that the input holds:
//!
//! ```text
//! {"success": true, "data": {"token": "…"}}
//! %%
//! HTTP 429
//! Retry-After: 5
//!
//! too many requests
//! ```
//!
//! An answer without a line `HTTP status` is a body that comes with 200; `%%` stands between answers.

mod account;
mod answers;
mod expect;
mod inspect;
mod private_key;
#[cfg(test)]
mod replay;
mod world;

use std::path::Path;

use answers::{Answers, EXPIRED, PUTS, RUNNING, WITH_PART};
use world::{Login, MASTER_TOKEN, SESSION_TOKEN, World};

use super::wire::{Envelope, PutData};
use super::{Session, SessionOptions, Statement, stage};

/// Any small file; puts read it.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

/// The answers to a login, and to a first statement. A first line `as …` says who logs in.
pub fn login_answer(input: &[u8]) {
    let (login, input) = Login::read(input);
    let answers = Answers::read(input);
    let world = World::new(&answers);
    let outcome = world.run(async {
        let mut session = world.login(login).await?;
        let _heartbeat = session.heartbeat(None);
        expect::info(session.info());
        let shown = format!("{session:?}");
        let statement = session.execute(&Statement::new("SELECT 1")).await;
        session.close().await;
        Ok((shown, statement))
    });
    match outcome {
        Ok((shown, statement)) => {
            answers.expect_no_secret_in(&shown);
            world.expect_outcome(&answers, &[], statement.map(drop));
        }
        Err(error) => world.expect_outcome(&answers, login.secrets(&answers), Err(error)),
    }
}

/// The answers to a statement: progress, the end, and the parts of the result.
pub fn query_answer(input: &[u8]) {
    let answers = Answers::read(input);
    let world = World::new(&answers);
    let outcome = world.run(async {
        let result = world.session().execute(&Statement::new("SELECT 1")).await?;
        expect::result(&result);
        Ok(())
    });
    world.expect_outcome(&answers, &[], outcome);
}

/// The answer to PUT, and those of the storage that it names.
pub fn put_answer(input: &[u8]) {
    let answers = Answers::read(input);
    if let Some(answer) = answers.first::<Envelope>()
        && let Ok(data) = answer.data::<PutData>()
    {
        let world = World::new(&answers);
        match stage::describe_target(&world.http, data) {
            Ok(shown) => answers.expect_no_secret_in(&shown),
            Err(error) => expect::error(&error),
        }
    }
    let world = World::new(&answers);
    let outcome = world.run(put(&world));
    world.expect_outcome(&answers, &[], outcome);
}

/// One answer in the place of any: to logins, statements, polls, renewals, and of storage.
pub fn error_answer(input: &[u8]) {
    let answers = Answers::read(input);
    for login in [Login::Password, Login::OAuthClient] {
        let world = World::without_patience(&answers);
        let outcome = world.run(world.login(login)).map(drop);
        world.expect_outcome(&answers, login.secrets(&answers), outcome);
    }
    // A token that has been renewed is none any more.
    let renewed = answers.mention("sessionToken");
    for (before, sent) in [
        (&[][..], &[SESSION_TOKEN][..]),
        (&[RUNNING], &[SESSION_TOKEN]),
        (&[EXPIRED], &[SESSION_TOKEN, MASTER_TOKEN]),
        (&[WITH_PART], &[SESSION_TOKEN]),
    ] {
        let sent = if renewed { &[] } else { sent };
        let world = World::without_patience(&answers.after(before));
        let outcome = world.run(async {
            let mut session = world.session();
            session.execute(&Statement::new("SELECT 1")).await.map(drop)
        });
        world.expect_outcome(&answers, sent, outcome);
    }
    for before in PUTS {
        let world = World::without_patience(&answers.after(&[before]));
        let outcome = world.run(put(&world));
        world.expect_outcome(&answers, &[], outcome);
    }
}

/// A part of a result, as it arrives from storage.
pub fn chunk(input: &[u8]) {
    let answers = Answers::of_body(input).after(&[WITH_PART]);
    let world = World::without_patience(&answers);
    let outcome = world.run(async {
        let result = world.session().execute(&Statement::new("SELECT 1")).await?;
        expect::result(&result);
        expect::rows_of_part(&result, input);
        Ok(())
    });
    world.expect_outcome(&answers, &[SESSION_TOKEN], outcome);
}

/// An account identifier, and behind its last line end the list of allowed hosts.
pub fn account_identifier(input: &[u8]) {
    account::identifier(input);
}

/// A private key, as text or as what is in it.
pub fn private_key(input: &[u8]) {
    private_key::read(input);
}

async fn put(world: &World) -> crate::Result<()> {
    let mut session = world.session();
    session
        .put(Path::new(FILE), "a/b", "part-00000.parquet", &|_| ())
        .await
}
