//! A span of time in an archive: which records lie in it, and which files need no
//! look.

use std::io::Read;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};
use clap::Args;

use crate::observe::archive::names::Id;
use crate::stage::cli::duration;
use crate::stage::clock::Clock;
use crate::stream::archives::{Kind, RecordedFile};
use crate::wire::lines::Line;
use crate::wire::micros::Micros;
use crate::wire::object::value_of;
use crate::wire::reject::Reject;

/// How much of a file is looked at for a first time.
const PEEK_BYTES: u64 = 256 * 1024;

/// A span of time, as it is asked for.
#[derive(Args, Clone, Debug, Default)]
pub struct RangeArgs {
    /// Only records whose `timestamp` is at TIME or later: `2026-05-01`,
    /// `2026-05-01T12:30:00Z`, seconds since 1970, or a span such as `2h`, ago. A
    /// line without a timestamp goes with the line before it
    #[arg(long, value_name = "TIME")]
    since: Option<When>,

    /// Only records whose `timestamp` is before TIME
    #[arg(long, value_name = "TIME")]
    until: Option<When>,

    /// With --since and --until: a file is passed over by the time in its name
    /// where that is further away than this, and its first record agrees
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    slack: Duration,
}

/// A point in time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(Micros);

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        if let Some(date) = bare_date(text) {
            return Err(format!(
                "would be so many seconds since 1970; if it is a date, write {date}, and if it is \
                 seconds, {text}.0"
            ));
        }
        if text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Micros::parse_timestamp(text).map(When);
        }
        if let Ok(ago) = duration(text) {
            return Ok(When(Clock::system().unix() - Micros::from_duration(ago)));
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
        Ok(When(Micros(utc.timestamp_micros())))
    }
}

/// The date that somebody may mean who writes nothing but digits, as it is to be
/// written: taken for seconds, nearly all of them lie in the first year.
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
    let is_near = (1970..2200).contains(&date.date().year());
    is_near.then(|| date.format(form).to_string())
}

/// A span of time: from `since` on, up to `until`.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    since: Option<Micros>,
    until: Option<Micros>,
    slack: Micros,
}

impl RangeArgs {
    /// What was asked for.
    pub fn range(&self) -> Range {
        Range {
            since: self.since.map(|when| when.0),
            until: self.until.map(|when| when.0),
            slack: Micros::from_duration(self.slack),
        }
    }
}

impl Range {
    /// Whether all times lie in it.
    pub fn is_unbounded(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    /// Whether a record of this time lies in it. One whose time is unknown does.
    pub fn contains(&self, time: Option<Micros>) -> bool {
        let Some(time) = time else { return true };
        self.since.is_none_or(|since| since <= time) && self.until.is_none_or(|until| time < until)
    }

    /// The files among which all records of the span are. A record is archived
    /// after its timestamp, so a file that was closed well before `since` has none
    /// of them; one that was begun well after `until` has none unless it was fed
    /// late. Names can be wrong about either, so the files next to the span are
    /// asked, from the span outwards, until one agrees, or until `is_stopped`.
    pub fn choose(
        &self,
        files: Vec<RecordedFile>,
        mut is_stopped: impl FnMut() -> bool,
    ) -> Vec<RecordedFile> {
        if self.is_unbounded() {
            return files;
        }
        let begun: Vec<Option<Micros>> = files.iter().map(begun).collect();
        let (mut first, mut end) = (0, files.len());
        if let Some(since) = self.since {
            let old = |time: &Option<Micros>| time.is_some_and(|time| time <= since - self.slack);
            // Those before the last one that is old were closed when it began.
            first = begun.iter().rposition(old).unwrap_or(0);
            while first > 0 && !is_stopped() && begins(&files[first - 1], |time| time >= since) {
                first -= 1;
            }
        }
        if let Some(until) = self.until {
            let young = |time: &Option<Micros>| time.is_some_and(|time| time > until + self.slack);
            end = begun.iter().position(young).unwrap_or(files.len());
            while end < files.len() && !is_stopped() && begins(&files[end], |time| time < until) {
                end += 1;
            }
        }
        let mut files = files;
        files.truncate(end);
        files.drain(..first.min(end));
        files
    }
}

/// When a file was begun, by its name.
pub fn begun(file: &RecordedFile) -> Option<Micros> {
    let path = file.path();
    match Kind::of(path.file_name()?.to_str()?)? {
        Kind::Complete(id) | Kind::Part(id) => Id::parse(id).map(Id::begun),
        Kind::Unfinished(_) => None,
    }
}

/// Whether the first timestamp in a file is as it is `wanted`; so is one that is
/// wrong, since its line is to be set aside. There may be none near its start, or
/// the file cannot be read, which is told where it is read whole.
fn begins(file: &RecordedFile, wanted: impl Fn(Micros) -> bool) -> bool {
    let mut start = Vec::new();
    let Ok(opened) = file.open() else {
        return false;
    };
    // What was read before an error may do.
    let _ = opened.take(PEEK_BYTES).read_to_end(&mut start);
    let mut lines = start.split(|byte| *byte == b'\n');
    match lines.find_map(|line| time_of(line).transpose()) {
        Some(time) => time.map_or(true, wanted),
        None => false,
    }
}

/// The timestamp of a line, if it is a record with one. The error says what is
/// wrong with it.
pub fn line_time(line: &Line) -> Result<Option<Micros>, Reject> {
    line.record()?.map_or(Ok(None), time_of)
}

fn time_of(record: &[u8]) -> Result<Option<Micros>, Reject> {
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
    use crate::stream::archives::{LOCK_NAME, recorded_files};
    use tempfile::TempDir;

    fn when(text: &str) -> i64 {
        text.parse::<When>().unwrap().0.0
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
            assert_eq!(when(text), noon, "{text}");
        }
        assert_eq!(when("2026-05-01"), 1_777_593_600_000_000);
        let before = Clock::system().unix().0;
        let ago = when("2h") + 7_200_000_000;
        assert!((before..=Clock::system().unix().0).contains(&ago), "{ago}");
        for wrong in ["", "noon", "2026-13-01", "12:30", "inf", "-"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
        // A day without its dashes, and times in other units.
        for (wrong, said) in [
            ("20231114", "write 2023-11-14"),
            ("1700000000000", "milliseconds?"),
        ] {
            let fault = wrong.parse::<When>().unwrap_err();
            assert!(fault.contains(said), "{wrong}: {fault}");
        }
        // No month 99.
        assert_eq!(when("20239914"), 20_239_914_000_000);
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
            let error = text.parse::<When>().unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
        // What is no date, and what is written as a fraction, is seconds.
        assert_eq!(when("20231114.0"), 20_231_114_000_000);
        assert_eq!(when("20231314"), 20_231_314_000_000);
        assert_eq!(when("0"), 0);
        assert_eq!(when("2023111412"), 2_023_111_412_000_000);
        assert_eq!(when("253402300799"), 253_402_300_799_000_000);
    }

    /// An archive whose files are begun at these seconds, with a record each.
    fn archive(files: &[(i64, f64)]) -> (TempDir, Vec<RecordedFile>) {
        let folder = TempDir::new().unwrap();
        for (begun, time) in files {
            let id = Id::after(None, Micros(begun * 1_000_000))
                .unwrap()
                .to_string();
            let part = Kind::Part(&id).file_name();
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
        let range = Range {
            since: since.map(micros),
            until: until.map(micros),
            slack: micros(100),
        };
        let chosen = range.choose(found, || false);
        chosen
            .iter()
            .map(|file| begun(file).unwrap().0 / 1_000_000)
            .collect()
    }

    #[test]
    fn files_far_outside_are_passed_over_by_their_names() {
        let files: Vec<(i64, f64)> = (0..10).map(|n| (n * 60, (n * 60) as f64)).collect();
        assert_eq!(chosen(&files, None, None).len(), 10);
        // The one at 180 may hold what was archived 100 s late.
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
        // Old records, archived long after their time.
        let late = [(10_000, 1.0), (10_060, 2.0), (10_120, 3.0)];
        assert_eq!(chosen(&late, None, Some(3)), [10_000, 10_060]);
        assert_eq!(chosen(&late, Some(2), Some(9)).len(), 3);
        // Names from a clock that stood still.
        let early = [(0, 10_000.0), (1, 10_001.0), (2, 10_002.0)];
        assert_eq!(chosen(&early, Some(10_001), None), [1, 2]);
    }
}
