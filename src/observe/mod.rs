//! Copies that are taken off the path of the answers: what happens here never
//! slows a response.

pub mod archive;
pub mod es_sink;
