//! What answers while the manager does not start the proxy any more: the last resort, in a process of its own.
//!
//! It takes the port, answers `/health` and `/v1/models`, and holds each request for half a minute before it says how to
//! recover, so that a turn outlives the time it takes a person to do so. Starting the socket again stops it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    health::memory_bytes,
    path::normalise,
    reply::Answer,
    serve::{check_origin, connection, error_answer, json_answer, models},
    service::Service,
};
use crate::{host::manager::Manager, model::failure::FailureKind};

/// How long a request is held: the client then waits as long again, and ten of its tries last ten minutes.
const HOLD: Duration = Duration::from_secs(30);
/// After the stop, answers get this long to leave.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

const RECOVERY: &str = "codex-proxy crashed six times in ten minutes, so it is not started again. Run `codex-proxyctl \
                        recover` to try now; `codex-proxyctl logs` shows why it crashed. This turn goes on by itself \
                        once the proxy is back.";

/// Answers on `listener` until `stop`.
pub async fn serve(service: Arc<Service>, listener: TcpListener, mut stop: mpsc::Receiver<()>, manager: Manager) {
    let (stopping, watching) = watch::channel(false);
    let mut connections = JoinSet::new();
    manager.ready("Answers for the proxy, which crashed too often. To recover: codex-proxyctl recover");
    loop {
        tokio::select! {
            biased;
            _ = stop.recv() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (service, stopping) = (Arc::clone(&service), watching.clone());
                    connections.spawn(connection(stream, watching.clone(), move |request, _| {
                        respond(Arc::clone(&service), request, stopping.clone())
                    }));
                }
                Err(error) => {
                    warn!(codex_error = %error, "cannot accept a connection, trying again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    stopping.send_replace(true);
    info!(codex_active = connections.len(), "stopping");
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(CLOSE_TIME_MAX, all).await.is_err() {
        warn!("some connections did not take their last bytes");
    }
}

async fn respond(service: Arc<Service>, request: Request<Incoming>, mut stopping: watch::Receiver<bool>) -> Answer {
    let request_id = service.new_request_id();
    if let Err(message) = check_origin(request.headers(), request.uri().host()) {
        return error_answer(StatusCode::FORBIDDEN, "forbidden_origin", &message, &request_id);
    }
    let path = normalise(request.uri().path()).to_owned();
    if path == "/health" {
        return json_answer(StatusCode::OK, service.health(memory_bytes()), &request_id);
    }
    if !service.knows(request.headers().get(header::AUTHORIZATION)) {
        let message = "A bearer token is required: `codex-proxyctl token --port PORT` prints it.";
        return error_answer(StatusCode::UNAUTHORIZED, "invalid_token", message, &request_id);
    }
    if path == "/models" && request.method() == Method::GET {
        return models(&service, request.headers(), &request_id);
    }
    // Held until the stop, which means that the proxy is about to be back, or for as long as seems bearable.
    let held = timeout(HOLD, stopping.wait_for(|stopping| *stopping)).await;
    let retry_after = if held.is_ok() { 1_u64 } else { HOLD.as_secs() };
    let row = FailureKind::OwnLimit.row();
    let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut answer = error_answer(status, "proxy_capped", RECOVERY, &request_id);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    answer
}

/// The address that `codex-proxy.socket` would listen on, out of what `systemctl show --property=Listen` prints:
/// `Listen=127.0.0.1:8459 (Stream)`.
pub fn listen_address(shown: &str) -> Option<SocketAddr> {
    shown
        .lines()
        .filter_map(|line| line.strip_prefix("Listen="))
        .filter_map(|value| value.strip_suffix(" (Stream)"))
        .find_map(|address| address.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_address_is_found() {
        let shown = "Listen=/run/x (Stream)\nListen=127.0.0.1:9000 (Stream)\n";
        assert_eq!(listen_address(shown), Some(SocketAddr::from(([127, 0, 0, 1], 9000))));
        assert_eq!(listen_address("Listen=127.0.0.1:9000 (Datagram)\n"), None);
        assert_eq!(listen_address(""), None);
    }
}
