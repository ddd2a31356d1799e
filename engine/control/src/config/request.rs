//! What a request asks to be configured: read by the same rules as the file, with the same
//! faults, all of them at once.

use mirror_stream::plan::SessionPlan;
use serde_json::Value as Json;

use super::error::{ConfigError, ConfigErrors, ErrorList};
use super::reader::Section;
use super::tree::{Node, Origin, Table, Value};
use super::{RtpConfig, rtp};

/// Depth of a body at the most.
const MAX_DEPTH: usize = 8;

/// The RTP session that `body` asks for, with the keys of `[[rtp.sessions]]`; `rtp` is what it
/// leaves out. Only the text of a description is taken, no file's name.
pub(crate) fn rtp_session(body: &Json, rtp: &RtpConfig) -> Result<SessionPlan, ConfigErrors> {
    let mut errors = ErrorList::default();
    let Some(table) = table_of(body) else {
        errors.push(fault("", "must be an object".to_owned()));
        return Err(finished(errors));
    };
    let named = match table.get("sdp").map(|node| &node.value) {
        Some(Value::String(sdp)) => !sdp.trim_start().starts_with("v=0"),
        _ => false,
    };
    if named {
        errors.push(fault(
            "sdp",
            "must be the text, beginning with v=0".to_owned(),
        ));
        return Err(finished(errors));
    }
    let mut section = Section::root(table, Origin::Request, &mut errors);
    let session = rtp::session(&mut section, &rtp.defaults());
    match (session, errors.finish(())) {
        (Some(session), Ok(())) => Ok(session.plan),
        (_, Err(errors)) => Err(errors),
        (None, Ok(())) => Err(ConfigErrors(vec![fault("", "is not complete".to_owned())])),
    }
}

fn fault(key: &str, message: String) -> ConfigError {
    ConfigError {
        origin: Origin::Request,
        key: key.to_owned(),
        value: None,
        message,
    }
}

fn finished(errors: ErrorList) -> ConfigErrors {
    errors.finish(()).err().unwrap_or_default()
}

fn table_of(json: &Json) -> Option<Table> {
    match convert(json, MAX_DEPTH) {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn convert(json: &Json, depth: usize) -> Value {
    let node = |value: &Json| Node {
        origin: Origin::Request,
        value: convert(value, depth.saturating_sub(1)),
    };
    match json {
        _ if depth == 0 => Value::Other("nested too deeply".to_owned()),
        Json::Null => Value::Other("null".to_owned()),
        Json::Bool(b) => Value::Boolean(*b),
        Json::String(s) => Value::String(s.clone()),
        Json::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Value::Integer(i),
            (None, Some(x)) => Value::Float(x),
            (None, None) => Value::Other(n.to_string()),
        },
        Json::Array(items) => Value::Array(items.iter().map(node).collect()),
        Json::Object(map) => Value::Table(map.iter().map(|(k, v)| (k.clone(), node(v))).collect()),
    }
}
