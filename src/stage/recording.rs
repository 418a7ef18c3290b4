//! Reads recorded streams record by record: files, archives' folders, a pipe.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::Result;
use rustix::event::PollFlags;

use crate::stage::context::Stage;
use crate::stage::exit::EndedEarly;
use crate::stage::wait::wait;
use crate::stream::address::Address;
use crate::stream::archives::{RecordedFile, recorded_files};
use crate::stream::input::{Input, Progress};
use crate::wire::lines::{Line, Lines};

/// A recorded stream and how far it was read.
#[derive(Debug)]
pub struct Recording {
    input: Input,
    lines: Lines,
    /// The files that follow, of a folder.
    rest: VecDeque<RecordedFile>,
    line_bytes_max: usize,
    ended: bool,
    /// What was wrong with files.
    faults: Vec<String>,
}

impl Recording {
    /// Opens a file, an archive's folder or a pipe; `-` is standard input.
    pub fn open(address: &Address, stage: &Stage) -> Result<Recording> {
        let mut rest = VecDeque::new();
        let input = if *address != Address::Standard && Path::new(address.as_str()).is_dir() {
            rest.extend(recorded_files(Path::new(address.as_str()))?);
            match rest.pop_front() {
                Some(first) => open_one(first)?,
                // A recording without records.
                None => Input::recorded(address.as_str(), Vec::new())?,
            }
        } else {
            Input::open(address, false)?
        };
        Ok(Recording {
            input,
            lines: Lines::new(stage.line_bytes_max),
            rest,
            line_bytes_max: stage.line_bytes_max,
            ended: false,
            faults: Vec::new(),
        })
    }

    /// Whether it is a pipe, which another program fills while it is read.
    pub fn is_pipe(&self) -> bool {
        !self.input.is_file()
    }

    /// Whether the next line is there without a read.
    pub fn has_line(&self) -> bool {
        self.lines.has_whole_line()
    }

    /// The next line, and the name of its file; `None` at the end. Waits for a
    /// pipe as long as it takes; a signal to stop ends that.
    pub fn next_line(&mut self, stage: &mut Stage) -> Result<Option<(Line<'_>, &str)>> {
        self.fill(|input| {
            if let Some(stop) = stage.signals.stop() {
                // Half a recording is none: who stops it is told.
                return Err(EndedEarly::Signal(stop).into());
            }
            stage.stats.touch();
            match input.readiness() {
                Some(fd) => Ok(wait(&[(fd, PollFlags::IN)], &mut stage.signals, None)?[0]),
                None => Ok(true),
            }
        })?;
        for fault in self.take_faults() {
            stage.report.damaged(&fault)?;
        }
        Ok(self.take_line())
    }

    /// What was wrong with files since the last call.
    pub fn take_faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// The same as [`next_line`](Recording::next_line) of files, for a thread that
    /// knows no signals. Its owner tells of the faults.
    pub fn next_line_of_file(&mut self) -> Result<Option<(Line<'_>, &str)>> {
        self.fill(|_| Ok(true))?;
        Ok(self.take_line())
    }

    /// Reads until there is a line or no more comes. `is_ready` is asked before
    /// each read.
    fn fill(&mut self, mut is_ready: impl FnMut(&Input) -> Result<bool>) -> Result<()> {
        while !self.lines.has_whole_line() {
            // There is none, but the buffer lets go of an oversized one.
            let _ = self.lines.next_line();
            if self.ended {
                if self.lines.is_inside_line() {
                    break;
                }
                let Some(next) = self.rest.pop_front() else {
                    break;
                };
                self.input = open_one(next)?;
                self.lines = Lines::new(self.line_bytes_max);
                self.ended = false;
            }
            if is_ready(&self.input)? {
                self.ended = self.input.read(&mut self.lines)? == Progress::End;
                self.faults.extend(self.input.take_faults());
            }
        }
        Ok(())
    }

    fn take_line(&mut self) -> Option<(Line<'_>, &str)> {
        let line = if self.lines.has_whole_line() {
            self.lines.next_line()
        } else {
            self.lines.last_line()
        };
        line.map(|line| (line, self.input.name()))
    }
}

/// One file of several, under its own name in messages.
fn open_one(file: RecordedFile) -> Result<Input> {
    let name = file.path().to_string_lossy().into_owned();
    Input::recorded(&name, vec![file])
}
