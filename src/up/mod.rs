//! `rv-up`: the whole architecture from one file, under supervision.
//!
//! A command (`start`, `add`, `stop` ...) checks the files and asks the supervisor. The
//! `supervisor` starts the stages of the `plan`, restarts them and ends them. The `holder`
//! holds the ends of their pipes and the listening sockets, and starts the supervisor
//! again if it dies; the supervisor starts the holder again. So the stages go on, whichever
//! process dies.

mod admin;
mod answers;
mod args;
mod channel;
mod checks;
mod commands;
mod config;
mod control;
mod demo;
mod holder;
mod holder_link;
mod launch;
mod leftovers;
mod log_file;
mod metrics;
mod names;
mod pipes;
mod plan;
mod policy;
mod process;
mod programs;
mod published;
mod report;
mod run_folder;
mod start;
mod supervisor;

use anyhow::{Context, Result};

use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::stage::program::Program;
use crate::stage::usage;
pub use crate::up::args::UpArgs;
use crate::up::args::{Command, StartArgs};
use crate::up::holder::Mode;
use crate::up::run_folder::{RunFolder, enter_folder_of};

impl Program for UpArgs {
    const NAME: &'static str = "rv-up";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn become_program(&self) -> Result<()> {
        match &self.command {
            Some(Command::Launch(args)) => launch::run(args),
            _ => Ok(()),
        }
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let Some(command) = self.command else {
            return Err(usage("no command is given; see rv-up --help"));
        };
        if let Command::Demo(args) = command {
            return demo::run(&args, stage);
        }
        let given = match &command {
            Command::Start(StartArgs {
                start_file: Some(file),
                ..
            }) => file.clone(),
            _ => self.file,
        };
        let callers_folder = std::env::current_dir().context("cannot find the present folder")?;
        let file = enter_folder_of(&given)?;
        match command {
            Command::Start(args) => match start::run(&file, &args, stage)? {
                Some(text) => answers::print(&format!("{text}\n"), stage),
                None => Ok(()),
            },
            Command::Check => start::check(&file, stage),
            Command::Stop => commands::stop(&run_folder(&file), stage),
            Command::Status(args) => commands::status(&run_folder(&file), args.json, stage),
            Command::Add(args) => commands::add(&run_folder(&file), args, &callers_folder, stage),
            Command::Remove(args) => commands::remove(&run_folder(&file), args.name, stage),
            Command::Reload => commands::reload(&run_folder(&file), stage),
            Command::Logs(args) => commands::logs(&run_folder(&file), &args, stage),
            Command::Hold(args) => {
                let mode = match args.adopt {
                    true => Mode::Adopting,
                    false => Mode::Background,
                };
                let dir = args.dir;
                holder::run(stage, &RunFolder { file, dir }, mode)
            }
            Command::Supervise(args) => {
                let dir = args.dir;
                supervisor::run(stage, &RunFolder { file, dir })
            }
            Command::Demo(_) | Command::Launch(_) => Ok(()),
        }
    }
}

/// The run folder of a file. The file may have faults, because `stop` must work then, too.
fn run_folder(file: &str) -> RunFolder {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    let dir = table.get("dir").and_then(toml::Value::as_str);
    RunFolder {
        file: file.to_owned(),
        dir: dir.unwrap_or(config::DIR).to_owned(),
    }
}
