//! HTTP on its own port, read-only: health for load balancers, metrics, status as JSON.
//!
//! Paths and codes of the role checks are Patroni's, so that its HAProxy and Kubernetes recipes
//! fit: 200 where the node is what the path says and serves, else 503.

mod connection;
mod metrics;

use super::Front;
use crate::node::client::Control;
use crate::node::view::{Role, View};
use crate::state::Reply;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use connection::Bounded;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long `/v1/status` waits for the engine.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves HTTP for ever.
pub async fn serve(front: Arc<Front>, listener: TcpListener) -> io::Result<()> {
    let connections_max = front.settings.http_connections_max;
    axum::serve(Bounded::new(listener, connections_max), router(front)).await
}

fn router(front: Arc<Front>) -> Router {
    /// Answers by what `is_so` says of the view.
    async fn check(front: Arc<Front>, is_so: fn(&View) -> bool) -> Response {
        let view = front.handle.view();
        let code = if is_so(&view) {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (
            code,
            [(header::CONTENT_TYPE, "application/json")],
            summary(&view),
        )
            .into_response()
    }
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status));
    for (path, is_so) in CHECKS {
        router = router.route(path, get(move |State(front)| check(front, is_so)));
    }
    router
        .fallback(async || (StatusCode::NOT_FOUND, NOT_FOUND))
        .with_state(front)
}

const NOT_FOUND: &str = "not here; there are /metrics /healthz /readyz /primary /backup /sync \
                         /async /v1/status\n";

type Check = (&'static str, fn(&View) -> bool);

const CHECKS: [Check; 6] = [
    // The process runs and its engine shows itself.
    ("/healthz", |_| true),
    ("/readyz", is_ready),
    ("/primary", |view| view.is_primary() && view.serving),
    ("/backup", is_serving_backup),
    ("/sync", |view| {
        is_serving_backup(view) && view.is_synchronous(view.node)
    }),
    ("/async", |view| {
        is_serving_backup(view) && !view.is_synchronous(view.node)
    }),
];

/// Does what its role is for. A witness is ready once it knows the cluster.
fn is_ready(view: &View) -> bool {
    match view.role {
        Role::Witness => view.config.is_some(),
        Role::Primary | Role::Backup => view.serving,
        Role::Candidate | Role::Loading => false,
    }
}

fn is_serving_backup(view: &View) -> bool {
    view.role == Role::Backup && view.serving
}

fn summary(view: &View) -> String {
    let summary = serde_json::json!({
        "node": view.node.0,
        "role": view.role.name(),
        "serving": view.serving,
        "generation": view.history.generation,
        "epoch": view.epoch.0,
        "primary": view.primary.map(|id| id.0),
        "applied_lsn": view.applied.0,
    });
    format!("{summary}\n")
}

async fn metrics(State(front): State<Arc<Front>>) -> Response {
    let text = metrics::text(&front, &front.handle.view());
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

async fn status(State(front): State<Arc<Front>>) -> Response {
    let (code, body) = match front.ask(Control::Status, STATUS_TIMEOUT).await {
        Reply::Bulk(json) => (StatusCode::OK, Body::from(json)),
        Reply::Error(text) => {
            let error = serde_json::json!({ "error": String::from_utf8_lossy(&text) });
            (
                StatusCode::SERVICE_UNAVAILABLE,
                Body::from(error.to_string()),
            )
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, Body::from("{}")),
    };
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests;
