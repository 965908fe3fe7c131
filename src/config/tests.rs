//! What a configuration takes and refuses.

use std::path::PathBuf;

use super::*;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ordergate.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn problems(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    let (_dir, path) = file(text);
    let error = Config::load_from(Some(&path), &pairs(environment), &pairs(flags)).unwrap_err();
    let origin = format!("file {}", path.display());
    error.problems.iter().map(|problem| problem.to_string().replace(&origin, "file").replace(&path.display().to_string(), "FILE")).collect()
}

#[test]
fn the_documented_file_is_the_table_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ordergate.toml");
    if std::env::var_os("ORDERGATE_BLESS").is_some() {
        std::fs::write(&path, documented_toml()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, documented_toml(), "run `ORDERGATE_BLESS=1 cargo test --lib config::` and look at the difference");
    assert_eq!(Config::load_from(Some(&path), &[], &[]).unwrap(), Config::defaults().unwrap());
}

#[test]
fn the_table_and_the_structs_name_the_same_keys() {
    let mut table: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    table.sort();
    let structs: Vec<String> = Config::defaults().unwrap().values().into_keys().collect();
    let mut structs_sorted = structs;
    structs_sorted.sort();
    assert_eq!(table, structs_sorted);
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let flags = pairs(&[("http.allowed_hosts", "gate.example, b"), ("snapshot.dir", "/tmp/x"), ("log.timestamps", "producer")]);
    let config = Config::load_from(None, &[], &flags).unwrap();
    let (_dir, path) = file(&config.to_toml());
    assert_eq!(Config::load_from(Some(&path), &[], &[]).unwrap(), config);
}

#[test]
fn a_flag_covers_the_environment_which_covers_the_file_which_covers_the_default() {
    let (_dir, path) =
        file("[http]\nbind = \"127.0.0.1:1001\"\nbody_bytes_max = 70000\nline_bytes_max = 2000\n[metrics]\nbind = \"[::1]:9\"");
    let environment =
        pairs(&[("ORDERGATE__HTTP__BODY_BYTES_MAX", "80000"), ("ORDERGATE__HTTP__LINE_BYTES_MAX", "3000"), ("ORDERGATE_MASTER_KEY", "x")]);
    let config = Config::load_from(Some(&path), &environment, &pairs(&[("http.line_bytes_max", "4000")])).unwrap();
    assert_eq!(config.http.bind.port(), 1001);
    assert_eq!((config.http.body_bytes_max, config.http.line_bytes_max, config.http.batch_records_max), (80_000, 4_000, 10_000));
}

#[test]
fn everything_that_is_wrong_is_listed_at_once() {
    let text = "data = 1\n[http]\nbind = \"0.0.0.0\"\nbody_bytes_max = \"1MB\"\nbatch_records_max = 0\n[snapshot]\nevery_seconds = 1.5\nenabled = \"yes\"\n";
    let found = problems(text, &[("ORDERGATE__HTPP__BIND", "x"), ("ORDERGATE__LOG__KIND", "pulsar")], &[("topics.intents", "a b")]);
    assert_eq!(
        found,
        [
            "data = 1 (file): unknown key; did you mean data_dir?",
            "http.batch_records_max = 0 (file): out of range; allowed: a whole number of records from 1 to 1000000",
            "http.bind = \"0.0.0.0\" (file): not an address and port; allowed: an address and port, such as 127.0.0.1:8080",
            "http.body_bytes_max = \"1MB\" (file): a text, not a whole number; allowed: a whole number of bytes from 65536 to 1073741824",
            "snapshot.enabled = \"yes\" (file): a text, not true or false; allowed: true or false",
            "snapshot.every_seconds = 1.5 (file): a number with a fraction, not a whole number; allowed: a whole number of s from 1 to 86400",
            "htpp.bind = \"x\" (variable ORDERGATE__HTPP__BIND): unknown key; did you mean http.bind?",
            "log.kind = \"pulsar\" (variable ORDERGATE__LOG__KIND): unknown word; allowed: \"embedded\" or \"kafka\"",
            "topics.intents = \"a b\" (flag): no topic's name; allowed: a topic's name: 1 to 249 of [A-Za-z0-9._-]",
        ]
    );
}

#[test]
fn refuses_combinations_that_are_impossible() {
    let text = "[http]\nbind = \"127.0.0.1:9464\"\nline_bytes_max = 100000\nbody_bytes_max = 65536\ndecision_timeout_ms = 40000\nrequest_timeout_ms = 1000\n[topics]\nledger = \"orders.intents\"\n[snapshot]\ndir = \"data\"";
    assert_eq!(
        problems(text, &[], &[]),
        [
            "metrics.bind = \"127.0.0.1:9464\" (default): impossible with http.bind = \"127.0.0.1:9464\": the API and the metrics listener cannot share a port",
            "http.line_bytes_max = 100000 (file): impossible with http.body_bytes_max = 65536: a line fits into a body",
            "http.decision_timeout_ms = 40000 (file): impossible with http.decision_timeout_ms_max = 30000: the default is within the maximum",
            "http.decision_timeout_ms_max = 30000 (default): impossible with http.request_timeout_ms = 1000: a decision's wait ends before its request does",
            "snapshot.dir = \"data\" (file): impossible with data_dir = \"data\": snapshots may be deleted at any time, the log never",
            "topics.ledger = \"orders.intents\" (file): impossible with topics.intents = \"orders.intents\": two topics cannot share a name",
        ]
    );
}

#[test]
fn who_is_reached_from_other_machines_speaks_tls_or_stands_behind_a_proxy() {
    let beyond = ("http.bind", "0.0.0.0:8443");
    assert_eq!(
        problems("", &[], &[beyond]),
        [
            "http.bind = \"0.0.0.0:8443\" (flag): impossible with tls.cert_file = \"\": who is reached from other machines speaks TLS, or has http.behind_proxy"
        ]
    );
    assert_eq!(
        problems("", &[], &[("tls.cert_file", "c.pem")]),
        ["tls.cert_file = \"c.pem\" (flag): impossible with tls.key_file = \"\": a certificate and its key go together"]
    );
    for more in [&[("http.behind_proxy", "true")][..], &[("tls.cert_file", "c.pem"), ("tls.key_file", "k.pem")]] {
        let flags = pairs(&[&[beyond], more].concat());
        assert!(Config::load_from(None, &[], &flags).is_ok(), "{more:?}");
    }
    assert!(problems("", &[], &[("metrics.bind", "0.0.0.0:9464")])[0].contains("reachable from other machines"));
    assert!(problems("", &[], &[("http.cors_origins", "https://a.example/path")])[0].contains("no origin"));
}

#[test]
fn refuses_a_section_where_a_key_is_due_and_the_other_way_round() {
    assert!(problems("http = 3", &[], &[])[0].starts_with("http = 3 (file): is a section, not a key; allowed in it: http.bind, "));
    assert!(problems("[data_dir]\nx = 1", &[], &[])[0].contains("a table, not a text"));
    assert!(problems("a = ", &[], &[])[0].starts_with("FILE (file): is no TOML: "));
    let error = Config::load_from(Some(Path::new("/nonexistent.toml")), &[], &[]).unwrap_err();
    assert!(error.to_string().contains("/nonexistent.toml (file): cannot be read: "), "{error}");
}

#[test]
fn ports_that_the_system_picks_do_not_collide() {
    let flags = pairs(&[("http.bind", "127.0.0.1:0"), ("metrics.bind", "127.0.0.1:0")]);
    assert!(Config::load_from(None, &[], &flags).is_ok());
    let flags = pairs(&[("http.bind", "127.0.0.1:9464"), ("metrics.enabled", "false")]);
    assert!(Config::load_from(None, &[], &flags).is_ok());
}

#[test]
fn a_reload_takes_exactly_the_keys_that_say_so() {
    let now = Config::defaults().unwrap();
    let new = Config::load_from(
        None,
        &[],
        &pairs(&[("telemetry.log_level", "debug"), ("telemetry.log_format", "json"), ("http.streams_max", "7"), ("http.bind", "[::1]:1")]),
    )
    .unwrap();
    let diff = now.reloadable_diff(&new);
    let names = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
    assert_eq!(names(&diff.taken), ["http.streams_max", "telemetry.log_level"]);
    assert_eq!(names(&diff.needs_restart), ["http.bind", "telemetry.log_format"]);
    let after = now.reloaded(&new);
    assert_eq!(now.reloadable_diff(&after).taken, diff.taken);
    assert!(after.reloadable_diff(&new).taken.is_empty());
    assert_eq!(now.reloadable_diff(&after).needs_restart, []);
}

#[test]
fn the_file_for_kafka_is_allowed() {
    let config = Config::load_from(Some(Path::new("config/kafka.toml")), &[], &[]).unwrap();
    assert_eq!((config.log.kind, config.shard.count, config.kafka.standby), (LogKind::Kafka, 8, 1));
    assert_eq!(config.kafka.properties.get("fetch.wait.max.ms").map(String::as_str), Some("100"));
}

#[test]
fn properties_of_librdkafka_are_taken_from_every_layer_and_printed_again() {
    let (_dir, path) = file("[kafka.properties]\n\"ssl.ca.location\" = \"/ca.pem\"\n[kafka.secret_files]\n\"sasl.password\" = \"/run/p\"");
    let environment = pairs(&[("ORDERGATE__KAFKA__PROPERTIES__SASL__MECHANISM", "PLAIN")]);
    let config = Config::load_from(Some(&path), &environment, &pairs(&[("kafka.properties.ssl.ca.location", "/other.pem")])).unwrap();
    assert_eq!(config.kafka.properties["sasl.mechanism"], "PLAIN");
    assert_eq!(config.kafka.properties["ssl.ca.location"], "/other.pem");
    assert_eq!(config.kafka.secret_files["sasl.password"], Path::new("/run/p"));
    let (_dir, printed) = file(&config.to_toml());
    assert_eq!(Config::load_from(Some(&printed), &[], &[]).unwrap(), config);
}

#[test]
fn a_property_that_would_break_a_guarantee_is_refused_with_the_reason() {
    let found = problems("[kafka.properties]\n\"enable.idempotence\" = \"false\"\n\"sasl.password\" = \"hunter2\"", &[], &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("kafka.properties.enable.idempotence = \"false\" (file): refused: without it"), "{found:?}");
    assert!(found[1].contains("kafka.secret_files") && !found[1].contains("hunter2"), "{found:?}");
    assert!(problems("[kafka.properties]\nretries = 5", &[], &[])[0].contains("a whole number, not a text"));
}

#[test]
fn brokers_are_asked_over_tls_or_on_this_machine_only() {
    let environment = pairs(&[("ORDERGATE__VAULT__BROKER_URLS__ALPACA_PAPER", "https://broker.example/v")]);
    let (_dir, path) = file("[vault.broker_urls]\nbinance = \"http://127.0.0.1:9\"");
    let config = Config::load_from(Some(&path), &environment, &[]).unwrap();
    assert_eq!(config.vault.broker_urls["alpaca_paper"], "https://broker.example/v");
    assert_eq!(config.vault.broker_urls["binance"], "http://127.0.0.1:9");
    for wrong in [
        "alpaca = \"http://broker.example\"",
        "alpaca = \"https://user:pw@broker.example\"",
        "robinhood = \"https://x.example\"",
        "alpaca = 1",
    ] {
        assert_eq!(problems(&format!("[vault.broker_urls]\n{wrong}"), &[], &[]).len(), 1, "{wrong}");
    }
}

#[test]
fn a_time_zone_is_one_that_the_database_knows_by_that_very_name() {
    for zone in ["Mars/Olympus", "america/new_york", "", "EST5EDT4", "+02:00"] {
        let found = problems("", &[], &[("chart.day_zone", zone)]);
        assert!(found.len() == 1 && found[0].contains("chart.day_zone"), "{zone}: {found:?}");
    }
    let config = Config::load_from(None, &[], &pairs(&[("chart.day_zone", "Asia/Tokyo")])).unwrap();
    assert_eq!(config.chart.day_zone, "Asia/Tokyo");
    let options = crate::app::chart_options(&config).unwrap();
    assert_eq!((options.days.zone(), options.bounds.bars_max), ("Asia/Tokyo", config.chart.bars_max));
    let off = Config::load_from(None, &[], &pairs(&[("chart.enabled", "false")])).unwrap();
    assert!(crate::app::chart_options(&off).is_none());
}
