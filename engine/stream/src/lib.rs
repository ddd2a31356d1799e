//! One stream end to end, still sans-IO.

pub mod report;
