//! A report as one self-contained page: the verdict, and for each stream bars of what was sent
//! and received.

use std::fmt::Write;

use crate::report::Report;
use crate::units::show_bitrate;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse}\
td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}\
.ok{color:#1a7f37}.bad{color:#b42318}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let name = escape(&report.name);
    let (class, verdict) = if report.ok {
        ("ok", "every expectation holds")
    } else {
        ("bad", "not as expected")
    };
    // writing to a String cannot fail
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title><style>{STYLE}</style>"
    );
    let _ = write!(
        out,
        "<h1>{name}</h1><p class=\"{class}\"><b>{verdict}</b></p><ul>"
    );
    for failure in &report.failures {
        let _ = write!(out, "<li class=\"bad\">{}</li>", escape(failure));
    }
    let cpu = |v: Option<f64>| v.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.1} %"));
    let e = &report.engine;
    let _ = write!(
        out,
        "</ul><p>{} streams, {:.1} s. Engine CPU of one core: reported {}, /proc {}; kernel drops {}. Generator CPU {:.1} %.</p>",
        report.streams.len(),
        report.seconds,
        cpu(e.cpu_reported),
        cpu(e.cpu_proc),
        e.kernel_drops,
        report.generator.cpu
    );
    chart(&mut out, report);
    table(&mut out, report);
    out.push_str("</html>\n");
    out
}

/// Bars of the bit rates, sent above received.
fn chart(out: &mut String, report: &Report) {
    let rate = |s: &crate::report::StreamReport| s.received.as_ref().map_or(0.0, |r| r.bitrate);
    let most = report
        .streams
        .iter()
        .map(|s| s.sent.bitrate.max(rate(s)))
        .fold(1.0, f64::max);
    let height = report.streams.len() * 24 + 8;
    let _ = write!(
        out,
        "<svg width=\"760\" height=\"{height}\" role=\"img\" aria-label=\"bit rate sent and received\">"
    );
    for (i, stream) in report.streams.iter().enumerate() {
        let y = i * 24 + 4;
        let width = |v: f64| v / most * 420.0;
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{}\" font-size=\"12\">{}</text>",
            y + 13,
            escape(&stream.id)
        );
        let _ = write!(
            out,
            "<rect x=\"180\" y=\"{y}\" width=\"{:.1}\" height=\"9\" fill=\"#9db8e8\"/>",
            width(stream.sent.bitrate)
        );
        let _ = write!(
            out,
            "<rect x=\"180\" y=\"{}\" width=\"{:.1}\" height=\"9\" fill=\"#2457b3\"/>",
            y + 9,
            width(rate(stream))
        );
        let _ = write!(
            out,
            "<text x=\"610\" y=\"{}\" font-size=\"12\">{}</text>",
            y + 13,
            show_bitrate(rate(stream))
        );
    }
    out.push_str("</svg><p>light: sent, dark: received</p>");
}

fn table(out: &mut String, report: &Report) {
    out.push_str("<table><tr><th>stream<th>sent<th>received<th>lost<th>dropped<th>again<th>frames sent<th>assembled<th>key</tr>");
    for stream in &report.streams {
        let r = stream.received.clone().unwrap_or_default();
        let _ = write!(
            out,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            escape(&stream.id),
            stream.sent.packets,
            r.packets,
            r.packets_lost,
            r.packets_dropped,
            r.packets_retransmitted,
            stream.sent.frames,
            r.frames,
            r.key_frames
        );
    }
    out.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_escapes_ids_and_shows_the_verdict() {
        let mut report = crate::report::tests::report(3);
        report.judge(
            &crate::scenario::Expect {
                dropped: Some(0),
                ..Default::default()
            },
            true,
        );
        let page = page(&report);
        assert!(page.contains("a&lt;b") && !page.contains("a<b"));
        assert!(
            page.contains("not as expected")
                && page.contains("<svg")
                && page.ends_with("</html>\n")
        );
    }
}
