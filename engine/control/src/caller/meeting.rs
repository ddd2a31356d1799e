//! What is different about a caller that meets its peer by rendezvous (spec section 6): the port
//! that it needs, keys that the peer asks for, and why it came to nothing. Called by the control
//! thread.

use std::net::SocketAddr;

use mirror_base::{Instant, ShardId};
use mirror_srt::{KeyQuestion, ListenerPolicy, Passphrase, RejectionCode, Security};
use mirror_stream::report::{CallFailure, Command};

use super::Phase;
use super::machine::Blame;
use crate::keys::{MeetingJob, negotiated};
use crate::runtime::Runtime;

/// What a failed call is to people, and whom it speaks against.
pub(super) fn failure_text(
    failure: CallFailure,
    detail: Option<&str>,
    peer: Option<SocketAddr>,
) -> (Blame, String) {
    let peer = peer.map_or_else(|| "the peer".to_owned(), |p| p.to_string());
    match failure {
        CallFailure::Timeout => (Blame::Peer, format!("no answer from {peer}")),
        CallFailure::Rejected(code) => {
            let code = RejectionCode(code);
            (Blame::Peer, format!("{peer}: rejected with {code}"))
        }
        CallFailure::Unconcluded => {
            let why = "greets, but concludes nothing: its passphrase is most often another one, or \
                       only one end has one";
            (Blame::Peer, format!("{peer} {why}"))
        }
        CallFailure::NoPort => {
            let why = detail.unwrap_or("the host gave no reason");
            (Blame::Ours, format!("no port for the rendezvous: {why}"))
        }
        CallFailure::Conflict => (Blame::Ours, "the stream is live here already".to_owned()),
        CallFailure::NoRoom => (Blame::Ours, "the shard has no room".to_owned()),
        CallFailure::Cancelled => (Blame::Ours, "the call was cancelled".to_owned()),
    }
}

impl Runtime {
    /// A peer asks for encryption, or for none: the caller's passphrase decides, as a publisher's
    /// rule does.
    pub(crate) fn call_keys(&mut self, shard: ShardId, ticket: u64, question: KeyQuestion) {
        let Some(i) = self.callers.of_ticket(ticket) else {
            return;
        };
        let Some(caller) = self
            .callers
            .list
            .get(i)
            .filter(|c| c.machine.phase() == Phase::Calling)
        else {
            return;
        };
        let config = &caller.config;
        let passphrase = match &config.passphrase {
            Some(secret) => Passphrase::new(secret.reveal()).ok(),
            None => None,
        };
        let KeyQuestion {
            number,
            key_material,
            peer_version,
        } = question;
        let (require, cipher) = (config.require, config.cipher);
        match (key_material, passphrase) {
            (Some(key_material), Some(passphrase)) => self.keys.meeting(MeetingJob {
                shard,
                ticket,
                number,
                key_material,
                peer_version,
                passphrase,
                require,
                cipher,
            }),
            // Nothing is to be derived.
            (key_material, passphrase) => {
                let policy = ListenerPolicy {
                    passphrase: passphrase.as_ref(),
                    require,
                    cipher,
                };
                let decision = negotiated(key_material.as_deref(), peer_version, &policy);
                self.meeting_keys(shard, ticket, number, decision);
            }
        }
    }

    /// A stream's grace period is over. Its rendezvous goes on for up to half a minute: the record
    /// begins anew, and with it the claim that the end gave up.
    pub(super) fn still_meeting(&mut self, now: Instant, i: usize) {
        let meets = self
            .callers
            .list
            .get(i)
            .is_some_and(|c| c.machine.phase() == Phase::Calling && c.local.is_some());
        if meets {
            self.show_call(now, i);
        }
    }

    /// The decision on a peer's keys, for its shard.
    pub(crate) fn meeting_keys(
        &mut self,
        shard: ShardId,
        ticket: u64,
        number: u32,
        decision: Result<Box<Security>, RejectionCode>,
    ) {
        let caller = self.callers.of_ticket(ticket);
        let Some(caller) = caller.and_then(|i| self.callers.list.get(i)) else {
            return;
        };
        let command = Command::CallKeys {
            stream_id: caller.config.id.clone(),
            ticket,
            number,
            decision: decision.map_err(|code| code.0),
        };
        // A shard that takes no commands: the peer repeats itself, and the call has its time.
        let _ = self.mailboxes.send(shard, command);
    }
}
