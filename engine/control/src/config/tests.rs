//! Facts about the configuration.

use std::time::Duration;

use super::*;

pub(super) fn file(name: &str, text: &str) -> PathBuf {
    let path = crate::testing::scratch("config").join(name);
    std::fs::write(&path, text).unwrap();
    path
}

pub(super) fn load(name: &str, text: &str) -> Result<Config, ConfigErrors> {
    Config::load(&Sources {
        file: Some(file(name, text)),
        ..Sources::default()
    })
}

#[test]
fn whether_gop_keep_was_set_is_known() {
    assert!(
        !load("none.toml", "[gop]\nmax_frames = 100\n")
            .unwrap()
            .gop
            .keep_is_set
    );
    assert!(
        load("keep.toml", "[gop]\nkeep = 3\n")
            .unwrap()
            .gop
            .keep_is_set
    );
}

#[test]
fn embedded_defaults_are_valid_and_are_the_contracts() {
    let c = Config::load(&Sources::default()).unwrap();
    assert_eq!(c.srt.listen, "[::]:30000".parse().unwrap());
    assert_eq!(c.srt.latency, Duration::from_millis(120));
    assert_eq!(c.max_streams, 25);
    assert_eq!(c.buffer.ring_size, 4 << 20);
    assert_eq!(c.memory.total, 8 << 30);
    let format = |number| c.rtp.payload_types[&number].plan.hint.format;
    assert_eq!(format(96), mirror_media::PayloadFormat::H264);
    assert_eq!(c.api.listen, "127.0.0.1:8080".parse().unwrap());
    assert!(c.stream.media);
    assert!(!c.instance.is_empty());
    assert!(c.warnings.is_empty());
}

#[test]
fn effective_configuration_reads_back_as_itself() {
    let text = "instance = \"i1\"\n[[srt.default_stream]]\nport = 7\nid = \"a/b\"\n\
                [[publishers]]\nid = \"live/*\"\nsources = [\"10.0.0.0/8\"]\ntags = [\"x\"]\n";
    let c = load("roundtrip.toml", text).unwrap();
    let again = load("roundtrip2.toml", &c.to_toml()).unwrap();
    assert_eq!(c.to_json(), again.to_json());
    assert_eq!(c.to_json()["srt"]["latency"], "120ms");
}

#[test]
fn every_error_is_told_at_once_with_line_key_value_and_range() {
    let text = "max_streams = 0\n\n[srt]\nlatency = \"9s\"\nlisten = \"nowhere\"\nlatecy = \"1s\"\n\
                enabled = \"yes\"\n[backpressure]\nkeep = 3\n[rtp.payload_types]\n200 = \"H264\"\n97 = \"VC1\"\n";
    let errors = load("many.toml", text).unwrap_err();
    let found: Vec<_> = errors
        .0
        .iter()
        .map(|e| (e.line().unwrap(), e.key.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "max_streams"),
            (4, "srt.latency"),
            (5, "srt.listen"),
            (6, "srt.latecy"),
            (7, "srt.enabled"),
            (8, "backpressure"),
            (11, "rtp.payload_types.200"),
            (12, "rtp.payload_types.97"),
        ],
        "{errors}"
    );
    let shown = errors.to_string();
    assert!(
        shown.contains("many.toml:4: srt.latency = \"9s\": must be a duration"),
        "{shown}"
    );
    assert!(shown.contains("from 20ms to 8s"), "{shown}");
    assert!(shown.contains("did you mean \"latency\"?"), "{shown}");
    assert!(
        shown.contains("backpressure: is not available yet"),
        "{shown}"
    );
    assert!(shown.contains("from 1 to 100000"), "{shown}");
}

#[test]
fn syntax_error_is_one_error_with_its_line() {
    let errors = load("syntax.toml", "max_streams = 5\n\n[srt\nlatency = = 3\n").unwrap_err();
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(matches!(errors.0[0].line(), Some(3 | 4)), "{errors}");
    let missing = Config::load(&Sources {
        file: Some("/nonexistent/x.toml".into()),
        ..Sources::default()
    });
    assert!(missing.unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn environment_overrules_the_file_and_set_overrules_both() {
    let sources = Sources {
        file: Some(file(
            "layers.toml",
            "max_streams = 7\n[srt]\nlatency = \"200ms\"\n[rtp]\nenabled = true\n",
        )),
        environment: vec![
            ("MIRROR_SRT__LATENCY".into(), "80ms".into()),
            ("MIRROR_RTP__ENABLED".into(), "false".into()),
            (
                "MIRROR_API__CORS".into(),
                "https://a.example, https://b.example".into(),
            ),
            ("MIRROR_INGEST_SERVICE_HOST".into(), "10.1.1.1".into()),
        ],
        set: vec![
            "srt.latency=90ms".into(),
            "registry.max_streams_per_source=3".into(),
        ],
    };
    let c = Config::load(&sources).unwrap();
    assert_eq!(c.max_streams, 7);
    assert_eq!(c.srt.latency, Duration::from_millis(90));
    assert!(!c.rtp.enabled);
    assert_eq!(c.api.cors, ["https://a.example", "https://b.example"]);
    assert_eq!(c.registry.max_streams_per_source, 3);
    assert_eq!(c.warnings.len(), 1);
}

#[test]
fn faults_of_overrides_name_their_source() {
    let sources = Sources {
        environment: vec![("MIRROR_SRT__LATENCY".into(), "1ms".into())],
        set: vec!["srt.colour=red".into(), "nonsense".into(), "srt.=3".into()],
        ..Sources::default()
    };
    let shown = Config::load(&sources).unwrap_err().to_string();
    assert!(
        shown.contains("environment MIRROR_SRT__LATENCY: srt.latency = 1ms"),
        "{shown}"
    );
    assert!(
        shown.contains("--set: srt.colour = red: unknown key"),
        "{shown}"
    );
    assert!(
        shown.contains("nonsense: must have the form key=value"),
        "{shown}"
    );
}

#[test]
fn combinations_are_checked() {
    for (text, expected) in [
        ("[api]\nlisten = \"0.0.0.0:8080\"\n", "needs api.token_file"),
        (
            "[srt]\nlatency = \"2s\"\nmax_latency = \"1s\"\n",
            "must not be less than srt.latency",
        ),
        (
            "[rtp]\nrtcp_listen = \"[::]:5004\"\n",
            "must not be the same",
        ),
        (
            "[memory]\ntotal = \"64MiB\"\n",
            "must not be more than memory.total",
        ),
        (
            "[registry]\nheartbeat_timeout = \"10s\"\n",
            "must be more than",
        ),
        ("[registry.redis]\nurl = \"rediss://x\"\n", "TLS"),
        ("[registry.redis]\nurl = \"http://x\"\n", "must be a URL"),
    ] {
        let shown = load("combination.toml", text).unwrap_err().to_string();
        assert!(shown.contains(expected), "{text}: {shown}");
    }
    let token = file("token", "s3cret\n");
    let text = format!("[api]\nlisten = \"0.0.0.0:8080\"\ntoken_file = {token:?}\n");
    let c = load("token.toml", &text).unwrap();
    assert_eq!(c.api.token.as_ref().unwrap().reveal(), "s3cret");
    assert!(!format!("{c:?}{}{}", c.to_toml(), c.to_json()).contains("s3cret"));
}

#[test]
fn passwords_in_urls_are_not_shown() {
    assert_eq!(redacted_url("redis://u:p@h:1/2"), "redis://u:***@h:1/2");
    assert_eq!(redacted_url("redis://:p@h"), "redis://:***@h");
    assert_eq!(redacted_url("redis://h:6379"), "redis://h:6379");
}

fn pin(name: &str, text: &str, online: &[u32]) -> Result<Pinning, ConfigErrors> {
    Pinning::load(&PinningSource::File(file(name, text)), online)
}

#[test]
fn automatic_map_leaves_one_core_to_control() {
    for (online, control, shards) in [
        (vec![0], vec![0], vec![0]),
        (vec![0, 1], vec![0], vec![1]),
        (vec![2, 3, 5], vec![2], vec![3, 5]),
    ] {
        let map = Pinning::load(&PinningSource::Auto, &online).unwrap();
        let cores: Vec<u32> = map.shards.iter().map(|s| s.core).collect();
        assert_eq!((map.control_cores, cores), (control, shards));
    }
    let map = Pinning::load(&PinningSource::Auto, &online_cores()).unwrap();
    assert!(!map.shards.is_empty());
}

#[test]
fn shipped_map_suits_two_cores_and_says_so_on_one() {
    let text = include_str!("../../../../pinning.toml");
    let map = pin("shipped.toml", text, &[0, 1]).unwrap();
    assert_eq!(map.control_cores, [0]);
    assert_eq!(map.shards.len(), 1);
    assert_eq!(map.shards[0].core, 1);
    assert_eq!(map.ring.min_wait, Duration::from_micros(500));
    assert_eq!(map.sockets.receive_buffer, 16 << 20);
    let shown = pin("shipped1.toml", text, &[0]).unwrap_err().to_string();
    assert!(
        shown.contains("core 1 is not online; this machine offers 1 core (0)"),
        "{shown}"
    );
    assert!(shown.contains("--pinning auto"), "{shown}");
}

#[test]
fn faults_of_the_map_are_told_together() {
    let text = "[control]\ncores = [9]\n[[shard]]\ncore = 0\n[[shard]]\ncore = 0\nspeed = 3\n\
                [ring]\nbuffers = 100\nmin_wait = \"1s\"\n[scheduling]\npolicy = \"fifo 100\"\n";
    let errors = pin("faults.toml", text, &[0, 1]).unwrap_err();
    let keys: Vec<_> = errors.0.iter().map(|e| e.key.as_str()).collect();
    for key in [
        "control.cores",
        "shard",
        "shard[1].speed",
        "ring.buffers",
        "ring.min_wait",
        "scheduling.policy",
    ] {
        assert!(keys.contains(&key), "{key}: {errors}");
    }
    let both = pin(
        "both.toml",
        "[shards]\ncount = 1\n[[shard]]\ncore = 0\n",
        &[0, 1],
    )
    .unwrap_err();
    assert!(both.to_string().contains("exclude each other"), "{both}");
    let many = pin("manyshards.toml", "[shards]\ncount = 4\n", &[0, 1]).unwrap_err();
    assert!(
        many.to_string()
            .contains("this machine has 1 cores for shards"),
        "{many}"
    );
    let source = PinningSource::File(file("manyshards2.toml", "[shards]\ncount = 4\n"));
    let beyond = Pinning::load_unmatched(&source, &[0, 1]).unwrap();
    let cores: Vec<u32> = beyond.shards.iter().map(|s| s.core).collect();
    assert_eq!(cores, [1, 2, 3, 4]);
    let fifo = pin("fifo.toml", "[scheduling]\npolicy = \"fifo 10\"\n", &[0, 1]).unwrap();
    assert_eq!(fifo.policy, Policy::Fifo(10));
}
