//! Decides what a column is taken for, when all its cells are known.
//!
//! A column is taken for numbers if it has numbers and at most a tenth of its values,
//! or one value, are anything else. Infinite numbers count neither as numbers nor as
//! anything else. These few values are faults of their rows. Otherwise, one typing
//! error would turn a column of measurements into texts, the model would be bad, and
//! nobody would know why. Any other column has texts.

use crate::stage::report::shown;
use crate::train::cell::{CellKind, other_decimal};
use crate::train::column::{Column, TEXTS_MAX};
use crate::train::options::Task;

/// A target of whole numbers that has more different values than this is a target of
/// numbers.
const WHOLE_CLASSES_MAX: usize = 20;

/// What the flags ask of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No flag names the column. It is used if its values allow this.
    Automatic,
    /// --features names the column.
    Used,
    /// --categorical names the column.
    Categorical,
    /// --numeric names the column.
    Numeric,
}

/// What a column is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Numbers. Booleans are 1 and 0.
    Numbers,
    /// Texts, each of which is a category or a class.
    Texts,
    /// The column is not used, for this reason.
    Unused(String),
}

/// Whether a column of so many numbers and other values is taken for numbers.
fn is_numeric(numbers: u64, others: u64) -> bool {
    let values = numbers + others;
    others < numbers && others <= (values / 10).max(1)
}

/// What a feature is taken for. The error says why the column cannot be what the flags
/// ask for, and what to do.
pub fn of_feature(column: &Column, wish: Wish) -> Result<Role, String> {
    let numbers = column.count(CellKind::Number) + column.booleans();
    let role = match wish {
        Wish::Numeric if numbers == 0 => return Err("has no number".to_owned()),
        Wish::Numeric => return Ok(Role::Numbers),
        Wish::Categorical => of_texts(column),
        Wish::Used | Wish::Automatic => of_values(column, numbers)?,
    };
    // A model learns nothing from a category that every row has, but the column is not
    // wrong. So it is used if a flag names it.
    match (role, wish) {
        (Found::Usable(role), _) => Ok(role),
        (Found::Useless(role, _), Wish::Used | Wish::Categorical) => Ok(role),
        (Found::Impossible(reason), Wish::Used | Wish::Categorical) => Err(reason),
        (Found::Useless(_, reason) | Found::Impossible(reason), _) => Ok(Role::Unused(reason)),
    }
}

/// What the values of a column allow.
enum Found {
    Usable(Role),
    /// The column can be used, but should not be used, for this reason.
    Useless(Role, String),
    /// The column cannot be used, for this reason.
    Impossible(String),
}

/// What a column is taken for by its values alone.
fn of_values(column: &Column, numbers: u64) -> Result<Found, String> {
    let nested = column.count(CellKind::Nested);
    let faulty = nested + column.count(CellKind::NotUnicode) + column.count(CellKind::Twice);
    let decimals = column.count(CellKind::OtherDecimal);
    let words = column.words() - column.count(CellKind::Infinite);
    if is_numeric(numbers, words + faulty) {
        return Ok(match column.min == column.max {
            false => Found::Usable(Role::Numbers),
            true => {
                let reason = format!("has only one value, {}", column.min);
                Found::Useless(Role::Numbers, reason)
            }
        });
    }
    if decimals > 0 && is_numeric(numbers + decimals, words - decimals + faulty) {
        let example = column.first_text(CellKind::OtherDecimal);
        let (what, remedy) = other_decimal(example);
        return Err(format!(
            "has a {what} in values such as {}; {remedy}, and --categorical takes the values for \
             texts",
            shown(example)
        ));
    }
    let texts = numbers + column.words();
    if nested > 0 && !is_numeric(texts, nested) {
        return Ok(Found::Impossible(
            "has objects or arrays; name a value inside with a JSON pointer, such as --features \
             /a/b"
                .to_owned(),
        ));
    }
    if texts == 0 {
        return Ok(Found::Impossible("has no value".to_owned()));
    }
    Ok(of_texts(column))
}

/// What a column of texts is taken for.
fn of_texts(column: &Column) -> Found {
    let (distinct, present) = (column.texts.len(), column.present());
    let numbers = column.count(CellKind::Number);
    if column.overflowed {
        return Found::Impossible(match numbers {
            0 => format!(
                "has more than {TEXTS_MAX} different texts, or long ones, like an id or free text"
            ),
            _ => mixed(column, numbers),
        });
    }
    if present == 0 {
        return Found::Impossible("has no value".to_owned());
    }
    if distinct == 1 {
        let reason = format!("has only one value, {}", shown(&column.texts[0].text));
        return Found::Useless(Role::Texts, reason);
    }
    if column.texts.iter().all(|text| is_date(&text.text)) {
        let reason = "has dates or times, and a later date is no category of training; --categorical \
                      uses it";
        return Found::Useless(Role::Texts, reason.to_owned());
    }
    if distinct as u64 * 2 > present {
        let reason = match numbers {
            0 => format!(
                "has {distinct} different texts in {present} rows, like an id or free text; \
                 --categorical uses it"
            ),
            _ => mixed(column, numbers) + "; --categorical and --numeric use it",
        };
        return Found::Useless(Role::Texts, reason);
    }
    Found::Usable(Role::Texts)
}

/// Why a column that mixes many different numbers with texts is not used.
fn mixed(column: &Column, numbers: u64) -> String {
    let kinds = [
        CellKind::Word,
        CellKind::OtherDecimal,
        CellKind::Marker,
        CellKind::Infinite,
    ];
    let mut kinds = kinds.into_iter().filter(|kind| column.count(*kind) > 0);
    let example = kinds.next().map_or("", |kind| column.first_text(kind));
    format!(
        "has {numbers} numbers and {} other values, such as {}",
        column.present() - numbers,
        shown(example)
    )
}

/// Whether a text begins with a date in digits, such as 2026-11-27 or 27/11/2026.
fn is_date(text: &str) -> bool {
    let end = text.find(['T', ' ']).unwrap_or(text.len());
    let Some(separator) = text.chars().find(|character| !character.is_ascii_digit()) else {
        return false;
    };
    let lengths: Vec<usize> = text[..end].split(separator).map(str::len).collect();
    let is_in_digits = text[..end]
        .chars()
        .all(|one| one.is_ascii_digit() || one == separator);
    is_in_digits
        && ['-', '/', '.'].contains(&separator)
        && matches!(lengths[..], [4, 1..=2, 1..=2] | [1..=2, 1..=2, 2 | 4])
}

/// What the target is taken for: numbers to predict, numbers that are classes, or texts
/// that are classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRole {
    /// Each number is predicted as a number.
    Numbers,
    /// Each different number is a class.
    NumberClasses,
    /// Each different text is a class.
    TextClasses,
}

/// What the target is taken for. The error says why it cannot be what the flags ask for,
/// and what to do.
pub fn of_target(column: &Column, wish: Wish, task: Option<Task>) -> Result<TargetRole, String> {
    let numbers = column.count(CellKind::Number);
    let others = column.words() - column.count(CellKind::Infinite) + column.booleans();
    let role = if wish != Wish::Categorical && is_numeric(numbers, others) {
        let are_classes = match task {
            Some(task) => task == Task::Classify,
            None => {
                let classes = column.number_texts().count();
                column.is_whole && !column.overflowed && classes <= WHOLE_CLASSES_MAX
            }
        };
        match are_classes {
            true => TargetRole::NumberClasses,
            false => TargetRole::Numbers,
        }
    } else {
        TargetRole::TextClasses
    };
    if role == TargetRole::Numbers && column.min == column.max {
        return Err(format!("has only one value, {}", column.min));
    }
    let has_one_class = match role {
        TargetRole::Numbers => false,
        TargetRole::NumberClasses => column.min == column.max,
        TargetRole::TextClasses => column.texts.len() == 1,
    };
    if has_one_class {
        return Err(format!(
            "has only one value, {}; a classifier needs at least two classes",
            shown(&column.texts[0].text)
        ));
    }
    if role == TargetRole::TextClasses && task == Some(Task::Regress) {
        return Err(not_numbers(column));
    }
    if role != TargetRole::Numbers && column.overflowed {
        let remedy = match role {
            TargetRole::NumberClasses => "--task regress predicts a number",
            _ => "name a column of classes with --target",
        };
        return Err(format!(
            "has more than {TEXTS_MAX} different values, or longer ones than a class may have; \
             {remedy}"
        ));
    }
    Ok(role)
}

/// The fault of a target of texts where numbers are needed.
fn not_numbers(column: &Column) -> String {
    let mut kinds = [
        CellKind::Word,
        CellKind::True,
        CellKind::False,
        CellKind::OtherDecimal,
    ]
    .into_iter()
    .filter(|kind| column.count(*kind) > 0);
    let example = kinds.next().map_or("", |kind| column.first_text(kind));
    let remedy = match column.count(CellKind::OtherDecimal) {
        0 => "leave out --task regress",
        _ => other_decimal(column.first_text(CellKind::OtherDecimal)).1,
    };
    format!(
        "has texts, such as {}, where a regression needs numbers; {remedy}",
        shown(example)
    )
}

/// What the columns are taken for.
#[derive(Debug)]
pub struct Roles {
    /// The role of the target.
    pub target: TargetRole,
    /// The columns of the features and their roles, in the order of a row.
    pub features: Vec<(usize, Role)>,
}
