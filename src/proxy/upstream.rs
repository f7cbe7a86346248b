//! Sends a request to a provider and yields the bytes of its answer, or a typed failure.

use std::{error::Error as StdError, io::Write, sync::OnceLock, time::Duration};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rustls::CertificateError;
use url::Url;

use crate::{
    config::base_url,
    model::failure::{Failure, FailureKind},
};

/// What we call ourselves to providers.
pub const USER_AGENT: &str = concat!("codex-proxy/", env!("CARGO_PKG_VERSION"));

/// Idle connections are kept this long for the next step of a session.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Of an error's body this much is read.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// An error's body may take this long after its head.
const ERROR_BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections to all providers. Each set is made at its first use: reading the system's certificates takes longer
/// than everything else at start, and a local server needs none.
#[derive(Debug)]
pub struct Upstreams {
    connect_time_max: Duration,
    /// For the world outside, through the environment's proxy if it names one.
    outside: OnceLock<reqwest::Client>,
    /// For servers on this machine, which no proxy elsewhere could reach.
    here: OnceLock<reqwest::Client>,
}

impl Upstreams {
    /// Connects to nothing yet.
    pub fn new(connect_time_max: Duration) -> Self {
        // TLS by *ring*, which builds with nothing but a C compiler. A second call finds it installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        Self { connect_time_max, outside: OnceLock::new(), here: OnceLock::new() }
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Failure> {
        let here = base_url::is_loopback(url);
        let cell = if here { &self.here } else { &self.outside };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_time_max)
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true);
        let client = if here { builder.no_proxy() } else { builder }.build().map_err(|error| {
            Failure::new(FailureKind::Operator, format!("Connections to providers cannot be set up: {error}."))
        })?;
        Ok(cell.get_or_init(|| client))
    }

    /// Sends one request and waits for the head of its answer, at most `head_time_max`.
    pub async fn send(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        head_time_max: Duration,
    ) -> Result<Answer, Failure> {
        let sending = self.client(url)?.post(url.clone()).headers(headers).body(body);
        begin(url, sending, head_time_max).await
    }

    /// Asks for something and waits for the head of the answer, at most `head_time_max`.
    pub async fn get(&self, url: &Url, headers: HeaderMap, head_time_max: Duration) -> Result<Answer, Failure> {
        let sending = self.client(url)?.get(url.clone()).headers(headers);
        begin(url, sending, head_time_max).await
    }
}

async fn begin(url: &Url, request: reqwest::RequestBuilder, head_time_max: Duration) -> Result<Answer, Failure> {
    let host = url.host_str().unwrap_or("the provider").to_owned();
    let response = match tokio::time::timeout(head_time_max, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(transport_failure(&error, &host)),
        Err(_) => {
            let waited = head_time_max.as_secs_f32();
            let message = format!("{host} accepted the request but did not begin to answer for {waited} s.");
            return Err(Failure::new(FailureKind::Timeout, message));
        }
    };
    Answer::new(response, host)
}

/// The head of an answer and its body as it comes.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The answer's headers.
    pub headers: HeaderMap,
    host: String,
    response: reqwest::Response,
    /// Some hosts compress although nobody asked them to.
    gunzip: Option<MultiGzDecoder<Vec<u8>>>,
}

impl Answer {
    fn new(response: reqwest::Response, host: String) -> Result<Self, Failure> {
        let gunzip = match response.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => None,
            Some(b"gzip" | b"x-gzip") => Some(MultiGzDecoder::new(Vec::new())),
            Some(other) => {
                let name: String = String::from_utf8_lossy(other).chars().take(40).collect();
                let message = format!("{host} answered in the encoding {name:?}, which nobody asked for.");
                return Err(Failure::new(FailureKind::Upstream, message));
            }
        };
        Ok(Self { status: response.status(), headers: response.headers().clone(), host, response, gunzip })
    }

    /// The next bytes; `None` at the orderly end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let chunk = self.response.chunk().await.map_err(|error| transport_failure(&error, &self.host))?;
            let Some(gunzip) = &mut self.gunzip else { return Ok(chunk) };
            let Some(chunk) = chunk else { return Ok(None) };
            gunzip.write_all(&chunk).and_then(|()| gunzip.flush()).map_err(|_| {
                Failure::new(
                    FailureKind::Upstream,
                    format!("{} sent a body that is not the gzip it claims.", self.host),
                )
            })?;
            let plain = std::mem::take(gunzip.get_mut());
            if !plain.is_empty() {
                return Ok(Some(Bytes::from(plain)));
            }
        }
    }

    /// The whole body of an error, cut at a limit.
    pub async fn whole(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            let room = BODY_BYTES_MAX - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() >= room {
                break;
            }
        }
        Ok(bytes)
    }

    /// What of an error's body comes in time.
    pub async fn error_body(&mut self) -> Vec<u8> {
        // The status alone says enough if the body does not come.
        match tokio::time::timeout(ERROR_BODY_TIME_MAX, self.whole()).await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }

    /// The host that answers, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// Names what broke on the way, from the chain of causes.
fn transport_failure(error: &reqwest::Error, host: &str) -> Failure {
    let mut tls = false;
    let mut untrusted = None;
    let mut dns = false;
    let mut io_kind = None;
    let mut deepest = String::new();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(here) = cause {
        deepest = here.to_string();
        tls |= here.is::<rustls::Error>() || deepest.starts_with("tls handshake");
        untrusted = untrusted.or_else(|| untrusted_words(here.downcast_ref()?, host));
        dns |= deepest.starts_with("dns error") || deepest.starts_with("failed to lookup address");
        cause = here.source();
        if let Some(io) = here.downcast_ref::<std::io::Error>() {
            io_kind = Some(io.kind());
            // What an I/O error wraps is not its source but itself: rustls hides there.
            if let Some(inner) = io.get_ref() {
                cause = Some(inner);
            }
        }
    }
    let deepest: String = deepest.chars().take(200).collect();
    let (kind, message) = if dns {
        (FailureKind::NameResolution, format!("The name {host} does not resolve. Offline, or a wrong base_url?"))
    } else if let Some(message) = untrusted {
        (FailureKind::Certificate, message)
    } else if tls {
        (
            FailureKind::Tls,
            format!(
                "No trusted TLS session with {host}: {deepest}. Check the clock, the CA certificates and any interception."
            ),
        )
    } else if error.is_timeout() {
        (FailureKind::Timeout, format!("{host} did not accept a connection in time."))
    } else if error.is_connect() && io_kind == Some(std::io::ErrorKind::ConnectionRefused) {
        (FailureKind::Connection, format!("{host} refuses connections; is the server running?"))
    } else if error.is_connect() {
        (FailureKind::Connection, format!("No connection to {host}: {deepest}."))
    } else if error.is_builder() {
        (FailureKind::Operator, format!("The request to {host} cannot be made: {deepest}."))
    } else {
        (FailureKind::Connection, format!("The connection to {host} broke: {deepest}."))
    };
    Failure::new(kind, message)
}

/// What is wrong with what the host shows of itself, and what to do; `None` for what another attempt may get over.
fn untrusted_words(error: &rustls::Error, host: &str) -> Option<String> {
    const CLOCK: &str = "Is this machine's clock right?";
    const AUTHORITY: &str = "For a server of your own, add its CA to the system's (update-ca-certificates) or name a file \
                             with it in SSL_CERT_FILE; for any other, look for what opens TLS on the way.";
    let certificate = match error {
        // Plain HTTP, as a rule: its first bytes are no TLS record.
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            return Some(format!("{host} speaks no TLS at that port. Should base_url begin with http://?"));
        }
        rustls::Error::InvalidCertificate(certificate) => certificate,
        _ => return None,
    };
    let (why, what) = match certificate {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => ("has expired".to_owned(), CLOCK),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("is not valid yet".to_owned(), CLOCK)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("is for another name".to_owned(), "Check the host in base_url.")
        }
        CertificateError::UnknownIssuer => ("is of nobody whom this machine trusts".to_owned(), AUTHORITY),
        CertificateError::Revoked => ("is revoked".to_owned(), "Ask whoever runs the host."),
        // How `webpki` says that a certificate authority signed itself and serves with that.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            "is that of a certificate authority itself".to_owned(),
            "Give the server one of its own (basicConstraints = CA:FALSE).",
        ),
        other => {
            let words: String = other.to_string().chars().take(200).collect();
            (format!("cannot be trusted ({words})"), AUTHORITY)
        }
    };
    Some(format!("The certificate of {host} {why}. {what}"))
}
