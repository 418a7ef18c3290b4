//! The programs, run as programs: one module a subject, one harness for all.

mod es;
mod harness;

mod archive;
mod conventions;
mod decision;
mod es_sink;
mod forms;
mod golden;
mod http;
mod http_admin;
mod http_load;
mod http_sites;
mod pipelines;
mod readme;
mod records;
mod rendezvous;
mod replay;
mod request;
mod score;
mod streams;
mod tee;
mod up;
