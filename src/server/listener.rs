//! Accepts clients: a socket with a backlog, limits at the door, one session per connection.

use super::{Client, Front, session};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1024;
/// A connection whose other end has gone without a word is noticed after about this long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens a listening socket on every address that `address` resolves to first; port 0 takes a
/// free one. Must be called inside a runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted node takes its port back while old connections are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts clients for ever. Drop the future to stop accepting; sessions go on.
pub async fn serve(front: Arc<Front>, listener: TcpListener) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or memory: accepting again at once would only spin.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Some(refusal) = refusal(&front, &stream, address) {
            front.counters.connections_refused.fetch_add(1, Relaxed);
            // What a fresh socket's buffer does not take is not worth waiting for.
            let _ = stream.try_write(refusal.as_bytes());
            continue;
        }
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%address, %error, "a client's socket refused its options");
            continue;
        }
        let local = stream.local_addr().unwrap_or(address);
        let client = Arc::new(Client::new(front.next_session(), address, local));
        front.counters.connections.fetch_add(1, Relaxed);
        front.clients.add(client.clone());
        tokio::spawn(session::run(front.clone(), client, stream));
    }
}

/// Why a connection is not taken, as the one line it is sent.
fn refusal(front: &Front, stream: &TcpStream, address: SocketAddr) -> Option<String> {
    if front.clients.len() as u64 >= front.tunable.max_clients.load(Relaxed) {
        return Some("-ERR max number of clients reached\r\n".to_string());
    }
    let is_loopback = address.ip().to_canonical().is_loopback();
    if front.tunable.protected.load(Relaxed) != 0 && !is_loopback {
        let local = stream
            .local_addr()
            .map(|local| local.to_string())
            .unwrap_or_default();
        return Some(format!(
            "-DENIED {local} runs in protected mode: without credentials only clients on the same \
             machine are served; CONFIG SET protected-mode no, sent from there, opens it to all\r\n"
        ));
    }
    None
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
