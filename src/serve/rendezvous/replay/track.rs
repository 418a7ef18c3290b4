//! One recording of a replay and its next record.
//!
//! Most of a replay's work is to take records apart. For files a thread a
//! recording does it, a few batches ahead; a pipe is read when its turn comes, so
//! that a signal finds nobody waiting for it elsewhere.

use std::thread;

use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::serve::rendezvous::replay::batch::{Batch, Kind, Next, Records};
use crate::stage::recording::Recording;
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::wire::micros::Micros;

/// How many batches a thread may be ahead.
const BATCHES_AHEAD: usize = 4;

/// When a batch is large enough.
const BATCH_BYTES: usize = 64 * 1024;

/// A recording and its next record.
pub struct Track {
    source: Source,
    records: Records,
    pub next: Option<Next>,
}

enum Source {
    Here(Box<Reader>),
    Thread(Receiver<Result<Batch>>),
}

impl Track {
    /// Opens a recording.
    pub fn open(address: &Address, kind: Kind, stage: &Stage) -> Result<Track> {
        let reader = Box::new(Reader {
            recording: Recording::open(address, stage)?,
            kind,
            last: Micros(i64::MIN),
        });
        let source = if reader.recording.is_pipe() {
            Source::Here(reader)
        } else {
            let (sender, batches) = bounded(BATCHES_AHEAD);
            thread::Builder::new()
                .name("reading".to_owned())
                .spawn(move || reader.read_ahead(&sender))?;
            Source::Thread(batches)
        };
        Ok(Track {
            source,
            records: Batch::default().into(),
            next: None,
        })
    }

    /// Whether it is a pipe, which another program fills while it is read.
    pub fn is_pipe(&self) -> bool {
        matches!(self.source, Source::Here(_))
    }

    /// Whether [`advance`](Track::advance) may wait for another program.
    pub fn may_wait(&self) -> bool {
        self.is_pipe() && self.records.is_empty()
    }

    /// Goes on to the next record. Lines that are none are set aside.
    pub fn advance(&mut self, stage: &mut Stage) -> Result<()> {
        self.next = None;
        while self.next.is_none() {
            match self.records.next() {
                Some(Ok(next)) => self.next = Some(next),
                Some(Err(bad)) => bad.reject(stage)?,
                None => match self.source.next_batch(stage)? {
                    Some(batch) => self.records = batch.into(),
                    None => break,
                },
            }
        }
        Ok(())
    }
}

impl Source {
    /// The next batch; `None` at the end.
    fn next_batch(&mut self, stage: &mut Stage) -> Result<Option<Batch>> {
        match self {
            Source::Here(reader) => reader.read_waiting(stage),
            Source::Thread(batches) => {
                if let Some(stop) = stage.signals.stop() {
                    return Err(EndedEarly::Signal(stop).into());
                }
                stage.stats.touch();
                // A thread that has gone has sent all there was.
                let batch = batches.recv().ok().transpose()?;
                for fault in batch.iter().flat_map(|batch| &batch.faults) {
                    stage.report.damaged(fault)?;
                }
                Ok(batch)
            }
        }
    }
}

/// Reads and takes apart.
struct Reader {
    recording: Recording,
    kind: Kind,
    /// The time of the last record.
    last: Micros,
}

impl Reader {
    /// Sends batch by batch until the recording ends or nobody listens.
    fn read_ahead(mut self, batches: &Sender<Result<Batch>>) {
        loop {
            let mut batch = Batch::default();
            let more = self.fill(&mut batch);
            batch.faults = self.recording.take_faults();
            let sent = batches.send(Ok(batch)).is_ok();
            match more {
                Ok(true) if sent => {}
                Ok(_) => return,
                Err(error) => {
                    let _ = batches.send(Err(anyhow!("{error:#}")));
                    return;
                }
            }
        }
    }

    /// Fills a batch from a file. False at its end.
    fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        while batch.bytes() < BATCH_BYTES {
            let Some((line, name)) = self.recording.next_line_of_file()? else {
                return Ok(false);
            };
            batch.add(self.kind, name, &line, &mut self.last);
        }
        Ok(true)
    }

    /// What a pipe has to give, once it has any; `None` at its end.
    fn read_waiting(&mut self, stage: &mut Stage) -> Result<Option<Batch>> {
        let mut batch = Batch::default();
        while batch.is_empty() || self.recording.has_line() {
            let Some((line, name)) = self.recording.next_line(stage)? else {
                break;
            };
            batch.add(self.kind, name, &line, &mut self.last);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}
