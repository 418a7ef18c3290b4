//! Parses and writes JSON objects without changing their values.
//!
//! A round trip through a JSON value would turn `1.10` into `1.1` and a 23-digit
//! integer into a float. Here, an object is a list of slices of its own text, and a
//! rewritten object consists of the same slices.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::wire::scan;

/// One `"key":value` of an object, as slices of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The key, with its quotes and escapes.
    pub key: &'a str,
    /// The value, as JSON text.
    pub value: &'a str,
}

impl<'a> Member<'a> {
    /// The key with its escapes decoded. A key that cannot be decoded, because of a
    /// lone surrogate, stays undecoded: no stage looks for such a name.
    pub fn name(&self) -> Cow<'a, str> {
        decode_string(self.key).unwrap_or(Cow::Borrowed(self.key))
    }

    /// Whether the decoded key is `name`.
    pub fn is(&self, name: &str) -> bool {
        let inner = &self.key[1..self.key.len() - 1];
        inner == name || (memchr::memchr(b'\\', inner.as_bytes()).is_some() && self.name() == name)
    }
}

/// A JSON object as a list of its members, in order.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    text: &'a str,
    /// The members, in the order of the text.
    pub members: Vec<Member<'a>>,
}

impl<'a> Object<'a> {
    /// Parses `text`. The error describes the fault in a few words.
    pub fn parse(text: &'a str) -> Result<Object<'a>, String> {
        let mut members = Vec::with_capacity(8);
        if each_member(text, |member| members.push(member)).is_some() {
            return Ok(Object { text, members });
        }
        match serde_json::from_str::<Members<'a>>(text) {
            Ok(Members(members)) => Ok(Object { text, members }),
            Err(error) if error.is_data() => Err("not a JSON object".to_owned()),
            Err(error) => Err(format!("not JSON: {}", without_line(&error))),
        }
    }

    /// The text of the object.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The text of the value of `name`. If the key occurs several times, the last one
    /// counts, as in most JSON libraries.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.members.iter().rev().find(|member| member.is(name));
        found.map(|member| member.value)
    }

    /// Begins a copy of this object in `out`, without the members whose index satisfies
    /// `dropped`. The others are copied unchanged.
    pub fn rewrite<'o>(
        &self,
        out: &'o mut Vec<u8>,
        dropped: impl Fn(usize) -> bool,
    ) -> ObjectWriter<'o> {
        out.push(b'{');
        let mut writer = ObjectWriter { out, empty: true };
        let mut index = 0;
        while index < self.members.len() {
            if dropped(index) {
                index += 1;
                continue;
            }
            let first = index;
            while index < self.members.len() && !dropped(index) {
                index += 1;
            }
            let from = self.position(self.members[first].key);
            let last = self.members[index - 1].value;
            let to = self.position(last) + last.len();
            writer.comma();
            writer
                .out
                .extend_from_slice(&self.text.as_bytes()[from..to]);
        }
        writer
    }

    /// The index of a slice within this object's text.
    fn position(&self, part: &str) -> usize {
        part.as_ptr() as usize - self.text.as_ptr() as usize
    }
}

/// Writes the members of an object.
#[derive(Debug)]
pub struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Begins an object in `out`.
    pub fn new(out: &'o mut Vec<u8>) -> ObjectWriter<'o> {
        out.push(b'{');
        ObjectWriter { out, empty: true }
    }

    fn comma(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }

    fn key(&mut self, name: &str) {
        self.comma();
        write_string(self.out, name);
        self.out.push(b':');
    }

    /// Writes a member whose value is JSON text.
    pub fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        self.key(name);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// Writes members that are JSON text. The pieces are joined unchanged, and a
    /// comma is written only before the first piece.
    pub fn members(&mut self, pieces: &[&str]) -> &mut Self {
        self.comma();
        self.append(pieces)
    }

    /// Continues the text of [`members`](ObjectWriter::members).
    pub fn append(&mut self, pieces: &[&str]) -> &mut Self {
        for piece in pieces {
            self.out.extend_from_slice(piece.as_bytes());
        }
        self
    }

    /// Writes a member whose value is a string.
    pub fn string(&mut self, name: &str, value: &str) -> &mut Self {
        self.key(name);
        write_string(self.out, value);
        self
    }

    /// Writes a member whose value prints itself as JSON, such as a number.
    pub fn display(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        use std::io::Write;
        self.key(name);
        write!(self.out, "{value}").expect("a Vec takes every write");
        self
    }

    /// Writes a member whose value is an object that `fill` writes.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut ObjectWriter)) -> &mut Self {
        self.key(name);
        let mut inner = ObjectWriter::new(self.out);
        fill(&mut inner);
        inner.end();
        self
    }

    /// Writes a member whose value is an array of objects. `fill` writes each of them.
    pub fn array<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut ObjectWriter, T),
    ) -> &mut Self {
        self.key(name);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut inner = ObjectWriter::new(self.out);
            fill(&mut inner, item);
            inner.end();
        }
        self.out.push(b']');
        self
    }

    /// Writes a member whose value is a copy of the object `earlier`. In the copy,
    /// `fill` writes the member `entry` anew, at the end; all other members stay
    /// unchanged.
    pub fn object_with(
        &mut self,
        name: &str,
        earlier: Option<&Object>,
        entry: &str,
        fill: impl FnOnce(&mut ObjectWriter),
    ) -> &mut Self {
        self.key(name);
        let mut inner = match earlier {
            Some(object) => object.rewrite(self.out, |index| object.members[index].is(entry)),
            None => ObjectWriter::new(self.out),
        };
        inner.object(entry, fill);
        inner.end();
        self
    }

    /// Ends the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// `text` must be exactly one JSON value. Returns the value without white space around it. The error
/// describes the fault.
pub fn parse_value(text: &str) -> Result<&str, String> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(value.get()),
        Err(error) => Err(format!("not JSON: {}", without_line(&error))),
    }
}

/// `text` must be exactly one object. Returns the text of the value of `name`. If the key occurs
/// several times, the last one counts. Returns `None` if the key is missing or `text` is
/// not an object.
pub fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut value = None;
    let seen = each_member(text, |member| {
        if member.is(name) {
            value = Some(member.value);
        }
    });
    match seen {
        Some(()) => value,
        None => Object::parse(text).ok()?.get(name),
    }
}

/// `text` must be exactly one object. Calls `show` with each member, without making a
/// list. If this returns `None`, the caller must discard the members that `show`
/// received; [`Object::parse`] then reports the fault or accepts the text.
pub fn each_member<'a>(text: &'a str, mut show: impl FnMut(Member<'a>)) -> Option<()> {
    scan::each_member(text, |key, value| show(Member { key, value }))
}

/// The items of a JSON array, as JSON texts; `None` if `text` is not an array.
pub fn array_items(text: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// The value at a JSON pointer (RFC 6901) in a JSON text; `None` if the pointer leads to
/// no value.
pub fn at_pointer<'a>(text: &'a str, pointer: &str) -> Option<&'a str> {
    let mut value = text;
    for token in pointer.split('/').skip(1) {
        value = if value.starts_with('[') {
            let items = array_items(value)?;
            let plain = token == "0" || !token.starts_with('0');
            let index: usize = token.parse().ok().filter(|_| plain)?;
            items.get(index)?
        } else {
            let name = token.replace("~1", "/").replace("~0", "~");
            Object::parse(value).ok()?.get(&name)?
        };
    }
    Some(value)
}

/// JSON text on one line. Outside a string, newlines are white space, so a space can
/// replace each. Inside a string, JSON does not allow newlines.
pub fn one_line(json: &str) -> Cow<'_, str> {
    let json = json.trim_ascii();
    match memchr::memchr2(b'\n', b'\r', json.as_bytes()) {
        None => json.into(),
        Some(_) => json.replace(['\n', '\r'], " ").into(),
    }
}

/// Appends `text` to `out` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    // Most strings are known words or ids, which need no escapes.
    if scan::is_plain(text) {
        out.reserve(text.len() + 3);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    serde_json::to_writer(out, text).expect("a string is always JSON, and a Vec takes every write");
}

/// `text` as a JSON string.
pub fn json_string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    String::from_utf8(out).unwrap_or_default()
}

/// The text of a JSON string; `None` if `raw` is not a string or contains a lone
/// surrogate.
pub fn decode_string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_some() {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// The text of serde_json's error without "at line 1", which users would take for the
/// line of the stream.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => format!("{reason} at byte {}", error.column()),
        None => text,
    }
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(Member {
                        key: key.get(),
                        value: value.get(),
                    });
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str, drop: &str) -> String {
        let object = Object::parse(text).unwrap();
        let mut out = Vec::new();
        object
            .rewrite(&mut out, |index| object.members[index].is(drop))
            .end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn kept_members_stay_unchanged() {
        let text = r#"{"a":1.10,"b" : [ 1e400 ],"a\u0062":-0,"c":12345678901234567890123}"#;
        assert_eq!(rewritten(text, "nothing"), text);
        assert_eq!(
            rewritten(text, "b"),
            r#"{"a":1.10,"a\u0062":-0,"c":12345678901234567890123}"#
        );
        assert_eq!(
            rewritten(text, "ab"),
            r#"{"a":1.10,"b" : [ 1e400 ],"c":12345678901234567890123}"#
        );
        assert_eq!(rewritten(r#"{ "a" : 1 }"#, "a"), "{}");
        assert_eq!(rewritten("{}", "a"), "{}");
    }

    #[test]
    fn a_doubled_key_counts_by_its_last_value() {
        let object = Object::parse(r#"{"a":1,"\u0061":2}"#).unwrap();
        assert_eq!(object.get("a"), Some("2"));
    }

    #[test]
    fn a_text_that_is_no_object_is_an_error_that_names_its_fault() {
        for (text, reason) in [
            ("[1]", "not a JSON object"),
            ("3", "not a JSON object"),
            ("{\"a\":", "not JSON: EOF while parsing a value at byte 5"),
            ("{} x", "not JSON: trailing characters at byte 4"),
            (
                "{\"a\":\"\0\"}",
                "not JSON: control character (\\u0000-\\u001F) found while parsing a string at byte 6",
            ),
        ] {
            assert_eq!(Object::parse(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn pointers_reach_into_objects_and_arrays() {
        let text = r#"{"a/b":[{"~":1.10}],"":{"x":null}}"#;
        assert_eq!(at_pointer(text, ""), Some(text));
        assert_eq!(at_pointer(text, "/a~1b/0/~0"), Some("1.10"));
        assert_eq!(at_pointer(text, "//x"), Some("null"));
        for nowhere in ["/a", "/a~1b/1", "/a~1b/00", "/a~1b/x", "//x/y"] {
            assert_eq!(at_pointer(text, nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn nesting_of_any_depth_is_carried() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(rewritten(&text, "b"), text);
    }

    #[test]
    fn an_entry_is_replaced_inside_an_object() {
        let earlier = Object::parse(r#"{"model":{"x":1},"other":1.0}"#).unwrap();
        let mut out = Vec::new();
        let mut writer = ObjectWriter::new(&mut out);
        writer.object_with("provenance", Some(&earlier), "model", |model| {
            model.string("modelName", "dt").display("modelVersion", 1);
        });
        writer.end();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"provenance":{"other":1.0,"model":{"modelName":"dt","modelVersion":1}}}"#
        );
    }

    #[test]
    fn a_value_is_found_in_any_object_and_nowhere_else() {
        let deep = format!("{{\"d\":{}{},\"a\":3}}", "[".repeat(99), "]".repeat(99));
        for (text, value) in [
            (r#"{"a":1,"b":{"a":2},"\u0061":3}"#, Some("3")),
            (r#"{"b":{"a":2}}"#, None),
            (&*deep, Some("3")),
            (r#"["a",1]"#, None),
            (r#"{"a":1"#, None),
        ] {
            assert_eq!(value_of(text, "a"), value, "{text}");
        }
        let names = |text| {
            let mut names = Vec::new();
            each_member(text, |member| names.push(member.name().into_owned()))?;
            Some(names)
        };
        assert_eq!(
            names(r#"{"a":1,"\u0062":[2]}"#),
            Some(vec!["a".into(), "b".into()])
        );
        assert_eq!(names(&deep), None);
        assert_eq!(array_items("[1.10, {}]"), Some(vec!["1.10", "{}"]));
        assert_eq!(array_items("{}"), None);
    }

    #[test]
    fn members_are_written_one_after_the_other() {
        let mut out = Vec::new();
        let mut writer = ObjectWriter::new(&mut out);
        writer.raw("a", "1.10").string("b", "\"").display("c", 3);
        writer.members(&["\"d\":", "4"]).append(&[",\"e\":5"]);
        writer.object("f", |inner| {
            inner.raw("x", "1").raw("y", "2");
        });
        writer.array("g", [6, 7], |item, number| {
            item.display("z", number);
        });
        writer.array("h", [0; 0], |_, _| {});
        writer.end();
        let expected = r#"{"a":1.10,"b":"\"","c":3,"d":4,"e":5,"f":{"x":1,"y":2},"g":[{"z":6},{"z":7}],"h":[]}"#;
        assert_eq!(std::str::from_utf8(&out), Ok(expected));
    }
}
