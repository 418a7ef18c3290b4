//! Reads the file.

use std::time::Duration;

use anyhow::Result;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::stage::usage;
use crate::up::config::content::{
    Admin, Config, Front, POLICY, Role, Runs, SEATS_MAX, Seat, Section, Supervision,
};
use crate::up::config::section::{FileFault, Keys, Source};
use crate::up::names::check_seat_name;

/// The default of `dir`.
pub const DIR: &str = "rv-run";

/// The default address of the front end.
pub const LISTEN: &str = "127.0.0.1:8000";

/// The default of `stuck_after`.
const STUCK_AFTER: Duration = Duration::from_secs(10);

const TOP_KEYS: [&str; 8] = [
    "dir",
    "policy",
    "front",
    "admin",
    "model",
    "shadow",
    "archive",
    "elasticsearch",
];

/// The flags that rv-up itself gives to every stage.
const OWN: [&str; 9] = [
    "input",
    "output",
    "resume",
    "follow",
    "stats",
    "completions",
    "man",
    "help",
    "check-flags",
];

/// The flags that rv-up itself gives to the front end.
const OWN_FRONT: [&str; 12] = [
    "input",
    "output",
    "resume",
    "follow",
    "stats",
    "completions",
    "man",
    "help",
    "check-flags",
    "responses",
    "answers",
    "clock",
];

/// The flags that rv-up itself gives to a model.
const OWN_SCORE: [&str; 16] = [
    "input",
    "output",
    "resume",
    "follow",
    "stats",
    "completions",
    "man",
    "help",
    "check-flags",
    "model",
    "model-version",
    "rescore",
    "keep-previous",
    "assume-elapsed",
    "clock",
    "version",
];

/// Parses the text of the file `name`. Each fault begins with the name and the line.
pub fn parse(text: &str, name: &str) -> Result<Config> {
    let source = Source(text);
    read(text, source)
        .map_err(|(at, message)| usage(format!("{name}:{}: {message}", source.line(&at))))
}

fn read(text: &str, source: Source) -> Result<Config, FileFault> {
    let table = DeTable::parse(text)
        .map_err(|error| (error.span().unwrap_or_default(), error.message().to_owned()))?;
    let mut top = Keys::new(source, "the file", 0..0, table.get_ref());
    let text_or = |found: Option<(String, usize)>, default: &str| {
        found.map_or_else(|| default.to_owned(), |(text, _)| text)
    };
    let dir = text_or(top.text("dir")?, DIR);
    let policy = text_or(top.text("policy")?, POLICY);
    let front = read_front(source, &mut top)?;
    let admin = read_admin(source, &mut top)?;
    let mut seats = Vec::new();
    for role in [Role::Model, Role::Shadow] {
        read_seats(source, &mut top, role, &mut seats)?;
    }
    let archive = optional_table(source, &mut top, "archive")?;
    let archive = archive.map(|keys| keys.flags("rv-archive", &[&OWN[..], &["dir"]].concat()));
    let archive = archive.transpose()?;
    let elasticsearch = optional_table(source, &mut top, "elasticsearch")?;
    let elasticsearch = elasticsearch
        .map(|keys| keys.flags("rv-es-sink", &OWN))
        .transpose()?;
    let supervision = read_supervision(source, &mut top)?;
    let known = [&TOP_KEYS[..], &["supervision"]].concat();
    top.finish(&known)?;
    // The seats are in the order of the file.
    seats.sort_by_key(|seat| seat.line);
    Ok(Config {
        dir,
        policy,
        front,
        admin,
        seats,
        archive,
        elasticsearch,
        supervision,
    })
}

/// The table with this name, if the file has it.
fn optional_table<'t, 'i>(
    source: Source<'t>,
    top: &mut Keys<'t, 'i>,
    name: &str,
) -> Result<Option<Keys<'t, 'i>>, FileFault> {
    match top.take(name) {
        None => Ok(None),
        Some((at, DeValue::Table(table))) => {
            let shown = format!("[{name}]");
            Ok(Some(Keys::new(source, &shown, at, table)))
        }
        Some((at, _)) => Err((at, format!("{name} must be a table: [{name}]"))),
    }
}

fn read_front<'t>(source: Source<'t>, top: &mut Keys<'t, '_>) -> Result<Front, FileFault> {
    let Some(mut keys) = optional_table(source, top, "front")? else {
        return Ok(Front {
            listen: LISTEN.to_owned(),
            listen_line: 1,
            section: Section {
                line: 1,
                flags: Vec::new(),
            },
        });
    };
    let line = keys.line();
    let (listen, listen_line) = keys
        .text("listen")?
        .unwrap_or_else(|| (LISTEN.to_owned(), line));
    Ok(Front {
        listen,
        listen_line,
        section: keys.flags("rv-request", &OWN_FRONT)?,
    })
}

fn read_admin<'t>(source: Source<'t>, top: &mut Keys<'t, '_>) -> Result<Option<Admin>, FileFault> {
    let Some(mut keys) = optional_table(source, top, "admin")? else {
        return Ok(None);
    };
    let at = keys.at();
    let listen = keys.text("listen")?;
    let token_file = keys.text("token_file")?.map(|(text, _)| text);
    keys.finish(&["listen", "token_file"])?;
    match listen {
        Some((listen, line)) => Ok(Some(Admin {
            listen,
            line,
            token_file,
        })),
        None => Err((
            at,
            "[admin] needs an address, as in listen = \"127.0.0.1:8001\"".to_owned(),
        )),
    }
}

fn read_supervision<'t>(
    source: Source<'t>,
    top: &mut Keys<'t, '_>,
) -> Result<Supervision, FileFault> {
    let mut supervision = Supervision {
        stuck_after: STUCK_AFTER,
        restart_when_stuck: false,
    };
    if let Some(mut keys) = optional_table(source, top, "supervision")? {
        if let Some(span) = keys.duration("stuck_after")? {
            supervision.stuck_after = span;
        }
        supervision.restart_when_stuck = keys.switch("restart_when_stuck")?;
        keys.finish(&["stuck_after", "restart_when_stuck"])?;
    }
    Ok(supervision)
}

/// Reads the seats of one role.
fn read_seats<'t>(
    source: Source<'t>,
    top: &mut Keys<'t, '_>,
    role: Role,
    seats: &mut Vec<Seat>,
) -> Result<(), FileFault> {
    let table = role.table();
    let Some((at, value)) = top.take(table) else {
        return Ok(());
    };
    let Some(named) = value.as_table() else {
        return Err((at, format!("{table} needs a name: [{table}.NAME]")));
    };
    for (key, value) in named {
        let name: &Spanned<std::borrow::Cow<str>> = key;
        let (at, name) = (name.span(), name.get_ref().as_ref());
        let Some(seat) = value.get_ref().as_table() else {
            return Err((at, format!("{table} needs a name: [{table}.NAME]")));
        };
        check_seat_name(name).map_err(|fault| (at.clone(), fault))?;
        if seats.iter().any(|other| other.name == name) {
            let fault = format!("a model and a shadow are called {name}; rename one of them");
            return Err((at, fault));
        }
        if seats.len() >= SEATS_MAX {
            return Err((at, format!("there are more than {SEATS_MAX} models")));
        }
        let keys = Keys::new(source, &format!("[{table}.{name}]"), at, seat);
        seats.push(read_seat(keys, role, name)?);
    }
    Ok(())
}

/// Makes what runs in a seat of its text.
type MakeRuns = fn(String) -> Runs;

fn read_seat(mut keys: Keys, role: Role, name: &str) -> Result<Seat, FileFault> {
    let at = keys.at();
    let line = keys.line();
    let place = format!("[{}.{name}]", role.table());
    let mut found = Vec::new();
    let kinds: [(&str, MakeRuns); 4] = [
        ("file", Runs::File),
        ("exec", Runs::Exec),
        ("url", Runs::Url),
        ("command", Runs::Command),
    ];
    for (key, runs) in kinds {
        if let Some((text, line)) = keys.text(key)? {
            found.push((runs(text), line));
        }
    }
    let one = found.pop();
    let (Some((runs, runs_line)), true) = (one, found.is_empty()) else {
        let fault = format!(
            "{place} needs exactly one of file (a model file), exec (a program), url (a server) \
             and command (a program that reads requests and writes scores)"
        );
        return Err((at, fault));
    };
    let model_name = keys.text("name")?.map(|(text, _)| text);
    let version = keys.number("version")?;
    let restart_when_stuck = keys.switch("restart_when_stuck")?;
    let is_own_file = matches!(&runs, Runs::File(path) if !is_onnx(path));
    if is_own_file && (model_name.is_some() || version.is_some()) {
        let fault = format!("{place}: the model file holds the name and the version; remove them");
        return Err((at, fault));
    }
    let section = keys.flags("rv-score", &OWN_SCORE)?;
    if let (Runs::Command(_), Some(flag)) = (&runs, section.flags.first()) {
        let fault = format!(
            "{place}: a command takes no flag {}; put it into the command",
            flag.name
        );
        return Err((at, fault));
    }
    Ok(Seat {
        role,
        name: name.to_owned(),
        line,
        runs,
        runs_line,
        model_name,
        version,
        section,
        restart_when_stuck,
    })
}

/// Whether a model file is an ONNX model.
pub fn is_onnx(path: &str) -> bool {
    path.ends_with(".onnx")
}
