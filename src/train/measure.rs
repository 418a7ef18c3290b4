//! Measures the quality of a predictor, and the distributions of its inputs and
//! predictions.

use anyhow::Result;

use crate::model::description::{ClassThreshold, MeasuredMetrics};
use crate::model::feature::Feature;
use crate::model::prediction::{Prediction, Predictor};
use crate::model::profile::{
    FeatureProfile, MeasuredOn, Profile, Quantiles, ScoreProfile, TargetProfile, Values,
};
use crate::train::answers::{Answers, Truth};
use crate::train::table::Rows;
use crate::train::trainer::TrainingData;

/// The number of columns that are copied in one pass over the rows. A line of the
/// processor's cache holds as many values.
const COLUMNS_PER_PASS: usize = 8;

/// Measures a predictor on the held-out rows, or on the training rows if no row is held
/// out. `features` are the profiles of the features.
pub fn measure(
    data: &TrainingData,
    features: Vec<FeatureProfile>,
    predictor: &dyn Predictor,
    threshold: Option<ClassThreshold>,
) -> Result<(MeasuredMetrics, Profile)> {
    let (on, rows) = match data.held_out.is_empty() {
        true => (MeasuredOn::Training, &data.training),
        false => (MeasuredOn::HeldOut, &data.held_out),
    };
    let answers = answers(rows, predictor, data.class_count, threshold)?;
    let profile = Profile {
        features,
        target: Some(target_profile(&data.training, data.class_count)),
        scores: score_profile(on, &answers, data.class_count),
    };
    let is_held_out = on == MeasuredOn::HeldOut;
    let metrics = MeasuredMetrics {
        held_out: is_held_out.then(|| answers.metrics(data.class_count)),
    };
    Ok((metrics, profile))
}

/// The answers of a predictor for `rows`.
fn answers(
    rows: &Rows,
    predictor: &dyn Predictor,
    class_count: usize,
    threshold: Option<ClassThreshold>,
) -> Result<Answers> {
    let mut probabilities = vec![0.0; class_count];
    let mut answers = Answers::new(class_count);
    for index in 0..rows.len() {
        let mut prediction = predictor.predict(rows.row(index), &mut probabilities);
        if let Some(threshold) = threshold {
            prediction = Prediction::Class(threshold.class(&probabilities));
        }
        let truth = match class_count {
            0 => Truth::Number(rows.targets[index]),
            _ => Truth::Class(rows.class_of[index] as usize),
        };
        answers.push(truth, prediction, &probabilities)?;
    }
    Ok(answers)
}

/// The distribution of each feature in these rows. Their missing values must not be
/// filled yet.
pub fn feature_profiles(rows: &Rows, features: &[Feature]) -> Vec<FeatureProfile> {
    let mut profiles = Vec::with_capacity(features.len());
    for (chunk, features) in features.chunks(COLUMNS_PER_PASS).enumerate() {
        let first = chunk * COLUMNS_PER_PASS;
        let empty = |_: &Feature| Vec::with_capacity(rows.len());
        let mut columns: Vec<Vec<f64>> = features.iter().map(empty).collect();
        for row in rows.values.chunks_exact(rows.width.max(1)) {
            for (column, value) in columns.iter_mut().zip(&row[first..]) {
                if !value.is_nan() {
                    column.push(*value);
                }
            }
        }
        let pairs = features.iter().zip(columns);
        profiles.extend(pairs.map(|(feature, values)| feature_profile(rows, feature, values)));
    }
    profiles
}

/// The distribution of one feature. `values` are its values in the rows.
fn feature_profile(rows: &Rows, feature: &Feature, values: Vec<f64>) -> FeatureProfile {
    let missing = rows.len() - values.len();
    FeatureProfile {
        name: feature.name.clone(),
        count: rows.len() as u64,
        missing: missing as u64,
        missing_share: missing as f64 / rows.len().max(1) as f64,
        values: match feature.categories() {
            None => Values::Numbers {
                quantiles: Quantiles::of(values),
            },
            Some(categories) => count_categories(&values, categories.len()),
        },
    }
}

fn count_categories(codes: &[f64], count: usize) -> Values {
    let mut counts = vec![0; count];
    let mut other = 0;
    for code in codes {
        match counts.get_mut(*code as usize) {
            Some(count) => *count += 1,
            None => other += 1,
        }
    }
    Values::Categories { counts, other }
}

fn target_profile(rows: &Rows, class_count: usize) -> TargetProfile {
    if class_count == 0 {
        return TargetProfile::Quantiles(Quantiles::of(rows.targets.clone()));
    }
    let mut counts = vec![0; class_count];
    for class in &rows.class_of {
        counts[*class as usize] += 1;
    }
    TargetProfile::ClassCounts(counts)
}

fn score_profile(on: MeasuredOn, answers: &Answers, class_count: usize) -> ScoreProfile {
    let mut profile = ScoreProfile {
        on,
        count: answers.len() as u64,
        class_shares: Vec::new(),
        confidence: None,
        numbers: None,
    };
    match answers {
        Answers::Classes(answers) => {
            let mut shares = vec![0.0; class_count];
            for answer in answers {
                shares[answer.predicted] += 1.0;
            }
            let count = answers.len().max(1) as f64;
            profile.class_shares = shares.iter().map(|share| share / count).collect();
            let confidence = answers.iter().map(|answer| answer.confidence);
            profile.confidence = Some(Quantiles::of(confidence.collect()));
        }
        Answers::Numbers(pairs) => {
            let numbers = pairs.iter().map(|(_, predicted)| *predicted);
            profile.numbers = Some(Quantiles::of(numbers.collect()));
        }
    }
    profile
}
