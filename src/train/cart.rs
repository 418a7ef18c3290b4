//! Trains a decision tree: CART with Gini impurity. The same rows always give the
//! same tree.
//!
//! Two splits are compared in integer arithmetic. Of equally good splits, the one
//! on the first feature wins, then the one with the lowest threshold. The rows are
//! sorted once by each feature; a split partitions every one of these orders and
//! keeps it sorted.

use anyhow::Result;

use crate::model::description::Hyperparameters;
use crate::model::prediction::Predictor;
use crate::model::splits::{self, Test};
use crate::model::tree::Tree;
use crate::train::table::Rows;
use crate::train::trainer::{Trainer, TrainingData};

/// The default of the largest depth of a tree.
const DEPTH_MAX_DEFAULT: u32 = 32;

/// The default of the smallest number of rows in a leaf.
const LEAF_ROWS_MIN_DEFAULT: u32 = 1;

/// CART with Gini impurity.
pub const TRAINER: Trainer = Trainer {
    defaults: TREE_DEFAULTS,
    fit,
};

/// The hyperparameters of trees.
pub const TREE_DEFAULTS: Hyperparameters = Hyperparameters {
    max_depth: Some(DEPTH_MAX_DEFAULT),
    min_leaf: Some(LEAF_ROWS_MIN_DEFAULT),
    l2: None,
    max_iterations: None,
};

/// The limits of a tree's growth.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// The largest number of splits on a path.
    pub depth_max: u32,
    /// The smallest number of rows in a leaf.
    pub leaf_rows_min: usize,
}

impl TreeLimits {
    /// The limits from the hyperparameters.
    pub fn new(parameters: &Hyperparameters) -> TreeLimits {
        TreeLimits {
            depth_max: parameters.max_depth.unwrap_or(DEPTH_MAX_DEFAULT),
            leaf_rows_min: parameters.min_leaf.unwrap_or(LEAF_ROWS_MIN_DEFAULT) as usize,
        }
    }
}

fn fit(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    let limits = TreeLimits::new(parameters);
    Ok(Box::new(grow(&data.training, data.class_count, limits)))
}

/// Grows a tree on `rows`, which must not be empty. A node with two classes is split even
/// if the best split does not lower the impurity. For example, an exclusive or needs two
/// splits, and only the second lowers the impurity.
fn grow(rows: &Rows, class_count: usize, limits: TreeLimits) -> Tree {
    let mut growth = Growth::new(rows, class_count, limits);
    let mut tree = Tree::default();
    let mut open = vec![OpenNode {
        start: 0,
        end: rows.len(),
        depth: 0,
        parent: None,
    }];
    // Depth first, with a stack on the heap, so that no data can overflow the call
    // stack.
    while let Some(node) = open.pop() {
        let is_pure = growth.count_classes(&node);
        let split = (!is_pure && node.depth < limits.depth_max)
            .then(|| growth.best_split(&node))
            .flatten();
        let index = match &split {
            Some(split) => {
                let test = Test::AtMost(split.threshold);
                tree.push_split(&splits::Split::new(split.feature, test))
            }
            None => {
                let counts = growth.class_counts(&node);
                tree.push_leaf(majority(&counts), counts)
            }
        };
        growth.reset_count(&node);
        // A left child is the node after its parent.
        if let Some((parent, false)) = node.parent {
            tree.set_right(parent, index);
        }
        if let Some(split) = split {
            let middle = growth.partition(&node, &split);
            let child = |start, end, is_left| OpenNode {
                start,
                end,
                depth: node.depth + 1,
                parent: Some((index, is_left)),
            };
            open.push(child(middle, node.end, false));
            open.push(child(node.start, middle, true));
        }
    }
    tree
}

/// The class with the most rows. If several classes have the most rows, the first of
/// them.
fn majority(counts: &[(u32, u32)]) -> u32 {
    let mut best = (0, 0);
    for (class, count) in counts {
        if *count > best.1 {
            best = (*class, *count);
        }
    }
    best.0
}

/// A node that has its rows, but no split yet.
struct OpenNode {
    /// The node's rows are at `start..end` in the order of every feature.
    start: usize,
    end: usize,
    depth: u32,
    /// The index of its parent, and whether it is the left child.
    parent: Option<(usize, bool)>,
}

/// A way to divide the rows of a node in two.
struct Split {
    feature: usize,
    threshold: f64,
    /// The number of rows that go left.
    left_rows: usize,
}

/// The quality of a split: for each side, the sum of the squared class counts divided
/// by the number of rows; then the sum of both sides. The larger this value, the lower
/// the Gini impurity. With up to 2^26 rows, no product exceeds 128 bits.
#[derive(Clone, Copy)]
struct SplitQuality {
    numerator: u128,
    denominator: u128,
}

impl SplitQuality {
    fn new(
        left_squares: u64,
        left_rows: usize,
        right_squares: u64,
        right_rows: usize,
    ) -> SplitQuality {
        let (left_rows, right_rows) = (left_rows as u128, right_rows as u128);
        SplitQuality {
            numerator: u128::from(left_squares) * right_rows
                + u128::from(right_squares) * left_rows,
            denominator: left_rows * right_rows,
        }
    }

    fn is_better_than(self, other: SplitQuality) -> bool {
        self.numerator * other.denominator > other.numerator * self.denominator
    }
}

struct Growth<'r> {
    rows: &'r Rows,
    leaf_rows_min: usize,
    /// The values of all rows, feature after feature.
    columns: Vec<f64>,
    /// For each feature, all row numbers. The rows of a node are contiguous and
    /// sorted by the feature's value.
    orders: Vec<u32>,
    /// The class counts of the current node.
    total: Vec<u32>,
    /// The class counts of the rows left of a threshold. All 0 between two
    /// features.
    left: Vec<u32>,
    /// For each row of the current node, whether it goes left.
    goes_left: Vec<bool>,
    /// Temporary storage for the rows that go right, while an order is partitioned.
    right_rows: Vec<u32>,
}

impl<'r> Growth<'r> {
    fn new(rows: &'r Rows, class_count: usize, limits: TreeLimits) -> Growth<'r> {
        let mut columns = Vec::with_capacity(rows.values.len());
        let mut orders: Vec<u32> = Vec::with_capacity(rows.values.len());
        for feature in 0..rows.width {
            let start = columns.len();
            columns.extend((0..rows.len()).map(|row| rows.row(row)[feature]));
            let column = &columns[start..];
            let mut order: Vec<u32> = (0..rows.len() as u32).collect();
            order.sort_unstable_by(|a, b| {
                let by_value = column[*a as usize].total_cmp(&column[*b as usize]);
                by_value.then(a.cmp(b))
            });
            orders.extend(order);
        }
        Growth {
            rows,
            leaf_rows_min: limits.leaf_rows_min.max(1),
            columns,
            orders,
            total: vec![0; class_count],
            left: vec![0; class_count],
            goes_left: vec![false; rows.len()],
            right_rows: Vec::with_capacity(rows.len()),
        }
    }

    /// The rows of a node, sorted by `feature`.
    fn order(&self, node: &OpenNode, feature: usize) -> &[u32] {
        let start = feature * self.rows.len();
        &self.orders[start + node.start..start + node.end]
    }

    /// Counts the classes of a node; true if there is only one.
    fn count_classes(&mut self, node: &OpenNode) -> bool {
        for at in node.start..node.end {
            self.total[self.rows.class_of[self.orders[at] as usize] as usize] += 1;
        }
        let any = self.rows.class_of[self.orders[node.start] as usize] as usize;
        self.total[any] as usize == node.end - node.start
    }

    /// Resets the counts of a node to 0. Other counts are not touched, so that a small
    /// node stays cheap with a thousand classes.
    fn reset_count(&mut self, node: &OpenNode) {
        for at in node.start..node.end {
            self.total[self.rows.class_of[self.orders[at] as usize] as usize] = 0;
        }
    }

    fn class_counts(&self, node: &OpenNode) -> Vec<(u32, u32)> {
        let classes = self.order(node, 0).iter();
        let mut classes: Vec<u32> = classes
            .map(|row| self.rows.class_of[*row as usize])
            .collect();
        classes.sort_unstable();
        classes.dedup();
        let count = |class: u32| (class, self.total[class as usize]);
        classes.into_iter().map(count).collect()
    }

    /// The best split of a node; `None` if no feature divides its rows.
    fn best_split(&mut self, node: &OpenNode) -> Option<Split> {
        let counts = self.class_counts(node);
        let mut best = None;
        for feature in 0..self.rows.width {
            self.best_split_on(feature, node, &counts, &mut best);
        }
        best.map(|(_, split)| split)
    }

    /// Replaces `best` by the best split on one feature, if that is better.
    fn best_split_on(
        &mut self,
        feature: usize,
        node: &OpenNode,
        counts: &[(u32, u32)],
        best: &mut Option<(SplitQuality, Split)>,
    ) {
        let rows = node.end - node.start;
        let start = feature * self.rows.len();
        let order = &self.orders[start + node.start..start + node.end];
        let column = &self.columns[start..start + self.rows.len()];
        let squares = counts.iter().map(|(_, count)| u64::from(*count).pow(2));
        let (mut left_squares, mut right_squares): (u64, u64) = (0, squares.sum());
        let mut value = column[order[0] as usize];
        if value == column[order[rows - 1] as usize] {
            return;
        }
        for (left_rows, pair) in (1..).zip(order.windows(2)) {
            let class = self.rows.class_of[pair[0] as usize] as usize;
            let left = u64::from(self.left[class]);
            let right = u64::from(self.total[class]) - left;
            // (n + 1)^2 - n^2 = 2n + 1, and n^2 - (n - 1)^2 = 2n - 1.
            left_squares += 2 * left + 1;
            right_squares -= 2 * right - 1;
            self.left[class] += 1;
            let next = column[pair[1] as usize];
            let (here, right_rows) = (value, rows - left_rows);
            value = next;
            if here == next || left_rows.min(right_rows) < self.leaf_rows_min {
                continue;
            }
            let quality = SplitQuality::new(left_squares, left_rows, right_squares, right_rows);
            let is_better = best
                .as_ref()
                .is_none_or(|(best, _)| quality.is_better_than(*best));
            if is_better {
                let split = Split {
                    feature,
                    threshold: threshold_between(here, next),
                    left_rows,
                };
                *best = Some((quality, split));
            }
        }
        for (class, _) in counts {
            self.left[*class as usize] = 0;
        }
    }

    /// For each feature, splits the node's range of that feature's sorted rows into
    /// left and right rows. Returns the index of the first right row.
    fn partition(&mut self, node: &OpenNode, split: &Split) -> usize {
        let middle = node.start + split.left_rows;
        let start = split.feature * self.rows.len();
        for at in node.start..node.end {
            let row = self.orders[start + at] as usize;
            self.goes_left[row] = at < middle;
        }
        for feature in 0..self.rows.width {
            let start = feature * self.rows.len();
            let order = &mut self.orders[start + node.start..start + node.end];
            self.right_rows.clear();
            let mut kept = 0;
            for at in 0..order.len() {
                let row = order[at];
                if self.goes_left[row as usize] {
                    order[kept] = row;
                    kept += 1;
                } else {
                    self.right_rows.push(row);
                }
            }
            order[kept..].copy_from_slice(&self.right_rows);
        }
        middle
    }
}

/// A threshold with `low <= threshold < high`.
fn threshold_between(low: f64, high: f64) -> f64 {
    let middle = f64::midpoint(low, high);
    // Two adjacent floats have no float between them, and their midpoint may be rounded
    // up to `high`.
    if low <= middle && middle < high {
        middle
    } else {
        low
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::model::feature::Feature;

    fn features(count: usize) -> Vec<Feature> {
        let names = (0..count).map(|index| index.to_string());
        names.map(Feature::number).collect()
    }

    use crate::model::prediction::Prediction;

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
            let tree = grow(&rows, classes, DEEP);
            assert_eq!(tree.check(&features(rows.width), classes), Ok(()), "{name}");
            assert!(fits_exactly(&rows, &tree, classes), "{name}: {tree:?}");
        }
    }

    #[test]
    fn both_zeros_are_one_value() {
        let rows = rows(&[(&[-0.0], 0), (&[0.0], 1)]);
        assert_eq!(nodes(&grow(&rows, 2, DEEP)).len(), 1);
    }

    #[test]
    fn ties_go_to_the_first_feature_and_the_lower_threshold() {
        let rows = rows(&[
            (&[0.0, 0.0, 7.0], 0),
            (&[1.0, 1.0, 7.0], 1),
            (&[2.0, 2.0, 7.0], 0),
        ]);
        let root = &nodes(&grow(&rows, 2, DEEP))[0];
        assert_eq!(
            (&root["feature"], &root["threshold"]),
            (&0.into(), &0.5.into())
        );
    }

    #[test]
    fn limits_end_growth_and_the_first_class_wins_a_tie() {
        let rows = rows(&[(&[0.0], 1), (&[1.0], 0), (&[2.0], 1), (&[3.0], 0)]);
        let stump = grow(
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
        let bare = grow(
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
            let tree = grow(&rows, 3, DEEP);
            prop_assert_eq!(tree.check(&features(rows.width), 3), Ok(()));
            prop_assert_eq!(&tree, &grow(&rows, 3, DEEP));
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
            let tree = grow(&rows, 3, DEEP);
            prop_assert!(fits_exactly(&rows, &tree, 3));
        }

        #[test]
        fn limits_hold_in_every_leaf(rows in table(), depth_max in 1u32..4, leaf_rows_min in 1usize..6) {
            let tree = grow(&rows, 3, TreeLimits { depth_max, leaf_rows_min });
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
}
