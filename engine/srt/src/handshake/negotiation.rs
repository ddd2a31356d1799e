//! What both ends of a handshake check and work out alike, whichever of them asks (spec sections
//! 4.1 and 5.5, step 6). Called by listener, caller and rendezvous.

use core::time::Duration;

use super::cif::HandshakeCif;
use super::extensions::{Extensions, HsWords, write_key_response};
use super::flags;
use crate::config::{Config, HSV5_MIN_VERSION, OUR_VERSION, latency_ms};
use crate::crypto::Terms;
use crate::packet::Writer;
use crate::reject::RejectionCode;

/// Latencies that both sides will use (spec section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latencies {
    /// Ours as receiver.
    pub(crate) receive: Duration,
    /// The peer's as receiver.
    pub(crate) peer: Duration,
}

impl Latencies {
    /// The responder's, to the initiator's HSREQ. A word whose flag is missing is ignored.
    pub(crate) fn for_request(asked: &HsWords, config: &Config) -> Self {
        let demanded = |ms: u16, flag: u32| {
            if asked.flags & flag == 0 {
                Duration::ZERO
            } else {
                Duration::from_millis(ms.into())
            }
        };
        let receive = config
            .latency
            .max(demanded(asked.send_ms, flags::TSBPDSND))
            .min(config.latency_limit());
        let peer = config
            .peer_latency
            .max(demanded(asked.receive_ms, flags::TSBPDRCV));
        Latencies { receive, peer }
    }

    /// The initiator's, by the responder's HSRSP.
    pub(crate) fn by_response(answered: &HsWords, config: &Config) -> Self {
        let told = |ms: u16, flag: u32, own: Duration| {
            if answered.flags & flag == 0 {
                own
            } else {
                Duration::from_millis(ms.into())
            }
        };
        let receive = told(answered.send_ms, flags::TSBPDSND, config.latency);
        Latencies {
            receive: receive.min(config.latency_limit()),
            peer: told(answered.receive_ms, flags::TSBPDRCV, config.peer_latency),
        }
    }

    /// HSRSP that tells them.
    pub(crate) fn response(&self) -> HsWords {
        words(self.receive, self.peer)
    }
}

/// HSREQ of an end with `config`.
pub(crate) fn request_words(config: &Config) -> HsWords {
    words(
        config.latency.min(config.latency_limit()),
        config.peer_latency,
    )
}

fn words(receive: Duration, peer: Duration) -> HsWords {
    HsWords {
        version: OUR_VERSION,
        flags: flags::OURS,
        receive_ms: latency_ms(receive),
        send_ms: latency_ms(peer),
    }
}

/// Why `config` cannot serve a peer whose conclusion bears `hs` and `blocks`: spec section 5.5,
/// step 6, and the same the other way round. Blocks that we never ask for mean that the peer
/// would send what we cannot read.
pub(crate) fn refusal(
    handshake: &HandshakeCif,
    blocks: &Extensions,
    hs: &HsWords,
    config: &Config,
) -> Option<RejectionCode> {
    let is_set = |text: &Option<Vec<u8>>| text.as_ref().is_some_and(|text| !text.is_empty());
    if hs.version < config.min_version {
        Some(RejectionCode::VERSION)
    } else if hs.version < HSV5_MIN_VERSION
        || hs.flags & flags::REXMITFLG == 0
        || !handshake.has_room()
    {
        Some(RejectionCode::ROGUE)
    } else if is_set(&blocks.congestion) && blocks.congestion.as_deref() != Some(b"live") {
        Some(RejectionCode::CONGESTION)
    } else if hs.flags & flags::STREAM != 0 {
        Some(RejectionCode::MESSAGEAPI)
    } else if is_set(&blocks.filter) {
        Some(RejectionCode::FILTER)
    } else if blocks.group.is_some() {
        Some(RejectionCode::GROUP)
    } else {
        None
    }
}

/// Whether a responder that agreed to `terms` attaches KMRSP.
pub(crate) const fn has_key_answer(terms: &Terms) -> bool {
    !matches!(terms, Terms::Clear)
}

/// KMRSP (spec section 16.5): the message echoed, or why there are no keys.
pub(crate) fn write_key_answer(terms: &Terms, writer: &mut Writer<'_>) {
    match terms {
        Terms::Clear => {}
        Terms::Unsecured(state) => write_key_response(&state.to_wire(), writer),
        Terms::Keys(agreement) => write_key_response(agreement.message.as_bytes(), writer),
    }
}
