//! What is printed, for people or for machines.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    cli::inspect::clean,
    controller::approver::{Decision, Explanation, JwtGrant, PolicySet, Verdict},
    k8s::{NamespaceFacts, PodFacts},
    volume::duration,
};

/// What would be decided and why.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pod: String,
    service_account: String,
    policies: Vec<PolicyLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applies: Option<String>,
    rules: Vec<RuleLine>,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<GrantLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<JwtLine>,
}

/// One policy, in the order in which they apply.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyLine {
    name: String,
    priority: i32,
    matches: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// One rule of the policy that applies.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleLine {
    name: String,
    met: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

/// What the pod gets.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantLine {
    id: String,
    ttl: String,
    key_algorithm: String,
    dns_names: Vec<String>,
    federates_with: Vec<String>,
    allowed: AllowedLine,
    /// Whether the node is told so by a first denial, `IdentityIs`.
    asked_twice: bool,
}

/// What is decided on a JWT-SVID.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JwtLine {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    audience: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    claims: BTreeMap<String, String>,
}

/// What the pod could ask for.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct AllowedLine {
    #[serde(rename = "maxTTL")]
    max_ttl: String,
    key_algorithms: Vec<String>,
    dns_names: Vec<String>,
}

// === impl Report ===

impl Report {
    pub(super) fn new(
        pod: &PodFacts,
        namespace: &NamespaceFacts,
        policies: &PolicySet,
        explanation: Explanation,
    ) -> Self {
        let lines = policies.iter().map(|policy| PolicyLine {
            name: policy.name().to_owned(),
            priority: policy.priority(),
            matches: policy.matches(pod, namespace),
            problem: policy.problem().map(ToString::to_string),
        });
        let rules = explanation.rules.into_iter().map(|rule| RuleLine {
            met: rule.verdict == Verdict::Met,
            message: match rule.verdict {
                Verdict::Met => String::new(),
                Verdict::NotMet => rule.message,
                Verdict::TooExpensive { steps } => format!("it could take {steps} steps"),
                Verdict::Failed(problem) => format!("it can't be evaluated: {problem}"),
            },
            name: rule.name,
        });
        let applying =
            policies.iter().find(|policy| explanation.applies.as_deref() == Some(policy.name()));
        let allowed = applying.and_then(|policy| policy.allows()).map_or_else(
            AllowedLine::default,
            |(max_ttl, algorithms, names)| AllowedLine {
                max_ttl: duration::format(max_ttl),
                key_algorithms: algorithms.iter().map(ToString::to_string).collect(),
                dns_names: names.iter().map(ToString::to_string).collect(),
            },
        );
        let (decision, reason, message, grant) = match explanation.decision {
            Decision::Approve(grant) => {
                let key = grant.public_key.algorithm();
                let line = GrantLine {
                    id: grant.id.to_string(),
                    ttl: duration::format(grant.ttl),
                    key_algorithm: key.map(|key| key.to_string()).unwrap_or_default(),
                    dns_names: grant.dns_names.iter().map(ToString::to_string).collect(),
                    federates_with: grant.federates_with.iter().map(ToString::to_string).collect(),
                    allowed,
                    asked_twice: explanation.asked_twice,
                };
                ("admitted", None, None, Some(line))
            }
            Decision::Deny(denial) => {
                ("denied", Some(denial.reason.as_str()), Some(denial.message), None)
            }
        };
        Self {
            pod: pod.object_name().to_string(),
            service_account: pod.service_account().to_owned(),
            policies: lines.collect(),
            applies: explanation.applies,
            rules: rules.collect(),
            decision,
            reason,
            message,
            grant,
            jwt: explanation.jwt.map(JwtLine::of),
        }
    }

    /// Whether the pod gets what it asks for.
    pub(super) fn admitted(&self) -> bool {
        self.grant.is_some() && self.jwt.as_ref().is_none_or(|jwt| jwt.reason.is_none())
    }

    /// For people.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("pod       {}, ServiceAccount {}\n", self.pod, self.service_account);
        let mut applied = false;
        for policy in &self.policies {
            let what = match (policy.matches, applied) {
                (false, _) => "does not match",
                (true, false) => "applies",
                (true, true) => "matches, but one before it applies",
            };
            applied |= policy.matches;
            text += &format!("policy    {} (priority {}): {what}\n", policy.name, policy.priority);
            if let Some(problem) = &policy.problem {
                text += &format!("          INVALID: {problem}\n");
            }
        }
        if self.policies.is_empty() {
            text += "policy    none\n";
        }
        for rule in &self.rules {
            let (met, gap) = match (rule.met, rule.message.is_empty()) {
                (true, _) => ("met", ""),
                (false, true) => ("NOT met", ""),
                (false, false) => ("NOT met", ": "),
            };
            text += &format!("rule      {}: {met}{gap}{}\n", rule.name, rule.message);
        }
        if let Some(grant) = &self.grant {
            let list = |names: &[String]| match names {
                [] => "none".to_owned(),
                names => names.join(", "),
            };
            let allowed = &grant.allowed;
            text += &format!("id        {}\n", grant.id);
            text += &format!("ttl       {} (up to {})\n", grant.ttl, allowed.max_ttl);
            let algorithms = list(&allowed.key_algorithms);
            text += &format!("key       {} (of {algorithms})\n", grant.key_algorithm);
            let templates = list(&allowed.dns_names);
            text += &format!("dns       {} (of {templates})\n", list(&grant.dns_names));
            if !grant.federates_with.is_empty() {
                text += &format!("federates {}\n", list(&grant.federates_with));
            }
            if grant.asked_twice {
                text += "          the node is told the ID and key algorithm by a first denial, IdentityIs\n";
            }
        }
        if let Some(jwt) = &self.jwt {
            text += &jwt.to_text();
        }
        let denied = self.jwt.as_ref().and_then(|jwt| jwt.reason.zip(jwt.message.as_ref()));
        let (denied, what) = match self.reason.zip(self.message.as_ref()) {
            Some(denied) => (Some(denied), "DENIED   "),
            None => (denied, "DENIED    the JWT-SVID:"),
        };
        text += &match denied {
            Some((reason, message)) => format!("{what} {reason}: {message}\n"),
            None => "ADMITTED\n".to_owned(),
        };
        // Names and messages are somebody else's words.
        text.lines().map(|line| clean(line) + "\n").collect()
    }
}

// === impl JwtLine ===

impl JwtLine {
    fn of(decision: Decision<JwtGrant>) -> Self {
        let denied = Self {
            decision: "denied",
            reason: None,
            message: None,
            audience: Vec::new(),
            ttl: None,
            claims: BTreeMap::new(),
        };
        match decision {
            Decision::Approve(grant) => Self {
                decision: "admitted",
                audience: grant.audience,
                ttl: Some(duration::format(grant.ttl)),
                claims: grant.claims,
                ..denied
            },
            Decision::Deny(denial) => Self {
                reason: Some(denial.reason.as_str()),
                message: Some(denial.message),
                ..denied
            },
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        if let Some(ttl) = &self.ttl {
            text += &format!("jwt       for {}, {ttl} at most\n", self.audience.join(", "));
        }
        for (name, value) in &self.claims {
            text += &format!("claim     {name}: {value}\n");
        }
        text
    }
}
