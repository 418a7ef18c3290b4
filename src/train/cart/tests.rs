use proptest::prelude::*;

use super::*;
use crate::model::tree::NodeView;

const DEEP: Limits = Limits {
    depth_max: 128,
    leaf_rows_min: 1,
};

fn rows(rows: &[(&[f64], u32)]) -> Rows {
    Rows {
        width: rows[0].0.len(),
        values: rows.iter().flat_map(|(row, _)| row.to_vec()).collect(),
        class_of: rows.iter().map(|(_, class)| *class).collect(),
    }
}

fn fits_exactly(rows: &Rows, tree: &Tree, classes: usize) -> bool {
    let mut probabilities = vec![0.0; classes];
    (0..rows.len()).all(|index| {
        let class = tree.evaluate(rows.row(index), &mut probabilities);
        class == rows.class_of[index] as usize && probabilities[class] == 1.0
    })
}

#[test]
fn what_can_be_separated_is_separated() {
    for (name, rows, classes) in [
        (
            "a value that another node has too",
            rows(&[
                (&[5.0, 1.0], 0),
                (&[5.0, 2.0], 1),
                (&[0.0, 1.0], 2),
                (&[0.0, 1.0], 2),
            ]),
            3,
        ),
        (
            "exclusive or, where no first split gains anything",
            rows(&[
                (&[0.0, 0.0], 0),
                (&[0.0, 1.0], 1),
                (&[1.0, 0.0], 1),
                (&[1.0, 1.0], 0),
            ]),
            2,
        ),
        (
            "neighbouring floats",
            rows(&[
                (&[1.0], 0),
                (&[1.0f64.next_up()], 1),
                (&[1.0f64.next_up().next_up()], 0),
            ]),
            2,
        ),
        (
            "the smallest floats",
            rows(&[(&[0.0], 0), (&[5e-324], 1), (&[1e-323], 0), (&[-5e-324], 1)]),
            2,
        ),
        (
            "the largest floats",
            rows(&[
                (&[f64::MAX], 0),
                (&[-f64::MAX], 1),
                (&[f64::MAX.next_down()], 1),
            ]),
            2,
        ),
    ] {
        let tree = grow(&rows, classes, DEEP);
        assert_eq!(tree.check(rows.width, classes), Ok(()), "{name}");
        assert!(fits_exactly(&rows, &tree, classes), "{name}: {tree:?}");
    }
}

#[test]
fn both_zeros_are_one_value() {
    let rows = rows(&[(&[-0.0], 0), (&[0.0], 1)]);
    assert_eq!(grow(&rows, 2, DEEP).node_count(), 1);
}

#[test]
fn ties_go_to_the_first_feature_and_the_lower_threshold() {
    let rows = rows(&[
        (&[0.0, 0.0, 7.0], 0),
        (&[1.0, 1.0, 7.0], 1),
        (&[2.0, 2.0, 7.0], 0),
    ]);
    let tree = grow(&rows, 2, DEEP);
    let NodeView::Split {
        feature, threshold, ..
    } = tree.node(0)
    else {
        panic!("a split");
    };
    assert_eq!((feature, threshold), (0, 0.5));
}

#[test]
fn limits_end_growth_and_the_first_class_wins_a_tie() {
    let rows = rows(&[(&[0.0], 1), (&[1.0], 0), (&[2.0], 1), (&[3.0], 0)]);
    let stump = grow(
        &rows,
        2,
        Limits {
            depth_max: 1,
            leaf_rows_min: 2,
        },
    );
    assert_eq!(stump.node_count(), 3);
    let mut probabilities = [0.0; 2];
    assert_eq!(stump.evaluate(&[0.0], &mut probabilities), 0);
    assert_eq!(probabilities, [0.5, 0.5]);
    let bare = grow(
        &rows,
        2,
        Limits {
            depth_max: 128,
            leaf_rows_min: 3,
        },
    );
    assert_eq!(bare.node_count(), 1);
}

/// The best quality of a split by trying all of them in the plainest way.
fn best_by_force(rows: &Rows, classes: usize) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for feature in 0..rows.width {
        let mut values: Vec<f64> = (0..rows.len()).map(|row| rows.row(row)[feature]).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        for value in &values[..values.len() - 1] {
            let mut counts = vec![[0.0f64; 2]; classes];
            for row in 0..rows.len() {
                let side = usize::from(rows.row(row)[feature] > *value);
                counts[rows.class_of[row] as usize][side] += 1.0;
            }
            let score: f64 = (0..2)
                .map(|side| {
                    let all: f64 = counts.iter().map(|count| count[side]).sum();
                    counts.iter().map(|count| count[side].powi(2)).sum::<f64>() / all
                })
                .sum();
            let left: f64 = counts.iter().map(|count| count[0]).sum();
            if best.is_none_or(|(best, ..)| score > best + 1e-9) {
                best = Some((score, feature, left as usize));
            }
        }
    }
    best.map(|(_, feature, left)| (feature, left))
}

fn table() -> impl Strategy<Value = Rows> {
    (1usize..4, 2usize..40).prop_flat_map(|(width, count)| {
        (
            proptest::collection::vec(-4i8..5, width * count),
            proptest::collection::vec(0u32..3, count),
        )
            .prop_map(move |(values, class_of)| Rows {
                width,
                values: values.iter().map(|value| f64::from(*value) / 4.0).collect(),
                class_of,
            })
    })
}

proptest! {
    #[test]
    fn a_tree_is_sound_and_its_first_split_is_the_best(rows in table()) {
        let tree = grow(&rows, 3, DEEP);
        prop_assert_eq!(tree.check(rows.width, 3), Ok(()));
        prop_assert_eq!(&tree, &grow(&rows, 3, DEEP));
        let is_pure = rows.class_of.iter().all(|class| *class == rows.class_of[0]);
        match tree.node(0) {
            NodeView::Split { feature, threshold, .. } => {
                let left = (0..rows.len()).filter(|row| rows.row(*row)[feature] <= threshold);
                prop_assert_eq!(Some((feature, left.count())), best_by_force(&rows, 3));
            }
            NodeView::Leaf { .. } => {
                prop_assert!(is_pure || best_by_force(&rows, 3).is_none());
            }
        }
    }

    #[test]
    fn rows_that_differ_are_fitted_exactly(mut rows in table()) {
        // Rows with the same values get the class of the first of them.
        for row in 0..rows.len() {
            let first = (0..row).find(|first| rows.row(*first) == rows.row(row));
            rows.class_of[row] = rows.class_of[first.unwrap_or(row)];
        }
        let tree = grow(&rows, 3, DEEP);
        prop_assert!(fits_exactly(&rows, &tree, 3));
    }

    #[test]
    fn limits_hold_in_every_leaf(rows in table(), depth_max in 1u32..4, leaf_rows_min in 1usize..6) {
        let tree = grow(&rows, 3, Limits { depth_max, leaf_rows_min });
        let mut open = vec![(0, 0)];
        while let Some((index, depth)) = open.pop() {
            prop_assert!(depth <= depth_max);
            match tree.node(index) {
                NodeView::Split { left, right, .. } => {
                    open.extend([(left, depth + 1), (right, depth + 1)]);
                }
                NodeView::Leaf { counts, .. } => {
                    let count: u32 = counts.iter().map(|(_, count)| *count).sum();
                    prop_assert!(count as usize >= leaf_rows_min.min(rows.len()));
                }
            }
        }
    }
}
