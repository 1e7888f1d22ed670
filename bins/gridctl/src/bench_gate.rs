//! Where the trainers of a benchmark wait for each other and for their turn: each holds a step and says so, and goes on at a word. So rounds of
//! two sides can alternate, and a round's time is that of this process's clock, from the word until every trainer holds its next step.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::limits::{BENCH_ROUND_TIMEOUT, PROBE_PAUSE};

/// Between two looks at whether the wait is still worth it.
const LOOK: Duration = Duration::from_millis(500);

/// Waiting trainers.
pub(crate) struct Gate {
    listener: TcpListener,
    trainers: Vec<Trainer>,
}

struct Trainer {
    words: TcpStream,
    lines: BufReader<TcpStream>,
}

/// Seconds that a trainer spent on its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    /// Until it had the model.
    pub(crate) load: f64,
    /// Until its gradient was acknowledged.
    pub(crate) push: f64,
}

impl Gate {
    /// On a free loopback port.
    pub(crate) fn open() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        Ok(Self { listener: listener.map_err(|error| broken(&error.to_string()))?, trainers: Vec::new() })
    }

    /// HOST:PORT for the trainers.
    pub(crate) fn address(&self) -> Result<String> {
        self.listener.local_addr().map(|address| address.to_string()).map_err(|error| broken(&error.to_string()))
    }

    /// Waits until `count` trainers hold a step; what each spent on the one before. `worth` ends the wait.
    pub(crate) fn ready(&mut self, count: usize, worth: &dyn Fn() -> Result<()>) -> Result<Vec<Spent>> {
        let begin = Instant::now();
        let still = || match begin.elapsed() < BENCH_ROUND_TIMEOUT {
            true => worth(),
            false => Err(broken(&format!("they are not ready after {} s", BENCH_ROUND_TIMEOUT.as_secs()))),
        };
        let mut looked = Instant::now();
        while self.trainers.len() < count {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let trainer = Trainer::new(stream).map_err(|error| broken(&error.to_string()))?;
                    self.trainers.push(trainer);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PROBE_PAUSE),
                Err(error) => return Err(broken(&error.to_string())),
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                still()?;
            }
        }
        self.trainers.iter_mut().map(|trainer| trainer.line(&still)).collect()
    }

    /// All go on.
    pub(crate) fn go(&mut self) -> Result<()> {
        let told = self.trainers.iter_mut().try_for_each(|trainer| trainer.words.write_all(b"go\n"));
        told.map_err(|error| broken(&error.to_string()))
    }
}

impl Trainer {
    fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        Ok(Self { lines: BufReader::new(stream.try_clone()?), words: stream })
    }

    fn line(&mut self, still: &dyn Fn() -> Result<()>) -> Result<Spent> {
        let mut line = String::new();
        loop {
            match self.lines.read_line(&mut line) {
                Ok(0) => return Err(broken("one ended")),
                Ok(_) => return spent(&line).ok_or_else(|| broken(&format!("one said {line:?}"))),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => still()?,
                Err(error) => return Err(broken(&error.to_string())),
            }
        }
    }
}

fn spent(line: &str) -> Option<Spent> {
    let mut words = line.split_whitespace().map(str::parse::<f64>);
    let (load, push) = (words.next()?.ok()?, words.next()?.ok()?);
    words.next().is_none().then_some(Spent { load, push })
}

fn broken(cause: &str) -> Failure {
    Failure::new(format!("the trainers of the benchmark: {cause}"), "--dir DIR, and the logs below it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trainer_says_two_numbers() {
        assert_eq!(spent("0.25 1.5\n"), Some(Spent { load: 0.25, push: 1.5 }));
        for wrong in ["", "1.0", "1.0 x", "1 2 3"] {
            assert_eq!(spent(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn nobody_goes_on_before_all_are_there_and_the_wait_can_end() {
        let mut gate = Gate::open().expect("a port");
        let address = gate.address().expect("bound");
        let trainer = |address: String| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.write_all(b"0 0\n").expect("taken");
                let mut word = String::new();
                BufReader::new(stream.try_clone().expect("a descriptor")).read_line(&mut word).expect("a word");
                word
            })
        };
        let first = trainer(address.clone());
        let missing = gate.ready(2, &|| Err(Failure::new("not worth it", "nothing")));
        assert!(missing.is_err() && !first.is_finished());
        let second = trainer(address);
        assert_eq!(gate.ready(2, &|| Ok(())).expect("both came").len(), 2);
        gate.go().expect("both listen");
        assert_eq!([first, second].map(|thread| thread.join().expect("no panic")), ["go\n", "go\n"]);
    }
}
