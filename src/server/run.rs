//! One whole node: its engine, its clients' port, its HTTP port, on one thread.

use super::{Front, admin, listener};
use crate::config::Config;
use crate::node::open::Opening;
use crate::node::run::{self, ServeError};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Runs a node until `stop` completes or it halts. The client port answers LOADING while the data
/// directory is read; the peer port opens when it has been.
pub fn serve(
    config: Config,
    opening: Opening,
    stop: impl FnOnce() -> std::io::Result<std::pin::Pin<Box<dyn Future<Output = ()>>>>,
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ServeError::Halted(format!("cannot start: {error}")))?;
    runtime.block_on(async move {
        let stop = stop().map_err(|error| ServeError::Halted(format!("signals: {error}")))?;
        let clients = listen(&config.client_listen.to_string(), "client_listen").await?;
        let http = listen(&config.http_listen.to_string(), "http_listen").await?;
        let (handle, door) = run::door(&config);
        let front = Front::new(handle, &config);
        tokio::spawn(listener::serve(front.clone(), clients));
        tokio::spawn(async move {
            if let Err(error) = admin::serve(front, http).await {
                tracing::error!(%error, "HTTP has ended");
            }
        });
        run::run(config, opening, door, stop).await
    })
}

async fn listen(address: &str, setting: &str) -> Result<TcpListener, ServeError> {
    let refuse = |error: &dyn std::fmt::Display| {
        ServeError::Address(format!(
            "cannot listen on {address}: {error}; stop what uses it or change {setting}"
        ))
    };
    let mut found = tokio::net::lookup_host(address)
        .await
        .map_err(|error| refuse(&error))?;
    let resolved: SocketAddr = found.next().ok_or_else(|| refuse(&"no such host"))?;
    listener::bind(resolved).map_err(|error| refuse(&error))
}
