//! Models in the ONNX format, which the library onnxruntime evaluates.
//!
//! `args` defines the flags. `runtime` finds and loads the library. `checked_file`
//! reads a model file with `proto` and checks it before the library sees it. A `model`
//! has a plan of its `inputs` and a plan of its `outputs`. `feature_row` reads the
//! inputs from requests, `output_values` reads the values of the outputs, and
//! `class_labels` names the classes. The `engine` evaluates the requests that wait as
//! one batch, and `batch_size` limits the size of a batch.

pub mod args;
mod batch_size;
mod checked_file;
mod class_labels;
pub mod engine;
mod feature_row;
mod inputs;
mod model;
mod output_values;
mod outputs;
mod proto;
mod runtime;
