//! JWT-SVIDs as files.

use super::{
    attribute::{PREFIX, SpecError},
    audience::AudienceSet,
    layout::{TakenNames, check_file_name},
};

/// The most files of one volume.
const MAX_FILES: usize = 16;

/// A file with a JWT-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtFile {
    /// Its name.
    pub name: String,
    /// For whom the token in it is.
    pub audience: AudienceSet,
}

/// Reads `file=audience[,audience…]` pairs with `;` between them. Spaces around each part are
/// nobody's; a `=` in an audience is part of it.
pub(super) fn parse(text: &str, taken: &mut TakenNames) -> Result<Vec<JwtFile>, SpecError> {
    let invalid = |reason: &dyn std::fmt::Display| SpecError::invalid("jwt", text, reason);
    // One at the end is forgiven.
    let pairs = text.trim();
    let pairs = pairs.strip_suffix(';').unwrap_or(pairs);
    let mut files = Vec::new();
    for pair in pairs.split(';') {
        let (name, audience) = pair.split_once('=').ok_or_else(|| {
            invalid(&"write it like token=vault or a.jwt=vault,consul;b.jwt=sts.amazonaws.com")
        })?;
        let name = name.trim();
        check_file_name(name).map_err(|reason| invalid(&format!("file {name:?}: {reason}")))?;
        let audience = audience.split(',').map(|one| one.trim().to_owned()).collect();
        let audience = AudienceSet::new(audience)
            .map_err(|error| invalid(&format!("file {name:?}: {error}")))?;
        taken.take(name.to_owned(), format!("{PREFIX}jwt"))?;
        files.push(JwtFile { name: name.to_owned(), audience });
    }
    if files.len() > MAX_FILES {
        return Err(invalid(&format!("at most {MAX_FILES} files are allowed")));
    }
    Ok(files)
}
