//! The index template: how the fields of requests, scores, responses and decisions
//! are mapped. One for all, since each has only more fields than the one before.

use serde_json::{Value, json};

use crate::observe::es_sink::setup::{Treatment, Wanted};

/// Marks what this program has made.
pub const MADE_BY: &str = "rv-es-sink";

/// Above the templates that Elasticsearch brings along.
const PRIORITY: u32 = 200;

/// Longer texts are kept, and cannot be searched. The service takes no term above
/// 32 KiB.
const KEYWORD_CHARS_MAX: u32 = 1024;

/// The template as the service wants it.
pub fn template(wanted: &Wanted) -> Value {
    let mut settings = json!({});
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
            "dynamic_templates": dynamic_templates(),
            "properties": properties,
        },
    });
    template
}

/// For fields that have no mapping of their own: 1 today and 1.5 tomorrow are
/// numbers both.
fn dynamic_templates() -> Value {
    json!([
        {"numbers": {"match_mapping_type": "long", "mapping": {"type": "double"}}},
        {"fractions": {"match_mapping_type": "double", "mapping": {"type": "double"}}},
        {"texts": {"match_mapping_type": "string", "mapping": keyword()}},
    ])
}

fn properties(results: Treatment) -> Value {
    let answer = json!({
        "properties": {
            "modelName": keyword(),
            "result": result(results),
            "confidence": {"type": "double"},
            // As many names as there are classes.
            "probabilities": {"type": "object", "enabled": false},
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
        "result": answer,
        "error": failure,
        "modelResult": answer,
        "candidates": {
            "properties": {
                "modelName": keyword(),
                "modelVersion": {"type": "long"},
                "modelHash": keyword(),
                "arrivedAfter": {"type": "double"},
                "fate": keyword(),
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
                        "modelVersion": {"type": "long"},
                        "modelHash": keyword(),
                        "elapsedTimeAfterRequest": {"type": "double"},
                        "evaluationTime": {"type": "double"},
                        "rescored": {"type": "boolean"},
                    },
                },
                "rendezvous": {
                    "properties": {
                        "modelVersion": {"type": "long"},
                        "reason": keyword(),
                        "answeredAfter": {"type": "double"},
                        "policyHash": keyword(),
                    },
                },
            },
        },
    })
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
        Treatment::Kept => json!({"type": "object", "enabled": false}),
        Treatment::Searchable => json!({
            "type": "keyword",
            "ignore_above": KEYWORD_CHARS_MAX,
            "fields": {"number": {"type": "double", "ignore_malformed": true}},
        }),
    }
}
