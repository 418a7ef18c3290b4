//! The form of an ensemble in a model file.

use serde::{Deserialize, Serialize};

use crate::model::ensemble::link::Link;
use crate::model::splits::{Split, Test};

/// The way in which the answers of the trees become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Combination {
    /// The mean of the trees of an output.
    Average,
    /// The sum of the trees of an output.
    Sum,
}

/// The precision of the numbers that the trees compare and add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Precision {
    /// Double precision.
    #[default]
    Double,
    /// Single precision. XGBoost rounds inputs and sums to single precision.
    Single,
}

/// The bits of a node's flags in a model file.
pub mod flag {
    /// The node splits on categories.
    pub const CATEGORIES: u8 = 1;
    /// A missing value goes left.
    pub const MISSING_LEFT: u8 = 2;
    /// The value 0 counts as missing.
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
    /// The index of a split's feature; -1 for a leaf.
    pub features: Vec<i32>,
    /// For a split, its threshold, or the index of its set in `categories`. For a leaf,
    /// its number.
    pub values: Vec<f64>,
    /// The right child of a split, counted from the root; 0 for a leaf.
    pub right: Vec<u32>,
    /// The flags of each node, added up: 1 if the node splits on categories, 2 if a
    /// missing value goes left, 4 if the value 0 counts as missing. Empty if no node
    /// has a flag.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<u8>,
    /// The sets of categories that go left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<Vec<u32>>,
    /// For each leaf, the shares of the classes. `None` if the answers of the leaves
    /// are numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<Vec<(u32, f64)>>>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl TreeText {
    /// Appends a split and returns its index. Append its left subtree next, then the
    /// right one, and set `right` of this node to its root.
    pub fn push_split(&mut self, split: &Split) -> usize {
        let mut flags = 0;
        if split.missing_left {
            flags |= flag::MISSING_LEFT;
        }
        if split.zero_is_missing {
            flags |= flag::ZERO_IS_MISSING;
        }
        let value = match &split.test {
            Test::AtMost(threshold) => *threshold,
            Test::OneOf(set) => {
                flags |= flag::CATEGORIES;
                self.categories.push(set.clone());
                (self.categories.len() - 1) as f64
            }
        };
        self.push(split.feature as i32, value, flags)
    }

    /// Appends a leaf with a number and returns its index.
    pub fn push_leaf(&mut self, number: f64) -> usize {
        self.push(-1, number, 0)
    }

    /// Appends a leaf with the shares of some classes and returns its index.
    pub fn push_shares(&mut self, shares: Vec<(u32, f64)>) -> usize {
        self.shares.get_or_insert_default().push(shares);
        self.push(-1, 0.0, 0)
    }

    fn push(&mut self, feature: i32, value: f64, flags: u8) -> usize {
        self.features.push(feature);
        self.values.push(value);
        self.right.push(0);
        // Most trees have no flags. The list of such a tree stays empty.
        if flags != 0 && self.flags.is_empty() {
            self.flags = vec![0; self.features.len() - 1];
        }
        if flags != 0 || !self.flags.is_empty() {
            self.flags.push(flags);
        }
        self.features.len() - 1
    }
}
