//! The authorisation matrix: every operation of the served document, asked by everyone, about objects of every standing.
//!
//! Invariant: the operations come from the document that the daemon serves, what they should answer from one table. An operation
//! without a row fails, and so does a row without an operation. Whoever does not administer is shown nothing of anybody else's.
//! Deliberately absent: what the operations do; other tests look at that.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod daemon;
#[path = "authorisation/objects.rs"]
mod objects;
#[path = "authorisation/requests.rs"]
mod requests;
#[path = "authorisation/table.rs"]
mod table;
#[path = "authorisation/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use objects::{Asking, Maker, Standing};
use requests::ENDS_A_SESSION;
use serde_json::Value;
use table::{Row, TABLE};
use world::{Answer, Column, FOREIGN, Who, World};

/// Method and path by operation.
type Operations = BTreeMap<String, (String, String)>;

fn operations(world: &World) -> Operations {
    let nobody = Who { name: String::new(), bearer: None, refresh: String::new(), writing: None };
    let document = world.ask(&nobody, "GET", "/api/openapi.json", &[], None).json();
    let mut found = Operations::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Some(id) = operation.get("operationId").and_then(Value::as_str) {
                assert!(found.insert(id.to_owned(), (method.to_uppercase(), path.clone())).is_none(), "{id} twice");
            }
        }
    }
    found
}

/// What is not in order between the document and the table.
fn missing(operations: &Operations) -> Vec<String> {
    let told: BTreeSet<&str> = TABLE.iter().map(|row| row.operation).collect();
    let served: BTreeSet<&str> = operations.keys().map(String::as_str).collect();
    let unexpected = served.difference(&told).map(|operation| format!("{operation} has no row in tests/authorisation/table.rs"));
    let gone = told.difference(&served).map(|operation| format!("{operation} has a row and is no operation"));
    unexpected.chain(gone).collect()
}

struct Matrix {
    world: World,
    maker: Maker,
    faults: Vec<String>,
    cells: usize,
}

impl Matrix {
    fn cell(&mut self, row: &Row, (method, template): (&str, &str), (column, standing): (Column, Standing), expected: u16) {
        let fresh = ENDS_A_SESSION.contains(&row.operation).then(|| self.world.person(column));
        let holder = fresh.as_ref().unwrap_or_else(|| self.world.who(column));
        let latched = row.operation == "post_accounts_id_latches_rule_release";
        let asking = Asking { column, who: holder, standing, only_looks: method == "GET", latched };
        let made = self.maker.make(&self.world, row.object, &asking);
        let who = Who { bearer: holder.bearer.clone().filter(|_| column != Column::Nobody), ..holder.clone() };
        let body = requests::body(&self.world, row, &made, &who);
        let mut headers: Vec<(&str, &str)> = body.iter().map(|(kind, _)| ("content-type", *kind)).collect();
        headers.extend(made.tag.as_deref().map(|tag| ("if-match", tag)));
        let path = requests::path(&self.world, row, template, &made, &who);
        let answer = if row.operation == "get_ws" {
            self.world.ask_for_a_websocket(&path)
        } else {
            self.world.ask(&who, method, &path, &headers, body.map(|(_, body)| body))
        };
        self.cells += 1;
        let cell = format!("{} {} {column:?} {standing:?}: {method} {path}", row.operation, row.case);
        self.faults
            .extend(faults_of(&answer, column, row, expected).into_iter().map(|fault| format!("{cell}: {fault}: {:.300}", answer.text)));
    }
}

fn faults_of(answer: &Answer, column: Column, row: &Row, expected: u16) -> Vec<String> {
    let mut faults = Vec::new();
    if answer.status != expected {
        faults.push(format!("{} instead of {expected}", answer.status));
    }
    if answer.status == 401 && answer.challenge.is_none() {
        faults.push("a 401 without WWW-Authenticate".to_owned());
    }
    // Who reads whole topics reads everyone's.
    let sees_all = column == Column::Admin || row.operation == "get_topics_topic_records";
    if answer.status < 300 && !sees_all && answer.text.to_uppercase().contains(FOREIGN) {
        faults.push("shows what is nobody's business".to_owned());
    }
    faults
}

#[test]
fn everyone_is_told_what_the_table_says_of_every_operation_about_objects_of_every_standing() {
    let world = World::new();
    let operations = operations(&world);
    let mut matrix = Matrix { world, maker: Maker::default(), faults: missing(&operations), cells: 0 };
    for row in TABLE {
        let Some((method, path)) = operations.get(row.operation) else { continue };
        for (column, statuses) in Column::ALL.into_iter().zip(row.expected()) {
            for (standing, expected) in row.object.standings().iter().zip(statuses) {
                matrix.cell(row, (method, path), (column, *standing), expected);
            }
        }
    }
    println!("{} cells: {} operations, {} rows, {} columns", matrix.cells, operations.len(), TABLE.len(), Column::ALL.len());
    assert!(matrix.faults.is_empty(), "{} of {} cells:\n{}", matrix.faults.len(), matrix.cells, matrix.faults.join("\n"));
}
