//! How an input is read: a byte of wishes, then the bytes for the decoder.

/// What the first byte of an input asks for. Each target says which bits it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct How(pub u8);

impl How {
    /// All checksums are made good before the decoder sees the bytes.
    pub const REPAIRED: u8 = 1;
    /// What must agree with other bytes (lengths, chains, places) is made to agree, too.
    pub const ALIGNED: u8 = 2;
    /// The rest is the innermost contents; the frame around it is made by the target.
    pub const INSIDE: u8 = 4;

    pub fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// The bits above the common ones, as a number: which of several decoders, which settings.
    pub fn choice(self) -> u8 {
        self.0 >> 3
    }

    /// The byte that asks for `bits` and for choice `choice`.
    pub const fn of(bits: u8, choice: u8) -> u8 {
        bits | choice << 3
    }
}

/// An input taken apart; `None` for the empty one.
pub fn split(input: &[u8]) -> Option<(How, &[u8])> {
    let (how, rest) = input.split_first()?;
    Some((How(*how), rest))
}

/// An input put together.
pub fn join(how: u8, bytes: &[u8]) -> Vec<u8> {
    let mut input = Vec::with_capacity(1 + bytes.len());
    input.push(how);
    input.extend_from_slice(bytes);
    input
}
