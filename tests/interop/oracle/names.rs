//! ffprobe's names, and what they are here.

use mirror_tests::probe::Probed;
use serde_json::{Value, json};

/// The codec as the engine calls it.
pub(super) fn codec(name: &str) -> &str {
    match name {
        "h264" => "H264",
        "hevc" => "H265",
        "mpeg2video" => "MPEG2",
        "av1" => "AV1",
        "aac" => "AAC",
        "aac_latm" => "AAC_LATM",
        "ac3" => "AC3",
        "eac3" => "EAC3",
        "mp2" | "mp3" => "MPEG_AUDIO",
        "opus" => "OPUS",
        other => panic!("{other}: no name for it"),
    }
}

/// Chroma format and bits a sample of a pixel format.
pub(super) fn pixels(format: &str) -> (&'static str, u64) {
    let chroma = if format.contains("422") {
        "4:2:2"
    } else if format.contains("444") {
        "4:4:4"
    } else {
        "4:2:0"
    };
    let depth = match format.strip_suffix("le") {
        Some(deep) if deep.ends_with("10") => 10,
        Some(deep) if deep.ends_with("12") => 12,
        Some(deep) => panic!("{deep}: how deep?"),
        None => 8,
    };
    (chroma, depth)
}

/// The code point of ITU-T H.273 that a name of ffprobe's stands for; 2 where it has none.
fn code_point(names: &[(&str, u8)], name: &str) -> u8 {
    match names.iter().find(|(n, _)| *n == name) {
        Some((_, code)) => *code,
        None => {
            assert!(matches!(name, "" | "unknown"), "{name}: no code for it");
            2
        }
    }
}

/// Colour as the engine shows it.
pub(super) fn colour(stream: &Probed) -> Value {
    const PRIMARIES: [(&str, u8); 5] = [
        ("bt709", 1),
        ("bt470m", 4),
        ("bt470bg", 5),
        ("smpte170m", 6),
        ("bt2020", 9),
    ];
    const TRANSFER: [(&str, u8); 7] = [
        ("bt709", 1),
        ("bt470m", 4),
        ("bt470bg", 5),
        ("smpte170m", 6),
        ("bt2020-10", 14),
        ("smpte2084", 16),
        ("arib-std-b67", 18),
    ];
    const MATRIX: [(&str, u8); 6] = [
        ("gbr", 0),
        ("bt709", 1),
        ("fcc", 4),
        ("bt470bg", 5),
        ("smpte170m", 6),
        ("bt2020nc", 9),
    ];
    json!({
        "primaries": code_point(&PRIMARIES, stream.text("color_primaries")),
        "transfer": code_point(&TRANSFER, stream.text("color_transfer")),
        "matrix": code_point(&MATRIX, stream.text("color_space")),
        "full_range": stream.text("color_range") == "pc",
    })
}

pub(super) fn fraction(value: &Value) -> f64 {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{value}: a fraction"));
    let (over, under) = text.split_once('/').unwrap_or((text, "1"));
    let number = |t: &str| t.parse::<f64>().unwrap_or_else(|e| panic!("{text}: {e}"));
    number(over) / number(under)
}

/// Mastering display and content light level of the first frame, as the engine shows them.
pub(super) fn light(stream: &Probed) -> (Value, Value) {
    let (mut mastering, mut level) = (Value::Null, Value::Null);
    let first = stream.frames.first().cloned().unwrap_or_default();
    for side in first["side_data_list"].as_array().into_iter().flatten() {
        // Units of 0.00002, as they are on the wire.
        let point = |name: &str| {
            let at = |axis: &str| fraction(&side[format!("{name}_{axis}")]) * 50_000.0;
            json!([at("x").round() as u64, at("y").round() as u64])
        };
        match side["side_data_type"].as_str().unwrap_or_default() {
            "Mastering display metadata" => {
                mastering = json!({
                    "primaries_gbr": [point("green"), point("blue"), point("red")],
                    "white_point": point("white_point"),
                    "max_luminance": fraction(&side["max_luminance"]),
                    // AV1 has finer steps than the 0.0001 cd/m² that SEI messages have.
                    "min_luminance": (fraction(&side["min_luminance"]) * 10_000.0).round() / 10_000.0,
                });
            }
            "Content light level metadata" => {
                level = json!({
                    "max_cll": side["max_content"],
                    "max_fall": side["max_average"],
                });
            }
            _ => {}
        }
    }
    (mastering, level)
}

/// Whether it is interlaced, and the engine's name of the order of its fields.
///
/// The stream's `field_order` comes from H.264's and MPEG-2's parsers, which read the same bits.
/// HEVC's parser has none; there the first frame tells.
pub(super) fn scan(stream: &Probed) -> (bool, Value) {
    let first = stream.frames.first().cloned().unwrap_or_default();
    match stream.text("field_order") {
        "tt" => (true, json!("top_first")),
        "bb" => (true, json!("bottom_first")),
        _ if first["interlaced_frame"] == 1 => match first["top_field_first"] == 1 {
            true => (true, json!("top_first")),
            false => (true, json!("bottom_first")),
        },
        _ => (false, Value::Null),
    }
}
