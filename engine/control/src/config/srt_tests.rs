//! Facts about `[srt]`, its encryption and its callers.

use std::time::Duration;

use mirror_base::StreamId;
use mirror_srt::{CipherPolicy, KeyLength};

use super::tests::{file, load};
use super::*;

const SECRET: &str = "correct horse battery";

#[test]
fn encryption_defaults_are_the_contracts() {
    let c = Config::load(&Sources::default()).unwrap();
    let e = &c.srt.encryption;
    assert!(e.passphrase.is_none() && e.require && !c.any_passphrase());
    assert_eq!(
        (e.key_length, e.cipher),
        (KeyLength::Aes128, CipherPolicy::Auto)
    );
    let srt = mirror_srt::Config::default();
    assert_eq!(e.refresh_packets, srt.refresh_packets);
    assert_eq!(e.announce_packets, srt.announce_packets);
    assert_eq!(c.srt.payload_size, srt.payload_size);
    assert_eq!(c.srt.loss_max_ttl, srt.loss_max_ttl);
    assert_eq!(c.srt.max_bandwidth_bytes(), 0);
    assert!(c.srt.callers.is_empty());
}

#[test]
fn bandwidth_follows_the_input_unless_it_is_given() {
    let of = |text: &str| load("bandwidth.toml", text).unwrap().srt;
    let input = of("[srt]\ninput_bandwidth = 8000000\n");
    assert_eq!(input.max_bandwidth_bytes(), 1_250_000);
    let both = of("[srt]\ninput_bandwidth = 8000000\nmax_bandwidth = 80\n");
    assert_eq!(both.max_bandwidth_bytes(), 10);
}

#[test]
fn a_publishers_own_passphrase_goes_before_the_common_one() {
    let text = format!(
        "[srt.encryption]\npassphrase = \"{SECRET}\"\n\
         [[publishers]]\nid = \"live/*\"\nsources = [\"10.0.0.0/8\"]\npassphrase = \"ten bytes!\"\n\
         [[publishers]]\nid = \"*\"\n"
    );
    let c = load("publishers.toml", &text).unwrap();
    let of = |id: &str, ip: &str| {
        let id = StreamId::new(id).unwrap();
        let secret = c.passphrase_of(&id, ip.parse().unwrap());
        secret.map(|s| s.reveal().to_owned())
    };
    assert_eq!(of("live/a", "10.1.1.1").as_deref(), Some("ten bytes!"));
    assert_eq!(of("live/a", "11.1.1.1").as_deref(), Some(SECRET));
    assert_eq!(of("vod/a", "10.1.1.1").as_deref(), Some(SECRET));
    let clear = Config::load(&Sources::default()).unwrap();
    let id = StreamId::new("x").unwrap();
    assert!(clear.passphrase_of(&id, "::1".parse().unwrap()).is_none());
}

#[test]
fn secrets_are_not_shown_by_anything_printed() {
    let path = file("passphrase", "a phrase from a file\n");
    let text = format!(
        "[srt.encryption]\npassphrase = \"{SECRET} 1\"\n\
         [[publishers]]\nid = \"*\"\npassphrase = \"{SECRET} 2\"\n\
         [[publishers]]\nid = \"x\"\npassphrase_file = {path:?}\n\
         [[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1\"\npassphrase = \"{SECRET} 3\"\n\
         [[srt.callers]]\nid = \"b\"\nurl = \"srt://h:1?passphrase=correct%20horse%204\"\n"
    );
    let c = load("secrets.toml", &text).unwrap();
    assert_eq!(
        c.publishers[1].passphrase.as_ref().unwrap().reveal(),
        "a phrase from a file"
    );
    assert_eq!(
        c.srt.callers[1].passphrase.as_ref().unwrap().reveal(),
        "correct horse 4"
    );
    let printed = format!("{c:?}{}{}", c.to_toml(), c.to_json());
    assert!(
        !printed.contains("horse") && !printed.contains("a phrase from"),
        "{printed}"
    );
    assert_eq!(c.to_json()["srt"]["encryption"]["passphrase"], "***");
    assert_eq!(
        c.to_json()["srt"]["callers"][1]["url"],
        "srt://h:1?passphrase=***"
    );
    let other = load("secrets2.toml", &text.replace("battery 2", "battery 5")).unwrap();
    assert_eq!(c.to_json(), other.to_json());
    assert!(!c.same_secrets(&other) && c.same_secrets(&c));
    // What is printed cannot be taken for a configuration by mistake.
    let again = load("secrets3.toml", &c.to_toml()).unwrap_err().to_string();
    assert!(again.contains("how a secret is shown"), "{again}");
}

#[test]
fn secrets_are_not_shown_by_errors() {
    let text = "[srt.encryption]\npassphrase = \"hunter2\"\nkey_length = 17\n\
                [[publishers]]\nid = \"*\"\npasphrase = \"hunter2 hunter2\"\npassphrase = 7777777\n\
                [[srt.callers]]\nid = \"a\"\nurl = \"srt://h:0?passphrase=hunter2hunter2\"\n\
                [registry.redis]\nurl = \"http://u:hunter2@h\"\n";
    let sources = Sources {
        file: Some(file("hidden.toml", text)),
        environment: vec![(
            "MIRROR_SRT__ENCRYPTION__PASSPHRASE__X".into(),
            "hunter2".into(),
        )],
        set: vec![
            "srt.encryption.passphrase:hunter2".into(),
            "srt.encryption.passfrase=hunter2".into(),
        ],
    };
    let shown = Config::load(&sources).unwrap_err().to_string();
    assert!(
        !shown.contains("hunter2") && !shown.contains("7777777"),
        "{shown}"
    );
    for part in [
        "hidden.toml:3: srt.encryption.key_length = 17: must be 16, 24 or 32",
        "hidden.toml:6: publishers[0].pasphrase = ***: unknown key",
        "hidden.toml:10: srt.callers[0].url = \"srt://h:0?***\": the port must be",
        "srt.encryption.passphrase***: must have the form key=value",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn what_looks_like_a_mistake_is_a_warning() {
    let text = "max_streams = 1\n[srt.encryption]\npassphrase = \"0123456789\"\nrequire = false\n\
                [[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1\"\n\
                [[srt.callers]]\nid = \"b\"\nurl = \"srt://h:1\"\n";
    let warnings = load("warnings.toml", text).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("require = false") && warnings[1].contains("max_streams is 1"));
}

#[test]
fn callers_are_read_with_their_defaults() {
    let text = "[[srt.callers]]\nid = \"remote/a\"\nurl = \"srt://cam:9000?streamid=x&latency=200&pbkeylen=24\"\n\
                passphrase = \"0123456789\"\n\
                [[srt.callers]]\nid = \"remote/b\"\nurl = \"srt://[::1]:9000\"\ncipher = \"gcm\"\nrequire = false\n\
                tags = [\"t\"]\nbackoff = { initial = \"2s\", max = \"10s\", jitter = 0.5 }\n\
                circuit_breaker = { failures = 3, reset_after = \"1m\" }\n";
    let c = load("callers.toml", text).unwrap();
    let [a, b] = &c.srt.callers[..] else {
        panic!("{:?}", c.srt.callers)
    };
    assert_eq!(a.key_length, Some(KeyLength::Aes192));
    assert_eq!(a.url.latency, Some(Duration::from_millis(200)));
    assert_eq!(a.backoff, BackoffConfig::default());
    assert_eq!(a.circuit_breaker, BreakerConfig::default());
    assert!(a.require && a.cipher == CipherPolicy::Auto);
    assert!(!b.require && b.cipher == CipherPolicy::Gcm);
    assert_eq!(b.backoff.initial, Duration::from_secs(2));
    assert_eq!(b.circuit_breaker.failures, 3);
    let again = load(
        "callers2.toml",
        &c.to_toml().replace("\"***\"", "\"0123456789\""),
    )
    .unwrap();
    assert_eq!(c.to_json(), again.to_json());
}

#[test]
fn what_is_wrong_with_srt_is_said_with_its_line() {
    for (text, expected) in [
        (
            "[srt.encryption]\nrefresh_packets = 1000\nannounce_packets = 500\n",
            ":3: srt.encryption.announce_packets = 500: must not be more than (refresh_packets - 1) / 2, which is 499",
        ),
        (
            "[srt.encryption]\npassphrase = \"0123456789\"\npassphrase_file = \"/x\"\n",
            ":3: srt.encryption.passphrase_file = \"/x\": passphrase and passphrase_file exclude",
        ),
        (
            "[srt.encryption]\npassphrase_file = \"/nonexistent\"\n",
            "cannot be read",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\n",
            ":1: srt.callers[0].url: must be given",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1\"\n[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:2\"\n",
            "two callers have the id \"a\"",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:9000?mode=rendezvous\"\n[[srt.callers]]\nid = \"b\"\nurl = \"srt://i:1?mode=rendezvous&localport=9000\"\n",
            "a and b would share port 9000",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:30000?mode=rendezvous\"\n",
            "a: port 30000 is that of srt.listen",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1?passphrase=0123456789\"\npassphrase = \"0123456789\"\n",
            "given here and as a key",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1?pbkeylen=16\"\nkey_length = 32\n",
            "is not what pbkeylen",
        ),
        (
            "[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1\"\nbackoff = { initial = \"5s\", max = \"1s\", jitter = 2 }\n",
            "must be a number from 0 to 1",
        ),
        (
            "[[srt.callers]]\nid = \"rtp_0011aabb\"\nurl = \"srt://h:1\"\n",
            "are given to RTP sources",
        ),
        (
            "[srt]\nenabled = false\n[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1\"\n",
            "need srt.enabled",
        ),
        (
            "[srt]\nmax_latency = \"1s\"\n[[srt.callers]]\nid = \"a\"\nurl = \"srt://h:1?latency=2000\"\n",
            "more than srt.max_latency",
        ),
    ] {
        let shown = load("wrong.toml", text).unwrap_err().to_string();
        assert!(shown.contains(expected), "{text}: {shown}");
    }
}

#[test]
fn secrets_that_were_written_wrongly_are_not_shown_either() {
    let caller = |url: &str| format!("[[srt.callers]]\nid = \"a\"\nurl = \"{url}\"\n");
    for text in [
        caller("srt://h:1?Passphrase=hunter2hunter2"),
        caller("srt://h:1?pass=hunter2hunter2"),
        caller("srt:/h:1?passphrase=hunter2hunter2"),
        caller("h:1?secret=hunter2hunter2"),
        caller("srt://h:1?passphrase=0123456789&hunter2hunter2"),
        "[srt.encryption]\nkey = \"hunter2hunter2\"\n".to_owned(),
        "[srt]\ncallers = \"[{ url = x, passphrase = hunter2hunter2 }]\"\n".to_owned(),
    ] {
        let shown = load("misplaced.toml", &text).unwrap_err().to_string();
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let value = "srt.callers=[{url=\"srt://h:1\", passphrase = \"hunter2hunter2\"}]";
    let sources = Sources {
        set: vec![value.to_owned()],
        ..Sources::default()
    };
    let shown = Config::load(&sources).unwrap_err().to_string();
    assert!(!shown.contains("hunter2"), "{shown}");
    // What helps to find the fault stays.
    let shown = load("misplaced.toml", &caller("srt://h:0?x=1")).unwrap_err();
    assert!(shown.to_string().contains("srt://h:0?"), "{shown}");
}
