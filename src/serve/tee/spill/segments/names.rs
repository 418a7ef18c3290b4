//! The files of a spill folder: the segments, and the position up to which lines were
//! delivered.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::serve::tee::block::SpillPosition;

/// The file that holds the position.
pub const POSITION_NAME: &str = "place";

/// The valid segment numbers. The number before and the number after each of them fit a `u64`.
const NUMBERS: Range<u64> = 1..1 << 62;

/// The numbers of the segments in a folder, in ascending order.
pub fn segment_numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The position that an earlier process stored in `folder`, whose segments have these
/// `numbers`. Returns the start of the first segment if there is no valid position.
pub fn stored_position(folder: &Path, numbers: &[u64]) -> SpillPosition {
    fs::read_to_string(folder.join(POSITION_NAME))
        .ok()
        .and_then(|text| parse_position(&text))
        // A position after the last segment cannot be right and is ignored: it is better to
        // deliver lines twice than not at all.
        .filter(|position| {
            let last = numbers.last();
            last.is_none_or(|last| position.segment <= last + 1)
        })
        .unwrap_or_default()
}

/// The name of the file of a segment.
pub fn file_name(number: u64) -> String {
    format!("{number:020}.spill")
}

/// The number of the segment in a file of this name; `None` if it is another file.
fn number_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".spill")?;
    let number = (digits.len() == 20).then(|| digits.parse().ok())?;
    number.filter(|number| NUMBERS.contains(number))
}

fn parse_position(text: &str) -> Option<SpillPosition> {
    let (segment, offset) = text.trim_end().split_once(' ')?;
    let position = SpillPosition {
        segment: segment.parse().ok()?,
        offset: offset.parse().ok()?,
    };
    NUMBERS.contains(&position.segment).then_some(position)
}
