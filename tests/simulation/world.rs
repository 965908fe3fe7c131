//! The world around the engines: the topics, and a network that delays, repeats, loses and breaks off.

use std::collections::{BTreeMap, VecDeque};

use ordergate::domain::{InputTopic, Millis};
use ordergate::log::{InputRecord, LogError, LogEvent, OutputRecord, OutputTopic, ShardTopic, StoredRecord, Topic};

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
    /// Until this step every call of the port fails, or every read of a topic.
    pub cut_off: u64,
    pub blind: u64,
    /// Until this step it reads nothing in the ledger, whatever is there: its client has fallen silent.
    pub deaf: u64,
    /// How many ledger entries it has read.
    pub ledger_reads: u64,
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
    pub shard: u32,
    pub shards: u32,
    pub now: Millis,
    pub inputs: BTreeMap<(InputTopic, u32), Vec<InputRecord>>,
    pub ledger: Vec<StoredRecord>,
    /// The first offset that is kept of each input; 0 where nothing was deleted.
    pub inputs_kept: BTreeMap<(InputTopic, u32), u64>,
    pub outputs: [Vec<Landed>; 4],
    /// The first offset that is kept of each output topic. What was deleted stays for the checker.
    pub outputs_kept: [u64; 4],
    /// What landed lately, for the log to append once more.
    landed: VecDeque<Message>,
    /// Until this step nothing lands.
    pub slow: u64,
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
        let shards = [1, 1, 1, 1, 1, 1, 1, 2, 2, 4][random.index(10)];
        let shard = u32::try_from(random.below(u64::from(shards))).unwrap();
        let partitions = [
            (InputTopic::Intents, shard),
            (InputTopic::Executions, shard),
            (InputTopic::Prices, 0),
            (InputTopic::Prices, 1),
            (InputTopic::Control, 0),
        ];
        Self {
            random,
            step: 0,
            shard,
            shards,
            now: 1_772_811_000_000,
            inputs: partitions.into_iter().map(|partition| (partition, Vec::new())).collect(),
            ledger: Vec::new(),
            inputs_kept: BTreeMap::new(),
            outputs: Default::default(),
            outputs_kept: [0; 4],
            landed: VecDeque::new(),
            slow: 0,
            lanes: Vec::new(),
            lives: Vec::new(),
            judge: Judge::default(),
            violations: Vec::new(),
            faulty: true,
            counts: BTreeMap::new(),
        }
    }

    /// Before anything has begun: the place of the shard among others.
    pub fn become_shard(&mut self, shard: u32, shards: u32) {
        let spread = |(topic, partition)| match topic {
            InputTopic::Intents | InputTopic::Executions => (topic, shard),
            InputTopic::Prices | InputTopic::Control => (topic, partition),
        };
        self.inputs = self.inputs.keys().map(|key| (spread(*key), Vec::new())).collect();
        (self.shard, self.shards) = (shard, shards);
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

    /// Whether an instance's calls and reads are answered.
    pub fn sees(&self, life: u64) -> bool {
        let life = &self.lives[usize::try_from(life).unwrap()];
        life.cut_off.max(life.blind).max(life.deaf) <= self.step
    }

    /// Peace: no more faults.
    pub fn calm(&mut self) {
        self.faulty = false;
        self.slow = 0;
        for life in &mut self.lives {
            (life.cut_off, life.blind, life.deaf) = (0, 0, 0);
        }
    }

    /// Spends one call of the port; an instance whose fuse has burnt learns nothing and changes nothing more.
    pub fn spend(&mut self, life: u64) -> Result<(), LogError> {
        let step = self.step;
        let life = &mut self.lives[usize::try_from(life).unwrap()];
        match &mut life.fuse {
            Some(0) => life.crashed = true,
            Some(left) => *left -= 1,
            None => {}
        }
        match life.crashed {
            true => Err(LogError::Closed),
            false if life.cut_off > step => Err(LogError::Busy { detail: "the broker does not answer".into() }),
            false => Ok(()),
        }
    }

    /// Likewise, for a call that reads a topic.
    pub fn spend_reading(&mut self, life: u64) -> Result<(), LogError> {
        self.spend(life)?;
        let blind = self.life(life).blind > self.step;
        if blind { Err(LogError::Busy { detail: "the leader has moved".into() }) } else { Ok(()) }
    }

    pub fn end(&self, topic: ShardTopic) -> u64 {
        match topic {
            ShardTopic::Ledger => self.ledger.len() as u64,
            ShardTopic::Output(topic) => self.outputs[topic.place()].len() as u64,
            ShardTopic::Input { topic, partition } => {
                self.inputs.get(&(topic, partition)).and_then(|records| records.last()).map_or(0, |last| last.source.offset + 1)
            }
        }
    }

    /// The first record of a topic that no frame holds.
    pub fn first_not_applied(&self, topic: InputTopic) -> ((InputTopic, u32), u64) {
        let of = |partition| {
            let next = self.judge.next_of(partition);
            let record = self.inputs[&partition].iter().find(|record| record.source.offset >= next)?;
            Some((partition, record.source.offset))
        };
        self.inputs.keys().filter(|partition| partition.0 == topic).find_map(|partition| of(*partition)).unwrap()
    }

    /// Whether an input is kept from an offset on.
    pub fn check_kept(&self, topic: InputTopic, partition: u32, asked: u64) -> Result<(), LogError> {
        let first = self.inputs_kept.get(&(topic, partition)).copied().unwrap_or_default();
        let next = self.end(ShardTopic::Input { topic, partition });
        let error = LogError::OutOfRange { topic: Topic::Input(topic), partition, asked, first, next };
        if asked < first { Err(error) } else { Ok(()) }
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
        if self.slow > self.step {
            return;
        }
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

    /// The log has forgotten a producer, and appends once more what it had appended long ago.
    pub fn repeat_late(&mut self) {
        if self.landed.is_empty() {
            return;
        }
        let message = self.landed[self.random.index(self.landed.len())].clone();
        self.count("a message lands once more, much later");
        self.land(&message);
    }

    /// Retention deletes the beginning of an output topic, whatever the gate still wants to know of it.
    pub fn delete_outputs(&mut self) {
        let topic = self.random.index(4);
        let len = self.outputs[topic].len() as u64;
        let first = self.outputs_kept[topic].max(self.random.below(len + 1));
        if first > self.outputs_kept[topic] {
            self.count("outputs are deleted by retention");
            self.outputs_kept[topic] = first;
        }
    }

    /// Retention deletes inputs that the ledger holds.
    pub fn delete_inputs(&mut self) {
        let partitions: Vec<_> = self.inputs.keys().copied().collect();
        let partition = partitions[self.random.index(partitions.len())];
        let applied = self.judge.next_of(partition);
        let first = self.random.below(applied + 1);
        let kept = self.inputs_kept.entry(partition).or_default();
        if first > *kept {
            *kept = first;
            self.count("inputs that were applied are deleted");
        }
    }

    fn acknowledge(&mut self, at: usize, event: LogEvent) {
        let (life, session, dead) = (self.lanes[at].life, self.lanes[at].session, self.lanes[at].dead);
        if !dead {
            self.life(life).acknowledgements.push_back((session, event));
        }
    }

    fn land(&mut self, message: &Message) -> LogEvent {
        let ts = self.now;
        self.landed.push_back(message.clone());
        if self.landed.len() > 30 {
            self.landed.pop_front();
        }
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
