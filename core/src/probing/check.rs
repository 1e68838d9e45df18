//! Health checks as a pure matter: what to run, how to judge what it met, and when a status changes.

use std::time::Duration;

use http::StatusCode;

use crate::{
    limits::{
        CHECK_OUTPUT_BYTES_MAX, COMMAND_TIMEOUT_DEFAULT, PROBE_INTERVAL_DEFAULT, PROBE_INTERVAL_MIN,
        PROBE_TIMEOUT_DEFAULT,
    },
    registry::{CheckDefinition, CheckStatus, Probe},
    runtime::{self, ProbeOutcome, ProbeTls},
};

/// Which request form registered a check: the two judge outcomes differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rules {
    /// HTTP 2xx and 3xx pass, 4xx warn; a program passes with 0.
    #[default]
    Short,
    /// HTTP 2xx pass, 429 warns; a program passes with 0 and warns with 1.
    Consul,
}

/// The status of an alias by the worst of the checks of what it stands for, with its name and output, and what there is to
/// say about it, in Consul's words.
pub(crate) fn of_aliased(worst: Option<(CheckStatus, &str, &str)>) -> (CheckStatus, String) {
    match worst {
        None => (CheckStatus::Passing, "No checks found.".to_owned()),
        Some((CheckStatus::Passing, ..)) => (CheckStatus::Passing, "All checks passing.".to_owned()),
        Some((status, name, output)) => {
            let output = format!("Aliased check {name:?} failing: {output}");
            (status, cut(output))
        }
    }
}

/// What the platform has to run for a check; `None` for a check that someone else reports on.
pub(crate) fn probe_of(rules: Rules, definition: &CheckDefinition) -> Option<runtime::Probe> {
    let said = definition.extras();
    let by_tls = || ProbeTls {
        server_name: said.tls_server_name.clone(),
        skip_verify: said.tls_skip_verify,
    };
    match &definition.probe {
        // An alias has the status of something else.
        Probe::Ttl(_) | Probe::External | Probe::Alias { .. } => None,
        Probe::Udp(address) => Some(runtime::Probe::Udp {
            address: address.clone(),
        }),
        Probe::Grpc { target, tls } => {
            let (address, service) = target.split_once('/').unwrap_or((target, ""));
            Some(runtime::Probe::Grpc {
                address: address.to_owned(),
                service: service.to_owned(),
                tls: tls.then(by_tls),
            })
        }
        Probe::H2ping { address, tls } => Some(runtime::Probe::H2ping {
            address: address.clone(),
            tls: tls.then(by_tls),
        }),
        Probe::Docker {
            container,
            shell,
            args,
        } => Some(runtime::Probe::Command {
            args: in_container(container, shell, args),
        }),
        Probe::OsService(name) => Some(runtime::Probe::Command {
            args: ["systemctl", "is-active", "--", name].map(str::to_owned).to_vec(),
        }),
        Probe::Http {
            url,
            method,
            headers,
            body,
        } => Some(runtime::Probe::Http {
            url: url.clone(),
            method: if method.is_empty() {
                "GET".into()
            } else {
                method.clone()
            },
            headers: headers.clone(),
            body: body.clone(),
            tls: by_tls(),
            // In the short form a redirect is an answer, and passes.
            follows_redirects: rules == Rules::Consul && !said.disable_redirects,
        }),
        Probe::Tcp(address) => Some(runtime::Probe::Tcp {
            address: address.clone(),
            tls: said.tcp_use_tls.then(by_tls),
        }),
        Probe::Cmd(args) => Some(runtime::Probe::Command { args: args.clone() }),
    }
}

/// How a program is run in a container: by Docker's own client, and by a shell if one is named.
fn in_container(container: &str, shell: &str, args: &[String]) -> Vec<String> {
    let mut line = vec!["docker".to_owned(), "exec".to_owned(), container.to_owned()];
    match shell {
        "" => line.extend(args.iter().cloned()),
        shell => line.extend([shell.to_owned(), "-c".to_owned(), args.join(" ")]),
    }
    line
}

/// How long one run may take.
pub(crate) fn timeout_of(definition: &CheckDefinition) -> Duration {
    match (definition.timeout, &definition.probe) {
        (Duration::ZERO, Probe::Cmd(_)) => COMMAND_TIMEOUT_DEFAULT,
        (Duration::ZERO, _) => PROBE_TIMEOUT_DEFAULT,
        (timeout, _) => timeout,
    }
}

/// The time between two runs.
pub(crate) fn interval_of(definition: &CheckDefinition) -> Duration {
    match definition.interval {
        Duration::ZERO => PROBE_INTERVAL_DEFAULT,
        interval => interval.max(PROBE_INTERVAL_MIN),
    }
}

/// The status that one outcome stands for, before any threshold, and the output to show, with `output_bytes_max` of what
/// the service or the program said.
pub(crate) fn judge(
    rules: Rules,
    probe: &runtime::Probe,
    outcome: ProbeOutcome,
    output_bytes_max: usize,
) -> (CheckStatus, String) {
    let (status, output) = match outcome {
        ProbeOutcome::HttpStatus { status, output } => {
            let judged = match (rules, status) {
                (_, 200..=299) | (Rules::Short, 300..=399) => CheckStatus::Passing,
                (Rules::Short, 400..=499) | (Rules::Consul, 429) => CheckStatus::Warning,
                _ => CheckStatus::Critical,
            };
            let output = cut_to(output, output_bytes_max);
            let text = match probe {
                runtime::Probe::Http { url, method, .. } => {
                    let words = StatusCode::from_u16(status)
                        .ok()
                        .and_then(|it| it.canonical_reason());
                    let words = words.map(|words| format!(" {words}")).unwrap_or_default();
                    format!("HTTP {method} {url}: {status}{words} Output: {output}")
                }
                _ => output,
            };
            (judged, text)
        }
        ProbeOutcome::Connected => {
            let text = match probe {
                runtime::Probe::Tcp { address, .. } => format!("TCP connect {address}: Success"),
                runtime::Probe::Udp { address } => format!("UDP connect {address}: Success"),
                runtime::Probe::Grpc { address, .. } => format!("gRPC check {address}: success"),
                runtime::Probe::H2ping { .. } => "HTTP2 ping was successful".into(),
                _ => "connected".into(),
            };
            (CheckStatus::Passing, text)
        }
        ProbeOutcome::Exited { code, output } => {
            let judged = match (rules, code) {
                (_, 0) => CheckStatus::Passing,
                (Rules::Consul, 1) if !is_of_the_means(probe, &output) => CheckStatus::Warning,
                _ => CheckStatus::Critical,
            };
            (judged, cut_to(output, output_bytes_max))
        }
        ProbeOutcome::Failed { output } => (CheckStatus::Critical, output),
    };
    (status, cut(output))
}

/// Whether what went wrong is the way to what is checked, which says nothing of it: Docker, or the system's own services.
fn is_of_the_means(probe: &runtime::Probe, output: &str) -> bool {
    const OF_DOCKER: [&str; 4] = [
        "Cannot connect to the Docker daemon",
        "Error response from daemon",
        "Error: No such container",
        "failed to connect to the docker API",
    ];
    let runtime::Probe::Command { args } = probe else {
        return false;
    };
    match args.as_slice() {
        [program, verb, ..] if program == "docker" && verb == "exec" => {
            OF_DOCKER.iter().any(|said| output.trim_start().starts_with(said))
        }
        [program, verb, ..] => program == "systemctl" && verb == "is-active",
        _ => false,
    }
}

/// Cuts an output to [`CHECK_OUTPUT_BYTES_MAX`] between two characters.
pub(crate) fn cut(output: String) -> String {
    cut_to(output, CHECK_OUTPUT_BYTES_MAX)
}

/// Cuts an output to so many bytes at most, between two characters.
pub(crate) fn cut_to(mut output: String, bytes_max: usize) -> String {
    let end = output.floor_char_boundary(bytes_max);
    output.truncate(end);
    output
}

/// How many results in a row were alike: what the flap thresholds count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    successes: u32,
    failures: u32,
}

impl Streak {
    /// That of a check before its first run, whose result counts at once, as with Consul: enough of either.
    pub(crate) const UNRUN: Streak = Streak {
        successes: u32::MAX,
        failures: u32::MAX,
    };

    /// Counts a result and gives the status to take on, or `None` while its threshold is not reached and the status
    /// stays what it is. A warning counts as a success, as it does for Consul's agent.
    pub(crate) fn count(&mut self, definition: &CheckDefinition, result: CheckStatus) -> Option<CheckStatus> {
        if matches!(result, CheckStatus::Passing | CheckStatus::Warning) {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            return (self.successes >= definition.success_before_passing.max(1)).then_some(result);
        }
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let critical = definition.failures_before_critical.max(1);
        let warning = match definition.failures_before_warning {
            0 => critical,
            failures => failures,
        };
        if self.failures >= critical {
            Some(CheckStatus::Critical)
        } else if self.failures >= warning {
            Some(CheckStatus::Warning)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::CheckExtras;

    fn http(rules: Rules, status: u16) -> CheckStatus {
        let probe = runtime::Probe::Http {
            url: "http://a/".into(),
            method: "GET".into(),
            headers: Vec::new(),
            body: String::new(),
            tls: ProbeTls::default(),
            follows_redirects: false,
        };
        let outcome = ProbeOutcome::HttpStatus {
            status,
            output: "body".into(),
        };
        let (judged, output) = judge(rules, &probe, outcome, CHECK_OUTPUT_BYTES_MAX);
        let words = match status {
            200 => " OK",
            404 => " Not Found",
            // A number that no name is known for.
            _ => "",
        };
        assert!(
            output.starts_with(&format!("HTTP GET http://a/: {status}{words}")),
            "{output}"
        );
        assert!(output.ends_with(" Output: body"), "{output}");
        judged
    }

    #[test]
    fn http_statuses_are_judged_by_the_form_of_the_registration() {
        use CheckStatus::{Critical, Passing, Warning};
        for (status, short, consul) in [
            (200, Passing, Passing),
            (299, Passing, Passing),
            (301, Passing, Critical),
            (399, Passing, Critical),
            (400, Warning, Critical),
            (404, Warning, Critical),
            (429, Warning, Warning),
            (499, Warning, Critical),
            (500, Critical, Critical),
            (199, Critical, Critical),
        ] {
            assert_eq!(http(Rules::Short, status), short, "short form, {status}");
            assert_eq!(http(Rules::Consul, status), consul, "Consul's form, {status}");
        }
    }

    #[test]
    fn exit_codes_are_judged_by_the_form_of_the_registration() {
        use CheckStatus::{Critical, Passing, Warning};
        for (code, short, consul) in [
            (0, Passing, Passing),
            (1, Critical, Warning),
            (2, Critical, Critical),
            (-1, Critical, Critical),
        ] {
            let probe = runtime::Probe::Command {
                args: vec!["true".into()],
            };
            let outcome = || ProbeOutcome::Exited {
                code,
                output: "said".into(),
            };
            for (rules, expected) in [(Rules::Short, short), (Rules::Consul, consul)] {
                let judged = judge(rules, &probe, outcome(), CHECK_OUTPUT_BYTES_MAX);
                assert_eq!(judged, (expected, "said".into()));
            }
        }
    }

    #[test]
    fn outputs_are_cut_between_characters() {
        let probe = runtime::Probe::Command { args: Vec::new() };
        let outcome = ProbeOutcome::Exited {
            code: 0,
            output: format!("x{}", "é".repeat(CHECK_OUTPUT_BYTES_MAX)),
        };
        let (_, output) = judge(Rules::Short, &probe, outcome, CHECK_OUTPUT_BYTES_MAX);
        assert_eq!(output.len(), CHECK_OUTPUT_BYTES_MAX - 1);
        assert!(output.ends_with('é'));
    }

    #[test]
    fn a_check_may_keep_less_of_what_was_said() {
        let program = runtime::Probe::Command { args: Vec::new() };
        let exited = ProbeOutcome::Exited {
            code: 0,
            output: "said".into(),
        };
        assert_eq!(judge(Rules::Consul, &program, exited, 3).1, "sai");
        let answered = ProbeOutcome::HttpStatus {
            status: 200,
            output: "said".into(),
        };
        let http = http_probe(Rules::Consul, CheckExtras::default());
        let (_, output) = judge(Rules::Consul, &http, answered, 3);
        assert_eq!(output, "HTTP GET https://a/: 200 OK Output: sai");
        let failed = ProbeOutcome::Failed {
            output: "nobody is there".into(),
        };
        assert_eq!(judge(Rules::Consul, &http, failed, 3).1, "nobody is there");
    }

    fn http_probe(rules: Rules, extras: CheckExtras) -> runtime::Probe {
        let definition = CheckDefinition {
            probe: Probe::Http {
                url: "https://a/".into(),
                method: String::new(),
                headers: Vec::new(),
                body: String::new(),
            },
            extras: extras.kept(),
            ..CheckDefinition::default()
        };
        probe_of(rules, &definition).expect("it is run")
    }

    #[test]
    fn what_a_check_says_of_tls_and_redirects_reaches_the_platform() {
        let follows = |rules, disable_redirects| {
            let extras = CheckExtras {
                disable_redirects,
                ..CheckExtras::default()
            };
            match http_probe(rules, extras) {
                runtime::Probe::Http {
                    follows_redirects, ..
                } => follows_redirects,
                other => panic!("{other:?}"),
            }
        };
        assert!(follows(Rules::Consul, false) && !follows(Rules::Consul, true));
        assert!(!follows(Rules::Short, false), "a redirect passes there");

        let extras = CheckExtras {
            tls_server_name: "web".into(),
            tls_skip_verify: true,
            ..CheckExtras::default()
        };
        let said = ProbeTls {
            server_name: "web".into(),
            skip_verify: true,
        };
        let tcp = |tcp_use_tls| {
            let extras = CheckExtras {
                tcp_use_tls,
                ..extras.clone()
            };
            let definition = CheckDefinition {
                probe: Probe::Tcp("a:1".into()),
                extras: extras.kept(),
                ..CheckDefinition::default()
            };
            probe_of(Rules::Consul, &definition)
        };
        let address = "a:1".to_owned();
        let tls = Some(said.clone());
        assert_eq!(tcp(true), Some(runtime::Probe::Tcp { address, tls }));
        let (address, tls) = ("a:1".to_owned(), None);
        assert_eq!(tcp(false), Some(runtime::Probe::Tcp { address, tls }));
        match http_probe(Rules::Short, extras) {
            runtime::Probe::Http { tls, .. } => assert_eq!(tls, said),
            other => panic!("{other:?}"),
        }
    }

    fn run(definition: &CheckDefinition, results: &str) -> String {
        let mut streak = Streak::default();
        results
            .chars()
            .map(|result| {
                let status = match result {
                    'p' => CheckStatus::Passing,
                    'w' => CheckStatus::Warning,
                    _ => CheckStatus::Critical,
                };
                match streak.count(definition, status) {
                    None => '.',
                    Some(CheckStatus::Passing) => 'P',
                    Some(CheckStatus::Warning) => 'W',
                    Some(_) => 'C',
                }
            })
            .collect()
    }

    #[test]
    fn without_thresholds_every_result_counts() {
        assert_eq!(run(&CheckDefinition::default(), "pcwpccp"), "PCWPCCP");
    }

    #[test]
    fn thresholds_hold_a_status_until_enough_results_in_a_row() {
        let definition = CheckDefinition {
            success_before_passing: 2,
            failures_before_warning: 2,
            failures_before_critical: 4,
            ..CheckDefinition::default()
        };
        for first in [CheckStatus::Passing, CheckStatus::Critical] {
            let mut streak = Streak::UNRUN;
            assert_eq!(
                streak.count(&definition, first),
                Some(first),
                "the first one counts at once"
            );
            let other =
                [CheckStatus::Critical, CheckStatus::Passing][usize::from(first == CheckStatus::Critical)];
            assert_eq!(streak.count(&definition, other), None, "and the second as ever");
        }
        assert_eq!(run(&definition, "ppp"), ".PP");
        assert_eq!(run(&definition, "cccccp"), ".WWCC.");
        assert_eq!(run(&definition, "cpcpcp"), "......");
        assert_eq!(run(&definition, "pwc"), ".W.");
    }

    #[test]
    fn a_missing_warning_threshold_is_the_critical_one() {
        let definition = CheckDefinition {
            failures_before_critical: 3,
            ..CheckDefinition::default()
        };
        assert_eq!(run(&definition, "ccccp"), "..CCP");
    }

    #[test]
    fn what_is_wrong_with_docker_is_no_warning_of_the_program() {
        let judged = |line: &[&str], output: &str| {
            let args = line.iter().map(|word| (*word).to_owned()).collect();
            let outcome = ProbeOutcome::Exited {
                code: 1,
                output: output.into(),
            };
            let probe = runtime::Probe::Command { args };
            judge(Rules::Consul, &probe, outcome, CHECK_OUTPUT_BYTES_MAX).0
        };
        let docker = ["docker", "exec", "c1", "check"];
        assert_eq!(judged(&docker, "so so"), CheckStatus::Warning);
        let nobody = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.";
        assert_eq!(judged(&docker, nobody), CheckStatus::Critical);
        assert_eq!(
            judged(&["systemctl", "is-active", "--", "x"], ""),
            CheckStatus::Critical
        );
        assert_eq!(judged(&["check"], nobody), CheckStatus::Warning);
    }

    #[test]
    fn newer_kinds_become_what_a_platform_can_run() {
        let of = |probe| {
            let definition = CheckDefinition {
                probe,
                ..CheckDefinition::default()
            };
            probe_of(Rules::Consul, &definition)
        };
        let docker = |shell: &str| Probe::Docker {
            container: "c1".into(),
            shell: shell.into(),
            args: vec!["/bin/check".into(), "-v".into()],
        };
        let command = |line: &[&str]| {
            let args = line.iter().map(|word| (*word).to_owned()).collect();
            Some(runtime::Probe::Command { args })
        };
        assert_eq!(
            of(docker("")),
            command(&["docker", "exec", "c1", "/bin/check", "-v"])
        );
        assert_eq!(
            of(docker("/bin/sh")),
            command(&["docker", "exec", "c1", "/bin/sh", "-c", "/bin/check -v"])
        );
        assert_eq!(
            of(Probe::OsService("ssh".into())),
            command(&["systemctl", "is-active", "--", "ssh"])
        );
        let grpc = |target: &str| {
            of(Probe::Grpc {
                target: target.into(),
                tls: false,
            })
        };
        let asked = |service: &str| {
            Some(runtime::Probe::Grpc {
                address: "a:1".into(),
                service: service.into(),
                tls: None,
            })
        };
        assert_eq!(grpc("a:1"), asked(""));
        assert_eq!(grpc("a:1/my.Service"), asked("my.Service"));
        assert_eq!(
            of(Probe::Alias {
                node: String::new(),
                instance: "x".into()
            }),
            None
        );
    }

    #[test]
    fn defaults_fill_what_a_definition_leaves_out() {
        let of = |probe| CheckDefinition {
            probe,
            ..CheckDefinition::default()
        };
        assert_eq!(timeout_of(&of(Probe::Tcp("a:1".into()))), PROBE_TIMEOUT_DEFAULT);
        assert_eq!(timeout_of(&of(Probe::Cmd(Vec::new()))), COMMAND_TIMEOUT_DEFAULT);
        assert_eq!(interval_of(&of(Probe::External)), PROBE_INTERVAL_DEFAULT);
        let eager = CheckDefinition {
            interval: Duration::from_nanos(1),
            ..CheckDefinition::default()
        };
        assert_eq!(interval_of(&eager), PROBE_INTERVAL_MIN);
    }
}
