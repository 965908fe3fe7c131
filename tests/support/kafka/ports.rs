//! Loopback ports that stay ours while a broker is down.
//!
//! Invariant: a reserved port is locked by file against every other test process until it is dropped. It lies below the range that
//! the system gives to outgoing connections: a client that retries a dead broker there could connect to itself and keep the port.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of one's own.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    _lock: File,
}

/// Reserves a free port. `ORDERGATE_TEST_PORTS=31000-31999` bounds the choice.
pub fn reserve() -> Port {
    let (first, count) = range();
    let start = u16::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros() % u32::from(count)).unwrap();
    let found = (0..count).map(|step| first + (start + step) % count).find_map(try_reserve);
    found.expect("a free port")
}

fn range() -> (u16, u16) {
    let Ok(text) = std::env::var("ORDERGATE_TEST_PORTS") else { return (FIRST, COUNT) };
    let (first, last) = text.split_once('-').expect("ORDERGATE_TEST_PORTS is FIRST-LAST");
    let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
    (first, last - first + 1)
}

fn try_reserve(number: u16) -> Option<Port> {
    let folder = std::env::temp_dir().join("ordergate-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join(number.to_string())).ok()?;
    lock.try_lock().ok()?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
    Some(Port { number, _lock: lock })
}
