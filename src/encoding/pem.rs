//! The textual encoding of keys and certificates (RFC 7468), read strictly.
//!
//! Own code because a damaged block must be an error, not the silent end of a bundle, and because
//! key bytes must be wiped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// Why a text is not taken. Never holds what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A block is damaged.
    #[error("damaged PEM at line {line}: {problem}")]
    Damaged {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A private key that needs a passphrase.
    #[error("the private key is encrypted; decrypt it first, as with openssl pkey")]
    Encrypted,
}

/// One block whose label was asked for.
pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    pub(crate) der: Zeroizing<Vec<u8>>,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
const LINE: usize = 64;

/// The blocks whose label `wanted` accepts, decoded, in order. Text around blocks is ignored, and so
/// is the content of other blocks; every block must be whole.
pub(crate) fn read<'a>(
    text: &'a str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<Block<'a>>, PemError> {
    let mut blocks = Vec::new();
    let mut open: Option<&str> = None;
    let mut body = Zeroizing::new(String::new());
    let mut last = (0, "");
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let at = |problem| PemError::Damaged { line: number, problem };
        let line = line.trim();
        last = (number, line);
        if line.starts_with(BEGIN.trim_end()) {
            if open.is_some() {
                return Err(at("a block begins inside another"));
            }
            let label = label(line, BEGIN).ok_or_else(|| at("malformed BEGIN line"))?;
            open = Some(label);
            body.zeroize();
            if wanted(label) {
                body.reserve(text.len().min(16 * 1024));
            }
        } else if line.starts_with(END.trim_end()) {
            let begun = open.take().ok_or_else(|| at("END without BEGIN"))?;
            if label(line, END) != Some(begun) {
                return Err(at("END does not match BEGIN"));
            }
            if wanted(begun) {
                if body.contains(':') {
                    return Err(match begun.ends_with("PRIVATE KEY") {
                        true => PemError::Encrypted,
                        false => at("headers inside a block are not supported"),
                    });
                }
                let der = STANDARD
                    .decode(body.as_bytes())
                    // The cause would quote the bytes, which may be a key's.
                    .map_err(|_cause| at("the block is not valid base64"))?;
                blocks.push(Block { label: begun, der: Zeroizing::new(der) });
            }
        } else if let Some(label) = open
            && wanted(label)
        {
            body.extend(line.split_ascii_whitespace());
        }
    }
    // Cut off inside the next BEGIN it would look like a whole file with a word behind it.
    let (line, text) = last;
    let cut = open.is_some() || (text.starts_with('-') && BEGIN.starts_with(text));
    match cut {
        true => {
            Err(PemError::Damaged { line, problem: "the file ends inside a block; it was cut off" })
        }
        false => Ok(blocks),
    }
}

fn label<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.strip_prefix(prefix)?
        .strip_suffix(DASHES)
        .filter(|label| !label.is_empty() && !label.contains('-'))
}

/// One block, lines of 64 characters. The text is wiped when it is dropped.
pub(crate) fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(capacity(label, der)));
    write_to(&mut text, label, der);
    text
}

/// Appends one block.
pub(crate) fn write_to(text: &mut String, label: &str, der: &[u8]) {
    text.reserve(capacity(label, der));
    text.push_str(BEGIN);
    text.push_str(label);
    text.push_str("-----\n");
    // 48 bytes make a line of 64 characters, so nothing secret is held twice.
    let mut line = Zeroizing::new([0u8; LINE]);
    for chunk in der.chunks(48) {
        if let Ok(length) = STANDARD.encode_slice(chunk, line.as_mut())
            && let Some(encoded) = line.get(..length)
            && let Ok(encoded) = std::str::from_utf8(encoded)
        {
            text.push_str(encoded);
        }
        text.push('\n');
    }
    text.push_str(END);
    text.push_str(label);
    text.push_str("-----\n");
}

/// Enough that the text never moves and leaves a copy behind.
fn capacity(label: &str, der: &[u8]) -> usize {
    2 * label.len() + 40 + der.len().div_ceil(48) * (LINE + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
        Ok(read(text, |_| true)?.into_iter().map(|block| block.der.to_vec()).collect())
    }

    #[test]
    fn text_around_blocks_and_foreign_line_ends_are_fine() {
        let text = "subject=x\r\n-----BEGIN A-----\r\nAQ ID\r\n\r\n-----END A-----\r\ntail\n-----BEGIN B-----\nBA==\n-----END B-----";
        assert_eq!(all(text).unwrap(), [vec![1, 2, 3], vec![4]]);
        assert_eq!(read(text, |label| label == "B").unwrap().len(), 1);
    }

    #[test]
    fn damage_is_an_error_with_its_line() {
        for (text, line) in [
            ("-----BEGIN A-----\nAQID\n", 2),
            ("-----BEGIN A-----\nAQID\n-----END B-----\n", 3),
            ("-----BEGIN A-----\n-----BEGIN A-----\n", 2),
            ("-----END A-----\n", 1),
            ("-----BEGIN A\n", 1),
            ("-----BEGIN -----\n", 1),
            ("-----BEGIN-----\n", 1),
            ("-----BEGIN A-----\n!!!!\n-----END A-----\n", 3),
            ("-----BEGIN A-----\nAQI\n-----END A-----\n", 3),
        ] {
            match all(text) {
                Err(PemError::Damaged { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn legacy_encryption_is_recognised() {
        let text = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAQID\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(all(text), Err(PemError::Encrypted));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(der in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = write("X Y", &der);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert!(text.len() <= capacity("X Y", &der));
            prop_assert_eq!(all(&text).unwrap(), [der]);
        }

        #[test]
        fn hostile_text_never_panics(text in "(-----(BEGIN|END)( A)?-----|AQID|\n|\r|=|:|é| ){0,30}") {
            drop(all(&text));
        }
    }
}
