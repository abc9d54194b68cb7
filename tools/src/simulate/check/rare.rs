//! What happens seldom, counted: a batch of runs that never saw it proves too little.

/// One row per thing to be reached, with its name for people; makes `Rare`, `RARE` and `Counts`.
macro_rules! rare {
    ($($variant:ident $name:literal;)*) => {
        #[derive(Clone, Copy)]
        pub enum Rare { $($variant,)* }

        /// Names, by place in [`Counts`].
        pub const RARE: &[&str] = &[$($name,)*];

        /// How often each of [`RARE`] was seen.
        #[derive(Clone, PartialEq, Debug, serde::Serialize)]
        pub struct Counts(pub Vec<u64>);

        impl Default for Counts {
            fn default() -> Counts {
                Counts(vec![0; RARE.len()])
            }
        }

        impl Counts {
            pub fn note(&mut self, rare: Rare) {
                self.0[rare as usize] += 1;
            }

            /// So many more of each.
            pub fn add(&mut self, more: &Counts) {
                for (sum, more) in self.0.iter_mut().zip(&more.0) {
                    *sum += more;
                }
            }
        }
    };
}

pub(super) use rare;
