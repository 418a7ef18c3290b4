//! Puts the nodes of a foreign tree into the order of a model file: a split, its left
//! subtree, its right subtree.

use crate::model::bounds::FEATURES_MAX;
use crate::model::ensemble::text::TreeText;
use crate::model::splits::Split;

/// A node of a foreign tree.
#[derive(Debug)]
pub enum ForeignNode {
    /// The end of a path, with its number.
    Leaf(f64),
    /// A split, with the indices of its children.
    Split {
        /// The question.
        split: Split,
        /// The child for rows that go left.
        left: usize,
        /// The child for other rows.
        right: usize,
    },
}

/// Converts the tree with the root `root`. `node` returns the node with an index below
/// `count`. A node with two parents is an error, and so is a circle.
pub fn convert(
    root: usize,
    count: usize,
    output: u32,
    node: impl Fn(usize) -> Result<ForeignNode, String>,
) -> Result<TreeText, String> {
    let mut text = TreeText {
        output,
        ..TreeText::default()
    };
    let mut is_visited = vec![false; count];
    // The nodes that are not converted yet. A right child comes with the index of its
    // parent, which is converted already.
    let mut open = vec![(root, None)];
    while let Some((index, right_of)) = open.pop() {
        match is_visited.get_mut(index) {
            None => return Err(format!("names node {index}, which does not exist")),
            Some(true) => return Err(format!("reaches node {index} on two paths")),
            Some(visited) => *visited = true,
        }
        let converted = match node(index)? {
            ForeignNode::Leaf(number) => text.push_leaf(number),
            ForeignNode::Split { split, .. } if split.feature >= FEATURES_MAX => {
                return Err(format!(
                    "names feature {}, but rv-score knows {FEATURES_MAX} features at most",
                    split.feature
                ));
            }
            ForeignNode::Split { split, left, right } => {
                let converted = text.push_split(&split);
                open.push((right, Some(converted)));
                open.push((left, None));
                converted
            }
        };
        if let Some(parent) = right_of {
            text.right[parent] = converted as u32;
        }
    }
    Ok(text)
}
