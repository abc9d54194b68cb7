//! One stored key with its value, or one ONCE token with its reply: a single block of memory.
//!
//! A header ([`ENTRY_HEADER`]); the expiry in ms since 1970 (u64), if there is one; the key; the
//! value, up to the end of the block.
//!
//! Little-endian. The same bytes are what a snapshot holds and what the digest is taken of. The
//! header is as small as it is because allocators have classes: 16 + 100 bytes make exactly 128.

use standfast_wal::record::is_gapless;
use standfast_wal::{Field, Lsn};

const REVISION: Field = Field {
    at: 0,
    len: 8,
    name: "revision",
    meaning: "LSN of the last change",
};
const KEY_LEN: Field = Field {
    at: 8,
    len: 4,
    name: "key_len",
    meaning: "twice the length of the key, plus 1 if an expiry follows",
};

/// What an entry begins with; little-endian.
pub const ENTRY_HEADER: [Field; 2] = [REVISION, KEY_LEN];
const HEADER: usize = 12;
const EXPIRY_BYTES: usize = 8;
const _: () = assert!(is_gapless(&ENTRY_HEADER, HEADER));

/// A key longer than this cannot have come out of a record.
pub(super) const KEY_BYTES_MAX: usize = standfast_wal::record::PAYLOAD_MAX;
const _: () = assert!(KEY_BYTES_MAX < (u32::MAX / 2) as usize);

/// A block as described above; always well-formed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry(Box<[u8]>);

/// What an entry is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Content<'a> {
    pub revision: Lsn,
    /// `None`: lives until it is deleted.
    pub expiry_ms: Option<u64>,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

impl Content<'_> {
    fn entry_bytes(&self) -> usize {
        let expiry = if self.expiry_ms.is_some() {
            EXPIRY_BYTES
        } else {
            0
        };
        HEADER + expiry + self.key.len() + self.value.len()
    }

    fn key_field(&self) -> u32 {
        let len = u32::try_from(self.key.len()).expect("asserted by Entry::new");
        len << 1 | u32::from(self.expiry_ms.is_some())
    }
}

impl Entry {
    pub fn new(content: Content<'_>) -> Entry {
        assert!(
            content.key.len() <= KEY_BYTES_MAX,
            "a key of {} bytes",
            content.key.len()
        );
        let mut block = Vec::with_capacity(content.entry_bytes());
        block.extend_from_slice(&content.revision.0.to_le_bytes());
        block.extend_from_slice(&content.key_field().to_le_bytes());
        if let Some(expiry_ms) = content.expiry_ms {
            block.extend_from_slice(&expiry_ms.to_le_bytes());
        }
        block.extend_from_slice(content.key);
        block.extend_from_slice(content.value);
        Entry(block.into_boxed_slice())
    }

    /// Becomes `content`, which has the same key; takes new memory only if the size changes.
    pub fn overwrite(&mut self, content: Content<'_>) {
        debug_assert_eq!(self.key(), content.key, "an entry keeps its key");
        let same_shape =
            self.0.len() == content.entry_bytes() && self.key_field() == content.key_field();
        if !same_shape {
            *self = Entry::new(content);
            return;
        }
        self.0[..KEY_LEN.at].copy_from_slice(&content.revision.0.to_le_bytes());
        if let Some(expiry_ms) = content.expiry_ms {
            self.0[HEADER..HEADER + EXPIRY_BYTES].copy_from_slice(&expiry_ms.to_le_bytes());
        }
        let value_at = self.key_at() + self.key_len();
        self.0[value_at..].copy_from_slice(content.value);
    }

    /// An entry from bytes that somebody else stored; `None` if they cannot be one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Entry> {
        let field = bytes.get(KEY_LEN.at..HEADER)?;
        let field = u32::from_le_bytes(field.try_into().ok()?);
        let key_len = usize::try_from(field >> 1).ok()?;
        let key_at = HEADER + if field & 1 == 1 { EXPIRY_BYTES } else { 0 };
        let well_formed = key_len <= KEY_BYTES_MAX && bytes.len() >= key_at + key_len;
        well_formed.then(|| Entry(bytes.into()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn revision(&self) -> Lsn {
        let (revision, _) = self.0.split_first_chunk().expect("an entry has a header");
        Lsn(u64::from_le_bytes(*revision))
    }

    fn key_field(&self) -> u32 {
        let field = self.0[KEY_LEN.at..HEADER].try_into().expect("four bytes");
        u32::from_le_bytes(field)
    }

    fn key_len(&self) -> usize {
        (self.key_field() >> 1) as usize
    }

    fn key_at(&self) -> usize {
        if self.key_field() & 1 == 1 {
            HEADER + EXPIRY_BYTES
        } else {
            HEADER
        }
    }

    pub fn expiry_ms(&self) -> Option<u64> {
        (self.key_field() & 1 == 1).then(|| {
            let expiry = self.0[HEADER..HEADER + EXPIRY_BYTES]
                .try_into()
                .expect("eight bytes");
            u64::from_le_bytes(expiry)
        })
    }

    pub fn key(&self) -> &[u8] {
        let at = self.key_at();
        &self.0[at..at + self.key_len()]
    }

    pub fn value(&self) -> &[u8] {
        &self.0[self.key_at() + self.key_len()..]
    }

    /// What the block costs: the allocator has size classes, an eighth to a quarter apart, and
    /// multiples of 16 up to 128.
    pub fn allocated_bytes(&self) -> u64 {
        size_class(self.0.len())
    }
}

/// The size that mimalloc hands out for a request: four classes for each doubling.
pub(super) fn size_class(bytes: usize) -> u64 {
    let bytes = bytes.max(1) as u64;
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content<'a>(key: &'a [u8], value: &'a [u8], expiry_ms: Option<u64>) -> Content<'a> {
        Content {
            revision: Lsn(7),
            expiry_ms,
            key,
            value,
        }
    }

    #[test]
    fn an_entry_gives_back_what_it_is_made_of() {
        for expiry_ms in [None, Some(0), Some(u64::MAX)] {
            for (key, value) in [
                (&b""[..], &b""[..]),
                (b"k", b""),
                (b"", b"v"),
                (b"key", b"val"),
            ] {
                let entry = Entry::new(content(key, value, expiry_ms));
                assert_eq!(entry.key(), key);
                assert_eq!(entry.value(), value);
                assert_eq!(entry.expiry_ms(), expiry_ms);
                assert_eq!(entry.revision(), Lsn(7));
                assert_eq!(Entry::from_bytes(entry.bytes()), Some(entry));
            }
        }
    }

    #[test]
    fn overwriting_equals_making_anew() {
        let contents = [
            content(b"key", b"value", None),
            content(b"key", b"other", None),
            content(b"key", b"longer value", None),
            content(b"key", b"", Some(9)),
            content(b"key", b"eightmor", None),
            Content {
                revision: Lsn(1 << 60),
                ..content(b"key", b"value", Some(10))
            },
        ];
        for before in contents {
            for after in contents {
                let mut entry = Entry::new(before);
                entry.overwrite(after);
                assert_eq!(entry, Entry::new(after));
            }
        }
    }

    #[test]
    fn bytes_that_end_too_early_are_no_entry() {
        let entry = Entry::new(content(b"key", b"", Some(3)));
        for len in 0..entry.bytes().len() {
            assert_eq!(
                Entry::from_bytes(&entry.bytes()[..len]),
                None,
                "{len} bytes"
            );
        }
    }

    #[test]
    fn sixteen_and_a_hundred_bytes_fit_one_size_class() {
        let entry = Entry::new(content(&[b'k'; 16], &[b'v'; 100], None));
        assert_eq!((entry.bytes().len(), entry.allocated_bytes()), (128, 128));
        assert_eq!(
            [size_class(129), size_class(160), size_class(161)],
            [160, 160, 192]
        );
    }
}
