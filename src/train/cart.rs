//! Grows a decision tree: CART with the Gini impurity. The same rows give the
//! same tree, to the bit.
//!
//! The comparison of two splits is in whole numbers, and ties go to the feature
//! that stands first, then to the lower threshold. Each feature is sorted once;
//! a split divides all the sorted orders and keeps them sorted.

use crate::model::tree::Tree;
use crate::train::table::Rows;

/// When a tree stops to grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most splits on a path.
    pub depth_max: u32,
    /// The fewest rows in a leaf.
    pub leaf_rows_min: usize,
}

/// Grows a tree on `rows`, of which there has to be one at least. A split is
/// made as long as a node holds two classes, even where it gains nothing by
/// itself: an exclusive or is only separated by the next one.
pub fn grow(rows: &Rows, class_count: usize, limits: Limits) -> Tree {
    let mut growth = Growth::new(rows, class_count, limits);
    let mut tree = Tree::default();
    let mut open = vec![Open {
        start: 0,
        end: rows.len(),
        depth: 0,
        parent: None,
    }];
    // Depth first with a stack of its own: no data can overflow it.
    while let Some(node) = open.pop() {
        let is_pure = growth.count(&node);
        let split = (!is_pure && node.depth < limits.depth_max)
            .then(|| growth.best_split(&node))
            .flatten();
        let index = match &split {
            Some(split) => tree.push_split(split.feature, split.threshold),
            None => {
                let counts = growth.class_counts(&node);
                tree.push_leaf(majority(&counts), counts)
            }
        };
        growth.forget_count(&node);
        if let Some((parent, is_left)) = node.parent {
            tree.set_child(parent, is_left, index);
        }
        if let Some(split) = split {
            let middle = growth.divide(&node, &split);
            let child = |start, end, is_left| Open {
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

/// The class with the most rows; of several, the first.
fn majority(counts: &[(u32, u32)]) -> u32 {
    let mut best = (0, 0);
    for (class, count) in counts {
        if *count > best.1 {
            best = (*class, *count);
        }
    }
    best.0
}

/// A node whose rows are known and whose split is not.
struct Open {
    /// Its rows stand from here to `end` in the order of every feature.
    start: usize,
    end: usize,
    depth: u32,
    /// And whether it is the left child.
    parent: Option<(usize, bool)>,
}

/// A way to divide the rows of a node.
struct Split {
    feature: usize,
    threshold: f64,
    /// How many rows go left.
    left_rows: usize,
}

/// How good a split is: the sum over both sides of the squares of the class
/// counts, divided by the rows of the side. The larger it is, the smaller is the
/// Gini impurity. With 2^26 rows no product exceeds 128 bits.
#[derive(Clone, Copy)]
struct Quality {
    numerator: u128,
    denominator: u128,
}

impl Quality {
    fn new(left_squares: u64, left_rows: usize, right_squares: u64, right_rows: usize) -> Quality {
        let (left_rows, right_rows) = (left_rows as u128, right_rows as u128);
        Quality {
            numerator: u128::from(left_squares) * right_rows
                + u128::from(right_squares) * left_rows,
            denominator: left_rows * right_rows,
        }
    }

    fn is_better_than(self, other: Quality) -> bool {
        self.numerator * other.denominator > other.numerator * self.denominator
    }
}

struct Growth<'r> {
    rows: &'r Rows,
    leaf_rows_min: usize,
    /// Column after column.
    columns: Vec<f64>,
    /// For each feature all rows, those of a node together and sorted by value.
    orders: Vec<u32>,
    /// The class counts of the present node.
    total: Vec<u32>,
    /// And of the rows left of a threshold. Zero between two features.
    left: Vec<u32>,
    goes_left: Vec<bool>,
    moved: Vec<u32>,
}

impl<'r> Growth<'r> {
    fn new(rows: &'r Rows, class_count: usize, limits: Limits) -> Growth<'r> {
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
            moved: Vec::with_capacity(rows.len()),
        }
    }

    /// The rows of a node, sorted by a feature.
    fn order(&self, node: &Open, feature: usize) -> &[u32] {
        let start = feature * self.rows.len();
        &self.orders[start + node.start..start + node.end]
    }

    /// Counts the classes of a node. True where there is only one.
    fn count(&mut self, node: &Open) -> bool {
        for at in node.start..node.end {
            self.total[self.rows.class_of[self.orders[at] as usize] as usize] += 1;
        }
        let any = self.rows.class_of[self.orders[node.start] as usize] as usize;
        self.total[any] as usize == node.end - node.start
    }

    /// Only what was counted is reset: a small node must not pay for a thousand
    /// classes.
    fn forget_count(&mut self, node: &Open) {
        for at in node.start..node.end {
            self.total[self.rows.class_of[self.orders[at] as usize] as usize] = 0;
        }
    }

    fn class_counts(&self, node: &Open) -> Vec<(u32, u32)> {
        let classes = self.order(node, 0).iter();
        let mut classes: Vec<u32> = classes
            .map(|row| self.rows.class_of[*row as usize])
            .collect();
        classes.sort_unstable();
        classes.dedup();
        let count = |class: u32| (class, self.total[class as usize]);
        classes.into_iter().map(count).collect()
    }

    fn best_split(&mut self, node: &Open) -> Option<Split> {
        let rows = node.end - node.start;
        let counts = self.class_counts(node);
        let squares = counts
            .iter()
            .map(|(_, count)| u64::from(*count).pow(2))
            .sum();
        let mut best: Option<(Quality, Split)> = None;
        for feature in 0..self.rows.width {
            let start = feature * self.rows.len();
            let order = &self.orders[start + node.start..start + node.end];
            let column = &self.columns[start..start + self.rows.len()];
            let (mut left_squares, mut right_squares): (u64, u64) = (0, squares);
            let mut value = column[order[0] as usize];
            if value == column[order[rows - 1] as usize] {
                continue;
            }
            for (left_rows, pair) in (1..).zip(order.windows(2)) {
                let class = self.rows.class_of[pair[0] as usize] as usize;
                let left = u64::from(self.left[class]);
                let right = u64::from(self.total[class]) - left;
                // (n + 1)^2 = n^2 + 2n + 1, and the other way round.
                left_squares += 2 * left + 1;
                right_squares -= 2 * right - 1;
                self.left[class] += 1;
                let next = column[pair[1] as usize];
                let (here, right_rows) = (value, rows - left_rows);
                value = next;
                if here == next || left_rows.min(right_rows) < self.leaf_rows_min {
                    continue;
                }
                let quality = Quality::new(left_squares, left_rows, right_squares, right_rows);
                if best
                    .as_ref()
                    .is_none_or(|(best, _)| quality.is_better_than(*best))
                {
                    let split = Split {
                        feature,
                        threshold: between(here, next),
                        left_rows,
                    };
                    best = Some((quality, split));
                }
            }
            for (class, _) in &counts {
                self.left[*class as usize] = 0;
            }
        }
        best.map(|(_, split)| split)
    }

    /// Divides the rows of a node, and says where the right ones begin.
    fn divide(&mut self, node: &Open, split: &Split) -> usize {
        let middle = node.start + split.left_rows;
        let start = split.feature * self.rows.len();
        for at in node.start..node.end {
            let row = self.orders[start + at] as usize;
            self.goes_left[row] = at < middle;
        }
        for feature in 0..self.rows.width {
            let start = feature * self.rows.len();
            let order = &mut self.orders[start + node.start..start + node.end];
            self.moved.clear();
            let mut kept = 0;
            for at in 0..order.len() {
                let row = order[at];
                if self.goes_left[row as usize] {
                    order[kept] = row;
                    kept += 1;
                } else {
                    self.moved.push(row);
                }
            }
            order[kept..].copy_from_slice(&self.moved);
        }
        middle
    }
}

/// A threshold that `low` is at most and `high` is above.
fn between(low: f64, high: f64) -> f64 {
    let middle = f64::midpoint(low, high);
    // Between two neighbours there is no float, and rounding may give the upper.
    if low <= middle && middle < high {
        middle
    } else {
        low
    }
}

#[cfg(test)]
mod tests;
