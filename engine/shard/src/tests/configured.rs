//! Configured RTP sessions: their stream's life, who may send, several media, repair, RTCP.

use core::net::SocketAddr;
use core::time::Duration;

use mirror_base::{Discard, StreamId};
use mirror_media::PayloadFormat;
use mirror_stream::plan::{MediaPlan, PayloadPlan, PlanDefaults, Purpose, SessionPlan, from_sdp};
use mirror_stream::report::{Command, EndReason, Event, Status, StreamSnapshot};

use super::sources::packet;
use super::world::{World, addr, config};

const FROM: &str = "192.0.2.7:4000";
const RTP: &str = "10.0.0.1:6000";
const RTCP: &str = "10.0.0.1:6001";

fn ts_medium(port: u16) -> MediaPlan {
    let format = PayloadPlan {
        number: 33,
        hint: PayloadFormat::Mp2t.into(),
        clock_rate: 90_000,
    };
    let mut media = MediaPlan::new(vec![format], &PlanDefaults::default());
    let at = SocketAddr::new(addr("0.0.0.0:0").ip(), port);
    media.add_path(0, at, Some(port + 1), &[], None, None);
    media
}

fn plan(id: &str, media: Vec<MediaPlan>) -> SessionPlan {
    let plan = SessionPlan {
        stream_id: StreamId::new(id).unwrap(),
        tags: vec!["studio".to_owned()],
        sources: Vec::new(),
        media,
    };
    assert_eq!(plan.faults(), Vec::<String>::new());
    plan
}

fn world_with(plans: Vec<SessionPlan>, shards: usize) -> World {
    World::new(crate::ShardsConfig {
        rtp_sessions: plans,
        ..config(shards)
    })
}

fn stream(world: &mut World, id: &str) -> StreamSnapshot {
    let snapshots = world.snapshot();
    let mut streams = snapshots.iter().flat_map(|s| &s.streams);
    let found = streams.find(|s| s.stream_id.as_str() == id);
    found.unwrap_or_else(|| panic!("no stream {id}")).clone()
}

fn feed(world: &mut World, ssrc: u32, sequences: core::ops::Range<u16>) {
    for sequence in sequences {
        world.send_to_engine(addr(FROM), addr(RTP), &packet(ssrc, sequence));
        world.step();
    }
}

fn bye(ssrc: u32) -> Vec<u8> {
    // RR without blocks, then BYE.
    let mut bytes = vec![0x80, 201, 0, 1];
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend([0x81, 203, 0, 1]);
    bytes.extend(ssrc.to_be_bytes());
    bytes
}

/// A sender report with CNAME.
fn sender_report(ssrc: u32, ntp: u64, timestamp: u32, cname: &[u8; 6]) -> Vec<u8> {
    let mut bytes = vec![0x80, 200, 0, 6];
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(ntp.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend([0x81, 202, 0, 4]);
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend([1, 6]);
    bytes.extend(cname);
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn a_session_waits_receives_loses_its_source_and_waits_again() {
    let mut world = world_with(vec![plan("studio/a", vec![ts_medium(6000)])], 1);
    world.run(Duration::from_millis(10));
    let waiting = world.log.iter().any(|event| {
        matches!(event, Event::Waiting { request, .. } if request.configured && request.tags == ["studio"])
    });
    assert!(waiting);
    assert_eq!(stream(&mut world, "studio/a").status, Status::Pending);
    assert!(world.directory.owner("studio/a").is_some());

    feed(&mut world, 7, 65_500..65_535);
    world.run(Duration::from_millis(20));
    let active = stream(&mut world, "studio/a");
    assert_eq!((active.status, active.peer), (Status::Active, addr(FROM)));
    assert_eq!(
        (active.stats.packets_unique, active.stats.packets_dropped),
        (35, 0)
    );
    assert_eq!(active.rtp[0].ssrc, Some(7));
    assert_eq!(world.started("studio/a").len(), 1);

    world.send_to_engine(addr("192.0.2.7:4001"), addr(RTCP), &bye(7));
    world.run(Duration::from_millis(200));
    let gone = stream(&mut world, "studio/a");
    assert_eq!(gone.status, Status::Reconnecting);
    world.run(Duration::from_secs(6));
    assert_eq!(stream(&mut world, "studio/a").status, Status::Pending);

    // Another source, another SSRC: the same stream, and figures that go on.
    feed(&mut world, 8, 100..150);
    world.run(Duration::from_millis(20));
    let again = stream(&mut world, "studio/a");
    assert_eq!((again.status, again.stats.sessions), (Status::Active, 2));
    assert_eq!(again.stats.packets_unique, 85);
    assert_eq!(world.started("studio/a").len(), 2);
    // Silence is the end of a source too.
    world.run(Duration::from_secs(11));
    assert_eq!(stream(&mut world, "studio/a").status, Status::Reconnecting);
    assert!(stream(&mut world, "studio/a").rtp[0].ssrc.is_none());
}

#[test]
fn a_source_that_restarts_with_another_ssrc_keeps_its_stream() {
    let mut world = world_with(vec![plan("studio/a", vec![ts_medium(6000)])], 1);
    feed(&mut world, 7, 1..500);
    feed(&mut world, 9, 40_000..42_000);
    world.run(Duration::from_millis(100));
    let stream = stream(&mut world, "studio/a");
    assert_eq!(stream.status, Status::Active);
    assert_eq!(stream.rtp[0].ssrc, Some(9));
    assert_eq!(world.started("studio/a").len(), 1);
    assert!(
        stream.stats.packets_unique > 2_000,
        "{}",
        stream.stats.packets_unique
    );
}

#[test]
fn who_is_not_on_the_list_is_not_heard() {
    let mut plan = plan("studio/a", vec![ts_medium(6000)]);
    plan.sources = vec![mirror_base::AddressRange::parse("192.0.2.0/24").unwrap()];
    let mut other = ts_medium(6100);
    for port in &mut other.ports {
        port.sources = vec!["198.51.100.1".parse().unwrap()];
    }
    plan.media.push(other);
    let mut world = world_with(vec![plan], 1);
    for n in 0..20 {
        world.send_to_engine(addr("203.0.113.9:4000"), addr(RTP), &packet(66, n));
        world.send_to_engine(addr("203.0.113.9:4000"), addr(RTCP), &bye(7));
        // In the session's range, but not this medium's source.
        world.send_to_engine(addr(FROM), addr("10.0.0.1:6100"), &packet(67, n));
        world.send_to_engine(addr(FROM), addr(RTP), &packet(7, n));
        world.step();
    }
    world.run(Duration::from_millis(20));
    let stream = stream(&mut world, "studio/a");
    assert_eq!(stream.rtp[0].ssrc, Some(7));
    assert_eq!(stream.stats.packets_unique, 20);
    assert_eq!(stream.stats.discards.get(Discard::ForeignSource), 60);
}

#[test]
fn several_media_share_the_stream_and_their_senders_clock() {
    let media = vec![ts_medium(6000), ts_medium(6002)];
    let mut options = config(2);
    options.stream.media = true;
    options.rtp_sessions = vec![
        plan("studio/first", vec![ts_medium(7000)]),
        plan("studio/av", media),
    ];
    let mut world = World::new(options);
    let shard = world.directory.owner("studio/av").unwrap();
    assert_ne!(
        world.directory.owner("studio/first"),
        Some(shard),
        "shards take turns"
    );
    for n in 0..100 {
        world.send_to_engine(addr(FROM), addr(RTP), &packet(7, n));
        world.send_to_engine(addr(FROM), addr("10.0.0.1:6002"), &packet(8, n));
        world.step();
    }
    let ntp = 3_900_000_000 << 32;
    world.send_to_engine(
        addr(FROM),
        addr(RTCP),
        &sender_report(7, ntp, 9_000, b"camera"),
    );
    let other = sender_report(8, ntp, 99_000, b"camera");
    world.send_to_engine(addr(FROM), addr("10.0.0.1:6003"), &other);
    world.run(Duration::from_millis(20));
    let both = stream(&mut world, "studio/av");
    assert_eq!(both.stats.packets_unique, 200);
    assert_eq!((both.rtp[0].ssrc, both.rtp[1].ssrc), (Some(7), Some(8)));
    assert_eq!(both.rtp[1].cname.as_deref(), Some("camera"));
    let clocks: Vec<u32> = both
        .rtp
        .iter()
        .map(|media| media.clock.unwrap().rtp_timestamp)
        .collect();
    assert_eq!(clocks, [9_000, 99_000]);
    // One medium's end is not the stream's.
    world.send_to_engine(addr(FROM), addr("10.0.0.1:6003"), &bye(8));
    feed(&mut world, 7, 100..300);
    let one = stream(&mut world, "studio/av");
    assert_eq!((one.status, one.rtp[1].ssrc), (Status::Active, None));
}

#[test]
fn an_operator_ends_a_session_and_its_ports_are_free_again() {
    let mut world = world_with(vec![plan("studio/a", vec![ts_medium(6000)])], 1);
    feed(&mut world, 7, 1..50);
    let id = StreamId::new("studio/a").unwrap();
    let command = Command::Terminate {
        stream_id: id.clone(),
        reason: EndReason::Operator,
    };
    world
        .mailboxes
        .send(mirror_base::ShardId(0), command)
        .unwrap();
    world.run(Duration::from_millis(10));
    assert!(world.snapshot()[0].streams.is_empty());
    assert_eq!(world.shards[0].core.sessions.len(), 0);
    assert_eq!(world.directory.owner("studio/a"), None);
    feed(&mut world, 7, 50..60);
    assert!(world.snapshot()[0].streams.is_empty());

    // And it can be opened again, on the same ports.
    let open = |world: &mut World, id: &str| {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let plan = Box::new(plan(id, vec![ts_medium(6000)]));
        let command = Command::OpenSession { plan, reply };
        world
            .mailboxes
            .send(mirror_base::ShardId(0), command)
            .unwrap();
        world.run(Duration::from_millis(5));
        answer.try_recv().unwrap()
    };
    assert_eq!(open(&mut world, "studio/a"), Ok(()));
    assert!(
        open(&mut world, "studio/a")
            .unwrap_err()
            .contains("live already")
    );
    feed(&mut world, 7, 60..160);
    assert_eq!(stream(&mut world, "studio/a").status, Status::Active);
    world.shards[0].driver.no_sockets = true;
    assert!(
        open(&mut world, "studio/b")
            .unwrap_err()
            .contains("no sockets")
    );
    assert_eq!(world.directory.owner("studio/b"), None);
}

#[test]
fn nobody_takes_a_configured_session_over() {
    let mut options = config(1);
    options.takeover = true;
    options.rtp_sessions = vec![plan("studio/a", vec![ts_medium(6000)])];
    let mut world = World::new(options);
    world.run(Duration::from_secs(2));
    let caller = world.call("studio/a");
    world.run(Duration::from_secs(1));
    assert!(!world.callers[caller].connected);
    feed(&mut world, 7, 1..50);
    assert_eq!(stream(&mut world, "studio/a").status, Status::Active);
}

#[test]
fn a_session_without_frames_is_an_error_until_they_come() {
    let mut options = config(1);
    options.stream.media = true;
    options.stream_timeout = Duration::from_secs(2);
    options.rtp_sessions = vec![plan("studio/a", vec![ts_medium(6000)])];
    let mut world = World::new(options);
    for n in 0..3_000 {
        feed(&mut world, 7, n..n + 1);
    }
    // Stuffing packets alone.
    assert_eq!(stream(&mut world, "studio/a").status, Status::Error);
    assert_eq!(world.shards[0].core.sessions.len(), 1, "it is still there");
}

#[test]
fn a_panic_in_a_session_ends_that_one_and_frees_its_ports() {
    let plans = vec![
        plan("studio/a", vec![ts_medium(6000)]),
        plan("studio/b", vec![ts_medium(6100)]),
    ];
    let mut world = world_with(plans, 1);
    feed(&mut world, 7, 1..50);
    world.shards[0]
        .core
        .sessions
        .for_each_mut(|session| session.poisons_datagrams |= session.socket == 3);
    feed(&mut world, 7, 50..60);
    let left = world.snapshot()[0].streams.len();
    assert_eq!(left, 1);
    assert_eq!(world.snapshot()[0].counters.session_panics, 1);
}

#[test]
fn ports_of_repair_are_taken_by_their_medium() {
    let media = from_sdp(
        "v=0\nc=IN IP4 192.0.2.1\na=group:FEC-FR s c\nm=video 6000 RTP/AVP 33\na=mid:s\n\
         m=video 6002 RTP/AVP 96\na=mid:c\na=rtpmap:96 1d-interleaved-parityfec/90000\n",
        &PlanDefaults::default(),
    );
    let mut world = world_with(vec![plan("studio/a", media.unwrap())], 1);
    let purposes: Vec<Purpose> = vec![Purpose::Rtp, Purpose::Rtcp, Purpose::FecColumn];
    assert_eq!(
        world.shards[0].core.ports.iter().flatten().count(),
        purposes.len()
    );
    feed(&mut world, 7, 1..50);
    // Not a FEC packet: refused, and nobody is hurt.
    world.send_to_engine(addr(FROM), addr("10.0.0.1:6002"), &packet(0, 1));
    feed(&mut world, 7, 50..100);
    assert_eq!(stream(&mut world, "studio/a").stats.packets_unique, 99);
}

/// RTCP that left for `to`, packet types of each compound.
fn rtcp_to(world: &World, from: &str, to: &str) -> Vec<Vec<u8>> {
    let (from, to) = (addr(from), addr(to));
    let sent = world.to_others.iter();
    sent.filter(|(f, t, _)| (*f, *t) == (from, to))
        .map(|(_, _, bytes)| {
            let packets = mirror_rtp::rtcp::parse(bytes).unwrap();
            packets.map(|p| p.packet_type).collect()
        })
        .collect()
}

#[test]
fn reports_go_to_where_rtcp_comes_from_and_a_goodbye_ends_them() {
    let mut world = world_with(vec![plan("studio/a", vec![ts_medium(6000)])], 1);
    feed(&mut world, 7, 1..6_000);
    // RR and SDES to the next port, as nothing else is known.
    let first = rtcp_to(&world, RTCP, "192.0.2.7:4001");
    assert!(
        !first.is_empty() && first.iter().all(|p| p[..2] == [201, 202]),
        "{first:?}"
    );
    let report = sender_report(7, 1 << 32, 9, b"camera");
    world.send_to_engine(addr("192.0.2.7:4077"), addr(RTCP), &report);
    feed(&mut world, 7, 6_000..16_000);
    let then = rtcp_to(&world, RTCP, "192.0.2.7:4077");
    assert!(!then.is_empty(), "{:?}", world.to_others);
    let drain = Command::Drain {
        within: Duration::from_secs(1),
    };
    world
        .mailboxes
        .send(mirror_base::ShardId(0), drain)
        .unwrap();
    world.run(Duration::from_millis(100));
    let last = rtcp_to(&world, RTCP, "192.0.2.7:4077").pop().unwrap();
    assert_eq!(last.last(), Some(&203), "{last:?}");
    assert!(world.finished[0]);
}

#[test]
fn what_is_missing_is_asked_for_and_taken_again() {
    let mut media = ts_medium(6000);
    media.rtp.feedback.nack = true;
    media.rtp.jitter_buffer = Duration::from_millis(300);
    media.rtp.rtx.push(mirror_stream::plan::RtxType {
        number: 97,
        apt: 33,
    });
    let mut world = world_with(vec![plan("studio/a", vec![media])], 1);
    feed(&mut world, 7, 1..3_000);
    feed(&mut world, 7, 3_003..3_040);
    world.run(Duration::from_millis(100));
    let asked = rtcp_to(&world, RTCP, "192.0.2.7:4001");
    assert!(asked.iter().any(|p| p.contains(&205)), "{asked:?}");
    for sequence in 3_000..3_003u16 {
        let original = packet(7, sequence);
        let mut rtx = original[..12].to_vec();
        rtx[1] = 97;
        rtx[8..12].copy_from_slice(&70u32.to_be_bytes());
        rtx.extend(sequence.to_be_bytes());
        rtx.extend(&original[12..]);
        world.send_to_engine(addr(FROM), addr(RTP), &rtx);
    }
    world.run(Duration::from_millis(400));
    let stream = stream(&mut world, "studio/a");
    let rtp = &stream.rtp[0].statistics;
    assert_eq!((rtp.recovered_rtx, stream.stats.packets_dropped), (3, 0));
    assert!(rtp.nacks_sent >= 1 && stream.stats.packets_lost == 3);
}

#[test]
fn two_paths_make_one_stream_without_a_gap() {
    let mut media = ts_medium(6000);
    let second = SocketAddr::new(addr("0.0.0.0:0").ip(), 6100);
    media.add_path(1, second, Some(6101), &[], None, None);
    media.rtp.jitter_buffer = Duration::from_millis(200);
    let mut world = world_with(vec![plan("studio/a", vec![media])], 1);
    for n in 0..1_000u16 {
        if n % 10 != 3 {
            world.send_to_engine(addr(FROM), addr(RTP), &packet(7, n));
        }
        if n % 10 != 7 {
            world.send_to_engine(addr("192.0.2.8:4000"), addr("10.0.0.1:6100"), &packet(7, n));
        }
        world.step();
    }
    world.run(Duration::from_millis(300));
    let stream = stream(&mut world, "studio/a");
    assert_eq!(
        (stream.stats.packets_unique, stream.stats.packets_dropped),
        (1_000, 0)
    );
    let rtp = &stream.rtp[0];
    assert_eq!(rtp.legs, 2);
    // What is missing in the last window may come yet.
    for leg in rtp.statistics.legs {
        assert!((80..=100).contains(&leg.packets_lost), "{leg:?}");
    }
    assert!(rtp.statistics.recovered_2022_7 >= 100);
}

#[test]
fn sources_on_the_shared_port_get_reports_too() {
    let mut world = World::new(config(1));
    for n in 0..8_000 {
        world.send_to_engine(addr(FROM), addr(super::world::RTP), &packet(7, n));
        world.step();
    }
    let shared = super::world::RTCP;
    let sent = rtcp_to(&world, shared, "192.0.2.7:4001");
    assert!(
        !sent.is_empty() && sent.iter().all(|p| p[..2] == [201, 202]),
        "{sent:?}"
    );
    let report = sender_report(7, 1 << 32, 9, b"camera");
    world.send_to_engine(addr("192.0.2.7:4444"), addr(shared), &report);
    world.run(Duration::from_millis(20));
    let id = StreamId::new("rtp_00000007").unwrap();
    let command = Command::Terminate {
        stream_id: id,
        reason: EndReason::Operator,
    };
    world
        .mailboxes
        .send(mirror_base::ShardId(0), command)
        .unwrap();
    world.run(Duration::from_millis(20));
    let last = rtcp_to(&world, shared, "192.0.2.7:4444").pop().unwrap();
    assert_eq!(last.last(), Some(&203));
}
