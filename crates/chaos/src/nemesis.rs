//! Faults: which come next, how they are done, how they are undone.

use std::fmt;

use anyhow::Result;
use rustix::process::Signal;

use crate::calls::{Caller, Endpoints};
use crate::chance::Chance;
use crate::cluster::{pause_ms, wait_for, Cluster};
use crate::disks::{Disks, LOW_WATER_BYTES};
use crate::netns::Net;
use crate::proxy::{Proxies, Rule, Way};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of the leader.
    KillLeader,
    /// SIGKILL of another.
    KillFollower,
    /// SIGKILL of all at once.
    KillAll,
    /// SIGSTOP of the leader for a while.
    StopLeader,
    /// SIGSTOP of another.
    StopFollower,
    /// The leader can reach nobody and nobody it.
    CutLeader,
    /// The same for another.
    CutFollower,
    /// A minority on one side, the majority on the other.
    Split,
    /// What the leader sends is held, what it is sent arrives.
    HoldFromLeader,
    /// What the leader is sent is held, what it sends arrives.
    HoldToLeader,
    /// Answers on one link are held: what was asked is done, and the one who asked never hears.
    HoldAnswers,
    /// All links are slow.
    SlowLinks,
    /// Connections are reset, again and again.
    Flap,
    /// Between network namespaces: the leader's packets go nowhere.
    RouteFromLeader,
    /// Between network namespaces: packets for the leader go nowhere.
    RouteToLeader,
    /// Between network namespaces: neither way.
    RouteBoth,
    /// The leader's disk falls below the low-water mark.
    LowLeader,
    /// All disks do: writes are refused, reads go on.
    LowAll,
    /// A disk is full to the last byte.
    FullDisk,
    /// A replica is asked to end, and another program is started on its directory.
    Upgrade,
    /// The same, with an older program.
    Downgrade,
    /// Leadership is handed over by order.
    Transfer,
    /// A new replica comes as a learner, and is promoted by itself.
    AddLearner,
    /// A learner that was a voter is promoted.
    AddVoter,
    /// A voter becomes a learner.
    Demote,
    /// A replica is taken out for good.
    Remove,
    /// A new replica takes the place of a voter in one step.
    Replace,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillLeader => "kill -9 leader",
            Fault::KillFollower => "kill -9 follower",
            Fault::KillAll => "kill -9 all",
            Fault::StopLeader => "SIGSTOP leader",
            Fault::StopFollower => "SIGSTOP follower",
            Fault::CutLeader => "cut off leader",
            Fault::CutFollower => "cut off follower",
            Fault::Split => "split",
            Fault::HoldFromLeader => "one way: from leader",
            Fault::HoldToLeader => "one way: to leader",
            Fault::HoldAnswers => "answers held",
            Fault::SlowLinks => "slow links",
            Fault::Flap => "connections reset",
            Fault::RouteFromLeader => "netns: from leader",
            Fault::RouteToLeader => "netns: to leader",
            Fault::RouteBoth => "netns: both ways",
            Fault::LowLeader => "low disk: leader",
            Fault::LowAll => "low disk: all",
            Fault::FullDisk => "full disk",
            Fault::Upgrade => "upgrade",
            Fault::Downgrade => "downgrade",
            Fault::Transfer => "transfer",
            Fault::AddLearner => "add learner",
            Fault::AddVoter => "add voter",
            Fault::Demote => "demote",
            Fault::Remove => "remove",
            Fault::Replace => "replace",
        })
    }
}

impl Fault {
    /// Whether a process is killed by it, and how many of `replicas`.
    pub fn kills(self, replicas: usize) -> u64 {
        match self {
            Fault::KillLeader | Fault::KillFollower => 1,
            Fault::KillAll => replicas as u64,
            _ => 0,
        }
    }

    /// Faults through kills, signals and the proxies.
    pub const LOOPBACK: [(Fault, u64); 13] = [
        (Fault::KillLeader, 10),
        (Fault::KillFollower, 5),
        (Fault::KillAll, 3),
        (Fault::StopLeader, 3),
        (Fault::StopFollower, 1),
        (Fault::CutLeader, 3),
        (Fault::CutFollower, 1),
        (Fault::Split, 2),
        (Fault::HoldFromLeader, 2),
        (Fault::HoldToLeader, 2),
        (Fault::HoldAnswers, 2),
        (Fault::SlowLinks, 1),
        (Fault::Flap, 2),
    ];

    /// Faults of disks.
    pub const DISKS: [(Fault, u64); 4] =
        [(Fault::LowLeader, 3), (Fault::LowAll, 2), (Fault::FullDisk, 2), (Fault::KillLeader, 1)];

    /// Faults between network namespaces.
    pub const ROUTED: [(Fault, u64); 4] =
        [(Fault::RouteFromLeader, 3), (Fault::RouteToLeader, 3), (Fault::RouteBoth, 3), (Fault::KillLeader, 1)];
}

/// A fault by weight.
pub fn draw(chance: &mut Chance, from: &[(Fault, u64)]) -> Fault {
    let total: u64 = from.iter().map(|(_, weight)| weight).sum();
    let mut left = chance.below(total);
    for (fault, weight) in from {
        if left < *weight {
            return *fault;
        }
        left -= weight;
    }
    Fault::KillLeader
}

/// What a fault is done with.
pub struct Nemesis<'a> {
    /// Its victims.
    pub cluster: &'a Cluster,
    /// Between them, on loopback.
    pub proxies: Option<&'a Proxies>,
    /// Between them, in namespaces.
    pub net: Option<&'a Net>,
    /// Under them.
    pub disks: Option<&'a Disks>,
    /// How long, whom.
    pub chance: Chance,
}

impl Nemesis<'_> {
    /// Does the fault to a cluster that has settled, with this leader; waits; undoes it. All processes run when it returns. `killed` is
    /// called at the moment of a kill.
    pub fn strike(&mut self, fault: Fault, leader: usize, mut killed: impl FnMut()) -> Result<()> {
        let count = self.cluster.len();
        let other = (leader + 1 + self.chance.below(count as u64 - 1) as usize) % count;
        match fault {
            Fault::KillLeader => self.kill(&[leader], &mut killed),
            Fault::KillFollower => self.kill(&[other], &mut killed),
            Fault::KillAll => self.kill(&(0..count).collect::<Vec<_>>(), &mut killed),
            Fault::StopLeader => self.stop(leader),
            Fault::StopFollower => self.stop(other),
            Fault::CutLeader => self.cut(&[leader]),
            Fault::CutFollower => self.cut(&[other]),
            Fault::Split => self.cut(&self.minority(leader, other)),
            Fault::HoldFromLeader => self.hold(|from, to| (from == leader, to == leader)),
            Fault::HoldToLeader => self.hold(|from, to| (to == leader, from == leader)),
            Fault::HoldAnswers => self.hold(|from, to| (false, from == other && to == leader)),
            Fault::SlowLinks => self.slow(),
            Fault::Flap => self.flap(),
            Fault::RouteFromLeader => self.route(leader, true, false),
            Fault::RouteToLeader => self.route(leader, false, true),
            Fault::RouteBoth => self.route(leader, true, true),
            Fault::LowLeader => self.low(&[leader]),
            Fault::LowAll => self.low(&(0..count).collect::<Vec<_>>()),
            Fault::FullDisk => {
                let victim = if self.chance.one_in(2) { leader } else { other };
                self.full(victim)
            }
            // Done by scenarios of their own, which know what else changes with them.
            Fault::Upgrade
            | Fault::Downgrade
            | Fault::Transfer
            | Fault::AddLearner
            | Fault::AddVoter
            | Fault::Demote
            | Fault::Remove
            | Fault::Replace => Ok(()),
        }
    }

    /// The leader and as many others as leave a majority on the other side.
    fn minority(&self, leader: usize, other: usize) -> Vec<usize> {
        if self.cluster.len() > 3 {
            vec![leader, other]
        } else {
            vec![leader]
        }
    }

    fn kill(&mut self, victims: &[usize], killed: &mut impl FnMut()) -> Result<()> {
        for at in victims {
            self.cluster.kill(*at);
        }
        killed();
        pause_ms(self.chance.between(20, 500));
        for at in victims {
            self.cluster.start(*at)?;
            // Not all return at once.
            pause_ms(self.chance.below(60));
        }
        Ok(())
    }

    fn stop(&mut self, at: usize) -> Result<()> {
        self.cluster.signal(at, Signal::STOP)?;
        pause_ms(self.chance.between(100, 1_800));
        self.cluster.signal(at, Signal::CONT)
    }

    /// Every ordered pair of replicas.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.cluster.len();
        (0..count).flat_map(|from| (0..count).filter(move |to| *to != from).map(move |to| (from, to))).collect()
    }

    fn cut(&mut self, side: &[usize]) -> Result<()> {
        let Some(proxies) = self.proxies else { return Ok(()) };
        for (from, to) in self.pairs() {
            if side.contains(&from) != side.contains(&to) {
                proxies.set(from, to, Rule { cut: true, ..Rule::default() });
            }
        }
        pause_ms(self.chance.between(200, 2_000));
        proxies.heal();
        Ok(())
    }

    /// `which(from, to)` says whether what `from` sends to `to` is held on the connection that it opened, and what `to` answers on it.
    fn hold(&mut self, which: impl Fn(usize, usize) -> (bool, bool)) -> Result<()> {
        let Some(proxies) = self.proxies else { return Ok(()) };
        let way = |held| if held { Way::Hold } else { Way::Open };
        for (from, to) in self.pairs() {
            let (up, down) = which(from, to);
            proxies.set(from, to, Rule { cut: false, up: way(up), down: way(down) });
        }
        pause_ms(self.chance.between(200, 2_500));
        proxies.heal();
        Ok(())
    }

    fn slow(&mut self) -> Result<()> {
        let Some(proxies) = self.proxies else { return Ok(()) };
        for (from, to) in self.pairs() {
            let rule = Rule {
                cut: false,
                up: Way::Slow(self.chance.between(1, 40)),
                down: Way::Slow(self.chance.between(1, 40)),
            };
            proxies.set(from, to, rule);
        }
        pause_ms(self.chance.between(500, 2_000));
        proxies.heal();
        Ok(())
    }

    fn flap(&mut self) -> Result<()> {
        let Some(proxies) = self.proxies else { return Ok(()) };
        let pairs = self.pairs();
        for _ in 0..self.chance.between(5, 30) {
            let (from, to) = *self.chance.pick(&pairs);
            proxies.reset(from, to);
            pause_ms(self.chance.between(5, 80));
        }
        Ok(())
    }

    fn route(&mut self, leader: usize, from: bool, to: bool) -> Result<()> {
        let Some(net) = self.net else { return Ok(()) };
        let others: Vec<usize> = (0..self.cluster.len()).filter(|at| *at != leader).collect();
        for other in &others {
            if from {
                net.block(leader, *other)?;
            }
            if to {
                net.block(*other, leader)?;
            }
        }
        pause_ms(self.chance.between(300, 2_500));
        for other in &others {
            net.unblock(leader, *other)?;
            net.unblock(*other, leader)?;
        }
        Ok(())
    }

    /// The replica looks at its disk every second.
    fn low(&mut self, victims: &[usize]) -> Result<()> {
        let Some(disks) = self.disks else { return Ok(()) };
        for at in victims {
            disks.fill(*at, LOW_WATER_BYTES / 2)?;
        }
        pause_ms(self.chance.between(1_500, 3_500));
        if victims.len() == self.cluster.len() {
            self.reads_go_on()?;
        }
        for at in victims {
            disks.free(*at)?;
        }
        Ok(())
    }

    /// Without room anywhere: what is there can be read all the same.
    fn reads_go_on(&mut self) -> Result<()> {
        let endpoints = self.cluster.seats().iter().map(|seat| seat.client.clone()).collect();
        let mut caller = Caller::new(Endpoints::new(endpoints), Chance::new(self.chance.next(), 0))?;
        wait_for("a linearizable read while all disks are low", || caller.read("reg-0")).map(drop)
    }

    /// A replica on a full disk may end itself, with a reason; it is started again when there is room.
    fn full(&mut self, at: usize) -> Result<()> {
        let Some(disks) = self.disks else { return Ok(()) };
        disks.fill(at, 0)?;
        pause_ms(self.chance.between(1_000, 3_000));
        disks.free(at)?;
        if self.cluster.died().iter().any(|(node, _)| *node == self.cluster.seats()[at].node) {
            self.cluster.start(at)?;
        }
        Ok(())
    }
}
