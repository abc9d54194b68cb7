//! Where a key or token stands: its hash slot and its hash, which order everything that is walked.
//!
//! The slot is Redis Cluster's (CRC-16 of the key or of its `{tag}`), so it is the same everywhere
//! and forever. The hash is seeded per cluster, so that clients cannot aim for collisions.

use super::SLOTS;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Slot (14 bits) and hash (49 bits) as one number: the order of SCAN, of a snapshot and of the
/// chunks within a slot's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Place(u64);

const HASH_BITS: u32 = 49;
const HASH_MASK: u64 = (1 << HASH_BITS) - 1;
/// Low bits of the hash that a cursor leaves out: 53 bits are what every client can hold, those
/// included that keep numbers as floating point.
const CURSOR_SHIFT: u32 = 10;
const _: () = assert!(HASH_BITS + SLOTS.trailing_zeros() - CURSOR_SHIFT == 53);
const _: () = assert!(SLOTS.is_power_of_two());

impl Place {
    pub fn of_key(key: &[u8], seed: u64) -> Place {
        Place::new(slot_of(key), xxh3_64_with_seed(key, seed))
    }

    /// A token has no `{tag}`: tokens need not lie together.
    pub fn of_token(token: &[u8], seed: u64) -> Place {
        Place::new(crc16(token) % SLOTS, xxh3_64_with_seed(token, seed))
    }

    /// The place of a key or token whose slot is known.
    pub fn in_slot(slot: u16, bytes: &[u8], seed: u64) -> Place {
        Place::new(slot, xxh3_64_with_seed(bytes, seed))
    }

    fn new(slot: u16, hash: u64) -> Place {
        Place((u64::from(slot) << HASH_BITS) | (hash & HASH_MASK))
    }

    pub fn from_bits(bits: u64) -> Place {
        assert!(
            bits >> (HASH_BITS + SLOTS.trailing_zeros()) == 0,
            "a place has 63 bits"
        );
        Place(bits)
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    /// The first place of a slot; of slot [`SLOTS`], the end of all places.
    pub fn start_of(slot: u16) -> Place {
        Place(u64::from(slot) << HASH_BITS)
    }

    pub fn slot(self) -> u16 {
        u16::try_from(self.0 >> HASH_BITS).expect("14 bits")
    }

    /// What a hash table wants of a key or token, without its slot.
    pub fn probe_of(bytes: &[u8], seed: u64) -> u64 {
        Place::new(0, xxh3_64_with_seed(bytes, seed)).probe()
    }

    /// What a hash table wants: it takes the bucket from the low bits and a tag from the top
    /// seven. The tag is made of bits that neither the bucket nor a chunk's range fixes.
    pub fn probe(self) -> u64 {
        let hash = self.0 & HASH_MASK;
        hash ^ (hash << 37)
    }

    /// The place in the middle between this one and `end`, on a boundary of cursors, so that a
    /// walk that goes on there loses nothing; `None` if there is none strictly between.
    pub fn middle(self, end: Place) -> Option<Place> {
        let half = end
            .0
            .checked_sub(self.0)
            .expect("ranges do not end before they start")
            / 2;
        let middle = (self.0 + half) >> CURSOR_SHIFT << CURSOR_SHIFT;
        (middle > self.0).then_some(Place(middle))
    }

    /// What a client is told to go on from: this place, rounded down.
    pub fn cursor(self) -> u64 {
        self.0 >> CURSOR_SHIFT
    }

    /// The first place of a cursor; `None` if it is beyond all places.
    pub fn from_cursor(cursor: u64) -> Option<Place> {
        (cursor < Place::start_of(SLOTS).cursor()).then_some(Place(cursor << CURSOR_SHIFT))
    }
}

/// The hash slot of a key, as in Redis Cluster: of what stands between the first `{` and the next
/// `}`, if that is not empty, else of the whole key.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let inside = &key[open + 1..];
        let len = memchr::memchr(b'}', inside)?;
        (len > 0).then(|| &inside[..len])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// Eight bytes a step: `TABLES[i][b]` is what byte `b` does to the CRC when `i` bytes follow.
static TABLES: [[u16; 256]; 8] = {
    let mut tables = [[0u16; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut following = 1;
    while following < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[following - 1][byte];
            tables[following][byte] = (before << 8) ^ tables[0][(before >> 8) as usize];
            byte += 1;
        }
        following += 1;
    }
    tables
};

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc: u16 = 0;
    let mut rest = bytes;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        rest = after;
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(eight[0] ^ high)]
            ^ TABLES[6][usize::from(eight[1] ^ low)]
            ^ TABLES[5][usize::from(eight[2])]
            ^ TABLES[4][usize::from(eight[3])]
            ^ TABLES[3][usize::from(eight[4])]
            ^ TABLES[2][usize::from(eight[5])]
            ^ TABLES[1][usize::from(eight[6])]
            ^ TABLES[0][usize::from(eight[7])];
    }
    for byte in rest {
        let [high, _] = crc.to_be_bytes();
        crc = (crc << 8) ^ TABLES[0][usize::from(high ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // The values that CLUSTER KEYSLOT answers.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(
            slot_of(b"{user1000}.following"),
            slot_of(b"{user1000}.followed")
        );
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot_of(b"foo{bar}{zap}"), crc16(b"bar") % SLOTS);
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    #[test]
    fn eight_bytes_a_step_equal_one_byte_a_step() {
        let bytes: Vec<u8> = (0u8..=255).map(|byte| byte.wrapping_mul(167)).collect();
        for len in 0..bytes.len() {
            let one_by_one = bytes[..len].iter().fold(0u16, |crc, byte| {
                (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
                    if crc & 0x8000 == 0 {
                        crc << 1
                    } else {
                        (crc << 1) ^ 0x1021
                    }
                })
            });
            assert_eq!(crc16(&bytes[..len]), one_by_one, "{len} bytes");
        }
    }

    #[test]
    fn a_cursor_leads_to_its_place_or_just_before() {
        let place = Place::of_key(b"some key", 7);
        let back = Place::from_cursor(place.cursor()).expect("a cursor of ours");
        assert!(back <= place && place.bits() - back.bits() < 1 << CURSOR_SHIFT);
        assert_eq!(back.slot(), place.slot());
        assert_eq!(Place::from_cursor(1 << 53), None);
        assert!(Place::from_cursor((1 << 53) - 1).is_some());
    }
}
