//! Makes a model from a table: splits the rows, fills missing values, trains, measures,
//! and describes the result.

use anyhow::{Result, anyhow, bail};
use serde_json::value::RawValue;

use crate::model::Model;
use crate::model::description::{
    ClassThreshold, ClassWeight, Description, HeldOutBy, Hyperparameters, Threshold, TrainingRun,
};
use crate::model::feature::Feature;
use crate::model::file;
use crate::model::prediction::Predictor;
use crate::model::profile::FeatureProfile;
use crate::stage::report::shown;
use crate::stage::usage;
use crate::train::answers::NUMBER_MAX;
use crate::train::args::TrainOptions;
use crate::train::eval::truths::same_label;
use crate::train::fill;
use crate::train::fit_args::Holdout;
use crate::train::measure::{feature_profiles, measure};
use crate::train::split::Split;
use crate::train::table::{Rows, Table};
use crate::train::trainer::{Trainer, TrainingData};

/// The rows of the file of `--holdout-file`.
#[derive(Debug, Default)]
pub struct HeldOutFile {
    /// The rows.
    pub rows: Rows,
    /// The SHA-256 of the file's bytes.
    pub sha256: Option<String>,
}

/// A table that is ready for training.
#[derive(Debug)]
pub struct Prepared {
    /// The features, with their fill values.
    pub features: Vec<Feature>,
    split: Split,
    trainer: Trainer,
    parameters: Hyperparameters,
    threshold: Option<(Threshold, ClassThreshold)>,
}

impl Prepared {
    /// Splits the rows and checks that the options fit the table.
    pub fn new(options: &TrainOptions, table: &Table) -> Result<Prepared> {
        let target = &options.table.columns.target;
        if table
            .rows
            .targets
            .iter()
            .any(|number| number.abs() > NUMBER_MAX)
        {
            bail!(
                "column {} has values beyond {NUMBER_MAX:e}, which are too large to predict; scale \
                 the column down",
                shown(target)
            );
        }
        let (trainer, parameters) = options.fit.trainer(!table.classes.is_empty(), target)?;
        let split = Split::new(table, options.fit.seed, &options.fit.holdout)?;
        Ok(Prepared {
            features: fill::features(table, &split.training)?,
            split,
            trainer,
            parameters,
            threshold: threshold(options, table)?,
        })
    }

    /// Trains. Returns the text of the model file, and the model.
    pub fn train(
        self,
        options: &TrainOptions,
        table: &Table,
        held_out: HeldOutFile,
    ) -> Result<(String, Model)> {
        let training = table.rows.subset(&self.split.training);
        // The profile describes the values before missing ones are filled.
        let profiles = feature_profiles(&training, &self.features);
        let mut data = TrainingData {
            features: &self.features,
            class_count: table.classes.len(),
            training,
            class_weights: Vec::new(),
            held_out: match options.fit.holdout {
                Holdout::File(_) => held_out.rows,
                _ => table.rows.subset(&self.split.held_out),
            },
            seed: options.fit.seed,
            threads: options.fit.threads,
        };
        fill::fill(&mut data.training, &self.features);
        fill::fill(&mut data.held_out, &self.features);
        if options.fit.class_weight == Some(ClassWeight::Balanced) {
            data.class_weights = balanced(&data.training, data.class_count);
        }
        let predictor = (self.trainer.fit)(&data, &self.parameters)?;
        let parameters = predictor.to_json()?;
        let mut description = self.describe(options, table, &data, profiles, &*predictor)?;
        if let Some(training) = &mut description.training {
            training.holdout_sha256 = held_out.sha256;
        }
        drop((data, predictor));
        let text = file::wrap(&file::join(
            &serde_json::to_string(&description)?,
            &parameters,
        )?);
        file::check_size(&text).map_err(|fault| {
            anyhow!("{fault}; lower --trees or --max-depth, or raise --min-leaf")
        })?;
        // The written text must give the same model, so it is read back and compared.
        let model = Model::from_text(&text).map_err(|fault| anyhow!("the model {fault}"))?;
        if model.predictor().to_json()? != parameters {
            bail!("the model changes when it is written; this is a defect");
        }
        Ok((text, model))
    }

    /// The description for the model file.
    fn describe(
        &self,
        options: &TrainOptions,
        table: &Table,
        data: &TrainingData,
        profiles: Vec<FeatureProfile>,
        predictor: &dyn Predictor,
    ) -> Result<Description> {
        let class_threshold = self.threshold.as_ref().map(|(_, of_class)| *of_class);
        let (metrics, profile) = measure(data, profiles, predictor, class_threshold)?;
        let labels = table.classes.iter();
        let labels = labels.map(|label| RawValue::from_string(label.clone()));
        let fit = &options.fit;
        let (holdout, held_out_by) = match fit.holdout {
            Holdout::Share(share) => (share, HeldOutBy::Seed),
            Holdout::Last(share) => (share, HeldOutBy::Last),
            Holdout::File(_) => (0.0, HeldOutBy::File),
        };
        Ok(Description {
            name: options.name.clone(),
            version: options.version,
            algorithm: fit.algorithm,
            target: options.table.columns.target.clone(),
            features: self.features.clone(),
            classes: labels.collect::<Result<_, _>>()?,
            threshold: self.threshold.as_ref().map(|(stored, _)| stored.clone()),
            training: Some(TrainingRun {
                rows: data.training.len() as u64,
                held_out: data.held_out.len() as u64,
                left_out: table.left_out,
                seed: fit.seed,
                holdout,
                held_out_by,
                class_weight: fit.class_weight,
                data_sha256: table.sha256.clone(),
                holdout_sha256: None,
                tool: Some(concat!("rv-tools ", env!("CARGO_PKG_VERSION")).to_owned()),
                parameters: self.parameters.clone(),
            }),
            imported: None,
            metrics,
            profile: Some(profile),
        })
    }
}

/// The threshold of the options, if the table has its label and two classes.
fn threshold(options: &TrainOptions, table: &Table) -> Result<Option<(Threshold, ClassThreshold)>> {
    let Some((text, probability)) = &options.fit.threshold else {
        return Ok(None);
    };
    let target = shown(&options.table.columns.target);
    if table.classes.len() != 2 {
        return Err(usage(format!(
            "--threshold is for two classes, but column {target} has {}",
            table.classes.len()
        )));
    }
    let class = table
        .classes
        .iter()
        .position(|label| same_label(label, text));
    let Some(class) = class else {
        return Err(usage(format!(
            "--threshold: column {target} has no label {}; its labels are {}",
            shown(text),
            table.classes.join(", ")
        )));
    };
    let stored = Threshold {
        label: RawValue::from_string(table.classes[class].clone())?,
        probability: *probability,
    };
    let of_class = ClassThreshold {
        class,
        probability: *probability,
    };
    Ok(Some((stored, of_class)))
}

/// For each class, the weight of one of its rows. With these weights, all classes weigh
/// the same, and the mean weight of a row is 1.
fn balanced(rows: &Rows, class_count: usize) -> Vec<f64> {
    let mut counts = vec![0u64; class_count];
    for class in &rows.class_of {
        counts[*class as usize] += 1;
    }
    let weight = |count: &u64| rows.len() as f64 / (class_count as f64 * (*count).max(1) as f64);
    counts.iter().map(weight).collect()
}
