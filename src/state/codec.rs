//! Layout of a logged command: encode, decode, and the list of them that a record carries.
use super::command::Command;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes are not a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the command ends before its last field")]
    Short,
    #[error("command code {0} is not known to this program")]
    Code(u8),
    #[error("a field of the command is out of range")]
    Field,
    #[error("bytes are left behind the command")]
    Rest,
}

impl Command {
    /// Appends the command's bytes.
    pub fn encode(&self, _out: &mut BytesMut) {
        unimplemented!()
    }
    /// Cuts one command off the front.
    pub fn decode(_bytes: &mut Bytes) -> Result<Command, Malformed> {
        unimplemented!()
    }
}

/// Appends one encoded command to a record's payload.
pub fn push(payload: &mut BytesMut, encoded: &[u8]) {
    payload.put_u32_le(u32::try_from(encoded.len()).expect("a command fits a record"));
    payload.put_slice(encoded);
}

/// The encoded commands of a record's payload, in order.
pub fn iter(mut payload: Bytes) -> impl Iterator<Item = Result<Bytes, Malformed>> {
    std::iter::from_fn(move || {
        if payload.is_empty() {
            return None;
        }
        let len = payload.try_get_u32_le().unwrap_or(u32::MAX) as usize;
        if len > payload.len() {
            payload.clear();
            return Some(Err(Malformed::Short));
        }
        Some(Ok(payload.split_to(len)))
    })
}
