//! The paths of the first listener (pure).

use hyper::Method;

/// A path of the first listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/ping`: whether the front end answers.
    Ping,
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
}

/// The paths of a service.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The path of `--plain`, if it is given.
    pub plain: Option<String>,
}

impl Routes {
    /// The route of a path; `None` if there is no such path. The path of `--plain` takes
    /// precedence.
    pub fn find(&self, path: &str) -> Option<Route> {
        if self.plain.as_deref() == Some(path) {
            return Some(Route::Answer(Surface::Plain));
        }
        Some(match path {
            "/ping" => Route::Ping,
            "/openapi.json" => Route::OpenApi,
            "/predict" => Route::Answer(Surface::Predict),
            _ => return None,
        })
    }

    /// The message for a path that does not exist.
    pub fn unknown(&self) -> String {
        let mut message =
            "no such path; there are GET /ping, POST /predict and GET /openapi.json".to_owned();
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
            Route::Ping | Route::OpenApi => *method == Method::GET || *method == Method::HEAD,
        }
    }

    /// The names of the accepted methods, with commas between them.
    pub fn methods(self) -> &'static str {
        match self {
            Route::Answer(_) => "POST",
            Route::Ping | Route::OpenApi => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_path_takes_precedence() {
        let mut routes = Routes { plain: None };
        assert_eq!(
            routes.find("/predict"),
            Some(Route::Answer(Surface::Predict))
        );
        assert_eq!(routes.find("/score"), None);
        routes.plain = Some("/predict".to_owned());
        assert_eq!(routes.find("/predict"), Some(Route::Answer(Surface::Plain)));
        assert!(routes.unknown().ends_with("and POST /predict"));
        assert_eq!(routes.find("/predict/"), None);
    }
}
