//! A broker on loopback, as unkind as brokers are: it repeats what it was sent, it hangs, it breaks off.
//!
//! Invariant: it is not ours: what is in its memory is not the daemon's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What it does with requests, one after the other.
pub struct Broker {
    pub at: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Broker {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                // However a client ends a connection is its own business.
                std::thread::spawn(move || answer(stream.ok()?, number).ok());
            }
        });
        Self { at, asked }
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, number: usize) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut some = [0; 4_096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut some)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&some[..read]);
    }
    let repeated = String::from_utf8_lossy(&request).replace('"', "'").replace("\r\n", " ");
    let status = match number % 5 {
        0 => "200 OK",
        1 => "401 Unauthorized",
        2 => "500 Internal Server Error",
        3 => return Ok(()),
        _ => {
            std::thread::sleep(Duration::from_secs(2));
            return Ok(());
        }
    };
    let body = format!(r#"{{"code":-2015,"message":"not known: {repeated}"}}"#);
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-you-sent: {repeated}\r\n\r\n{body}",
        body.len()
    )
}
