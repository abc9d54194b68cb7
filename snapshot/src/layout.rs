//! What the layouts of this crate share: fields by name, their numbers, and a file's first bytes.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

use crate::error::{Error, Reason};
use standfast_wal::Field;
pub(crate) use standfast_wal::record::field;

/// The format version of every file here that this program writes, and the only one it reads.
pub const VERSION: u32 = 2;

/// Where every file has its version, behind eight bytes of magic.
pub(crate) const VERSION_AT: Field = field(8, 4, "version", "2");

/// A named layout, for the document of formats.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub name: &'static str,
    pub bytes: usize,
    pub fields: &'static [Field],
}

pub(crate) fn u32_at(bytes: &[u8], field: Field) -> u32 {
    let part = &bytes[field.at..field.at + 4];
    u32::from_le_bytes(part.try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], field: Field) -> u64 {
    let part = &bytes[field.at..field.at + 8];
    u64::from_le_bytes(part.try_into().expect("eight bytes"))
}

pub(crate) fn u128_at(bytes: &[u8], field: Field) -> u128 {
    let part = &bytes[field.at..field.at + 16];
    u128::from_le_bytes(part.try_into().expect("sixteen bytes"))
}

pub(crate) fn put(bytes: &mut [u8], field: Field, value: &[u8]) {
    bytes[field.at..field.at + field.len].copy_from_slice(value);
}

/// Magic and version, which are checked before any checksum: another version may have another one.
pub(crate) fn check_front(
    file: &str,
    fixed: &[u8],
    needed: usize,
    magic: &[u8; 8],
    what: &'static str,
) -> Result<(), Error> {
    if fixed.len() >= 8 && &fixed[..8] != magic {
        return Err(Error::new(file, 0, Reason::Magic(what)));
    }
    if fixed.len() < needed {
        let (needed, found) = (needed as u64, fixed.len() as u64);
        return Err(Error::new(file, found, Reason::Truncated { needed, found }));
    }
    match u32_at(fixed, VERSION_AT) {
        VERSION => Ok(()),
        other => Err(Error::new(file, 8, Reason::Version(other))),
    }
}
