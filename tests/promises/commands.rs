//! Commands that ask a daemon, or make its data directory.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::{self, Daemon, opening, ordergate};
use crate::house::{GOOD, House, add_user, house};
use crate::log_file::LogFile;
use crate::{UNLIMITED, sh, vaulted};

#[test]
fn users_are_run_over_the_api_as_in_the_log_itself() {
    let house = house(UNLIMITED);
    let (url, path) = (format!("http://{}", house.gate.http), |name: &str| house.dir.path().join(name).to_str().unwrap().to_owned());
    let (session, password) = (path("session.json"), path("password"));
    let run = |args: &[&str]| ordergate(&[args, &["--url", &url, "--token-file", &session]].concat());
    assert_eq!(run(&["login", "root", "--password-file", &password]).0, Some(0));
    let add = ["user", "add", "carol", "--role", "viewer", "--scope", "decisions:read", "--view", "ALICE1", "--password-file", &password];
    let (code, out, error) = run(&add);
    assert_eq!((code, out.as_str()), (Some(0), "user carol added\n"), "{error}");
    let (code, _, error) = run(&add);
    assert!(code == Some(5) && error.contains("409 ALREADY_EXISTS"), "{code:?} {error}");
    assert_eq!(house.login("carol").status, 200);
    let row = |name: &str| {
        let (code, list, error) = run(&["user", "list"]);
        assert!(code == Some(0) && list.starts_with("name "), "{list}{error}");
        let row = list.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("carol"), ["carol", "viewer", "decisions:read", "ALICE1", "(view)", "active"]);
    let (_, json, _) = run(&["user", "list", "--output", "json"]);
    let listed: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(listed, house.as_of(&house.token("root"), "GET", "/api/v1/users", None).body["items"]);
    assert_eq!(run(&["user", "disable", "carol"]).1, "user carol disabled\n");
    assert_eq!((house.login("carol").status, row("carol").last().map(String::as_str)), (401, Some("disabled")));
    assert_eq!(run(&["user", "enable", "carol"]).1, "user carol enabled\n");
    assert_eq!(row("carol"), ["carol", "viewer", "decisions:read", "ALICE1", "(view)", "active"], "nothing else changed");
    std::fs::write(&password, "twelve letters or more\n").unwrap();
    assert_eq!(run(&["user", "password", "carol", "--password-file", &password]).1, "password of carol set; all sessions ended\n");
    let body = json!({"name": "carol", "password": "twelve letters or more"});
    assert_eq!(house.ask("POST", "/api/v1/auth/login", &[], Some(&body)).status, 200);
    let (code, _, error) = run(&["user", "disable", "root"]);
    assert!(code == Some(5) && error.contains("LAST_ADMIN"), "{code:?} {error}");
    let (code, _, error) = ordergate(&["user", "list", "--url", &url, "--data-dir", "here"]);
    assert!(code == Some(2) && error.contains("cannot be used with"), "one or the other: {code:?} {error}");
    std::fs::remove_file(&session).unwrap();
    std::fs::write(&password, GOOD).unwrap();
    assert_eq!(run(&["login", "alice", "--password-file", &password]).0, Some(0));
    let (code, _, error) = run(&["user", "list"]);
    assert!(code == Some(5) && error.contains("403 FORBIDDEN"), "{code:?} {error}");
}

#[test]
fn a_data_directory_that_a_command_makes_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, GOOD).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let data = dir.path().join("made").join("data");
    // Whoever runs it may let everyone read what they make.
    let add = format!(
        "umask 0; exec '{}' user add root --role admin --data-dir '{}' --password-file '{}'",
        daemon::program(),
        data.display(),
        password.display()
    );
    sh(&dir, &add);
    assert_eq!((mode(&data), mode(data.parent().unwrap())), (0o700, 0o700));
    let looked = |data: &std::path::Path| {
        let names: Vec<_> = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        assert!(names.len() >= 2, "{names:?}");
        for path in &names {
            assert_eq!(mode(path), 0o600, "{}", path.display());
        }
    };
    looked(&data);
    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o750)).unwrap();
    add_user(&shared, "root", "admin", &[]);
    assert_eq!(mode(&shared), 0o750, "one that is there is left as it is");
    let run = dir.path().join("run");
    let gate = Daemon::start(&run, &[]);
    assert_eq!(gate.records(&opening()).0, 200);
    assert_eq!(mode(&run), 0o700);
    for name in ["LOCK", "log.sqlite", "log.sqlite-wal", "log.sqlite-shm", "signing-key.pem"] {
        assert_eq!(mode(&run.join(name)), 0o600, "{name}");
    }
}

#[test]
fn vault_commands_say_what_the_vault_says_and_end_accordingly() {
    let house = vaulted();
    let (url, session) = (format!("http://{}", house.gate.http), house.dir.path().join("session.json"));
    let (session, password) = (session.to_str().unwrap().to_owned(), house.dir.path().join("password").to_str().unwrap().to_owned());
    let run = |url: &str, args: &[&str]| ordergate(&[args, &["--url", url, "--token-file", &session]].concat());
    assert_eq!(run(&url, &["login", "root", "--password-file", &password]).0, Some(0));
    let status = |url: &str| -> Value { serde_json::from_str(&run(url, &["vault", "status", "--output", "json"]).1).unwrap() };
    let token = house.token("root");
    let make = |n: usize| {
        let key = json!({"broker": "robinhood", "name": format!("key {n}"), "environment": "paper", "key": format!("rh-api-{n}"),
                         "secret": format!("secret number {n}")});
        house.as_of(&token, "POST", "/api/v1/api-keys", Some(&key)).text("id")
    };
    let ids = [make(1), make(2), make(3)];
    assert_eq!((&status(&url)["state"], &status(&url)["secrets"]), (&json!("unlocked"), &json!(3)));
    let (code, out, error) = run(&url, &["vault", "status"]);
    assert!(code == Some(0) && out.starts_with("state: unlocked\nsecrets: 3\nto rewrap: 0\n"), "{code:?} {out}{error}");
    let (code, out, error) = run(&url, &["vault", "verify"]);
    assert_eq!((code, out.as_str()), (Some(0), "3 secrets open\n"), "{error}");
    let (code, out, error) = run(&url, &["vault", "rotate"]);
    assert_eq!((code, out.as_str()), (Some(0), "3 secrets are under key-encryption key 2\n"), "{error}");
    let keks = status(&url)["keks"].clone();
    let under: Vec<(u64, u64)> =
        keks.as_array().unwrap().iter().map(|kek| (kek["version"].as_u64().unwrap(), kek["secrets"].as_u64().unwrap())).collect();
    assert!(under.contains(&(2, 3)) && under.iter().all(|(version, secrets)| *version == 2 || *secrets == 0), "{keks}");
    let House { dir, gate } = house;
    assert_eq!(gate.stop(), Some(0));
    LogFile::open(dir.path()).damage(&ids[1]);
    let key = [("ORDERGATE_MASTER_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")];
    let gate = Daemon::start(dir.path(), &key);
    let url = format!("http://{}", gate.http);
    std::fs::remove_file(&session).unwrap();
    assert_eq!(run(&url, &["login", "root", "--password-file", &password]).0, Some(0));
    let (code, out, error) = run(&url, &["vault", "verify"]);
    assert!(code == Some(1) && out.starts_with("2 secrets open\n") && error.contains("1 secrets do not open"), "{code:?} {out}{error}");
    assert!(out.contains(&ids[1]) && !out.contains(&ids[0]), "{out}");
    assert_eq!(gate.stop(), Some(0));
    let gate = Daemon::start(dir.path(), &[]);
    let url = format!("http://{}", gate.http);
    std::fs::remove_file(&session).unwrap();
    assert_eq!(run(&url, &["login", "root", "--password-file", &password]).0, Some(0));
    let (code, out, error) = run(&url, &["vault", "status"]);
    assert!(code == Some(1) && out.starts_with("state: locked\n") && error.contains("the vault is locked"), "{code:?} {out}{error}");
    let (code, out, error) = run(&url, &["vault", "verify"]);
    assert!(code == Some(1) && out.starts_with("0 secrets open\n") && error.contains("3 secrets do not open"), "{code:?} {out}{error}");
    let (code, _, error) = run(&url, &["vault", "rotate"]);
    assert!(code == Some(5) && error.contains("503 VAULT_LOCKED"), "{code:?} {error}");
    assert_eq!(run(&url, &["login", "alice", "--password-file", &password]).0, Some(0));
    let (code, _, error) = run(&url, &["vault", "status"]);
    assert!(code == Some(5) && error.contains("403 FORBIDDEN"), "{code:?} {error}");
}
