//! Elementary streams as they lie in files, without a transport: readers that find units of
//! media in bytes that come in pieces of any size. Sans-IO; called by `inspect` and by tests.

#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)
)]

pub mod annexb;
pub mod ivf;
pub mod jxs;
pub mod obu;
