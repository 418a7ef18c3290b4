//! requests -> one copy a reader: none of them delays the others.

mod branch;
mod pacing;

mod sending;
mod spill;

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytesize::ByteSize;
use clap::Parser;
use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::FlockOperation;

use crate::serve::tee::branch::{Branch, Failure, Figures, Kind, Sink};
use crate::serve::tee::pacing::{Standing, wants_input};
use crate::serve::tee::sending::Block;
use crate::serve::tee::spill::{End, Limits, OnFull, Spill};
use crate::stage::Stop;
use crate::stage::cli::bytes;
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::program::Program;
use crate::stage::stats::Snapshot;
use crate::stage::streams::{InputArgs, OutputArgs, refuse_same_file};
use crate::stage::wait::wait;
use crate::stage::{EndedEarly, Stage, usage};
use crate::stream::address::Address;
use crate::stream::input::{Input, Progress};
use crate::stream::lasting_pipe::LastingPipe;
use crate::stream::output::Output;
use crate::stream::pipe_watch::{PipeWatch, named_pipes};
use crate::wire::lines::{Lines, Run};
use crate::wire::reject::Reject;

/// How long a live branch may take nothing before the end of the input is the end
/// of it, too.
const LIVE_IDLE: Duration = Duration::from_secs(1);

/// Copy a stream to many readers, none of which delays the others.
///
/// Each PATH is a keeping branch, as is standard output: what its reader does not
/// take waits in memory and then on disk, and is passed on in order. A live branch
/// (--live) drops its oldest lines instead, since a model must not work through
/// what nobody waits for any more. Named pipes need no reader to begin with, and
/// may have one after the other: the next reader begins with a whole line, or behind
/// one torn line where it opens the pipe at once, and on a keeping branch misses
/// nothing else that the last one had not read. A file is written as fast as it goes,
/// like by `tee`.
///
/// With --live or --live-dir the tee is live: a keeping branch never holds the others
/// up, and past its spill it has a gap, which is reported and counted. Without them
/// no line is lost: readers that take what they are given pace the input, one that
/// lags is spilled for, and past its spill it makes all wait.
///
/// At the end of its input it waits for keeping branches, and for live ones as long
/// as they take something.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-tee", version = VERSION, after_help = "\
Examples:
  rv-tee --live dt.in --live lr.in decoy.in < requests > rendezvous.in
  rv-tee -i requests --follow --no-stdout --live-dir models --keep-dir keepers \\
    --spill-dir spill --stats tee.json")]
pub struct TeeArgs {
    /// The keeping branches: named pipes, or files, which are begun anew
    #[arg(value_name = "PATH")]
    paths: Vec<Address>,

    /// A live branch, through a named pipe
    #[arg(long, value_name = "PATH")]
    live: Vec<String>,

    /// Every named pipe in DIR is a live branch, as it comes and goes
    #[arg(long, value_name = "DIR")]
    live_dir: Vec<String>,

    /// Every named pipe in DIR is a keeping branch, as it comes and goes; with its
    /// pipe goes what was spilled for it
    #[arg(long, value_name = "DIR")]
    keep_dir: Vec<String>,

    /// Write no copy to standard output
    #[arg(long, conflicts_with = "output")]
    no_stdout: bool,

    /// Append to files instead of beginning them anew
    #[arg(short, long)]
    append: bool,

    #[command(flatten)]
    input: InputArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// How much may wait for a branch in memory
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(16))]
    queue: ByteSize,

    /// How long a line may wait for a live branch; older ones are dropped
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    live_age: Duration,

    /// Spill into DIR, where the next process finds what this one leaves. Without
    /// it, spilled lines lie in unnamed files in $TMPDIR and go with the process
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,

    /// How much may be spilled for a branch
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::gib(1))]
    spill_max: ByteSize,

    /// How much may wait in memory until it is spilled for a branch, where the disk
    /// is slower than the input. More than that is the same as a full spill
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    spill_queue: ByteSize,

    /// What to do where a spill is full: drop what comes next, which a live tee does,
    /// or make everybody wait, which is done without --live and --live-dir. Where the
    /// input is a file, reading waits before anything is spilled, unless this is given
    #[arg(long, value_enum, value_name = "WHAT")]
    on_full: Option<OnFull>,

    /// How much the pipe of a live branch holds, rounded up to pages. What is in it
    /// cannot be dropped any more, so a slow model works through that first. A larger
    /// one carries more lines a second
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::kib(4))]
    live_pipe: ByteSize,

    #[command(flatten)]
    run: RunArgs,
}

impl Program for TeeArgs {
    const NAME: &'static str = "rv-tee";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let input = Input::open(&self.input.input, self.input.follow)?;
        let mut tee = Tee::open(self, input, stage)?;
        let stopped = tee.serve(stage)?;
        tee.finish(stopped, stage)
    }
}

/// A folder whose named pipes are branches.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    is_live: bool,
}

/// The branches, and what they need of each other.
struct Tee {
    args: TeeArgs,
    branches: Vec<Branch>,
    folders: Vec<Folder>,
    /// Tells of pipes that come, go and are opened.
    watch: PipeWatch,
    /// Readable when a spill has something to take.
    spills: Arc<OwnedFd>,
    /// Held while the folder of spills is in use.
    _spill_lock: Option<File>,
    input: Input,
    lines: Lines,
    read: u64,
    read_bytes: u64,
    /// Branches whose pipes have gone.
    gone: u64,
    /// Branches that can never take anything again.
    failed: usize,
}

impl Tee {
    fn open(args: TeeArgs, input: Input, stage: &mut Stage) -> Result<Tee> {
        let spills = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let mut tee = Tee {
            branches: Vec::new(),
            folders: Vec::new(),
            watch: PipeWatch::new()?,
            spills: Arc::new(spills.context("cannot wait for spills")?),
            _spill_lock: args.spill_dir.as_deref().map(lock).transpose()?,
            lines: Lines::new(stage.line_bytes_max),
            input,
            args,
            read: 0,
            read_bytes: 0,
            gone: 0,
            failed: 0,
        };
        let args = tee.args.clone();
        let output = Some(&args.output.output).filter(|_| !args.no_stdout);
        for address in output.into_iter().chain(&args.paths) {
            refuse_same_file(&args.input.input, address)?;
            let path = address.as_str();
            let is_pipe = fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
            let sink = if is_pipe {
                Sink::Pipe(LastingPipe::open(path, &tee.watch)?)
            } else if args.append {
                Sink::Stream(Output::append(address)?)
            } else {
                Sink::Stream(Output::open(address)?)
            };
            let kind = tee.keeping(path)?;
            tee.join(path, sink, kind);
        }
        for path in &args.live {
            let mut pipe = LastingPipe::open(path, &tee.watch)
                .map_err(|error| usage(format!("--live {error:#}")))?;
            pipe.narrow(bytes(args.live_pipe));
            tee.join(path, Sink::Pipe(pipe), tee.live());
        }
        for (paths, is_live) in [(&args.live_dir, true), (&args.keep_dir, false)] {
            for path in paths {
                tee.watch
                    .watch_folder(path)
                    .map_err(|error| usage(format!("{error:#}; make it with `mkdir`")))?;
                tee.folders.push(Folder {
                    path: PathBuf::from(path),
                    is_live,
                });
            }
        }
        tee.update_folders(stage, false)?;
        if tee.branches.is_empty() && tee.folders.is_empty() {
            return Err(usage(
                "nowhere to write: name PATHs or folders, or leave --no-stdout out",
            ));
        }
        if args.output.resume {
            let now = Instant::now();
            for branch in &mut tee.branches {
                branch.resume(now);
            }
        }
        for branch in &mut tee.branches {
            branch.collect(&mut stage.report);
        }
        Ok(tee)
    }

    fn join(&mut self, name: &str, sink: Sink, kind: Kind) {
        let queue_bytes = bytes(self.args.queue);
        self.branches
            .push(Branch::new(name, sink, kind, queue_bytes));
    }

    fn live(&self) -> Kind {
        Kind::Live {
            age_max: self.args.live_age,
        }
    }

    fn keeping(&self, name: &str) -> Result<Kind> {
        if self.input.is_file() && self.args.on_full.is_none() {
            // Nobody waits for the end of a file, and what is in it is on disk.
            return Ok(Kind::Paced);
        }
        let folder = self
            .args
            .spill_dir
            .as_deref()
            .map(|it| spill_folder(it, name));
        let limits = Limits {
            bytes_max: self.args.spill_max.as_u64(),
            line_bytes_max: self.args.run.line_bytes_max(),
        };
        let is_live = !(self.args.live.is_empty() && self.args.live_dir.is_empty());
        let default = match is_live {
            true => OnFull::Drop,
            false => OnFull::Block,
        };
        let on_full = self.args.on_full.unwrap_or(default);
        let unstored_bytes_max = bytes(self.args.spill_queue);
        let wake = Arc::clone(&self.spills);
        let spill = Spill::open(folder.as_deref(), limits, on_full, unstored_bytes_max, wake)?;
        Ok(Kind::Keeping(Box::new(spill)))
    }

    /// Reads and passes on until the input ends or a signal ends it.
    fn serve(&mut self, stage: &mut Stage) -> Result<Option<Stop>> {
        let is_source = self.input.is_file() || self.input.is_terminal();
        let mut ended = false;
        // Before anything is passed on: from here on a signal waits for the loop.
        stage.signals.stop();
        loop {
            self.pass_on(stage);
            self.look_for_failures(stage)?;
            stage.report.flush()?;
            stage.show_stats(|stage| self.snapshot(stage));
            if self.branches.iter().any(Branch::is_waiting) {
                // The ages in the stats grow by themselves.
                stage.stats.touch();
            }
            let stop = stage.signals.stop();
            let is_stopping = match stop {
                Some(Stop::Terminate) => true,
                Some(Stop::Interrupt) => {
                    self.input.stop_following();
                    is_source
                }
                None => false,
            };
            if let Some(stop) = stage.signals.out_of_time() {
                return Ok(Some(stop));
            }
            let is_done = ended || (is_stopping && !self.lines.is_inside_line());
            if is_done && self.may_end(is_stopping) {
                return Ok(stop.filter(|_| is_stopping && self.input.is_file()));
            }
            if self.wait(stage, is_done)? {
                let progress = if is_stopping {
                    self.input.read_one_byte(&mut self.lines)?
                } else {
                    self.input.read(&mut self.lines)?
                };
                stage.report_faults(self.input.take_faults())?;
                match progress {
                    Progress::Bytes(count) => {
                        self.read_bytes += count as u64;
                        let now = Instant::now();
                        for branch in &mut self.branches {
                            branch.has_read(count as u64, now);
                        }
                        stage.stats.touch();
                    }
                    Progress::Nothing => {}
                    Progress::End => ended = true,
                }
                self.take_lines(stage, ended)?;
            }
        }
    }

    /// Gives what was read to every branch.
    fn take_lines(&mut self, stage: &mut Stage, ended: bool) -> Result<()> {
        loop {
            let block = match self.lines.next_run() {
                Some(Run::Lines { bytes, count }) => {
                    Block::new(bytes.to_vec(), count, Instant::now())
                }
                Some(Run::Oversized(line)) => {
                    self.read += 1;
                    stage
                        .report
                        .reject(self.input.name(), &line, &Reject::Oversized)?;
                    continue;
                }
                None => break,
            };
            self.read += block.records();
            for branch in &mut self.branches {
                branch.offer(&block, &mut stage.report);
            }
        }
        if !ended {
            return Ok(());
        }
        let Some(line) = self.lines.last_line() else {
            return Ok(());
        };
        self.read += 1;
        if line.oversized.is_some() {
            return stage
                .report
                .reject(self.input.name(), &line, &Reject::Oversized);
        }
        let whole = [line.bytes, b"\n"].concat();
        let block = Block::new(whole, 1, Instant::now());
        for branch in &mut self.branches {
            branch.offer(&block, &mut stage.report);
        }
        Ok(())
    }

    fn pass_on(&mut self, stage: &mut Stage) {
        for branch in &mut self.branches {
            branch.write_some(&mut stage.report);
            branch.collect(&mut stage.report);
        }
    }

    /// Says which branches have failed. With none left, that is the end.
    fn look_for_failures(&mut self, stage: &mut Stage) -> Result<()> {
        let failed = self.branches.iter().filter_map(Branch::failure).count();
        if failed == self.failed {
            return Ok(());
        }
        self.failed = failed;
        let mut outcome = Ok(());
        for branch in &self.branches {
            match branch.failure() {
                Some(Failure::Error(error)) => {
                    let message = format!("{}: cannot write: {error}", branch.name());
                    if failed < self.branches.len() {
                        stage.report.warn(&message);
                    }
                    outcome = Err(anyhow!(message));
                }
                Some(Failure::ReaderGone) if outcome.is_ok() => {
                    outcome = Err(EndedEarly::DownstreamClosed.into());
                }
                _ => {}
            }
        }
        if failed < self.branches.len() {
            return Ok(());
        }
        self.finish_branches()?;
        outcome
    }

    /// Whether no branch is waited for any more.
    fn may_end(&self, is_stopping: bool) -> bool {
        let now = Instant::now();
        self.branches.iter().all(|branch| {
            if branch.is_live() {
                branch.is_done_or_idle(LIVE_IDLE, now)
            } else if is_stopping && branch.is_persistent() {
                !branch.is_inside_line()
            } else {
                branch.is_done()
            }
        })
    }

    /// Waits for something to do, and does what comes of pipes and spills. Says
    /// whether the input is to be read.
    fn wait(&mut self, stage: &mut Stage, is_done: bool) -> Result<bool> {
        let now = Instant::now();
        let pace = self.pace(now);
        let wants_input = !is_done && pace.wants_input;
        let mut streams = Vec::with_capacity(self.branches.len() + 3);
        streams.push((self.watch.readiness(), PollFlags::IN));
        streams.push((self.spills.as_fd(), PollFlags::IN));
        let input = self.input.readiness().filter(|_| wants_input);
        let has_input = input.is_some();
        if let Some(input) = input {
            streams.push((input, PollFlags::IN));
        }
        let first_branch = streams.len();
        let mut places = Vec::with_capacity(self.branches.len());
        for (index, branch) in self.branches.iter().enumerate() {
            if let Some(readiness) = branch.readiness() {
                places.push(index);
                streams.push(readiness);
            }
        }
        let is_file = wants_input && self.input.is_file();
        let until = if is_file {
            // There is always something to read.
            Some(now)
        } else {
            let live = self.branches.iter().filter(|branch| branch.is_live());
            let idle = live.map(|branch| branch.idle_at(LIVE_IDLE));
            let idle = idle.filter(|at| is_done && *at > now).min();
            let again = pace.again_at.filter(|_| !is_done);
            let times = [idle, again, stage.stats.due(), stage.signals.grace_end()];
            times.into_iter().flatten().min()
        };
        let ready = wait(&streams, &mut stage.signals, until)?;
        if pace.starves_others {
            self.account_for_starving(now);
        }
        let input_ready = is_file || (has_input && ready[2]);
        let pipes_changed = ready[0];
        let spills_changed = ready[1];
        for (index, ready) in places.into_iter().zip(&ready[first_branch..]) {
            if *ready {
                stage.stats.touch();
                // Where something waits, writing it tells.
                if !self.branches[index].has_something_to_write() {
                    self.branches[index].look_for_reader(&mut stage.report);
                }
            }
        }
        if spills_changed {
            let mut count = [0; 8];
            let _ = rustix::io::read(&*self.spills, &mut count);
        }
        if pipes_changed {
            stage.stats.touch();
            self.watch.acknowledge();
            for branch in &mut self.branches {
                branch.look_for_reader(&mut stage.report);
            }
            self.update_folders(stage, true)?;
        }
        Ok(input_ready)
    }

    /// Looks how the branches do.
    fn pace(&mut self, now: Instant) -> Pace {
        let mut standings = Vec::with_capacity(self.branches.len());
        let mut again_at: Option<Instant> = None;
        for branch in &mut self.branches {
            let standing = branch.standing(now);
            let changes_at = match standing {
                Standing::Busy => Some(branch.stalls_at()),
                Standing::Behind => Some(branch.stalls_at().min(branch.patience_ends_at(now))),
                Standing::CatchingUp => Some(branch.stalls_at().min(branch.catch_up_ends_at())),
                Standing::Hungry | Standing::Full | Standing::Aside => None,
            };
            again_at = again_at.into_iter().chain(changes_at).min();
            standings.push(standing);
        }
        Pace {
            wants_input: wants_input(standings.iter().copied()),
            starves_others: standings.contains(&Standing::Behind)
                && standings.contains(&Standing::Hungry),
            again_at,
        }
    }

    /// Others have had nothing to take since `since`, for want of those behind.
    fn account_for_starving(&mut self, since: Instant) {
        let now = Instant::now();
        for branch in &mut self.branches {
            if branch.standing(since) == Standing::Behind {
                branch.has_starved_others(now - since, now);
            }
        }
    }

    /// Brings the branches in line with the folders.
    fn update_folders(&mut self, stage: &mut Stage, say: bool) -> Result<()> {
        for index in 0..self.folders.len() {
            let path = self.folders[index].path.clone();
            let mut present = named_pipes(&path)?;
            let mut gone = Vec::new();
            self.branches.retain_mut(|branch| {
                let Some(pipe) = branch.pipe() else {
                    return true;
                };
                if Path::new(pipe.path()).parent() != Some(&*path) {
                    return true;
                }
                let stays = present.get(pipe.path()) == Some(&pipe.ino());
                if stays {
                    present.remove(pipe.path());
                } else {
                    gone.push(
                        branch
                            .finish(End::Remove)
                            .map(|()| (branch.name().to_owned(), branch.dropped())),
                    );
                }
                stays
            });
            for outcome in gone {
                let (name, dropped) = outcome?;
                self.gone += 1;
                stage
                    .report
                    .info(&format!("{name}: gone; {dropped} records were dropped"));
            }
            for path in present.into_keys() {
                match self.branch_of_folder(index, &path) {
                    Ok(()) if say => stage.report.info(&format!("{path}: joined")),
                    Ok(()) => {}
                    // It may have gone again; another change tells.
                    Err(error) => stage.report.warn_seldom("folder", &format!("{error:#}")),
                }
            }
        }
        Ok(())
    }

    fn branch_of_folder(&mut self, folder: usize, path: &str) -> Result<()> {
        let mut pipe = LastingPipe::open(path, &self.watch)?;
        let kind = match self.folders[folder].is_live {
            true => {
                pipe.narrow(bytes(self.args.live_pipe));
                self.live()
            }
            false => self.keeping(path)?,
        };
        self.join(path, Sink::Pipe(pipe), kind);
        Ok(())
    }

    fn finish(mut self, stopped: Option<Stop>, stage: &mut Stage) -> Result<()> {
        if let Some(line) = self.lines.last_line() {
            stage
                .report
                .reject(self.input.name(), &line, &Reject::Unfinished)?;
        }
        self.finish_branches()?;
        self.look_for_failures(stage)?;
        for branch in &self.branches {
            // A live branch drops by its nature, and who leaves wants no more.
            let has_left = branch.failure() == Some(&Failure::ReaderGone);
            if !branch.is_live() && !has_left && branch.lost() > 0 {
                stage.has_findings = true;
                stage.report.warn(&format!(
                    "{}: {} records are lost",
                    branch.name(),
                    branch.lost()
                ));
            }
        }
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        let has_failed = |branch: &Branch| matches!(branch.failure(), Some(Failure::Error(_)));
        match stopped {
            _ if self.branches.iter().any(has_failed) => bail!("not every branch was written"),
            Some(stop) => Err(EndedEarly::Signal(stop).into()),
            None => Ok(()),
        }
    }

    fn finish_branches(&mut self) -> Result<()> {
        for branch in &mut self.branches {
            branch.finish(End::Keep)?;
        }
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let now = Instant::now();
        let figures: Vec<(String, Figures)> = self
            .branches
            .iter()
            .map(|branch| (branch.name().to_owned(), branch.figures(now)))
            .collect();
        let of = |value: fn(&Figures) -> u64| -> Vec<(String, u64)> {
            let values = figures.iter();
            values
                .map(|(name, figures)| (name.clone(), value(figures)))
                .collect()
        };
        Snapshot::default()
            .count("in", self.read)
            .rejected(&stage.report)
            .count("bytesIn", self.read_bytes)
            .gauge("branches", self.branches.len() as u64)
            .count("branchesGone", self.gone)
            .by_label("written", BRANCH, of(|it| it.written))
            .by_label("dropped", BRANCH, of(|it| it.dropped))
            .by_label("droppedBytes", BRANCH, of(|it| it.dropped_bytes))
            .by_label("corrupt", BRANCH, of(|it| it.corrupt))
            .by_label("torn", BRANCH, of(|it| it.torn))
            .by_label("recovered", BRANCH, of(|it| it.recovered))
            .gauge_by_label("queued", BRANCH, of(|it| it.queued))
            .gauge_by_label("queuedBytes", BRANCH, of(|it| it.queued_bytes))
            .gauge_by_label("spilled", BRANCH, of(|it| it.spilled))
            .gauge_by_label("spilledBytes", BRANCH, of(|it| it.spilled_bytes))
            .gauge_by_label("oldest_ms", BRANCH, of(|it| it.oldest.as_millis() as u64))
            .gauge_by_label("blocked_ms", BRANCH, of(|it| it.blocked.as_millis() as u64))
    }
}

/// Whether to read on, and when to look again.
struct Pace {
    wants_input: bool,
    /// Some branch has nothing to take since another one is behind.
    starves_others: bool,
    again_at: Option<Instant>,
}

const BRANCH: &str = "branch";

/// Where the spill of a branch lies. Its name keeps branches of one file name
/// apart.
fn spill_folder(spill_dir: &Path, branch: &str) -> PathBuf {
    let name = match branch {
        "-" => "stdout".to_owned(),
        path => path.replace('%', "%25").replace('/', "%2F"),
    };
    spill_dir.join(name)
}

/// Takes the folder of spills for this process alone.
fn lock(spill_dir: &Path) -> Result<File> {
    let cannot = || format!("{}: cannot use the folder for spills", spill_dir.display());
    fs::create_dir_all(spill_dir).with_context(cannot)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(spill_dir.join("lock"))
        .with_context(cannot)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("{}: another rv-tee spills there", spill_dir.display()))?;
    Ok(file)
}
