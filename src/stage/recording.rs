//! Reads recorded streams record by record, from a file, an archive's folder or a pipe.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::Result;
use rustix::event::PollFlags;

use crate::stage::context::Stage;
use crate::stage::exit::EndedEarly;
use crate::stage::wait::wait;
use crate::stream::address::Address;
use crate::stream::archives::{RecordedFile, recorded_files};
use crate::stream::cursor::Cursor;
use crate::stream::input::Input;
use crate::wire::lines::Line;

/// A recorded stream and the position in it.
#[derive(Debug)]
pub struct Recording {
    /// The current file of a folder, or the whole stream.
    cursor: Cursor,
    /// The further files of a folder.
    rest: VecDeque<RecordedFile>,
    line_bytes_max: usize,
    /// Messages about damaged files.
    faults: Vec<String>,
}

impl Recording {
    /// Opens a file, an archive's folder or a pipe.
    pub fn open(address: &Address, stage: &Stage) -> Result<Recording> {
        let mut rest = VecDeque::new();
        let folder = Path::new(address.as_str());
        let input = if *address != Address::Standard && folder.is_dir() {
            rest.extend(recorded_files(folder)?);
            match rest.pop_front() {
                Some(first) => open_one(first)?,
                // An empty archive.
                None => Input::recorded(address.as_str(), Vec::new())?,
            }
        } else {
            Input::open(address, false)?
        };
        Ok(Recording {
            cursor: Cursor::new(input, stage.line_bytes_max),
            rest,
            line_bytes_max: stage.line_bytes_max,
            faults: Vec::new(),
        })
    }

    /// Whether the recording is a pipe, which another program fills while it is read.
    pub fn is_pipe(&self) -> bool {
        !self.cursor.input().is_file()
    }

    /// Whether the next line has already been read.
    pub fn has_line(&self) -> bool {
        self.cursor.has_line()
    }

    /// Returns the next line and the name of its file; `None` at the end. Waits for a
    /// pipe without a time limit. A signal to stop ends the wait with an error.
    pub fn next_line(&mut self, stage: &mut Stage) -> Result<Option<(Line<'_>, &str)>> {
        self.fill(|cursor| {
            if let Some(stop) = stage.signals.stop() {
                // Results from a part of a recording would mislead, so a signal to stop
                // is an error.
                return Err(EndedEarly::Signal(stop).into());
            }
            stage.stats.touch();
            match cursor.readiness() {
                Some(fd) => Ok(wait(&[(fd, PollFlags::IN)], &mut stage.signals, None)?[0]),
                None => Ok(true),
            }
        })?;
        stage.report_faults(self.take_faults())?;
        Ok(self.cursor.next_line_and_name())
    }

    /// Takes the messages about damaged files since the last call.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// Like [`next_line`](Recording::next_line), for a thread that does not handle
    /// signals. The owner of the thread reports the faults.
    pub fn next_line_of_file(&mut self) -> Result<Option<(Line<'_>, &str)>> {
        self.fill(|_| Ok(true))?;
        Ok(self.cursor.next_line_and_name())
    }

    /// Reads until a line is complete or the recording ends. Calls `is_ready` before
    /// each read.
    fn fill(&mut self, mut is_ready: impl FnMut(&Cursor) -> Result<bool>) -> Result<()> {
        while !self.cursor.has_line() {
            if self.cursor.is_done() {
                let Some(next) = self.rest.pop_front() else {
                    break;
                };
                self.cursor = Cursor::new(open_one(next)?, self.line_bytes_max);
            }
            if is_ready(&self.cursor)? {
                self.cursor.read()?;
                self.faults.extend(self.cursor.take_faults());
            }
        }
        Ok(())
    }
}

/// Opens one file of a folder. Messages name the file, not the folder.
fn open_one(file: RecordedFile) -> Result<Input> {
    let name = file.path().to_string_lossy().into_owned();
    Input::recorded(&name, vec![file])
}
