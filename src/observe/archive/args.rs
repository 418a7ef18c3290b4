//! The flags of `rv-archive` and their checks.

use std::num::{NonZeroU16, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Parser, Subcommand};

use crate::observe::archive::cat::CatArgs;
use crate::observe::archive::find::FindArgs;
use crate::observe::archive::part::PartLimits;
use crate::observe::archive::retention::RetentionLimits;
use crate::observe::archive::verify::VerifyArgs;
use crate::observe::pass_args::PassArgs;
use crate::stage::cli::{RunArgs, VERSION, bytes, duration};
use crate::stage::clock::Clock;
use crate::stage::streams::{InputArgs, refuse_same_file};
use crate::stage::usage;

/// Keep a stream in compressed files, without changing a line
///
/// A file named `log-<id>.gz` is complete and never changes again. The file that is being
/// written is `part-<id>.ndjson`. If the program is killed, the next start on the folder
/// completes that file. Names sort by time. While the disk is full the program stops
/// reading, and it goes on when the disk has room. SIGHUP closes the current file.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "rv-archive",
    version = VERSION,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  printf '{\"a\":1}\\n{\"a\":2}\\n' | rv-archive --dir requests.archive\n  rv-archive cat requests.archive"
)]
pub struct ArchiveArgs {
    /// Write into DIR, which is created if it is missing. One rv-archive at a time may
    /// write there
    #[arg(long, value_name = "DIR", required = true)]
    dir: Option<PathBuf>,

    #[command(flatten)]
    input: InputArgs,

    /// Also write each line to the output, after it is synced in the folder. So every
    /// line that the next program reads is in the archive. Many lines share one sync.
    /// It is made when the input pauses, or when --sync-every or --pass-bytes is
    /// reached. While the disk is full, no line is passed on
    #[arg(long)]
    pass: bool,

    /// With --pass: sync when SIZE of lines wait to be passed on. Memory holds at most
    /// this and one more line
    #[arg(long, value_name = "SIZE", default_value = "4MiB", requires = "pass")]
    pass_bytes: ByteSize,

    #[command(flatten)]
    pass_to: PassArgs,

    /// Begin a new file after N records
    #[arg(long, value_name = "N")]
    max_records: Option<NonZeroU64>,

    /// Begin a new file before the current one exceeds SIZE, uncompressed
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    max_bytes: ByteSize,

    /// Close a file this long after its first record
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    max_age: Duration,

    /// Compress from 1 (fast) to 9 (small)
    #[arg(long, value_name = "LEVEL", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=9))]
    level: u32,

    /// Compress with N threads, in addition to the thread that reads
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroU16,

    /// Keep at most N complete files; the oldest are removed
    #[arg(long, value_name = "N")]
    keep_files: Option<NonZeroU64>,

    /// Keep at most SIZE of complete files, compressed; the oldest are removed, but
    /// never the latest
    #[arg(long, value_name = "SIZE")]
    keep_bytes: Option<ByteSize>,

    /// Sync written lines at least this often; a power cut loses at most the lines of
    /// this time. With --pass, a line waits at most this long for its sync if the
    /// input never pauses
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    sync_every: Duration,

    /// Name files by this clock: `system`, or `fixed:SECONDS` for reproducible names
    #[arg(long, value_name = "CLOCK", default_value = "system")]
    clock: Clock,

    #[command(flatten)]
    pub(super) run: RunArgs,

    #[command(subcommand)]
    pub(super) command: Option<ArchiveCommand>,
}

/// The subcommands, which read archives.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum ArchiveCommand {
    Cat(CatArgs),
    Find(FindArgs),
    Verify(VerifyArgs),
}

/// The checked options of `rv-archive`.
#[derive(Debug)]
pub(super) struct ArchiveOptions {
    /// The folder of the archive.
    pub dir: PathBuf,
    /// The input.
    pub input: InputArgs,
    /// With `--pass`: the options for passing lines on.
    pub pass: Option<ArchivePass>,
    /// The limits of a part.
    pub part: PartLimits,
    /// The limits of the complete files.
    pub retention: RetentionLimits,
    /// The level of gzip, 1 to 9.
    pub level: u32,
    /// The number of compressing threads.
    pub threads: usize,
    /// The clock for the names of files.
    pub clock: Clock,
}

/// The options for passing synced lines on.
#[derive(Debug)]
pub(super) struct ArchivePass {
    /// The output for these lines.
    pub to: PassArgs,
    /// The number of bytes of lines that may wait for a sync.
    pub waiting_bytes_max: usize,
}

impl ArchiveArgs {
    /// Refuses meaningless settings, before a stream is opened.
    pub(super) fn check(self) -> Result<ArchiveOptions> {
        let Some(dir) = self.dir else {
            return Err(usage("--dir is missing"));
        };
        if self.max_bytes.as_u64() == 0 {
            return Err(usage("--max-bytes must be more than 0"));
        }
        if self.pass {
            refuse_same_file(&self.input.input, &self.pass_to.output)?;
        }
        refuse_own_folder(&self.input, &dir)?;
        Ok(ArchiveOptions {
            dir,
            input: self.input,
            pass: self.pass.then_some(ArchivePass {
                to: self.pass_to,
                waiting_bytes_max: bytes(self.pass_bytes),
            }),
            part: PartLimits {
                records: self.max_records.map_or(u64::MAX, NonZeroU64::get),
                bytes: self.max_bytes.as_u64(),
                age: self.max_age,
                sync_every: self.sync_every,
            },
            retention: RetentionLimits {
                files: self.keep_files.map(NonZeroU64::get),
                bytes: self.keep_bytes.map(|size| size.as_u64()),
            },
            level: self.level,
            threads: self.threads.get().into(),
            clock: self.clock,
        })
    }
}

/// Refuses to archive a folder into itself, because the folder would then hold every
/// line twice.
fn refuse_own_folder(input: &InputArgs, dir: &Path) -> Result<()> {
    let folder = |path: &Path| path.canonicalize().ok().filter(|path| path.is_dir());
    match (folder(Path::new(input.input.as_str())), folder(dir)) {
        (Some(from), Some(to)) if from == to => Err(usage(format!(
            "{}: is input and output at once; archive into another folder",
            input.input
        ))),
        _ => Ok(()),
    }
}
