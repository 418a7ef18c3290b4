//! rv-bridge: puts a program between the topics of a broker.

mod address;
mod frame;
mod ledger;
