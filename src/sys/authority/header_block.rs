//! The fields of a HEADERS frame, without their compression's state.
//!
//! Why none is needed (RFC 7541): a value is only ever replaced by a shorter one, so the client's
//! dynamic table holds larger entries than ours, drops them sooner, and every index that it may
//! still use exists in ours too.

use super::HEADER;

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the static table.
const AUTHORITY: usize = 1;
/// The same as a literal name, plain and in Huffman's code.
const NAMES: [&[u8]; 2] = [b"\x0a:authority", b"\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f"];
/// A literal value of one byte.
const VALUE: [u8; 2] = *b"\x01u";

/// A whole HEADERS frame with the values of its literal `:authority` fields replaced. `None`: there
/// are none, or it is not understood, or it goes on in another frame, and is left as it is.
pub(super) fn rewritten(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, body) = frame.split_first_chunk::<HEADER>()?;
    let [.., kind, flags, s0, s1, s2, s3] = *header;
    if flags & END_HEADERS == 0 {
        return None;
    }
    let (mut start, mut end) = (0, body.len());
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*body.first()?))?;
        start += 1;
    }
    let priority = if flags & PRIORITY != 0 { body.get(start..start + 5)? } else { &[] };
    let block = body.get(start + priority.len()..end)?;
    let fields = fields(block)?;
    let length = u32::try_from(priority.len() + fields.len()).ok()?;
    let [_, l0, l1, l2] = length.to_be_bytes();
    let header = [l0, l1, l2, kind, flags & !PADDED, s0, s1, s2, s3];
    Some([&header, priority, &fields].concat())
}

/// A header block; `None` if nothing in it changes.
fn fields(block: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Vec::with_capacity(block.len());
    let (mut at, mut found) = (0, false);
    while let Some(&first) = block.get(at) {
        let begin = at;
        let (prefix, literal) = match first {
            0x80.. => (7, false),     // indexed
            0x40..0x80 => (6, true),  // added to the table
            0x20..0x40 => (5, false), // the table's size
            0x00..0x20 => (4, true),  // not added
        };
        let index = integer(block, &mut at, prefix)?;
        if !literal {
            fields.extend_from_slice(block.get(begin..at)?);
            continue;
        }
        let mut authority = index == AUTHORITY;
        if index == 0 {
            let name = at;
            string(block, &mut at)?;
            authority = NAMES.contains(&block.get(name..at)?);
        }
        let value = at;
        string(block, &mut at)?;
        // An empty value stays: it must not grow.
        if authority && at > value + 1 {
            fields.extend_from_slice(block.get(begin..value)?);
            fields.extend_from_slice(&VALUE);
            found = true;
        } else {
            fields.extend_from_slice(block.get(begin..at)?);
        }
    }
    found.then_some(fields)
}

/// RFC 7541 §5.1; of four bytes at most.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// RFC 7541 §5.2: skips a string.
fn string(block: &[u8], at: &mut usize) -> Option<()> {
    let length = integer(block, at, 7)?;
    *at += length;
    (*at <= block.len()).then_some(())
}
