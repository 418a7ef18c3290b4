//! Takes the outputs of a run out of the types of onnxruntime, and writes them as JSON.

use ort::value::{DynMapValueType, DynValue, TensorElementType, ValueType};

use crate::serve::score::onnx::checked_file::quoted;
use crate::stage::report::shown;

/// The values of one output for all rows of a batch.
#[derive(Debug)]
pub enum OutputValues<'o> {
    /// A tensor.
    Tensor(TensorValues<'o>),
    /// A map for each row: pairs of a key and its value. The keys are JSON texts.
    Maps(Vec<Vec<(String, f64)>>),
}

/// The values of a tensor.
#[derive(Debug)]
pub struct TensorValues<'o> {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The elements in row-major order: the index of the last axis changes first.
    pub elements: Elements<'o>,
}

/// The elements of a tensor.
#[derive(Debug)]
pub enum Elements<'o> {
    /// Numbers with 32 bits.
    Float32(&'o [f32]),
    /// Numbers with 64 bits.
    Float64(&'o [f64]),
    /// Integers of any size, converted to 64 bits.
    Integers(Vec<i128>),
    /// `true` and `false`.
    Bools(&'o [bool]),
    /// Strings.
    Texts(Vec<String>),
}

impl<'o> OutputValues<'o> {
    /// The values of an output. The error describes the fault.
    pub fn of(value: &'o DynValue) -> Result<OutputValues<'o>, String> {
        let taken = match value.dtype() {
            ValueType::Tensor { ty, .. } => tensor(value, *ty).map(OutputValues::Tensor),
            ValueType::Sequence(_) => maps(value).map(OutputValues::Maps),
            ValueType::Map { .. } => pairs(value).map(|pairs| OutputValues::Maps(vec![pairs])),
            ValueType::Optional(_) => return Err("is optional, which is not supported".to_owned()),
        };
        taken.map_err(|error| error.to_string())
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        match self {
            OutputValues::Tensor(tensor) => tensor.shape.first().copied().unwrap_or(0),
            OutputValues::Maps(maps) => maps.len(),
        }
    }
}

/// Whether the elements of an output can be read.
pub fn is_readable(element: TensorElementType) -> bool {
    use TensorElementType as Type;
    matches!(
        element,
        Type::Float32 | Type::Float64 | Type::Bool | Type::String
    ) || is_integer(element)
}

/// Whether an element is an integer.
pub fn is_integer(element: TensorElementType) -> bool {
    use TensorElementType as Type;
    matches!(
        element,
        Type::Int8
            | Type::Int16
            | Type::Int32
            | Type::Int64
            | Type::Uint8
            | Type::Uint16
            | Type::Uint32
            | Type::Uint64
    )
}

fn tensor(value: &DynValue, element: TensorElementType) -> ort::Result<TensorValues<'_>> {
    use TensorElementType as Type;
    macro_rules! integers {
        ($type:ty) => {{
            let (shape, elements) = value.try_extract_tensor::<$type>()?;
            let elements = elements.iter().map(|element| i128::from(*element));
            (shape, Elements::Integers(elements.collect()))
        }};
    }
    let (shape, elements) = match element {
        Type::Float32 => {
            let (shape, elements) = value.try_extract_tensor::<f32>()?;
            (shape, Elements::Float32(elements))
        }
        Type::Float64 => {
            let (shape, elements) = value.try_extract_tensor::<f64>()?;
            (shape, Elements::Float64(elements))
        }
        Type::Bool => {
            let (shape, elements) = value.try_extract_tensor::<bool>()?;
            (shape, Elements::Bools(elements))
        }
        Type::String => {
            let (shape, elements) = value.try_extract_strings()?;
            (shape, Elements::Texts(elements))
        }
        Type::Int8 => integers!(i8),
        Type::Int16 => integers!(i16),
        Type::Int32 => integers!(i32),
        Type::Int64 => integers!(i64),
        Type::Uint8 => integers!(u8),
        Type::Uint16 => integers!(u16),
        Type::Uint32 => integers!(u32),
        Type::Uint64 => integers!(u64),
        other => {
            return Err(ort::Error::new(format!(
                "the type {other} is not supported"
            )));
        }
    };
    let axes = shape.iter().map(|axis| usize::try_from(*axis).unwrap_or(0));
    Ok(TensorValues {
        shape: axes.collect(),
        elements,
    })
}

fn maps(value: &DynValue) -> ort::Result<Vec<Vec<(String, f64)>>> {
    let maps = value
        .view()
        .downcast::<ort::value::DynSequenceValueType>()?;
    let maps = maps.try_extract_sequence::<DynMapValueType>()?;
    maps.iter()
        .map(|map| pairs(&map.view().into_dyn()))
        .collect()
}

/// The pairs of a map, with the keys as JSON texts.
fn pairs(value: &DynValue) -> ort::Result<Vec<(String, f64)>> {
    use TensorElementType as Type;
    let map = value.view().downcast::<DynMapValueType>()?;
    let ValueType::Map {
        key,
        value: element,
    } = *map.dtype()
    else {
        return Err(ort::Error::new("this is not a map"));
    };
    Ok(match (key, element) {
        (Type::Int64, Type::Float32) => texts(map.try_extract_key_values::<i64, f32>()?, |key| {
            key.to_string()
        }),
        (Type::Int64, Type::Float64) => texts(map.try_extract_key_values::<i64, f64>()?, |key| {
            key.to_string()
        }),
        (Type::String, Type::Float32) => {
            texts(map.try_extract_key_values::<String, f32>()?, |key| {
                quoted(&key)
            })
        }
        (Type::String, Type::Float64) => {
            texts(map.try_extract_key_values::<String, f64>()?, |key| {
                quoted(&key)
            })
        }
        _ => {
            return Err(ort::Error::new(format!(
                "a map from {key} to {element} is not supported"
            )));
        }
    })
}

fn texts<K, V: Into<f64>>(pairs: Vec<(K, V)>, text: impl Fn(K) -> String) -> Vec<(String, f64)> {
    let pairs = pairs.into_iter();
    pairs
        .map(|(key, value)| (text(key), value.into()))
        .collect()
}

impl TensorValues<'_> {
    /// Whether the elements are integers.
    pub fn is_integer(&self) -> bool {
        matches!(self.elements, Elements::Integers(_))
    }

    /// The number of elements in a row.
    pub fn row_elements(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Appends a row as JSON: a value, or nested lists. The error describes the fault.
    pub fn write_row(&self, row: usize, out: &mut String) -> Result<(), String> {
        let count = self.row_elements();
        let mut next = row * count;
        self.write_axis(&self.shape[1..], &mut next, out)
    }

    fn write_axis(&self, axes: &[usize], next: &mut usize, out: &mut String) -> Result<(), String> {
        let Some((length, inner)) = axes.split_first() else {
            *next += 1;
            return self.elements.write(*next - 1, out);
        };
        out.push('[');
        for position in 0..*length {
            if position > 0 {
                out.push(',');
            }
            self.write_axis(inner, next, out)?;
        }
        out.push(']');
        Ok(())
    }
}

impl Elements<'_> {
    /// Appends an element as JSON. The error describes the fault.
    pub fn write(&self, index: usize, out: &mut String) -> Result<(), String> {
        let text = match self {
            Elements::Float32(values) => finite(values.get(index), |value| value.is_finite())?,
            Elements::Float64(values) => finite(values.get(index), |value| value.is_finite())?,
            Elements::Integers(values) => existing(values.get(index))?.to_string(),
            Elements::Bools(values) => existing(values.get(index))?.to_string(),
            Elements::Texts(values) => quoted(existing(values.get(index))?),
        };
        out.push_str(&text);
        Ok(())
    }

    /// An element as a number; `None` if the elements are not floating-point numbers.
    pub fn float(&self, index: usize) -> Option<f64> {
        match self {
            Elements::Float32(values) => values.get(index).map(|value| f64::from(*value)),
            Elements::Float64(values) => values.get(index).copied(),
            _ => None,
        }
    }
}

fn existing<T>(value: Option<&T>) -> Result<&T, String> {
    value.ok_or_else(|| "has too few elements".to_owned())
}

/// The shortest text of a number that reads back as the same number of the same type.
fn finite<T>(value: Option<&T>, is_finite: impl Fn(&T) -> bool) -> Result<String, String>
where
    T: std::fmt::Display + std::fmt::LowerExp,
{
    let value = existing(value)?;
    if !is_finite(value) {
        return Err(format!("holds {value}, which JSON cannot express"));
    }
    let (plain, scientific) = (value.to_string(), format!("{value:e}"));
    Ok(if plain.len() <= scientific.len() {
        plain
    } else {
        scientific
    })
}

/// A fault in an output, as the text of an error score.
pub fn output_fault(name: &str, fault: &str) -> String {
    format!("the output {} {fault}", shown(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(shape: &[usize], elements: Elements, row: usize) -> Result<String, String> {
        let mut out = String::new();
        let shape = shape.to_vec();
        TensorValues { shape, elements }.write_row(row, &mut out)?;
        Ok(out)
    }

    #[test]
    fn a_row_is_a_value_or_nested_lists() {
        let numbers = [0.1, -2.0, 3e20, 4.5];
        for (shape, index, expected) in [
            (&[4][..], 2, "3e20"),
            (&[4, 1], 1, "[-2]"),
            (&[2, 2], 0, "[0.1,-2]"),
            (&[1, 2, 2], 0, "[[0.1,-2],[3e20,4.5]]"),
            (&[2, 2, 0], 1, "[[],[]]"),
        ] {
            let elements = Elements::Float32(&numbers);
            assert_eq!(row(shape, elements, index).as_deref(), Ok(expected));
        }
        let texts = Elements::Texts(vec!["a\"".to_owned(), "b".to_owned()]);
        assert_eq!(row(&[1, 2], texts, 0).as_deref(), Ok(r#"["a\"","b"]"#));
        let bools = Elements::Bools(&[true, false]);
        assert_eq!(row(&[2], bools, 1).as_deref(), Ok("false"));
        let integers = Elements::Integers(vec![u64::MAX.into()]);
        assert_eq!(
            row(&[1], integers, 0).as_deref(),
            Ok("18446744073709551615")
        );
    }

    #[test]
    fn what_json_cannot_express_is_an_error() {
        for (number, fault) in [(f32::NAN, "holds NaN"), (f32::NEG_INFINITY, "holds -inf")] {
            let error = row(&[1], Elements::Float32(&[number]), 0).unwrap_err();
            assert!(error.starts_with(fault), "{error}");
        }
        assert!(row(&[3], Elements::Float64(&[1.0]), 2).is_err());
    }

    proptest! {
        #[test]
        fn a_number_reads_back_as_the_same_number(number in any::<f32>()) {
            prop_assume!(number.is_finite());
            let text = row(&[1], Elements::Float32(&[number]), 0).unwrap();
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), number.to_bits());
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert!(parsed.is_number());
        }
    }
}
