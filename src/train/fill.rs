//! The values that replace missing ones.

use anyhow::{Result, bail};

use crate::model::feature::{Feature, Missing};
use crate::stage::report::shown;
use crate::train::options::Impute;
use crate::train::table::{Rows, Table};

/// The features of a model that is trained on the rows `training` of a table. If a
/// feature has a missing value in any row of the data, it gets a fill value that is
/// computed from the training rows as --impute says. If no value is missing in the
/// data, a missing value in a request is an error.
pub fn features(table: &Table, training: &[usize]) -> Result<Vec<Feature>> {
    let mut features = table.features.clone();
    let all: Vec<usize> = (0..table.rows.len()).collect();
    let mut has_gap = vec![false; features.len()];
    for row in &all {
        for (has_gap, value) in has_gap.iter_mut().zip(table.rows.row(*row)) {
            *has_gap |= value.is_nan();
        }
    }
    for (index, feature) in features.iter_mut().enumerate() {
        if !has_gap[index] {
            continue;
        }
        let fill = [training, &all]
            .into_iter()
            .find_map(|rows| fill_value(table, rows, index));
        match fill {
            Some(fill) => feature.missing = Missing::Fill(fill),
            None => bail!(
                "column {} has no value in any row; leave it out",
                shown(&feature.name)
            ),
        }
    }
    Ok(features)
}

/// The fill value that is computed from some rows; `None` if no row has a value.
fn fill_value(table: &Table, rows: &[usize], index: usize) -> Option<f64> {
    let values = rows.iter().map(|row| table.rows.row(*row)[index]);
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    if values.is_empty() {
        return None;
    }
    let Some(categories) = table.features[index].categories() else {
        return match &table.impute {
            Impute::Median => median(&mut values),
            Impute::Mean => Some(mean(&values)),
            Impute::MostFrequent => longest_run(&mut values),
            Impute::Value(text) => text.parse().ok(),
        };
    };
    let named = match &table.impute {
        Impute::Value(text) => categories.iter().position(|category| category == text),
        _ => None,
    };
    match named {
        Some(code) => Some(code as f64),
        None => most_frequent(&values, categories.len()),
    }
}

/// The mean. The first value is subtracted from all values before they are added, so
/// that a large offset costs no precision.
fn mean(values: &[f64]) -> f64 {
    let first = values[0];
    let parts = values
        .iter()
        .map(|value| (value - first) / values.len() as f64);
    first + parts.sum::<f64>()
}

/// The most frequent number. Of several such numbers, the smallest one counts.
fn longest_run(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let runs = values.chunk_by(|a, b| a == b).rev();
    let longest = runs.max_by_key(|run| run.len())?;
    longest.first().copied()
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some(f64::midpoint(values[low], values[high]))
}

/// The most frequent category. Of several such categories, the first one counts.
fn most_frequent(codes: &[f64], count: usize) -> Option<f64> {
    let mut counts = vec![0u64; count];
    for code in codes {
        if let Some(count) = counts.get_mut(*code as usize) {
            *count += 1;
        }
    }
    let best = counts.iter().enumerate().rev().max_by_key(|pair| pair.1)?;
    (*best.1 > 0).then_some(best.0 as f64)
}

/// Replaces the missing values in `rows` by the fill values of the features.
pub fn fill(rows: &mut Rows, features: &[Feature]) {
    for (index, value) in rows.values.iter_mut().enumerate() {
        if value.is_nan()
            && let Missing::Fill(fill) = features[index % rows.width].missing
        {
            *value = fill;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::category;

    fn table(values: Vec<f64>) -> Table {
        Table {
            features: vec![Feature::number("x"), category("kind", &["a", "b"])],
            classes: Vec::new(),
            numbers: Vec::new(),
            left_out: 0,
            impute: Impute::Median,
            sha256: None,
            rows: Rows {
                width: 2,
                targets: vec![0.0; values.len() / 2],
                values,
                ..Rows::default()
            },
        }
    }

    #[test]
    fn missing_values_become_the_median_or_the_most_frequent_category() {
        const GAP: f64 = f64::NAN;
        let table = table(vec![1.0, 1.0, GAP, 0.0, 4.0, GAP, 2.0, 1.0, 100.0, 0.0]);
        let features = features(&table, &[0, 2, 3, 4]).unwrap();
        assert_eq!(features[0].missing, Missing::Fill(3.0));
        assert_eq!(features[1].missing, Missing::Fill(1.0));
        let mut rows = table.rows.clone();
        fill(&mut rows, &features);
        assert_eq!(rows.values[2..6], [3.0, 0.0, 4.0, 1.0]);
    }

    #[test]
    fn the_rule_decides_about_the_fill_value() {
        const GAP: f64 = f64::NAN;
        let values = vec![1.0, 1.0, 1.0, 0.0, GAP, GAP, 7.0, 1.0];
        for (impute, number, category) in [
            (Impute::Median, 1.0, 1.0),
            (Impute::Mean, 3.0, 1.0),
            (Impute::MostFrequent, 1.0, 1.0),
            (Impute::Value("9.5".to_owned()), 9.5, 1.0),
            (Impute::Value("a".to_owned()), f64::NAN, 0.0),
        ] {
            let mut table = table(values.clone());
            table.impute = impute;
            let rows = [0, 1, 2, 3];
            if !number.is_nan() {
                assert_eq!(fill_value(&table, &rows, 0), Some(number));
            }
            assert_eq!(fill_value(&table, &rows, 1), Some(category));
        }
    }

    #[test]
    fn a_feature_without_gaps_gets_no_fill_value_and_one_without_values_is_refused() {
        let whole = table(vec![1.0, 1.0, 3.0, 0.0]);
        let found = features(&whole, &[0]).unwrap();
        assert!(found.iter().all(|one| one.missing == Missing::Error));
        let empty = table(vec![f64::NAN, 1.0, f64::NAN, 0.0]);
        let error = features(&empty, &[0]).unwrap_err().to_string();
        assert!(error.contains("\"x\" has no value"), "{error}");
        // All rows with a value are held out.
        let table = table(vec![f64::NAN, 1.0, 7.0, 0.0]);
        let found = features(&table, &[0]).unwrap();
        assert_eq!(found[0].missing, Missing::Fill(7.0));
    }
}
