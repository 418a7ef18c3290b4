//! The `_bulk` calls that are under way. Each has a thread of its own, so a service that
//! does not answer delays neither the input nor a signal.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::observe::es_sink::batch::SealedBatch;
use crate::observe::es_sink::bulk_reply::BulkOutcome;
use crate::observe::es_sink::client::Client;
use crate::stage::task::Task;

/// The calls that are under way, in the order in which they were started.
#[derive(Debug, Default)]
pub struct BulkCalls(Vec<BulkCall>);

#[derive(Debug)]
struct BulkCall {
    task: Task<BulkOutcome>,
    batch: SealedBatch,
    server: usize,
    from: Instant,
}

/// A call that has ended.
#[derive(Debug)]
pub struct FinishedCall {
    /// The records that were sent.
    pub batch: SealedBatch,
    /// The index of the address that was called.
    pub server: usize,
    /// What the reply means.
    pub outcome: BulkOutcome,
    /// How long it took.
    pub took: Duration,
}

impl BulkCalls {
    /// How many calls are under way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many records are under way.
    pub fn records(&self) -> usize {
        self.0.iter().map(|call| call.batch.len()).sum()
    }

    /// Starts a call. If no thread can be started, the records come back.
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

    /// Takes out the first call that has ended; `None` if none has.
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

    /// Forgets the calls and returns their records. The threads end with the process.
    pub fn abandon(&mut self) -> Vec<SealedBatch> {
        self.0.drain(..).map(|call| call.batch).collect()
    }

    /// Descriptors that become readable when their calls end.
    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|call| call.task.done()).collect()
    }
}
