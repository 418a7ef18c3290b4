//! What travels between the stages: lines, the records in them, and the
//! pipes and files they travel on.

pub mod decision;
pub mod hash;
pub mod lines;
pub mod message;
pub mod micros;
pub mod object;
pub mod reject;
mod scan;
pub mod shape;
pub mod text;
