//! A foreign SRT listener that the engine calls: the SRT room's own listener, which accepts and
//! sends, refuses, or says nothing.

use core::net::SocketAddr;

use mirror_base::{Instant, SlotRing};
use mirror_srt::{
    CloseReason, ConnectRequest, Connection, HandshakeAction, Handshaker, RejectionCode, Security,
};

/// What it does with a caller.
pub(crate) enum Answer {
    /// Nothing, not even to an induction.
    Silence,
    /// Refuses the conclusion.
    Reject(RejectionCode),
    /// Accepts. The keys come from here.
    Accept(fn(&ConnectRequest) -> Result<Security, RejectionCode>),
}

/// See the module's page.
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    pub(crate) answer: Answer,
    pub(crate) connection: Option<Connection>,
    pub(crate) caller: Option<SocketAddr>,
    pub(crate) closed: Option<CloseReason>,
    /// Packets to send, one a step, from the moment that it accepts.
    pub(crate) to_send: u32,
    pub(crate) requests: Vec<Option<Vec<u8>>>,
    handshaker: Handshaker,
    ring: SlotRing,
    next_id: u32,
    out: Vec<(SocketAddr, Vec<u8>)>,
}

impl Remote {
    pub(crate) fn new(address: SocketAddr, answer: Answer) -> Self {
        Remote {
            address,
            answer,
            connection: None,
            caller: None,
            closed: None,
            to_send: 0,
            requests: Vec::new(),
            handshaker: Handshaker::new(mirror_srt::Config::default(), [9; 16]),
            ring: SlotRing::with_owned_chunks(2),
            next_id: 7_000,
            out: Vec::new(),
        }
    }

    /// Forgets everything, as a process that is started again.
    pub(crate) fn restart(&mut self) {
        self.connection = None;
        self.caller = None;
        self.closed = None;
    }

    pub(crate) fn handle(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let id = bytes
            .get(12..16)
            .map(|b| u32::from_be_bytes(b.try_into().unwrap()));
        if id != Some(0) {
            if let Some(connection) = &mut self.connection
                && id == Some(connection.socket_id())
            {
                let _ = connection.handle_datagram(now, now, bytes, &mut self.ring);
            }
            return;
        }
        if matches!(self.answer, Answer::Silence) {
            return;
        }
        let mut out = [0; 1500];
        match self.handshaker.handle_datagram(now, from, bytes, &mut out) {
            Ok(HandshakeAction::Reply(len)) => self.out.push((from, out[..len].to_vec())),
            Ok(HandshakeAction::Conclude(request)) => self.conclude(now, from, &request),
            Err(_) => {}
        }
    }

    fn conclude(&mut self, now: Instant, from: SocketAddr, request: &ConnectRequest) {
        let mut out = [0; 1500];
        if let Some(connection) = &mut self.connection
            && self.caller == Some(from)
            && connection.peer_socket_id() == request.peer_socket_id
        {
            return connection.handle_repeated_conclusion(now);
        }
        self.requests.push(request.srt_stream_id.clone());
        let decision = match self.answer {
            Answer::Accept(keys) => keys(request),
            Answer::Reject(code) => Err(code),
            Answer::Silence => return,
        };
        self.next_id += 1;
        let config = mirror_srt::Config::default();
        let accepted = decision
            .and_then(|keys| Connection::accept(now, request, self.next_id, &config, 0, keys));
        match accepted {
            Ok(connection) => {
                self.connection = Some(connection);
                self.caller = Some(from);
            }
            Err(code) => {
                let len = request.reject(now, code, &mut out);
                self.out.push((from, out[..len].to_vec()));
            }
        }
    }

    /// What it sends now.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = core::mem::take(&mut self.out);
        let (Some(connection), Some(caller)) = (&mut self.connection, self.caller) else {
            return sent;
        };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now, &mut self.ring);
        }
        while let Some(event) = connection.poll_event() {
            if let mirror_srt::Event::Closed(reason) = event {
                self.closed = Some(reason);
            }
        }
        if self.closed.is_none() && self.to_send > 0 {
            let mut payload = [0xFF; 1316];
            payload.chunks_mut(188).for_each(|ts| ts[0] = 0x47);
            if connection.send(now, &payload).is_ok() {
                self.to_send -= 1;
            }
        }
        let mut out = [0; 1500];
        while let Some(len) = connection.poll_transmit(now, &mut out) {
            sent.push((caller, out[..len].to_vec()));
        }
        sent
    }
}
