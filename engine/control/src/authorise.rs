//! Who may publish: rules and limits of this process, the passphrase (whose keys are derived by
//! [`crate::keys`]), and last the registry's claim on the id, so that a publisher who does not
//! know its passphrase never holds one (spec section 8; product contract, sections 2 and 3).
//! Called by the control thread with what shards ask.

use std::net::IpAddr;
use std::time::Duration;

use mirror_base::{Instant, ShardId, StreamId};
use mirror_srt::{ListenerPolicy, Passphrase, RejectionCode, Security};
use mirror_stream::report::{Command, PublishRequest};

use crate::clock::{self, WallClock};
use crate::directory::RESERVATION_TTL;
use crate::keys::{Answer, PublisherJob, negotiated};
use crate::registry::Claim;
use crate::runtime::Runtime;
use crate::state::lock;

/// A handshake waits for the registry's claim so long at the most (D14).
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_millis(250);
/// Publishers waiting for a claim at the same time; more are let in provisionally.
const MAX_PENDING: usize = 4096;

/// SRT rejection codes of the application (SRT access control, section "Rejection codes").
pub(crate) mod rejection {
    pub(crate) const OVERLOAD: u32 = 1402;
    pub(crate) const FORBIDDEN: u32 = 1403;
    pub(crate) const CONFLICT: u32 = 1409;
    pub(crate) const DOWN: u32 = 1503;
}

/// A publisher whose keys are being derived.
#[derive(Debug)]
pub(crate) struct Deriving {
    shard: ShardId,
    ticket: u64,
    request: PublishRequest,
}

/// A publisher whose claim is being asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    shard: ShardId,
    ticket: u64,
    pub(crate) request: PublishRequest,
    deadline: Instant,
    security: Box<Security>,
}

impl Runtime {
    pub(crate) fn authorise(
        &mut self,
        now: Instant,
        shard: ShardId,
        ticket: u64,
        mut request: PublishRequest,
    ) {
        if let Err((code, why)) = self.judge(now, shard, &request) {
            return self.refuse(shard, ticket, &request, code, why);
        }
        let config = self.config.clone();
        let encryption = &config.srt.encryption;
        let secret = config.passphrase_of(&request.stream_id, request.peer.ip());
        let passphrase = match secret.map(|s| Passphrase::new(s.reveal())).transpose() {
            Ok(passphrase) => passphrase,
            // Its length was checked when it was read; were it not, nobody would be let in.
            Err(_) => {
                let code = RejectionCode::UNSECURE.0;
                return self.refuse(shard, ticket, &request, code, "unusable passphrase");
            }
        };
        let key_material = request.key_material.take();
        let (Some(key_material), Some(passphrase)) = (&key_material, &passphrase) else {
            // Nothing to derive: decided here and now.
            let policy = ListenerPolicy {
                passphrase: passphrase.as_ref(),
                require: encryption.require,
                cipher: encryption.cipher,
            };
            let outcome = negotiated(key_material.as_deref(), request.peer_version, &policy);
            return match outcome {
                Ok(security) => self.claim(now, shard, ticket, request, security),
                Err(code) => {
                    let why = refusal(code, key_material.is_some());
                    self.refuse(shard, ticket, &request, code.0, why);
                }
            };
        };
        let own = self.new_ticket();
        let job = PublisherJob {
            ticket: own,
            key_material: key_material.clone(),
            peer_version: request.peer_version,
            passphrase: passphrase.clone(),
            require: encryption.require,
            cipher: encryption.cipher,
        };
        if self.keys.publisher(now, request.peer.ip(), job) {
            let waiting = Deriving {
                shard,
                ticket,
                request,
            };
            self.deriving.insert(own, waiting);
        } else {
            let why = "too many handshakes wait for their keys";
            self.refuse(shard, ticket, &request, rejection::OVERLOAD, why);
        }
    }

    /// What the worker for keys says.
    pub(crate) fn keys_answer(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::Publisher { ticket, outcome } => {
                let Some(p) = self.deriving.remove(&ticket) else {
                    return;
                };
                // Others may have come in, or a drain have begun, in the meantime.
                let decided = outcome
                    .map_err(|code| (code.0, refusal(code, true)))
                    .and_then(|security| self.judge(now, p.shard, &p.request).map(|()| security));
                match decided {
                    Ok(security) => self.claim(now, p.shard, p.ticket, p.request, security),
                    Err((code, why)) => self.refuse(p.shard, p.ticket, &p.request, code, why),
                }
            }
            // Its shard has forgotten it as well.
            Answer::Late { ticket } => {
                self.deriving.remove(&ticket);
            }
            Answer::GivenUp { ticket } => {
                if let Some(p) = self.deriving.remove(&ticket) {
                    let why = "too many handshakes wait for their keys";
                    self.refuse(p.shard, p.ticket, &p.request, rejection::OVERLOAD, why);
                }
            }
            Answer::Caller { ticket, security } => self.caller_keys(now, ticket, security),
            Answer::Meeting {
                shard,
                ticket,
                number,
                outcome,
            } => self.meeting_keys(shard, ticket, number, outcome),
        }
    }

    /// Everything about the publisher is in order but the claim on its id.
    fn claim(
        &mut self,
        now: Instant,
        shard: ShardId,
        ticket: u64,
        request: PublishRequest,
        security: Box<Security>,
    ) {
        if self.config.registry.max_streams_per_source > 0 {
            let place = (request.peer.ip(), now + RESERVATION_TTL);
            self.admitted.insert(request.stream_id.clone(), place);
        }
        let created_us = WallClock::read().unix_micros(now);
        let own = self.new_ticket();
        let claim = if self.pending.len() < MAX_PENDING {
            self.registry.claim(own, &request.stream_id, created_us)
        } else {
            Claim::Provisional
        };
        match claim {
            Claim::Granted | Claim::Provisional => self.answer(shard, ticket, Ok(security)),
            Claim::Pending => {
                let pending = Pending {
                    shard,
                    ticket,
                    request,
                    deadline: now + CLAIM_TIMEOUT,
                    security,
                };
                self.pending.insert(own, pending);
            }
        }
    }

    /// The registry granted a claim, or could not be asked.
    pub(crate) fn claim_granted(&mut self, ticket: u64) {
        if let Some(p) = self.pending.remove(&ticket) {
            self.answer(p.shard, p.ticket, Ok(p.security));
            self.granted.insert(p.request.stream_id, clock::now());
        }
    }

    /// Another instance holds the id. A ticket that is gone: the answer came too late, and the
    /// stream was let in provisionally. The next write of its record settles who was first.
    pub(crate) fn claim_held(&mut self, ticket: u64, by: &str) {
        if let Some(p) = self.pending.remove(&ticket) {
            self.admitted.remove(&p.request.stream_id);
            let why = format!("held by instance {by}");
            self.refuse(p.shard, p.ticket, &p.request, rejection::CONFLICT, &why);
        }
    }

    pub(crate) fn new_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    /// What this process alone can decide.
    fn judge(
        &self,
        now: Instant,
        shard: ShardId,
        request: &PublishRequest,
    ) -> Result<(), (u32, &'static str)> {
        let id = &request.stream_id;
        if self.directory.is_blocked(now, id) {
            return Err((
                rejection::FORBIDDEN,
                "terminated by the operator a moment ago",
            ));
        }
        self.rules(now, id, request.peer.ip())?;
        let state = lock(&self.state);
        if state.draining {
            return Err((rejection::DOWN, "the engine is draining"));
        }
        // Two publishers on one shard are the shard's to judge: it knows which one is silent.
        if state.lives_elsewhere(id, shard) {
            return Err((rejection::CONFLICT, "live on another shard"));
        }
        if state.present().filter(|(other, _)| *other != id).count() >= self.config.max_streams {
            return Err((rejection::OVERLOAD, "max_streams reached"));
        }
        Ok(())
    }

    /// What the configuration says of the publisher, whatever the protocol.
    pub(crate) fn rules(
        &self,
        now: Instant,
        id: &StreamId,
        ip: IpAddr,
    ) -> Result<(), (u32, &'static str)> {
        if self.callers.has(id) {
            return Err((rejection::CONFLICT, "the id of a configured caller"));
        }
        let rules = &self.config.publishers;
        if !rules.is_empty() && !rules.iter().any(|rule| rule.admits(id, ip)) {
            return Err((rejection::FORBIDDEN, "no publisher rule fits"));
        }
        let limit = self.config.registry.max_streams_per_source;
        if limit > 0 && self.streams_from(now, ip, id) >= limit {
            return Err((rejection::OVERLOAD, "max_streams_per_source reached"));
        }
        Ok(())
    }

    /// Streams of `ip`, live or let in a moment ago, `except` left out.
    fn streams_from(&self, now: Instant, ip: IpAddr, except: &StreamId) -> usize {
        let state = lock(&self.state);
        let coming = self.admitted.iter().filter(|(id, (from, until))| {
            *id != except
                && from.to_canonical() == ip.to_canonical()
                && *until > now
                && !state.is_live(id)
        });
        state.live_from(ip, except) + coming.count()
    }

    fn refuse(
        &mut self,
        shard: ShardId,
        ticket: u64,
        request: &PublishRequest,
        code: u32,
        why: &str,
    ) {
        self.count_refusal(request, code, why);
        self.answer(shard, ticket, Err(code));
    }

    pub(crate) fn count_refusal(&mut self, request: &PublishRequest, code: u32, why: &str) {
        {
            let refusals = &mut lock(&self.state).refusals;
            *match RejectionCode(code) {
                RejectionCode::CONFLICT => &mut refusals.conflict,
                RejectionCode::OVERLOAD => &mut refusals.overload,
                RejectionCode::DOWN => &mut refusals.down,
                RejectionCode::BADSECRET => &mut refusals.bad_secret,
                RejectionCode::UNSECURE => &mut refusals.unsecure,
                RejectionCode::CRYPTO => &mut refusals.crypto,
                RejectionCode::ROGUE => &mut refusals.malformed,
                RejectionCode::SYSTEM | RejectionCode::IPE => &mut refusals.internal,
                _ => &mut refusals.forbidden,
            } += 1;
        }
        if self.refusal_log.admit() {
            let code = RejectionCode(code);
            tracing::warn!(stream = %request.stream_id, peer = %request.peer, %code, why, "publisher refused");
        }
    }

    fn answer(&self, shard: ShardId, ticket: u64, decision: Result<Box<Security>, u32>) {
        // A shard that is gone needs no answer.
        let _ = self
            .mailboxes
            .send(shard, Command::Authorised { ticket, decision });
    }

    pub(crate) fn claim_deadlines(&mut self, now: Instant) {
        if self.pending.is_empty() {
            return;
        }
        let late: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.deadline <= now)
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in late {
            if let Some(p) = self.pending.remove(&ticket) {
                self.answer(p.shard, p.ticket, Ok(p.security));
            }
        }
    }
}

/// Why keys could not be agreed on, for the log: nothing of a passphrase is in it.
const fn refusal(code: RejectionCode, encrypted: bool) -> &'static str {
    match code {
        RejectionCode::BADSECRET => "wrong passphrase",
        RejectionCode::UNSECURE if encrypted => "encrypted, and no passphrase is set for it",
        RejectionCode::UNSECURE => "not encrypted, and a passphrase is asked for",
        RejectionCode::CRYPTO => "a cipher that is not allowed",
        RejectionCode::ROGUE => "malformed key material",
        RejectionCode::SYSTEM => "no randomness to be had",
        _ => "keys could not be agreed on",
    }
}
