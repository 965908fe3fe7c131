//! How full rules are, of the accounts that lately were near or over a limit.
//!
//! Invariant: it holds what decisions and notifications said within the last minute of record time;
//! it measures nothing itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::domain::{AccountId, Effects, Figure, Millis, Output, RuleCited, RuleId};
use crate::telemetry::UtilizationGauges;

/// What was said longer ago than this is dropped.
const KEPT_MS: Millis = 60_000;
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// The latest utilisation of each pair of account and rule that was said.
#[derive(Debug)]
pub struct Utilization {
    said: HashMap<(AccountId, RuleId), (f64, Millis)>,
    gauges: UtilizationGauges,
    shown: Instant,
}

impl Utilization {
    /// Nothing was said yet.
    #[must_use]
    pub fn new() -> Self {
        Self { said: HashMap::new(), gauges: UtilizationGauges::default(), shown: Instant::now() }
    }

    /// Notes what a record's outputs say.
    pub fn hear(&mut self, effects: &Effects) {
        for output in &effects.outputs {
            match output {
                Output::Decision(decision) => {
                    for reason in effects.reasons_of(decision) {
                        self.note(Some(decision.account), reason.rule, reason.utilization, decision.at);
                    }
                }
                Output::Notification(said) => self.note(said.account, said.data.rule, said.data.utilization, said.at),
                Output::CancelOrders(_) | Output::ClosePosition(_) | Output::DeadLetter(_) => {}
            }
        }
    }

    fn note(&mut self, account: Option<AccountId>, rule: Option<RuleCited>, utilization: Figure, at: Millis) {
        if let (Some(account), Some(rule), Figure::Units(units)) = (account, rule, utilization) {
            self.said.insert((account, rule.id), (units as f64 / 1e8, at));
        }
    }

    /// Shows it, not too often.
    pub fn show(&mut self, now: Millis) {
        if self.shown.elapsed() < SHOWN_EVERY {
            return;
        }
        self.shown = Instant::now();
        self.said.retain(|_, (_, at)| now.saturating_sub(*at) <= KEPT_MS);
        let pairs = self.said.iter().map(|((account, rule), (used, _))| (account.to_string(), rule.to_string(), *used));
        self.gauges.show(pairs);
    }
}
