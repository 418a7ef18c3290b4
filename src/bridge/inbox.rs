//! What the clients of the brokers tell the loop.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::bridge::broker::Handle;
use crate::bridge::ledger::{OutputKey, Position};

/// An event of a broker.
#[derive(Debug)]
pub enum Event {
    /// A message was delivered.
    Message {
        /// The index of the input.
        input: usize,
        /// Its position.
        position: Position,
        /// What its client needs to acknowledge it.
        handle: Handle,
        /// The bytes of the message.
        payload: Vec<u8>,
        /// Whether it may have been delivered before.
        is_repeat: bool,
        /// The number of messages that are acknowledged together with it.
        batch: u32,
    },
    /// An input has its assignment and will get messages.
    Assigned {
        /// The index of the input.
        input: usize,
    },
    /// A partition belongs to another consumer now.
    Revoked {
        /// The index of the input.
        input: usize,
        /// The topic, as in [`Position`].
        topic: u32,
        /// The number of the partition.
        partition: i32,
    },
    /// The number of messages that the broker holds for an input and has not delivered.
    Lag {
        /// The index of the input.
        input: usize,
        /// The number of messages.
        messages: u64,
    },
    /// The broker has stored a record.
    Published(OutputKey),
    /// The broker will never store this record.
    Refused {
        /// The record.
        key: OutputKey,
        /// Its bytes.
        payload: Vec<u8>,
        /// Why.
        reason: String,
    },
    /// Something went wrong, and the client tries again.
    Trouble(String),
    /// What was wrong is over.
    Recovered(String),
    /// The client cannot go on.
    Failed(String),
}

/// Events that wait for the loop. Their number is bounded, because a client delivers
/// only what its [`Gate`](crate::bridge::gate::Gate) has room for, and the loop bounds
/// the records that are on their way.
#[derive(Debug)]
pub struct Inbox {
    events: Mutex<VecDeque<Event>>,
    wake: UnixStream,
    waker: UnixStream,
}

impl Inbox {
    /// An empty inbox.
    pub fn new() -> Result<Inbox> {
        let (wake, waker) = UnixStream::pair().context("cannot make a socket")?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        Ok(Inbox {
            events: Mutex::default(),
            wake,
            waker,
        })
    }

    /// Adds an event, and wakes the loop.
    pub fn send(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = events.is_empty();
        events.push_back(event);
        drop(events);
        if was_empty {
            // If the socket is full, the loop will wake anyway.
            let _ = (&self.waker).write(&[0]);
        }
    }

    /// Takes all events.
    pub fn take(&self) -> VecDeque<Event> {
        let mut bytes = [0; 64];
        while (&self.wake).read(&mut bytes).is_ok_and(|count| count > 0) {}
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Readable if an event waits.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
