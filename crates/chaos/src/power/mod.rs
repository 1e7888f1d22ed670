//! Lost power, without pulling a plug: the file-system calls of a real run are recorded, the directory is rebuilt as a power cut at some
//! moment could have left it, the real store boots there, and is compared with what had been acknowledged by then.
//!
//! `trace` reads what strace wrote, `files` is the file system that may forget, `boot` is the judgement, `damage` cuts tails and flips bits
//! of what a run left. The rules of the file system are the worst that POSIX allows: what no fsync covered may be there, or not, or torn;
//! a name is there for certain only when its directory was fsynced after it; each directory and each file forgets for itself.

pub mod boot;
pub mod damage;
pub mod files;
pub mod rebuild;
pub mod record;
pub mod trace;

/// What came of many boots.
#[derive(Debug, Default)]
pub struct Boots {
    /// For people.
    pub name: String,
    /// How many there were.
    pub boots: usize,
    /// Everything acknowledged was there.
    pub recovered: usize,
    /// It did not start, and said why.
    pub refused: usize,
    /// Reasons, shortened → how often.
    pub reasons: std::collections::BTreeMap<String, usize>,
    /// It started and something acknowledged was not there, or it did not start where it must; with where that was kept.
    pub wrong: Vec<String>,
}

impl Boots {
    /// Under a name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Counts one. `may_refuse`: whether a refusal is an answer here.
    pub fn note(&mut self, what: &str, boot: Result<boot::Booted, String>, may_refuse: bool) {
        self.boots += 1;
        match boot {
            Ok(boot::Booted::Whole) => self.recovered += 1,
            Ok(boot::Booted::Refused(why)) => {
                self.refused += 1;
                if !may_refuse {
                    self.wrong.push(format!("{what}: refused: {why}"));
                }
                *self.reasons.entry(shortened(&why)).or_default() += 1;
            }
            Err(wrong) => self.wrong.push(format!("{what}: {wrong}")),
        }
    }
}

/// A reason without what differs from boot to boot: numbers and paths.
fn shortened(why: &str) -> String {
    let words = why.split_whitespace().map(|word| {
        let plain: String = word.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        if word.contains('/') {
            "…".to_owned()
        } else {
            plain
        }
    });
    words.collect::<Vec<_>>().join(" ").chars().take(110).collect()
}
