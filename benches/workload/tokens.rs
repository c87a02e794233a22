//! JWT-SVIDs: fetched and validated, remembered and not.

use std::sync::{Arc, Mutex};

use crate::{
    QUIET, Sizes,
    client::{Client, WIDTH, socket, wide},
    plugin::{Node, Pod},
    report::{Report, Row},
};

/// An algorithm with what is aimed at: fresh audiences, and validations, in a second.
struct Algorithm {
    name: &'static str,
    setting: &'static str,
    signed: f64,
    validated: f64,
}

const ALGORITHMS: [Algorithm; 2] = [
    Algorithm { name: "ES256", setting: "es256", signed: 6_000.0, validated: 5_000.0 },
    Algorithm { name: "RS256", setting: "rs256", signed: 1_200.0, validated: 9_000.0 },
];

pub async fn run(sizes: &Sizes, report: &mut Report) {
    for algorithm in &ALGORITHMS {
        of(algorithm, sizes, report).await;
    }
}

async fn of(algorithm: &Algorithm, sizes: &Sizes, report: &mut Report) {
    let settings = [&QUIET[..], &["--jwt-key-algorithm", algorithm.setting]].concat();
    let node = Node::started(&settings).await;
    let pod = Pod::new(1);
    node.publish(&pod).await.unwrap();
    let socket = socket(&node, &pod);
    let name = algorithm.name;
    let mut client = Client::connect(&socket).await.unwrap();
    let known = client.token("known".to_owned()).await;

    let cached = |mut client: Client, _| async move {
        client.token("known".to_owned()).await;
    };
    let (rate, _) = wide(&socket, sizes.wide, cached).await;
    let what = format!("FetchJWTSVID, {name}, cached, {WIDTH} at once");
    report.add(Row::new(what).at_least("", rate, "/s", 15_000.0));

    // A signature costs milliseconds with RSA.
    let fresh_count = sizes.wide / 4;
    let tokens = Arc::new(Mutex::new(vec![String::new(); fresh_count]));
    let kept = tokens.clone();
    let fresh = move |mut client: Client, n: usize| {
        let kept = kept.clone();
        async move {
            let token = client.token(format!("audience-{n}")).await;
            kept.lock().unwrap()[n] = token;
        }
    };
    let (rate, _) = wide(&socket, fresh_count, fresh).await;
    let what = format!("FetchJWTSVID, {name}, new audience, {WIDTH} at once");
    report.add(Row::new(what).at_least("", rate, "/s", algorithm.signed));

    let again = move |mut client: Client, _| {
        let token = known.clone();
        async move { client.validate("known".to_owned(), token).await }
    };
    let (rate, _) = wide(&socket, sizes.wide, again).await;
    let what = format!("ValidateJWTSVID, {name}, remembered, {WIDTH} at once");
    report.add(Row::new(what).at_least("", rate, "/s", algorithm.validated));

    let unseen = move |mut client: Client, n: usize| {
        let token = tokens.lock().unwrap()[n].clone();
        async move { client.validate(format!("audience-{n}"), token).await }
    };
    let (rate, _) = wide(&socket, fresh_count, unseen).await;
    let what = format!("ValidateJWTSVID, {name}, not seen before, {WIDTH} at once");
    report.add(Row::new(what).at_least("", rate, "/s", algorithm.validated));
}
