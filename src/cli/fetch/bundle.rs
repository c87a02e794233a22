//! `svid-csi fetch bundle`.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use svid_csi_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, X509BundlesRequest, X509BundlesResponse,
};
use tonic::Code;

use super::{
    Session, endpoint,
    files::{self, PUBLIC},
    trouble::Trouble,
    x509::show,
};
use crate::{
    cli::{
        inspect::{Delivered, Inspected, Moment, Report, Status, delivered_bundle},
        output::OutputFormat,
    },
    id::TrustDomain,
};

const EXAMPLES: &str = "\
Examples:
  Every bundle, X.509 and JWT:
    svid-csi fetch bundle

  One trust domain's X.509 authorities, or its JWT keys (a JWK Set):
    svid-csi fetch bundle --trust-domain example.org -o pem
    svid-csi fetch bundle --trust-domain example.org -o jwks

  Files: <trust domain>.pem and <trust domain>.jwks.json for each
    svid-csi fetch bundle --write /run/app";

/// Arguments of `svid-csi fetch bundle`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BundleArgs {
    /// Only this trust domain's
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,

    /// Write each trust domain's bundles to this directory, which must be there
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: BundleFormat,
}

/// The form of bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BundleFormat {
    /// For people.
    Text,
    /// For machines: one JSON document.
    Json,
    /// The X.509 authorities of one trust domain.
    Pem,
    /// The JWT keys of one trust domain, as a JWK Set.
    Jwks,
}

/// What came, as it came.
struct Bundles {
    x509: X509BundlesResponse,
    /// Not there without a JWT key: the server's words.
    jwt: Result<JwtBundlesResponse, Trouble>,
}

pub(super) async fn run(session: &Session<'_>, args: &BundleArgs) -> Result<ExitCode> {
    let bundles = session.within(bundles(session)).await?;
    let asked =
        |domain: &Option<TrustDomain>| args.trust_domain.is_none() || *domain == args.trust_domain;
    let mut found: Vec<(Inspected, Option<TrustDomain>)> = bundles.judged(session);
    found.retain(|(_, domain)| asked(domain));
    ensure!(!found.is_empty(), "there is no bundle of that trust domain");
    match args.output {
        BundleFormat::Pem => session.print(&pem(only(&found)?)?)?,
        BundleFormat::Jwks => {
            let jwks = jwks(only(&found)?)?;
            match (jwks, &bundles.jwt) {
                (Some(jwks), _) => session.print(&jwks)?,
                (None, Err(trouble)) => bail!("{trouble}"),
                (None, Ok(_)) => bail!("there is no JWT bundle of that trust domain"),
            }
        }
        BundleFormat::Text | BundleFormat::Json => {}
    }
    if let Some(directory) = &args.write {
        ensure!(directory.is_dir(), "{} is no directory; make it first", directory.display());
        for (delivered, domain) in &found {
            let Some(domain) = domain else { continue };
            let delivered = delivered.delivered.as_ref().context("no bundle")?;
            if delivered.bundle_pem.is_some() {
                files::write(directory, &format!("{domain}.pem"), &pem(delivered)?, PUBLIC)?;
            }
            if let Some(jwks) = jwks(delivered)? {
                files::write(directory, &format!("{domain}.jwks.json"), &jwks, PUBLIC)?;
            }
        }
    }
    let results = found.into_iter().map(|(result, _)| result).collect();
    let report = Report::new(Moment(session.clock.now()), results);
    match args.output {
        BundleFormat::Text => {
            show(session, &report, OutputFormat::Text)?;
            if let Err(trouble) = &bundles.jwt {
                session.print(&format!("\nno JWT bundles: {trouble}\n"))?;
            }
        }
        BundleFormat::Json => show(session, &report, OutputFormat::Json)?,
        BundleFormat::Pem | BundleFormat::Jwks => {}
    }
    Ok(ExitCode::from(u8::from(report.status != Status::Ok)))
}

async fn bundles(session: &Session<'_>) -> Result<Bundles, Trouble> {
    let mut client = session.endpoint.client(session.patience).await?;
    let x509 = client.fetch_x509_bundles(endpoint::request(X509BundlesRequest {})).await?;
    let x509 = x509.into_inner().message().await?.ok_or(Trouble::Empty)?;
    let jwt = match client.fetch_jwt_bundles(endpoint::request(JwtBundlesRequest {})).await {
        Ok(stream) => stream.into_inner().message().await.map_err(Trouble::from),
        Err(status) => Err(status.into()),
    };
    match jwt {
        Ok(message) => Ok(Bundles { x509, jwt: Ok(message.ok_or(Trouble::Empty)?) }),
        Err(trouble) if trouble.code() == Some(Code::Unimplemented) => {
            Ok(Bundles { x509, jwt: Err(trouble) })
        }
        Err(trouble) => Err(trouble),
    }
}

/// The one that is meant.
fn only(found: &[(Inspected, Option<TrustDomain>)]) -> Result<&Delivered> {
    let [(result, _)] = found else {
        let names: Vec<String> =
            found.iter().filter_map(|(_, domain)| Some(domain.as_ref()?.to_string())).collect();
        bail!("choose one with --trust-domain: {}", names.join(", "));
    };
    result.delivered.as_ref().context("no bundle")
}

fn pem(delivered: &Delivered) -> Result<String> {
    delivered.bundle_pem.clone().context("there is no X.509 bundle of that trust domain")
}

fn jwks(delivered: &Delivered) -> Result<Option<String>> {
    let Some(jwks) = &delivered.jwks else {
        return Ok(None);
    };
    Ok(Some(format!("{}\n", serde_json::to_string_pretty(jwks)?)))
}

// === impl Bundles ===

impl Bundles {
    fn judged(&self, session: &Session<'_>) -> Vec<(Inspected, Option<TrustDomain>)> {
        let jwt = self.jwt.as_ref().ok().map(|jwt| &jwt.bundles);
        let jwt_names = jwt.into_iter().flat_map(|bundles| bundles.keys());
        let names: BTreeSet<&String> = self.x509.bundles.keys().chain(jwt_names).collect();
        let judged = names.into_iter().map(|name| {
            let x509 = self.x509.bundles.get(name).map(AsRef::as_ref);
            let jwks = jwt.and_then(|bundles| bundles.get(name)).map(AsRef::as_ref);
            delivered_bundle(name, x509, jwks, session.clock.now())
        });
        judged.collect()
    }
}
