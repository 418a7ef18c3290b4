//! model inputs -> requests, with an eye on the responses: no more than so many
//! unanswered at a time.

use std::time::Instant;

use anyhow::{Result, bail};
use rustix::event::PollFlags;

use crate::serve::request::flight::Flight;
use crate::serve::request::wrap::Wrap;
use crate::serve::request::{RequestArgs, Wrapper};
use crate::stage::backlog::Backlog;
use crate::stage::filter::Filter;
use crate::stage::stats::Snapshot;
use crate::stage::wait::{output_error, wait};
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::Address;
use crate::stream::input::{Input, Progress};
use crate::stream::output::Output;
use crate::wire::lines::{KeptLine, Line, Lines};
use crate::wire::message::Record;
use crate::wire::reject::Reject;

/// Requests stop being made while this much is not taken yet.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;

/// So do they while the inputs of unanswered requests take this much: they are kept
/// to be set aside where no answer comes.
const UNANSWERED_BYTES_MAX: usize = 64 << 20;

/// How much of a line is read byte by byte before the responses get their turn.
const BYTES_A_TURN: usize = 4096;

/// Runs until every request has its answer or has waited too long for it.
pub fn run(
    stage: &mut Stage,
    args: &RequestArgs,
    responses: &Address,
    wrapper: Wrapper,
) -> Result<()> {
    let mut ring = Ring::open(stage, args, responses, wrapper)?;
    let turned = ring.turn(stage);
    if let Err(error) = turned.and_then(|()| ring.pass_answers_on(stage)) {
        return Err(ring.leave(stage, error));
    }
    stage.close(&mut ring.answers)?;
    let unanswered = ring.flight.unanswered();
    stage.has_findings |= unanswered > 0;
    if unanswered > 0 {
        let message = format!("{unanswered} requests had no response within --timeout");
        stage.report.warn(&message);
    }
    stage.final_stats(&ring.snapshot(stage));
    match stage.signals.stop() {
        // A file has an end, and this was not it.
        Some(stop) if ring.input.is_file() => Err(EndedEarly::Signal(stop).into()),
        _ => Ok(()),
    }
}

/// How far the input has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    On,
    /// A signal has come: to the end of the line that was begun, and not a byte
    /// further.
    ToLineEnd,
    Ended,
}

/// The four streams, and what is between them.
#[derive(Debug)]
struct Ring {
    input: Input,
    input_lines: Lines,
    reading: Reading,
    wrap: Wrap,
    outgoing: Backlog,
    output: Output,
    flight: Flight,
    in_flight_max: usize,
    responses: Input,
    response_lines: Lines,
    answered: Vec<u8>,
    answers: Output,
}

impl Ring {
    fn open(
        stage: &Stage,
        args: &RequestArgs,
        responses: &Address,
        wrapper: Wrapper,
    ) -> Result<Ring> {
        let mut outgoing = Backlog::default();
        if args.output.resume {
            outgoing.tail().push(b'\n');
        }
        Ok(Ring {
            answers: match &args.answers {
                Some(address) => Output::open(address)?,
                None => Output::nowhere(),
            },
            output: Output::open(&args.output.output)?,
            input: Input::open(&args.input.input, args.input.follow)?,
            responses: Input::open(responses, args.input.follow)?,
            input_lines: Lines::new(stage.line_bytes_max),
            response_lines: Lines::new(stage.line_bytes_max),
            reading: Reading::On,
            wrap: Wrap::new(wrapper, args.id.clone()),
            outgoing,
            // Ids that are made never come again.
            flight: Flight::new(
                args.timeout,
                args.id.as_ref().map_or(0, |_| args.remember_ids as usize),
            ),
            in_flight_max: args.max_in_flight as usize,
            answered: Vec::new(),
        })
    }

    fn turn(&mut self, stage: &mut Stage) -> Result<()> {
        let mut closed = false;
        loop {
            stage.show_stats(|stage| self.snapshot(stage));
            // This is a source: both signals stop its reading, and it waits for
            // the answers to what it has sent.
            if self.reading == Reading::On && stage.signals.stop().is_some() {
                self.reading = Reading::ToLineEnd;
            }
            self.make_requests(stage)?;
            // Never waits: while this program waited to write, nobody would read the
            // responses, and the ring could stand still.
            self.outgoing
                .write_some(&mut self.output)
                .map_err(|error| output_error(&self.output, error))?;
            let exhausted = self.reading == Reading::Ended && !self.has_line();
            if exhausted && self.outgoing.is_empty() {
                if !closed {
                    // The stages behind see the end, and answer what they still
                    // hold.
                    stage.close(&mut self.output)?;
                    closed = true;
                }
                if self.flight.open() == 0 {
                    return Ok(());
                }
            }
            stage.report.flush()?;
            self.pass_answers_on(stage)?;
            if let Some(stop) = stage.signals.out_of_time() {
                return Err(EndedEarly::Signal(stop).into());
            }
            // From before the wait: what is there by then is read before anything is
            // given up.
            let now = Instant::now();
            let [input_ready, responses_ready] = self.wait(stage)?;
            if responses_ready {
                if self.read_responses(stage)? == Progress::End {
                    self.pass_answers_on(stage)?;
                    let open = self.flight.open();
                    if open > 0 || !exhausted {
                        let name = self.responses.name();
                        bail!("{name}: ended while {open} requests were unanswered");
                    }
                    return Ok(());
                }
            } else {
                // No answer that is waiting to be read comes too late.
                self.give_up(stage, now)?;
            }
            if input_ready {
                self.read_input()?;
                stage.report_faults(self.input.take_faults())?;
            }
        }
    }

    /// Requests of what was read already, as far as there is room.
    fn make_requests(&mut self, stage: &mut Stage) -> Result<()> {
        while self.has_room() {
            let line = match self.input_lines.next_line() {
                Some(line) => line,
                None if self.reading == Reading::Ended => match self.input_lines.last_line() {
                    Some(line) => line,
                    None => break,
                },
                None => break,
            };
            let input = self.input.name();
            let out = self.outgoing.tail();
            let is_known = |id: &str| self.flight.is_known(id);
            if let Some(id) = self.wrap.request(stage, input, &line, out, is_known)? {
                self.flight.depart(id, KeptLine::from(&line));
            }
        }
        if self.reading == Reading::ToLineEnd && !self.has_line() {
            self.reading = Reading::Ended;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.flight.open() < self.in_flight_max
            && self.flight.bytes() < UNANSWERED_BYTES_MAX
            && self.outgoing.len() < OUTGOING_BYTES_MAX
    }

    /// Whether anything was read that is no request yet.
    fn has_line(&self) -> bool {
        self.input_lines.is_inside_line()
    }

    fn wants_input(&self) -> bool {
        match self.reading {
            Reading::On => self.has_room(),
            Reading::ToLineEnd => {
                self.input_lines.is_inside_line() && !self.input_lines.has_whole_line()
            }
            Reading::Ended => false,
        }
    }

    fn read_input(&mut self) -> Result<()> {
        if self.reading == Reading::On {
            if self.input.read(&mut self.input_lines)? == Progress::End {
                self.reading = Reading::Ended;
            }
            return Ok(());
        }
        for _ in 0..BYTES_A_TURN {
            match self.input.read_one_byte(&mut self.input_lines)? {
                Progress::Bytes(_) if self.input_lines.ends_a_line() => break,
                Progress::Bytes(_) => {}
                Progress::Nothing => break,
                Progress::End => {
                    self.reading = Reading::Ended;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Sets the inputs aside whose answers did not come in time.
    fn give_up(&mut self, stage: &mut Stage, now: Instant) -> Result<()> {
        for line in self.flight.give_up(now) {
            let reject = Reject::Unanswered("no response came within --timeout");
            let input = self.input.name();
            stage.report.reject(input, &line.line(), &reject)?;
        }
        Ok(())
    }

    /// Before an early end: what was read and has no answer is not lost in silence,
    /// and half a line is never taken for a whole one. Returns what is to be said.
    fn leave(&mut self, stage: &mut Stage, error: anyhow::Error) -> anyhow::Error {
        let [no_answer, not_sent, torn] = match error.downcast_ref() {
            Some(EndedEarly::Signal(_)) => [
                Reject::Unanswered("no response came within --grace"),
                Reject::Unanswered("there was no room to send it within --grace"),
                Reject::Unfinished,
            ],
            _ => [
                Reject::Unanswered("the program ended before a response came"),
                Reject::Unanswered("the program ended before it was sent"),
                Reject::Unfinished,
            ],
        };
        let input = self.input.name();
        // With --strict each is an error, and is kept all the same. Where they can
        // not be kept, the error that ends the program is said, not that one.
        for line in self.flight.give_up_all() {
            let _ = stage.report.reject(input, &line.line(), &no_answer);
        }
        while let Some(line) = self.input_lines.next_line() {
            let _ = self.wrap.set_aside(stage, input, &line, &not_sent);
        }
        if let Some(line) = self.input_lines.last_line() {
            let reject = if self.reading == Reading::Ended {
                not_sent
            } else {
                torn
            };
            let _ = self.wrap.set_aside(stage, input, &line, &reject);
        }
        stage.final_stats(&self.snapshot(stage));
        error
    }

    fn read_responses(&mut self, stage: &mut Stage) -> Result<Progress> {
        stage.stats.touch();
        let progress = self.responses.read(&mut self.response_lines)?;
        stage.report_faults(self.responses.take_faults())?;
        loop {
            let line = match self.response_lines.next_line() {
                Some(line) => line,
                None if progress == Progress::End => match self.response_lines.last_line() {
                    Some(line) => line,
                    None => break,
                },
                None => break,
            };
            let name = self.responses.name();
            arrive(stage, name, &line, &mut self.flight, &mut self.answered)?;
        }
        Ok(progress)
    }

    fn pass_answers_on(&mut self, stage: &mut Stage) -> Result<()> {
        if !self.answered.is_empty() {
            let since = Instant::now();
            stage.write_all(&mut self.answers, &mut self.answered)?;
            self.flight.hold(since.elapsed());
        }
        Ok(())
    }

    /// Waits, and says whether the input and the responses can be read.
    fn wait(&self, stage: &mut Stage) -> Result<[bool; 2]> {
        let input = self.wants_input().then_some(&self.input);
        let at_once = Instant::now();
        let times = [
            self.flight.due(),
            stage.stats.due(),
            stage.signals.grace_end(),
        ];
        let mut until = times.into_iter().flatten().min();
        let mut streams = Vec::with_capacity(3);
        let mut places = [None; 2];
        for (place, end) in places.iter_mut().zip([input, Some(&self.responses)]) {
            match end.map(Input::readiness) {
                Some(Some(fd)) => {
                    *place = Some(streams.len());
                    streams.push((fd, PollFlags::IN));
                }
                // A file never waits.
                Some(None) => until = Some(at_once),
                None => {}
            }
        }
        if !self.outgoing.is_empty() {
            streams.extend(self.output.readiness());
        }
        let ready = wait(&streams, &mut stage.signals, until)?;
        let is_ready = |place: Option<usize>, end: Option<&Input>| match place {
            Some(place) => ready[place],
            None => end.is_some_and(Input::is_file),
        };
        Ok([
            is_ready(places[0], input),
            is_ready(places[1], Some(&self.responses)),
        ])
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = self.flight.snapshot(self.wrap.snapshot(stage));
        counts.count("repeated", self.wrap.repeated())
    }
}

/// Takes one line of the responses, and appends it to the answers where a request
/// waits for it.
fn arrive(
    stage: &mut Stage,
    input: &str,
    line: &Line,
    flight: &mut Flight,
    answered: &mut Vec<u8>,
) -> Result<()> {
    let read = || {
        let Some(bytes) = line.record()? else {
            return Ok(None);
        };
        let id = Record::parse(bytes)?.message_id()?.into_owned();
        Ok(Some((id, bytes)))
    };
    match read() {
        Ok(Some((id, bytes))) => {
            if flight.arrive(&id) {
                answered.extend_from_slice(bytes);
                answered.push(b'\n');
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(reject) => stage.report.reject(input, line, &reject),
    }
}
