//! E-mail over SMTP, with STARTTLS or TLS.
//!
//! Invariant: without encryption nothing is sent to another machine, and a server that offers none gets nothing. The `Message-ID` is the
//! delivery's id, so a receiver can drop a repeat. 4xx is for now, 5xx for good; a connection that cannot be made, breaks or falls silent is
//! for now and for everyone. Deliberately absent: DKIM and bounces; the server that we hand the mail to has them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::{AsyncSmtpTransportBuilder, Error, PoolConfig};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

use super::delivery::Outcome;
use super::template::Rendered;

/// 421: the server is going away, whoever asks.
const GOING_AWAY: &str = "421";

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// From the start.
    Tls,
    /// After `STARTTLS`, which the server has to offer.
    StartTls,
    /// Not at all; only to this machine.
    None,
}

/// A server for e-mail.
#[derive(Clone, Debug)]
pub struct EmailOptions {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub encryption: Encryption,
    /// Whom it knows us as, with the password.
    pub login: Option<(String, SecretString)>,
    /// Who the mail is from.
    pub from: String,
    /// Certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one mail may take.
    pub timeout: Duration,
    /// Connections at once.
    pub connections_max: u32,
}

/// What is wrong with a server's settings.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The sender.
    #[error("notify.smtp.from is no address: {0}")]
    From(#[from] lettre::address::AddressError),
    /// The encryption.
    #[error("notify.smtp.tls = none is for a server on this machine only")]
    Unencrypted,
    /// Certificates.
    #[error("the certificates of {path} cannot be read: {detail}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The name of the server, or the system's certificates.
    #[error("the SMTP client cannot be made: {0}")]
    Client(#[from] Error),
}

/// The way to the server.
#[derive(Debug)]
pub struct Email {
    builder: AsyncSmtpTransportBuilder,
    connections: OnceLock<Connections>,
    from: Mailbox,
    timeout: Duration,
}

/// Open connections. Their pool begins and ends with tasks, so it is made and dropped within the runtime that it serves.
#[derive(Debug)]
struct Connections {
    transport: Option<AsyncSmtpTransport<Tokio1Executor>>,
    runtime: Handle,
}

impl Drop for Connections {
    fn drop(&mut self) {
        let _within = self.runtime.enter();
        self.transport = None;
    }
}

impl Email {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// See [`EmailError`].
    pub fn new(options: &EmailOptions) -> Result<Self, EmailError> {
        let from: Mailbox = options.from.parse()?;
        let tls = match options.encryption {
            Encryption::Tls => Tls::Wrapper(parameters(options)?),
            Encryption::StartTls => Tls::Required(parameters(options)?),
            Encryption::None if is_here(&options.host) => Tls::None,
            Encryption::None => return Err(EmailError::Unencrypted),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&options.host)
            .port(options.port)
            .tls(tls)
            .timeout(Some(options.timeout))
            .pool_config(PoolConfig::new().max_size(options.connections_max.max(1)));
        if let Some((user, password)) = &options.login {
            builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
        }
        Ok(Self { builder, connections: OnceLock::new(), from, timeout: options.timeout })
    }

    /// Sends one mail. `id` is what a receiver knows a repeat by.
    pub async fn send(&self, to: &str, id: &str, rendered: &Rendered) -> Outcome {
        let mail = match self.mail(to, id, rendered) {
            Ok(mail) => mail,
            Err(why) => return Outcome::refused(why),
        };
        let made = || Connections { transport: Some(self.builder.clone().build()), runtime: Handle::current() };
        let Some(transport) = &self.connections.get_or_init(made).transport else { return Outcome::down("the mail client is gone") };
        // Beside the client's own limit, which is one of each command: a server that trickles has no more time than others.
        match tokio::time::timeout(self.timeout.saturating_mul(2), transport.send(mail)).await {
            Ok(Ok(_)) => Outcome::Sent,
            Ok(Err(error)) => outcome(&error),
            Err(_) => Outcome::down("the mail server did not answer in time"),
        }
    }

    fn mail(&self, to: &str, id: &str, rendered: &Rendered) -> Result<lettre::Message, String> {
        let to: Address = to.parse().map_err(|error| format!("no address: {error}"))?;
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let whose = self.from.email.domain();
        lettre::Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(&rendered.subject)
            .message_id(Some(format!("<{id}@{whose}>")))
            .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
            .multipart(MultiPart::alternative_plain_html(rendered.text.clone(), rendered.html.clone()))
            .map_err(|error| format!("the mail cannot be written: {error}"))
    }
}

/// An address as it is kept.
///
/// # Errors
/// It is none.
pub fn read_address(text: &str) -> Result<String, lettre::address::AddressError> {
    Ok(text.parse::<Address>()?.to_string())
}

fn parameters(options: &EmailOptions) -> Result<TlsParameters, EmailError> {
    let mut builder = TlsParameters::builder(options.host.clone());
    if let Some(path) = &options.ca_file {
        let told = |detail: String| EmailError::Certificates { path: path.clone(), detail };
        let pem = std::fs::read(path).map_err(|error| told(error.to_string()))?;
        builder = builder.add_root_certificate(Certificate::from_pem(&pem).map_err(|error| told(error.to_string()))?);
    }
    Ok(builder.build()?)
}

fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn outcome(error: &Error) -> Outcome {
    let code = error.status().map(|code| code.to_string());
    if error.is_permanent() {
        return Outcome::refused(error);
    }
    if error.is_transient() && code.as_deref() != Some(GOING_AWAY) {
        return Outcome::later(error);
    }
    Outcome::down(error)
}
