//! Sealing of what is opaque to clients into `encrypted_content`, and opening it again. PURE.
//!
//! Form: a prefix + base64url(nonce ‖ ciphertext), XChaCha20-Poly1305, the prefix as associated data. The prefix says
//! what is inside and in which version; a later form gets a prefix of its own, and whatever does not start with one of
//! ours is somebody else's and never opened.
//!
//! - `cxp1.`: provider data such as thoughts, as JSON `{"p":provider,"f":family,"v":value}`; for its origin only.
//! - `cxc1.`: the text of a summary that stands for a conversation; for any model.
//!
//! What is stored of a response never leaves this machine, and is sealed as bytes; with `cxs1.` and its id as associated
//! data it opens under its own id only.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use crate::model::request::{Opaque, Origin};

const THOUGHTS: &str = "cxp1.";
const SUMMARY: &str = "cxc1.";
/// Stands before a response's id, as associated data.
const RESPONSE: &str = "cxs1.";
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;

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
    /// Ours by its prefix, but altered, cut, sealed under another key, or something else than what was looked for.
    #[error("damaged, or sealed under another key")]
    Damaged,
}

/// Whether a blob was sealed by this program, under whatever key.
pub fn is_ours(blob: &[u8]) -> bool {
    [THOUGHTS, SUMMARY].iter().any(|prefix| blob.starts_with(prefix.as_bytes()))
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
        self.seal_text(THOUGHTS, &plain, nonce).unwrap_or_default()
    }

    /// Opens what [`Sealer::seal`] gave.
    pub fn open(&self, text: &str) -> Result<Opaque, OpenError> {
        let plain = self.open_text(THOUGHTS, text)?;
        let plain: Plain<'_> = serde_json::from_slice(&plain).map_err(|_| OpenError::Damaged)?;
        Ok(Opaque {
            origin: Origin { provider: plain.p.into_owned(), family: plain.f.into_owned() },
            value: plain.v.into_owned(),
        })
    }

    /// Seals the summary of a conversation. `nonce` as for [`Sealer::seal`]. `None`: it is beyond all measure (256 GiB).
    pub fn seal_summary(&self, summary: &str, nonce: [u8; NONCE_BYTES]) -> Option<String> {
        self.seal_text(SUMMARY, summary.as_bytes(), nonce)
    }

    /// Opens what [`Sealer::seal_summary`] gave.
    pub fn open_summary(&self, text: &str) -> Result<String, OpenError> {
        let plain = self.open_text(SUMMARY, text)?;
        String::from_utf8(plain).map_err(|_| OpenError::Damaged)
    }

    /// Seals what is stored of the response `id`. `nonce` as for [`Sealer::seal`].
    pub fn seal_response(&self, id: &str, plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Option<Vec<u8>> {
        self.seal_bytes(format!("{RESPONSE}{id}").as_bytes(), plain, nonce)
    }

    /// Opens what [`Sealer::seal_response`] gave for the same id.
    pub fn open_response(&self, id: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.open_bytes(format!("{RESPONSE}{id}").as_bytes(), sealed).ok()
    }

    fn seal_text(&self, prefix: &str, plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Option<String> {
        let bytes = self.seal_bytes(prefix.as_bytes(), plain, nonce)?;
        let mut text = String::with_capacity(prefix.len() + bytes.len().div_ceil(3) * 4);
        text.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        Some(text)
    }

    fn open_text(&self, prefix: &str, text: &str) -> Result<Vec<u8>, OpenError> {
        let other = if is_ours(text.as_bytes()) { OpenError::Damaged } else { OpenError::Foreign };
        let encoded = text.strip_prefix(prefix).ok_or(other)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| OpenError::Damaged)?;
        self.open_bytes(prefix.as_bytes(), &bytes)
    }

    /// nonce ‖ ciphertext; `aad` is not in it, and opens it.
    fn seal_bytes(&self, aad: &[u8], plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Option<Vec<u8>> {
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad }).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    fn open_bytes(&self, aad: &[u8], bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Damaged)?;
        let payload = Payload { msg: sealed, aad };
        self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| OpenError::Damaged)
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

    #[test]
    fn a_summary_is_no_thought_and_a_thought_no_summary() {
        let sealer = Sealer::new(&[7; 32]);
        let summary = sealer.seal_summary("done: \"ü\"", [1; 24]).unwrap();
        assert_eq!(sealer.open_summary(&summary).as_deref(), Ok("done: \"ü\""));
        assert!(is_ours(summary.as_bytes()) && !summary.contains("done"));
        assert_eq!(sealer.open(&summary), Err(OpenError::Damaged));
        let thought = sealer.seal(&opaque(), [1; 24]);
        assert_eq!(sealer.open_summary(&thought), Err(OpenError::Damaged));
        // Not even under the other's name.
        let renamed = thought.replace(THOUGHTS, SUMMARY);
        assert_eq!(sealer.open_summary(&renamed), Err(OpenError::Damaged));
        assert_eq!(sealer.open_summary("gAAAAAB-somebody-elses"), Err(OpenError::Foreign));
        assert_eq!(Sealer::new(&[8; 32]).open_summary(&summary), Err(OpenError::Damaged));
        assert_eq!(sealer.open_summary(&summary[..summary.len() - 1]), Err(OpenError::Damaged));
    }
}
