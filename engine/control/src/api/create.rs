//! `POST /api/v1/streams`: a stream that is made at run time. Of the kinds that the contract
//! names, configured RTP sessions can be made; they live until they are ended or the engine is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use mirror_base::StreamId;
use mirror_stream::plan::SessionPlan;
use mirror_stream::report::{Command, Reservation, StreamDirectory};
use serde_json::{Value, json};

use super::response::Response;
use super::routes::Service;
use crate::clock::{self, rfc3339_now};
use crate::config;

/// How long the shard may take to open the sockets.
const SHARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Counts the ids that are made here.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Service {
    /// Makes the stream that `body` describes.
    pub(super) fn create(&self, body: &[u8]) -> Response {
        let Ok(Value::Object(mut map)) = serde_json::from_slice::<Value>(body) else {
            return Response::error(400, "the body must be a JSON object");
        };
        match map.remove("type").as_ref().and_then(Value::as_str) {
            Some("rtp") => {}
            Some("srt") => {
                let why = "streams of the type \"srt\" cannot be made in this version: \
                           use [[srt.callers]] and [[publishers]]";
                return Response::error(400, why);
            }
            _ => return Response::error(400, "\"type\" must be \"rtp\""),
        }
        if !self.config.rtp.enabled {
            return Response::error(409, "rtp.enabled is false");
        }
        map.entry("id").or_insert_with(|| json!(fresh_id()));
        match config::rtp_session(&Value::Object(map), &self.config.rtp) {
            Ok(plan) => self.open(plan),
            Err(errors) => Response::error(400, &errors.to_string()),
        }
    }

    fn open(&self, plan: SessionPlan) -> Response {
        let id = plan.stream_id.clone();
        let directory: &dyn StreamDirectory = &*self.directory;
        if self.directory.shard_of(&id).is_some() {
            return Response::error(409, &format!("{id} is live already"));
        }
        let shard = match self.directory.reserve_call(clock::now(), &id) {
            Reservation::Owner(shard) => shard,
            Reservation::Full => return Response::error(429, "there are max_streams streams"),
            Reservation::Blocked => {
                let why = format!("{id} was ended by the operator (stream.block_for)");
                return Response::error(409, &why);
            }
        };
        let (reply, answer) = bounded(1);
        let plan = Box::new(plan);
        if self
            .mailboxes
            .send(shard, Command::OpenSession { plan, reply })
            .is_err()
        {
            directory.release(&id, shard);
            return Response::error(503, &format!("shard {shard} takes no orders now"));
        }
        let answer = self.asking(|| answer.recv_timeout(SHARD_TIMEOUT));
        match answer {
            Some(Ok(Ok(()))) => {
                let body = json!({
                    "id": id.as_str(),
                    "shard": shard.0,
                    "status": "pending",
                    "time": rfc3339_now(),
                });
                Response::json(&body).with_status(201).with_header(
                    "Location",
                    format!("/api/v1/streams/{}", percent_encode(&id)),
                )
            }
            Some(Ok(Err(why))) => Response::error(409, &why),
            Some(Err(_)) | None => {
                Response::error(503, &format!("shard {shard} did not answer within 2 s"))
            }
        }
    }
}

fn fresh_id() -> String {
    let number = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    format!(
        "rtp-session-{}-{number}",
        clock::now().as_nanos() / 1_000_000
    )
}

/// All that ids have and paths have not is a slash.
fn percent_encode(id: &StreamId) -> String {
    id.as_str().replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use mirror_stream::report::{Command, EndReason, Status};
    use serde_json::{Value, json};

    use crate::testing::{Engine, Options};

    fn post(engine: &Engine, body: &Value) -> (u16, Value) {
        let (status, body) = engine.post("/api/v1/streams", &body.to_string());
        (status, serde_json::from_str(&body).unwrap())
    }

    #[test]
    fn a_session_is_made_on_the_least_loaded_shard_and_its_faults_are_told_at_once() {
        let engine = Engine::start(Options::default());
        let body = json!({
            "type": "rtp",
            "id": "studio/new",
            "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video 6000 RTP/AVP 33\n",
            "sources": ["192.0.2.0/24"],
            "tags": ["x"],
        });
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| post(&engine, &body));
            let command = engine.command(|c| matches!(c, Command::OpenSession { .. }));
            let Command::OpenSession { plan, reply } = command else {
                panic!()
            };
            assert_eq!(plan.stream_id.as_str(), "studio/new");
            assert_eq!((plan.media.len(), plan.sources.len()), (1, 1));
            reply.send(Ok(())).unwrap();
            let (status, answer) = asked.join().unwrap();
            assert_eq!(
                (status, &answer["status"]),
                (201, &"pending".into()),
                "{answer}"
            );
        });
        // It is there until its reservation expires or a shard confirms it.
        assert_eq!(post(&engine, &body).0, 409);
        engine.end("studio/new", EndReason::Operator, Status::Terminated);
        for (body, status, part) in [
            (json!([1]), 400, "JSON object"),
            (json!({ "id": "a" }), 400, "type"),
            (json!({ "type": "srt" }), 400, "srt"),
            (
                json!({ "type": "rtp", "id": "a/b", "port": 0, "colour": "red" }),
                400,
                "colour",
            ),
            (
                json!({ "type": "rtp", "id": "a/b", "port": 0 }),
                400,
                "from 1 to 65535",
            ),
            (json!({ "type": "rtp", "sdp": "/etc/passwd" }), 400, "v=0"),
            (
                json!({ "type": "rtp", "sdp": "v=0\nm=video 1 RTP/SAVP 96\n" }),
                400,
                "SRTP",
            ),
        ] {
            let (got, answer) = post(&engine, &body);
            let message = answer["message"].as_str().unwrap();
            assert!(
                got == status && message.contains(part),
                "{body}: {got} {message}"
            );
        }
        engine.stop();
    }

    #[test]
    fn what_the_shard_refuses_is_told() {
        let engine = Engine::start(Options::default());
        let body = json!({ "type": "rtp", "port": 6000, "payload_types": { "33": "MP2T" } });
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| post(&engine, &body));
            let command = engine.command(|c| matches!(c, Command::OpenSession { .. }));
            let Command::OpenSession { plan, reply } = command else {
                panic!()
            };
            assert!(plan.stream_id.as_str().starts_with("rtp-session-"));
            reply.send(Err("[::]:6000 is in use".to_owned())).unwrap();
            let (status, answer) = asked.join().unwrap();
            assert_eq!(
                (status, &answer["message"]),
                (409, &"[::]:6000 is in use".into())
            );
        });
        engine.stop();
    }
}
