//! Takes the keys of one table of the file, and refuses those that nobody took.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::stage::cli::duration;
use crate::up::config::content::Section;
use crate::up::config::flag::{Flag, read_value};

/// A fault of the file: its place in the text, in bytes, and the message.
pub type FileFault = (Range<usize>, String);

/// The text of the file, for the numbers of its lines.
#[derive(Clone, Copy, Debug)]
pub struct Source<'t>(pub &'t str);

impl Source<'_> {
    /// The line of a place, from 1.
    pub fn line(self, at: &Range<usize>) -> usize {
        let before = &self.0.as_bytes()[..at.start.min(self.0.len())];
        1 + memchr::memchr_iter(b'\n', before).count()
    }
}

/// One key of a table, its value, and their place.
type Entry<'t, 'i> = (String, Range<usize>, &'t Spanned<DeValue<'i>>);

/// The keys of one table that were not taken yet.
#[derive(Debug)]
pub struct Keys<'t, 'i> {
    source: Source<'t>,
    /// The name of the table, for messages.
    name: String,
    /// The place of the table.
    at: Range<usize>,
    entries: Vec<Entry<'t, 'i>>,
}

impl<'t, 'i> Keys<'t, 'i> {
    /// The keys of the table `name` at `at`.
    pub fn new(
        source: Source<'t>,
        name: &str,
        at: Range<usize>,
        table: &'t DeTable<'i>,
    ) -> Keys<'t, 'i> {
        let entry = |(key, value): (&Spanned<_>, &'t Spanned<DeValue<'i>>)| {
            let key: &Spanned<std::borrow::Cow<str>> = key;
            (key.get_ref().as_ref().to_owned(), key.span(), value)
        };
        Keys {
            source,
            name: name.to_owned(),
            at,
            entries: table.iter().map(entry).collect(),
        }
    }

    /// The place of the table.
    pub fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    /// The line of the table.
    pub fn line(&self) -> usize {
        self.source.line(&self.at)
    }

    /// Takes the value of a key, with its place.
    pub fn take(&mut self, key: &str) -> Option<(Range<usize>, &'t DeValue<'i>)> {
        let index = self.entries.iter().position(|(name, _, _)| name == key)?;
        let (_, at, value) = self.entries.remove(index);
        Some((at, value.get_ref()))
    }

    /// Takes a text that is not empty, with its line.
    pub fn text(&mut self, key: &str) -> Result<Option<(String, usize)>, FileFault> {
        let Some((at, value)) = self.take(key) else {
            return Ok(None);
        };
        let line = self.source.line(&at);
        match value.as_str() {
            Some(text) if !text.is_empty() && !text.contains(char::is_control) => {
                Ok(Some((text.to_owned(), line)))
            }
            Some(_) => Err((at, format!("{key} is empty or has a control character"))),
            None => Err((at, format!("{key} must be a text in quotes"))),
        }
    }

    /// Takes a whole number that is not negative.
    pub fn number(&mut self, key: &str) -> Result<Option<u64>, FileFault> {
        let Some((at, value)) = self.take(key) else {
            return Ok(None);
        };
        let number = value.as_integer().filter(|number| number.radix() == 10);
        match number.and_then(|number| number.as_str().parse().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err((at, format!("{key} must be a whole number, as in {key} = 4"))),
        }
    }

    /// Takes true or false; false if the key is absent.
    pub fn switch(&mut self, key: &str) -> Result<bool, FileFault> {
        match self.take(key) {
            None => Ok(false),
            Some((_, DeValue::Boolean(on))) => Ok(*on),
            Some((at, _)) => Err((at, format!("{key} must be true or false"))),
        }
    }

    /// Takes a duration such as "10s".
    pub fn duration(&mut self, key: &str) -> Result<Option<Duration>, FileFault> {
        let Some((at, value)) = self.take(key) else {
            return Ok(None);
        };
        let read = value.as_str().map(duration);
        match read {
            Some(Ok(span)) if !span.is_zero() => Ok(Some(span)),
            _ => Err((
                at,
                format!("{key} must be a duration, as in {key} = \"10s\""),
            )),
        }
    }

    /// Takes all other keys as flags of a program. `own` are the flags that only rv-up
    /// sets.
    pub fn flags(self, program: &str, own: &[&str]) -> Result<Section, FileFault> {
        let line = self.line();
        let mut flags = Vec::new();
        for (key, at, value) in self.entries {
            let name = key.replace('_', "-");
            let is_name = name.starts_with(|it: char| it.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || it == b'-');
            if !is_name {
                return Err((at, format!("{key:?} is no flag of {program}")));
            }
            if own.contains(&name.as_str()) {
                return Err((at, format!("rv-up itself sets {name}; remove this key")));
            }
            let value = read_value(value.get_ref())
                .map_err(|fault| (at.clone(), format!("{key} {fault}")))?;
            flags.push(Flag {
                name,
                value,
                line: self.source.line(&at),
            });
        }
        Ok(Section { line, flags })
    }

    /// Refuses the keys that were not taken. `known` are all keys of the table.
    pub fn finish(self, known: &[&str]) -> Result<(), FileFault> {
        match self.entries.into_iter().next() {
            None => Ok(()),
            Some((key, at, _)) => Err((
                at,
                format!(
                    "{key:?} is no key of {}; the keys are {}",
                    self.name,
                    known.join(", ")
                ),
            )),
        }
    }
}
