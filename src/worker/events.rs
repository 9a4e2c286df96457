//! What the network thread tells, as the main thread takes it: progress, what must be recorded, and ends.

use bridge_core::{ErrorKind, upload};
use tokio::sync::oneshot;

use super::in_flight::Ending;
use super::report::{Entry, Event};
use super::service::Service;
use crate::error::{Result, log_error, log_message};
use crate::uploads::Claim;
use crate::{configs, failpoint, tx, uploads};

impl Service {
    /// Takes note of everything that the network thread has told since the last time.
    pub(super) fn handle_events(&mut self) {
        let (mut records, mut sent) = (Vec::new(), Vec::new());
        while let Ok(event) = self.events.try_recv() {
            // Progress is shown whenever it comes; everything else keeps its order.
            if !matches!(event, Event::Record { .. } | Event::Progress { .. }) {
                record_all(std::mem::take(&mut records));
            }
            match event {
                Event::Progress {
                    claim,
                    phase,
                    staged,
                } => {
                    if let Some(in_flight) = self.in_flight.get(&claim) {
                        in_flight.show(phase, staged);
                    }
                }
                Event::Connected { claim } => self.connected(claim),
                Event::Record {
                    claim,
                    entry,
                    answer,
                } => {
                    if matches!(entry, Entry::Staged) {
                        sent.push(claim);
                    }
                    records.push(Record {
                        claim,
                        entry,
                        answer,
                    });
                }
                Event::Finished {
                    claim,
                    target,
                    result,
                    is_undecided,
                    recorded,
                } => {
                    let Some(in_flight) = self.in_flight.remove(&claim) else {
                        continue;
                    };
                    let upload = &in_flight.upload;
                    let others = self.others_at(&upload.account);
                    // Those that share a COPY count as one.
                    if !in_flight.follows {
                        self.turns.ended(upload, result.as_ref(), others + 1);
                    }
                    let ending = match result {
                        Ok(outcome) => Ending::Completed {
                            target: target.unwrap_or_default(),
                            outcome,
                        },
                        Err(error) => Ending::Failed {
                            error: error.into(),
                            is_undecided,
                        },
                    };
                    self.end(in_flight, ending, Some(recorded));
                }
                Event::Parted {
                    claim,
                    error,
                    is_canceled,
                    is_undecided,
                    recorded,
                } => {
                    let Some(in_flight) = self.in_flight.remove(&claim) else {
                        continue;
                    };
                    if !in_flight.follows {
                        let others = self.others_at(&in_flight.upload.account);
                        self.turns
                            .ended::<()>(&in_flight.upload, Err(&*error), others + 1);
                        log_message(&format!(
                            "snowflake_bridge: uploads that shared one COPY are loaded one by one: {error}"
                        ));
                    }
                    let ending = if is_canceled {
                        Ending::Failed {
                            error: upload::canceled().into(),
                            is_undecided,
                        }
                    } else {
                        Ending::Parted {
                            cause: error,
                            is_undecided,
                        }
                    };
                    self.end(in_flight, ending, Some(recorded));
                }
                Event::Cleaned { claim } => {
                    if let Err(error) = tx::transaction(|| uploads::cleaned(&[claim])) {
                        log_error("snowflake_bridge: cannot record a tidy stage", &error);
                    }
                }
                Event::CleaningEnded { config, result } => self.janitor.has_cleaned(config, result),
                Event::NotSwept { config } => self.janitor.has_not_swept(config),
                Event::FoundInStage { found, answer } => {
                    match tx::transaction(|| uploads::are_removable(&found)) {
                        // If the session is gone, nobody waits for the answer.
                        Ok(removable) => drop(answer.send(removable)),
                        Err(error) => {
                            log_error("snowflake_bridge: cannot look through a stage", &error)
                        }
                    }
                }
            }
        }
        record_all(records);
        // By now it is counted with what was sent.
        for claim in sent {
            if let Some(in_flight) = self.in_flight.get_mut(&claim) {
                in_flight.unsent_bytes = 0;
            }
        }
    }

    /// Snowflake has let the connection of an upload in, for which others may have waited.
    fn connected(&mut self, claim: Claim) {
        let Some(in_flight) = self.in_flight.get_mut(&claim) else {
            return;
        };
        let is_news = self.turns.answers(&in_flight.upload);
        let Some((config, version)) = in_flight.config_id else {
            return;
        };
        let is_marked = self.let_in.get(&config) == Some(&version);
        if is_marked && !is_news && in_flight.upload.is_let_in {
            return;
        }
        self.looks_again = true;
        match tx::transaction(|| configs::mark_let_in(config, version)) {
            Ok(false) => {}
            Ok(true) => {
                in_flight.upload.is_let_in = true;
                self.let_in.insert(config, version);
            }
            Err(error) => log_error(
                "snowflake_bridge: cannot note that a configuration works",
                &error,
            ),
        }
    }

    /// How many hold a slot at an account.
    fn others_at(&self, account: &str) -> usize {
        self.in_flight
            .values()
            .filter(|other| !other.follows && other.upload.account == account)
            .count()
    }
}

/// Something to be made durable, and who waits for it.
struct Record {
    claim: Claim,
    entry: Entry,
    answer: oneshot::Sender<bridge_core::Result<()>>,
}

impl Record {
    fn write(&self) -> Result<()> {
        failpoint::reach("recording");
        match &self.entry {
            Entry::Staged => uploads::record_staged(self.claim),
            Entry::Copying {
                transaction,
                target,
                rows,
                bytes,
            } => uploads::record_copying(self.claim, transaction, target, *rows, *bytes),
        }
    }

    fn answer(self, recorded: Result<()>) {
        // If the upload is gone, nobody waits for the answer.
        let _ = self.answer.send(recorded.map_err(|error| {
            bridge_core::Error::new(
                ErrorKind::Transient,
                format!("cannot record the upload's state: {error}"),
            )
            .on_this_machine()
        }));
    }
}

/// Records all of it in one transaction; where something cannot be recorded, each by itself, so that it alone fails.
fn record_all(records: Vec<Record>) {
    let several = records.len() > 1;
    if several && tx::transaction(|| records.iter().try_for_each(Record::write)).is_ok() {
        for record in records {
            record.answer(Ok(()));
        }
        return;
    }
    for record in records {
        let recorded = tx::transaction(|| record.write());
        record.answer(recorded);
    }
}
