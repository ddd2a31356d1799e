//! What a connection puts on the wire, and in which order: handshake, shutdown, ACKACK, NAK, ACK,
//! keepalive, and then the sender's data. Called by the shard after each mutation.

use mirror_base::Instant;

use super::receive::Nak;
use super::send::{Batch, Departure};
use super::{Connection, Phase};
use crate::packet::loss::write_range;
use crate::packet::{Control, Header, MAX_DATAGRAM, Writer, timestamp};

impl Connection {
    /// Writes one due datagram to `out` (≥ 1500 bytes); `None` when nothing is due.
    #[inline]
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        let quiet = matches!(self.phase, Phase::Established)
            && !self.pending.any()
            && !self.receiver.has_to_transmit()
            && !self.keys.has_to_transmit(now)
            && !self.sender.can_send();
        if quiet {
            return None;
        }
        let len = self.transmit(now, out)?;
        self.last_sent = now;
        Some(len)
    }

    fn transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        debug_assert!(out.len() >= MAX_DATAGRAM);
        let clock = timestamp(now, self.start);
        if let Phase::Calling(caller) = &mut self.phase {
            return caller.poll_transmit(now, clock, &self.config, out);
        }
        if let Phase::Meeting(rendezvous) = &mut self.phase {
            return rendezvous.poll_transmit(now, clock, &self.config, out);
        }
        if core::mem::take(&mut self.pending.response) {
            return self.write_response(clock, out);
        }
        if core::mem::take(&mut self.pending.shutdown) {
            return Some(self.write_bare(Control::Shutdown, clock, out));
        }
        if !matches!(self.phase, Phase::Established) {
            return None;
        }
        if let Some(len) = self.transmit_control(now, clock, out) {
            return Some(len);
        }
        let departure = self.departure(now, clock);
        self.sender
            .poll_transmit(&departure, &self.rtt, &mut self.stats, out)
    }

    fn departure(&self, now: Instant, clock: u32) -> Departure {
        Departure {
            now,
            clock,
            destination: self.peer_socket_id,
        }
    }

    /// Writes due datagrams of one size, one behind the other, for one `UDP_SEGMENT` send; `None`
    /// when nothing is due. `out` holds at least 1500 bytes; no more is written than it holds, and
    /// no more than `max_segments` datagrams (the kernel takes 64, and 65 507 bytes). Pacing and
    /// probe pairs are kept as by [`Connection::poll_transmit`], which does the same one by one.
    #[inline]
    pub fn poll_transmit_batch(
        &mut self,
        now: Instant,
        out: &mut [u8],
        max_segments: usize,
    ) -> Option<Batch> {
        let only_data = matches!(self.phase, Phase::Established)
            && !self.pending.any()
            && !self.keys.has_to_transmit(now)
            && !self.receiver.has_to_transmit();
        if !only_data {
            let len = self.poll_transmit(now, out)?;
            return Some(Batch {
                len,
                segment_size: len,
            });
        }
        if !self.sender.can_send() {
            return None;
        }
        let departure = self.departure(now, timestamp(now, self.start));
        let batch =
            self.sender
                .poll_batch(&departure, &self.rtt, &mut self.stats, out, max_segments)?;
        self.last_sent = now;
        Some(batch)
    }

    fn transmit_control(&mut self, now: Instant, clock: u32, out: &mut [u8]) -> Option<usize> {
        let first = self.pending.ackacks.first().copied();
        if let (Some(number), true) = (first, self.pending.ackack_count > 0) {
            self.pending.ackacks.rotate_left(1);
            self.pending.ackack_count -= 1;
            let header = self.header(Control::AckAck, number, clock);
            return Some(with_zero_word(header, out));
        }
        if self.receiver.nak != Nak::None
            && let Some(len) = self.write_nak(now, clock, out)
        {
            return Some(len);
        }
        if let Some((ack, position)) = self.receiver.full_ack.take() {
            let number = self.receiver.note_full_ack(now, &ack, position);
            let mut writer = Writer::packet(out, self.header(Control::Ack, number, clock));
            ack.write(&mut writer);
            self.stats.pkt_sent_ack += 1;
            self.receiver.light_ack = false;
            return Some(writer.finish());
        }
        if core::mem::take(&mut self.receiver.light_ack) {
            let mut writer = Writer::packet(out, self.header(Control::Ack, 0, clock));
            writer.u32(self.receiver.light_ack_sequence().get());
            self.stats.pkt_sent_light_ack += 1;
            return Some(writer.finish());
        }
        if let Some(len) = self.transmit_keys(now, clock, out) {
            return Some(len);
        }
        if core::mem::take(&mut self.pending.keepalive) {
            return Some(self.write_bare(Control::Keepalive, clock, out));
        }
        None
    }

    /// The conclusion response, each time the same but for its timestamp: the caller anchors
    /// our clock to it.
    fn write_response(&self, clock: u32, out: &mut [u8]) -> Option<usize> {
        let packet = out.get_mut(..self.response.len())?;
        packet.copy_from_slice(&self.response);
        packet.get_mut(8..12)?.copy_from_slice(&clock.to_be_bytes());
        Some(packet.len())
    }

    fn write_nak(&mut self, now: Instant, clock: u32, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::packet(out, self.header(Control::Nak, 0, clock));
        let mut ranges = 0;
        self.receiver.each_nak_range(|first, last| {
            let written = write_range(&mut writer, self.nak_limit, first, last);
            ranges += u32::from(written);
            written
        });
        let len = writer.finish();
        self.receiver.note_nak(now, &self.rtt);
        if ranges == 0 {
            return None;
        }
        self.stats.pkt_sent_nak += 1;
        Some(len)
    }

    pub(super) fn header(&self, control: Control, word1: u32, timestamp: u32) -> Header {
        Header {
            word0: control.word0(),
            word1,
            timestamp,
            destination: self.peer_socket_id,
        }
    }

    fn write_bare(&self, control: Control, clock: u32, out: &mut [u8]) -> usize {
        with_zero_word(self.header(control, 0, clock), out)
    }
}

/// libsrt appends a zero word to control packets without content (spec section 1.2).
fn with_zero_word(header: Header, out: &mut [u8]) -> usize {
    let mut writer = Writer::packet(out, header);
    writer.u32(0);
    writer.finish()
}
