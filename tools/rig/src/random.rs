//! A small seeded generator (SplitMix64, Steele and others 2014): a printed seed repeats a run.

/// One stream of numbers.
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The seed in the environment variable `STANDFAST_SEED`, else one from the clock; printed, so
    /// that a failure can be repeated.
    pub fn from_environment() -> Random {
        let seed = match std::env::var("STANDFAST_SEED") {
            Ok(text) => text.parse().expect("STANDFAST_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .expect("the clock is past 1970")
                .as_nanos() as u64,
        };
        println!("seed {seed} (repeat with STANDFAST_SEED={seed})");
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. The bias is below 2^-32 for the bounds in use.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below 0");
        self.draw() % bound
    }
}
