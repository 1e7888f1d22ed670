//! A file system that remembers for certain only what it was asked to.
//!
//! Every file has two contents, as seen and as durable, and the changes between them; every directory two lists of names. An fsync moves
//! over what had ended before it began. `after_power_cut` draws one of the states that a cut may leave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::chance::Chance;
use crate::power::trace::{At, Call, Event};

/// Bytes that a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// A file in the root without any content that matters, but large: it is left out.
pub const BALLAST: &str = "ballast";

/// A change of a file that no fsync has covered.
#[derive(Clone, Debug)]
enum Change {
    Bytes { at: u64, data: Vec<u8> },
    Length(u64),
    AtLeast(u64),
}

/// A change of a directory that no fsync has covered.
#[derive(Clone, Debug)]
enum Naming {
    Put(String, usize),
    Drop(String),
    Move(String, String),
}

#[derive(Clone, Debug)]
enum Node {
    File { seen: Vec<u8>, durable: Vec<u8>, pending: Vec<(usize, Change)> },
    Dir { seen: BTreeMap<String, usize>, durable: BTreeMap<String, usize>, pending: Vec<(usize, Naming)> },
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    node: usize,
    at: u64,
    append: bool,
}

/// A directory as it would be found: path below the root → content; None: a directory.
pub type Image = BTreeMap<String, Option<Vec<u8>>>;

/// How much of what no fsync covered is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Nothing: every file and directory as it was synced last.
    Nothing,
    /// Of each file and directory the first so many changes, the last of them torn between two sectors.
    Prefix,
    /// The same, torn anywhere: more than docs/storage-format.md asks of a disk.
    Torn,
    /// Of each file any of the changes, the last of them torn between two sectors; of each directory the first so many.
    Any,
    /// Everything, as after a kill of the process.
    Everything,
}

/// The tree under one root.
#[derive(Clone, Debug)]
pub struct Files {
    root: String,
    nodes: Vec<Node>,
    descriptors: BTreeMap<i64, Descriptor>,
}

fn change(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Bytes { at, data } => {
            let (start, end) = (*at as usize, *at as usize + data.len());
            if content.len() < end {
                content.resize(end, 0);
            }
            content[start..end].copy_from_slice(data);
        }
        Change::Length(length) => content.resize(*length as usize, 0),
        Change::AtLeast(length) => content.resize(content.len().max(*length as usize), 0),
    }
}

fn name(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Put(name, node) => {
            names.insert(name.clone(), *node);
        }
        Naming::Drop(name) => {
            names.remove(name);
        }
        Naming::Move(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

impl Files {
    /// An empty directory, itself durable, at this absolute path.
    pub fn new(root: &Path) -> Self {
        let dir = Node::Dir { seen: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() };
        Self { root: root.display().to_string(), nodes: vec![dir], descriptors: BTreeMap::new() }
    }

    /// The process ended: its descriptors are closed.
    pub fn process_ended(&mut self) {
        self.descriptors.clear();
    }

    /// Whether the descriptor is one of a directory of the tree; None: it is of neither file nor directory here.
    pub fn is_directory(&self, fd: i64) -> Option<bool> {
        let descriptor = self.descriptors.get(&fd)?;
        Some(matches!(self.nodes[descriptor.node], Node::Dir { .. }))
    }

    /// Does what the call did. Whatever does not concern the tree is passed over. True: it concerned the tree.
    pub fn apply(&mut self, event: &Event) -> Result<bool> {
        let line = event.ended;
        match &event.call {
            Call::Open { at, path, create, truncate, append, fd } => {
                self.descriptors.remove(fd);
                let Some((dir, leaf)) = self.place(*at, path)? else { return Ok(false) };
                let known = if leaf.is_empty() { Some(dir) } else { self.names(dir)?.get(&leaf).copied() };
                let node = match known {
                    Some(node) => node,
                    None if *create => {
                        let file = Node::File { seen: Vec::new(), durable: Vec::new(), pending: Vec::new() };
                        self.add(dir, leaf, file, line)?
                    }
                    None => bail!("{path} was opened, and is not there"),
                };
                if *truncate {
                    self.change(node, line, Change::Length(0))?;
                }
                self.descriptors.insert(*fd, Descriptor { node, at: 0, append: *append });
            }
            Call::Close { fd } => return Ok(self.descriptors.remove(fd).is_some()),
            Call::Dup { fd, new } => {
                let copy = self.descriptors.get(fd).copied();
                self.descriptors.remove(new);
                return Ok(copy.map(|copy| self.descriptors.insert(*new, copy)).is_some());
            }
            Call::Seek { fd, to } => {
                let Some(descriptor) = self.descriptors.get_mut(fd) else { return Ok(false) };
                descriptor.at = *to;
            }
            Call::Write { fd, data } => {
                let Some(descriptor) = self.descriptors.get(fd).copied() else { return Ok(false) };
                let at = if descriptor.append { self.length(descriptor.node) } else { descriptor.at };
                self.change(descriptor.node, line, Change::Bytes { at, data: data.clone() })?;
                self.descriptors.insert(*fd, Descriptor { at: at + data.len() as u64, ..descriptor });
            }
            Call::WriteAt { fd, at, data } => {
                return self.on(*fd, line, Change::Bytes { at: *at, data: data.clone() });
            }
            Call::Truncate { fd, length } => return self.on(*fd, line, Change::Length(*length)),
            Call::Extend { fd, length } => return self.on(*fd, line, Change::AtLeast(*length)),
            Call::Sync { fd } => {
                let Some(descriptor) = self.descriptors.get(fd).copied() else { return Ok(false) };
                self.sync(descriptor.node, event.began);
            }
            Call::Rename { at, from, to_at, to } => {
                let (Some(from), Some(to)) = (self.place(*at, from)?, self.place(*to_at, to)?) else {
                    return Ok(false);
                };
                self.rename(from, to, line)?;
            }
            Call::Link { at, from, to_at, to } => {
                let (Some(from), Some(to)) = (self.place(*at, from)?, self.place(*to_at, to)?) else {
                    return Ok(false);
                };
                let node = self.names(from.0)?.get(&from.1).copied().context("a link to nothing")?;
                self.naming(to.0, line, Naming::Put(to.1, node))?;
            }
            Call::Remove { at, path } => {
                let Some((dir, leaf)) = self.place(*at, path)? else { return Ok(false) };
                self.naming(dir, line, Naming::Drop(leaf))?;
            }
            Call::MakeDir { at, path } => {
                let Some((dir, leaf)) = self.place(*at, path)? else { return Ok(false) };
                let node = Node::Dir { seen: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() };
                self.add(dir, leaf, node, line)?;
            }
        }
        Ok(true)
    }

    fn on(&mut self, fd: i64, line: usize, what: Change) -> Result<bool> {
        let Some(descriptor) = self.descriptors.get(&fd).copied() else { return Ok(false) };
        self.change(descriptor.node, line, what)?;
        Ok(true)
    }

    fn change(&mut self, node: usize, line: usize, what: Change) -> Result<()> {
        let Node::File { seen, pending, .. } = &mut self.nodes[node] else { bail!("a write to a directory") };
        change(seen, &what);
        pending.push((line, what));
        Ok(())
    }

    fn naming(&mut self, dir: usize, line: usize, what: Naming) -> Result<()> {
        let Node::Dir { seen, pending, .. } = &mut self.nodes[dir] else { bail!("a name in a file") };
        name(seen, &what);
        pending.push((line, what));
        Ok(())
    }

    fn rename(&mut self, from: (usize, String), to: (usize, String), line: usize) -> Result<()> {
        if from.0 == to.0 {
            return self.naming(from.0, line, Naming::Move(from.1, to.1));
        }
        let node = self.names(from.0)?.get(&from.1).copied().context("a rename of nothing")?;
        self.naming(to.0, line, Naming::Put(to.1, node))?;
        self.naming(from.0, line, Naming::Drop(from.1))
    }

    fn add(&mut self, dir: usize, leaf: String, node: Node, line: usize) -> Result<usize> {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.naming(dir, line, Naming::Put(leaf, number))?;
        Ok(number)
    }

    /// What ended before the sync began is durable.
    fn sync(&mut self, node: usize, began: usize) {
        match &mut self.nodes[node] {
            Node::File { durable, pending, .. } => {
                let covered = pending.iter().take_while(|(line, _)| *line < began).count();
                pending.drain(..covered).for_each(|(_, what)| change(durable, &what));
            }
            Node::Dir { durable, pending, .. } => {
                let covered = pending.iter().take_while(|(line, _)| *line < began).count();
                pending.drain(..covered).for_each(|(_, what)| name(durable, &what));
            }
        }
    }

    fn names(&self, dir: usize) -> Result<&BTreeMap<String, usize>> {
        match &self.nodes[dir] {
            Node::Dir { seen, .. } => Ok(seen),
            Node::File { .. } => bail!("a file is used as a directory"),
        }
    }

    fn length(&self, node: usize) -> u64 {
        match &self.nodes[node] {
            Node::File { seen, .. } => seen.len() as u64,
            Node::Dir { .. } => 0,
        }
    }

    /// (directory, last name) of a path; None: outside of the tree. The root itself is (root, "").
    fn place(&self, at: At, path: &str) -> Result<Option<(usize, String)>> {
        let (mut dir, rest) = match (at, path.strip_prefix(&self.root)) {
            (_, Some(rest)) if rest.is_empty() || rest.starts_with('/') => (0, rest),
            (Some(fd), _) if !path.starts_with('/') => match self.descriptors.get(&fd) {
                Some(descriptor) => (descriptor.node, path),
                None => return Ok(None),
            },
            (None, _) if !path.starts_with('/') && !path.is_empty() => return Ok(None),
            _ => return Ok(None),
        };
        let mut names: Vec<&str> = rest.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names == [BALLAST] && dir == 0 {
            return Ok(None);
        }
        let leaf = names.pop().unwrap_or_default().to_owned();
        for name in names {
            // A look for something that is not there fails, and is no event; this one succeeded.
            dir = *self.names(dir)?.get(name).with_context(|| format!("{path}: {name} is not there"))?;
        }
        Ok(Some((dir, leaf)))
    }

    /// The tree as the process saw it.
    pub fn seen(&self) -> Image {
        self.draw(Memory::Everything, &mut Chance::new(0, 0))
    }

    /// One of the states in which a power cut now may leave the tree.
    pub fn after_power_cut(&self, memory: Memory, chance: &mut Chance) -> Image {
        self.draw(memory, chance)
    }

    fn draw(&self, memory: Memory, chance: &mut Chance) -> Image {
        let mut image = Image::new();
        let mut contents: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut left: Vec<(String, usize)> = vec![(String::new(), 0)];
        // A directory that two names lead to (a rename half remembered) is drawn once; nothing of ours lies in such a one twice.
        let mut drawn: BTreeSet<usize> = BTreeSet::new();
        while let Some((path, node)) = left.pop() {
            match &self.nodes[node] {
                Node::Dir { durable, pending, .. } => {
                    if !path.is_empty() {
                        image.insert(path.clone(), None);
                    }
                    if !drawn.insert(node) {
                        continue;
                    }
                    let mut names = durable.clone();
                    let kept = match memory {
                        Memory::Nothing => 0,
                        Memory::Everything => pending.len(),
                        Memory::Prefix | Memory::Torn | Memory::Any => chance.below(pending.len() as u64 + 1) as usize,
                    };
                    pending[..kept].iter().for_each(|(_, what)| name(&mut names, what));
                    let below = |leaf: &str| if path.is_empty() { leaf.to_owned() } else { format!("{path}/{leaf}") };
                    left.extend(names.iter().map(|(leaf, node)| (below(leaf), *node)));
                }
                // Two names of one file show one content.
                Node::File { .. } => {
                    let content = contents.entry(node).or_insert_with(|| self.content(node, memory, chance)).clone();
                    image.insert(path, Some(content));
                }
            }
        }
        image
    }

    fn content(&self, node: usize, memory: Memory, chance: &mut Chance) -> Vec<u8> {
        let Node::File { durable, pending, .. } = &self.nodes[node] else { return Vec::new() };
        let mut content = durable.clone();
        let kept: Vec<bool> = match memory {
            Memory::Nothing => vec![false; pending.len()],
            Memory::Everything => vec![true; pending.len()],
            Memory::Prefix | Memory::Torn => {
                let kept = chance.below(pending.len() as u64 + 1) as usize;
                (0..pending.len()).map(|at| at < kept).collect()
            }
            Memory::Any => pending.iter().map(|_| chance.one_in(2)).collect(),
        };
        let last = kept.iter().rposition(|kept| *kept);
        for (at, (_, what)) in pending.iter().enumerate().filter(|(at, _)| kept[*at]) {
            match what {
                Change::Bytes { at: start, data } if Some(at) == last && memory != Memory::Everything => {
                    let torn = Change::Bytes {
                        at: *start,
                        data: data[..torn_at(*start, data.len(), memory, chance)].to_vec(),
                    };
                    change(&mut content, &torn);
                }
                what => change(&mut content, what),
            }
        }
        content
    }
}

/// How many bytes of a write arrive: up to a boundary between sectors, or all; anywhere where `memory` says so.
fn torn_at(start: u64, length: usize, memory: Memory, chance: &mut Chance) -> usize {
    let count = chance.below(length as u64 + 1);
    if memory == Memory::Torn || count == length as u64 {
        return count as usize;
    }
    let end = (start + count) / SECTOR * SECTOR;
    end.saturating_sub(start) as usize
}

#[cfg(test)]
mod tests;
