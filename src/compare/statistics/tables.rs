//! Statistics of tables of counts.

use super::special::chi_squared_above;

/// A test's statistic, its degrees of freedom and its p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// The statistic, which has a chi-squared distribution.
    pub statistic: f64,
    /// The degrees of freedom.
    pub freedom: u64,
    /// The probability of a larger statistic, if nothing has changed.
    pub p_value: f64,
}

impl Test {
    fn of(statistic: f64, freedom: u64) -> Test {
        let p_value = match freedom {
            0 => 1.0,
            _ => chi_squared_above(statistic, freedom as f64),
        };
        Test {
            statistic,
            freedom,
            p_value,
        }
    }
}

/// A square table of pairs: rows are the classes of the base, columns those of the
/// candidate.
pub type SquareTable = [Vec<u64>];

fn sums(table: &SquareTable) -> (Vec<u64>, Vec<u64>, u64) {
    let rows: Vec<u64> = table.iter().map(|row| row.iter().sum()).collect();
    let columns = (0..table.len()).map(|column| table.iter().map(|row| row[column]).sum());
    let total = rows.iter().sum();
    (rows, columns.collect(), total)
}

/// Cohen's kappa (scikit-learn `cohen_kappa_score`). `None` if there are no pairs, or if
/// both have only one class, because chance then agrees always.
pub fn kappa(table: &SquareTable) -> Option<f64> {
    let (rows, columns, total) = sums(table);
    let total = total as f64;
    let same: u64 = table
        .iter()
        .enumerate()
        .map(|(index, row)| row[index])
        .sum();
    let products = rows.iter().zip(&columns);
    let by_chance: f64 = products
        .map(|(row, column)| (*row as f64 / total) * (*column as f64 / total))
        .sum();
    let kappa = (same as f64 / total - by_chance) / (1.0 - by_chance);
    kappa.is_finite().then_some(kappa)
}

/// Stuart and Maxwell's test: whether base and candidate give each class equally often
/// (statsmodels `SquareTable.homogeneity`).
///
/// The covariance is a graph Laplacian: classes are its nodes, and the pairs that mix
/// two classes are the weight of an edge. So each connected part of the graph is
/// tested alone, with one degree of freedom fewer than classes, and the sum has the
/// distribution of the whole. Without this, two classes that are never mixed up would
/// leave a singular matrix.
pub fn homogeneity(table: &SquareTable) -> Test {
    let (rows, columns, _) = sums(table);
    let size = table.len();
    let mut part_of: Vec<Option<usize>> = vec![None; size];
    let (mut statistic, mut freedom) = (0.0, 0);
    for start in 0..size {
        if part_of[start].is_some() {
            continue;
        }
        let mut part = vec![start];
        part_of[start] = Some(start);
        let mut next = 0;
        while next < part.len() {
            let one = part[next];
            next += 1;
            for other in 0..size {
                if part_of[other].is_none() && table[one][other] + table[other][one] > 0 {
                    part_of[other] = Some(start);
                    part.push(other);
                }
            }
        }
        part.pop();
        freedom += part.len() as u64;
        let difference: Vec<f64> = part
            .iter()
            .map(|index| rows[*index] as f64 - columns[*index] as f64)
            .collect();
        let covariance = part.iter().map(|one| {
            let entry = |other: &usize| match one == other {
                true => (rows[*one] + columns[*one]) as f64 - 2.0 * table[*one][*one] as f64,
                false => -((table[*one][*other] + table[*other][*one]) as f64),
            };
            part.iter().map(entry).collect()
        });
        statistic += quadratic_form(covariance.collect(), difference);
    }
    Test::of(statistic, freedom)
}

/// `d' M^-1 d` for a positive definite matrix `M`, by Cholesky's decomposition: it is
/// the squared length of `y` with `L y = d`.
fn quadratic_form(mut matrix: Vec<Vec<f64>>, mut vector: Vec<f64>) -> f64 {
    let mut sum = 0.0;
    for pivot in 0..vector.len() {
        let diagonal = matrix[pivot][pivot];
        let value = vector[pivot];
        sum += value * value / diagonal;
        let row = std::mem::take(&mut matrix[pivot]);
        for below in pivot + 1..vector.len() {
            let factor = matrix[below][pivot] / diagonal;
            vector[below] -= factor * value;
            for column in pivot + 1..vector.len() {
                matrix[below][column] -= factor * row[column];
            }
        }
    }
    sum
}

/// The G-test without Yates' correction: whether the mix of classes differs between two
/// windows (scipy `chi2_contingency(correction=False, lambda_="log-likelihood")`).
/// Classes without a count in both windows are left out. `None` if a window is empty.
pub fn g_test(one: &[u64], other: &[u64]) -> Option<Test> {
    let (of_one, of_other): (u64, u64) = (one.iter().sum(), other.iter().sum());
    if of_one == 0 || of_other == 0 {
        return None;
    }
    let total = (of_one + of_other) as f64;
    let (mut statistic, mut classes) = (0.0, 0);
    for (in_one, in_other) in one.iter().zip(other) {
        let both = (in_one + in_other) as f64;
        if both == 0.0 {
            continue;
        }
        classes += 1;
        for (count, of) in [(*in_one, of_one), (*in_other, of_other)] {
            if count > 0 {
                let expected = both * of as f64 / total;
                statistic += 2.0 * count as f64 * (count as f64 / expected).ln();
            }
        }
    }
    Some(Test::of(statistic.max(0.0), classes - 1))
}
