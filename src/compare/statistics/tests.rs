//! Compares each statistic with its reference, and simulates the confidence sequences.

use std::fs;

use serde_json::Value;

use super::binomial::{at_least, mcnemar, quantile_ranks};
use super::drift::{distance_from, jensen_shannon, kolmogorov_smirnov, population_stability};
use super::labelled::{CALIBRATION_BINS, Calibration, class_qualities};
use super::numbers::{Errors, Moments, WeightedMean};
use super::rates::{CONFIDENCE, Interval, benjamini_hochberg, wilson};
use super::sampling::Random;
use super::sequence::{Mixture, Sequence};
use super::special::{normal_upper_quantile, student_quantile};
use super::tables::{Test, g_test, homogeneity, kappa};

/// The largest difference from a reference, relative to values above 1.
const TOLERANCE: f64 = 1e-9;

fn numbers(value: &Value) -> Vec<f64> {
    let items = value.as_array().unwrap();
    items.iter().map(|item| item.as_f64().unwrap()).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    let items = value.as_array().unwrap();
    items.iter().map(|item| item.as_u64().unwrap()).collect()
}

fn table(value: &Value) -> Vec<Vec<u64>> {
    value.as_array().unwrap().iter().map(counts).collect()
}

fn of_interval(interval: Interval) -> Vec<Option<f64>> {
    vec![
        Some(interval.value),
        Some(interval.low),
        Some(interval.high),
    ]
}

fn of_test(test: Test) -> Vec<Option<f64>> {
    vec![
        Some(test.statistic),
        Some(test.freedom as f64),
        Some(test.p_value),
    ]
}

fn calibration(input: &Value) -> Vec<Option<f64>> {
    let mut calibration = Calibration::default();
    for (confidence, right) in numbers(&input[0]).iter().zip(counts(&input[1])) {
        calibration.add(*confidence, right == 1);
    }
    let mut found = vec![calibration.brier()];
    let all_equal = matches!(calibration.bins.iter().map(|bin| bin.2).sum(), 0)
        || calibration.bins.iter().all(|bin| bin.0 == bin.2);
    if all_equal {
        return found;
    }
    let used = (0..CALIBRATION_BINS).map(|bin| calibration.bins[bin]);
    let used: Vec<_> = used.filter(|bin| bin.0 > 0).collect();
    found.extend(used.iter().map(|bin| Some(bin.1 / bin.0 as f64)));
    found.extend(used.iter().map(|bin| Some(bin.2 as f64 / bin.0 as f64)));
    found
}

fn of_numbers(of: &str, input: &Value) -> Option<Vec<Option<f64>>> {
    let pairs = || {
        let (one, other) = (numbers(&input[0]), numbers(&input[1]));
        one.into_iter().zip(other).collect::<Vec<_>>()
    };
    Some(match of {
        "pairedDifference" => {
            let mut moments = Moments::default();
            for (one, other) in pairs() {
                moments.add(other - one);
            }
            of_interval(moments.mean_interval(CONFIDENCE)?)
        }
        "errors" => {
            let mut errors = Errors::default();
            for (one, other) in pairs() {
                errors.add(other - one);
            }
            vec![errors.mae(), errors.rmse()]
        }
        "kolmogorovSmirnov" => {
            let (distance, p_value) = kolmogorov_smirnov(&numbers(&input[0]), &numbers(&input[1]))?;
            vec![Some(distance), Some(p_value)]
        }
        "studentQuantile" => {
            let given = numbers(input);
            vec![Some(student_quantile(given[0], given[1]))]
        }
        "normalQuantile" => vec![Some(normal_upper_quantile(numbers(input)[0]))],
        "benjaminiHochberg" => {
            let corrected = benjamini_hochberg(&numbers(input));
            corrected.into_iter().map(Some).collect()
        }
        "mixture" => {
            let given = numbers(input);
            let mixture = Mixture::new(given[0], given[1]);
            let log_value = mixture.log_value(given[2], given[3]);
            vec![Some(log_value), Some(mixture.bound(given[3], given[4]))]
        }
        _ => return None,
    })
}

/// The answers of our functions for one case.
fn answers(of: &str, input: &Value) -> Vec<Option<f64>> {
    if let Some(found) = of_numbers(of, input) {
        return found;
    }
    let at = |index: usize| input[index].as_u64().unwrap();
    match of {
        "wilson" => of_interval(wilson(at(0), at(1), CONFIDENCE).unwrap()),
        "binomial" => vec![Some(at_least(at(0), at(1), input[2].as_f64().unwrap()))],
        "mcnemar" => vec![Some(mcnemar(at(0), at(1)))],
        "quantileRanks" => {
            let (low, high) = quantile_ranks(at(0), input[1].as_f64().unwrap(), CONFIDENCE);
            vec![low.map(|rank| rank as f64), high.map(|rank| rank as f64)]
        }
        "kappa" => vec![kappa(&table(input))],
        "homogeneity" => of_test(homogeneity(&table(input))),
        "classQualities" => {
            let qualities = class_qualities(&table(input)).into_iter();
            let values =
                qualities.flat_map(|it| [it.precision, it.recall, it.f1, it.support as f64]);
            values.map(Some).collect()
        }
        "gTest" => of_test(g_test(&counts(&input[0]), &counts(&input[1])).unwrap()),
        "populationStability" => {
            vec![population_stability(
                &numbers(&input[0]),
                &numbers(&input[1]),
            )]
        }
        "jensenShannon" => vec![jensen_shannon(&numbers(&input[0]), &numbers(&input[1]))],
        "calibration" => calibration(input),
        other => panic!("no statistic {other}"),
    }
}

fn check(cases: &str) -> usize {
    let mut checked = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let of = case["of"].as_str().unwrap();
        let expected: Vec<Option<f64>> = case["expected"]
            .as_array()
            .unwrap()
            .iter()
            .map(Value::as_f64)
            .collect();
        let found = answers(of, &case["input"]);
        let shown = &line[..line.len().min(300)];
        assert_eq!(found.len(), expected.len(), "{found:?} for {shown}");
        for (ours, theirs) in found.iter().zip(&expected) {
            let is_near = match (ours, theirs) {
                (Some(ours), Some(theirs)) => {
                    (ours - theirs).abs() <= TOLERANCE * theirs.abs().max(1.0)
                }
                (None, None) => true,
                _ => false,
            };
            assert!(is_near, "{found:?}, not {expected:?}, for {shown}");
        }
        checked += 1;
    }
    checked
}

#[test]
fn each_statistic_gives_the_answers_of_its_reference() {
    let path = std::env::var("RV_STATISTICS_CASES");
    let path = path.unwrap_or_else(|_| "fixtures/compare/statistics.ndjson".to_owned());
    let checked = check(&fs::read_to_string(path).unwrap());
    assert!(checked > 200, "{checked} cases");
}

#[test]
fn the_mixture_gives_the_answers_of_confseq() {
    let checked = check(&fs::read_to_string("fixtures/compare/sequences.ndjson").unwrap());
    assert_eq!(checked, 144);
}

/// The number of 2,000 runs of 10,000 values in which the lower bound is ever above the
/// true mean. `mean` gives the mean of each value.
fn alarms(limit: f64, mean: impl Fn(u32) -> f64) -> u32 {
    let mut alarms = 0;
    for run in 0..2_000 {
        let mut random = Random::new(run);
        let mut sequence = Sequence::default();
        let mut is_alarmed = false;
        for time in 0..10_000 {
            sequence.add(f64::from(u8::from(random.uniform() < mean(time))));
            is_alarmed |= sequence.is_above(limit, 0.05);
        }
        alarms += u32::from(is_alarmed);
    }
    alarms
}

#[test]
fn a_gate_that_is_read_after_every_pair_raises_few_false_alarms() {
    // 5 % of 2,000 are 100, and 131 are 3.1 standard errors more.
    for limit in [0.02, 0.3] {
        let found = alarms(limit, |_| limit);
        assert!(found <= 131, "{found} alarms at {limit}");
        assert!(found > 0, "the bound is useless: no alarm at {limit}");
    }
}

#[test]
fn a_mean_that_changes_raises_few_false_alarms() {
    // The average of the means never exceeds the limit.
    let found = alarms(0.1, |time| if time % 200 < 100 { 0.02 } else { 0.18 });
    assert!(found <= 131, "{found} alarms");
}

#[test]
fn a_sequence_finds_a_difference_and_its_interval_holds_the_mean() {
    let mut random = Random::new(7);
    let mut sequence = Sequence::default();
    assert_eq!(sequence.interval(0.05).low, 0.0);
    assert_eq!(sequence.interval(0.05).high, 1.0);
    for _ in 0..10_000 {
        sequence.add(f64::from(u8::from(random.uniform() < 0.1)));
    }
    assert!(sequence.is_above(0.05, 0.05) && !sequence.is_above(0.1, 0.05));
    assert!(sequence.is_below(0.15, 0.05) && !sequence.is_below(0.1, 0.05));
    let interval = sequence.interval(0.05);
    assert!(interval.low > 0.08 && interval.low < 0.1, "{interval:?}");
    assert!(interval.high < 0.12 && interval.high > 0.1, "{interval:?}");
    // The interval is that of the two one-sided bounds.
    assert!(sequence.is_above(interval.low - 1e-9, 0.025));
    assert!(!sequence.is_above(interval.low + 1e-9, 0.025));
}

#[test]
fn the_distance_from_known_shares_is_the_largest_one() {
    let known = [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)];
    assert_eq!(distance_from(&[], &known), None);
    assert_eq!(distance_from(&[0.5, 1.5], &known), Some(0.0));
    assert_eq!(distance_from(&[1.5, 1.5, 1.5, 1.5], &known), Some(0.5));
}

#[test]
fn the_p_value_of_two_large_samples_is_that_of_the_limit() {
    let sorted = |count: u32, shift: f64| -> Vec<f64> {
        (0..count).map(|number| f64::from(number) + shift).collect()
    };
    // The exact p-value would take 1e8 steps.
    let found = kolmogorov_smirnov(&sorted(10_000, 0.0), &sorted(10_000, 200.5)).unwrap();
    assert!((found.0 - 0.0201).abs() < 1e-12);
    // kstwobign.sf(sqrt(5000) * 0.0201)
    assert!((found.1 - 0.035_191_233_797).abs() < 1e-11, "{found:?}");
}

#[test]
fn a_weighted_mean_has_the_variance_of_a_ratio() {
    let mut mean = WeightedMean::default();
    assert_eq!(mean.interval(CONFIDENCE), None);
    for (value, weight) in [
        (1.0, 1.0),
        (0.0, 1.0),
        (1.0, 10.0),
        (1.0, 10.0),
        (0.0, 10.0),
    ] {
        mean.add(value, weight);
    }
    // m = 21/32; error = sqrt(5/4 * sum(w^2 (x - m)^2)) / sum(w), and 1.959964 errors.
    let found = mean.interval(CONFIDENCE).unwrap();
    assert!((found.value - 0.656_25).abs() < 1e-12);
    assert!(
        (found.high - found.value - 0.561_555_9).abs() < 1e-6,
        "{found:?}"
    );
    // Equal weights give the interval of the plain mean.
    let (mut weighted, mut plain) = (WeightedMean::default(), Moments::default());
    for number in 0..1000 {
        weighted.add(f64::from(number % 7), 3.0);
        plain.add(f64::from(number % 7));
    }
    let found = weighted.interval(CONFIDENCE).unwrap();
    let wanted = plain.mean_interval(CONFIDENCE).unwrap();
    assert!((found.low - wanted.low).abs() < 1e-3 && (found.value - wanted.value).abs() < 1e-12);
}

#[test]
fn values_without_any_variance_reach_a_bound() {
    // Each value is its prediction, so the variance stays 0.
    let mut sequence = Sequence::default();
    for _ in 0..1_000 {
        sequence.add(0.5);
    }
    assert!(sequence.is_above(0.4, 0.05) && sequence.is_below(0.6, 0.05));
    assert!(!sequence.is_above(0.5, 0.05) && !sequence.is_below(0.5, 0.05));
    let interval = sequence.interval(0.05);
    assert!(interval.low > 0.4 && interval.high < 0.6, "{interval:?}");
    assert!(sequence.is_above(interval.low - 1e-9, 0.025));
}

proptest::proptest! {
    #[test]
    fn no_counts_give_a_value_that_is_no_number(
        cells in proptest::collection::vec(0_u64..4, 9),
        q in 0.01..0.99_f64,
    ) {
        let table: Vec<Vec<u64>> = cells.chunks(3).map(<[u64]>::to_vec).collect();
        let test = homogeneity(&table);
        proptest::prop_assert!((0.0..=1.0).contains(&test.p_value), "{:?}", test);
        proptest::prop_assert!(kappa(&table).is_none_or(|kappa| kappa <= 1.0));
        let test = g_test(&table[0], &table[1]);
        proptest::prop_assert!(test.is_none_or(|test| (0.0..=1.0).contains(&test.p_value)));
        let p_value = mcnemar(cells[0], cells[1]);
        proptest::prop_assert!(p_value > 0.0 && p_value <= 1.0);
        let (low, high) = quantile_ranks(cells.iter().sum(), q, CONFIDENCE);
        proptest::prop_assert!(low.zip(high).is_none_or(|(low, high)| low <= high));
    }
}
