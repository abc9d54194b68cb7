//! One direction of one proxied connection: reads, asks the board, writes.

use crate::proxy::{Board, Life, Verdict, Way};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// Small enough that a throttled direction flows and does not come in gulps.
const CHUNK: usize = 16 * 1024;

/// Carries bytes until either side ends or the board breaks the connection; `first` was read
/// before.
pub fn run(
    board: &Board,
    way: Way,
    life: &Life,
    mut from: TcpStream,
    mut to: TcpStream,
    first: &[u8],
) {
    let mut chunk = vec![0; CHUNK];
    let mut next = Next::Read;
    if !first.is_empty() {
        next = pass(board, way, life, &mut to, first);
    }
    while next == Next::Read {
        next = match from.read(&mut chunk) {
            Ok(0) | Err(_) => {
                board.wait_open(way, life);
                Next::End
            }
            Ok(count) => pass(board, way, life, &mut to, &chunk[..count]),
        };
    }
    if next == Next::Break {
        // An end and no reset: a reset would take back bytes that were let through. The receiver
        // closes its side, and that ends the other direction.
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Both);
    } else {
        life.end();
    }
}

#[derive(PartialEq)]
enum Next {
    Read,
    End,
    Break,
}

fn pass(board: &Board, way: Way, life: &Life, to: &mut TcpStream, bytes: &[u8]) -> Next {
    match board.judge(way, life, bytes.len()) {
        Verdict::Forward if to.write_all(bytes).is_ok() => Next::Read,
        Verdict::Forward => Next::End,
        Verdict::Swallow => Next::Read,
        Verdict::Break(count) => {
            let _ = to.write_all(&bytes[..count]);
            Next::Break
        }
    }
}
