//! Rules: what they see, what is refused, and that none can cost too much.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rule(expression: &str) -> Result<Rule, PolicyProblem> {
    Rule::compile(&PolicyRule {
        name: "rule".to_owned(),
        expression: expression.to_owned(),
        message: String::new(),
    })
}

fn input() -> Json {
    let env: Vec<_> = (0..40).map(|n| json!({"name": format!("V{n}"), "value": "x"})).collect();
    json!({
        "pod": {
            "namespace": "shop", "name": "web-0", "uid": "u", "labels": {"app": "web"},
            "spec": {
                "priority": 0,
                "containers": [
                    {"name": "web", "image": "registry.example/web:1", "env": env},
                    {"name": "log", "image": "registry.example/log:1"},
                ],
                "hostNetwork": false,
            },
        },
        "serviceAccount": {"namespace": "shop", "name": "web", "uid": "s", "labels": {}},
        "namespaceObject": {"name": "shop", "uid": "n", "labels": {"team": "red"}},
        "node": {"name": "a", "uid": "m",
            "labels": {"node-restriction.kubernetes.io/team": "shop"}, "taints": [
            {"key": "dedicated", "value": "shop", "effect": "NoSchedule"}]},
        "request": {"id": "spiffe://example.org/ns/shop/sa/web", "ttl": 3600,
            "keyAlgorithm": "ecdsa-p256", "dnsNames": ["web.shop.svc"], "audience": []},
    })
}

fn verdict(expression: &str) -> Verdict {
    rule(expression).unwrap_or_else(|problem| panic!("{expression}: {problem}")).judge(&input())
}

#[test]
fn rules_see_what_they_should() {
    for expression in [
        "true",
        "pod.spec.containers.all(c, c.image.startsWith('registry.example/'))",
        "pod.spec.containers.exists(c, has(c.env) && c.env.exists(e, e.name == 'V39'))",
        "pod.spec.containers.map(c, c.name) == ['web', 'log']",
        "pod.spec.containers.filter(c, has(c.env)).size() == 1",
        "pod.spec.priority == 0 && !pod.spec.hostNetwork",
        "namespaceObject.labels['team'] in ['red', 'blue']",
        "has(namespaceObject.labels.team) && namespaceObject.labels.team == 'red'",
        "'app' in pod.labels",
        "node.taints.exists(t, t.key == 'dedicated' && t.value == pod.namespace)",
        "request.ttl <= 3600 && request.keyAlgorithm.startsWith('ecdsa')",
        "request.dnsNames.all(n, n.endsWith('.' + pod.namespace + '.svc'))",
        "pod.name.matches('^web-[0-9]+$') && matches(serviceAccount.name, 'w.b')",
        "'node-restriction.kubernetes.io/team' in node.labels && \
            node.labels['node-restriction.kubernetes.io/team'] == pod.namespace",
        "size(pod.labels) == 1 && pod.labels.all(key, key != 'x')",
        "request.id == 'spiffe://example.org/ns/' + namespaceObject.name + '/sa/' + serviceAccount.name",
    ] {
        assert_eq!(verdict(expression), Verdict::Met, "{expression}");
    }
    for expression in ["false", "pod.name.matches('^x')", "request.ttl < 60"] {
        assert_eq!(verdict(expression), Verdict::NotMet, "{expression}");
    }
}

#[test]
fn what_can_not_be_evaluated_fails_and_shows_no_value() {
    for expression in [
        "pod.labels.absent == 'x'",
        "pod.spec.containers[7].name == 'x'",
        "request.ttl / 0 == 1",
        "1 + 'a' == 2",
        "pod.spec == 1 + 1 || pod.spec.containers + 1 == 2",
        "pod.name",
        "9223372036854775807 + request.ttl > 0",
        "pod.spec.containers < 3",
    ] {
        let Verdict::Failed(problem) = verdict(expression) else {
            panic!("{expression}: {:?}", verdict(expression));
        };
        assert!(!problem.contains("registry"), "{expression}: {problem}");
    }
}

#[test]
fn what_a_node_can_write_or_nobody_has_is_refused_when_read() {
    for (expression, problem) in [
        ("pod.annotations['x'] == 'y'", "pod has no annotations"),
        ("pod.status.phase == 'Running'", "pod has no status"),
        ("pod.metadata.name == 'x'", "pod has no metadata"),
        ("node.status == 1", "node has no status"),
        ("has(pod.annotations)", "pod has no annotations"),
        ("namespace.name == 'x'", "is called namespaceObject"),
        ("pods.name == 'x'", "there is no variable pods; did you mean pod?"),
        ("pod.spec.containers.all(pod, true)", "can't be the variable"),
        ("pod.name.lowerAscii() == 'x'", "there is no function lowerAscii"),
        ("timestamp('2026-01-01T00:00:00Z') == 1", "there is no function timestamp"),
        ("type(1) == int", "there is no function type"),
        ("pod.?name == 'x'", "line 1"),
        ("Foo{a: 1}.a == 1", "there is no type Foo"),
        ("'a'.matches(pod.name)", "must be a literal"),
        ("'a'.matches('(')", "the pattern"),
        ("'a'.matches('(a{1,900}){1,900}')", "the pattern"),
        ("1 +", "line 1"),
        ("", "line 1"),
        ("'", "line 1"),
        ("[1].all(a, [1].all(b, [1].all(c, [1].all(d, true))))", "nest deeper"),
    ] {
        let error = rule(expression).expect_err(expression);
        assert!(error.to_string().contains(problem), "{expression}: {error}");
        assert_eq!(error.reason(), "InvalidRule");
    }
}

#[test]
fn monsters_are_refused_on_a_small_stack() {
    let monsters = [
        "(".repeat(2000),
        format!("{}true{}", "(".repeat(1000), ")".repeat(1000)),
        format!("{}true", "!".repeat(2000)),
        format!("{}1 == 1", "- ".repeat(1000)),
        format!("{}true", "!(".repeat(600)),
        format!("{}1{}", "[".repeat(1000), "]".repeat(1000)),
        format!("pod{} == 1", ".a".repeat(1000)),
        format!("pod{} == 1", "['a']".repeat(400)),
        format!("1{} == 1", "+1".repeat(1000)),
        format!("true{}", "&&true".repeat(300)),
        format!("true{}", " ? true : true".repeat(140)),
        format!("1{}", "==1".repeat(600)),
        format!("pod.name{} == 'x'", ".size()".repeat(280)),
        "a,".repeat(1000),
        "}".repeat(2000),
        "\u{0}".repeat(2000),
        "'a' ".repeat(500),
        "x".repeat(3000),
    ];
    // Less than what the runtime gives its threads.
    let small = std::thread::Builder::new().stack_size(1 << 20);
    small
        .spawn(move || {
            for monster in monsters {
                let started = Instant::now();
                if let Ok(rule) = rule(&monster) {
                    rule.judge(&input());
                }
                assert!(started.elapsed().as_secs() < 5, "{:.40}", monster);
            }
        })
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn bad_input_a_policy_that_costs_too_much_is_not_evaluated() {
    let large = {
        let mut input = input();
        let containers: Vec<_> = (0..200)
            .map(|n| json!({"name": format!("c{n}"), "args": vec!["x".repeat(100); 50]}))
            .collect();
        input["pod"]["spec"]["containers"] = containers.into();
        input
    };
    for expression in [
        "pod.spec.containers.all(a, pod.spec.containers.all(b, a != b || true))",
        "pod.spec.containers.all(a, a.args.all(b, a.args.all(c, b == c)))",
        "pod.spec.containers.map(a, pod.spec.containers).size() > 0",
    ] {
        let rule = rule(expression).unwrap();
        let started = Instant::now();
        let verdict = rule.judge(&large);
        assert!(matches!(verdict, Verdict::TooExpensive { .. }), "{expression}: {verdict:?}");
        assert!(started.elapsed().as_millis() < 500, "{expression}");
    }
    let lists = "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]";
    let made =
        format!("{lists}.all(a, ({lists}+{lists}).all(b, ({lists}+{lists}).all(c, a+b+c > 0)))");
    assert!(matches!(rule(&made).unwrap().judge(&large), Verdict::TooExpensive { .. }));
    let doubling = "['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'].all(a, [a+a+a+a+a+a+a+a].all(b, \
        [b+b+b+b+b+b+b+b+b+b+b+b].all(c, (c+c+c+c+c+c+c+c+c+c+c+c+c+c+c+c+c).contains('b'))))";
    assert!(steps(doubling) > 1000, "what is made counts: {}", steps(doubling));
}

fn steps(expression: &str) -> u64 {
    cost::steps(&rule(expression).unwrap().compiled.expression, &input())
}

/// What is allowed is done in some milliseconds, even in a debug build.
#[test]
fn the_bound_on_steps_bounds_the_time() {
    let mut input = input();
    let names: Vec<_> = (0..90).map(|n| format!("name-{n}")).collect();
    input["request"]["dnsNames"] = names.into();
    for expression in [
        "request.dnsNames.all(a, request.dnsNames.all(b, a == b || true))",
        "request.dnsNames.all(a, request.dnsNames.exists(b, a + 'x' != b + a))",
        "request.dnsNames.map(a, request.dnsNames.filter(b, b.matches('^n.*-[0-9]+$'))).size() > 0",
        "request.dnsNames.all(a, a in request.dnsNames)",
    ] {
        let rule = rule(expression).unwrap();
        let steps = cost::steps(&rule.compiled.expression, &input);
        let started = Instant::now();
        let verdict = catch_unwind(AssertUnwindSafe(|| rule.evaluate(&input))).unwrap();
        let took = started.elapsed();
        println!(
            "{steps:>8} steps, {took:?}, {:?} a step, {verdict:?}: {expression}",
            took / steps as u32
        );
        assert!(took.as_nanos() / u128::from(steps) < 20_000, "{expression}");
    }
}

proptest! {
    #[test]
    fn no_expression_panics(expression in "[a-z.()!?:'\\[\\]{}0-9 +=&|,]{0,60}|.*") {
        if let Ok(rule) = rule(&expression) {
            rule.judge(&input());
        }
    }

    #[test]
    fn no_mix_of_words_panics(words in proptest::collection::vec(prop_oneof![
        Just("pod"), Just(".spec"), Just(".containers"), Just(".all(c, "), Just("c"), Just(")"),
        Just("("), Just(" && "), Just("!"), Just("has("), Just(".name"), Just(" + "), Just("'a'"),
        Just("[0]"), Just("1"), Just(" == "), Just(" ? "), Just(" : "), Just(".matches('a+')"),
        Just(".map(x, "), Just("x"), Just(", "), Just(" in "), Just("["), Just("]"), Just(".size()"),
    ], 0..30)) {
        if let Ok(rule) = rule(&words.concat()) {
            rule.judge(&input());
        }
    }
}
