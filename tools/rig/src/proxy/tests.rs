//! The proxy itself, between a made-up node that repeats what it hears and a dialler.

use super::*;
use crate::poll::until;
use std::io::Write;
use std::sync::atomic::AtomicU64;

const SOON: Duration = Duration::from_secs(10);
const BRIEF: Duration = Duration::from_millis(100);

/// Listens where node 7 would; what it hears is counted, and repeated to whoever said it.
struct Echo {
    port: u16,
    heard: Arc<AtomicU64>,
}

impl Echo {
    fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(AtomicU64::new(0));
        let counter = heard.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || {
                    let mut byte = [0; 1];
                    while stream.read_exact(&mut byte).is_ok() {
                        counter.fetch_add(1, Ordering::Relaxed);
                        let _ = stream.write_all(&byte);
                    }
                });
            }
        });
        Echo { port, heard }
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }
}

/// The first frame of a node with this number.
fn hello(from: u8) -> Vec<u8> {
    let mut head = vec![0, 1, 4];
    head.extend(b"name");
    head.extend([0xFF, 0xFF, 0x03, from, 9, 9, 7]);
    let mut frame = (head.len() as u32).to_le_bytes().to_vec();
    frame.extend([0; 8]);
    frame.extend(head);
    frame
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A proxy before an echo, and a connection through it on which node 3 has said hello.
fn greeted() -> (Echo, Proxy, TcpStream, u64) {
    let echo = Echo::start();
    let told = free_port();
    let proxy = Proxy::start(&[
        Port {
            node: 7,
            told,
            real: echo.port,
        },
        // Nobody is there.
        Port {
            node: 3,
            told: free_port(),
            real: free_port(),
        },
    ]);
    let mut stream = dial(told);
    let greeting = hello(3);
    stream.write_all(&greeting).unwrap();
    let mut back = vec![0; greeting.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, greeting);
    (echo, proxy, stream, greeting.len() as u64)
}

fn dial(port: u16) -> TcpStream {
    let stream = until("the proxy's port is open", SOON, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn hears(stream: &mut TcpStream, expected: &[u8]) {
    let mut back = vec![0; expected.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, expected);
}

fn hears_nothing(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(BRIEF)).unwrap();
    let error = stream.read(&mut [0; 1]).expect_err("nothing gets through");
    assert!(crate::resp::is_timeout(&error), "{error}");
    stream.set_read_timeout(Some(SOON)).unwrap();
}

fn hears_the_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = stream.read_to_end(&mut rest);
    assert!(end.is_err() || rest.is_empty(), "{rest:?} before the end");
}

#[test]
fn what_is_held_comes_late_and_whole() {
    let (echo, proxy, mut stream, before) = greeted();
    proxy.set(3, 7, Mode::Hold);
    stream.write_all(b"late").unwrap();
    hears_nothing(&mut stream);
    assert_eq!(echo.heard(), before, "nothing arrived");
    proxy.heal();
    hears(&mut stream, b"late");
}

#[test]
fn one_direction_is_cut_while_the_other_passes() {
    let (echo, proxy, mut stream, before) = greeted();
    proxy.set(7, 3, Mode::Hold);
    stream.write_all(b"there").unwrap();
    until("the bytes arrive", SOON, || {
        (echo.heard() == before + 5).then_some(())
    });
    hears_nothing(&mut stream);
    proxy.heal();
    hears(&mut stream, b"there");
}

#[test]
fn what_vanished_never_comes_and_its_connection_breaks_with_the_heal() {
    let (echo, proxy, mut stream, before) = greeted();
    proxy.set(3, 7, Mode::Vanish);
    stream.write_all(b"gone").unwrap();
    hears_nothing(&mut stream);
    proxy.heal();
    hears_the_end(&mut stream);
    assert_eq!(echo.heard(), before);
}

#[test]
fn a_connection_breaks_at_the_byte_that_was_asked_for() {
    let (echo, proxy, mut stream, before) = greeted();
    proxy.set(3, 7, Mode::BreakAfter(3));
    stream.write_all(b"abcdef").unwrap();
    // The echo of the last bytes may be overtaken by the end of the connection.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(b"abc".starts_with(&rest[..]), "{rest:?}");
    until("the bytes before it arrive", SOON, || {
        (echo.heard() >= before + 3).then_some(())
    });
    assert_eq!(echo.heard(), before + 3);
}

#[test]
fn delay_and_throttle_let_everything_through_later() {
    let (_echo, proxy, mut stream, _) = greeted();
    proxy.set(3, 7, Mode::Delay(BRIEF));
    let sent = Instant::now();
    stream.write_all(b"slow").unwrap();
    hears(&mut stream, b"slow");
    assert!(sent.elapsed() >= BRIEF, "{:?}", sent.elapsed());
    // The first 2000 bytes are free, those behind them wait for their time.
    proxy.set(3, 7, Mode::Throttle(20_000));
    let sent = Instant::now();
    for _ in 0..2 {
        stream.write_all(&[b'x'; 2000]).unwrap();
        hears(&mut stream, &[b'x'; 2000]);
    }
    assert!(sent.elapsed() >= BRIEF, "{:?}", sent.elapsed());
}

#[test]
fn a_dead_nodes_port_refuses_and_opens_with_the_node() {
    let (told, real) = (free_port(), free_port());
    let _proxy = Proxy::start(&[Port {
        node: 1,
        told,
        real,
    }]);
    let refused = TcpStream::connect(("127.0.0.1", told)).expect_err("nobody listens behind it");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let node = TcpListener::bind(("127.0.0.1", real)).unwrap();
    dial(told);
    drop(node);
    until("the port refuses again", SOON, || {
        let again = TcpStream::connect(("127.0.0.1", told)).err()?;
        (again.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    });
}
