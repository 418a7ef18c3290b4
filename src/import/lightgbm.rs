//! Reads the text file of LightGBM: `key=value` lines, a block for each tree, and a last
//! line with the categories of a pandas table.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use serde_json::Value;

use crate::import::ForeignModel;
use crate::import::input_names::InputNames;
use crate::import::preorder::{self, ForeignNode};
use crate::model::bounds::CLASSES_MAX;
use crate::model::ensemble::link::Link;
use crate::model::ensemble::text::{Combination, EnsembleText, Precision, TreeText};
use crate::model::feature::Unseen;
use crate::model::splits::{Split, Test};

/// The bits of `decision_type`.
mod decision {
    /// The split is on categories.
    pub const CATEGORIES: u32 = 1;
    /// A missing value goes left.
    pub const DEFAULT_LEFT: u32 = 2;
    /// The position of the two bits that say what is missing.
    pub const MISSING_SHIFT: u32 = 2;
}

/// Reads the text of a model file. The error describes the fault and the remedy.
pub fn read(text: &str, inputs: &InputNames) -> Result<ForeignModel, String> {
    let mut blocks = text.split("\nTree=");
    let header = Block::parse(blocks.next().unwrap_or_default());
    if !text.starts_with("tree") || header.get("max_feature_idx").is_none() {
        return Err(
            "is not a model file of LightGBM; write one with booster.save_model(\"model.txt\")"
                .to_owned(),
        );
    }
    if !text.contains("\nend of trees") {
        return Err("was cut off before the end of its trees; copy it again".to_owned());
    }
    let last: usize = header.number("max_feature_idx")?;
    let outputs: usize = header.number("num_tree_per_iteration")?;
    if outputs == 0 || outputs > CLASSES_MAX {
        return Err(format!("has {outputs} outputs, not 1 to {CLASSES_MAX}"));
    }
    let names = header.list::<String>("feature_names")?;
    if last.checked_add(1) != Some(names.len()) {
        return Err(format!(
            "names {} features, but max_feature_idx is {last}; copy the file again",
            names.len()
        ));
    }
    let mut trees = Vec::new();
    for (number, block) in blocks.enumerate() {
        let output = (number % outputs) as u32;
        let tree = read_tree(&Block::parse(block), output);
        trees.push(tree.map_err(|fault| format!("tree {number} {fault}"))?);
    }
    check_count(&header, trees.len())?;
    let objective = header.get("objective").unwrap_or("custom").to_owned();
    let (link, class_count) = link_of(&objective, outputs)?;
    let categories = categories(text, &header, inputs)?;
    Ok(ForeignModel {
        trees: EnsembleText {
            combination: match header.lines.contains_key("average_output") {
                true => Combination::Average,
                false => Combination::Sum,
            },
            precision: Precision::Double,
            link,
            base: vec![0.0; outputs],
            trees,
        },
        // In a pandas table, an unknown category is a missing value.
        features: inputs.features(names, categories, Unseen::Missing)?,
        objective,
        class_count,
    })
}

/// Checks the number of trees.
fn check_count(header: &Block, tree_count: usize) -> Result<(), String> {
    let expected = header.list::<u64>("tree_sizes")?.len();
    if expected != tree_count {
        return Err(format!(
            "has {tree_count} trees instead of {expected}; copy it again"
        ));
    }
    match tree_count {
        0 => Err("has no trees; train the model first".to_owned()),
        _ => Ok(()),
    }
}

/// The link of an objective, and its number of classes.
fn link_of(objective: &str, outputs: usize) -> Result<(Link, usize), String> {
    let mut words = objective.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let scale = words.clone().find_map(|word| word.strip_prefix("sigmoid:"));
    let scale = match scale {
        None => 1.0,
        Some(text) => text
            .parse()
            .map_err(|_| format!("has an objective with a wrong sigmoid: {objective}"))?,
    };
    let is_square_root = words.any(|word| word == "sqrt");
    let (link, class_count) = match name {
        "binary" => (Link::Logistic { scale }, 2),
        "multiclass" | "softmax" => (Link::Softmax, outputs),
        "multiclassova" => (Link::Logistic { scale }, outputs),
        "cross_entropy" => (Link::Logistic { scale: 1.0 }, 0),
        "cross_entropy_lambda" => (Link::LogOnePlusExponential, 0),
        "poisson" | "gamma" | "tweedie" => (Link::Exponential, 0),
        "regression" if is_square_root => (Link::SignedSquare, 0),
        "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape" | "lambdarank"
        | "rank_xendcg" | "custom" => (Link::Identity, 0),
        _ => {
            return Err(format!(
                "has the objective {name}, which rv-score does not know; export the model to ONNX \
                 instead, and use rv-score --model model.onnx"
            ));
        }
    };
    match outputs {
        1 if name.starts_with("multiclass") => Err("has one class".to_owned()),
        1 => Ok((link, class_count)),
        _ if class_count == outputs => Ok((link, class_count)),
        _ => Err(format!(
            "has {outputs} outputs with the objective {name}; rv-score predicts one number or classes"
        )),
    }
}

/// The categories in the file, by the index of the feature.
fn categories(
    text: &str,
    header: &Block,
    inputs: &InputNames,
) -> Result<BTreeMap<usize, Vec<Value>>, String> {
    let line = text
        .rsplit('\n')
        .find_map(|line| line.strip_prefix("pandas_categorical:"));
    let lists: Option<Vec<Vec<Value>>> = match line {
        None => None,
        Some(json) => serde_json::from_str(json)
            .map_err(|error| format!("has a wrong line pandas_categorical: {error}"))?,
    };
    let lists = lists.unwrap_or_default();
    if lists.is_empty() {
        return Ok(BTreeMap::new());
    }
    // The codes of categories are written like 0:1:2, a range of numbers like [0:1.5].
    // A feature with one value is written as none.
    let infos = header.list::<String>("feature_infos")?;
    let is_categorical = |info: &String| info != "none" && !info.starts_with('[');
    let found: Vec<usize> = (0..infos.len())
        .filter(|index| is_categorical(&infos[*index]))
        .collect();
    if found.len() == lists.len() {
        return Ok(found.into_iter().zip(lists).collect());
    }
    if found.iter().all(|index| {
        let name = header
            .list::<String>("feature_names")
            .ok()
            .and_then(|names| names.get(*index).cloned());
        let given = inputs.features.get(*index).cloned().or(name);
        given.is_some_and(|name| inputs.categories.contains_key(&name))
    }) {
        return Ok(BTreeMap::new());
    }
    Err(format!(
        "has {} lists of categories for {} features with categories; name the categories of each \
         input with --categories",
        lists.len(),
        found.len()
    ))
}

/// The lines of one block, by their keys.
struct Block<'t> {
    lines: HashMap<&'t str, &'t str>,
}

impl<'t> Block<'t> {
    /// The lines up to the first blank line after a line with a key.
    fn parse(text: &'t str) -> Block<'t> {
        let mut lines = HashMap::new();
        for line in text.lines() {
            let line = line.trim_end();
            if line.is_empty() && !lines.is_empty() {
                break;
            }
            match line.split_once('=') {
                Some((key, value)) => lines.insert(key, value),
                None => lines.insert(line, ""),
            };
        }
        Block { lines }
    }

    fn get(&self, key: &str) -> Option<&'t str> {
        self.lines.get(key).copied()
    }

    /// The number behind a key.
    fn number<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let value = self.get(key).ok_or_else(|| format!("has no line {key}"))?;
        value
            .trim()
            .parse()
            .map_err(|_| format!("has a wrong value in line {key}"))
    }

    /// The values behind a key, which are separated by spaces. Without the key, there
    /// are no values.
    fn list<T: FromStr>(&self, key: &str) -> Result<Vec<T>, String> {
        let words = self.get(key).unwrap_or_default().split_ascii_whitespace();
        let values = words.map(|word| {
            word.parse()
                .map_err(|_| format!("has a wrong value in line {key}"))
        });
        values.collect()
    }
}

/// The lists of a tree. Entry `i` belongs to split `i`.
struct Lists {
    features: Vec<usize>,
    thresholds: Vec<f64>,
    decisions: Vec<u32>,
    left: Vec<i64>,
    right: Vec<i64>,
    leaves: Vec<f64>,
    /// For each set of categories, the index of its first word in `category_words`. The
    /// last entry is the number of all words.
    category_starts: Vec<usize>,
    category_words: Vec<u32>,
}

fn read_tree(block: &Block, output: u32) -> Result<TreeText, String> {
    if block
        .get("is_linear")
        .is_some_and(|value| value.trim() != "0")
    {
        return Err(
            "has linear models in its leaves, which rv-score does not know; train without \
             linear_tree"
                .to_owned(),
        );
    }
    let lists = Lists {
        features: block.list("split_feature")?,
        thresholds: block.list("threshold")?,
        decisions: block.list("decision_type")?,
        left: block.list("left_child")?,
        right: block.list("right_child")?,
        leaves: block.list("leaf_value")?,
        category_starts: block.list("cat_boundaries")?,
        category_words: block.list("cat_threshold")?,
    };
    let leaf_count: usize = block.number("num_leaves")?;
    let splits = lists.features.len();
    let are_equal = [
        lists.thresholds.len(),
        lists.decisions.len(),
        lists.left.len(),
        lists.right.len(),
    ]
    .iter()
    .all(|length| *length == splits);
    if !are_equal || leaf_count != lists.leaves.len() || leaf_count != splits + 1 {
        return Err("has lists of different lengths; copy the file again".to_owned());
    }
    lists.check_sets()?;
    // Splits come first, then leaves.
    let index_of = |child: i64| match usize::try_from(child) {
        Ok(split) if split < splits => split,
        Ok(_) => usize::MAX,
        Err(_) => splits.saturating_add(!child as usize),
    };
    preorder::convert(0, splits + leaf_count, output, |index| {
        if index >= splits {
            return Ok(ForeignNode::Leaf(lists.leaves[index - splits]));
        }
        Ok(ForeignNode::Split {
            split: lists.split(index)?,
            left: index_of(lists.left[index]),
            right: index_of(lists.right[index]),
        })
    })
}

impl Lists {
    /// Checks that each set of categories belongs to one split, and that the sets do not
    /// overlap. Otherwise a small file could need much memory.
    fn check_sets(&self) -> Result<(), String> {
        let mut is_used = vec![false; self.category_starts.len()];
        for (threshold, decision) in self.thresholds.iter().zip(&self.decisions) {
            if decision & decision::CATEGORIES == 0 {
                continue;
            }
            // The cast saturates, so an index that does not exist is found below.
            match is_used.get_mut(*threshold as usize) {
                Some(is_used) if !*is_used => *is_used = true,
                Some(_) => return Err("names a set of categories twice".to_owned()),
                None => return Err("names a set of categories that does not exist".to_owned()),
            }
        }
        match self.category_starts.is_sorted() {
            true => Ok(()),
            false => Err("has sets of categories that overlap; copy the file again".to_owned()),
        }
    }

    /// The question of split `index`.
    fn split(&self, index: usize) -> Result<Split, String> {
        let feature = self.features[index];
        let threshold = self.thresholds[index];
        let decision = self.decisions[index];
        if decision & decision::CATEGORIES != 0 {
            // A missing value goes right.
            return Ok(Split::new(
                feature,
                Test::OneOf(self.categories(threshold)?),
            ));
        }
        let default_left = decision & decision::DEFAULT_LEFT != 0;
        let (missing_left, zero_is_missing) = match decision >> decision::MISSING_SHIFT & 3 {
            // A missing value is 0.
            0 => (0.0 <= threshold, false),
            1 => (default_left, true),
            2 => (default_left, false),
            _ => return Err("has an unknown decision_type".to_owned()),
        };
        let threshold = threshold.clamp(-f64::MAX, f64::MAX);
        Ok(Split {
            missing_left,
            zero_is_missing,
            ..Split::new(feature, Test::AtMost(threshold))
        })
    }

    /// The set of categories whose number is `threshold`. The set has one bit for each
    /// category.
    fn categories(&self, threshold: f64) -> Result<Vec<u32>, String> {
        // If the threshold is not an index of this list, no bounds are found. The cast
        // cannot overflow, because it saturates.
        let mut bounds = self.category_starts.iter().skip(threshold as usize);
        let (Some(start), Some(end)) = (bounds.next(), bounds.next()) else {
            return Err("names a set of categories that does not exist".to_owned());
        };
        let words = self.category_words.get(*start..*end);
        let words = words.ok_or("has sets of categories that do not exist")?;
        let bits = (0u32..).step_by(32).zip(words).flat_map(|(first, bits)| {
            let set = (0..32).filter(move |bit| bits >> bit & 1 == 1);
            set.map(move |bit| first + bit)
        });
        Ok(bits.collect())
    }
}
