//! The family of ensembles: many trees whose answers are averaged (a random forest) or
//! added (gradient boosting). This file contains the code that predicts with an
//! ensemble, stores it, checks it and describes it.

pub mod link;
pub mod text;

use crate::model::bounds::{CLASSES_MAX, FEATURES_MAX};
use crate::model::ensemble::link::Link;
use crate::model::ensemble::text::{Combination, EnsembleText, Precision, TreeText, flag};
use crate::model::feature::Feature;
use crate::model::prediction::{Names, Prediction, Predictor};
use crate::model::splits::{NodeView, Split, Splits, Test};

/// The shares of classes in all leaves.
#[derive(Clone, Debug, PartialEq)]
struct Shares {
    /// The index of the first share of each leaf, and the number of all shares. A leaf's
    /// shares end where the next leaf's begin.
    starts: Vec<u32>,
    /// Pairs of a class and its share.
    shares: Vec<(u32, f64)>,
}

impl Shares {
    /// The shares of one leaf.
    fn of_leaf(&self, leaf: f64) -> &[(u32, f64)] {
        let leaf = leaf as usize;
        &self.shares[self.starts[leaf] as usize..self.starts[leaf + 1] as usize]
    }

    /// Checks that the shares of each leaf are those of known classes and have the sum 1.
    fn check(&self, class_count: usize) -> Result<(), String> {
        for leaf in 0..self.starts.len() - 1 {
            let shares = self.of_leaf(leaf as f64);
            let is_known = |(class, share): &(u32, f64)| {
                (*class as usize) < class_count && (0.0..=1.0).contains(share)
            };
            if !shares.iter().all(is_known) {
                return Err("a leaf has an unknown class or a share that is no share".to_owned());
            }
            let sum: f64 = shares.iter().map(|(_, share)| share).sum();
            if (sum - 1.0).abs() > SHARES_TOLERANCE {
                return Err("a leaf has shares whose sum is not 1".to_owned());
            }
        }
        Ok(())
    }
}

/// Many trees.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    combination: Combination,
    precision: Precision,
    link: Link,
    /// For each output, the number that is added to it.
    base: Vec<f64>,
    splits: Splits,
    /// The root of each tree.
    roots: Vec<u32>,
    /// The output to which each tree contributes. Trees with shares have output 0.
    output_of: Vec<u32>,
    /// The shares of the classes in the leaves. `None` if the answers of the leaves are
    /// numbers.
    shares: Option<Shares>,
}

impl Ensemble {
    /// Reads an ensemble from the parameters in a model file. Call
    /// [`check`](Predictor::check) before using it.
    pub fn from_json(parameters: &str) -> serde_json::Result<Ensemble> {
        let text: EnsembleText = serde_json::from_str(parameters)?;
        Ensemble::from_text(text).map_err(serde::de::Error::custom)
    }

    /// Makes an ensemble from the form of a model file. The error describes the fault.
    pub fn from_text(text: EnsembleText) -> Result<Ensemble, String> {
        let has_shares = text.trees.iter().any(|tree| tree.shares.is_some());
        let mut ensemble = Ensemble {
            combination: text.combination,
            precision: text.precision,
            link: text.link,
            base: text.base,
            splits: Splits::default(),
            roots: Vec::new(),
            output_of: Vec::new(),
            shares: has_shares.then(|| Shares {
                starts: vec![0],
                shares: Vec::new(),
            }),
        };
        for (number, tree) in text.trees.into_iter().enumerate() {
            ensemble
                .append(tree)
                .map_err(|fault| format!("tree {number} {fault}"))?;
        }
        Ok(ensemble)
    }

    /// Appends a tree.
    fn append(&mut self, tree: TreeText) -> Result<(), &'static str> {
        let count = tree.features.len();
        if tree.values.len() != count || tree.right.len() != count {
            return Err("has lists of different lengths");
        }
        if !tree.flags.is_empty() && tree.flags.len() != count {
            return Err("has flags of another length");
        }
        let root = self.splits.len();
        if root + count > NODES_MAX {
            return Err("makes the model larger than 2^27 nodes");
        }
        self.roots.push(root as u32);
        self.output_of.push(tree.output);
        let mut leaf_shares = tree.shares.into_iter().flatten();
        // Each set belongs to one split. Otherwise a small file could name a large set
        // many times, and the model would need much memory.
        let mut sets = tree.categories.into_iter().enumerate();
        for index in 0..count {
            let Ok(feature) = usize::try_from(tree.features[index]) else {
                let shares = leaf_shares.next();
                self.append_leaf(tree.values[index], shares)?;
                continue;
            };
            let flags = tree.flags.get(index).copied().unwrap_or_default();
            let test = match flags & flag::CATEGORIES {
                0 => Test::AtMost(tree.values[index]),
                _ => match sets.next() {
                    Some((number, set)) if number as f64 == tree.values[index] => Test::OneOf(set),
                    _ => return Err("does not name its sets of categories in their order"),
                },
            };
            if feature >= FEATURES_MAX {
                return Err("names a feature that does not exist");
            }
            let split = self.splits.push_split(&Split {
                feature,
                test,
                missing_left: flags & flag::MISSING_LEFT != 0,
                zero_is_missing: flags & flag::ZERO_IS_MISSING != 0,
            });
            self.splits
                .set_right(split, root + tree.right[index] as usize);
        }
        Ok(())
    }

    fn append_leaf(
        &mut self,
        value: f64,
        leaf_shares: Option<Vec<(u32, f64)>>,
    ) -> Result<(), &'static str> {
        match (&mut self.shares, leaf_shares) {
            (None, None) => {
                self.splits.push_leaf(value);
            }
            (Some(all), Some(own)) => {
                all.shares.extend(own);
                all.starts.push(all.shares.len() as u32);
                self.splits.push_leaf(self.splits.leaf_count() as f64);
            }
            _ => return Err("has no shares, or too few, but another tree has them"),
        }
        Ok(())
    }

    /// The number of outputs: the probabilities of all classes, or one number.
    fn output_count(&self) -> usize {
        self.base.len()
    }

    /// Adds the answers of all trees to `outputs`, in the order of the trees.
    fn add_trees(&self, row: &[f64], outputs: &mut [f64]) {
        let is_simple = self.splits.is_simple(row);
        let (groups, rest) = self.roots.as_chunks::<LANES>();
        let (output_groups, output_rest) = self.output_of.as_chunks::<LANES>();
        for (roots, output_of) in groups.iter().zip(output_groups) {
            let leaves = self.splits.leaves_of(*roots, row, is_simple);
            self.add_leaves(&leaves, output_of, outputs);
        }
        for (root, output_of) in rest.iter().zip(output_rest) {
            let leaf = self.splits.leaf_of(*root, row);
            self.add_leaves(&[leaf], &[*output_of], outputs);
        }
    }

    /// Adds the answers of some leaves to `outputs`. `output_of` is the output of each
    /// leaf's tree.
    fn add_leaves(&self, leaves: &[f64], output_of: &[u32], outputs: &mut [f64]) {
        if let Some(shares) = &self.shares {
            for leaf in leaves {
                for (class, share) in shares.of_leaf(*leaf) {
                    outputs[*class as usize] += share;
                }
            }
            return;
        }
        let is_single = self.precision == Precision::Single;
        let add = |sum: f64, leaf: f64| match is_single {
            true => f64::from(sum as f32 + leaf as f32),
            false => sum + leaf,
        };
        // The loop for one output is separate, because the sum then stays in a
        // register.
        if let [output] = outputs {
            *output = leaves.iter().fold(*output, |sum, leaf| add(sum, *leaf));
            return;
        }
        for (leaf, output) in leaves.iter().zip(output_of) {
            let output = &mut outputs[*output as usize];
            *output = add(*output, *leaf);
        }
    }

    /// The combined outputs of a row, before the base is added and the link is applied.
    fn combine(&self, row: &[f64], outputs: &mut [f64]) {
        if self.combination == Combination::Sum {
            outputs.copy_from_slice(&self.base);
            self.add_trees(row, outputs);
            return;
        }
        outputs.fill(0.0);
        self.add_trees(row, outputs);
        let trees = match self.shares {
            None => self.roots.len() / self.output_count(),
            Some(_) => self.roots.len(),
        };
        for (output, base) in outputs.iter_mut().zip(&self.base) {
            *output = *output / trees as f64 + base;
        }
    }
}

/// The index of the largest number. Of several equal numbers, the first one counts.
fn index_of_largest(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (index, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = index;
        }
    }
    best
}

impl Predictor for Ensemble {
    fn predict(&self, row: &[f64], probabilities: &mut [f64]) -> Prediction {
        let output_count = self.output_count();
        if output_count == 1 {
            let mut output = [0.0];
            self.combine(row, &mut output);
            let number = self.link.apply(output[0]);
            // A model of two classes has one output, which belongs to the second class.
            let [first, second] = probabilities else {
                return Prediction::Number(number);
            };
            (*first, *second) = (1.0 - number, number);
            return Prediction::Class(usize::from(number > 0.5));
        }
        self.combine(row, probabilities);
        self.link.apply_to_classes(probabilities);
        Prediction::Class(index_of_largest(probabilities))
    }

    fn is_single_precision(&self) -> bool {
        self.precision == Precision::Single
    }

    fn check(&self, features: &[Feature], class_count: usize) -> Result<(), String> {
        let outputs = self.output_count();
        let is_fitting = match class_count {
            0 => outputs == 1,
            2 => outputs == 1 || outputs == 2,
            _ => outputs == class_count,
        };
        if !is_fitting || outputs > CLASSES_MAX {
            return Err("the number of outputs does not fit the classes".to_owned());
        }
        self.link.check(outputs, class_count)?;
        if class_count > 0 && self.link == Link::Identity && self.shares.is_none() {
            return Err("its outputs are no probabilities".to_owned());
        }
        if self.roots.is_empty() {
            return Err("it has no trees".to_owned());
        }
        if self.combination == Combination::Average
            && !self.roots.len().is_multiple_of(outputs)
            && self.shares.is_none()
        {
            return Err("the number of trees is no multiple of the outputs".to_owned());
        }
        if !self
            .output_of
            .iter()
            .all(|output| (*output as usize) < outputs)
        {
            return Err("a tree contributes to an output that does not exist".to_owned());
        }
        let ends = self.roots.iter().skip(1).map(|root| *root as usize);
        let ends = ends.chain([self.splits.len()]);
        for (number, (root, end)) in self.roots.iter().zip(ends).enumerate() {
            self.splits
                .check_tree(*root as usize, end, features)
                .map_err(|fault| format!("{fault} {number}"))?;
        }
        self.check_leaves(outputs)
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.to_text())
    }

    fn describe(&self, names: Names, _depth_max: u32) -> Vec<String> {
        let mut uses = vec![0u64; names.features.len()];
        for index in 0..self.splits.len() {
            if let NodeView::Split { split, .. } = self.splits.node(index) {
                uses[split.feature] += 1;
            }
        }
        let mut order: Vec<usize> = (0..uses.len()).collect();
        order.sort_by_key(|feature| std::cmp::Reverse(uses[*feature]));
        let mut lines = vec![
            format!(
                "{} trees of {} nodes, {} of them leaves",
                self.roots.len(),
                self.splits.len(),
                self.splits.leaf_count()
            ),
            "number of splits by feature:".to_owned(),
        ];
        lines.extend(
            order
                .iter()
                .take(DESCRIBED_FEATURES)
                .map(|feature| format!("  {} {}", uses[*feature], names.features[*feature].name)),
        );
        if order.len() > DESCRIBED_FEATURES {
            lines.push(format!(
                "  ... and {} others",
                order.len() - DESCRIBED_FEATURES
            ));
        }
        lines
    }
}

impl Ensemble {
    /// Checks the answers of the leaves. After this check, the outputs are finite.
    fn check_leaves(&self, outputs: usize) -> Result<(), String> {
        if let Some(all) = &self.shares {
            if self.base.iter().any(|base| *base != 0.0) {
                return Err("it has a base besides its shares".to_owned());
            }
            return all.check(outputs);
        }
        let limit = match self.precision {
            Precision::Double => ADDEND_MAX,
            Precision::Single => SINGLE_ADDEND_MAX,
        };
        // NaN is in no range.
        let is_right = |number: f64| (-limit..=limit).contains(&number);
        if !self.base.iter().all(|base| is_right(*base)) {
            return Err(format!("a base is not between -{limit:e} and {limit:e}"));
        }
        let mut nodes = (0..self.splits.len()).map(|index| self.splits.node(index));
        match nodes.all(|node| !matches!(node, NodeView::Leaf(number) if !is_right(number))) {
            true => Ok(()),
            false => Err(format!("a leaf is not between -{limit:e} and {limit:e}")),
        }
    }

    /// The form of a model file.
    fn to_text(&self) -> EnsembleText {
        let ends = self.roots.iter().skip(1).map(|root| *root as usize);
        let ends = ends.chain([self.splits.len()]);
        let trees = self.roots.iter().zip(ends).zip(&self.output_of);
        let trees = trees.map(|((root, end), output)| self.tree_text(*root as usize, end, *output));
        EnsembleText {
            combination: self.combination,
            precision: self.precision,
            link: self.link,
            base: self.base.clone(),
            trees: trees.collect(),
        }
    }

    fn tree_text(&self, root: usize, end: usize, output: u32) -> TreeText {
        let mut text = TreeText {
            output,
            ..TreeText::default()
        };
        for index in root..end {
            match self.splits.node(index) {
                NodeView::Leaf(leaf) => {
                    match &self.shares {
                        None => text.push_leaf(leaf),
                        Some(shares) => text.push_shares(shares.of_leaf(leaf).to_vec()),
                    };
                }
                NodeView::Split { split, right } => {
                    let node = text.push_split(&split);
                    text.right[node] = (right - root) as u32;
                }
            }
        }
        text
    }
}

/// The number of trees whose paths advance together. A larger number makes a prediction
/// no faster.
const LANES: usize = 8;

/// The largest number of nodes in all trees.
const NODES_MAX: usize = 1 << 27;

/// The largest number in a leaf or a base, in absolute terms. The sum of
/// [`NODES_MAX`] such numbers is finite, so no output is infinite or NaN.
const ADDEND_MAX: f64 = 1e100;

/// [`ADDEND_MAX`] for sums in single precision.
const SINGLE_ADDEND_MAX: f64 = 1e30;

/// The largest difference between 1 and the sum of the shares of a leaf. The shares are
/// rounded.
const SHARES_TOLERANCE: f64 = 1e-6;

/// The largest number of features that are described.
const DESCRIBED_FEATURES: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::feature::{Domain, Unseen};

    /// An ensemble of one tree for each element of `trees`, with the outputs of `base`.
    fn checked(link: &str, base: &str, trees: &str, class_count: usize) -> Result<(), String> {
        let json =
            format!(r#"{{"combination":"average","link":{link},"base":{base},"trees":[{trees}]}}"#);
        let features = [Feature {
            domain: Domain::Categories {
                categories: ["a", "b", "d"].map(str::to_owned).to_vec(),
                unseen: Unseen::Error,
            },
            ..Feature::number("c")
        }];
        let ensemble = Ensemble::from_json(&json).map_err(|error| error.to_string())?;
        ensemble.check(&features, class_count)
    }

    #[test]
    fn a_set_of_categories_belongs_to_one_split() {
        let tree = |values: &str| {
            format!(
                r#"{{"features":[0,0,-1,-1,-1],"values":{values},"right":[4,3,0,0,0],
                    "flags":[1,1,0,0,0],"categories":[[0],[1,2]]}}"#
            )
        };
        let check = |values| checked(r#""identity""#, "[0]", &tree(values), 0);
        assert_eq!(check("[0,1,5,6,7]"), Ok(()));
        for values in ["[1,1,5,6,7]", "[0,0,5,6,7]", "[1,0,5,6,7]", "[0,2,5,6,7]"] {
            let fault = check(values).unwrap_err();
            assert!(fault.contains("in their order"), "{values}: {fault}");
        }
    }

    #[test]
    fn outputs_that_could_be_no_numbers_or_no_probabilities_are_refused() {
        let leaf = |value: &str| format!(r#"{{"features":[-1],"values":[{value}],"right":[0]}}"#);
        let two = |tree: String| format!("{tree},{tree}");
        let share = |shares: &str| {
            format!(r#"{{"features":[-1],"values":[0],"right":[0],"shares":[{shares}]}}"#)
        };
        for (link, base, tree, class_count, expected) in [
            (r#""identity""#, "[0]", leaf("1e100"), 0, Ok(())),
            (r#""identity""#, "[0]", leaf("-2e100"), 0, Err("a leaf is")),
            (r#""identity""#, "[2e100]", leaf("1"), 0, Err("a base is")),
            (
                r#""softmax""#,
                "[0,0]",
                two(leaf("1e300")),
                2,
                Err("a leaf is"),
            ),
            (r#""identity""#, "[0]", leaf("0.5"), 2, Err("probabilities")),
            (
                r#""identity""#,
                "[0,0]",
                share("[[0,0.25],[1,0.75]]"),
                2,
                Ok(()),
            ),
            (r#""identity""#, "[0,1]", share("[[0,1]]"), 2, Err("a base")),
            (
                r#""identity""#,
                "[0,0]",
                share("[[0,0.25]]"),
                2,
                Err("sum is not 1"),
            ),
            (
                r#""identity""#,
                "[0,0]",
                share("[]"),
                2,
                Err("sum is not 1"),
            ),
            (
                r#""identity""#,
                "[0,0]",
                share("[[2,1]]"),
                2,
                Err("unknown class"),
            ),
            (
                r#""identity""#,
                "[0,0]",
                share("[[0,2],[1,-1]]"),
                2,
                Err("no share"),
            ),
        ] {
            match (checked(link, base, &tree, class_count), expected) {
                (Ok(()), Ok(())) => {}
                (Err(fault), Err(part)) if fault.contains(part) => {}
                (found, _) => panic!("{link} {base} {tree}: {found:?}"),
            }
        }
    }
}
