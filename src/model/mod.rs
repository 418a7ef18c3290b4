//! What a model is: its file, its features, its predictions, and what is known
//! of its quality. [`train`](crate::train) makes models; nothing here depends on
//! it.
//!
//! A model file ([`file`]) holds a [`description`] and the parameters of one
//! family of models ([`families`]). [`Model`] loads it, reads the features out of
//! a request and predicts. [`inspect`] prints a model for people.
//!
//! A model file holds numbers and names only, so loading one runs no code.

pub mod bounds;
pub mod description;
pub mod families;
pub mod features;
pub mod file;
pub mod inspect;
pub mod loaded;
pub mod logistic;
pub mod metrics;
pub mod prediction;
pub mod profile;
pub mod scalar;
pub mod text_table;
pub mod tree;

pub use loaded::Model;
