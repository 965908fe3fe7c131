//! Rotations of the key-encryption key in a daemon that is killed at random moments.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::world::{MASTER, OTHER_MASTER, World};

const KEYS: usize = 80;

fn filled(world: &World, gate: &Daemon) -> Vec<String> {
    let make = |n: usize| {
        let key = json!({"broker": "robinhood", "name": format!("key {n}"), "environment": "paper", "key": format!("rh-api-{n}"),
                         "secret": format!("secret number {n}")});
        let made = world.ask(gate, "POST", "/api/v1/api-keys", &[], &key.to_string());
        assert_eq!(made.status, 201, "{}", made.body);
        made.body["id"].as_str().unwrap().to_owned()
    };
    (0..KEYS).map(make).collect()
}

fn all_open(gate: &Daemon, ids: &[String]) {
    for (n, id) in ids.iter().enumerate() {
        let (revealed, _) = World::ask_quietly(gate, "POST", &format!("/api/v1/api-keys/{id}/reveal"), &[], "");
        assert_eq!((revealed.status, &revealed.body["secret"]), (200, &json!(format!("secret number {n}"))), "{}", revealed.body);
    }
}

/// The vault's status, once nothing is to be moved any more.
fn settled(world: &World, gate: &Daemon) -> Value {
    let begun = Instant::now();
    loop {
        let status = world.ask(gate, "GET", "/api/v1/vault/status", &[], "").body;
        if status["to_rewrap"] == 0 && status["rotating"] == false {
            assert_eq!((&status["state"], &status["secrets"]), (&json!("unlocked"), &json!(KEYS)), "{status}");
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "a rotation that was cut off is not taken up: {status}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number below `most`, of no particular kind.
fn random(most: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) % most.max(1)
}

/// How many of so many kills cut a rotation off.
fn killed(times: u64) -> u64 {
    let world = World::new("http://127.0.0.1:9");
    let mut gate = world.daemon(MASTER);
    let ids = filled(&world, &gate);
    let begun = Instant::now();
    assert_eq!(world.ask(&gate, "POST", "/api/v1/vault/rotate", &[], "").body["rewrapped"], KEYS);
    let whole = u64::try_from(begun.elapsed().as_micros()).unwrap();
    let (mut cut_off, mut half_done) = (0, 0);
    for round in 0..times {
        let (agent, url) = (gate.agent.clone(), format!("http://{}/api/v1/vault/rotate", gate.http));
        let asking = std::thread::spawn(move || agent.post(url).send_empty().is_ok());
        std::thread::sleep(Duration::from_micros(random(whole)));
        gate.kill();
        let answered = asking.join().unwrap();
        gate = world.daemon(MASTER);
        let taken_up = world.ask(&gate, "GET", "/api/v1/vault/status", &[], "").body["to_rewrap"] != 0;
        settled(&world, &gate);
        half_done += u64::from(taken_up);
        cut_off += u64::from(!answered);
        if round % 10 == 0 {
            all_open(&gate, &ids);
        }
    }
    all_open(&gate, &ids);
    let verified = world.ask(&gate, "POST", "/api/v1/vault/verify", &[], "").body;
    assert_eq!((&verified["opened"], &verified["failed"]), (&json!(KEYS), &json!([])));
    let entries = world.ask(&gate, "GET", "/api/v1/audit?action=vault.rotate&actor=ordergate&limit=500", &[], "").body;
    let resumed = entries["items"].as_array().unwrap().iter().filter(|entry| entry["changes"]["resumed"] == true).count();
    println!(
        "{times} kills within {whole} microseconds: {cut_off} rotations had no answer, {resumed} were taken up ({half_done} seen half done)"
    );
    // With another master key nothing opens, and nothing changes.
    assert_eq!(gate.stop(), Some(0));
    let gate = world.daemon(OTHER_MASTER);
    assert_eq!(world.ask(&gate, "GET", "/api/v1/vault/status", &[], "").body["state"], "locked");
    for path in ["/api/v1/vault/rotate".to_owned(), format!("/api/v1/api-keys/{}/reveal", ids[0])] {
        assert_eq!(world.ask(&gate, "POST", &path, &[], "").status, 503, "{path}");
    }
    assert_eq!(gate.stop(), Some(0));
    let gate = world.daemon(MASTER);
    settled(&world, &gate);
    all_open(&gate, &ids);
    u64::try_from(resumed).unwrap()
}

#[test]
fn a_rotation_that_is_killed_is_taken_up_by_the_next_start_and_another_master_key_changes_nothing() {
    killed(4);
}

#[test]
#[ignore = "minutes: `cargo test --test vault -- --ignored fifty --nocapture`"]
fn fifty_rotations_killed_at_random_moments_lose_no_secret() {
    assert!(killed(50) >= 3, "hardly a kill cut anything off");
}
