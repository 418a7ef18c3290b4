//! The format of a model file: JSON that people can read, checked when it is
//! read.
//!
//! `{"format":"rv-model","formatVersion":2,"sha256":…,"model":{…}}`, where
//! `sha256` is the SHA-256 of the text of `model`, byte for byte.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::value::RawValue;

use crate::wire::object::{Object, ObjectWriter};
use crate::wire::sha256::sha256_hex;

/// Marks a file as a model.
const FORMAT: &str = "rv-model";

/// The version of the format that this program writes. It reads all versions up to this
/// one. Version 1 has no categories, fewer quantiles and fewer metrics.
const FORMAT_VERSION: u64 = 2;

/// The largest model file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A list or object whose text is longer than this gets one line per entry.
const LINE_CHARS_MAX: usize = 160;

/// Reads the text of a model file, up to the limit.
pub fn read_text(path: &str) -> Result<String> {
    let bytes = read_up_to(path, FILE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(|_| anyhow!("{path}: is not UTF-8, so it is not a model file"))
}

/// Reads a file of at most `bytes_max` bytes. The error names the file.
pub fn read_up_to(path: &str, bytes_max: u64) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("{path}: cannot open the model"))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{path}: cannot read the model"))?;
    if bytes.len() as u64 > bytes_max {
        bail!(
            "{path}: is larger than {} MiB, the limit for such a model",
            bytes_max >> 20
        );
    }
    Ok(bytes)
}

/// Checks that the text of a model file is short enough for this program to read the
/// file again. The error describes the fault.
pub fn check_size(text: &str) -> Result<(), String> {
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err("the model is larger than 256 MiB".to_owned()),
        false => Ok(()),
    }
}

/// Splits a model file into the text of the model and its SHA-256, which is checked.
/// The error describes the fault and the remedy.
pub fn unwrap(text: &str) -> Result<(&str, String), String> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: String,
        #[serde(rename = "formatVersion")]
        version: u64,
    }
    #[derive(serde::Deserialize)]
    struct Wrapping<'a> {
        sha256: String,
        #[serde(borrow)]
        model: &'a RawValue,
    }
    const REMEDY: &str = "write one with rv-score train, or copy it again";
    if text.trim().is_empty() {
        return Err(format!("is empty; {REMEDY}"));
    }
    let not_a_model = |error| format!("is not a model file: {error}; {REMEDY}");
    let format: Format = serde_json::from_str(text).map_err(not_a_model)?;
    if format.format != FORMAT {
        return Err(format!("is not a model file; {REMEDY}"));
    }
    if !(1..=FORMAT_VERSION).contains(&format.version) {
        return Err(format!(
            "has format version {}, and this program reads versions 1 to {FORMAT_VERSION}; train the \
             model again with this rv-score, or use the one that wrote it",
            format.version
        ));
    }
    let wrapping: Wrapping = serde_json::from_str(text).map_err(not_a_model)?;
    let hash = sha256_hex(wrapping.model.get());
    if hash != wrapping.sha256 {
        return Err(format!(
            "does not match its SHA-256, so it was changed or damaged; {REMEDY}"
        ));
    }
    Ok((wrapping.model.get(), hash))
}

/// The text of a model file for the text of a model.
pub fn wrap(model: &str) -> String {
    // The hash is computed over the indented text.
    let mut laid_out = String::with_capacity(model.len() * 5 / 4);
    lay_out(model, 1, &mut laid_out);
    let hash = sha256_hex(&laid_out);
    format!(
        "{{\n  \"format\": \"{FORMAT}\",\n  \"formatVersion\": {FORMAT_VERSION},\n  \
         \"sha256\": \"{hash}\",\n  \"model\": {laid_out}\n}}\n"
    )
}

/// Appends JSON text with indentation and one line per value. A short value stays on
/// one line, and so does a list of numbers or strings.
fn lay_out(raw: &str, depth: usize, out: &mut String) {
    let raw = raw.trim_ascii();
    let is_long = raw.len() > LINE_CHARS_MAX;
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    // The outermost levels always get one line per member.
    if raw.starts_with('{') && (is_long || depth <= 2) {
        if let Ok(object) = Object::parse(raw) {
            out.push('{');
            for (index, member) in object.members.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                indent(out, depth + 1);
                out.push_str(member.key);
                out.push_str(": ");
                lay_out(member.value, depth + 1, out);
            }
            indent(out, depth);
            out.push('}');
            return;
        }
    } else if raw.starts_with('[')
        && is_long
        && let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(raw)
        && values
            .iter()
            .any(|value| value.get().starts_with(['[', '{']))
    {
        out.push('[');
        for (index, value) in values.iter().enumerate() {
            out.push_str(if index > 0 { "," } else { "" });
            indent(out, depth + 1);
            lay_out(value.get(), depth + 1, out);
        }
        indent(out, depth);
        out.push(']');
        return;
    }
    out.push_str(raw);
}

/// Makes the text of a model from its description, which is a JSON object, and its
/// parameters, which become the last member.
pub fn join(description: &str, parameters: &str) -> Result<String> {
    let object = Object::parse(description).map_err(|fault| anyhow!(fault))?;
    let mut out = Vec::with_capacity(description.len() + parameters.len() + 20);
    let mut writer: ObjectWriter = object.rewrite(&mut out, |_| false);
    writer.raw("parameters", parameters);
    writer.end();
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_text_is_unwrapped_unchanged() {
        let long = vec!["[1,2]"; 60].join(",");
        let text = wrap(&format!(
            r#"{{"name":"dt","nodes":[{long}],"list":[1,2.50],"o":{{}}}}"#
        ));
        let (model, hash) = unwrap(&text).unwrap();
        assert_eq!(hash, sha256_hex(model));
        assert!(
            text.starts_with(
                "{\n  \"format\": \"rv-model\",\n  \"formatVersion\": 2,\n  \"sha256\": \""
            ),
            "{text}"
        );
        assert!(model.starts_with("{\n    \"name\": \"dt\",\n    \"nodes\": [\n      [1,2],\n"));
        assert!(
            model.ends_with("\n    ],\n    \"list\": [1,2.50],\n    \"o\": {\n    }\n  }"),
            "{model}"
        );
    }

    #[test]
    fn a_file_that_is_not_a_model_is_refused_with_a_remedy() {
        let text = wrap(r#"{"name":"dt"}"#);
        for (broken, reason) in [
            (String::new(), "is empty"),
            (" \n".to_owned(), "is empty"),
            ("{}".to_owned(), "missing field `format`"),
            ("[1]".to_owned(), "is not a model file"),
            (text.replace("rv-model", "pickle"), "is not a model file"),
            (
                text.replace("Version\": 2", "Version\": 3"),
                "has format version 3",
            ),
            (text.replace("\"dt\"", "\"lr\""), "changed or damaged"),
            (text[..text.len() - 3].to_owned(), "EOF"),
            (text.replace("\"model\"", "\"sha256\""), "duplicate field"),
        ] {
            let fault = unwrap(&broken).unwrap_err();
            assert!(fault.contains(reason), "{fault}");
            assert!(fault.contains("train"), "{fault}");
        }
    }
}
