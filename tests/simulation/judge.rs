//! The rules of the ledger once more, written apart from the engine's: what the checker goes by.

use std::collections::BTreeMap;

use ordergate::domain::{InputTopic, Millis};
use ordergate::wire::frame::{self, Entry, Frame, Hash, OutputMark};

/// A frame that counts.
pub struct Counted {
    pub frame: Frame,
    /// The world's step in which it landed.
    pub landed: u64,
}

/// The ledger as an auditor reads it, entry by entry.
#[derive(Default)]
pub struct Judge {
    pub term: u64,
    pub n: u64,
    pub head: Hash,
    pub seq: u64,
    pub received: Millis,
    pub counted: Vec<Counted>,
    pub void: u64,
    next: BTreeMap<(InputTopic, u32), u64>,
    marks: [OutputMark; 4],
}

impl Judge {
    /// The offset after the last record applied from a partition.
    pub fn next_of(&self, partition: (InputTopic, u32)) -> u64 {
        self.next.get(&partition).copied().unwrap_or_default()
    }

    /// Reads the next entry; says what is wrong with the ledger, if anything.
    pub fn read(&mut self, bytes: &[u8], landed: u64) -> Result<(), String> {
        match frame::decode(bytes).map_err(|e| e.to_string())? {
            Entry::Claim(claim) if claim.term > self.term => self.term = claim.term,
            Entry::Frame(frame) if frame.term == self.term && frame.n == self.n => {
                if frame.prev_hash != self.head {
                    return Err(format!("frame {} of term {} breaks the chain", frame.n, frame.term));
                }
                self.take(&frame)?;
                self.counted.push(Counted { frame, landed });
            }
            Entry::Claim(_) | Entry::Frame(_) => {
                self.void += 1;
                return Ok(());
            }
        }
        self.n += 1;
        self.head = *blake3::Hasher::new().update(&self.head).update(bytes).finalize().as_bytes();
        Ok(())
    }

    fn take(&mut self, frame: &Frame) -> Result<(), String> {
        if frame.first_seq != self.seq + 1 {
            return Err(format!("frame {} begins at seq {}, and {} was next", frame.n, frame.first_seq, self.seq + 1));
        }
        if frame.received < self.received {
            return Err(format!("the clock goes back from {} to {} in frame {}", self.received, frame.received, frame.n));
        }
        self.received = frame.received;
        for input in &frame.inputs {
            let source = input.source;
            let next = self.next.entry((source.topic, source.partition)).or_default();
            if source.offset < *next {
                return Err(format!("{source:?} is applied behind offset {next}"));
            }
            *next = source.offset + 1;
        }
        self.seq += frame.inputs.len() as u64;
        for (mark, seen) in frame.output_marks.iter().zip(&mut self.marks) {
            if mark.seq < seen.seq && mark.offset > seen.offset {
                return Err(format!("frame {}: an output mark moves its offset on and its seq back", frame.n));
            }
            *seen = *mark;
        }
        Ok(())
    }
}
