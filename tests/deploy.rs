//! What stands beside the code for those who run it: compose, image, Prometheus rules, Grafana dashboard, runbook.
//!
//! Invariant: a metric, a file or a section that one of them names exists. Deliberately absent: a container engine; what the images
//! do inside is not tried here.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ordergate::telemetry::{METRICS, MetricKind};
use serde_json::{Value, json};

const RULES: &str = "deploy/prometheus/ordergate.rules.yml";
const RULES_TEST: &str = "deploy/prometheus/ordergate.rules.test.yml";
const DASHBOARD: &str = "deploy/grafana/ordergate.json";

/// Metrics that rules and panels are ready for and the gate does not have yet.
const TO_COME: &[&str] = &[];

/// What the metrics_process crate exports.
const OF_THE_PROCESS: &[&str] = &["process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// YAML with its merge keys carried out.
fn yaml(path: &str) -> Value {
    let mut read: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    read.apply_merge().unwrap();
    serde_json::to_value(read).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).unwrap()
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn faults(schema: &str, instance: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(&text(schema)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path)).collect()
}

// Compose and the image.

#[test]
fn the_compose_file_follows_the_compose_specification() {
    let mut compose = yaml("docker-compose.yml");
    assert_eq!(faults("tests/data/compose-spec.json", &compose), Vec::<String>::new());
    compose["services"]["gate-1"]["stop_grace_perod"] = json!("30s");
    assert_eq!(faults("tests/data/compose-spec.json", &compose).len(), 1, "the schema must notice a misspelt key");
}

#[test]
fn what_the_compose_file_refers_to_exists() {
    let compose = yaml("docker-compose.yml");
    let services = object(&compose["services"]);
    let volumes = object(&compose["volumes"]);
    for (name, service) in services {
        let depends = &service["depends_on"];
        let needed =
            depends.as_object().map_or_else(|| list(depends).iter().map(word).collect(), |map| map.keys().map(String::as_str).collect());
        let needed: Vec<&str> = needed;
        for other in needed.into_iter().chain(service["network_mode"].as_str().and_then(|mode| mode.strip_prefix("service:"))) {
            assert!(services.contains_key(other), "{name} needs the service {other}");
        }
        for mount in list(&service["volumes"]) {
            let from = word(mount).split(':').next().unwrap();
            match from.strip_prefix("./") {
                Some(path) => assert!(root().join(path).exists(), "{name} mounts {path}"),
                None => assert!(volumes.contains_key(from), "{name} mounts the volume {from}"),
            }
        }
    }
}

#[test]
fn images_are_named_by_version_and_ports_are_open_to_this_machine_only() {
    let compose = yaml("docker-compose.yml");
    for (name, service) in object(&compose["services"]) {
        let tag = word(&service["image"]).rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
        assert!(tag.contains('.') && tag.chars().any(|c| c.is_ascii_digit()), "{name}: {tag}");
        for port in list(&service["ports"]) {
            assert!(word(port).starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
    assert_eq!(compose["services"]["gate-1"]["image"], json!(concat!("ordergate:", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn each_gate_has_a_door_a_name_and_a_place_of_its_own() {
    let compose = yaml("docker-compose.yml");
    let services = object(&compose["services"]);
    let scraped = text("deploy/prometheus/prometheus.yml");
    let mut own = BTreeSet::new();
    let gates: Vec<&str> =
        services.keys().map(String::as_str).filter(|name| name.starts_with("gate-") && !name.ends_with("-door")).collect();
    assert_eq!(gates.len(), 2);
    for name in gates {
        let gate = &services[name];
        assert_eq!(gate["network_mode"], format!("service:{name}-door"));
        assert_eq!(gate["environment"]["ORDERGATE__KAFKA__INSTANCE"], name);
        assert_eq!(gate["command"], json!(["run", "--config", "/etc/ordergate/kafka.toml"]));
        assert_eq!(services[&format!("{name}-door")]["networks"]["default"]["aliases"], json!([name]));
        assert!(scraped.contains(&format!("\"{name}:9465\"")), "{name} is not scraped");
        assert!(
            own.insert(list(&gate["volumes"]).iter().map(word).find(|mount| !mount.starts_with('.')).unwrap()),
            "{name} shares its volume"
        );
        let grace: u64 = word(&gate["stop_grace_period"]).trim_end_matches('s').parse().unwrap();
        assert!(grace > 2 * 10, "{name}: longer than shutdown.drain_timeout_ms, with time for the snapshot");
        assert_eq!(gate["healthcheck"]["test"][0], "CMD");
    }
}

/// Whether the program takes this configuration, and what it says.
fn checked(config: &Path, environment: &[(String, String)]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ordergate"));
    command.args(["config", "check", "--config"]).arg(config).envs(environment.iter().cloned());
    let said = command.output().unwrap();
    (said.status.success(), String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr))
}

#[test]
fn the_program_takes_the_settings_of_the_compose_file() {
    let compose = yaml("docker-compose.yml");
    let config = root().join("config/kafka.toml");
    let ours = object(&compose["services"]).iter().filter(|(_, service)| word(&service["image"]).starts_with("ordergate:"));
    let mut seen = 0;
    for (name, service) in ours {
        let mut environment: Vec<_> =
            object(&service["environment"]).iter().map(|(key, value)| (key.clone(), word(value).to_owned())).collect();
        let (taken, said) = checked(&config, &environment);
        assert!(taken, "{name}: {said}");
        environment.push(("ORDERGATE__KAFKA__STANDBYS".to_owned(), "1".to_owned()));
        assert!(!checked(&config, &environment).0, "{name}: a key that does not exist must be noticed");
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn the_examples_in_the_configuration_for_kafka_are_taken_too() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("kafka.toml");
    let all = text("config/kafka.toml");
    let example = |line: &&str| line.starts_with('#') && line.trim_start_matches(['#', ' ']).starts_with('"') && line.contains("\" = \"");
    let (mut properties, mut files) = (String::new(), String::new());
    for line in all.lines().filter(example).map(|line| line.trim_start_matches(['#', ' '])) {
        let list = if line.contains("/run/secrets/") { &mut files } else { &mut properties };
        *list += &format!("{line}\n");
    }
    assert!(properties.lines().count() > 3 && files.contains("sasl.password"), "{properties}{files}");
    let shown = all
        .replace("\n[kafka.properties]\n", &format!("\n[kafka.properties]\n{properties}"))
        .replace("\n[kafka.secret_files]\n", &format!("\n[kafka.secret_files]\n{files}"));
    fs::write(&path, shown).unwrap();
    let (taken, said) = checked(&path, &[]);
    assert!(taken, "{said}");
}

#[test]
fn the_image_is_built_with_our_toolchain_and_runs_as_nobody_in_particular() {
    let file = text("Dockerfile");
    let from: Vec<&str> = file.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let toolchain: toml::Table = text("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(from[0].starts_with(&format!("rust:{channel}-")), "{}", from[0]);
    assert!(file.contains(&format!("RUSTUP_TOOLCHAIN={channel}\n")));
    assert_eq!(from.len(), 2);
    assert!(!file.contains(":latest"));
    let last = file.rsplit("FROM ").next().unwrap();
    let user = last.lines().find_map(|line| line.strip_prefix("USER ")).expect("a USER in the last stage");
    assert!(!user.starts_with('0') && !user.starts_with("root"), "{user}");
}

// Metrics: rules, dashboard, runbook.

/// Words that begin with one of `prefixes`, as metric names go.
fn names_in<'a>(expression: &'a str, prefixes: &[&str]) -> BTreeSet<&'a str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).collect()
}

/// Every series that exists: the gate's, the process's, those to come, and the recorded ones.
fn series() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = TO_COME.iter().chain(OF_THE_PROCESS).map(|name| (*name).to_owned()).collect();
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter | MetricKind::Gauge => drop(names.insert(metric.name.to_owned())),
            MetricKind::Histogram(_) => names.extend(["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", metric.name))),
        }
    }
    names.extend(rules().iter().filter_map(|rule| rule["record"].as_str()).map(str::to_owned));
    names
}

fn rules() -> Vec<Value> {
    list(&yaml(RULES)["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

fn alerts() -> BTreeMap<String, Value> {
    rules().into_iter().filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule))).collect()
}

/// The expressions of all panels and annotations, with what they are in.
fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let of = |target: &Value, title: &Value| (word(title).to_owned(), word(&target["expr"]).to_owned());
    let panels =
        list(&dashboard["panels"]).iter().flat_map(|panel| list(&panel["targets"]).iter().map(|target| of(target, &panel["title"])));
    let annotations = list(&dashboard["annotations"]["list"]).iter().map(|it| of(it, &it["name"]));
    panels.chain(annotations).collect()
}

#[test]
fn rules_and_panels_ask_for_series_that_exist() {
    let series = series();
    let of_rules = rules()
        .into_iter()
        .map(|rule| (rule["alert"].as_str().or(rule["record"].as_str()).unwrap().to_owned(), word(&rule["expr"]).to_owned()));
    let asked: Vec<(String, String)> = of_rules.chain(queries()).collect();
    assert!(asked.len() > 80, "only {} expressions found", asked.len());
    for (place, expression) in asked {
        for name in names_in(&expression, &["ordergate_", "ordergate:", "process_"]) {
            assert!(series.contains(name), "{place} asks for {name}, which does not exist: {expression}");
        }
    }
    for name in TO_COME {
        assert!(METRICS.iter().all(|metric| metric.name != *name), "{name} is there now: take it off TO_COME");
    }
}

#[test]
fn every_metric_is_looked_at_by_a_panel_or_a_rule() {
    let all: String = queries()
        .into_iter()
        .map(|(_, query)| query + "\n")
        .chain(rules().iter().map(|rule| word(&rule["expr"]).to_owned() + "\n"))
        .collect();
    for metric in METRICS {
        assert!(all.contains(metric.name), "nobody looks at {}", metric.name);
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_where_to_read_on() {
    let runbook = text("docs/RUNBOOK.md");
    let sections: BTreeSet<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("### Ordergate")).map(|rest| format!("Ordergate{rest}")).collect();
    let alerts = alerts();
    assert!(alerts.len() > 20);
    for (name, alert) in &alerts {
        assert!(matches!(alert["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        for part in ["summary", "description"] {
            assert!(alert["annotations"][part].as_str().is_some_and(|text| text.len() > 20), "{name}: {part}");
        }
        let url = word(&alert["annotations"]["runbook_url"]);
        let anchor = url.strip_prefix(concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/RUNBOOK.md#"));
        assert_eq!(anchor, Some(name.to_lowercase().as_str()), "{name}: {url}");
    }
    assert_eq!(sections, alerts.into_keys().collect(), "the sections of docs/RUNBOOK.md and the alerts");
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let cases = yaml(RULES_TEST);
    let (mut fires, mut rests) = (BTreeSet::new(), BTreeSet::new());
    for case in list(&cases["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"])) {
        let side = if list(&case["exp_alerts"]).is_empty() { &mut rests } else { &mut fires };
        side.insert(word(&case["alertname"]).to_owned());
    }
    let alerts: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!((&fires, &rests), (&alerts, &alerts));
}

#[test]
fn the_dashboard_is_one_that_grafana_loads() {
    let dashboard = dashboard();
    assert_eq!(faults("tests/data/grafana-dashboard.schema.json", &dashboard), Vec::<String>::new());
    let panels = list(&dashboard["panels"]);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "an id is there twice");
    let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
    for panel in panels {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for cell in (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y))) {
            let other = taken.insert(cell, word(&panel["title"]));
            assert_eq!(other, None, "{} lies over it", panel["title"]);
        }
        let letters: BTreeSet<&str> = list(&panel["targets"]).iter().map(|target| word(&target["refId"])).collect();
        assert_eq!(letters.len(), list(&panel["targets"]).len(), "{}", panel["title"]);
    }
    let variables: BTreeSet<&str> = list(&dashboard["templating"]["list"]).iter().map(|it| word(&it["name"])).collect();
    for (place, query) in queries() {
        for used in query.split('$').skip(1).map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap()) {
            assert!(used == "__rate_interval" || variables.contains(used), "{place}: ${used}");
        }
    }
    let mut broken = dashboard.clone();
    broken["panels"][1]["datasource"]["uid"] = json!("prometheus");
    assert_eq!(faults("tests/data/grafana-dashboard.schema.json", &broken).len(), 1);
}

// By Prometheus's own tool.

/// What promtool says, and whether it is content; `None` where it is not installed.
fn promtool(arguments: &[&str]) -> Option<(bool, String)> {
    let Ok(said) = Command::new("promtool").args(arguments).current_dir(root()).output() else {
        eprintln!("promtool is not installed (Debian: prometheus): its part is left out");
        return None;
    };
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    Some((said.status.success(), text))
}

#[test]
fn promtool_takes_the_configuration_and_the_rules_and_their_tests_pass() {
    for arguments in [["check", "rules", RULES], ["check", "config", "deploy/prometheus/prometheus.yml"], ["test", "rules", RULES_TEST]] {
        let Some((content, said)) = promtool(&arguments) else { return };
        assert!(content, "promtool {}: {said}", arguments.join(" "));
    }
}

/// Writes the panels' queries as rules and gives the file.
fn queries_as_rules(dir: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let rules: Vec<Value> = queries()
        .into_iter()
        .enumerate()
        .map(|(i, (_, query))| json!({"record": format!("panel:{i}"), "expr": change(query.replace("$__rate_interval", "1m"))}))
        .collect();
    let path = dir.join("panels.rules.yml");
    fs::write(&path, serde_json::to_string(&json!({"groups": [{"name": "panels", "rules": rules}]})).unwrap()).unwrap();
    path
}

#[test]
fn promtool_understands_every_query_of_the_dashboard() {
    let dir = tempfile::TempDir::new().unwrap();
    let good = queries_as_rules(dir.path(), |query| query);
    let Some((content, said)) = promtool(&["check", "rules", good.to_str().unwrap()]) else { return };
    assert!(content && said.contains(&format!("{} rules found", queries().len())), "{said}");
    let bad = queries_as_rules(dir.path(), |query| query.replacen(')', "", 1));
    assert!(!promtool(&["check", "rules", bad.to_str().unwrap()]).unwrap().0, "a broken query must be noticed");
}
