//! The model file: JSON for people, read with suspicion, written whole.
//!
//! `{"format":"rv-model","formatVersion":1,"sha256":…,"model":{…}}`, where the
//! SHA-256 is that of the text of `model` as it stands.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::stage::Stage;
use crate::train::label::{CLASSES_MAX, json_string};
use crate::train::table::FEATURES_MAX;
use crate::wire::endpoint::{Output, STANDARD};
use crate::wire::object::{Object, ObjectWriter};

/// What says that a file is a model.
const FORMAT: &str = "rv-model";

/// The version of the format that is written and read.
const FORMAT_VERSION: u64 = 1;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The longest line that the layout makes of more than one value.
const LINE_CHARS_MAX: usize = 160;

/// Reads the text of a model file, up to the limit.
pub fn read_text(path: &str) -> Result<String> {
    let file = File::open(path).with_context(|| format!("{path}: cannot open the model"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{path}: cannot read the model"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{path}: is larger than 256 MiB, so it is no model that rv-score train wrote");
    }
    String::from_utf8(bytes).map_err(|_| anyhow!("{path}: is not UTF-8, so it is no model file"))
}

/// Takes the wrapping off a model file: the text of the model and its SHA-256.
/// The error says what is wrong and what helps.
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
    if format.version != FORMAT_VERSION {
        return Err(format!(
            "has format version {}, and this program reads version {FORMAT_VERSION}; train the model \
             again with this rv-score, or use the one that wrote it",
            format.version
        ));
    }
    let wrapping: Wrapping = serde_json::from_str(text).map_err(not_a_model)?;
    let hash = sha256(wrapping.model.get());
    if hash != wrapping.sha256 {
        return Err(format!(
            "does not have the content that its SHA-256 was taken of; it was changed or damaged: {REMEDY}"
        ));
    }
    Ok((wrapping.model.get(), hash))
}

/// Puts the wrapping around the text of a model.
pub fn wrap(model: &str) -> String {
    // The model's own text is set deeper by one level before it is hashed.
    let mut laid_out = String::with_capacity(model.len() * 5 / 4);
    lay_out(model, 1, &mut laid_out);
    let hash = sha256(&laid_out);
    format!(
        "{{\n  \"format\": \"{FORMAT}\",\n  \"formatVersion\": {FORMAT_VERSION},\n  \
         \"sha256\": \"{hash}\",\n  \"model\": {laid_out}\n}}\n"
    )
}

/// The SHA-256 of a text, in 64 hexadecimal digits.
fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Appends JSON text with a line for each value, but for lists of plain values
/// and for what is short.
fn lay_out(raw: &str, depth: usize, out: &mut String) {
    let raw = raw.trim_ascii();
    let is_long = raw.len() > LINE_CHARS_MAX;
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    // The outermost levels are what a reader looks for, however short.
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

/// The text of a model from what is said about it, an object, and its
/// parameters.
pub fn join(about: &str, parameters: &str) -> Result<String> {
    let object = Object::parse(about).map_err(|fault| anyhow!(fault))?;
    let mut out = Vec::with_capacity(about.len() + parameters.len() + 20);
    let mut writer: ObjectWriter = object.rewrite(&mut out, |_| false);
    writer.raw("parameters", parameters);
    writer.end();
    Ok(String::from_utf8(out)?)
}

/// Writes a model file. A file at `path` is replaced whole or stays as it is.
pub fn write(stage: &mut Stage, path: &str, text: String) -> Result<()> {
    let metadata = fs::metadata(path);
    let is_stream = path == STANDARD || metadata.as_ref().is_ok_and(|metadata| !metadata.is_file());
    if is_stream {
        if metadata.is_ok_and(|metadata| metadata.is_dir()) {
            bail!("{path}: is a directory; name a file in it");
        }
        let mut output = Output::open(path)?;
        stage.write_all(&mut output, &mut text.into_bytes())?;
        return stage.close(&mut output);
    }
    // The target of a symbolic link is replaced, not the link.
    let place = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    let mut new = place.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &place)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(|| format!("{path}: cannot write the model"))?;
    // So that the new name survives a power cut too. Where a folder cannot be
    // synced, the file is complete all the same.
    let folder = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => ".".as_ref(),
    };
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Reads a list with one entry a class.
pub fn at_most_classes<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    at_most(deserializer, CLASSES_MAX)
}

/// Reads a list with one entry a feature.
pub fn at_most_features<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    at_most(deserializer, FEATURES_MAX)
}

/// Reads a list up to a limit, so that no file makes a program take memory that
/// is many times its size.
fn at_most<'de, D, T>(deserializer: D, limit: usize) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct AtMost<T>(usize, PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for AtMost<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            write!(formatter, "a list of at most {}", self.0)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                if values.len() == self.0 {
                    return Err(A::Error::custom(format!(
                        "a list is longer than {}",
                        self.0
                    )));
                }
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_seq(AtMost(limit, PhantomData))
}

/// Checks the name of a model: it stands in policies, headers and file names.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
        return Err(format!(
            "the name of a model has 1 to 64 letters, digits, dots, hyphens and underscores, not {}",
            json_string(name)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_comes_out_again() {
        let long = vec!["[1,2]"; 60].join(",");
        let text = wrap(&format!(
            r#"{{"name":"dt","nodes":[{long}],"list":[1,2.50],"o":{{}}}}"#
        ));
        let (model, hash) = unwrap(&text).unwrap();
        assert_eq!(hash, sha256(model));
        assert!(
            text.starts_with(
                "{\n  \"format\": \"rv-model\",\n  \"formatVersion\": 1,\n  \"sha256\": \""
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
    fn what_is_not_a_model_file_is_said_with_a_remedy() {
        let text = wrap(r#"{"name":"dt"}"#);
        for (broken, reason) in [
            (String::new(), "is empty"),
            (" \n".to_owned(), "is empty"),
            ("{}".to_owned(), "missing field `format`"),
            ("[1]".to_owned(), "is not a model file"),
            (text.replace("rv-model", "pickle"), "is not a model file"),
            (
                text.replace("Version\": 1", "Version\": 2"),
                "has format version 2",
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

    #[test]
    fn names_are_plain() {
        for name in ["dt", "iris_tree-2.b", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "a@1", "*", "a b", "a/b", "ä", "\n", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
