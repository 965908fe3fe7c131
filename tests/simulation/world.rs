//! The world around the engines: the topics, and a network that delays, repeats, loses and breaks off.

use std::collections::{BTreeMap, VecDeque};

use ordergate::domain::{InputTopic, Millis};
use ordergate::log::{InputRecord, LogError, LogEvent, OutputRecord, OutputTopic, StoredRecord};

use crate::judge::Judge;
use crate::random::Random;

/// Something on its way to a topic.
#[derive(Clone, Debug)]
pub enum Message {
    Entry { ticket: u64, bytes: Vec<u8> },
    Output { ticket: u64, output: OutputRecord },
}

impl Message {
    const fn ticket(&self) -> u64 {
        match self {
            Self::Entry { ticket, .. } | Self::Output { ticket, .. } => *ticket,
        }
    }
}

/// One producer's way to one topic: first in, first out, like an idempotent producer's.
#[derive(Debug)]
pub struct Lane {
    pub life: u64,
    pub session: u64,
    /// `None` is the ledger.
    pub topic: Option<OutputTopic>,
    pub messages: VecDeque<Message>,
    /// Nobody waits for it any more; what is in it may land all the same.
    pub dead: bool,
}

/// One life of an instance, from its start to its crash.
#[derive(Debug, Default)]
pub struct Life {
    /// How many more calls of the port it survives.
    pub fuse: Option<u64>,
    pub crashed: bool,
    pub acknowledgements: VecDeque<(u64, LogEvent)>,
    pub session: u64,
    /// The next place to read in each partition's records.
    pub reading: Option<BTreeMap<(InputTopic, u32), usize>>,
}

#[derive(Debug)]
pub struct Landed {
    pub record: StoredRecord,
    pub at_step: u64,
}

/// Everything outside the engines.
pub struct World {
    pub random: Random,
    pub step: u64,
    pub shards: u32,
    pub now: Millis,
    pub inputs: BTreeMap<(InputTopic, u32), Vec<InputRecord>>,
    pub ledger: Vec<StoredRecord>,
    pub outputs: [Vec<Landed>; 4],
    pub lanes: Vec<Lane>,
    pub lives: Vec<Life>,
    pub judge: Judge,
    pub violations: Vec<String>,
    /// Which faults may happen; none once the world heals.
    pub faulty: bool,
    pub counts: BTreeMap<&'static str, u64>,
}

impl World {
    pub fn new(mut random: Random) -> Self {
        let shards = if random.chance(30) { 2 } else { 1 };
        let partitions = [
            (InputTopic::Intents, 0),
            (InputTopic::Executions, 0),
            (InputTopic::Prices, 0),
            (InputTopic::Prices, 1),
            (InputTopic::Control, 0),
        ];
        Self {
            random,
            step: 0,
            shards,
            now: 1_772_811_000_000,
            inputs: partitions.into_iter().map(|partition| (partition, Vec::new())).collect(),
            ledger: Vec::new(),
            outputs: Default::default(),
            lanes: Vec::new(),
            lives: Vec::new(),
            judge: Judge::default(),
            violations: Vec::new(),
            faulty: true,
            counts: BTreeMap::new(),
        }
    }

    pub fn count(&mut self, fault: &'static str) {
        *self.counts.entry(fault).or_default() += 1;
    }

    pub fn violate(&mut self, what: String) {
        let step = self.step;
        self.violations.push(format!("step {step}: {what}"));
    }

    pub fn input_count(&self) -> usize {
        self.inputs.values().map(Vec::len).sum()
    }

    /// Spends one call of the port; an instance whose fuse has burnt learns nothing and changes nothing more.
    pub fn spend(&mut self, life: u64) -> Result<(), LogError> {
        let life = &mut self.lives[usize::try_from(life).unwrap()];
        match &mut life.fuse {
            Some(0) => life.crashed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        if life.crashed { Err(LogError::Closed) } else { Ok(()) }
    }

    pub fn life(&mut self, life: u64) -> &mut Life {
        &mut self.lives[usize::try_from(life).unwrap()]
    }

    pub fn send(&mut self, life: u64, topic: Option<OutputTopic>, message: Message) {
        let session = self.life(life).session;
        let found = self.lanes.iter_mut().find(|lane| (lane.life, lane.session, lane.topic) == (life, session, topic));
        match found {
            Some(lane) => lane.messages.push_back(message),
            None => self.lanes.push(Lane { life, session, topic, messages: VecDeque::from([message]), dead: false }),
        }
    }

    /// Nobody waits for this life's messages any more.
    pub fn orphan(&mut self, life: u64) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.life == life) {
            lane.dead = true;
        }
    }

    /// The network does something with a lane.
    pub fn deliver(&mut self) {
        self.lanes.retain(|lane| !lane.messages.is_empty());
        if self.lanes.is_empty() {
            return;
        }
        let at = self.random.index(self.lanes.len());
        if self.lanes[at].dead && !self.random.chance(25) {
            return;
        }
        let fault = if self.faulty { self.random.below(200) } else { 200 };
        match fault {
            0..6 if self.lanes[at].dead => {
                self.count("the rest of a dead owner's messages is lost");
                self.lanes[at].messages.clear();
            }
            0..2 => self.fail(at, false),
            2..4 => self.fail(at, true),
            4..6 => self.repeat(at),
            _ => {
                if let Some(message) = self.lanes[at].messages.pop_front() {
                    if self.lanes[at].dead {
                        self.count("a dead owner's message lands late");
                    }
                    let event = self.land(&message);
                    self.acknowledge(at, event);
                }
            }
        }
    }

    /// It fails for its sender, having landed or not; what was sent behind it may land.
    fn fail(&mut self, at: usize, landed: bool) {
        let Some(message) = self.lanes[at].messages.pop_front() else { return };
        self.count(if landed { "an acknowledgement is lost" } else { "a message fails, and later ones land" });
        if landed {
            self.land(&message);
        }
        let failed = LogEvent::Failed { ticket: message.ticket(), error: LogError::Busy { detail: "simulated".into() } };
        self.acknowledge(at, failed);
    }

    /// It lands, the broker forgets that, and the retry lands too: the second one is acknowledged.
    fn repeat(&mut self, at: usize) {
        let Some(message) = self.lanes[at].messages.front().cloned() else { return };
        self.count("a message lands twice");
        self.land(&message);
    }

    fn acknowledge(&mut self, at: usize, event: LogEvent) {
        let (life, session, dead) = (self.lanes[at].life, self.lanes[at].session, self.lanes[at].dead);
        if !dead {
            self.life(life).acknowledgements.push_back((session, event));
        }
    }

    fn land(&mut self, message: &Message) -> LogEvent {
        let ts = self.now;
        match message {
            Message::Entry { ticket, bytes } => {
                let offset = self.ledger.len() as u64;
                self.ledger.push(StoredRecord { offset, ts, key: None, payload: bytes.clone(), tag: None });
                if let Err(what) = self.judge.read(bytes, self.step) {
                    self.violate(format!("ledger offset {offset}: {what}"));
                }
                LogEvent::Appended { ticket: *ticket, offset }
            }
            Message::Output { ticket, output } => {
                let records = &mut self.outputs[output.topic.place()];
                let offset = records.len() as u64;
                let record = StoredRecord { offset, ts, key: output.key.clone(), payload: output.payload.clone(), tag: Some(output.tag) };
                records.push(Landed { record, at_step: self.step });
                LogEvent::Published { ticket: *ticket, topic: output.topic, offset }
            }
        }
    }
}
