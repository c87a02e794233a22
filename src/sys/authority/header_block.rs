//! The fields of header blocks (RFC 7541), read as far as `:authority` needs it.
//!
//! No table is kept. Why none is needed:
//!
//! - A value becomes shorter or stays, never longer. So each entry of `h2`'s dynamic table is at
//!   most as large as the client's, and the client's table is always the newer part of `h2`'s: an
//!   insertion and a change of the size evict from `h2`'s at most what they evict from the
//!   client's (an entry that is too large for the client's table empties that, and may only stay
//!   in `h2`'s). Indices count from the newest entry, so each that the client may use means the
//!   same to both.
//! - Of an entry only one thing matters here: whether it is called `:authority`. A table of 4,096
//!   bytes has at most 124 entries of 33 bytes, so a bit for each of the last 128 tells.
//!
//! A client that uses other indices breaks the standard, and harms its own connection only.

use std::ops::Range;

/// `:authority` as a literal name, plain and in Huffman's code, which has one form of each string.
const PLAIN: &[u8] = b":authority";
const HUFFMAN: &[u8] = b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f";
/// The first byte of a string is the flag of Huffman's code and seven bits of length.
const CODED: u8 = 0x80;
const LENGTH: u32 = 7;
/// `:authority` in the static table, and where the dynamic one begins.
const AUTHORITY: usize = 1;
const DYNAMIC: usize = 62;
/// What a value becomes: one byte, not coded.
const VALUE: u8 = b'u';

/// Reads the header blocks of one connection, in whatever pieces they come.
#[derive(Debug, Default)]
pub(super) struct HeaderBlocks {
    at: At,
    /// Which of the dynamic table's entries are called `:authority`; the newest is the lowest bit.
    named: u128,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    /// Before a field.
    #[default]
    Field,
    /// Within an integer of several bytes.
    Integer(Integer, Purpose),
    /// Before a string's length.
    Length(Text),
    /// Within a string, of which so many bytes are to come.
    Text(Text, usize),
    /// What came is no header block, and `h2` will say so.
    Lost,
    /// The same, of which some was left out: what follows must not make a block of it again.
    Broken,
}

/// What an integer is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// An indexed field, or the table's size: the field ends with it.
    Whole,
    /// A literal field's name.
    Name { added: bool },
    /// A string's length.
    Length(Text, First),
}

/// The byte that an integer began with.
type First = u8;

#[derive(Clone, Copy, Debug)]
enum Text {
    /// A literal name, and what it would have to be from here on.
    Name { added: bool, wanted: Option<&'static [u8]> },
    /// A value that stays.
    Value,
    /// A value that is replaced, or of which only the rest is left out.
    Authority { replaced: bool },
}

/// RFC 7541 §5.1, of five bytes at most, as in `h2`.
#[derive(Clone, Copy, Debug)]
struct Integer {
    value: usize,
    shift: u32,
}

// === impl HeaderBlocks ===

impl HeaderBlocks {
    /// Rewrites the part of a block at `part` of `bytes`, to where `to` is, which must not be
    /// after it. Returns where the result ends: it is never longer.
    pub(super) fn rewrite(&mut self, bytes: &mut [u8], part: Range<usize>, to: usize) -> usize {
        let Range { start: mut from, end } = part;
        let mut to = to;
        while from < end {
            if let At::Lost = self.at {
                bytes.copy_within(from..end, to);
                return to + (end - from);
            }
            if let At::Broken = self.at {
                // The begin of a number that does not end.
                bytes.get_mut(to..to + (end - from)).unwrap_or_default().fill(0xff);
                return to + (end - from);
            }
            if let At::Text(text, left) = self.at {
                let length = left.min(end - from);
                let piece = from..from + length;
                let kept = self.text(text, left, bytes.get(piece.clone()).unwrap_or_default());
                match kept {
                    Kept::All if to != from => bytes.copy_within(piece, to),
                    Kept::All => {}
                    Kept::One(byte) => put(bytes, to, byte),
                    Kept::Nothing => {}
                }
                to += kept.length(length);
                from += length;
                continue;
            }
            let byte = bytes.get(from).copied().unwrap_or_default();
            if let Some(byte) = self.byte(byte) {
                put(bytes, to, byte);
                to += 1;
            }
            from += 1;
        }
        to
    }

    /// Nothing more comes of a block; false if it may not end here.
    pub(super) fn end(&mut self) -> bool {
        let whole = matches!(self.at, At::Field);
        if !whole {
            self.at = At::Lost;
        }
        whole
    }

    /// A byte that is not within a string, and what becomes of it.
    fn byte(&mut self, byte: u8) -> Option<u8> {
        match self.at {
            At::Field => {
                let (prefix, purpose) = match byte {
                    0x80.. => (7, Purpose::Whole),                     // indexed
                    0x40..0x80 => (6, Purpose::Name { added: true }),  // added to the table
                    0x20..0x40 => (5, Purpose::Whole),                 // the table's size
                    0x00..0x20 => (4, Purpose::Name { added: false }), // not added
                };
                self.begin(byte, prefix, purpose)
            }
            At::Length(text) => self.begin(byte, LENGTH, Purpose::Length(text, byte)),
            At::Integer(mut integer, purpose) => match integer.add(byte) {
                More::Done => self.integer(integer.value, byte, purpose),
                More::ToCome => {
                    self.at = At::Integer(integer, purpose);
                    purpose.kept(byte)
                }
                More::TooLong => {
                    let kept = purpose.kept(byte).is_some();
                    self.at = if kept { At::Lost } else { At::Broken };
                    Some(if kept { byte } else { 0xff })
                }
            },
            At::Text(..) | At::Lost | At::Broken => Some(byte),
        }
    }

    fn begin(&mut self, byte: u8, prefix: u32, purpose: Purpose) -> Option<u8> {
        let mask = (1_u8 << prefix) - 1;
        let value = usize::from(byte & mask);
        if byte & mask < mask {
            return self.integer(value, byte, purpose);
        }
        self.at = At::Integer(Integer { value, shift: 0 }, purpose);
        purpose.kept(byte)
    }

    /// An integer is whole with `byte`; returns what becomes of that.
    fn integer(&mut self, value: usize, byte: u8, purpose: Purpose) -> Option<u8> {
        match purpose {
            Purpose::Whole => self.at = At::Field,
            Purpose::Name { added } if value == 0 => {
                self.at = At::Length(Text::Name { added, wanted: None });
            }
            Purpose::Name { added } => {
                let authority = match value.checked_sub(DYNAMIC) {
                    None => value == AUTHORITY,
                    Some(entry) => entry < 128 && self.named >> entry & 1 == 1,
                };
                self.name(added, authority);
            }
            Purpose::Length(Text::Name { added, .. }, first) => {
                let wanted = if first & CODED == 0 { PLAIN } else { HUFFMAN };
                let wanted = (value == wanted.len()).then_some(wanted);
                self.at = match value {
                    0 => At::Length(Text::Value),
                    _ => At::Text(Text::Name { added, wanted }, value),
                };
                if value == 0 {
                    self.name(added, false);
                }
            }
            // An empty value stays: it must not grow.
            Purpose::Length(_, _) if value == 0 => self.at = At::Field,
            Purpose::Length(text, _) => {
                self.at = At::Text(text, value);
                if let Text::Authority { .. } = text {
                    return Some(1);
                }
            }
        }
        Some(byte)
    }

    /// The name of a field is known.
    fn name(&mut self, added: bool, authority: bool) {
        if added {
            self.named = self.named << 1 | u128::from(authority);
        }
        let text = if authority { Text::Authority { replaced: false } } else { Text::Value };
        self.at = At::Length(text);
    }

    /// A piece of a string of which `left` bytes are to come, this piece included.
    fn text(&mut self, text: Text, left: usize, piece: &[u8]) -> Kept {
        let left = left - piece.len();
        match text {
            Text::Name { added, wanted } => {
                let wanted = wanted.and_then(|wanted| wanted.strip_prefix(piece));
                match left {
                    0 => self.name(added, wanted.is_some()),
                    _ => self.at = At::Text(Text::Name { added, wanted }, left),
                }
                Kept::All
            }
            Text::Value => {
                self.at = if left == 0 { At::Field } else { At::Text(text, left) };
                Kept::All
            }
            Text::Authority { replaced } => {
                let rest = At::Text(Text::Authority { replaced: true }, left);
                self.at = if left == 0 { At::Field } else { rest };
                if replaced { Kept::Nothing } else { Kept::One(VALUE) }
            }
        }
    }
}

/// What becomes of a piece of a string.
#[derive(Clone, Copy)]
enum Kept {
    All,
    One(u8),
    Nothing,
}

enum More {
    Done,
    ToCome,
    TooLong,
}

// === impl Kept ===

impl Kept {
    fn length(self, all: usize) -> usize {
        match self {
            Self::All => all,
            Self::One(_) => 1,
            Self::Nothing => 0,
        }
    }
}

// === impl Purpose ===

impl Purpose {
    /// What becomes of a byte of an integer that has more: the length of a value that is replaced
    /// is written once it is known not to be 0.
    fn kept(self, byte: u8) -> Option<u8> {
        (!matches!(self, Self::Length(Text::Authority { .. }, _))).then_some(byte)
    }
}

// === impl Integer ===

impl Integer {
    fn add(&mut self, byte: u8) -> More {
        self.value += usize::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        match byte & 0x80 {
            0 => More::Done,
            _ if self.shift == 28 => More::TooLong,
            _ => More::ToCome,
        }
    }
}

fn put(bytes: &mut [u8], at: usize, byte: u8) {
    if let Some(place) = bytes.get_mut(at) {
        *place = byte;
    }
}
