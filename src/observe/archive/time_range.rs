//! `--since` and `--until`: selects the records in a time range, and the files that may
//! contain them.

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use clap::Args;

use crate::observe::archive::file_id::FileId;
use crate::stage::Stage;
use crate::stage::cli::duration;
use crate::stage::clock::Clock;
use crate::stream::archives::{FileKind, RecordedFile, recorded_files};
use crate::wire::lines::Line;
use crate::wire::micros::Micros;
use crate::wire::object::value_of;
use crate::wire::reject::Reject;

/// The number of bytes of a file that are searched for its first timestamp.
const PEEK_BYTES: u64 = 256 * 1024;

/// The flags of a time range.
#[derive(Args, Clone, Debug, Default)]
pub struct TimeRangeArgs {
    /// Select only records whose `timestamp` is at TIME or later. TIME is a date such
    /// as `2026-05-01`, a time such as `2026-05-01T12:30:00Z`, seconds since 1970, or
    /// a span before now such as `2h`. A line without a timestamp gets that of the
    /// previous line
    #[arg(long, value_name = "TIME")]
    since: Option<TimeArgument>,

    /// Select only records whose `timestamp` is before TIME
    #[arg(long, value_name = "TIME")]
    until: Option<TimeArgument>,

    /// With --since and --until: skip a file if the time in its name is outside the
    /// range by more than this, and its first record is outside the range, too
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    slack: Duration,
}

/// A time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeArgument(Micros);

impl FromStr for TimeArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<TimeArgument, String> {
        if let Some(date) = bare_date(text) {
            return Err(format!(
                "means seconds since 1970; for a date write {date}, and for seconds write {text}.0"
            ));
        }
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Micros::parse_timestamp(text).map(TimeArgument);
        }
        if let Ok(ago) = duration(text) {
            return Ok(TimeArgument(
                Clock::system().unix() - Micros::from_duration(ago),
            ));
        }
        let utc = if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            time.to_utc()
        } else if let Ok(time) = text.parse::<NaiveDateTime>() {
            time.and_utc()
        } else if let Ok(day) = text.parse::<NaiveDate>() {
            day.and_time(chrono::NaiveTime::MIN).and_utc()
        } else {
            return Err(
                "must be like 2026-05-01, 2026-05-01T12:30:00Z (UTC where no zone is given), \
                 1777638600.5, or 2h for two hours ago"
                    .to_owned(),
            );
        };
        Ok(TimeArgument(Micros(utc.timestamp_micros())))
    }
}

/// The date that a number such as 20260501 probably means, in a form that the flags
/// accept. Read as seconds, nearly all such numbers would be times in the year 1970.
fn bare_date(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let padded = match text.len() {
        4 => format!("{text}0101000000"),
        6 => format!("{text}01000000"),
        8 => format!("{text}000000"),
        12 => format!("{text}00"),
        14 => text.to_owned(),
        _ => return None,
    };
    let date = NaiveDateTime::parse_from_str(&padded, "%Y%m%d%H%M%S").ok()?;
    let form = match text.len() {
        ..=8 => "%Y-%m-%d",
        _ => "%Y-%m-%dT%H:%M:%SZ",
    };
    let is_plausible = (1970..2200).contains(&date.date().year());
    is_plausible.then(|| date.format(form).to_string())
}

/// The times that are not before `since` and are before `until`.
#[derive(Clone, Copy, Debug)]
pub struct TimeRange {
    since: Option<Micros>,
    until: Option<Micros>,
    slack: Micros,
}

impl TimeRangeArgs {
    /// The range that the flags give.
    pub fn range(&self) -> TimeRange {
        TimeRange {
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
            slack: Micros::from_duration(self.slack),
        }
    }
}

impl TimeRange {
    /// Whether the range has neither a start nor an end.
    pub fn is_unbounded(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// Whether a record of this time is in the range. A record of unknown time counts
    /// as in the range.
    pub fn contains(&self, time: Option<Micros>) -> bool {
        let Some(time) = time else { return true };
        self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until)
    }

    /// The files that may contain records of the range.
    ///
    /// A record is archived after its timestamp. So a file that was closed well before
    /// `since` contains no record of the range. A file that was created well after
    /// `until` contains no such record either, unless records were archived late. But
    /// names can be wrong. So the first records of skipped files are read, beginning
    /// with the files next to the range. The search ends at the first file whose record
    /// is outside the range, or when `is_stopped` returns true.
    fn select(
        &self,
        files: Vec<RecordedFile>,
        mut is_stopped: impl FnMut() -> bool,
    ) -> Vec<RecordedFile> {
        if self.is_unbounded() {
            return files;
        }
        let created: Vec<Option<Micros>> = files.iter().map(creation_time).collect();
        let (mut first, mut end) = (0, files.len());
        if let Some(since) = self.since {
            let old = |time: &Option<Micros>| time.is_some_and(|time| time <= since - self.slack);
            // A file was closed when the next file was created. So all files
            // before the last old file were closed before the range.
            first = created.iter().rposition(old).unwrap_or(0);
            while first > 0
                && !is_stopped()
                && first_timestamp_is(&files[first - 1], |time| time >= since)
            {
                first -= 1;
            }
        }
        if let Some(until) = self.until {
            let young = |time: &Option<Micros>| time.is_some_and(|time| time > until + self.slack);
            end = created.iter().position(young).unwrap_or(files.len());
            while end < files.len()
                && !is_stopped()
                && first_timestamp_is(&files[end], |time| time < until)
            {
                end += 1;
            }
        }
        let mut files = files;
        files.truncate(end);
        files.drain(..first.min(end));
        files
    }
}

/// The files of `paths` that may contain records of `range`, in order. After a signal to
/// stop, the list may contain further files.
pub fn files_in_range(
    stage: &mut Stage,
    paths: &[PathBuf],
    range: TimeRange,
) -> Result<Vec<RecordedFile>> {
    let mut files = Vec::new();
    for path in paths {
        let all = recorded_files(path)?;
        let count = all.len();
        let selected = range.select(all, || stage.signals.stop().is_some());
        if selected.len() < count {
            stage.report.summary(&format!(
                "{}: {} of {count} files are outside the time range",
                path.display(),
                count - selected.len()
            ));
        }
        files.extend(selected);
    }
    Ok(files)
}

/// The creation time of a file, from its name.
pub fn creation_time(file: &RecordedFile) -> Option<Micros> {
    let path = file.path();
    match FileKind::of(path.file_name()?.to_str()?)? {
        FileKind::Complete(id) | FileKind::Part(id) => FileId::parse(id).map(FileId::created),
        FileKind::Unfinished(_) => None,
    }
}

/// Whether the first timestamp near the start of a file satisfies `is_wanted`. An invalid
/// timestamp also counts as wanted, because its line must be rejected. A file that cannot
/// be read is not wanted. Its error is reported later, when the whole file is read.
fn first_timestamp_is(file: &RecordedFile, is_wanted: impl Fn(Micros) -> bool) -> bool {
    let mut start = Vec::new();
    let Ok(opened) = file.open() else {
        return false;
    };
    // The bytes before an error may contain a timestamp.
    let _ = opened.take(PEEK_BYTES).read_to_end(&mut start);
    let mut lines = start.split(|byte| *byte == b'\n');
    match lines.find_map(|line| timestamp_in(line).transpose()) {
        Some(time) => time.map_or(true, is_wanted),
        None => false,
    }
}

/// The timestamp of a line; `None` if the line is not a record or has no timestamp. The
/// error names the fault of the timestamp.
pub fn timestamp_of(line: &Line) -> Result<Option<Micros>, Reject> {
    line.record()?.map_or(Ok(None), timestamp_in)
}

fn timestamp_in(record: &[u8]) -> Result<Option<Micros>, Reject> {
    let text = std::str::from_utf8(record).ok();
    match text.and_then(|text| value_of(text, "timestamp")) {
        None | Some("null") => Ok(None),
        Some(raw) => Micros::parse_timestamp(raw)
            .map(Some)
            .map_err(|fault| Reject::Field(format!("field \"timestamp\" {fault}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::archives::LOCK_NAME;
    use tempfile::TempDir;

    fn parsed(text: &str) -> i64 {
        text.parse::<TimeArgument>().unwrap().0.0
    }

    #[test]
    fn times_are_written_in_many_ways() {
        let noon = 1_777_638_600_500_000;
        for text in [
            "1777638600.5",
            "2026-05-01T12:30:00.5Z",
            "2026-05-01T14:30:00.5+02:00",
            "2026-05-01T12:30:00.5",
        ] {
            assert_eq!(parsed(text), noon, "{text}");
        }
        assert_eq!(parsed("2026-05-01"), 1_777_593_600_000_000);
        let before = Clock::system().unix().0;
        let ago = parsed("2h") + 7_200_000_000;
        assert!((before..=Clock::system().unix().0).contains(&ago), "{ago}");
        for wrong in ["", "noon", "2026-13-01", "12:30", "inf", "-"] {
            assert!(wrong.parse::<TimeArgument>().is_err(), "{wrong}");
        }
        // A day without dashes, and a time in another unit.
        for (wrong, said) in [
            ("20231114", "write 2023-11-14"),
            ("1700000000000", "milliseconds?"),
        ] {
            let fault = wrong.parse::<TimeArgument>().unwrap_err();
            assert!(fault.contains(said), "{wrong}: {fault}");
        }
        // There is no month 99, so this number is seconds.
        assert_eq!(parsed("20239914"), 20_239_914_000_000);
    }

    #[test]
    fn digits_that_may_be_a_date_or_milliseconds_are_an_error_with_the_remedy() {
        for (text, remedy) in [
            ("20231114", "write 2023-11-14, and"),
            ("2023", "write 2023-01-01, and"),
            ("202311", "write 2023-11-01, and"),
            ("202311141230", "write 2023-11-14T12:30:00Z, and"),
            ("20231114123015", "write 2023-11-14T12:30:15Z, and"),
            ("1700000000500", "milliseconds? Divide them by 1000"),
            ("253402300800", "milliseconds? Divide them by 1000"),
        ] {
            let error = text.parse::<TimeArgument>().unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
        // A number that is not a date, or that has a fraction, is seconds.
        assert_eq!(parsed("20231114.0"), 20_231_114_000_000);
        assert_eq!(parsed("20231314"), 20_231_314_000_000);
        assert_eq!(parsed("0"), 0);
        assert_eq!(parsed("2023111412"), 2_023_111_412_000_000);
        assert_eq!(parsed("253402300799"), 253_402_300_799_000_000);
    }

    /// An archive with one part for each pair. The pair gives the creation time of the
    /// part and the timestamp of its record, in seconds.
    fn archive(files: &[(i64, f64)]) -> (TempDir, Vec<RecordedFile>) {
        let folder = TempDir::new().unwrap();
        for (created, time) in files {
            let id = FileId::after(None, Micros(created * 1_000_000))
                .unwrap()
                .to_string();
            let part = FileKind::Part(&id).file_name();
            let text = format!("no record\n{{\"timestamp\":{time}}}\n");
            std::fs::write(folder.path().join(part), text).unwrap();
        }
        std::fs::write(folder.path().join(LOCK_NAME), "").unwrap();
        let found = recorded_files(folder.path()).unwrap();
        (folder, found)
    }

    fn chosen(files: &[(i64, f64)], since: Option<i64>, until: Option<i64>) -> Vec<i64> {
        let (_folder, found) = archive(files);
        let micros = |seconds: i64| Micros(seconds * 1_000_000);
        let range = TimeRange {
            since: since.map(micros),
            until: until.map(micros),
            slack: micros(100),
        };
        let chosen = range.select(found, || false);
        chosen
            .iter()
            .map(|file| creation_time(file).unwrap().0 / 1_000_000)
            .collect()
    }

    #[test]
    fn files_far_outside_are_passed_over_by_their_names() {
        let files: Vec<(i64, f64)> = (0..10).map(|n| (n * 60, (n * 60) as f64)).collect();
        assert_eq!(chosen(&files, None, None).len(), 10);
        // The file at 180 may contain records that were archived 100 s late.
        assert_eq!(
            chosen(&files, Some(300), None),
            [180, 240, 300, 360, 420, 480, 540]
        );
        assert_eq!(chosen(&files, None, Some(60)), [0, 60, 120]);
        assert_eq!(
            chosen(&files, Some(300), Some(320)),
            [180, 240, 300, 360, 420]
        );
        assert!(chosen(&files, Some(9_000), Some(0)).len() <= 1);
        assert!(chosen(&[], Some(1), Some(2)).is_empty());
    }

    #[test]
    fn where_names_and_records_disagree_the_records_count() {
        // These old records were archived long after their timestamps.
        let late = [(10_000, 1.0), (10_060, 2.0), (10_120, 3.0)];
        assert_eq!(chosen(&late, None, Some(3)), [10_000, 10_060]);
        assert_eq!(chosen(&late, Some(2), Some(9)).len(), 3);
        // The names of these files come from a clock that had stopped.
        let early = [(0, 10_000.0), (1, 10_001.0), (2, 10_002.0)];
        assert_eq!(chosen(&early, Some(10_001), None), [1, 2]);
    }
}
