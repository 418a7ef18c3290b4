//! record -> a form that every index with the template of `setup` takes, whatever
//! other records came first.
//!
//! An index gives each field one mapping, and refuses a record with an object
//! where an earlier one had a number. So no document has objects at places that
//! are free in a record: in the members of `modelInput`, in results, in members
//! that nobody knows. Such an object is taken apart into fields of its own:
//! `{"size":{"cm":5}}` becomes `{"size/cm":5}`. Scalars and lists of them stay as
//! they are, and the template maps each to a number and a label at once.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::wire::object::{Member, Object, ObjectWriter, array_items};

/// The member that holds the record as it came, where the document cannot.
pub const AS_RECEIVED: &str = "asReceived";

/// What is no object stands under this key where the template has an object.
const VALUE_KEY: &str = "\"value\"";

/// Values that lie deeper in a free place are kept and not indexed.
const DEPTH_MAX: usize = 32;

/// Past these, further fields and values of one object are kept and not indexed.
const FIELDS_MAX: usize = 500;
const VALUES_MAX: usize = 100_000;

/// The longest name of a field, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The longest number, in bytes. The service cannot read a record with a very long
/// one.
const NUMBER_BYTES_MAX: usize = 300;

/// What may stand at a place of a document, as the template maps it.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// An object with these members, and with others that nobody knows.
    Object(Members),
    /// A list of such objects.
    Objects(Members),
    /// A scalar, or a list of them. Numbers that are none are ignored.
    Scalars,
    /// `true` or `false`.
    Flag,
    /// An object, or anything else without structure; it is not indexed.
    Kept,
}

type Members = &'static [(&'static str, Place)];

const ANSWER: Members = &[
    ("modelName", Place::Scalars),
    ("result", Place::Scalars),
    ("confidence", Place::Scalars),
    ("probabilities", Place::Kept),
];

const FAILURE: Members = &[("modelName", Place::Scalars), ("message", Place::Scalars)];

const CANDIDATE: Members = &[
    ("modelName", Place::Scalars),
    ("modelVersion", Place::Scalars),
    ("modelHash", Place::Scalars),
    ("arrivedAfter", Place::Scalars),
    ("fate", Place::Scalars),
    ("shadow", Place::Flag),
    ("result", Place::Object(ANSWER)),
    ("error", Place::Object(FAILURE)),
];

const MODEL: Members = &[
    ("modelName", Place::Scalars),
    ("modelVersion", Place::Scalars),
    ("modelHash", Place::Scalars),
    ("elapsedTimeAfterRequest", Place::Scalars),
    ("evaluationTime", Place::Scalars),
    ("rescored", Place::Flag),
];

const RENDEZVOUS: Members = &[
    ("modelVersion", Place::Scalars),
    ("reason", Place::Scalars),
    ("answeredAfter", Place::Scalars),
    ("policyHash", Place::Scalars),
];

const RECORD: Members = &[
    ("messageId", Place::Scalars),
    ("timestamp", Place::Scalars),
    ("@timestamp", Place::Scalars),
    ("returnAddress", Place::Scalars),
    ("scoreTopic", Place::Scalars),
    ("modelInput", Place::Object(&[])),
    ("result", Place::Object(ANSWER)),
    ("error", Place::Object(FAILURE)),
    ("previous", Place::Object(ANSWER)),
    ("modelResult", Place::Object(ANSWER)),
    ("candidates", Place::Objects(CANDIDATE)),
    (
        "agreement",
        Place::Object(&[("same", Place::Scalars), ("different", Place::Scalars)]),
    ),
    (
        "provenance",
        Place::Object(&[
            ("model", Place::Object(MODEL)),
            ("rendezvous", Place::Object(RENDEZVOUS)),
        ]),
    ),
];

/// How much of a record is to be indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Only the fields that the template names. The rest is kept.
    Named,
}

/// Whether the record, as it stands, is a document that the template takes.
pub fn is_regular(record: &Object) -> bool {
    let has_own_name = |member: &Member| is_of_the_service(&member.name());
    !record.members.iter().any(has_own_name) && is_regular_object(record, RECORD)
}

/// Writes the members of a record, but for those whose names are `dropped`: the
/// caller appends these. Where the document does not say all that the record
/// does, the record is in it as a text, too.
pub fn write(document: &mut ObjectWriter, record: &Object, dropped: &[&str], extent: Extent) {
    let mut shaping = Shaping {
        extent,
        is_whole: true,
    };
    let kept = record.members.iter();
    let kept = kept.filter(|member| !dropped.contains(&&*member.name()));
    shaping.members(document, kept.copied(), RECORD, true);
    if !shaping.is_whole {
        document.string(AS_RECEIVED, record.text());
    }
}

/// Whether a member of a record cannot have its name in a document.
fn is_of_the_service(name: &str) -> bool {
    name.starts_with('_') || name == AS_RECEIVED
}

fn place_of(members: Members, name: &str) -> Option<(&'static str, Place)> {
    members.iter().find(|(known, _)| *known == name).copied()
}

fn is_regular_object(object: &Object, known: Members) -> bool {
    let is_regular = |member: &Member| {
        let name = member.name();
        match place_of(known, &name) {
            Some((_, place)) => fits(member.value, place),
            None => is_plain(&name) && is_flat(member.value),
        }
    };
    object.members.iter().all(is_regular) && !has_twins(object)
}

/// Whether a value can stand at a place as it is.
fn fits(text: &str, place: Place) -> bool {
    let is_object = |text: &str, holds: &dyn Fn(&Object) -> bool| {
        text.starts_with('{') && Object::parse(text).is_ok_and(|object| holds(&object))
    };
    match place {
        _ if text == "null" => true,
        Place::Scalars => is_flat(text),
        Place::Flag => matches!(text, "true" | "false"),
        Place::Kept => {
            let is_flat_object = |object: &Object| {
                let is_flat =
                    |member: &Member| member.key.len() <= NAME_BYTES_MAX && is_flat(member.value);
                object.members.iter().all(is_flat) && !has_twins(object)
            };
            is_flat(text) || is_object(text, &is_flat_object)
        }
        Place::Object(members) => is_object(text, &|object| is_regular_object(object, members)),
        Place::Objects(members) => array_items(text).is_some_and(|items| {
            let fits = |item: &&str| is_object(item, &|object| is_regular_object(object, members));
            items.iter().all(fits)
        }),
    }
}

/// Whether a value is a scalar or a list of them.
fn is_flat(text: &str) -> bool {
    if !text.starts_with('[') {
        return is_scalar(text);
    }
    // Brackets in strings are rare enough for a second look.
    (text.len() <= NUMBER_BYTES_MAX && memchr::memchr2(b'[', b'{', &text.as_bytes()[1..]).is_none())
        || array_items(text).is_some_and(|items| items.into_iter().all(is_scalar))
}

fn is_scalar(text: &str) -> bool {
    match text.as_bytes().first() {
        Some(b'{' | b'[') => false,
        Some(b'"') => true,
        _ => text.len() <= NUMBER_BYTES_MAX,
    }
}

/// Whether a name is that of one field: at dots the service makes objects.
fn is_plain(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('.')
}

/// Whether two members have the same name. The service does not take that.
fn has_twins(object: &Object) -> bool {
    let members = &object.members;
    let is_written_plainly = |member: &Member| !member.key.contains('\\');
    if members.len() <= 16 && members.iter().all(is_written_plainly) {
        let mut later = members.iter();
        while let Some(one) = later.next() {
            if later.clone().any(|other| other.key == one.key) {
                return true;
            }
        }
        return false;
    }
    let mut names: Vec<Cow<str>> = members.iter().map(Member::name).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1])
}

struct Shaping {
    extent: Extent,
    /// Whether the document says all that the record does.
    is_whole: bool,
}

impl Shaping {
    /// Writes `members` into an object with the members `known`.
    fn members<'a>(
        &mut self,
        out: &mut ObjectWriter,
        members: impl Iterator<Item = Member<'a>>,
        known: Members,
        is_top: bool,
    ) {
        let mut free = Fields::default();
        let mut written: Vec<&str> = Vec::new();
        for Member { key, value } in members {
            let name = Member { key, value }.name();
            match place_of(known, &name) {
                // Of two with one name, the first.
                Some((name, _)) if written.contains(&name) => self.is_whole = false,
                Some((name, place)) if self.known(out, name, value, place) => written.push(name),
                // A scalar of another type has no other place here.
                Some((_, place)) if !matches!(place, Place::Scalars) => self.is_whole = false,
                // What is in it may have the name, too.
                Some((name, _)) => {
                    written.push(name);
                    free.take(name, value, false);
                }
                None => free.take(&name, value, is_top),
            }
        }
        self.is_whole &= free.is_whole;
        match self.extent {
            Extent::Whole => free.write(out),
            Extent::Named => self.is_whole &= free.fields.is_empty(),
        }
    }

    /// Writes a member that is known, unless its value has no form for the place.
    fn known(&mut self, out: &mut ObjectWriter, name: &str, text: &str, place: Place) -> bool {
        match place {
            // Even of one that fits not all may be wanted.
            Place::Object(members) if text != "null" => {
                out.object(name, |inner| self.object(inner, text, members));
            }
            Place::Objects(members) if text != "null" => {
                let items = array_items(text).unwrap_or_else(|| vec![text]);
                out.array(name, items, |inner, item| self.object(inner, item, members));
            }
            _ if fits(text, place) => {
                out.raw(name, text);
            }
            _ => return false,
        }
        true
    }

    /// Writes the members of what is to be an object.
    fn object(&mut self, out: &mut ObjectWriter, text: &str, known: Members) {
        match Object::parse(text) {
            Ok(object) => self.members(out, object.members.into_iter(), known, false),
            Err(_) => {
                let (key, value) = (VALUE_KEY, text);
                self.members(out, [Member { key, value }].into_iter(), known, false);
            }
        }
    }
}

/// Fields that the template does not name, with their values.
#[derive(Debug)]
struct Fields<'a> {
    fields: Vec<(String, Vec<&'a str>)>,
    /// Where each name stands in `fields`.
    places: HashMap<String, usize>,
    /// Of all fields.
    values: usize,
    /// Whether they say all that was taken.
    is_whole: bool,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields {
            fields: Vec::new(),
            places: HashMap::new(),
            values: 0,
            is_whole: true,
        }
    }
}

impl<'a> Fields<'a> {
    /// Takes a member of any name with any value.
    fn take(&mut self, name: &str, value: &'a str, is_top: bool) {
        let mut field = name.replace('.', "/");
        if field.trim().is_empty() || (is_top && is_of_the_service(&field)) {
            field.insert(0, '/');
        }
        let is_twin = self.places.contains_key(&field);
        self.is_whole &= field == name && is_flat(value) && !is_twin;
        self.add(&field, value, 0);
    }

    /// Adds a value under a name; of a compound one, what is in it.
    fn add(&mut self, name: &str, value: &'a str, depth: usize) {
        if is_flat(value) {
            self.add_flat(name, value);
        } else if depth == DEPTH_MAX {
            self.is_whole = false;
        } else if let Some(items) = array_items(value) {
            for item in items {
                self.add(name, item, depth + 1);
            }
        } else if let Ok(object) = Object::parse(value) {
            for member in object.members {
                let inner = format!("{name}/{}", member.name().replace('.', "/"));
                self.add(&inner, member.value, depth + 1);
            }
        } else {
            self.is_whole = false;
        }
    }

    fn add_flat(&mut self, name: &str, value: &'a str) {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None if self.fields.len() == FIELDS_MAX || name.len() > NAME_BYTES_MAX => {
                self.is_whole = false;
                return;
            }
            None => {
                self.fields.push((name.to_owned(), Vec::new()));
                self.places.insert(name.to_owned(), self.fields.len() - 1);
                self.fields.len() - 1
            }
        };
        if self.values == VALUES_MAX {
            self.is_whole = false;
            return;
        }
        self.values += 1;
        self.fields[place].1.push(value);
    }

    fn write(&self, out: &mut ObjectWriter) {
        for (name, values) in &self.fields {
            match &values[..] {
                [value] => out.raw(name, value),
                values => {
                    let items = values.iter().map(|value| items_of(value));
                    let items: Vec<&str> = items.filter(|items| !items.is_empty()).collect();
                    out.raw(name, &format!("[{}]", items.join(",")))
                }
            };
        }
    }
}

/// A scalar, or what stands in a list of them.
fn items_of(flat: &str) -> &str {
    let list = flat
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    list.map_or(flat, str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn shaped(record: &str, extent: Extent) -> Value {
        let mut out = Vec::new();
        let mut document = ObjectWriter::new(&mut out);
        write(
            &mut document,
            &Object::parse(record).unwrap(),
            &["timestamp"],
            extent,
        );
        document.end();
        serde_json::from_slice(&out).unwrap()
    }

    fn is_regular(record: &str) -> bool {
        super::is_regular(&Object::parse(record).unwrap())
    }

    #[test]
    fn what_is_flat_stays_as_it_is() {
        for record in [
            r#"{"messageId":"a","modelInput":{"x":1.10,"y":"[{","z":[1,"a",null],"w":["[",2]}}"#,
            r#"{"modelResult":null,"result":{"modelName":"m","result":[1,2],"probabilities":{"a.b":0.1}}}"#,
            r#"{"candidates":[],"provenance":{"model":{"rescored":true},"other":7},"region":"north"}"#,
            r#"{"candidates":[{"modelName":"m","error":{"message":"no"},"shadow":false,"note":1}]}"#,
        ] {
            assert!(is_regular(record), "{record}");
            let expected: Value = serde_json::from_str(record).unwrap();
            assert_eq!(shaped(record, Extent::Whole), expected);
        }
    }

    #[test]
    fn an_object_becomes_fields_beside_the_others() {
        for (member, expected) in [
            (
                r#""modelInput":{"size":{"cm":5,"of":{"b.c":[1,{"d":2},{"d":3}]}},"x":1}"#,
                json!({"modelInput": {"size/cm": 5, "size/of/b/c": 1, "size/of/b/c/d": [2, 3], "x": 1}}),
            ),
            (
                r#""modelInput":{"a.b":1,"a":{"b":2},"":3," ":4,"x":1,"x":2}"#,
                json!({"modelInput": {"a/b": [1, 2], "/": 3, "/ ": 4, "x": [1, 2]}}),
            ),
            (
                r#""modelResult":{"modelName":{"no":1},"result":{"label":"spam","score":0.9},"probabilities":{"a":{}}}"#,
                json!({"modelResult": {"modelName/no": 1, "result/label": "spam", "result/score": 0.9}}),
            ),
            (
                r#""candidates":[{"result":{"result":[[1]]},"fate":"used","shadow":"no"},7]"#,
                json!({"candidates": [{"result": {"result": [1]}, "fate": "used"}, {"value": 7}]}),
            ),
            (
                r#""modelInput":{"x":[[],[ ],[1,2],3,[]]}"#,
                json!({"modelInput": {"x": [1, 2, 3]}}),
            ),
            (
                r#""result":{"modelName":[[1]],"modelName":2}"#,
                json!({"result": {"modelName": [1]}}),
            ),
            (
                r#""_id":1,"asReceived":2,"region":{"a":1},"modelResult":3"#,
                json!({"/_id": 1, "/asReceived": 2, "region/a": 1, "modelResult": {"value": 3}}),
            ),
        ] {
            let record = format!("{{\"timestamp\":1,{member}}}");
            assert!(!is_regular(&record), "{record}");
            let mut expected = expected;
            expected[AS_RECEIVED] = json!(record);
            // That is_whole can tell, is checked below.
            let mut found = shaped(&record, Extent::Whole);
            if found.get(AS_RECEIVED).is_none() {
                found[AS_RECEIVED] = json!(record);
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_record_is_kept_as_it_came_where_the_document_says_less() {
        for (member, is_kept) in [
            (r#""modelInput":5"#, false),
            (r#""modelInput":[1,2]"#, false),
            (r#""modelInput":{"a":{"b":1}}"#, true),
            (r#""modelInput":[[1]]"#, true),
            (r#""modelInput":{"a":{}}"#, true),
            (r#""modelInput":{"a.b":1}"#, true),
            (r#""provenance":{"model":{"rescored":1}}"#, true),
        ] {
            let record = format!("{{{member}}}");
            let found = shaped(&record, Extent::Whole);
            assert_eq!(found.get(AS_RECEIVED).is_some(), is_kept, "{record}");
        }
        let long = format!(r#"{{"result":{{"result":{}}}}}"#, "1".repeat(2000));
        assert_eq!(
            shaped(&long, Extent::Whole),
            json!({"result": {}, AS_RECEIVED: long})
        );
    }

    #[test]
    fn named_fields_alone_can_be_had() {
        let record = r#"{"messageId":"a","region":1,"modelInput":{"x":1},"result":{"modelName":"m","result":1,"more":2}}"#;
        assert_eq!(
            shaped(record, Extent::Named),
            json!({"messageId": "a", "modelInput": {}, "result": {"modelName": "m", "result": 1}, AS_RECEIVED: record})
        );
        let named = r#"{"messageId":"a","result":{"modelName":"m"}}"#;
        let expected: Value = serde_json::from_str(named).unwrap();
        assert_eq!(shaped(named, Extent::Named), expected);
    }

    #[test]
    fn what_is_deep_or_much_is_bounded() {
        let deep = format!(
            r#"{{"modelInput":{{"a":{}1{}}}}}"#,
            "[".repeat(50_000),
            "]".repeat(50_000)
        );
        assert_eq!(
            shaped(&deep, Extent::Whole),
            json!({"modelInput": {}, AS_RECEIVED: deep})
        );
        let many: Vec<String> = (0..5000).map(|number| format!("\"k{number}\":1")).collect();
        let many = format!("{{\"modelInput\":{{\"a\":{{{}}}}}}}", many.join(","));
        let found = shaped(&many, Extent::Whole);
        assert_eq!(found["modelInput"].as_object().unwrap().len(), FIELDS_MAX);
        let values = format!("{{\"x\":[[{}0]]}}", "0,".repeat(2 * VALUES_MAX));
        assert!(shaped(&values, Extent::Whole)[AS_RECEIVED].is_string());
    }

    /// JSON of any shape, with names that stand for something.
    fn any_json() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            "[a-c]{1,2}",
            prop_oneof![
                Just("result"),
                Just("modelName"),
                Just("probabilities"),
                Just("value"),
                Just("a.b"),
                Just(""),
                Just("_id"),
                Just("rescored"),
                Just("error"),
                Just("a/b"),
                Just("asReceived"),
                Just("\\u0061"),
                Just("\\ud800"),
            ]
            .prop_map(str::to_owned),
        ];
        let scalar = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?[1-9][0-9]{0,20}",
            Just("1e400".to_owned()),
            "\"[a-z\\[{]{0,4}\"",
        ];
        scalar.prop_recursive(5, 40, 4, move |inner| {
            let member = (name.clone(), inner.clone())
                .prop_map(|(name, value)| format!("\"{name}\":{value}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..4)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                proptest::collection::vec(member, 0..4)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_document_is_one_that_the_template_takes(
            values in proptest::collection::vec(any_json(), 8),
            named in any::<bool>(),
        ) {
            let names = ["modelInput", "result", "error", "modelResult", "candidates",
                "provenance", "agreement", "region"];
            let members: Vec<String> = names.iter().zip(&values)
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            let record = format!("{{{}}}", members.join(","));
            let extent = if named { Extent::Named } else { Extent::Whole };
            let mut out = Vec::new();
            let mut document = ObjectWriter::new(&mut out);
            write(&mut document, &Object::parse(&record).unwrap(), &[], extent);
            document.end();
            let text = String::from_utf8(out).unwrap();
            let document = Object::parse(&text).unwrap();
            let mut rest = document.clone();
            rest.members.retain(|member| !member.is(AS_RECEIVED));
            prop_assert!(super::is_regular(&rest), "{}", text);
            let kept = document.get(AS_RECEIVED);
            if is_regular(&record) && !named {
                let [found, given]: [Value; 2] =
                    [&text, &record].map(|text| serde_json::from_str(text).unwrap_or_default());
                prop_assert_eq!(found, given);
                prop_assert_eq!(kept, None);
            }
            if let Some(kept) = kept {
                let kept = crate::wire::object::decode_string(kept).unwrap();
                prop_assert_eq!(&*kept, &*record);
            }
        }
    }
}
