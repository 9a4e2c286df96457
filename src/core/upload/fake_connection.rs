//! The connection to the warehouse in memory: counts its calls, and fails where it is told to.

use async_trait::async_trait;

use super::fake::{Cut, FakeWarehouse};
use crate::error::{Error, ErrorKind, Result};
use crate::snowflake::{LocalFile, QueryResult, Statement, Warehouse};

fn cut() -> Error {
    Error::new(ErrorKind::Transient, "connection cut")
}

#[async_trait]
impl Warehouse for FakeWarehouse {
    async fn execute(&mut self, statement: &Statement) -> Result<QueryResult> {
        let text = statement.text().to_owned();
        self.log.push(text.clone());
        let fault = self
            .fault
            .filter(|(call, _)| *call == self.calls)
            .map(|(_, cut)| cut);
        if self.abort == Some(self.calls) {
            self.roll_back();
        }
        if self.drop.contains(&self.calls) {
            (self.columns, self.rows) = (None, Vec::new());
            if let Some(open) = &mut self.open {
                open.rows.clear();
            }
        }
        self.calls += 1;
        if fault == Some(Cut::Before) {
            return Err(cut());
        }
        let result = self.apply(&text);
        match fault {
            Some(Cut::After) => Err(cut()),
            Some(Cut::Misanswered) => Err(Error::new(ErrorKind::Internal, "no answer to that")),
            _ => result,
        }
    }

    async fn put(
        &mut self,
        directory: &str,
        files: &[LocalFile<'_>],
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let names: Vec<&str> = files.iter().map(|file| file.name).collect();
        self.log.push(format!("PUT {}", names.join(" ")));
        let fault = self
            .fault
            .filter(|(call, _)| *call == self.calls)
            .map(|(_, cut)| cut);
        self.calls += 1;
        if fault == Some(Cut::Before) {
            return Err(cut());
        }
        for name in names {
            let path = format!("{directory}{name}");
            if !self.staged.contains(&path) {
                self.staged.push(path);
            }
            progress(5);
        }
        if fault == Some(Cut::After) {
            Err(cut())
        } else {
            Ok(())
        }
    }
}
