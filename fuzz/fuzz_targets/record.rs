//! `record.json` as container root may have left it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use svid_csi::volume::VolumeRecord;

fuzz_target!(|data: &[u8]| {
    let Ok(record) = VolumeRecord::from_json(data) else {
        return;
    };
    let written = record.to_json();
    let read = VolumeRecord::from_json(written.as_ref()).expect("its own form");
    assert_eq!(read.to_json(), written);
});
