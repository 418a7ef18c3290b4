//! The outputs of a model: which of them is the label, the probabilities or a number,
//! and the answer that they give for each row.

use ort::value::{Outlet, TensorElementType, ValueType};

use crate::serve::score::answer::{Answer, ModelError};
use crate::serve::score::onnx::args::ProbabilityOutput;
use crate::serve::score::onnx::checked_file::quoted;
use crate::serve::score::onnx::class_labels::ClassLabels;
use crate::serve::score::onnx::output_values::{
    Elements, OutputValues, TensorValues, is_integer, is_readable, output_fault,
};
use crate::stage::report::shown;

/// The largest number of values that are written for one row.
const ROW_ELEMENTS_MAX: usize = 1_000_000;

/// How far a probability may lie outside of 0 to 1. Rounded sums can be slightly
/// outside.
const PROBABILITY_SLACK: f64 = 1e-5;

/// The outputs of a model.
#[derive(Debug)]
pub struct OutputPlan {
    form: Form,
    /// The names of all outputs, in order.
    names: Vec<String>,
    labels: ClassLabels,
    /// Whether the probability of every class is written.
    with_probabilities: bool,
    /// Whether an output has a fixed number of rows. If so, only one row can be
    /// evaluated at a time.
    pub is_single_row: bool,
}

/// What the outputs of a model mean. The numbers are positions among the outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// A label, and perhaps the probabilities.
    Label(usize, Option<usize>),
    /// Only probabilities. The label is the class with the highest probability.
    Probabilities(usize),
    /// One number.
    Number(usize),
    /// All outputs, as a JSON object.
    Object,
}

impl OutputPlan {
    /// Plans the outputs of a model. The error describes the fault and the remedy.
    pub fn new(
        outputs: &[Outlet],
        label_output: Option<&str>,
        probability_output: &ProbabilityOutput,
        labels: ClassLabels,
    ) -> Result<OutputPlan, String> {
        let form = form(outputs, label_output, probability_output, &labels)?;
        let used = |index| form.uses(index);
        for (_, output) in outputs.iter().enumerate().filter(|(index, _)| used(*index)) {
            check_type(output)?;
        }
        Ok(OutputPlan {
            is_single_row: outputs.iter().any(has_fixed_rows),
            names: outputs
                .iter()
                .map(|output| output.name().to_owned())
                .collect(),
            form,
            labels,
            with_probabilities: false,
        })
    }

    /// Sets whether the probability of every class is written.
    pub fn with_probabilities(mut self, with_probabilities: bool) -> OutputPlan {
        self.with_probabilities = with_probabilities;
        self
    }

    /// Whether the answers use the output at this position.
    pub fn uses(&self, index: usize) -> bool {
        self.form.uses(index)
    }

    /// The answers for all rows. `outputs` has the values of the outputs that are used.
    /// An error concerns the whole batch.
    pub fn answers(
        &self,
        outputs: &[Option<OutputValues>],
        rows: usize,
    ) -> Result<Vec<Result<Answer, ModelError>>, String> {
        for (name, output) in self.names.iter().zip(outputs) {
            let Some(output) = output else { continue };
            if output.rows() != rows {
                let fault = format!("has {} rows instead of {rows}", output.rows());
                return Err(output_fault(name, &fault));
            }
        }
        let (label, probabilities) = match self.form {
            Form::Label(label, probabilities) => (Some(label), probabilities),
            Form::Probabilities(probabilities) => (None, Some(probabilities)),
            Form::Number(index) => {
                let answer = |row| self.value(index, outputs, row).map(Answer::of_result);
                return Ok((0..rows)
                    .map(|row| answer(row).map_err(ModelError::new))
                    .collect());
            }
            Form::Object => {
                let answer = |row| self.object(outputs, row).map(Answer::of_result);
                return Ok((0..rows)
                    .map(|row| answer(row).map_err(ModelError::new))
                    .collect());
            }
        };
        let classes = match probabilities {
            Some(index) => Some((index, self.classes(index, outputs, label)?)),
            None => None,
        };
        let answer = |row| {
            let label = label.map(|index| self.value(index, outputs, row));
            self.classified(label.transpose()?, classes.as_ref(), outputs, row)
        };
        Ok((0..rows)
            .map(|row| answer(row).map_err(ModelError::new))
            .collect())
    }

    /// The labels of the columns of the probabilities. Empty if the output has a map
    /// with keys for each row.
    fn classes(
        &self,
        index: usize,
        outputs: &[Option<OutputValues>],
        label: Option<usize>,
    ) -> Result<Vec<String>, String> {
        let tensor_at = |index: usize| match outputs.get(index) {
            Some(Some(OutputValues::Tensor(tensor))) => Some(tensor),
            _ => None,
        };
        let Some(probabilities) = tensor_at(index) else {
            return Ok(Vec::new());
        };
        let is_numeric = label.and_then(tensor_at).map(TensorValues::is_integer);
        let labels = self
            .labels
            .of_columns(probabilities.row_elements(), is_numeric);
        labels.map_err(|fault| output_fault(&self.names[index], &fault))
    }

    /// The answer of a classifier for a row. Without a label, the class with the
    /// highest probability is the label.
    fn classified(
        &self,
        label: Option<String>,
        classes: Option<&(usize, Vec<String>)>,
        outputs: &[Option<OutputValues>],
        row: usize,
    ) -> Result<Answer, String> {
        let Some((index, labels)) = classes else {
            return Ok(Answer::of_result(label.unwrap_or_default()));
        };
        let pairs = probabilities(outputs.get(*index), labels, row)
            .map_err(|fault| output_fault(&self.names[*index], &fault))?;
        let chosen = match &label {
            Some(label) => pairs.iter().find(|(key, _)| key == label),
            // Of equal probabilities, the first one counts, as in numpy's `argmax`.
            None => pairs.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)),
        };
        let Some((chosen, confidence)) = chosen else {
            return Err(format!(
                "the label {} has no probability; name the labels of the columns in order with --classes",
                label.unwrap_or_default()
            ));
        };
        Ok(Answer {
            confidence: Some(format!("{confidence:.6}")),
            probabilities: self.with_probabilities.then(|| object_of(&pairs)),
            result: label.clone().unwrap_or_else(|| (*chosen).to_owned()),
        })
    }

    /// A row of an output that has one value for each row, as JSON.
    fn value(
        &self,
        index: usize,
        outputs: &[Option<OutputValues>],
        row: usize,
    ) -> Result<String, String> {
        let fault = |fault: &str| output_fault(&self.names[index], fault);
        let Some(Some(OutputValues::Tensor(tensor))) = outputs.get(index) else {
            return Err(fault("is not a tensor"));
        };
        if tensor.row_elements() != 1 {
            return Err(fault(&format!(
                "has {} values a row instead of one",
                tensor.row_elements()
            )));
        }
        let mut text = String::new();
        let written = tensor.elements.write(row, &mut text);
        written.map_err(|what| fault(&what))?;
        Ok(text)
    }

    /// A row of all outputs, as a JSON object.
    fn object(&self, outputs: &[Option<OutputValues>], row: usize) -> Result<String, String> {
        let mut text = String::from("{");
        for (name, output) in self.names.iter().zip(outputs) {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&quoted(name));
            text.push(':');
            let written = match output {
                Some(OutputValues::Tensor(tensor)) if tensor.row_elements() > ROW_ELEMENTS_MAX => {
                    Err(format!("has more than {ROW_ELEMENTS_MAX} values a row"))
                }
                Some(OutputValues::Tensor(tensor)) => tensor.write_row(row, &mut text),
                Some(OutputValues::Maps(maps)) => match maps.get(row) {
                    Some(pairs) => write_numbers(pairs, &mut text),
                    None => Err("has too few rows".to_owned()),
                },
                None => Err("is missing".to_owned()),
            };
            written.map_err(|fault| output_fault(name, &fault))?;
        }
        text.push('}');
        Ok(text)
    }
}

impl Form {
    fn uses(&self, index: usize) -> bool {
        match self {
            Form::Label(label, probabilities) => *label == index || *probabilities == Some(index),
            Form::Probabilities(only) | Form::Number(only) => *only == index,
            Form::Object => true,
        }
    }
}

/// The probability of each class for a row, with the labels as JSON texts.
fn probabilities<'o>(
    output: Option<&'o Option<OutputValues>>,
    labels: &'o [String],
    row: usize,
) -> Result<Vec<(&'o str, f64)>, String> {
    let pairs: Vec<(&str, f64)> = match output {
        Some(Some(OutputValues::Tensor(tensor))) => {
            let values = (0..labels.len()).map(|column| {
                let value = tensor.elements.float(row * labels.len() + column);
                value.unwrap_or(f64::NAN)
            });
            labels.iter().map(String::as_str).zip(values).collect()
        }
        Some(Some(OutputValues::Maps(maps))) => {
            let pairs = maps.get(row).into_iter().flatten();
            pairs.map(|(key, value)| (key.as_str(), *value)).collect()
        }
        _ => Vec::new(),
    };
    let allowed = -PROBABILITY_SLACK..=1.0 + PROBABILITY_SLACK;
    if let Some((_, value)) = pairs.iter().find(|(_, value)| !allowed.contains(value)) {
        return Err(format!(
            "holds {value}, which is not a probability; --probability-output none leaves it out"
        ));
    }
    let clamped = pairs.into_iter();
    Ok(clamped
        .map(|(key, value)| (key, value.clamp(0.0, 1.0)))
        .collect())
}

/// The probabilities as the text of a JSON object.
fn object_of(pairs: &[(&str, f64)]) -> String {
    let members: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{}:{value:.6}", as_key(key)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A label as the key of a member.
fn as_key(label: &str) -> String {
    match label.starts_with('"') {
        true => label.to_owned(),
        false => format!("\"{label}\""),
    }
}

/// Writes the values of a map as a JSON object.
fn write_numbers(pairs: &[(String, f64)], text: &mut String) -> Result<(), String> {
    text.push('{');
    for (index, (key, value)) in pairs.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&as_key(key));
        text.push(':');
        // The values were 32-bit numbers before they were converted, so they are
        // written as such.
        let value = [*value as f32];
        let elements = Elements::Float32(&value);
        elements.write(0, text)?;
    }
    text.push('}');
    Ok(())
}

/// Decides what the outputs are.
fn form(
    outputs: &[Outlet],
    label_output: Option<&str>,
    probability_output: &ProbabilityOutput,
    labels: &ClassLabels,
) -> Result<Form, String> {
    let named = |name: &str, flag: &str| {
        let found = outputs.iter().position(|output| output.name() == name);
        found.ok_or_else(|| {
            let names: Vec<String> = outputs.iter().map(|output| shown(output.name())).collect();
            format!(
                "has no output {} for {flag}; its outputs are {}",
                shown(name),
                names.join(", ")
            )
        })
    };
    let given_label = label_output.map(|name| named(name, "--label-output"));
    let given_label = given_label.transpose()?;
    let given_probability = match probability_output {
        ProbabilityOutput::Named(name) => Some(named(name, "--probability-output")?),
        _ => None,
    };
    let label = given_label.or_else(|| found(outputs, &["output_label", "label"], is_label));
    let probability = given_probability.or_else(|| match probability_output {
        ProbabilityOutput::None => None,
        _ => found(
            outputs,
            &["output_probability", "probabilities"],
            is_probability,
        ),
    });
    let is_without = *probability_output == ProbabilityOutput::None;
    Ok(match (label, probability) {
        (Some(label), Some(probability)) if label != probability => {
            Form::Label(label, Some(probability))
        }
        (Some(label), _) if given_label.is_some() || is_without || outputs.len() == 1 => {
            Form::Label(label, None)
        }
        (None, Some(probability)) if given_probability.is_some() || labels.are_given() => {
            Form::Probabilities(probability)
        }
        _ if outputs.len() == 1 && is_number(&outputs[0]) => Form::Number(0),
        _ if outputs.is_empty() => return Err("has no output".to_owned()),
        _ => Form::Object,
    })
}

/// The output with one of these names, or else the only output of a fitting type.
fn found(outputs: &[Outlet], names: &[&str], is_type: fn(&Outlet) -> bool) -> Option<usize> {
    let of_type = |index: &usize| is_type(&outputs[*index]);
    let is_named = |index: &usize| names.contains(&outputs[*index].name());
    let all = || (0..outputs.len()).filter(of_type);
    all().find(is_named).or_else(|| {
        let mut all = all();
        all.next().filter(|_| all.next().is_none())
    })
}

/// Whether an output can be the label.
fn is_label(output: &Outlet) -> bool {
    match output.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            let is_label = is_integer(*ty) || *ty == TensorElementType::String;
            is_label && one_value(shape)
        }
        _ => false,
    }
}

/// Whether an output can hold the probabilities.
fn is_probability(output: &Outlet) -> bool {
    // skl2onnx gives this name to distances and to values of a decision function.
    if output.name() == "scores" {
        return false;
    }
    match output.dtype() {
        ValueType::Tensor { ty, shape, .. } => is_float(*ty) && shape.len() == 2 && shape[1] != 1,
        ValueType::Sequence(inner) => matches!(
            **inner,
            ValueType::Map { value, .. } if is_float(value)
        ),
        _ => false,
    }
}

/// Whether an output has one number for each row.
fn is_number(output: &Outlet) -> bool {
    match output.dtype() {
        ValueType::Tensor { ty, shape, .. } => {
            (is_float(*ty) || is_integer(*ty)) && one_value(shape)
        }
        _ => false,
    }
}

fn is_float(element: TensorElementType) -> bool {
    matches!(
        element,
        TensorElementType::Float32 | TensorElementType::Float64
    )
}

/// Whether a shape is `[rows]` or `[rows, 1]`.
fn one_value(shape: &[i64]) -> bool {
    matches!(shape, [_] | [_, 1])
}

/// Whether the number of rows of an output is fixed.
fn has_fixed_rows(output: &Outlet) -> bool {
    match output.dtype() {
        ValueType::Tensor { shape, .. } => shape.first().is_none_or(|rows| *rows >= 0),
        _ => false,
    }
}

/// Checks that the values of an output can be read.
fn check_type(output: &Outlet) -> Result<(), String> {
    let name = shown(output.name());
    match output.dtype() {
        ValueType::Tensor { ty, .. } if !is_readable(*ty) => Err(format!(
            "the output {name} has the type {ty}, which is not supported; add a Cast to float32 to the model"
        )),
        ValueType::Tensor { shape, .. } if shape.is_empty() => Err(format!(
            "the output {name} has no axis for the rows; export the model with one result a row"
        )),
        ValueType::Sequence(inner) if !matches!(**inner, ValueType::Map { .. }) => Err(format!(
            "the output {name} is a sequence of tensors, which is not supported; export the model with tensors \
             as outputs"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ort::value::{Shape, SymbolicDimensions};

    use super::*;

    const FLOAT: TensorElementType = TensorElementType::Float32;
    const INT64: TensorElementType = TensorElementType::Int64;
    const TEXT: TensorElementType = TensorElementType::String;

    fn tensor(name: &str, ty: TensorElementType, dims: &[i64]) -> Outlet {
        let dtype = ValueType::Tensor {
            ty,
            shape: Shape::new(dims.iter().copied()),
            dimension_symbols: SymbolicDimensions::empty(dims.len()),
        };
        Outlet::new(name, dtype)
    }

    fn maps(name: &str) -> Outlet {
        let map = ValueType::Map {
            key: INT64,
            value: FLOAT,
        };
        Outlet::new(name, ValueType::Sequence(Box::new(map)))
    }

    fn unknown() -> ClassLabels {
        ClassLabels::Found(Vec::new())
    }

    fn given(labels: &[&str]) -> ClassLabels {
        ClassLabels::Given(labels.iter().map(|label| (*label).to_owned()).collect())
    }

    fn plan(outputs: &[Outlet], labels: ClassLabels) -> OutputPlan {
        let plan = OutputPlan::new(outputs, None, &ProbabilityOutput::Found, labels).unwrap();
        plan.with_probabilities(true)
    }

    fn values<'o>(shape: &[usize], elements: Elements<'o>) -> Option<OutputValues<'o>> {
        let shape = shape.to_vec();
        Some(OutputValues::Tensor(TensorValues { shape, elements }))
    }

    fn answer(result: &str, confidence: &str, probabilities: &str) -> Result<Answer, ModelError> {
        Ok(Answer {
            result: result.to_owned(),
            confidence: Some(confidence.to_owned()),
            probabilities: Some(probabilities.to_owned()),
        })
    }

    #[test]
    fn outputs_are_found_by_name_and_type() {
        let label = || tensor("label", INT64, &[-1]);
        let scores = || tensor("scores", FLOAT, &[-1, 1]);
        let table = || tensor("probabilities", FLOAT, &[-1, 3]);
        for (outputs, labels, expected) in [
            (vec![label(), table()], unknown(), Form::Label(0, Some(1))),
            (
                vec![maps("output_probability"), label()],
                unknown(),
                Form::Label(1, Some(0)),
            ),
            (
                vec![tensor("a", TEXT, &[-1, 1]), tensor("b", FLOAT, &[-1, -1])],
                unknown(),
                Form::Label(0, Some(1)),
            ),
            (vec![label()], unknown(), Form::Label(0, None)),
            // The distances of k-means and the scores of an isolation forest are not
            // probabilities.
            (
                vec![label(), tensor("scores", FLOAT, &[-1, 3])],
                unknown(),
                Form::Object,
            ),
            (vec![label(), scores()], unknown(), Form::Object),
            (vec![scores()], unknown(), Form::Number(0)),
            (vec![tensor("y", FLOAT, &[-1])], unknown(), Form::Number(0)),
            (vec![table()], unknown(), Form::Object),
            (
                vec![table()],
                given(&["a", "b", "c"]),
                Form::Probabilities(0),
            ),
            (vec![scores(), scores()], unknown(), Form::Object),
            (
                vec![tensor("y", FLOAT, &[-1, 2, 3])],
                unknown(),
                Form::Object,
            ),
        ] {
            assert_eq!(plan(&outputs, labels).form, expected, "{outputs:?}");
        }
    }

    #[test]
    fn flags_name_outputs_and_faults_name_the_remedy() {
        let outputs = [
            tensor("one", INT64, &[-1]),
            tensor("two", INT64, &[-1]),
            tensor("three", FLOAT, &[-1, 3]),
        ];
        let plan = |label, probability| OutputPlan::new(&outputs, label, &probability, unknown());
        let named = ProbabilityOutput::Named("three".to_owned());
        let form = |plan: Result<OutputPlan, String>| plan.unwrap().form;
        assert_eq!(form(plan(Some("two"), named)), Form::Label(1, Some(2)));
        assert_eq!(
            form(plan(Some("two"), ProbabilityOutput::None)),
            Form::Label(1, None)
        );
        assert_eq!(form(plan(None, ProbabilityOutput::Found)), Form::Object);
        let fault = plan(Some("four"), ProbabilityOutput::Found).unwrap_err();
        assert!(
            fault.contains(r#"its outputs are "one", "two", "three""#),
            "{fault}"
        );
        for (output, remedy) in [
            (tensor("y", TensorElementType::Float16, &[-1]), "add a Cast"),
            (tensor("y", FLOAT, &[]), "no axis for the rows"),
        ] {
            let fault = OutputPlan::new(&[output], None, &ProbabilityOutput::Found, unknown());
            assert!(fault.unwrap_err().contains(remedy));
        }
    }

    #[test]
    fn a_label_has_its_own_probability() {
        let outputs = [tensor("label", INT64, &[-1]), tensor("p", FLOAT, &[-1, 2])];
        let plan = plan(&outputs, unknown());
        let labels = values(&[3], Elements::Integers(vec![1, 0, 7]));
        // The label need not be the class with the highest probability.
        let shares = [0.75, 0.25, 0.5, 0.5, 0.5, 0.5];
        let taken = [labels, values(&[3, 2], Elements::Float32(&shares))];
        let answers = plan.answers(&taken, 3).unwrap();
        assert_eq!(
            answers[0],
            answer("1", "0.250000", r#"{"0":0.750000,"1":0.250000}"#)
        );
        assert_eq!(
            answers[1],
            answer("0", "0.500000", r#"{"0":0.500000,"1":0.500000}"#)
        );
        let error = answers[2].as_ref().unwrap_err();
        assert!(error.message.contains("--classes"), "{}", error.message);
    }

    #[test]
    fn the_keys_of_a_map_are_the_labels() {
        let outputs = [tensor("label", TEXT, &[-1]), maps("p")];
        let plan = plan(&outputs, unknown());
        let labels = values(&[1], Elements::Texts(vec!["b\"".to_owned()]));
        let pairs = vec![("\"a\"".to_owned(), 0.4), ("\"b\\\"\"".to_owned(), 0.6)];
        let answers = plan.answers(&[labels, Some(OutputValues::Maps(vec![pairs]))], 1);
        let expected = answer(r#""b\"""#, "0.600000", r#"{"a":0.400000,"b\"":0.600000}"#);
        assert_eq!(answers.unwrap(), [expected]);
    }

    #[test]
    fn without_a_label_the_highest_probability_counts() {
        let plan = plan(&[tensor("y", FLOAT, &[-1, 2])], given(&["no", "yes"]));
        let shares = [0.25, 0.75, 0.5, 0.5, 3.0, -2.0, f32::NAN, 0.5];
        let taken = [values(&[4, 2], Elements::Float32(&shares))];
        let answers = plan.answers(&taken, 4).unwrap();
        assert_eq!(
            answers[0],
            answer(r#""yes""#, "0.750000", r#"{"no":0.250000,"yes":0.750000}"#)
        );
        assert_eq!(
            answers[1],
            answer(r#""no""#, "0.500000", r#"{"no":0.500000,"yes":0.500000}"#)
        );
        for (row, value) in [(2, "3"), (3, "NaN")] {
            let error = answers[row].as_ref().unwrap_err();
            assert!(
                error.message.contains(&format!("holds {value}")),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn numbers_and_objects_are_written_a_row_each() {
        let number = plan(&[tensor("y", FLOAT, &[-1, 1])], unknown());
        let taken = [values(&[2, 1], Elements::Float32(&[0.1, f32::INFINITY]))];
        let answers = number.answers(&taken, 2).unwrap();
        assert_eq!(answers[0], Ok(Answer::of_result("0.1".to_owned())));
        let error = answers[1].as_ref().unwrap_err();
        assert!(
            error.message.starts_with("the output \"y\" holds inf"),
            "{}",
            error.message
        );

        let object = plan(
            &[tensor("a \"b\"", FLOAT, &[-1, 2]), tensor("c", TEXT, &[-1])],
            unknown(),
        );
        let object = OutputPlan {
            form: Form::Object,
            ..object
        };
        let taken = [
            values(&[1, 2], Elements::Float32(&[1.0, 2.5])),
            values(&[1], Elements::Texts(vec!["x".to_owned()])),
        ];
        let expected = r#"{"a \"b\"":[1,2.5],"c":"x"}"#;
        let answers = object.answers(&taken, 1).unwrap();
        assert_eq!(answers, [Ok(Answer::of_result(expected.to_owned()))]);
    }

    #[test]
    fn an_output_with_another_number_of_rows_fails_the_batch() {
        let plan = plan(&[tensor("y", FLOAT, &[-1])], unknown());
        let taken = [values(&[3], Elements::Float32(&[1.0, 2.0, 3.0]))];
        let fault = plan.answers(&taken, 2).unwrap_err();
        assert_eq!(fault, "the output \"y\" has 3 rows instead of 2");
    }
}
