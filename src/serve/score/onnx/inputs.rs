//! The inputs of a model, and the rows of a batch. The inputs say which feature goes to
//! which column of which tensor.

use std::ops::Range;

use ort::session::SessionInputValue;
use ort::value::{Outlet, Tensor, TensorElementType, TensorRef, ValueType};

use crate::serve::score::onnx::feature_row::{Cell, FeatureRow, Kind};
use crate::stage::report::shown;

/// The inputs of a model.
#[derive(Debug)]
pub struct InputPlan {
    tensors: Vec<InputTensor>,
    /// Reads the features of a request, in the order of the tensors and their columns.
    pub row: FeatureRow,
    /// Whether the model takes one row at a time.
    pub is_single_row: bool,
}

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InputTensor {
    name: String,
    kind: Kind,
    /// The number of columns; `None` if any number is accepted.
    width: Option<usize>,
    /// Whether the shape is `[rows, columns]` and not `[rows]`.
    has_columns: bool,
    /// Whether the shape fixes the length of the first axis at 1.
    is_single_row: bool,
}

/// The rows of a batch. The values are stored by input tensor, one tensor after the
/// other.
#[derive(Debug)]
pub struct Rows {
    columns: Vec<Values>,
    count: usize,
}

/// The values for one input tensor.
#[derive(Debug)]
enum Values {
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int64(Vec<i64>),
    Int32(Vec<i32>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

impl InputPlan {
    /// Plans the inputs of a model. `features` are the names of the features in order,
    /// if they are given. The error describes the fault and the remedy.
    pub fn new(
        inputs: &[Outlet],
        features: &[String],
        missing_is_nan: bool,
    ) -> Result<InputPlan, String> {
        let mut tensors = inputs
            .iter()
            .map(|input| InputTensor::new(input.name(), input.dtype()))
            .collect::<Result<Vec<_>, _>>()?;
        let names = assign(&mut tensors, features)?;
        let kinds = tensors
            .iter()
            .flat_map(|tensor| std::iter::repeat_n(tensor.kind, tensor.width.unwrap_or(0)));
        Ok(InputPlan {
            row: FeatureRow::new(names.into_iter().zip(kinds).collect(), missing_is_nan),
            is_single_row: tensors.iter().any(|tensor| tensor.is_single_row),
            tensors,
        })
    }

    /// A batch without rows.
    pub fn no_rows(&self) -> Rows {
        let columns = self.tensors.iter().map(|tensor| Values::none(tensor.kind));
        Rows {
            columns: columns.collect(),
            count: 0,
        }
    }

    /// Adds a row, which has one cell per feature.
    pub fn add(&self, rows: &mut Rows, cells: &[Cell]) {
        let mut cells = cells.iter();
        for (tensor, values) in self.tensors.iter().zip(&mut rows.columns) {
            for cell in cells.by_ref().take(tensor.width.unwrap_or(0)) {
                values.push(cell);
            }
        }
        rows.count += 1;
    }

    /// Makes the inputs of a run from some of the rows.
    pub fn values<'r>(
        &self,
        rows: &'r Rows,
        range: Range<usize>,
    ) -> ort::Result<Vec<(String, SessionInputValue<'r>)>> {
        let tensors = self.tensors.iter().zip(&rows.columns);
        let value = |(tensor, values): (&InputTensor, &'r Values)| {
            let width = tensor.width.unwrap_or(0);
            let mut shape = vec![range.len()];
            if tensor.has_columns {
                shape.push(width);
            }
            let place = range.start * width..range.end * width;
            Ok((tensor.name.clone(), values.tensor(shape, place)?))
        };
        tensors.map(value).collect()
    }
}

impl Rows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.count
    }
}

impl InputTensor {
    fn new(name: &str, value_type: &ValueType) -> Result<InputTensor, String> {
        let ValueType::Tensor { ty, shape, .. } = value_type else {
            return Err(format!(
                "the input {} is not a tensor; export the model with tensors as inputs",
                shown(name)
            ));
        };
        let Some(kind) = kind(*ty) else {
            return Err(format!(
                "the input {} has the type {ty}, which is not supported; export the model with float32, \
                 float64, int64, int32, bool or string inputs",
                shown(name)
            ));
        };
        let (rows, width) = match shape.to_vec()[..] {
            [rows] => (rows, 1),
            [rows, width] => (rows, width),
            _ => {
                return Err(format!(
                    "the input {} has {} dimensions; rv-score fills inputs of the shape [rows] or [rows, features]",
                    shown(name),
                    shape.len()
                ));
            }
        };
        if rows != -1 && rows != 1 {
            return Err(format!(
                "the first axis of the input {} is fixed at {rows} rows; export the model with a first axis of \
                 any length",
                shown(name)
            ));
        }
        Ok(InputTensor {
            name: name.to_owned(),
            kind,
            width: usize::try_from(width).ok(),
            has_columns: shape.len() == 2,
            is_single_row: rows == 1,
        })
    }
}

/// Assigns features to the columns of the tensors, in order. If one tensor accepts any
/// number of columns, it gets the features that are left. Returns the names of the
/// features.
fn assign(tensors: &mut [InputTensor], features: &[String]) -> Result<Vec<String>, String> {
    if features.is_empty() {
        if let Some(wide) = tensors.iter().find(|tensor| tensor.width != Some(1)) {
            let count = match wide.width {
                Some(count) => format!("{count} features"),
                None => "any number of features".to_owned(),
            };
            return Err(format!(
                "the input {} takes {count}, and the file does not name them; name all features in order with \
                 --features a,b,c",
                shown(&wide.name)
            ));
        }
        return Ok(tensors.iter().map(|tensor| tensor.name.clone()).collect());
    }
    let known: usize = tensors.iter().filter_map(|tensor| tensor.width).sum();
    let open = tensors.iter().filter(|tensor| tensor.width.is_none());
    let is_full = match open.count() {
        0 => known == features.len(),
        1 => known < features.len(),
        count => {
            return Err(format!(
                "{count} inputs take any number of features; export the model with a fixed second axis"
            ));
        }
    };
    if !is_full {
        return Err(format!(
            "the inputs take {known} features, and {} are named; correct --features",
            features.len()
        ));
    }
    for tensor in tensors.iter_mut() {
        tensor.width.get_or_insert(features.len() - known);
    }
    Ok(features.to_vec())
}

fn kind(element: TensorElementType) -> Option<Kind> {
    Some(match element {
        TensorElementType::Float32 => Kind::Float32,
        TensorElementType::Float64 => Kind::Float64,
        TensorElementType::Int64 => Kind::Int64,
        TensorElementType::Int32 => Kind::Int32,
        TensorElementType::Bool => Kind::Bool,
        TensorElementType::String => Kind::Text,
        _ => return None,
    })
}

impl Values {
    fn none(kind: Kind) -> Values {
        match kind {
            Kind::Float32 => Values::Float32(Vec::new()),
            Kind::Float64 => Values::Float64(Vec::new()),
            Kind::Int64 => Values::Int64(Vec::new()),
            Kind::Int32 => Values::Int32(Vec::new()),
            Kind::Bool => Values::Bool(Vec::new()),
            Kind::Text => Values::Text(Vec::new()),
        }
    }

    /// Adds the value of a cell. The cell must have the same type as this tensor.
    fn push(&mut self, cell: &Cell) {
        match (self, cell) {
            (Values::Float32(values), Cell::Float(value)) => values.push(*value as f32),
            (Values::Float64(values), Cell::Float(value)) => values.push(*value),
            (Values::Int64(values), Cell::Int(value)) => values.push(*value),
            // The reader of the request has checked that the value is in the range of
            // an i32.
            (Values::Int32(values), Cell::Int(value)) => values.push(*value as i32),
            (Values::Bool(values), Cell::Bool(value)) => values.push(*value),
            (Values::Text(values), Cell::Text(value)) => values.push(value.clone()),
            _ => debug_assert!(false, "the cell has the kind of its tensor"),
        }
    }

    fn tensor(&self, shape: Vec<usize>, place: Range<usize>) -> ort::Result<SessionInputValue<'_>> {
        Ok(match self {
            Values::Float32(values) => TensorRef::from_array_view((shape, &values[place]))?.into(),
            Values::Float64(values) => TensorRef::from_array_view((shape, &values[place]))?.into(),
            Values::Int64(values) => TensorRef::from_array_view((shape, &values[place]))?.into(),
            Values::Int32(values) => TensorRef::from_array_view((shape, &values[place]))?.into(),
            Values::Bool(values) => TensorRef::from_array_view((shape, &values[place]))?.into(),
            Values::Text(values) => Tensor::from_string_array((shape, &values[place]))?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ort::value::{Shape, SymbolicDimensions};

    use super::*;

    fn input(name: &str, ty: TensorElementType, dims: &[i64]) -> Outlet {
        let dtype = ValueType::Tensor {
            ty,
            shape: Shape::new(dims.iter().copied()),
            dimension_symbols: SymbolicDimensions::empty(dims.len()),
        };
        Outlet::new(name, dtype)
    }

    fn plan(inputs: &[Outlet], features: &[&str]) -> Result<InputPlan, String> {
        let features: Vec<String> = features.iter().map(|name| (*name).to_owned()).collect();
        InputPlan::new(inputs, &features, false)
    }

    const FLOAT: TensorElementType = TensorElementType::Float32;

    #[test]
    fn features_fill_the_columns_of_the_inputs_in_order() {
        let wide = input("x", FLOAT, &[-1, 2]);
        let text = input("t", TensorElementType::String, &[-1]);
        let plan = plan(&[wide, text], &["a", "b", "c"]).unwrap();
        assert!(!plan.is_single_row);
        let (mut rows, mut cells) = (plan.no_rows(), Vec::new());
        for number in [1, 2] {
            let record = format!(r#"{{"c":"w","b":{number}.5,"a":{number}}}"#);
            plan.row.read(&record, &mut cells).unwrap();
            plan.add(&mut rows, &cells);
        }
        assert_eq!(rows.len(), 2);
        let [Values::Float32(numbers), Values::Text(texts)] = &rows.columns[..] else {
            unreachable!("the inputs have these types");
        };
        assert_eq!(numbers, &[1.0, 1.5, 2.0, 2.5]);
        assert_eq!(texts, &["w", "w"]);
    }

    #[test]
    fn inputs_of_one_column_name_their_features() {
        let inputs = [
            input("a", FLOAT, &[-1, 1]),
            input("b", TensorElementType::Int64, &[-1]),
        ];
        let named = plan(&inputs, &[]).unwrap();
        let mut cells = Vec::new();
        named.row.read(r#"{"a":1,"b":2}"#, &mut cells).unwrap();
        assert_eq!(cells, [Cell::Float(1.0), Cell::Int(2)]);
        assert!(
            plan(&[input("x", FLOAT, &[1, 1])], &[])
                .unwrap()
                .is_single_row
        );
    }

    #[test]
    fn an_input_that_cannot_be_filled_is_an_error_with_the_remedy() {
        let open = || input("x", FLOAT, &[-1, -1]);
        assert!(plan(&[open()], &["a", "b"]).is_ok());
        for (inputs, features, reason) in [
            (vec![open()], vec![], "--features a,b,c"),
            (vec![open(), open()], vec!["a", "b"], "fixed second axis"),
            (
                vec![input("x", FLOAT, &[-1, 3])],
                vec!["a"],
                "take 3 features, and 1 are named",
            ),
            (
                vec![input("x", FLOAT, &[7, 3])],
                vec!["a"],
                "fixed at 7 rows",
            ),
            (
                vec![input("x", FLOAT, &[0, 1])],
                vec!["a"],
                "fixed at 0 rows",
            ),
            (
                vec![input("x", FLOAT, &[-1, 3, 9])],
                vec!["a"],
                "has 3 dimensions",
            ),
            (vec![input("x", FLOAT, &[])], vec!["a"], "has 0 dimensions"),
            (
                vec![input("x", TensorElementType::Float16, &[-1, 1])],
                vec![],
                "has the type f16",
            ),
        ] {
            let fault = plan(&inputs, &features).unwrap_err();
            assert!(fault.contains(reason), "{fault}");
        }
    }
}
