use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn record() -> VolumeRecord {
    let pairs =
        [("csi.svid.dev/ttl", "1h"), ("csi.storage.k8s.io/serviceAccount.tokens", "SECRET")];
    VolumeRecord {
        version: VolumeRecord::VERSION,
        state: RecordState::Live,
        driver: "csi.svid.dev".into(),
        volume_id: "csi-0f".parse().unwrap(),
        target: "pods/u/volumes/kubernetes.io~csi/svid/mount".into(),
        pod: PodInfo {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
            service_account: "web".into(),
        },
        spiffe_id: "spiffe://example.org/ns/shop/sa/web".parse().unwrap(),
        assigned_id: Some("spiffe://example.org/web".parse().unwrap()),
        assigned_key_algorithm: Some(KeyAlgorithm::EcdsaP384),
        context: pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        mount_group: Some("2000".into()),
        serial: Some("0a1b".into()),
        not_before: Some(at(1_800_000_000)),
        not_after: Some(at(1_800_003_600)),
        renew_at: Some(at(1_800_002_000) + Duration::from_nanos(123_456_789)),
        bundles: vec!["ab".repeat(32)],
        taint: Some(Taint { since: at(1_800_001_500), round: 1 }),
        last_error: Some(LastError::new(at(1_800_001_000), Class::Unavailable, "the CA is away")),
        noswap: true,
    }
}

#[test]
fn a_record_survives_json() {
    let mut pending = record();
    pending.state = RecordState::Pending;
    pending.assigned_id = None;
    pending.assigned_key_algorithm = None;
    pending.mount_group = None;
    pending.serial = None;
    pending.not_before = None;
    pending.not_after = None;
    pending.renew_at = None;
    pending.last_error = None;
    pending.bundles = Vec::new();
    pending.taint = None;
    for record in [record(), pending] {
        let json = record.to_json().unwrap();
        assert_eq!(VolumeRecord::from_json(&json).unwrap(), record);
    }
}

#[test]
fn the_format_is_fixed() {
    // A later driver must read what this one writes: change it only with a new version.
    let json = String::from_utf8(record().to_json().unwrap()).unwrap();
    for line in [
        r#""version": 1,"#,
        r#""state": "live","#,
        r#""driver": "csi.svid.dev","#,
        r#""volumeId": "csi-0f","#,
        r#""target": "pods/u/volumes/kubernetes.io~csi/svid/mount","#,
        r#""serviceAccount": "web""#,
        r#""spiffeId": "spiffe://example.org/ns/shop/sa/web","#,
        r#""assignedId": "spiffe://example.org/web","#,
        r#""assignedKeyAlgorithm": "ecdsa-p384","#,
        r#""csi.svid.dev/ttl": "1h""#,
        r#""mountGroup": "2000","#,
        r#""serial": "0a1b","#,
        r#""notBefore": "2027-01-15T08:00:00Z","#,
        r#""notAfter": "2027-01-15T09:00:00Z","#,
        r#""renewAt": "2027-01-15T08:33:20.123456789Z","#,
        r#""class": "unavailable","#,
        r#""noswap": true"#,
    ] {
        assert!(json.contains(line), "{line} not in {json}");
    }
    // Invariant 1.
    assert!(!json.contains("SECRET"));
}

#[test]
fn a_record_from_the_future_says_so_whatever_else_is_in_it() {
    let error = VolumeRecord::from_json(br#"{"version":2,"state":{"new":"shape"}}"#).unwrap_err();
    assert!(matches!(error, RecordError::Newer { version: 2 }));
    assert_eq!(error.class(), Class::NotReady);
    assert!(error.to_string().contains("version 2"));
}

#[test]
fn additions_within_a_version_are_skipped() {
    let mut json: serde_json::Value = serde_json::from_slice(&record().to_json().unwrap()).unwrap();
    json["addition"] = serde_json::json!({"a": [1]});
    let read = VolumeRecord::from_json(json.to_string().as_bytes()).unwrap();
    assert_eq!(read, record());
}

#[test]
fn what_is_corrupt_is_an_error() {
    let json: serde_json::Value = serde_json::from_slice(&record().to_json().unwrap()).unwrap();
    for (member, bad) in [
        ("version", serde_json::json!("1")),
        ("state", serde_json::json!("Dead")),
        ("volumeId", serde_json::json!("")),
        (
            "pod",
            serde_json::json!({"namespace": "../x", "name": "p", "uid": "u", "serviceAccount": "s"}),
        ),
        ("spiffeId", serde_json::json!("https://example.org")),
        ("notAfter", serde_json::json!("tomorrow")),
        ("notAfter", serde_json::json!(1_800_000_000)),
        ("context", serde_json::json!([])),
    ] {
        let mut corrupt = json.clone();
        corrupt[member] = bad;
        let error = VolumeRecord::from_json(corrupt.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, RecordError::Malformed(_)), "{member}");
    }
    let whole = json.to_string();
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        VolumeRecord::from_json(&whole.as_bytes()[..end]).unwrap_err();
    }
    let error = VolumeRecord::from_json(&vec![b' '; VolumeRecord::MAX_SIZE + 1]).unwrap_err();
    assert!(matches!(error, RecordError::TooLarge(_)));
    VolumeRecord::from_json("[".repeat(100_000).as_bytes()).unwrap_err();
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    // Invariant 4.
    let mut record = record();
    record.last_error = Some(LastError::new(at(0), Class::Internal, &"\u{1}".repeat(100_000)));
    let largest = "\u{1}".repeat(32 << 10);
    record.context = [("example.com/x".to_owned(), largest)].into_iter().collect();
    VolumeRecord::from_json(&record.to_json().unwrap()).unwrap();
    let too_large = "x".repeat(VolumeRecord::MAX_SIZE);
    record.context = [("example.com/x".to_owned(), too_large)].into_iter().collect();
    assert!(matches!(record.to_json(), Err(RecordError::TooLarge(_))));
}

#[test]
fn times_beyond_rfc_3339_are_an_error_and_no_panic() {
    let mut record = record();
    record.not_after = Some(at(300_000_000_000));
    record.to_json().unwrap_err();
    record.not_after = Some(SystemTime::UNIX_EPOCH - Duration::from_secs(300_000_000_000));
    record.to_json().unwrap_err();
    record.not_after = Some(SystemTime::UNIX_EPOCH - Duration::from_nanos(1));
    assert_eq!(VolumeRecord::from_json(&record.to_json().unwrap()).unwrap(), record);
}

proptest! {
    #[test]
    fn times_survive(seconds in 0u64..250_000_000_000, nanos in 0u32..1_000_000_000) {
        let mut record = record();
        record.renew_at = Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos));
        prop_assert_eq!(VolumeRecord::from_json(&record.to_json().unwrap()).unwrap(), record);
    }

    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<proptest::sample::Index>(), byte: u8) {
        let _ = VolumeRecord::from_json(&bytes);
        let mut json = record().to_json().unwrap();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(read) = VolumeRecord::from_json(&json) {
            // What can be read can be written and read again. Years before 0 are not written.
            if let Ok(json) = read.to_json() {
                prop_assert_eq!(VolumeRecord::from_json(&json).unwrap(), read);
            }
        }
    }
}
