//! How the recorded ends were set up, read from the commands in the facts, and the same for
//! ours: options, passphrases, and what the recorded listener's application decided.

use core::net::IpAddr;
use core::time::Duration;

use mirror_srt::{
    CallerSecurity, CipherPolicy, Config, ConnectRequest, KeyLength, KeyQuestion, ListenerPolicy,
    Passphrase, RejectionCode, Security, StreamIdFields,
};
use mirror_tests::capture::session::Session;
use serde_json::Value;

/// Which end of a recording we play.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Listener,
    Caller,
}

/// An end's options.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    passphrase: Option<String>,
    key_length: Option<KeyLength>,
    cipher: CipherPolicy,
    require: bool,
    /// The listener's application looked at each stream ID.
    decides: bool,
}

/// The value of `name=` in a command, whose words end at spaces, quotes and URL separators.
fn option<'a>(command: &'a str, name: &str) -> Option<&'a str> {
    command
        .split([' ', '?', '&', '\''])
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn is_listener(command: &str) -> bool {
    command.contains(" listen ") || command.contains("mode=listener")
}

fn command(facts: &Value, role: Role) -> &str {
    let commands = facts["commands"].as_array().expect("commands");
    let mut commands = commands.iter().filter_map(Value::as_str);
    commands
        .find(|c| {
            let is_peer = c.contains("srt") && !c.contains("relay.py");
            is_peer && is_listener(c) == (role == Role::Listener)
        })
        .unwrap_or_default()
}

impl Setup {
    /// As the recorded end of that role was set up.
    pub(crate) fn of(facts: &Value, role: Role) -> Self {
        Self::of_command(command(facts, role), role)
    }

    /// As the end of a rendezvous was set up that was bound to `address`.
    pub(crate) fn of_end(facts: &Value, address: IpAddr) -> Self {
        let commands = facts["commands"].as_array().expect("commands");
        let bound = address.to_string();
        let command = commands
            .iter()
            .filter_map(Value::as_str)
            .find(|command| option(command, "bind") == Some(&bound))
            .expect("one end's command");
        let mut setup = Self::of_command(command, Role::Caller);
        let timeout = option(command, "conntimeo").and_then(|ms| ms.parse().ok());
        if let Some(ms) = timeout {
            setup.config.connect_timeout = Duration::from_millis(ms);
        }
        setup
    }

    fn of_command(command: &str, role: Role) -> Self {
        let number = |name: &str| option(command, name)?.parse::<u64>().ok();
        // ffmpeg's latency is in µs.
        let per_ms = if command.starts_with("ffmpeg") {
            1000
        } else {
            1
        };
        let ms = |name: &str| Some(Duration::from_millis(number(name)? / per_ms));
        let mut config = Config {
            latency: ms("rcvlatency")
                .or(ms("latency"))
                .unwrap_or(Duration::from_millis(120)),
            peer_latency: ms("peerlatency").or(ms("latency")).unwrap_or_default(),
            // libsrt's, which its receive buffer bounds.
            flow_window: 8192,
            payload_size: 1456,
            // Which libsrt does not do.
            repeat_overdue: false,
            ..Config::default()
        };
        config.mss = number("mss").map_or(config.mss, |n| n as u16);
        config.min_version = number("minversion").map_or(config.min_version, |n| n as u32);
        config.loss_max_ttl = number("lossmaxttl").unwrap_or(0) as u32;
        config.refresh_packets =
            number("kmrefreshrate").map_or(config.refresh_packets, |n| n as u32);
        config.announce_packets =
            number("kmpreannounce").map_or(config.announce_packets, |n| n as u32);
        let key_length = number("pbkeylen").and_then(|n| KeyLength::from_bytes(n as usize));
        if role == Role::Listener {
            config.advertised_key_length = key_length;
        }
        Setup {
            config,
            passphrase: option(command, "passphrase").map(str::to_owned),
            key_length,
            cipher: match number("cryptomode") {
                Some(1) => CipherPolicy::Ctr,
                Some(2) => CipherPolicy::Gcm,
                _ => CipherPolicy::Auto,
            },
            require: number("enforced") != Some(0),
            decides: number("cb") == Some(1),
        }
    }

    /// As the recorded caller was set up; what it asked for of latencies is in its conclusion.
    pub(crate) fn of_caller(facts: &Value, session: &Session) -> Self {
        let mut setup = Self::of(facts, Role::Caller);
        let asked = session.conclusion().and_then(|h| h.hs(1));
        if let Some((_, _, receive, send)) = asked {
            setup.config.latency = Duration::from_millis(receive.into());
            setup.config.peer_latency = Duration::from_millis(send.into());
        }
        setup
    }

    /// The listener's decision on a request.
    pub(crate) fn authorise(&self, request: &ConnectRequest) -> Result<Security, RejectionCode> {
        let own = if self.decides {
            Some(application(request)?)
        } else {
            self.passphrase.as_deref()
        };
        self.negotiate(own, request.key_material.as_deref(), request.version)
    }

    /// The responder's decision on the other end's keys.
    pub(crate) fn decide(&self, question: &KeyQuestion) -> Result<Security, RejectionCode> {
        let material = question.key_material.as_deref();
        self.negotiate(self.passphrase.as_deref(), material, question.peer_version)
    }

    fn negotiate(
        &self,
        own: Option<&str>,
        material: Option<&[u8]>,
        version: u32,
    ) -> Result<Security, RejectionCode> {
        let passphrase = own.map(|text| Passphrase::new(text).expect("a passphrase"));
        let policy = ListenerPolicy {
            passphrase: passphrase.as_ref(),
            require: self.require,
            cipher: self.cipher,
        };
        Security::negotiate(material, version, &policy, [5; 32])
    }

    /// The caller's keys.
    pub(crate) fn caller_security(&self) -> Option<CallerSecurity> {
        let passphrase = Passphrase::new(self.passphrase.as_deref()?).expect("a passphrase");
        Some(CallerSecurity::new(
            &passphrase,
            self.key_length,
            self.cipher,
            self.require,
            [7; 32],
        ))
    }
}

/// What the application behind the recorded listeners did with the users it knew; the
/// passphrase of one that it let in.
fn application(request: &ConnectRequest) -> Result<&'static str, RejectionCode> {
    let text = request.srt_stream_id.as_deref().unwrap_or_default();
    let fields = StreamIdFields::parse(text);
    match fields.user.as_deref() {
        Some("alice") => Ok("alice-secret-1"),
        Some("bob") => Err(RejectionCode::FORBIDDEN),
        Some("expired") => Err(RejectionCode(2005)),
        _ => Err(RejectionCode::UNKNOWN),
    }
}
