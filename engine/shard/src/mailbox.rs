//! What crosses a shard's border: mail in (commands of control, conclusions that another shard
//! received), events out. Channels are bounded on both ways; a shard never waits for control.

use core::net::IpAddr;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mirror_base::{ShardId, StreamId};
use mirror_srt::ConnectRequest;
use mirror_stream::report::{Command, Event};

/// Mails that one shard's box holds.
const MAILBOX: usize = 4096;
/// Events kept for another try when control is late.
const RETRIES: usize = 8192;

/// A conclusion on its way to the shard that owns its stream (design, section 3).
#[derive(Debug)]
pub(crate) struct Conclusion {
    /// The parsed handshake, with peer and arrival.
    pub(crate) request: Box<ConnectRequest>,
    /// The stream it wants to publish.
    pub(crate) stream_id: StreamId,
    /// Access-control `u`.
    pub(crate) user: Option<String>,
    /// Unknown keys of its stream ID.
    pub(crate) tags: Vec<String>,
    /// Index of the socket it came to, the same on all shards.
    pub(crate) socket: usize,
    /// Our address that it was sent to.
    pub(crate) local: Option<IpAddr>,
}

/// One mail.
#[derive(Debug)]
pub(crate) enum Mail {
    /// From control.
    Command(Command),
    /// From another shard.
    Conclusion(Box<Conclusion>),
}

/// A shard's mailbox is full, or the shard has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("shard {0} does not take mail: its box is full, or it has ended")]
pub struct Busy(pub ShardId);

type Wake = Box<dyn Fn() + Send + Sync>;

struct Mailbox {
    sender: Sender<Mail>,
    wake: OnceLock<Wake>,
}

/// The mailboxes of all shards; a clone is a handle on the same ones.
#[derive(Clone)]
pub struct Mailboxes(Arc<[Mailbox]>);

impl core::fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Mailboxes({} shards)", self.0.len())
    }
}

impl Mailboxes {
    /// Boxes for `shards` shards, and the ends that the shards read.
    pub(crate) fn new(shards: usize) -> (Self, Vec<Receiver<Mail>>) {
        let (boxes, receivers) = (0..shards)
            .map(|_| {
                let (sender, receiver) = crossbeam_channel::bounded(MAILBOX);
                (
                    Mailbox {
                        sender,
                        wake: OnceLock::new(),
                    },
                    receiver,
                )
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        (Mailboxes(boxes.into()), receivers)
    }

    /// How `shard` is woken; said once, by its own thread.
    pub(crate) fn set_wake(&self, shard: ShardId, wake: Wake) {
        if let Some(mailbox) = self.0.get(shard.index()) {
            // A second call would be a second reactor for the same shard: the first one stays.
            let _ = mailbox.wake.set(wake);
        }
    }

    /// Number of shards.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no shard.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Hands `command` to `shard` and wakes it.
    ///
    /// # Errors
    /// [`Busy`] when its box is full or the shard has ended or never was.
    pub fn send(&self, shard: ShardId, command: Command) -> Result<(), Busy> {
        self.post(shard, Mail::Command(command))
    }

    pub(crate) fn post(&self, shard: ShardId, mail: Mail) -> Result<(), Busy> {
        let mailbox = self.0.get(shard.index()).ok_or(Busy(shard))?;
        mailbox.sender.try_send(mail).map_err(|_| Busy(shard))?;
        if let Some(wake) = mailbox.wake.get() {
            wake();
        }
        Ok(())
    }
}

/// The way of events to control. What control must not miss is kept for another try; the rest
/// is dropped and counted when control is late.
#[derive(Debug)]
pub(crate) struct EventSink {
    sender: Sender<Event>,
    kept: VecDeque<Event>,
    dropped: u64,
}

impl EventSink {
    pub(crate) const fn new(sender: Sender<Event>) -> Self {
        EventSink {
            sender,
            kept: VecDeque::new(),
            dropped: 0,
        }
    }

    /// An event that control must not miss: in order, sent later if need be. `false` when even
    /// the queue for later is full, and the event is lost.
    pub(crate) fn must(&mut self, event: Event) -> bool {
        if self.kept.is_empty() {
            match self.sender.try_send(event) {
                Ok(()) => return true,
                Err(TrySendError::Full(event)) => self.kept.push_back(event),
                Err(TrySendError::Disconnected(_)) => return self.lose(),
            }
            return true;
        }
        if self.kept.len() >= RETRIES {
            return self.lose();
        }
        self.kept.push_back(event);
        true
    }

    /// An event that the next snapshot makes good for.
    pub(crate) fn may(&mut self, event: Event) {
        if !self.kept.is_empty() || self.sender.try_send(event).is_err() {
            self.dropped += 1;
        }
    }

    fn lose(&mut self) -> bool {
        self.dropped += 1;
        false
    }

    /// Tries again what was kept.
    #[inline]
    pub(crate) fn retry(&mut self) {
        if !self.kept.is_empty() {
            self.retry_kept();
        }
    }

    fn retry_kept(&mut self) {
        while let Some(event) = self.kept.pop_front() {
            match self.sender.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => return self.kept.push_front(event),
                Err(TrySendError::Disconnected(_)) => self.dropped += 1,
            }
        }
    }

    /// Whether something waits for another try.
    pub(crate) fn waits(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Events that control never saw.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(n: u16) -> Event {
        Event::Stopped {
            shard: ShardId(n),
            error: None,
        }
    }

    #[test]
    fn what_must_arrive_arrives_in_order_and_the_rest_is_counted() {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let mut sink = EventSink::new(sender);
        for n in 0..4 {
            assert!(sink.must(stopped(n)));
        }
        sink.may(stopped(9));
        assert_eq!(sink.dropped(), 1);
        for n in 0..4 {
            assert!(
                matches!(receiver.try_recv(), Ok(Event::Stopped { shard, .. }) if shard.0 == n)
            );
            sink.retry();
        }
        assert!(!sink.waits());
    }

    #[test]
    fn a_full_box_and_an_unknown_shard_are_busy() {
        let (boxes, receivers) = Mailboxes::new(1);
        let drain = || Command::Drain {
            within: core::time::Duration::ZERO,
        };
        assert_eq!(boxes.send(ShardId(1), drain()), Err(Busy(ShardId(1))));
        for _ in 0..MAILBOX {
            boxes.send(ShardId(0), drain()).unwrap();
        }
        assert_eq!(boxes.send(ShardId(0), drain()), Err(Busy(ShardId(0))));
        drop(receivers);
        assert_eq!(boxes.send(ShardId(0), drain()), Err(Busy(ShardId(0))));
    }
}
