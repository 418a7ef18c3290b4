//! Tests that run the programs: one module for each subject, and one harness for all.
// A failing test must panic. A test may wait and print.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used
)]

mod callers;
mod es;
mod harness;
mod limit;
mod model_server;

mod archive;
mod archive_damage;
mod archive_pass;
mod bridge;
mod compare;
mod conventions;
mod es_sink;
mod forms;
mod golden;
mod http;
mod http_admin;
mod http_bodies;
mod http_inherited;
mod http_load;
mod http_plain;
mod http_sites;
mod http_tables;
mod http_tls;
mod pipelines;
mod readme;
mod records;
mod refusals;
mod rendezvous;
mod replay;
mod request;
mod schemas;
mod score;
mod score_eval;
mod score_exec;
mod score_onnx;
mod score_url;
mod signals;
mod spans;
mod streams;
mod tee;
mod tee_load;
mod train;
mod up;
