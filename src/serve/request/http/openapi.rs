//! The OpenAPI description of the service with its present flags.

use std::net::SocketAddr;

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::serve::request::required_fields::RequiredFields;
use crate::stage::cli::VERSION;
use crate::wire::message::MESSAGE_ID_BYTES_MAX;

/// The parts of the configuration that a description depends on.
#[derive(Clone, Copy, Debug)]
pub struct ServiceDescription<'a> {
    /// The name of the header that holds the message id, if `--id-header` is given.
    pub id_header: Option<&'a str>,
    /// The path of `--plain`, if it is given.
    pub plain: Option<&'a str>,
    /// The name of the model in the Open Inference Protocol.
    pub served_name: &'a str,
    /// The longest body, in bytes.
    pub body_bytes_max: usize,
    /// The fields that a model input needs.
    pub required: &'a RequiredFields,
    /// Whether calls need a token.
    pub needs_token: bool,
}

/// The additional parts that a description of the second listener depends on.
#[derive(Clone, Copy, Debug)]
pub struct AdminDescription {
    /// The address of the first listener.
    pub calls: SocketAddr,
    /// Whether the paths of the second listener need a token.
    pub needs_token: bool,
}

impl ServiceDescription<'_> {
    /// Describes the paths of the first listener. With `admin`, also describes the
    /// paths of the second listener, and the address of the first.
    pub fn describe(&self, admin: Option<AdminDescription>) -> Bytes {
        let mut paths = Map::new();
        let mut add = |path: &str, item: Value| paths.insert(path.to_owned(), item);
        add("/ping", self.ping());
        add("/predict", self.predict());
        for (path, item) in self.other_surfaces() {
            add(&path, item);
        }
        if let Some(admin) = admin {
            let server = server_of(admin.calls);
            for item in paths.values_mut() {
                item["servers"] = json!([server]);
            }
            for (path, item) in self.admin_paths(admin.needs_token) {
                paths.insert(path.to_owned(), item);
            }
        }
        let needs_token = admin.map_or(self.needs_token, |admin| admin.needs_token);
        paths.insert("/openapi.json".to_owned(), self.openapi(needs_token));
        let mut document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "rv-request",
                "version": VERSION,
                "description": "Each model input goes to every model; a rendezvous picks one \
                                answer by a policy, before a deadline.",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "paths": paths,
            "components": {"schemas": self.schemas()},
        });
        if self.needs_token {
            document["components"]["securitySchemes"] =
                json!({"token": {"type": "http", "scheme": "bearer"}});
        }
        Bytes::from(format!("{document}\n"))
    }

    fn security(&self, needs_token: bool) -> Value {
        if needs_token {
            json!([{"token": []}])
        } else {
            json!([])
        }
    }

    fn ping(&self) -> Value {
        let pong = json!({
            "type": "object",
            "required": ["ping"],
            "properties": {"ping": {"const": "pong"}},
        });
        json!({"get": {
            "operationId": "ping",
            "summary": "Whether the front end answers",
            "security": [],
            "responses": {"200": answer("It does", pong)},
        }})
    }

    fn predict(&self) -> Value {
        let mut parameters = Vec::new();
        if let Some(name) = self.id_header {
            parameters.push(json!({
                "name": name,
                "in": "header",
                "required": false,
                "description": "The id of the message, instead of one that is made",
                "schema": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MESSAGE_ID_BYTES_MAX,
                    "pattern": "^[\\x21-\\x7e]([\\x20-\\x7e]*[\\x21-\\x7e])?$",
                },
            }));
        }
        let mut operation = json!({
            "operationId": "predict",
            "summary": "The answer of a model to a model input",
            "security": self.security(self.needs_token),
            "requestBody": {
                "required": true,
                "description": format!(
                    "The model input, {} bytes at most", self.body_bytes_max
                ),
                "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/ModelInput"},
                }},
            },
            "responses": self.responses_of_predict(),
        });
        if !parameters.is_empty() {
            operation["parameters"] = Value::Array(parameters);
        }
        json!({"post": operation})
    }

    /// The paths for clients of other servers. `--plain` may replace `/predict`.
    fn other_surfaces(&self) -> Vec<(String, Value)> {
        let any = json!({"description": "Any JSON"});
        let object = json!({"type": "object"});
        let (infer, invoke) = (
            "The answers to the rows of tensors, by the Open Inference Protocol",
            "The answers to the rows of a table, by MLflow's protocol",
        );
        let mut surfaces = vec![
            (
                format!("/v2/models/{}/infer", self.served_name),
                self.surface("infer", infer, &object, &object),
            ),
            (
                "/invocations".to_owned(),
                self.surface("invocations", invoke, &object, &object),
            ),
        ];
        if let Some(plain) = self.plain {
            let summary = "The result of a model alone";
            let input = of_schema("ModelInput");
            surfaces.push((
                plain.to_owned(),
                self.surface("plain", summary, &input, &any),
            ));
        }
        surfaces
    }

    /// A path whose calls have the statuses of `/predict`.
    fn surface(&self, id: &str, summary: &str, input: &Value, output: &Value) -> Value {
        let mut item = self.predict();
        let operation = &mut item["post"];
        operation["operationId"] = json!(id);
        operation["summary"] = json!(summary);
        operation["requestBody"]["content"]["application/json"]["schema"] = input.clone();
        let answered = &mut operation["responses"]["200"];
        answered["content"]["application/json"]["schema"] = output.clone();
        item
    }

    fn responses_of_predict(&self) -> Value {
        let mut responses = Map::new();
        let mut add = |status: &str, answer: Value| responses.insert(status.to_owned(), answer);
        let of_policy = json!({
            "X-Rv-Message-Id": header("The id of the message"),
            "X-Rv-Model": header("The model that answered, as in dt@1"),
            "X-Rv-Reason": header("The rule of the policy that chose the answer"),
        });
        let mut answered = answer("The answer", of_schema("Response"));
        answered["headers"] = of_policy.clone();
        add("200", answered);
        add(
            "400",
            error(
                "The body is not JSON, the message id is not valid, or the head is not valid HTTP/1.1",
            ),
        );
        if self.needs_token {
            let mut refused = error("The token is missing or wrong");
            refused["headers"] = json!({"WWW-Authenticate": header("Bearer")});
            add("401", refused);
        }
        add("403", error("The call comes from a page of another site"));
        add("408", error("The body took too long"));
        if self.id_header.is_some() {
            add(
                "409",
                error("A call with this id is open, or an earlier call has used the id"),
            );
        }
        add("413", error("The body is too long"));
        add(
            "415",
            error("The encoding or the type of the body is not known"),
        );
        if !self.required.fields().is_empty() {
            add(
                "422",
                error(
                    "A field of the model input is missing or is not a number, or the model refuses it",
                ),
            );
        }
        add(
            "421",
            error("The call names a host that is not this service"),
        );
        add("431", error("The head is too long"));
        add("503", unavailable());
        let either = json!({"anyOf": [of_schema("Error"), of_schema("Response")]});
        let mut late = answer(
            "No response arrived in time, or the policy has no answer",
            either,
        );
        late["headers"] = of_policy;
        add("504", late);
        Value::Object(responses)
    }

    fn admin_paths(&self, needs_token: bool) -> [(&'static str, Value); 3] {
        let ready = json!({
            "type": "object",
            "required": ["ready"],
            "properties": {"ready": {"const": true}},
        });
        let not_ready = json!({
            "type": "object",
            "required": ["ready", "reason"],
            "properties": {"ready": {"const": false}, "reason": {"type": "string"}},
        });
        let alive = json!({
            "type": "object",
            "required": ["alive"],
            "properties": {"alive": {"const": true}},
        });
        let metrics = json!({
            "description": "The counts in the text format of Prometheus",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        });
        [
            (
                "/healthz",
                json!({"get": {
                    "operationId": "healthz",
                    "summary": "Whether the process runs",
                    "security": [],
                    "responses": {"200": answer("The process runs", alive)},
                }}),
            ),
            (
                "/readyz",
                json!({"get": {
                    "operationId": "readyz",
                    "summary": "Whether the service can answer calls",
                    "security": [],
                    "responses": {
                        "200": answer("The service can answer calls", ready),
                        "503": answer("The service cannot answer calls", not_ready),
                    },
                }}),
            ),
            (
                "/metrics",
                json!({"get": {
                    "operationId": "metrics",
                    "summary": "The counts",
                    "security": self.security(needs_token),
                    "responses": with_unauthorized(needs_token, metrics),
                }}),
            ),
        ]
    }

    fn openapi(&self, needs_token: bool) -> Value {
        json!({"get": {
            "operationId": "openapi",
            "summary": "This description",
            "security": self.security(needs_token),
            "responses": with_unauthorized(needs_token, answer("It", json!({"type": "object"}))),
        }})
    }

    fn schemas(&self) -> Value {
        let fields = self.required.fields();
        let model_input = if fields.is_empty() {
            json!({"description": "Any JSON that the models understand"})
        } else {
            let required = fields.iter().filter(|field| field.is_required);
            let required: Vec<&str> = required.map(|field| field.name).collect();
            let properties = fields.iter().map(|field| {
                let json_type = if field.is_number { "number" } else { "string" };
                (field.name.to_owned(), json!({"type": json_type}))
            });
            json!({
                "type": "object",
                "required": required,
                "properties": properties.collect::<Map<_, _>>(),
            })
        };
        json!({
            "ModelInput": model_input,
            "Response": {
                "type": "object",
                "required": ["messageId", "timestamp", "modelInput", "modelResult"],
                "properties": {
                    "messageId": {"type": "string"},
                    "timestamp": {
                        "type": "number",
                        "description": "When the call was accepted, in seconds since 1970",
                    },
                    "modelInput": of_schema("ModelInput"),
                    "modelResult": {
                        "description": "The answer of the model, or the policy's default; \
                                        null where it has none",
                    },
                },
            },
            "Error": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            },
        })
    }
}

/// The server entry of the first listener. An unspecified address has no host name, so
/// the host is a variable.
fn server_of(calls: SocketAddr) -> Value {
    if calls.ip().is_unspecified() {
        json!({
            "url": format!("http://{{host}}:{}", calls.port()),
            "variables": {"host": {"default": "localhost"}},
        })
    } else {
        json!({"url": format!("http://{calls}")})
    }
}

fn of_schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn answer(description: &str, schema: Value) -> Value {
    json!({
        "description": description,
        "content": {"application/json": {"schema": schema}},
    })
}

fn error(description: &str) -> Value {
    answer(description, of_schema("Error"))
}

fn header(description: &str) -> Value {
    json!({"description": description, "schema": {"type": "string"}})
}

/// The answer to a call that the service cannot answer now.
fn unavailable() -> Value {
    let mut unavailable =
        error("The pipeline cannot answer now, or the limit of open calls is reached");
    unavailable["headers"] = json!({"Retry-After": {
        "description": "The number of seconds after which to try again",
        "required": true,
        "schema": {"type": "integer", "minimum": 0},
    }});
    unavailable
}

fn with_unauthorized(needs_token: bool, answered: Value) -> Value {
    let mut responses = json!({"200": answered});
    if needs_token {
        responses["401"] = error("The token is missing or wrong");
        responses["401"]["headers"] = json!({"WWW-Authenticate": header("Bearer")});
    }
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(
        fields: &[&str],
        id_header: Option<&str>,
        needs_token: bool,
        admin: Option<AdminDescription>,
    ) -> Value {
        let fields = fields.iter().map(|name| (*name).to_owned());
        let service = ServiceDescription {
            id_header,
            plain: id_header.map(|_| "/classify"),
            served_name: "iris",
            body_bytes_max: 1 << 20,
            required: &RequiredFields::named(fields.collect()),
            needs_token,
        };
        serde_json::from_slice(&service.describe(admin)).unwrap()
    }

    fn statuses(description: &Value) -> Vec<&str> {
        let responses = &description["paths"]["/predict"]["post"]["responses"];
        let statuses = responses.as_object().unwrap().keys();
        statuses.map(String::as_str).collect()
    }

    #[test]
    fn only_what_is_configured_is_described() {
        let plain = description(&[], None, false, None);
        assert_eq!(
            statuses(&plain),
            [
                "200", "400", "403", "408", "413", "415", "421", "431", "503", "504"
            ]
        );
        assert!(plain["components"].get("securitySchemes").is_none());
        assert!(plain["paths"].get("/metrics").is_none());

        let full = description(&["a", "b \"c\""], Some("x-id"), true, None);
        for status in ["401", "409", "422"] {
            assert!(statuses(&full).contains(&status), "{status}");
        }
        let input = &full["components"]["schemas"]["ModelInput"];
        assert_eq!(input["required"], json!(["a", "b \"c\""]));
        assert_eq!(input["properties"]["a"]["type"], "number");
        let predict = &full["paths"]["/predict"]["post"];
        assert_eq!(predict["parameters"][0]["name"], "x-id");
        assert_eq!(predict["security"], json!([{"token": []}]));
        assert_eq!(full["paths"]["/ping"]["get"]["security"], json!([]));
        assert!(plain["paths"].get("/classify").is_none());
        for path in ["/classify", "/invocations", "/v2/models/iris/infer"] {
            assert_eq!(full["paths"][path]["post"]["parameters"][0]["name"], "x-id");
        }
    }

    #[test]
    fn the_second_listener_says_where_the_first_is() {
        for (calls, url) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("0.0.0.0:80", "http://{host}:80"),
            ("[::]:80", "http://{host}:80"),
        ] {
            let admin = AdminDescription {
                calls: calls.parse().unwrap(),
                needs_token: false,
            };
            let described = description(&[], None, true, Some(admin));
            assert_eq!(described["paths"]["/predict"]["servers"][0]["url"], url);
            assert!(described["paths"]["/metrics"].get("servers").is_none());
            assert_eq!(described["paths"]["/metrics"]["get"]["security"], json!([]));
        }
    }
}
