//! What happens when a session's timer fires. A stream's packets come due a few each tick, so
//! that this is the second half of the hot path: a session that has nothing to do but to deliver
//! does just that, and everything else goes through [`Core::serve_one`].

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use mirror_base::Instant;

use crate::driver::{Clock, Driver};
use crate::session::{Proto, count, release};
use crate::shard::{Core, NOBODY};
use crate::wheel::Token;

impl<C: Clock> Core<C> {
    /// Serves the sessions whose time has come. One boundary for all that only deliver: a broken
    /// invariant ends the one whose code was running, and the others have their turn.
    pub(crate) fn fire_timers<D: Driver>(&mut self, driver: &mut D) {
        if !self.wheel.is_due(self.now) {
            return;
        }
        self.wheel.expire(self.now, &mut self.due);
        if self.due.is_empty() {
            return;
        }
        loop {
            let fired = catch_unwind(AssertUnwindSafe(|| self.fire_due(driver)));
            let Err(panic) = fired else { break };
            match self.take_handled() {
                Some(key) => self.session_panicked(key),
                None => resume_unwind(panic),
            }
        }
        self.due.clear();
        self.fired = 0;
    }

    fn fire_due<D: Driver>(&mut self, driver: &mut D) {
        while let Some(&token) = self.due.get(self.fired) {
            self.fired += 1;
            self.fire(token, driver);
        }
    }

    #[inline]
    fn fire<D: Driver>(&mut self, token: Token, driver: &mut D) {
        let Core {
            sessions,
            streams,
            clock,
            latency,
            wheel,
            handling,
            ..
        } = self;
        let now = self.now;
        let Some((key, session)) = sessions.at_mut(token) else {
            return;
        };
        if now < session.quiet_until
            && let Proto::Srt(connection) = &mut session.proto
            && let Some(entry) = streams.get_mut(session.stream)
        {
            *handling = token;
            #[cfg(test)]
            assert!(!session.poisoned, "the test poisoned this session");
            let stream = &mut entry.stream;
            // Who looks at no payload has no clock of its own, and no tracks.
            let (more, media_due, changed) = if stream.only_counts() {
                let more = count(connection, stream, now);
                (more, Instant::FAR_FUTURE, stream.status_has_changed())
            } else {
                let more = release(connection, stream, now, clock, latency);
                let due = stream.poll_timeout().unwrap_or(Instant::FAR_FUTURE);
                (more, due, stream.has_changed())
            };
            *handling = NOBODY;
            // What passing a gap brought.
            let quiet_until = session.quiet_until.min(connection.feedback_due());
            session.quiet_until = quiet_until;
            // The next one's time is looked at below.
            connection.needs_look();
            if more {
                return self.touch(key);
            }
            let idle_until = quiet_until.min(media_due);
            if now < idle_until && !changed {
                return wheel.arm_here(token, connection.delivery_due().min(idle_until));
            }
        }
        self.serve_one(key, driver);
    }
}
