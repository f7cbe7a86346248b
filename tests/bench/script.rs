//! What an answer consists of: known to the upstream that plays it and to the client that checks it.

use std::str::FromStr;

/// Digits of a moment: nanoseconds of the monotonic clock, enough for a hundred days without a reboot.
pub const STAMP: usize = 16;

/// What kind of pieces an answer comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Text for the user.
    Text,
    /// Thoughts, then one piece of text.
    Thoughts,
    /// The arguments of one tool call.
    Call,
}

impl Kind {
    /// All of them, with the word for tables and models.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Text, "text"), (Self::Thoughts, "thoughts"), (Self::Call, "call")];

    /// The word.
    pub fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

/// One answer: its name, `text-50-16-0`, is the model that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Script {
    /// Of what.
    pub kind: Kind,
    /// How many pieces with a stamp.
    pub deltas: usize,
    /// Bytes of a piece, the stamp among them.
    pub bytes: usize,
    /// From one piece to the next; 0: as fast as they are taken.
    pub pause_ms: u64,
}

impl Script {
    /// A script of text.
    pub const fn text(deltas: usize, bytes: usize, pause_ms: u64) -> Self {
        Self { kind: Kind::Text, deltas, bytes, pause_ms }
    }

    /// The model that stands for it.
    pub fn model(&self) -> String {
        format!("{}-{}-{}-{}", self.kind.word(), self.deltas, self.bytes, self.pause_ms)
    }

    /// What precedes the pieces in the same channel, as it stands inside a JSON string.
    pub fn before(&self) -> &'static str {
        if self.kind == Kind::Call { r#"{\"cmd\":\""# } else { "" }
    }

    /// What follows them.
    pub fn after(&self) -> &'static str {
        if self.kind == Kind::Call { r#"\"}"# } else { "" }
    }

    /// The filler of a piece behind its stamp.
    pub fn filler(&self, index: usize) -> impl Iterator<Item = u8> {
        (STAMP..self.bytes).map(move |at| b'a' + u8::try_from((index + at) % 26).unwrap())
    }

    /// How much comes in the channel of the pieces.
    pub fn len(&self) -> usize {
        self.before().len() + self.deltas * self.bytes + self.after().len()
    }

    /// Where the stamp of a piece begins in that.
    pub fn stamp_at(&self, index: usize) -> usize {
        self.before().len() + index * self.bytes
    }

    /// Whether `whole` is what was to come, with stamps in order.
    pub fn check(&self, whole: &[u8]) -> Result<(), String> {
        if whole.len() != self.len() {
            return Err(format!("{} bytes of {} came", whole.len(), self.len()));
        }
        if !whole.starts_with(self.before().as_bytes()) || !whole.ends_with(self.after().as_bytes()) {
            return Err("the frame of the pieces is another".to_owned());
        }
        self.check_begun(whole)
    }

    /// Whether all whole pieces of `text` are what was to come, with stamps in order.
    pub fn check_begun(&self, text: &[u8]) -> Result<(), String> {
        let mut last = 0;
        for index in 0..self.deltas {
            let Some(piece) = text.get(self.stamp_at(index)..self.stamp_at(index) + self.bytes) else { break };
            let stamp = stamp(piece).ok_or_else(|| format!("piece {index} has no stamp"))?;
            if stamp < last {
                return Err(format!("piece {index} came before the one before it"));
            }
            last = stamp;
            if !self.filler(index).eq(piece[STAMP..].iter().copied()) {
                return Err(format!("piece {index} is spoilt"));
            }
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = ();

    fn from_str(model: &str) -> Result<Self, ()> {
        let mut parts = model.split('-');
        let mut next = || parts.next().ok_or(());
        let word = next()?;
        let (kind, _) = Kind::ALL.into_iter().find(|(_, known)| *known == word).ok_or(())?;
        let mut number = || next()?.parse::<usize>().map_err(drop);
        let (deltas, bytes, pause) = (number()?, number()?, number()?);
        Ok(Self { kind, deltas, bytes: bytes.max(STAMP), pause_ms: pause as u64 })
    }
}

/// The moment a piece was written.
pub fn stamp(piece: &[u8]) -> Option<u64> {
    let digits = piece.get(..STAMP)?;
    digits.iter().try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// Writes a moment as digits.
pub fn write_stamp(mut moment: u64, digits: &mut [u8]) {
    for digit in digits[..STAMP].iter_mut().rev() {
        *digit = b'0' + u8::try_from(moment % 10).unwrap();
        moment /= 10;
    }
}

/// Now, by the clock that all processes share.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}
