//! What a person wants to hear, over which channel, and when.
//!
//! Invariant: a preference for a type counts before the one for all types of its channel, and that one before the channel's default.
//! Urgent passes quiet hours; a snooze was asked for by name and holds everything back. What is held is late, never lost.
//! Deliberately absent: preferences for the inbox; it hears everything.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Channel;
use super::delivery::Held;
use super::quiet::{QuietError, QuietHours};
use super::raised::{kind_word, priority_word};
use crate::domain::{NotificationType, Priority};

/// The longest snooze.
pub const SNOOZE_MS_MAX: i64 = 30 * 24 * 3_600_000;
/// Verdicts that follow from one another: a snooze that ends in quiet hours that end in a snooze ends here.
const STEPS_MAX: usize = 8;

/// Quiet hours as they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    /// `HH:MM`; quiet from then on.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", example = "22:00")]
    pub from: String,
    /// `HH:MM`; no longer quiet then. At or before `from`: on the next day.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$", example = "07:00")]
    pub to: String,
    /// An IANA time zone.
    #[schema(max_length = 64, example = "Europe/Berlin")]
    pub zone: String,
}

impl Quiet {
    /// The hours, if they are any.
    ///
    /// # Errors
    /// A time, the zone or the span is none.
    pub fn hours(&self) -> Result<QuietHours, QuietError> {
        QuietHours::parse(&self.from, &self.to, &self.zone)
    }
}

/// A preference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// The type; absent: all types that have none of their own.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none", with = "optional_kind")]
    pub kind: Option<NotificationType>,
    /// The channel.
    pub channel: Channel,
    /// Whether anything is sent.
    pub enabled: bool,
    /// The least priority that is sent.
    #[serde(with = "priority_word")]
    pub min_priority: Priority,
    /// When only what is urgent is sent at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_hours: Option<Quiet>,
    /// Until when nothing is sent, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snooze_until: Option<i64>,
}

mod optional_kind {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::kind_word;
    use crate::domain::NotificationType;

    #[derive(Deserialize)]
    struct Word(#[serde(with = "kind_word")] NotificationType);

    pub(super) fn serialize<S: Serializer>(kind: &Option<NotificationType>, serializer: S) -> Result<S::Ok, S::Error> {
        match kind {
            Some(kind) => kind_word::serialize(kind, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NotificationType>, D::Error> {
        Ok(Option::<Word>::deserialize(deserializer)?.map(|word| word.0))
    }
}

impl Preference {
    /// What holds when nothing was said: what matters comes by e-mail and push, what is urgent also by text message; a program gets all.
    #[must_use]
    pub const fn default_of(channel: Channel) -> Self {
        let min_priority = match channel {
            Channel::Email => Priority::High,
            Channel::Push => Priority::Medium,
            Channel::Sms => Priority::Urgent,
            Channel::Webhook => Priority::Low,
        };
        Self { kind: None, channel, enabled: true, min_priority, quiet_hours: None, snooze_until: None }
    }

    /// Its id: one per type and channel.
    #[must_use]
    pub fn id(&self) -> String {
        Self::id_of(self.kind, self.channel)
    }

    /// The id of the preference for a type (or all) and channel.
    #[must_use]
    pub fn id_of(kind: Option<NotificationType>, channel: Channel) -> String {
        format!("{}-{channel}", kind.map_or("all", NotificationType::as_str))
    }

    /// What becomes of a notification of this priority at `now`.
    #[must_use]
    pub fn verdict(&self, priority: Priority, now: i64) -> Verdict {
        if !self.enabled {
            return Verdict::Never(Never::Disabled);
        }
        if priority < self.min_priority {
            return Verdict::Never(Never::BelowMinPriority);
        }
        let (mut at, mut held) = (now, None);
        for _ in 0..STEPS_MAX {
            let Some((until, why)) = self.hold(priority, at) else { break };
            (at, held) = (until, held.or(Some(why)));
        }
        held.map_or(Verdict::Now, |why| Verdict::Hold { until: at, why })
    }

    fn hold(&self, priority: Priority, at: i64) -> Option<(i64, Held)> {
        if let Some(until) = self.snooze_until.filter(|until| *until > at) {
            return Some((until, Held::Snooze));
        }
        // What was written was checked; hours that a later time zone database no longer knows hold nothing back.
        let hours = self.quiet_hours.as_ref().filter(|_| priority != Priority::Urgent)?.hours().ok()?;
        let end = hours.end_after(Timestamp::from_millisecond(at).ok()?)?;
        Some((end.as_millisecond(), Held::QuietHours))
    }
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Now,
    /// It waits, and goes out in one digest with what else waited.
    Hold {
        /// Until then, in ms.
        until: i64,
        /// Why.
        why: Held,
    },
    /// It is not sent.
    Never(Never),
}

/// Why something is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {
    /// The preference says so.
    Disabled,
    /// It is not urgent enough.
    BelowMinPriority,
}

impl Never {
    /// As a sentence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "the preference is off",
            Self::BelowMinPriority => "its priority is below min_priority",
        }
    }
}

/// A person's preferences.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preferences {
    /// In the order in which they were made; one per type and channel.
    #[serde(default)]
    pub preferences: Vec<Preference>,
}

impl Preferences {
    /// The preference that counts.
    #[must_use]
    pub fn of(&self, kind: NotificationType, channel: Channel) -> Preference {
        let find = |wanted: Option<NotificationType>| self.preferences.iter().find(|it| it.kind == wanted && it.channel == channel);
        find(Some(kind)).or_else(|| find(None)).cloned().unwrap_or_else(|| Preference::default_of(channel))
    }

    /// When the next one would be sent, and why then.
    #[must_use]
    pub fn preview(&self, kind: NotificationType, channel: Channel, priority: Priority, now: i64) -> Preview {
        let preference = self.of(kind, channel);
        let source = if self.preferences.contains(&preference) { Some(preference.id()) } else { None };
        let (at, why) = match preference.verdict(priority, now) {
            Verdict::Now if preference.snooze_until.is_none_or(|until| until <= now) && priority == Priority::Urgent => {
                (Some(now), "at once: urgent passes quiet hours".to_owned())
            }
            Verdict::Now => (Some(now), "at once".to_owned()),
            Verdict::Hold { until, why } => (Some(until), format!("held until then, in a digest: {}", why.as_str())),
            Verdict::Never(why) => (None, format!("never: {}", why.as_str())),
        };
        Preview { at, why, preference: source }
    }
}

/// What would become of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// When it would be sent, in ms; `None`: never.
    pub at: Option<i64>,
    /// Why.
    pub why: String,
    /// The preference that counts; `None`: the channel's default.
    pub preference: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHT: i64 = 1_780_351_200_000; // 2026-06-02T00:00 in Berlin is 22:00Z on the 1st
    const HOUR: i64 = 3_600_000;

    fn preference() -> Preference {
        let quiet = Quiet { from: "22:00".into(), to: "07:00".into(), zone: "Europe/Berlin".into() };
        Preference {
            kind: None,
            channel: Channel::Email,
            enabled: true,
            min_priority: Priority::Medium,
            quiet_hours: Some(quiet),
            snooze_until: None,
        }
    }

    #[test]
    fn what_is_off_or_not_urgent_enough_is_never_sent() {
        assert_eq!(Preference { enabled: false, ..preference() }.verdict(Priority::Urgent, NIGHT), Verdict::Never(Never::Disabled));
        assert_eq!(preference().verdict(Priority::Low, NIGHT), Verdict::Never(Never::BelowMinPriority));
    }

    #[test]
    fn quiet_hours_hold_what_is_not_urgent() {
        let end = NIGHT + 7 * HOUR;
        assert_eq!(preference().verdict(Priority::High, NIGHT), Verdict::Hold { until: end, why: Held::QuietHours });
        assert_eq!(preference().verdict(Priority::Urgent, NIGHT), Verdict::Now);
        assert_eq!(preference().verdict(Priority::High, end), Verdict::Now);
    }

    #[test]
    fn a_snooze_holds_everything_and_may_end_in_quiet_hours() {
        let snoozed = Preference { snooze_until: Some(NIGHT + HOUR), ..preference() };
        assert_eq!(snoozed.verdict(Priority::Urgent, NIGHT), Verdict::Hold { until: NIGHT + HOUR, why: Held::Snooze });
        assert_eq!(snoozed.verdict(Priority::High, NIGHT), Verdict::Hold { until: NIGHT + 7 * HOUR, why: Held::Snooze });
        assert_eq!(snoozed.verdict(Priority::Urgent, NIGHT + HOUR), Verdict::Now);
        // Quiet hours that end within a snooze that was made meanwhile.
        let longer = Preference { snooze_until: Some(NIGHT + 30 * HOUR), ..preference() };
        assert_eq!(longer.verdict(Priority::High, NIGHT), Verdict::Hold { until: NIGHT + 31 * HOUR, why: Held::Snooze });
    }

    #[test]
    fn the_type_counts_before_all_types_and_that_before_the_default() {
        let all = preference();
        let stops = Preference { kind: Some(NotificationType::StopLoss), min_priority: Priority::Low, ..preference() };
        let both = Preferences { preferences: vec![all.clone(), stops.clone()] };
        assert_eq!(both.of(NotificationType::StopLoss, Channel::Email), stops);
        assert_eq!(both.of(NotificationType::RiskBreach, Channel::Email), all);
        assert_eq!(both.of(NotificationType::RiskBreach, Channel::Sms), Preference::default_of(Channel::Sms));
    }

    #[test]
    fn a_preview_says_when_and_why() {
        let both = Preferences { preferences: vec![preference()] };
        let of = |priority, now| both.preview(NotificationType::RiskBreach, Channel::Email, priority, now);
        assert_eq!(of(Priority::Urgent, NIGHT).at, Some(NIGHT));
        assert_eq!(of(Priority::High, NIGHT).at, Some(NIGHT + 7 * HOUR));
        assert!(of(Priority::High, NIGHT).why.contains("quiet hours"));
        assert_eq!(of(Priority::Low, NIGHT).at, None);
        assert_eq!(of(Priority::Low, NIGHT).preference.as_deref(), Some("all-email"));
        assert_eq!(both.preview(NotificationType::RiskBreach, Channel::Sms, Priority::Urgent, NIGHT).preference, None);
    }

    #[test]
    fn it_reads_back_what_it_wrote() {
        let stops = Preference { kind: Some(NotificationType::StopLoss), snooze_until: Some(5), ..preference() };
        let both = Preferences { preferences: vec![preference(), stops] };
        let text = serde_json::to_string(&both).unwrap();
        assert!(text.contains(r#""type":"stop_loss","channel":"email""#), "{text}");
        assert_eq!(serde_json::from_str::<Preferences>(&text).unwrap(), both);
    }
}
