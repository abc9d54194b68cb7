//! Free port ranges: every cluster gets its own, so no test depends on fixed ports or neighbours.

use std::fs::File;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports of one node: client at base+10i, peer +1, http +2, proxy +3.
pub const PER_NODE: u16 = 10;

/// Ports of one range: room for ten nodes.
pub const PER_RANGE: u16 = 10 * PER_NODE;

/// Ranges lie below 32768, where Linux starts handing out ports of outgoing connections.
const LOWEST: u16 = 11_000;
const RANGES: u16 = 210;

/// A range held by this process until it is dropped.
pub struct Range {
    pub base: u16,
    /// Locked while the range is in use, so that two test processes never share one.
    _claim: File,
}

/// Finds a range that no other test process has claimed and whose every port can be bound.
pub fn claim() -> Range {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(RANGES)) as u16;
    for _ in 0..RANGES {
        let at = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % RANGES;
        let base = LOWEST + at * PER_RANGE;
        if let Some(claim) = lock(base) {
            let mut ports = base..base + PER_RANGE;
            if ports.all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
                return Range {
                    base,
                    _claim: claim,
                };
            }
        }
    }
    panic!("no {PER_RANGE} free ports in a row from {LOWEST} on");
}

/// The lock ends with the process that holds it, however it ends.
fn lock(base: u16) -> Option<File> {
    let dir = std::env::temp_dir().join("standfast-rig-ports");
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let file = File::create(dir.join(base.to_string())).expect("a claim file can be made");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .ok()
        .map(|()| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_never_share_a_port() {
        let (one, two) = (claim(), claim());
        assert!(one.base.abs_diff(two.base) >= PER_RANGE);
    }
}
