//! Chance, so that not everyone comes at once (DESIGN.md invariant 9).

/// A random number in [0, 1).
pub fn random() -> f64 {
    let mut bytes = [0; 8];
    // Without randomness there is no jitter, which is no reason to stop.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_range_and_moves() {
        let (a, b) = (random(), random());
        assert!((0.0..1.0).contains(&a) && (0.0..1.0).contains(&b) && a != b);
    }
}
