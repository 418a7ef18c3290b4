//! The family of decision trees. A tree is one flat array of nodes. This file predicts
//! with it, stores, checks and describes it.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::model::prediction::{Names, Prediction, Predictor};
use crate::model::text_table::six_significant_digits;

/// The value of `feature` that marks a leaf.
const LEAF: u32 = u32::MAX;

/// A node. The children of a split are after it in the array, so every path ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Node {
    threshold: f64,
    feature: u32,
    /// For a split, the index of the child for values up to the threshold; for a
    /// leaf, its index among the leaves.
    left: u32,
    right: u32,
}

/// The prediction of a leaf, and the rows that it is based on.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    class: u32,
    /// The number of training rows in this leaf.
    rows: u64,
    /// The range of this leaf in `Tree::counts`.
    counts: Range<u32>,
}

/// A decision tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    nodes: Vec<Node>,
    leaves: Vec<Leaf>,
    /// For each leaf, pairs of a class and the number of training rows of that class, by
    /// ascending class.
    counts: Vec<(u32, u32)>,
}

/// One node, for code that reads a tree instead of predicting with it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum NodeView<'a> {
    /// Rows whose feature is less than or equal to the threshold go left.
    Split {
        /// The index of the feature in the row.
        feature: usize,
        /// The largest value that goes left.
        threshold: f64,
        /// The index of the left child.
        left: usize,
        /// The index of the right child.
        right: usize,
    },
    /// The end of a path.
    Leaf {
        /// The predicted class.
        class: usize,
        /// The classes of its rows of training, each with its number of rows.
        counts: &'a [(u32, u32)],
    },
}

impl Tree {
    /// Reads a tree from the parameters in a model file. Call
    /// [`check`](Predictor::check) before using it.
    pub fn from_json(parameters: &str) -> serde_json::Result<Tree> {
        let parameters: Parameters<Tree> = serde_json::from_str(parameters)?;
        Ok(parameters.nodes)
    }

    /// The number of nodes, including leaves.
    fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The leaf of a row, as its index among the leaves.
    fn leaf_of(&self, row: &[f64]) -> usize {
        let mut node = &self.nodes[0];
        while node.feature != LEAF {
            let next = if row[node.feature as usize] <= node.threshold {
                node.left
            } else {
                node.right
            };
            node = &self.nodes[next as usize];
        }
        node.left as usize
    }

    /// One node.
    fn node(&self, index: usize) -> NodeView<'_> {
        let node = &self.nodes[index];
        if node.feature == LEAF {
            let leaf = &self.leaves[node.left as usize];
            NodeView::Leaf {
                class: leaf.class as usize,
                counts: &self.counts[leaf.counts.start as usize..leaf.counts.end as usize],
            }
        } else {
            NodeView::Split {
                feature: node.feature as usize,
                threshold: node.threshold,
                left: node.left as usize,
                right: node.right as usize,
            }
        }
    }

    /// Appends a split and returns its index. Set its children with
    /// [`set_child`](Tree::set_child).
    pub fn push_split(&mut self, feature: usize, threshold: f64) -> usize {
        self.nodes.push(Node {
            threshold,
            feature: feature as u32,
            left: 0,
            right: 0,
        });
        self.nodes.len() - 1
    }

    /// Appends a leaf and returns its index.
    pub fn push_leaf(&mut self, class: u32, counts: impl IntoIterator<Item = (u32, u32)>) -> usize {
        let start = self.counts.len() as u32;
        self.counts.extend(counts);
        let counts = start..self.counts.len() as u32;
        let rows = self.counts[start as usize..].iter();
        let rows = rows.map(|(_, count)| u64::from(*count)).sum();
        self.nodes.push(Node {
            threshold: 0.0,
            feature: LEAF,
            left: self.leaves.len() as u32,
            right: 0,
        });
        self.leaves.push(Leaf {
            class,
            rows,
            counts,
        });
        self.nodes.len() - 1
    }

    /// Sets a child of a split.
    pub fn set_child(&mut self, parent: usize, is_left: bool, child: usize) {
        let node = &mut self.nodes[parent];
        if is_left {
            node.left = child as u32;
        } else {
            node.right = child as u32;
        }
    }

    /// Counts `rows`, each with its class, and replaces the counts of the leaves. A
    /// leaf that no row reaches gets one row of its class.
    pub fn count_rows<'a>(&mut self, rows: impl Iterator<Item = (&'a [f64], u32)>) {
        let mut reached: Vec<(u32, u32)> = rows
            .map(|(row, class)| (self.leaf_of(row) as u32, class))
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
            if leaf.rows == 0 {
                self.counts.push((leaf.class, 1));
                leaf.rows = 1;
            }
            leaf.counts = start..self.counts.len() as u32;
        }
    }

    /// Checks the split at `index`, and marks its children in `has_parent`.
    fn check_split(
        &self,
        index: usize,
        feature_count: usize,
        has_parent: &mut [bool],
    ) -> Result<(), &'static str> {
        let NodeView::Split {
            feature,
            threshold,
            left,
            right,
        } = self.node(index)
        else {
            return Ok(());
        };
        if feature >= feature_count {
            return Err("names a feature that does not exist");
        }
        if !threshold.is_finite() {
            return Err("has a threshold that is not finite");
        }
        for child in [left, right] {
            if child <= index || child >= self.nodes.len() {
                return Err("names a child that does not come after it");
            }
            if std::mem::replace(&mut has_parent[child], true) {
                return Err("names a child that already has a parent");
            }
        }
        Ok(())
    }

    /// Checks the leaf at `index`.
    fn check_leaf(&self, index: usize, class_count: usize) -> Result<(), &'static str> {
        let NodeView::Leaf { class, counts } = self.node(index) else {
            return Ok(());
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
        let mut sizes = vec![1usize; self.node_count()];
        for index in (0..self.node_count()).rev() {
            if let NodeView::Split { left, right, .. } = self.node(index) {
                sizes[index] += sizes[left] + sizes[right];
            }
        }
        sizes
    }
}

impl Predictor for Tree {
    /// The probabilities are the shares of the classes among the rows of training
    /// in the row's leaf.
    fn predict(&self, row: &[f64], probabilities: &mut [f64]) -> Prediction {
        let leaf = &self.leaves[self.leaf_of(row)];
        probabilities.fill(0.0);
        let counts = leaf.counts.start as usize..leaf.counts.end as usize;
        for (class, count) in &self.counts[counts] {
            probabilities[*class as usize] = f64::from(*count) / leaf.rows as f64;
        }
        Prediction::Class(leaf.class as usize)
    }

    fn check(&self, feature_count: usize, class_count: usize) -> Result<(), String> {
        if self.nodes.is_empty() {
            return Err("the tree has no nodes".to_owned());
        }
        let mut has_parent = vec![false; self.nodes.len()];
        for index in 0..self.nodes.len() {
            let outcome = if index > 0 && !has_parent[index] {
                Err("is not the child of an earlier node")
            } else {
                self.check_split(index, feature_count, &mut has_parent)
                    .and_then(|()| self.check_leaf(index, class_count))
            };
            outcome.map_err(|fault| format!("node {index} of the tree {fault}"))?;
        }
        Ok(())
    }

    fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Parameters { nodes: self })
    }

    /// One line per question. The lines that follow from an answer are indented below
    /// it.
    fn describe(&self, names: Names, depth_max: u32) -> Vec<String> {
        let sizes = self.subtree_sizes();
        let mut lines = vec![format!(
            "tree of {} nodes, {} of them leaves:",
            self.node_count(),
            self.leaves.len()
        )];
        let mut open = vec![(0, 0, String::new())];
        while let Some((index, depth, question)) = open.pop() {
            let indent = "  ".repeat(depth as usize);
            if !question.is_empty() {
                lines.push(format!("{indent}{question}"));
            }
            match self.node(index) {
                NodeView::Leaf { class, counts } => {
                    let all: u64 = counts.iter().map(|(_, count)| u64::from(*count)).sum();
                    let own = counts.iter().find(|(of, _)| *of as usize == class);
                    let own = own.map_or(0, |(_, count)| *count);
                    let label = names.labels[class];
                    lines.push(format!("{indent}  {label} ({own} of {all} rows)"));
                }
                NodeView::Split { .. } if depth >= depth_max => {
                    let nodes = sizes[index];
                    lines.push(format!(
                        "{indent}  ... {nodes} nodes not shown; --depth shows more"
                    ));
                }
                NodeView::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => {
                    let name = &names.features[feature];
                    let threshold = six_significant_digits(threshold);
                    open.push((right, depth + 1, format!("{name} > {threshold}")));
                    open.push((left, depth + 1, format!("{name} <= {threshold}")));
                }
            }
        }
        lines
    }
}

/// The parameters in a model file.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters<T> {
    nodes: T,
}

/// A node in a model file: a split or a leaf.
#[derive(serde::Serialize, serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct NodeText {
    #[serde(skip_serializing_if = "Option::is_none")]
    feature: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    right: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Vec<(u32, u32)>>,
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nodes = serializer.serialize_seq(Some(self.nodes.len()))?;
        for index in 0..self.nodes.len() {
            let text = match self.node(index) {
                NodeView::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => NodeText {
                    feature: Some(feature as u32),
                    threshold: Some(threshold),
                    left: Some(left as u32),
                    right: Some(right as u32),
                    ..NodeText::default()
                },
                NodeView::Leaf { class, counts } => NodeText {
                    class: Some(class as u32),
                    counts: Some(counts.to_vec()),
                    ..NodeText::default()
                },
            };
            nodes.serialize_element(&text)?;
        }
        nodes.end()
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        struct Nodes;
        impl<'de> Visitor<'de> for Nodes {
            type Value = Tree;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an array of nodes")
            }

            // Node by node, because a `NodeText` needs many times the memory of a
            // node.
            fn visit_seq<A: SeqAccess<'de>>(self, mut nodes: A) -> Result<Tree, A::Error> {
                let mut tree = Tree::default();
                while let Some(text) = nodes.next_element::<NodeText>()? {
                    match text {
                        NodeText {
                            feature: Some(feature),
                            threshold: Some(threshold),
                            left: Some(left),
                            right: Some(right),
                            class: None,
                            counts: None,
                        } if feature != LEAF => {
                            let node = tree.push_split(feature as usize, threshold);
                            tree.set_child(node, true, left as usize);
                            tree.set_child(node, false, right as usize);
                        }
                        NodeText {
                            feature: None,
                            threshold: None,
                            left: None,
                            right: None,
                            class: Some(class),
                            counts: Some(counts),
                        } => {
                            tree.push_leaf(class, counts);
                        }
                        _ => {
                            return Err(A::Error::custom(format!(
                                "node {} of the tree is neither a split nor a leaf",
                                tree.node_count()
                            )));
                        }
                    }
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

    fn read(text: &str) -> Result<(), String> {
        let tree: Tree = serde_json::from_str(text).map_err(|error| error.to_string())?;
        tree.check(2, 3)
    }

    const STUMP: &str = r#"[{"feature":1,"threshold":0.5,"left":1,"right":2},{"class":0,"counts":[[0,3],[2,1]]},{"class":2,"counts":[[2,4]]}]"#;

    #[test]
    fn a_tree_that_is_written_and_read_again_is_the_same() {
        let tree: Tree = serde_json::from_str(STUMP).unwrap();
        assert_eq!(tree.check(2, 3), Ok(()));
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
            ("\"left\":1", "\"left\":0", "not come after it"),
            ("\"left\":1", "\"left\":3", "not come after it"),
            ("\"left\":1", "\"left\":2", "already has a parent"),
            ("\"left\":1", "\"left\":-1", "invalid value"),
            (
                "\"feature\":1",
                "\"feature\":2",
                "feature that does not exist",
            ),
            (
                "\"feature\":1",
                "\"feature\":4294967295",
                "neither a split nor a leaf",
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
        assert!(read("[]").unwrap_err().contains("no nodes"));
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
}
