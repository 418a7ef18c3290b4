//! The inputs of a model, as its file describes them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// One input of a model.
///
/// A row holds one number for each input. A number stands for itself, and a category is
/// written as its index. A category that the model does not know is written as the
/// number of known categories. A missing value that the model itself handles is NaN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "FeatureText", into = "FeatureText")]
pub struct Feature {
    /// The name of the member of `modelInput`. If the name begins with `/`, it is a
    /// JSON pointer into `modelInput`.
    pub name: String,
    /// The values that the input can have.
    pub domain: Domain,
    /// What is done if the value is missing.
    pub missing: Missing,
    /// The strings and numbers that stand for a missing value, apart from `null`.
    pub markers: Vec<String>,
}

/// The values of a feature.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// Finite numbers. `true` is 1 and `false` is 0.
    Numbers,
    /// Some texts.
    Categories {
        /// The texts, in the order of their indices.
        categories: Vec<String>,
        /// What is done with any other text.
        unseen: Unseen,
    },
}

/// What is done with a category that the training has not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unseen {
    /// The request gets an error.
    #[default]
    Error,
    /// The value counts as missing.
    Missing,
    /// The value becomes a category that differs from all known ones.
    Other,
}

/// What is done if the value of a feature is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Missing {
    /// The request gets an error.
    Error,
    /// The row gets this value in its place.
    Fill(f64),
    /// The model itself handles the missing value.
    Pass,
}

impl Feature {
    /// A feature of numbers that may not be missing.
    pub fn number(name: impl Into<String>) -> Feature {
        Feature {
            name: name.into(),
            domain: Domain::Numbers,
            missing: Missing::Error,
            markers: Vec::new(),
        }
    }

    /// The categories; `None` for a feature of numbers.
    pub fn categories(&self) -> Option<&[String]> {
        match &self.domain {
            Domain::Numbers => None,
            Domain::Categories { categories, .. } => Some(categories),
        }
    }

    /// Checks a feature that was read from a file. The error describes the fault.
    pub fn check(&self) -> Result<(), String> {
        let fault = |text: &str| {
            Err(format!(
                "feature {} {text}",
                crate::stage::report::shown(&self.name)
            ))
        };
        if self.name.is_empty() {
            return Err("a feature has no name".to_owned());
        }
        if let Some(categories) = self.categories() {
            let mut seen = HashSet::new();
            if categories.is_empty() || !categories.iter().all(|name| seen.insert(name)) {
                return fault("has no category, or one of them twice");
            }
            let codes = 0.0..categories.len() as f64;
            if let Missing::Fill(fill) = self.missing
                && !codes.contains(&fill)
            {
                return fault("has a fill value that is not one of its categories");
            }
        }
        match self.missing {
            Missing::Fill(fill) if !fill.is_finite() => {
                fault("has a fill value that is not finite")
            }
            _ => Ok(()),
        }
    }
}

/// A feature in a model file: only its name, if it is a number that may not be missing.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum FeatureText {
    Name(String),
    Details(Details),
}

/// A feature in a model file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Details {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    categories: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unseen: Option<Unseen>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fill: Option<Fill>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pass_missing: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    markers: Vec<String>,
}

/// A fill value in a model file: a number or a category.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Fill {
    Number(f64),
    Category(String),
}

impl From<Feature> for FeatureText {
    fn from(feature: Feature) -> FeatureText {
        if feature == Feature::number(feature.name.as_str()) {
            return FeatureText::Name(feature.name);
        }
        let fill = match (feature.missing, feature.categories()) {
            (Missing::Fill(number), None) => Some(Fill::Number(number)),
            (Missing::Fill(code), Some(categories)) => {
                let category = categories.get(code as usize);
                category.map(|category| Fill::Category(category.clone()))
            }
            _ => None,
        };
        let (categories, unseen) = match feature.domain {
            Domain::Numbers => (None, None),
            Domain::Categories { categories, unseen } => (Some(categories), Some(unseen)),
        };
        FeatureText::Details(Details {
            name: feature.name,
            categories,
            unseen,
            fill,
            pass_missing: feature.missing == Missing::Pass,
            markers: feature.markers,
        })
    }
}

impl From<FeatureText> for Feature {
    fn from(text: FeatureText) -> Feature {
        let details = match text {
            FeatureText::Name(name) => return Feature::number(name),
            FeatureText::Details(details) => details,
        };
        let missing = match details.fill {
            Some(Fill::Number(number)) => Missing::Fill(number),
            Some(Fill::Category(category)) => {
                let mut categories = details.categories.iter().flatten();
                let code = categories.position(|one| *one == category);
                // [`Feature::check`] refuses NaN.
                Missing::Fill(code.map_or(f64::NAN, |code| code as f64))
            }
            None if details.pass_missing => Missing::Pass,
            None => Missing::Error,
        };
        Feature {
            name: details.name,
            domain: match details.categories {
                None => Domain::Numbers,
                Some(categories) => Domain::Categories {
                    categories,
                    unseen: details.unseen.unwrap_or_default(),
                },
            },
            missing,
            markers: details.markers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_is_written_and_read_again_is_the_same() {
        let categories = Domain::Categories {
            categories: vec!["a".to_owned(), "1".to_owned()],
            unseen: Unseen::Other,
        };
        for (text, feature) in [
            ("\"x\"", Feature::number("x")),
            (
                r#"{"name":"x","fill":1.5,"markers":["NA"]}"#,
                Feature {
                    missing: Missing::Fill(1.5),
                    markers: vec!["NA".to_owned()],
                    ..Feature::number("x")
                },
            ),
            (
                r#"{"name":"x","passMissing":true}"#,
                Feature {
                    missing: Missing::Pass,
                    ..Feature::number("x")
                },
            ),
            (
                r#"{"name":"x","categories":["a","1"],"unseen":"other","fill":"1"}"#,
                Feature {
                    domain: categories,
                    missing: Missing::Fill(1.0),
                    ..Feature::number("x")
                },
            ),
        ] {
            assert_eq!(serde_json::to_string(&feature).unwrap(), text);
            assert_eq!(serde_json::from_str::<Feature>(text).unwrap(), feature);
            assert_eq!(feature.check(), Ok(()));
        }
    }

    #[test]
    fn a_feature_with_a_fault_is_refused() {
        for (text, reason) in [
            (r#""""#, "no name"),
            (r#"{"name":"x","categories":[]}"#, "no category"),
            (r#"{"name":"x","categories":["a","a"]}"#, "twice"),
            (
                r#"{"name":"x","categories":["a"],"fill":"b"}"#,
                "fill value",
            ),
            (
                r#"{"name":"x","categories":["a"],"fill":1.0}"#,
                "fill value",
            ),
            (r#"{"name":"x","fill":"b"}"#, "fill value"),
        ] {
            let feature: Feature = serde_json::from_str(text).unwrap();
            let fault = feature.check().unwrap_err();
            assert!(fault.contains(reason), "{text}: {fault}");
        }
        assert!(serde_json::from_str::<Feature>(r#"{"name":"x","fil":1}"#).is_err());
    }
}
