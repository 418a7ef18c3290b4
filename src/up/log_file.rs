//! Logs: each line with its time, in files of bounded size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use chrono::DateTime;

use crate::stage::clock::Clock;
use crate::stage::report::escaped;
use crate::up::pipes;

/// A log that would get larger than this is renamed, and a new one begins. One old log is
/// kept.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The longest line, in bytes. A longer one is divided.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The largest number of bytes that are read from one stage before the others get their
/// turn.
const READ_BYTES_MAX: usize = 64 << 10;

/// A log file.
#[derive(Debug)]
pub struct LogFile {
    path: String,
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Opens a log, to append to it.
    pub fn open(path: &str) -> io::Result<LogFile> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    /// Appends a line with its time. Characters that would change a terminal are escaped.
    pub fn append(&mut self, line: &str) -> io::Result<()> {
        let text = format!("{} {}\n", now(), escaped(line));
        if self.bytes + text.len() as u64 > FILE_BYTES_MAX {
            fs::rename(&self.path, format!("{}.1", self.path))?;
            *self = LogFile::open(&self.path)?;
        }
        self.file.write_all(text.as_bytes())?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

/// The present time, in UTC, to the millisecond.
fn now() -> String {
    let time = Clock::system().unix();
    let time = DateTime::from_timestamp_micros(time.0);
    time.map_or_else(String::new, |time| time.format("%FT%T%.3fZ").to_string())
}

/// The messages of one stage, on their way from its standard error to its log.
#[derive(Debug)]
pub struct StageLog {
    pipe: OwnedFd,
    file: LogFile,
    /// The beginning of a line that has not ended.
    begun: Vec<u8>,
    /// The last line, for messages about the stage.
    last: String,
}

impl StageLog {
    /// The log of the stage whose messages come through `pipe`.
    pub fn open(pipe: &str, path: &str) -> io::Result<StageLog> {
        Ok(StageLog {
            pipe: pipes::open_for_messages(pipe)?,
            file: LogFile::open(path)?,
            begun: Vec::new(),
            last: String::new(),
        })
    }

    /// A descriptor that is readable when there are messages.
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// The last line; empty if there was none since the start.
    pub fn last(&self) -> &str {
        &self.last
    }

    /// Moves the messages that are there into the log. A log that cannot be written loses
    /// its lines, because a full disk must not stop the stages.
    pub fn advance(&mut self) {
        let mut block = vec![0; READ_BYTES_MAX];
        let Ok(count) = rustix::io::read(&self.pipe, &mut block[..]) else {
            return;
        };
        self.begun.extend_from_slice(&block[..count]);
        while let Some(end) = self.line_end() {
            let rest = self.begun.split_off(end);
            let line = std::mem::replace(&mut self.begun, rest);
            self.write(&line);
        }
    }

    /// Writes the last line of a stage that has ended, even if it has no end.
    pub fn finish_line(&mut self) {
        self.advance();
        let line = std::mem::take(&mut self.begun);
        if !line.is_empty() {
            self.write(&line);
        }
    }

    /// Appends a message of the supervisor about the stage.
    pub fn note(&mut self, message: &str) {
        let _ = self.file.append(&format!("rv-up: {message}"));
    }

    /// The end of the first line, with its newline.
    fn line_end(&self) -> Option<usize> {
        match memchr::memchr(b'\n', &self.begun) {
            Some(at) => Some((at + 1).min(LINE_BYTES_MAX)),
            None => (self.begun.len() >= LINE_BYTES_MAX).then_some(LINE_BYTES_MAX),
        }
    }

    fn write(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        if !line.is_empty() {
            let _ = self.file.append(line);
            line.clone_into(&mut self.last);
        }
    }
}

/// The last lines of a log, with those of the log before it.
pub fn last_lines(path: &str, count: usize) -> io::Result<String> {
    let mut text = String::new();
    for path in [format!("{path}.1"), path.to_owned()] {
        match File::open(&path) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                text += &String::from_utf8_lossy(&bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let starts: Vec<usize> = std::iter::once(0)
        .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1))
        .filter(|at| *at < text.len())
        .collect();
    let from = starts.len().saturating_sub(count);
    let from = starts.get(from).copied().unwrap_or(text.len());
    Ok(text.split_off(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (tempfile::TempDir, String, StageLog, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (pipe, file) = (path("pipe"), path("a.log"));
        pipes::make(&pipe).unwrap();
        let log = StageLog::open(&pipe, &file).unwrap();
        let writer = File::from(pipes::open_for_stage(&pipe).unwrap());
        (folder, file, log, writer)
    }

    #[test]
    fn each_line_has_a_time_and_moves_no_cursor() {
        let (_folder, path, mut log, mut writer) = log();
        writer.write_all(b"one\ntw").unwrap();
        log.advance();
        writer.write_all(b"o\x1b[2J\n\nthree").unwrap();
        log.advance();
        assert_eq!(log.last(), "two\u{1b}[2J");
        log.finish_line();
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<(&str, &str)> = { text.lines() }
            .map(|line| line.split_once(' ').unwrap())
            .collect();
        let said: Vec<&str> = lines.iter().map(|(_, said)| *said).collect();
        assert_eq!(said, ["one", "two\\u{1b}[2J", "three"]);
        for (time, _) in lines {
            assert!(DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
        }
    }

    #[test]
    fn a_log_is_bounded_and_its_last_lines_span_both_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log").to_str().unwrap().to_owned();
        let mut log = LogFile::open(&path).unwrap();
        let line = "x".repeat(1 << 20);
        for index in 0..20 {
            log.append(&format!("{index} {line}")).unwrap();
        }
        for name in [path.clone(), format!("{path}.1")] {
            assert!(fs::metadata(name).unwrap().len() <= FILE_BYTES_MAX);
        }
        let last = last_lines(&path, 9).unwrap();
        let indices: Vec<&str> = { last.lines() }
            .map(|line| line.split(' ').nth(1).unwrap())
            .collect();
        assert_eq!(indices.len(), 9);
        assert_eq!(indices.last(), Some(&"19"));
        assert_eq!(last_lines("/nowhere", 3).unwrap(), "");
    }

    #[test]
    fn an_endless_line_is_divided() {
        let (_folder, path, mut log, mut writer) = log();
        for _ in 0..3 {
            writer.write_all(&[b'y'; LINE_BYTES_MAX]).unwrap();
            log.advance();
        }
        assert!(log.begun.len() < LINE_BYTES_MAX);
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 3);
    }
}
