//! The paths of the first listener (pure).

use hyper::Method;

/// A path of the first listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/ping` and `/health`: whether the front end answers.
    Ping,
    /// `/version`: the version of the front end.
    Version,
    /// `/v2`: the metadata of the server.
    Server,
    /// `/v2/health/live`: whether the front end answers.
    Live,
    /// `/v2/health/ready`: whether calls can be answered.
    Ready,
    /// `/v2/models/NAME`: the metadata of the model.
    Model,
    /// `/v2/models/NAME/ready`: whether calls can be answered.
    ModelReady,
    /// `/openapi.json`: the description of the service.
    OpenApi,
    /// A path whose calls are answered by the pipeline.
    Answer(Surface),
}

/// The form in which the pipeline is asked and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/predict`: the answer is the response.
    Predict,
    /// The path of `--plain`: the answer is the result alone.
    Plain,
    /// `/v2/models/NAME/infer`: the Open Inference Protocol.
    Infer,
    /// `/invocations`: MLflow.
    Invocations,
}

/// The paths of a service.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The path of `--plain`, if it is given.
    pub plain: Option<String>,
    /// The name of the model in the Open Inference Protocol.
    pub served_name: String,
}

impl Routes {
    /// The route of a path; `None` if there is no such path. The path of `--plain` takes
    /// precedence.
    pub fn find(&self, path: &str) -> Option<Route> {
        if self.plain.as_deref() == Some(path) {
            return Some(Route::Answer(Surface::Plain));
        }
        if let Some(rest) = path.strip_prefix("/v2/models/") {
            return self.of_model(rest);
        }
        Some(match path {
            "/ping" | "/health" => Route::Ping,
            "/version" => Route::Version,
            "/v2" | "/v2/" => Route::Server,
            "/v2/health/live" => Route::Live,
            "/v2/health/ready" => Route::Ready,
            "/invocations" => Route::Answer(Surface::Invocations),
            "/openapi.json" => Route::OpenApi,
            "/predict" => Route::Answer(Surface::Predict),
            _ => return None,
        })
    }

    /// The route of a path under `/v2/models/`.
    fn of_model(&self, rest: &str) -> Option<Route> {
        match rest.strip_prefix(&*self.served_name)? {
            "" => Some(Route::Model),
            "/ready" => Some(Route::ModelReady),
            "/infer" => Some(Route::Answer(Surface::Infer)),
            _ => None,
        }
    }

    /// The message for a path that does not exist.
    pub fn unknown(&self, path: &str) -> String {
        if path.starts_with("/v2/models/") {
            let name = &self.served_name;
            return format!("no such model or path; the model is {name:?} (--served-name)");
        }
        let mut message = "no such path; there are GET /ping, POST /predict, POST /invocations, \
                           /v2 and GET /openapi.json"
            .to_owned();
        if let Some(plain) = &self.plain {
            message.push_str(&format!(", and POST {plain}"));
        }
        message
    }
}

impl Route {
    /// Whether calls of this method are accepted.
    pub fn accepts(self, method: &Method) -> bool {
        match self {
            Route::Answer(_) => *method == Method::POST,
            _ => *method == Method::GET || *method == Method::HEAD,
        }
    }

    /// The names of the accepted methods, with commas between them.
    pub fn methods(self) -> &'static str {
        match self {
            Route::Answer(_) => "POST",
            _ => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_path_takes_precedence() {
        let mut routes = Routes {
            plain: None,
            served_name: "iris".to_owned(),
        };
        assert_eq!(
            routes.find("/predict"),
            Some(Route::Answer(Surface::Predict))
        );
        assert_eq!(routes.find("/score"), None);
        routes.plain = Some("/predict".to_owned());
        assert_eq!(routes.find("/predict"), Some(Route::Answer(Surface::Plain)));
        assert!(routes.unknown("/x").ends_with("and POST /predict"));
        assert_eq!(routes.find("/predict/"), None);
    }

    #[test]
    fn only_the_served_model_has_paths() {
        let routes = Routes {
            plain: None,
            served_name: "iris".to_owned(),
        };
        for (path, route) in [
            ("/v2/models/iris", Some(Route::Model)),
            ("/v2/models/iris/ready", Some(Route::ModelReady)),
            ("/v2/models/iris/infer", Some(Route::Answer(Surface::Infer))),
            ("/v2/models/iris/versions/1/infer", None),
            ("/v2/models/iris2/infer", None),
            ("/v2/models/", None),
            ("/v2/models/other/infer", None),
        ] {
            assert_eq!(routes.find(path), route, "{path}");
        }
        assert!(routes.unknown("/v2/models/x").contains("iris"));
    }
}
