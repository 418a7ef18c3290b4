//! Models in the ONNX format, which the library onnxruntime evaluates.
//!
//! `args` defines the flags. `runtime` finds and loads the library. `checked_file` reads
//! a model file with `proto` and checks it before the library sees it. A `model` has a
//! plan of its `inputs`, which `feature_row` reads from requests, and of its `outputs`,
//! whose values are `output_values` and whose classes are `class_labels`. The `engine`
//! evaluates the requests that wait as one batch, whose size is the `batch_size`.

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
