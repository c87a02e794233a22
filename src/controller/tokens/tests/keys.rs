//! The API server's keys come, go and cannot be had.

use super::*;

const UNSEEN: &str =
    "the token's key (kid) is none that the API server published a moment ago; try again soon";
const UNKNOWN: &str = "the token's key (kid) is none that the API server publishes";

fn new_key() -> JwtKey {
    JwtKey::generate(JwtKeyAlgorithm::Es256).unwrap()
}

async fn seconds(seconds: u64) {
    for _ in 0..seconds * 2 {
        advance(Duration::from_millis(500)).await;
        // What became due runs.
        for _ in 0..32 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    seconds(10).await;
    let new = new_key();
    bench.api.publish(ISSUER, Some(vec![jwk(&bench.key), jwk(&new)]));
    let token = sign(&new, &header(&new), &body());
    assert_eq!(bench.verify(&token).await, Ok(()), "at once");
    assert_eq!(bench.api.reads(), 2);
    assert_eq!(bench.verify(&bench.token(json!({}))).await, Ok(()), "the old one goes on");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_causes_hardly_a_call() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    seconds(10).await;
    let forged = |number: usize| {
        let header = with(&header(&bench.key), &json!({"kid": format!("k{number}")}));
        sign(&bench.key, &header, &body())
    };
    assert_eq!(bench.verify(&forged(0)).await, Err(UNKNOWN.to_owned()), "the API server was asked");
    for number in 1..2_000 {
        assert_eq!(bench.verify(&forged(number)).await, Err(UNSEEN.to_owned()));
    }
    assert_eq!(bench.api.reads(), 2);
    for number in 0..40 {
        let _ = bench.verify(&forged(number)).await;
        seconds(1).await;
    }
    assert!((8..=11).contains(&bench.api.reads()), "{} in 40 s", bench.api.reads());
    assert_eq!(bench.api.reviews(), 0);
    assert_eq!(bench.verify(&bench.token(json!({}))).await, Ok(()), "who has a good one is served");
}

#[tokio::test(start_paused = true)]
async fn many_that_name_a_new_key_at_once_cause_one_call() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    seconds(10).await;
    let new = new_key();
    bench.api.publish(ISSUER, Some(vec![jwk(&new)]));
    let mut all = JoinSet::new();
    for number in 0..200 {
        let token = sign(&new, &header(&new), &with(&body(), &json!({"jti": number.to_string()})));
        let tokens = bench.tokens.clone();
        all.spawn(async move { tokens.verify(&token).await.map(drop) });
    }
    while let Some(verified) = all.join_next().await {
        verified.unwrap().unwrap();
    }
    assert_eq!(bench.api.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_taken_back_counts_no_longer() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let token = bench.token(json!({}));
    assert_eq!(bench.verify(&token).await, Ok(()));
    bench.api.publish(ISSUER, Some(vec![jwk(&new_key())]));
    seconds(62).await;
    assert!(bench.verify(&token).await.is_err(), "though it was known to be good");
    assert_eq!(bench.tokens.keys.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_read_anew_count_for_a_while() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let token = bench.token(json!({}));
    bench.api.publish(ISSUER, None);
    seconds(14 * 60).await;
    assert_eq!(bench.verify(&token).await, Ok(()));
    assert_eq!(bench.tokens.ready(), Ok(()));
    seconds(62).await;
    assert!(bench.verify(&token).await.is_err());
    let problem = bench.tokens.ready().unwrap_err();
    assert!(problem.contains("TokenReview: cannot review a token: you may not"), "{problem}");
    bench.api.publish(ISSUER, Some(vec![jwk(&bench.key)]));
    seconds(62).await;
    assert_eq!(bench.verify(&token).await, Ok(()));
    assert_eq!(bench.tokens.ready(), Ok(()));
}

fn verdict() -> Value {
    let key = |name: &str| format!("authentication.kubernetes.io/{name}");
    json!({
        "authenticated": true, "audiences": ["svid.dev"],
        "user": {
            "username": "system:serviceaccount:shop:cart", "uid": "s-1",
            "extra": {
                key("node-name"): ["node-1"], key("node-uid"): ["n-1"],
                key("pod-name"): ["cart-0"], key("pod-uid"): ["p-1"],
            },
        },
    })
}

#[tokio::test(start_paused = true)]
async fn where_keys_cannot_be_had_the_api_server_is_asked() {
    let bench = Bench::unread(new_key());
    bench.api.review(Some(verdict()));
    bench.read().await;
    assert_eq!(bench.tokens.ready(), Ok(()), "TokenReview will do");
    let probes = bench.api.reviews();
    let token = bench.token(json!({}));
    for _ in 0..100 {
        assert_eq!(bench.verify(&token).await, Ok(()));
    }
    assert_eq!(bench.api.reviews() - probes, 1, "and believed for two minutes");
    // What no verdict could make good is not asked about.
    for changes in
        [json!({"aud": ["vault"]}), json!({"exp": NOW}), json!({"/kubernetes.io/pod": null})]
    {
        assert!(bench.verify(&bench.token(changes)).await.is_err());
    }
    assert_eq!(bench.api.reviews() - probes, 1);
    seconds(121).await;
    let probes = bench.api.reviews();
    assert_eq!(bench.verify(&token).await, Ok(()));
    assert_eq!(bench.api.reviews() - probes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_must_say_what_the_token_says() {
    let bench = Bench::unread(new_key());
    bench.read().await;
    let extra = |name: &str| format!("/user/extra/authentication.kubernetes.io~1{name}");
    let set = |path: &str, value: Value| {
        let mut verdict = verdict();
        *verdict.pointer_mut(path).unwrap() = value;
        verdict
    };
    for (verdict, problem) in [
        (json!({"authenticated": false, "error": "expired"}), "does not take the token"),
        (json!({"error": "x"}), "does not take the token"),
        (json!({}), "does not take the token"),
        (set("/audiences", json!([])), "takes the token for another one"),
        (set("/audiences", json!(["svid.dev", "vault"])), "takes the token for another one"),
        (set("/user/username", json!("system:serviceaccount:shop:x")), "for another one"),
        (set("/user/uid", json!("s-2")), "takes the token for another one"),
        (set(&extra("pod-uid"), json!(["p-2"])), "takes the token for another one"),
        (set(&extra("pod-name"), json!([])), "takes the token for another one"),
        (set(&extra("node-name"), json!(["node-2"])), "takes the token for another one"),
        (set(&extra("node-uid"), json!(["n-1", "n-2"])), "takes the token for another one"),
    ] {
        bench.api.review(Some(verdict.clone()));
        let found = bench.verify(&bench.token(json!({}))).await.unwrap_err();
        assert!(found.contains(problem), "{verdict}: {found}");
    }
    bench.api.review(None);
    let error = bench.tokens.verify(&bench.token(json!({}))).await.unwrap_err();
    assert_eq!(error.class(), crate::class::Class::Unavailable, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_issuer_is_the_api_servers_to_judge() {
    let bench = Bench::new(JwtKeyAlgorithm::Es256).await;
    let foreign = bench.token(json!({"iss": "https://before.example.org"}));
    bench.api.review(Some(json!({"authenticated": false})));
    let found = bench.verify(&foreign).await.unwrap_err();
    assert!(found.contains("does not take the token"), "{found}");
    bench.api.review(Some(verdict()));
    assert_eq!(bench.verify(&foreign).await, Ok(()));
    assert_eq!(bench.api.reviews(), 2);
    for iss in [json!(null), json!(""), json!(1)] {
        bench.api.review(Some(json!({"authenticated": false})));
        assert!(bench.verify(&bench.token(json!({"iss": iss}))).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_asked_about_at_once() {
    let bench = Bench::unread(new_key());
    bench.read().await;
    bench.api.be_silent();
    let before = bench.api.reviews();
    let mut all = JoinSet::new();
    for number in 0..REVIEWS + 100 {
        let token = bench.token(json!({"jti": number.to_string()}));
        let tokens = bench.tokens.clone();
        all.spawn(async move { tokens.verify(&token).await.map(drop) });
    }
    let mut busy = 0;
    while let Some(verified) = all.join_next().await {
        match verified.unwrap().unwrap_err() {
            TokenError::Busy => busy += 1,
            error => assert!(error.to_string().contains("did not answer"), "{error}"),
        }
    }
    assert_eq!((busy, bench.api.reviews() - before), (100, REVIEWS));
}
