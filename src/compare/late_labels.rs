//! Labels that come after their request. The request has left the memory, so it is found
//! in the recording.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::PollFlags;

use crate::join::request_id::{KeepHash, RECORDING_SEED, hash_id};
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stage::task::Task;
use crate::stage::wait::wait;
use crate::stream::address::Address;
use crate::wire::message::{Field, Record};
use crate::wire::micros::Micros;

/// The most bytes of decisions that one search returns. The next search finds the rest.
const FOUND_BYTES_MAX: usize = 16 << 20;

/// Hashes of ids.
pub type Ids = HashSet<u64, BuildHasherDefault<KeepHash>>;

/// What a search has found.
#[derive(Debug, Default)]
pub struct Found {
    /// The decisions, as lines.
    pub decisions: Vec<Vec<u8>>,
    /// Whether there may be more.
    pub is_cut: bool,
    /// Files that could not be read.
    faults: Vec<String>,
}

/// The searches in the recording, at most one at a time, each in a thread.
#[derive(Debug)]
pub struct LateLabels {
    recording: Address,
    every: Duration,
    last: Instant,
    /// Whether a label has come since the last search.
    has_new: bool,
    has_failed: bool,
    search: Option<Task<Result<Found>>>,
}

impl LateLabels {
    /// Starts without a label.
    pub fn new(recording: &Address, every: Duration) -> LateLabels {
        LateLabels {
            recording: recording.clone(),
            every,
            last: Instant::now(),
            has_new: false,
            has_failed: false,
            search: None,
        }
    }

    /// Notes that a label has come.
    pub fn note(&mut self) {
        self.has_new = true;
    }

    /// Whether a search may start now. `is_last` does not wait for its time.
    pub fn is_due(&self, is_last: bool) -> bool {
        let is_time = is_last || self.last.elapsed() >= self.every;
        self.has_new && self.search.is_none() && is_time
    }

    /// Whether the recording could not be read the last time.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The time of the next search; `None` while nothing is to be searched for.
    pub fn due(&self) -> Option<Instant> {
        let is_wanted = self.has_new && self.search.is_none();
        is_wanted.then(|| self.last + self.every)
    }

    /// Starts to search for the decisions with these ids and with a timestamp from `times`.
    /// A recording that cannot be read is reported, and the next search tries again.
    pub fn start(&mut self, ids: Ids, times: (Micros, Micros), stage: &mut Stage) -> Result<()> {
        self.has_new = false;
        self.last = Instant::now();
        match Recording::open(&self.recording, stage) {
            Ok(recording) => {
                let work = move || search(recording, &ids, times);
                self.search = Some(Task::spawn("searching", work)?);
            }
            Err(error) => self.fail(&error, stage),
        }
        Ok(())
    }

    fn fail(&mut self, error: &anyhow::Error, stage: &mut Stage) {
        self.has_new = true;
        self.has_failed = true;
        let message = format!("{error:#}; the labels wait for the next search");
        stage.report.warn_seldom("recording", &message);
    }

    /// What the search has found, if it has ended.
    pub fn take(&mut self, stage: &mut Stage) -> Result<Option<Found>> {
        let Some(search) = self.search.take_if(|search| search.is_done()) else {
            return Ok(None);
        };
        let mut found = match search.join()? {
            Ok(found) => found,
            Err(error) => {
                self.fail(&error, stage);
                return Ok(None);
            }
        };
        self.has_failed = false;
        stage.report_faults(std::mem::take(&mut found.faults))?;
        self.has_new |= found.is_cut;
        Ok(Some(found))
    }

    /// A descriptor that becomes readable when the search has ended.
    pub fn done(&self) -> Option<BorrowedFd<'_>> {
        self.search.as_ref().map(Task::done)
    }

    /// Waits for the search, if there is one. Returns false if the grace period ends
    /// first; the thread then ends with the process.
    pub fn wait(&self, stage: &mut Stage) -> Result<bool> {
        while let Some(search) = &self.search
            && !search.is_done()
        {
            if stage.signals.out_of_time().is_some() {
                return Ok(false);
            }
            let until = stage.signals.grace_end();
            wait(&[(search.done(), PollFlags::IN)], &mut stage.signals, until)?;
        }
        Ok(true)
    }
}

/// Reads a recording once, and returns the decisions with these ids and times.
fn search(mut recording: Recording, ids: &Ids, times: (Micros, Micros)) -> Result<Found> {
    let mut found = Found::default();
    let mut bytes = 0;
    while let Some((line, _)) = recording.next_line_of_file()? {
        // Lines that are wrong were set aside when they were read live.
        let Ok(Some(text)) = line.record() else {
            continue;
        };
        let Ok(record) = Record::parse(text) else {
            continue;
        };
        let id = record.message_id();
        let is_known = id.is_ok_and(|id| ids.contains(&hash_id(&id, RECORDING_SEED)));
        let is_wanted = record.get(Field::Candidates).is_some()
            && record
                .timestamp()
                .is_ok_and(|time| (times.0..=times.1).contains(&time))
            && is_known;
        if !is_wanted {
            continue;
        }
        bytes += text.len();
        found.decisions.push(text.to_vec());
        if bytes >= FOUND_BYTES_MAX {
            found.is_cut = true;
            break;
        }
    }
    found.faults = recording.take_faults();
    Ok(found)
}
