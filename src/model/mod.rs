//! Models: their files, features and predictions, and their measured quality.
//! [`train`](crate::train) makes models. This folder does not depend on the folder
//! `train`.
//!
//! A model file (`file`) contains a `description` and the parameters of one family of
//! models (`families`). [`Model`] loads the file, reads the features of a request and
//! predicts. [`inspect`] prints a model for people.
//!
//! A model file contains only numbers and names, so no code runs when the file is
//! loaded.

pub(crate) mod bounds;
#[cfg(test)]
pub(crate) mod damage;
pub(crate) mod description;
pub(crate) mod ensemble;
pub(crate) mod families;
pub(crate) mod feature;
pub(crate) mod feature_names;
pub(crate) mod features;
pub(crate) mod file;
pub mod inspect;
pub(crate) mod linear;
mod loaded;
pub(crate) mod logistic;
pub(crate) mod metrics;
pub(crate) mod one_hot;
pub mod prediction;
pub(crate) mod profile;
pub(crate) mod save;
pub(crate) mod scalar;
pub(crate) mod splits;
pub mod text_table;
pub(crate) mod tree;

pub use loaded::Model;
