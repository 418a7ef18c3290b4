//! The filter of rv-score: gives requests to an engine, and writes and counts the
//! finished scores.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Context, Error, Result};
use rustix::event::PollFlags;

use crate::serve::score::engine::{Engine, Finished};
use crate::stage::filter::{Background, Filter};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage};
use crate::wire::lines::{KeptLine, Line};
use crate::wire::reject::Reject;

/// Scores requests with one engine.
pub struct Scorer {
    engine: Box<dyn Engine>,
    /// The finished requests that have not been counted yet. There are none between two
    /// calls of the filter.
    finished: Finished,
    read: u64,
    blank: u64,
    results: u64,
    errors: u64,
    evaluation: Latencies,
    /// If the program ended early, the lines that were read but not given to the
    /// engine.
    left_over: Vec<KeptLine>,
}

impl Scorer {
    /// Makes a filter with this engine.
    pub fn new(engine: Box<dyn Engine>) -> Scorer {
        Scorer {
            engine,
            finished: Finished::default(),
            read: 0,
            blank: 0,
            results: 0,
            errors: 0,
            evaluation: Latencies::default(),
            left_over: Vec::new(),
        }
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut dyn Engine {
        &mut *self.engine
    }

    /// The number of scores that are errors.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Takes the finished scores from the engine. Returns false if there are none.
    fn take_finished(&mut self, stage: &mut Stage, input: &str, out: &mut Vec<u8>) -> Result<bool> {
        let has_finished = self.call_engine(out, |engine, finished| engine.collect(finished))?;
        self.count_finished(stage, input)?;
        for message in self.engine.take_messages() {
            message.print(&mut stage.report);
        }
        Ok(has_finished)
    }

    /// Calls the engine with `out` as the buffer for scores. Otherwise each score would
    /// be copied, which would take longer than the call itself.
    fn call_engine<T>(
        &mut self,
        out: &mut Vec<u8>,
        call: impl FnOnce(&mut dyn Engine, &mut Finished) -> Result<T>,
    ) -> Result<T> {
        std::mem::swap(out, &mut self.finished.scores);
        let outcome = call(&mut *self.engine, &mut self.finished);
        std::mem::swap(out, &mut self.finished.scores);
        outcome
    }

    fn count_finished(&mut self, stage: &mut Stage, input: &str) -> Result<()> {
        let finished = &mut self.finished;
        self.results += std::mem::take(&mut finished.results);
        self.errors += std::mem::take(&mut finished.errors);
        for time in &finished.evaluation_times {
            self.evaluation.record(*time);
        }
        finished.evaluation_times.clear();
        // Most records are valid. This check saves time, because the code runs once per
        // record.
        if !finished.rejects.is_empty() {
            for (line, reject) in finished.rejects.drain(..) {
                stage.report.reject(input, &line.line(), &reject)?;
            }
        }
        Ok(())
    }

    /// Ends what the engine has started, such as another program, within a bounded time.
    pub fn close(&mut self, stage: &mut Stage) -> Result<()> {
        let mut scores = Finished::default();
        self.engine.begin_close(false);
        loop {
            if stage.signals.out_of_time().is_some() {
                self.engine.begin_close(true);
            }
            self.engine.collect(&mut scores)?;
            for message in self.engine.take_messages() {
                message.print(&mut stage.report);
            }
            if self.engine.is_closed() {
                return Ok(());
            }
            let readiness = self.engine.readiness().into_iter();
            let streams: Vec<_> = readiness.map(|fd| (fd, PollFlags::IN)).collect();
            wait(&streams, &mut stage.signals, self.engine.due())?;
        }
    }

    /// Rejects the requests without a score after an early end, and adds their number to
    /// the error that ends the program.
    pub fn reject_unscored(&mut self, stage: &mut Stage, input: &str, error: Error) -> Error {
        if let Some(EndedEarly::DownstreamClosed) = error.downcast_ref() {
            // Nobody reads scores any more, so a request without a score is no loss.
            return error;
        }
        let mut unscored = self.engine.abandon();
        self.read += self.left_over.len() as u64;
        unscored.append(&mut self.left_over);
        unscored.retain(|kept| kept.line().record() != Ok(None));
        if unscored.is_empty() {
            return error;
        }
        let reason = Reject::Unanswered("read, but not scored when the program ended");
        for kept in &unscored {
            if let Err(failed) = stage.report.reject(input, &kept.line(), &reason) {
                return failed.context(error);
            }
        }
        let count = unscored.len();
        error.context(format!("{count} requests were read and not scored"))
    }
}

impl Filter for Scorer {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let record = match line.record() {
            Ok(None) => {
                self.blank += 1;
                return Ok(());
            }
            Ok(Some(record)) => record,
            Err(reject) => {
                self.read += 1;
                return stage.report.reject(input, line, &reject);
            }
        };
        self.read += 1;
        self.call_engine(out, |engine, finished| {
            engine.submit(record, line, finished)
        })?;
        self.count_finished(stage, input)
    }

    fn has_room(&self) -> bool {
        self.engine.has_room()
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        if self.engine.is_idle() && !self.engine.is_watching() {
            return None;
        }
        Some(self)
    }

    fn left_over(&mut self, _input: &str, line: &Line) {
        self.left_over.push(KeptLine::from(line));
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        match self.engine.reload().context("the model in use stays") {
            Ok(loaded) => {
                let message = self.engine.reload_message(&loaded);
                stage.report.info_if_new("reload", &message);
            }
            Err(error) => stage.report.warn_if_new("reload", &format!("{error:#}")),
        }
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let snapshot = Snapshot::default()
            .count("in", self.read)
            .count("out", self.results + self.errors)
            .rejected(&stage.report)
            .count("errors", self.errors)
            .count("blank", self.blank)
            .latencies("evaluation", &self.evaluation);
        let counts = self.engine.counts().into_iter();
        counts.fold(snapshot, |snapshot, (name, number, help)| {
            snapshot.count(name, number).help(help)
        })
    }
}

impl Background for Scorer {
    fn collect(
        &mut self,
        stage: &mut Stage,
        input: &str,
        out: &mut Vec<u8>,
        is_last: bool,
    ) -> Result<bool> {
        if is_last {
            self.engine.flush()?;
        }
        self.take_finished(stage, input, out)
    }

    fn is_pending(&self) -> bool {
        !self.engine.is_idle()
    }

    fn due(&self) -> Option<Instant> {
        self.engine.due()
    }

    fn streams(&self) -> Vec<BorrowedFd<'_>> {
        self.engine.readiness()
    }
}
