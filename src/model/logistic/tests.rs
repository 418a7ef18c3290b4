use proptest::prelude::*;

use super::*;

const SETTINGS: Settings = Settings {
    l2: 1.0,
    iterations_max: 1000,
};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("f{index}")).collect()
}

fn model() -> Logistic {
    Logistic {
        means: vec![f64::MAX, 0.0],
        scales: vec![f64::MIN_POSITIVE, 1.0],
        intercepts: vec![0.0, 1.0, 2.0],
        coefficients: vec![
            vec![MAGNITUDE_MAX, 0.0, -MAGNITUDE_MAX],
            vec![-MAGNITUDE_MAX, 1.0, MAGNITUDE_MAX],
        ],
    }
}

proptest! {
    #[test]
    fn probabilities_of_any_finite_row_sum_to_one(
        first in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
        second in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL,
    ) {
        let mut probabilities = [0.0; 3];
        let class = model().evaluate(&[first, second], &mut probabilities);
        prop_assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(probabilities.iter().all(|other| *other <= probabilities[class]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    // `train` compares the predictions itself.
    #[test]
    fn the_evaluation_agrees_with_linfa(
        values in proptest::collection::vec(-5.0..5.0f64, 3 * 60),
        class_count in 2u32..5,
        shift in prop_oneof![Just(0.0), Just(1e9)],
    ) {
        let values: Vec<f64> = values.iter().map(|value| value + shift).collect();
        let (training, held_out) = values.split_at(3 * 40);
        let training = Rows {
            width: 3,
            values: training.to_vec(),
            class_of: (0..40).map(|index| index % class_count).collect(),
        };
        let held_out = Rows { width: 3, values: held_out.to_vec(), class_of: vec![0; 20] };
        let classes = class_count as usize;
        let fitted = train(&training, &held_out, &names(3), classes, SETTINGS).unwrap();
        prop_assert_eq!(fitted.check(3, classes), Ok(()));
        let again = train(&training, &held_out, &names(3), classes, SETTINGS).unwrap();
        prop_assert_eq!(fitted, again);
    }
}

#[test]
fn the_slope_tells_a_solution_from_what_is_none() {
    for class_count in [2, 3] {
        let rows = Rows {
            width: 1,
            values: (0..30).map(f64::from).collect(),
            class_of: (0..30).map(|row| (row / 4) % class_count).collect(),
        };
        let none = Rows {
            width: 1,
            ..Rows::default()
        };
        let mut model = train(&rows, &none, &names(1), class_count as usize, SETTINGS).unwrap();
        assert!(model.slope(&rows, SETTINGS.l2) < SLOPE_MAX);
        model.coefficients[0][1] += 0.1;
        assert!(model.slope(&rows, SETTINGS.l2) > SLOPE_MAX);
    }
}

#[test]
fn penalties_fall_from_the_number_of_rows() {
    let penalties = |l2, rows| falling_penalties(l2, rows).collect::<Vec<_>>();
    assert_eq!(penalties(1.0, 1442), [10_000.0, 1000.0, 100.0, 10.0]);
    assert_eq!(penalties(0.0, 5), [10.0, 1.0]);
    assert!(penalties(1e9, 5).is_empty());
}

#[test]
fn a_constant_column_is_no_reason_to_fail() {
    for constant in [0.1, 0.0, -1e300] {
        let rows = Rows {
            width: 2,
            values: (0..20).flat_map(|row| [f64::from(row), constant]).collect(),
            class_of: (0..20).map(|row| u32::from(row > 9)).collect(),
        };
        let fitted = train(
            &rows,
            &Rows {
                width: 2,
                ..Rows::default()
            },
            &names(2),
            2,
            SETTINGS,
        );
        let fitted = fitted.unwrap();
        assert_eq!((fitted.means[1], fitted.scales[1]), (constant, 1.0));
        let mut probabilities = [0.0; 2];
        assert_eq!(fitted.evaluate(&[19.0, constant], &mut probabilities), 1);
    }
}

#[test]
fn what_cannot_be_solved_is_an_error_with_a_remedy() {
    let rows = |scale: f64| Rows {
        width: 1,
        values: (0..20).map(|row| f64::from(row) * scale).collect(),
        class_of: (0..20).map(|row| u32::from(row > 9)).collect(),
    };
    let none = Rows {
        width: 1,
        ..Rows::default()
    };
    let few = Settings {
        l2: 1.0,
        iterations_max: 1,
    };
    let error = train(&rows(1.0), &none, &names(1), 2, few).unwrap_err();
    assert!(error.to_string().contains("--max-iterations"), "{error}");
    let error = train(&rows(1e307), &none, &names(1), 2, SETTINGS).unwrap_err();
    assert!(
        error.to_string().contains("\"f0\" are too large"),
        "{error}"
    );
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    assert_eq!(model().check(2, 3), Ok(()));
    assert!(model().check(3, 3).is_err() && model().check(2, 2).is_err());
    for spoil in [
        |model: &mut Logistic| model.scales[0] = 0.0,
        |model: &mut Logistic| model.scales[0] = -1.0,
        |model: &mut Logistic| model.intercepts[2] = 1e101,
        |model: &mut Logistic| model.coefficients[1][0] = f64::NAN,
        |model: &mut Logistic| model.means[1] = f64::INFINITY,
        |model: &mut Logistic| {
            model.coefficients[1].pop();
        },
    ] {
        let mut spoilt = model();
        spoil(&mut spoilt);
        assert!(spoilt.check(2, 3).is_err());
    }
}
