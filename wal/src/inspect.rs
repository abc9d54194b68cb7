//! One segment file as people read it: a line per record, a verdict where it ends, hex.

use crate::record::{Damage, Field, Head, Lsn};
use crate::scan::{Rest, Scan};
use crate::segment::{HEADER_AREA, Header, HeaderDamage, Stamp};
use crate::{kept, note, record, segment};
use std::fmt;

/// Every layout of the log by the name that the documents use.
pub fn layouts() -> [(&'static str, &'static [Field]); 5] {
    [
        ("record header", &record::HEADER),
        ("segment header", &segment::SEGMENT_HEADER),
        ("stamp", &segment::STAMP),
        ("note", &note::NOTE),
        ("cut file header", &kept::KEPT_HEADER),
    ]
}

/// One line about a segment file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// A record that is what was written.
    Record {
        /// Where its stamp stands in the file.
        offset: u64,
        head: Head,
        /// `None` where the stamp before the record is damaged.
        durable_through: Option<Lsn>,
    },
    /// Bytes that are not the record that belongs there; sound ones follow.
    Damaged {
        offset: u64,
        first_lsn: Lsn,
        last_lsn: Lsn,
        damage: Damage,
    },
    /// Where the walk ended; always the last line.
    End {
        offset: u64,
        last_lsn: Lsn,
        rest: Rest,
        /// The closing stamp, if it is sound.
        closing: Option<Stamp>,
        /// Bytes that are not zero from here on.
        bytes: u64,
    },
}

/// A walk over the bytes of one segment file, whoever's it is.
pub struct Inspection<'a> {
    pub header: Header,
    /// Both copies of the header are sound.
    pub header_whole: bool,
    scan: Scan<'a>,
    ended: bool,
}

/// Begins to inspect a segment file. `file` is all of it.
pub fn inspect(file: &[u8]) -> Result<Inspection<'_>, HeaderDamage> {
    let area = usize::try_from(HEADER_AREA).expect("small");
    let (header, header_whole) = Header::decode(&file[..file.len().min(area)])?;
    Ok(Inspection {
        header,
        header_whole,
        scan: Scan::new(file, &header),
        ended: false,
    })
}

impl Iterator for Inspection<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.ended {
            return None;
        }
        let damage = match self.scan.step() {
            Ok(entry) => {
                return Some(Line::Record {
                    offset: entry.offset as u64,
                    head: entry.head,
                    durable_through: entry.stamp.map(|stamp| stamp.durable_through),
                });
            }
            Err(damage) => damage,
        };
        let rest = self.scan.rest();
        let (offset, used_end) = (self.scan.offset, self.scan.used_end());
        if rest != Rest::Zeros
            && let Some(range) = self.scan.resume("", Lsn(u64::MAX - 1))
        {
            return Some(Line::Damaged {
                offset: range.offset,
                first_lsn: range.first_lsn,
                last_lsn: range.last_lsn,
                damage,
            });
        }
        self.ended = true;
        Some(Line::End {
            offset: offset as u64,
            last_lsn: self.scan.link.position.lsn,
            rest,
            closing: self.scan.stamp_at(offset),
            bytes: used_end.saturating_sub(offset) as u64,
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Record {
                offset,
                head,
                durable_through,
            } => {
                write!(
                    f,
                    "{offset:>9}  {}..{} @{} {:?} {} bytes, time {}, chain {:08x}, ",
                    head.first_lsn,
                    head.last_lsn(),
                    head.epoch,
                    head.kind,
                    head.size,
                    head.timestamp,
                    head.chain.0
                )?;
                match durable_through {
                    Some(lsn) => write!(f, "durable through {lsn}"),
                    None => write!(f, "stamp damaged"),
                }
            }
            Line::Damaged {
                offset,
                first_lsn,
                last_lsn,
                damage,
            } => write!(f, "{offset:>9}  {first_lsn}..{last_lsn} DAMAGED: {damage}"),
            Line::End {
                offset,
                last_lsn,
                rest,
                closing,
                bytes,
            } => {
                write!(f, "{offset:>9}  ")?;
                match (rest, closing) {
                    (Rest::Zeros, Some(stamp)) if stamp.sealed => {
                        write!(f, "sealed behind {last_lsn}, the next segment follows")
                    }
                    (Rest::Zeros, Some(stamp)) => write!(
                        f,
                        "end behind {last_lsn}, durable through {}",
                        stamp.durable_through
                    ),
                    (Rest::Zeros, None) if *bytes > 0 => {
                        write!(f, "end behind {last_lsn}, stamp damaged")
                    }
                    (Rest::Zeros, None) => write!(f, "end behind {last_lsn}"),
                    (Rest::Unfinished, _) => {
                        write!(f, "UNFINISHED behind {last_lsn}: {bytes} bytes, then zeros")
                    }
                    (Rest::Other, _) => {
                        write!(
                            f,
                            "DAMAGED behind {last_lsn}: other bytes up to {bytes} further"
                        )
                    }
                }
            }
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "segment from {} behind {} chain {:08x}, history {}, cluster {}, node {} incarnation \
             {}, {} bytes, previous {}",
            self.first_lsn(),
            self.base.position,
            self.base.chain.0,
            self.history,
            self.identity.cluster,
            self.identity.node,
            self.identity.incarnation,
            self.segment_bytes,
            self.previous_first_lsn
        )
    }
}

/// Sixteen bytes a line with their offset; lines of zeros are left out and marked by `*`.
pub fn hex(bytes: &[u8], offset: u64) -> String {
    use fmt::Write as _;
    let mut out = String::new();
    let mut skipping = false;
    for (at, line) in (offset..).step_by(16).zip(bytes.chunks(16)) {
        if line.iter().all(|byte| *byte == 0) {
            if !std::mem::replace(&mut skipping, true) {
                out.push_str("*\n");
            }
            continue;
        }
        skipping = false;
        let written = write!(out, "{at:08x} ");
        written.expect("writing to a string does not fail");
        for (at, byte) in line.iter().enumerate() {
            let gap = if at == 8 { "  " } else { " " };
            write!(out, "{gap}{byte:02x}").expect("writing to a string does not fail");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_has_a_name_of_its_own_and_no_gap() {
        let layouts = layouts();
        for (at, (name, fields)) in layouts.iter().enumerate() {
            assert!(layouts[..at].iter().all(|(other, _)| other != name));
            let last = fields.last().expect("fields");
            assert!(record::is_gapless(fields, last.at + last.len), "{name}");
            assert!(
                fields.iter().all(|field| !field.meaning.is_empty()),
                "{name}"
            );
        }
    }

    #[test]
    fn hex_leaves_zeros_out() {
        let mut bytes = [0; 64];
        bytes[1] = 0xab;
        bytes[50] = 1;
        assert_eq!(
            hex(&bytes, 4096),
            "00001000  00 ab 00 00 00 00 00 00  00 00 00 00 00 00 00 00\n*\n\
             00001030  00 00 01 00 00 00 00 00  00 00 00 00 00 00 00 00\n"
        );
    }
}
