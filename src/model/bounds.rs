//! The limits of models, and the checks of names and lists in a model file. A program
//! that reads a model file relies on these limits.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use crate::stage::report::shown;

/// The largest number of classes in a model.
pub const CLASSES_MAX: usize = 1000;

/// The largest number of features in a model.
pub const FEATURES_MAX: usize = 10_000;

/// The length of the longest label: the number of bytes of its JSON. The limit is low
/// because every score carries a label.
pub const LABEL_BYTES_MAX: usize = 1024;

/// The length of the longest name of a model, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Checks the name of a model, which appears in policies, headers and file
/// names.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return Err(format!(
            "the name of a model has 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and \
             underscores; {} is not such a name",
            shown(name)
        ));
    }
    Ok(())
}

/// The first name that occurs twice in `names`.
pub fn first_duplicate<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// Deserializes a list with one entry per class.
pub fn at_most_classes<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    at_most(deserializer, CLASSES_MAX)
}

/// Deserializes a list with one entry per feature.
pub fn at_most_features<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    at_most(deserializer, FEATURES_MAX)
}

/// Deserializes a list of at most `limit` entries. Without a limit, a small file
/// could make a program allocate many times the file's size.
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

#[cfg(test)]
mod tests {
    use super::*;

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
