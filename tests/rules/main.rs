//! The rules of the house, kept by test: who may depend on whom, what the sans-IO rooms may
//! know, where `unsafe` may stand, how long files and functions may be.

mod dependencies;
mod source;
mod sources;
