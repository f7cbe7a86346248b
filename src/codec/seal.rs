//! Sealing of opaque provider data into `encrypted_content`, and opening it again. PURE.
//!
//! Form: `cxp1.` + base64url(nonce ‖ ciphertext), XChaCha20-Poly1305, the prefix as associated data. The plaintext is
//! JSON `{"p":provider,"f":family,"v":value}`. The prefix is the version: a later form gets a prefix of its own, and
//! whatever does not start with ours is somebody else's and never opened.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use crate::model::request::{Opaque, Origin};

const PREFIX: &str = "cxp1.";
const NONCE_BYTES: usize = 24;

/// Holds the key.
#[derive(Clone)]
pub struct Sealer {
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(***)")
    }
}

/// Why a blob could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of our making.
    #[error("made by somebody else")]
    Foreign,
    /// Ours by its prefix, but altered, cut, or sealed under another key.
    #[error("damaged, or sealed under another key")]
    Damaged,
}

/// Whether a blob was sealed by this program, under whatever key.
pub fn is_ours(blob: &[u8]) -> bool {
    blob.starts_with(PREFIX.as_bytes())
}

#[derive(Serialize, Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    p: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    f: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    v: std::borrow::Cow<'a, str>,
}

impl Sealer {
    /// Takes 32 random bytes that are kept secret.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.into()) }
    }

    /// Seals `opaque`. `nonce` must not repeat under one key; random bytes are safe at this size.
    pub fn seal(&self, opaque: &Opaque, nonce: [u8; NONCE_BYTES]) -> String {
        let plain = Plain {
            p: opaque.origin.provider.as_str().into(),
            f: opaque.origin.family.as_str().into(),
            v: opaque.value.as_str().into(),
        };
        // Neither step can fail: strings always serialise, and the cipher only refuses texts beyond 256 GiB. An empty
        // text would be read back as foreign, which loses the thoughts and nothing else.
        let Ok(plain) = serde_json::to_vec(&plain) else { return String::new() };
        let payload = Payload { msg: &plain, aad: PREFIX.as_bytes() };
        let Ok(sealed) = self.cipher.encrypt(&XNonce::from(nonce), payload) else { return String::new() };
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&sealed);
        let mut text = String::with_capacity(PREFIX.len() + bytes.len().div_ceil(3) * 4);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        text
    }

    /// Opens what [`Sealer::seal`] gave.
    pub fn open(&self, text: &str) -> Result<Opaque, OpenError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(OpenError::Foreign)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| OpenError::Damaged)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Damaged)?;
        let payload = Payload { msg: sealed, aad: PREFIX.as_bytes() };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| OpenError::Damaged)?;
        let plain: Plain<'_> = serde_json::from_slice(&plain).map_err(|_| OpenError::Damaged)?;
        Ok(Opaque {
            origin: Origin { provider: plain.p.into_owned(), family: plain.f.into_owned() },
            value: plain.v.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opaque() -> Opaque {
        Opaque { origin: Origin::new("deepseek", "deepseek/deepseek-v4-pro"), value: "thoughts \"ü\"\n".into() }
    }

    #[test]
    fn what_is_sealed_opens_again() {
        let sealer = Sealer::new(&[7; 32]);
        let text = sealer.seal(&opaque(), [1; 24]);
        assert_eq!(sealer.open(&text), Ok(opaque()));
        assert!(!text.contains("thoughts"));
    }

    #[test]
    fn any_change_of_a_byte_is_noticed() {
        let sealer = Sealer::new(&[7; 32]);
        let text = sealer.seal(&opaque(), [1; 24]);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(sealer.open(&changed).is_err(), "byte {at}");
            assert!(sealer.open(&text[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn foreign_blobs_and_other_keys_are_told_apart() {
        let text = Sealer::new(&[7; 32]).seal(&opaque(), [1; 24]);
        assert_eq!(Sealer::new(&[8; 32]).open(&text), Err(OpenError::Damaged));
        assert_eq!(Sealer::new(&[7; 32]).open("gAAAAAB-somebody-elses"), Err(OpenError::Foreign));
    }
}
