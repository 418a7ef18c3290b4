//! Makes a table of what was read: decides what each column is taken for, leaves out the
//! rows that do not fit, and turns the cells into values.

use anyhow::{Result, bail};

use crate::model::feature::{Domain, Feature, Missing, Unseen};
use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::categories::Categories;
use crate::train::cell::{Cell, CellKind, CellSyntax};
use crate::train::column::{Column, Text};
use crate::train::column_report;
use crate::train::columns::{Columns, Unused};
use crate::train::label::Labels;
use crate::train::options::{ColumnNames, Impute, TableOptions};
use crate::train::role::{self, Role, Roles, TargetRole, Wish};
use crate::train::row_fault::{feature_fault, target_fault};
use crate::train::source::Source;
use crate::train::table::{Rows, Table};
use crate::wire::lines::Line;
use crate::wire::reject::Reject;

/// Makes a table of what was read. Prints what each column is taken for.
pub fn assemble(
    mut columns: Columns,
    source: &mut Source,
    options: &TableOptions,
) -> Result<Table> {
    let name = source.name().to_owned();
    if columns.places.is_empty() {
        match columns.left_out {
            0 => bail!("{name}: has no row of data"),
            left_out => bail!("{name}: none of its {left_out} rows can be used"),
        }
    }
    let roles = decide(&mut columns, options).map_err(|fault| usage(format!("{name}: {fault}")))?;
    let labels = LabelReader::new(&columns, roles.target);
    let rows = columns.places.len() as u64 + columns.left_out;
    let Checked {
        labels,
        is_bad,
        categories,
    } = check_rows(&mut columns, &roles, labels, source)?;
    column_report::print(&columns, &roles, rows, source);
    let bad = is_bad.iter().filter(|is_bad| **is_bad).count();
    if bad == is_bad.len() {
        bail!("{name}: none of its {} rows can be used", columns.left_out);
    }
    let features = roles
        .features
        .iter()
        .zip(categories)
        .map(|((index, _), categories)| {
            FeatureColumn::new(&columns, *index, categories, &options.impute)
        });
    let features: Vec<FeatureColumn> = features
        .collect::<Result<_, _>>()
        .map_err(|fault| usage(format!("{name}: {fault}")))?;
    Ok(fill_table(columns, features, labels, &is_bad, options))
}

/// Decides what each column is taken for. Adds the columns that are not used to the
/// list of unused columns. The error says why a column cannot be what the flags ask
/// for.
fn decide(columns: &mut Columns, options: &TableOptions) -> Result<Roles, String> {
    let noun = columns.origin.column();
    let fault = |column: &Column, fault: String| format!("{noun} {} {fault}", shown(&column.name));
    let target = &columns.columns[0];
    let target = role::of_target(target, wish(&options.columns, &target.name), options.task)
        .map_err(|reason| fault(target, reason))?;
    let mut features = Vec::new();
    for (index, column) in columns.columns.iter().enumerate().skip(1) {
        match role::of_feature(column, wish(&options.columns, &column.name)) {
            Ok(Role::Unused(reason)) => columns.unused.push(Unused {
                name: column.name.clone(),
                reason,
            }),
            Ok(role) => features.push((index, role)),
            Err(reason) => {
                return Err(fault(column, reason) + "; --drop leaves the column out");
            }
        }
    }
    if features.is_empty() {
        let reasons = columns.unused.iter().take(5);
        let reasons: Vec<String> = reasons
            .map(|unused| format!("{} {}", shown(&unused.name), unused.reason))
            .collect();
        return Err(match reasons.is_empty() {
            true => format!("has no {noun} but the target"),
            false => format!("no {noun} can be used as a feature: {}", reasons.join("; ")),
        });
    }
    Ok(Roles { target, features })
}

/// What the flags ask of a column.
fn wish(names: &ColumnNames, name: &str) -> Wish {
    let is_in = |list: &[String]| list.iter().any(|one| one == name);
    if is_in(&names.categorical) {
        Wish::Categorical
    } else if is_in(&names.numeric) {
        Wish::Numeric
    } else if names.features.as_deref().is_some_and(is_in) {
        Wish::Used
    } else {
        Wish::Automatic
    }
}

/// The classes or numbers of the rows that can be used.
struct LabelReader {
    role: TargetRole,
    labels: Labels,
    /// For each text of the column, by its index: the index of its label.
    indices: Vec<Option<u32>>,
    /// How CSV fields are read; `None` if the labels are JSON.
    fields: Option<CellSyntax>,
    /// The index of each row's label.
    label_of: Vec<u32>,
    /// For each row, the number to predict.
    targets: Vec<f64>,
}

impl LabelReader {
    fn new(columns: &Columns, role: TargetRole) -> LabelReader {
        LabelReader {
            role,
            labels: Labels::default(),
            indices: vec![None; columns.columns[0].texts.len()],
            fields: { columns.origin }
                .has_csv_targets()
                .then(|| columns.syntax.clone()),
            label_of: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Adds the target of a row. The error is the reason why it cannot be used.
    fn add(&mut self, column: &Column, cell: Cell) -> Result<(), String> {
        if self.role == TargetRole::Numbers {
            self.targets.push(column.number(cell).unwrap_or_default());
            return Ok(());
        }
        let (Some(index), Some(text)) = (cell.text_index(), column.text(cell)) else {
            return Err("has too many different values".to_owned());
        };
        let label = match self.indices[index] {
            Some(label) => label,
            None => self.label(text)?,
        };
        self.indices[index] = Some(label);
        self.label_of.push(label);
        Ok(())
    }

    /// The index of the label that a text is.
    fn label(&mut self, text: &Text) -> Result<u32, String> {
        match &self.fields {
            // A number with a decimal comma is a number in JSON, too.
            Some(syntax) if self.role == TargetRole::NumberClasses => {
                let number = syntax.json_number(&text.text);
                self.labels.field(number.as_deref().unwrap_or(&text.text))
            }
            Some(_) => self.labels.field(&text.text),
            None if text.kind == CellKind::Word => self.labels.string(&text.text),
            None => self.labels.json(&text.text),
        }
    }
}

/// The results of checking all rows.
struct Checked {
    labels: LabelReader,
    /// For each row, by its index: whether the row is left out.
    is_bad: Vec<bool>,
    /// For each feature, by its index: its categories, if it has texts.
    categories: Vec<Option<Categories>>,
}

/// Checks all rows against the roles of their columns. Leaves out those that do not fit,
/// or ends with an error.
fn check_rows(
    columns: &mut Columns,
    roles: &Roles,
    mut labels: LabelReader,
    source: &mut Source,
) -> Result<Checked> {
    let mut is_bad = Vec::with_capacity(columns.places.len());
    let mut categories: Vec<Option<Categories>> = roles
        .features
        .iter()
        .map(|(index, role)| {
            (*role == Role::Texts).then(|| Categories::of(&columns.columns[*index]))
        })
        .collect();
    let mut left_out = 0;
    for chunk in &columns.chunks {
        for row in chunk.cells.chunks_exact(chunk.width) {
            let fault = row_fault(columns, roles, row).or_else(|| {
                let target = &columns.columns[0];
                let noun = columns.origin.column();
                let added = labels.add(target, row[0]);
                added
                    .err()
                    .map(|fault| format!("{noun} {}: {fault}", shown(&target.name)))
            });
            is_bad.push(fault.is_some());
            if let Some(fault) = fault {
                leave_out(columns, is_bad.len() - 1, &fault, source)?;
                left_out += 1;
                continue;
            }
            for ((index, _), categories) in roles.features.iter().zip(&mut categories) {
                if let (Some(categories), Some(cell)) = (categories, row.get(*index)) {
                    categories.take(*cell);
                }
            }
        }
    }
    columns.left_out += left_out;
    columns.kept.clear();
    Ok(Checked {
        labels,
        is_bad,
        categories,
    })
}

/// The first fault of a row.
fn row_fault(columns: &Columns, roles: &Roles, row: &[Cell]) -> Option<String> {
    target_fault(columns, roles.target, row[0]).or_else(|| {
        let mut features = roles.features.iter();
        features.find_map(|(index, role)| {
            feature_fault(columns, &columns.columns[*index], role, *row.get(*index)?)
        })
    })
}

/// Leaves out a row whose text has been read already.
fn leave_out(columns: &Columns, row: usize, fault: &str, source: &mut Source) -> Result<()> {
    let place = columns.places[row];
    let line = Line {
        bytes: columns.kept.get(&row).map_or(b"", Vec::as_slice),
        number: place.line,
        offset: place.offset,
        oversized: None,
    };
    let noun = columns.origin.row();
    source.leave_out(
        &line,
        &Reject::Row(format!("{noun} {}: {fault}", place.number)),
    )
}

/// A feature, and how its cells become values.
struct FeatureColumn {
    feature: Feature,
    /// The index of its column.
    index: usize,
    /// For each text of the column, by its index: the value of its category, or its
    /// number.
    values: Vec<f64>,
}

impl FeatureColumn {
    fn new(
        columns: &Columns,
        index: usize,
        categories: Option<Categories>,
        impute: &Impute,
    ) -> Result<FeatureColumn, String> {
        let column = &columns.columns[index];
        let is_marker = |kind: CellKind| {
            // In a column of texts, a text such as NA is a category.
            kind == CellKind::Missing || categories.is_none()
        };
        let markers = column.markers.iter().filter(|(kind, _)| is_marker(*kind));
        let markers = markers.map(|(_, marker)| marker.clone()).collect();
        let (domain, values) = match &categories {
            None => {
                if columns.missing(column) + column.count(CellKind::Marker) > 0 {
                    check_fill(column, impute)?;
                }
                (Domain::Numbers, Vec::new())
            }
            Some(categories) => {
                let (categories, values) = categories.finish(column, impute, &columns.syntax);
                if categories.is_empty() {
                    return Err(format!(
                        "column {} has no value in the rows that can be used; leave it out with --drop",
                        shown(&column.name)
                    ));
                }
                let unseen = Unseen::Other;
                (Domain::Categories { categories, unseen }, values)
            }
        };
        Ok(FeatureColumn {
            feature: Feature {
                name: column.name.clone(),
                domain,
                missing: Missing::Error,
                markers,
            },
            index,
            values,
        })
    }

    /// The value of a cell; NaN if it is missing.
    fn value(&self, column: &Column, cell: Cell) -> f64 {
        match self.feature.categories() {
            None => column.number(cell).unwrap_or(f64::NAN),
            Some(_) => {
                let value = cell.text_index().and_then(|index| self.values.get(index));
                value.copied().unwrap_or(f64::NAN)
            }
        }
    }
}

/// Checks that the value of --impute can fill a column of numbers.
fn check_fill(column: &Column, impute: &Impute) -> Result<(), String> {
    match impute {
        Impute::Value(text) if !text.parse::<f64>().is_ok_and(f64::is_finite) => Err(format!(
            "--impute {} cannot fill column {}, which has numbers; give median, mean, \
             most-frequent or a number",
            shown(text),
            shown(&column.name)
        )),
        _ => Ok(()),
    }
}

/// Turns the cells of all good rows into values. The cells are freed one chunk after
/// the other, to save memory.
fn fill_table(
    mut columns: Columns,
    features: Vec<FeatureColumn>,
    labels: LabelReader,
    is_bad: &[bool],
    options: &TableOptions,
) -> Table {
    let chunks = std::mem::take(&mut columns.chunks);
    let places = std::mem::take(&mut columns.places);
    let good = is_bad.iter().filter(|is_bad| !**is_bad).count();
    let mut values = Vec::with_capacity(good * features.len());
    let mut bad = is_bad.iter();
    for chunk in chunks {
        for row in chunk.cells.chunks_exact(chunk.width) {
            if bad.next() == Some(&true) {
                continue;
            }
            for feature in &features {
                let cell = row.get(feature.index).copied().unwrap_or(Cell::MISSING);
                values.push(feature.value(&columns.columns[feature.index], cell));
            }
        }
    }
    let (classes, class_of_label) = labels.labels.into_classes();
    let class_of = labels.label_of.into_iter();
    let numbers = places.iter().zip(is_bad).filter(|(_, is_bad)| !**is_bad);
    Table {
        classes,
        rows: Rows {
            width: features.len(),
            values,
            class_of: class_of
                .map(|label| class_of_label[label as usize])
                .collect(),
            targets: labels.targets,
        },
        numbers: numbers.map(|(place, _)| place.number).collect(),
        left_out: columns.left_out,
        features: features
            .into_iter()
            .map(|feature| feature.feature)
            .collect(),
        impute: options.impute.clone(),
        sha256: None,
    }
}
