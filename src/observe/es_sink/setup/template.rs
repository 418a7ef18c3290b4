//! The index template, which maps the fields of requests, scores, responses and
//! decisions. All four share one template, because each kind of record has the fields
//! of the kinds before it.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::observe::es_sink::schema::{AS_RECEIVED, DATA_STREAM_TIME, FieldType, Fields, RECORD};

/// Marks the templates of this program.
pub const MADE_BY: &str = "rv-es-sink";

/// The priority, which is higher than that of Elasticsearch's own templates.
const PRIORITY: u32 = 200;

/// The longest text that is indexed, in characters. Longer texts are only stored. The
/// service accepts no term above 32 KiB.
const KEYWORD_CHARS_MAX: u32 = 1024;

/// The limit of fields. It is twice the service's default, since each field of an input
/// counts twice: as a number and as a label. Without a limit, endless names would make
/// the service slow.
const FIELDS_MAX: u32 = 2000;

/// How the service indexes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Treatment {
    /// It can be searched
    Searchable,
    /// It is stored only
    Kept,
}

/// The options of a template.
#[derive(Clone, Copy, Debug)]
pub struct TemplateOptions<'a> {
    /// The patterns of the names to which the template applies.
    pub patterns: &'a [String],
    /// Whether the names become data streams.
    pub data_stream: bool,
    /// How unmapped fields are indexed.
    pub unknown_fields: Treatment,
    /// How the results of models are indexed.
    pub results: Treatment,
    /// The ingest pipeline that the service runs on every document.
    pub pipeline: Option<&'a str>,
}

/// The template, in the form of the service's API.
pub fn template(wanted: &TemplateOptions) -> Value {
    let mut settings = json!({"index.mapping.total_fields.limit": FIELDS_MAX});
    if let Some(pipeline) = wanted.pipeline {
        settings["index.default_pipeline"] = json!(pipeline);
    }
    let mut properties = properties(RECORD, wanted.results);
    properties.insert(AS_RECEIVED.to_owned(), not_indexed());
    let mut template = json!({
        "index_patterns": wanted.patterns,
        "priority": PRIORITY,
        "_meta": {"madeBy": MADE_BY, "version": env!("CARGO_PKG_VERSION")},
    });
    if wanted.data_stream {
        template["data_stream"] = json!({});
    } else {
        properties.remove(DATA_STREAM_TIME);
    }
    template["template"] = json!({
        "settings": settings,
        "mappings": {
            "dynamic": wanted.unknown_fields == Treatment::Searchable,
            // A string that looks like a date or a number stays a string.
            "date_detection": false,
            "numeric_detection": false,
            "dynamic_templates": dynamic_templates(wanted.results),
            "properties": properties,
        },
    });
    template
}

/// The mapping of unmapped fields. Whichever value is sent first, a field becomes a
/// number (for values that are numbers) and a label (for all scalars).
fn dynamic_templates(results: Treatment) -> Value {
    let free = json!({
        "type": "double",
        "ignore_malformed": true,
        "coerce": false,
        "fields": {"label": field(FieldType::Keyword, results)},
    });
    let of_type = |kind: &str| {
        let of_type = json!({"match_mapping_type": kind, "mapping": free});
        json!({ format!("any-{kind}"): of_type })
    };
    let mut templates: Vec<Value> = ["long", "double", "boolean", "string"].map(of_type).into();
    if results == Treatment::Kept {
        // The sink makes these fields from results that are objects.
        let kept = json!({"type": "keyword", "index": false, "doc_values": false});
        templates.insert(
            0,
            json!({"results": {"match": "result/*", "mapping": kept}}),
        );
    }
    templates.into()
}

/// The mapping of an object's members.
fn properties(fields: Fields, results: Treatment) -> Map<String, Value> {
    let property = |(name, kind): &(&str, FieldType)| ((*name).to_owned(), field(*kind, results));
    fields.iter().map(property).collect()
}

/// The mapping of a field.
fn field(kind: FieldType, results: Treatment) -> Value {
    match kind {
        FieldType::Keyword => json!({"type": "keyword", "ignore_above": KEYWORD_CHARS_MAX}),
        FieldType::Text => json!({"type": "text"}),
        // The type accepts dates from 1970 to 2262.
        FieldType::Date => json!({"type": "date_nanos"}),
        FieldType::Double => json!({"type": "double", "ignore_malformed": true}),
        FieldType::Long => json!({"type": "long", "ignore_malformed": true}),
        FieldType::Boolean => json!({"type": "boolean"}),
        FieldType::ModelResult if results == Treatment::Kept => not_indexed(),
        FieldType::ModelResult => json!({
            "type": "keyword",
            "ignore_above": KEYWORD_CHARS_MAX,
            "fields": {"number": field(FieldType::Double, results)},
        }),
        FieldType::NotIndexed => not_indexed(),
        FieldType::Object([]) => json!({"type": "object"}),
        FieldType::Object(fields) => json!({"properties": properties(fields, results)}),
        FieldType::Nested(fields) => json!({
            // Each object can be searched separately, or all objects of a record
            // together.
            "type": "nested",
            "include_in_root": true,
            "properties": properties(fields, results),
        }),
    }
}

/// The mapping of a value that the service stores without indexing it.
fn not_indexed() -> Value {
    json!({"type": "object", "enabled": false})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plain() -> Value {
        template(&TemplateOptions {
            patterns: &["i".to_owned()],
            data_stream: false,
            unknown_fields: Treatment::Searchable,
            results: Treatment::Searchable,
            pipeline: None,
        })
    }

    /// Every text under `name`, at any depth.
    fn texts<'a>(value: &'a Value, name: &str, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    if key == name {
                        found.extend(value.as_str());
                    }
                    texts(value, name, found);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| texts(item, name, found)),
            _ => {}
        }
    }

    fn mapped(path: &str) -> bool {
        let template = plain();
        let mut at = &template["template"]["mappings"];
        for name in path.split('.') {
            at = &at["properties"][name];
        }
        at["type"].is_string()
    }

    #[test]
    fn what_is_asked_for_is_in_the_template() {
        let kept = template(&TemplateOptions {
            patterns: &["i".to_owned(), "i-*".to_owned()],
            data_stream: true,
            unknown_fields: Treatment::Kept,
            results: Treatment::Kept,
            pipeline: Some("p"),
        });
        assert_eq!(kept["index_patterns"], json!(["i", "i-*"]));
        assert_eq!(kept["data_stream"], json!({}));
        assert_eq!(kept["template"]["settings"]["index.default_pipeline"], "p");
        let mappings = &kept["template"]["mappings"];
        assert_eq!(mappings["dynamic"], false);
        assert_eq!(mappings["properties"]["@timestamp"]["type"], "date_nanos");
        let result = &mappings["properties"]["modelResult"]["properties"]["result"];
        assert_eq!(result["enabled"], false);
        assert_eq!(plain()["template"]["mappings"]["dynamic"], true);
        assert!(plain().get("data_stream").is_none());
    }

    #[test]
    fn the_dashboard_is_whole_and_asks_for_fields_that_are_mapped() {
        let file = include_str!("../../../../contrib/kibana/rv.ndjson");
        let objects: Vec<Value> = file
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let name = |object: &Value| format!("{}/{}", object["type"], object["id"]);
        let names: BTreeSet<String> = objects.iter().map(name).collect();
        assert_eq!(names.len(), objects.len());
        let (mut references, mut fields) = (0, 0);
        for object in &objects {
            for reference in object["references"].as_array().unwrap() {
                assert!(names.contains(&name(reference)), "{reference}");
                references += 1;
            }
            let attributes = &object["attributes"];
            let Some(state) = attributes["visState"].as_str() else {
                continue;
            };
            let state: Value = serde_json::from_str(state).unwrap();
            let mut found = BTreeSet::new();
            texts(&state, "field", &mut found);
            let source = attributes["kibanaSavedObjectMeta"]["searchSourceJSON"].as_str();
            let source: Value = serde_json::from_str(source.unwrap()).unwrap();
            let mut queries = BTreeSet::new();
            texts(&state, "query", &mut queries);
            texts(&source, "query", &mut queries);
            let of_queries = queries.iter().flat_map(|query| query.split(' '));
            found.extend(of_queries.filter(|word| word.contains('.')));
            for field in &found {
                assert!(mapped(field), "{field}");
            }
            fields += found.len();
        }
        assert!(references >= 10 && fields >= 10, "{references} {fields}");
    }
}
