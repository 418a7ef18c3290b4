//! Measures the quality of a predictor, and the distributions of its inputs and
//! predictions.

use anyhow::{Result, bail};

use crate::model::description::MeasuredMetrics;
use crate::model::feature::Feature;
use crate::model::metrics::Metrics;
use crate::model::prediction::{Prediction, Predictor};
use crate::model::profile::{FeatureProfile, MeasuredOn, Profile, Quantiles, ScoreProfile};
use crate::train::table::{Rows, Table};
use crate::train::trainer::TrainingData;

/// Measures a predictor on the held-out rows, or on the training rows if no row is held
/// out.
pub fn measure(
    table: &Table,
    data: &TrainingData,
    predictor: &dyn Predictor,
) -> Result<(MeasuredMetrics, Profile)> {
    let (on, rows) = match data.held_out.is_empty() {
        true => (MeasuredOn::Training, &data.training),
        false => (MeasuredOn::HeldOut, &data.held_out),
    };
    let (metrics, confidence) = classify(rows, predictor, data.class_count)?;
    let share = |class: usize| {
        let predicted: u64 = metrics.confusion.iter().map(|line| line[class]).sum();
        predicted as f64 / metrics.rows as f64
    };
    let profile = Profile {
        features: feature_profiles(&data.training, &table.features, &table.missing),
        scores: ScoreProfile {
            on,
            count: metrics.rows,
            class_shares: (0..data.class_count).map(share).collect(),
            confidence: Quantiles::of(confidence),
        },
    };
    let metrics = MeasuredMetrics {
        held_out: (on == MeasuredOn::HeldOut).then_some(metrics),
    };
    Ok((metrics, profile))
}

/// The metrics of a classifier on `rows`, and its confidence for each row.
fn classify(
    rows: &Rows,
    predictor: &dyn Predictor,
    class_count: usize,
) -> Result<(Metrics, Vec<f64>)> {
    let mut probabilities = vec![0.0; class_count];
    let mut confidence = Vec::with_capacity(rows.len());
    let mut pairs = Vec::with_capacity(rows.len());
    for index in 0..rows.len() {
        match predictor.predict(rows.row(index), &mut probabilities) {
            Prediction::Class(class) => {
                confidence.push(probabilities[class]);
                pairs.push((rows.class_of[index] as usize, class));
            }
            Prediction::Number(_) => {
                bail!("the target has classes, but the model predicts numbers; this is a defect")
            }
        }
    }
    let metrics = Metrics::count(class_count, pairs.into_iter());
    Ok((metrics, confidence))
}

/// The distribution of each feature in `rows`. For each feature, `missing` is the number
/// of rows of the data without its value.
fn feature_profiles(rows: &Rows, features: &[Feature], missing: &[u64]) -> Vec<FeatureProfile> {
    let features = features.iter().zip(missing).enumerate();
    let profile = |(index, (feature, missing)): (usize, (&Feature, &u64))| {
        let values = (0..rows.len()).map(|row| rows.row(row)[index]);
        FeatureProfile {
            name: feature.name.clone(),
            count: rows.len() as u64,
            missing: *missing,
            quantiles: Quantiles::of(values.collect()),
        }
    };
    features.map(profile).collect()
}
