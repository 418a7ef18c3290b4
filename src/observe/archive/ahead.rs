//! Reads files in a thread of its own, a few blocks ahead: so a signal does not wait
//! for a disk that blocks.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::stage::{EndedEarly, Stage};
use crate::stream::archives::RecordedFile;

/// How much is read at once: what [`Lines`](crate::wire::lines::Lines) has room for.
const BLOCK_BYTES: usize = 64 * 1024;

/// How many blocks are read ahead.
const BLOCKS_MAX: usize = 8;

/// How soon a signal is seen while nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What comes of a file: first `Opened` or `NotOpened`, and after `Opened` its
/// blocks, and how it ended.
#[derive(Debug)]
pub enum Event {
    /// The file is open.
    Opened {
        /// Its length on disk, in bytes.
        length: u64,
    },
    /// It is passed over.
    NotOpened(io::Error),
    /// What comes next of it.
    Block {
        /// A block at the most, uncompressed.
        bytes: Vec<u8>,
        /// How many bytes of it were read from disk.
        position: u64,
    },
    /// It was read to its end.
    End,
    /// It cannot be read further.
    Broken(io::Error),
}

/// The files, one after the other.
#[derive(Debug)]
pub struct Ahead(Receiver<Event>);

impl Ahead {
    /// Starts to read `files`. Dropping this ends that.
    pub fn start(files: Vec<RecordedFile>) -> Result<Ahead> {
        let (events, receiver) = bounded(BLOCKS_MAX);
        thread::Builder::new()
            .name("reading".to_owned())
            .spawn(move || {
                for file in files {
                    if read(&file, &events).is_none() {
                        // Nobody listens any more.
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Ahead(receiver))
    }

    /// What comes next; `None` at the end. A signal to stop is an error.
    pub fn next(&self, stage: &mut Stage) -> Result<Option<Event>> {
        loop {
            if let Some(stop) = stage.signals.stop() {
                return Err(EndedEarly::Signal(stop).into());
            }
            match self.0.recv_timeout(LOOK_EVERY) {
                Ok(event) => return Ok(Some(event)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// Sends all of a file; `None` where nobody listens.
fn read(file: &RecordedFile, events: &Sender<Event>) -> Option<()> {
    let send = |event| events.send(event).ok();
    let mut opened = match file.open() {
        Ok(opened) => opened,
        Err(error) => return send(Event::NotOpened(error)),
    };
    let length = opened.length();
    send(Event::Opened { length })?;
    loop {
        let mut bytes = vec![0; BLOCK_BYTES];
        match opened.read(&mut bytes) {
            Ok(0) => return send(Event::End),
            Ok(count) => {
                bytes.truncate(count);
                let position = opened.position();
                send(Event::Block { bytes, position })?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return send(Event::Broken(error)),
        }
    }
}
