//! Reads the JSON file of XGBoost.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde_json::Value;

use crate::import::ForeignModel;
use crate::import::input_names::InputNames;
use crate::import::preorder::{self, ForeignNode};
use crate::import::xgboost_json::{Encoding, File, Learner, Tree, TreeModel};
use crate::model::bounds::{CLASSES_MAX, FEATURES_MAX};
use crate::model::ensemble::link::Link;
use crate::model::ensemble::text::{Combination, EnsembleText, Precision, TreeText};
use crate::model::feature::{Feature, Unseen};
use crate::model::splits::{Split, Test};
use crate::stage::report::shown;

/// Reads the text of a model file. The error describes the fault and the remedy.
pub fn read(text: &str, inputs: &InputNames) -> Result<ForeignModel, String> {
    let file: File = serde_json::from_str(text).map_err(|error| {
        format!(
            "is not a model file of XGBoost in JSON: {error}; write one with \
             booster.save_model(\"model.json\")"
        )
    })?;
    let learner = file.learner;
    let (model, weights) = trees_of(&learner)?;
    let objective = learner.objective.name.clone();
    let outputs = usize::max(
        number(&learner.learner_model_param.num_class, "num_class")?,
        1,
    );
    if outputs > CLASSES_MAX {
        return Err(format!("has more than {CLASSES_MAX} classes"));
    }
    let targets = learner.learner_model_param.num_target.as_deref();
    if targets.is_some_and(|targets| targets != "1" && targets != "0") {
        return Err("predicts several numbers at once; rv-score predicts one".to_owned());
    }
    let (link, class_count, base_link) = link_of(&objective, outputs)?;
    let base = base(&learner.learner_model_param.base_score, outputs)?;
    let trees = { model.trees.iter().enumerate() }.map(|(number, tree)| {
        let output = model.tree_info.get(number).copied().unwrap_or_default();
        // Only the trees of dart have weights.
        let weight = weights.get(number).copied().unwrap_or(1.0);
        read_tree(tree, output, weight).map_err(|fault| format!("tree {number} {fault}"))
    });
    Ok(ForeignModel {
        trees: EnsembleText {
            combination: Combination::Sum,
            precision: Precision::Single,
            link,
            base: base
                .into_iter()
                .map(|base| base_link.margin(base))
                .collect(),
            trees: trees.collect::<Result<_, _>>()?,
        },
        features: features(&learner, model, inputs)?,
        objective,
        class_count,
    })
}

/// The trees of a booster, and the weight of each tree, if the trees have weights.
fn trees_of(learner: &Learner) -> Result<(&TreeModel, &[f64]), String> {
    let booster = &learner.gradient_booster;
    let (trees, weights): (_, &[f64]) = match booster.name.as_str() {
        "gbtree" => (booster.model.as_ref(), &[]),
        "dart" => {
            let inner = booster.gbtree.as_ref();
            (
                inner.and_then(|inner| inner.model.as_ref()),
                &booster.weight_drop,
            )
        }
        other => {
            return Err(format!(
                "has the booster {other}, which has no trees; export it to ONNX instead, and use \
                 rv-score --model model.onnx"
            ));
        }
    };
    let trees = trees.ok_or("has no trees; copy it again")?;
    if trees.trees.is_empty() {
        return Err("has no trees; train the model first".to_owned());
    }
    if trees.tree_info.len() != trees.trees.len() {
        return Err("has a tree_info of another length than its trees; copy it again".to_owned());
    }
    if booster.name == "dart" && weights.len() != trees.trees.len() {
        return Err("has a weight_drop of another length than its trees; copy it again".to_owned());
    }
    Ok((trees, weights))
}

/// The function that turns a base score into the number that is added to the sum of the
/// trees.
#[derive(Clone, Copy, Debug)]
enum BaseLink {
    Identity,
    Logit,
    Logarithm,
}

impl BaseLink {
    /// The number that is added to the sum of the trees. XGBoost computes it in single
    /// precision.
    fn margin(self, base: f64) -> f64 {
        let base = base as f32;
        f64::from(match self {
            BaseLink::Identity => base,
            BaseLink::Logit => -(1.0 / base - 1.0).ln(),
            BaseLink::Logarithm => base.ln(),
        })
    }
}

/// The link of an objective, its number of classes, and the link of its base score.
fn link_of(objective: &str, outputs: usize) -> Result<(Link, usize, BaseLink), String> {
    let logistic = Link::Logistic { scale: 1.0 };
    let found = match objective {
        "binary:logistic" => (logistic, 2, BaseLink::Logit),
        "binary:logitraw" => (Link::Identity, 0, BaseLink::Identity),
        "binary:hinge" => (Link::Step, 2, BaseLink::Identity),
        "reg:logistic" => (logistic, 0, BaseLink::Logit),
        "multi:softmax" | "multi:softprob" => (Link::Softmax, outputs, BaseLink::Identity),
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
            (Link::Exponential, 0, BaseLink::Logarithm)
        }
        "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:pseudohubererror"
        | "reg:absoluteerror"
        | "reg:quantileerror"
        | "reg:expectileerror"
        | "rank:pairwise"
        | "rank:ndcg"
        | "rank:map" => (Link::Identity, 0, BaseLink::Identity),
        _ => {
            return Err(format!(
                "has the objective {objective}, which rv-score does not know; export the model to \
                 ONNX instead, and use rv-score --model model.onnx"
            ));
        }
    };
    match (outputs, found.1) {
        (1, classes) if classes != 1 => Ok(found),
        (outputs, classes) if outputs == classes && classes > 1 => Ok(found),
        _ => Err(format!(
            "has {outputs} outputs with the objective {objective}"
        )),
    }
}

/// The base score of each output. XGBoost writes one number, or a list in a string.
fn base(text: &str, outputs: usize) -> Result<Vec<f64>, String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let numbers: Result<Vec<f64>, String> = inner
        .split(',')
        .map(|one| number(one, "base_score"))
        .collect();
    match numbers?.as_slice() {
        [one] => Ok(vec![*one; outputs]),
        many if many.len() == outputs => Ok(many.to_vec()),
        many => Err(format!(
            "has {} base scores for {outputs} outputs",
            many.len()
        )),
    }
}

fn number<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("has a wrong {name}: {text:?}"))
}

/// The inputs of the model.
fn features(
    learner: &Learner,
    model: &TreeModel,
    inputs: &InputNames,
) -> Result<Vec<Feature>, String> {
    let count: usize = number(&learner.learner_model_param.num_feature, "num_feature")?;
    if count > FEATURES_MAX {
        return Err(format!("has more than {FEATURES_MAX} inputs"));
    }
    let names = match learner.feature_names.len() {
        0 if inputs.features.is_empty() => {
            return Err(format!(
                "has {count} inputs without names; name them with --features"
            ));
        }
        0 => inputs.features.clone(),
        _ => learner.feature_names.clone(),
    };
    if names.len() != count {
        return Err(format!("has {count} inputs, but {} names", names.len()));
    }
    let mut categories = BTreeMap::new();
    let encodings = model.cats.iter().flat_map(|cats| &cats.enc);
    for (index, (encoding, name)) in encodings.zip(&names).enumerate() {
        let name = inputs.features.get(index).unwrap_or(name);
        if inputs.categories.contains_key(name) {
            continue;
        }
        let values = category_values(encoding).ok_or_else(|| {
            format!(
                "has damaged categories of {}, as XGBoost writes them if a name is not ASCII; name \
                 them with --categories",
                shown(name)
            )
        })?;
        if !values.is_empty() {
            categories.insert(index, values);
        }
    }
    // XGBoost refuses a category that was not in the training.
    inputs.features(names, categories, Unseen::Error)
}

/// The categories of one input; `None` if they are damaged.
fn category_values(encoding: &Encoding) -> Option<Vec<Value>> {
    let Some(offsets) = &encoding.offsets else {
        return Some(encoding.values.clone());
    };
    // XGBoost writes the bytes of the texts as signed numbers. It counts characters in
    // the offsets, so it loses the end of texts that are not ASCII.
    let bytes = { encoding.values.iter() }.map(|value| value.as_i64().map(|byte| byte as u8));
    let bytes = bytes.collect::<Option<Vec<u8>>>()?;
    if !bytes.is_ascii() || offsets.last().is_some_and(|end| *end != bytes.len()) {
        return None;
    }
    let texts = offsets.windows(2).map(|pair| {
        let text = std::str::from_utf8(bytes.get(pair[0]..pair[1])?).ok()?;
        Some(Value::String(text.to_owned()))
    });
    texts.collect()
}

/// Converts a tree. The numbers of its leaves are multiplied by `weight`.
fn read_tree(tree: &Tree, output: u32, weight: f64) -> Result<TreeText, String> {
    let count = tree.left_children.len();
    let are_equal = [
        tree.right_children.len(),
        tree.split_indices.len(),
        tree.split_conditions.len(),
        tree.default_left.len(),
    ]
    .iter()
    .all(|length| *length == count);
    if !are_equal || (!tree.split_type.is_empty() && tree.split_type.len() != count) {
        return Err("has lists of different lengths; copy the file again".to_owned());
    }
    let vector = tree
        .tree_param
        .as_ref()
        .map(|parameters| parameters.size_leaf_vector.as_str());
    if vector.is_some_and(|size| size.parse().is_ok_and(|size: u64| size > 1)) {
        return Err(
            "has several numbers in a leaf; train with multi_strategy=one_output_per_tree"
                .to_owned(),
        );
    }
    let sets = category_sets(tree)?;
    preorder::convert(0, count, output, |index| {
        if tree.left_children[index] == -1 {
            let number = tree.split_conditions[index] as f32 * weight as f32;
            return Ok(ForeignNode::Leaf(f64::from(number)));
        }
        split_of(tree, index, &sets)
    })
}

/// Split `index` of a tree. `sets` are the categories of each node that has them.
fn split_of(
    tree: &Tree,
    index: usize,
    sets: &HashMap<usize, &[u32]>,
) -> Result<ForeignNode, String> {
    let child = |child: i64| usize::try_from(child).unwrap_or(usize::MAX);
    let left = child(tree.left_children[index]);
    let right = child(tree.right_children[index]);
    let feature = tree.split_indices[index];
    let default_left = tree.default_left[index].0;
    if tree.split_type.get(index) == Some(&1) {
        // XGBoost sends the categories of the set to the right, so the children are
        // swapped.
        let set = sets
            .get(&index)
            .ok_or("has a split without its categories")?;
        let split = Split {
            missing_left: !default_left,
            ..Split::new(feature, Test::OneOf(set.to_vec()))
        };
        return Ok(ForeignNode::Split {
            split,
            left: right,
            right: left,
        });
    }
    // Values below the condition go left.
    let condition = tree.split_conditions[index] as f32;
    let threshold = f64::from(condition.next_down()).clamp(-f64::MAX, f64::MAX);
    let split = Split {
        missing_left: default_left,
        ..Split::new(feature, Test::AtMost(threshold))
    };
    Ok(ForeignNode::Split { split, left, right })
}

/// The categories of each node that splits on categories.
fn category_sets(tree: &Tree) -> Result<HashMap<usize, &[u32]>, String> {
    // Sets that overlap would be copied, so a small file could need much memory.
    let sizes = tree.categories_sizes.iter();
    let total = sizes.fold(0usize, |total, size| total.saturating_add(*size));
    if total > tree.categories.len() {
        return Err("has sets of categories that overlap; copy the file again".to_owned());
    }
    let places = tree.categories_segments.iter().zip(&tree.categories_sizes);
    let sets = tree
        .categories_nodes
        .iter()
        .zip(places)
        .map(|(node, (start, size))| {
            let end = start.checked_add(*size);
            let set = end.and_then(|end| tree.categories.get(*start..end));
            set.map(|set| (*node, set))
                .ok_or_else(|| "has categories that do not exist".to_owned())
        });
    sets.collect()
}
