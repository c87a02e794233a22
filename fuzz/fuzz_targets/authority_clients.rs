//! A client of which every byte is a choice within the standard: what it sends arrives at `h2`'s
//! server as it was, but for `:authority`, in whatever pieces.

#![no_main]

#[path = "../../src/sys/authority/tests/client.rs"]
mod client;
#[path = "../../src/sys/authority/tests/encoder.rs"]
mod encoder;
#[path = "../../src/sys/authority/tests/far_side.rs"]
mod far_side;

use libfuzzer_sys::fuzz_target;
use svid_csi::sys::RewriteAuthority;

fuzz_target!(|data: &[u8]| {
    let [count, sizes @ .., _] = data else { return };
    let mut choices = data.iter().cycle();
    let mut choose = |below: usize| {
        let (high, low) = (choices.next(), choices.next());
        let number = high.map_or(0, |high| usize::from(*high)) << 8;
        (number + low.map_or(0, |low| usize::from(*low))) % below
    };
    let (bytes, wanted) = client::requests(u32::from(*count) % 60 + 1, &mut choose);
    let sizes: Vec<usize> = sizes.iter().take(5).map(|size| usize::from(*size)).collect();
    let pieces = far_side::Pieces::new(&bytes, &sizes);
    let (arrived, well) = far_side::requests(RewriteAuthority::new(pieces));
    assert!(well, "the connection fails");
    assert_eq!(arrived, wanted);
});
