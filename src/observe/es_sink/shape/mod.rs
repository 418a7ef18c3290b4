//! record -> a document that every index with the template of `setup` accepts, whichever
//! records were sent first.
//!
//! An index has one mapping for each field. If an earlier record had a number in a field,
//! the index refuses a record with an object in this field. So a document has objects
//! only in fields that the template maps to objects. In other fields (the members of
//! `modelInput`, results, unmapped members) an object is split into several fields:
//! `{"size":{"cm":5}}` becomes `{"size/cm":5}`. Scalars and lists of scalars are not
//! changed. The template maps each of them both as a number and as a label.

mod fits;
mod free_fields;
#[cfg(test)]
mod tests;

use crate::observe::es_sink::schema::{AS_RECEIVED, FieldType, Fields, RECORD};
use crate::observe::es_sink::shape::fits::{
    field_type, fits, has_service_name, is_regular_object, takes_scalars,
};
use crate::observe::es_sink::shape::free_fields::FreeFields;
use crate::wire::object::{Member, Object, ObjectWriter, array_items};

/// If the template maps a field to an object and the value is not an object, the
/// document has an object there. This object holds the value under this key.
const VALUE_KEY: &str = "\"value\"";

/// The fields of a record that are indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexedFields {
    /// All fields.
    All,
    /// Only the fields that the template maps. The original record is stored, too.
    Mapped,
}

/// Whether the record already is such a document.
pub fn is_regular(record: &Object) -> bool {
    let has_service_name = |member: &Member| has_service_name(&member.name());
    !record.members.iter().any(has_service_name) && is_regular_object(record, RECORD)
}

/// Writes the members of a record, except the `dropped` names, which the caller appends.
/// If something of the record is missing in the document, the document also gets the
/// record as a text.
pub fn write(
    document: &mut ObjectWriter,
    record: &Object,
    dropped: &[&str],
    fields: IndexedFields,
) {
    let mut shaping = Shaping {
        fields,
        is_whole: true,
    };
    let kept = record.members.iter();
    let kept = kept.filter(|member| !dropped.contains(&&*member.name()));
    shaping.members(document, kept.copied(), RECORD, true);
    if !shaping.is_whole {
        document.string(AS_RECEIVED, record.text());
    }
}

struct Shaping {
    fields: IndexedFields,
    /// Whether the document contains everything in the record.
    is_whole: bool,
}

impl Shaping {
    /// Writes `members` into an object that the template maps with the fields `mapped`.
    fn members<'a>(
        &mut self,
        out: &mut ObjectWriter,
        members: impl Iterator<Item = Member<'a>>,
        mapped: Fields,
        is_top: bool,
    ) {
        let mut free = FreeFields::default();
        let mut written: Vec<&str> = Vec::new();
        for Member { key, value } in members {
            let name = Member { key, value }.name();
            match field_type(mapped, &name) {
                // If two members have one name, the first counts.
                Some((name, _)) if written.contains(&name) => self.is_whole = false,
                Some((name, kind)) if self.write_mapped(out, name, value, kind) => {
                    written.push(name);
                }
                // A value that does not fit is left out if the field takes no scalars.
                Some((_, kind)) if !takes_scalars(kind) => self.is_whole = false,
                // The scalars in the value may fit.
                Some((name, _)) => {
                    written.push(name);
                    free.take(name, value, false);
                }
                None => free.take(&name, value, is_top),
            }
        }
        self.is_whole &= free.is_whole();
        match self.fields {
            IndexedFields::All => free.write(out),
            IndexedFields::Mapped => self.is_whole &= free.is_empty(),
        }
    }

    /// Writes a mapped member. Returns false, and writes nothing, if its value does not fit.
    fn write_mapped(
        &mut self,
        out: &mut ObjectWriter,
        name: &str,
        text: &str,
        kind: FieldType,
    ) -> bool {
        match kind {
            // An object that fits may contain members that must be moved or
            // dropped.
            FieldType::Object(fields) if text != "null" => {
                out.object(name, |inner| self.write_object(inner, text, fields));
            }
            FieldType::Nested(fields) if text != "null" => {
                let items = array_items(text).unwrap_or_else(|| vec![text]);
                out.array(name, items, |inner, item| {
                    self.write_object(inner, item, fields);
                });
            }
            _ if fits(text, kind) => {
                out.raw(name, text);
            }
            _ => return false,
        }
        true
    }

    /// Writes the members of a value that the template maps to an object.
    fn write_object(&mut self, out: &mut ObjectWriter, text: &str, mapped: Fields) {
        match Object::parse(text) {
            Ok(object) => self.members(out, object.members.into_iter(), mapped, false),
            Err(_) => {
                let (key, value) = (VALUE_KEY, text);
                self.members(out, [Member { key, value }].into_iter(), mapped, false);
            }
        }
    }
}
