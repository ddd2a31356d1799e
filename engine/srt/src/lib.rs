//! SRT in live mode, sans-IO: draft-sharabayko-srt-01, and libsrt where the two differ.
//!
//! [`Handshaker`] answers inductions without state and turns a conclusion into a
//! [`ConnectRequest`]; [`Connection`] is one peer, as receiver and as sender. Both take
//! datagrams and the time, and are drained after each mutation: `poll_transmit`,
//! `poll_delivery`, `poll_event`, `poll_timeout`.
//!
//! "Spec section" in the comments means the project's SRT reference, which follows the
//! draft's text and notes what libsrt does instead.

// DOOR: the re-exported signatures are what other rooms are written against.

mod config;
mod connection;
mod credentials;
mod crypto;
mod handshake;
pub mod observe;
mod packet;
mod reject;
mod statistics;
mod stream_id;
#[cfg(test)]
mod test_support;

pub use config::{Config, InputBandwidth};
pub use connection::{
    Batch, CloseReason, Connection, Event, Proof, SendError, is_plain, may_be_usual,
};
pub use credentials::{shown_field, shown_stream_id};
pub use crypto::{
    CallerSecurity, Cipher, CipherPolicy, KeyLength, KeyQuestion, KmState, ListenerPolicy,
    Passphrase, PassphraseLength, Security,
};
pub use handshake::{ConnectRequest, HandshakeAction, Handshaker};
pub use packet::destination_socket_id;
pub use reject::RejectionCode;
pub use statistics::{Field, FieldKind, Statistics, Unit, Value};
pub use stream_id::{StreamIdFields, printable};
