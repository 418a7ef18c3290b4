//! The ends: of the program, of the input, and by a signal.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;

use crate::bridge::child::shell_status;
use crate::bridge::run::{Bridge, Phase};
use crate::stage::EndedEarly;

/// The longest wait for the last acknowledgements.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// The status of a program of rv whose disk, service or lock has failed. No message is to
/// blame for it.
const ENVIRONMENT_FAILED: u8 = 3;

impl Bridge<'_> {
    /// Starts to drain after a signal: consumes nothing more, and closes the inputs of
    /// the program.
    pub(super) fn obey_signals(&mut self) {
        let is_told = self.stage.signals.stop().is_some();
        if is_told && self.phase != Phase::Draining {
            self.phase = Phase::Draining;
            for input in 0..self.inputs.len() {
                let waiting = self.ledger.release_waiting(input);
                self.clients.release(input, waiting);
            }
            for output in &mut self.outputs {
                if let Some(reader) = output.reader.as_mut().filter(|_| self.program.is_none()) {
                    reader.stop();
                }
            }
            if let Some(program) = self.program.as_ref().filter(|_| self.inputs.is_empty()) {
                // A program without an input cannot see its end.
                program.signal(Signal::TERM);
            }
        }
        if self.phase == Phase::Draining {
            let writers = self.inputs.iter_mut().filter_map(|it| it.writer.as_mut());
            for writer in writers.filter(|it| it.is_open() && it.is_empty()) {
                writer.close();
            }
        }
    }

    /// Whether the work is done. The error is that of a program that has failed.
    pub(super) fn is_done(&mut self) -> Result<bool> {
        if let Some(stop) = self.stage.signals.out_of_time() {
            return Err(EndedEarly::Signal(stop).into());
        }
        if self.phase != Phase::Draining && self.deaths.take_restart(Instant::now()) {
            self.start_program()?;
        }
        let status = match &mut self.program {
            Some(program) => program.ended().context("cannot watch the program")?,
            None => return Ok(self.is_done_without_program()),
        };
        match status {
            Some(status) if self.has_read_all()? => self.program_ended(status),
            _ => Ok(false),
        }
    }

    fn is_done_without_program(&mut self) -> bool {
        if self.deaths.restart_at().is_some() {
            // Nothing is in hand while no program runs.
            return self.phase == Phase::Draining && self.publishing.is_empty();
        }
        let is_written = self.inputs.iter().all(|it| {
            let writer = it.writer.as_ref();
            writer.is_none_or(|it| it.is_empty() || !it.is_open())
        });
        let source_ended = self.inputs.is_empty()
            && self.phase != Phase::Starting
            && self.outputs.iter_mut().all(|it| match &mut it.reader {
                Some(reader) => reader.has_ended() && !reader.lines().has_line(),
                None => true,
            });
        let is_over = self.phase == Phase::Draining || source_ended;
        is_over && is_written && self.publishing.is_empty()
    }

    /// Whether everything was read that the program has left in its pipes, and is safe.
    fn has_read_all(&mut self) -> Result<bool> {
        while self.may_publish() {
            if !self.read_outputs()? && !self.read_rejects_pipe()? {
                return Ok(self.publishing.is_empty());
            }
        }
        Ok(false)
    }

    /// The program has ended, and all its outputs are safe.
    fn program_ended(&mut self, status: ExitStatus) -> Result<bool> {
        self.program = None;
        let code = shell_status(status);
        let in_hand = self.ledger.program_ended(code != ENVIRONMENT_FAILED);
        for input in &mut self.inputs {
            input.writer = None;
        }
        let name = self.plan.program.as_ref().map_or("", |words| &words[0]);
        if status.success() || self.phase == Phase::Draining {
            if in_hand > 0 && self.phase != Phase::Draining {
                self.stage.report.warn(&format!(
                    "{name} has ended with {in_hand} messages in hand; they are not acknowledged"
                ));
            }
            return match code {
                0 => Ok(true),
                1 => {
                    self.stage.has_findings = true;
                    Ok(true)
                }
                _ => Err(program_error(name, code, in_hand)),
            };
        }
        self.counts.program_deaths += 1;
        if !self.deaths.program_died(code, in_hand, Instant::now()) {
            return Err(program_error(name, code, in_hand));
        }
        let hands_over = match in_hand {
            0 => String::new(),
            _ => format!(" and given the {in_hand} messages that it had in hand, one at a time"),
        };
        self.stage.report.warn_seldom(
            "death",
            &format!("{name} has ended with status {code}; it is started again{hands_over}"),
        );
        Ok(false)
    }

    /// Acknowledges what is safe, and closes the clients.
    pub(super) fn finish(&mut self, outcome: Result<()>) -> Result<()> {
        if outcome.is_err() {
            if let Some(program) = &self.program {
                program.signal(Signal::TERM);
            }
            // What is safe by now is acknowledged, whatever has happened.
            let _ = self.take_events();
        }
        let applied = self.apply_actions();
        let is_closed = self.clients.close(CLOSE_TIME);
        self.program = None;
        let open: usize = (0..self.inputs.len()).map(|it| self.ledger.open(it)).sum();
        if open > 0 {
            self.stage.report.info(&format!(
                "{open} messages are not acknowledged; the broker delivers them again"
            ));
        }
        outcome.and(applied)?;
        if !is_closed {
            return Err(anyhow!(
                "the broker has not taken the last acknowledgements within {} s; it delivers these \
                 messages again",
                CLOSE_TIME.as_secs()
            ));
        }
        Ok(())
    }
}

fn program_error(name: &str, status: u8, in_hand: usize) -> anyhow::Error {
    let message = match in_hand {
        0 => format!("{name} has ended with status {status}"),
        _ => format!(
            "{name} has ended with status {status} and {in_hand} messages in hand; they are not \
             acknowledged"
        ),
    };
    EndedEarly::Program { message, status }.into()
}
