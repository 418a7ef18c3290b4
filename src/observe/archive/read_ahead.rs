//! Reads files in a thread, a few blocks ahead, so that the reaction to a signal does not
//! wait for a blocked disk.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::stage::{EndedEarly, Stage};
use crate::stream::archives::RecordedFile;

/// The number of bytes in one read: as many as [`Lines`](crate::wire::lines::Lines) has
/// room for.
const BLOCK_BYTES: usize = 64 * 1024;

/// The number of blocks that are read ahead.
const BLOCKS_MAX: usize = 8;

/// While no block arrives, signals are checked at this interval.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// An event of the thread. A file that cannot be opened gives the event `NotOpened`.
/// Any other file gives `Opened`, then its blocks, then `End` or `Broken`.
#[derive(Debug)]
pub enum ReadEvent {
    /// The next file is open.
    Opened {
        /// The length of the file on disk, in bytes.
        length: u64,
    },
    /// The next file cannot be opened and is skipped.
    NotOpened(io::Error),
    /// The next bytes of the open file.
    Block {
        /// The bytes, uncompressed: at most `BLOCK_BYTES`.
        bytes: Vec<u8>,
        /// The number of bytes of the file that were read from disk so far.
        position: u64,
    },
    /// The file was read to its end.
    End,
    /// The rest of the file cannot be read.
    Broken(io::Error),
}

/// Files that a thread reads one after the other.
#[derive(Debug)]
pub struct ReadAhead(Receiver<ReadEvent>);

impl ReadAhead {
    /// Starts to read `files`. The thread ends when the returned value is dropped.
    pub fn start(files: Vec<RecordedFile>) -> Result<ReadAhead> {
        let (events, receiver) = bounded(BLOCKS_MAX);
        thread::Builder::new()
            .name("reading".to_owned())
            .spawn(move || {
                for file in files {
                    if read(&file, &events).is_none() {
                        // The receiver was dropped.
                        return;
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(ReadAhead(receiver))
    }

    /// Waits for the next event; `None` after the last file. A signal to stop is an error.
    pub fn next(&self, stage: &mut Stage) -> Result<Option<ReadEvent>> {
        loop {
            if let Some(stop) = stage.signals.stop() {
                return Err(EndedEarly::Signal(stop).into());
            }
            match self.0.recv_timeout(CHECK_EVERY) {
                Ok(event) => return Ok(Some(event)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }
}

/// Sends all of a file; `None` if the receiver was dropped.
fn read(file: &RecordedFile, events: &Sender<ReadEvent>) -> Option<()> {
    let send = |event| events.send(event).ok();
    let mut opened = match file.open() {
        Ok(opened) => opened,
        Err(error) => return send(ReadEvent::NotOpened(error)),
    };
    let length = opened.length();
    send(ReadEvent::Opened { length })?;
    loop {
        let mut bytes = vec![0; BLOCK_BYTES];
        match opened.read(&mut bytes) {
            Ok(0) => return send(ReadEvent::End),
            Ok(count) => {
                bytes.truncate(count);
                let position = opened.position();
                send(ReadEvent::Block { bytes, position })?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return send(ReadEvent::Broken(error)),
        }
    }
}
