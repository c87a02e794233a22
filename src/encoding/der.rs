//! The little DER (X.690) that certificates and CSRs need: a strict reader and a writer.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// Reads the elements of a constructed value one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

/// One tag-length-value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    /// The value alone.
    pub(crate) content: &'a [u8],
    /// Tag and length too.
    pub(crate) raw: &'a [u8],
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element. `None` at the end and for anything but definite lengths in their shortest
    /// form, of one-byte tags.
    pub(crate) fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) {
                return None;
            }
            let (bytes, rest) = rest.split_at_checked(count)?;
            let length = bytes.iter().try_fold(0usize, |sum, byte| {
                sum.checked_mul(256)?.checked_add(usize::from(*byte))
            })?;
            if length < 0x80 || bytes.first() == Some(&0) {
                return None;
            }
            (length, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let raw = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        Some(Element { tag, content, raw })
    }

    /// The next element, if it has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }

    /// The content of the next element as a reader, if it has this tag.
    pub(crate) fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.expect(tag).map(|element| Reader(element.content))
    }

    /// The bytes of a BIT STRING without unused bits.
    pub(crate) fn bits(&mut self) -> Option<&'a [u8]> {
        self.expect(BIT_STRING)?.content.strip_prefix(&[0])
    }
}

/// One element: tag, length, the parts one after the other.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    if length < 0x80 {
        // Fits: just checked.
        out.push(length.to_be_bytes().last().copied().unwrap_or_default());
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = bytes.get(skip..).unwrap_or_default();
        out.push(0x80 | significant.len().to_be_bytes().last().copied().unwrap_or_default());
        out.extend_from_slice(significant);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A SEQUENCE of elements.
pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

/// A positive INTEGER from big-endian bytes.
pub(crate) fn positive_integer(bytes: &[u8]) -> Vec<u8> {
    let skip = bytes.iter().take_while(|byte| **byte == 0).count();
    let significant = bytes.get(skip..).unwrap_or_default();
    match significant.first() {
        None => element(INTEGER, &[&[0]]),
        Some(first) if first & 0x80 != 0 => element(INTEGER, &[&[0], significant]),
        Some(_) => element(INTEGER, &[significant]),
    }
}

/// A BIT STRING of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], bytes])
}

/// A `Time` (RFC 5280 §4.1.2.5): whole seconds, UTCTime up to 2049. `None` beyond the year 9999 and
/// before 1950.
pub(crate) fn time(at: SystemTime) -> Option<Vec<u8>> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok()?;
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let tail = format!("{:02}{day:02}{hour:02}{minute:02}{second:02}Z", u8::from(month));
    Some(match year {
        1950..=2049 => {
            element(UTC_TIME, &[format!("{:02}", year % 100).as_bytes(), tail.as_bytes()])
        }
        2050..=9999 => {
            element(GENERALIZED_TIME, &[format!("{year:04}").as_bytes(), tail.as_bytes()])
        }
        _ => return None,
    })
}

/// The time of a Unix timestamp, which a certificate may place before 1970.
pub(crate) fn from_timestamp(seconds: i64) -> Option<SystemTime> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

/// Lowercase hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        for (length, header) in [
            (0, vec![4, 0]),
            (127, vec![4, 127]),
            (128, vec![4, 0x81, 128]),
            (256, vec![4, 0x82, 1, 0]),
            (65536, vec![4, 0x83, 1, 0, 0]),
        ] {
            let content = vec![7; length];
            let out = element(OCTET_STRING, &[&content]);
            assert!(out.starts_with(&header), "{length}");
            let mut reader = Reader::new(&out);
            let back = reader.expect(OCTET_STRING).unwrap();
            assert_eq!((back.content, back.raw), (&content[..], &out[..]));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn sloppy_lengths_are_refused() {
        for bad in [
            &[][..],
            &[4],
            &[4, 1],
            &[4, 0x80, 0, 0],
            &[4, 0x81, 1, 0],
            &[4, 0x82, 0, 128],
            &[4, 0x85, 1, 0, 0, 0, 0],
            &[4, 0xff],
            &[0x1f, 1, 0],
        ] {
            assert!(Reader::new(bad).next().is_none(), "{bad:?}");
        }
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        assert_eq!(positive_integer(&[]), [2, 1, 0]);
        assert_eq!(positive_integer(&[0, 0]), [2, 1, 0]);
        assert_eq!(positive_integer(&[0, 1]), [2, 1, 1]);
        assert_eq!(positive_integer(&[0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn times_switch_form_in_2050() {
        let at = |seconds| time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0).unwrap(), b"\x17\x0d700101000000Z");
        assert_eq!(at(2_524_607_999).unwrap(), b"\x17\x0d491231235959Z");
        assert_eq!(at(2_524_608_000).unwrap(), b"\x18\x0f20500101000000Z");
        assert!(at(253_402_300_800).is_none());
    }

    proptest! {
        #[test]
        fn the_reader_never_panics_and_always_advances(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            let mut total = 0;
            while let Some(element) = reader.next() {
                total += element.raw.len();
                prop_assert!(element.raw.len() >= 2);
            }
            prop_assert!(total <= bytes.len());
        }
    }
}
