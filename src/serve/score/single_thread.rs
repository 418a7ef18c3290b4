//! The engine that evaluates each request immediately, in the thread that reads the
//! input.

use std::os::fd::BorrowedFd;

use anyhow::Result;

use crate::serve::score::engine::{Engine, Finished};
use crate::serve::score::evaluator::Buffers;
use crate::serve::score::model_file::ModelFile;
use crate::wire::lines::Line;

/// Evaluates each request immediately.
#[derive(Debug)]
pub struct SingleThread {
    model: ModelFile,
    buffers: Buffers,
}

impl SingleThread {
    /// Makes an engine with this model.
    pub fn new(model: ModelFile) -> SingleThread {
        SingleThread {
            model,
            buffers: Buffers::default(),
        }
    }
}

impl Engine for SingleThread {
    fn has_room(&self) -> bool {
        true
    }

    fn submit(&mut self, record: &[u8], line: &Line, finished: &mut Finished) -> Result<()> {
        let evaluator = self.model.evaluator();
        let outcome = evaluator.score(&mut self.buffers, record, &mut finished.scores);
        finished.count(line, outcome);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn collect(&mut self, _finished: &mut Finished) -> Result<bool> {
        Ok(false)
    }

    fn is_idle(&self) -> bool {
        true
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    fn reload(&mut self) -> Result<String> {
        self.model.reload()
    }
}
