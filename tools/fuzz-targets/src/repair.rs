//! Makes checksums good after a mutation, so that what stands behind them is reached.
//!
//! Written from the documented layouts, not with the encoders: a layout that drifts from its
//! document makes these useless, which the seeds' tests notice.

use standfast_wal::record::{HEADER_BYTES, PAYLOAD_MAX, record_bytes};
use standfast_wal::{Chain, Field, Link, record};

/// The field of this name.
pub fn field(layout: &[Field], name: &str) -> Field {
    let found = layout.iter().find(|field| field.name == name);
    *found.unwrap_or_else(|| panic!("no field is named {name}"))
}

/// A number of up to eight bytes.
pub fn number(bytes: &[u8], layout: &[Field], name: &str) -> u64 {
    let field = field(layout, name);
    let mut wide = [0; 8];
    wide[..field.len].copy_from_slice(&bytes[field.at..field.at + field.len]);
    u64::from_le_bytes(wide)
}

pub fn put(bytes: &mut [u8], layout: &[Field], name: &str, value: u64) {
    let field = field(layout, name);
    bytes[field.at..field.at + field.len].copy_from_slice(&value.to_le_bytes()[..field.len]);
}

pub fn put_u32(bytes: &mut [u8], layout: &[Field], name: &str, value: u32) {
    put(bytes, layout, name, u64::from(value));
}

/// The CRC of `bytes` without those of one field.
pub fn crc_without(bytes: &[u8], hole: Field) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..hole.at]);
    hasher.update(&bytes[hole.at + hole.len..]);
    hasher.finalize()
}

/// Makes the record at the start of `bytes` good; its size, if it is all there. With `after` it
/// follows that.
pub fn one_record(bytes: &mut [u8], after: Option<Link>) -> Option<usize> {
    let layout = &record::HEADER;
    if bytes.len() < HEADER_BYTES {
        return None;
    }
    if let Some(after) = after {
        align(bytes, after);
    }
    let crc = crc32fast::hash(&bytes[8..HEADER_BYTES]);
    put_u32(bytes, layout, "header_crc", crc);
    let payload = usize::try_from(number(bytes, layout, "payload_len")).ok()?;
    let size = record_bytes(payload.min(PAYLOAD_MAX));
    let record = bytes.get_mut(..size)?;
    if after.is_some() {
        record[HEADER_BYTES + payload.min(size - HEADER_BYTES)..].fill(0);
    }
    let previous = number(record, layout, "previous");
    let mut hasher = crc32fast::Hasher::new_with_initial(u32::try_from(previous).ok()?);
    hasher.update(&record[8..]);
    put_u32(record, layout, "chain", hasher.finalize());
    Some(size)
}

fn align(bytes: &mut [u8], after: Link) {
    let layout = &record::HEADER;
    let epoch = number(bytes, layout, "epoch").max(after.position.epoch.0);
    let timestamp = number(bytes, layout, "timestamp").max(after.timestamp.saturating_add(1));
    put(
        bytes,
        layout,
        "first_lsn",
        after.position.lsn.0.wrapping_add(1),
    );
    put(bytes, layout, "epoch", epoch);
    put(bytes, layout, "timestamp", timestamp);
    put_u32(bytes, layout, "previous", after.chain.0);
    put(bytes, layout, "version", 1);
    put(bytes, layout, "reserved", 0);
    let kind = number(bytes, layout, "kind");
    put(bytes, layout, "kind", 1 + kind.wrapping_sub(1) % 5);
    let count = number(bytes, layout, "count");
    put(bytes, layout, "count", count.max(1));
    let room = bytes.len() - HEADER_BYTES;
    let payload = number(bytes, layout, "payload_len");
    put(
        bytes,
        layout,
        "payload_len",
        payload.min((room - room % 8) as u64),
    );
}

/// What the next record must follow, as the record's header says.
pub fn link_of(bytes: &[u8]) -> Link {
    let layout = &record::HEADER;
    let count = number(bytes, layout, "count");
    let last = |first: u64| first.wrapping_add(count).wrapping_sub(1);
    Link {
        position: standfast_wal::Position {
            epoch: standfast_wal::Epoch(number(bytes, layout, "epoch")),
            lsn: standfast_wal::Lsn(last(number(bytes, layout, "first_lsn"))),
        },
        chain: Chain(u32::try_from(number(bytes, layout, "chain")).unwrap_or(0)),
        timestamp: last(number(bytes, layout, "timestamp")),
    }
}

/// Makes records that lie back to back good; with `after` each follows the one before.
pub fn records(mut bytes: &mut [u8], mut after: Option<Link>) {
    while let Some(size) = one_record(bytes, after) {
        after = after.map(|_| link_of(bytes));
        bytes = &mut bytes[size..];
    }
}
