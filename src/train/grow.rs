//! Grows one tree: CART, for any criterion. The same rows always give the same tree.
//!
//! Of equally good splits, the split on the first feature wins, and then the split with
//! the lowest threshold. At each node, the rows are sorted by the rank of the feature's
//! value. If there are few ranks, the rows are only counted by rank.

use crate::model::splits::{Split, Test};
use crate::train::criterion::{Criterion, NodeAnswer};
use crate::train::random::Random;
use crate::train::ranks::RankedColumn;

/// The limits of a tree's growth.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    /// The largest number of splits on a path.
    pub depth_max: u32,
    /// The smallest number of rows in a leaf.
    pub leaf_rows_min: usize,
}

/// A node of a grown tree. The nodes are in preorder: the left child of a split is the
/// next node.
#[derive(Clone, Debug, PartialEq)]
pub enum GrownNode {
    /// A question, and the index of the right child.
    Split(Split, usize),
    /// An answer, and the number of different training rows behind this answer.
    Leaf(NodeAnswer, usize),
}

/// The features that a node may be split on.
#[derive(Debug)]
pub enum Candidates {
    /// All features.
    All,
    /// This number of features, drawn for each node. A feature with the same value in
    /// all rows of the node does not count.
    Sample(usize, Random),
}

/// A later split wins only if its quality is larger than this factor times the quality
/// of the best earlier split. Without the factor, rounding would decide between equally
/// good splits.
const BETTER_BY: f64 = 1.0 + 1e-12;

/// Grows a tree on `rows`, the indices of some rows of `columns`. `rows` must not be
/// empty. `weights` has one weight for each row of `columns`. A node whose rows differ
/// is split even if the best split does not lower the impurity. For example, an
/// exclusive or needs two splits, and only the second lowers the impurity.
pub fn grow(
    columns: &[RankedColumn],
    rows: Vec<u32>,
    weights: &[f64],
    criterion: &mut impl Criterion,
    limits: TreeLimits,
    candidates: Candidates,
) -> Vec<GrownNode> {
    let mut open = vec![OpenNode {
        start: 0,
        end: rows.len(),
        depth: 0,
        parent: None,
    }];
    let mut growth = Growth {
        columns,
        rows,
        criterion,
        leaf_rows_min: limits.leaf_rows_min.max(1),
        candidates,
        features: (0..columns.len()).collect(),
        keys: Vec::new(),
        bucket_rows: Vec::new(),
        right_rows: Vec::new(),
    };
    let mut nodes = Vec::new();
    // The tree grows depth first. The open nodes are on the heap, so that no data can
    // overflow the call stack.
    while let Some(node) = open.pop() {
        let index = nodes.len();
        // A left child is the node after its parent.
        if let Some((parent, false)) = node.parent
            && let GrownNode::Split(_, right) = &mut nodes[parent]
        {
            *right = index;
        }
        let own = &growth.rows[node.start..node.end];
        let is_pure = growth.criterion.start_node(own, weights);
        let may_split = !is_pure && node.depth < limits.depth_max;
        let Some(cut) = may_split.then(|| growth.best_cut(&node)).flatten() else {
            let answer = growth.criterion.answer();
            nodes.push(GrownNode::Leaf(answer, node.end - node.start));
            continue;
        };
        let (split, middle) = growth.divide(&node, cut);
        nodes.push(GrownNode::Split(split, 0));
        let child = |start, end, is_left| OpenNode {
            start,
            end,
            depth: node.depth + 1,
            parent: Some((index, is_left)),
        };
        open.push(child(middle, node.end, false));
        open.push(child(node.start, middle, true));
    }
    nodes
}

/// A node that has its rows, but no split yet.
struct OpenNode {
    /// The node's rows are at `start..end`.
    start: usize,
    end: usize,
    depth: u32,
    /// The index of its parent, and whether it is the left child.
    parent: Option<(usize, bool)>,
}

/// A way to divide the rows of a node in two.
struct Cut {
    feature: usize,
    left: LeftRanks,
}

/// The ranks that go left.
enum LeftRanks {
    /// Ranks up to the first of these two go left. The two ranks are neighbours in the
    /// node.
    UpTo(u32, u32),
    /// These categories go left.
    Categories(Vec<u32>),
}

/// The best cut so far, and its quality.
type Best = Option<(f64, Cut)>;

struct Growth<'g, C> {
    columns: &'g [RankedColumn],
    /// All rows of the tree. The rows of a node are contiguous.
    rows: Vec<u32>,
    criterion: &'g mut C,
    leaf_rows_min: usize,
    candidates: Candidates,
    /// All features. Their order changes while features are drawn.
    features: Vec<usize>,
    /// One number for each row of a node. The upper half of its bits is the rank of the
    /// row's value, and the lower half is the position of the row in the node.
    keys: Vec<u64>,
    /// The number of rows in each bucket.
    bucket_rows: Vec<u32>,
    /// Temporary storage for the rows that go right.
    right_rows: Vec<u32>,
}

impl<C: Criterion> Growth<'_, C> {
    /// The best cut of a node; `None` if no feature divides its rows.
    fn best_cut(&mut self, node: &OpenNode) -> Option<Cut> {
        let mut best = None;
        let width = self.columns.len();
        let Candidates::Sample(count, random) = &self.candidates else {
            for feature in 0..width {
                self.best_cut_on(feature, node, &mut best);
            }
            return best.map(|(_, cut)| cut);
        };
        let (count, mut random) = (*count, random.clone());
        let mut tried = 0;
        for drawn in 0..width {
            if tried >= count && best.is_some() {
                break;
            }
            let at = drawn + random.below(width - drawn);
            self.features.swap(drawn, at);
            let differs = self.best_cut_on(self.features[drawn], node, &mut best);
            tried += usize::from(differs);
        }
        self.candidates = Candidates::Sample(count, random);
        best.map(|(_, cut)| cut)
    }

    /// Replaces `best` by the best cut on one feature if this cut is better. Returns
    /// whether the feature has different values in the node.
    fn best_cut_on(&mut self, feature: usize, node: &OpenNode, best: &mut Best) -> bool {
        let column = &self.columns[feature];
        let own = &self.rows[node.start..node.end];
        let rank = |row: u32| column.ranks[row as usize];
        let first = rank(own[0]);
        let (mut lowest, mut highest) = (first, first);
        self.keys.clear();
        for (position, row) in own.iter().enumerate() {
            let rank = rank(*row);
            lowest = lowest.min(rank);
            highest = highest.max(rank);
            self.keys.push(u64::from(rank) << 32 | position as u64);
        }
        if lowest == highest {
            return false;
        }
        let ranks = (highest - lowest) as usize + 1;
        let is_cheap = ranks.saturating_mul(self.criterion.bucket_cost()) <= 2 * own.len();
        if column.categories.is_some() {
            self.fill_buckets(lowest, ranks);
            self.cut_categories(feature, lowest, best);
        } else if is_cheap {
            self.fill_buckets(lowest, ranks);
            self.cut_buckets(feature, lowest, best);
        } else {
            self.keys.sort_unstable();
            self.cut_rows(feature, best);
        }
        true
    }

    /// Puts each row into the bucket of its rank.
    fn fill_buckets(&mut self, lowest: u32, ranks: usize) {
        self.criterion.clear_buckets(ranks);
        self.bucket_rows.clear();
        self.bucket_rows.resize(ranks, 0);
        for key in &self.keys {
            let bucket = ((key >> 32) as u32 - lowest) as usize;
            self.bucket_rows[bucket] += 1;
            self.criterion.fill_bucket(bucket, *key as u32 as usize);
        }
    }

    /// The cuts between the sorted rows.
    fn cut_rows(&mut self, feature: usize, best: &mut Best) {
        let rows = self.keys.len();
        self.criterion.reset();
        for (left_rows, pair) in (1..).zip(self.keys.windows(2)) {
            self.criterion.move_row(pair[0] as u32 as usize);
            let (here, next) = ((pair[0] >> 32) as u32, (pair[1] >> 32) as u32);
            if here == next || left_rows.min(rows - left_rows) < self.leaf_rows_min {
                continue;
            }
            offer(best, self.criterion.quality(), || Cut {
                feature,
                left: LeftRanks::UpTo(here, next),
            });
        }
    }

    /// The cuts between the buckets in the order of their ranks.
    fn cut_buckets(&mut self, feature: usize, lowest: u32, best: &mut Best) {
        let rows = self.keys.len();
        let (mut left_rows, mut here) = (0, 0);
        self.criterion.reset();
        for bucket in 0..self.bucket_rows.len() {
            let count = self.bucket_rows[bucket] as usize;
            if count == 0 {
                continue;
            }
            if left_rows > 0 && left_rows.min(rows - left_rows) >= self.leaf_rows_min {
                offer(best, self.criterion.quality(), || Cut {
                    feature,
                    left: LeftRanks::UpTo(lowest + here as u32, lowest + bucket as u32),
                });
            }
            self.criterion.move_bucket(bucket);
            left_rows += count;
            here = bucket;
        }
    }

    /// The cuts through the orders of the buckets that the criterion proposes.
    fn cut_categories(&mut self, feature: usize, lowest: u32, best: &mut Best) {
        let rows = self.keys.len();
        let buckets = 0..self.bucket_rows.len() as u32;
        let filled: Vec<u32> = buckets
            .filter(|bucket| self.bucket_rows[*bucket as usize] > 0)
            .collect();
        for order in self.criterion.bucket_orders(&filled) {
            let mut left_rows = 0;
            self.criterion.reset();
            for cut in 1..order.len() {
                let bucket = order[cut - 1] as usize;
                self.criterion.move_bucket(bucket);
                left_rows += self.bucket_rows[bucket] as usize;
                if left_rows.min(rows - left_rows) < self.leaf_rows_min {
                    continue;
                }
                offer(best, self.criterion.quality(), || Cut {
                    feature,
                    left: LeftRanks::Categories(
                        order[..cut].iter().map(|bucket| lowest + bucket).collect(),
                    ),
                });
            }
        }
    }

    /// Moves the left rows of a node before its right rows. Returns the split, and the
    /// index of the first right row.
    fn divide(&mut self, node: &OpenNode, cut: Cut) -> (Split, usize) {
        let column = &self.columns[cut.feature];
        let Cut { feature, left } = cut;
        match left {
            LeftRanks::UpTo(low, high) => {
                let middle = self.partition(node, |row| column.ranks[row as usize] <= low);
                let test = Test::AtMost(column.threshold(low, high));
                (Split::new(feature, test), middle)
            }
            LeftRanks::Categories(codes) => {
                let mut goes_left = vec![false; column.rank_count];
                for code in &codes {
                    goes_left[*code as usize] = true;
                }
                let rank = |row: u32| column.ranks[row as usize] as usize;
                let own = &self.rows[node.start..node.end];
                let mut is_present = vec![false; column.rank_count];
                for row in own {
                    is_present[rank(*row)] = true;
                }
                let middle = self.partition(node, |row| goes_left[rank(row)]);
                // A category that no row of the node has goes to the larger child. So
                // does an unknown category.
                let left_is_larger = middle - node.start >= node.end - middle;
                let codes = (0..column.rank_count)
                    .filter(|code| goes_left[*code] || (left_is_larger && !is_present[*code]));
                let test = Test::OneOf(codes.map(|code| code as u32).collect());
                (Split::new(feature, test), middle)
            }
        }
    }

    fn partition(&mut self, node: &OpenNode, goes_left: impl Fn(u32) -> bool) -> usize {
        let own = &mut self.rows[node.start..node.end];
        self.right_rows.clear();
        let mut kept = 0;
        for at in 0..own.len() {
            let row = own[at];
            if goes_left(row) {
                own[kept] = row;
                kept += 1;
            } else {
                self.right_rows.push(row);
            }
        }
        own[kept..].copy_from_slice(&self.right_rows);
        node.start + kept
    }
}

/// Replaces `best` if the cut is better.
fn offer(best: &mut Best, quality: f64, cut: impl FnOnce() -> Cut) {
    let is_better = match best {
        None => !quality.is_nan(),
        Some((best, _)) => quality > *best * BETTER_BY,
    };
    if is_better {
        *best = Some((quality, cut()));
    }
}
