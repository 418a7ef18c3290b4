//! rv-compare: decisions or scores -> a report that tells which model is better.

mod statistics;
