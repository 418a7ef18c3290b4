//! The `_bulk` calls in progress. Each has a separate thread, so a service that does not
//! answer delays neither the input nor the reaction to a signal.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::observe::es_sink::batch::SealedBatch;
use crate::observe::es_sink::bulk_reply::BulkOutcome;
use crate::observe::es_sink::client::Client;
use crate::stage::task::Task;

/// The calls in progress, in the order of their start.
#[derive(Debug, Default)]
pub struct BulkCalls(Vec<BulkCall>);

#[derive(Debug)]
struct BulkCall {
    task: Task<BulkOutcome>,
    batch: SealedBatch,
    server: usize,
    from: Instant,
}

/// A finished call.
#[derive(Debug)]
pub struct FinishedCall {
    /// The records that were sent.
    pub batch: SealedBatch,
    /// The index of the address that was called.
    pub server: usize,
    /// The outcome of the call.
    pub outcome: BulkOutcome,
    /// The duration of the call.
    pub took: Duration,
}

impl BulkCalls {
    /// The number of calls in progress.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of records in calls in progress.
    pub fn records(&self) -> usize {
        self.0.iter().map(|call| call.batch.len()).sum()
    }

    /// Starts a call. If no thread can be started, returns the records.
    pub fn start(
        &mut self,
        client: &Arc<Client>,
        server: usize,
        batch: SealedBatch,
    ) -> Result<(), (SealedBatch, anyhow::Error)> {
        let (client, body, count) = (Arc::clone(client), batch.body.clone(), batch.len());
        let from = Instant::now();
        let task = match Task::spawn("calling", move || client.bulk(server, body, count)) {
            Ok(task) => task,
            Err(error) => return Err((batch, error)),
        };
        self.0.push(BulkCall {
            task,
            batch,
            server,
            from,
        });
        Ok(())
    }

    /// Removes and returns the first finished call; `None` if no call has finished.
    pub fn take_finished(&mut self) -> Option<FinishedCall> {
        let index = self.0.iter().position(|call| call.task.is_done())?;
        let call = self.0.remove(index);
        let outcome = call.task.join();
        Some(FinishedCall {
            outcome: outcome.unwrap_or_else(|error| BulkOutcome::Retry(format!("{error:#}"))),
            batch: call.batch,
            server: call.server,
            took: call.from.elapsed(),
        })
    }

    /// Drops the calls and returns their records. The threads end with the process.
    pub fn abandon(&mut self) -> Vec<SealedBatch> {
        self.0.drain(..).map(|call| call.batch).collect()
    }

    /// Descriptors that become readable when their calls end.
    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|call| call.task.done()).collect()
    }
}
