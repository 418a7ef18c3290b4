//! The stages off the path of the answers. These stages never delay a response.

pub mod archive;
pub mod es_sink;

mod pass_args;
