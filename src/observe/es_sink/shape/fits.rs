//! Checks whether a value fits the field that the template maps.

use std::borrow::Cow;

use crate::observe::es_sink::schema::{AS_RECEIVED, FieldType, Fields};
use crate::wire::object::{Member, Object, array_items};

/// The longest name of a field, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest number, in bytes. The service cannot read records with longer ones.
const NUMBER_BYTES_MAX: usize = 300;

/// Whether the service or the sink reserves the name of a document's member.
pub fn has_service_name(name: &str) -> bool {
    name.starts_with('_') || name == AS_RECEIVED
}

/// The type to which the template maps a name, with the name.
pub fn field_type(mapped: Fields, name: &str) -> Option<(&'static str, FieldType)> {
    mapped.iter().find(|(known, _)| *known == name).copied()
}

/// Whether an object fits a field that the template maps with the fields `mapped`.
pub fn is_regular_object(object: &Object, mapped: Fields) -> bool {
    let is_regular = |member: &Member| {
        let name = member.name();
        match field_type(mapped, &name) {
            Some((_, kind)) => fits(member.value, kind),
            None => is_one_field(&name) && is_flat(member.value),
        }
    };
    object.members.iter().all(is_regular) && !has_duplicate_names(object)
}

/// Whether a field of this type takes scalars and lists of scalars.
pub fn takes_scalars(kind: FieldType) -> bool {
    match kind {
        FieldType::Keyword
        | FieldType::Text
        | FieldType::Date
        | FieldType::Double
        | FieldType::Long
        | FieldType::ModelResult => true,
        FieldType::Boolean
        | FieldType::NotIndexed
        | FieldType::Object(_)
        | FieldType::Nested(_) => false,
    }
}

/// Whether a field of this type accepts a value unchanged.
pub fn fits(text: &str, kind: FieldType) -> bool {
    let is_object = |text: &str, holds: &dyn Fn(&Object) -> bool| {
        text.starts_with('{') && Object::parse(text).is_ok_and(|object| holds(&object))
    };
    match kind {
        _ if text == "null" => true,
        _ if takes_scalars(kind) => is_flat(text),
        FieldType::Boolean => matches!(text, "true" | "false"),
        FieldType::Object(fields) => is_object(text, &|object| is_regular_object(object, fields)),
        FieldType::Nested(fields) => array_items(text).is_some_and(|items| {
            let fits = |item: &&str| is_object(item, &|object| is_regular_object(object, fields));
            items.iter().all(fits)
        }),
        _ => is_flat(text) || is_object(text, &is_flat_object),
    }
}

/// Whether an object holds only scalars and lists of scalars.
fn is_flat_object(object: &Object) -> bool {
    let is_flat = |member: &Member| member.key.len() <= NAME_BYTES_MAX && is_flat(member.value);
    object.members.iter().all(is_flat) && !has_duplicate_names(object)
}

/// Whether a value is a scalar or a list of scalars.
pub fn is_flat(text: &str) -> bool {
    if !text.starts_with('[') {
        return is_scalar(text);
    }
    // This check of the bytes is quick. Only a list with a bracket in a string must be
    // parsed, and this is rare.
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

/// Whether the service makes one field from a name. The service treats a dot in a name
/// as a separator of objects.
fn is_one_field(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('.')
}

/// Whether two members have the same name. The service refuses such objects.
fn has_duplicate_names(object: &Object) -> bool {
    let members = &object.members;
    let has_no_escapes = |member: &Member| !member.key.contains('\\');
    if members.len() <= 16 && members.iter().all(has_no_escapes) {
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
