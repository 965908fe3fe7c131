//! Which threads give way to which.
//!
//! Invariant: the threads that decide have what the machine gives; what people look at gives way to them where both want a core. A hint to
//! the scheduler and nothing more: no order of events rests on it. Deliberately absent: real-time classes and pinning.

/// How much: where all cores are wanted, a thread that gives way gets a third of what one that decides gets.
const GIVES_WAY: i32 = 5;

/// From now on the calling thread, and each that it starts, gives way to those that decide. It cannot be taken back.
pub fn give_way() {
    // Per thread on Linux; elsewhere of the whole process, where it would be of no use.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(GIVES_WAY) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The nice value of the calling thread, as the kernel tells it.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1;
        fields.split(' ').nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn one_thread_gives_way_and_those_it_starts_and_no_other() {
        let before = niceness();
        let (own, started) = std::thread::spawn(|| {
            give_way();
            (niceness(), std::thread::spawn(niceness).join().unwrap())
        })
        .join()
        .unwrap();
        let wanted = (before + GIVES_WAY).min(19);
        assert_eq!((own, started, niceness()), (wanted, wanted, before));
    }
}
