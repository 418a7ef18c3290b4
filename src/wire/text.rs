//! Slices of text that share memory.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::rc::Rc;

/// A text, or a slice of one. Copies and slices share the memory of the whole text,
/// which is freed with the last of them.
#[derive(Clone)]
pub struct Text {
    whole: Rc<str>,
    range: (usize, usize),
}

impl Text {
    /// The slice of `whole` at `place`, in bytes. `place` must be within the text and
    /// must not split a character.
    pub fn slice(whole: &Rc<str>, place: Range<usize>) -> Text {
        debug_assert!(whole.get(place.clone()).is_some(), "{place:?}");
        Text {
            whole: Rc::clone(whole),
            range: (place.start, place.end),
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.whole[self.range.0..self.range.1]
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl<T: Into<Rc<str>>> From<T> for Text {
    fn from(text: T) -> Text {
        let whole = text.into();
        let range = (0, whole.len());
        Text { whole, range }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Text) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Text) -> std::cmp::Ordering {
        (**self).cmp(other)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_equal_to_the_same_text_elsewhere() {
        let whole: Rc<str> = "aäbä".into();
        let slice = Text::slice(&whole, 1..3);
        assert_eq!(&*slice, "ä");
        assert_eq!(slice, Text::from("ä"));
        assert_eq!(slice, Text::slice(&whole, 4..6));
        assert_eq!(Rc::strong_count(&whole), 2);
    }

    #[test]
    fn a_piece_is_found_and_sorted_by_its_text() {
        let whole: Rc<str> = "ab".into();
        let (a, b) = (Text::slice(&whole, 0..1), Text::slice(&whole, 1..2));
        let known = std::collections::HashMap::from([(a.clone(), 1), (b.clone(), 2)]);
        assert_eq!((known.get("a"), known.get("b")), (Some(&1), Some(&2)));
        assert_eq!(known.get("ab"), None);
        assert!(a < b);
        assert_ne!(a, b);
        assert_eq!(format!("{a} {b:?}"), "a \"b\"");
    }
}
