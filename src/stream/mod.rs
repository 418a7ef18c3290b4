//! The carriers of records: standard streams, files, named pipes and archives. There is
//! one file for each kind, and only these files open streams.

pub mod address;
pub mod archives;
pub mod cursor;
mod descriptor;
mod gzip;
pub mod input;
pub mod lasting_pipe;
pub mod output;
pub mod pipe_watch;
pub mod threaded_file;
