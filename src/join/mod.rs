//! Joins the records of several recorded streams by `messageId`. Memory grows with the
//! disorder of the streams, not with their length.

mod batch;
pub mod kept_score;
pub mod merged_streams;
mod recorded_stream;
pub mod remembered_ids;
pub mod request_id;
pub mod window;
