//! Which accounts, or keys, are drawn how often.

use rig::Random;

/// Draws of the most skewed kind are made before the run, because each takes long.
const ZIPF_DRAWS: usize = 1 << 20;
/// As YCSB has it.
const ZIPF_EXPONENT: f64 = 0.99;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// All alike.
    Uniform,
    /// Every transfer credits the same account.
    Hot,
    /// The n-th is drawn n^0.99 times less often than the first.
    Zipf,
}

pub struct Skew {
    kind: Kind,
    count: u64,
    random: Random,
    zipf: Vec<u32>,
    at: usize,
}

impl Skew {
    pub fn new(kind: Kind, count: u64) -> Skew {
        assert!((2..=1 << 32).contains(&count), "no pair among {count}");
        let mut random = Random::new(1);
        let zipf = match kind {
            Kind::Zipf => zipf(count, &mut random),
            Kind::Uniform | Kind::Hot => Vec::new(),
        };
        Skew {
            kind,
            count,
            random,
            zipf,
            at: 0,
        }
    }

    #[cfg(test)]
    pub fn uniform(count: u64) -> Skew {
        Skew::new(Kind::Uniform, count)
    }

    /// Two different ones.
    pub fn pair(&mut self) -> (u64, u64) {
        let (first, second) = match self.kind {
            Kind::Uniform => {
                let draw = self.random.draw();
                (self.scale(draw >> 32), self.scale(draw & 0xffff_ffff))
            }
            Kind::Hot => {
                let draw = self.random.draw();
                (self.scale(draw >> 32), 0)
            }
            Kind::Zipf => (self.next_zipf(), self.next_zipf()),
        };
        if first != second {
            (first, second)
        } else {
            ((first + 1) % self.count, second)
        }
    }

    /// A number below 2^32 as one below the count: by a product, a remainder takes longer.
    fn scale(&self, draw: u64) -> u64 {
        (draw * self.count) >> 32
    }

    fn next_zipf(&mut self) -> u64 {
        self.at = (self.at + 1) % self.zipf.len();
        u64::from(self.zipf[self.at])
    }
}

/// Draws by the inverse of the sums.
fn zipf(count: u64, random: &mut Random) -> Vec<u32> {
    let mut sums = Vec::with_capacity(count as usize);
    let mut sum = 0.0;
    for rank in 1..=count {
        sum += (rank as f64).powf(-ZIPF_EXPONENT);
        sums.push(sum);
    }
    let draw = |_| {
        let at = (random.draw() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        sums.partition_point(|upto| *upto <= at) as u32
    };
    (0..ZIPF_DRAWS).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_of_the_first(kind: Kind) -> f64 {
        let mut skew = Skew::new(kind, 1000);
        let mut hits = 0;
        for _ in 0..100_000 {
            let (debit, credit) = skew.pair();
            assert!(debit < 1000 && credit < 1000 && debit != credit);
            hits += u32::from(debit == 0 || credit == 0);
        }
        f64::from(hits) / 100_000.0
    }

    #[test]
    fn each_kind_favours_the_first_as_it_says() {
        assert!((0.001..0.003).contains(&share_of_the_first(Kind::Uniform)));
        assert_eq!(share_of_the_first(Kind::Hot), 1.0);
        // Twice the share of rank 1, which is one in the 7.8 of the sum of all.
        assert!((0.2..0.28).contains(&share_of_the_first(Kind::Zipf)));
    }
}
