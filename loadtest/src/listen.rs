//! An SRT sender that is called: the handshake's listener side, up to the connection. Driven by
//! [`crate::sender::Sender`]; lets the first caller in whose passphrase fits.

use std::io;

use mirror_base::Instant;
use mirror_srt::{
    CipherPolicy, ConnectRequest, Connection, HandshakeAction, Handshaker, ListenerPolicy, Security,
};

use crate::sender::{SrtSecurity, random_seed};
use crate::wire::Wire;

/// Waits for a caller.
#[derive(Debug)]
pub struct Listening {
    socket_id: u32,
    config: mirror_srt::Config,
    security: Option<SrtSecurity>,
    handshaker: Handshaker,
}

impl Listening {
    /// One that will answer as `socket_id`.
    pub fn new(
        socket_id: u32,
        config: &mirror_srt::Config,
        security: Option<&SrtSecurity>,
    ) -> io::Result<Self> {
        let mut config = config.clone();
        config.advertised_key_length = security.and_then(|s| s.key_length);
        let seed = random_seed()?;
        let mut cookie_key = [0; 16];
        cookie_key.copy_from_slice(&seed[..16]);
        Ok(Listening {
            socket_id,
            handshaker: Handshaker::new(config.clone(), cookie_key),
            config,
            security: security.cloned(),
        })
    }

    /// Answers what has arrived; the connection, once somebody is let in. `wire` then speaks
    /// with that caller only.
    pub fn accept(&mut self, now: Instant, wire: &mut Wire) -> Option<Connection> {
        let mut buffer = [0; 2048];
        let mut out = [0; 2048];
        while let Some((datagram, peer)) = wire.receive_from(&mut buffer) {
            match self
                .handshaker
                .handle_datagram(now, peer, datagram, &mut out)
            {
                Ok(HandshakeAction::Reply(length)) => {
                    wire.send_to(out.get(..length).unwrap_or_default(), peer);
                }
                Ok(HandshakeAction::Conclude(request)) => {
                    match self.conclude(now, &request) {
                        Ok(connection) if wire.answer(peer).is_ok() => return Some(connection),
                        // it calls again
                        Ok(_) => {}
                        Err(code) => {
                            let length = request.reject(now, code, &mut out);
                            wire.send_to(out.get(..length).unwrap_or_default(), peer);
                        }
                    }
                }
                // nothing that a caller sends
                Err(_) => {}
            }
        }
        None
    }

    fn conclude(
        &self,
        now: Instant,
        request: &ConnectRequest,
    ) -> Result<Connection, mirror_srt::RejectionCode> {
        let policy = ListenerPolicy {
            passphrase: self.security.as_ref().map(|s| &s.passphrase),
            require: true,
            cipher: self
                .security
                .as_ref()
                .map_or(CipherPolicy::Auto, |s| s.cipher),
        };
        // without randomness there are no keys: as if memory were short
        let seed = random_seed().map_err(|_| mirror_srt::RejectionCode::RESOURCE)?;
        let key_material = request.key_material.as_deref();
        let security = Security::negotiate(key_material, request.version, &policy, seed)?;
        Connection::accept(now, request, self.socket_id, &self.config, 0, security)
    }
}
