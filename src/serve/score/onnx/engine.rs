//! The engine of ONNX models: requests that wait are evaluated as one batch. A batch
//! that takes long is evaluated in another thread. A short one is evaluated at once, in
//! the thread that reads the input. The scores keep the order of the requests.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};

use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::engine::{Engine, Finished};
use crate::serve::score::evaluator::Scored;
use crate::serve::score::onnx::args::OnnxOptions;
use crate::serve::score::onnx::batch_size::BatchSize;
use crate::serve::score::onnx::feature_row::Cell;
use crate::serve::score::onnx::inputs::{InputPlan, Rows};
use crate::serve::score::onnx::model::{OnnxModel, UnloadedModel};
use crate::serve::score::onnx::runtime::Runtime;
use crate::serve::score::scoring::{Outcome, Request, Scoring, ScoringOptions};
use crate::stage::worker_pool::WorkerPool;
use crate::stream::address::require_rereadable;
use crate::wire::lines::{KeptLine, Line};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// A batch is full when its lines have this many bytes.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The largest number of batches in progress. One is evaluated while the next one
/// waits.
const BATCHES_MAX: usize = 2;

/// Evaluates an ONNX model.
#[derive(Debug)]
pub struct OnnxEngine {
    runtime: Runtime,
    options: OnnxOptions,
    scoring_options: ScoringOptions,
    current: Arc<Loaded>,
    pool: WorkerPool<Batch, Evaluated>,
    in_progress: usize,
    /// A batch that was evaluated at once, in the thread that reads the input.
    done: Option<Evaluated>,
    /// The memory for a row of such a batch.
    cells: Vec<Cell>,
    /// The requests for the next batch.
    held: Vec<KeptLine>,
    held_bytes: usize,
    size: BatchSize,
}

/// A model with the writer of its scores.
#[derive(Debug)]
struct Loaded {
    /// The thread of the pool runs the model for long batches. The thread that reads
    /// the input runs the model for short ones.
    model: Mutex<OnnxModel>,
    scoring: Scoring,
    /// The model's name and version.
    named: (String, u64),
    /// The name, version and hash for messages.
    shown: String,
}

/// Requests that are evaluated together.
#[derive(Debug)]
struct Batch {
    loaded: Arc<Loaded>,
    lines: Vec<KeptLine>,
}

/// The scores of a batch.
#[derive(Debug)]
struct Evaluated {
    finished: Finished,
    /// The number of evaluated rows, and the time that they took.
    rows: usize,
    spent: Micros,
}

impl OnnxEngine {
    /// Loads the runtime and the model.
    pub fn start(options: OnnxOptions, scoring_options: ScoringOptions) -> Result<OnnxEngine> {
        // The file is checked first, so that its fault is reported even if onnxruntime
        // is missing.
        let unloaded = UnloadedModel::read(&options)?;
        let runtime = Runtime::load(options.onnxruntime.as_deref())?;
        let loaded = Loaded::new(unloaded, &runtime, &options, &scoring_options)?;
        let worker = || {
            let mut cells = Vec::new();
            move |batch: Batch| evaluate(&batch, &mut cells)
        };
        Ok(OnnxEngine {
            pool: WorkerPool::start("onnx", 1, worker)?,
            current: Arc::new(loaded),
            runtime,
            options,
            scoring_options,
            in_progress: 0,
            done: None,
            cells: Vec::new(),
            held: Vec::new(),
            held_bytes: 0,
            size: BatchSize::default(),
        })
    }

    fn is_full(&self) -> bool {
        self.held.len() >= self.size.rows() || self.held_bytes >= BATCH_BYTES
    }

    /// Makes a batch of the requests that are held.
    fn take_held(&mut self) -> Batch {
        self.held_bytes = 0;
        Batch {
            loaded: Arc::clone(&self.current),
            lines: std::mem::take(&mut self.held),
        }
    }

    fn submit_held(&mut self) -> Result<()> {
        let batch = self.take_held();
        self.in_progress += 1;
        self.pool.submit(batch)
    }
}

impl Engine for OnnxEngine {
    fn has_room(&self) -> bool {
        !self.is_full()
    }

    fn submit(&mut self, _record: &[u8], line: &Line, _finished: &mut Finished) -> Result<()> {
        self.held_bytes += line.bytes.len();
        self.held.push(KeptLine::from(line));
        match self.is_full() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Submits a full batch. If no batch is in progress, submits the held requests even
    /// if they do not fill a batch. While a batch is in progress, the requests that
    /// arrive make the next batch larger.
    fn flush(&mut self) -> Result<()> {
        if self.is_full() {
            return match self.in_progress < BATCHES_MAX {
                true => self.submit_held(),
                false => Ok(()),
            };
        }
        if self.in_progress > 0 || self.held.is_empty() || self.done.is_some() {
            return Ok(());
        }
        if !self.size.is_quick(self.held.len()) {
            return self.submit_held();
        }
        let batch = self.take_held();
        self.done = Some(evaluate(&batch, &mut self.cells));
        Ok(())
    }

    fn collect(&mut self, finished: &mut Finished) -> Result<bool> {
        let mut evaluated = match self.done.take() {
            Some(done) => done,
            None => match self.pool.next_if_done()? {
                Some(evaluated) => {
                    self.in_progress -= 1;
                    evaluated
                }
                None => return Ok(false),
            },
        };
        self.size.learn(evaluated.rows, evaluated.spent);
        finished.append(&mut evaluated.finished);
        if self.is_full() {
            self.flush()?;
        }
        Ok(true)
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.done.is_none() && self.pool.is_idle()
    }

    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.pool.readiness()]
    }

    fn reload(&mut self) -> Result<String> {
        require_rereadable(&self.options.path)?;
        let unloaded = UnloadedModel::read(&self.options)?;
        let new = Loaded::new(
            unloaded,
            &self.runtime,
            &self.options,
            &self.scoring_options,
        )?;
        if new.named != self.current.named && !self.options.allow_new_version {
            bail!(
                "{}: now holds {}@{} instead of {}@{}; run the new model in addition to the old one and let \
                 the policy promote it, or allow the change with --allow-new-version",
                self.options.path,
                new.named.0,
                new.named.1,
                self.current.named.0,
                self.current.named.1,
            );
        }
        self.current = Arc::new(new);
        Ok(self.current.shown.clone())
    }
}

impl Loaded {
    fn new(
        unloaded: UnloadedModel,
        runtime: &Runtime,
        options: &OnnxOptions,
        scoring_options: &ScoringOptions,
    ) -> Result<Loaded> {
        let model = unloaded.load(runtime, options, scoring_options.probabilities)?;
        let identity = model.identity();
        let hash = identity.hash.as_deref().unwrap_or_default();
        Ok(Loaded {
            scoring: Scoring::new(identity, &[], scoring_options.clone()),
            named: (identity.name.clone(), identity.version),
            shown: format!("{}@{} ({hash})", identity.name, identity.version),
            model: Mutex::new(model),
        })
    }
}

/// A request of a batch, with its age.
struct Waiting<'l> {
    request: Request<'l>,
    age: Micros,
    /// The reason why the request cannot be evaluated, if there is one.
    error: Option<ModelError>,
}

/// Evaluates a batch and writes its scores. The time of the batch is divided equally
/// among the requests that were evaluated.
fn evaluate(batch: &Batch, cells: &mut Vec<Cell>) -> Evaluated {
    let Loaded { model, scoring, .. } = &*batch.loaded;
    // The model keeps no state between two runs, so a panic in an earlier run has not
    // damaged it.
    let mut model = model.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = scoring.now();
    let mut rows = model.inputs().no_rows();
    let lines: Vec<Line> = batch.lines.iter().map(KeptLine::line).collect();
    let mut waiting = Vec::with_capacity(lines.len());
    for line in &lines {
        waiting.push(read(line, scoring, model.inputs(), cells, &mut rows));
    }
    let mut answers = model.evaluate(&rows).into_iter();
    let whole = scoring.now() - begun;
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX).max(1);
    let mut finished = Finished::default();
    for (line, waiting) in lines.iter().zip(waiting) {
        let scored = waiting.map(|waiting| {
            let mut evaluated = || answers.next().unwrap_or_else(no_answer);
            let (outcome, share) = match waiting.error {
                Some(error) => (Err(error), Micros(0)),
                None => (evaluated(), Micros(whole.0 / count)),
            };
            // A recorded request has no age. The time in its score is the time of its
            // evaluation.
            let passed = if scoring.options().rescore {
                share
            } else {
                whole
            };
            let times = (waiting.age + passed, share);
            write(
                &waiting.request,
                &outcome,
                times,
                scoring,
                &mut finished.scores,
            )
        });
        finished.count(line, scored);
    }
    Evaluated {
        finished,
        rows: rows.len(),
        spent: whole,
    }
}

/// Reads a line and adds its row to `rows`, if the request can be evaluated. The error
/// is the reason why the line is not a valid request.
fn read<'l>(
    line: &Line<'l>,
    scoring: &Scoring,
    inputs: &InputPlan,
    cells: &mut Vec<Cell>,
    rows: &mut Rows,
) -> Result<Waiting<'l>, Reject> {
    let request = Request::parse(line.head())?;
    let age = scoring.age(&request);
    let error = scoring.too_old(age, Micros(0)).or_else(|| {
        let read = inputs.row.read(request.model_input, cells);
        read.map_err(ModelError::new).err()
    });
    if error.is_none() {
        inputs.add(rows, cells);
    }
    Ok(Waiting {
        request,
        age,
        error,
    })
}

fn no_answer() -> Result<Answer, ModelError> {
    Err(ModelError::new("the model has no answer for this row"))
}

/// Writes the score of a request.
fn write(
    request: &Request,
    answer: &Result<Answer, ModelError>,
    times: (Micros, Micros),
    scoring: &Scoring,
    out: &mut Vec<u8>,
) -> Scored {
    let outcome = match answer {
        Ok(answer) => Outcome::Answer(answer),
        Err(error) => Outcome::Error(error),
    };
    scoring.write(request, &outcome, times, out);
    Scored {
        is_error: answer.is_err(),
        evaluation: times.1,
    }
}
