//! The filter of rv-score: gives requests to an engine, and writes and counts the
//! finished scores.

use anyhow::{Context, Result};
use rustix::event::PollFlags;

use crate::serve::score::engine::{Engine, Finished};
use crate::stage::Stage;
use crate::stage::filter::{Background, Filter};
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::wait::wait;
use crate::wire::lines::Line;

/// Scores requests with one engine.
pub struct Scorer {
    engine: Box<dyn Engine>,
    /// The finished requests that have not been counted. Empty between two calls.
    finished: Finished,
    read: u64,
    blank: u64,
    results: u64,
    errors: u64,
    evaluation: Latencies,
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
        }
    }

    /// The number of scores that are errors.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Takes the finished scores from the engine. Returns false if there are none.
    fn take_finished(&mut self, stage: &mut Stage, input: &str, out: &mut Vec<u8>) -> Result<bool> {
        let has_finished = self.call_engine(out, |engine, finished| engine.collect(finished))?;
        self.count_finished(stage, input)?;
        Ok(has_finished)
    }

    /// Calls the engine with `out` as the buffer for scores: copying each score would
    /// cost more than the call.
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
        // Most records are valid, and this code runs once per record.
        if !finished.rejects.is_empty() {
            for (line, reject) in finished.rejects.drain(..) {
                stage.report.reject(input, &line.line(), &reject)?;
            }
        }
        Ok(())
    }

    /// Waits until the engine may have finished a request, or until a signal arrives.
    fn wait_for_engine(&self, stage: &mut Stage) -> Result<()> {
        let readiness = self.engine.readiness().into_iter();
        let streams: Vec<_> = readiness.map(|fd| (fd, PollFlags::IN)).collect();
        wait(&streams, &mut stage.signals, None)?;
        Ok(())
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
        while !self.engine.has_room() {
            if !self.take_finished(stage, input, out)? {
                self.wait_for_engine(stage)?;
            }
        }
        self.call_engine(out, |engine, finished| {
            engine.submit(record, line, finished)
        })?;
        self.count_finished(stage, input)
    }

    fn background(&mut self) -> Option<&mut dyn Background> {
        if self.engine.is_idle() {
            return None;
        }
        Some(self)
    }

    fn hangup(&mut self, stage: &mut Stage) -> Result<()> {
        match self.engine.reload().context("the model in use stays") {
            Ok(loaded) => {
                let message = format!("loaded {loaded}");
                stage.report.info_if_new("reload", &message);
            }
            Err(error) => stage.report.warn_if_new("reload", &format!("{error:#}")),
        }
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        Snapshot::default()
            .count("in", self.read)
            .count("out", self.results + self.errors)
            .rejected(&stage.report)
            .count("errors", self.errors)
            .count("blank", self.blank)
            .latencies("evaluation", &self.evaluation)
    }
}

impl Background for Scorer {
    fn collect(
        &mut self,
        stage: &mut Stage,
        input: &str,
        out: &mut Vec<u8>,
        wait: bool,
    ) -> Result<bool> {
        loop {
            if wait {
                self.engine.flush()?;
            }
            if self.take_finished(stage, input, out)? {
                return Ok(true);
            }
            if !wait || self.engine.is_idle() {
                return Ok(false);
            }
            self.wait_for_engine(stage)?;
        }
    }
}
