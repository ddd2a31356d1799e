//! Each capture, replayed with us as the listener and with us as the caller, comes to the
//! recorded outcome. Where it is right that it does not, the tables here say so, one fact at a
//! time, with the value that ours has; a line that is no longer true fails, too.

use mirror_srt::{CloseReason, Event, RejectionCode};
use mirror_tests::capture::session::{Session, sessions};
use mirror_tests::capture::wire::block;
use mirror_tests::capture::{expected, facts};
use serde_json::Value;

use crate::check::{self, Flow, Report};
use crate::files::{names, read};
use crate::replay::{Blocks, Played, as_caller, as_listener, session_of, turned, with_version};
use crate::setup::{Role, Setup};
use crate::table::{CAPTURES, Course, DIFFERENCES, Row};

/// Cipher field of a KM message: AES-GCM.
const GCM: u8 = 4;
/// SRT versions: from the first on peers use the current form of AES-GCM, up to the second the
/// old one (spec section 16.4).
const CURRENT_GCM: u32 = 0x0001_0504;
const OLD_GCM: u32 = 0x0001_0503;

#[test]
fn every_capture_is_listed() {
    let listed: Vec<&str> = CAPTURES.iter().map(|row| row.name).collect();
    assert_eq!(names(), listed);
}

#[test]
fn each_capture_comes_to_its_recorded_outcome() {
    let mut wrong = Vec::new();
    let mut found = vec![false; DIFFERENCES.len()];
    for row in CAPTURES {
        let facts = expected(row.name);
        let capture = read(row.name);
        for (index, session) in sessions(&capture.frames).iter().enumerate() {
            for role in [Role::Listener, Role::Caller] {
                let mut report = Report::default();
                replay(&mut report, row, &facts, session, role);
                for (fact, recorded, ours) in report.differences {
                    let known = DIFFERENCES.iter().position(|d| {
                        (d.capture, d.session, d.role) == (row.name, index, role)
                            && (d.fact, d.ours) == (&*fact, &*ours)
                    });
                    match known {
                        Some(at) => found[at] = true,
                        None => wrong.push(format!(
                            "{} session {index}, as {role:?}: {fact}: recorded {recorded}, ours {ours}",
                            row.name
                        )),
                    }
                }
            }
        }
    }
    let gone = DIFFERENCES.iter().zip(found).filter(|(_, found)| !found);
    wrong.extend(gone.map(|(d, _)| format!("no longer so: {d:?}")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn replay(report: &mut Report, row: &Row, facts: &Value, session: &Session, role: Role) {
    let course = match role {
        Role::Listener => row.listener,
        Role::Caller => row.caller,
    };
    match (role, course) {
        (_, Course::Elsewhere(_)) => {}
        (Role::Listener, Course::Recorded) => {
            let played = listen(facts, session, Blocks::All);
            listener_recorded(report, row, facts, session, &played);
        }
        (Role::Listener, Course::Refused(code)) => {
            let played = listen(facts, session, Blocks::All);
            report.compare("rejection", Some(code), played.rejected);
            report.compare("connection", false, played.side.connection.is_some());
            if session.asks_for(block::FILTER) || session.asks_for(block::GROUP) {
                let played = listen(facts, session, Blocks::Plain);
                listener_recorded(report, row, facts, session, &played);
            }
        }
        (Role::Listener, Course::Served) => {
            let played = listen(facts, session, Blocks::All);
            report.compare("rejection", None, played.rejected);
            check::request(report, session, &played);
            report.compare("connection", true, played.side.connection.is_some());
        }
        (Role::Caller, Course::Recorded | Course::Served) => {
            let blocks = if session.asks_for(block::FILTER) || session.asks_for(block::GROUP) {
                Blocks::Plain
            } else {
                Blocks::All
            };
            let setup = Setup::of_caller(facts, session);
            let played = as_caller(session, &setup, blocks, payloads(facts, session, true));
            caller_recorded(report, row, facts, session, &played);
        }
        (Role::Caller, Course::Ends(reason)) => {
            let setup = Setup::of_caller(facts, session);
            // The recorded caller went on and was closed; ours is left alone.
            let mut answers = session.clone();
            answers
                .events
                .retain(|e| !e.from_caller || e.frame.number == 1);
            let played = as_caller(&answers, &setup, Blocks::All, Vec::new());
            report.compare("end", vec![Event::Closed(reason)], events(&played));
        }
        (role, course) => panic!("{}: {course:?} as {role:?}", row.name),
    }
}

fn listen(facts: &Value, session: &Session, blocks: Blocks) -> Played {
    let setup = Setup::of(facts, Role::Listener);
    let session = spoken_to_us(session, session);
    as_listener(&session, &setup, blocks, payloads(facts, &session, false))
}

fn events(played: &Played) -> Vec<Event> {
    played.side.events.iter().map(|e| e.1).collect()
}

fn listener_recorded(
    report: &mut Report,
    row: &Row,
    facts: &Value,
    session: &Session,
    played: &Played,
) {
    let rejection = session.answer().and_then(|h| h.rejection());
    // A request for a packet filter or a group that is played without it is not rejected.
    let plain = session.asks_for(block::FILTER) || session.asks_for(block::GROUP);
    let rejection = rejection.filter(|_| !plain).map(RejectionCode);
    report.compare("rejection", rejection, played.rejected);
    report.compare("unanswered", Vec::new(), played.unanswered.clone());
    if session.conclusion().is_some() && rejection.is_none() {
        check::request(report, session, played);
    }
    if session.is_accepted() {
        check::answers(report, session, played);
        flows(report, row, facts, session, false, played);
        check::key_state(report, session, played);
        check::keepalives(report, session, false, played);
        check::end(report, session, false, played);
    }
}

fn caller_recorded(
    report: &mut Report,
    row: &Row,
    facts: &Value,
    session: &Session,
    played: &Played,
) {
    check::requests(report, session, played);
    let ended = |reason| vec![Event::Closed(reason)];
    match session.answer() {
        None => report.compare("end", ended(CloseReason::ConnectTimeout), events(played)),
        Some(answer) => match answer.rejection() {
            Some(code) => {
                let reason = CloseReason::Rejected(RejectionCode(code));
                report.compare("end", ended(reason), events(played));
            }
            None => {
                let first = events(played).first().copied();
                report.compare("connected", Some(Event::Connected), first);
                check::agreed(report, session, played, true);
                check::key_messages(report, session, true, played);
                flows(report, row, facts, session, true, played);
                check::key_state(report, session, played);
                check::keepalives(report, session, true, played);
                check::end(report, session, true, played);
            }
        },
    }
}

fn flows(
    report: &mut Report,
    row: &Row,
    facts: &Value,
    session: &Session,
    is_caller: bool,
    played: &Played,
) {
    for from_caller in [true, false] {
        let of = &facts["flows"][session.flow(from_caller)];
        // A link that joins a group late goes on with the group's numbers, which a plain
        // connection cannot.
        let joined = session.asks_for(block::GROUP) && of["first_seq"] != session.initial;
        if of.is_null() || joined {
            continue;
        }
        let flow = Flow {
            facts: of,
            acks: &facts["acks"][session.flow(!from_caller)],
            from_caller,
            at_receiver: !row.name.ends_with("_sndleg"),
            at_sender: !row.name.ends_with("_rcvleg"),
        };
        let as_payload = if from_caller == is_caller {
            check::sent(report, session, &flow, played);
            // What our caller encrypted is read by our listener.
            let is_readable = flow.is_encrypted() && flow.missing() == 0 && is_caller;
            is_readable.then(|| heard(facts, session, &session_of(session, played)))
        } else {
            check::received(report, session, &flow, played);
            if flow.is_encrypted() && is_caller {
                // With the recorded caller's keys, which ours does not know.
                Some(heard(facts, session, &turned(session)))
            } else {
                Some(played.side.delivered.clone())
            }
        };
        if let Some(payload) = as_payload
            && !(flow.is_encrypted() && check::is_refused_keys(session))
        {
            check::payload(report, &flow, &payload);
        }
    }
}

/// What our listener makes of the data that the caller of `session` sent.
fn heard(facts: &Value, recorded: &Session, session: &Session) -> Vec<u8> {
    let setup = Setup::of(facts, Role::Listener);
    let spoken = spoken_to_us(recorded, session);
    let played = as_listener(&spoken, &setup, Blocks::Plain, Vec::new());
    played.side.delivered
}

/// Callers choose the form of AES-GCM by the listener's version. What was said to a listener of
/// another form than ours is played as if the caller were of that form itself, so that ours
/// follows.
fn spoken_to_us(recorded: &Session, session: &Session) -> Session {
    let answer = recorded.answer().and_then(|h| h.hs(block::HSRSP));
    let is_old = answer.is_some_and(|(version, ..)| version < CURRENT_GCM);
    if is_old && session.key_material().is_some_and(|km| km[8] == GCM) {
        with_version(session, OLD_GCM)
    } else {
        session.clone()
    }
}

/// The payloads of one direction, in order: the source file's where the facts name it, else as
/// they were on the wire.
pub(crate) fn payloads(facts: &Value, session: &Session, from_caller: bool) -> Vec<Vec<u8>> {
    const CHUNK: usize = 1316;
    const GCM_TAG: usize = 16;
    let mut payloads: Vec<Option<Vec<u8>>> = Vec::new();
    for (_, data) in session.data(from_caller) {
        let offset = facts::distance(session.initial, data.sequence);
        let at = usize::try_from(offset).expect("not before the first");
        payloads.resize(payloads.len().max(at + 1), None);
        payloads[at] = Some(data.payload.clone());
    }
    let flow = &facts["flows"][session.flow(from_caller)];
    let whole = flow["payload_is_file"].as_str().map(|file| {
        let path = mirror_tests::root().join("tests/vectors/media").join(file);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    });
    let tag = if facts["gcm_variant"].is_null() {
        0
    } else {
        GCM_TAG
    };
    let mut rest = whole.as_deref().unwrap_or_default();
    let payload = |recorded: Option<Vec<u8>>| {
        let len = recorded.as_ref().map_or(CHUNK, |p| p.len() - tag);
        if whole.is_none() {
            return recorded.unwrap_or_else(|| vec![0; len]);
        }
        let (head, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        head.to_vec()
    };
    payloads.into_iter().map(payload).collect()
}
