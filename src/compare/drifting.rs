//! Drift of the model inputs against a reference file.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::compare::inputs::{FieldValues, Inputs};
use crate::compare::report::{Drift, DriftTest, Missing};
use crate::compare::statistics::drift::{jensen_shannon, kolmogorov_smirnov, population_stability};
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stream::address::Address;
use crate::wire::message::Record;

/// The number of bins of a field of numbers, besides that of the unseen. Each has an equal share of the reference.
const BINS: usize = 10;

/// The number of windows of the reference that are compared with all of it.
const WINDOWS: usize = 10;

/// Reads the model inputs of a recording: requests, decisions or scores. Lines that are
/// not records are set aside.
pub fn read_reference(address: &Address, stage: &mut Stage) -> Result<Inputs> {
    let mut inputs = Inputs::default();
    let mut recording = Recording::open(address, stage)?;
    while let Some((line, name)) = recording.next_line(stage)? {
        let read = match line.record() {
            Ok(None) => continue,
            Ok(Some(bytes)) => Record::parse(bytes).and_then(|record| {
                inputs.add(record.model_input()?);
                Ok(())
            }),
            Err(reject) => Err(reject),
        };
        if let Err(reject) = read {
            stage.report.reject(name, &line, &reject)?;
        }
    }
    Ok(inputs)
}

/// The drift of each field, in the order of their names.
pub fn drift(reference: &Inputs, current: &Inputs) -> Vec<Drift> {
    let fields = reference.fields.keys().chain(current.fields.keys());
    let names: BTreeSet<&String> = fields.collect();
    let empty = FieldValues::default();
    let of = |name: &String| {
        let one = reference.fields.get(name).unwrap_or(&empty);
        let other = current.fields.get(name).unwrap_or(&empty);
        let missing = |values: &FieldValues, records: u64| match records {
            0 => 0.0,
            records => 1.0 - values.present as f64 / records as f64,
        };
        let places = match one.is_numeric() {
            true => Places::of_numbers(one, other),
            false => Places::of_categories(one, other),
        };
        let psi = population_stability(&counts(&places.one, places.bins), &places.other_counts());
        let floor = places.floor();
        Drift {
            field: name.clone(),
            kind: match one.is_numeric() {
                true => "number",
                false => "category",
            },
            missing: Missing {
                reference: missing(one, reference.records),
                current: missing(other, current.records),
            },
            unseen: places.unseen(),
            psi,
            floor,
            drifts: psi.zip(floor).is_some_and(|(psi, floor)| psi > floor),
            jensen_shannon: jensen_shannon(
                &counts(&places.one, places.bins),
                &places.other_counts(),
            ),
            kolmogorov_smirnov: match one.is_numeric() {
                true => test(one, other),
                false => None,
            },
        }
    };
    names.into_iter().map(of).collect()
}

fn test(one: &FieldValues, other: &FieldValues) -> Option<DriftTest> {
    let (one, other) = (sorted(one.numbers.values()), sorted(other.numbers.values()));
    let (statistic, p_value) = kolmogorov_smirnov(&one, &other)?;
    Some(DriftTest { statistic, p_value })
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

fn counts(places: &[usize], bins: usize) -> Vec<u64> {
    let mut counts = vec![0; bins];
    for place in places {
        counts[*place] += 1;
    }
    counts
}

/// The bin of each value, in the order of the records. The last bin holds what the
/// reference has not seen.
struct Places {
    one: Vec<usize>,
    other: Vec<usize>,
    bins: usize,
}

impl Places {
    /// Bins that hold equal shares of the reference. A bin ends with its edge.
    fn of_numbers(one: &FieldValues, other: &FieldValues) -> Places {
        let ordered = sorted(one.numbers.values());
        let mut edges: Vec<f64> = (1..BINS)
            .filter_map(|bin| ordered.get(ordered.len() * bin / BINS).copied())
            .collect();
        edges.dedup();
        let (lowest, highest) = (ordered.first().copied(), ordered.last().copied());
        let place = |value: &f64| {
            let is_seen = lowest.is_some_and(|low| low <= *value)
                && highest.is_some_and(|high| *value <= high);
            match is_seen {
                true => edges.partition_point(|edge| edge < value),
                false => edges.len() + 1,
            }
        };
        Places {
            one: one.numbers.values().iter().map(place).collect(),
            other: other.numbers.values().iter().map(place).collect(),
            bins: edges.len() + 2,
        }
    }

    /// A bin for each category of the reference.
    fn of_categories(one: &FieldValues, other: &FieldValues) -> Places {
        let bins = one.category_numbers.len() + 1;
        // The categories of the other inputs have other numbers.
        let mut own = vec![bins - 1; other.category_numbers.len()];
        for (category, number) in &other.category_numbers {
            if let Some(known) = one.category_numbers.get(category) {
                own[*number] = *known;
            }
        }
        let number = |value: &f64| *value as usize;
        Places {
            one: one.categories.values().iter().map(number).collect(),
            other: other
                .categories
                .values()
                .iter()
                .map(|value| own[number(value)])
                .collect(),
            bins,
        }
    }

    fn other_counts(&self) -> Vec<u64> {
        counts(&self.other, self.bins)
    }

    /// The share of values that the reference has not seen.
    fn unseen(&self) -> Option<f64> {
        let all = self.other.len();
        let unseen = self.other.iter().filter(|place| **place == self.bins - 1);
        (all > 0).then(|| unseen.count() as f64 / all as f64)
    }

    /// The largest population stability index of a window of the reference beside the
    /// whole reference.
    fn floor(&self) -> Option<f64> {
        if self.one.len() < WINDOWS {
            return None;
        }
        let whole = counts(&self.one, self.bins);
        let windows = self.one.chunks(self.one.len().div_ceil(WINDOWS));
        let indices =
            windows.filter_map(|window| population_stability(&whole, &counts(window, self.bins)));
        indices.max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs with a number and a category.
    fn inputs(count: u64, shift: f64, category: impl Fn(u64) -> u64) -> Inputs {
        let mut inputs = Inputs::default();
        for number in 0..count {
            let x = (number * 7919 % 1000) as f64 + shift;
            inputs.add(&format!(r#"{{"x":{x},"c":"{}"}}"#, category(number)));
        }
        inputs
    }

    #[test]
    fn a_field_drifts_beyond_what_the_reference_shows_itself() {
        let reference = inputs(10_000, 0.0, |number| number % 4);
        let drifts = |current: &Inputs| -> Vec<(String, bool)> {
            let found = drift(&reference, current).into_iter();
            found.map(|it| (it.field, it.drifts)).collect()
        };
        let (c, x) = ("c".to_owned(), "x".to_owned());
        let same = inputs(3_000, 0.0, |number| number % 4);
        assert_eq!(drifts(&same), [(c.clone(), false), (x.clone(), false)]);
        let moved = inputs(3_000, 300.0, |number| number % 4);
        assert_eq!(drifts(&moved), [(c.clone(), false), (x.clone(), true)]);
        let mixed = inputs(3_000, 0.0, |number| number % 5);
        assert_eq!(drifts(&mixed), [(c, true), (x, false)]);
        let found = drift(&reference, &mixed);
        assert_eq!(found[0].unseen, Some(0.2));
        assert!(found[1].kolmogorov_smirnov.unwrap().p_value > 0.5);
        let found = drift(&reference, &moved);
        let unseen = found[1].unseen.unwrap();
        assert!((unseen - 0.3).abs() < 0.01, "{unseen}");
        assert!(found[1].kolmogorov_smirnov.unwrap().p_value < 1e-9);
    }

    #[test]
    fn missing_fields_and_empty_inputs_are_reported() {
        let (mut one, mut other) = (Inputs::default(), Inputs::default());
        assert!(drift(&one, &other).is_empty());
        one.add(r#"{"x":1,"y":2}"#);
        one.add(r#"{"x":1}"#);
        other.add(r#"{"x":1,"z":1}"#);
        let found = drift(&one, &other);
        let missing: Vec<(f64, f64)> = found
            .iter()
            .map(|it| (it.missing.reference, it.missing.current))
            .collect();
        assert_eq!(missing, [(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)]);
        assert!(found.iter().all(|it| it.floor.is_none() && !it.drifts));
    }
}
