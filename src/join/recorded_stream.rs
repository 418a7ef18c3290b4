//! One recording and its next record.
//!
//! Most of the work on recordings is parsing. For each file, a thread parses records, a
//! few batches ahead of the main thread. A pipe is read by the main thread when its
//! next record is needed: only the main thread may wait for a pipe, because it handles
//! signals.

use std::thread;

use anyhow::{Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::join::batch::{Batch, BatchRecords, RecordKind, RecordedEntry};
use crate::stage::recording::Recording;
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::wire::micros::Micros;

/// The number of batches that a thread may be ahead of the main thread.
const BATCHES_AHEAD: usize = 4;

/// A thread sends a batch when the batch has this many bytes.
const BATCH_BYTES: usize = 64 * 1024;

/// A recording and its next record.
pub struct RecordedStream {
    source: BatchSource,
    records: BatchRecords,
}

/// The source of the batches.
enum BatchSource {
    /// A pipe, which this thread reads.
    Pipe(Box<BatchReader>),
    /// A file or a folder, which a thread reads.
    Thread(Receiver<Result<Batch>>),
}

impl RecordedStream {
    /// Opens a recording.
    pub fn open(address: &Address, kind: RecordKind, stage: &Stage) -> Result<RecordedStream> {
        let reader = Box::new(BatchReader {
            recording: Recording::open(address, stage)?,
            kind,
            last: Micros(i64::MIN),
        });
        let source = if reader.recording.is_pipe() {
            BatchSource::Pipe(reader)
        } else {
            let (sender, batches) = bounded(BATCHES_AHEAD);
            thread::Builder::new()
                .name("reading".to_owned())
                .spawn(move || reader.send_batches(&sender))?;
            BatchSource::Thread(batches)
        };
        Ok(RecordedStream {
            source,
            records: Batch::default().into(),
        })
    }

    /// Whether the recording is a pipe, which another program fills while it is read.
    pub fn is_pipe(&self) -> bool {
        matches!(self.source, BatchSource::Pipe(_))
    }

    /// Whether [`read_ahead`](RecordedStream::read_ahead) may wait for another program.
    pub fn may_wait(&self) -> bool {
        self.is_pipe() && self.records.is_empty()
    }

    /// Reads until the next record is available, or until the end. Lines that are not
    /// valid records are set aside.
    pub fn read_ahead(&mut self, stage: &mut Stage) -> Result<()> {
        while self.records.next_time().is_none() {
            match self.records.next() {
                Some(Err(bad)) => bad.reject(stage)?,
                _ => match self.source.next_batch(stage)? {
                    Some(batch) => self.records = batch.into(),
                    None => break,
                },
            }
        }
        Ok(())
    }

    /// The time of the next record; `None` at the end. Call
    /// [`read_ahead`](RecordedStream::read_ahead) first.
    pub fn next_time(&self) -> Option<Micros> {
        self.records.next_time()
    }

    /// The next record; `None` at the end.
    #[inline]
    pub fn take(&mut self) -> Option<RecordedEntry> {
        self.records.next()?.ok()
    }
}

impl BatchSource {
    /// The next batch; `None` at the end.
    fn next_batch(&mut self, stage: &mut Stage) -> Result<Option<Batch>> {
        match self {
            BatchSource::Pipe(reader) => reader.read_waiting(stage),
            BatchSource::Thread(batches) => {
                if let Some(stop) = stage.signals.stop() {
                    return Err(EndedEarly::Signal(stop).into());
                }
                stage.stats.touch();
                // A thread sends all its batches before it ends.
                let batch = batches.recv().ok().transpose()?;
                for fault in batch.iter().flat_map(|batch| &batch.faults) {
                    stage.report.damaged(fault)?;
                }
                Ok(batch)
            }
        }
    }
}

/// Reads a recording and parses its records.
struct BatchReader {
    recording: Recording,
    kind: RecordKind,
    /// The time of the last record.
    last: Micros,
}

impl BatchReader {
    /// Sends the batches until the recording ends or the receiver is dropped.
    fn send_batches(mut self, batches: &Sender<Result<Batch>>) {
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

    /// Fills a batch from a file. Returns false at the end of the file.
    fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        while batch.bytes() < BATCH_BYTES {
            let Some((line, name)) = self.recording.next_line_of_file()? else {
                return Ok(false);
            };
            batch.add(self.kind, name, &line, &mut self.last);
        }
        Ok(true)
    }

    /// Reads the bytes that a pipe holds now. Waits while the pipe is empty. Returns
    /// `None` at the end.
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
