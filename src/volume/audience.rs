//! For whom a JWT-SVID is.

/// The most audiences of one JWT-SVID. JWT-SVID §3.2 recommends one.
pub const MAX_AUDIENCES: usize = 32;

/// The most bytes of all of them: a token's receiver refuses long ones.
pub const MAX_AUDIENCE_BYTES: usize = 4096;

/// The audiences of one JWT-SVID: at least one, sorted, none twice, so that equal sets are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AudienceSet(Vec<String>);

/// Why audiences make no JWT-SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// JWT-SVID §3.2.
    #[error("name at least one audience")]
    None,
    /// Nobody is meant by it.
    #[error("an audience must not be empty")]
    Empty,
    /// More than any token is for.
    #[error("at most {MAX_AUDIENCES} audiences are allowed")]
    TooMany,
    /// More than a token should hold.
    #[error("all audiences together may have {MAX_AUDIENCE_BYTES} bytes")]
    TooLong,
}

// === impl AudienceSet ===

impl AudienceSet {
    /// Takes what was asked for; order and repetition don't count.
    pub fn new(mut audience: Vec<String>) -> Result<Self, AudienceError> {
        if audience.is_empty() {
            return Err(AudienceError::None);
        }
        if audience.len() > MAX_AUDIENCES {
            return Err(AudienceError::TooMany);
        }
        if audience.iter().any(String::is_empty) {
            return Err(AudienceError::Empty);
        }
        if audience.iter().map(String::len).sum::<usize>() > MAX_AUDIENCE_BYTES {
            return Err(AudienceError::TooLong);
        }
        audience.sort_unstable();
        audience.dedup();
        Ok(Self(audience))
    }

    /// All of them, sorted.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(audience: &[&str]) -> Result<AudienceSet, AudienceError> {
        AudienceSet::new(audience.iter().map(|one| (*one).to_owned()).collect())
    }

    #[test]
    fn order_and_repetition_make_no_difference() {
        assert_eq!(set(&["b", "a", "b"]), set(&["a", "b"]));
        assert_eq!(set(&["b", "a"]).unwrap().as_slice(), ["a", "b"]);
        assert_ne!(set(&["a"]), set(&["a", "b"]));
        assert_ne!(set(&["A"]), set(&["a"]));
    }

    #[test]
    fn nobody_and_crowds_are_refused() {
        assert_eq!(set(&[]), Err(AudienceError::None));
        assert_eq!(set(&["a", ""]), Err(AudienceError::Empty));
        let many: Vec<String> = (0..=MAX_AUDIENCES).map(|n| n.to_string()).collect();
        assert_eq!(AudienceSet::new(many[1..].to_vec()).map(|set| set.0.len()), Ok(MAX_AUDIENCES));
        assert_eq!(AudienceSet::new(many), Err(AudienceError::TooMany));
        let long = "a".repeat(MAX_AUDIENCE_BYTES);
        assert!(set(&[&long]).is_ok());
        assert_eq!(set(&[&long, "b"]), Err(AudienceError::TooLong));
    }
}
