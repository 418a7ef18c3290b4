//! Adds a seat to the text of the file, or removes one. All other text stays as it is.

use anyhow::Result;

use crate::stage::usage;
use crate::up::config::content::{Config, Role, Runs, Seat};
use crate::up::config::flag::FlagValue;
use crate::up::config::parse::parse;

/// The text of one seat's table.
pub fn section_of(seat: &Seat) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let (key, value) = match &seat.runs {
        Runs::File(path) => ("file", path),
        Runs::Exec(command) => ("exec", command),
        Runs::Url(url) => ("url", url),
        Runs::Command(command) => ("command", command),
    };
    let mut text = format!("[{}.{}]\n", seat.role.table(), key_of(&seat.name));
    text += &format!("{key} = {}\n", quoted(value));
    if let Some(name) = &seat.model_name {
        text += &format!("name = {}\n", quoted(name));
    }
    if let Some(version) = seat.version {
        text += &format!("version = {version}\n");
    }
    if seat.restart_when_stuck {
        text += "restart_when_stuck = true\n";
    }
    for flag in &seat.section.flags {
        let value = match &flag.value {
            FlagValue::Switch(on) => on.to_string(),
            FlagValue::Values(values) => match values.as_slice() {
                [one] => quoted(one),
                several => {
                    let several: Vec<String> = several.iter().map(|it| quoted(it)).collect();
                    format!("[{}]", several.join(", "))
                }
            },
        };
        text += &format!("{} = {value}\n", flag.name.replace('-', "_"));
    }
    text
}

/// The name as a key of TOML: in quotes if it needs them.
fn key_of(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match name.bytes().all(is_bare) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

/// The text with one more seat at its end. Fails if the file has a seat of this name, or
/// if the seat is not valid.
pub fn with_seat(text: &str, file: &str, role: Role, name: &str, section: &str) -> Result<String> {
    let before = parse(text, file)?;
    if let Some(seat) = before.seat(name) {
        return Err(usage(format!(
            "{file}:{}: {name} exists already; remove it first",
            seat.line
        )));
    }
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let after = format!("{text}{gap}{section}");
    let config = parse(&after, file)?;
    let is_added = config.seat(name).is_some_and(|seat| seat.role == role);
    match is_added && config.seats.len() == before.seats.len() + 1 {
        true => Ok(after),
        false => Err(usage(format!(
            "{file}: {name} cannot be added; add [{}.{name}] to the file, and run `rv-up reload`",
            role.table()
        ))),
    }
}

/// The text without a seat. Fails if there is no seat of this name, or if its table is
/// written in a form that cannot be cut out.
pub fn without_seat(text: &str, file: &str, name: &str) -> Result<String> {
    let before = parse(text, file)?;
    let Some(seat) = before.seat(name) else {
        return Err(usage(format!("no model is called {name}")));
    };
    let kept = cut(text, seat.line);
    let after = parse(&kept, file).ok();
    let is_removed = after.is_some_and(|after| {
        let names = |config: &Config| -> Vec<(Role, String)> {
            let seats = config.seats.iter();
            seats.map(|seat| (seat.role, seat.name.clone())).collect()
        };
        let mut expected = names(&before);
        expected.retain(|(_, other)| other != name);
        names(&after) == expected
    });
    match is_removed {
        true => Ok(kept),
        false => Err(usage(format!(
            "{file}:{}: {name} cannot be cut out of the file; remove it there, and run \
             `rv-up reload`",
            seat.line
        ))),
    }
}

/// The text without the table whose header is on `line`. The blank lines before the table
/// go with it. Comments right above the next table belong to that table.
pub(super) fn cut(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let is_blank = |index: usize| lines[index].trim().is_empty();
    let mut start = line.saturating_sub(1).min(lines.len());
    let mut end = (start + 1).min(lines.len());
    while end < lines.len() && !lines[end].trim_start().starts_with('[') {
        end += 1;
    }
    if end < lines.len() {
        while end > start + 1 && lines[end - 1].trim_start().starts_with('#') {
            end -= 1;
        }
        while end > start + 1 && is_blank(end - 1) {
            end -= 1;
        }
    }
    while start > 0 && is_blank(start - 1) {
        start -= 1;
    }
    lines[..start].concat() + &lines[end..].concat()
}
