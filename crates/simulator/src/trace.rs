//! What happened, as lines and as one number: the same seed gives the same of both, always.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::limits::TRACE_TAIL_LINES;
use crate::rng::mix;

/// Where the lines go.
pub type Sink = Box<dyn FnMut(&str)>;

/// The trace of a run.
pub struct Trace {
    hash: u64,
    events: u64,
    sink: Option<Sink>,
    tail: VecDeque<(u64, &'static str, [u64; 4])>,
}

impl Trace {
    /// An empty one; every event is given to `sink` as a line, if there is one.
    pub fn new(sink: Option<Sink>) -> Self {
        Self { hash: 0, events: 0, sink, tail: VecDeque::new() }
    }

    /// An event: when (virtual microseconds), what, and its figures.
    pub fn note(&mut self, at_us: u64, what: &'static str, figures: [u64; 4]) {
        self.events += 1;
        let mut hash = mix(self.hash ^ at_us);
        for byte in what.bytes() {
            hash = hash.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte);
        }
        for figure in figures {
            hash = mix(hash.wrapping_add(figure).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        self.hash = hash;
        if self.tail.len() == TRACE_TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back((at_us, what, figures));
        if let Some(sink) = &mut self.sink {
            sink(&line(at_us, what, figures));
        }
    }

    /// A number of everything that happened so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.tail.iter().map(|(at, what, figures)| line(*at, what, *figures) + "\n").collect()
    }
}

fn line(at_us: u64, what: &str, figures: [u64; 4]) -> String {
    let mut line = format!("{:>5}.{:06} {what:<10}", at_us / 1_000_000, at_us % 1_000_000);
    for figure in figures {
        // Writing into a string does not fail.
        let _ = if figure > 1 << 40 { write!(line, " {figure:016x}") } else { write!(line, " {figure}") };
    }
    line
}
