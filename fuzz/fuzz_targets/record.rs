//! `record.json` as container root may have left it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use svid_csi::volume::VolumeRecord;

fuzz_target!(|data: &[u8]| {
    let Ok(record) = VolumeRecord::from_json(data) else {
        return;
    };
    let written = record.to_json().expect("what was read can be written");
    let read = VolumeRecord::from_json(&written).expect("its own form");
    assert!(read.to_json().is_ok_and(|again| again == written));
});
