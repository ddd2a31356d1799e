//! `inspect` over every recorded file: what it finds must be what the facts beside the file say.
//! A fact in which we rightly differ is a line of `table.rs`, with the value and the reason.

mod check;
mod coverage;
mod elementary;
mod fragments;
mod hostile;
mod reading;
mod rtp;
mod said;
mod srt;
mod table;
mod transport;
mod unread;
