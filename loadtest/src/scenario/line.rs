//! What lies between a sender and the engine, as a scenario says it: `[impairment]`, who calls,
//! and encryption.

use std::net::SocketAddr;

use mirror_srt::{CipherPolicy, KeyLength, Passphrase};
use toml::de::DeValue;

use super::{Errors, Protocol, Section, number};
use crate::impairment::{self, Impairment, WORDS};
use crate::sender::SrtSecurity;

/// `[impairment]`: words for both directions, `seed`, and the tables `forward` (what is sent to
/// the engine) and `backward`, which overrule them.
pub(super) fn impairment(s: &Section<'_>, errors: &mut Errors) -> Impairment {
    let words = || WORDS.iter().map(|(word, _)| *word);
    let known: Vec<&str> = words().chain(["seed", "forward", "backward"]).collect();
    s.only(errors, &known);
    let mut both = mirror_netem::Config::default();
    read(s, errors, &mut both);
    let direction = |key: &str, errors: &mut Errors| {
        let mut config = both;
        if let Some(table) = s.section(errors, key) {
            table.only(errors, &words().collect::<Vec<_>>());
            read(&table, errors, &mut config);
        }
        config
    };
    Impairment {
        forward: direction("forward", errors),
        backward: direction("backward", errors),
        seed: s.integer(errors, "seed", 0..=i64::MAX as u64).unwrap_or(1),
    }
}

/// Every word of the table, in the order of [`WORDS`].
fn read(s: &Section<'_>, errors: &mut Errors, config: &mut mirror_netem::Config) {
    for (word, allowed) in WORDS {
        s.read(errors, word, allowed, |value| {
            let text = match value {
                DeValue::String(text) => text.to_string(),
                other => number(other)?.to_string(),
            };
            impairment::set(config, word, &text).ok()
        });
    }
}

/// `mode = "listener"` and `listen`: where the first sender of the group listens.
pub(super) fn listen(
    s: &Section<'_>,
    errors: &mut Errors,
    protocol: Protocol,
    count: usize,
) -> Option<SocketAddr> {
    let listens = s.choice(errors, "mode", &[("caller", false), ("listener", true)]);
    let allowed =
        "must be an address and port like \"127.0.0.1:41000\", with a port for each sender";
    let address = s.read(errors, "listen", allowed, |value| {
        let address: SocketAddr = value.as_str()?.parse().ok()?;
        let last = usize::from(address.port()) + count;
        (address.port() > 0 && last <= 65_536).then_some(address)
    });
    if protocol != Protocol::Srt {
        only_srt(s, errors, &["mode", "listen"]);
        return None;
    }
    match (listens.unwrap_or(false), s.get("listen")) {
        (true, None) => s.missing(errors, "listen", allowed),
        (false, Some(value)) => s.fault(errors, "listen", value, "needs mode = \"listener\""),
        _ => {}
    }
    address
}

/// `passphrase`, `key_length` and `cipher`.
pub(super) fn security(
    s: &Section<'_>,
    errors: &mut Errors,
    protocol: Protocol,
) -> Option<SrtSecurity> {
    if protocol != Protocol::Srt {
        only_srt(s, errors, &["passphrase", "key_length", "cipher"]);
        return None;
    }
    let allowed = "must be text of 10 to 80 bytes";
    let passphrase = s.read(errors, "passphrase", allowed, |value| {
        Passphrase::new(value.as_str()?).ok()
    });
    let key_length = s.read(errors, "key_length", "must be 16, 24 or 32", |value| {
        KeyLength::from_bytes(super::integer(value)?.try_into().ok()?)
    });
    let ciphers = [
        ("auto", CipherPolicy::Auto),
        ("ctr", CipherPolicy::Ctr),
        ("gcm", CipherPolicy::Gcm),
    ];
    let cipher = s.choice(errors, "cipher", &ciphers);
    if passphrase.is_none() && s.get("passphrase").is_none() {
        for key in ["key_length", "cipher"] {
            if let Some(value) = s.get(key) {
                s.fault(errors, key, value, "needs a passphrase");
            }
        }
    }
    Some(SrtSecurity {
        passphrase: passphrase?,
        key_length,
        cipher: cipher.unwrap_or_default(),
    })
}

fn only_srt(s: &Section<'_>, errors: &mut Errors, keys: &[&str]) {
    for key in keys {
        if let Some(value) = s.get(key) {
            s.fault(errors, key, value, "is for SRT only");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Scenario;
    use super::*;

    fn parse(more: &str) -> Result<Scenario, Vec<String>> {
        let text = format!(
            "duration = \"5s\"\n[[senders]]\nprotocol = \"srt\"\nbitrate = \"3Mb\"\ncount = 2\n{more}"
        );
        Scenario::parse("f.toml", &text).map_err(|e| e.0)
    }

    #[test]
    fn a_lines_impairments_apply_to_both_directions_unless_one_is_named() {
        let s = parse(
            "[impairment]\nloss = \"2%\"\ndelay = \"50ms\"\nseed = 7\n[impairment.backward]\nloss = 0\n",
        )
        .unwrap();
        assert_eq!(s.impairment.seed, 7);
        assert_eq!(
            (s.impairment.forward.loss, s.impairment.backward.loss),
            (0.02, 0.0)
        );
        assert_eq!(s.impairment.backward.delay, Duration::from_millis(50));
        assert!(parse("").unwrap().impairment.is_clean());
    }

    #[test]
    fn a_group_listens_and_encrypts_as_it_is_told() {
        let s = parse(
            "mode = \"listener\"\nlisten = \"127.0.0.1:41000\"\npassphrase = \"0123456789\"\nkey_length = 24\ncipher = \"gcm\"\n",
        )
        .unwrap();
        let group = &s.senders[0];
        assert_eq!(group.listen.map(|a| a.port()), Some(41_000));
        let security = group.security.as_ref().unwrap();
        assert_eq!(security.key_length, Some(KeyLength::Aes192));
        assert_eq!(security.cipher, CipherPolicy::Gcm);
        let plain = &parse("").unwrap().senders[0];
        assert!(plain.listen.is_none() && plain.security.is_none());
    }

    #[test]
    fn what_does_not_fit_together_is_an_error_with_its_line() {
        for (more, wanted) in [
            (
                "[impairment]\nloss = \"7\"\n",
                "f.toml:7: impairment.loss = \"7\": must be a share",
            ),
            (
                "[impairment]\nlost = 1\n",
                "f.toml:7: impairment.lost: unknown key",
            ),
            (
                "mode = \"listener\"\n",
                "f.toml:2: senders[0].listen is missing",
            ),
            (
                "listen = \"127.0.0.1:65535\"\n",
                "f.toml:6: senders[0].listen = \"127.0.0.1:65535\": must be",
            ),
            (
                "passphrase = \"short\"\n",
                "f.toml:6: senders[0].passphrase",
            ),
            (
                "cipher = \"ctr\"\n",
                "f.toml:6: senders[0].cipher = \"ctr\": needs a passphrase",
            ),
        ] {
            let errors = parse(more).unwrap_err();
            assert!(errors[0].starts_with(wanted), "{wanted} in {errors:#?}");
        }
    }
}
