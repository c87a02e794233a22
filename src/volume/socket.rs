//! The name of the Workload API's socket in a volume.

use super::{
    attribute::{PREFIX, SpecError},
    layout::TakenNames,
};

/// Of a volume that names none.
const DEFAULT: &str = "spiffe.sock";

/// A socket's address has 108 bytes, which have to do for where the container mounts the volume.
const MAX_NAME: usize = 64;

/// The attribute's value for a volume without a socket.
const NONE: &str = "none";

/// The name, and the one under which the socket is made before it is renamed.
pub(super) fn resolve(
    attribute: Option<&str>,
    taken: &mut TakenNames,
) -> Result<Option<String>, SpecError> {
    let (name, origin) = match attribute {
        Some(NONE) => return Ok(None),
        Some(name) => {
            check(name).map_err(|reason| SpecError::invalid("socket", name, reason))?;
            (name, format!("{PREFIX}socket"))
        }
        None => (DEFAULT, "the socket of the Workload API".to_owned()),
    };
    taken.take(name.to_owned(), origin.clone())?;
    taken.take(format!(".{name}.tmp"), origin)?;
    Ok(Some(name.to_owned()))
}

/// It goes into a URI, `unix:///<path>/<name>`, that every client has to read the same.
fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("a socket's name has 1 to 64 bytes; `none` means no socket");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(plain) || !name.as_bytes()[0].is_ascii_alphanumeric() {
        return Err("it may have letters, digits, `-`, `_` and `.`, and must begin with a letter \
                    or digit");
    }
    if ["bundle.json", "federated"].contains(&name) {
        return Err("the volume needs that name itself");
    }
    Ok(())
}
