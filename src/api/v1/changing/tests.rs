//! Rules that two instances over one log change at the same moment.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::api::v1::instances_world::World;

const RULE: &str = "/risk-rules/r1";

fn rule(threshold: u32) -> Value {
    json!({"id": "r1", "type": "max_leverage", "threshold": threshold.to_string(), "unit": "ratio", "action": "block"})
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_instances_that_change_one_rule_at_once_one_does_and_the_other_hears_so() {
    let world = World::new();
    assert_eq!(world.ask(0, "POST", "/risk-rules", None, &rule(1)).await.0, StatusCode::CREATED);
    let (mut tag, mut last) = (String::new(), 1);
    for round in 0..20 {
        // Both have seen the same.
        for at in [0, 1] {
            loop {
                let (status, seen, shown) = world.ask(at, "GET", RULE, None, &Value::Null).await;
                if status == StatusCode::OK && shown["threshold"].as_str() == Some(&last.to_string()) {
                    tag = seen;
                    break;
                }
            }
        }
        let thresholds = [100 + 2 * round, 101 + 2 * round];
        let bodies = thresholds.map(rule);
        let (here, there) =
            tokio::join!(world.ask(0, "PUT", RULE, Some(&tag), &bodies[0]), world.ask(1, "PUT", RULE, Some(&tag), &bodies[1]),);
        let ends = [here.0.as_u16(), there.0.as_u16()];
        assert!(ends == [200, 412] || ends == [412, 200], "round {round}: {ends:?} {} {}", here.2, there.2);
        last = thresholds[usize::from(ends[1] == 200)];
    }
    // To delete a rule is to change it.
    let change = rule(99);
    let (changed, deleted) =
        tokio::join!(world.ask(0, "PUT", RULE, Some("\"1\""), &change), world.ask(1, "DELETE", RULE, None, &Value::Null),);
    assert_eq!(deleted.0, StatusCode::OK);
    assert!([404, 412].contains(&changed.0.as_u16()), "{}", changed.2);
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_died_has_held_is_taken_over_after_a_minute_and_not_before() {
    let world = World::new();
    assert_eq!(world.ask(0, "POST", "/risk-rules", None, &rule(1)).await.0, StatusCode::CREATED);
    let (books, caller) = (&world.instances[1].0, Caller::open([127, 0, 0, 1].into()));
    let held = hold(books, &caller, "rule:r1").await.ok().unwrap();
    let refused = loop {
        // The other instance may not have heard of the rule yet.
        match world.ask(0, "DELETE", RULE, None, &Value::Null).await {
            (StatusCode::NOT_FOUND, ..) => {}
            (status, _, body) => break (status, body),
        }
    };
    assert_eq!((refused.0, refused.1["code"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("TOO_BUSY")));
    assert!(held.is_still_held(books).is_ok());
    let version = held.version(books).unwrap();
    let old = Claim { at: held.claim.at - UNDER_WAY_MS, ..held.claim.clone() };
    assert!(matches!(write(&books.directory, "local", &held.place, version, &old).await, Ok(Some(_))));
    assert!(held.is_still_held(books).is_err(), "who was put aside for a minute writes nothing");
    assert_eq!(world.ask(0, "DELETE", RULE, None, &Value::Null).await.0, StatusCode::OK);
    world.stop();
}
