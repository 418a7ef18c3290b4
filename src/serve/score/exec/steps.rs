//! The steps of the engine: what happens to the programs and to the line in flight.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::Exec;
use crate::serve::score::answer::ModelError;
use crate::serve::score::engine::{Finished, Message};
use crate::serve::score::exec::leaving::{Cause, Departure, Leaving};
use crate::serve::score::exec::program::{Program, Progress};
use crate::serve::score::exec::reply;
use crate::serve::score::exec::state::{Call, State};
use crate::serve::score::exec::successor::{SentLine, Successor, Trial};
use crate::serve::score::held::finish;
use crate::stage::report::shown;

impl Exec {
    /// Takes all steps that are possible or due now.
    pub(super) fn advance(&mut self, finished: &mut Finished) {
        let now = Instant::now();
        self.advance_leaving(now);
        self.advance_successor(now);
        while self.step(now, finished) {}
    }

    /// Takes one step with the program that gets the requests. Returns false if nothing
    /// further can be done now.
    fn step(&mut self, now: Instant, finished: &mut Finished) -> bool {
        let running = match &mut self.state {
            State::Down {
                until,
                reason,
                holds,
            } => {
                if !*holds {
                    let error = ModelError::new(reason.clone());
                    self.waiting.fail_all(&self.scoring, &error, finished);
                }
                let is_due = *until <= now && self.leaving.is_empty();
                return is_due && self.successor.is_none() && !self.is_closing && self.restart(now);
            }
            State::Running(running) => running,
        };
        let (log, messages) = (&mut self.log, &mut self.messages);
        let mut show = |line: &str| log.pass(line, now, messages);
        match running.program.advance(&mut show) {
            Progress::Pending => {}
            Progress::Reply(reply) => {
                self.take_reply(&reply, finished);
                return true;
            }
            Progress::Oversized(bytes) => {
                let error = format!(
                    "the program wrote {bytes} bytes for one line, more than --max-line-bytes"
                );
                running.has_answered = true;
                self.fail_call(&error, finished);
                return true;
            }
            Progress::Stray(text) => {
                self.end_stray(&text, now, finished);
                return true;
            }
            Progress::Ended => {
                let error = "the program ended before it answered";
                self.bring_down(error, Cause::Itself, now, finished);
                return true;
            }
        }
        self.check_times(now, finished) || self.send_next(now, finished)
    }

    /// Scores the requests of the line in flight with its reply.
    fn take_reply(&mut self, reply: &[u8], finished: &mut Finished) {
        let State::Running(running) = &mut self.state else {
            return;
        };
        running.has_answered = true;
        let Some(call) = running.call.take() else {
            return;
        };
        let count = call.batch.requests.len();
        let outcomes = reply::read_line(reply, count, self.options.batch.is_some());
        if outcomes.iter().any(Result::is_ok) && call.line.is_some() {
            self.proven = call.line;
        }
        let evaluated = call.batch.requests.first();
        if let Some(evaluation) = evaluated.map(|request| request.evaluation(&self.scoring)) {
            self.waiting.evaluation_time.note(evaluation);
        }
        for (request, outcome) in call.batch.requests.iter().zip(&outcomes) {
            let evaluation = request.evaluation(&self.scoring);
            finish(&self.scoring, request, outcome, evaluation, finished);
        }
    }

    /// Gives the requests of the line in flight an error.
    fn fail_call(&mut self, reason: &str, finished: &mut Finished) {
        let State::Running(running) = &mut self.state else {
            return;
        };
        if let Some(call) = running.call.take() {
            let error = ModelError::new(reason);
            call.batch.fail(&self.scoring, &error, finished);
        }
    }

    /// Ends a program that has written something without being asked.
    fn end_stray(&mut self, text: &[u8], now: Instant, finished: &mut Finished) {
        let text = shown(&String::from_utf8_lossy(text));
        let error = format!("the program wrote more than one line for its input: {text}");
        self.messages.push(Message::warning(
            "exec-stray",
            format!(
                "the program of --exec wrote {text} without being asked; it is started again. It must write one line for each line that it reads, and everything else on stderr"
            ),
        ));
        self.bring_down(&error, Cause::Misbehaved, now, finished);
    }

    /// Gives an error to the requests in flight and to those that wait, and ends the
    /// program.
    fn bring_down(&mut self, reason: &str, cause: Cause, now: Instant, finished: &mut Finished) {
        self.fail_call(reason, finished);
        let State::Running(running) = &self.state else {
            return;
        };
        let worked_for = running.has_answered.then(|| now - running.since);
        let is_recording = self.scoring.options().rescore;
        let down = State::Down {
            until: (self.restarts).next_start(now, worked_for, is_recording),
            reason: format!("the program is being started again: {reason}"),
            holds: is_recording && worked_for.is_some(),
        };
        if let State::Running(running) = std::mem::replace(&mut self.state, down) {
            self.leaving
                .push(Leaving::begin(running.program, cause, now));
        }
        self.advance_leaving(now);
    }

    /// Acts on the time-outs of the line in flight and, while the program starts, of the
    /// requests that wait. Returns whether anything has changed.
    fn check_times(&mut self, now: Instant, finished: &mut Finished) -> bool {
        let is_patient = self.is_patient();
        let State::Running(running) = &mut self.state else {
            return false;
        };
        let timeout = self.options.timeout;
        let is_starting = !running.has_answered;
        let deadline = running.deadline(&self.options);
        if deadline.is_some_and(|deadline| deadline <= now) {
            let patience = match is_starting {
                true => self.options.start_timeout,
                false => timeout,
            };
            let patience = humantime::format_duration(patience);
            let error = format!("the program has not answered within {patience}");
            self.messages.push(Message::warning(
                "exec-timeout",
                format!(
                    "the program of --exec has not answered within {patience}; it is started again"
                ),
            ));
            self.bring_down(&error, Cause::Misbehaved, now, finished);
            return true;
        }
        if is_starting && !is_patient {
            let error = ModelError::new(format!(
                "the program has not answered yet; it was started {} s ago",
                (now - running.since).as_secs()
            ));
            if let Some(call) = &mut running.call
                && call.begun + timeout <= now
            {
                std::mem::take(&mut call.batch).fail(&self.scoring, &error, finished);
            }
            let limit = now.checked_sub(timeout);
            self.waiting
                .fail_older(limit, &self.scoring, &error, finished);
        }
        false
    }

    /// Sends the next line, if there is one and no line is in flight. Returns whether
    /// anything has changed.
    fn send_next(&mut self, now: Instant, finished: &mut Finished) -> bool {
        let State::Running(running) = &mut self.state else {
            return false;
        };
        if running.call.is_some() {
            return false;
        }
        if self.successor.as_ref().is_some_and(Successor::is_ready) {
            self.take_over(now);
            return true;
        }
        let Some(batch) = self.waiting.next_batch(&self.scoring, finished) else {
            return false;
        };
        let line = batch.line(self.options.batch.is_some());
        running.call = Some(Call {
            line: SentLine::of(&line, batch.requests.len()),
            batch,
            begun: now,
        });
        running.program.send(line);
        false
    }

    /// Starts the program again. Returns whether the program was started.
    fn restart(&mut self, now: Instant) -> bool {
        self.restarts.count += 1;
        match Program::start(&self.options.command, self.options.reply_bytes_max) {
            Ok(program) => {
                self.state = State::running(program, now);
                true
            }
            Err(error) => {
                let reason = format!("the program cannot be started: {error}");
                self.messages.push(Message::warning("exec-start", &reason));
                let until = self.restarts.next_start(now, None, false);
                self.state = State::Down {
                    until,
                    reason,
                    holds: false,
                };
                false
            }
        }
    }

    /// Takes the steps that are due for the programs that are being ended.
    fn advance_leaving(&mut self, now: Instant) {
        let mut index = 0;
        while index < self.leaving.len() {
            let (log, messages) = (&mut self.log, &mut self.messages);
            let mut show = |line: &str| log.pass(line, now, messages);
            match self.leaving[index].advance(now, &mut show) {
                Departure::Pending => index += 1,
                Departure::Ended(status) => {
                    let cause = self.leaving.remove(index).cause();
                    if cause == Cause::Itself {
                        let again = match &self.state {
                            State::Down { until, .. } => Some(until.saturating_duration_since(now)),
                            State::Running(_) => None,
                        };
                        self.messages
                            .push(ended_message(status, again, &self.options.command));
                    }
                }
            }
        }
    }

    /// Advances the program that is to take over.
    fn advance_successor(&mut self, now: Instant) {
        let Some(successor) = &mut self.successor else {
            return;
        };
        let (log, messages) = (&mut self.log, &mut self.messages);
        let mut show = |line: &str| log.pass(line, now, messages);
        let is_batch = self.options.batch.is_some();
        if let Trial::Failed(reason) = successor.advance(now, is_batch, &mut show) {
            let kept = match self.state {
                State::Running(_) => "the program in use stays",
                State::Down { .. } => "it is started again",
            };
            self.messages.push(Message::info(format!(
                "the new program is not used: {reason}; {kept}"
            )));
            self.dismiss_successor(now);
        } else if successor.is_ready() && matches!(self.state, State::Down { .. }) {
            self.take_over(now);
        }
    }

    /// Replaces the program by the one that is to take over.
    fn take_over(&mut self, now: Instant) {
        let Some(successor) = self.successor.take() else {
            return;
        };
        let since = successor.since;
        let new = State::proven(successor.into_program(), since);
        self.messages
            .push(Message::info("the new program has taken over"));
        if let State::Running(old) = std::mem::replace(&mut self.state, new) {
            let leaving = Leaving::begin(old.program, Cause::NotNeeded, now);
            self.leaving.push(leaving);
        }
    }

    /// Ends the program that was to take over, if there is one.
    pub(super) fn dismiss_successor(&mut self, now: Instant) {
        if let Some(successor) = self.successor.take() {
            let program = successor.into_program();
            self.leaving
                .push(Leaving::begin(program, Cause::NotNeeded, now));
        }
    }
}

/// The message about a program that has ended by itself.
fn ended_message(status: Option<ExitStatus>, again: Option<Duration>, command: &str) -> Message {
    let how = status.map_or("it does not react".to_owned(), |status| status.to_string());
    let remedy = match status.and_then(|status| status.code()) {
        Some(127) => format!(
            "; the command {} was not found: give its path, or install it",
            shown(command)
        ),
        Some(126) => format!(
            "; the command {} cannot be run: is the file executable? Otherwise name its interpreter, as in --exec 'python3 model.py'",
            shown(command)
        ),
        Some(0) => "; it must read its input to the end, and not stop after one line".to_owned(),
        _ => String::new(),
    };
    let again = again.map_or(String::new(), |wait| {
        format!("; it is started again in {:.1} s", wait.as_secs_f64())
    });
    Message::warning(
        format!("exec-ended {how}"),
        format!("the program of --exec has ended ({how}){remedy}{again}"),
    )
}
