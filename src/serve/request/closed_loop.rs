//! A closed loop: makes requests from lines, reads the responses, and limits the number
//! of unanswered requests.

use std::time::Instant;

use anyhow::{Result, bail};
use rustix::event::PollFlags;

use crate::serve::request::args::ClosedLoopOptions;
use crate::serve::request::line_wrapper::LineWrapper;
use crate::serve::request::request_writer::RequestWriter;
use crate::serve::request::unanswered::Unanswered;
use crate::stage::backlog::Backlog;
use crate::stage::filter::Filter;
use crate::stage::stats::Snapshot;
use crate::stage::wait::{output_error, wait};
use crate::stage::{EndedEarly, Stage};
use crate::stream::cursor::Cursor;
use crate::stream::input::{Input, Progress};
use crate::stream::output::Output;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::Record;
use crate::wire::reject::Reject;

/// No request is made while more bytes of requests than this wait to be written.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// If the inputs of unanswered requests take more bytes than this, no request is made.
/// The inputs are kept because an input without a response is set aside.
const UNANSWERED_BYTES_MAX: usize = 64 << 20;

/// Runs until each request is answered or has expired.
pub fn run(stage: &mut Stage, options: ClosedLoopOptions, writer: RequestWriter) -> Result<()> {
    let mut closed_loop = ClosedLoop::open(stage, options, writer)?;
    let outcome = closed_loop.run(stage);
    if let Err(error) = outcome.and_then(|()| closed_loop.write_answers(stage)) {
        closed_loop.set_aside_all(stage, &error);
        return Err(error);
    }
    stage.close(&mut closed_loop.answers)?;
    let expired = closed_loop.in_flight.expired_count();
    stage.has_findings |= expired > 0;
    if expired > 0 {
        let message = format!("{expired} requests had no response within --timeout");
        stage.report.warn(&message);
    }
    stage.final_stats(&closed_loop.snapshot(stage));
    match stage.signals.stop() {
        // The file was not read to its end.
        Some(stop) if closed_loop.inputs.input().is_file() => Err(EndedEarly::Signal(stop).into()),
        _ => Ok(()),
    }
}

/// The four streams and the state between them.
#[derive(Debug)]
struct ClosedLoop {
    inputs: Cursor,
    /// Whether a signal has told the program to stop.
    is_stopping: bool,
    line_wrapper: LineWrapper,
    unsent: Backlog,
    requests: Output,
    /// Whether `requests` is closed.
    requests_closed: bool,
    in_flight: Unanswered,
    in_flight_max: usize,
    responses: Cursor,
    unwritten_answers: Vec<u8>,
    answers: Output,
}

impl ClosedLoop {
    fn open(
        stage: &Stage,
        options: ClosedLoopOptions,
        writer: RequestWriter,
    ) -> Result<ClosedLoop> {
        let mut unsent = Backlog::default();
        if options.output.resume {
            unsent.tail().push(b'\n');
        }
        let open = |address| {
            let input = Input::open(address, options.input.follow)?;
            Ok::<_, anyhow::Error>(Cursor::new(input, stage.line_bytes_max))
        };
        // An id that this program makes is never repeated.
        let remembered_ids = match &options.id_pointer {
            Some(_) => options.remembered_ids,
            None => 0,
        };
        Ok(ClosedLoop {
            answers: match &options.answers {
                Some(address) => Output::open(address)?,
                None => Output::nowhere(),
            },
            requests: Output::open(&options.output.output)?,
            requests_closed: false,
            inputs: open(&options.input.input)?,
            is_stopping: false,
            responses: open(&options.responses)?,
            line_wrapper: LineWrapper::new(writer, options.id_pointer),
            unsent,
            in_flight: Unanswered::new(options.timeout, remembered_ids),
            in_flight_max: options.in_flight_max,
            unwritten_answers: Vec::new(),
        })
    }

    fn run(&mut self, stage: &mut Stage) -> Result<()> {
        loop {
            stage.show_stats(|stage| self.snapshot(stage));
            // This program is a source: SIGINT and SIGTERM both stop its reading. The
            // program still waits for the responses to the requests that it has sent.
            if stage.signals.stop().is_some() {
                self.is_stopping = true;
                self.inputs.stop_at_line_end();
            }
            self.make_requests(stage)?;
            self.send_requests()?;
            if self.inputs.is_done() && self.unsent.is_empty() {
                self.close_requests(stage)?;
                if self.in_flight.len() == 0 {
                    return Ok(());
                }
            }
            stage.report.flush()?;
            self.write_answers(stage)?;
            if let Some(stop) = stage.signals.out_of_time() {
                return Err(EndedEarly::Signal(stop).into());
            }
            // The time is taken before the wait. So a response that arrived by
            // this time is read before its request can expire.
            let now = Instant::now();
            let [input_ready, responses_ready] = self.wait(stage)?;
            if !responses_ready {
                self.expire_requests(stage, now)?;
            } else if self.read_responses(stage)? == Progress::End {
                return self.end_with_responses(stage);
            }
            if input_ready {
                self.inputs.read()?;
                stage.report_faults(self.inputs.take_faults())?;
            }
        }
    }

    /// Makes requests from the lines that were read, until a limit is reached.
    fn make_requests(&mut self, stage: &mut Stage) -> Result<()> {
        while self.has_room() {
            let Some((line, name)) = self.inputs.next_line_and_name() else {
                break;
            };
            let out = self.unsent.tail();
            let is_known = |id: &str| self.in_flight.is_known(id);
            let id = self
                .line_wrapper
                .wrap_line(stage, name, &line, out, is_known)?;
            if let Some(id) = id {
                self.in_flight.insert(id, KeptLine::from(&line));
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.in_flight_max
            && self.in_flight.bytes() < UNANSWERED_BYTES_MAX
            && self.unsent.len() < UNSENT_BYTES_MAX
    }

    /// Writes requests without waiting. If the program waited for the pipe, it would
    /// not read the responses, and a ring of full pipes would deadlock.
    fn send_requests(&mut self) -> Result<()> {
        self.unsent
            .write_some(&mut self.requests)
            .map_err(|error| output_error(&self.requests, error))
    }

    /// Closes the output of requests. The next stages see the end of their input, and
    /// answer the requests that they have read.
    fn close_requests(&mut self, stage: &mut Stage) -> Result<()> {
        if !self.requests_closed {
            stage.close(&mut self.requests)?;
            self.requests_closed = true;
        }
        Ok(())
    }

    fn wants_input(&self) -> bool {
        // After a signal, the rest of the current line is read even if no further
        // request may be made.
        self.inputs.wants_more() && (self.is_stopping || self.has_room())
    }

    /// Sets aside the inputs of the requests that have expired at `now`.
    fn expire_requests(&mut self, stage: &mut Stage, now: Instant) -> Result<()> {
        for line in self.in_flight.expire(now) {
            let reject = Reject::Unanswered("no response arrived within --timeout");
            let name = self.inputs.name();
            stage.report.reject(name, &line.line(), &reject)?;
        }
        Ok(())
    }

    /// Sets aside all inputs that were read and not answered, because `error` ends the
    /// program. A torn line counts as torn, and not as a whole line.
    fn set_aside_all(&mut self, stage: &mut Stage, error: &anyhow::Error) {
        let [unanswered, unsent] = match error.downcast_ref() {
            Some(EndedEarly::Signal(_)) => [
                "no response arrived within --grace",
                "the request was not sent within --grace",
            ],
            _ => [
                "the program ended before the response arrived",
                "the program ended before it sent the request",
            ],
        };
        let [unanswered, unsent] = [unanswered, unsent].map(Reject::Unanswered);
        // Errors are ignored: `error` ends the program and is reported. With --strict,
        // a line is set aside before the error is returned.
        for line in self.in_flight.expire_all() {
            let name = self.inputs.name();
            let _ = stage.report.reject(name, &line.line(), &unanswered);
        }
        let wrapper = &mut self.line_wrapper;
        while let Some((line, name)) = self.inputs.next_line_and_name() {
            let _ = wrapper.set_aside(stage, name, &line, &unsent);
        }
        let name = self.inputs.name().to_owned();
        if let Some(line) = self.inputs.unfinished_line() {
            let _ = wrapper.set_aside(stage, &name, &line, &Reject::Unfinished);
        }
        stage.final_stats(&self.snapshot(stage));
    }

    fn read_responses(&mut self, stage: &mut Stage) -> Result<Progress> {
        stage.stats.touch();
        let progress = self.responses.read()?;
        stage.report_faults(self.responses.take_faults())?;
        while let Some((line, name)) = self.responses.next_line_and_name() {
            let answers = &mut self.unwritten_answers;
            take_response(stage, name, &line, &mut self.in_flight, answers)?;
        }
        Ok(progress)
    }

    /// Ends the loop when the responses have ended. If an input is not answered, the
    /// early end is a failure.
    fn end_with_responses(&mut self, stage: &mut Stage) -> Result<()> {
        self.write_answers(stage)?;
        let unanswered = self.in_flight.len();
        if unanswered > 0 || !self.inputs.is_done() {
            let name = self.responses.name();
            bail!("{name}: ended while {unanswered} requests were unanswered");
        }
        Ok(())
    }

    fn write_answers(&mut self, stage: &mut Stage) -> Result<()> {
        if !self.unwritten_answers.is_empty() {
            let since = Instant::now();
            stage.write_all(&mut self.answers, &mut self.unwritten_answers)?;
            self.in_flight.extend_timeouts(since.elapsed());
        }
        Ok(())
    }

    /// Waits for an event. Returns whether the input can be read, and whether the
    /// responses can be read.
    fn wait(&self, stage: &mut Stage) -> Result<[bool; 2]> {
        let inputs = self.wants_input().then_some(&self.inputs);
        let at_once = Instant::now();
        let times = [
            self.in_flight.next_expiry(),
            stage.stats.due(),
            stage.signals.grace_end(),
        ];
        let mut until = times.into_iter().flatten().min();
        let mut streams = Vec::with_capacity(3);
        let mut indices = [None; 2];
        for (index, stream) in indices.iter_mut().zip([inputs, Some(&self.responses)]) {
            match stream.map(Cursor::readiness) {
                Some(Some(fd)) => {
                    *index = Some(streams.len());
                    streams.push((fd, PollFlags::IN));
                }
                // A file can always be read.
                Some(None) => until = Some(at_once),
                None => {}
            }
        }
        if !self.unsent.is_empty() {
            streams.extend(self.requests.readiness());
        }
        let ready = wait(&streams, &mut stage.signals, until)?;
        let is_ready = |index: Option<usize>, stream: Option<&Cursor>| match index {
            Some(index) => ready[index],
            None => stream.is_some_and(|stream| stream.input().is_file()),
        };
        Ok([
            is_ready(indices[0], inputs),
            is_ready(indices[1], Some(&self.responses)),
        ])
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let made = self.line_wrapper.snapshot(stage);
        let counts = self.in_flight.add_counts(made);
        counts.count("repeated", self.line_wrapper.repeated())
    }
}

/// Reads one line of the responses. Appends it to `answers` if its request is in flight.
fn take_response(
    stage: &mut Stage,
    input: &str,
    line: &Line,
    in_flight: &mut Unanswered,
    answers: &mut Vec<u8>,
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
            if in_flight.answer(&id) {
                answers.extend_from_slice(bytes);
                answers.push(b'\n');
            }
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(reject) => stage.report.reject(input, line, &reject),
    }
}
