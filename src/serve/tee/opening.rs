//! Opens the branches: those named by flags, and those whose pipes appear in a watched folder.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::event::EventfdFlags;
use rustix::fs::FlockOperation;

use crate::serve::tee::args::TeeArgs;
use crate::serve::tee::branch::{Branch, BranchKind, Sink};
use crate::serve::tee::bulk::Bulk;
use crate::serve::tee::copier::{Folder, Tee};
use crate::serve::tee::spill::{Spill, SpillEnd, SpillLimits};
use crate::stage::cli::bytes;
use crate::stage::streams::refuse_same_file;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::stream::cursor::Cursor;
use crate::stream::lasting_pipe::LastingPipe;
use crate::stream::output::Output;
use crate::stream::pipe_watch::{PipeWatch, named_pipes};

impl Tee {
    /// Opens the branches and folders that the flags name.
    pub fn open(args: TeeArgs, cursor: Cursor, stage: &mut Stage) -> Result<Tee> {
        let spill_wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let mut tee = Tee {
            branches: Vec::new(),
            folders: Vec::new(),
            watch: PipeWatch::new()?,
            spill_wake: Arc::new(spill_wake.context("cannot create an eventfd for spills")?),
            _spill_lock: args.spill_dir.as_deref().map(lock).transpose()?,
            cursor,
            args,
            bulk: Bulk::default(),
            read: 0,
            read_bytes: 0,
            removed_branches: 0,
            failed: 0,
        };
        tee.open_keeping_branches()?;
        tee.open_live_branches()?;
        tee.watch_folders()?;
        tee.update_folders(stage, false)?;
        if tee.branches.is_empty() && tee.folders.is_empty() {
            return Err(usage(
                "nowhere to write: give a PATH or a folder, or remove --no-stdout",
            ));
        }
        if tee.args.output.resume {
            let now = Instant::now();
            for branch in &mut tee.branches {
                branch.resume(now);
            }
        }
        for branch in &mut tee.branches {
            branch.take_spilled_lines(&mut stage.report);
        }
        Ok(tee)
    }

    /// Opens standard output and the PATHs.
    fn open_keeping_branches(&mut self) -> Result<()> {
        let output = Some(&self.args.output.output).filter(|_| !self.args.no_stdout);
        let addresses: Vec<Address> = output
            .into_iter()
            .chain(&self.args.paths)
            .cloned()
            .collect();
        for address in &addresses {
            refuse_same_file(&self.args.input.input, address)?;
            let sink = self.open_sink(address)?;
            let kind = self.keeping_kind(address.as_str())?;
            self.add_branch(address.as_str(), sink, kind);
        }
        Ok(())
    }

    fn open_sink(&self, address: &Address) -> Result<Sink> {
        let path = address.as_str();
        let is_pipe = fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo());
        if is_pipe {
            return Ok(Sink::Pipe(LastingPipe::open(path, &self.watch)?));
        }
        let output = match self.args.append {
            true => Output::append(address)?,
            false => Output::open(address)?,
        };
        Ok(Sink::Stream(output))
    }

    fn open_live_branches(&mut self) -> Result<()> {
        for path in self.args.live.clone() {
            let mut pipe = LastingPipe::open(&path, &self.watch)
                .map_err(|error| usage(format!("--live {error:#}")))?;
            pipe.narrow(bytes(self.args.live_pipe));
            self.add_branch(&path, Sink::Pipe(pipe), self.live_kind());
        }
        Ok(())
    }

    fn watch_folders(&mut self) -> Result<()> {
        for (paths, is_live) in [(&self.args.live_dir, true), (&self.args.keep_dir, false)] {
            for path in paths {
                self.watch
                    .watch_folder(path)
                    .map_err(|error| usage(format!("{error:#}; create the folder with `mkdir`")))?;
                self.folders.push(Folder {
                    path: PathBuf::from(path),
                    is_live,
                });
            }
        }
        Ok(())
    }

    fn add_branch(&mut self, name: &str, sink: Sink, kind: BranchKind) {
        let queue_bytes = bytes(self.args.queue);
        self.branches
            .push(Branch::new(name, sink, kind, queue_bytes));
    }

    fn live_kind(&self) -> BranchKind {
        BranchKind::Live {
            age_max: self.args.live_age,
        }
    }

    fn keeping_kind(&self, name: &str) -> Result<BranchKind> {
        if self.cursor.input().is_file() && self.args.on_full.is_none() {
            // A file stays on disk and can be read later, so its lines need no spill.
            return Ok(BranchKind::Paced);
        }
        let folder = self
            .args
            .spill_dir
            .as_deref()
            .map(|it| spill_folder(it, name));
        let limits = SpillLimits {
            bytes_max: self.args.spill_max.as_u64(),
            line_bytes_max: self.args.run.line_bytes_max(),
        };
        let on_full = self.args.on_full();
        let unstored_bytes_max = bytes(self.args.spill_queue);
        let wake = Arc::clone(&self.spill_wake);
        let spill = Spill::open(folder.as_deref(), limits, on_full, unstored_bytes_max, wake)?;
        Ok(BranchKind::Keeping(Box::new(spill)))
    }

    /// Adds a branch for each new pipe in a watched folder, and ends the branches whose pipes
    /// were removed.
    pub fn update_folders(&mut self, stage: &mut Stage, reports_joins: bool) -> Result<()> {
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
                            .finish(SpillEnd::Remove)
                            .map(|()| (branch.name().to_owned(), branch.dropped())),
                    );
                }
                stays
            });
            for outcome in gone {
                let (name, dropped) = outcome?;
                self.removed_branches += 1;
                stage
                    .report
                    .info(&format!("{name}: removed; {dropped} records were dropped"));
            }
            for path in present.into_keys() {
                match self.add_folder_branch(index, &path) {
                    Ok(()) if reports_joins => stage.report.info(&format!("{path}: joined")),
                    Ok(()) => {}
                    // The pipe may have been removed again. The removal causes another folder
                    // event.
                    Err(error) => stage.report.warn_seldom("folder", &format!("{error:#}")),
                }
            }
        }
        Ok(())
    }

    fn add_folder_branch(&mut self, folder: usize, path: &str) -> Result<()> {
        let mut pipe = LastingPipe::open(path, &self.watch)?;
        let kind = match self.folders[folder].is_live {
            true => {
                pipe.narrow(bytes(self.args.live_pipe));
                self.live_kind()
            }
            false => {
                if self.bulk.is_bulk() {
                    pipe.widen();
                }
                self.keeping_kind(path)?
            }
        };
        self.add_branch(path, Sink::Pipe(pipe), kind);
        Ok(())
    }
}

/// The folder of a branch's spill. The whole path is part of its name, so that branches with
/// the same file name get separate folders.
fn spill_folder(spill_dir: &Path, branch: &str) -> PathBuf {
    let name = match branch {
        "-" => "stdout".to_owned(),
        path => path.replace('%', "%25").replace('/', "%2F"),
    };
    spill_dir.join(name)
}

/// Creates the spill folder and locks it, so that no other process uses it.
fn lock(spill_dir: &Path) -> Result<File> {
    let cannot = || format!("{}: cannot use the folder for spills", spill_dir.display());
    fs::create_dir_all(spill_dir).with_context(cannot)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(spill_dir.join("lock"))
        .with_context(cannot)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!(
            "{}: another rv-tee uses this folder for spills",
            spill_dir.display()
        )
    })?;
    Ok(file)
}
