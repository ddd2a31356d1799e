//! Rendezvous (spec section 6): a call from a port of its own, to which the peer greets without
//! knowing a socket ID. The port is opened and closed with the call and the session that it
//! becomes; it stands outside every group, so that all of it comes to this shard. Keys of a peer
//! that asks are decided by control, as a publisher's are. Called by [`crate::call`].

use core::net::SocketAddr;

use mirror_base::{Discard, StreamId};
use mirror_srt::{RejectionCode, Security};
use mirror_stream::report::{CallFailure, Event};
use mirror_uring::Datagram;

use crate::arena::Key;
use crate::call::Unmade;
use crate::driver::{Clock, Driver};
use crate::session::Proto;
use crate::shard::{Core, Role};

impl<C: Clock> Core<C> {
    /// Opens the port of the call that gets place `key`.
    pub(crate) fn meeting_socket<D: Driver>(
        &mut self,
        address: SocketAddr,
        key: Key,
        driver: &mut D,
    ) -> Result<usize, Unmade> {
        let opened = driver.open_at(address, &self.config.sockets);
        let index = opened.map_err(|why| Unmade {
            failure: CallFailure::NoPort,
            detail: Some(why),
        })?;
        self.give_role(index, Role::Rendezvous);
        self.calls.meetings.insert(index, key);
        Ok(index)
    }

    /// The session on `socket` is gone: a rendezvous' port is closed with the end of the turn.
    pub(crate) fn leave_meeting(&mut self, socket: usize) {
        if self.roles.get(socket) == Some(&Role::Rendezvous) {
            self.calls.meetings.remove(&socket);
            self.give_role(socket, Role::Closed);
            self.leaving.push(socket);
        }
    }

    /// A datagram to socket ID 0 on a rendezvous' port.
    pub(crate) fn greeting(&mut self, datagram: &Datagram<'_>) {
        match self.calls.meetings.get(&datagram.socket).copied() {
            Some(key) => self.answer_to_call(key, datagram),
            // They have met: a late copy, or a peer that was started again and is heard when this
            // session has ended.
            None => self.discard(Discard::UnknownSession),
        }
    }

    /// The call is a session now. Data may be what told so (AGREEMENT was lost): it is the
    /// session's first.
    pub(crate) fn met(&mut self, datagram: &Datagram<'_>) {
        self.calls.meetings.remove(&datagram.socket);
        let is_data = datagram
            .payload
            .first()
            .is_some_and(|first| first & 0x80 == 0);
        if is_data {
            self.handle_any(datagram);
        }
    }

    /// Tells control what has to be decided about the peer's keys.
    pub(crate) fn ask_for_keys(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (Proto::Srt(connection), Some(call)) = (&mut session.proto, &session.call) else {
            return;
        };
        if let Some(question) = connection.key_question() {
            self.events.must(Event::CallKeys {
                shard: self.id,
                stream_id: call.stream_id.clone(),
                ticket: call.ticket,
                question,
            });
        }
    }

    /// Control's decision.
    pub(crate) fn answer_keys(
        &mut self,
        id: &StreamId,
        ticket: u64,
        number: u32,
        decision: Result<Box<Security>, u32>,
    ) {
        let Some(&key) = self.calls.by_stream.get(id) else {
            return;
        };
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (Proto::Srt(connection), Some(call)) = (&mut session.proto, &session.call) else {
            return;
        };
        if call.ticket == ticket {
            let decision = decision.map(|keys| *keys).map_err(RejectionCode);
            connection.answer_keys(now, number, decision);
            self.touch(key);
        }
    }
}
