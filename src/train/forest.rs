//! Trains random forests: many trees, each on a bootstrap sample of the rows and with a
//! sample of the features at each node. Several threads grow the trees. The result does
//! not depend on the number of threads.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

use crate::model::description::Hyperparameters;
use crate::model::ensemble::Ensemble;
use crate::model::ensemble::link::Link;
use crate::model::ensemble::text::{Combination, EnsembleText, Precision, TreeText};
use crate::model::prediction::Predictor;
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
                let index = text.push_split(&split);
                text.right[index] = right as u32;
            }
            GrownNode::Leaf(NodeAnswer::Number(number), _) => {
                text.push_leaf(number);
            }
            GrownNode::Leaf(NodeAnswer::Classes(sums), _) => {
                let total: f64 = sums.iter().map(|(_, sum)| sum).sum();
                let share = |(class, sum)| (class, sum / total);
                text.push_shares(sums.into_iter().map(share).collect());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::feature::Feature;
    use crate::model::prediction::Prediction;
    use crate::train::tests::{category, classes_data, numbers_data};

    const SMALL: Hyperparameters = Hyperparameters {
        trees: Some(7),
        max_depth: Some(32),
        min_leaf: Some(1),
        ..Hyperparameters::NONE
    };

    fn features() -> [Feature; 3] {
        [
            Feature::number("x"),
            category("kind", &["a", "b", "c", "d"]),
            Feature::number("y"),
        ]
    }

    /// Rows of two numbers and a category.
    fn rows() -> impl Strategy<Value = Vec<f64>> {
        let row = (-4i8..5, 0u8..5, -4i8..5);
        proptest::collection::vec(row, 6..40).prop_map(|rows| {
            let rows = rows.into_iter();
            rows.flat_map(|(x, kind, y)| [x.into(), kind.into(), y.into()])
                .collect()
        })
    }

    fn ensemble(trees: Vec<TreeText>, outputs: usize) -> Ensemble {
        let text = EnsembleText {
            combination: Combination::Average,
            precision: Precision::Double,
            link: Link::Identity,
            base: vec![0.0; outputs],
            trees,
        };
        Ensemble::from_text(text).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_number_of_threads_changes_nothing_and_the_seed_does(values in rows(), seed in 0u64..9) {
            let features = features();
            let class_of: Vec<u32> = (0..values.len() / 3).map(|row| row as u32 % 3).collect();
            let mut data = classes_data(&features, values, class_of);
            data.seed = seed;
            let text = |data: &TrainingData| fit(data, &SMALL).unwrap().to_json().unwrap();
            let one = text(&data);
            for threads in [2, 5] {
                data.threads = NonZero::new(threads);
                prop_assert_eq!(&text(&data), &one);
            }
            data.seed += 1;
            prop_assert_ne!(&text(&data), &one);
        }

        #[test]
        fn a_forest_predicts_the_mean_of_its_trees(values in rows()) {
            let features = features();
            let class_of: Vec<u32> = (0..values.len() / 3).map(|row| row as u32 % 3).collect();
            let data = classes_data(&features, values.clone(), class_of);
            let forest = fit(&data, &SMALL).unwrap();
            prop_assert_eq!(forest.check(&features, 3), Ok(()));
            let trees = grow_all(&data, &SMALL).into_iter();
            let trees: Vec<Ensemble> = trees.map(|tree| ensemble(vec![tree], 3)).collect();
            for row in values.chunks(3) {
                let (mut all, mut one, mut sums) = ([0.0; 3], [0.0; 3], [0.0; 3]);
                let Prediction::Class(class) = forest.predict(row, &mut all) else {
                    panic!("a class was expected");
                };
                for tree in &trees {
                    tree.predict(row, &mut one);
                    prop_assert!((one.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                    for (sum, share) in sums.iter_mut().zip(one) {
                        *sum += share / 7.0;
                    }
                }
                for (own, mean) in all.iter().zip(sums) {
                    prop_assert!((own - mean).abs() < 1e-9);
                    prop_assert!(*own <= all[class]);
                }
            }
        }

        #[test]
        fn a_forest_of_numbers_predicts_the_mean_of_its_trees(values in rows()) {
            let features = features();
            let targets: Vec<f64> = values.chunks(3).map(|row| row[0] * 3.0 + row[1]).collect();
            let data = numbers_data(&features, values.clone(), targets);
            let forest = fit(&data, &SMALL).unwrap();
            prop_assert_eq!(forest.check(&features, 0), Ok(()));
            let trees = grow_all(&data, &SMALL).into_iter();
            let trees: Vec<Ensemble> = trees.map(|tree| ensemble(vec![tree], 1)).collect();
            let number = |model: &dyn Predictor, row: &[f64]| match model.predict(row, &mut []) {
                Prediction::Number(number) => number,
                Prediction::Class(_) => f64::NAN,
            };
            for row in values.chunks(3) {
                let mean: f64 = trees.iter().map(|tree| number(tree, row) / 7.0).sum();
                prop_assert!((number(&*forest, row) - mean).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn class_weights_draw_a_forest_to_the_rare_class() {
        let features = [Feature::number("x")];
        let values: Vec<f64> = (0..200).map(|row| f64::from(row % 10)).collect();
        let class_of = (0..200).map(|row| u32::from(row % 20 == 9)).collect();
        let mut data = classes_data(&features, values, class_of);
        let probability = |data: &TrainingData| {
            let mut probabilities = [0.0; 2];
            let forest = fit(data, &SMALL).unwrap();
            forest.predict(&[9.0], &mut probabilities);
            probabilities[1]
        };
        // Half of the rows with 9 have the rare class.
        let plain = probability(&data);
        data.class_weights = vec![0.5, 5.0];
        let weighted = probability(&data);
        assert!((0.2..0.8).contains(&plain), "{plain}");
        assert!(weighted > plain + 0.15, "{weighted} {plain}");
    }
}
