//! RTP datagrams that are longer than a slot: a stream's ring is made wide for them, up to
//! `rtp.max_packet_size`. What is longer is counted where it can be seen: at its stream.

use mirror_base::Discard;
use mirror_uring::{ChunkPool, Datagram};

use crate::config::ShardsConfig;
use crate::driver::Clock;
use crate::shard::{Core, Role};
use crate::streams::StreamEntry;

impl StreamEntry {
    /// Sees to it that a datagram of `bytes` fits into a slot of lane `lane`.
    ///
    /// # Errors
    /// [`Discard::OverMaxPacketSize`]; [`Discard::NoBuffer`] when there is no memory for it.
    #[inline]
    pub(crate) fn fit(
        &mut self,
        lane: usize,
        bytes: usize,
        config: &ShardsConfig,
        pool: &mut ChunkPool,
    ) -> Result<(), Discard> {
        let ring = self.stream.lane_ring(lane);
        if ring.is_none_or(|ring| bytes <= ring.slot_bytes()) {
            return Ok(());
        }
        self.widen(lane, bytes, config, pool)
    }

    #[cold]
    fn widen(
        &mut self,
        lane: usize,
        bytes: usize,
        config: &ShardsConfig,
        pool: &mut ChunkPool,
    ) -> Result<(), Discard> {
        if config
            .rtp
            .as_ref()
            .is_none_or(|rtp| bytes > rtp.max_packet_size)
        {
            return Err(Discard::OverMaxPacketSize);
        }
        let wide = self.stream.widen_lane(lane, bytes, || pool.take());
        self.promise(pool);
        if wide { Ok(()) } else { Err(Discard::NoBuffer) }
    }
}

impl<C: Clock> Core<C> {
    /// A datagram that was longer than the receive buffer: what there is of it tells whose it is.
    #[cold]
    #[inline(never)]
    pub(crate) fn cut_off(&mut self, datagram: &Datagram<'_>) {
        let key = match self.roles.get(datagram.socket) {
            Some(Role::Rtp) => {
                // RFC 3550, 5.1: the SSRC.
                let ssrc = datagram.payload.get(8..12).and_then(|b| b.try_into().ok());
                ssrc.and_then(|b| self.by_ssrc.get(&u32::from_be_bytes(b)))
                    .copied()
            }
            Some(Role::Session) => {
                let port = self.ports.get(datagram.socket).and_then(Option::as_ref);
                port.map(|port| port.session)
            }
            Some(Role::Rtcp) => None,
            Some(Role::Srt | Role::Call | Role::Rendezvous | Role::Closed) | None => {
                return self.discard(Discard::TooLong);
            }
        };
        let from = datagram.origin.peer().ip();
        let stream = key
            .and_then(|key| self.sessions.get(key))
            .and_then(|session| {
                // Whoever else sends such is not the stream's sender.
                let is_known = session.peer.ip() == from || session.peer.ip().is_unspecified();
                is_known.then_some(session.stream)
            });
        match stream.and_then(|stream| self.streams.get_mut(stream)) {
            Some(entry) => entry.stream.count_discard(Discard::OverMaxPacketSize),
            None => self.discard(Discard::OverMaxPacketSize),
        }
    }
}
