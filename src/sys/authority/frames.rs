//! The frames of a connection (RFC 9113 §4), as they come from the client.

use super::header_block::HeaderBlocks;

/// What a client sends first (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Length, type, flags, stream.
const HEADER: usize = 9;
/// Where the stream is in it, to its end.
const STREAM: usize = 5;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The longest frame that `h2` accepts unless told otherwise; it refuses longer ones itself.
const MAX_FRAME: usize = 16_384;

/// Reads the frames of one connection, in whatever pieces they come.
#[derive(Debug)]
pub(super) struct Frames {
    /// How many of the next bytes pass unseen: the preface, or what is not a header block.
    pass: usize,
    /// What passes is the client's SETTINGS.
    settings: bool,
    opened: bool,
    /// A header block goes on in the next frame.
    continues: bool,
    /// No header block that `h2` would take can follow.
    verbatim: bool,
    blocks: HeaderBlocks,
}

/// What became of some bytes.
#[derive(Debug)]
pub(super) struct Walked {
    /// So many bytes at the front are to be handed on.
    pub(super) done: usize,
    /// From here on they are the begin of a frame that must be seen whole.
    pub(super) rest: usize,
    /// How many frames were begun.
    pub(super) frames: usize,
}

// === impl Frames ===

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            pass: PREFACE,
            settings: false,
            opened: false,
            continues: false,
            verbatim: false,
            blocks: HeaderBlocks::default(),
        }
    }

    /// The client has sent its preface, which its SETTINGS are part of.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// Whatever comes is `h2`'s to judge.
    pub(super) fn give_up(&mut self) {
        self.verbatim = true;
    }

    /// How much of a frame that begins with `begun` must be seen together, in bytes.
    pub(super) fn whole(begun: &[u8]) -> usize {
        match header(begun) {
            Some(header) if header.is_block() && header.length <= MAX_FRAME => {
                HEADER + header.length
            }
            _ => HEADER,
        }
    }

    /// Rewrites in place what is whole. Begins where the last walk's rest did.
    pub(super) fn walk(&mut self, bytes: &mut [u8]) -> Walked {
        let (mut from, mut to, mut frames) = (0, 0, 0);
        loop {
            let left = bytes.len() - from;
            let passing = if self.verbatim { left } else { self.pass.min(left) };
            if to != from {
                bytes.copy_within(from..from + passing, to);
            }
            (from, to) = (from + passing, to + passing);
            self.pass = self.pass.saturating_sub(passing);
            if self.pass == 0 && self.settings {
                (self.settings, self.opened) = (false, true);
            }
            let rest = bytes.get_mut(to..).unwrap_or_default();
            let skipped = from - to;
            let Some(header) = header(rest.get(skipped..).unwrap_or_default()) else { break };
            frames += 1;
            if header.length > MAX_FRAME {
                self.verbatim = true;
                continue;
            }
            let size = HEADER + header.length;
            if !header.is_block() {
                self.settings = header.kind == SETTINGS && !self.opened;
                self.pass = size;
                continue;
            }
            if rest.len() - skipped < size {
                frames -= 1;
                break;
            }
            match self.block(rest, skipped, &header) {
                Some(written) => (from, to) = (from + size, to + written),
                None => self.verbatim = true,
            }
        }
        Walked { done: to, rest: from, frames }
    }

    /// Rewrites the frame at `from` of `bytes` to their front and returns its length, or `None` if
    /// it is not understood, and left as it is.
    fn block(&mut self, bytes: &mut [u8], from: usize, header: &Header) -> Option<usize> {
        let &Header { kind, flags, length } = header;
        if self.continues != (kind == CONTINUATION) {
            return None;
        }
        let body = from + HEADER;
        let (mut before, mut padding) = (0, 0);
        if kind == HEADERS {
            if flags & PADDED != 0 {
                padding = usize::from(*bytes.get(body).filter(|_| length > 0)?);
                before += 1;
            }
            if flags & PRIORITY != 0 {
                // `h2` resets a stream that depends on itself and does not read its fields, so that
                // from there on its table is no longer the client's.
                let stream = bytes.get(from + STREAM..body)?;
                let on = bytes.get(body + before..body + before + stream.len())?;
                let without_flag = |id: &[u8]| id.first().map(|first| first & 0x7f);
                if without_flag(on) == without_flag(stream) && on.get(1..) == stream.get(1..) {
                    return None;
                }
                before += 5;
            }
        }
        let fields = length.checked_sub(before + padding)?;
        let part = body + before..body + before + fields;
        let padding = part.end..part.end + padding;
        if from > 0 {
            bytes.copy_within(from..part.start, 0);
        }
        let end = self.blocks.rewrite(bytes, part.clone(), HEADER + before);
        if end != part.end {
            bytes.copy_within(padding.clone(), end);
            let length = u32::try_from(end + padding.len() - HEADER).ok()?;
            bytes.first_chunk_mut::<3>()?.copy_from_slice(length.to_be_bytes().last_chunk::<3>()?);
        }
        self.continues = flags & END_HEADERS == 0;
        if !self.continues && !self.blocks.end() {
            self.verbatim = true;
        }
        Some(end + padding.len())
    }
}

struct Header {
    length: usize,
    kind: u8,
    flags: u8,
}

// === impl Header ===

impl Header {
    /// It holds header fields.
    fn is_block(&self) -> bool {
        self.kind == HEADERS || self.kind == CONTINUATION
    }
}

fn header(bytes: &[u8]) -> Option<Header> {
    let &[a, b, c, kind, flags, ..] = bytes.first_chunk::<HEADER>()?;
    Some(Header { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags })
}
