//! A log's directory as a fuzzer's input: files one after another, segments without their zeros.
//!
//! A file is a byte that says which, two bytes of length, and contents. A segment's contents are a
//! byte of wishes, one copy of the header without its reserved zeros, and what stands behind the
//! header area up to the last byte that is not zero.

use super::IDENTITY;
use crate::repair;
use standfast_wal::segment::{HEADER_AREA, Header, SEGMENT_HEADER, STAMP_BYTES, Salt, Stamp, name};
use standfast_wal::{Field, Link, Lsn, SimDisk};

/// Files other than segments, by their number; 0 is a segment.
const NAMES: [&str; 6] = [
    "",
    "intent",
    "suspect",
    "prepared",
    "fresh",
    "divergent/cut-1-2-00000000.cut",
];

const COPY_BYTES: usize = HEADER_AREA as usize / 2;
/// A header without its reserved bytes.
const HEADER_BYTES: usize = 120;
/// Segments longer than this are not made: their zeros would be the memory.
const SEGMENT_BYTES_MAX: u64 = 32 << 10;
const SEGMENT_BYTES_MIN: u64 = 2 * HEADER_AREA;
const FILES_MAX: usize = 12;

/// Wishes of a segment.
const FIRST_COPY_LOST: u8 = 1;
const SECOND_COPY_LOST: u8 = 2;
const SHORT: u8 = 4;

pub struct Directory {
    files: Vec<File>,
}

enum File {
    Segment {
        wishes: u8,
        /// Both copies of the header, then everything up to the segment's end.
        bytes: Vec<u8>,
    },
    Other {
        number: u8,
        bytes: Vec<u8>,
    },
}

fn segment(contents: &[u8]) -> Option<File> {
    let (wishes, contents) = contents.split_first()?;
    let (header, body) = contents.split_at_checked(HEADER_BYTES)?;
    let mut bytes = vec![0; HEADER_AREA as usize];
    bytes[..HEADER_BYTES].copy_from_slice(header);
    bytes.copy_within(..COPY_BYTES, COPY_BYTES);
    bytes.extend_from_slice(body);
    Some(File::Segment {
        wishes: *wishes,
        bytes,
    })
}

/// The layout of notes, which only the list of all layouts shows.
fn note_layout() -> &'static [Field] {
    let layouts = standfast_wal::layouts();
    let is_note = |layout: &&(&str, &'static [Field])| {
        layout
            .1
            .iter()
            .any(|field| field.meaning.contains("SFWALNOT"))
    };
    layouts.iter().find(is_note).expect("notes have a layout").1
}

impl Directory {
    pub fn read(mut bytes: &[u8]) -> Directory {
        let mut files = Vec::new();
        while let Some(([number, len @ ..], rest)) = bytes.split_first_chunk::<3>()
            && files.len() < FILES_MAX
        {
            let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
            let (contents, rest) = rest.split_at(len);
            bytes = rest;
            let number = number % u8::try_from(NAMES.len()).unwrap_or(1);
            match number {
                0 => files.extend(segment(contents)),
                _ => files.push(File::Other {
                    number,
                    bytes: contents.to_vec(),
                }),
            }
        }
        Directory { files }
    }

    /// What lies on a disk; what has no number is left out.
    pub fn of(disk: &SimDisk) -> Directory {
        let mut files = Vec::new();
        for (name, _) in disk.files() {
            let bytes = disk.contents(&name).expect("it is listed");
            if name.ends_with(".wal") && bytes.len() >= HEADER_AREA as usize {
                files.push(File::Segment { wishes: 0, bytes });
            } else if let Some(number) = NAMES.iter().position(|known| **known == name) {
                let number = u8::try_from(number).expect("a few names");
                files.push(File::Other { number, bytes });
            }
        }
        Directory { files }
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What `read` reads.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for file in &self.files {
            let (number, contents) = match file {
                File::Segment { wishes, bytes } => {
                    let used = bytes
                        .iter()
                        .rposition(|byte| *byte != 0)
                        .map_or(0, |at| at + 1);
                    let body = bytes.get(HEADER_AREA as usize..used).unwrap_or_default();
                    (0, [&[*wishes][..], &bytes[..HEADER_BYTES], body].concat())
                }
                // A prepared segment is zeros: a few are enough to be looked at.
                File::Other { number, bytes } => {
                    (*number, bytes[..bytes.len().min(8 << 10)].to_vec())
                }
            };
            out.push(number);
            let len = u16::try_from(contents.len()).expect("samples are small");
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&contents);
        }
        out
    }

    pub fn put(&self, disk: &SimDisk) {
        for file in &self.files {
            match file {
                File::Other { number, bytes } => {
                    disk.put(NAMES[usize::from(*number)], bytes.clone());
                }
                File::Segment { wishes, bytes } => {
                    let mut bytes = bytes.clone();
                    let layout = &SEGMENT_HEADER;
                    let full = repair::number(&bytes, layout, "segment_bytes");
                    let full = full.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
                    if wishes & SHORT == 0 {
                        bytes.resize(usize::try_from(full).expect("small"), 0);
                    }
                    let base = repair::number(&bytes, layout, "base_lsn");
                    let name = name(Lsn(base.wrapping_add(1)));
                    if wishes & FIRST_COPY_LOST != 0 {
                        bytes[..COPY_BYTES].fill(0);
                    }
                    if wishes & SECOND_COPY_LOST != 0 {
                        bytes[COPY_BYTES..HEADER_AREA as usize].fill(0);
                    }
                    disk.put(&name, bytes);
                }
            }
        }
    }

    /// Whether an announced cut or reset may be finished by opening.
    pub fn has_leftovers(&self) -> bool {
        let is_one = |file: &File| {
            matches!(file, File::Other { number, .. }
                if ["intent", "fresh"].contains(&NAMES[usize::from(*number)]))
        };
        self.files.iter().any(is_one)
    }

    /// What the segment with the lowest LSN says it begins behind.
    pub fn first_base(&self) -> Option<Link> {
        let headers = self.files.iter().filter_map(|file| match file {
            File::Segment { bytes, .. } => Header::decode(bytes).ok(),
            File::Other { .. } => None,
        });
        headers
            .map(|(header, _)| header.base)
            .min_by_key(|base| base.position.lsn)
    }

    /// All checksums; `aligned`: each segment goes on where the one before it ends, too.
    pub fn make_good(&mut self, aligned: bool) {
        let mut before: Option<(Lsn, Link)> = None;
        for file in &mut self.files {
            match file {
                File::Other { bytes, .. } => make_note_good(bytes),
                File::Segment { bytes, .. } => {
                    make_header_good(bytes, before.filter(|_| aligned), aligned);
                    let Ok((header, _)) = Header::decode(bytes) else {
                        continue;
                    };
                    let full = usize::try_from(header.segment_bytes).expect("clamped");
                    bytes.truncate(full.max(HEADER_AREA as usize));
                    let link = aligned.then_some(header.base);
                    let end = make_body_good(bytes, header.salt(), link);
                    before = Some((header.first_lsn(), end.unwrap_or(header.base)));
                }
            }
        }
    }
}

fn make_note_good(bytes: &mut [u8]) {
    let layout = note_layout();
    let from = repair::field(layout, "kind").at;
    let size: usize = layout.iter().map(|field| field.len).sum();
    if bytes.len() == size {
        let crc = crc32fast::hash(&bytes[from..]);
        repair::put_u32(bytes, layout, "crc", crc);
    }
}

fn make_header_good(bytes: &mut [u8], before: Option<(Lsn, Link)>, aligned: bool) {
    let layout = &SEGMENT_HEADER;
    let copy = &mut bytes[..COPY_BYTES];
    let full = repair::number(copy, layout, "segment_bytes");
    let full = full.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    repair::put(copy, layout, "segment_bytes", full - full % 8);
    if aligned {
        let sound = Header {
            identity: IDENTITY,
            history: crate::samples::HISTORY,
            base: before.map(|(_, link)| link).unwrap_or_default(),
            segment_bytes: full - full % 8,
            previous_first_lsn: before.map_or(Lsn::ZERO, |(first, _)| first),
        };
        copy.copy_from_slice(&sound.encode()[..COPY_BYTES]);
    }
    let crc = repair::crc_without(copy, repair::field(layout, "crc"));
    repair::put_u32(copy, layout, "crc", crc);
    bytes.copy_within(..COPY_BYTES, COPY_BYTES);
}

/// Stamps and records from the first on, as far as there are any; where the last one ends.
fn make_body_good(bytes: &mut [u8], salt: Salt, mut after: Option<Link>) -> Option<Link> {
    let mut at = HEADER_AREA as usize;
    let mut end = after;
    while at + STAMP_BYTES <= bytes.len() {
        let stamp = &mut bytes[at..at + STAMP_BYTES];
        let durable = u64::from_le_bytes(stamp[..8].try_into().expect("eight bytes"));
        let sound = Stamp {
            durable_through: Lsn(durable),
            sealed: stamp[11] & 0x80 != 0,
        };
        if stamp.iter().any(|byte| *byte != 0) {
            stamp.copy_from_slice(&sound.encode(salt, at as u64));
        }
        let record = &mut bytes[at + STAMP_BYTES..];
        // Zeros are no record, and are not to become one.
        let there = record.iter().take(48).any(|byte| *byte != 0);
        let Some(size) = there.then(|| repair::one_record(record, after)).flatten() else {
            break;
        };
        let link = repair::link_of(record);
        after = after.map(|_| link);
        end = Some(link);
        at += STAMP_BYTES + size;
    }
    end
}
