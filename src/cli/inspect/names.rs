//! Which of a set's files is what: as the record says, else by their content.

use super::{content::Content, directory::Directory};
use crate::{
    id::TrustDomain,
    volume::{Layout, VolumeSpec},
};

pub(super) const BUNDLE_JSON: &str = "bundle.json";
pub(super) const FEDERATED: &str = "federated";

/// The names of a set's files.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) bundle: Option<String>,
    pub(super) combined: Option<String>,
    /// What must be there; a name, or a word for it where names were only found.
    pub(super) required: Vec<String>,
}

// === impl Names ===

impl Names {
    pub(super) fn of(spec: Option<&VolumeSpec>, directory: &Directory) -> Self {
        let mut names = match spec {
            Some(spec) => Self::chosen(spec),
            None => Self::found(directory),
        };
        names.required.push(BUNDLE_JSON.to_owned());
        names
    }

    fn chosen(spec: &VolumeSpec) -> Self {
        let files = spec.files.clone();
        let all = [&files.certificate, &files.key, &files.combined];
        let mut required: Vec<_> = all.into_iter().flatten().cloned().collect();
        required.push(files.bundle.clone());
        Self {
            certificate: files.certificate,
            key: files.key,
            bundle: Some(files.bundle),
            combined: files.combined,
            required,
        }
    }

    fn found(directory: &Directory) -> Self {
        let mut names = Self::default();
        for file in &directory.files {
            let name = &file.entry.name;
            if name == BUNDLE_JSON || name.contains('/') {
                continue;
            }
            let slot = match &file.content {
                Ok(Content::Chain(_)) => &mut names.certificate,
                Ok(Content::Key(_)) => &mut names.key,
                Ok(Content::Combined(..)) => &mut names.combined,
                Ok(Content::Bundle(_)) => &mut names.bundle,
                Ok(Content::Token(_)) | Err(_) => continue,
            };
            slot.get_or_insert_with(|| name.clone());
        }
        // A file that can't be read may be the one, and is told of anyway.
        if directory.files.iter().all(|file| file.content.is_ok()) {
            let both = names.combined.is_some();
            let mut require = |there: bool, word: &str| {
                names.required.extend((!there).then(|| word.to_owned()));
            };
            require(both || names.certificate.is_some(), "certificate");
            require(both || names.key.is_some(), "private key");
            require(names.bundle.is_some(), "trust bundle");
        }
        names
    }
}

/// The layout whose files are all there, or `custom`.
pub(super) fn layout(directory: &Directory, trust_domain: &TrustDomain) -> &'static str {
    let complete = |layout: &Layout| {
        let names = layout.file_names(trust_domain);
        let all = [names.certificate, names.key, names.combined, Some(names.bundle)];
        all.iter().flatten().all(|name| directory.file(name).is_some())
    };
    let layout = Layout::ALL.into_iter().find(complete);
    layout.map_or("custom", Layout::as_str)
}
