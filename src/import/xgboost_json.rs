//! The parts of the JSON of an XGBoost model file that the import needs.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The whole file.
#[derive(Debug, Deserialize)]
pub struct File {
    /// Everything but the version.
    pub learner: Learner,
}

/// The model.
#[derive(Debug, Deserialize)]
pub struct Learner {
    /// The names of the inputs. Empty if the training data had no names.
    #[serde(default)]
    pub feature_names: Vec<String>,
    /// The trees.
    pub gradient_booster: Booster,
    /// Settings that all objectives have.
    pub learner_model_param: ModelParameters,
    /// The objective.
    pub objective: Objective,
}

/// The booster: `gbtree`, `dart` or `gblinear`.
#[derive(Debug, Deserialize)]
pub struct Booster {
    /// The kind of the booster.
    pub name: String,
    /// The trees of `gbtree`.
    pub model: Option<TreeModel>,
    /// The trees of `dart`.
    pub gbtree: Option<Box<Booster>>,
    /// For `dart`, the weight of each tree.
    #[serde(default)]
    pub weight_drop: Vec<f64>,
}

/// The trees.
#[derive(Debug, Deserialize)]
pub struct TreeModel {
    /// The trees, in the order of the sum.
    pub trees: Vec<Tree>,
    /// The output of each tree.
    pub tree_info: Vec<u32>,
    /// The categories of the inputs.
    pub cats: Option<Categories>,
}

/// The categories of all inputs.
#[derive(Debug, Deserialize)]
pub struct Categories {
    /// One entry for each input.
    #[serde(default)]
    pub enc: Vec<Encoding>,
}

/// The categories of one input: texts or numbers.
#[derive(Debug, Deserialize)]
pub struct Encoding {
    /// For texts, the position of each text in `values`, and the number of bytes.
    pub offsets: Option<Vec<usize>>,
    /// For texts, their bytes; otherwise the numbers.
    #[serde(default)]
    pub values: Vec<Value>,
}

/// One tree. The lists have one entry for each node.
#[derive(Debug, Deserialize)]
pub struct Tree {
    /// The left children; -1 for a leaf.
    pub left_children: Vec<i64>,
    /// The right children; -1 for a leaf.
    pub right_children: Vec<i64>,
    /// The index of the feature.
    pub split_indices: Vec<usize>,
    /// The threshold; for a leaf, its number.
    pub split_conditions: Vec<f64>,
    /// 1 if a missing value goes left.
    pub default_left: Vec<Flag>,
    /// 1 for a split on categories.
    #[serde(default)]
    pub split_type: Vec<u8>,
    /// The categories of all splits that have them.
    #[serde(default)]
    pub categories: Vec<u32>,
    /// The nodes that split on categories.
    #[serde(default)]
    pub categories_nodes: Vec<usize>,
    /// The position of the categories of each of these nodes.
    #[serde(default)]
    pub categories_segments: Vec<usize>,
    /// The number of categories of each of these nodes.
    #[serde(default)]
    pub categories_sizes: Vec<usize>,
    /// The settings of the tree.
    pub tree_param: Option<TreeParameters>,
}

/// Settings of a tree.
#[derive(Debug, Deserialize)]
pub struct TreeParameters {
    /// The number of values in a leaf.
    #[serde(default)]
    pub size_leaf_vector: String,
}

/// A flag. XGBoost writes it as a number, and older versions write it as a boolean.
#[derive(Clone, Copy, Debug)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flag, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Boolean(bool),
            Number(u8),
        }
        Ok(Flag(match Either::deserialize(deserializer)? {
            Either::Boolean(flag) => flag,
            Either::Number(number) => number != 0,
        }))
    }
}

/// Settings that all objectives have. XGBoost writes numbers as strings.
#[derive(Debug, Deserialize)]
pub struct ModelParameters {
    /// The base score, which is added to each output before the link. Newer versions
    /// write a list such as `[0.5, 0.2]`.
    pub base_score: String,
    /// The number of classes; 0 if there are none.
    pub num_class: String,
    /// The number of inputs.
    pub num_feature: String,
    /// The number of outputs that are predicted together.
    #[serde(default)]
    pub num_target: Option<String>,
}

/// The objective.
#[derive(Debug, Deserialize)]
pub struct Objective {
    /// The name of the objective, such as `binary:logistic`.
    pub name: String,
}
