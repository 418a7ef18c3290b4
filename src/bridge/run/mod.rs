//! The loop of a bridge: one thread that waits for the brokers, the program, signals and
//! the time.

mod counts;
mod deaths;
mod delivering;
mod ending;
mod publishing;
mod rejecting;
mod snapshot;
mod work_time;

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::PollFlags;

use crate::bridge::address::ToAddress;
use crate::bridge::broker::clients::Clients;
use crate::bridge::broker::{Handle, Outgoing, SourceInput};
use crate::bridge::child::Program;
use crate::bridge::gate::Gate;
use crate::bridge::inbox::Inbox;
use crate::bridge::ledger::{Ledger, OutputKey};
use crate::bridge::pipes::{LineReader, LineWriter};
use crate::bridge::plan::{Plan, PlannedInput, PlannedOutput};
use crate::bridge::run::counts::Counts;
use crate::bridge::run::deaths::Deaths;
use crate::bridge::run::work_time::WorkTime;
use crate::stage::Stage;
use crate::stage::wait::wait;
use crate::stream::address::Address;
use crate::stream::input::Input;
use crate::stream::output::Output;

/// Messages are kept alive this often: a third of the time after which a broker would
/// deliver them again.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);

/// The number of lines of one output that are published before the others have a turn.
const LINES_MAX: usize = 2000;

/// A running bridge.
pub struct Bridge<'s> {
    plan: Plan,
    stage: &'s mut Stage,
    ledger: Ledger<Handle>,
    clients: Clients,
    inbox: Arc<Inbox>,
    inputs: Vec<InputState>,
    outputs: Vec<OutputState>,
    /// The program's own rejects.
    rejects_pipe: Option<LineReader>,
    /// The paths of the inputs, as the program names them.
    input_paths: Vec<String>,
    rejects: Rejects,
    program: Option<Program>,
    deaths: Deaths,
    /// The records that are on their way.
    publishing: HashMap<OutputKey, Publishing>,
    publishing_bytes: usize,
    /// Records that their client had no room for.
    unsent: VecDeque<(usize, Outgoing)>,
    phase: Phase,
    work_time: WorkTime,
    kept_alive_at: Instant,
    counts: Counts,
}

/// One input.
struct InputState {
    /// Its address, for messages.
    name: String,
    gate: Arc<Gate>,
    marks_repeats: bool,
    is_assigned: bool,
    lag: u64,
    writer: Option<LineWriter>,
}

/// One output.
struct OutputState {
    to: Option<ToAddress>,
    /// The client, if the output is published.
    sink: Option<usize>,
    reader: Option<LineReader>,
    name: String,
}

/// A record on its way to a broker.
#[derive(Clone, Copy, Debug)]
struct Publishing {
    bytes: usize,
    /// Whether it goes to the topic of the rejects.
    is_reject: bool,
}

/// The place of what cannot be worked on.
enum Rejects {
    /// There is none.
    Nowhere,
    /// The file of `--rejects`.
    File,
    /// A topic.
    Topic { sink: usize, topic: String },
}

/// What the bridge does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It waits for the assignments.
    Starting,
    /// It consumes.
    Running,
    /// It consumes nothing more, and finishes what it has.
    Draining,
}

impl<'s> Bridge<'s> {
    /// Connects the clients. Starts no program yet.
    pub fn open(plan: Plan, stage: &'s mut Stage, has_rejects_file: bool) -> Result<Bridge<'s>> {
        let inbox = Arc::new(Inbox::new()?);
        let mut clients = Clients::new(Arc::clone(&inbox));
        let outputs = plan.outputs.iter();
        let outputs = outputs.map(|it| OutputState::new(it, &mut clients, plan.publishing_max));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let rejects = match &plan.rejects_to {
            Some(to) => Rejects::Topic {
                sink: clients.publish_to(to, plan.publishing_max)?,
                topic: to.topic.to_string(),
            },
            None if has_rejects_file => Rejects::File,
            None => Rejects::Nowhere,
        };
        let inputs: Vec<InputState> = plan.inputs.iter().map(InputState::new).collect();
        let sources = plan
            .inputs
            .iter()
            .enumerate()
            .map(|(index, input)| SourceInput {
                input: index,
                address: input.address.clone(),
                gate: Arc::clone(&inputs[index].gate),
            });
        clients.consume(sources.collect())?;
        let rules = plan.inputs.iter().map(|it| it.rules.clone()).collect();
        Ok(Bridge {
            ledger: Ledger::new(plan.rules.clone(), rules),
            deaths: Deaths::new(match rejects {
                // Without a place for the deadly message, the bridge ends with its
                // program.
                Rejects::Nowhere => plan.rules.deaths_max - 1,
                _ => plan.rules.deaths_max.saturating_mul(2),
            }),
            stage,
            clients,
            inbox,
            inputs,
            outputs,
            rejects_pipe: None,
            input_paths: Vec::new(),
            rejects,
            program: None,
            publishing: HashMap::new(),
            publishing_bytes: 0,
            unsent: VecDeque::new(),
            phase: Phase::Starting,
            work_time: WorkTime::new(Instant::now()),
            kept_alive_at: Instant::now(),
            counts: Counts::default(),
            plan,
        })
    }

    /// Runs until the program ends, the input ends or a signal comes.
    pub fn run(mut self) -> Result<()> {
        let outcome = self.run_loop();
        let outcome = self.finish(outcome);
        let snapshot = self.snapshot();
        self.stage.final_stats(&snapshot);
        outcome
    }

    fn run_loop(&mut self) -> Result<()> {
        loop {
            let mut is_busy = self.take_events()?;
            self.start_if_assigned()?;
            self.send_unsent();
            is_busy |= self.read_outputs()?;
            is_busy |= self.read_rejects_pipe()?;
            is_busy |= self.give_messages()?;
            self.pass_time()?;
            self.apply_actions()?;
            self.update_gates();
            self.obey_signals();
            if self.is_done()? {
                return Ok(());
            }
            self.stage.report.flush()?;
            self.show_stats();
            if !is_busy {
                self.wait()?;
            }
        }
    }

    /// Starts the program, or opens the bridge's own streams, when every input has its
    /// assignment.
    fn start_if_assigned(&mut self) -> Result<()> {
        if self.phase != Phase::Starting || self.inputs.iter().any(|it| !it.is_assigned) {
            return Ok(());
        }
        self.phase = Phase::Running;
        if self.plan.program.is_some() {
            return self.start_program();
        }
        let line_bytes_max = self.stage.line_bytes_max;
        if self.inputs.is_empty() {
            let input = Input::open(&Address::Standard, false)?;
            self.outputs[0].reader = Some(LineReader::of_input(input, line_bytes_max));
        } else if !self.plan.is_direct() {
            let output = Output::open(&Address::Standard)?;
            self.inputs[0].writer = Some(LineWriter::new(output));
        }
        Ok(())
    }

    /// Starts the program with new pipes.
    fn start_program(&mut self) -> Result<()> {
        let Some(words) = self.plan.program.clone() else {
            return Ok(());
        };
        let (program, pipes) = Program::start(&self.plan, &words)?;
        let line_bytes_max = self.stage.line_bytes_max;
        for (state, output) in self.inputs.iter_mut().zip(pipes.inputs) {
            state.writer = Some(LineWriter::new(output));
        }
        for (state, fd) in self.outputs.iter_mut().zip(pipes.outputs) {
            state.reader = Some(LineReader::of_pipe(fd, line_bytes_max));
        }
        let rejects = pipes.rejects;
        self.rejects_pipe = rejects.map(|fd| LineReader::of_pipe(fd, line_bytes_max));
        self.input_paths = pipes.input_paths;
        self.program = Some(program);
        self.stage.stats.touch();
        Ok(())
    }

    /// Finishes what is too old, and keeps the rest alive.
    fn pass_time(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_stalled = !self.may_publish();
        self.work_time.set_stalled(is_stalled, now);
        self.ledger.expire(self.work_time.at(now));
        if now >= self.kept_alive_at + KEEP_ALIVE_EVERY {
            self.kept_alive_at = now;
            for input in 0..self.inputs.len() {
                self.clients
                    .keep_alive(input, || self.ledger.open_handles(input));
            }
        }
        Ok(())
    }

    fn update_gates(&mut self) {
        let is_draining = self.phase == Phase::Draining;
        for (index, state) in self.inputs.iter().enumerate() {
            self.ledger.make_room(index);
            state.gate.set_held(
                self.ledger.open(index),
                self.ledger.open_bytes(index),
                is_draining || self.ledger.is_full(index),
            );
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> Result<()> {
        let now = Instant::now();
        let mut times = vec![
            self.ledger
                .next_wake()
                .and_then(|at| self.work_time.real(at)),
            self.stage.stats.due(),
            self.stage.signals.grace_end(),
            self.deaths.restart_at(),
        ];
        if self.inputs.iter().any(|it| it.is_assigned) {
            times.push(Some(self.kept_alive_at + KEEP_ALIVE_EVERY));
        }
        if !self.unsent.is_empty() {
            times.push(Some(now + Duration::from_millis(2)));
        }
        let until = times.into_iter().flatten().min();
        let may_publish = self.may_publish();
        let mut streams: Vec<(BorrowedFd, PollFlags)> =
            vec![(self.inbox.readiness(), PollFlags::IN)];
        let running = self.program.as_ref().and_then(Program::exit);
        streams.extend(running.map(|exit| (exit, PollFlags::IN)));
        let writers = self.inputs.iter().filter_map(|it| it.writer.as_ref());
        streams.extend(writers.filter_map(LineWriter::readiness));
        if may_publish {
            let readers = self.outputs.iter().filter_map(|it| it.reader.as_ref());
            let readers = readers.chain(&self.rejects_pipe);
            streams.extend(readers.filter_map(|it| Some((it.readiness()?, PollFlags::IN))));
        }
        wait(&streams, &mut self.stage.signals, until)?;
        Ok(())
    }

    fn show_stats(&mut self) {
        // The counts are taken before the stage is borrowed.
        let is_due = self
            .stage
            .stats
            .due()
            .is_some_and(|due| due <= Instant::now());
        if self.stage.signals.take_print_stats() {
            let text = self
                .snapshot()
                .json(self.stage.report.program(), self.stage.stats.running());
            self.stage.report.print_requested(text.trim_end());
        }
        if is_due {
            let snapshot = self.snapshot();
            self.stage.write_stats(&snapshot);
        }
    }
}

impl OutputState {
    fn new(
        output: &PlannedOutput,
        clients: &mut Clients,
        records_max: usize,
    ) -> Result<OutputState> {
        let sink = match &output.to {
            Some(to) => Some(clients.publish_to(to, records_max)?),
            None => None,
        };
        Ok(OutputState {
            to: output.to.clone(),
            sink,
            reader: None,
            name: match (&output.name, &output.to) {
                (Some(name), _) => name.clone(),
                (None, Some(to)) => to.to_string(),
                (None, None) => "<stdout>".to_owned(),
            },
        })
    }
}

impl InputState {
    fn new(input: &PlannedInput) -> InputState {
        InputState {
            name: input.address.to_string(),
            gate: Arc::new(Gate::new(input.rules.records_max, input.rules.bytes_max)),
            marks_repeats: input.address.marks_repeats,
            is_assigned: false,
            lag: 0,
            writer: None,
        }
    }
}
