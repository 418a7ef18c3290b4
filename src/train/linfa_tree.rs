//! Trains a decision tree with linfa-trees.

use anyhow::{Result, bail};
use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_trees::{DecisionTree, TreeNode};
use ndarray::Array1;

use crate::model::description::Hyperparameters;
use crate::model::prediction::{Prediction, Predictor};
use crate::model::splits::{Split, Test};
use crate::model::tree::Tree;
use crate::train::cart::{TREE_DEFAULTS, limits};
use crate::train::grow::TreeLimits;
use crate::train::linfa_rows::{classes, matrix};
use crate::train::table::Rows;
use crate::train::trainer::{Trainer, TrainingData};

/// The decision tree of linfa-trees.
pub const TRAINER: Trainer = Trainer {
    defaults: TREE_DEFAULTS,
    fit,
};

/// The largest number of rows. linfa-trees counts rows in single precision, which is
/// exact up to this number.
const ROWS_MAX: usize = 1 << 24;

fn fit(data: &TrainingData, parameters: &Hyperparameters) -> Result<Box<dyn Predictor>> {
    Ok(Box::new(train(
        &data.training,
        &data.held_out,
        limits(parameters),
    )?))
}

/// Trains on `training` and converts the tree. Both trees must agree on every row
/// of `training` and of `held_out`.
fn train(training: &Rows, held_out: &Rows, limits: TreeLimits) -> Result<Tree> {
    if training.len() > ROWS_MAX {
        bail!("linfa-tree takes up to {ROWS_MAX} rows; use decision-tree, or a sample");
    }
    let dataset = DatasetBase::new(matrix(training)?, classes(training));
    // A NaN, an infinity or unbounded depth would overflow linfa's stack. The table
    // contains neither NaN nor infinity, so only the depth needs a limit.
    let fitted = DecisionTree::params()
        .max_depth(Some(limits.depth_max as usize))
        .min_weight_leaf(limits.leaf_rows_min.max(1) as f32)
        .fit(&dataset)?;
    let mut tree = flat(fitted.root_node())?;
    let rows = (0..training.len()).map(|index| (training.row(index), training.class_of[index]));
    tree.count_rows(rows);
    let mut probabilities = vec![0.0; dataset.targets.iter().max().map_or(0, |last| last + 1)];
    for rows in [training, held_out] {
        let predicted: Array1<usize> = fitted.predict(&matrix(rows)?);
        for (index, class) in predicted.iter().enumerate() {
            let own = tree.predict(rows.row(index), &mut probabilities);
            if own != Prediction::Class(*class) {
                bail!(
                    "the converted tree differs from that of linfa-trees; train again or use \
                     decision-tree"
                );
            }
        }
    }
    Ok(tree)
}

/// Converts a tree to a flat array of nodes. In linfa-trees, a value less than the
/// threshold goes left. In rv's tree, a value equal to the threshold goes left, too.
fn flat(root: &TreeNode<f64, usize>) -> Result<Tree> {
    let mut tree = Tree::default();
    let mut open = vec![(root, None)];
    while let Some((node, parent)) = open.pop() {
        let children = node.children();
        let index = match (node.prediction(), &children[..]) {
            // If all rows of a node went to one child, linfa-trees makes the node a
            // leaf and keeps the child.
            (Some(class), _) => tree.push_leaf(class as u32, []),
            (None, [Some(left), Some(right)]) => {
                let (feature, threshold, _) = node.split();
                let test = Test::AtMost(threshold.next_down());
                let index = tree.push_split(&Split::new(feature, test));
                open.push((right, Some((index, false))));
                open.push((left, Some((index, true))));
                index
            }
            (None, _) => bail!("linfa-trees returned a split without children; this is a defect"),
        };
        // A left child is the node after its parent.
        if let Some((parent, false)) = parent {
            tree.set_right(parent, index);
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::feature::Feature;

    const LIMITS: TreeLimits = TreeLimits {
        depth_max: 32,
        leaf_rows_min: 1,
    };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        // `train` itself compares the predictions of both trees.
        #[test]
        fn the_converted_tree_agrees_with_linfa_on_any_finite_rows(
            values in proptest::collection::vec(
                prop_oneof![
                    (-4i8..5).prop_map(f64::from),
                    -1e-4..1e-4f64,
                    Just(f64::MAX),
                    Just(-f64::MAX),
                    Just(1e20),
                    Just(1e20f64.next_up()),
                ],
                2 * 30,
            ),
            class_of in proptest::collection::vec(0u32..3, 20),
        ) {
            let (training, held_out) = values.split_at(40);
            let training = Rows { width: 2, values: training.to_vec(), class_of: class_of.clone(), ..Rows::default() };
            let held_out = Rows { width: 2, values: held_out.to_vec(), class_of: vec![0; 10], ..Rows::default() };
            let tree = train(&training, &held_out, LIMITS).unwrap();
            prop_assert_eq!(tree.check(&["a", "b"].map(Feature::number), 3), Ok(()));
        }
    }
}
