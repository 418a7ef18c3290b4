//! The commands that ask the supervisor.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::stage::{Stage, usage};
use crate::up::answers::{print, succeeded};
use crate::up::args::{AddArgs, LogsArgs};
use crate::up::config::{Flag, FlagValue, Role, Runs, Seat, Section, section_of};
use crate::up::control::{Request, ask};
use crate::up::leftovers::{end_leftovers, is_held};
use crate::up::log_file::last_lines;
use crate::up::names::check_seat_name;
use crate::up::run_folder::RunFolder;

/// How long `stop` tries to reach a supervisor that is being started again.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How long the holder may take to end after the supervisor.
const HOLDER_PATIENCE: Duration = Duration::from_secs(10);

/// Asks the supervisor, and prints its answer.
fn ask_and_print(run: &RunFolder, request: &Request, stage: &mut Stage) -> Result<()> {
    match ask(&run.dir, request)? {
        Some(reply) => print(&format!("{}\n", succeeded(reply)?), stage),
        None => bail!("{} is not up; start it with `rv-up start`", run.dir),
    }
}

/// Runs `reload`.
pub fn reload(run: &RunFolder, stage: &mut Stage) -> Result<()> {
    ask_and_print(run, &Request::Reload, stage)
}

/// Runs `remove`.
pub fn remove(run: &RunFolder, name: String, stage: &mut Stage) -> Result<()> {
    ask_and_print(run, &Request::Remove { name }, stage)
}

/// Runs `stop`.
pub fn stop(run: &RunFolder, stage: &mut Stage) -> Result<()> {
    if Path::new(&run.dir).is_dir() {
        end_everything(run, stage)?;
    }
    print(
        &format!("down; all files are still in {}\n", run.dir),
        stage,
    )
}

fn end_everything(run: &RunFolder, stage: &mut Stage) -> Result<()> {
    let until = Instant::now() + STOP_PATIENCE;
    loop {
        // The supervisor may have died. Then the holder starts it again.
        if let Ok(Some(reply)) = ask(&run.dir, &Request::Stop) {
            succeeded(reply)?;
            let until = Instant::now() + HOLDER_PATIENCE;
            while is_held(run) && Instant::now() < until {
                pause(Duration::from_millis(5), stage)?;
            }
            return Ok(());
        }
        // The lock belongs to a start that is under way, and will soon obey.
        if let Some(_lock) = run.lock("lock")? {
            let is_held = is_held(run);
            if !is_held || Instant::now() >= until {
                // Nobody supervises the stages, if there are any.
                end_leftovers(run, stage)?;
                return Ok(());
            }
        }
        pause(Duration::from_millis(20), stage)?;
    }
}

/// Waits for a short time, or until a signal arrives.
fn pause(time: Duration, stage: &mut Stage) -> Result<()> {
    let until = Instant::now() + time;
    crate::stage::wait::wait(&[], &mut stage.signals, Some(until))?;
    match stage.signals.stop() {
        Some(stop) => Err(crate::stage::EndedEarly::Signal(stop).into()),
        None => Ok(()),
    }
}

/// Runs `status`. Fails if calls are not answered by models.
pub fn status(run: &RunFolder, as_json: bool, stage: &mut Stage) -> Result<()> {
    let Some(report) = ask(&run.dir, &Request::Status)?.and_then(|reply| reply.report) else {
        print("not ready: it is not up\n", stage)?;
        bail!("{} is not up; start it with `rv-up start`", run.dir);
    };
    let text = match as_json {
        true => format!("{}\n", serde_json::to_string(&report)?),
        false => report.table(),
    };
    print(&text, stage)?;
    match report.ready {
        true => Ok(()),
        false => bail!(
            "{} is not ready: {}",
            run.dir,
            report.reason.unwrap_or_default()
        ),
    }
}

/// Runs `logs`.
pub fn logs(run: &RunFolder, args: &LogsArgs, stage: &mut Stage) -> Result<()> {
    let name = args.name.as_deref().unwrap_or("rv-up");
    let path = run.path(&format!("logs/{name}.log"));
    if name.contains('/') || !fs::exists(&path).unwrap_or(false) {
        let mut names: Vec<String> = { fs::read_dir(run.path("logs")).into_iter() }
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_suffix(".log")?.to_owned())
            })
            .collect();
        names.sort_unstable();
        let names = names.join(", ");
        return Err(usage(format!(
            "there is no log of {name}; there are {names}"
        )));
    }
    let text = last_lines(&path, args.lines)?;
    print(&text, stage)
}

/// Runs `add`.
pub fn add(run: &RunFolder, args: AddArgs, from: &Path, stage: &mut Stage) -> Result<()> {
    check_seat_name(&args.name).map_err(usage)?;
    let role = if args.shadow {
        Role::Shadow
    } else {
        Role::Model
    };
    let runs = match (
        args.runs.model,
        args.runs.exec,
        args.runs.url,
        args.runs.command,
    ) {
        (Some(path), ..) => Runs::File(relative_to_file(&path, from)?),
        (_, Some(command), ..) => Runs::Exec(command),
        (_, _, Some(url), _) => Runs::Url(url),
        (_, _, _, Some(command)) => Runs::Command(command),
        _ => return Err(usage("give one of --model, --exec, --url and --command")),
    };
    let seat = Seat {
        role,
        name: args.name,
        line: 0,
        runs,
        runs_line: 0,
        model_name: args.model_name,
        version: args.model_version,
        section: Section {
            line: 0,
            flags: flags_of(&args.flags)?,
        },
        restart_when_stuck: args.restart_when_stuck,
    };
    let request = Request::Add {
        shadow: args.shadow,
        section: section_of(&seat),
        name: seat.name,
    };
    ask_and_print(run, &request, stage)
}

/// A path that was given in the folder `from`, for the file in the present folder.
fn relative_to_file(path: &str, from: &Path) -> Result<String> {
    let present = std::env::current_dir()?;
    if present == from || Path::new(path).is_absolute() {
        return Ok(path.to_owned());
    }
    let whole = from.join(path);
    let shown = whole.to_str().map(str::to_owned);
    shown.ok_or_else(|| usage(format!("{path}: is not UTF-8")))
}

/// Reads flags of rv-score, as they stand on a command line.
fn flags_of(words: &[String]) -> Result<Vec<Flag>> {
    let mut flags: Vec<Flag> = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else {
            return Err(usage(format!("{word:?} is no flag; flags begin with --")));
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, words.next_if(|next| !next.starts_with("--")).cloned()),
        };
        let earlier = flags.iter_mut().find(|flag| flag.name == name);
        match (earlier.map(|flag| &mut flag.value), value) {
            (Some(FlagValue::Values(values)), Some(value)) => values.push(value),
            (Some(_), _) => return Err(usage(format!("--{name} is given twice"))),
            (None, value) => flags.push(Flag {
                name: name.to_owned(),
                value: value.map_or(FlagValue::Switch(true), |value| {
                    FlagValue::Values(vec![value])
                }),
                line: 0,
            }),
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_a_shell_gives_them() {
        let read = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            flags_of(&words)
        };
        let flags = read("--batch 64 --probabilities --features=a --features b").unwrap();
        let shown: Vec<Vec<String>> = flags.iter().map(Flag::arguments).collect();
        assert_eq!(
            shown,
            [
                vec!["--batch=64"],
                vec!["--probabilities"],
                vec!["--features=a", "--features=b"]
            ]
        );
        assert!(read("batch 64").is_err());
        assert!(read("--a --a").is_err());
    }
}
