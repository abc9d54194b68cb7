//! Random identities, from the system's generator.

use super::exit::{ExitCode, Failure};
use rustix::rand::{GetRandomFlags, getrandom};

/// 128 random bits: an identity that no other will ever have.
pub fn id() -> Result<u128, Failure> {
    let mut bytes = [0_u8; 16];
    let got = getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| {
        Failure::new(
            ExitCode::Failed,
            format!("the system gives no random bytes: {error}"),
        )
    })?;
    // Up to 256 bytes come whole or not at all.
    assert_eq!(got, bytes.len(), "getrandom gave {got} of 16 bytes");
    Ok(u128::from_le_bytes(bytes))
}
