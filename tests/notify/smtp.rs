//! An SMTP server on loopback with STARTTLS, that can be told to misbehave.
//!
//! Invariant: it speaks the protocol over real sockets and real TLS, takes mail only over TLS, and keeps what it has answered 250 for.
//! Deliberately absent: anything that the client under test could share with it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// It closes every connection at once.
    Down,
    /// It never says a word.
    Silent,
    /// 451 for the first try of each recipient and message, then it takes it.
    Greylisting,
    /// 550 for every recipient.
    Refusing,
    /// It breaks the connection in the middle of a message.
    Dropping,
    /// It does not offer STARTTLS.
    Plain,
    /// It takes a message and breaks the connection before it says so.
    Forgetful,
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub struct Mail {
    pub to: String,
    pub id: String,
    pub text: String,
}

#[derive(Default)]
struct Kept {
    mails: Vec<Mail>,
    seen: HashSet<String>,
    logins: HashSet<String>,
}

/// The server.
pub struct Smtp {
    pub at: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    kept: Arc<Mutex<Kept>>,
}

impl Smtp {
    /// Listens; its certificate is put into `folder` as `ca.pem`.
    pub async fn start(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (mood, kept) = (Arc::new(Mutex::new(Mood::Well)), Arc::new(Mutex::new(Kept::default())));
        let server = Self { at, mood: mood.clone(), kept: kept.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mood, kept, acceptor) = (mood.clone(), kept.clone(), acceptor.clone());
                tokio::spawn(async move {
                    // However a client ends a connection is its own business.
                    let _ = talk(stream, &mood, &kept, &acceptor).await;
                });
            }
        });
        server
    }

    pub fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.kept.lock().unwrap().mails.clone()
    }

    pub fn logins(&self) -> HashSet<String> {
        self.kept.lock().unwrap().logins.clone()
    }
}

async fn talk(stream: TcpStream, mood: &Mutex<Mood>, kept: &Mutex<Kept>, acceptor: &TlsAcceptor) -> std::io::Result<()> {
    let now = *mood.lock().unwrap();
    match now {
        Mood::Down => return Ok(()),
        Mood::Silent => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            return Ok(());
        }
        Mood::Well | Mood::Greylisting | Mood::Refusing | Mood::Dropping | Mood::Plain | Mood::Forgetful => {}
    }
    let mut stream = BufReader::new(stream);
    say(&mut stream, "220 test ESMTP").await?;
    loop {
        let Some(line) = hear(&mut stream).await? else { return Ok(()) };
        match line.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" if now == Mood::Plain => say(&mut stream, "250-test\r\n250 8BITMIME").await?,
            "EHLO" => say(&mut stream, "250-test\r\n250-8BITMIME\r\n250 STARTTLS").await?,
            "STARTTLS" if now != Mood::Plain => {
                say(&mut stream, "220 go on").await?;
                let secret = acceptor.accept(stream.into_inner()).await?;
                return session(BufReader::new(secret), mood, kept).await;
            }
            "QUIT" => return say(&mut stream, "221 bye").await,
            _ => say(&mut stream, "530 Must issue a STARTTLS command first").await?,
        }
    }
}

/// What comes over TLS.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufReader<S>,
    mood: &Mutex<Mood>,
    kept: &Mutex<Kept>,
) -> std::io::Result<()> {
    let mut to = String::new();
    loop {
        let Some(line) = hear(&mut stream).await? else { return Ok(()) };
        let now = *mood.lock().unwrap();
        let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        match (word.as_str(), now) {
            (_, Mood::Down) => return Ok(()),
            (_, Mood::Silent) => tokio::time::sleep(Duration::from_secs(3_600)).await,
            ("EHLO", _) => say(&mut stream, "250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN").await?,
            ("AUTH", _) => {
                kept.lock().unwrap().logins.insert(line);
                say(&mut stream, "235 welcome").await?;
            }
            ("RCPT", Mood::Refusing) => say(&mut stream, "550 5.1.1 no such user").await?,
            ("RCPT", _) => {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                say(&mut stream, "250 ok").await?;
            }
            ("DATA", _) => {
                say(&mut stream, "354 go on").await?;
                let Some(text) = data(&mut stream, now).await? else { return Ok(()) };
                let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap_or_default().to_owned();
                let is_new = kept.lock().unwrap().seen.insert(id.clone());
                if now == Mood::Greylisting && is_new {
                    say(&mut stream, "451 4.7.1 greylisted, try again").await?;
                    continue;
                }
                kept.lock().unwrap().mails.push(Mail { to: to.clone(), id, text });
                if now == Mood::Forgetful {
                    return Ok(());
                }
                say(&mut stream, "250 taken").await?;
            }
            ("QUIT", _) => return say(&mut stream, "221 bye").await,
            _ => say(&mut stream, "250 ok").await?,
        }
    }
}

async fn data<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, mood: Mood) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    while let Some(line) = hear(stream).await? {
        if line == "." {
            return Ok(Some(text));
        }
        text.push_str(&line);
        text.push('\n');
        if mood == Mood::Dropping && text.len() > 200 {
            return Ok(None);
        }
    }
    Ok(None)
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await?;
    stream.flush().await
}

async fn hear<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).await?;
    Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
}
