//! The calls that are under way, each in a thread of its own, so that a service
//! that does not answer keeps neither the input nor a signal waiting.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::observe::es_sink::batch::Parcel;
use crate::observe::es_sink::client::Client;
use crate::observe::es_sink::reply::Outcome;
use crate::stage::task::Task;

/// Calls of `_bulk`.
#[derive(Debug, Default)]
pub struct Calls(Vec<Call>);

#[derive(Debug)]
struct Call {
    task: Task<Outcome>,
    parcel: Parcel,
    server: usize,
    from: Instant,
}

/// A call that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was sent.
    pub parcel: Parcel,
    /// Where to.
    pub server: usize,
    /// What is to be done.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

impl Calls {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many records are.
    pub fn records(&self) -> usize {
        self.parcels().map(Parcel::len).sum()
    }

    /// What is.
    pub fn parcels(&self) -> impl Iterator<Item = &Parcel> {
        self.0.iter().map(|call| &call.parcel)
    }

    /// Begins one. Where that cannot be, its records come back.
    pub fn start(
        &mut self,
        client: &Arc<Client>,
        server: usize,
        parcel: Parcel,
    ) -> Result<(), (Parcel, anyhow::Error)> {
        let (client, body, count) = (Arc::clone(client), parcel.body.clone(), parcel.len());
        let from = Instant::now();
        let task = match Task::spawn("calling", move || client.bulk(server, body, count)) {
            Ok(task) => task,
            Err(error) => return Err((parcel, error)),
        };
        self.0.push(Call {
            task,
            parcel,
            server,
            from,
        });
        Ok(())
    }

    /// One that has ended, the first begun first.
    pub fn take_finished(&mut self) -> Option<Finished> {
        let index = self.0.iter().position(|call| call.task.is_done())?;
        let call = self.0.remove(index);
        let outcome = call.task.join();
        Some(Finished {
            outcome: outcome.unwrap_or_else(|error| Outcome::Retry(format!("{error:#}"))),
            parcel: call.parcel,
            server: call.server,
            took: call.from.elapsed(),
        })
    }

    /// Each becomes readable when its call has ended.
    pub fn ends(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().map(|call| call.task.done()).collect()
    }
}
