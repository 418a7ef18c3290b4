//! Runs a program, from its command line to its exit status.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{ArgMatches, Parser};
use clap_complete::Shell;

use crate::stage::cli::RunArgs;
use crate::stage::context::Stage;
use crate::stage::exit;
use crate::stage::report::print_message;

/// A program: its arguments and its work.
pub trait Program: Parser {
    /// The name of the program. Each message begins with this name.
    const NAME: &'static str;

    /// The flags that all programs share.
    fn run_args(&self) -> &RunArgs;

    /// Becomes another program with exec, if the arguments ask for it. This happens before
    /// the program has threads and descriptors of its own. Returns an error if exec fails.
    fn become_program(&self) -> Result<()> {
        Ok(())
    }

    /// Does the work.
    fn run(self, stage: &mut Stage) -> Result<()>;
}

/// Runs a program and returns its exit status: 0 done; 1 done, but a record was
/// rejected or a check failed; 2 wrong usage; 3 failure; 130 and 143 ended early by a
/// signal; 141 the reader of the output has closed it.
pub fn main<P: Program>() -> ExitCode {
    let matches = P::command().get_matches();
    if let Some(status) = describe::<P>(&matches) {
        return status;
    }
    let args = P::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let run_args = args.run_args().clone();
    if run_args.check_flags {
        return ExitCode::from(exit::DONE);
    }
    if let Err(error) = args.become_program() {
        return ExitCode::from(status_of::<P>(Err(error), &run_args));
    }
    let status = match Stage::new(P::NAME, &run_args) {
        Ok(mut stage) => {
            let outcome = run_in(&mut stage, args);
            // `stage` must outlive this call: its signals can still end the program
            // while the message waits for stderr.
            status_of::<P>(outcome, &run_args)
        }
        Err(error) => status_of::<P>(Err(error), &run_args),
    };
    ExitCode::from(status)
}

fn run_in<P: Program>(stage: &mut Stage, args: P) -> Result<u8> {
    let outcome = args.run(stage);
    let flushed = stage.report.flush();
    stage.report.warn_of_damaged_total();
    outcome.and(flushed)?;
    let has_findings =
        stage.has_findings || stage.report.rejected() > 0 || stage.report.damaged_files() > 0;
    Ok(match has_findings {
        true => exit::DONE_WITH_FINDINGS,
        false => exit::DONE,
    })
}

/// The exit status for the outcome of a run. Prints the error, if any.
fn status_of<P: Program>(outcome: Result<u8>, run_args: &RunArgs) -> u8 {
    outcome.unwrap_or_else(|error| {
        let status = exit::status_of(&error);
        // A closed reader alone is not reported. An error with context is
        // reported, because it names the lost records.
        if status != exit::DOWNSTREAM_CLOSED || error.chain().len() > 1 {
            print_message(P::NAME, run_args.log_format, "error", &format!("{error:#}"));
        }
        status
    })
}

/// Prints the completions or the manual page, if a flag asks for one. These outputs do
/// not need the required arguments of the program.
fn describe<P: Program>(matches: &ArgMatches) -> Option<ExitCode> {
    let mut text = Vec::new();
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        clap_complete::generate(*shell, &mut P::command(), P::NAME, &mut text);
    } else if matches.get_flag("man") {
        clap_mangen::Man::new(P::command())
            .render(&mut text)
            .expect("a Vec takes every write");
    } else {
        return None;
    }
    let written = std::io::stdout().write_all(&text);
    Some(ExitCode::from(match written {
        Ok(()) => exit::DONE,
        Err(_) => exit::FAILED,
    }))
}
