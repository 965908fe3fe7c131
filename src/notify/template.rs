//! What messages say: templates that are built in and that an operator may lay others over.
//!
//! Invariant: a template that is broken is found when the daemon starts, with a notification and a digest that are made up for that, and
//! not when the first message should go out. HTML is escaped. Deliberately absent: templates that read files or load others from
//! outside their folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};

use super::message::Message;
use super::raised::{Raised, RaisedId};
use crate::domain::{NotificationType, Priority};

/// Every template: its name and what is built in.
const BUILT_IN: &[(&str, &str)] = &[
    ("subject.txt", include_str!("templates/subject.txt")),
    ("message.txt", include_str!("templates/message.txt")),
    ("message.html", include_str!("templates/message.html")),
    ("short.txt", include_str!("templates/short.txt")),
    ("verify_subject.txt", include_str!("templates/verify_subject.txt")),
    ("verify.txt", include_str!("templates/verify.txt")),
    ("verify.html", include_str!("templates/verify.html")),
    ("code.txt", include_str!("templates/code.txt")),
];
/// What a digest lists one by one; the rest it counts.
const LISTED_MAX: usize = 100;
const SUBJECT_CHARS_MAX: usize = 150;

/// What is wrong with a template.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Its file.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What stands in it.
    #[error("template {name}: {source:#}")]
    Template {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        source: minijinja::Error,
    },
}

/// A message in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// As text.
    pub text: String,
    /// As HTML.
    pub html: String,
}

/// The templates.
#[derive(Clone, Debug)]
pub struct Templates {
    environment: Arc<Environment<'static>>,
    public_url: String,
}

impl Templates {
    /// The built-in ones, with those of `folder` in their place. `public_url` is where people reach this daemon, if they do.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn load(folder: Option<&Path>, public_url: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::SemiStrict);
        environment.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|source| TemplateError::Template { name: "syntax", source })?);
        for (name, built_in) in BUILT_IN {
            let source = match folder.map(|folder| folder.join(name)) {
                Some(path) if path.exists() => std::fs::read_to_string(&path).map_err(|source| TemplateError::File { path, source })?,
                Some(_) | None => (*built_in).to_owned(),
            };
            environment.add_template_owned(*name, source).map_err(|source| TemplateError::Template { name, source })?;
        }
        let templates = Self { environment: Arc::new(environment), public_url: public_url.trim_end_matches('/').to_owned() };
        templates.try_all()?;
        Ok(templates)
    }

    /// A message in words.
    ///
    /// # Errors
    /// A template fails on it.
    pub fn message(&self, message: &Message) -> Result<Rendered, TemplateError> {
        let with = self.context(message);
        let subject = one_line(&self.render("subject.txt", &with)?);
        Ok(Rendered { subject, text: self.render("message.txt", &with)?, html: self.render("message.html", &with)? })
    }

    /// A message in a few words.
    ///
    /// # Errors
    /// A template fails on it.
    pub fn short(&self, message: &Message) -> Result<String, TemplateError> {
        Ok(self.render("short.txt", &self.context(message))?.trim().to_owned())
    }

    /// The mail that asks whether an address is the person's.
    ///
    /// # Errors
    /// A template fails on it.
    pub fn verification(&self, user: &str, link: &str) -> Result<Rendered, TemplateError> {
        let with = context! { user, link };
        let subject = one_line(&self.render("verify_subject.txt", &with)?);
        Ok(Rendered { subject, text: self.render("verify.txt", &with)?, html: self.render("verify.html", &with)? })
    }

    /// The text message that asks whether a number is the person's.
    ///
    /// # Errors
    /// A template fails on it.
    pub fn code(&self, code: &str) -> Result<String, TemplateError> {
        Ok(self.render("code.txt", &context! { code })?.trim().to_owned())
    }

    /// Where people reach this daemon; empty when that is not known.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    fn context(&self, message: &Message) -> Value {
        let listed: Vec<&Raised> = message.contents.iter().take(LISTED_MAX).map(Arc::as_ref).collect();
        let times: Vec<String> = listed.iter().map(|raised| moment(raised.at)).collect();
        let items: Vec<Value> = listed.into_iter().map(|raised| Value::from(Serde(raised))).collect();
        let reasons: Vec<&str> = message.reasons.iter().map(|why| why.as_str()).collect();
        let total = message.total();
        context! {
            items, times, reasons, total,
            more => total.saturating_sub(LISTED_MAX as u64),
            digest => message.digest,
            test => message.test,
            user => &*message.user,
            public_url => self.public_url.as_str(),
        }
    }

    fn render(&self, name: &'static str, with: &Value) -> Result<String, TemplateError> {
        let rendered = self.environment.get_template(name).and_then(|template| template.render(with));
        rendered.map_err(|source| TemplateError::Template { name, source })
    }

    fn try_all(&self) -> Result<(), TemplateError> {
        let sample = Arc::new(Raised {
            id: RaisedId { shard: 0, seq: 1, index: 0 },
            account: Some("ACC1".to_owned()),
            owner: None,
            kind: NotificationType::RiskBreach,
            code: "RULE_BREACH".to_owned(),
            priority: Priority::High,
            title: "Risk rule breached".to_owned(),
            message: "Account ACC1: a risk rule is breached.".to_owned(),
            data: serde_json::Map::new(),
            at: 0,
        });
        for contents in [vec![sample.clone()], vec![sample.clone(), sample]] {
            let message = Message::sample(contents);
            self.message(&message)?;
            self.short(&message)?;
        }
        self.verification("ann", "https://example.com/")?;
        self.code("000000")?;
        Ok(())
    }
}

/// A moment in a form that both people and programs read.
#[must_use]
pub fn moment(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

/// A subject is one line, and not a long one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SUBJECT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(title: &str) -> Arc<Raised> {
        let json = serde_json::json!({
            "notification_id": "0-7-n0", "account": "ACC1", "type": "stop_loss", "code": "RULE_BREACH", "priority": "urgent",
            "title": title, "message": "Account ACC1: <b>a stop</b>.", "data": {"symbol": "AAPL"}, "at": 1_780_000_000_000_i64,
        });
        Arc::new(Raised::read(json.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_message_says_what_happened_and_html_is_escaped() {
        let templates = Templates::load(None, "https://gate.example/").unwrap();
        let rendered = templates.message(&Message::sample(vec![raised("Stop loss\r\nBcc: evil@example.com")])).unwrap();
        assert_eq!(rendered.subject, "[urgent] Stop loss Bcc: evil@example.com: ACC1");
        assert!(rendered.text.contains("<b>a stop</b>") && rendered.text.contains("2026-05-28T20:26:40Z"), "{}", rendered.text);
        assert!(rendered.html.contains("&lt;b&gt;a stop") && !rendered.html.contains("<b>a stop"), "{}", rendered.html);
    }

    #[test]
    fn a_digest_lists_what_it_holds_and_counts_the_rest() {
        let templates = Templates::load(None, "").unwrap();
        let rendered = templates.message(&Message::sample(vec![raised("Stop loss reached"); 130])).unwrap();
        assert!(rendered.subject.contains("130 notifications"), "{}", rendered.subject);
        assert_eq!(rendered.text.matches("Stop loss reached").count(), LISTED_MAX);
        assert!(rendered.text.contains("30 more"), "{}", rendered.text);
        assert!(templates.short(&Message::sample(vec![raised("x"); 130])).unwrap().contains("130"));
    }

    #[test]
    fn a_folder_s_template_takes_the_place_of_the_built_in_one_and_a_broken_one_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("short.txt"), "{{ items[0].title }} of {{ user }}").unwrap();
        let templates = Templates::load(Some(folder.path()), "").unwrap();
        assert_eq!(templates.short(&Message::sample(vec![raised("Stop")])).unwrap(), "Stop of ann");
        for broken in ["{{ items", "{{ nothing.of.this.kind }}", "{% include '/etc/passwd' %}"] {
            std::fs::write(folder.path().join("short.txt"), broken).unwrap();
            let error = Templates::load(Some(folder.path()), "").unwrap_err().to_string();
            assert!(error.contains("short.txt"), "{error}");
        }
    }
}
