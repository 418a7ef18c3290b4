//! The data that the stages exchange: lines, and the records in them.

pub mod answer;
mod decimal;
pub mod decision;
pub mod lines;
pub mod message;
pub mod micros;
pub mod object;
pub mod reject;
mod scan;
pub mod sha256;
pub mod shape;
pub mod text;
pub mod trace;
