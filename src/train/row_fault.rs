//! Why a row does not fit what its columns are taken for.

use crate::stage::report::shown;
use crate::train::cell::{Cell, CellKind, other_decimal};
use crate::train::column::Column;
use crate::train::columns::Columns;
use crate::train::options::argument;
use crate::train::role::{Role, TargetRole};
use crate::train::table::RowFault;

/// Why a cell does not fit what its column is taken for.
pub fn feature_fault(
    columns: &Columns,
    column: &Column,
    role: &Role,
    cell: Cell,
) -> Option<RowFault> {
    // Nearly all cells are without a fault, so the text of the place is made only after
    // a fault was found.
    let fault = cell_fault(column, *role == Role::Numbers, cell)?;
    let place = format!("{} {}", columns.origin.column(), shown(&column.name));
    let name = argument(&column.name);
    let remedy = match cell.kind() {
        CellKind::Word | CellKind::Infinite => {
            let text = text_of(column, cell);
            // In --missing, a comma separates the markers, so a text with a comma
            // cannot be a marker.
            let as_marker = match text.contains(',') {
                true => String::new(),
                false => format!(
                    "--missing {} takes this text for a missing value, ",
                    argument(text)
                ),
            };
            format!(
                "; --categorical {name} takes the column for texts, {as_marker}and --drop {name} \
                 leaves the column out"
            )
        }
        CellKind::OtherDecimal => format!("; {}", other_decimal(text_of(column, cell)).1),
        _ => String::new(),
    };
    Some(format!("{place}{fault}{remedy}"))
}

/// Why the target of a row cannot be used.
pub fn target_fault(columns: &Columns, role: TargetRole, cell: Cell) -> Option<RowFault> {
    let column = &columns.columns[0];
    let place = || {
        format!(
            "{} {}, the target",
            columns.origin.column(),
            shown(&column.name)
        )
    };
    if role == TargetRole::TextClasses {
        return None;
    }
    match cell.kind() {
        CellKind::Marker => Some(format!(
            "{}, is missing: it is {}",
            place(),
            shown(text_of(column, cell))
        )),
        CellKind::True | CellKind::False | CellKind::Word => {
            let fault = number_fault(column, cell);
            let name = argument(&column.name);
            Some(format!(
                "{}{fault}; --categorical {name} takes all its values for classes",
                place()
            ))
        }
        _ => cell_fault(column, true, cell).map(|fault| format!("{}{fault}", place())),
    }
}

/// The reason why a cell is not a number, or not a text. The text begins with a
/// separator.
fn cell_fault(column: &Column, is_numbers: bool, cell: Cell) -> Option<String> {
    match cell.kind() {
        CellKind::Missing | CellKind::Number | CellKind::True | CellKind::False => None,
        CellKind::Nested => Some(" is an object or an array".to_owned()),
        CellKind::Twice => Some(" occurs twice".to_owned()),
        CellKind::NotUnicode => Some(
            " is not UTF-8; a file in Latin-1 is converted by `iconv -f LATIN1 -t UTF-8`"
                .to_owned(),
        ),
        _ if !is_numbers => None,
        CellKind::Marker => None,
        CellKind::Infinite => Some(format!(
            ": {} is not a finite number",
            shown(text_of(column, cell))
        )),
        CellKind::OtherDecimal => Some(format!(
            ": {} has a {}",
            shown(text_of(column, cell)),
            other_decimal(text_of(column, cell)).0
        )),
        CellKind::Word => Some(number_fault(column, cell)),
    }
}

/// The fault of a text among numbers, with the counts that made the column one of
/// numbers.
fn number_fault(column: &Column, cell: Cell) -> String {
    format!(
        ": {} is not a number, but {} of the {} values are",
        shown(text_of(column, cell)),
        column.count(CellKind::Number),
        column.present() - column.count(CellKind::Marker)
    )
}

/// The text of a cell. If the text was not kept, this is the first text of the same
/// kind. A training that ends at the first fault shows the first text, too.
fn text_of(column: &Column, cell: Cell) -> &str {
    match column.text(cell) {
        Some(text) => &text.text,
        None => column.first_text(cell.kind()),
    }
}
