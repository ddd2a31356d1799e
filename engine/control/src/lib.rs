//! The control side of the engine.

pub mod config;
