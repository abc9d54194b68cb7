//! Random numbers from the system: tokens that nobody else draws, and ids of records.

use std::sync::atomic::{AtomicU64, Ordering};

/// ONCE tokens of one client: a random part, and a number for each call.
#[derive(Debug)]
pub struct Tokens {
    client: u128,
    calls: AtomicU64,
}

impl Tokens {
    pub fn new() -> Tokens {
        Tokens {
            client: random(),
            calls: AtomicU64::new(0),
        }
    }

    pub fn draw(&self) -> String {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        format!("{:032x}.{call:x}", self.client)
    }
}

/// 128 random bits.
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(got, Ok(bytes.len()), "the system has no random numbers");
    u128::from_le_bytes(bytes)
}
