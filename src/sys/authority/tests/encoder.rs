//! An encoder of header blocks that uses every form which the standard allows (RFC 7541): which one
//! is left to a choice.

use std::collections::VecDeque;

/// A field's name and value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);
/// Gives a number below its argument.
pub(crate) type Choice<'a> = dyn FnMut(usize) -> usize + 'a;

/// The largest dynamic table, which is also the one to begin with (RFC 9113 §6.5.2).
const MAX_TABLE: usize = 4096;
/// Where the dynamic table begins.
const DYNAMIC: usize = 62;

/// Of the static table, what requests use.
const STATIC: [(usize, &str, &str); 14] = [
    (1, ":authority", ""),
    (2, ":method", "GET"),
    (3, ":method", "POST"),
    (4, ":path", "/"),
    (5, ":path", "/index.html"),
    (6, ":scheme", "http"),
    (7, ":scheme", "https"),
    (16, "accept-encoding", "gzip, deflate"),
    (19, "accept", ""),
    (23, "authorization", ""),
    (31, "content-type", ""),
    (32, "cookie", ""),
    (38, "host", ""),
    (58, "user-agent", ""),
];

/// A client's end of a connection's compression.
pub(crate) struct Encoder {
    /// The newest first.
    table: VecDeque<Field>,
    limit: usize,
}

// === impl Encoder ===

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { table: VecDeque::new(), limit: MAX_TABLE }
    }

    pub(crate) fn block(&mut self, fields: &[Field], choose: &mut Choice<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        if choose(8) == 0 {
            for _ in 0..=choose(2) {
                self.limit = [0, 100, 400, MAX_TABLE][choose(4)];
                integer(&mut out, 0x20, 5, self.limit, choose);
                self.evict(0);
            }
        }
        for field in fields {
            self.field(&mut out, field, choose);
        }
        out
    }

    fn field(&mut self, out: &mut Vec<u8>, field: &Field, choose: &mut Choice<'_>) {
        let known = STATIC.iter().map(|&(index, name, value)| (index, name.into(), value.into()));
        let added = self.table.iter().cloned().enumerate();
        let added = added.map(|(at, (name, value))| (DYNAMIC + at, name, value));
        let (name, value) = field;
        let named: Vec<(usize, Vec<u8>, Vec<u8>)> =
            known.chain(added).filter(|(_, of, _)| of == name).collect();
        let same: Vec<usize> =
            named.iter().filter(|(_, _, of)| of == value).map(|(index, ..)| *index).collect();
        if !same.is_empty() && choose(4) > 0 {
            return integer(out, 0x80, 7, same[choose(same.len())], choose);
        }
        // Added to the table, not, never.
        let (mark, prefix) = [(0x40, 6), (0x40, 6), (0x00, 4), (0x10, 4)][choose(4)];
        let literal = named.is_empty() || choose(3) == 0;
        let index = if literal { 0 } else { named[choose(named.len())].0 };
        integer(out, mark, prefix, index, choose);
        if literal {
            string(out, name, choose);
        }
        string(out, value, choose);
        if mark == 0x40 {
            let size = size(field);
            self.evict(size);
            if size <= self.limit {
                self.table.push_front(field.clone());
            }
        }
    }

    /// Makes room for an entry of that size.
    fn evict(&mut self, room: usize) {
        while !self.table.is_empty()
            && self.table.iter().map(size).sum::<usize>() + room > self.limit
        {
            self.table.pop_back();
        }
    }
}

/// RFC 7541 §4.1.
fn size((name, value): &Field) -> usize {
    name.len() + value.len() + 32
}

/// With more bytes than are needed, sometimes.
fn integer(out: &mut Vec<u8>, mark: u8, prefix: u32, value: usize, choose: &mut Choice<'_>) {
    let max = (1 << prefix) - 1;
    if value < max {
        return out.push(mark | u8::try_from(value).unwrap());
    }
    out.push(mark | u8::try_from(max).unwrap());
    let mut rest = value - max;
    let mut bytes = 1;
    while rest >= 0x80 || (bytes < 4 && choose(8) == 0) {
        out.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
        bytes += 1;
    }
    out.push(u8::try_from(rest).unwrap());
}

fn string(out: &mut Vec<u8>, string: &[u8], choose: &mut Choice<'_>) {
    let coded = if choose(2) == 0 { huffman(string) } else { None };
    let (mark, bytes) = coded.as_deref().map_or((0, string), |coded| (0x80, coded));
    integer(out, mark, 7, bytes.len(), choose);
    out.extend_from_slice(bytes);
}

/// `None` if a character is not in [`CODES`].
fn huffman(string: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u64, 0);
    for byte in string {
        let (code, length) = *CODES.get(usize::from(*byte).checked_sub(0x20)?)?;
        bits = bits << length | u64::from(code);
        count += length;
        while count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    if count > 0 {
        // Filled up with ones.
        let last = (bits << (8 - count)) & 0xff | ((1 << (8 - count)) - 1);
        out.push(u8::try_from(last).unwrap());
    }
    Some(out)
}

/// RFC 7541 appendix B for the characters from 0x20 to 0x7e: code and its length in bits.
const CODES: [(u32, u32); 95] = [
    (0x14, 6),
    (0x3f8, 10),
    (0x3f9, 10),
    (0xffa, 12),
    (0x1ff9, 13),
    (0x15, 6),
    (0xf8, 8),
    (0x7fa, 11),
    (0x3fa, 10),
    (0x3fb, 10),
    (0xf9, 8),
    (0x7fb, 11),
    (0xfa, 8),
    (0x16, 6),
    (0x17, 6),
    (0x18, 6),
    (0x0, 5),
    (0x1, 5),
    (0x2, 5),
    (0x19, 6),
    (0x1a, 6),
    (0x1b, 6),
    (0x1c, 6),
    (0x1d, 6),
    (0x1e, 6),
    (0x1f, 6),
    (0x5c, 7),
    (0xfb, 8),
    (0x7ffc, 15),
    (0x20, 6),
    (0xffb, 12),
    (0x3fc, 10),
    (0x1ffa, 13),
    (0x21, 6),
    (0x5d, 7),
    (0x5e, 7),
    (0x5f, 7),
    (0x60, 7),
    (0x61, 7),
    (0x62, 7),
    (0x63, 7),
    (0x64, 7),
    (0x65, 7),
    (0x66, 7),
    (0x67, 7),
    (0x68, 7),
    (0x69, 7),
    (0x6a, 7),
    (0x6b, 7),
    (0x6c, 7),
    (0x6d, 7),
    (0x6e, 7),
    (0x6f, 7),
    (0x70, 7),
    (0x71, 7),
    (0x72, 7),
    (0xfc, 8),
    (0x73, 7),
    (0xfd, 8),
    (0x1ffb, 13),
    (0x7fff0, 19),
    (0x1ffc, 13),
    (0x3ffc, 14),
    (0x22, 6),
    (0x7ffd, 15),
    (0x3, 5),
    (0x23, 6),
    (0x4, 5),
    (0x24, 6),
    (0x5, 5),
    (0x25, 6),
    (0x26, 6),
    (0x27, 6),
    (0x6, 5),
    (0x74, 7),
    (0x75, 7),
    (0x28, 6),
    (0x29, 6),
    (0x2a, 6),
    (0x7, 5),
    (0x2b, 6),
    (0x76, 7),
    (0x2c, 6),
    (0x8, 5),
    (0x9, 5),
    (0x2d, 6),
    (0x77, 7),
    (0x78, 7),
    (0x79, 7),
    (0x7a, 7),
    (0x7b, 7),
    (0x7ffe, 15),
    (0x7fc, 11),
    (0x3ffd, 14),
    (0x1ffd, 13),
];
