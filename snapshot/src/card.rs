//! A history's card: whose it is, and what it forked from; pure: bytes in, types out.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use crate::format::{ANCESTOR_BYTES, put_ancestors, take_ancestors};
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use bytes::Bytes;
use standfast_wal::record::is_gapless;
use standfast_wal::{ClusterId, Field, History};

/// The largest name and list of ancestors of a card.
const CARD_TAIL_MAX: usize = 1 << 20;

const CARD_MAGIC: &[u8; 8] = b"sfcard\r\n";

const C_MAGIC: Field = field(0, 8, "magic", "`sfcard\\r\\n`");
const C_CRC: Field = field(12, 4, "crc", "CRC-32 of byte 16 to the end");
const C_CLUSTER: Field = field(16, 16, "cluster", "random id of the cluster");
const C_GENERATION: Field = field(32, 8, "generation", "number of the history");
const C_HISTORY: Field = field(40, 16, "history_id", "random id of the history");
const C_NAME: Field = field(
    56,
    4,
    "name_bytes",
    "length of the cluster's name, which follows",
);
const C_ANCESTORS: Field = field(60, 4, "ancestors", "number of ancestors, which follow it");

/// The fixed part of a history's card.
pub const CARD: [Field; 8] = [
    C_MAGIC,
    VERSION_AT,
    C_CRC,
    C_CLUSTER,
    C_GENERATION,
    C_HISTORY,
    C_NAME,
    C_ANCESTORS,
];
pub const CARD_BYTES: usize = 64;
const _: () = assert!(is_gapless(&CARD, CARD_BYTES));

/// The layout of a card, for the document of formats.
pub(crate) const LAYOUT: Layout = Layout {
    name: "history card",
    bytes: CARD_BYTES,
    fields: &CARD,
};

/// What the archive knows of one history: whose it is, and what it forked from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub history: History,
    /// Oldest first, each with the last LSN shared with it.
    pub ancestors: Vec<(History, u64)>,
}

impl Card {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; CARD_BYTES];
        put(&mut out, C_MAGIC, CARD_MAGIC);
        put(&mut out, VERSION_AT, &VERSION.to_le_bytes());
        put(&mut out, C_CLUSTER, &self.cluster.0.to_le_bytes());
        put(
            &mut out,
            C_GENERATION,
            &self.history.generation.to_le_bytes(),
        );
        put(&mut out, C_HISTORY, &self.history.id.to_le_bytes());
        for (at, len) in [
            (C_NAME, self.cluster_name.len()),
            (C_ANCESTORS, self.ancestors.len()),
        ] {
            let len = u32::try_from(len).expect("held against CARD_TAIL_MAX below");
            put(&mut out, at, &len.to_le_bytes());
        }
        out.extend_from_slice(self.cluster_name.as_bytes());
        put_ancestors(&mut out, &self.ancestors);
        let tail = out.len() - CARD_BYTES;
        assert!(tail <= CARD_TAIL_MAX, "a card with {tail} bytes of names");
        let crc = crc32fast::hash(&out[C_CLUSTER.at..]);
        put(&mut out, C_CRC, &crc.to_le_bytes());
        out
    }

    pub fn decode(file: &str, bytes: &[u8]) -> Result<Card, Error> {
        check_front(file, bytes, CARD_BYTES, CARD_MAGIC, "history card")?;
        if crc32fast::hash(&bytes[C_CLUSTER.at..]) != u32_at(bytes, C_CRC) {
            return Err(Error::new(file, 0, Reason::Checksum("card")));
        }
        let name = u32_at(bytes, C_NAME) as usize;
        let ancestors = u32_at(bytes, C_ANCESTORS) as usize;
        let tail = bytes.len() - CARD_BYTES;
        let bad = |what| Error::new(file, C_NAME.at as u64, Reason::Field(what));
        if tail > CARD_TAIL_MAX || name.checked_add(ancestors * ANCESTOR_BYTES) != Some(tail) {
            return Err(bad("the card's length"));
        }
        let mut rest = Bytes::copy_from_slice(&bytes[CARD_BYTES..]);
        let name = String::from_utf8(rest.split_to(name).to_vec());
        Ok(Card {
            cluster: ClusterId(u128_at(bytes, C_CLUSTER)),
            cluster_name: name.map_err(|_| bad("the cluster's name"))?,
            history: History {
                generation: u64_at(bytes, C_GENERATION),
                id: u128_at(bytes, C_HISTORY),
            },
            ancestors: take_ancestors(&mut rest, ancestors),
        })
    }
}
