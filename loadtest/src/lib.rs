//! t
pub mod content;
pub mod generator;
pub mod pacer;
pub mod process;
pub mod sender;
pub mod units;
pub mod wire;
