//! The product as users meet it: real processes, real disks, kills, pauses, damage, and clients
//! that nobody here wrote. One test binary; `rig` has the processes and the checked load.
//!
//! The clusters run one after the other: each wants both cores of a small machine, and a cluster
//! that is starved by its neighbour elects new primaries for no fault of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of real processes read clocks and start threads; the ban is for pure rooms"
)]

#[cfg(test)]
mod archive;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod differing;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod failover;
mod ledger;
#[cfg(test)]
mod lost_key;
#[cfg(test)]
mod own_client;
#[cfg(test)]
mod partition;
#[cfg(test)]
mod protection;
#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod restart_all;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod runbooks;
#[cfg(test)]
mod site_loss;
#[cfg(test)]
mod smoke;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod switchover;

#[cfg(test)]
mod turn {
    //! Whose turn it is to run a cluster, and with which binary.

    use rig::{Cluster, Spec};
    use std::ops::{Deref, DerefMut};
    use std::path::PathBuf;
    use std::sync::{Mutex, MutexGuard};

    static TURN: Mutex<()> = Mutex::new(());

    /// A cluster and the right to run one. Fields are dropped in order: the turn ends last.
    pub struct Turn {
        cluster: Cluster,
        _guard: MutexGuard<'static, ()>,
    }

    /// Waits for the turn and starts a cluster.
    pub fn start(spec: &Spec) -> Turn {
        let guard = wait();
        Turn {
            cluster: Cluster::start(&binary(), spec),
            _guard: guard,
        }
    }

    /// Waits for the turn only. A test that failed in its turn does not fail the others.
    pub fn wait() -> MutexGuard<'static, ()> {
        TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The binary under test: what cargo built, or another one from `STANDFAST_BINARY`.
    pub fn binary() -> PathBuf {
        match std::env::var_os("STANDFAST_BINARY") {
            Some(path) => path.into(),
            None => env!("CARGO_BIN_EXE_standfast").into(),
        }
    }

    /// A count from the environment, for tests that can run longer than CI has time for.
    pub fn count(variable: &str, default: usize) -> usize {
        match std::env::var(variable) {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
            Err(_) => default,
        }
    }

    impl Deref for Turn {
        type Target = Cluster;
        fn deref(&self) -> &Cluster {
            &self.cluster
        }
    }

    impl DerefMut for Turn {
        fn deref_mut(&mut self) -> &mut Cluster {
            &mut self.cluster
        }
    }
}
