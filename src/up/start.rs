//! `rv-up start`: checks everything, then starts the holder.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::stage::{Stage, usage};
use crate::up::answers::{print, succeeded};
use crate::up::args::StartArgs;
use crate::up::checks::{CheckedPolicy, check_addresses, check_all};
use crate::up::config::{Config, DIR, LISTEN, parse};
use crate::up::control::{Request, ask};
use crate::up::holder::{self, Mode};
use crate::up::leftovers::{end_leftovers, is_held};
use crate::up::programs::Programs;
use crate::up::run_folder::{RUNNING, RunFolder, STARTED, STOPPING};

/// How long the supervisor may take until it listens for commands.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

/// Runs `start`. Returns the addresses in words; nothing if everything has ended, because it
/// ran in the foreground.
pub fn run(file: &str, args: &StartArgs, stage: &mut Stage) -> Result<Option<String>> {
    let written = written_file(file, args)?;
    let text = match &written {
        Some(text) => text.clone(),
        None => read_file(file)?,
    };
    let config = parse(&text, file)?;
    let programs = Programs::find()?;
    let policy = check_all(&config, file, &programs)?;
    warn(&policy, stage);
    let run = RunFolder {
        file: file.to_owned(),
        dir: config.dir.clone(),
    };
    run.make()?;
    let Some(lock) = run.lock("lock")? else {
        bail!("{}: another rv-up is starting it", run.dir);
    };
    if is_held(&run) {
        bail!("{} is up already; stop it with `rv-up stop`", run.dir);
    }
    check_addresses(&config, file)?;
    end_leftovers(&run, stage)?;
    clear(&run)?;
    run.replace(RUNNING, &text)?;
    run.replace("policy.toml", &policy.text)?;
    if let Some(text) = &written {
        fs::write(file, text).with_context(|| format!("{file}: cannot write"))?;
    }
    let outcome = match args.foreground {
        true => {
            drop(lock);
            return holder::run(stage, &run, Mode::Foreground).map(|()| None);
        }
        false => start_and_wait(&run, &programs, stage),
    };
    // A start that has failed leaves nothing.
    if outcome.is_err() && written.is_some() {
        let _ = fs::remove_file(file);
    }
    outcome.map(Some)
}

/// Runs `check`.
pub fn check(file: &str, stage: &mut Stage) -> Result<()> {
    let config = parse(&read_file(file)?, file)?;
    let policy = check_all(&config, file, &Programs::find()?)?;
    warn(&policy, stage);
    print(&described(&config, file), stage)
}

fn described(config: &Config, file: &str) -> String {
    let mut text = format!("{file}: front end at {}\n", config.front.listen);
    for seat in &config.seats {
        text += &format!("{}.{}: {:?}\n", seat.role.table(), seat.name, seat.runs);
    }
    text
}

fn warn(policy: &CheckedPolicy, stage: &mut Stage) {
    for warning in &policy.warnings {
        stage.report.warn(warning);
    }
}

fn read_file(file: &str) -> Result<String> {
    fs::read_to_string(file).map_err(|error| {
        usage(format!(
            "{file}: cannot read: {error}; name the file, or begin with `rv-up start \
             --production URL` or `rv-up demo`"
        ))
    })
}

/// The text of the file that `--production` makes; `None` without the flag, and if the
/// file has this text already.
fn written_file(file: &str, args: &StartArgs) -> Result<Option<String>> {
    let Some(production) = &args.production else {
        return Ok(None);
    };
    let text = file_of(production, args)?;
    match fs::read_to_string(file) {
        Ok(there) if there == text => Ok(None),
        Ok(_) => Err(usage(format!(
            "{file} exists and says something else: start it with `rv-up start`, or name another \
             file with --file"
        ))),
        Err(_) => Ok(Some(text)),
    }
}

/// The file for a production server and its shadows.
fn file_of(production: &str, args: &StartArgs) -> Result<String> {
    let url = reqwest::Url::parse(production)
        .map_err(|error| usage(format!("--production {production}: {error}")))?;
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut text = String::from(
        "# Written by `rv-up start --production`. Change it as you like, then run `rv-up reload`.\n",
    );
    if let Some(dir) = args.dir.as_deref().filter(|dir| *dir != DIR) {
        text += &format!("dir = {}\n", quoted(dir));
    }
    let listen = args.listen.as_deref().unwrap_or(LISTEN);
    text += &format!("\n[front]\nlisten = {}\n", quoted(listen));
    // Clients call the path that they called before.
    text += &format!("plain = {}\n", quoted(url.path()));
    if let Some(admin) = &args.admin {
        text += &format!("\n[admin]\nlisten = {}\n", quoted(admin));
    }
    text += &format!(
        "\n[model.production]\nurl = {}\nversion = 1\n",
        quoted(production)
    );
    for (index, shadow) in args.shadow.iter().enumerate() {
        let name = match index {
            0 => "shadow".to_owned(),
            index => format!("shadow{}", index + 1),
        };
        text += &format!(
            "\n[shadow.{name}]\nexec = {}\nversion = 1\n",
            quoted(shadow)
        );
    }
    text += "\n[archive]\n";
    Ok(text)
}

/// Removes what an earlier run has left and this run must not find.
fn clear(run: &RunFolder) -> Result<()> {
    run.remove_pipes()?;
    for name in [STARTED, STOPPING, "control.sock"] {
        let _ = fs::remove_file(run.path(name));
    }
    let notes = run.path("processes");
    for note in fs::read_dir(&notes)
        .with_context(|| notes.clone())?
        .flatten()
    {
        let _ = fs::remove_file(note.path());
    }
    Ok(())
}

/// Starts the holder, and waits until the supervisor says that everything runs.
fn start_and_wait(run: &RunFolder, programs: &Programs, stage: &mut Stage) -> Result<String> {
    let log = run.path("logs/rv-up.log");
    let mut options = fs::File::options();
    let journal = options.append(true).create(true).open(&log);
    let journal = journal.with_context(|| format!("{log}: cannot open"))?;
    let mut holder = Command::new(&programs.own)
        .arg(format!("--file={}", run.file))
        .arg("hold")
        .arg(format!("--dir={}", run.dir))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(journal)
        .spawn()
        .context("rv-up hold")?;
    let until = Instant::now() + SUPERVISOR_PATIENCE;
    loop {
        if let Some(reply) = ask(&run.dir, &Request::Started)? {
            return succeeded(reply);
        }
        let has_ended = holder.try_wait().is_ok_and(|ended| ended.is_some());
        if has_ended || Instant::now() >= until {
            // A start that has failed leaves nothing.
            end_leftovers(run, stage)?;
            let said = crate::up::log_file::last_lines(&log, 1).unwrap_or_default();
            return Err(anyhow!("it does not start: {}; see {log}", said.trim_end()));
        }
        if let Some(stop) = stage.signals.stop() {
            let _ = ask(&run.dir, &Request::Stop);
            return Err(crate::stage::EndedEarly::Signal(stop).into());
        }
        let soon = Instant::now() + Duration::from_millis(10);
        crate::stage::wait::wait(&[], &mut stage.signals, Some(soon))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::config::{Role, Runs};

    #[test]
    fn the_written_file_says_what_the_flags_said() {
        let args = StartArgs {
            production: Some("http://127.0.0.1:9001/classify".to_owned()),
            shadow: vec!["python3 next.py".to_owned(), "b \"c\"".to_owned()],
            listen: Some("127.0.0.1:0".to_owned()),
            admin: Some("127.0.0.1:9".to_owned()),
            dir: Some("there".to_owned()),
            ..StartArgs::default()
        };
        let text = file_of("http://127.0.0.1:9001/classify", &args).unwrap();
        let config = parse(&text, "rv.toml").unwrap();
        assert_eq!(
            (config.dir.as_str(), config.front.listen.as_str()),
            ("there", "127.0.0.1:0")
        );
        let plain = config.front.section.flag("plain").unwrap();
        assert_eq!(plain.arguments(), ["--plain=/classify"]);
        assert_eq!(config.admin.unwrap().listen, "127.0.0.1:9");
        let seats: Vec<_> = { config.seats.iter() }
            .map(|seat| (seat.role, seat.name.as_str(), seat.runs.clone()))
            .collect();
        let exec = |command: &str| Runs::Exec(command.to_owned());
        assert_eq!(
            seats,
            [
                (
                    Role::Model,
                    "production",
                    Runs::Url("http://127.0.0.1:9001/classify".to_owned())
                ),
                (Role::Shadow, "shadow", exec("python3 next.py")),
                (Role::Shadow, "shadow2", exec("b \"c\""))
            ]
        );
    }
}
