//! Reads an ONNX file and checks it before onnxruntime sees it. The checks cover the
//! size, the framing, the tensors, and the types of the inputs and outputs. A file that
//! needs another file is refused.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use crate::model::file::read_up_to;
use crate::serve::score::onnx::proto::{Field, Fields, Value};
use crate::stage::report::shown;
use crate::wire::object::write_string;
use crate::wire::sha256::{sha256_hex, shorten};

/// The largest file that is read, in bytes. Protobuf allows no larger message.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024 - 1;

/// The deepest nesting of graphs, such as the branches of an `If`.
const GRAPH_DEPTH_MAX: u32 = 32;

/// The largest number of elements of one stored tensor.
const ELEMENTS_MAX: u64 = 1 << 31;

/// The names of the attributes that hold class labels begin with this text.
const LABELS_PREFIX: &str = "classlabels_";

/// An ONNX file that has passed the checks.
#[derive(Debug)]
pub struct CheckedFile {
    /// The content of the file.
    pub bytes: Vec<u8>,
    /// The first 16 hexadecimal digits of the SHA-256 of the file.
    pub hash: String,
    /// The metadata in the file, and the class labels that were found in it.
    pub facts: Facts,
}

/// The metadata in a file, and the class labels that were found in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The entries of `metadata_props`.
    pub metadata: BTreeMap<String, String>,
    /// The lists of class labels in the graph, as JSON texts, without repetition.
    pub label_lists: Vec<Vec<String>>,
}

impl CheckedFile {
    /// Reads and checks a file. The error names the file and the remedy.
    pub fn read(path: &str) -> Result<CheckedFile> {
        let bytes = read_up_to(path, FILE_BYTES_MAX)?;
        let facts = check(&bytes).map_err(|fault| anyhow!("{path}: {fault}"))?;
        Ok(CheckedFile {
            hash: shorten(&sha256_hex(&bytes)),
            bytes,
            facts,
        })
    }
}

/// Checks the content of a file. The error describes the fault and the remedy.
fn check(bytes: &[u8]) -> Result<Facts, String> {
    const REMEDY: &str = "export the model again, or copy the file again";
    if bytes.is_empty() {
        return Err(format!("is empty; {REMEDY}"));
    }
    let mut walk = Walk::default();
    match walk.model(bytes) {
        Ok(()) => Ok(walk.facts),
        Err(Fault::Framing(fault)) => Err(format!("is not an ONNX file: {fault}; {REMEDY}")),
        Err(Fault::Content(fault)) => Err(fault),
    }
}

/// The reason why a file is refused.
#[derive(Debug)]
enum Fault {
    /// The bytes are no ONNX model.
    Framing(String),
    /// rv-score does not run such a model. The text contains the remedy.
    Content(String),
}

impl From<String> for Fault {
    fn from(fault: String) -> Fault {
        Fault::Framing(fault)
    }
}

fn content<T>(fault: String) -> Result<T, Fault> {
    Err(Fault::Content(fault))
}

/// Visits all messages of a file that hold graphs or tensors. The numbers of the fields
/// come from onnx.proto.
#[derive(Default)]
struct Walk {
    facts: Facts,
    depth: u32,
}

impl Walk {
    fn model(&mut self, message: &[u8]) -> Result<(), Fault> {
        let (mut has_version, mut graphs) = (false, 0);
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => has_version = field.integer()? > 0,
                7 => {
                    graphs += 1;
                    self.graph(field.bytes()?, true)?;
                }
                14 => {
                    let (key, value) = entry(field.bytes()?)?;
                    self.facts.metadata.insert(key, value);
                }
                20 => {
                    for part in Fields::of(field.bytes()?) {
                        let part = part?;
                        if matches!(part.number, 1 | 2) {
                            self.graph(part.bytes()?, false)?;
                        }
                    }
                }
                25 => self.function(field.bytes()?)?,
                _ => {}
            }
        }
        match (has_version, graphs) {
            (true, 1) => Ok(()),
            (true, 2..) => Err(Fault::Framing("it has two graphs".to_owned())),
            _ => Err(Fault::Framing("it has no version and graph".to_owned())),
        }
    }

    fn function(&mut self, message: &[u8]) -> Result<(), Fault> {
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                7 => drop(self.node(field.bytes()?)?),
                11 => drop(self.attribute(field.bytes()?)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn graph(&mut self, message: &[u8], is_main: bool) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > GRAPH_DEPTH_MAX {
            return content(format!(
                "its graphs are nested deeper than {GRAPH_DEPTH_MAX}; export a simpler model"
            ));
        }
        let (mut initializers, mut extracted) = (BTreeMap::new(), Vec::new());
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => extracted.extend(self.node(field.bytes()?)?),
                5 => {
                    let tensor = tensor(field.bytes()?)?;
                    if !tensor.labels.is_empty() {
                        initializers.insert(tensor.name, tensor.labels);
                    }
                }
                11 | 12 if is_main => value_info(field.bytes()?)?,
                15 => sparse_tensor(field.bytes()?)?,
                _ => {}
            }
        }
        for name in extracted {
            if let Some(labels) = initializers.remove(&name) {
                self.add_labels(labels);
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Checks a node. skl2onnx uses the node type `ArrayFeatureExtractor` to pick the
    /// label from a list. If the node has this type, returns the name of the list.
    fn node<'a>(&mut self, message: &'a [u8]) -> Result<Option<&'a str>, Fault> {
        let (mut first_input, mut picks) = (None, false);
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 if first_input.is_none() => first_input = Some(field.text()?),
                4 => picks = field.text()? == "ArrayFeatureExtractor",
                5 => {
                    let (name, labels) = self.attribute(field.bytes()?)?;
                    if name.starts_with(LABELS_PREFIX) && labels.len() > 1 {
                        self.add_labels(labels);
                    }
                }
                _ => {}
            }
        }
        Ok(first_input.filter(|_| picks))
    }

    /// Checks an attribute. Returns its name, and its class labels as JSON texts, if it
    /// has any.
    fn attribute<'a>(&mut self, message: &'a [u8]) -> Result<(&'a str, Vec<String>), Fault> {
        let (mut name, mut integers, mut strings) = ("", Vec::new(), Vec::new());
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => name = field.text()?,
                5 | 10 => drop(tensor(field.bytes()?)?),
                6 | 11 => self.graph(field.bytes()?, false)?,
                // Lists that are not labels, such as the nodes of a forest, can be long
                // and are not copied.
                8 if name.starts_with(LABELS_PREFIX) => field.integers(&mut integers)?,
                9 if name.starts_with(LABELS_PREFIX) => strings.push(field.bytes()?),
                22 | 23 => sparse_tensor(field.bytes()?)?,
                _ => {}
            }
        }
        Ok((name, labels(&integers, &strings)))
    }

    fn add_labels(&mut self, labels: Vec<String>) {
        if !self.facts.label_lists.contains(&labels) {
            self.facts.label_lists.push(labels);
        }
    }
}

/// Makes labels from integers or strings, as JSON texts. Strings that are not UTF-8 are
/// no labels.
fn labels(integers: &[i64], strings: &[&[u8]]) -> Vec<String> {
    if !integers.is_empty() {
        return integers.iter().map(i64::to_string).collect();
    }
    let texts: Option<Vec<&str>> = strings
        .iter()
        .map(|text| std::str::from_utf8(text).ok())
        .collect();
    texts.unwrap_or_default().into_iter().map(quoted).collect()
}

/// A text as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut quoted = Vec::new();
    write_string(&mut quoted, text);
    String::from_utf8(quoted).unwrap_or_default()
}

/// A stored tensor that has passed the checks.
struct Tensor<'a> {
    name: &'a str,
    /// The elements of a short list of integers or strings, as JSON texts.
    labels: Vec<String>,
}

/// The longest list that can be the list of class labels.
const LABELS_MAX: u64 = 100_000;

/// The fields of a stored tensor.
#[derive(Default)]
struct TensorFields<'a> {
    dims: Vec<i64>,
    data_type: i64,
    name: &'a str,
    raw: Option<&'a [u8]>,
    integers: Vec<i64>,
    strings: Vec<&'a [u8]>,
    /// The text of the entry `location` in the external data. It names another file.
    external: Option<String>,
}

fn tensor(message: &[u8]) -> Result<Tensor<'_>, Fault> {
    let mut tensor = TensorFields::default();
    for field in Fields::of(message) {
        tensor.take(&field?)?;
    }
    let name = tensor.name;
    if let Some(location) = tensor.external {
        return content(format!(
            "keeps the tensor {} in another file ({}), which is not read; save the model with its weights \
             inside: onnx.save(onnx.load(\"model.onnx\"), \"whole.onnx\")",
            shown(name),
            shown(&location)
        ));
    }
    let mut elements = Some(1u64);
    for dim in &tensor.dims {
        let dim = u64::try_from(*dim).ok();
        elements = elements
            .zip(dim)
            .and_then(|(all, dim)| all.checked_mul(dim));
    }
    let Some(elements) = elements.filter(|count| *count <= ELEMENTS_MAX) else {
        return content(format!(
            "the tensor {} has impossible dimensions; export the model again",
            shown(name)
        ));
    };
    if let Some((raw, bytes)) = tensor.raw.zip(element_bytes(tensor.data_type))
        && raw.len() as u64 != elements * bytes
    {
        return content(format!(
            "the tensor {} has {} bytes instead of {}; export the model again",
            shown(name),
            raw.len(),
            elements * bytes
        ));
    }
    let is_list = tensor.dims.len() == 1 && (2..=LABELS_MAX).contains(&elements);
    let labels = if is_list { tensor.labels() } else { Vec::new() };
    Ok(Tensor { name, labels })
}

impl<'a> TensorFields<'a> {
    fn take(&mut self, field: &Field<'a>) -> Result<(), Fault> {
        match field.number {
            1 => field.integers(&mut self.dims)?,
            2 => self.data_type = field.integer()?,
            // Long lists are weights and not labels, so they are not read.
            5 | 7 if is_short(field) => field.integers(&mut self.integers)?,
            6 => self.strings.push(field.bytes()?),
            8 => self.name = field.text()?,
            9 => self.raw = Some(field.bytes()?),
            13 => {
                let (key, value) = entry(field.bytes()?)?;
                if key == "location" || self.external.is_none() {
                    self.external = Some(value);
                }
            }
            14 if field.integer()? == 1 => {
                self.external.get_or_insert_with(String::new);
            }
            _ => {}
        }
        Ok(())
    }

    /// The elements as JSON texts, if they are integers or strings.
    fn labels(&self) -> Vec<String> {
        let mut integers = self.integers.clone();
        match (self.data_type, self.raw) {
            (6, Some(raw)) => {
                let chunks = raw.as_chunks::<4>().0.iter();
                integers.extend(chunks.map(|bytes| i64::from(i32::from_le_bytes(*bytes))));
            }
            (7, Some(raw)) => {
                let chunks = raw.as_chunks::<8>().0.iter();
                integers.extend(chunks.map(|bytes| i64::from_le_bytes(*bytes)));
            }
            (6..=8, None) => {}
            _ => return Vec::new(),
        }
        labels(&integers, &self.strings)
    }
}

/// Whether a repeated integer field can be a list of class labels.
fn is_short(field: &Field) -> bool {
    match field.value {
        Value::Bytes(bytes) => bytes.len() as u64 <= LABELS_MAX * 8,
        _ => true,
    }
}

/// The size of one element in `raw_data`, in bytes; `None` for types that are packed
/// or unknown.
fn element_bytes(data_type: i64) -> Option<u64> {
    match data_type {
        2 | 3 | 9 => Some(1),
        4 | 5 | 10 | 16 => Some(2),
        1 | 6 | 12 => Some(4),
        7 | 11 | 13 | 14 => Some(8),
        15 => Some(16),
        _ => None,
    }
}

fn sparse_tensor(message: &[u8]) -> Result<(), Fault> {
    for field in Fields::of(message) {
        let field = field?;
        if matches!(field.number, 1 | 2) {
            tensor(field.bytes()?)?;
        }
    }
    Ok(())
}

/// An entry with a key and a value.
fn entry(message: &[u8]) -> Result<(String, String), Fault> {
    let (mut key, mut value) = ("", "");
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Checks the type of an input or output. The interface of onnxruntime cannot describe
/// every type.
fn value_info(message: &[u8]) -> Result<(), Fault> {
    let (mut name, mut types) = ("", Vec::new());
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => name = field.text()?,
            2 => types.push(field.bytes()?),
            _ => {}
        }
    }
    if name.is_empty() || name.contains(char::is_control) {
        return content(format!(
            "an input or output has the name {}; give it a readable name",
            shown(name)
        ));
    }
    for message in types {
        if !is_known_type(message)? {
            return content(format!(
                "the input or output {} is neither a tensor, a map, nor a sequence of those; export the \
                 model without it",
                shown(name)
            ));
        }
    }
    Ok(())
}

/// Whether a type is a tensor, a map, or a sequence of tensors or maps.
fn is_known_type(message: &[u8]) -> Result<bool, Fault> {
    for field in Fields::of(message) {
        let field = field?;
        let is_known = match field.number {
            1 | 5 => true,
            4 => is_sequence_of_known(field.bytes()?)?,
            6 => true, // a denotation, which is a text
            _ => false,
        };
        if !is_known {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a sequence holds tensors or maps.
fn is_sequence_of_known(message: &[u8]) -> Result<bool, Fault> {
    let mut is_known = false;
    for field in Fields::of(message) {
        let field = field?;
        if field.number != 1 {
            continue;
        }
        for element in Fields::of(field.bytes()?) {
            match element?.number {
                1 | 5 => is_known = true,
                6 => {}
                _ => return Ok(false),
            }
        }
    }
    Ok(is_known)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/onnx");
        std::fs::read(format!("{folder}/{name}.onnx")).unwrap()
    }

    #[test]
    fn a_file_tells_its_metadata_and_class_labels() {
        let facts = check(&fixture("classifier")).unwrap();
        let get = |key: &str| facts.metadata.get(key).map(String::as_str);
        assert_eq!(get("rv.name"), Some("toy"));
        assert_eq!(get("rv.features"), Some(r#"["a","/in/b"]"#));
        assert_eq!(
            facts.label_lists,
            [[r#""low""#, r#""mid""#, r#""high \"3\"""#]]
        );
        for name in ["types", "gather", "one-row", "softmax"] {
            assert!(check(&fixture(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_tensor_in_another_file_is_refused() {
        let fault = check(&fixture("external")).unwrap_err();
        assert!(
            fault.contains(r#"tensor "w" in another file ("../../etc/passwd")"#),
            "{fault}"
        );
        // The mark of external data is refused even without the name of a file.
        let tensor = [0x70, 0x01];
        assert!(matches!(super::tensor(&tensor), Err(Fault::Content(_))));
    }

    #[test]
    fn what_is_not_an_onnx_file_is_refused() {
        for bytes in [
            &b""[..],
            b"{\"format\":\"rv-model\"}",
            b"<!DOCTYPE html><html></html>",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
            b"PK\x03\x04\x14\0\0\0",
            &[0x08, 0x08],
            &[0; 64],
        ] {
            let fault = check(bytes).unwrap_err();
            assert!(fault.ends_with("copy the file again"), "{fault}");
        }
        let twice = [fixture("softmax"), fixture("softmax")].concat();
        assert!(check(&twice).unwrap_err().contains("two graphs"));
    }

    #[test]
    fn a_file_that_is_cut_inside_its_graph_is_refused() {
        let whole = fixture("gather");
        // The version of the operators follows the graph, and is shorter.
        for length in 0..whole.len() - 10 {
            assert!(check(&whole[..length]).is_err(), "{length}");
        }
    }

    /// A length-delimited field.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            field.push(length as u8 | 0x80);
            length >>= 7;
        }
        field.push(length as u8);
        field.extend(content);
        field
    }

    #[test]
    fn graphs_that_are_nested_too_deep_are_refused() {
        let mut graph = Vec::new();
        for _ in 0..10_000 {
            // graph.node.attribute.g
            graph = field(1, &field(5, &field(6, &graph)));
        }
        let model = [&[0x08, 0x08][..], &field(7, &graph)].concat();
        let fault = check(&model).unwrap_err();
        assert!(fault.contains("nested deeper"), "{fault}");
    }

    #[test]
    fn tensors_with_impossible_dimensions_are_refused() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let (dims, float) = (field(1, &[2, 3]), [0x10, 0x01]);
        let raw = |bytes: usize| field(9, &vec![0; bytes]);
        for (tensor, is_good) in [
            ([&dims[..], &float, &raw(24)].concat(), true),
            ([&dims[..], &float, &raw(23)].concat(), false),
            ([field(1, &huge), field(1, &huge)].concat(), false),
            (
                field(1, &[0xff; 9].iter().copied().chain([1]).collect::<Vec<_>>()),
                false,
            ),
        ] {
            assert_eq!(super::tensor(&tensor).is_ok(), is_good, "{tensor:?}");
        }
    }

    #[test]
    fn inputs_and_outputs_have_readable_names_and_known_types() {
        let tensor = field(2, &field(1, &[0x08, 0x01]));
        let sequence = |element: u8| field(2, &field(4, &field(1, &field(element, &[]))));
        let name = |name: &str| field(1, name.as_bytes());
        for (info, is_good) in [
            ([name("x"), tensor.clone()].concat(), true),
            ([name("x"), sequence(1)].concat(), true),
            ([name("x"), sequence(5)].concat(), true),
            // These are a sequence of sequences, an optional value, and a sparse
            // tensor.
            ([name("x"), sequence(4)].concat(), false),
            ([name("x"), field(2, &field(9, &[]))].concat(), false),
            ([name("x"), field(2, &field(8, &[]))].concat(), false),
            ([name("x\0y"), tensor.clone()].concat(), false),
            (tensor, false),
        ] {
            assert_eq!(value_info(&info).is_ok(), is_good, "{info:?}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_file_is_never_a_panic(
            name in prop_oneof![Just("classifier"), Just("gather"), Just("external"), Just("types")],
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = fixture(name);
            for (index, byte) in changes {
                let length = bytes.len();
                bytes[index.index(length)] = byte;
            }
            let _ = check(&bytes);
        }
    }
}
