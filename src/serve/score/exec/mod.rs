//! The engine whose model is another program.
//!
//! The program gets one line at a time and answers it with one line. `program` owns the
//! pipes of the program, `state` holds the line in flight, `steps` decides what happens
//! next, `reply` reads the answers, and `leaving` ends a program. The engine never
//! waits. For every time-out, it tells its caller the time at which to call it again.

pub mod args;
mod leaving;
mod program;
mod program_log;
mod reply;
mod restarts;
mod state;
mod steps;
mod successor;
mod waiting;

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::serve::score::engine::{Engine, Finished, Message};
use crate::serve::score::exec::args::ExecOptions;
use crate::serve::score::exec::leaving::{Cause, Leaving};
use crate::serve::score::exec::program::Program;
use crate::serve::score::exec::program_log::LogLimit;
use crate::serve::score::exec::restarts::Restarts;
use crate::serve::score::exec::state::State;
use crate::serve::score::exec::successor::{SentLine, Successor};
use crate::serve::score::exec::waiting::Waiting;
use crate::serve::score::identity::Identity;
use crate::serve::score::scoring::{HeldRequest, Request, Scoring, ScoringOptions};
use crate::wire::lines::{KeptLine, Line};

/// Evaluates requests with another program.
#[derive(Debug)]
pub struct Exec {
    options: ExecOptions,
    scoring: Scoring,
    waiting: Waiting,
    state: State,
    successor: Option<Successor>,
    /// Programs that are being ended. No other program is started before these have
    /// ended.
    leaving: Vec<Leaving>,
    restarts: Restarts,
    /// The last line that was answered with a result. A successor is tried with this
    /// line.
    proven: Option<SentLine>,
    log: LogLimit,
    messages: Vec<Message>,
    is_warming_up: bool,
    is_closing: bool,
}

impl Exec {
    /// Starts the program.
    pub fn start(
        options: ExecOptions,
        identity: &Identity,
        scoring: ScoringOptions,
    ) -> Result<Exec> {
        let program = Program::start(&options.command, options.reply_bytes_max);
        let program = program.context("cannot start the program of --exec with sh")?;
        Ok(Exec {
            scoring: Scoring::new(identity, &[], scoring),
            waiting: Waiting::new(options.batch.unwrap_or(1)),
            state: State::running(program, Instant::now()),
            successor: None,
            leaving: Vec::new(),
            restarts: Restarts::new(),
            proven: None,
            log: LogLimit::new(&identity.name),
            messages: Vec::new(),
            is_warming_up: false,
            is_closing: false,
            options,
        })
    }
}

impl Exec {
    /// Whether nobody waits for the scores. If so, requests wait while a program loads
    /// its model, and get no error scores meanwhile.
    fn is_patient(&self) -> bool {
        self.is_warming_up || self.scoring.options().rescore
    }
}

impl Engine for Exec {
    fn has_room(&self) -> bool {
        self.waiting.has_room()
    }

    fn submit(&mut self, record: &[u8], line: &Line, finished: &mut Finished) -> Result<()> {
        if let Err(reject) = Request::parse(record) {
            finished.count(line, Err(reject));
            return Ok(());
        }
        let held = HeldRequest::new(line, self.scoring.now());
        self.waiting.push(held, Instant::now());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn collect(&mut self, finished: &mut Finished) -> Result<bool> {
        let before = finished.results + finished.errors;
        self.advance(finished);
        Ok(finished.results + finished.errors > before)
    }

    fn is_idle(&self) -> bool {
        let is_asked = match &self.state {
            State::Running(running) => {
                let call = running.call.as_ref();
                call.is_some_and(|call| !call.batch.requests.is_empty())
            }
            State::Down { .. } => false,
        };
        self.waiting.is_empty() && !is_asked
    }

    fn is_watching(&self) -> bool {
        true
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        let mut all: Vec<_> = self.leaving.iter().map(Leaving::readiness).collect();
        all.extend(self.successor.iter().map(Successor::readiness));
        if let State::Running(running) = &self.state {
            all.push(running.program.readiness());
        }
        all
    }

    fn due(&self) -> Option<Instant> {
        let mut times: Vec<Instant> = self.leaving.iter().map(Leaving::due).collect();
        times.extend(self.successor.as_ref().and_then(Successor::due));
        match &self.state {
            State::Running(running) => {
                times.extend(running.deadline(&self.options));
                if !self.is_patient() {
                    let oldest = self.waiting.oldest();
                    times.extend(running.patience_end(oldest, self.options.timeout));
                }
            }
            State::Down { until, .. }
                if self.leaving.is_empty() && self.successor.is_none() && !self.is_closing =>
            {
                times.push(*until);
            }
            State::Down { .. } => {}
        }
        times.into_iter().min()
    }

    fn set_warming_up(&mut self, is_warming_up: bool) {
        self.is_warming_up = is_warming_up;
    }

    fn take_messages(&mut self) -> Vec<Message> {
        if self.is_closed() {
            self.log.tell_held_back(&mut self.messages);
        }
        std::mem::take(&mut self.messages)
    }

    fn counts(&self) -> Vec<(&'static str, u64, &'static str)> {
        vec![(
            "restarts",
            self.restarts.count,
            "Starts of the model's program after the first one",
        )]
    }

    fn abandon(&mut self) -> Vec<KeptLine> {
        let mut requests = Vec::new();
        if let State::Running(running) = &mut self.state
            && let Some(call) = &mut running.call
        {
            requests.append(&mut call.batch.requests);
        }
        requests.extend(self.waiting.take_all());
        requests
            .iter()
            .map(|held| KeptLine::from(&held.line()))
            .collect()
    }

    fn reload(&mut self) -> Result<String> {
        let now = Instant::now();
        self.restarts.reset();
        if let State::Down { until, .. } = &mut self.state {
            *until = now;
            return Ok("the program is started again at once".to_owned());
        }
        self.dismiss_successor(now);
        let program = Program::start(&self.options.command, self.options.reply_bytes_max);
        let program = program.context("cannot start the program")?;
        let line = self.proven.clone();
        self.successor = Some(Successor::start(
            program,
            line,
            now,
            self.options.start_timeout,
        ));
        Ok("a new program is started; it takes over when it has answered".to_owned())
    }

    fn reload_message(&self, loaded: &str) -> String {
        loaded.to_owned()
    }

    fn begin_close(&mut self, hurry: bool) {
        let now = Instant::now();
        self.dismiss_successor(now);
        if !self.is_closing {
            self.is_closing = true;
            let reason = "the program has been ended".to_owned();
            let down = State::Down {
                until: now,
                reason,
                holds: false,
            };
            if let State::Running(running) = std::mem::replace(&mut self.state, down) {
                let leaving = Leaving::begin(running.program, Cause::NotNeeded, now);
                self.leaving.push(leaving);
            }
        }
        if hurry {
            self.leaving.iter_mut().for_each(|it| it.hurry(now));
        }
    }

    fn is_closed(&self) -> bool {
        self.is_closing && self.leaving.is_empty()
    }
}
