//! The questions that trees ask about a row. The nodes of one tree, or of many trees
//! one after the other, are one flat array.

use std::hint::select_unpredictable;

use crate::model::feature::Feature;

/// The part of [`Node::feature`] that holds the index of the feature.
const FEATURE: u32 = (1 << 27) - 1;

/// Marks a split. Every other node is a leaf.
const SPLIT: u32 = 1 << 31;

/// Marks a split on categories. Its `threshold` is the index of the set of categories.
const CATEGORIES: u32 = 1 << 30;

/// A row without the value goes left.
const MISSING_LEFT: u32 = 1 << 29;

/// A value between -1e-35 and 1e-35 counts as missing.
const ZERO_IS_MISSING: u32 = 1 << 27;

/// A node with one of these flags needs more than one comparison.
const SLOW: u32 = CATEGORIES | ZERO_IS_MISSING;

/// The largest absolute value that counts as zero. LightGBM uses this bound.
const ZERO_MAX: f64 = 1e-35;

/// A node. The left child of a split is the next node, so every path goes forward and
/// ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    /// For a leaf, its content.
    threshold: f64,
    /// The index of the feature, and the flags.
    feature: u32,
    /// The distance to the right child; 0 for a leaf.
    right: u32,
}

impl Node {
    fn is_set(&self, flag: u32) -> bool {
        self.feature & flag != 0
    }

    /// The distance to the next node of a path; 0 for a leaf. The code does not branch,
    /// because the processor could not predict which way the branch goes.
    fn step(&self, goes_left: bool) -> u32 {
        select_unpredictable(goes_left, self.feature >> 31, self.right)
    }

    /// Whether a row goes left. The result holds only if the split needs no more than
    /// one comparison and the value is not missing.
    fn compare(&self, row: &[f64]) -> bool {
        row[(self.feature & FEATURE) as usize] <= self.threshold
    }
}

/// The question of a split.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// Values up to this threshold go left.
    AtMost(f64),
    /// The categories with these indices go left. The number of the feature's
    /// categories stands for all categories that the model does not know.
    OneOf(Vec<u32>),
}

/// A split of the rows in two.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The index of the feature in a row.
    pub feature: usize,
    /// The question.
    pub test: Test,
    /// Whether a row without the value goes left.
    pub missing_left: bool,
    /// Whether the value 0 counts as missing.
    pub zero_is_missing: bool,
}

impl Split {
    /// A split of a feature. A row in which the value is missing goes right.
    pub fn new(feature: usize, test: Test) -> Split {
        Split {
            feature,
            test,
            missing_left: false,
            zero_is_missing: false,
        }
    }

    /// The flags of a node.
    fn flags(&self) -> u32 {
        let flag = |flag: u32, is_set: bool| if is_set { flag } else { 0 };
        flag(CATEGORIES, matches!(self.test, Test::OneOf(_)))
            | flag(MISSING_LEFT, self.missing_left)
            | flag(ZERO_IS_MISSING, self.zero_is_missing)
    }
}

/// One node, for code that reads a tree instead of predicting with it.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeView {
    /// A question. The left child is the next node.
    Split {
        /// The question and its flags.
        split: Split,
        /// The index of the right child.
        right: usize,
    },
    /// The end of a path, with its content.
    Leaf(f64),
}

/// A set of categories. A set with large gaps is a list, so that a small file cannot
/// need much memory.
#[derive(Clone, Debug, PartialEq)]
enum CategorySet {
    /// One bit for each category.
    Bits(Vec<u64>),
    /// The categories in ascending order.
    List(Vec<u32>),
}

impl CategorySet {
    fn new(categories: &[u32]) -> CategorySet {
        let words = categories
            .iter()
            .max()
            .map_or(0, |last| *last as usize / 64 + 1);
        if words > categories.len() + 4 {
            let mut list = categories.to_vec();
            list.sort_unstable();
            list.dedup();
            return CategorySet::List(list);
        }
        let mut bits = vec![0; words];
        for category in categories {
            bits[*category as usize / 64] |= 1 << (category % 64);
        }
        CategorySet::Bits(bits)
    }

    fn contains(&self, category: u32) -> bool {
        match self {
            CategorySet::Bits(bits) => {
                let word = bits.get(category as usize / 64).copied();
                word.unwrap_or(0) >> (category % 64) & 1 == 1
            }
            CategorySet::List(list) => list.binary_search(&category).is_ok(),
        }
    }

    /// The categories in ascending order.
    fn categories(&self) -> Vec<u32> {
        match self {
            CategorySet::Bits(bits) => {
                let all = 0..bits.len() as u32 * 64;
                all.filter(|category| self.contains(*category)).collect()
            }
            CategorySet::List(list) => list.clone(),
        }
    }
}

/// The nodes of one or more trees. Each tree is stored in preorder: a split, its left
/// subtree, its right subtree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Splits {
    nodes: Vec<Node>,
    sets: Vec<CategorySet>,
    leaf_count: usize,
    /// Whether a split needs more than one comparison.
    has_slow: bool,
}

impl Splits {
    /// The number of nodes, including leaves.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The number of leaves.
    pub fn leaf_count(&self) -> usize {
        self.leaf_count
    }

    /// Appends a split and returns its index. Its left child is appended next. Set its
    /// right child with [`set_right`](Splits::set_right).
    pub fn push_split(&mut self, split: &Split) -> usize {
        let threshold = match &split.test {
            Test::AtMost(threshold) => *threshold,
            Test::OneOf(categories) => {
                self.sets.push(CategorySet::new(categories));
                (self.sets.len() - 1) as f64
            }
        };
        let node = Node {
            threshold,
            feature: (split.feature as u32 & FEATURE) | split.flags() | SPLIT,
            right: 0,
        };
        self.has_slow |= node.is_set(SLOW);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Appends a leaf and returns the index of its node. Its content is the number of an
    /// ensemble's leaf, or the index of the leaf in a list.
    pub fn push_leaf(&mut self, content: f64) -> usize {
        self.nodes.push(Node {
            threshold: content,
            feature: 0,
            right: 0,
        });
        self.leaf_count += 1;
        self.nodes.len() - 1
    }

    /// Sets the right child of a split. A child before the split is refused by
    /// [`check_tree`](Splits::check_tree).
    pub fn set_right(&mut self, parent: usize, child: usize) {
        self.nodes[parent].right = child.saturating_sub(parent) as u32;
    }

    /// One node.
    pub fn node(&self, index: usize) -> NodeView {
        let node = &self.nodes[index];
        if !node.is_set(SPLIT) {
            return NodeView::Leaf(node.threshold);
        }
        let test = match node.is_set(CATEGORIES) {
            true => Test::OneOf(self.sets[node.threshold as usize].categories()),
            false => Test::AtMost(node.threshold),
        };
        NodeView::Split {
            split: Split {
                feature: (node.feature & FEATURE) as usize,
                test,
                missing_left: node.is_set(MISSING_LEFT),
                zero_is_missing: node.is_set(ZERO_IS_MISSING),
            },
            right: index + node.right as usize,
        }
    }

    /// Whether no value of a row is missing, and no split needs more than one
    /// comparison. If so, [`leaves_of`](Splits::leaves_of) can take the fast way.
    pub fn is_simple(&self, row: &[f64]) -> bool {
        !self.has_slow && !row.iter().any(|value| value.is_nan())
    }

    /// The content of the leaf that a row reaches from the node `root`. In the row, a
    /// missing value is NaN.
    pub fn leaf_of(&self, root: u32, row: &[f64]) -> f64 {
        let [leaf] = self.follow([root], |node| self.compare_fully(node, row));
        leaf
    }

    /// The contents of the leaves that a row reaches from several roots. `is_simple` is
    /// the answer of [`is_simple`](Splits::is_simple) for the row.
    pub fn leaves_of<const N: usize>(
        &self,
        roots: [u32; N],
        row: &[f64],
        is_simple: bool,
    ) -> [f64; N] {
        match is_simple {
            true => self.follow(roots, |node| node.compare(row)),
            false => self.follow(roots, |node| self.compare_fully(node, row)),
        }
    }

    /// Follows the paths from several roots. All paths advance by one node at a time,
    /// so that the processor loads several nodes at once instead of waiting for each. A
    /// path that has reached its leaf stays there.
    #[inline(always)]
    fn follow<const N: usize>(
        &self,
        roots: [u32; N],
        goes_left: impl Fn(&Node) -> bool,
    ) -> [f64; N] {
        let mut paths = roots;
        loop {
            let mut moved = 0;
            for path in &mut paths {
                let node = &self.nodes[*path as usize];
                let step = node.step(goes_left(node));
                *path += step;
                moved |= step;
            }
            if moved == 0 {
                return paths.map(|path| self.nodes[path as usize].threshold);
            }
        }
    }

    /// Whether a row goes left at any node.
    fn compare_fully(&self, node: &Node, row: &[f64]) -> bool {
        if node.is_set(SLOW) {
            return self.compare_slowly(node, row);
        }
        let value = row[(node.feature & FEATURE) as usize];
        // NaN is not less than the threshold, so it goes right.
        (value <= node.threshold) | (node.is_set(MISSING_LEFT) & value.is_nan())
    }

    /// Whether a row goes left at a split on categories, or at a split where the value
    /// 0 counts as missing.
    fn compare_slowly(&self, node: &Node, row: &[f64]) -> bool {
        let value = row[(node.feature & FEATURE) as usize];
        if value.is_nan() || (node.is_set(ZERO_IS_MISSING) && value.abs() <= ZERO_MAX) {
            return node.is_set(MISSING_LEFT);
        }
        if !node.is_set(CATEGORIES) {
            return value <= node.threshold;
        }
        let is_category = value >= 0.0 && value <= f64::from(u32::MAX);
        is_category && self.sets[node.threshold as usize].contains(value as u32)
    }

    /// Checks the tree in the nodes from `start` to `end`. After this check,
    /// [`leaf_of`](Splits::leaf_of) neither panics nor loops. The error names the node
    /// by its number in the tree.
    pub fn check_tree(&self, start: usize, end: usize, features: &[Feature]) -> Result<(), String> {
        if start == end {
            return Err("a tree has no nodes".to_owned());
        }
        // The right children that are still to come. The next one is at the end of the
        // list.
        let mut expected: Vec<usize> = Vec::new();
        let mut is_left_child = true;
        for index in start..end {
            let fault = |text: &str| format!("node {} of the tree {text}", index - start);
            if !is_left_child && expected.pop() != Some(index) {
                return Err(fault("is not the child of an earlier node"));
            }
            match self.node(index) {
                NodeView::Leaf(_) => is_left_child = false,
                NodeView::Split { split, right } => {
                    if right <= index + 1 || right >= end {
                        return Err(fault(
                            "names a right child that does not come after the left one",
                        ));
                    }
                    check_split(&split, features).map_err(fault)?;
                    expected.push(right);
                    is_left_child = true;
                }
            }
        }
        match is_left_child || !expected.is_empty() {
            true => Err("the tree ends before all of its nodes have come".to_owned()),
            false => Ok(()),
        }
    }
}

/// Checks a split against the features of the model.
fn check_split(split: &Split, features: &[Feature]) -> Result<(), &'static str> {
    let Some(feature) = features.get(split.feature) else {
        return Err("names a feature that does not exist");
    };
    match (&split.test, feature.categories()) {
        (Test::AtMost(threshold), None) if threshold.is_finite() => Ok(()),
        (Test::AtMost(_), None) => Err("has a threshold that is not finite"),
        (Test::AtMost(_), Some(_)) => Err("has a threshold for a feature of categories"),
        (Test::OneOf(set), categories) => {
            let last = set.last().map(|last| *last as usize);
            match categories.is_none_or(|all| last.is_none_or(|last| last <= all.len())) {
                true => Ok(()),
                false => Err("has categories that do not exist"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_contains_what_it_was_made_from(
            categories in proptest::collection::vec(
                prop_oneof![0u32..100, 0u32..100_000, Just(u32::MAX)], 0..20),
            asked in prop_oneof![0u32..200, any::<u32>()],
        ) {
            let set = CategorySet::new(&categories);
            prop_assert_eq!(set.contains(asked), categories.contains(&asked));
            let mut sorted = categories;
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(set.categories(), sorted);
        }
    }

    /// A tree of one split. The left leaf has the content 0, and the right leaf has the
    /// content 1.
    fn stump(split: &Split) -> Splits {
        let mut splits = Splits::default();
        let root = splits.push_split(split);
        splits.push_leaf(0.0);
        let right = splits.push_leaf(1.0);
        splits.set_right(root, right);
        splits
    }

    #[test]
    fn a_row_goes_where_its_split_says() {
        let at_most = Split::new(0, Test::AtMost(1.0));
        let one_of = Split::new(0, Test::OneOf(vec![1, 3]));
        let missing_left = |split: &Split| Split {
            missing_left: true,
            ..split.clone()
        };
        let zero = Split {
            zero_is_missing: true,
            ..at_most.clone()
        };
        for (split, value, leaf) in [
            (&at_most, 1.0, 0.0),
            (&at_most, 1.0f64.next_up(), 1.0),
            (&at_most, f64::NAN, 1.0),
            (&missing_left(&at_most), f64::NAN, 0.0),
            (&missing_left(&at_most), 2.0, 1.0),
            (&zero, 0.0, 1.0),
            (&zero, -1e-35, 1.0),
            (&zero, 1e-34, 0.0),
            (&missing_left(&zero), 0.0, 0.0),
            (&one_of, 1.0, 0.0),
            (&one_of, 3.9, 0.0),
            (&one_of, 2.0, 1.0),
            (&one_of, -1.0, 1.0),
            (&one_of, 1e300, 1.0),
            (&one_of, f64::NAN, 1.0),
            (&missing_left(&one_of), f64::NAN, 0.0),
        ] {
            let splits = stump(split);
            let features = [Feature::number("x")];
            assert_eq!(splits.check_tree(0, 3, &features), Ok(()));
            assert_eq!(splits.leaf_of(0, &[value]), leaf, "{split:?} {value}");
        }
    }

    #[test]
    fn nodes_that_are_no_tree_are_refused() {
        let features = [Feature::number("x")];
        let split = Split::new(0, Test::AtMost(0.0));
        let mut splits = stump(&split);
        for (end, reason) in [(0, "has no nodes"), (1, "right child"), (2, "right child")] {
            let fault = splits.check_tree(0, end, &features).unwrap_err();
            assert!(fault.contains(reason), "{fault}");
        }
        splits.push_leaf(0.0);
        let fault = splits.check_tree(0, 4, &features).unwrap_err();
        assert!(fault.contains("not the child"), "{fault}");
        // Two splits whose right children are the same leaf.
        let mut splits = Splits::default();
        for _ in 0..2 {
            splits.push_split(&split);
        }
        for _ in 0..2 {
            splits.push_leaf(0.0);
        }
        splits.set_right(0, 3);
        splits.set_right(1, 3);
        assert!(splits.check_tree(0, 4, &features).is_err());
    }
}
