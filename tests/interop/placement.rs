//! Several shards, both address families, and stream IDs in SRT's access-control syntax.

use std::collections::BTreeSet;

use mirror_tests::engine::{Engine, number};
use mirror_tests::media;
use mirror_tests::process::Process;
use mirror_tests::{Alone, seconds, wait_for};

#[test]
fn with_two_shards_streams_spread_over_both_and_nothing_is_lost() {
    let test = Alone::begin("two-shards");
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("one core only: no second shard");
        return;
    }
    let map = test.write(
        "pinning.toml",
        "[control]\ncores = [0]\n[[shard]]\ncore = 0\n[[shard]]\ncore = 1\n",
    );
    let engine = Engine::start_with(&test, &[], &["--pinning", &map.display().to_string()]);
    let file = media::clip_h264(&test);
    let ids: Vec<String> = (0..6).map(|n| format!("live/cam{n}")).collect();
    let _senders: Vec<Process> = ids
        .iter()
        .map(|id| {
            media::loop_file(
                &test,
                &id.replace('/', "-"),
                &file,
                "mpegts",
                &engine.srt_url(id),
            )
        })
        .collect();
    let _rtp = media::loop_file(&test, "rtp", &file, "rtp_mpegts", &engine.rtp_url());
    wait_for("all seven are active", seconds(15), || {
        engine
            .streams()
            .iter()
            .filter(|s| s["status"] == "active")
            .count()
            == 7
    });
    std::thread::sleep(seconds(4));
    let shards: BTreeSet<u64> = ids
        .iter()
        .filter_map(|id| engine.stream(id)?["shard"].as_u64())
        .collect();
    assert_eq!(shards, BTreeSet::from([0, 1]));
    for stream in engine.streams() {
        assert_eq!(number(&stream["stats"], "packets_lost"), 0.0, "{stream:#}");
        assert!(
            number(&stream["stats"], "video_frames") > 60.0,
            "{stream:#}"
        );
    }
}

#[test]
fn one_dual_stack_port_serves_ipv4_and_ipv6() {
    let test = Alone::begin("dual-stack");
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("no IPv6 here");
        return;
    }
    let ports = mirror_tests::engine::Ports::free();
    let listen = format!("srt.listen=[::]:{}", ports.srt);
    let engine = Engine::start(&test, &[&listen]);
    let file = media::clip_h264(&test);
    let v4 = format!("srt://127.0.0.1:{}?streamid=live/v4", ports.srt);
    let v6 = format!("srt://[::1]:{}?streamid=live/v6", ports.srt);
    let _v4 = media::loop_file(&test, "v4", &file, "mpegts", &v4);
    let _v6 = media::loop_file(&test, "v6", &file, "mpegts", &v6);
    let v4 = engine.wait_status("live/v4", "active", seconds(10));
    let v6 = engine.wait_status("live/v6", "active", seconds(10));
    let source =
        |record: &serde_json::Value| record["source_addr"].as_str().unwrap_or("").to_owned();
    assert!(
        source(&v4).starts_with("127.0.0.1:"),
        "IPv4 is shown as IPv4: {v4:#}"
    );
    assert!(source(&v6).starts_with("[::1]:"), "{v6:#}");
}

#[test]
fn an_access_control_stream_id_names_the_stream_and_its_other_keys_become_tags() {
    let test = Alone::begin("access-control");
    let engine = Engine::start(&test, &[]);
    let file = media::clip_h264(&test);
    // ffmpeg takes the value as it stands, up to the next `&`.
    let url = engine.srt_url("#!::r=live/ac,m=publish,site=east");
    let _sender = media::loop_file(&test, "send", &file, "mpegts", &url);
    let record = engine.wait_status("live/ac", "active", seconds(10));
    let tags = record["tags"].to_string();
    assert!(tags.contains("site=east"), "{record:#}");
}

#[test]
fn every_dial_of_the_core_map_lets_the_engine_start_and_take_no_more_memory() {
    let test = Alone::begin("dials");
    let mut dials = vec![
        "[ring]\ngro = true",
        "[ring]\nbusy_poll = \"50us\"",
        "[ring]\nmin_wait = \"0s\"\nbuffers = 16",
        "[sockets]\nsteering = false",
        "[memory]\nhuge_pages = true",
    ];
    // The kernel lets root only.
    if rustix::process::geteuid().is_root() {
        dials.push("[scheduling]\nmlock = true");
        dials.push("[scheduling]\npolicy = \"fifo 1\"");
    }
    for dial in dials {
        let map = format!("[control]\ncores = [0]\n[[shard]]\ncore = 0\n{dial}\n");
        let map = test.write("pinning.toml", &map);
        let mut engine = Engine::start_with(&test, &[], &["--pinning", &map.display().to_string()]);
        let resident = engine.process.resident_bytes() >> 20;
        assert!(resident < 400, "{dial}: {resident} MiB resident");
        let status = engine.drain(seconds(10));
        assert_eq!(status.code(), Some(0), "{dial}: {}", engine.process.tail());
    }
}
