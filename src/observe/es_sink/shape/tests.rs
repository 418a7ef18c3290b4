//! Records of any form become documents that the template accepts.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::observe::es_sink::shape::free_fields::{FIELDS_MAX, VALUES_MAX};

fn shaped(record: &str, fields: IndexedFields) -> Value {
    let mut out = Vec::new();
    let mut document = ObjectWriter::new(&mut out);
    write(
        &mut document,
        &Object::parse(record).unwrap(),
        &["timestamp"],
        fields,
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
        r#"{"modelResult":null,"modelError":{"modelName":"m","status":422,"body":{"detail":"no"}}}"#,
        r#"{"candidates":[{"error":{"status":422,"body":"no"},"fate":"used"}]}"#,
    ] {
        assert!(is_regular(record), "{record}");
        let expected: Value = serde_json::from_str(record).unwrap();
        assert_eq!(shaped(record, IndexedFields::All), expected);
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
            r#""modelError":{"status":422,"body":{"detail":[{"loc":["body",0]}]}}"#,
            json!({"modelError": {"status": 422}}),
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
        // Another test checks `asReceived`.
        let mut found = shaped(&record, IndexedFields::All);
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
        let found = shaped(&record, IndexedFields::All);
        assert_eq!(found.get(AS_RECEIVED).is_some(), is_kept, "{record}");
    }
    let long = format!(r#"{{"result":{{"result":{}}}}}"#, "1".repeat(2000));
    assert_eq!(
        shaped(&long, IndexedFields::All),
        json!({"result": {}, AS_RECEIVED: long})
    );
}

#[test]
fn mapped_fields_alone_can_be_written() {
    let record = r#"{"messageId":"a","region":1,"modelInput":{"x":1},"result":{"modelName":"m","result":1,"more":2}}"#;
    assert_eq!(
        shaped(record, IndexedFields::Mapped),
        json!({"messageId": "a", "modelInput": {}, "result": {"modelName": "m", "result": 1}, AS_RECEIVED: record})
    );
    let named = r#"{"messageId":"a","result":{"modelName":"m"}}"#;
    let expected: Value = serde_json::from_str(named).unwrap();
    assert_eq!(shaped(named, IndexedFields::Mapped), expected);
}

#[test]
fn what_is_deep_or_much_is_bounded() {
    let deep = format!(
        r#"{{"modelInput":{{"a":{}1{}}}}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    assert_eq!(
        shaped(&deep, IndexedFields::All),
        json!({"modelInput": {}, AS_RECEIVED: deep})
    );
    let many: Vec<String> = (0..5000).map(|number| format!("\"k{number}\":1")).collect();
    let many = format!("{{\"modelInput\":{{\"a\":{{{}}}}}}}", many.join(","));
    let found = shaped(&many, IndexedFields::All);
    assert_eq!(found["modelInput"].as_object().unwrap().len(), FIELDS_MAX);
    let values = format!("{{\"x\":[[{}0]]}}", "0,".repeat(2 * VALUES_MAX));
    assert!(shaped(&values, IndexedFields::All)[AS_RECEIVED].is_string());
}

/// JSON of any form. Many of its names have a meaning for the sink or the service.
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
        let member =
            (name.clone(), inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
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
    fn the_template_accepts_every_document(
        values in proptest::collection::vec(any_json(), 8),
        named in any::<bool>(),
    ) {
        let names = ["modelInput", "result", "error", "modelResult", "modelError", "candidates",
            "provenance", "agreement", "region"];
        let members: Vec<String> = names.iter().zip(&values)
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        let record = format!("{{{}}}", members.join(","));
        let fields = if named { IndexedFields::Mapped } else { IndexedFields::All };
        let mut out = Vec::new();
        let mut document = ObjectWriter::new(&mut out);
        write(&mut document, &Object::parse(&record).unwrap(), &[], fields);
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
