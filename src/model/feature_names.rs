//! Finds the features of a model among the members of a `modelInput`.

use std::collections::HashMap;

use crate::stage::report::shown;
use crate::wire::object::{self, Member, Object, decode_string};

/// A row of values that is being read.
pub trait Row {
    /// Forgets all values.
    fn clear(&mut self);

    /// Sets the value of the feature with this index from its JSON text. The error
    /// completes a sentence that begins with "feature x".
    fn set(&mut self, index: usize, raw: &str) -> Result<(), String>;
}

/// The names of the features of a model, in the order of a row. A name that begins with
/// a slash is a JSON pointer into the `modelInput`.
#[derive(Debug)]
pub struct FeatureNames {
    names: Vec<String>,
    /// The index of each feature that is a member, by its name.
    members: HashMap<String, usize>,
    /// The indices of the features with a JSON pointer, by the first token of the
    /// pointer.
    nested: HashMap<String, Vec<usize>>,
}

impl FeatureNames {
    /// The features with these names.
    pub fn new(names: Vec<String>) -> FeatureNames {
        let mut members = HashMap::new();
        let mut nested: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            match name.strip_prefix('/') {
                None => {
                    members.insert(name.clone(), index);
                }
                Some(pointer) => {
                    let token = pointer.split('/').next().unwrap_or_default();
                    let member = token.replace("~1", "/").replace("~0", "~");
                    nested.entry(member).or_default().push(index);
                }
            }
        }
        FeatureNames {
            names,
            members,
            nested,
        }
    }

    /// The names, in the order of a row.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Reads the features in the text of a `modelInput` into `row`. Other members are
    /// ignored. The error describes the first fault in a few words.
    pub fn read(&self, model_input: &str, row: &mut impl Row) -> Result<(), String> {
        if !model_input.trim_ascii_start().starts_with('{') {
            return Err("modelInput is not an object".to_owned());
        }
        let mut search = Search::new(self, row);
        if object::each_member(model_input, |member| search.take(&member)).is_none() {
            // The fast scanner does not accept invalid JSON or deep nesting. The full
            // parser then decides whether the text is valid.
            let object =
                Object::parse(model_input).map_err(|fault| format!("modelInput is {fault}"))?;
            search = Search::new(self, row);
            for member in &object.members {
                search.take(member);
            }
        }
        match search.fault {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

/// A row that is being filled from the members of a `modelInput`.
struct Search<'a, R> {
    names: &'a FeatureNames,
    row: &'a mut R,
    /// The index of the feature that is probably next: most clients write the
    /// features in the model's order.
    expected: usize,
    /// The first fault.
    fault: Option<String>,
}

impl<'a, R: Row> Search<'a, R> {
    fn new(names: &'a FeatureNames, row: &'a mut R) -> Search<'a, R> {
        row.clear();
        Search {
            names,
            row,
            expected: 0,
            fault: None,
        }
    }

    fn take(&mut self, member: &Member) {
        if self.fault.is_some() {
            return;
        }
        let FeatureNames {
            names,
            members,
            nested,
        } = self.names;
        let index = match names.get(self.expected) {
            // A pointer such as `/a` is not the name of a member, even if a member has
            // this text as its name.
            Some(name) if !name.starts_with('/') && member.is(name) => Some(self.expected),
            _ => decode_string(member.key).and_then(|name| members.get(&*name).copied()),
        };
        if let Some(index) = index {
            self.expected = index + 1;
            self.set(index, member.value);
        }
        if !nested.is_empty()
            && let Some(name) = decode_string(member.key)
        {
            for index in nested.get(&*name).into_iter().flatten() {
                // The first token of the pointer is the name of this member.
                let pointer = &names[*index][1..];
                let rest = pointer.find('/').map_or("", |slash| &pointer[slash..]);
                if let Some(value) = object::at_pointer(member.value, rest) {
                    self.set(*index, value);
                }
            }
        }
    }

    fn set(&mut self, index: usize, raw: &str) {
        if let Err(what) = self.row.set(index, raw)
            && self.fault.is_none()
        {
            let name = shown(&self.names.names[index]);
            self.fault = Some(format!("feature {name} {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the text of each value.
    struct Texts(Vec<Option<String>>);

    impl Row for Texts {
        fn clear(&mut self) {
            self.0.fill(None);
        }

        fn set(&mut self, index: usize, raw: &str) -> Result<(), String> {
            match self.0[index].replace(raw.to_owned()) {
                None => Ok(()),
                Some(_) => Err("occurs twice".to_owned()),
            }
        }
    }

    fn read(input: &str) -> Result<Vec<Option<String>>, String> {
        let names = ["x", "/in/d", "/in/e/0", "/~1"].map(str::to_owned);
        let names = FeatureNames::new(names.to_vec());
        let mut row = Texts(vec![None; names.names.len()]);
        names.read(input, &mut row).map(|()| row.0)
    }

    #[test]
    fn members_and_pointers_are_found_in_any_order() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for input in [
            r#"{"x":1,"in":{"d":2,"e":[3]},"/":4}"#.to_owned(),
            r#"{"/":4,"in":{"e":[3],"d":2},"x":1}"#.to_owned(),
            // A member whose name has the text of a pointer is another member.
            r#"{"x":1,"/in/d":9,"in":{"d":2,"e":[3]},"/":4}"#.to_owned(),
            r#"{"/in/d":9,"in":{"d":2,"e":[3]},"/~1":9,"/":4,"x":1}"#.to_owned(),
            // The fast scanner does not accept this nesting.
            format!(r#"{{"x":1,"in":{{"d":2,"e":[3]}},"/":4,"y":{deep}}}"#),
        ] {
            let expected = ["1", "2", "3", "4"].map(|text| Some(text.to_owned()));
            assert_eq!(read(&input), Ok(expected.to_vec()), "{input}");
        }
    }

    #[test]
    fn a_feature_that_occurs_twice_is_named() {
        for (input, name) in [
            (r#"{"x":1,"x":1}"#, "x"),
            (r#"{"in":{"d":1},"in":{"d":2}}"#, "/in/d"),
            (r#"{"in":{"e":[1]},"in":{"e":[2]}}"#, "/in/e/0"),
        ] {
            let expected = format!("feature \"{name}\" occurs twice");
            assert_eq!(read(input), Err(expected), "{input}");
        }
    }
}
