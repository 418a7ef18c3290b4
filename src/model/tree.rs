//! The family of decision trees: one tree whose leaves have classes or numbers. This
//! file contains the code that predicts with a tree, stores it, checks it and describes
//! it.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::model::bounds::FEATURES_MAX;
use crate::model::feature::{Feature, Missing};
use crate::model::prediction::{Names, Prediction, Predictor};
use crate::model::splits::{NodeView, Split, Splits, Test};
use crate::model::text_table::six_significant_digits;

/// The prediction of a leaf.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LeafAnswer {
    /// A class, by its index.
    Class(u32),
    /// A number.
    Number(f64),
}

/// The prediction of a leaf, and the rows that it is based on.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    answer: LeafAnswer,
    /// The number of training rows in this leaf.
    rows: u64,
    /// The range in `Tree::counts` that belongs to this leaf. The range is empty if the
    /// answer of the leaf is a number.
    counts: Range<u32>,
}

/// A decision tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    splits: Splits,
    leaves: Vec<Leaf>,
    /// For each leaf with a class, pairs of a class and the number of training rows of
    /// that class, by ascending class.
    counts: Vec<(u32, u32)>,
    /// For each class, the weight that one of its rows has in the probabilities. Empty
    /// if all weights are 1.
    class_weights: Vec<f64>,
}

impl Tree {
    /// Reads a tree from the parameters in a model file. Call
    /// [`check`](Predictor::check) before using it.
    pub fn from_json(parameters: &str) -> serde_json::Result<Tree> {
        let parameters: Parameters<Tree> = serde_json::from_str(parameters)?;
        Ok(Tree {
            class_weights: parameters.class_weights,
            ..parameters.nodes
        })
    }

    /// Sets, for each class, the weight of one of its rows. Without weights, all rows
    /// weigh the same.
    pub fn set_class_weights(&mut self, class_weights: Vec<f64>) {
        self.class_weights = class_weights;
    }

    /// The answer of a leaf, the number of its training rows, and its rows by class.
    pub fn leaf(&self, index: usize) -> (LeafAnswer, u64, &[(u32, u32)]) {
        let leaf = &self.leaves[index];
        let counts = leaf.counts.start as usize..leaf.counts.end as usize;
        (leaf.answer, leaf.rows, &self.counts[counts])
    }

    /// Appends a split and returns its index. Append its left subtree next. Then append
    /// the right one, and set it with [`set_right`](Tree::set_right).
    pub fn push_split(&mut self, split: &Split) -> usize {
        self.splits.push_split(split)
    }

    /// Sets the right child of a split.
    pub fn set_right(&mut self, parent: usize, child: usize) {
        self.splits.set_right(parent, child);
    }

    /// Appends a leaf with a class and returns the index of its node. `counts` are the
    /// training rows by class.
    pub fn push_leaf(&mut self, class: u32, counts: impl IntoIterator<Item = (u32, u32)>) -> usize {
        let start = self.counts.len() as u32;
        self.counts.extend(counts);
        let counts = start..self.counts.len() as u32;
        let rows = self.counts[start as usize..].iter();
        let rows = rows.map(|(_, count)| u64::from(*count)).sum();
        self.leaves.push(Leaf {
            answer: LeafAnswer::Class(class),
            rows,
            counts,
        });
        self.splits.push_leaf((self.leaves.len() - 1) as f64)
    }

    /// Appends a leaf with a number and returns the index of its node. `rows` is the
    /// number of its training rows.
    pub fn push_number(&mut self, number: f64, rows: u64) -> usize {
        self.leaves.push(Leaf {
            answer: LeafAnswer::Number(number),
            rows,
            counts: 0..0,
        });
        self.splits.push_leaf((self.leaves.len() - 1) as f64)
    }

    /// Counts how many of `rows` reach each leaf, by class, and replaces the counts of
    /// the leaves. A leaf that no row reaches gets one row of its class.
    pub fn count_rows<'a>(&mut self, rows: impl Iterator<Item = (&'a [f64], u32)>) {
        let mut reached: Vec<(u32, u32)> = rows
            .map(|(row, class)| (self.splits.leaf_of(0, row) as u32, class))
            .collect();
        reached.sort_unstable();
        let mut reached = &reached[..];
        self.counts.clear();
        for (index, leaf) in self.leaves.iter_mut().enumerate() {
            let start = self.counts.len() as u32;
            leaf.rows = 0;
            while let Some((_, class)) = reached.first().filter(|(at, _)| *at as usize == index) {
                let count = reached.partition_point(|next| *next <= (index as u32, *class));
                self.counts.push((*class, count as u32));
                leaf.rows += count as u64;
                reached = &reached[count..];
            }
            if leaf.rows == 0
                && let LeafAnswer::Class(class) = leaf.answer
            {
                self.counts.push((class, 1));
                leaf.rows = 1;
            }
            leaf.counts = start..self.counts.len() as u32;
        }
    }

    /// Checks a leaf. Without classes, the answers are numbers.
    fn check_leaf(&self, index: usize, class_count: usize) -> Result<(), &'static str> {
        let (answer, _, counts) = self.leaf(index);
        let class = match answer {
            LeafAnswer::Class(class) => class as usize,
            LeafAnswer::Number(_) if class_count > 0 => return Err("has no class"),
            LeafAnswer::Number(number) if number.is_finite() => return Ok(()),
            LeafAnswer::Number(_) => return Err("has a value that is not finite"),
        };
        if class >= class_count {
            return Err("names a class that does not exist");
        }
        let is_ascending = counts.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let last = counts.last().map(|(class, _)| *class as usize);
        if !is_ascending || last.is_none_or(|last| last >= class_count) {
            return Err("has counts of classes that do not exist or are not in order");
        }
        if counts.iter().any(|(_, count)| *count == 0) {
            return Err("has a count of 0");
        }
        Ok(())
    }

    /// The number of nodes in the subtree of each node, including the node itself.
    fn subtree_sizes(&self) -> Vec<usize> {
        // Children are after their parents, so the reverse order visits every
        // child before its parent.
        let mut sizes = vec![1usize; self.splits.len()];
        for index in (0..self.splits.len()).rev() {
            if let NodeView::Split { right, .. } = self.splits.node(index) {
                sizes[index] += sizes[index + 1] + sizes[right];
            }
        }
        sizes
    }
}

impl Predictor for Tree {
    /// The row reaches a leaf. The probability of a class is its share in the weight of
    /// the training rows of this leaf.
    fn predict(&self, row: &[f64], probabilities: &mut [f64]) -> Prediction {
        let (answer, rows, counts) = self.leaf(self.splits.leaf_of(0, row) as usize);
        let class = match answer {
            LeafAnswer::Class(class) => class as usize,
            LeafAnswer::Number(number) => return Prediction::Number(number),
        };
        probabilities.fill(0.0);
        if self.class_weights.is_empty() {
            for (class, count) in counts {
                probabilities[*class as usize] = f64::from(*count) / rows as f64;
            }
            return Prediction::Class(class);
        }
        let weigh =
            |(class, count): &(u32, u32)| f64::from(*count) * self.class_weights[*class as usize];
        let total: f64 = counts.iter().map(weigh).sum();
        for pair in counts {
            probabilities[pair.0 as usize] = weigh(pair) / total;
        }
        Prediction::Class(class)
    }

    fn check(&self, features: &[Feature], class_count: usize) -> Result<(), String> {
        self.splits.check_tree(0, self.splits.len(), features)?;
        let weights = &self.class_weights;
        let are_positive = weights.iter().all(|weight| (1e-9..=1e9).contains(weight));
        if !are_positive || !(weights.is_empty() || weights.len() == class_count) {
            return Err("the weights of the classes are out of range or too few".to_owned());
        }
        for index in 0..self.splits.len() {
            if let NodeView::Leaf(leaf) = self.splits.node(index) {
                self.check_leaf(leaf as usize, class_count)
                    .map_err(|fault| format!("node {index} of the tree {fault}"))?;
            }
        }
        Ok(())
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Parameters {
            nodes: self,
            class_weights: self.class_weights.clone(),
        })
    }

    /// One line per condition, such as `age <= 30`. The subtree of the rows that meet a
    /// condition is indented below it.
    fn describe(&self, names: Names, depth_max: u32) -> Vec<String> {
        let sizes = self.subtree_sizes();
        let mut lines = vec![format!(
            "tree of {} nodes, {} of them leaves:",
            self.splits.len(),
            self.leaves.len()
        )];
        let mut open = vec![(0, 0, String::new())];
        while let Some((index, depth, question)) = open.pop() {
            let indent = "  ".repeat(depth as usize);
            if !question.is_empty() {
                lines.push(format!("{indent}{question}"));
            }
            match self.splits.node(index) {
                NodeView::Leaf(leaf) => {
                    lines.push(format!(
                        "{indent}  {}",
                        self.describe_leaf(leaf as usize, &names)
                    ));
                }
                NodeView::Split { .. } if depth >= depth_max => {
                    let nodes = sizes[index];
                    lines.push(format!(
                        "{indent}  ... {nodes} nodes not shown; --depth shows more"
                    ));
                }
                NodeView::Split { split, right } => {
                    let [if_left, if_right] = questions(&split, &names);
                    open.push((right, depth + 1, if_right));
                    open.push((index + 1, depth + 1, if_left));
                }
            }
        }
        lines
    }
}

impl Tree {
    /// A leaf as text.
    fn describe_leaf(&self, leaf: usize, names: &Names) -> String {
        let (answer, rows, counts) = self.leaf(leaf);
        match answer {
            LeafAnswer::Number(number) => {
                format!("{} ({rows} rows)", six_significant_digits(number))
            }
            LeafAnswer::Class(class) => {
                let own = counts.iter().find(|(of, _)| *of == class);
                let own = own.map_or(0, |(_, count)| *count);
                format!("{} ({own} of {rows} rows)", names.labels[class as usize])
            }
        }
    }
}

/// The conditions for going left and for going right, as text.
fn questions(split: &Split, names: &Names) -> [String; 2] {
    let feature = &names.features[split.feature];
    let name = &feature.name;
    let or_missing = |goes_here: bool| if goes_here { " or missing" } else { "" };
    let (left, right) = match &split.test {
        Test::AtMost(threshold) => {
            let threshold = six_significant_digits(*threshold);
            (
                format!("{name} <= {threshold}"),
                format!("{name} > {threshold}"),
            )
        }
        Test::OneOf(set) => {
            let categories = feature.categories().unwrap_or_default();
            let shown = set.iter().map(|code| match categories.get(*code as usize) {
                Some(category) => category.clone(),
                None if categories.is_empty() => code.to_string(),
                None => "any other".to_owned(),
            });
            let shown: Vec<String> = shown.collect();
            let shown = shown.join(", ");
            (
                format!("{name} is one of {shown}"),
                format!("{name} is none of {shown}"),
            )
        }
    };
    let passes = feature.missing == Missing::Pass;
    [
        left + or_missing(passes && split.missing_left),
        right + or_missing(passes && !split.missing_left),
    ]
}

/// The parameters in a model file.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Parameters<T> {
    nodes: T,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    class_weights: Vec<f64>,
}

/// A node in a model file: a split or a leaf.
#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeText {
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    categories: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    right: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<(u32, u32)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nodes = serializer.serialize_seq(Some(self.splits.len()))?;
        for index in 0..self.splits.len() {
            let mut text = NodeText::default();
            match self.splits.node(index) {
                NodeView::Split { split, right } => {
                    text.feature = Some(split.feature as u32);
                    match split.test {
                        Test::AtMost(threshold) => text.threshold = Some(threshold),
                        Test::OneOf(categories) => text.categories = Some(categories),
                    }
                    text.left = Some(index as u32 + 1);
                    text.right = Some(right as u32);
                }
                NodeView::Leaf(leaf) => match self.leaf(leaf as usize) {
                    (LeafAnswer::Class(class), _, counts) => {
                        text.class = Some(class);
                        text.counts = Some(counts.to_vec());
                    }
                    (LeafAnswer::Number(number), rows, _) => {
                        text.value = Some(number);
                        text.rows = Some(rows);
                    }
                },
            }
            nodes.serialize_element(&text)?;
        }
        nodes.end()
    }
}

/// Appends the node that a text describes.
fn append(tree: &mut Tree, text: NodeText) -> Result<(), &'static str> {
    let NodeText {
        feature,
        threshold,
        categories,
        left,
        right,
        class,
        counts,
        value,
        rows,
    } = text;
    let test = match (threshold, categories) {
        (Some(threshold), None) => Some(Test::AtMost(threshold)),
        (None, Some(categories)) => Some(Test::OneOf(categories)),
        (None, None) => None,
        (Some(_), Some(_)) => return Err("has both a threshold and categories"),
    };
    match (feature, test, left, right, class, counts, value, rows) {
        (Some(feature), Some(test), Some(left), Some(right), None, None, None, None) => {
            let split = Split::new(feature as usize, test);
            if feature as usize >= FEATURES_MAX {
                return Err("names a feature that does not exist");
            }
            let index = tree.push_split(&split);
            if left as usize != index + 1 {
                return Err("names a left child that is not the next node");
            }
            tree.set_right(index, right as usize);
        }
        (None, None, None, None, Some(class), Some(counts), None, None) => {
            tree.push_leaf(class, counts);
        }
        (None, None, None, None, None, None, Some(value), Some(rows)) => {
            tree.push_number(value, rows);
        }
        _ => return Err("is neither a split nor a leaf"),
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        struct Nodes;
        impl<'de> Visitor<'de> for Nodes {
            type Value = Tree;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an array of nodes")
            }

            // The nodes are written one by one, because a `NodeText` needs many times
            // the memory of a node.
            fn visit_seq<A: SeqAccess<'de>>(self, mut nodes: A) -> Result<Tree, A::Error> {
                let mut tree = Tree::default();
                while let Some(text) = nodes.next_element::<NodeText>()? {
                    let index = tree.splits.len();
                    append(&mut tree, text).map_err(|fault| {
                        A::Error::custom(format!("node {index} of the tree {fault}"))
                    })?;
                }
                Ok(tree)
            }
        }
        deserializer.deserialize_seq(Nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::feature::{Domain, Unseen};

    fn read(text: &str) -> Result<(), String> {
        let tree: Tree = serde_json::from_str(text).map_err(|error| error.to_string())?;
        tree.check(&features(), 3)
    }

    fn features() -> Vec<Feature> {
        ["a", "b"].map(Feature::number).to_vec()
    }

    const STUMP: &str = r#"[{"feature":1,"threshold":0.5,"left":1,"right":2},{"class":0,"counts":[[0,3],[2,1]]},{"class":2,"counts":[[2,4]]}]"#;

    #[test]
    fn a_tree_that_is_written_and_read_again_is_the_same() {
        let tree: Tree = serde_json::from_str(STUMP).unwrap();
        assert_eq!(tree.check(&features(), 3), Ok(()));
        assert_eq!(serde_json::to_string(&tree).unwrap(), STUMP);
        let mut probabilities = [9.0; 3];
        assert_eq!(
            tree.predict(&[9.0, 0.5], &mut probabilities),
            Prediction::Class(0)
        );
        assert_eq!(probabilities, [0.75, 0.0, 0.25]);
        assert_eq!(
            tree.predict(&[9.0, 0.6], &mut probabilities),
            Prediction::Class(2)
        );
        assert_eq!(probabilities, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_tree_that_could_loop_or_panic_is_refused() {
        for (from, to, reason) in [
            ("\"left\":1", "\"left\":0", "not the next node"),
            ("\"left\":1", "\"left\":2", "not the next node"),
            ("\"right\":2", "\"right\":1", "not come after the left"),
            ("\"right\":2", "\"right\":3", "not come after the left"),
            ("\"left\":1", "\"left\":-1", "invalid value"),
            (
                "\"feature\":1",
                "\"feature\":2",
                "feature that does not exist",
            ),
            (
                "\"feature\":1",
                "\"feature\":4294967295",
                "feature that does not exist",
            ),
            ("\"threshold\":0.5", "\"threshold\":1e999", "out of range"),
            ("\"threshold\":0.5,", "", "neither a split nor a leaf"),
            ("\"class\":0", "\"class\":3", "class that does not exist"),
            ("[0,3]", "[0,0]", "count of 0"),
            ("[0,3]", "[2,3]", "not in order"),
            ("[2,4]", "[3,4]", "do not exist"),
            ("[[2,4]]", "[]", "do not exist"),
            ("{\"class\":0", "{\"other\":0", "unknown field"),
        ] {
            let text = STUMP.replacen(from, to, 1);
            assert_ne!(text, STUMP);
            let found = read(&text).unwrap_err();
            assert!(found.contains(reason), "{text}: {found}");
        }
        assert!(read("[]").unwrap_err().contains("has no nodes"));
        let orphan = STUMP.replace("]}]", "]},{\"class\":0,\"counts\":[[0,1]]}]");
        assert!(read(&orphan).unwrap_err().contains("not the child"));
    }

    #[test]
    fn leaves_are_counted_anew_from_rows() {
        let mut tree: Tree = serde_json::from_str(STUMP).unwrap();
        let rows = [([0.0, 0.0], 2), ([0.0, 0.1], 0), ([0.0, 0.2], 2)];
        tree.count_rows(rows.iter().map(|(row, class)| (&row[..], *class)));
        let mut probabilities = [0.0; 3];
        tree.predict(&[0.0, 0.0], &mut probabilities);
        assert_eq!(probabilities, [1.0 / 3.0, 0.0, 2.0 / 3.0]);
        tree.predict(&[0.0, 1.0], &mut probabilities);
        assert_eq!(probabilities, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_tree_of_numbers_and_categories_is_written_and_read_again() {
        let text = r#"[{"feature":0,"categories":[0,2],"left":1,"right":2},{"value":-0.5,"rows":3},{"value":1.5,"rows":4}]"#;
        let tree: Tree = serde_json::from_str(text).unwrap();
        let categories = Feature {
            domain: Domain::Categories {
                categories: vec!["x".to_owned(), "y".to_owned()],
                unseen: Unseen::Other,
            },
            ..Feature::number("a")
        };
        let features = [categories];
        assert_eq!(tree.check(&features, 0), Ok(()));
        assert_eq!(serde_json::to_string(&tree).unwrap(), text);
        for (code, number) in [(0.0, -0.5), (1.0, 1.5), (2.0, -0.5)] {
            let prediction = tree.predict(&[code], &mut []);
            assert_eq!(prediction, Prediction::Number(number));
        }
        let names = Names {
            features: &features,
            labels: &[],
        };
        let lines = tree.describe(names, 6);
        assert_eq!(
            &lines[1..3],
            ["  a is one of x, any other", "    -0.5 (3 rows)"]
        );
        for (from, to, reason) in [
            ("[0,2]", "[0,3]", "categories that do not exist"),
            ("\"value\":1.5", "\"value\":1e999", "out of range"),
            (
                "\"categories\":[0,2]",
                "\"threshold\":1.0",
                "threshold for a feature",
            ),
        ] {
            let text = text.replace(from, to);
            let outcome = serde_json::from_str::<Tree>(&text).map_err(|error| error.to_string());
            let fault = outcome
                .and_then(|tree| tree.check(&features, 0))
                .unwrap_err();
            assert!(fault.contains(reason), "{text}: {fault}");
        }
    }
}
