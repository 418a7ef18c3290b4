//! The statistics of a comparison: pure functions of counts or of numbers. The doc
//! comment of each names the reference whose answers it gives, to nine digits.
//!
//! A value that is not defined, such as the rate of nothing, is `None`.

pub mod binomial;
pub mod drift;
pub mod labelled;
pub mod numbers;
pub mod rates;
pub mod sampling;
pub mod sequence;
pub mod special;
pub mod tables;

#[cfg(test)]
mod tests;
