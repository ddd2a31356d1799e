//! What a connection tells its owner: why it ended, what happened, why `send` refused.

use core::fmt;

use crate::reject::RejectionCode;

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// SHUTDOWN received.
    PeerShutdown,
    /// Nothing heard for `peer_idle_timeout`.
    IdleTimeout,
    /// `close()` was called.
    Local,
    /// Caller: no answer within `connect_timeout`; rendezvous: within ten of them.
    ConnectTimeout,
    /// Caller: rejected by the listener. Rendezvous: by the peer, or the peer's request by us.
    Rejected(RejectionCode),
    /// Rendezvous: the peer greeted, but nothing was concluded within ten `connect_timeout`s, or it
    /// hung up. Where passphrases differ the peer tells no reason.
    Unconcluded,
    /// The peer broke the protocol.
    Protocol,
}

/// What happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Caller, rendezvous: the handshake is done.
    Connected,
    /// It is over. Deliveries that TSBPD still holds keep coming until `is_drained()`.
    Closed(CloseReason),
}

/// `send` refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The handshake is not done, or the connection is closed.
    NotConnected,
    /// Longer than the payload size that was agreed.
    TooLong,
    /// The send buffer is full.
    BufferFull,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::PeerShutdown => f.write_str("the peer shut down"),
            CloseReason::IdleTimeout => f.write_str("nothing was heard of the peer"),
            CloseReason::Local => f.write_str("closed locally"),
            CloseReason::ConnectTimeout => f.write_str("no answer to the handshake"),
            CloseReason::Rejected(code) => write!(f, "rejected: {code}"),
            CloseReason::Unconcluded => f.write_str("the peer greeted, but concluded nothing"),
            CloseReason::Protocol => f.write_str("the peer broke the protocol"),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::NotConnected => "the connection is not established",
            SendError::TooLong => "the payload is longer than one packet may carry",
            SendError::BufferFull => "the send buffer is full",
        })
    }
}

impl core::error::Error for SendError {}
