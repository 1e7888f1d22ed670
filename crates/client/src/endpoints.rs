//! The list of endpoints and whom to ask next. Pure: no channel is known here.

use crate::limits::ENDPOINTS_MAX;

/// Endpoints in a fixed order, and the preferred one: the leader as last heard of, or the last that answered.
#[derive(Debug)]
pub(crate) struct Endpoints {
    list: Vec<String>,
    preferred: usize,
}

impl Endpoints {
    /// Fails with the reason if the list is empty or an address is not host:port.
    pub(crate) fn new(given: &[String]) -> Result<Self, String> {
        let mut list: Vec<String> = Vec::new();
        for address in given.iter().map(|address| address.trim()).filter(|address| !address.is_empty()) {
            if !is_address(address) {
                return Err(format!("`{address}` is not HOST:PORT"));
            }
            if !list.iter().any(|known| known == address) {
                list.push(address.to_owned());
            }
        }
        if list.is_empty() {
            return Err("none is given".to_owned());
        }
        Ok(Self { list, preferred: 0 })
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.list.clone()
    }

    /// Whom to ask first.
    pub(crate) fn preferred(&self) -> String {
        self.list[self.preferred].clone()
    }

    /// `address` failed: prefer the one after it, unless somebody else was preferred meanwhile.
    pub(crate) fn failed(&mut self, address: &str) {
        if self.list[self.preferred] == address {
            self.preferred = (self.preferred + 1) % self.list.len();
        }
    }

    /// Prefers `address`; learns it if it is new.
    pub(crate) fn prefer(&mut self, address: &str) {
        self.learn(address);
        self.prefer_known(address);
    }

    /// Prefers `address` if it is on the list.
    pub(crate) fn prefer_known(&mut self, address: &str) {
        if let Some(index) = self.list.iter().position(|known| known == address) {
            self.preferred = index;
        }
    }

    /// Adds `address` if it is one, is new and there is room.
    pub(crate) fn learn(&mut self, address: &str) {
        if is_address(address) && self.list.len() < ENDPOINTS_MAX && !self.list.iter().any(|known| known == address) {
            self.list.push(address.to_owned());
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }
}

fn is_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// The leader's address in an UNAVAILABLE message: the word after `leader=`, `leader at` or `leader is`.
pub(crate) fn leader_hint(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("leader")?;
    let rest = rest.trim_start_matches([' ', '=', ':']);
    let rest = rest.strip_prefix("is ").or_else(|| rest.strip_prefix("at ")).unwrap_or(rest);
    let rest = rest.strip_prefix("at ").unwrap_or(rest);
    let word = rest.split([' ', ',', ';', ')', '"']).next()?.trim_end_matches('.');
    is_address(word).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_endpoint_gives_way_to_the_next_and_a_hint_wins() {
        let mut endpoints = Endpoints::new(&["a:1".into(), "b:2".into()]).expect("valid");
        assert_eq!(endpoints.preferred(), "a:1");
        endpoints.failed("a:1");
        assert_eq!(endpoints.preferred(), "b:2");
        endpoints.failed("a:1");
        assert_eq!(endpoints.preferred(), "b:2", "a late failure of another endpoint changes nothing");
        endpoints.prefer("c:3");
        assert_eq!((endpoints.preferred().as_str(), endpoints.count()), ("c:3", 3));
    }

    #[test]
    fn addresses_are_checked() {
        assert!(Endpoints::new(&[]).is_err());
        for bad in ["host", "host:", ":1", "host:0", "host:99999", "a b:1"] {
            assert!(Endpoints::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_leader_is_found_in_the_words_of_a_refusal() {
        assert_eq!(leader_hint("not the leader; leader=10.0.0.1:40051"), None, "the first mention decides");
        assert_eq!(leader_hint("leader=10.0.0.1:40051; try again"), Some("10.0.0.1:40051"));
        assert_eq!(leader_hint("the leader is at n1:40051."), Some("n1:40051"));
        assert_eq!(leader_hint("no leader is known"), None);
    }
}
