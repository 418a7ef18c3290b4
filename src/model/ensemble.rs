//! The family of ensembles: many trees whose answers are averaged (a random forest) or
//! added (gradient boosting). This file predicts with them, stores, checks and describes
//! them.

use serde::{Deserialize, Serialize};

use crate::model::bounds::{CLASSES_MAX, FEATURES_MAX};
use crate::model::feature::Feature;
use crate::model::prediction::{Names, Prediction, Predictor};
use crate::model::splits::{NodeView, Split, Splits, Test};

/// The way in which the answers of the trees become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Combination {
    /// The mean of the trees of an output.
    Average,
    /// The sum of the trees of an output.
    Sum,
}

/// The function that turns the combined outputs into the prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Link {
    /// The outputs are the number or the probabilities.
    Identity,
    /// `1 / (1 + exp(-scale * x))`. With two classes, this is the probability of the
    /// second one.
    Logistic {
        /// The factor of the output.
        scale: f64,
    },
    /// The probabilities are proportional to `exp(x)`.
    Softmax,
    /// `exp(x)`.
    Exponential,
    /// `ln(1 + exp(x))`.
    LogOnePlusExponential,
    /// The square of the output, with the sign of the output.
    SignedSquare,
    /// 1 if the output is above 0, else 0. With two classes, this is the class.
    Step,
}

/// The precision in which the trees compare and add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Precision {
    /// Double precision.
    #[default]
    Double,
    /// Single precision. XGBoost rounds inputs and sums to it.
    Single,
}

/// The answers of all leaves.
#[derive(Clone, Debug, PartialEq)]
enum Leaves {
    /// Each leaf has one number, for the output of its tree.
    Numbers(Vec<f64>),
    /// Each leaf has shares of some classes. A leaf's shares end where the next leaf's
    /// begin.
    Shares {
        /// The index of the first share of each leaf, and the number of all shares.
        starts: Vec<u32>,
        /// Pairs of a class and its share.
        shares: Vec<(u32, f64)>,
    },
}

/// Many trees.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    combination: Combination,
    precision: Precision,
    link: Link,
    /// What is added to each output.
    base: Vec<f64>,
    splits: Splits,
    /// The root of each tree.
    roots: Vec<u32>,
    /// The output to which each tree contributes. Trees with shares have output 0.
    output_of: Vec<u32>,
    leaves: Leaves,
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
            leaves: match has_shares {
                false => Leaves::Numbers(Vec::new()),
                true => Leaves::Shares {
                    starts: vec![0],
                    shares: Vec::new(),
                },
            },
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
        for index in 0..count {
            let Ok(feature) = usize::try_from(tree.features[index]) else {
                let shares = leaf_shares.next();
                self.append_leaf(tree.values[index], shares)?;
                continue;
            };
            let flags = tree.flags.get(index).copied().unwrap_or_default();
            let test = match flags & flag::CATEGORIES {
                0 => Test::AtMost(tree.values[index]),
                _ => {
                    let sets = tree.categories.get(tree.values[index] as usize);
                    Test::OneOf(sets.ok_or("names a set that does not exist")?.clone())
                }
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
        match (&mut self.leaves, leaf_shares) {
            (Leaves::Numbers(numbers), None) => numbers.push(value),
            (Leaves::Shares { starts, shares }, Some(own)) => {
                shares.extend(own);
                starts.push(shares.len() as u32);
            }
            _ => return Err("has no shares, or too few, but another tree has them"),
        }
        self.splits.push_leaf();
        Ok(())
    }

    /// The number of outputs: the probabilities of all classes, or one number.
    fn output_count(&self) -> usize {
        self.base.len()
    }

    /// Whether inputs are rounded to single precision.
    pub fn is_single_precision(&self) -> bool {
        self.precision == Precision::Single
    }

    /// Adds the answers of all trees to `outputs`.
    fn add_trees(&self, row: &[f64], outputs: &mut [f64]) {
        match (&self.leaves, self.precision) {
            (Leaves::Shares { starts, shares }, _) => {
                for root in &self.roots {
                    let leaf = self.splits.leaf_of(*root as usize, row);
                    let own = starts[leaf] as usize..starts[leaf + 1] as usize;
                    for (class, share) in &shares[own] {
                        outputs[*class as usize] += share;
                    }
                }
            }
            (Leaves::Numbers(numbers), Precision::Double) => {
                for (root, output) in self.roots.iter().zip(&self.output_of) {
                    outputs[*output as usize] += numbers[self.splits.leaf_of(*root as usize, row)];
                }
            }
            (Leaves::Numbers(numbers), Precision::Single) => {
                for (root, output) in self.roots.iter().zip(&self.output_of) {
                    let number = numbers[self.splits.leaf_of(*root as usize, row)];
                    let output = &mut outputs[*output as usize];
                    *output = f64::from(*output as f32 + number as f32);
                }
            }
        }
    }

    /// The combined outputs of a row: before the base and the link.
    fn combine(&self, row: &[f64], outputs: &mut [f64]) {
        if self.combination == Combination::Sum {
            outputs.copy_from_slice(&self.base);
            self.add_trees(row, outputs);
            return;
        }
        outputs.fill(0.0);
        self.add_trees(row, outputs);
        let trees = match self.leaves {
            Leaves::Numbers(_) => self.roots.len() / self.output_count(),
            Leaves::Shares { .. } => self.roots.len(),
        };
        for (output, base) in outputs.iter_mut().zip(&self.base) {
            *output = *output / trees as f64 + base;
        }
    }

    /// Applies the link to the outputs of a classifier, which become probabilities.
    fn link_classes(&self, outputs: &mut [f64]) {
        match self.link {
            Link::Softmax => softmax(outputs),
            Link::Logistic { scale } => {
                for output in outputs {
                    *output = logistic(scale * *output);
                }
            }
            _ => {}
        }
    }

    /// Applies the link to a number.
    fn link_number(&self, number: f64) -> f64 {
        let linked = match self.link {
            Link::Identity | Link::Softmax => number,
            Link::Logistic { scale } => logistic(scale * number),
            Link::Exponential => number.exp(),
            Link::LogOnePlusExponential => number.exp().ln_1p(),
            Link::SignedSquare => number.abs() * number,
            Link::Step => f64::from(number > 0.0),
        };
        // JSON has no infinity.
        linked.clamp(-f64::MAX, f64::MAX)
    }
}

fn logistic(number: f64) -> f64 {
    1.0 / (1.0 + (-number).exp())
}

/// Softmax, relative to the largest output, so that no exponential overflows.
pub fn softmax(outputs: &mut [f64]) {
    let largest = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut total = 0.0;
    for output in outputs.iter_mut() {
        *output = (*output - largest).exp();
        total += *output;
    }
    for output in outputs {
        *output /= total;
    }
}

/// The index of the largest number; the first of several.
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
            let number = self.link_number(output[0]);
            // A model of two classes has one output: that of the second class.
            let [first, second] = probabilities else {
                return Prediction::Number(number);
            };
            (*first, *second) = (1.0 - number, number);
            return Prediction::Class(usize::from(number > 0.5));
        }
        self.combine(row, probabilities);
        self.link_classes(probabilities);
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
        check_link(self.link, outputs, class_count)?;
        if self.roots.is_empty() {
            return Err("it has no trees".to_owned());
        }
        if self.combination == Combination::Average
            && !self.roots.len().is_multiple_of(outputs)
            && matches!(self.leaves, Leaves::Numbers(_))
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
    /// Checks the answers of the leaves.
    fn check_leaves(&self, outputs: usize) -> Result<(), String> {
        let is_right = match &self.leaves {
            Leaves::Numbers(numbers) => numbers.iter().all(|number| number.is_finite()),
            Leaves::Shares { shares, .. } => shares
                .iter()
                .all(|(class, share)| (*class as usize) < outputs && (0.0..=1.0).contains(share)),
        };
        if !self.base.iter().all(|base| base.is_finite()) {
            return Err("a base is not finite".to_owned());
        }
        match is_right {
            true => Ok(()),
            false => Err("a leaf has a value that is not finite, or an unknown class".to_owned()),
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
            let mut flags = 0;
            match self.splits.node(index) {
                NodeView::Leaf(leaf) => {
                    text.features.push(-1);
                    text.right.push(0);
                    match &self.leaves {
                        Leaves::Numbers(numbers) => text.values.push(numbers[leaf]),
                        Leaves::Shares { starts, shares } => {
                            let own = starts[leaf] as usize..starts[leaf + 1] as usize;
                            let own = shares[own].to_vec();
                            text.shares.get_or_insert_default().push(own);
                            text.values.push(0.0);
                        }
                    }
                }
                NodeView::Split { split, right } => {
                    text.features.push(split.feature as i32);
                    text.right.push((right - root) as u32);
                    if split.missing_left {
                        flags |= flag::MISSING_LEFT;
                    }
                    if split.zero_is_missing {
                        flags |= flag::ZERO_IS_MISSING;
                    }
                    match split.test {
                        Test::AtMost(threshold) => text.values.push(threshold),
                        Test::OneOf(set) => {
                            flags |= flag::CATEGORIES;
                            text.values.push(text.categories.len() as f64);
                            text.categories.push(set);
                        }
                    }
                }
            }
            text.flags.push(flags);
        }
        if text.flags.iter().all(|flags| *flags == 0) {
            text.flags.clear();
        }
        text
    }
}

/// Checks that a link fits the number of outputs and classes.
fn check_link(link: Link, outputs: usize, class_count: usize) -> Result<(), String> {
    let is_fitting = match link {
        Link::Identity => true,
        Link::Logistic { scale } => scale.is_finite(),
        Link::Softmax => outputs > 1,
        Link::Step => outputs == 1,
        Link::Exponential | Link::LogOnePlusExponential | Link::SignedSquare => class_count == 0,
    };
    match is_fitting {
        true => Ok(()),
        false => Err("the link does not fit the classes".to_owned()),
    }
}

/// The largest number of nodes in all trees.
const NODES_MAX: usize = 1 << 27;

/// The largest number of features that are described.
const DESCRIBED_FEATURES: usize = 30;

/// The bits of a node's flags in a model file.
mod flag {
    pub const CATEGORIES: u8 = 1;
    pub const MISSING_LEFT: u8 = 2;
    pub const ZERO_IS_MISSING: u8 = 4;
}

/// An ensemble in the form of a model file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnsembleText {
    /// The way in which the trees' answers become one.
    pub combination: Combination,
    /// The precision of comparisons and sums.
    #[serde(default)]
    pub precision: Precision,
    /// The function of the outputs.
    pub link: Link,
    /// One number for each output, which is added to it.
    pub base: Vec<f64>,
    /// The trees.
    pub trees: Vec<TreeText>,
}

/// A tree in the form of a model file. The lists have one entry for each node, in
/// preorder: the left child of a split is the next node.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TreeText {
    /// The output to which the tree contributes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output: u32,
    /// The feature of a split; -1 for a leaf.
    pub features: Vec<i32>,
    /// The threshold of a split or the index of its set in `categories`; the number of a
    /// leaf.
    pub values: Vec<f64>,
    /// The right child of a split, counted from the root; 0 for a leaf.
    pub right: Vec<u32>,
    /// The sum for each node: 1 if it splits on categories, 2 if a missing value goes
    /// left, 4 if the value 0 counts as missing. Empty if all sums are 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<u8>,
    /// The sets of categories that go left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Vec<u32>>,
    /// For each leaf, the shares of classes, if its answer is no number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<Vec<(u32, f64)>>>,
}

impl TreeText {
    /// Appends a node. The lists of categories and of shares are the caller's.
    pub fn push(&mut self, feature: i32, value: f64, right: u32, is_set: bool) {
        self.features.push(feature);
        self.values.push(value);
        self.right.push(right);
        self.flags.push(if is_set { flag::CATEGORIES } else { 0 });
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
