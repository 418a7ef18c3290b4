//! What a program says on stderr, and the records it sets aside.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;

use crate::stage::cli::{LogFormat, RunArgs};
use crate::stage::exit::usage;
use crate::stage::rejects::Rejects;
use crate::wire::lines::Line;
use crate::wire::object::ObjectWriter;
use crate::wire::reject::Reject;
use crate::wire::shape::{Shape, is_fragment};

/// How many set-aside records are reported one by one.
const REPORTED_IN_FULL: u64 = 10;

/// For how long the same message is held back.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// How many keys of messages are remembered before the quiet ones are forgotten.
const REPEATED_MAX: usize = 1000;

/// Of how many inputs it is remembered that they are JSON in another form.
const MISSHAPEN_MAX: usize = 100;

/// How many good lines may stand between two pieces of JSON in another form: the
/// last item of an array may be a record by itself.
const MISSHAPEN_GAP_LINES: u64 = 8;

/// The longest piece of input shown in a message, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Messages and rejects of one program.
#[derive(Debug)]
pub struct Report {
    program: &'static str,
    format: LogFormat,
    quiet: bool,
    /// Whether the summary at the end is wanted even where all went well.
    summary_wanted: bool,
    strict: bool,
    rejects: Option<(String, Rejects)>,
    /// Records that were set aside, by [`Reject::LABELS`].
    rejected: [u64; Reject::LABELS.len()],
    /// Files that could not be read, or not to their end.
    damaged: u64,
    /// How many of them were shown one by one.
    shown: u64,
    /// The inputs that are JSON in another form than one object a line, and the
    /// last line of each that was a piece of it.
    misshapen: HashMap<String, u64>,
    /// By key: when the message was last printed, and how often it was held
    /// back since.
    repeated: HashMap<String, (Instant, u64)>,
    /// By key: the message that was last printed of what is told only anew.
    news: HashMap<&'static str, Told>,
}

/// A message that may come again.
#[derive(Debug)]
struct Told {
    message: String,
    at: Instant,
    /// How often it was held back since.
    held_back: u64,
}

impl Report {
    /// Opens the file of rejects, if there is to be one, at its end.
    pub fn new(program: &'static str, args: &RunArgs) -> Result<Report> {
        let rejects = match &args.rejects {
            Some(path) => {
                // A pipe whose reader has stopped would stop the program too,
                // where no signal could end it.
                if fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
                    return Err(usage(format!(
                        "--rejects {path}: is a pipe; name a file, and follow it with `tail -F`"
                    )));
                }
                // What was refused may be as secret as what was not.
                let mut options = OpenOptions::new();
                let file = options.append(true).create(true).mode(0o600).open(path);
                let file =
                    file.with_context(|| format!("{path}: cannot open for the rejected records"))?;
                Some((path.clone(), Rejects::new(file)))
            }
            None => None,
        };
        Ok(Report {
            program,
            format: args.log_format,
            quiet: args.quiet,
            summary_wanted: args.verbose || std::io::stderr().is_terminal(),
            strict: args.strict,
            rejects,
            rejected: [0; Reject::LABELS.len()],
            damaged: 0,
            shown: 0,
            misshapen: HashMap::new(),
            repeated: HashMap::new(),
            news: HashMap::new(),
        })
    }

    /// The name under which the program speaks.
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Whether only errors are wanted.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// How many records were set aside so far.
    pub fn rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// How many records were set aside so far, by the label of the reason. Labels
    /// without any are left out.
    pub fn rejected_by_label(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.rejected.iter().copied();
        Reject::LABELS.into_iter().zip(counts).filter(|it| it.1 > 0)
    }

    /// Says something that the user should know. `-q` silences it.
    pub fn warn(&self, message: &str) {
        if !self.quiet {
            say(self.program, self.format, "warning", message);
        }
    }

    /// Says what is going on. `-q` silences it.
    pub fn info(&self, message: &str) {
        if !self.quiet {
            say(self.program, self.format, "info", message);
        }
    }

    /// Like [`warn`](Report::warn), for what can come often: under one key, a
    /// message in 10 s, with the number of those held back.
    pub fn warn_seldom(&mut self, key: &str, message: &str) {
        let now = Instant::now();
        let held_back = match self.repeated.get_mut(key) {
            Some((last, held_back)) if now - *last < REPEAT_AFTER => {
                *held_back += 1;
                return;
            }
            Some((_, held_back)) => *held_back,
            None => 0,
        };
        // A key that has been quiet is a new one next time.
        if self.repeated.len() >= REPEATED_MAX {
            self.repeated.retain(|_, (last, held_back)| {
                *held_back > 0 || now.saturating_duration_since(*last) < REPEAT_AFTER
            });
        }
        self.repeated.insert(key.to_owned(), (now, 0));
        if held_back > 0 {
            self.warn(&format!("{message} ({held_back} more like this)"));
        } else {
            self.warn(message);
        }
    }

    /// Like [`warn`](Report::warn), for what can come often and says each time how
    /// things are: the same message under one key once in 10 s, with the number of
    /// those held back, and another one at once.
    pub fn warn_if_new(&mut self, key: &'static str, message: &str) {
        if let Some(message) = self.unless_told(key, message, Instant::now()) {
            self.warn(&message);
        }
    }

    /// Like [`warn_if_new`](Report::warn_if_new), for what is no reason to worry.
    pub fn info_if_new(&mut self, key: &'static str, message: &str) {
        if let Some(message) = self.unless_told(key, message, Instant::now()) {
            self.info(&message);
        }
    }

    fn unless_told(&mut self, key: &'static str, message: &str, now: Instant) -> Option<String> {
        let held_back = match self.news.get_mut(key) {
            Some(last) if last.message == message => {
                if now.saturating_duration_since(last.at) < REPEAT_AFTER {
                    last.held_back += 1;
                    return None;
                }
                last.held_back
            }
            Some(_) | None => 0,
        };
        let told = Told {
            message: message.to_owned(),
            at: now,
            held_back: 0,
        };
        self.news.insert(key, told);
        Some(match held_back {
            0 => message.to_owned(),
            _ => format!("{message} ({held_back} more like this)"),
        })
    }

    /// Says how the run went, where anybody wants to know.
    pub fn summary(&self, message: &str) {
        if !self.quiet && (self.summary_wanted || self.rejected() > 0) {
            say(self.program, self.format, "info", message);
        }
    }

    /// Says something that was asked for, such as the stats on SIGUSR1.
    pub fn tell(&self, message: &str) {
        say(self.program, self.format, "info", message);
    }

    /// Sets a record aside: counts and reports it, and keeps it whole in the file of
    /// rejects. With `--strict` it is an error.
    pub fn reject(&mut self, input: &str, line: &Line, reject: &Reject) -> Result<()> {
        self.rejected[reject.label_index()] += 1;
        let reason = match line.oversized {
            Some(length) => format!("{reject}; its first 1 KiB is kept ({length} bytes)"),
            None => reject.to_string(),
        };
        if let Some((path, rejects)) = &mut self.rejects {
            let mut text = Vec::with_capacity(line.bytes.len() + 200);
            write_reject(&mut text, self.program, input, line, &reason);
            rejects
                .write(&text)
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        let hint = match self.hint(input, line) {
            Hint::None => String::new(),
            Hint::First(shape) => format!(
                "; {}. Lines like this one are counted, not shown",
                shape.remedy()
            ),
            Hint::Again => return Ok(()),
        };
        if self.strict {
            self.flush()?;
            bail!("{input}:{}: {reason}{hint}", line.number);
        }
        self.shown += 1;
        if self.shown <= REPORTED_IN_FULL {
            self.warn(&format!("{input}:{}: {reason}{hint}", line.number));
        } else if self.shown == REPORTED_IN_FULL + 1 {
            self.warn("further rejected records are counted, not shown");
        }
        Ok(())
    }

    /// How many files could not be read, or not to their end.
    pub fn damaged_files(&self) -> u64 {
        self.damaged
    }

    /// Says that a file could not be read, or not to its end, and counts it: the
    /// others are read all the same. With `--strict` it is an error.
    pub fn damaged(&mut self, message: &str) -> Result<()> {
        self.damaged += 1;
        if self.strict {
            self.flush()?;
            bail!("{message}");
        }
        if self.damaged <= REPORTED_IN_FULL {
            self.warn(message);
        } else if self.damaged == REPORTED_IN_FULL + 1 {
            self.warn("further files that cannot be read are counted, not shown");
        }
        Ok(())
    }

    /// Says at the end how many files that were, where not all were shown.
    pub fn sum_up_damaged(&self) {
        if self.damaged > REPORTED_IN_FULL {
            self.warn(&format!(
                "{} files could not be read, or not to their end",
                self.damaged
            ));
        }
    }

    /// What is to be said of a line beside its fault: of JSON in another form, once
    /// what to do about all of it.
    fn hint(&mut self, input: &str, line: &Line) -> Hint {
        if self.shown > REPORTED_IN_FULL && self.misshapen.is_empty() {
            // Nothing is shown any more.
            return Hint::None;
        }
        let record = line.head();
        let shape = match line.oversized {
            Some(_) => Shape::of_head(record),
            None => Shape::of(record),
        };
        if let Some(last) = self.misshapen.get_mut(input)
            && line.number.saturating_sub(*last) <= MISSHAPEN_GAP_LINES
            && (shape.is_some() || line.oversized.is_none() && is_fragment(record))
        {
            *last = line.number;
            return Hint::Again;
        }
        match shape {
            Some(shape)
                if self.misshapen.len() < MISSHAPEN_MAX && !self.misshapen.contains_key(input) =>
            {
                self.misshapen.insert(input.to_owned(), line.number);
                Hint::First(shape)
            }
            _ => Hint::None,
        }
    }

    /// Hands the rejects written so far to the operating system. To be called
    /// before every wait.
    pub fn flush(&mut self) -> Result<()> {
        if let Some((path, rejects)) = &mut self.rejects {
            rejects
                .flush()
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        self.say_lost();
        Ok(())
    }

    /// From now on a thread writes the rejected records: for a program whose answers
    /// cannot wait for a disk. What a full or slow disk does not take is counted.
    pub fn write_rejects_beside(&mut self) -> Result<()> {
        if let Some((path, rejects)) = &mut self.rejects {
            rejects
                .write_beside()
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        Ok(())
    }

    /// How many rejected records the file does not hold.
    pub fn rejects_lost(&self) -> u64 {
        self.rejects.as_ref().map_or(0, |(_, it)| it.lost())
    }

    /// Waits for the thread that writes the rejected records, where there is one, but
    /// not for ever.
    pub fn finish_rejects(&mut self) {
        let Some((path, rejects)) = &mut self.rejects else {
            return;
        };
        let lost = rejects.finish();
        if lost > 0 {
            let message = format!("{path}: {lost} rejected records could not be kept");
            self.warn(&message);
        }
    }

    fn say_lost(&mut self) {
        if let Some((path, rejects)) = &self.rejects
            && rejects.lost() > 0
        {
            let lost = rejects.lost();
            let message = format!(
                "{path}: the disk is full or too slow; {lost} rejected records were counted and not kept"
            );
            self.warn_seldom("rejects", &message);
        }
    }
}

/// What is to be said of a rejected line beside its fault.
enum Hint {
    /// Nothing.
    None,
    /// It is JSON of this form, which was not said of its input yet.
    First(Shape),
    /// It is one more piece of JSON of which that was said: nothing at all.
    Again,
}

fn write_reject(out: &mut Vec<u8>, program: &str, input: &str, line: &Line, reason: &str) {
    let mut reject = ObjectWriter::new(out);
    reject
        .string("program", program)
        .string("input", input)
        .display("line", line.number)
        .display("offset", line.offset)
        .string("reason", reason);
    match std::str::from_utf8(line.bytes) {
        Ok(text) => reject.string("raw", text),
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(line.bytes);
            reject.string("rawBase64", &text)
        }
    };
    reject.end();
    out.push(b'\n');
}

/// Prints one message. The one place of the library that writes to stderr, but
/// for the progress bar. A stderr that takes nothing is no reason to stop.
pub fn say(program: &str, format: LogFormat, level: &str, message: &str) {
    let mut text = Vec::new();
    match format {
        LogFormat::Text => {
            text.extend_from_slice(format!("{program}: {}\n", escaped(message)).as_bytes());
        }
        LogFormat::Json => {
            let time = crate::stage::clock::Clock::system().unix();
            let mut object = ObjectWriter::new(&mut text);
            object
                .display("time", time.as_seconds())
                .string("level", level)
                .string("program", program)
                .string("message", message);
            object.end();
            text.push(b'\n');
        }
    }
    let _ = std::io::stderr().write_all(&text);
}

/// Whether a character moves the cursor, turns the direction of writing, ends a line
/// or is not to be seen.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Input as it may be shown: what is hidden is escaped, so that no record can move the
/// cursor, forge a line or show another text than it is.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            let _ = write!(shown, "\\u{{{:x}}}", character as u32);
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A piece of input for a message, cut short and in quotes.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{:?}{dots}", cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(
            escaped("a\u{1b}[2Jb\rc\u{9b}"),
            "a\\u{1b}[2Jb\\u{d}c\\u{9b}"
        );
        // Directions of writing, white space of no width, line ends of Unicode, tags.
        for hidden in [
            '\u{202e}',
            '\u{2066}',
            '\u{200b}',
            '\u{2028}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let expected = format!("a\\u{{{:x}}}b", hidden as u32);
            assert_eq!(escaped(&format!("a{hidden}b")), expected);
        }
        assert_eq!(escaped("ä€😀 日本"), "ä€😀 日本");
        assert_eq!(shown("a\"\n"), "\"a\\\"\\n\"");
        assert_eq!(shown(&"x".repeat(300)).len(), SHOWN_CHARS_MAX + 5);
    }

    #[test]
    fn the_same_news_is_told_seldom_and_others_at_once() {
        let args = <crate::serve::decoy::DecoyArgs as clap::Parser>::parse_from(["rv-decoy"]);
        let run = crate::stage::program::Program::run_args(&args).clone();
        let mut report = Report::new("test", &run).unwrap();
        let start = Instant::now();
        let mut told = |message, seconds| {
            let now = start + Duration::from_secs(seconds);
            report.unless_told("reload", message, now)
        };
        assert_eq!(told("a", 0).as_deref(), Some("a"));
        assert_eq!(told("a", 1), None);
        assert_eq!(told("a", 9), None);
        assert_eq!(told("b", 9).as_deref(), Some("b"));
        assert_eq!(told("a", 9).as_deref(), Some("a"));
        assert_eq!(told("a", 10), None);
        assert_eq!(told("a", 20).as_deref(), Some("a (1 more like this)"));
        assert_eq!(told("a", 30).as_deref(), Some("a"));
    }

    #[test]
    fn a_reject_keeps_every_byte() {
        let mut out = Vec::new();
        let line = Line {
            bytes: b"{\"a\":\xff",
            number: 17,
            offset: 1234,
            oversized: None,
        };
        write_reject(&mut out, "rv-score", "requests.fifo", &line, "not UTF-8");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"program\":\"rv-score\",\"input\":\"requests.fifo\",\"line\":17,\"offset\":1234,\"reason\":\"not UTF-8\",\"rawBase64\":\"eyJhIjr/\"}\n"
        );
    }
}
