//! Header blocks that nghttp2's encoder makes, which curl, Node.js and others send: they arrive at
//! `h2`'s server as they were, but for `:authority`.

#![no_main]

#[allow(dead_code, reason = "the encoder here is another")]
#[path = "../../src/sys/authority/tests/client.rs"]
mod client;
#[allow(dead_code, reason = "the encoder here is another")]
#[path = "../../src/sys/authority/tests/encoder.rs"]
mod encoder;
#[path = "../../src/sys/authority/tests/far_side.rs"]
mod far_side;

use std::ptr;

use libfuzzer_sys::fuzz_target;
use libnghttp2_sys::{
    NGHTTP2_NV_FLAG_NO_INDEX, nghttp2_hd_deflate_bound, nghttp2_hd_deflate_change_table_size,
    nghttp2_hd_deflate_del, nghttp2_hd_deflate_hd2, nghttp2_hd_deflate_new, nghttp2_hd_deflater,
    nghttp2_nv,
};
use svid_csi::sys::RewriteAuthority;

fuzz_target!(|data: &[u8]| {
    let [count, sizes @ .., _] = data else { return };
    let mut choices = data.iter().cycle();
    let mut choose = |below: usize| {
        let (high, low) = (choices.next(), choices.next());
        let number = high.map_or(0, |high| usize::from(*high)) << 8;
        (number + low.map_or(0, |low| usize::from(*low))) % below
    };
    let mut deflater = Deflater::new();
    let (mut bytes, mut wanted) = (client::preface(), Vec::new());
    for number in 0..u32::from(*count) % 60 + 1 {
        if choose(8) == 0 {
            deflater.resize([0, 100, 400, 4096][choose(4)]);
        }
        let mut fields = client::fields(&mut choose);
        let never = choose(fields.len() + 3);
        let block = deflater.block(&mut fields, never);
        client::send(&mut bytes, 2 * number + 1, &block, &mut choose);
        wanted.push(client::arriving(&fields));
    }
    let sizes: Vec<usize> = sizes.iter().take(5).map(|size| usize::from(*size)).collect();
    let pieces = far_side::Pieces::new(&bytes, &sizes);
    let (arrived, well) = far_side::requests(RewriteAuthority::new(pieces));
    assert!(well, "the connection fails");
    assert_eq!(arrived, wanted);
});

/// nghttp2's end of a connection's compression.
struct Deflater(*mut nghttp2_hd_deflater);

// === impl Deflater ===

impl Deflater {
    fn new() -> Self {
        let mut deflater = ptr::null_mut();
        // SAFETY: it writes the one pointer.
        assert_eq!(unsafe { nghttp2_hd_deflate_new(&mut deflater, 4096) }, 0);
        Self(deflater)
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: made by `new`, not deleted yet.
        assert_eq!(unsafe { nghttp2_hd_deflate_change_table_size(self.0, size) }, 0);
    }

    /// A block of these fields, of which one is never to be indexed.
    fn block(&mut self, fields: &mut [encoder::Field], never: usize) -> Vec<u8> {
        let pairs = fields.iter_mut().enumerate().map(|(at, (name, value))| nghttp2_nv {
            name: name.as_mut_ptr(),
            value: value.as_mut_ptr(),
            namelen: name.len(),
            valuelen: value.len(),
            flags: if at == never { NGHTTP2_NV_FLAG_NO_INDEX as u8 } else { 0 },
        });
        let pairs: Vec<nghttp2_nv> = pairs.collect();
        // SAFETY: `pairs` and what it points to live until the last use below; the block is as
        // long as nghttp2 says that it may become.
        let block = unsafe {
            let mut block = vec![0; nghttp2_hd_deflate_bound(self.0, pairs.as_ptr(), pairs.len())];
            let written = nghttp2_hd_deflate_hd2(
                self.0,
                block.as_mut_ptr(),
                block.len(),
                pairs.as_ptr(),
                pairs.len(),
            );
            block.truncate(usize::try_from(written).expect("nghttp2 encodes it"));
            block
        };
        block
    }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        // SAFETY: made by `new`, deleted once.
        unsafe { nghttp2_hd_deflate_del(self.0) }
    }
}
