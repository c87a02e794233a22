//! SPIFFE IDs, trust domains and ID templates from hostile text. The first line is an ID, the
//! second a template, the others what the template is filled with.

#![no_main]

use libfuzzer_sys::fuzz_target;
use svid_csi::id::{IdTemplate, SpiffeId, TemplateInput, TrustDomain};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    id(first);
    trust_domain(first);

    let template = lines.next().unwrap_or_default();
    let (Some(namespace), Some(service_account), Some(pod_name)) =
        (lines.next(), lines.next(), lines.next())
    else {
        return;
    };
    let namespace_labels = lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    render(
        template,
        &TemplateInput {
            namespace,
            service_account,
            pod_name,
            namespace_labels: &namespace_labels,
        },
    );
});

fn id(text: &str) {
    let Ok(id) = text.parse::<SpiffeId>() else {
        return;
    };
    assert_eq!(id.to_string(), text, "an ID is shown as it was read");
    assert!(text.len() <= 2048 && text.is_ascii());
    assert!(id.path().is_empty() || id.path().starts_with('/'));
    assert_eq!(id.is_workload(), !id.path().is_empty());
    let rebuilt = SpiffeId::new(&id.trust_domain().clone(), id.path()).expect("its own parts");
    assert_eq!(rebuilt, id);
}

fn trust_domain(text: &str) {
    let Ok(domain) = text.parse::<TrustDomain>() else {
        return;
    };
    assert_eq!(domain.to_string().parse::<TrustDomain>().as_ref(), Ok(&domain));
    let id = domain.id();
    assert_eq!(id.to_string(), format!("spiffe://{domain}"));
    assert!(!id.is_workload());
}

fn render(template: &str, input: &TemplateInput<'_>) {
    let Ok(template) = template.parse::<IdTemplate>() else {
        return;
    };
    let domain: TrustDomain = "example.org".parse().expect("a trust domain");
    let Ok(id) = template.render(&domain, input) else {
        return;
    };
    assert!(id.is_workload(), "{id}");
    assert_eq!(id.trust_domain().as_str(), "example.org");
    let first = id.path().split('/').nth(1);
    assert_ne!(first, Some("svid.dev"), "a reserved path: {id}");
    assert_eq!(id.to_string().parse::<SpiffeId>().as_ref(), Ok(&id));
}
