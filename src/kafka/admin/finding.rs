//! What is wrong with a topic: which setting, why it matters, and what mends it.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// A guarantee does not hold: the daemon does not run on it.
    Breaks,
    /// It works, and could work better.
    Advice,
}

/// What the gate promises as long as its topics are as they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Guarantee {
    /// Every record has one shard that reads it, and every output a place.
    EveryRecordHasItsShard,
    /// The ledger alone rebuilds the state.
    LedgerIsWhole,
    /// No input disappears before it was applied.
    InputsAreRead,
    /// What was published stays as it was published.
    OutputsStay,
    /// What was erased from the directory is gone.
    ErasedIsGone,
    /// What was acknowledged survives the loss of a broker.
    AcknowledgedIsDurable,
    /// A record's time is the log's, not its producer's.
    TimeIsTheLogs,
    /// Whatever the gate writes fits in its topic.
    WritesFit,
    /// What a guarantee rests on could be seen.
    SettingsAreKnown,
}

impl Guarantee {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::EveryRecordHasItsShard,
        Self::LedgerIsWhole,
        Self::InputsAreRead,
        Self::OutputsStay,
        Self::ErasedIsGone,
        Self::AcknowledgedIsDurable,
        Self::TimeIsTheLogs,
        Self::WritesFit,
        Self::SettingsAreKnown,
    ];

    /// In words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::EveryRecordHasItsShard => "every record has one shard that reads it, and every output a place",
            Self::LedgerIsWhole => "the ledger alone rebuilds the state",
            Self::InputsAreRead => "no input disappears before it was applied",
            Self::OutputsStay => "what was published stays as it was published",
            Self::ErasedIsGone => "what was erased from the directory is gone",
            Self::AcknowledgedIsDurable => "what was acknowledged survives the loss of a broker",
            Self::TimeIsTheLogs => "a record's time is the log's, not its producer's",
            Self::WritesFit => "whatever the gate writes fits in its topic",
            Self::SettingsAreKnown => "what the guarantees rest on can be seen",
        }
    }
}

/// One thing that is wrong with a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The topic's name in the cluster.
    pub topic: String,
    /// What of it: a setting's name, `topic`, `partitions` or `replicas`.
    pub setting: &'static str,
    /// As it is.
    pub value: String,
    /// As it should be.
    pub wanted: String,
    /// How bad it is.
    pub severity: Severity,
    /// The guarantee that does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<Guarantee>,
    /// Why it matters.
    pub why: String,
    /// The command that mends it, or where it is said how.
    pub mend: String,
    /// Whether `kafka.force_unsafe` runs on it all the same: the gate cannot do without a topic or its partitions.
    pub forcible: bool,
}

impl Finding {
    /// Whether a guarantee does not hold.
    #[must_use]
    pub fn breaks(&self) -> bool {
        self.severity == Severity::Breaks
    }

    /// Whether the same is wrong for the same reason, with another topic perhaps.
    fn is_alike(&self, other: &Self) -> bool {
        (self.setting, &self.value, &self.wanted, self.guarantee, &self.why)
            == (other.setting, &other.value, &other.wanted, other.guarantee, &other.why)
    }
}

/// Findings for people: what is wrong in the same way with several topics is said once, with a command for each.
#[must_use]
pub fn in_words(findings: &[Finding]) -> String {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        match groups.iter_mut().find(|group| group[0].is_alike(finding)) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    groups.iter().map(|group| group_in_words(group)).collect()
}

fn group_in_words(group: &[&Finding]) -> String {
    let Some(Finding { setting, value, wanted, guarantee, why, .. }) = group.first() else { return String::new() };
    let kind = if guarantee.is_some() { "breaks" } else { "advice" };
    let topics: Vec<&str> = group.iter().map(|finding| finding.topic.as_str()).collect();
    let mut text = format!("{kind}: {setting} is {value}, wanted {wanted}: {}\n", topics.join(", "));
    if let Some(guarantee) = guarantee {
        text.push_str(&format!("  guarantee: {}\n", guarantee.describe()));
    }
    text.push_str(&format!("  why: {why}\n"));
    let mut mends: Vec<&str> = Vec::new();
    for finding in group.iter().filter(|finding| !finding.mend.is_empty()) {
        if !mends.contains(&finding.mend.as_str()) {
            mends.push(&finding.mend);
        }
    }
    text + &mends.iter().map(|mend| format!("  mend: {mend}\n")).collect::<String>()
}
