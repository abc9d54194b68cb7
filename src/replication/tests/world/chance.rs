//! Chance, and how much of it.

/// The world's one source of chance (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end.max(1)
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn wide(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }
}

/// What goes wrong, and how often (per mille).
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub lose: u64,
    pub double: u64,
    /// A message takes up to `slow_ms` instead of `delay_us`.
    pub slow: u64,
    pub slow_ms: u64,
    pub delay_us: u64,
    pub sync_us: u64,
    /// A sync takes up to `slow_ms` longer.
    pub slow_sync: u64,
    /// A message that matters brings misfortune on its sender or receiver, within a few ms.
    pub spite: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        lose: 0,
        double: 0,
        slow: 0,
        slow_ms: 0,
        delay_us: 0,
        sync_us: 0,
        slow_sync: 0,
        spite: 0,
    };
}
