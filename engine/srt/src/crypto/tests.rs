//! The vectors of `srt_crypto.json`, KM messages of captures and hostile ones, and the table of
//! spec section 8 as the listener decides it.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use serde_json::Value;

use super::cipher_iv::{self, GcmForm};
use super::message::{KeyPair, MAX_LEN};
use super::packet_key::PacketKey;
use super::*;
use crate::packet::Header;
use crate::reject::RejectionCode;
use crate::test_support::{Random, hex, vectors};

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key}"))
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    hex(text(value, key))
}

fn salt(value: &Value, key: &str) -> Salt {
    bytes(value, key).try_into().unwrap()
}

fn length(value: &Value) -> KeyLength {
    KeyLength::from_bytes(value["klen"].as_u64().unwrap() as usize).unwrap()
}

fn passphrase(value: &Value) -> Passphrase {
    Passphrase::new(text(value, "passphrase")).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

#[test]
fn keys_are_derived_from_passphrase_and_the_end_of_the_salt() {
    let all = vectors("srt_crypto.json");
    for case in list(&all, "pbkdf2") {
        // Vectors may hold passphrases of other lengths than ours may have.
        let Ok(passphrase) = Passphrase::new(text(case, "passphrase")) else {
            continue;
        };
        let (salt, length) = (salt(case, "salt16"), length(case));
        let kek = passphrase.derive(&salt, length);
        assert_eq!(kek.of(length), bytes(case, "kek"));
        // A longer key begins with the shorter one.
        let longest = passphrase.derive(&salt, KeyLength::Aes256);
        assert_eq!(longest.of(length), bytes(case, "kek"));
    }
}

#[test]
fn keys_are_wrapped_as_rfc_3394_says() {
    for case in list(&vectors("srt_crypto.json"), "rfc3394") {
        let (kek, data, wrapped) = (
            bytes(case, "kek"),
            bytes(case, "data"),
            bytes(case, "wrapped"),
        );
        let mut out = vec![0; wrapped.len()];
        assert!(backend::wrap(&kek, &data, &mut out));
        assert_eq!(out, wrapped);
        let mut out = vec![0; data.len()];
        assert!(backend::unwrap(&kek, &wrapped, &mut out));
        assert_eq!(out, data);
    }
}

fn check_message(case: &Value, kek: &Secret) {
    let wire = bytes(case, "km_message");
    let material = KeyMaterial::parse(&wire).unwrap();
    assert_eq!(material.length, length(case));
    assert_eq!(material.salt, salt(case, "salt"));
    let cipher = match case["cipher"].as_u64().unwrap() {
        2 => Cipher::Ctr,
        _ => Cipher::Gcm,
    };
    assert_eq!(material.cipher, cipher);
    let keys = material.unwrap(kek).unwrap();
    for (key, name) in [(&keys.even, "sek_even"), (&keys.odd, "sek_odd")] {
        assert_eq!(
            key.as_ref().map(|k| k.of(material.length).to_vec()),
            case[name].as_str().map(hex)
        );
    }
    let suite = Suite {
        cipher,
        form: GcmForm::Current,
        length: material.length,
        salt: material.salt,
    };
    assert_eq!(Message::write(&suite, kek, &keys).unwrap().as_bytes(), wire);
}

#[test]
fn km_messages_are_read_and_written_byte_for_byte() {
    let all = vectors("srt_crypto.json");
    for case in list(&all, "km_messages_synthetic") {
        check_message(
            case,
            &passphrase(case).derive(&salt(case, "salt"), length(case)),
        );
    }
    for capture in list(&all, "from_captures") {
        for case in list(capture, "key_messages") {
            check_message(
                case,
                &passphrase(capture).derive(&salt(case, "salt"), length(case)),
            );
        }
    }
}

#[test]
fn km_messages_that_are_wrong_in_any_field_are_refused() {
    let all = vectors("srt_crypto.json");
    for case in list(&all, "km_message_negative") {
        let wire = bytes(case, "km_message");
        let opened = KeyMaterial::parse(&wire).and_then(|material| {
            material.unwrap(&passphrase(case).derive(&material.salt, material.length))
        });
        assert!(opened.is_none(), "{case}");
    }
    let good = bytes(&list(&all, "km_messages_synthetic")[0], "km_message");
    // KEKI, SE and lengths included: no bit of the first 16 bytes may differ, but for KK, which
    // then does not fit the length.
    for bit in 0..128 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if bad[3] == 2 {
            continue;
        }
        assert!(KeyMaterial::parse(&bad).is_none(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(KeyMaterial::parse(&good[..len]).is_none());
    }
    let mut huge = good.clone();
    huge.resize(1400, 0);
    assert!(KeyMaterial::parse(&huge).is_none());
    assert!(Message::copy(&huge).is_none());
    assert!(Message::copy(&huge[..MAX_LEN]).is_some());
    let mut random = Random(7);
    for len in 0..200 {
        let noise = random.bytes(len);
        assert!(KeyMaterial::parse(&noise).is_none());
    }
}

fn header(wire: &[u8]) -> Header {
    Header::parse(wire).unwrap().0
}

fn packet_key(cipher: Cipher, form: GcmForm, salt: Salt, key: &[u8]) -> (Suite, PacketKey) {
    let suite = Suite {
        cipher,
        form,
        length: KeyLength::from_bytes(key.len()).unwrap(),
        salt,
    };
    let key = PacketKey::new(&suite, &Secret::from_slice(key)).unwrap();
    (suite, key)
}

fn open(suite: &Suite, key: &PacketKey, header: &Header, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut room = sealed.to_vec();
    match suite.cipher {
        Cipher::Ctr => key
            .apply_ctr(suite, header.word0, &mut room)
            .then_some(room),
        Cipher::Gcm => key
            .open_gcm(suite, header, sealed, &mut room)
            .map(<[u8]>::to_vec),
    }
}

#[test]
fn payloads_are_encrypted_as_the_vectors_have_it() {
    for case in list(&vectors("srt_crypto.json"), "iv_and_payload_synthetic") {
        let (salt, key, plain) = (salt(case, "salt"), bytes(case, "key"), bytes(case, "plain"));
        let header = header(&bytes(case, "gcm_header16_aad"));
        assert_eq!(
            cipher_iv::ctr(&salt, header.word0).to_vec(),
            bytes(case, "ctr_iv16")
        );
        let iv = cipher_iv::gcm(GcmForm::Current, &salt, header.word0);
        assert_eq!(iv.to_vec(), bytes(case, "gcm_iv12"));
        for (cipher, sealed) in [
            (Cipher::Ctr, "ctr_cipher"),
            (Cipher::Gcm, "gcm_cipher_and_tag"),
        ] {
            let (suite, key) = packet_key(cipher, GcmForm::Current, salt, &key);
            let sealed = bytes(case, sealed);
            let mut buffer = plain.clone();
            buffer.resize(plain.len() + TAG_LEN, 0);
            let len = key.seal(&suite, &header, &mut buffer, plain.len()).unwrap();
            assert_eq!(buffer[..len], sealed);
            assert_eq!(open(&suite, &key, &header, &sealed).unwrap(), plain);
        }
    }
}

#[test]
fn packets_of_captures_are_decrypted_in_both_gcm_variants() {
    let all = vectors("srt_crypto.json");
    let mut forms = std::collections::BTreeSet::new();
    for capture in list(&all, "from_captures") {
        for packet in list(capture, "packets") {
            let header = header(&bytes(packet, "header"));
            let kk = packet["kk"].as_u64().unwrap();
            let name = if kk == 1 { "sek_even" } else { "sek_odd" };
            // The last message that named the key, among those before the packet.
            let keys = list(capture, "key_messages");
            let before =
                |m: &&Value| m["frame"].as_u64() < packet["frame"].as_u64() && m[name].is_string();
            let message = keys.iter().rfind(before).unwrap();
            let cipher = match message["cipher"].as_u64().unwrap() {
                2 => Cipher::Ctr,
                _ => Cipher::Gcm,
            };
            let form = match text(capture, "capture") {
                "srt68_gcm_pre154_libsrt153" | "srt69_gcm_155_caller_153_listener" => {
                    GcmForm::Before154
                }
                _ => GcmForm::Current,
            };
            let (suite, key) =
                packet_key(cipher, form, salt(message, "salt"), &bytes(message, name));
            let plain = bytes(packet, "plain");
            let mut sealed = bytes(packet, "cipher_payload");
            if cipher == Cipher::Gcm {
                forms.insert(format!("{form:?}"));
                assert_eq!(
                    cipher_iv::gcm(form, &suite.salt, header.word0).to_vec(),
                    bytes(packet, "iv12")
                );
                assert_eq!(cipher_iv::aad(form, &header).to_vec(), bytes(packet, "aad"));
                let tag = bytes(packet, "tag");
                if !sealed.ends_with(&tag) {
                    sealed.extend(tag);
                }
            }
            let opened = open(&suite, &key, &header, &sealed);
            match opened {
                Some(opened) => assert!(opened.starts_with(&plain), "{}", capture["capture"]),
                None => panic!("{} {}", capture["capture"], packet["frame"]),
            }
        }
    }
    assert_eq!(forms.len(), 2);
}

#[test]
fn gcm_refuses_what_differs_in_one_bit_of_payload_tag_or_header() {
    let (suite, key) = packet_key(Cipher::Gcm, GcmForm::Current, [3; 16], &[5; 24]);
    let wire: Vec<u8> = (1..17).collect();
    let mut buffer = [7; 100 + TAG_LEN];
    let len = key.seal(&suite, &header(&wire), &mut buffer, 100).unwrap();
    assert_eq!(
        open(&suite, &key, &header(&wire), &buffer[..len]),
        Some(vec![7; 100])
    );
    for bit in 0..len * 8 {
        let mut bad = buffer;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&suite, &key, &header(&wire), &bad).is_none());
    }
    for bit in 0..128 {
        let mut bad = wire.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let retransmitted = bad[..4] == wire[..4] && bad[5..] == wire[5..] && bit == 4 * 8 + 2;
        assert_eq!(
            open(&suite, &key, &header(&bad), &buffer).is_some(),
            retransmitted
        );
    }
    for len in 0..TAG_LEN {
        assert!(open(&suite, &key, &header(&wire), &buffer[..len]).is_none());
    }
}

const SEED: [u8; 32] = [4; 32];

fn policy(passphrase: Option<&Passphrase>, require: bool) -> ListenerPolicy<'_> {
    ListenerPolicy {
        passphrase,
        require,
        cipher: CipherPolicy::Auto,
    }
}

fn request(passphrase: &Passphrase, length: KeyLength, cipher: CipherPolicy) -> Vec<u8> {
    let mut caller = CallerSecurity::new(passphrase, Some(length), cipher, true, SEED);
    caller.ask(0).unwrap();
    caller.request().unwrap().1.to_vec()
}

#[test]
fn the_listener_decides_as_the_table_says() {
    let ours = Passphrase::new("the right one").unwrap();
    let other = Passphrase::new("another one").unwrap();
    let good = request(&ours, KeyLength::Aes192, CipherPolicy::Gcm);
    let bad = request(&other, KeyLength::Aes128, CipherPolicy::Auto);
    let negotiate = |km: Option<&[u8]>, policy: ListenerPolicy<'_>| {
        Security::negotiate(km, 0x0001_0505, &policy, SEED)
    };
    let unsecured = |security: Security, expected: KmState| {
        assert_eq!(security.agreed(), None);
        matches!(security.into_terms(), Terms::Unsecured(state) if state == expected)
    };
    for require in [true, false] {
        let clear = negotiate(None, policy(None, require)).unwrap();
        assert!(matches!(clear.into_terms(), Terms::Clear));
        let secured = negotiate(Some(&good), policy(Some(&ours), require)).unwrap();
        assert_eq!(secured.agreed(), Some((Cipher::Gcm, KeyLength::Aes192)));
        let ctr_only = ListenerPolicy {
            cipher: CipherPolicy::Ctr,
            ..policy(Some(&ours), require)
        };
        let cases = [
            (
                Some(&*bad),
                policy(Some(&ours), require),
                RejectionCode::BADSECRET,
                KmState::BadSecret,
            ),
            (
                None,
                policy(Some(&ours), require),
                RejectionCode::UNSECURE,
                KmState::Unsecured,
            ),
            (
                Some(&*bad),
                policy(None, require),
                RejectionCode::UNSECURE,
                KmState::NoSecret,
            ),
            (
                Some(&*good),
                ctr_only,
                RejectionCode::CRYPTO,
                KmState::BadCryptoMode,
            ),
        ];
        for (km, policy, code, state) in cases {
            match negotiate(km, policy) {
                Err(rejected) => assert!(require && rejected == code, "{policy:?}"),
                Ok(security) => assert!(!require && unsecured(security, state), "{policy:?}"),
            }
        }
        // Malformed material is refused whatever is demanded.
        for rogue in [&good[..good.len() - 4], &[][..], &[0; 56]] {
            for passphrase in [None, Some(&ours)] {
                let answer = negotiate(Some(rogue), policy(passphrase, require));
                assert_eq!(answer.unwrap_err(), RejectionCode::ROGUE);
            }
        }
    }
}

#[test]
fn the_callers_key_length_is_its_own_or_else_the_advertised_one() {
    let passphrase = Passphrase::new("the right one").unwrap();
    let length = |own: Option<KeyLength>, advertised: u16| {
        let mut caller = CallerSecurity::new(&passphrase, own, CipherPolicy::Auto, true, SEED);
        assert!(caller.request().is_none());
        caller.ask(advertised).unwrap();
        let (field, message) = caller.request().unwrap();
        let chosen = own.or(KeyLength::from_field(advertised));
        assert_eq!(KeyLength::from_field(field), chosen);
        let answer = Security::negotiate(
            Some(message),
            0x0001_0501,
            &policy(Some(&passphrase), true),
            SEED,
        );
        let (cipher, length) = answer.unwrap().agreed().unwrap();
        assert_eq!(cipher, Cipher::Ctr);
        length
    };
    assert_eq!(length(None, 0), KeyLength::Aes128);
    assert_eq!(length(None, 3), KeyLength::Aes192);
    assert_eq!(length(None, 4), KeyLength::Aes256);
    assert_eq!(length(None, 77), KeyLength::Aes128);
    assert_eq!(length(Some(KeyLength::Aes192), 4), KeyLength::Aes192);
}

#[test]
fn a_caller_that_insists_gives_up_on_anything_but_its_own_message() {
    let passphrase = Passphrase::new("the right one").unwrap();
    let conclude = |require: bool, response: Option<&[u8]>| {
        let mut caller = CallerSecurity::new(&passphrase, None, CipherPolicy::Auto, require, SEED);
        caller.ask(0).unwrap();
        let own = caller.request().unwrap().1.to_vec();
        let response = response.map(|r| if r == b"own" { own.clone() } else { r.to_vec() });
        match caller.conclude(response.as_deref(), 0x0001_0501) {
            Ok(Terms::Keys(agreement)) => Ok(agreement.state),
            Ok(_) => panic!("a caller with a passphrase has keys"),
            Err(code) => Err(code),
        }
    };
    for require in [true, false] {
        assert_eq!(conclude(require, Some(b"own")), Ok(KmState::Secured));
    }
    let cases: [(Option<&[u8]>, RejectionCode, KmState); 7] = [
        (None, RejectionCode::UNSECURE, KmState::NoSecret),
        (
            Some(&[0, 0, 0, 0]),
            RejectionCode::UNSECURE,
            KmState::Unsecured,
        ),
        (
            Some(&[3, 0, 0, 0]),
            RejectionCode::UNSECURE,
            KmState::NoSecret,
        ),
        (
            Some(&[4, 0, 0, 0]),
            RejectionCode::BADSECRET,
            KmState::BadSecret,
        ),
        (
            Some(&[0, 0, 0, 4]),
            RejectionCode::BADSECRET,
            KmState::BadSecret,
        ),
        (
            Some(&[0, 0, 0, 5]),
            RejectionCode::CRYPTO,
            KmState::BadCryptoMode,
        ),
        (
            Some(&[2, 0, 0, 0]),
            RejectionCode::UNSECURE,
            KmState::Unsecured,
        ),
    ];
    for (response, code, state) in cases {
        assert_eq!(conclude(true, response), Err(code), "{response:?}");
        assert_eq!(conclude(false, response), Ok(state), "{response:?}");
    }
    assert_eq!(conclude(true, Some(&[1; 56])), Err(RejectionCode::ROGUE));
}

#[test]
fn a_key_is_given_up_unconfirmed_only_before_sequence_numbers_come_again() {
    let passphrase = Passphrase::new("the right one").unwrap();
    let message = request(&passphrase, KeyLength::Aes128, CipherPolicy::Auto);
    let policy = policy(Some(&passphrase), true);
    let security = Security::negotiate(Some(&message), 0x0001_0505, &policy, SEED).unwrap();
    let Terms::Keys(agreement) = security.into_terms() else {
        panic!("secured");
    };
    let config = crate::Config {
        refresh_packets: u32::MAX,
        announce_packets: u32::MAX,
        ..crate::Config::default()
    };
    let mut keys = SendKeys::new(*agreement, Refresh::new(&config), 1).unwrap();
    let now = mirror_base::Instant::ZERO;
    // The longest period is 2^29 packets, the earliest announcement half of it before.
    keys.count_packets((1 << 28) - 1);
    assert!(!keys.step_due());
    for count in [(1 << 28) + 1, 1 << 29] {
        keys.count_packets(count);
        assert!(keys.step_due());
        keys.step(now);
        assert_eq!((keys.refreshes, keys.due()), (0, now));
    }
    keys.count_packets((1 << 30) - 1);
    assert!(!keys.step_due());
    keys.count_packets(1 << 30);
    assert!(keys.step_due());
    keys.step(now);
    assert_eq!(keys.refreshes, 1);
    assert!(!keys.step_due());
}

#[test]
fn no_key_and_no_passphrase_shows_in_debug() {
    let passphrase = Passphrase::new("hidden-passphrase").unwrap();
    let mut caller = CallerSecurity::new(&passphrase, None, CipherPolicy::Gcm, true, SEED);
    caller.ask(0).unwrap();
    let message = caller.request().unwrap().1.to_vec();
    let policy = policy(Some(&passphrase), true);
    let security = Security::negotiate(Some(&message), 0, &policy, SEED).unwrap();
    let mut shown = format!("{passphrase:?} {caller:?} {security:?} {policy:?}");
    let Terms::Keys(agreement) = security.into_terms() else {
        panic!("secured");
    };
    let suite = agreement.suite;
    let secrets: Vec<Vec<u8>> = [
        Some(&agreement.kek),
        agreement.keys.even.as_ref(),
        agreement.keys.odd.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|s| s.of(suite.length).to_vec())
    .collect();
    shown += &format!("{agreement:?}");
    let mut ring = ReceiveKeys::new(suite);
    ring.install(&agreement.keys);
    let refresh = Refresh::new(&crate::Config::default());
    let mut sending = SendKeys::new(*agreement, refresh, 1).unwrap();
    shown += &format!("{ring:?} {sending:?}");
    sending.step(mirror_base::Instant::ZERO);
    shown += &format!("{sending:?}");
    assert!(!shown.contains("hidden"), "{shown}");
    for secret in secrets {
        assert!(!shown.contains(&format!("{secret:?}")));
        let digits: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!shown.to_lowercase().contains(&digits));
        assert!(!shown.contains(&format!("{}, {}, {}", secret[0], secret[1], secret[2])));
    }
    let _ = KeyPair::<Secret>::NONE;
}

#[test]
fn passphrases_have_10_to_80_bytes() {
    assert_eq!(
        Passphrase::new("nine long").unwrap_err(),
        PassphraseLength(9)
    );
    assert!(Passphrase::new("ten, long.").is_ok());
    assert!(Passphrase::new(&"x".repeat(80)).is_ok());
    assert!(Passphrase::new(&"x".repeat(81)).is_err());
}
