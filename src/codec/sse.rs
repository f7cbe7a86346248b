//! Server-sent events: bytes in any pieces → frames. PURE.
//!
//! Used for every upstream that streams; the frames go to a protocol's `StreamDecoder`. Writing events for the client is
//! not done here.
//!
//! The format is that of the [HTML standard, §9.2.6](https://html.spec.whatwg.org/multipage/server-sent-events.html)
//! (read 2026-11-21): lines end with LF, CR or CRLF; a blank line ends an event; lines that open with `:` are comments;
//! one space after the colon is not part of the value; `data` lines are joined with LF. We deviate once: an event that
//! the end of input cuts short of its blank line is still delivered, because several providers omit it.

use super::DecodeError;

/// The largest frame that is put together, in bytes. An answer's largest frame is a whole tool call or an encrypted
/// thought, some hundred KiB at most; past this limit something else is being sent.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One event of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The value of its last `event:` line.
    pub event: Option<&'a str>,
    /// Its `data:` lines, joined with LF. Not empty.
    pub data: &'a str,
}

/// Puts frames together from bytes.
///
/// Each byte is copied once, into buffers that are reused; no frame is allocated for.
#[derive(Debug, Default)]
pub struct Framer {
    /// The line that is not yet complete.
    line: Vec<u8>,
    /// A CR ended the last line, so a following LF belongs to it.
    after_cr: bool,
    /// The first line has passed, and with it the place of a byte order mark.
    begun: bool,
    event: String,
    data: String,
    has_data: bool,
    comments: u64,
}

impl Framer {
    /// Takes the next bytes and hands every frame that they complete to `on_frame`, in order. Stops at its first error.
    pub fn feed<E, F>(&mut self, bytes: &[u8], mut on_frame: F) -> Result<(), E>
    where
        E: From<DecodeError>,
        F: FnMut(Frame<'_>) -> Result<(), E>,
    {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, tail) = rest.split_at(end);
            if self.line.is_empty() {
                self.check_size(line.len())?;
                self.take_line(line, &mut on_frame)?;
            } else {
                self.check_size(self.line.len() + line.len())?;
                self.line.extend_from_slice(line);
                let whole = std::mem::take(&mut self.line);
                let result = self.take_line(&whole, &mut on_frame);
                self.line = whole;
                self.line.clear();
                result?;
            }
            rest = match tail {
                [b'\r', b'\n', more @ ..] => more,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, more @ ..] => more,
                [] => &[],
            };
        }
        self.check_size(self.line.len() + rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The end of input: delivers what no blank line has completed.
    pub fn finish<E, F>(mut self, mut on_frame: F) -> Result<(), E>
    where
        E: From<DecodeError>,
        F: FnMut(Frame<'_>) -> Result<(), E>,
    {
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, &mut on_frame)?;
        }
        self.dispatch(&mut on_frame)
    }

    /// How many comment lines have come. They are the keep-alives of many providers.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    fn check_size(&self, line_bytes: usize) -> Result<(), DecodeError> {
        if line_bytes + self.data.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooLarge { what: "an event of the stream", bytes_max: FRAME_BYTES_MAX });
        }
        Ok(())
    }

    fn take_line<E, F>(&mut self, line: &[u8], on_frame: &mut F) -> Result<(), E>
    where
        E: From<DecodeError>,
        F: FnMut(Frame<'_>) -> Result<(), E>,
    {
        let line = if self.begun { line } else { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) };
        self.begun = true;
        if line.is_empty() {
            return self.dispatch(on_frame);
        }
        if line.starts_with(b":") {
            self.comments += 1;
            return Ok(());
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        let text = |value| {
            std::str::from_utf8(value).map_err(|_| DecodeError::Malformed { what: "an event is not UTF-8".into() })
        };
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(text(value)?);
                self.has_data = true;
            }
            b"event" => {
                self.event.clear();
                self.event.push_str(text(value)?);
            }
            // `id` and `retry` steer reconnection, which the proxy does its own way; the standard has other fields
            // ignored.
            _ => {}
        }
        Ok(())
    }

    fn dispatch<E, F>(&mut self, on_frame: &mut F) -> Result<(), E>
    where
        F: FnMut(Frame<'_>) -> Result<(), E>,
    {
        let result = if self.data.is_empty() {
            Ok(())
        } else {
            let event = (!self.event.is_empty()).then_some(self.event.as_str());
            on_frame(Frame { event, data: &self.data })
        };
        self.event.clear();
        self.data.clear();
        self.has_data = false;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames_of(pieces: &[&[u8]]) -> Result<Vec<(Option<String>, String)>, DecodeError> {
        let mut frames = Vec::new();
        let mut framer = Framer::default();
        let mut push = |f: Frame<'_>| {
            frames.push((f.event.map(str::to_owned), f.data.to_owned()));
            Ok::<(), DecodeError>(())
        };
        for piece in pieces {
            framer.feed(piece, &mut push)?;
        }
        framer.finish(&mut push)?;
        Ok(frames)
    }

    fn data_of(text: &str) -> Vec<String> {
        frames_of(&[text.as_bytes()]).unwrap().into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn lines_end_in_three_ways() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
            assert_eq!(data_of(text), ["a", "b"], "{text:?}");
        }
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        assert_eq!(data_of("data:a\n\ndata:  b\n\n"), ["a", " b"]);
        assert_eq!(data_of("data: a\ndata: b\n\n"), ["a\nb"]);
        assert_eq!(data_of("data\n\nid: 1\nretry: 2\nfoo\n\n"), Vec::<String>::new());
        assert_eq!(data_of("\u{feff}data: a\n\n"), ["a"]);
        assert_eq!(frames_of(&[b"event: error\ndata: a\n\ndata: b\n\n"]).unwrap()[0].0.as_deref(), Some("error"));
        assert_eq!(frames_of(&[b"event: error\ndata: a\n\ndata: b\n\n"]).unwrap()[1].0, None);
    }

    #[test]
    fn an_event_without_its_blank_line_is_delivered_at_the_end() {
        assert_eq!(data_of("data: a\n\ndata: b"), ["a", "b"]);
    }

    #[test]
    fn comments_are_counted_and_skipped() {
        let mut framer = Framer::default();
        let none = |_: Frame<'_>| -> Result<(), DecodeError> { panic!("a comment is no frame") };
        framer.feed(b": OPENROUTER PROCESSING\n\n:\n", none).unwrap();
        assert_eq!(framer.comments(), 2);
    }

    #[test]
    fn every_split_gives_the_same_frames() {
        let text = "data: häé€\r\n\r\n: c\n\nevent: x\ndata: 1\ndata: 2\n\ndata:🦀\r\rdata: end".as_bytes();
        let whole = frames_of(&[text]).unwrap();
        for i in 0..text.len() {
            for j in i..text.len() {
                assert_eq!(frames_of(&[&text[..i], &text[i..j], &text[j..]]).unwrap(), whole, "{i} {j}");
            }
        }
    }

    #[test]
    fn what_is_no_event_stream_is_an_error() {
        assert!(matches!(frames_of(&[b"data: \xff\n\n"]), Err(DecodeError::Malformed { .. })));
        let endless = vec![b'x'; FRAME_BYTES_MAX];
        assert!(matches!(frames_of(&[b"data: ", &endless]), Err(DecodeError::TooLarge { .. })));
        let mut framer = Framer::default();
        let mut ok = |_: Frame<'_>| Ok::<(), DecodeError>(());
        let line = [b"data: ".as_slice(), &vec![b'x'; FRAME_BYTES_MAX / 2], b"\n"].concat();
        framer.feed(&line, &mut ok).unwrap();
        assert!(framer.feed(&line, &mut ok).is_err());
    }
}
