//! A fault proxy on loopback: everything nodes say to each other passes through it, and each
//! direction between two nodes can be cut, held back, slowed down or broken by itself.
//!
//! Each node dials every other and sends only on the connection it has dialled; who dials stands in
//! the first frame, the Hello (docs/protocol.md). The accepting side says nothing but its own
//! Hello, so the direction "from A to B" is A's bytes on A's connection and A's answer on B's.
//!
//! A node's proxy port is open exactly while the node's own port is: a dead process must refuse,
//! because nodes draw conclusions from that.

use crate::poll::{between_attempts, eventually};
use crate::pump;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long connecting to a node and hearing its Hello may take.
const GREETING: Duration = Duration::from_secs(2);

/// The number of a node.
pub type Id = u32;

/// One direction: from whom, to whom.
pub type Way = (Id, Id);

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// They pass.
    Pass,
    /// They are kept, and delivered late once they may pass: what TCP makes of lost packets.
    Hold,
    /// They are swallowed while the connection seems to stand. A stream with a hole cannot go on:
    /// such connections break when the mode changes.
    Vanish,
    /// Connections break as soon as they carry a byte this way.
    Break,
    /// The connection that carries the byte after so many breaks before it; then all pass.
    BreakAfter(u64),
    /// Each read's worth of bytes is delivered this much later.
    Delay(Duration),
    /// So many bytes a second, all connections of the direction together.
    Throttle(u64),
}

impl Mode {
    /// Whether nothing gets through.
    pub fn is_cut(self) -> bool {
        matches!(self, Mode::Hold | Mode::Vanish | Mode::Break)
    }
}

/// What is to be done with bytes that were read.
#[derive(PartialEq, Debug)]
pub enum Verdict {
    Forward,
    Swallow,
    /// Forward so many of them, then break the connection.
    Break(usize),
}

/// What applies to each direction now; all pumps look at it.
#[derive(Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    modes: BTreeMap<Way, Mode>,
    /// When a throttled direction may carry its next byte.
    free_at: BTreeMap<Way, Instant>,
    lives: Vec<Weak<Life>>,
}

impl State {
    fn mode(&self, way: Way) -> Mode {
        self.modes.get(&way).copied().unwrap_or(Mode::Pass)
    }
}

/// One connection through the proxy.
pub struct Life {
    dialler: TcpStream,
    node: TcpStream,
    /// Bytes of it were swallowed this way or that.
    torn: AtomicBool,
    dead: AtomicBool,
}

impl Life {
    /// Ends it both ways, for both sides; whoever reads or writes it notices.
    pub fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
        let _ = self.dialler.shutdown(std::net::Shutdown::Both);
        let _ = self.node.shutdown(std::net::Shutdown::Both);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, ways: &[Way], mode: Mode) {
        let mut state = self.lock();
        for way in ways {
            state.modes.insert(*way, mode);
        }
        state.lives.retain(|life| {
            let Some(life) = life.upgrade() else {
                return false;
            };
            if life.torn.load(Ordering::Relaxed) && mode != Mode::Vanish {
                life.end();
            }
            !life.is_dead()
        });
        drop(state);
        self.changed.notify_all();
    }

    /// Decides over `count` bytes that were read, waiting where they have to wait.
    pub fn judge(&self, way: Way, life: &Life, count: usize) -> Verdict {
        let mut state = self.lock();
        let read_at = Instant::now();
        loop {
            if life.is_dead() || self.stop.load(Ordering::Relaxed) {
                return Verdict::Break(0);
            }
            let mode = state.mode(way);
            if life.torn.load(Ordering::Relaxed) && mode != Mode::Vanish {
                return Verdict::Break(0);
            }
            let until = match mode {
                Mode::Pass => return Verdict::Forward,
                Mode::Break => return Verdict::Break(0),
                Mode::Vanish => {
                    life.torn.store(true, Ordering::Relaxed);
                    return Verdict::Swallow;
                }
                Mode::BreakAfter(left) if left < count as u64 => {
                    state.modes.insert(way, Mode::Pass);
                    return Verdict::Break(left as usize);
                }
                Mode::BreakAfter(left) => {
                    state
                        .modes
                        .insert(way, Mode::BreakAfter(left - count as u64));
                    return Verdict::Forward;
                }
                Mode::Hold => read_at + Duration::from_secs(3600),
                Mode::Delay(time) => read_at + time,
                Mode::Throttle(_) => state.free_at.get(&way).copied().unwrap_or(read_at),
            };
            let now = Instant::now();
            if now < until {
                let wait = (until - now).min(Duration::from_millis(100));
                state = match self.changed.wait_timeout(state, wait) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                };
                continue;
            }
            if let Mode::Throttle(rate) = mode {
                let takes = Duration::from_secs_f64(count as f64 / rate.max(1) as f64);
                state.free_at.insert(way, now + takes);
            }
            return Verdict::Forward;
        }
    }

    /// Waits while nothing gets through this way: the end of a connection is news, too.
    pub fn wait_open(&self, way: Way, life: &Life) {
        let mut state = self.lock();
        while state.mode(way).is_cut() && !life.is_dead() && !self.stop.load(Ordering::Relaxed) {
            let wait = Duration::from_millis(100);
            state = match self.changed.wait_timeout(state, wait) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Where one node is reached, and where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    pub node: Id,
    /// What others are told.
    pub told: u16,
    pub real: u16,
}

/// The proxies of one cluster.
pub struct Proxy {
    board: Arc<Board>,
    nodes: Vec<Id>,
    acceptors: Vec<(u16, JoinHandle<()>)>,
}

impl Proxy {
    /// Stands between the nodes of these ports until it is dropped.
    pub fn start(ports: &[Port]) -> Proxy {
        let board = Arc::new(Board::default());
        let acceptors = ports
            .iter()
            .map(|port| {
                let (board, port) = (board.clone(), *port);
                (port.told, std::thread::spawn(move || accept(&board, port)))
            })
            .collect();
        Proxy {
            board,
            nodes: ports.iter().map(|port| port.node).collect(),
            acceptors,
        }
    }

    /// What happens to everything that `from` says to `to`.
    pub fn set(&self, from: Id, to: Id, mode: Mode) {
        self.board.set(&[(from, to)], mode);
    }

    /// What happens between two nodes, both ways.
    pub fn between(&self, one: Id, other: Id, mode: Mode) {
        self.board.set(&[(one, other), (other, one)], mode);
    }

    /// What happens to everything that a node says, to anybody.
    pub fn from_node(&self, node: Id, mode: Mode) {
        let others = self.nodes.iter().filter(|other| **other != node);
        let ways: Vec<Way> = others.map(|other| (node, *other)).collect();
        self.board.set(&ways, mode);
    }

    /// What happens to everything that anybody says to a node.
    pub fn to_node(&self, node: Id, mode: Mode) {
        let others = self.nodes.iter().filter(|other| **other != node);
        let ways: Vec<Way> = others.map(|other| (*other, node)).collect();
        self.board.set(&ways, mode);
    }

    /// Parts a node from all others, both ways.
    pub fn isolate(&self, node: Id, mode: Mode) {
        self.from_node(node, mode);
        self.to_node(node, mode);
    }

    /// Everything passes again.
    pub fn heal(&self) {
        let ways: Vec<Way> = self.board.lock().modes.keys().copied().collect();
        self.board.set(&ways, Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::Relaxed);
        for life in self.board.lock().lives.iter().filter_map(Weak::upgrade) {
            life.end();
        }
        self.board.changed.notify_all();
        for (port, acceptor) in self.acceptors.drain(..) {
            // Wakes one that waits for a connection.
            let _ = TcpStream::connect(("127.0.0.1", port));
            let _ = acceptor.join();
        }
    }
}

/// One node's port: open while the node's own is.
fn accept(board: &Arc<Board>, port: Port) {
    let told = SocketAddr::from(([127, 0, 0, 1], port.told));
    let real = SocketAddr::from(([127, 0, 0, 1], port.real));
    let connect = || TcpStream::connect_timeout(&real, GREETING);
    while !board.stop.load(Ordering::Relaxed) {
        if eventually(Duration::from_millis(100), || connect().ok()).is_none() {
            continue;
        }
        let Ok(listener) = TcpListener::bind(told) else {
            between_attempts();
            continue;
        };
        while let Ok((dialler, _)) = listener.accept() {
            if board.stop.load(Ordering::Relaxed) {
                return;
            }
            match connect() {
                Ok(node) => {
                    let board = board.clone();
                    std::thread::spawn(move || carry(&board, port.node, dialler, node));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                Err(_) => {}
            }
        }
    }
}

/// Carries one connection to its end.
fn carry(board: &Arc<Board>, to: Id, mut dialler: TcpStream, node: TcpStream) {
    let greeted = dialler
        .set_nodelay(true)
        .and_then(|()| node.set_nodelay(true))
        .and_then(|()| dialler.set_read_timeout(Some(GREETING)))
        .and_then(|()| read_hello(&mut dialler))
        .and_then(|hello| dialler.set_read_timeout(None).map(|()| hello));
    // Whoever probes the port says nothing, and is let go.
    let Ok((from, hello)) = greeted else {
        return;
    };
    let (Ok(from_dialler), Ok(to_dialler)) = (dialler.try_clone(), dialler.try_clone()) else {
        return;
    };
    let (Ok(from_node), Ok(to_node)) = (node.try_clone(), node.try_clone()) else {
        return;
    };
    let life = Arc::new(Life {
        dialler,
        node,
        torn: AtomicBool::new(false),
        dead: AtomicBool::new(false),
    });
    board.lock().lives.push(Arc::downgrade(&life));
    let answers = {
        let (board, life) = (board.clone(), life.clone());
        std::thread::spawn(move || {
            pump::run(&board, (to, from), &life, from_node, to_dialler, &[]);
        })
    };
    pump::run(board, (from, to), &life, from_dialler, to_node, &hello);
    let _ = answers.join();
}

/// Reads the first frame of a connection; answers whose it is, and its bytes.
fn read_hello(stream: &mut TcpStream) -> io::Result<(Id, Vec<u8>)> {
    const HEADER: usize = 12;
    const MOST: usize = 64 * 1024;
    let mut bytes = vec![0; HEADER];
    stream.read_exact(&mut bytes)?;
    let head = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if head > MOST {
        return Err(io::Error::other("the first frame is no Hello"));
    }
    bytes.resize(HEADER + head, 0);
    stream.read_exact(&mut bytes[HEADER..])?;
    let from = sender(&bytes[HEADER..])
        .ok_or_else(|| io::Error::other("the first frame is no Hello of this version"))?;
    Ok((from, bytes))
}

/// The sender in a Hello: a tag (0), the version, the cluster's name with its length before it,
/// the cluster's id, then the sender; numbers have seven bits a byte, the lowest first.
fn sender(mut head: &[u8]) -> Option<Id> {
    if number(&mut head)? != 0 {
        return None;
    }
    number(&mut head)?;
    let name = usize::try_from(number(&mut head)?).ok()?;
    head = head.get(name..)?;
    number(&mut head)?;
    number(&mut head)?.try_into().ok()
}

fn number(bytes: &mut &[u8]) -> Option<u128> {
    let mut value = 0;
    for at in 0..19 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u128::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
