//! A Redis server of one's own, and just enough of its protocol to look into it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::{Alone, seconds, wait_for};

/// A running Redis server without persistence.
#[derive(Debug)]
pub struct Redis {
    /// The process.
    pub process: Process,
    port: u16,
}

/// A reply.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// Nothing there.
    Nil,
    /// A number.
    Integer(i64),
    /// Text: simple or bulk.
    Text(String),
    /// A list.
    List(Vec<Reply>),
}

impl Redis {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// If it does not answer within ten seconds.
    pub fn start(test: &Alone) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        Self::start_on(test, free.expect("a TCP port is free").port())
    }

    /// Starts one on a given port.
    ///
    /// # Panics
    /// If it does not answer within ten seconds.
    pub fn start_on(test: &Alone, port: u16) -> Self {
        let (port_text, folder) = (port.to_string(), test.folder().display().to_string());
        let args = [
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &folder,
        ];
        let redis = Redis {
            process: Process::start(test.folder(), "redis", "redis-server", &args),
            port,
        };
        wait_for("redis answers", seconds(10), || {
            redis.command(&["PING"]).is_ok()
        });
        redis
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The engine's settings for it.
    pub fn settings(&self) -> [String; 2] {
        [
            "registry.backend=redis".into(),
            format!("registry.redis.url=redis://127.0.0.1:{}", self.port),
        ]
    }

    /// Sends one command.
    ///
    /// # Errors
    /// When the server cannot be reached or answers with an error.
    pub fn command(&self, words: &[&str]) -> Result<Reply> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        (&stream).write_all(request.as_bytes())?;
        read_reply(&mut BufReader::new(&stream))
    }

    /// The text of a key.
    pub fn get(&self, key: &str) -> Option<String> {
        match self.command(&["GET", key]) {
            Ok(Reply::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A reply that is a number.
    pub fn integer(&self, words: &[&str]) -> Option<i64> {
        match self.command(words) {
            Ok(Reply::Integer(n)) => Some(n),
            _ => None,
        }
    }
}

fn read_reply(from: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let kind = line.chars().next().context("no reply")?;
    let rest = &line[1..];
    match kind {
        '+' => Ok(Reply::Text(rest.into())),
        ':' => Ok(Reply::Integer(rest.parse()?)),
        '-' => bail!("redis: {rest}"),
        '$' => match usize::try_from(rest.parse::<i64>()?) {
            Err(_) => Ok(Reply::Nil),
            Ok(len) => {
                let mut bytes = vec![0; len + 2];
                from.read_exact(&mut bytes)?;
                bytes.truncate(len);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
        },
        '*' => match usize::try_from(rest.parse::<i64>()?) {
            Err(_) => Ok(Reply::Nil),
            Ok(n) => Ok(Reply::List(
                (0..n).map(|_| read_reply(from)).collect::<Result<_>>()?,
            )),
        },
        other => bail!("unknown kind of reply: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let mut bytes: &[u8] = b"*3\r\n:7\r\n$3\r\nabc\r\n$-1\r\n";
        let expected = Reply::List(vec![
            Reply::Integer(7),
            Reply::Text("abc".into()),
            Reply::Nil,
        ]);
        assert_eq!(read_reply(&mut bytes).unwrap(), expected);
    }
}
