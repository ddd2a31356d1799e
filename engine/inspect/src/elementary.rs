//! Files that are elementary streams: H.264, HEVC and MPEG-2 video with start codes, AV1, JPEG XS,
//! KLV. They have no clock; IVF alone tells times.

use mirror_media::files::annexb::AnnexB;
use mirror_media::files::ivf;
use mirror_media::files::jxs::{self, Pictures};
use mirror_media::files::obu::{self, Framing, Malformed, Reader, TemporalUnit, TemporalUnits};
use mirror_media::ts::klv;
use mirror_media::{AccessUnit, Codec, FrameKind, Track};

use crate::Options;
use crate::report::{Carrier, Kind, Report};
use crate::source::{Source, Window};
use crate::tracks::Gathered;

/// Bytes that are looked at at once.
const PIECE: usize = 1 << 20;
/// A unit that does not fit into so much is none.
const MAX_UNIT: usize = 256 << 20;
/// Ticks of the clock that reports use.
const CLOCK: u64 = 90_000;

/// What begins with bytes that nothing else begins with.
pub(crate) fn kind_by_magic(head: &[u8]) -> Option<Kind> {
    if ivf::Header::parse(head).is_some() {
        Some(Kind::Ivf)
    } else if jxs::detect(head) {
        Some(Kind::JpegXs)
    } else if head.starts_with(&klv::LABEL) {
        Some(Kind::Klv)
    } else {
        None
    }
}

/// AV1, which has no start code, by what its first OBUs say.
pub(crate) fn av1_by_bits(head: &[u8]) -> Option<Kind> {
    obu::detect(head).map(|_| Kind::Av1)
}

pub(crate) fn inspect(
    source: &dyn Source,
    options: &Options,
    report: &mut Report,
) -> Result<(), String> {
    let mut window = Window::new(source);
    match report.kind {
        Kind::Ivf => return ivf_file(&mut window, options, report),
        Kind::Av1 => return av1_file(&mut window, options, report),
        Kind::JpegXs => return jxs_file(&mut window, options, report),
        Kind::Klv => return klv_file(&mut window, options, report),
        _ => {}
    }
    let codec = match report.kind {
        Kind::H265 => Codec::H265,
        Kind::Mpeg2Video => Codec::Mpeg2Video,
        _ => Codec::H264,
    };
    let mut reader =
        AnnexB::new(codec, &crate::limits(options)).ok_or("no reader for this codec")?;
    let mut gathered = Gathered::new(
        &Track {
            codec,
            ..Track::default()
        },
        options,
    );
    loop {
        let piece = window.peek(PIECE)?;
        if piece.is_empty() {
            break;
        }
        reader.push(piece);
        let bytes = piece.len();
        window.skip(bytes);
        take_units(codec, &mut reader, &mut gathered);
    }
    reader.finish();
    take_units(codec, &mut reader, &mut gathered);
    gathered.describe(&reader.track());
    let types = (0..=u8::MAX).zip(reader.nal_types().iter().copied());
    gathered.unit_types = types.filter(|(_, count)| *count > 0).collect();
    report.tracks.push(gathered.facts(Carrier::File));
    Ok(())
}

/// How many of the NAL units (start codes) hold slices of pictures.
pub(crate) fn slices(codec: Codec, types: &[u8]) -> Option<u32> {
    let is_slice: fn(&u8) -> bool = match codec {
        // Also in partitions, of which the first counts, and of views and layers.
        Codec::H264 => |kind| matches!(kind, 1 | 2 | 5 | 20),
        Codec::H265 => |kind| *kind < 32,
        Codec::Mpeg2Video => |code| (0x01..=0xAF).contains(code),
        _ => return None,
    };
    u32::try_from(types.iter().filter(|t| is_slice(t)).count()).ok()
}

fn take_units(codec: Codec, reader: &mut AnnexB, gathered: &mut Gathered) {
    while let Some(unit) = reader.poll_unit() {
        let types = unit.nal_types;
        gathered.unit_with(&unit.unit, |facts| {
            facts.offset = Some(unit.offset);
            facts.slices = slices(codec, &types);
            facts.nal_types = types;
        });
    }
}

/// What [`in_pieces`] is told of a unit.
enum Step {
    /// It was taken; so many bytes go to its end.
    Taken(usize),
    /// It may go on behind the piece.
    Short,
    /// The file breaks its format here.
    Broken(usize),
}

/// Goes through units that may be longer than a piece: `take` gets what lies ahead, and whether
/// that is all.
fn in_pieces(
    window: &mut Window<'_>,
    report: &mut Report,
    mut take: impl FnMut(&[u8], bool) -> Step,
) -> Result<(), String> {
    let mut size = PIECE;
    loop {
        let offset = window.offset();
        let data = window.peek(size)?;
        if data.is_empty() {
            return Ok(());
        }
        let is_all = data.len() < size;
        match take(data, is_all) {
            Step::Taken(bytes @ 1..) => {
                window.skip(bytes);
                size = PIECE;
            }
            Step::Short if !is_all && size < MAX_UNIT => size *= 2,
            Step::Broken(at) => {
                report.error(format!(
                    "the file breaks its format at byte {}",
                    offset + at as u64
                ));
                return Ok(());
            }
            Step::Taken(_) | Step::Short => {
                report.error(format!("the file ends inside the unit at byte {offset}"));
                return Ok(());
            }
        }
    }
}

/// Hands out the units that lie whole in a piece, each with its end. What ends with the piece is
/// kept back if only the next unit shows where one ends (`open_ended`) and the file goes on.
fn whole_units<U>(
    (data, is_all): (&[u8], bool),
    units: impl Iterator<Item = Result<(usize, U), Malformed>>,
    open_ended: bool,
    mut each: impl FnMut(U),
) -> Step {
    let mut taken = 0;
    for unit in units {
        match unit {
            Ok((end, _)) if open_ended && end == data.len() && !is_all => break,
            Ok((end, unit)) => {
                each(unit);
                taken = end;
            }
            // It may be that more bytes mend it.
            Err(Malformed { offset }) if open_ended && is_all && taken == 0 => {
                return Step::Broken(offset);
            }
            Err(_) => break,
        }
    }
    match taken {
        0 => Step::Short,
        _ => Step::Taken(taken),
    }
}

/// Temporal units of AV1, and what was gathered of them.
struct Av1 {
    reader: Reader,
    gathered: Gathered,
}

impl Av1 {
    fn new(options: &Options) -> Self {
        Av1 {
            reader: Reader::default(),
            gathered: Gathered::new(
                &Track {
                    codec: Codec::Av1,
                    ..Track::default()
                },
                options,
            ),
        }
    }

    fn unit(&mut self, unit: &TemporalUnit<'_>, pts: Option<i64>) {
        let facts = self.reader.unit(unit);
        let [coded, hidden, again] = self.gathered.av1_frames.get_or_insert_default();
        for frame in &facts.frames {
            let is_again = frame.existing.is_some();
            *again += u64::from(is_again);
            *coded += u64::from(!is_again);
            *hidden += u64::from(!is_again && !frame.shown);
        }
        for kind in &facts.obu_types {
            *self.gathered.unit_types.entry(*kind).or_default() += 1;
        }
        let unit = AccessUnit {
            kind: facts.kind,
            damaged: facts.malformed,
            bytes: unit.bytes.len() as u32,
            pts,
            ..AccessUnit::default()
        };
        self.gathered.unit_with(&unit, |listed| {
            listed.obu_types = facts.obu_types;
            listed.frames = facts.frames;
        });
    }

    fn finish(mut self, report: &mut Report) {
        self.gathered.describe(&self.reader.track());
        report.tracks.push(self.gathered.facts(Carrier::File));
    }
}

fn av1_file(window: &mut Window<'_>, options: &Options, report: &mut Report) -> Result<(), String> {
    let framing = obu::detect(window.peek(PIECE)?).unwrap_or(Framing::LowOverhead);
    let mut av1 = Av1::new(options);
    in_pieces(window, report, |data, is_all| {
        let units = TemporalUnits::new(data, framing)
            .map(|unit| unit.map(|unit| (unit.offset + unit.bytes.len(), unit)));
        whole_units((data, is_all), units, true, |unit| av1.unit(&unit, None))
    })?;
    av1.finish(report);
    Ok(())
}

fn ivf_file(window: &mut Window<'_>, options: &Options, report: &mut Report) -> Result<(), String> {
    let header = ivf::Header::parse(window.peek(PIECE)?).ok_or("no IVF header")?;
    if &header.fourcc != b"AV01" {
        let name = String::from_utf8_lossy(&header.fourcc).into_owned();
        report.error(format!("IVF of {name}: only AV1 is read"));
        return Ok(());
    }
    window.peek(header.length)?;
    window.skip(header.length);
    // The frames that follow, as if each piece were a file without a header.
    let alone = ivf::Header {
        length: 0,
        ..header
    };
    let ticks = |pts: u64| {
        let scaled = u128::from(pts) * u128::from(CLOCK) * u128::from(header.scale.max(1));
        i64::try_from(scaled / u128::from(header.rate.max(1))).ok()
    };
    let mut av1 = Av1::new(options);
    in_pieces(window, report, |data, is_all| {
        let frames = ivf::Frames::new(data, &alone)
            .map(|frame| frame.map(|frame| (frame.offset + frame.data.len(), frame)));
        whole_units((data, is_all), frames, false, |frame| {
            let unit = TemporalUnit::alone(frame.data, frame.offset);
            av1.unit(&unit, ticks(frame.pts));
        })
    })?;
    av1.finish(report);
    Ok(())
}

fn jxs_file(window: &mut Window<'_>, options: &Options, report: &mut Report) -> Result<(), String> {
    let mut gathered = Gathered::new(
        &Track {
            codec: Codec::JpegXs,
            ..Track::default()
        },
        options,
    );
    let mut track = None;
    in_pieces(window, report, |data, is_all| {
        let mut pictures = Pictures::new(data);
        let found = pictures.by_ref();
        let found = found.map(|p| p.map(|picture| (picture.offset + picture.bytes.len(), picture)));
        let step = whole_units((data, is_all), found, true, |picture| {
            let unit = AccessUnit {
                kind: FrameKind::Idr,
                damaged: !picture.ended,
                bytes: picture.bytes.len() as u32,
                ..AccessUnit::default()
            };
            let header = picture.header;
            gathered.unit_with(&unit, |listed| listed.slices = Some(header.slices()));
            gathered.jpegxs = Some(header);
        });
        if let Step::Taken(_) = step {
            track.get_or_insert_with(|| pictures.track());
        }
        step
    })?;
    if let Some(track) = track {
        gathered.describe(&track);
    }
    report.tracks.push(gathered.facts(Carrier::File));
    Ok(())
}

fn klv_file(window: &mut Window<'_>, options: &Options, report: &mut Report) -> Result<(), String> {
    let mut gathered = Gathered::new(
        &Track {
            codec: Codec::Klv,
            ..Track::default()
        },
        options,
    );
    in_pieces(window, report, |data, _| match klv::unit_bytes(data) {
        Ok(Some(bytes)) if bytes <= data.len() => {
            gathered.unit(&AccessUnit {
                bytes: bytes as u32,
                ..AccessUnit::default()
            });
            Step::Taken(bytes)
        }
        Ok(_) => Step::Short,
        Err(klv::NotKlv) => Step::Broken(0),
    })?;
    let facts = gathered.facts(Carrier::File);
    report.klv.push((0, facts.access_units));
    report.tracks.push(facts);
    Ok(())
}
