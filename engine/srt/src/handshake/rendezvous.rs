//! Rendezvous (spec section 6): both ends send to each other's known address, and the contest of
//! their cookies decides who is INITIATOR (asks, as a caller does) and who is RESPONDER (answers,
//! as a listener does). Driven by a connection that is not yet established.
//!
//! ```text
//! WAVING ──WAVEAHAND──▶ ATTENTION ──HSRSP (initiator)──────────────▶ connected, AGREEMENT
//!    │                      └──HSREQ (responder)──▶ INITIATED ──┬──▶ connected
//!    └──CONCLUSION──▶ FINE ─────────────────────────────────────┘
//! ```
//!
//! Where this differs from libsrt, it is because anybody can forge a datagram to socket ID 0: a
//! greeting that nobody has confirmed by addressing us ends nothing and gives way to another, a
//! late copy of a message is no error, and answers are not sent faster than [`REPLIES`] allows. What cannot be agreed is not
//! rejected on the wire (spec section 6, failure notes); our own side is told why.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, Instant, PacketSequenceNumber};

use super::caller::{Agreed, RETRY};
use super::cif::{
    AGREEMENT, CONCLUSION, EXT_CONFIG, EXT_HSREQ, EXT_KMREQ, HandshakeCif, WAVEAHAND, peer_ip_field,
};
use super::extensions::{Extensions, HsWords, write_key_request, write_stream_id};
use super::negotiation::{Latencies, has_key_answer, refusal, request_words, write_key_answer};
use crate::config::{Config, HSV5_MIN_VERSION};
use crate::connection::CloseReason;
use crate::crypto::{CallerSecurity, KeyQuestion, Security, Terms};
use crate::packet::Header;
use crate::reject::RejectionCode;

/// The connection timeout is so many times as long as a caller's (spec section 20, CONNTIMEO).
const PATIENCE: u32 = 10;
/// A peer that has proved to hear us gives way to another greeting after so long a silence:
/// libsrt repeats itself each second in blocking mode.
const DISPLACED_AFTER: Duration = Duration::from_secs(3);
/// Answers that leave at once within [`REPLIES_WITHIN`]; what comes faster is answered by the
/// next repetition. A handshake takes two.
const REPLIES: u8 = 4;
const REPLIES_WITHIN: Duration = Duration::from_millis(100);
/// Who was answered, was heard no more and gave way to another is not looked at for so long: old
/// greetings that somebody repeats come to one answer a second, and leave the others to the peer.
const PASSED_FOR: Duration = Duration::from_secs(1);
/// So many of them are remembered.
const PASSED: usize = 8;
/// Between two questions about keys.
const QUESTION_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes of the longest KM message (spec section 16.2: two keys of 256 bits).
const MAX_KEY_MATERIAL: usize = 256;

/// Who asks and who answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Attaches HSREQ and KMREQ.
    Initiator,
    /// Attaches HSRSP and KMRSP.
    Responder,
}

/// Our role, by the cookies; `None`: a draw. As libsrt computes it: the difference modulo 2^32,
/// and in the one case where that says nothing the cookies as signed numbers.
pub(crate) fn contest(own: u32, peer: u32) -> Option<Role> {
    const HALF: u32 = 1 << 31;
    let won = match own.wrapping_sub(peer) {
        0 => return None,
        HALF => own.cast_signed() > peer.cast_signed(),
        difference => difference < HALF,
    };
    Some(if won {
        Role::Initiator
    } else {
        Role::Responder
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Waving,
    Attention,
    Fine,
    Initiated,
}

/// The peer as it introduced itself.
#[derive(Clone, Copy, Debug)]
struct Other {
    cookie: u32,
    socket_id: u32,
    mss: u32,
    role: Role,
    /// It has addressed our socket ID: it hears us, and nobody else could.
    proven: bool,
    /// Something was sent to its socket ID.
    answered: bool,
    heard: Instant,
}

/// What the initiator asked for, and its request's arrival.
#[derive(Clone, Copy, Debug)]
struct Request {
    agreed: Agreed,
    arrival: Instant,
}

/// What a responder asks its owner about a request.
#[derive(Debug)]
struct Question {
    number: u32,
    key_material: Option<Vec<u8>>,
    peer_version: u32,
    request: Request,
    asked_at: Instant,
    /// It waits to be taken.
    fresh: bool,
    /// No answer has come.
    open: bool,
    /// The same is not asked again.
    stands: bool,
}

/// A responder's answer to a request.
#[derive(Debug)]
struct Answer {
    request: Request,
    terms: Terms,
}

/// A connection that is made.
#[derive(Debug)]
pub(crate) struct Union {
    pub(crate) agreed: Agreed,
    /// When the datagram arrived whose timestamp anchors the peer's clock.
    pub(crate) arrival: Instant,
    pub(crate) terms: Terms,
    /// The datagram that tells the peer, its timestamp 0.
    pub(crate) agreement: Option<Box<[u8]>>,
}

/// What a datagram led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing to tell.
    Continue,
    /// The connection is made.
    Connected(Box<Union>),
    /// It will not be: the peer says so, or both cookies are the same.
    Rejected(RejectionCode),
    /// The peer takes it for made, otherwise than we can: this socket is to be told by SHUTDOWN.
    Declined(RejectionCode, u32),
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    peer: SocketAddr,
    socket_id: u32,
    initial_sequence: PacketSequenceNumber,
    cookie: u32,
    srt_stream_id: Vec<u8>,
    state: State,
    next_send: Instant,
    /// Answers that left at once, and since when they are counted.
    replies: (Instant, u8),
    give_up: Instant,
    /// Why the peer's request or greeting cannot be served, and until when it may change.
    refused: Option<(RejectionCode, Instant)>,
    security: Option<CallerSecurity>,
    other: Option<Other>,
    /// Who gave way: cookie, socket ID, and when.
    passed: [(u32, u32, Instant); PASSED],
    question: Option<Question>,
    questions: u32,
    answer: Option<Answer>,
}

impl Rendezvous {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is what only the owner of this knows"
    )]
    pub(crate) fn new(
        now: Instant,
        peer: SocketAddr,
        socket_id: u32,
        initial_sequence: PacketSequenceNumber,
        cookie: u32,
        srt_stream_id: &str,
        config: &Config,
        security: Option<CallerSecurity>,
    ) -> Self {
        Rendezvous {
            peer,
            socket_id,
            initial_sequence,
            // Spec section 6: 0 is not allowed.
            cookie: cookie.max(1),
            srt_stream_id: srt_stream_id.as_bytes().to_vec(),
            state: State::Waving,
            next_send: now,
            replies: (now, 0),
            give_up: now + config.connect_timeout * PATIENCE,
            refused: None,
            security,
            other: None,
            passed: [(0, 0, now); PASSED],
            question: None,
            questions: 0,
            answer: None,
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Instant {
        let refused = self.refused.map_or(self.give_up, |(_, until)| until);
        self.next_send.min(self.give_up).min(refused)
    }

    /// Whether it is over, and why.
    pub(crate) fn verdict(&self, now: Instant) -> Option<CloseReason> {
        match self.refused {
            Some((code, until)) if now >= until.min(self.give_up) => {
                Some(CloseReason::Rejected(code))
            }
            _ if now < self.give_up => None,
            // A passphrase that is another one is the usual reason: nothing on the wire says so.
            _ if self.other.is_some() => Some(CloseReason::Unconcluded),
            _ => Some(CloseReason::ConnectTimeout),
        }
    }

    /// What has to be decided about the peer's request, once.
    pub(crate) fn take_question(&mut self) -> Option<KeyQuestion> {
        let question = self.question.as_mut()?;
        core::mem::take(&mut question.fresh).then(|| KeyQuestion {
            number: question.number,
            key_material: question.key_material.clone(),
            peer_version: question.peer_version,
        })
    }

    /// The decision on question `number`; without effect on any other.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        number: u32,
        decision: Result<Security, RejectionCode>,
        config: &Config,
    ) {
        let wanted = matches!(self.state, State::Waving | State::Attention);
        let Some(question) = self.question.as_mut() else {
            return;
        };
        if question.number != number || !question.open || !wanted {
            return;
        }
        question.open = false;
        match decision {
            Ok(security) => {
                let request = question.request;
                self.respond(now, request, security.into_terms());
            }
            Err(code) => {
                // Anything else says nothing about these keys: the next repetition asks anew.
                question.stands = [
                    RejectionCode::BADSECRET,
                    RejectionCode::UNSECURE,
                    RejectionCode::CRYPTO,
                    RejectionCode::ROGUE,
                ]
                .contains(&code);
                self.refuse(now, code, config);
            }
        }
    }

    /// The request of a peer that hears us cannot be served: it has a caller's time to make a
    /// better one.
    fn refuse(&mut self, now: Instant, code: RejectionCode, config: &Config) {
        let until = self
            .refused
            .map_or(now + config.connect_timeout, |(_, until)| until);
        self.refused = Some((code, until));
    }

    /// Answers at once, or with the next repetition.
    fn reply(&mut self, now: Instant) {
        let (since, count) = self.replies;
        if now.saturating_since(since) >= REPLIES_WITHIN {
            self.replies = (now, 1);
        } else if count < REPLIES {
            self.replies = (since, count + 1);
        } else {
            return;
        }
        self.next_send = self.next_send.min(now);
    }

    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.reply(now);
    }

    /// A handshake packet from the peer's address, to our socket ID or to none.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        cif: &[u8],
        config: &Config,
    ) -> Result<Step, Discard> {
        let malformed = Discard::MalformedHandshake;
        let (handshake, blocks) = HandshakeCif::parse(cif).ok_or(malformed)?;
        let addressed = header.destination == self.socket_id;
        if let Some(code) = RejectionCode::from_wire(handshake.handshake_type) {
            return addressed.then_some(Step::Rejected(code)).ok_or(malformed);
        }
        let kind = handshake.handshake_type;
        let known = matches!(kind, WAVEAHAND | CONCLUSION | AGREEMENT);
        if !known
            || !handshake.is_plausible()
            || handshake.socket_id == 0
            || handshake.cookie == 0
            // Only a greeting may go to nobody in particular (spec section 6).
            || !(addressed || (kind == WAVEAHAND && header.destination == 0))
        {
            return Err(malformed);
        }
        if handshake.version != 5 {
            // HSv4 is refused by policy (spec section 7). Whoever has met somebody better forgets
            // it, and anybody may have sent it: it is only remembered.
            if self.other.is_none() {
                self.refused = Some((RejectionCode::VERSION, self.give_up));
            }
            return Ok(Step::Continue);
        }
        if let Some(end) = self.meet(now, &handshake, addressed)? {
            return Ok(end);
        }
        match kind {
            WAVEAHAND => {
                self.greeted(now);
                Ok(Step::Continue)
            }
            CONCLUSION => self.concluded(now, arrival, header, &handshake, blocks, config),
            _ => self.agreed(now, arrival, header, &handshake, blocks, config),
        }
    }

    /// Who this is: the peer as it was known, or another that takes its place.
    fn meet(
        &mut self,
        now: Instant,
        handshake: &HandshakeCif,
        addressed: bool,
    ) -> Result<Option<Step>, Discard> {
        if let Some(other) = &mut self.other {
            if (other.cookie, other.socket_id) == (handshake.cookie, handshake.socket_id) {
                other.heard = now;
                other.proven |= addressed;
                return Ok(None);
            }
            let silent = now.saturating_since(other.heard) >= DISPLACED_AFTER;
            let stays = other.proven && !silent;
            if !addressed && (stays || self.has_passed(now, handshake)) {
                return Err(Discard::HandshakePending);
            }
        }
        let Some(role) = contest(self.cookie, handshake.cookie) else {
            return Ok(Some(Step::Rejected(RejectionCode::RDVCOOKIE)));
        };
        if role == Role::Initiator
            && let Some(security) = &mut self.security
            && let Err(code) = security.ask(handshake.encryption)
        {
            return Ok(Some(Step::Rejected(code)));
        }
        if let Some(other) = self.other.filter(|other| other.answered && !other.proven) {
            self.passed.rotate_right(1);
            if let Some(first) = self.passed.first_mut() {
                *first = (other.cookie, other.socket_id, now);
            }
        }
        self.other = Some(Other {
            cookie: handshake.cookie,
            socket_id: handshake.socket_id,
            mss: handshake.mss,
            role,
            proven: addressed,
            answered: false,
            heard: now,
        });
        self.state = State::Waving;
        self.refused = None;
        self.question = None;
        self.answer = None;
        Ok(None)
    }

    fn has_passed(&self, now: Instant, handshake: &HandshakeCif) -> bool {
        self.passed.iter().any(|&(cookie, socket_id, at)| {
            (cookie, socket_id) == (handshake.cookie, handshake.socket_id)
                && now.saturating_since(at) < PASSED_FOR
        })
    }

    fn greeted(&mut self, now: Instant) {
        match self.state {
            State::Waving => self.enter(now, State::Attention),
            // Our conclusion was lost: it is sent again.
            State::Attention => self.reply(now),
            // A late copy: whoever has concluded waves no more.
            State::Fine | State::Initiated => {}
        }
    }

    fn concluded(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        handshake: &HandshakeCif,
        blocks: &[u8],
        config: &Config,
    ) -> Result<Step, Discard> {
        let malformed = Discard::MalformedHandshake;
        let blocks = if handshake.extension == 0 {
            Extensions::default()
        } else {
            Extensions::parse(blocks).map_err(|_| malformed)?
        };
        let role = self.other.map(|other| other.role);
        match (role, self.state, blocks.hs_request, blocks.hs_response) {
            (Some(Role::Initiator), State::Waving, None, _) => self.enter(now, State::Fine),
            (Some(Role::Initiator), _, None, Some(answered)) => {
                return self.answered(arrival, header, handshake, &blocks, &answered, config);
            }
            (Some(Role::Responder), State::Fine | State::Initiated, _, None) => self.reply(now),
            (Some(Role::Responder), _, Some(asked), None) => {
                let agreed = agreement_of(
                    header,
                    handshake,
                    &asked,
                    Latencies::for_request(&asked, config),
                );
                let request = Request { agreed, arrival };
                match refusal(handshake, &blocks, &asked, config) {
                    Some(code) => self.refuse(now, code, config),
                    None => self.asked(now, request, blocks.km_request, config),
                }
            }
            // The peer has not heard who asks, or its request lost its blocks: it is told.
            (Some(Role::Responder), State::Waving, None, None) => {
                self.enter(now, State::Attention);
            }
            (Some(_), _, None, None) => self.reply(now),
            _ => return Err(malformed),
        }
        Ok(Step::Continue)
    }

    /// The responder's part: HSREQ has come and can be served.
    fn asked(
        &mut self,
        now: Instant,
        request: Request,
        key_material: Option<Vec<u8>>,
        config: &Config,
    ) {
        if key_material.is_none() && self.security.is_none() {
            return self.respond(now, request, Terms::Clear);
        }
        if key_material
            .as_ref()
            .is_some_and(|m| m.len() > MAX_KEY_MATERIAL)
        {
            return self.refuse(now, RejectionCode::ROGUE, config);
        }
        let peer_version = request.agreed.peer_version;
        if let Some(last) = &self.question {
            let same = last.key_material == key_material && last.peer_version == peer_version;
            let soon = now.saturating_since(last.asked_at) < QUESTION_INTERVAL;
            if last.open || soon || (same && last.stands) {
                return;
            }
        }
        self.questions = self.questions.wrapping_add(1);
        self.question = Some(Question {
            number: self.questions,
            key_material,
            peer_version,
            request,
            asked_at: now,
            fresh: true,
            open: true,
            stands: true,
        });
    }

    fn respond(&mut self, now: Instant, request: Request, terms: Terms) {
        self.refused = None;
        self.answer = Some(Answer { request, terms });
        let state = match self.state {
            State::Waving => State::Fine,
            _ => State::Initiated,
        };
        self.enter(now, state);
    }

    /// The initiator's part: HSRSP has come.
    fn answered(
        &mut self,
        arrival: Instant,
        header: &Header,
        handshake: &HandshakeCif,
        blocks: &Extensions,
        answered: &HsWords,
        config: &Config,
    ) -> Result<Step, Discard> {
        let peer = handshake.socket_id;
        if let Some(code) = refusal(handshake, blocks, answered, config) {
            return Ok(Step::Declined(code, peer));
        }
        let terms = match self.security.take() {
            None => Terms::Clear,
            Some(security) => {
                match security.conclude(blocks.km_response.as_deref(), answered.version) {
                    Ok(terms) => terms,
                    Err(code) => return Ok(Step::Declined(code, peer)),
                }
            }
        };
        let agreed = agreement_of(
            header,
            handshake,
            answered,
            Latencies::by_response(answered, config),
        );
        Ok(Step::Connected(Box::new(Union {
            agreed,
            arrival,
            terms,
            agreement: Some(self.write_agreement(config, peer)),
        })))
    }

    /// AGREEMENT has come.
    fn agreed(
        &mut self,
        now: Instant,
        arrival: Instant,
        header: &Header,
        handshake: &HandshakeCif,
        blocks: &[u8],
        config: &Config,
    ) -> Result<Step, Discard> {
        let malformed = Discard::MalformedHandshake;
        let role = self.other.map(|other| other.role);
        match (role, self.state) {
            (Some(Role::Responder), State::Fine | State::Initiated) => {
                self.confirmed().ok_or(malformed)
            }
            // It has missed that there is no answer yet. As libsrt does: an empty conclusion asks
            // for the request.
            (Some(Role::Responder), State::Attention) => {
                self.reply(now);
                Ok(Step::Continue)
            }
            (Some(Role::Initiator), State::Attention | State::Fine) => {
                let blocks = Extensions::parse(blocks).map_err(|_| malformed)?;
                if let Some(answered) = blocks.hs_response {
                    return self.answered(arrival, header, handshake, &blocks, &answered, config);
                }
                if self.security.is_some() {
                    // Without KMRSP nothing is known of the keys: it is asked again.
                    self.reply(now);
                    return Ok(Step::Continue);
                }
                // Agreed to what was asked: that is what there will be.
                let asked = HsWords {
                    version: HSV5_MIN_VERSION,
                    ..request_words(config)
                };
                let latencies = Latencies {
                    receive: config.latency.min(config.latency_limit()),
                    peer: config.peer_latency,
                };
                let agreed = agreement_of(header, handshake, &asked, latencies);
                Ok(Step::Connected(Box::new(Union {
                    agreed,
                    arrival,
                    terms: Terms::Clear,
                    agreement: None,
                })))
            }
            _ => Err(malformed),
        }
    }

    /// Whether the peer has what it needs of us to be connected.
    pub(crate) const fn has_answered(&self) -> bool {
        self.answer.is_some()
    }

    /// The peer behaves as one that is connected: it sends data, keepalives or other control
    /// packets (spec section 6: AGREEMENT may be lost). `None` before our answer.
    pub(crate) fn confirmed(&mut self) -> Option<Step> {
        let Answer { request, terms } = self.answer.take()?;
        Some(Step::Connected(Box::new(Union {
            agreed: request.agreed,
            arrival: request.arrival,
            terms,
            agreement: None,
        })))
    }

    /// Writes the present message, if its time has come.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        timestamp: u32,
        config: &Config,
        out: &mut [u8],
    ) -> Option<usize> {
        if now < self.next_send {
            return None;
        }
        self.next_send = now + RETRY;
        let mut message = self.message(WAVEAHAND, config);
        let (State::Attention | State::Fine | State::Initiated, Some(other)) =
            (self.state, &mut self.other)
        else {
            return Some(message.begin(out, timestamp, 0).finish());
        };
        other.answered = true;
        message.handshake_type = CONCLUSION;
        if let Some(answer) = &self.answer {
            message.extension = EXT_HSREQ;
            if has_key_answer(&answer.terms) {
                message.extension |= EXT_KMREQ;
            }
            message.mss = message.mss.min(other.mss);
            let mut writer = message.begin(out, timestamp, other.socket_id);
            let agreed = &answer.request.agreed;
            let latencies = Latencies {
                receive: agreed.receive_latency,
                peer: agreed.peer_latency,
            };
            latencies.response().write_response(&mut writer);
            write_key_answer(&answer.terms, &mut writer);
            return Some(writer.finish());
        }
        if other.role == Role::Responder {
            return Some(message.begin(out, timestamp, other.socket_id).finish());
        }
        message.extension = EXT_HSREQ;
        if !self.srt_stream_id.is_empty() {
            message.extension |= EXT_CONFIG;
        }
        let keys = self.security.as_ref().and_then(CallerSecurity::request);
        if let Some((advertised, _)) = keys {
            message.extension |= EXT_KMREQ;
            message.encryption = advertised;
        }
        let mut writer = message.begin(out, timestamp, other.socket_id);
        request_words(config).write_request(&mut writer);
        write_stream_id(&self.srt_stream_id, &mut writer);
        if let Some((_, keys)) = keys {
            write_key_request(keys, &mut writer);
        }
        Some(writer.finish())
    }

    fn message(&self, handshake_type: u32, config: &Config) -> HandshakeCif {
        HandshakeCif {
            version: 5,
            encryption: self.security.as_ref().map_or(0, CallerSecurity::advertised),
            extension: 0,
            initial_sequence: self.initial_sequence.get(),
            mss: u32::from(config.mss),
            flow_window: config.window(),
            handshake_type,
            socket_id: self.socket_id,
            cookie: self.cookie,
            peer_ip: peer_ip_field(self.peer),
        }
    }

    fn write_agreement(&self, config: &Config, destination: u32) -> Box<[u8]> {
        let mut out = [0; 128];
        let message = self.message(AGREEMENT, config);
        let len = message.begin(&mut out, 0, destination).finish();
        out.get(..len).unwrap_or(&[]).into()
    }
}

/// What a conclusion, or the answer to ours, leads to.
fn agreement_of(
    header: &Header,
    handshake: &HandshakeCif,
    hs: &HsWords,
    latencies: Latencies,
) -> Agreed {
    Agreed {
        peer_socket_id: handshake.socket_id,
        peer_version: hs.version,
        mss: handshake.mss,
        flow_window: handshake.flow_window,
        flags: hs.flags,
        receive_latency: latencies.receive,
        peer_latency: latencies.peer,
        initial_sequence: PacketSequenceNumber::new(handshake.initial_sequence),
        timestamp: header.timestamp,
    }
}
