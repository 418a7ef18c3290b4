//! Tells the user what each column was taken for.

use crate::model::text_table::{cut, six_significant_digits};
use crate::stage::report::{escaped, shown};
use crate::train::cell::CellKind;
use crate::train::column::{Column, Form, Text};
use crate::train::columns::{Columns, Origin};
use crate::train::options::argument;
use crate::train::role::{Role, Roles, TargetRole};
use crate::train::source::Source;

/// The largest number of columns that are listed.
const LINES_MAX: usize = 200;

/// The number of categories that are listed.
const LISTED_CATEGORIES: usize = 3;

/// The longest name or text that is shown, in characters.
const SHOWN_CHARS: usize = 40;

/// The fewest rows for a warning about a column that counts up by 1. In fewer rows, a
/// column may count up by chance.
const COUNTS_UP_ROWS_MIN: usize = 20;

/// Prints the table of columns, and warns of what may be a mistake. `rows` is the
/// number of rows in the data.
pub fn print(columns: &Columns, roles: &Roles, rows: u64, source: &Source) {
    let noun = columns.origin.column();
    source.info(&format!(
        "{}: {} {}s, {} left out; the {noun}s are taken for:",
        source.name(),
        rows,
        columns.origin.row(),
        columns.left_out
    ));
    let table = lines(columns, roles);
    for line in table.iter().take(LINES_MAX) {
        source.info(line);
    }
    if table.len() > LINES_MAX {
        source.info(&format!("  and {} more {noun}s", table.len() - LINES_MAX));
    }
    if let Some(note) = target_note(columns, roles.target) {
        source.info(&format!("{}: {note}", source.name()));
    }
    for warning in warnings(columns, roles) {
        source.warn(&format!("{}: {warning}", source.name()));
    }
}

/// One line for each column, aligned: the name, what it is taken for, the missing values,
/// and the values.
fn lines(columns: &Columns, roles: &Roles) -> Vec<String> {
    let target = &columns.columns[0];
    let what = match roles.target {
        TargetRole::Numbers => "target: numbers".to_owned(),
        TargetRole::NumberClasses => format!("target: {} classes", target.number_texts().count()),
        TargetRole::TextClasses => format!("target: {} classes", target.texts.len()),
    };
    let shown_values = match roles.target {
        TargetRole::Numbers => range(target),
        TargetRole::NumberClasses => most_frequent(target.number_texts()),
        TargetRole::TextClasses => most_frequent(target.texts.iter()),
    };
    let mut table = vec![[cut_escaped(&target.name), what, String::new(), shown_values]];
    for (index, role) in &roles.features {
        let column = &columns.columns[*index];
        let is_numbers = *role == Role::Numbers;
        let what = match is_numbers {
            true => "numbers".to_owned(),
            false => format!("{} categories", column.texts.len()),
        };
        let mut missing = columns.missing(column);
        if is_numbers {
            missing += column.count(CellKind::Marker);
        }
        let missing = match missing {
            0 => String::new(),
            count => format!("{count} missing"),
        };
        let shown_values = match is_numbers {
            true => range(column),
            false => most_frequent(column.texts.iter()),
        };
        table.push([cut_escaped(&column.name), what, missing, shown_values]);
    }
    for unused in &columns.unused {
        let reason = escaped(&unused.reason);
        table.push([
            cut_escaped(&unused.name),
            "not used".to_owned(),
            String::new(),
            reason,
        ]);
    }
    aligned(&table)
}

/// The lines of a table whose cells are aligned to the left.
fn aligned(table: &[[String; 4]]) -> Vec<String> {
    let chars = |cell: &String| cell.chars().count();
    let mut widths = [0; 4];
    for line in table {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = chars(cell).max(*width);
        }
    }
    let line = |cells: &[String; 4]| {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(cells) {
            if *width > 0 {
                text.push_str("  ");
                text.push_str(cell);
                text.extend(std::iter::repeat_n(' ', width - chars(cell)));
            }
        }
        text.trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

/// The range of numbers.
fn range(column: &Column) -> String {
    let (min, max) = (column.min, column.max);
    match min <= max {
        true => format!(
            "{} .. {}",
            six_significant_digits(min),
            six_significant_digits(max)
        ),
        false => String::new(),
    }
}

/// The most frequent texts, with their counts.
fn most_frequent<'t>(texts: impl Iterator<Item = &'t Text>) -> String {
    let texts = texts.map(|text| (text.count, text.text.as_str()));
    let mut texts: Vec<(u64, &str)> = texts.collect();
    texts.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let listed = texts.iter().take(LISTED_CATEGORIES);
    let listed: Vec<String> = listed
        .map(|(count, text)| format!("{} {count}", cut_escaped(text)))
        .collect();
    let more = match texts.len() > LISTED_CATEGORIES {
        true => ", ...",
        false => "",
    };
    listed.join(", ") + more
}

/// A name or a text from the data, escaped and not too long.
fn cut_escaped(text: &str) -> String {
    cut(&escaped(text), SHOWN_CHARS)
}

/// Says how the target was understood, if there is another way to understand it.
fn target_note(columns: &Columns, role: TargetRole) -> Option<String> {
    let target = &columns.columns[0];
    let name = format!("{} {}", columns.origin.column(), shown(&target.name));
    match role {
        TargetRole::Numbers => Some(format!(
            "{name} is predicted as a number; --task classify predicts one of its values"
        )),
        TargetRole::NumberClasses => Some(format!(
            "the {} numbers in {name} are classes; --task regress predicts a number",
            target.number_texts().count()
        )),
        TargetRole::TextClasses => None,
    }
}

/// Warnings about columns that the user may not have meant to use in this way.
fn warnings(columns: &Columns, roles: &Roles) -> Vec<String> {
    let mut warnings = Vec::new();
    let features = roles.features.iter();
    let features = features.map(|(index, role)| (*index, *role == Role::Texts));
    let target = (0, roles.target == TargetRole::TextClasses);
    for (index, is_text) in std::iter::once(target).chain(features) {
        let column = &columns.columns[index];
        let name = format!("{} {}", columns.origin.column(), shown(&column.name));
        if is_text && column.count(CellKind::Marker) > 0 {
            let marker = column.first_text(CellKind::Marker);
            let what = if index == 0 { "class" } else { "category" };
            warnings.push(format!(
                "{name}: {} is a {what}, and not a missing value; --missing {} changes this",
                shown(marker),
                argument(marker)
            ));
        }
        let is_json = columns.origin != Origin::Csv && index > 0;
        let is_number = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite);
        let mut texts = column.texts.iter().filter(|text| text.form == Form::Text);
        if is_json
            && is_text
            && texts.clone().next().is_some()
            && texts.all(|text| is_number(&text.text))
        {
            warnings.push(format!(
                "{name} has numbers that are written as strings, such as {}; they are categories",
                shown(&column.texts[0].text)
            ));
        }
        if index > 0
            && !is_text
            && column.counts_up
            && column.count(CellKind::Number) as usize == columns.places.len()
            && columns.places.len() >= COUNTS_UP_ROWS_MIN
        {
            warnings.push(format!(
                "{name} counts the rows; if it is an id, leave it out with --drop {}",
                argument(&column.name)
            ));
        }
    }
    warnings
}
