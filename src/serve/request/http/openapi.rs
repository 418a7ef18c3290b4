//! The OpenAPI description of the service with its present flags.

use std::net::SocketAddr;

use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use crate::serve::request::http::routes::Surface;
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
    /// `http` or `https`.
    pub scheme: &'a str,
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
        for (path, item) in self.states() {
            add(&path, item);
        }
        // The path of --plain may replace /predict.
        let surfaces = [
            (Surface::Predict, Some("/predict".to_owned())),
            (
                Surface::Infer,
                Some(format!("/v2/models/{}/infer", self.served_name)),
            ),
            (Surface::Invocations, Some("/invocations".to_owned())),
            (Surface::Plain, self.plain.map(str::to_owned)),
        ];
        for (surface, path) in surfaces {
            path.map(|path| add(&path, self.call(surface)));
        }
        if let Some(admin) = admin {
            let server = server_of(self.scheme, admin.calls);
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

    /// The paths that tell the state of the service and of its model.
    fn states(&self) -> Vec<(String, Value)> {
        let model = format!("/v2/models/{}", self.served_name);
        let object = || json!({"type": "object"});
        let pong = json!({
            "type": "object",
            "required": ["ping"],
            "properties": {"ping": {"const": "pong"}},
        });
        let get = |id: &str, summary: &str, needs_token: bool, responses: Value| {
            json!({"get": {
                "operationId": id,
                "summary": summary,
                "security": self.security(needs_token),
                "responses": responses,
            }})
        };
        let answers = |schema| json!({"200": answer("The front end answers", schema)});
        let ready = || {
            json!({
                "200": answer("The service can answer calls", object()),
                "503": unavailable("The service cannot answer calls now"),
            })
        };
        let known = |needs_token| with_unauthorized(needs_token, answer("The metadata", object()));
        let version = json!({"200": {
            "description": "The version",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }});
        let is_up = "Whether the front end answers";
        let is_ready = "Whether calls can be answered";
        let token = self.needs_token;
        [
            ("/ping", get("ping", is_up, false, answers(pong.clone()))),
            ("/health", get("health", is_up, false, answers(pong))),
            (
                "/version",
                get("version", "The version of rv-request", false, version),
            ),
            (
                "/v2",
                get("server", "The metadata of the server", token, known(token)),
            ),
            (
                "/v2/health/live",
                get("live", is_up, false, answers(object())),
            ),
            ("/v2/health/ready", get("ready", is_ready, false, ready())),
            (
                &*model,
                get("model", "The metadata of the model", token, known(token)),
            ),
            (
                &*format!("{model}/ready"),
                get("modelReady", is_ready, false, ready()),
            ),
        ]
        .map(|(path, item)| (path.to_owned(), item))
        .into()
    }

    /// A path whose calls the pipeline answers.
    fn call(&self, surface: Surface) -> Value {
        let any = || json!({"description": "Any JSON"});
        let object = || json!({"type": "object"});
        let input = || of_schema("ModelInput");
        let (id, summary, input, output) = match surface {
            Surface::Predict => (
                "predict",
                "The answer of a model to a model input",
                input(),
                of_schema("Response"),
            ),
            Surface::Plain => ("plain", "The result of a model alone", input(), any()),
            Surface::Infer => (
                "infer",
                "The answers to the rows of tensors, by the Open Inference Protocol",
                object(),
                object(),
            ),
            Surface::Invocations => (
                "invocations",
                "The answers to the rows of a table, by MLflow's protocol",
                object(),
                object(),
            ),
        };
        json!({"post": {
            "operationId": id,
            "summary": summary,
            "security": self.security(self.needs_token),
            "parameters": self.parameters(),
            "requestBody": {
                "required": true,
                "description": format!(
                    "{} bytes at most, also after the decoding of gzip", self.body_bytes_max
                ),
                "content": {"application/json": {"schema": input}},
            },
            "responses": self.responses(surface, output),
        }})
    }

    /// The headers of a call.
    fn parameters(&self) -> Vec<Value> {
        let parameter = |name: &str, description: &str, schema: Value| {
            json!({
                "name": name,
                "in": "header",
                "required": false,
                "description": description,
                "schema": schema,
            })
        };
        let id = self.id_header.map(|name| {
            let schema = json!({
                "type": "string",
                "minLength": 1,
                "maxLength": MESSAGE_ID_BYTES_MAX,
                "pattern": "^[\\x21-\\x7e]([\\x20-\\x7e]*[\\x21-\\x7e])?$",
            });
            parameter(
                name,
                "The id of the message, instead of one that is made",
                schema,
            )
        });
        let text = || json!({"type": "string"});
        let others = [
            parameter(
                "X-Rv-Deadline-Ms",
                "Lowers the time-out of this call, in milliseconds from the end of its body",
                json!({"type": "integer", "minimum": 1}),
            ),
            parameter("traceparent", "The trace of the call (W3C)", text()),
            parameter("tracestate", "The state of the trace (W3C)", text()),
        ];
        id.into_iter().chain(others).collect()
    }

    /// The answers to a call. `output` is the schema of the answer of the models.
    fn responses(&self, surface: Surface, output: Value) -> Value {
        let has_rows = matches!(surface, Surface::Infer | Surface::Invocations);
        let is_plain = surface == Surface::Plain;
        let of_policy = match has_rows {
            true => json!({
                "X-Rv-Message-Id": header("The id of the call; its rows have ID/0, ID/1, ..."),
                "X-Rv-Model": header("The model, if it answered all rows"),
                "X-Rv-Reason": header("The rule of the policy, if it chose all answers"),
            }),
            false => json!({
                "X-Rv-Message-Id": header("The id of the message"),
                "X-Rv-Model": header("The model that answered, as in dt@1"),
                "X-Rv-Reason": header("The rule of the policy that chose the answer"),
            }),
        };
        let mut answered = answer("The answer", output);
        let nothing = match surface {
            Surface::Predict => json!({"anyOf": [of_schema("Error"), of_schema("Response")]}),
            _ => of_schema("Error"),
        };
        let mut late = answer(
            "No response arrived in time, or the policy has no answer",
            nothing,
        );
        let mut refused = json!({
            "description": "A model has refused the model input: the status and body are the model's",
        });
        if has_rows {
            refused = error("A model has refused a row: the status is the model's");
        }
        for answer in [&mut answered, &mut late, &mut refused] {
            answer["headers"] = of_policy.clone();
        }
        let mut responses = self.errors(has_rows, is_plain);
        responses.insert("200".to_owned(), answered);
        responses.insert("504".to_owned(), late);
        responses.insert("4XX".to_owned(), refused);
        Value::Object(responses)
    }

    /// The errors of the front end itself.
    fn errors(&self, has_rows: bool, is_plain: bool) -> Map<String, Value> {
        let mut errors = Map::new();
        let mut add = |status: &str, answer: Value| errors.insert(status.to_owned(), answer);
        add(
            "400",
            error(match (has_rows, is_plain) {
                (true, _) => {
                    "The body is not a valid call of the protocol, or a header is not valid"
                }
                (_, true) => "A header is not valid, or the body is cut or not valid gzip",
                _ => "The body is not JSON, cut or not valid gzip, or a header is not valid",
            }),
        );
        if self.needs_token {
            let mut refused = error("The token is missing or wrong");
            refused["headers"] = json!({"WWW-Authenticate": header("Bearer")});
            add("401", refused);
        }
        add("403", error("The call comes from a page of another site"));
        add("408", error("The body took too long"));
        if self.id_header.is_some() {
            let used = "A call with this id, or with the id of a row, is open, or an earlier \
                        call has used the id";
            add("409", error(used));
        }
        add(
            "413",
            error(match has_rows {
                true => "The body is too long, or has too many rows",
                false => "The body is too long",
            }),
        );
        add(
            "415",
            error(match is_plain {
                true => "The encoding of the body is not known, or the body is not JSON",
                false => "The encoding or the type of the body is not known",
            }),
        );
        if !self.required.fields().is_empty() {
            let invalid = "A field of the model input is missing or is not a number, or a model \
                           refuses the input";
            add("422", error(invalid));
        }
        let misdirected = "The call names a host that is not this service";
        add("421", error(misdirected));
        add("431", error("The head is too long"));
        let now =
            "The pipeline cannot answer now, or a limit of open calls or of bodies is reached";
        add("503", unavailable(now));
        errors
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
                                        null for a refusal, or if there is no default",
                    },
                    "modelError": {
                        "type": "object",
                        "description": "Only for a refusal: the error of the model",
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
fn server_of(scheme: &str, calls: SocketAddr) -> Value {
    if calls.ip().is_unspecified() {
        json!({
            "url": format!("{scheme}://{{host}}:{}", calls.port()),
            "variables": {"host": {"default": "localhost"}},
        })
    } else {
        json!({"url": format!("{scheme}://{calls}")})
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
fn unavailable(description: &str) -> Value {
    let mut unavailable = error(description);
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
            scheme: "http",
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
                "200", "400", "403", "408", "413", "415", "421", "431", "4XX", "503", "504"
            ]
        );
        assert!(plain["components"].get("securitySchemes").is_none());
        for path in [
            "/health",
            "/version",
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/iris",
            "/v2/models/iris/ready",
        ] {
            assert!(plain["paths"][path]["get"].is_object(), "{path}");
        }
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
