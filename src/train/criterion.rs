//! The criteria by which a tree's splits are chosen: Gini impurity for classes, variance
//! for numbers.
//!
//! A criterion holds the rows of one node. All rows are on the right at first, and move
//! to the left one by one, or bucket by bucket. A bucket contains the rows with one value
//! of a feature.

/// The answer of a node if the node becomes a leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeAnswer {
    /// Pairs of a class and the weight of its rows, by ascending class.
    Classes(Vec<(u32, f64)>),
    /// The mean of the numbers.
    Number(f64),
}

/// The rows of a node, divided into left and right.
pub trait Criterion {
    /// Takes the rows of a node, each with its weight. Returns true if no split can
    /// improve the node.
    fn start_node(&mut self, rows: &[u32], weights: &[f64]) -> bool;

    /// Moves all rows to the right.
    fn reset(&mut self);

    /// Moves a row to the left, by its position in the node.
    fn move_row(&mut self, position: usize);

    /// Empties `count` buckets.
    fn clear_buckets(&mut self, count: usize);

    /// Puts a row into a bucket.
    fn fill_bucket(&mut self, bucket: usize, position: usize);

    /// Moves the rows of a bucket to the left.
    fn move_bucket(&mut self, bucket: usize);

    /// The cost of moving a bucket, as a multiple of the cost of moving a row.
    fn bucket_cost(&self) -> usize;

    /// Orders of the buckets in `filled`. The best division of the buckets is a cut
    /// through one of these orders, or nearly as good as one.
    fn bucket_orders(&self, filled: &[u32]) -> Vec<Vec<u32>>;

    /// The quality of the division; larger is better, and 0 is the smallest.
    fn quality(&self) -> f64;

    /// The answer of the node.
    fn answer(&self) -> NodeAnswer;
}

/// The largest number of orders of the buckets. Each order belongs to one class.
const ORDERS_MAX: usize = 12;

/// The criterion of Gini impurity.
#[derive(Debug)]
pub struct Gini<'r> {
    class_of: &'r [u32],
    /// The classes in the node, in ascending order. The other lists name a class by its
    /// index in this list, so a small node needs little time even if the training has a
    /// thousand classes.
    present: Vec<u32>,
    /// For each class of the training, its index in `present`.
    index_of: Vec<u32>,
    /// For each row of the node, its class and its weight.
    rows: Vec<(u32, f64)>,
    total: Vec<f64>,
    total_weight: f64,
    total_squares: f64,
    left: Vec<f64>,
    left_weight: f64,
    /// The sums of the squared weights of the classes.
    left_squares: f64,
    right_squares: f64,
    /// The weight of each class in each bucket.
    buckets: Vec<f64>,
}

impl<'r> Gini<'r> {
    /// A criterion for rows with these classes.
    pub fn new(class_of: &'r [u32], class_count: usize) -> Gini<'r> {
        Gini {
            class_of,
            present: Vec::new(),
            index_of: vec![u32::MAX; class_count],
            rows: Vec::new(),
            total: Vec::new(),
            total_weight: 0.0,
            total_squares: 0.0,
            left: Vec::new(),
            left_weight: 0.0,
            left_squares: 0.0,
            right_squares: 0.0,
            buckets: Vec::new(),
        }
    }

    fn move_weight(&mut self, class: usize, weight: f64) {
        let left = self.left[class];
        let right = self.total[class] - left;
        // (n + w)^2 - n^2 = w (2n + w), and n^2 - (n - w)^2 = w (2n - w).
        self.left_squares += weight * (2.0 * left + weight);
        self.right_squares -= weight * (2.0 * right - weight);
        self.left[class] = left + weight;
        self.left_weight += weight;
    }
}

impl Criterion for Gini<'_> {
    fn start_node(&mut self, rows: &[u32], weights: &[f64]) -> bool {
        for class in &self.present {
            self.index_of[*class as usize] = u32::MAX;
        }
        self.present.clear();
        for row in rows {
            let class = self.class_of[*row as usize];
            if self.index_of[class as usize] == u32::MAX {
                self.index_of[class as usize] = 0;
                self.present.push(class);
            }
        }
        self.present.sort_unstable();
        for (index, class) in self.present.iter().enumerate() {
            self.index_of[*class as usize] = index as u32;
        }
        self.rows.clear();
        self.total.clear();
        self.total.resize(self.present.len(), 0.0);
        self.left.clear();
        self.left.resize(self.present.len(), 0.0);
        for row in rows {
            let class = self.index_of[self.class_of[*row as usize] as usize];
            let weight = weights[*row as usize];
            self.rows.push((class, weight));
            self.total[class as usize] += weight;
        }
        self.total_weight = self.total.iter().sum();
        self.total_squares = self.total.iter().map(|weight| weight * weight).sum();
        self.present.len() == 1
    }

    fn reset(&mut self) {
        self.left.fill(0.0);
        self.left_weight = 0.0;
        self.left_squares = 0.0;
        self.right_squares = self.total_squares;
    }

    fn move_row(&mut self, position: usize) {
        let (class, weight) = self.rows[position];
        self.move_weight(class as usize, weight);
    }

    fn clear_buckets(&mut self, count: usize) {
        self.buckets.clear();
        self.buckets.resize(count * self.present.len(), 0.0);
    }

    fn fill_bucket(&mut self, bucket: usize, position: usize) {
        let (class, weight) = self.rows[position];
        self.buckets[bucket * self.present.len() + class as usize] += weight;
    }

    fn move_bucket(&mut self, bucket: usize) {
        let classes = self.present.len();
        for class in 0..classes {
            let weight = self.buckets[bucket * classes + class];
            if weight != 0.0 {
                self.move_weight(class, weight);
            }
        }
    }

    fn bucket_cost(&self) -> usize {
        self.present.len()
    }

    /// For each of the most frequent classes, the order by its share. With two classes,
    /// the best division is a cut through this order.
    fn bucket_orders(&self, filled: &[u32]) -> Vec<Vec<u32>> {
        let classes = self.present.len();
        let mut by_weight: Vec<usize> = (0..classes).collect();
        by_weight.sort_by(|a, b| self.total[*b].total_cmp(&self.total[*a]).then(a.cmp(b)));
        by_weight.truncate(if classes == 2 { 1 } else { ORDERS_MAX });
        let order_by = |class: usize| {
            let share = |bucket: u32| {
                let weights = &self.buckets[bucket as usize * classes..][..classes];
                weights[class] / weights.iter().sum::<f64>()
            };
            order_by_number(filled, share)
        };
        by_weight.into_iter().map(order_by).collect()
    }

    fn quality(&self) -> f64 {
        self.left_squares / self.left_weight
            + self.right_squares / (self.total_weight - self.left_weight)
    }

    fn answer(&self) -> NodeAnswer {
        let weights = self.total.iter().copied();
        NodeAnswer::Classes(self.present.iter().copied().zip(weights).collect())
    }
}

/// The criterion of variance.
#[derive(Debug)]
pub struct Variance<'r> {
    targets: &'r [f64],
    /// The mean of the node.
    mean: f64,
    /// For each row of the node, its weight, and its weight times the difference
    /// between its target and the mean.
    rows: Vec<(f64, f64)>,
    total_weight: f64,
    left_weight: f64,
    left_sum: f64,
    /// The weight and the sum of each bucket.
    buckets: Vec<(f64, f64)>,
}

impl<'r> Variance<'r> {
    /// A criterion for rows with these numbers.
    pub fn new(targets: &'r [f64]) -> Variance<'r> {
        Variance {
            targets,
            mean: 0.0,
            rows: Vec::new(),
            total_weight: 0.0,
            left_weight: 0.0,
            left_sum: 0.0,
            buckets: Vec::new(),
        }
    }
}

impl Criterion for Variance<'_> {
    fn start_node(&mut self, rows: &[u32], weights: &[f64]) -> bool {
        let first = self.targets[rows[0] as usize];
        let target = |row: &u32| self.targets[*row as usize];
        let weight = |row: &u32| weights[*row as usize];
        self.total_weight = rows.iter().map(weight).sum();
        // The first number is subtracted from all, so that a large offset costs no
        // precision.
        let sum: f64 = rows
            .iter()
            .map(|row| weight(row) * (target(row) - first))
            .sum();
        self.mean = first + sum / self.total_weight;
        self.rows.clear();
        for row in rows {
            let weight = weight(row);
            self.rows.push((weight, weight * (target(row) - self.mean)));
        }
        rows.iter().all(|row| target(row) == first)
    }

    fn reset(&mut self) {
        self.left_weight = 0.0;
        self.left_sum = 0.0;
    }

    fn move_row(&mut self, position: usize) {
        let (weight, sum) = self.rows[position];
        self.left_weight += weight;
        self.left_sum += sum;
    }

    fn clear_buckets(&mut self, count: usize) {
        self.buckets.clear();
        self.buckets.resize(count, (0.0, 0.0));
    }

    fn fill_bucket(&mut self, bucket: usize, position: usize) {
        let (weight, sum) = self.rows[position];
        let bucket = &mut self.buckets[bucket];
        bucket.0 += weight;
        bucket.1 += sum;
    }

    fn move_bucket(&mut self, bucket: usize) {
        let (weight, sum) = self.buckets[bucket];
        self.left_weight += weight;
        self.left_sum += sum;
    }

    fn bucket_cost(&self) -> usize {
        1
    }

    /// The order by the mean. The best division is a cut through this order.
    fn bucket_orders(&self, filled: &[u32]) -> Vec<Vec<u32>> {
        let mean = |bucket: u32| {
            let (weight, sum) = self.buckets[bucket as usize];
            sum / weight
        };
        vec![order_by_number(filled, mean)]
    }

    /// The decrease of the sum of squared errors. The sums of the two sides cancel out,
    /// because they are relative to the mean.
    fn quality(&self) -> f64 {
        let right_weight = self.total_weight - self.left_weight;
        self.left_sum * self.left_sum * self.total_weight / (self.left_weight * right_weight)
    }

    fn answer(&self) -> NodeAnswer {
        NodeAnswer::Number(self.mean)
    }
}

/// Sorts buckets by ascending number. Buckets with the same number are sorted by
/// ascending index.
fn order_by_number(buckets: &[u32], number: impl Fn(u32) -> f64) -> Vec<u32> {
    let mut order: Vec<(f64, u32)> = buckets
        .iter()
        .map(|bucket| (number(*bucket), *bucket))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, bucket)| bucket).collect()
}
