//! Topics, records in, records out.
//!
//! Invariant: what is produced is acknowledged by all replicas when the call returns; what is read is all that a committed reader
//! sees up to the end at the time of the call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::Cluster;

const WITHIN: Duration = Duration::from_secs(60);
/// How long one attempt may stand still.
const ATTEMPT: Duration = Duration::from_secs(15);

/// A topic to make.
#[derive(Clone, Debug)]
pub struct Topic<'a> {
    pub name: &'a str,
    pub partitions: i32,
    pub replicas: i32,
    pub settings: &'a [(&'a str, &'a str)],
}

impl<'a> Topic<'a> {
    fn description(&self) -> NewTopic<'a> {
        let new = NewTopic::new(self.name, self.partitions, TopicReplication::Fixed(self.replicas));
        self.settings.iter().fold(new, |new, (key, value)| new.set(key, value))
    }
}

/// A record to produce.
#[derive(Clone, Debug, Default)]
pub struct NewRecord<'a> {
    /// The client's partitioner chooses when it is not given.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub ts_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Partition and offset.
type Position = (i32, i64);

/// Where each record landed, by its place in the call.
#[derive(Clone, Default)]
struct Landed(Arc<Mutex<Vec<Option<Position>>>>);

impl ClientContext for Landed {}

impl ProducerContext for Landed {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, place: Box<usize>) {
        if let Ok(message) = result {
            self.0.lock().unwrap()[*place] = Some((message.partition(), message.offset()));
        }
    }
}

impl Cluster {
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Makes topics and waits until they can be written.
    pub fn create_topics(&mut self, topics: &[Topic<'_>]) {
        let settings: Vec<_> = topics.iter().map(Topic::description).collect();
        let options = AdminOptions::new().operation_timeout(Some(WITHIN)).request_timeout(Some(WITHIN));
        let begun = Instant::now();
        for (topic, new) in topics.iter().zip(&settings) {
            // A broker that a busy machine made late is missed by its controller for a moment.
            loop {
                let made = block_on(self.admin().create_topics([new], &options)).unwrap().remove(0);
                match made {
                    Ok(_) => break,
                    Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) if begun.elapsed() < WITHIN => {
                        std::thread::sleep(Duration::from_millis(200));
                    }
                    Err((_, code)) => panic!("{}: {code}", topic.name),
                }
            }
        }
        self.wait_for(topics);
    }

    /// One partition, as many replicas as there are brokers, nothing special.
    pub fn create_topic(&mut self, name: &str, partitions: i32) {
        let replicas = i32::try_from(self.brokers().split(',').count()).unwrap();
        self.create_topics(&[Topic { name, partitions, replicas, settings: &[] }]);
    }

    fn wait_for(&mut self, topics: &[Topic<'_>]) {
        let begun = Instant::now();
        let missing = |cluster: &Self| {
            let missing = topics.iter().find(|topic| cluster.leader(topic.name, topic.partitions - 1).is_none());
            missing.map(|topic| topic.name.to_owned())
        };
        while let Some(name) = missing(self) {
            assert!(begun.elapsed() < WITHIN, "{name} has no leader");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.wait();
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let options = AdminOptions::new().operation_timeout(Some(WITHIN));
        let results = block_on(self.admin().delete_topics(&[name], &options)).unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Deletes every topic but the brokers' own, and waits until they are gone.
    pub fn delete_all_topics(&self) {
        let ours = || -> Vec<String> {
            let producer: ThreadedProducer<Landed> = self.client().create_with_context(Landed::default()).unwrap();
            let metadata = producer.client().fetch_metadata(None, WITHIN).unwrap();
            metadata.topics().iter().map(|topic| topic.name().to_owned()).filter(|name| !name.starts_with("__")).collect()
        };
        ours().iter().for_each(|name| self.delete_topic(name));
        let begun = Instant::now();
        while !ours().is_empty() {
            assert!(begun.elapsed() < WITHIN, "{:?} are still there", ours());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Deletes the records of a partition before an offset, as retention does.
    pub fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let options = AdminOptions::new().operation_timeout(Some(WITHIN));
        block_on(self.admin().delete_records(&offsets, &options)).unwrap();
    }

    /// Produces records, waits for all acknowledgements, and gives (partition, offset) of each.
    pub fn produce(&self, topic: &str, records: &[NewRecord<'_>]) -> Vec<Position> {
        self.produce_with(topic, records, &[])
    }

    /// The same with settings of the producer.
    pub fn produce_with(&self, topic: &str, records: &[NewRecord<'_>], settings: &[(&str, &str)]) -> Vec<Position> {
        let landed = Landed(Arc::new(Mutex::new(vec![None; records.len()])));
        let mut config = self.client();
        config.set("enable.idempotence", "true").set("linger.ms", "1");
        settings.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        let producer: ThreadedProducer<Landed> = config.create_with_context(landed.clone()).unwrap();
        for (place, record) in records.iter().enumerate() {
            send(&producer, topic, record, place);
        }
        producer.flush(WITHIN).unwrap();
        drop(producer);
        let landed = landed.0.lock().unwrap();
        landed.iter().enumerate().map(|(place, at)| at.unwrap_or_else(|| panic!("record {place} did not land"))).collect()
    }

    /// Produces a record without a value.
    pub fn produce_null(&self, topic: &str, partition: i32, key: Option<&[u8]>) {
        let landed = Landed(Arc::new(Mutex::new(vec![None])));
        let producer: ThreadedProducer<Landed> = self.client().create_with_context(landed.clone()).unwrap();
        let mut record: BaseRecord<'_, [u8], [u8], Box<usize>> = BaseRecord::with_opaque_to(topic, Box::new(0)).partition(partition);
        record.key = key;
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(WITHIN).unwrap();
        assert!(landed.0.lock().unwrap()[0].is_some(), "it did not land");
    }

    /// All records of a topic, by partition and offset, as a committed reader sees them.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        self.read_with(topic, &[("isolation.level", "read_committed")])
    }

    /// The same with settings of the consumer.
    pub fn read_with(&self, topic: &str, settings: &[(&str, &str)]) -> Vec<Record> {
        let begun = Instant::now();
        loop {
            // While brokers come and go a client may not know them, and one that has forgotten them never will: another may.
            match self.try_read(topic, settings) {
                Ok(found) => return found,
                Err(error) => assert!(begun.elapsed() < WITHIN, "{topic}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn try_read(&self, topic: &str, settings: &[(&str, &str)]) -> KafkaResult<Vec<Record>> {
        let mut config = self.client();
        config.set("group.id", "reader").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error").set("fetch.wait.max.ms", "20");
        settings.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), ATTEMPT)?;
        let mut open: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
        let mut assignment = TopicPartitionList::new();
        for partition in &open {
            let (first, _) = consumer.fetch_watermarks(topic, *partition, ATTEMPT)?;
            assignment.add_partition_offset(topic, *partition, Offset::Offset(first)).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let (mut found, mut last) = (Vec::new(), Instant::now());
        while !open.is_empty() {
            if last.elapsed() > ATTEMPT {
                return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
            }
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    found.push(record_of(&message));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) if transient(&error) => {}
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
        found.sort_by_key(|record: &Record| (record.partition, record.offset));
        Ok(found)
    }
}

fn transient(error: &KafkaError) -> bool {
    let passing = [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown, RDKafkaErrorCode::OperationTimedOut];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

fn send(producer: &ThreadedProducer<Landed>, topic: &str, record: &NewRecord<'_>, place: usize) {
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
    let mut message: BaseRecord<'_, [u8], [u8], Box<usize>> =
        BaseRecord::with_opaque_to(topic, Box::new(place)).payload(record.value).headers(headers);
    message.key = record.key;
    message.partition = record.partition;
    while let Err((error, back)) = producer.send(message) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        std::thread::sleep(Duration::from_millis(5));
        message = back;
    }
}

fn record_of(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        let each = headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()));
        each.collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        ts_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers.unwrap_or_default(),
    }
}

/// The answer of an admin request.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
