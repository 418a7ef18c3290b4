//! model inputs -> requests, with an eye on the responses: no more than so many
//! unanswered at a time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::PollFlags;

use crate::serve::request::wrap::Wrap;
use crate::serve::request::{RequestArgs, Wrapper};
use crate::stage::filter::Filter;
use crate::stage::signals::Stop;
use crate::stage::stats::{Latencies, Snapshot};
use crate::stage::wait::{output_error, wait};
use crate::stage::{EndedEarly, Stage};
use crate::wire::endpoint::{Input, Output, Progress};
use crate::wire::lines::{Line, Lines};
use crate::wire::message::Record;
use crate::wire::micros::Micros;

/// Requests stop being made while this much is not taken yet.
const PENDING_BYTES_MAX: usize = 64 * 1024;

/// Runs until every request has its answer or has waited too long for it.
pub fn run(stage: &mut Stage, args: &RequestArgs, responses: &str, wrapper: Wrapper) -> Result<()> {
    let mut answers = match &args.answers {
        Some(path) => Output::open(path)?,
        None => Output::nowhere(),
    };
    let mut output = Output::open(&args.output.output)?;
    let mut input = Input::open(&args.input.input, args.input.follow)?;
    let mut responses = Input::open(responses, false)?;
    let (line_bytes_max, input_name) = (stage.line_bytes_max, input.name().to_owned());
    let responses_name = responses.name().to_owned();
    let mut input_lines = Lines::new(line_bytes_max);
    let mut response_lines = Lines::new(line_bytes_max);

    let mut wrap = Wrap::new(wrapper, args.id.clone());
    let mut flight = Flight::new(args.timeout);
    let mut pending = Vec::new();
    let mut answered = Vec::new();
    if args.output.resume {
        pending.push(b'\n');
    }
    let (mut input_ended, mut closed) = (false, false);
    let mut stopped = None;
    loop {
        flight.give_up(Instant::now());
        // Requests of what was read already, as far as there is room.
        while flight.open() < args.max_in_flight as usize && pending.len() < PENDING_BYTES_MAX {
            let line = match input_lines.next_line() {
                Some(line) => line,
                None if input_ended => match input_lines.last_line() {
                    Some(line) => line,
                    None => break,
                },
                None => break,
            };
            if let Some(id) = wrap.request(stage, &input_name, &line, &mut pending)? {
                flight.depart(id);
            }
        }
        let exhausted =
            input_ended && !input_lines.has_whole_line() && !input_lines.is_inside_line();
        write_some(&mut output, &mut pending)?;
        if exhausted && pending.is_empty() {
            if !closed {
                // The stages behind see the end, and answer what they still hold.
                stage.close(&mut output)?;
                closed = true;
            }
            if flight.open() == 0 {
                break;
            }
        }
        stage.report.flush()?;
        stage.write_all(&mut answers, &mut answered)?;
        stage.show_stats(|stage| flight.snapshot(wrap.snapshot(stage)));

        if stopped.is_none() {
            stopped = stage.signals.stop();
            // This is a source: both signals stop its reading, and it waits for
            // the answers to what it has sent.
            input_ended |= stopped.is_some();
        }
        if let Some(stop) = stage.signals.out_of_time() {
            return Err(EndedEarly::Signal(stop).into());
        }
        let wants_input = !input_ended
            && flight.open() < args.max_in_flight as usize
            && pending.len() < PENDING_BYTES_MAX;
        let [input_ready, responses_ready] = wait_for(
            stage,
            wants_input.then_some(&input),
            &responses,
            (!pending.is_empty()).then_some(&output),
            flight.due(),
        )?;
        if responses_ready {
            stage.stats.touch();
            let ended = responses.read(&mut response_lines)? == Progress::End;
            while let Some(line) = response_lines.next_line() {
                flight.arrive(stage, &responses_name, &line, &mut answered)?;
            }
            if ended {
                if let Some(line) = response_lines.last_line() {
                    flight.arrive(stage, &responses_name, &line, &mut answered)?;
                }
                stage.write_all(&mut answers, &mut answered)?;
                if flight.open() > 0 || !exhausted {
                    bail!(
                        "{responses_name}: ended while {} requests were unanswered",
                        flight.open()
                    );
                }
                break;
            }
        }
        if input_ready && input.read(&mut input_lines)? == Progress::End {
            input_ended = true;
        }
    }
    stage.write_all(&mut answers, &mut answered)?;
    stage.close(&mut answers)?;
    stage.found_wanting |= flight.unanswered > 0;
    if flight.unanswered > 0 {
        let message = format!(
            "{} requests had no response within --timeout",
            flight.unanswered
        );
        stage.report.warn(&message);
    }
    let snapshot = flight.snapshot(wrap.snapshot(stage));
    stage.final_stats(&snapshot);
    match stopped {
        Some(Stop::Interrupt | Stop::Terminate) if input.is_file() => {
            Err(EndedEarly::Signal(stopped.unwrap_or(Stop::Terminate)).into())
        }
        _ => Ok(()),
    }
}

/// Writes what is taken at once, and never waits: while this program waited to
/// write, nobody would read the responses, and the ring could stand still.
fn write_some(output: &mut Output, pending: &mut Vec<u8>) -> Result<()> {
    let mut written = 0;
    while written < pending.len() {
        match output.try_write(&pending[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) => return Err(output_error(output, error)),
        }
    }
    pending.drain(..written);
    Ok(())
}

fn wait_for(
    stage: &mut Stage,
    input: Option<&Input>,
    responses: &Input,
    output: Option<&Output>,
    due: Option<Instant>,
) -> Result<[bool; 2]> {
    let at_once = Instant::now();
    let mut until = [due, stage.stats.due(), stage.signals.grace_end()]
        .into_iter()
        .flatten()
        .min();
    let mut streams = Vec::with_capacity(3);
    let mut places = [None; 2];
    for (place, end) in places.iter_mut().zip([input, Some(responses)]) {
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
    if let Some(readiness) = output.and_then(Output::readiness) {
        streams.push(readiness);
    }
    let ready = wait(&streams, &mut stage.signals, until)?;
    let is_ready = |place: Option<usize>, end: Option<&Input>| match place {
        Some(place) => ready[place],
        None => end.is_some_and(Input::is_file),
    };
    Ok([
        is_ready(places[0], input),
        is_ready(places[1], Some(responses)),
    ])
}

/// The requests that have no answer yet.
#[derive(Debug)]
struct Flight {
    departed: HashMap<String, Instant>,
    /// In the order of departure, the answered ones too.
    order: VecDeque<(Instant, String)>,
    timeout: Duration,
    answered: u64,
    unanswered: u64,
    unmatched: u64,
    /// Ids that were sent again while they were open: they get one answer.
    repeated: u64,
    latency: Latencies,
}

impl Flight {
    fn new(timeout: Duration) -> Flight {
        Flight {
            departed: HashMap::new(),
            order: VecDeque::new(),
            timeout,
            answered: 0,
            unanswered: 0,
            unmatched: 0,
            repeated: 0,
            latency: Latencies::default(),
        }
    }

    fn open(&self) -> usize {
        self.departed.len()
    }

    fn depart(&mut self, id: String) {
        let now = Instant::now();
        self.order.push_back((now, id.clone()));
        if self.departed.insert(id, now).is_some() {
            self.repeated += 1;
        }
    }

    fn arrive(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        answered: &mut Vec<u8>,
    ) -> Result<()> {
        if line.oversized.is_some() {
            return stage.report.reject_oversized(input, line);
        }
        let Some(bytes) = line.record() else {
            return Ok(());
        };
        match Record::parse(bytes).and_then(|record| Ok(record.message_id()?.into_owned())) {
            Ok(id) => {
                match self.departed.remove(&id) {
                    Some(since) => {
                        self.answered += 1;
                        self.latency.record(Micros::from_duration(since.elapsed()));
                        answered.extend_from_slice(bytes);
                        answered.push(b'\n');
                    }
                    // Somebody else's, or one that was given up.
                    None => self.unmatched += 1,
                }
                self.forget_answered();
                Ok(())
            }
            Err(reason) => stage.report.reject(input, line, &reason),
        }
    }

    /// Keeps the queue as short as the flight.
    fn forget_answered(&mut self) {
        while let Some((since, id)) = self.order.front() {
            if self.departed.get(id) == Some(since) {
                break;
            }
            self.order.pop_front();
        }
        // One slow answer at the front must not let the answered ones pile up.
        if self.order.len() > 2 * self.departed.len() + 1024 {
            let departed = &self.departed;
            self.order
                .retain(|(since, id)| departed.get(id) == Some(since));
        }
    }

    fn due(&self) -> Option<Instant> {
        self.order.front().map(|(since, _)| *since + self.timeout)
    }

    fn give_up(&mut self, now: Instant) {
        while let Some((since, id)) = self.order.front() {
            if *since + self.timeout > now {
                break;
            }
            if self.departed.get(id) == Some(since) {
                self.departed.remove(id);
                self.unanswered += 1;
            }
            self.order.pop_front();
        }
    }

    fn snapshot(&self, wrapped: Snapshot) -> Snapshot {
        wrapped
            .count("answered", self.answered)
            .count("unanswered", self.unanswered)
            .count("unmatched", self.unmatched)
            .count("repeated", self.repeated)
            .gauge("open", self.open() as u64)
            .latencies("answer", &self.latency)
    }
}
