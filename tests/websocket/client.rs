//! A WebSocket client for tests, by a library that is not ours to trust. It reads only when it is told to.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Bytes, Error};
use tokio_tungstenite::{WebSocketStream, client_async};

const PATIENCE: Duration = Duration::from_secs(30);

/// An open WebSocket.
pub struct Client {
    runtime: Runtime,
    socket: WebSocketStream<tokio::net::TcpStream>,
}

/// What comes over it.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// A message.
    Said(Value),
    /// The close frame's code.
    Closed(u16),
}

/// Opens one; else gives status and body of the refusal.
pub fn open(http: &str, query: &str, headers: &[(&'static str, &str)]) -> Result<Client, (u16, Value)> {
    open_with(http, query, headers, None)
}

/// The same, with so small a buffer for what is not read.
pub fn open_with(http: &str, query: &str, headers: &[(&'static str, &str)], buffer: Option<u32>) -> Result<Client, (u16, Value)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut request = format!("ws://{http}/api/v1/ws{query}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let opened = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(buffer) = buffer {
            socket.set_recv_buffer_size(buffer).unwrap();
        }
        let stream = socket.connect(http.parse().unwrap()).await.unwrap();
        client_async(request, stream).await
    });
    match opened {
        Ok((socket, _)) => Ok(Client { runtime, socket }),
        Err(Error::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), serde_json::from_slice(body).unwrap_or(Value::Null)))
        }
        Err(error) => panic!("{error}"),
    }
}

impl Client {
    pub fn text(&mut self, text: &str) {
        self.runtime.block_on(self.socket.send(Message::Text(text.into()))).unwrap();
    }

    pub fn binary(&mut self, bytes: &'static [u8]) {
        self.runtime.block_on(self.socket.send(Message::Binary(Bytes::from_static(bytes)))).unwrap();
    }

    /// Whatever comes next but pings; fails when nothing does.
    pub fn heard(&mut self) -> Heard {
        let begun = Instant::now();
        loop {
            let left = PATIENCE.checked_sub(begun.elapsed()).expect("nothing comes");
            let socket = &mut self.socket;
            let heard = self.runtime.block_on(async { tokio::time::timeout(left, socket.next()).await.expect("nothing comes") });
            match heard {
                Some(Ok(Message::Text(text))) => return Heard::Said(serde_json::from_str(text.as_str()).unwrap()),
                Some(Ok(Message::Close(frame))) => return Heard::Closed(frame.map_or(1005, |frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("{error}"),
                None => panic!("it ended without a word"),
            }
        }
    }

    /// The text of the next message, if one comes within a few seconds.
    pub fn text_heard(&mut self) -> Option<String> {
        loop {
            let socket = &mut self.socket;
            let next = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(5), socket.next()).await });
            match next.ok()?? {
                Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub fn said(&mut self) -> Value {
        match self.heard() {
            Heard::Said(value) => value,
            Heard::Closed(code) => panic!("closed with {code}"),
        }
    }

    /// The next message of a channel with this type; others are passed over.
    pub fn of(&mut self, kind: &str, channel: &str) -> Value {
        loop {
            let said = self.said();
            if said["type"] == kind && said["channel"] == channel {
                return said;
            }
            assert_ne!(said["type"], "error", "{said}");
        }
    }

    /// The code of the close frame; what comes before it is passed over.
    pub fn closed(&mut self) -> u16 {
        loop {
            if let Heard::Closed(code) = self.heard() {
                return code;
            }
        }
    }

    /// Whether nothing comes for a while.
    pub fn is_silent(&mut self, for_long: Duration) -> bool {
        let socket = &mut self.socket;
        self.runtime.block_on(async { tokio::time::timeout(for_long, socket.next()).await.is_err() })
    }

    /// Whether a ping comes before anything else. Reading on answers it.
    pub fn is_pinged(&mut self, within: Duration) -> bool {
        let socket = &mut self.socket;
        let next = self.runtime.block_on(async { tokio::time::timeout(within, socket.next()).await });
        matches!(next, Ok(Some(Ok(Message::Ping(_)))))
    }

    /// Pings, and gives whether the answer comes before anything else.
    pub fn pings(&mut self, within: Duration) -> bool {
        let socket = &mut self.socket;
        let next = self.runtime.block_on(async {
            socket.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
            tokio::time::timeout(within, socket.next()).await
        });
        matches!(next, Ok(Some(Ok(Message::Pong(echo)))) if echo.as_ref() == b"x")
    }

    /// Subscribes, and gives the position that it begins behind.
    pub fn subscribe(&mut self, channel: &str) -> String {
        self.text(&json!({"type": "subscribe", "channel": channel}).to_string());
        self.of("subscribed", channel)["position"].as_str().unwrap().to_owned()
    }

    /// Subscribes from a position on.
    pub fn resume(&mut self, channel: &str, position: &str) -> String {
        self.text(&json!({"type": "subscribe", "channel": channel, "resume": position}).to_string());
        self.of("subscribed", channel)["position"].as_str().unwrap().to_owned()
    }

    /// Sends a text that is refused, and gives the code.
    pub fn refused(&mut self, text: &str) -> String {
        self.text(text);
        loop {
            let said = self.said();
            if said["type"] == "error" {
                return said["code"].as_str().unwrap().to_owned();
            }
        }
    }

    /// Sends a subscription that is refused, and gives the code.
    pub fn refused_subscription(&mut self, channel: &str, resume: Option<&str>) -> String {
        let mut asked = json!({"type": "subscribe", "channel": channel});
        if let Some(resume) = resume {
            asked["resume"] = resume.into();
        }
        self.refused(&asked.to_string())
    }
}
