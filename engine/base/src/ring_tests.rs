//! What the ring keeps, refuses and forgets.

use super::*;

#[test]
fn what_lies_behind_the_payload_is_part_of_the_datagram_and_not_of_the_packet() {
    let mut ring = SlotRing::with_owned_chunks(2);
    let mut meta = SlotMeta::new(Instant::ZERO, 0, 0);
    (meta.payload_offset, meta.payload_end) = (12, 40);
    ring.insert(3, &[7; 44], meta).unwrap();
    assert_eq!(ring.get_datagram(3).unwrap().len(), 44);
    assert_eq!(ring.get_packet(3).unwrap().len(), 40);
    assert_eq!(ring.get(3).unwrap().payload.len(), 28);
    assert!(ring.widen(3_000, || Some(Chunk::owned())));
    assert_eq!(ring.get_datagram(3).unwrap(), [7; 44]);
    assert!(ring.get_datagram(4).is_none());
}

#[test]
fn a_new_session_begins_behind_what_was_released_beyond_the_last_packet() {
    let mut ring = SlotRing::with_owned_chunks(2);
    let meta = SlotMeta::new(Instant::ZERO, 0, 0);
    ring.insert(0, b"x", meta).unwrap();
    assert_eq!(ring.next_index(), 1);
    // The last sender gave up packets 1 to 9 and was gone.
    ring.release_before(10);
    assert_eq!(ring.next_index(), 10);
    ring.insert(ring.next_index(), b"y", meta).unwrap();
}

fn put(ring: &mut SlotRing, index: u64) -> Result<(), Discard> {
    let bytes = index.to_be_bytes();
    ring.insert(index, &bytes, SlotMeta::new(Instant::ZERO, 0, 0))
}

fn holds(ring: &SlotRing, index: u64) -> bool {
    ring.get(index)
        .is_some_and(|s| s.payload == index.to_be_bytes())
}

#[test]
fn gaps_are_filled_later_and_duplicates_are_refused() {
    let mut ring = SlotRing::with_owned_chunks(4);
    put(&mut ring, 0).unwrap();
    put(&mut ring, 40).unwrap();
    assert!(ring.get(20).is_none());
    put(&mut ring, 20).unwrap();
    assert_eq!(put(&mut ring, 20), Err(Discard::Duplicate));
    assert!(holds(&ring, 0) && holds(&ring, 20) && holds(&ring, 40));
    assert_eq!(ring.end(), 41);
}

#[test]
fn unreleased_slots_are_never_overwritten() {
    let mut ring = SlotRing::with_owned_chunks(2);
    for i in 0..64 {
        put(&mut ring, i).unwrap();
    }
    assert_eq!(put(&mut ring, 64), Err(Discard::NoBuffer));
    ring.release_before(31);
    assert_eq!(put(&mut ring, 64), Err(Discard::NoBuffer));
    ring.release_before(32);
    put(&mut ring, 64).unwrap();
    assert!(ring.get(0).is_none() && holds(&ring, 32) && holds(&ring, 64));
    assert_eq!(put(&mut ring, 3), Err(Discard::Belated));
}

#[test]
fn a_full_chunk_is_followed_by_the_next_one_while_there_is_memory() {
    let mut ring = SlotRing::with_owned_chunks(2);
    assert!(!ring.open_next(), "no chunk is open");
    put(&mut ring, 0).unwrap();
    assert!(!ring.open_next(), "not full");
    for index in 1..64 {
        if ring.open_is_full() {
            assert!(ring.append(index, b"x", ()).is_none());
            assert!(ring.open_next() && !ring.open_next());
        }
        let slot = ring.append(index, b"x", ()).unwrap();
        slot.fill(SlotMeta::new(Instant::ZERO, 0, 0));
    }
    assert!(
        ring.open_is_full() && !ring.open_next(),
        "nothing is released"
    );
    ring.release_before(32);
    assert!(ring.open_next() && ring.get(0).is_none());
    assert!(ring.append(64, b"x", ()).is_some());
}

#[test]
fn who_looks_ahead_sees_the_slot_that_is_filled_next() {
    struct Seen<'a>(&'a mut Vec<u8>);
    impl crate::Ahead for Seen<'_> {
        fn behind(self, slot: &[u8; SLOT_BYTES]) {
            self.0.push(slot[0]);
        }
    }
    let mut ring = SlotRing::with_owned_chunks(1);
    for index in 0..32_u8 {
        ring.insert(
            u64::from(index),
            &[index],
            SlotMeta::new(Instant::ZERO, 0, 0),
        )
        .unwrap();
    }
    // The same memory again: what a slot held shows which one it is.
    ring.release_before(32);
    put(&mut ring, 32).unwrap();
    let mut seen = Vec::new();
    for index in 33..64 {
        let slot = ring.append(index, b"", Seen(&mut seen)).unwrap();
        slot.fill(SlotMeta::new(Instant::ZERO, 0, 0));
    }
    let slots: Vec<u8> = (1..32).collect();
    assert_eq!(seen, slots);
}

#[test]
fn appending_takes_what_comes_next_into_the_open_chunk_and_nothing_else() {
    let mut ring = SlotRing::with_owned_chunks(3);
    let can = |ring: &mut SlotRing, index: u64| ring.append(index, b"x", ()).is_some();
    assert!(!can(&mut ring, 0), "no chunk is open");
    put(&mut ring, 0).unwrap();
    assert!(can(&mut ring, 1) && !can(&mut ring, 0) && !can(&mut ring, 2));
    ring.append(1, b"next", ())
        .unwrap()
        .fill(SlotMeta::new(Instant::from_millis(3), 4, 5));
    let slot = ring.get(1).unwrap();
    assert_eq!(slot.payload, b"next");
    assert_eq!(
        (slot.meta.arrival.as_micros(), slot.meta.timestamp),
        (3_000, 4)
    );
    assert!(ring.append(2, &[0; SLOT_BYTES + 1], ()).is_none());
    put(&mut ring, 31).unwrap();
    assert!(!can(&mut ring, 32), "in another chunk");
    put(&mut ring, 32).unwrap();
    put(&mut ring, 3).unwrap();
    assert!(!can(&mut ring, 33), "another chunk was written to last");
    put(&mut ring, 33).unwrap();
    ring.release_before(40);
    assert!(!can(&mut ring, 34), "released");
    assert_eq!(put(&mut ring, 34), Err(Discard::Belated));
}

#[test]
fn released_slots_stay_readable_until_memory_is_needed() {
    let mut ring = SlotRing::with_owned_chunks(3);
    for i in 0..64 {
        put(&mut ring, i).unwrap();
    }
    ring.release_before(64);
    assert!(holds(&ring, 0));
    put(&mut ring, 64).unwrap();
    assert!(holds(&ring, 0), "a third chunk was spare");
    put(&mut ring, 96).unwrap();
    assert!(!holds(&ring, 0) && holds(&ring, 32));
}

#[test]
fn growing_keeps_content() {
    let mut ring = SlotRing::with_owned_chunks(1);
    for i in 0..32 {
        put(&mut ring, i).unwrap();
    }
    for _ in 0..40 {
        ring.add_chunk(Chunk::owned());
    }
    for i in 32..41 * 32 {
        put(&mut ring, i).unwrap();
    }
    assert!((0..41 * 32).all(|i| holds(&ring, i)));
    assert_eq!(put(&mut ring, 41 * 32), Err(Discard::NoBuffer));
}

#[test]
fn a_far_jump_is_bounded_work_and_beyond_the_window_while_data_waits() {
    let mut ring = SlotRing::with_owned_chunks(4);
    put(&mut ring, 5).unwrap();
    assert_eq!(put(&mut ring, 1 << 40), Err(Discard::BeyondWindow));
    ring.release_before(1 << 40);
    put(&mut ring, 1 << 40).unwrap();
    assert!(holds(&ring, 1 << 40));
}

#[test]
fn the_table_follows_a_model_under_random_operations() {
    // xorshift: no dependency, the same sequence each time
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let mut ring = SlotRing::with_owned_chunks(5);
    let mut filled = std::collections::BTreeSet::new();
    let mut floor = 0;
    for _ in 0..100_000 {
        if random(8) == 0 {
            floor += random(20);
            ring.release_before(floor);
        }
        let index = floor + random(200);
        let index = if random(4) == 0 { ring.end() } else { index };
        let bytes = index.to_be_bytes();
        let appended = match ring.append(index, &bytes, ()) {
            Some(slot) => {
                slot.fill(SlotMeta::new(Instant::ZERO, 0, 0));
                Ok(())
            }
            None => put(&mut ring, index),
        };
        match appended {
            Ok(()) => assert!(filled.insert(index)),
            Err(Discard::Duplicate) => assert!(filled.contains(&index)),
            Err(Discard::NoBuffer | Discard::BeyondWindow) => assert!(!filled.contains(&index)),
            Err(Discard::Belated) => assert!(index < floor),
            Err(other) => panic!("{other:?}"),
        }
        for &i in filled.range(floor..) {
            assert!(holds(&ring, i), "{i} is unreleased and was filled");
        }
        filled = filled.split_off(&floor);
    }
}

#[test]
fn chunks_can_be_taken_back() {
    let mut ring = SlotRing::with_owned_chunks(2);
    put(&mut ring, 0).unwrap();
    assert!(ring.take_chunk().is_some());
    assert!(
        ring.take_chunk().is_none(),
        "the other one holds unreleased data"
    );
    ring.release_before(32);
    assert!(ring.take_chunk().is_some());
    assert_eq!(ring.capacity_slots(), 0);
    assert_eq!(put(&mut ring, 64), Err(Discard::NoBuffer));
}
