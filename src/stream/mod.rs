//! What records travel on: standard streams, files, named pipes and archives. One
//! file a kind; nothing else opens a stream.

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
