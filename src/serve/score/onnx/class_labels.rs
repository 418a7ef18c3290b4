//! The labels of the columns of the probabilities.

use crate::serve::score::onnx::checked_file::quoted;

/// The known class labels of a model, by their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassLabels {
    /// The labels that the user or the file's metadata give, as plain texts.
    Given(Vec<String>),
    /// The lists of labels that were found in the graph, as JSON texts.
    Found(Vec<Vec<String>>),
}

impl ClassLabels {
    /// Whether the user or the metadata give the labels.
    pub fn are_given(&self) -> bool {
        matches!(self, ClassLabels::Given(_))
    }

    /// The labels of this many columns, as JSON texts. `is_numeric` tells whether the
    /// label that the model outputs is an integer. `is_numeric` is `None` if the model
    /// outputs no label. The error completes "the output x ...".
    ///
    /// If no list of the graph fits, integer labels are the numbers of the columns,
    /// from 0. Neural networks and gradient boosting libraries export such labels.
    pub fn of_columns(
        &self,
        columns: usize,
        is_numeric: Option<bool>,
    ) -> Result<Vec<String>, String> {
        match self {
            ClassLabels::Given(labels) if labels.len() == columns => {
                // As in training, the labels are numbers if all of them look like
                // numbers.
                let are_numbers = labels.iter().all(|label| is_integer(label));
                let are_numbers = is_numeric.unwrap_or(are_numbers);
                Ok(labels
                    .iter()
                    .map(|label| json_label(label, are_numbers))
                    .collect())
            }
            ClassLabels::Given(labels) => Err(format!(
                "has {columns} columns, and {} classes are named; correct --classes",
                labels.len()
            )),
            ClassLabels::Found(lists) => {
                let fits = |list: &&Vec<String>| {
                    let is_text = list.first().is_some_and(|label| label.starts_with('"'));
                    list.len() == columns && is_numeric != Some(is_text)
                };
                let mut fitting = lists.iter().filter(fits);
                match (fitting.next(), fitting.next()) {
                    (Some(only), None) => Ok(only.clone()),
                    (None, _) if is_numeric == Some(true) => {
                        Ok((0..columns).map(|column| column.to_string()).collect())
                    }
                    _ => Err(format!(
                        "has {columns} columns without labels; name the labels in order with --classes"
                    )),
                }
            }
        }
    }
}

fn is_integer(label: &str) -> bool {
    label
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == label)
}

fn json_label(label: &str, are_numbers: bool) -> String {
    match are_numbers && is_integer(label) {
        true => label.to_owned(),
        false => quoted(label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_labels_of_the_graph_count_if_one_list_fits() {
        let found =
            |lists: &[&[&str]]| ClassLabels::Found(lists.iter().map(|list| texts(list)).collect());
        let (two, three) = (["5", "7"], ["\"a\"", "\"b\"", "\"c\""]);
        let both = found(&[&two, &three]);
        assert_eq!(both.of_columns(2, Some(true)), Ok(texts(&two)));
        assert_eq!(both.of_columns(3, Some(false)), Ok(texts(&three)));
        // A list of texts does not fit integer labels.
        assert_eq!(both.of_columns(3, Some(true)), Ok(texts(&["0", "1", "2"])));
        assert!(both.of_columns(4, Some(false)).is_err());
        assert!(
            found(&[&two, &["1", "2"]])
                .of_columns(2, Some(true))
                .is_err()
        );
    }

    #[test]
    fn given_labels_must_be_as_many_as_the_columns() {
        let given = |labels: &[&str]| ClassLabels::Given(texts(labels));
        assert_eq!(
            given(&["1", "2"]).of_columns(2, Some(true)),
            Ok(texts(&["1", "2"]))
        );
        assert_eq!(
            given(&["1", "b"]).of_columns(2, Some(false)),
            Ok(texts(&["\"1\"", "\"b\""]))
        );
        let fault = given(&["1", "2"]).of_columns(3, Some(true)).unwrap_err();
        assert!(fault.contains("3 columns, and 2 classes"), "{fault}");
    }
}
