//! The engine whose model is another program.
//!
//! The program gets one line at a time and answers it with one line. `program` owns its
//! pipes, `leaving` ends it in steps, `running` decides what happens to the line in
//! flight, and `reply` reads the answers. The engine never waits: every time-out is a
//! time at which it wants to be called.

pub mod args;
mod leaving;
mod program;
mod program_log;
mod reply;
mod restarts;
mod successor;
mod waiting;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::serve::score::answer::ModelError;
use crate::serve::score::engine::{Engine, Finished, Message};
use crate::serve::score::exec::args::ExecOptions;
use crate::serve::score::exec::leaving::{Cause, Departure, Leaving};
use crate::serve::score::exec::program::{Program, Progress};
use crate::serve::score::exec::program_log::LogLimit;
use crate::serve::score::exec::restarts::Restarts;
use crate::serve::score::exec::successor::{SentLine, Successor, Trial};
use crate::serve::score::exec::waiting::{Batch, Waiting};
use crate::serve::score::held::finish;
use crate::serve::score::scoring::{HeldRequest, Identity, Request, Scoring, ScoringOptions};
use crate::stage::report::shown;
use crate::wire::lines::{KeptLine, Line};

/// Evaluates requests with another program.
#[derive(Debug)]
pub struct Exec {
    options: ExecOptions,
    scoring: Scoring,
    waiting: Waiting,
    state: State,
    successor: Option<Successor>,
    /// Programs that are being ended. No other one is started before they have ended.
    leaving: Vec<Leaving>,
    restarts: Restarts,
    /// The last line that was answered with a result, to try a successor.
    proven: Option<SentLine>,
    log: LogLimit,
    messages: Vec<Message>,
    is_closing: bool,
}

#[derive(Debug)]
enum State {
    Running(Box<Running>),
    Down {
        /// The time of the next start.
        until: Instant,
        /// The error of requests until then.
        reason: String,
        /// Whether requests wait for the start instead, because they come from a
        /// recording and the program has worked.
        holds: bool,
    },
}

/// The program that gets the requests.
#[derive(Debug)]
struct Running {
    program: Program,
    since: Instant,
    /// Whether it has answered a line since its start.
    has_answered: bool,
    call: Option<Call>,
}

/// The line in flight.
#[derive(Debug)]
struct Call {
    /// Its requests. Empty after they have got error scores because of the start of the
    /// program.
    batch: Batch,
    line: Option<SentLine>,
    begun: Instant,
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
            is_closing: false,
            options,
        })
    }

    /// Does everything that is possible or due now.
    fn advance(&mut self, finished: &mut Finished) {
        let now = Instant::now();
        self.advance_leaving(now);
        self.advance_successor(now);
        while self.step(now, finished) {}
    }

    /// One step of the program that gets the requests. Returns false if nothing further
    /// can be done now.
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

    /// Fails what is in flight and what waits, and ends the program.
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
        if is_starting {
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

    /// Sends the next line, if there is one and none is in flight. Returns whether
    /// anything has changed.
    fn send_next(&mut self, now: Instant, finished: &mut Finished) -> bool {
        let State::Running(running) = &mut self.state else {
            return false;
        };
        if running.call.is_some() {
            return false;
        }
        if let Some(successor) = self.successor.take_if(|it| it.is_ready()) {
            let since = successor.since;
            let new = State::proven(successor.into_program(), since);
            self.messages
                .push(Message::info("the new program has taken over"));
            if let State::Running(old) = std::mem::replace(&mut self.state, new) {
                let leaving = Leaving::begin(old.program, Cause::NotNeeded, now);
                self.leaving.push(leaving);
            }
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

    /// Starts the program again. Returns whether this has worked.
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

    /// Takes the due steps of the programs that are being ended.
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
        } else if successor.is_ready()
            && matches!(self.state, State::Down { .. })
            && let Some(successor) = self.successor.take()
        {
            let since = successor.since;
            self.state = State::proven(successor.into_program(), since);
            self.messages
                .push(Message::info("the new program has taken over"));
        }
    }

    fn dismiss_successor(&mut self, now: Instant) {
        if let Some(successor) = self.successor.take() {
            let program = successor.into_program();
            self.leaving
                .push(Leaving::begin(program, Cause::NotNeeded, now));
        }
    }
}

impl State {
    fn running(program: Program, since: Instant) -> State {
        State::Running(Box::new(Running {
            program,
            since,
            has_answered: false,
            call: None,
        }))
    }

    /// The state with a program that has already answered a line.
    fn proven(program: Program, since: Instant) -> State {
        State::Running(Box::new(Running {
            program,
            since,
            has_answered: true,
            call: None,
        }))
    }
}

impl Running {
    /// The time at which the program is ended because the line in flight has no answer.
    fn deadline(&self, options: &ExecOptions) -> Option<Instant> {
        let call = self.call.as_ref()?;
        Some(match self.has_answered {
            true => call.begun + options.timeout,
            false => (call.begun + options.timeout).max(self.since + options.start_timeout),
        })
    }

    /// The next time at which a request gets an error because the program starts.
    fn patience_end(&self, oldest_waiting: Option<Instant>, timeout: Duration) -> Option<Instant> {
        if self.has_answered {
            return None;
        }
        let called = self
            .call
            .as_ref()
            .filter(|call| !call.batch.requests.is_empty());
        let since = called.map(|call| call.begun).or(oldest_waiting)?;
        Some(since + timeout)
    }
}

/// The message about a program that has ended by itself.
fn ended_message(
    status: Option<std::process::ExitStatus>,
    again: Option<Duration>,
    command: &str,
) -> Message {
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
                let oldest = self.waiting.oldest();
                times.extend(running.patience_end(oldest, self.options.timeout));
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
