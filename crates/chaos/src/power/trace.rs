//! Reads what `strace -f -ttt -xx` wrote: calls that change files, in the order in which they ended.
//!
//! A call that another thread interrupted stands on two lines, "<unfinished ...>" and "<... resumed>". strace holds a thread at the start and
//! at the end of a call until it has written the line, so: a call whose end stands before a line had taken effect by the time of that
//! line, and one whose start stands behind it had not.

use std::collections::BTreeMap;

use anyhow::{bail, Context, Result};

/// What strace is asked to write.
pub const CALLS: &str = "openat,open,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync,\
syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,ftruncate,truncate,fallocate,\
copy_file_range,sendfile";

/// Where a path starts: a directory that is open, or the root.
pub type At = Option<i64>;

/// One call that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A descriptor of a file or directory.
    Open { at: At, path: String, create: bool, truncate: bool, append: bool, fd: i64 },
    /// The descriptor is free.
    Close { fd: i64 },
    /// Another descriptor of the same.
    Dup { fd: i64, new: i64 },
    /// The place of the next write.
    Seek { fd: i64, to: u64 },
    /// Bytes at the current place.
    Write { fd: i64, data: Vec<u8> },
    /// Bytes at a place.
    WriteAt { fd: i64, at: u64, data: Vec<u8> },
    /// What was done to it is durable.
    Sync { fd: i64 },
    /// A new length.
    Truncate { fd: i64, length: u64 },
    /// At least this length.
    Extend { fd: i64, length: u64 },
    /// A name moves.
    Rename { at: At, from: String, to_at: At, to: String },
    /// A second name.
    Link { at: At, from: String, to_at: At, to: String },
    /// A name goes.
    Remove { at: At, path: String },
    /// A directory.
    MakeDir { at: At, path: String },
}

/// A call with its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Line on which it began.
    pub began: usize,
    /// Line on which it ended.
    pub ended: usize,
    /// Time on that line: microseconds since 1970.
    pub at: u64,
    /// What it did.
    pub call: Call,
}

/// All events of a trace, in the order of their ends. Lines are counted from `first_line`.
pub fn read(text: &str, first_line: usize) -> Result<Vec<Event>> {
    let mut open: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    let mut events = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let ended = first_line + number;
        let mut words = line.splitn(3, ' ').filter(|word| !word.is_empty());
        let Some(pid) = words.next() else { continue };
        let rest = line[pid.len()..].trim_start();
        let Some((time, said)) = rest.split_once(' ') else { continue };
        let said = said.trim_start();
        let (began, whole) = if let Some(start) = said.strip_suffix("<unfinished ...>") {
            open.insert(pid, (ended, start));
            continue;
        } else if let Some(resumed) = said.strip_prefix("<... ") {
            let (_, end) = resumed.split_once("resumed>").with_context(|| format!("no end: {line:.120}"))?;
            let (began, start) = open.remove(pid).with_context(|| format!("resumed, but never begun: {line:.120}"))?;
            (began, format!("{start}{end}"))
        } else {
            (ended, said.to_owned())
        };
        if let Some(call) = call(&whole).with_context(|| format!("failed to read line {ended}: {line:.200}"))? {
            events.push(Event { began, ended, at: micros(time)?, call });
        }
    }
    Ok(events)
}

fn micros(time: &str) -> Result<u64> {
    let (seconds, fraction) = time.split_once('.').context("failed to read a time")?;
    Ok(seconds.parse::<u64>()? * 1_000_000 + fraction.parse::<u64>()?)
}

/// None: it failed, or changes no file.
fn call(text: &str) -> Result<Option<Call>> {
    let Some((name, rest)) = text.split_once('(') else { return Ok(None) };
    let Some((arguments, result)) = rest.rsplit_once(" = ") else { return Ok(None) };
    let arguments = arguments.trim_end().strip_suffix(')').context("no closing bracket")?;
    let result: i64 = match result.split_whitespace().next().map(|word| word.parse()) {
        Some(Ok(result)) if result >= 0 => result,
        // fcntl's flags are hexadecimal: none that matters here.
        _ => return Ok(None),
    };
    let arguments = split(arguments);
    let text = |at: usize| arguments.get(at).map(|word| word.as_str()).unwrap_or_default();
    let number =
        |at: usize| -> Result<i64> { text(at).parse().with_context(|| format!("no number: {:.60}", text(at))) };
    let path = |at: usize| -> Result<String> { Ok(String::from_utf8(bytes(text(at))?)?) };
    let call = match name {
        "openat" => opened(place(text(0))?, path(1)?, text(2), result),
        "open" => opened(None, path(0)?, text(1), result),
        "creat" => opened(None, path(0)?, "O_CREAT|O_TRUNC", result),
        "close" => Call::Close { fd: number(0)? },
        "dup" | "dup2" | "dup3" => Call::Dup { fd: number(0)?, new: result },
        "fcntl" if text(1).starts_with("F_DUPFD") => Call::Dup { fd: number(0)?, new: result },
        "fcntl" | "sync_file_range" => return Ok(None),
        "lseek" => Call::Seek { fd: number(0)?, to: result as u64 },
        "write" => Call::Write { fd: number(0)?, data: taken(bytes(text(1))?, result)? },
        "writev" => Call::Write { fd: number(0)?, data: taken(vector(text(1))?, result)? },
        "pwrite64" => Call::WriteAt { fd: number(0)?, at: number(3)? as u64, data: taken(bytes(text(1))?, result)? },
        "pwritev" | "pwritev2" => {
            Call::WriteAt { fd: number(0)?, at: number(3)? as u64, data: taken(vector(text(1))?, result)? }
        }
        "fsync" | "fdatasync" => Call::Sync { fd: number(0)? },
        "ftruncate" => Call::Truncate { fd: number(0)?, length: number(1)? as u64 },
        "fallocate" if text(1).contains("KEEP_SIZE") => return Ok(None),
        "fallocate" => Call::Extend { fd: number(0)?, length: (number(2)? + number(3)?) as u64 },
        "rename" => Call::Rename { at: None, from: path(0)?, to_at: None, to: path(1)? },
        "renameat" | "renameat2" => {
            Call::Rename { at: place(text(0))?, from: path(1)?, to_at: place(text(2))?, to: path(3)? }
        }
        "link" => Call::Link { at: None, from: path(0)?, to_at: None, to: path(1)? },
        "linkat" => Call::Link { at: place(text(0))?, from: path(1)?, to_at: place(text(2))?, to: path(3)? },
        "unlink" | "rmdir" => Call::Remove { at: None, path: path(0)? },
        "unlinkat" => Call::Remove { at: place(text(0))?, path: path(1)? },
        "mkdir" => Call::MakeDir { at: None, path: path(0)? },
        "mkdirat" => Call::MakeDir { at: place(text(0))?, path: path(1)? },
        other => bail!("{other} is a call that the model does not know"),
    };
    Ok(Some(call))
}

fn opened(at: At, path: String, flags: &str, fd: i64) -> Call {
    let has = |flag: &str| flags.split('|').any(|word| word == flag);
    Call::Open { at, path, create: has("O_CREAT"), truncate: has("O_TRUNC"), append: has("O_APPEND"), fd }
}

fn place(text: &str) -> Result<At> {
    if text == "AT_FDCWD" {
        return Ok(None);
    }
    Ok(Some(text.parse().with_context(|| format!("no directory: {text:.40}"))?))
}

/// What the kernel took of it.
fn taken(mut data: Vec<u8>, result: i64) -> Result<Vec<u8>> {
    let count = usize::try_from(result)?;
    if data.len() < count {
        bail!("{count} bytes were written, {} are in the trace", data.len());
    }
    data.truncate(count);
    Ok(data)
}

/// Arguments, split at commas outside of strings and brackets.
fn split(arguments: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let (mut quoted, mut depth) = (false, 0);
    for c in arguments.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                out.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out.iter().map(|word| word.trim().to_owned()).collect()
}

/// "\x2f\x74": every byte is two digits.
fn bytes(text: &str) -> Result<Vec<u8>> {
    if text.ends_with("...") {
        bail!("a string was cut off: {:.40}", text);
    }
    let inner = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).context("no string")?;
    let digits = |pair: &str| u8::from_str_radix(pair, 16).with_context(|| format!("no byte: {pair}"));
    inner.split("\\x").skip(1).map(digits).collect()
}

/// [{iov_base="…", iov_len=5}, …]
fn vector(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for part in text.split("iov_base=").skip(1) {
        let end = part.find(", iov_len").context("no end of a vector's part")?;
        out.extend(bytes(&part[..end])?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_several_threads_are_put_together_in_the_order_of_their_ends() {
        let text = r#"11 100.000001 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_TRUNC, 0644) = 7
12 100.000002 write(7, "\x68\x69\x21", 3 <unfinished ...>
11 100.000003 fsync(7 <unfinished ...>
12 100.000004 <... write resumed>)      = 2
11 100.000005 <... fsync resumed>)      = 0
11 100.000006 openat(AT_FDCWD, "\x2f\x62", O_RDONLY) = -1 ENOENT (No such file or directory)
11 100.000007 writev(7, [{iov_base="\x61", iov_len=1}, {iov_base="\x62\x63", iov_len=2}], 2) = 3
11 100.000008 pwrite64(7, "\x2c\x22", 2, 512) = 2
11 100.000009 unlinkat(9, "\x62", 0) = 0
11 100.000010 +++ exited with 0 +++
"#;
        let events = read(text, 1_000).unwrap();
        let open = |path: &str| Call::Open {
            at: None,
            path: path.to_owned(),
            create: true,
            truncate: true,
            append: false,
            fd: 7,
        };
        let expected = [
            (1_000, 1_000, open("/a")),
            (1_001, 1_003, Call::Write { fd: 7, data: b"hi".to_vec() }),
            (1_002, 1_004, Call::Sync { fd: 7 }),
            (1_006, 1_006, Call::Write { fd: 7, data: b"abc".to_vec() }),
            (1_007, 1_007, Call::WriteAt { fd: 7, at: 512, data: b",\"".to_vec() }),
            (1_008, 1_008, Call::Remove { at: Some(9), path: "b".to_owned() }),
        ];
        let got: Vec<(usize, usize, Call)> = events.into_iter().map(|it| (it.began, it.ended, it.call)).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn what_was_cut_off_or_is_not_known_is_an_error_not_a_guess() {
        assert!(read("1 1.0 write(7, \"\\x68\"..., 300) = 300\n", 0).is_err());
        assert!(read("1 1.0 write(7, \"\\x68\", 3) = 3\n", 0).is_err());
        assert!(read("1 1.0 copy_file_range(7, NULL, 8, NULL, 5, 0) = 5\n", 0).is_err());
        assert!(read("1 1.0 <... write resumed>) = 3\n", 0).is_err());
    }
}
