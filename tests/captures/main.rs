//! Every SRT capture of libsrt, read and replayed through the engine's connections in virtual
//! time, from both ends, and held against its facts.

mod check;
mod files;
mod outcomes;
mod rendezvous;
mod replay;
mod setup;
mod side;
mod table;
