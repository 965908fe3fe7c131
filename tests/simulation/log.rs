//! The simulated log: the port, on the world.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ordergate::domain::InputTopic;
use ordergate::log::{Layout, LogError, LogEvent, OutputRecord, Position, ShardLog, ShardTopic, StoredRecord, Topic, Waker};

use crate::world::{Message, World};

/// One instance's log, for one life.
pub struct SimLog {
    world: Rc<RefCell<World>>,
    life: u64,
}

impl SimLog {
    pub const fn new(world: Rc<RefCell<World>>, life: u64) -> Self {
        Self { world, life }
    }
}

impl ShardLog for SimLog {
    fn layout(&self) -> Layout {
        let world = self.world.borrow();
        Layout { shard: world.shard, shards: world.shards, inputs: world.inputs.keys().copied().collect() }
    }

    fn waker(&self) -> Waker {
        Arc::new(|| {})
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        let mut world = self.world.borrow_mut();
        world.spend(self.life)?;
        for position in positions {
            world.check_kept(position.topic, position.partition, position.next)?;
        }
        let places = world.inputs.iter().map(|(&(topic, partition), records)| {
            let next = positions.iter().find(|p| (p.topic, p.partition) == (topic, partition)).map_or(0, |p| p.next);
            ((topic, partition), records.partition_point(|record| record.source.offset < next))
        });
        let places = places.collect();
        world.life(self.life).reading = Some(places);
        Ok(())
    }

    fn poll(&mut self, events: &mut Vec<LogEvent>, max_inputs: usize, _wait: Duration) -> Result<(), LogError> {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        world.spend(self.life)?;
        let count = world.random.index(4);
        let life = &mut world.lives[usize::try_from(self.life).unwrap()];
        for _ in 0..count {
            if let Some((session, event)) = life.acknowledgements.pop_front()
                && session == life.session
            {
                events.push(event);
            }
        }
        let Some(reading) = &mut life.reading else { return Ok(()) };
        let wanted = world.random.index(max_inputs.min(6) + 1);
        let partitions: Vec<(InputTopic, u32)> = reading.keys().copied().collect();
        for _ in 0..wanted {
            let partition = partitions[world.random.index(partitions.len())];
            let place = reading.entry(partition).or_default();
            if let Some(record) = world.inputs[&partition].get(*place) {
                *place += 1;
                events.push(LogEvent::Input(record.clone()));
            }
        }
        Ok(())
    }

    fn append(&mut self, ticket: u64, entry: Vec<u8>) -> Result<(), LogError> {
        let mut world = self.world.borrow_mut();
        world.spend(self.life)?;
        world.send(self.life, None, Message::Entry { ticket, bytes: entry });
        Ok(())
    }

    fn publish(&mut self, ticket: u64, output: OutputRecord) -> Result<(), LogError> {
        let mut world = self.world.borrow_mut();
        world.spend(self.life)?;
        if output.tag.seq > world.judge.seq {
            let (tag, seq) = (output.tag, world.judge.seq);
            world.violate(format!("{tag:?} is published, and the ledger ends at seq {seq}"));
        }
        world.send(self.life, Some(output.topic), Message::Output { ticket, output });
        Ok(())
    }

    fn read(&mut self, topic: ShardTopic, from: u64, limit: usize) -> Result<Vec<StoredRecord>, LogError> {
        let mut world = self.world.borrow_mut();
        world.spend_reading(self.life)?;
        let limit = 1 + world.random.index(limit.min(8));
        let place = usize::try_from(from).unwrap();
        Ok(match topic {
            ShardTopic::Ledger if world.life(self.life).deaf > world.step => Vec::new(),
            ShardTopic::Ledger => {
                let entries: Vec<_> = world.ledger.iter().skip(place).take(limit).cloned().collect();
                world.life(self.life).ledger_reads += entries.len() as u64;
                entries
            }
            ShardTopic::Output(topic) => {
                let (first, next) = (world.outputs_kept[topic.place()], world.outputs[topic.place()].len() as u64);
                if from < first {
                    let partition = world.shard;
                    return Err(LogError::OutOfRange { topic: Topic::Output(topic), partition, asked: from, first, next });
                }
                world.outputs[topic.place()].iter().skip(place).take(limit).map(|landed| landed.record.clone()).collect()
            }
            ShardTopic::Input { topic, partition } => {
                world.check_kept(topic, partition, from)?;
                let Some(records) = world.inputs.get(&(topic, partition)) else {
                    return Err(LogError::NoSuchPartition { topic: Topic::Input(topic), partition });
                };
                let stored = |r: &ordergate::log::InputRecord| StoredRecord {
                    offset: r.source.offset,
                    ts: r.ts,
                    key: r.key.clone(),
                    payload: r.payload.clone(),
                    tag: None,
                };
                records.iter().filter(|r| r.source.offset >= from).take(limit).map(stored).collect()
            }
        })
    }

    fn end(&mut self, topic: ShardTopic) -> Result<u64, LogError> {
        let mut world = self.world.borrow_mut();
        world.spend_reading(self.life)?;
        Ok(world.end(topic))
    }

    fn seen_end(&mut self, topic: ShardTopic) -> Option<u64> {
        Some(self.world.borrow().end(topic))
    }

    fn abandon(&mut self) {
        let mut world = self.world.borrow_mut();
        world.orphan(self.life);
        world.life(self.life).session += 1;
        world.life(self.life).reading = None;
    }
}
