//! Trains random forests: many trees, each on a bootstrap sample of the rows and with a
//! sample of the features at each node. Several threads grow the trees; the result does
//! not depend on their number.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

use crate::model::description::Hyperparameters;
use crate::model::ensemble::{Combination, Ensemble, EnsembleText, Link, Precision, TreeText};
use crate::model::prediction::Predictor;
use crate::model::splits::Test;
use crate::train::cart::{TREE_DEFAULTS, limits};
use crate::train::criterion::{Gini, NodeAnswer, Variance};
use crate::train::grow::{Candidates, GrownNode, TreeLimits, grow};
use crate::train::random::Random;
use crate::train::ranks::{RankedColumn, ranked_columns};
use crate::train::trainer::{Trainer, TrainingData};

/// The default number of trees.
const TREES_DEFAULT: u32 = 100;

/// A random forest for classes.
pub const TRAINER: Trainer = Trainer {
    defaults: FOREST_DEFAULTS,
    fit,
};

/// A random forest for numbers.
pub const REGRESSION_TRAINER: Trainer = TRAINER;

const FOREST_DEFAULTS: Hyperparameters = Hyperparameters {
    trees: Some(TREES_DEFAULT),
    ..TREE_DEFAULTS
};

fn fit(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    let text = EnsembleText {
        combination: Combination::Average,
        precision: Precision::Double,
        link: Link::Identity,
        base: vec![0.0; data.class_count.max(1)],
        trees: grow_all(data, parameters),
    };
    let forest = Ensemble::from_text(text);
    let forest = forest.map_err(|fault| {
        anyhow!("the forest cannot be stored: {fault}; lower --trees or raise --min-leaf")
    })?;
    Ok(Box::new(forest))
}

/// Grows all trees, in the order of their numbers.
fn grow_all(data: &TrainingData, parameters: &Hyperparameters) -> Vec<TreeText> {
    let growing = Growing {
        columns: ranked_columns(&data.training, data.features),
        features_per_node: features_per_node(data.features.len(), data.class_count),
        limits: limits(parameters),
        data,
    };
    let count = parameters.trees.unwrap_or(TREES_DEFAULT) as usize;
    let next = AtomicUsize::new(0);
    let finished = Mutex::new(Vec::with_capacity(count));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let tree = growing.tree(number as u64);
            if let Ok(mut finished) = finished.lock() {
                finished.push((number, tree));
            }
        }
    };
    let threads = data.threads.map_or(1, NonZero::get).min(count);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut trees = finished.into_inner().unwrap_or_default();
    trees.sort_by_key(|(number, _)| *number);
    trees.into_iter().map(|(_, tree)| tree).collect()
}

/// The number of features that are drawn at each node: the square root of all for
/// classes, a third for numbers.
fn features_per_node(features: usize, class_count: usize) -> usize {
    match class_count {
        0 => features.div_ceil(3),
        _ => features.isqrt().max(1),
    }
}

/// What the threads share.
struct Growing<'d> {
    data: &'d TrainingData<'d>,
    columns: Vec<RankedColumn>,
    features_per_node: usize,
    limits: TreeLimits,
}

impl Growing<'_> {
    /// Grows one tree.
    fn tree(&self, number: u64) -> TreeText {
        let rows = &self.data.training;
        let mut random = Random::of_part(self.data.seed, number);
        let mut weights = vec![0.0; rows.len()];
        for _ in 0..rows.len() {
            weights[random.below(rows.len())] += 1.0;
        }
        let drawn = (0..rows.len() as u32).filter(|row| weights[*row as usize] > 0.0);
        let drawn: Vec<u32> = drawn.collect();
        for (weight, class) in weights.iter_mut().zip(&rows.class_of) {
            let class_weight = self.data.class_weights.get(*class as usize);
            *weight *= class_weight.copied().unwrap_or(1.0);
        }
        let candidates = Candidates::Sample(self.features_per_node, random);
        let (columns, limits) = (&self.columns, self.limits);
        let nodes = match self.data.class_count {
            0 => {
                let mut variance = Variance::new(&rows.targets);
                grow(columns, drawn, &weights, &mut variance, limits, candidates)
            }
            classes => {
                let mut gini = Gini::new(&rows.class_of, classes);
                grow(columns, drawn, &weights, &mut gini, limits, candidates)
            }
        };
        text_of(nodes)
    }
}

/// A tree in the form of a model file.
fn text_of(nodes: Vec<GrownNode>) -> TreeText {
    let mut text = TreeText::default();
    for node in nodes {
        match node {
            GrownNode::Split(split, right) => {
                let is_set = matches!(split.test, Test::OneOf(_));
                let value = match split.test {
                    Test::AtMost(threshold) => threshold,
                    Test::OneOf(set) => {
                        text.categories.push(set);
                        (text.categories.len() - 1) as f64
                    }
                };
                text.push(split.feature as i32, value, right as u32, is_set);
            }
            GrownNode::Leaf(NodeAnswer::Number(number), _) => {
                text.push(-1, number, 0, false);
            }
            GrownNode::Leaf(NodeAnswer::Classes(sums), _) => {
                text.push(-1, 0.0, 0, false);
                let total: f64 = sums.iter().map(|(_, sum)| sum).sum();
                let share = |(class, sum)| (class, sum / total);
                let shares = sums.into_iter().map(share).collect();
                text.shares.get_or_insert_default().push(shares);
            }
        }
    }
    if text.categories.is_empty() {
        text.flags.clear();
    }
    text
}
