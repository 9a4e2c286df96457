//! The client against the stand-in over TLS: each case proves items of Snowflake's driver protocol, and the last line says
//! how many cases there were, how many failed, and which items have none.
//!
//! One stand-in serves all cases, each with an account of its own. Needs a Python with the stand-in's requirements in
//! `STANDIN_PYTHON`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
mod faults;
mod items;
mod loads;
mod logins;
mod logs;
mod process;
mod results;
mod sessions;
mod stages;
mod statements;
mod tls;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use case::Case;
use world::Shared;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    logs::record_everything();
    let cases: Vec<Case> = [
        logins::cases(),
        sessions::cases(),
        statements::cases(),
        results::cases(),
        stages::cases(),
        loads::cases(),
        faults::cases(),
        tls::cases(),
        logs::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let covered: Vec<&str> = cases.iter().flat_map(|case| case.items).copied().collect();
    let missing = match items::without_case(&covered) {
        Ok(missing) => missing,
        Err(unknown) => {
            eprintln!("no such item of the protocol: {unknown}");
            return ExitCode::FAILURE;
        }
    };

    if arguments.list {
        libtest_mimic::run(&arguments, trials(cases, None)).exit();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // By this thread, which lives to the end: the stand-in ends with the thread that started it.
    let shared = runtime.block_on(Shared::start());
    let standin = Arc::clone(&shared.standin);
    let world = Arc::new((runtime, shared));
    let conclusion = libtest_mimic::run(&arguments, trials(cases, Some(&world)));
    standin.stop();
    println!(
        "conformance{}: cases={} failures={} {}",
        match conclusion.num_filtered_out {
            0 => "",
            _ => " (a selection)",
        },
        conclusion.num_passed + conclusion.num_failed,
        conclusion.num_failed,
        items::summary(&missing)
    );
    match conclusion.has_failed() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// What the runner knows of the cases. Without a world they can only be listed.
fn trials(cases: Vec<Case>, world: Option<&Arc<(Runtime, Shared)>>) -> Vec<Trial> {
    let trial = |case: Case| {
        let world = world.cloned();
        Trial::test(case.name, move || {
            let (runtime, shared) = &*world.ok_or("nothing to run against")?;
            runtime.block_on(case.run(shared));
            Ok(())
        })
    };
    cases.into_iter().map(trial).collect()
}
