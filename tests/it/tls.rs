//! Providers behind TLS: one whose certificate the machine trusts is reached, one that it does not trust is not, and
//! the difference is told.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::Arc,
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::support::{chat::Chat, proxy::Proxy, scratch};

/// A TLS server for `localhost` that answers every request with one word. Gives its address and its certificate.
fn start() -> (String, String) {
    start_with(rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap())
}

/// The same with such a certificate.
fn start_with(wanted: rcgen::CertificateParams) -> (String, String) {
    let signing_key = rcgen::KeyPair::generate().unwrap();
    let cert = wanted.self_signed(&signing_key).unwrap();
    let pem = cert.pem();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/v1", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (Ok(socket), Ok(tls)) = (socket, rustls::ServerConnection::new(Arc::clone(&config))) else { return };
            // A client that refuses the certificate breaks off here: that is what it is to do.
            drop(answer(rustls::StreamOwned::new(tls, socket)));
        }
    });
    (url, pem)
}

fn answer<S: Read + Write>(stream: S) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let chat = Chat::new().text("over TLS").complete();
    let body = chat.frames().concat();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    let mut stream = reader.into_inner();
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

fn ask(url: &str, certificates: Option<&str>) -> Value {
    let config = format!(
        "[proxy]\nretry_deadline_s = 2\n[providers.up]\nbase_url = \"{url}\"\ndialect = \"openai\"\naccounts = []\n\
         [models.work]\nroutes = [\"up/m\"]\n"
    );
    let env: Vec<(&str, &str)> = certificates.map(|file| ("SSL_CERT_FILE", file)).into_iter().collect();
    Proxy::start(&config, &env).responses(&json!({"model": "work", "input": "go"})).json()
}

#[test]
fn a_certificate_that_the_machine_trusts_is_enough() {
    let (url, certificate) = start();
    let directory = scratch();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, certificate).unwrap();
    let answer = ask(&url, Some(file.to_str().unwrap()));
    assert_eq!(answer["output"][0]["content"][0]["text"], "over TLS", "{answer}");
}

/// A certificate for that name, until that year.
fn certificate(name: &str, until: i32) -> rcgen::CertificateParams {
    let mut wanted = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(2001, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(until, 1, 1);
    wanted
}

#[test]
fn a_certificate_that_it_does_not_trust_is_named_as_the_fault_and_ends_the_turn() {
    let directory = scratch();
    let mut authority = certificate("localhost", 2090);
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    for (wanted, trusted, words) in [
        (certificate("localhost", 2090), false, "nobody whom this machine trusts"),
        (certificate("localhost", 2002), true, "has expired"),
        (certificate("elsewhere", 2090), true, "for another name"),
        (authority, true, "a certificate authority itself"),
    ] {
        let (url, pem) = start_with(wanted);
        let file = directory.path().join("ca.pem");
        std::fs::write(&file, pem).unwrap();
        let error = ask(&url, trusted.then(|| file.to_str().unwrap()))["error"].clone();
        // Of this code Codex shows our words, and asks no more.
        assert_eq!(error["code"], "upstream_certificate", "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("localhost") && message.contains(words), "{words}: {error}");
        assert!(!message.contains("Other("), "{error}");
    }
}

#[test]
fn a_port_without_tls_is_named_as_that() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}/v1", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            // The client's hello first, or the reset would overtake the answer.
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let error = ask(&url, None)["error"].clone();
    assert_eq!(error["code"], "upstream_certificate", "{error}");
    assert!(error["message"].as_str().unwrap().contains("http://?"), "{error}");
}
