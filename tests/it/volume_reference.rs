//! What `docs/volume.md` tells application teams is what the code does.

use std::collections::BTreeMap;

use svid_csi::{
    class::Class,
    id::TrustDomain,
    node::metrics::{Metrics, Outcome, StateLabel, VolumeState},
    volume::{Layout, Limits, SpecError, VolumeContext, VolumeSpec},
};

use crate::plugin::{Pod, TRUST_DOMAIN};

const REFERENCE: &str = include_str!("../../docs/volume.md");

/// A pod's volume with these attributes, by their full keys.
fn parse(attributes: &[(&str, &str)]) -> Result<VolumeSpec, SpecError> {
    let mut context = Pod::new(1).context();
    for (key, value) in attributes {
        context.insert((*key).to_owned(), (*value).to_owned());
    }
    VolumeSpec::parse(&VolumeContext::from(context), None, &domain(), &Limits::default())
}

fn domain() -> TrustDomain {
    TRUST_DOMAIN.parse().unwrap()
}

/// The content of every fenced block of this language.
fn blocks(language: &str) -> Vec<Vec<&'static str>> {
    let fence = format!("```{language}");
    let (mut blocks, mut open) = (Vec::new(), false);
    for line in REFERENCE.lines().map(str::trim_end) {
        if line.trim_start().starts_with("```") {
            open = !open && line.trim_start() == fence;
            if open {
                blocks.push(Vec::new());
            }
        } else if let (true, Some(block)) = (open, blocks.last_mut()) {
            block.push(line);
        }
    }
    blocks
}

#[test]
fn its_examples_are_accepted() {
    let mut examples = 0;
    for block in blocks("yaml") {
        let attributes: Vec<_> = block
            .iter()
            .filter_map(|line| line.trim().split_once(": "))
            .filter(|(key, _)| key.starts_with("csi.svid.dev/"))
            .map(|(key, value)| (key, value.trim_matches('"')))
            .collect();
        examples += usize::from(!attributes.is_empty());
        parse(&attributes).unwrap();
    }
    assert_eq!(examples, 4);
}

#[test]
fn its_errors_are_the_drivers_own() {
    let blocks = blocks("text");
    let [lines] = blocks.as_slice() else {
        panic!("one block of errors");
    };
    assert_eq!(lines.len() % 2, 0);
    for pair in lines.chunks(2) {
        let (key, value) = pair[0].split_once(": ").unwrap();
        let error = parse(&[(key, value)]).unwrap_err().to_string();
        assert_eq!(pair[1].trim(), error);
    }
}

#[test]
fn it_has_every_attribute_layout_file_and_mode() {
    for (key, value) in [
        ("ttl", "1h"),
        ("key-algorithm", "ed25519"),
        ("dns-names", "{pod-name}.example"),
        ("layout", "tls"),
        ("certificate-file", "a"),
        ("key-file", "a"),
        ("bundle-file", "a"),
        ("combined-file", "a"),
        ("uid", "1"),
        ("gid", "1"),
        ("mode", "0400"),
        ("socket", "none"),
        ("jwt", "token=vault"),
    ] {
        parse(&[(&format!("csi.svid.dev/{key}"), value)]).unwrap();
        assert!(REFERENCE.contains(&format!("\n| `{key}` |")), "{key}");
    }
    for layout in Layout::ALL {
        let row = format!("\n| `{}` |", layout.as_str());
        let row = REFERENCE.split_once(&row).expect("its row").1;
        let row = row.lines().next().unwrap().replace("<trust-domain>", TRUST_DOMAIN);
        let names = layout.file_names(&domain());
        let all = [names.certificate, names.key, names.combined, Some(names.bundle)];
        for name in all.into_iter().flatten() {
            assert!(row.contains(&format!("`{name}`")), "{name} is not in {row}");
        }
    }
    let rows: BTreeMap<&str, &[(&str, &str)]> = BTreeMap::from([
        ("| nothing | 0:0 |", [].as_slice()),
        ("| `uid: U` | U:0 |", &[("csi.svid.dev/uid", "7")]),
        ("| `gid: G` | 0:G |", &[("csi.svid.dev/gid", "7")]),
    ]);
    for (row, attributes) in rows {
        let own = parse(attributes).unwrap().ownership;
        let row = format!("{row} {:04o} | {:04o} |", own.dir_mode, own.file_mode);
        assert!(REFERENCE.contains(&row), "{row}");
    }
}

#[test]
fn its_metrics_exist() {
    let metrics = Metrics::default();
    // A family without a member is not shown.
    let ok = Outcome::of(&Ok(()), |(): &()| Class::Internal);
    for family in [&metrics.publishes, &metrics.renewals, &metrics.bundle_rewrites] {
        family.get_or_create(&ok).inc();
    }
    let state = VolumeState::Live;
    metrics.volumes.get_or_create(&StateLabel { state }).set(1);
    let shown = metrics.encode().unwrap();
    let names = REFERENCE.split('`').filter(|part| part.starts_with("svid_csi_"));
    let mut count = 0;
    for name in names {
        let name = name.split('{').next().unwrap();
        let family = name.strip_suffix("_total").unwrap_or(name);
        assert!(shown.contains(&format!("# TYPE {family} ")), "{name}");
        count += 1;
    }
    assert_eq!(count, 9);
}
