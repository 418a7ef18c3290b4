//! Trains decision trees: CART with Gini impurity for classes, and with variance for
//! numbers.

use anyhow::Result;

use crate::model::description::Hyperparameters;
use crate::model::feature::Feature;
use crate::model::prediction::Predictor;
use crate::model::tree::Tree;
use crate::train::criterion::{Criterion, Gini, NodeAnswer, Variance};
use crate::train::grow::{Candidates, GrownNode, TreeLimits, grow};
use crate::train::ranks::ranked_columns;
use crate::train::table::Rows;
use crate::train::trainer::{Trainer, TrainingData};

/// The default of the largest depth of a tree.
const DEPTH_MAX_DEFAULT: u32 = 32;

/// The default of the smallest number of rows in a leaf.
const LEAF_ROWS_MIN_DEFAULT: u32 = 1;

/// The default of the smallest number of rows in a leaf with a number.
const NUMBER_ROWS_MIN_DEFAULT: u32 = 5;

/// CART with Gini impurity.
pub const TRAINER: Trainer = Trainer {
    defaults: TREE_DEFAULTS,
    fit: fit_classes,
};

/// CART with variance.
pub const REGRESSION_TRAINER: Trainer = Trainer {
    defaults: Hyperparameters {
        min_leaf: Some(NUMBER_ROWS_MIN_DEFAULT),
        ..TREE_DEFAULTS
    },
    fit: fit_numbers,
};

/// The hyperparameters of trees.
pub const TREE_DEFAULTS: Hyperparameters = Hyperparameters {
    max_depth: Some(DEPTH_MAX_DEFAULT),
    min_leaf: Some(LEAF_ROWS_MIN_DEFAULT),
    ..Hyperparameters::NONE
};

/// The limits of a tree in the hyperparameters.
pub fn limits(parameters: &Hyperparameters) -> TreeLimits {
    TreeLimits {
        depth_max: parameters.max_depth.unwrap_or(DEPTH_MAX_DEFAULT),
        leaf_rows_min: parameters.min_leaf.unwrap_or(LEAF_ROWS_MIN_DEFAULT) as usize,
    }
}

fn fit_classes(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    Ok(Box::new(class_tree(
        &data.training,
        data.features,
        data.class_count,
        &data.class_weights,
        limits(parameters),
    )))
}

fn fit_numbers(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    let rows = &data.training;
    let mut variance = Variance::new(&rows.targets);
    let weights = vec![1.0; rows.len()];
    let nodes = whole(
        rows,
        data.features,
        &weights,
        &mut variance,
        limits(parameters),
    );
    Ok(Box::new(tree_of(nodes, |_| 1.0)))
}

/// A tree for classes. `class_weights` has one weight for each class, or is empty.
fn class_tree(
    rows: &Rows,
    features: &[Feature],
    class_count: usize,
    class_weights: &[f64],
    limits: TreeLimits,
) -> Tree {
    let weight = |class: u32| class_weights.get(class as usize).copied().unwrap_or(1.0);
    let weights: Vec<f64> = rows.class_of.iter().map(|class| weight(*class)).collect();
    let mut gini = Gini::new(&rows.class_of, class_count);
    let nodes = whole(rows, features, &weights, &mut gini, limits);
    let mut tree = tree_of(nodes, weight);
    tree.set_class_weights(class_weights.to_vec());
    tree
}

/// Grows a tree on all rows and all features.
fn whole(
    rows: &Rows,
    features: &[Feature],
    weights: &[f64],
    criterion: &mut impl Criterion,
    limits: TreeLimits,
) -> Vec<GrownNode> {
    let columns = ranked_columns(rows, features);
    let all = (0..rows.len() as u32).collect();
    grow(&columns, all, weights, criterion, limits, Candidates::All)
}

/// The tree in the form that predicts. A leaf holds the number of its rows of each
/// class, so the sum of the weights of a class is divided by the weight of one row.
fn tree_of(nodes: Vec<GrownNode>, weight: impl Fn(u32) -> f64) -> Tree {
    let mut tree = Tree::default();
    for node in nodes {
        match node {
            GrownNode::Split(split, right) => {
                let index = tree.push_split(&split);
                tree.set_right(index, right);
            }
            GrownNode::Leaf(NodeAnswer::Number(number), rows) => {
                tree.push_number(number, rows as u64);
            }
            GrownNode::Leaf(NodeAnswer::Classes(sums), _) => {
                let count = |(class, sum): &(u32, f64)| (*class, (sum / weight(*class)).round());
                let counts = sums.iter().map(count);
                let counts = counts.map(|(class, count)| (class, count as u32));
                tree.push_leaf(heaviest(&sums), counts);
            }
        }
    }
    tree
}

/// The class with the largest weight. Of several such classes, the first one counts.
fn heaviest(sums: &[(u32, f64)]) -> u32 {
    let mut best = (0, 0.0);
    for (class, sum) in sums {
        if *sum > best.1 {
            best = (*class, *sum);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::model::prediction::Prediction;
    use crate::train::tests::{category, numbers_data};

    fn features(count: usize) -> Vec<Feature> {
        let names = (0..count).map(|index| index.to_string());
        names.map(Feature::number).collect()
    }

    const DEEP: TreeLimits = TreeLimits {
        depth_max: 128,
        leaf_rows_min: 1,
    };

    fn rows(rows: &[(&[f64], u32)]) -> Rows {
        Rows {
            width: rows[0].0.len(),
            values: rows.iter().flat_map(|(row, _)| row.to_vec()).collect(),
            class_of: rows.iter().map(|(_, class)| *class).collect(),
            ..Rows::default()
        }
    }

    fn grown(rows: &Rows, classes: usize, limits: TreeLimits) -> Tree {
        class_tree(rows, &features(rows.width), classes, &[], limits)
    }

    /// The nodes in the form of the model file.
    fn nodes(tree: &Tree) -> Vec<Value> {
        let parameters: Value = serde_json::from_str(&tree.to_json().unwrap()).unwrap();
        parameters["nodes"].as_array().unwrap().clone()
    }

    fn fits_exactly(rows: &Rows, tree: &Tree, classes: usize) -> bool {
        let mut probabilities = vec![0.0; classes];
        (0..rows.len()).all(|index| {
            let class = rows.class_of[index] as usize;
            let predicted = tree.predict(rows.row(index), &mut probabilities);
            predicted == Prediction::Class(class) && probabilities[class] == 1.0
        })
    }

    #[test]
    fn rows_that_can_be_separated_are_separated() {
        for (name, rows, classes) in [
            (
                "a value that another node has too",
                rows(&[
                    (&[5.0, 1.0], 0),
                    (&[5.0, 2.0], 1),
                    (&[0.0, 1.0], 2),
                    (&[0.0, 1.0], 2),
                ]),
                3,
            ),
            (
                "exclusive or, for which no first split gains anything",
                rows(&[
                    (&[0.0, 0.0], 0),
                    (&[0.0, 1.0], 1),
                    (&[1.0, 0.0], 1),
                    (&[1.0, 1.0], 0),
                ]),
                2,
            ),
            (
                "neighbouring floats",
                rows(&[
                    (&[1.0], 0),
                    (&[1.0f64.next_up()], 1),
                    (&[1.0f64.next_up().next_up()], 0),
                ]),
                2,
            ),
            (
                "the smallest floats",
                rows(&[(&[0.0], 0), (&[5e-324], 1), (&[1e-323], 0), (&[-5e-324], 1)]),
                2,
            ),
            (
                "the largest floats",
                rows(&[
                    (&[f64::MAX], 0),
                    (&[-f64::MAX], 1),
                    (&[f64::MAX.next_down()], 1),
                ]),
                2,
            ),
        ] {
            let tree = grown(&rows, classes, DEEP);
            assert_eq!(tree.check(&features(rows.width), classes), Ok(()), "{name}");
            assert!(fits_exactly(&rows, &tree, classes), "{name}: {tree:?}");
        }
    }

    #[test]
    fn both_zeros_are_one_value() {
        let rows = rows(&[(&[-0.0], 0), (&[0.0], 1)]);
        assert_eq!(nodes(&grown(&rows, 2, DEEP)).len(), 1);
    }

    #[test]
    fn ties_go_to_the_first_feature_and_the_lower_threshold() {
        let rows = rows(&[
            (&[0.0, 0.0, 7.0], 0),
            (&[1.0, 1.0, 7.0], 1),
            (&[2.0, 2.0, 7.0], 0),
        ]);
        let root = &nodes(&grown(&rows, 2, DEEP))[0];
        assert_eq!(
            (&root["feature"], &root["threshold"]),
            (&0.into(), &0.5.into())
        );
    }

    #[test]
    fn limits_end_growth_and_the_first_class_wins_a_tie() {
        let rows = rows(&[(&[0.0], 1), (&[1.0], 0), (&[2.0], 1), (&[3.0], 0)]);
        let stump = grown(
            &rows,
            2,
            TreeLimits {
                depth_max: 1,
                leaf_rows_min: 2,
            },
        );
        assert_eq!(nodes(&stump).len(), 3);
        let mut probabilities = [0.0; 2];
        assert_eq!(
            stump.predict(&[0.0], &mut probabilities),
            Prediction::Class(0)
        );
        assert_eq!(probabilities, [0.5, 0.5]);
        let bare = grown(
            &rows,
            2,
            TreeLimits {
                depth_max: 128,
                leaf_rows_min: 3,
            },
        );
        assert_eq!(nodes(&bare).len(), 1);
    }

    /// The best split, found by trying all of them.
    fn best_by_force(rows: &Rows, classes: usize) -> Option<(usize, usize)> {
        let mut best: Option<(f64, usize, usize)> = None;
        for feature in 0..rows.width {
            let mut values: Vec<f64> = (0..rows.len()).map(|row| rows.row(row)[feature]).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            for value in &values[..values.len() - 1] {
                let mut counts = vec![[0.0f64; 2]; classes];
                for row in 0..rows.len() {
                    let side = usize::from(rows.row(row)[feature] > *value);
                    counts[rows.class_of[row] as usize][side] += 1.0;
                }
                let score: f64 = (0..2)
                    .map(|side| {
                        let all: f64 = counts.iter().map(|count| count[side]).sum();
                        counts.iter().map(|count| count[side].powi(2)).sum::<f64>() / all
                    })
                    .sum();
                let left: f64 = counts.iter().map(|count| count[0]).sum();
                if best.is_none_or(|(best, ..)| score > best + 1e-9) {
                    best = Some((score, feature, left as usize));
                }
            }
        }
        best.map(|(_, feature, left)| (feature, left))
    }

    fn table() -> impl Strategy<Value = Rows> {
        (1usize..4, 2usize..40).prop_flat_map(|(width, count)| {
            (
                proptest::collection::vec(-4i8..5, width * count),
                proptest::collection::vec(0u32..3, count),
            )
                .prop_map(move |(values, class_of)| Rows {
                    width,
                    values: values.iter().map(|value| f64::from(*value) / 4.0).collect(),
                    class_of,
                    ..Rows::default()
                })
        })
    }

    proptest! {
        #[test]
        fn a_tree_is_sound_and_its_first_split_is_the_best(rows in table()) {
            let tree = grown(&rows, 3, DEEP);
            prop_assert_eq!(tree.check(&features(rows.width), 3), Ok(()));
            prop_assert_eq!(&tree, &grown(&rows, 3, DEEP));
            let is_pure = rows.class_of.iter().all(|class| *class == rows.class_of[0]);
            let root = &nodes(&tree)[0];
            match root["feature"].as_u64() {
                Some(feature) => {
                    let (feature, threshold) = (feature as usize, root["threshold"].as_f64());
                    let left = { 0..rows.len() }
                        .filter(|row| Some(rows.row(*row)[feature]) <= threshold);
                    prop_assert_eq!(Some((feature, left.count())), best_by_force(&rows, 3));
                }
                None => prop_assert!(is_pure || best_by_force(&rows, 3).is_none()),
            }
        }

        #[test]
        fn rows_that_differ_are_fitted_exactly(mut rows in table()) {
            // Rows with the same values get the class of the first of them.
            for row in 0..rows.len() {
                let first = (0..row).find(|first| rows.row(*first) == rows.row(row));
                rows.class_of[row] = rows.class_of[first.unwrap_or(row)];
            }
            let tree = grown(&rows, 3, DEEP);
            prop_assert!(fits_exactly(&rows, &tree, 3));
        }

        #[test]
        fn limits_hold_in_every_leaf(rows in table(), depth_max in 1u32..4, leaf_rows_min in 1usize..6) {
            let tree = grown(&rows, 3, TreeLimits { depth_max, leaf_rows_min });
            let nodes = nodes(&tree);
            let mut open = vec![(0, 0)];
            while let Some((index, depth)) = open.pop() {
                prop_assert!(depth <= depth_max);
                let node: &Value = &nodes[index];
                for child in ["left", "right"] {
                    open.extend(node[child].as_u64().map(|child| (child as usize, depth + 1)));
                }
                if let Some(counts) = node["counts"].as_array() {
                    let rows_of = counts.iter().map(|pair| pair[1].as_u64().unwrap() as usize);
                    prop_assert!(rows_of.sum::<usize>() >= leaf_rows_min.min(rows.len()));
                }
            }
        }
    }

    /// A row of each combination of a category and a number, and its class.
    fn categories_data(class_of: impl Fn(u32, u32) -> u32) -> (Vec<Feature>, Rows) {
        let features = vec![
            category("kind", &["a", "b", "c", "d", "e"]),
            Feature::number("x"),
        ];
        let cells = (0..4u32).flat_map(|kind| (0..6u32).map(move |x| (kind, x)));
        let cells: Vec<(u32, u32)> = cells.collect();
        let rows = Rows {
            width: 2,
            values: cells
                .iter()
                .flat_map(|(kind, x)| [f64::from(*kind), f64::from(*x)])
                .collect(),
            class_of: cells.iter().map(|(kind, x)| class_of(*kind, *x)).collect(),
            ..Rows::default()
        };
        (features, rows)
    }

    #[test]
    fn one_split_divides_the_categories_and_the_unknown_ones_go_to_the_larger_child() {
        for (left, unknown) in [
            ([true, false, false, false], 1),
            ([true, true, false, true], 0),
        ] {
            let (features, rows) = categories_data(|kind, _| u32::from(!left[kind as usize]));
            let tree = class_tree(&rows, &features, 2, &[], DEEP);
            assert_eq!(tree.check(&features, 2), Ok(()));
            assert!(fits_exactly(&rows, &tree, 2));
            assert_eq!(nodes(&tree).len(), 3, "{tree:?}");
            let mut probabilities = [0.0; 2];
            // The category "e" has no row. The index 5 stands for all unknown
            // categories.
            for code in [4.0, 5.0] {
                assert_eq!(
                    tree.predict(&[code, 0.0], &mut probabilities),
                    Prediction::Class(unknown)
                );
            }
        }
    }

    #[test]
    fn an_unknown_category_goes_to_the_larger_child_on_either_side() {
        // The categories with the lower number go left.
        for (numbers, unknown) in [([1.0, 1.0, 1.0, 9.0], 1.0), ([1.0, 9.0, 9.0, 9.0], 9.0)] {
            let (features, rows) = categories_data(|_, _| 0);
            let targets = rows.values.chunks(2);
            let targets = targets.map(|row| numbers[row[0] as usize]).collect();
            let data = numbers_data(&features, rows.values.clone(), targets);
            let tree = fit_numbers(&data, &TREE_DEFAULTS).unwrap();
            for code in [4.0, 5.0] {
                let predicted = tree.predict(&[code, 0.0], &mut []);
                assert_eq!(predicted, Prediction::Number(unknown));
            }
        }
    }

    #[test]
    fn a_tree_of_numbers_beats_the_mean_and_fits_steps_exactly() {
        let (features, mut rows) = categories_data(|_, _| 0);
        rows.class_of.clear();
        let step =
            |row: &[f64]| 1e6 + [3.0, 1.0, 8.0, 5.0][row[0] as usize] + (row[1] / 3.0).floor();
        rows.targets = rows.values.chunks(2).map(step).collect();
        let data = numbers_data(&features, rows.values.clone(), rows.targets.clone());
        let parameters = Hyperparameters {
            max_depth: Some(128),
            min_leaf: Some(1),
            ..Hyperparameters::NONE
        };
        let tree = fit_numbers(&data, &parameters).unwrap();
        assert_eq!(tree.check(&features, 0), Ok(()));
        for row in rows.values.chunks(2) {
            assert_eq!(tree.predict(row, &mut []), Prediction::Number(step(row)));
        }
    }

    proptest! {
        #[test]
        fn the_first_split_of_numbers_leaves_the_smallest_squared_error(
            values in proptest::collection::vec(-4i8..5, 2 * 20),
            targets in proptest::collection::vec(-9i8..10, 20),
            offset in prop_oneof![Just(0.0), Just(1e9)],
        ) {
            let features = features(2);
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let targets: Vec<f64> = targets.iter().map(|one| f64::from(*one) + offset).collect();
            let data = numbers_data(&features, values.clone(), targets.clone());
            let parameters = Hyperparameters {
                max_depth: Some(1),
                min_leaf: Some(1),
                ..Hyperparameters::NONE
            };
            let tree = fit_numbers(&data, &parameters).unwrap();
            let error = |of_rows: &[f64]| {
                let mean = of_rows.iter().sum::<f64>() / of_rows.len().max(1) as f64;
                of_rows.iter().map(|one| (one - mean).powi(2)).sum::<f64>()
            };
            let side = |feature: usize, at: f64, is_left: bool| -> Vec<f64> {
                let rows = values.chunks(2).zip(&targets);
                let own = rows.filter(|(row, _)| (row[feature] <= at) == is_left);
                own.map(|(_, target)| *target).collect()
            };
            let best = { 0..2 }
                .flat_map(|feature| (-4..4).map(move |at| (feature, f64::from(at))))
                .map(|(feature, at)| error(&side(feature, at, true)) + error(&side(feature, at, false)))
                .fold(f64::INFINITY, f64::min);
            let found: f64 = values
                .chunks(2)
                .zip(&targets)
                .map(|(row, target)| match tree.predict(row, &mut []) {
                    Prediction::Number(number) => (number - target).powi(2),
                    Prediction::Class(_) => f64::NAN,
                })
                .sum();
            prop_assert!((found - best).abs() < 1e-5, "{found} {best}");
        }

        #[test]
        fn weights_of_classes_are_those_of_repeated_rows(rows in table()) {
            let features = features(rows.width);
            let weighted = class_tree(&rows, &features, 3, &[1.0, 2.0, 3.0], DEEP);
            let repeated: Vec<usize> = { 0..rows.len() }
                .flat_map(|row| std::iter::repeat_n(row, rows.class_of[row] as usize + 1))
                .collect();
            let repeated = class_tree(&rows.subset(&repeated), &features, 3, &[], DEEP);
            let (mut a, mut b) = ([0.0; 3], [0.0; 3]);
            for row in 0..rows.len() {
                let row = rows.row(row);
                prop_assert_eq!(weighted.predict(row, &mut a), repeated.predict(row, &mut b));
                for (a, b) in a.iter().zip(b) {
                    prop_assert!((a - b).abs() < 1e-9);
                }
            }
        }
    }
}
