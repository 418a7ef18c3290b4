//! The common parts of programs that call HTTP servers: addresses, certificates, secrets
//! and the texts of errors.

pub mod address;
pub mod call_failure;
pub mod certificates;
pub mod secret;
