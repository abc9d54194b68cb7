//! A history's card: whose it is, and what it forked from; pure: bytes in, types out.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use crate::format::ANCESTOR_BYTES as SHORT_ANCESTOR_BYTES;
use crate::layout::{
    Layout, VERSION, VERSION_AT, check_front, field, put, u32_at, u64_at, u128_at,
};
use standfast_wal::record::is_gapless;
use standfast_wal::{Ancestor, ClusterId, Field, History, Lsn};

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

const A_GENERATION: Field = field(0, 8, "generation", "number of the history forked from");
const A_HISTORY: Field = field(8, 16, "history_id", "its random id");
const A_SHARED: Field = field(24, 8, "shared", "last LSN surely shared with it");
const A_END: Field = field(
    32,
    8,
    "end",
    "last LSN that may be: the founder's log ended there",
);

/// One ancestor. A card of an earlier build has them without `end`, which is `shared` there.
pub const CARD_ANCESTOR: [Field; 4] = [A_GENERATION, A_HISTORY, A_SHARED, A_END];
pub const CARD_ANCESTOR_BYTES: usize = 40;
const _: () = assert!(is_gapless(&CARD_ANCESTOR, CARD_ANCESTOR_BYTES));
const _: () = assert!(SHORT_ANCESTOR_BYTES == A_END.at);

/// The layouts of a card, for the document of formats.
pub(crate) const LAYOUTS: [Layout; 2] = [
    Layout {
        name: "history card",
        bytes: CARD_BYTES,
        fields: &CARD,
    },
    Layout {
        name: "ancestor of a card",
        bytes: CARD_ANCESTOR_BYTES,
        fields: &CARD_ANCESTOR,
    },
];

/// What the archive knows of one history: whose it is, and what it forked from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Card {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub history: History,
    /// Oldest first.
    pub ancestors: Vec<Ancestor>,
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
        for one in &self.ancestors {
            let mut entry = [0; CARD_ANCESTOR_BYTES];
            put(
                &mut entry,
                A_GENERATION,
                &one.history.generation.to_le_bytes(),
            );
            put(&mut entry, A_HISTORY, &one.history.id.to_le_bytes());
            put(&mut entry, A_SHARED, &one.shared.0.to_le_bytes());
            put(&mut entry, A_END, &one.end.0.to_le_bytes());
            out.extend_from_slice(&entry);
        }
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
        let is_of = |each: &usize| name.checked_add(ancestors * each) == Some(tail);
        let each = [CARD_ANCESTOR_BYTES, SHORT_ANCESTOR_BYTES]
            .into_iter()
            .find(is_of);
        let Some(each) = each.filter(|_| tail <= CARD_TAIL_MAX) else {
            return Err(bad("the card's length"));
        };
        let (name, forks) = bytes[CARD_BYTES..].split_at(name);
        let name = String::from_utf8(name.to_vec());
        let ancestors = forks.chunks_exact(each).map(|one| {
            let history = History {
                generation: u64_at(one, A_GENERATION),
                id: u128_at(one, A_HISTORY),
            };
            let fork = Ancestor::at(history, Lsn(u64_at(one, A_SHARED)));
            match each == CARD_ANCESTOR_BYTES {
                true => Ancestor {
                    end: Lsn(u64_at(one, A_END)),
                    ..fork
                },
                false => fork,
            }
        });
        Ok(Card {
            cluster: ClusterId(u128_at(bytes, C_CLUSTER)),
            cluster_name: name.map_err(|_| bad("the cluster's name"))?,
            history: History {
                generation: u64_at(bytes, C_GENERATION),
                id: u128_at(bytes, C_HISTORY),
            },
            ancestors: ancestors.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{card, history};

    #[test]
    fn a_card_survives_its_bytes_and_one_of_an_earlier_build_is_read() {
        let mut one = card(3, &[(1, 20), (2, 30)]);
        let short = one.clone();
        one.ancestors[1].end = Lsn(40);
        let bytes = one.encode();
        assert_eq!(Card::decode("memory", &bytes).unwrap(), one);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            assert!(Card::decode("memory", &bad).is_err(), "byte {at}");
            assert!(Card::decode("memory", &bytes[..at]).is_err(), "cut at {at}");
        }
        let name = CARD_BYTES + one.cluster_name.len();
        let entries = bytes[name..].chunks_exact(CARD_ANCESTOR_BYTES);
        let mut earlier = bytes[..name].to_vec();
        earlier.extend(entries.flat_map(|entry| &entry[..SHORT_ANCESTOR_BYTES]));
        let crc = crc32fast::hash(&earlier[C_CLUSTER.at..]);
        put(&mut earlier, C_CRC, &crc.to_le_bytes());
        assert_eq!(Card::decode("memory", &earlier).unwrap(), short);
        assert_eq!(short.ancestors[1], Ancestor::at(history(2), Lsn(30)));
    }
}
