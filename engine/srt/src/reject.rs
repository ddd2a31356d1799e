//! Rejection codes (spec section 8). The handshake writes them as handshake types, operators
//! read their names.

use core::fmt;

/// SRT rejection code as the spec's section 8 numbers it; on the wire 1000 is added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RejectionCode(pub u32);

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $code:literal, )+) => {
        impl RejectionCode {
            $( $(#[doc = $doc])+ pub const $name: RejectionCode = RejectionCode($code); )+

            /// The code's name in section 8, if it has one there.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $code => Some(stringify!($name)), )+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Unspecified.
    UNKNOWN = 0,
    /// A system function failed.
    SYSTEM = 1,
    /// Rejected by the peer's application.
    PEER = 2,
    /// A resource could not be had.
    RESOURCE = 3,
    /// Incorrect data in the handshake.
    ROGUE = 4,
    /// The listener's backlog is full.
    BACKLOG = 5,
    /// Internal program error.
    IPE = 6,
    /// The socket is closing.
    CLOSE = 7,
    /// The peer is older than the minimum version.
    VERSION = 8,
    /// Rendezvous cookies collided.
    RDVCOOKIE = 9,
    /// Wrong passphrase.
    BADSECRET = 10,
    /// One side has a passphrase, the other has not.
    UNSECURE = 11,
    /// Stream flags collide.
    MESSAGEAPI = 12,
    /// Incompatible congestion controller.
    CONGESTION = 13,
    /// Incompatible packet filter.
    FILTER = 14,
    /// Incompatible group.
    GROUP = 15,
    /// Connection timeout (local only).
    TIMEOUT = 16,
    /// Crypto modes conflict.
    CRYPTO = 17,
    /// Application: unspecified.
    FALLBACK = 1000,
    /// Application: a key of the stream ID is not supported.
    KEY_NOTSUP = 1001,
    /// Application: wrong resource path.
    FILEPATH = 1002,
    /// Application: host not found.
    HOSTNOTFOUND = 1003,
    /// Application: bad request.
    BAD_REQUEST = 1400,
    /// Application: not authorised.
    UNAUTHORIZED = 1401,
    /// Application: overloaded.
    OVERLOAD = 1402,
    /// Application: forbidden.
    FORBIDDEN = 1403,
    /// Application: no such resource.
    NOTFOUND = 1404,
    /// Application: mode not allowed.
    BAD_MODE = 1405,
    /// Application: parameters not acceptable.
    UNACCEPTABLE = 1406,
    /// Application: the resource is in use.
    CONFLICT = 1409,
    /// Application: media type not supported.
    NOTSUP_MEDIA = 1415,
    /// Application: the resource is locked.
    LOCKED = 1423,
    /// Application: a dependency failed.
    FAILED_DEPEND = 1424,
    /// Application: internal server error.
    ISE = 1500,
    /// Application: not implemented.
    UNIMPLEMENTED = 1501,
    /// Application: bad gateway.
    GW = 1502,
    /// Application: service is down.
    DOWN = 1503,
    /// Application: version not supported.
    APPLICATION_VERSION = 1505,
    /// Application: no room.
    NOROOM = 1507,
}

impl RejectionCode {
    /// The handshake type that carries it.
    pub const fn wire(self) -> u32 {
        self.0.saturating_add(1000)
    }

    /// The code in handshake type `wire`; `None` when that is no rejection. The negative types
    /// CONCLUSION, AGREEMENT and DONE are none.
    pub const fn from_wire(wire: u32) -> Option<Self> {
        if wire >= 1000 && wire < 0x8000_0000 {
            Some(RejectionCode(wire - 1000))
        } else {
            None
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_1000_higher_on_the_wire() {
        assert_eq!(RejectionCode::VERSION.wire(), 1008);
        assert_eq!(RejectionCode::FORBIDDEN.wire(), 2403);
        assert_eq!(RejectionCode::from_wire(3005), Some(RejectionCode(2005)));
        assert_eq!(RejectionCode::from_wire(0xFFFF_FFFF), None);
        assert_eq!(RejectionCode::from_wire(1), None);
        assert_eq!(RejectionCode::CONFLICT.name(), Some("CONFLICT"));
    }
}
