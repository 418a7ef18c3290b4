//! The index template: how the fields of requests, scores, responses and decisions
//! are mapped. One for all, since each has only more fields than the one before.

use serde_json::{Value, json};

use crate::observe::es_sink::setup::{Treatment, Wanted};
use crate::observe::es_sink::shape::AS_RECEIVED;

/// Marks what this program has made.
pub const MADE_BY: &str = "rv-es-sink";

/// Above the templates that Elasticsearch brings along.
const PRIORITY: u32 = 200;

/// Longer texts are kept, and cannot be searched. The service takes no term above
/// 32 KiB.
const KEYWORD_CHARS_MAX: u32 = 1024;

/// The service's own limit is half of it, but each field of an input counts twice,
/// as a number and as a label. Names without end would make the service slow.
const FIELDS_MAX: u32 = 2000;

/// The template as the service wants it.
pub fn template(wanted: &Wanted) -> Value {
    let mut settings = json!({"index.mapping.total_fields.limit": FIELDS_MAX});
    if let Some(pipeline) = wanted.pipeline {
        settings["index.default_pipeline"] = json!(pipeline);
    }
    let mut properties = properties(wanted.results);
    let mut template = json!({
        "index_patterns": wanted.patterns,
        "priority": PRIORITY,
        "_meta": {"madeBy": MADE_BY, "version": env!("CARGO_PKG_VERSION")},
    });
    if wanted.data_stream {
        template["data_stream"] = json!({});
        properties["@timestamp"] = date();
    }
    template["template"] = json!({
        "settings": settings,
        "mappings": {
            "dynamic": wanted.unknown_fields == Treatment::Searchable,
            // What looks like a date or a number is what the record says it is.
            "date_detection": false,
            "numeric_detection": false,
            "dynamic_templates": dynamic_templates(wanted.results),
            "properties": properties,
        },
    });
    template
}

/// For fields that have no mapping of their own. Whatever comes first, each is
/// mapped alike: a number where its value is one, and a label of any scalar.
fn dynamic_templates(results: Treatment) -> Value {
    let free = json!({
        "type": "double",
        "ignore_malformed": true,
        "coerce": false,
        "fields": {"label": keyword()},
    });
    let of_type = |kind: &str| {
        let of_type = json!({"match_mapping_type": kind, "mapping": free});
        json!({ format!("any-{kind}"): of_type })
    };
    let mut templates: Vec<Value> = ["long", "double", "boolean", "string"].map(of_type).into();
    if results == Treatment::Kept {
        // What the sink makes of results that are objects.
        let kept = json!({"type": "keyword", "index": false, "doc_values": false});
        templates.insert(
            0,
            json!({"results": {"match": "result/*", "mapping": kept}}),
        );
    }
    templates.into()
}

fn properties(results: Treatment) -> Value {
    let answer = json!({
        "properties": {
            "modelName": keyword(),
            "result": result(results),
            "confidence": double(),
            // As many names as there are classes.
            "probabilities": kept(),
        },
    });
    let failure = json!({
        "properties": {"modelName": keyword(), "message": {"type": "text"}},
    });
    json!({
        "messageId": keyword(),
        "timestamp": date(),
        "returnAddress": keyword(),
        "scoreTopic": keyword(),
        "modelInput": {"type": "object"},
        "result": answer,
        "error": failure,
        "previous": answer,
        "modelResult": answer,
        "candidates": {
            // Each by itself, and all of a decision together.
            "type": "nested",
            "include_in_root": true,
            "properties": {
                "modelName": keyword(),
                "modelVersion": whole(),
                "modelHash": keyword(),
                "arrivedAfter": double(),
                "fate": keyword(),
                "shadow": {"type": "boolean"},
                "result": answer,
                "error": failure,
            },
        },
        "agreement": {"properties": {"same": keyword(), "different": keyword()}},
        "provenance": {
            "properties": {
                "model": {
                    "properties": {
                        "modelName": keyword(),
                        "modelVersion": whole(),
                        "modelHash": keyword(),
                        "elapsedTimeAfterRequest": double(),
                        "evaluationTime": double(),
                        "rescored": {"type": "boolean"},
                    },
                },
                "rendezvous": {
                    "properties": {
                        "modelVersion": whole(),
                        "reason": keyword(),
                        "answeredAfter": double(),
                        "policyHash": keyword(),
                    },
                },
            },
        },
        AS_RECEIVED: kept(),
    })
}

/// A number; what is none is in the document, and that is all.
fn double() -> Value {
    json!({"type": "double", "ignore_malformed": true})
}

fn whole() -> Value {
    json!({"type": "long", "ignore_malformed": true})
}

/// Not even looked at.
fn kept() -> Value {
    json!({"type": "object", "enabled": false})
}

/// A date that keeps its microseconds; it has to lie between 1970 and 2262.
fn date() -> Value {
    json!({"type": "date_nanos"})
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": KEYWORD_CHARS_MAX})
}

/// A label, or a number: both as it is written and, where it is one, as a number.
fn result(results: Treatment) -> Value {
    match results {
        Treatment::Kept => kept(),
        Treatment::Searchable => json!({
            "type": "keyword",
            "ignore_above": KEYWORD_CHARS_MAX,
            "fields": {"number": {"type": "double", "ignore_malformed": true}},
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plain() -> Value {
        template(&Wanted {
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
        let kept = template(&Wanted {
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
