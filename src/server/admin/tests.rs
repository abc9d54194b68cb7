//! Codes and bodies of the HTTP side, over a real socket.

use super::*;
use crate::server::listener;
use crate::server::tests::{Server, view};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start() -> (Server, SocketAddr) {
    let server = Server::start();
    let http = listener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = http.local_addr().expect("bound");
    tokio::spawn(serve(server.front.clone(), http));
    (server, address)
}

/// The status line's code, and everything the server sent.
async fn fetch(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    stream.write_all(request.as_bytes()).await.expect("open");
    let mut answer = String::new();
    // A connection that is cut may end in a reset.
    let _ = stream.read_to_string(&mut answer).await;
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or(0), answer)
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    fetch(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn each_role_answers_its_own_checks() {
    let (server, address) = start().await;
    let mut loading = view(1, 2, 3);
    (loading.role, loading.serving) = (Role::Loading, false);
    let mut asynchronous = view(2, 1, 3);
    let mut config = asynchronous.config.as_deref().expect("known").clone();
    config.sync_set.remove(&standfast_wal::NodeId(2));
    asynchronous.config = Some(Arc::new(config));
    let mut promoted = view(1, 1, 4);
    promoted.serving = false;
    let table = [
        (view(1, 1, 3), [200, 200, 200, 503, 503, 503]),
        (promoted, [200, 503, 503, 503, 503, 503]),
        (view(2, 1, 3), [200, 200, 503, 200, 200, 503]),
        (asynchronous, [200, 200, 503, 200, 503, 200]),
        (view(3, 1, 3), [200, 200, 503, 503, 503, 503]),
        (loading, [200, 503, 503, 503, 503, 503]),
    ];
    for (shown, codes) in table {
        let role = shown.role;
        let shown = Arc::new(shown);
        server.shown.send_replace(shown.clone());
        while !Arc::ptr_eq(&server.front.handle.view(), &shown) {
            tokio::task::yield_now().await;
        }
        for ((path, _), code) in CHECKS.iter().zip(codes) {
            let (answered, text) = get(address, path).await;
            assert_eq!(answered, code, "{path} of {role:?}: {text}");
        }
    }
}

#[tokio::test]
async fn metrics_status_and_unknown_paths() {
    let (_server, address) = start().await;
    let (code, metrics) = get(address, "/metrics").await;
    assert_eq!(code, 200);
    let lines = [
        "# TYPE standfast_role gauge\n",
        "standfast_role{role=\"primary\"} 1\n",
        "standfast_peer_up{peer=\"2\"} 1\n",
        "# TYPE standfast_commands_total counter\n",
        "standfast_command_seconds_bucket{le=\"+Inf\"} 0\n",
        "standfast_command_seconds_bucket{le=\"0.0001\"} 0\n",
    ];
    for line in lines {
        assert!(metrics.contains(line), "{line:?} in {metrics}");
    }
    let (code, status) = get(address, "/v1/status").await;
    assert!(code == 200 && status.ends_with("{\"node\":1}"), "{status}");
    assert_eq!(get(address, "/nope").await.0, 404);
    let (code, _) = fetch(
        address,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(code, 405);
}

#[tokio::test]
async fn a_request_without_end_is_cut_off() {
    let (_server, address) = start().await;
    let long = format!(
        "GET /{} HTTP/1.1\r\n",
        "a".repeat(crate::limits::HTTP_REQUEST_BYTES_MAX)
    );
    let (code, _) = fetch(address, &long).await;
    assert!(code == 0 || code >= 400, "{code}");
}
