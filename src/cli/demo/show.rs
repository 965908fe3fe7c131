//! What the demo shows: decisions as they come, books now and then, one block explained.

use std::fmt::Write;

use serde_json::Value;

use crate::app::Daemon;
use crate::cli::client::Client;
use crate::cli::{Exit, Failure, OrExit, say};
use crate::wire;

/// Decisions shown in one tick at most; the rest is counted.
const SHOWN_PER_TICK: usize = 4;
const TICKS_PER_BOOKS: u32 = 20;
const ACCOUNTS_SHOWN: usize = 4;
const ONE_READ: usize = 1_000;

/// The demo's screen.
pub struct Show<'a> {
    client: &'a Client,
    daemon: &'a Daemon,
    accounts: u32,
    decisions_next: u64,
    commands_next: u64,
    explained: bool,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    allowed: u64,
    reduced: u64,
    blocked: u64,
    commands: u64,
}

impl<'a> Show<'a> {
    /// Says what is going to happen and where to look.
    pub fn begin(client: &'a Client, daemon: &'a Daemon, accounts: u32) -> Result<Self, Failure> {
        let metrics = daemon.metrics.map(|at| format!("http://{at}/metrics")).unwrap_or_default();
        let http = daemon.http;
        say(&format!(
            "ordergate demo: generated order flow into a real daemon; stop it with Ctrl-C\n  \
             metrics    {metrics}\n  \
             readiness  http://{http}/readyz\n  \
             one book   http://{http}/api/v1/accounts/ACC0001\n  \
             decisions  http://{http}/api/v1/topics/gate.decisions/records?follow=true\n\n"
        ))?;
        let (decisions_next, commands_next) = (0, 0);
        let mut show = Self { client, daemon, accounts, decisions_next, commands_next, explained: false, counts: Counts::default() };
        // A directory that was used before has decisions already.
        while !show.decisions()?.is_empty() || !show.commands()?.is_empty() {}
        Ok(show)
    }

    /// Shows what happened since the last tick.
    pub fn tick(&mut self, tick: u32) -> Result<(), Failure> {
        let decisions = self.decisions()?;
        for decision in &decisions {
            self.count(decision);
        }
        // What was not simply allowed is what one wants to see.
        let mut chosen: Vec<&Value> = decisions.iter().filter(|decision| !is_plain(decision)).take(SHOWN_PER_TICK).collect();
        chosen.extend(decisions.iter().filter(|decision| is_plain(decision)).take(SHOWN_PER_TICK.saturating_sub(chosen.len())));
        chosen.sort_by_key(|decision| decision["seq"].as_u64());
        let mut text = String::new();
        for decision in &chosen {
            text.push_str(&one_line(decision));
        }
        for command in self.commands()? {
            self.counts.commands += 1;
            text.push_str(&command_line(&command));
        }
        if let Some(decision) = decisions.iter().find(|decision| !self.explained && worth_explaining(decision)) {
            self.explained = true;
            text.push_str(&explanation(decision));
        }
        if tick.is_multiple_of(TICKS_PER_BOOKS) {
            text.push_str(&self.books()?);
        }
        say(&text)
    }

    /// The last word.
    pub fn end(&mut self) -> Result<(), Failure> {
        self.tick(TICKS_PER_BOOKS)
    }

    fn count(&mut self, decision: &Value) {
        match decision["verdict"].as_str() {
            Some("allow") => self.counts.allowed += 1,
            Some("allow_reduced") => self.counts.reduced += 1,
            _ => self.counts.blocked += 1,
        }
    }

    fn decisions(&mut self) -> Result<Vec<Value>, Failure> {
        let (payloads, next) = self.read("gate.decisions", self.decisions_next)?;
        self.decisions_next = next;
        Ok(payloads)
    }

    fn commands(&mut self) -> Result<Vec<Value>, Failure> {
        let (payloads, next) = self.read("gate.commands", self.commands_next)?;
        self.commands_next = next;
        Ok(payloads)
    }

    fn read(&self, topic: &str, from: u64) -> Result<(Vec<Value>, u64), Failure> {
        let mut answer = self.client.get(&format!("/api/v1/topics/{topic}/records?from={from}&limit={ONE_READ}"))?;
        let body = answer.body_mut().read_to_vec().or_exit(Exit::Daemon, || "the daemon did not answer to the end".to_owned())?;
        let (mut payloads, mut next) = (Vec::new(), from);
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = wire::parse_line(line).or_exit(Exit::Daemon, || format!("{topic} has a line that is none"))?;
            payloads.push(serde_json::from_slice(&line.payload).unwrap_or_default());
            next = line.offset.map_or(next, |offset| offset + 1);
        }
        Ok((payloads, next))
    }

    /// The busiest books as the daemon has them now.
    fn books(&self) -> Result<String, Failure> {
        let mut books = Vec::new();
        for number in 1..=self.accounts {
            let account = format!("ACC{number:04}");
            let mut answer = self.client.get(&format!("/api/v1/accounts/{account}"))?;
            let body = answer.body_mut().read_to_vec().or_exit(Exit::Daemon, || "the daemon did not answer to the end".to_owned())?;
            let book: Value = serde_json::from_slice(&body).unwrap_or_default();
            books.push((held(&book).len() + book["working"].as_array().map_or(0, Vec::len), account, book));
        }
        books.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
        let Counts { allowed, reduced, blocked, commands } = self.counts;
        let seq = self.daemon.status().committed_seq;
        let mut text =
            format!("\n  books at seq {seq}   so far {allowed} allowed, {reduced} reduced, {blocked} blocked, {commands} commands\n");
        for (_, account, book) in books.iter().take(ACCOUNTS_SHOWN) {
            text.push_str(&book_line(account, book));
        }
        text.push('\n');
        Ok(text)
    }
}

fn is_plain(decision: &Value) -> bool {
    decision["verdict"] == "allow" && decision["reasons"].as_array().is_none_or(Vec::is_empty)
}

fn word<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or("-")
}

fn one_line(decision: &Value) -> String {
    let verdict = match word(decision, "verdict") {
        "allow" => "ALLOW  ".to_owned(),
        "allow_reduced" => format!("REDUCE to {}", word(decision, "approved_qty")),
        _ => "BLOCK  ".to_owned(),
    };
    let asked = format!("{} {} {}", word(decision, "side"), word(decision, "requested_qty"), word(decision, "symbol"));
    let reasons: Vec<String> = decision["reasons"].as_array().into_iter().flatten().take(2).map(why).collect();
    let (account, intent) = (word(decision, "account"), word(decision, "intent"));
    format!("  {account:<8} {intent:<7}{asked:<24} {verdict:<16} {}\n", reasons.join("; ")).trim_end().to_owned() + "\n"
}

/// One reason in a few words.
fn why(reason: &Value) -> String {
    let mut text = match reason["rule_id"].as_str() {
        Some(rule) => format!("{} {} ({rule})", word(reason, "code"), word(reason, "rule_type")),
        None => word(reason, "code").to_owned(),
    };
    if let (Some(current), Some(limit)) = (reason["current"].as_str(), reason["limit"].as_str()) {
        let _ = write!(text, " {current} against {limit}");
    }
    for (name, said) in [("exempt", "exempt, since it only reduces"), ("observed", "only observed")] {
        if reason[name] == true {
            let _ = write!(text, " [{said}]");
        }
    }
    text
}

fn command_line(command: &Value) -> String {
    let what = match word(command, "event") {
        "close_position" => format!("close: {} {} {}", word(command, "side"), word(command, "qty"), word(command, "symbol")),
        _ => format!("cancel {} orders", command["client_order_ids"].as_array().map_or(0, Vec::len)),
    };
    let account = word(command, "account");
    format!("  {account:<8} COMMAND {what}, says rule {}\n", word(command, "rule_id"))
}

fn worth_explaining(decision: &Value) -> bool {
    let reasons = decision["reasons"].as_array();
    let blocks = |reason: &Value| reason["code"] == "RULE_BREACH" && reason["action"] != "alert" && reason["observed"] != true;
    decision["verdict"] == "block" && reasons.is_some_and(|reasons| reasons.iter().any(blocks))
}

/// One block, field by field.
fn explanation(decision: &Value) -> String {
    let mut text = format!(
        "\n  why was {} blocked?\n    {} asked to {} {} {} and may have {}.\n",
        word(decision, "client_order_id"),
        word(decision, "account"),
        word(decision, "side"),
        word(decision, "requested_qty"),
        word(decision, "symbol"),
        word(decision, "approved_qty"),
    );
    for reason in decision["reasons"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "    {}", why(reason));
        if reason["rule_id"].is_string() {
            let (unit, used, action) = (word(reason, "unit"), word(reason, "utilization"), word(reason, "action"));
            let _ = writeln!(text, "      action {action}; its threshold is in {unit}; used {used} of the limit (1 = full)");
        }
    }
    let (id, equity, seq) = (word(decision, "decision_id"), word(decision, "equity"), &decision["seq"]);
    let source = &decision["source"];
    let _ = writeln!(
        text,
        "    decision {id}: record {seq} of the ledger, read from {} offset {}; equity then {equity}\n",
        word(source, "topic"),
        source["offset"],
    );
    text
}

/// The positions that are not flat.
fn held(book: &Value) -> Vec<(&String, &str)> {
    let positions = book["positions"].as_object().into_iter().flatten();
    positions.map(|(symbol, position)| (symbol, word(position, "qty"))).filter(|(_, qty)| *qty != "0").collect()
}

fn book_line(account: &str, book: &Value) -> String {
    let positions: Vec<String> = held(book).iter().map(|(symbol, qty)| format!("{symbol} {qty}")).collect();
    let working = book["working"].as_array().map_or(0, Vec::len);
    let (equity, sod, state) = (word(book, "equity"), word(book, "sod"), word(book, "state"));
    format!("  {account:<8} {state:<11} equity {equity:<14} day began at {sod:<10} {working} working   {}\n", positions.join(", "))
}
