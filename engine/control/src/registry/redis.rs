//! The registry in Redis (product contract, section 5; D14). One thread owns the connection;
//! everybody else only puts things into a bounded inbox and goes on. While Redis is away,
//! writes are merged (the last state of each stream), events are kept up to a bound, and all is
//! replayed when it returns. Record, claim, index sets and events change in one Lua script, so
//! that no reader sees one without the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mirror_base::StreamId;
use redis::{Client, Connection, IntoConnectionInfo, RedisError, RedisResult};
use serde_json::{Value, json};

use super::{Claim, EventRecord, Health, Notice, Registry, Write};
use crate::config::Config;

/// Events kept while Redis is away; the oldest go first, counted.
const MAX_EVENTS: usize = 4096;
/// Streams whose last state waits to be written. Records end by their TTL, and heartbeats bring
/// live streams again, so that what is left out beyond it is made good.
const MAX_WRITES: usize = 50_000;
/// Claims waiting for an answer; more are provisional at once.
const MAX_CLAIMS: usize = 1024;
/// First and longest wait before trying to connect again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// An idle connection is tried so often, so that a Redis that died is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Claims `KEYS[1]` for instance `ARGV[1]` (start `ARGV[2]`, lifetime `ARGV[3]` ms). The holder
/// stays unless it is this instance. Returns the holder's name.
const CLAIM: &str = r"
local held = redis.call('GET', KEYS[1])
if held then
  local holder = cjson.decode(held)
  if holder.instance ~= ARGV[1] then return holder.instance end
end
redis.call('SET', KEYS[1], cjson.encode({instance=ARGV[1], created=ARGV[2]}), 'PX', ARGV[3])
return ARGV[1]
";

/// Gives up the claim `KEYS[1]` if instance `ARGV[1]` holds it.
const ABANDON: &str = r"
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).instance == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
";

/// Writes a live record: claim `KEYS[1]`, record `KEYS[2]`; `ARGV`: prefix, id, instance,
/// created µs, claim ms, record ms, record, number of index sets, their names, then pairs of
/// events (channel, text). The earlier claim wins; the loser gets the winner's name and writes
/// nothing. Indexes that the record was in before and is in no longer are left; the list of them
/// outlives the record by a day, so that whoever removes the record later finds them.
const WRITE_LIVE: &str = r"
local prefix, id, instance = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('GET', KEYS[1])
if held then
  local holder = cjson.decode(held)
  if holder.instance ~= instance and tonumber(holder.created) <= tonumber(ARGV[4]) then
    return holder.instance
  end
end
redis.call('SET', KEYS[1], cjson.encode({instance=instance, created=ARGV[4]}), 'PX', ARGV[5])
redis.call('SET', KEYS[2], ARGV[7], 'PX', ARGV[6])
local count = tonumber(ARGV[8])
local member = prefix .. 'stream:' .. id .. ':indexes'
local old = redis.call('SMEMBERS', member)
local new = {}
for i = 9, 8 + count do new[ARGV[i]] = true end
for _, name in ipairs(old) do
  if not new[name] then redis.call('SREM', name, id) end
end
redis.call('DEL', member)
for name in pairs(new) do
  redis.call('SADD', name, id)
  redis.call('SADD', member, name)
end
redis.call('PEXPIRE', member, ARGV[6] + 86400000)
redis.call('ZADD', prefix .. 'streams:created', 'NX', ARGV[4], id)
for i = 9 + count, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return instance
";

/// Writes an ended record or removes it: the same keys and arguments, lifetime 0 removes. A
/// record that another instance has claimed meanwhile is left alone.
const WRITE_ENDED: &str = r"
local prefix, id, instance = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('GET', KEYS[1])
local mine = true
if held then
  mine = cjson.decode(held).instance == instance
  if mine then redis.call('DEL', KEYS[1]) end
end
local count = tonumber(ARGV[8])
if mine then
  local member = prefix .. 'stream:' .. id .. ':indexes'
  for _, name in ipairs(redis.call('SMEMBERS', member)) do redis.call('SREM', name, id) end
  redis.call('DEL', member)
  if tonumber(ARGV[6]) > 0 then
    redis.call('SET', KEYS[2], ARGV[7], 'PX', ARGV[6])
    for i = 9, 8 + count do
      redis.call('SADD', ARGV[i], id)
      redis.call('SADD', member, ARGV[i])
    end
    if count > 0 then redis.call('PEXPIRE', member, ARGV[6] + 86400000) end
  else
    redis.call('DEL', KEYS[2])
    redis.call('ZREM', prefix .. 'streams:created', id)
  end
end
for i = 9 + count, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return instance
";

/// The registry in Redis, as control holds it.
#[derive(Debug)]
pub(crate) struct RedisRegistry {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    claims: VecDeque<ClaimRequest>,
    abandoned: Vec<StreamId>,
    /// The last state of each stream.
    writes: BTreeMap<StreamId, Write>,
    events: VecDeque<(StreamId, EventRecord)>,
    health: Health,
    stop_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct ClaimRequest {
    ticket: u64,
    stream_id: StreamId,
    created_us: i64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisRegistry {
    /// Starts the thread that owns the connection. Does not wait for Redis.
    pub(crate) fn start(config: &Config, notices: Sender<Notice>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            filled: Condvar::new(),
        });
        {
            let mut inbox = shared.lock();
            inbox.health.backend = "redis";
            inbox.health.last_error = Some("not connected yet".to_owned());
        }
        let worker = Worker::new(config, shared.clone(), notices)
            .map_err(|e| std::io::Error::other(e.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || worker.run())?;
        Ok(RedisRegistry {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Registry for RedisRegistry {
    fn claim(&self, ticket: u64, stream_id: &StreamId, created_us: i64) -> Claim {
        let mut inbox = self.shared.lock();
        if !inbox.health.usable || inbox.claims.len() >= MAX_CLAIMS {
            return Claim::Provisional;
        }
        inbox.claims.push_back(ClaimRequest {
            ticket,
            stream_id: stream_id.clone(),
            created_us,
        });
        drop(inbox);
        self.shared.filled.notify_one();
        Claim::Pending
    }

    fn abandon(&self, stream_id: &StreamId) {
        let mut inbox = self.shared.lock();
        if inbox.health.usable && inbox.abandoned.len() < MAX_CLAIMS {
            inbox.abandoned.push(stream_id.clone());
        }
        drop(inbox);
        self.shared.filled.notify_one();
    }

    fn write(&self, mut write: Write) {
        let mut inbox = self.shared.lock();
        if inbox.writes.len() >= MAX_WRITES && !inbox.writes.contains_key(&write.stream_id) {
            inbox.health.events_dropped += u64::from(write.event.is_some());
            return;
        }
        if let Some(event) = write.event.take() {
            if inbox.events.len() >= MAX_EVENTS {
                inbox.events.pop_front();
                inbox.health.events_dropped += 1;
            }
            inbox.events.push_back((write.stream_id.clone(), event));
        }
        inbox.writes.insert(write.stream_id.clone(), write);
        drop(inbox);
        self.shared.filled.notify_one();
    }

    fn health(&self) -> Health {
        let inbox = self.shared.lock();
        Health {
            pending: inbox.writes.len(),
            ..inbox.health.clone()
        }
    }

    fn shutdown(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.shared.lock().stop_at = Some(deadline);
        self.shared.filled.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(thread) = thread else { return };
        // A hung Redis holds the thread until its timeout: it is left behind, not waited for.
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Worker {
    client: Client,
    shared: Arc<Shared>,
    notices: Sender<Notice>,
    instance: String,
    prefix: String,
    claim_ttl: Duration,
    timeouts: (Duration, Duration, Duration),
}

/// One stream's change with the events that go with it.
struct Batch {
    write: Write,
    events: Vec<EventRecord>,
}

impl Worker {
    fn new(config: &Config, shared: Arc<Shared>, notices: Sender<Notice>) -> RedisResult<Worker> {
        let redis = &config.registry.redis;
        let info = redis.url.as_str().into_connection_info()?;
        let mut settings = info.redis_settings().clone();
        if let Some(db) = redis.db {
            settings = settings.set_db(i64::from(db));
        }
        if let Some(password) = &redis.password {
            settings = settings.set_password(password.reveal());
        }
        Ok(Worker {
            client: Client::open(info.set_redis_settings(settings))?,
            shared,
            notices,
            instance: config.instance.clone(),
            prefix: redis.prefix.clone(),
            claim_ttl: config.registry.heartbeat_timeout,
            timeouts: (
                redis.connect_timeout,
                redis.read_timeout,
                redis.write_timeout,
            ),
        })
    }

    fn run(self) {
        let mut backoff = BACKOFF.0;
        loop {
            match self.connect() {
                Ok(mut connection) => {
                    self.connected();
                    let since = Instant::now();
                    match self.serve(&mut connection) {
                        Ok(()) => return,
                        Err(error) => self.failed(&error),
                    }
                    // A server that connects but refuses at once is not asked in a hurry.
                    if since.elapsed() >= BACKOFF.1 {
                        backoff = BACKOFF.0;
                    }
                }
                Err(error) => self.failed(&error),
            }
            if self.wait_before_retry(backoff) {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF.1);
        }
    }

    fn connect(&self) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(self.timeouts.0)?;
        connection.set_read_timeout(Some(self.timeouts.1))?;
        connection.set_write_timeout(Some(self.timeouts.2))?;
        redis::cmd("PING").query::<()>(&mut connection)?;
        Ok(connection)
    }

    fn connected(&self) {
        let mut inbox = self.shared.lock();
        inbox.health.usable = true;
        inbox.health.last_error = None;
        inbox.health.reconnects += 1;
        let pending = inbox.writes.len();
        drop(inbox);
        tracing::info!(pending, "registry: Redis is usable");
    }

    fn failed(&self, error: &RedisError) {
        let mut inbox = self.shared.lock();
        let was_usable = std::mem::take(&mut inbox.health.usable);
        let text = error.to_string();
        let news = inbox.health.last_error.as_deref() != Some(text.as_str());
        inbox.health.errors += 1;
        inbox.health.last_error = Some(text);
        let claims: Vec<_> = inbox.claims.drain(..).collect();
        inbox.abandoned.clear();
        drop(inbox);
        if was_usable || news {
            tracing::warn!(%error, "registry: Redis is not usable; ingest goes on without it");
        }
        for claim in claims {
            let _ = self.notices.send(Notice::Provisional {
                ticket: claim.ticket,
            });
        }
    }

    /// Whether the thread is to end. Claims do not come while Redis is not usable.
    fn wait_before_retry(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut inbox = self.shared.lock();
        loop {
            if inbox.stop_at.is_some() {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            inbox = self
                .shared
                .filled
                .wait_timeout(inbox, until - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Works the inbox off until it is told to stop (`Ok`) or Redis fails.
    fn serve(&self, connection: &mut Connection) -> RedisResult<()> {
        loop {
            let (claims, abandoned) = self.next_requests();
            for (i, claim) in claims.iter().enumerate() {
                if let Err(error) = self.timed(|| self.claim(connection, claim)) {
                    let mut inbox = self.shared.lock();
                    for claim in claims.iter().skip(i).rev() {
                        inbox.claims.push_front(claim.clone());
                    }
                    return Err(error);
                }
            }
            for stream_id in &abandoned {
                self.timed(|| {
                    let key = self.key(&format!("claim:{stream_id}"));
                    redis::cmd("EVAL")
                        .arg(ABANDON)
                        .arg(1)
                        .arg(key)
                        .arg(&self.instance)
                        .query::<()>(connection)
                })?;
            }
            // Taken now only: what failed above has nothing to do with it and must not lose it.
            let (batch, stopping) = self.next_write();
            match batch {
                Some(batch) => {
                    if let Err(error) = self.timed(|| self.write(connection, &batch)) {
                        self.put_back(batch, &error);
                        if !refused_for_good(&error) {
                            return Err(error);
                        }
                    }
                }
                None if stopping => return Ok(()),
                None if claims.is_empty() && abandoned.is_empty() => {
                    self.timed(|| redis::cmd("PING").query::<()>(connection))?;
                }
                None => {}
            }
        }
    }

    /// Claims to ask for and to give up; returns empty-handed when there are writes, and after
    /// [`PING_INTERVAL`].
    fn next_requests(&self) -> (Vec<ClaimRequest>, Vec<StreamId>) {
        let mut inbox = self.shared.lock();
        let idle = inbox.claims.is_empty() && inbox.abandoned.is_empty() && inbox.writes.is_empty();
        if idle && inbox.stop_at.is_none() {
            inbox = self
                .shared
                .filled
                .wait_timeout(inbox, PING_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        let claims = inbox.claims.drain(..).collect();
        (claims, std::mem::take(&mut inbox.abandoned))
    }

    /// One stream's write, and whether the thread is to end.
    fn next_write(&self) -> (Option<Batch>, bool) {
        let mut inbox = self.shared.lock();
        let stopping = inbox.stop_at;
        let expired = stopping.is_some_and(|at| Instant::now() >= at);
        let batch = if expired { None } else { inbox.next_batch() };
        (batch, stopping.is_some())
    }

    fn put_back(&self, batch: Batch, error: &RedisError) {
        let mut inbox = self.shared.lock();
        inbox.health.errors += 1;
        inbox.health.last_error = Some(error.to_string());
        if refused_for_good(error) {
            // Refused by the server: the next heartbeat brings the state again.
            tracing::warn!(%error, stream = %batch.write.stream_id, "registry: write refused");
            return;
        }
        let Batch { write, events } = batch;
        for event in events.into_iter().rev() {
            inbox.events.push_front((write.stream_id.clone(), event));
        }
        // A newer state that came meanwhile stays.
        inbox.writes.entry(write.stream_id.clone()).or_insert(write);
    }

    fn timed<T>(&self, operation: impl FnOnce() -> RedisResult<T>) -> RedisResult<T> {
        let start = Instant::now();
        let result = operation();
        let mut inbox = self.shared.lock();
        inbox.health.operations += 1;
        inbox.health.busy_us += u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        result
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    fn claim(&self, connection: &mut Connection, claim: &ClaimRequest) -> RedisResult<()> {
        let holder: String = redis::cmd("EVAL")
            .arg(CLAIM)
            .arg(1)
            .arg(self.key(&format!("claim:{}", claim.stream_id)))
            .arg(&self.instance)
            .arg(claim.created_us)
            .arg(millis(self.claim_ttl))
            .query(connection)?;
        let ticket = claim.ticket;
        let notice = if holder == self.instance {
            Notice::Granted { ticket }
        } else {
            Notice::Held { ticket, by: holder }
        };
        let _ = self.notices.send(notice);
        Ok(())
    }

    fn write(&self, connection: &mut Connection, batch: &Batch) -> RedisResult<()> {
        let write = &batch.write;
        let id = write.stream_id.as_str();
        let indexes = match &write.record {
            Some(record) => self.indexes(record, write.live),
            None => Vec::new(),
        };
        let ttl = if write.record.is_some() {
            millis(write.ttl).max(1)
        } else {
            0
        };
        let mut command = redis::cmd("EVAL");
        command
            .arg(if write.live { WRITE_LIVE } else { WRITE_ENDED })
            .arg(2)
            .arg(self.key(&format!("claim:{id}")))
            .arg(self.key(&format!("stream:{id}")))
            .arg(&self.prefix)
            .arg(id)
            .arg(&self.instance)
            .arg(write.created_us)
            .arg(millis(self.claim_ttl))
            .arg(ttl)
            .arg(
                write
                    .record
                    .as_ref()
                    .map(Value::to_string)
                    .unwrap_or_default(),
            )
            .arg(indexes.len());
        for index in &indexes {
            command.arg(index);
        }
        for event in &batch.events {
            let text = self.event(id, event).to_string();
            command.arg(self.key("events")).arg(&text);
            command
                .arg(self.key(&format!("stream:{id}:events")))
                .arg(&text);
        }
        let holder: String = command.query(connection)?;
        if holder != self.instance {
            let lost = Notice::Lost {
                stream_id: write.stream_id.clone(),
                to: holder,
            };
            let _ = self.notices.send(lost);
        }
        self.shared.lock().health.events_published += batch.events.len() as u64;
        Ok(())
    }

    fn event(&self, id: &str, event: &EventRecord) -> Value {
        json!({
            "type": event.kind,
            "stream_id": id,
            "timestamp": event.timestamp,
            "data": event.data,
            "source": self.instance,
            "version": 1,
            "seq": event.seq,
        })
    }

    /// The index sets that a record belongs to.
    fn indexes(&self, record: &Value, live: bool) -> Vec<String> {
        let text = |field: &str| record.get(field).and_then(Value::as_str);
        let mut sets = Vec::new();
        if live {
            sets.push(self.key("streams:active"));
        }
        for field in ["status", "type", "protocol", "codec", "instance"] {
            if let Some(value) = text(field) {
                sets.push(self.key(&format!("streams:{field}:{value}")));
            }
        }
        if let Some((ip, _)) = text("source_addr").and_then(|a| a.rsplit_once(':')) {
            sets.push(self.key(&format!("streams:source:{ip}")));
        }
        for tag in record
            .get("tags")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(tag) = tag.as_str() {
                sets.push(self.key(&format!("streams:tag:{tag}")));
            }
        }
        sets
    }
}

impl Inbox {
    /// One stream's last state with its events.
    fn next_batch(&mut self) -> Option<Batch> {
        // In the order of events where there are any: subscribers see what came first, first.
        let first = self.events.front().map(|(id, _)| id.clone());
        let write = match first.and_then(|id| self.writes.remove(&id)) {
            Some(write) => write,
            None => self.writes.pop_first()?.1,
        };
        let mut events = Vec::new();
        self.events.retain(|(id, event)| {
            let mine = *id == write.stream_id;
            if mine {
                events.push(event.clone());
            }
            !mine
        });
        Some(Batch { write, events })
    }
}

/// Whether the same write would be refused again. What tells of the server's state (it loads,
/// it is a replica, its memory is full) passes, and the write is kept.
fn refused_for_good(error: &RedisError) -> bool {
    matches!(
        error.code(),
        Some("ERR" | "WRONGTYPE" | "EXECABORT" | "NOSCRIPT")
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
