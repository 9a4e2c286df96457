//! A server that means harm: whatever it says, the client ends with an error of bounded length, in bounded time and memory,
//! and does nothing that it was not asked for.
//!
//! The same answer is given to a client without guards, to see that it comes to harm; and a sound one, to see that it is the
//! answer that does it.

mod attacks;
mod naive;

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use attacks::{Attack, Harm, Stage, attacks, named_directory, put, refusal};
use bridge_core::Error;
use bridge_core::config::{AllowedHosts, Network};
use bridge_core::snowflake::{Session, SessionOptions, Statement};
use naive::{Places, suffers};
use serde_json::json;

use crate::server::{DEADLINE, Reply, Server};
use crate::setup::{LOGIN, QUERY, logged_in, network, result, serve, settings};

/// The most that a message may take in a log, in bytes.
const LONGEST_MESSAGE: usize = 1500;
/// The most that an answer may take in memory, in bytes.
const MOST_HELD: usize = 32 << 20;
/// Requests for one answer that a server should not be able to ask for.
const MOST_ASKED: usize = 1000;
/// Those that a client with guards may make for it, redirects and the goodbye included.
const FEW: usize = 10;
/// A client that waits for longer is harmed, if one with guards has ended by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client with guards comes to, and the paths that it asked Snowflake for.
async fn strike(stage: Stage, reply: Reply, places: &Places) -> (Result<(), Error>, Vec<String>) {
    let server = match stage {
        Stage::Login => Server::start(move |_| reply.clone()).await,
        Stage::Query | Stage::Put => {
            serve(move |request| match request.path.as_str() {
                QUERY => reply.clone(),
                _ => Reply::status(404, ""),
            })
            .await
        }
    };
    // Storage is open to it, so that nothing is refused for its address.
    let hosts = [server.port, places.storage.port]
        .map(|port| format!("http://acme-demo.localhost:{port}, http://127.0.0.1:{port}"));
    let network = Network {
        stall_timeout: Duration::from_millis(500),
        // More than one, so that a pause between them counts.
        tries: 2,
        allowed_hosts: AllowedHosts::parse(&hosts.join(", ")).unwrap(),
        ..network(&server)
    };
    let ended = async {
        let mut session =
            Session::login(&settings(&network), &network, &SessionOptions::default()).await?;
        if matches!(stage, Stage::Query) {
            return session.execute(&Statement::new("select 1")).await.map(drop);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        session
            .put(file.path(), "~/a/", "part-00000.parquet", &|_| {})
            .await
    };
    let ended = ended.await;
    let requests = server.requests();
    (
        ended,
        requests.into_iter().map(|request| request.path).collect(),
    )
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether an error may go into a log as it is.
fn is_bounded(error: &Error) -> bool {
    let texts = [
        error.message(),
        error.hint().unwrap_or_default(),
        error.code().unwrap_or_default(),
    ];
    texts.iter().all(|text| {
        text.len() <= LONGEST_MESSAGE && !text.contains(|c: char| c.is_control() || is_bidi(c))
    })
}

/// Whether the client ended with a bounded error, and until then did what it was asked for and nothing else.
async fn is_safe(name: &str, stage: Stage, reply: &Reply, places: &Places) -> bool {
    let came = places.came();
    let ended = tokio::time::timeout(DEADLINE, strike(stage, reply.clone(), places)).await;
    let is_safe = match &ended {
        Ok((Err(error), asked)) => {
            let may_state = !matches!(stage, Stage::Login);
            is_bounded(error)
                && asked.len() <= FEW
                && (may_state || asked.iter().all(|path| path == LOGIN))
                && places.came() == came
                && std::fs::read_dir(named_directory()).unwrap().count() == 0
        }
        _ => false,
    };
    if !is_safe {
        eprintln!("{name}: {ended:?}, {} requests", places.came() - came);
    }
    is_safe
}

/// The sound answer beside those that do a harm at a stage.
fn sound(harm: Harm, stage: Stage, storage: u16) -> Reply {
    let rows = json!([["1"]]);
    let mut answer = result(&["N"], rows);
    answer["data"]["total"] = json!(1);
    match (harm, stage) {
        (Harm::Believes | Harm::Logs, _) => refusal("no"),
        (Harm::Exposes, _) => {
            let key = "ztke8tIdVt1zmlQIZm0BMA==";
            put(
                storage,
                &[
                    ("/data/stageInfo/isClientSideEncrypted", json!(true)),
                    (
                        "/data/encryptionMaterial",
                        json!({"queryStageMasterKey": key, "queryId": "q", "smkId": 1}),
                    ),
                ],
            )
        }
        (_, Stage::Login) => Reply::json(logged_in()),
        (_, Stage::Query) => Reply::json(answer),
        (_, Stage::Put) => put(storage, &[]),
    }
}

#[tokio::test]
async fn every_behaviour_is_a_bounded_error() {
    let (mut bounded, mut harmed) = (0, 0);
    let mut slowest = Duration::ZERO;
    std::fs::create_dir_all(named_directory()).unwrap();
    let places = Places::start().await;
    let (storage, elsewhere) = (places.storage.port, places.elsewhere.port);
    let attacks = attacks(storage, elsewhere);
    let count = attacks.len();
    let mut kinds = BTreeSet::new();
    for Attack(name, stage, reply, harm) in attacks {
        let begun = Instant::now();
        bounded += usize::from(is_safe(name, stage, &reply, &places).await);
        let took = begun.elapsed();
        slowest = slowest.max(took);
        let patience = PATIENCE.max(took);
        match suffers(harm, stage, &reply, &places, patience).await {
            true => harmed += 1,
            false => eprintln!("no harm: {name}"),
        }
        kinds.insert(harm);
        let sound = sound(harm, stage, storage);
        assert!(
            !suffers(harm, stage, &sound, &places, patience).await,
            "{harm:?} without an attack"
        );
    }
    // Empty: nothing is left where a server said.
    std::fs::remove_dir(named_directory()).unwrap();
    writeln!(
        std::io::stdout(),
        "\nsecurity: suite=hostile behaviours={count} bounded={bounded} slowest_ms={} harms={} harmful_without_guard={harmed}",
        slowest.as_millis(),
        kinds.len()
    )
    .unwrap();
    assert_eq!(bounded, count);
    assert_eq!(harmed, count);
}

/// What is refused above is not refused for being asked at all.
#[tokio::test]
async fn sound_answers_are_taken() {
    let places = Places::start().await;
    for (stage, harm) in [
        (Stage::Query, Harm::Miscounts),
        (Stage::Put, Harm::Sends),
        (Stage::Put, Harm::Exposes),
    ] {
        let reply = sound(harm, stage, places.storage.port);
        let (ended, _) = strike(stage, reply, &places).await;
        ended.unwrap();
    }
    assert_eq!(places.storage.requests().len(), 2);
}
