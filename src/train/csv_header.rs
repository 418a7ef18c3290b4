//! The first line of a CSV table: the separator, the encoding, and the names of the
//! columns.

use anyhow::{Result, anyhow, bail};
use csv::ByteRecord;

use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::columns::Unused;
use crate::train::csv_text::CsvRecords;
use crate::train::options::ColumnNames;
use crate::train::source::Source;
use crate::train::table::RowFault;

/// How many records are searched for the header if the first record is not a header.
const PREAMBLE_MAX: usize = 20;

/// The number of columns that an error message lists.
const LISTED_MAX: usize = 20;

/// The separator of the fields. The user gives it, or it is guessed from the name of
/// the file or from the first line. A guess is reported.
pub fn delimiter(source: &mut Source, given: Option<u8>, path: &str) -> Result<u8> {
    if let Some(delimiter) = given {
        return Ok(delimiter);
    }
    let path = path.strip_suffix(".gz").unwrap_or(path);
    let by_name = path.ends_with(".tsv") || path.ends_with(".tab");
    let line = source.first_line()?.map(|line| line.bytes.to_vec());
    let guess = match line {
        _ if by_name => b'\t',
        Some(line) => guess(&line),
        None => b',',
    };
    if guess != b',' {
        source.info(&format!(
            "{}: the fields are taken to be separated by {}; --delimiter changes this",
            source.name(),
            delimiter_name(guess)
        ));
    }
    Ok(guess)
}

/// The separator of a header line: the first of the known separators that occurs
/// outside of quotes.
fn guess(line: &[u8]) -> u8 {
    let mut quoted = false;
    let mut counts = [0usize; 256];
    for byte in line {
        quoted ^= *byte == b'"';
        if !quoted {
            counts[usize::from(*byte)] += 1;
        }
    }
    let mut known = [b',', b'\t', b';', b'|'].into_iter();
    known
        .find(|byte| counts[usize::from(*byte)] > 0)
        .unwrap_or(b',')
}

/// The name of a separator in messages.
fn delimiter_name(delimiter: u8) -> String {
    match delimiter {
        b'\t' => "tabs".to_owned(),
        other => format!("{:?}", char::from(other)),
    }
}

/// The names of the columns. A name that is not UTF-8 is `None`.
#[derive(Clone, Debug)]
pub struct Header {
    names: Vec<Option<String>>,
    /// The number of columns up to the last one with a name. Spreadsheets write fields
    /// without a name behind the last column.
    named_width: usize,
}

/// The columns of a table, by their positions in a record.
#[derive(Debug)]
pub struct FoundColumns {
    /// The position of the target.
    pub target: usize,
    /// The positions and the names of the columns that may be features.
    pub features: Vec<(usize, String)>,
    /// The columns that cannot be features.
    pub unused: Vec<Unused>,
}

impl Header {
    /// Reads the header, which is the first record.
    pub fn read(records: &mut CsvRecords, input: &str) -> Result<Header> {
        if !records.advance()? {
            bail!(
                "{input}: is empty; write a line with the names of the columns, and the rows below it"
            );
        }
        let text = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
        let names: Vec<Option<String>> = records.record.iter().map(text).collect();
        let is_number = |name: &Option<String>| {
            name.as_ref()
                .is_some_and(|name| name.parse::<f64>().is_ok_and(f64::is_finite))
        };
        if names.iter().all(is_number) {
            bail!(
                "{input}:{}: the first line has numbers instead of the names of the {} columns; write \
                 a line of names above it",
                records.line().number,
                names.len()
            );
        }
        let is_named = |name: &Option<String>| name.as_deref() != Some("");
        let last = names.iter().rposition(is_named);
        Ok(Header {
            named_width: last.map_or(0, |last| last + 1),
            names,
        })
    }

    /// The number of columns.
    fn width(&self) -> usize {
        self.names.len()
    }

    /// The positions of the columns with a name.
    fn positions<'n>(&'n self, name: &'n str) -> impl Iterator<Item = usize> + 'n {
        let names = self.names.iter().enumerate();
        names.filter_map(move |(index, one)| (one.as_deref() == Some(name)).then_some(index))
    }

    /// The position of a column; `None` if there is no such column. A name that occurs
    /// twice is an error.
    pub fn find_one(&self, name: &str) -> Result<Option<usize>, String> {
        let mut positions = self.positions(name);
        let first = positions.next();
        match positions.next() {
            None => Ok(first),
            Some(_) => Err(format!(
                "column {} occurs twice; give each column its own name",
                shown(name)
            )),
        }
    }

    /// The position of a column that must exist. `flag` is the flag that names it. The
    /// error describes the fault.
    pub fn position(&self, name: &str, flag: Option<&str>) -> Result<usize, String> {
        self.find_one(name)?.ok_or_else(|| {
            format!(
                "has no column {}{}; its columns are {}",
                shown(name),
                flag.map(|flag| format!(" for {flag}")).unwrap_or_default(),
                self.listed()
            )
        })
    }

    fn listed(&self) -> String {
        let more = if self.width() > LISTED_MAX {
            ", ..."
        } else {
            ""
        };
        let names = self.names.iter().take(LISTED_MAX);
        let names: Vec<&str> = names.map(|name| name.as_deref().unwrap_or("?")).collect();
        names.join(", ") + more
    }

    /// The position of the target. The error gives the probable reason why it is not in
    /// the header.
    pub fn target(&self, name: &str, input: &str, records: &mut CsvRecords) -> Result<usize> {
        match self.position(name, Some("--target")) {
            Ok(position) => Ok(position),
            Err(fault) => {
                let cause = match self.positions(name).next() {
                    None => self.cause(name, records, input)?,
                    Some(_) => String::new(),
                };
                Err(usage(format!("{input}: {fault}{cause}")))
            }
        }
    }

    /// Checks that a record has a field for each column with a name, and no more fields
    /// than the header. `number` is the number of the row, counted from 1. Surplus
    /// fields that are empty are no fault, because spreadsheets write them.
    pub fn check_width(&self, number: u64, record: &ByteRecord) -> Result<(), RowFault> {
        let (width, found) = (self.width(), record.len());
        let has_surplus = record.iter().skip(width).any(|field| !field.is_empty());
        if found >= self.named_width && !has_surplus {
            return Ok(());
        }
        // R writes the name of each row into a first field, and gives this field no name
        // in the header.
        let cause = match number == 1 && found == width + 1 {
            true => {
                "if the first field is the name of the row, as R writes it, add a name for it to \
                 the header, or write the file with row.names = FALSE"
            }
            false => "look for a stray comma or quote",
        };
        Err(format!(
            "has {found} fields, but the header has {width}; {cause}"
        ))
    }

    /// Finds the target and the features. The columns that no flag names are features,
    /// unless there is a reason against it.
    pub fn find(
        &self,
        names: &ColumnNames,
        input: &str,
        records: &mut CsvRecords,
    ) -> Result<FoundColumns> {
        let place = |fault: String| usage(format!("{input}: {fault}"));
        let target = self.target(&names.target, input, records)?;
        for (flag, list) in [
            ("--drop", &names.drop),
            ("--categorical", &names.categorical),
            ("--numeric", &names.numeric),
        ] {
            if let Some(name) = list
                .iter()
                .find(|name| self.positions(name).next().is_none())
            {
                return Err(place(
                    self.position(name, Some(flag)).err().unwrap_or_default(),
                ));
            }
        }
        if let Some(features) = &names.features {
            let found = features.iter().map(|name| {
                let position = self.position(name, Some("--features")).map_err(place)?;
                Ok((position, name.clone()))
            });
            return Ok(FoundColumns {
                target,
                features: found.collect::<Result<_>>()?,
                unused: Vec::new(),
            });
        }
        let (features, unused) = self
            .all_features(names, target)
            .map_err(|fault| anyhow!("{input}:{}: {fault}", records.line().number))?;
        if features.is_empty() {
            return Err(place("has no column but the target".to_owned()));
        }
        Ok(FoundColumns {
            target,
            features,
            unused,
        })
    }

    /// The columns that may be features if --features is not given, and those that
    /// cannot be.
    fn all_features(&self, names: &ColumnNames, target: usize) -> Result<Split, String> {
        let (mut features, mut unused) = (Vec::new(), Vec::new());
        for (index, name) in self.names.iter().enumerate() {
            let position = index + 1;
            match name {
                _ if index == target => {}
                None => {
                    return Err(format!(
                        "the name of column {position} is not UTF-8; convert the file, for example \
                         with `iconv -f LATIN1 -t UTF-8`, or name the columns to learn from with \
                         --features"
                    ));
                }
                Some(name) if name.is_empty() => unused.push(Unused {
                    name: format!("(column {position})"),
                    reason: "has no name".to_owned(),
                }),
                Some(name) if !names.is_wanted(name) => unused.push(Unused {
                    name: name.clone(),
                    reason: "--drop names it".to_owned(),
                }),
                Some(name) if self.positions(name).nth(1).is_some() => {
                    return Err(format!(
                        "column {} occurs twice; give each column its own name, leave both out with \
                         --drop, or name the columns to learn from with --features",
                        shown(name)
                    ));
                }
                Some(name) => features.push((index, name.clone())),
            }
        }
        Ok((features, unused))
    }

    /// The probable reason why the target is not in the header, with a remedy. Empty if
    /// no reason is found.
    fn cause(&self, target: &str, records: &mut CsvRecords, input: &str) -> Result<String> {
        let mut names = self.names.iter().flatten();
        if let Some(name) = names.find(|name| name.eq_ignore_ascii_case(target)) {
            return Ok(format!("; did you mean {}?", shown(name)));
        }
        for _ in 0..PREAMBLE_MAX {
            if !records.advance()? {
                break;
            }
            if records
                .record
                .iter()
                .any(|field| field == target.as_bytes())
            {
                let line = records.line().number;
                return Ok(format!(
                    "; line {line} has that name, so the lines above it are probably no part of the \
                     table: remove them with `tail -n +{line} {input}`"
                ));
            }
        }
        Ok(match self.width() {
            1 => "; if its fields are not separated by commas, name the separator with --delimiter"
                .to_owned(),
            _ => String::new(),
        })
    }
}

/// The columns that may be features, with their positions, and those that cannot be.
type Split = (Vec<(usize, String)>, Vec<Unused>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_guessed_outside_of_quotes() {
        for (line, expected) in [
            ("a,b;c", b','),
            ("a;b;c", b';'),
            ("a\tb", b'\t'),
            ("a|b", b'|'),
            ("\"a,b\";c", b';'),
            ("a", b','),
            ("", b','),
        ] {
            assert_eq!(guess(line.as_bytes()), expected, "{line}");
        }
    }
}
