//! What the settings say about lease reads.

use raftgrid_settings::{Settings, SettingsError};

/// Length of the leader's lease in milliseconds; 0: lease reads are off. A length that was asked for and is not safe is refused; the default is
/// cut to what the election timeout allows.
pub(crate) fn lease_ms(settings: &Settings, driver: &raftgrid_driver::Config) -> Result<u64, SettingsError> {
    if !settings.parse("raft.lease_reads")?.unwrap_or(false) {
        return Ok(0);
    }
    let (wanted, most) = (settings.duration_ms("raft.leader_lease")?.unwrap_or(0), driver.lease_max_ms());
    if settings.given("raft.leader_lease") && !(1..=most).contains(&wanted) {
        let cause =
            format!("with this election timeout a lease is at most {most}ms; raft.lease_reads = false turns them off");
        return Err(settings.bad("raft.leader_lease", cause));
    }
    Ok(wanted.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::KEYS;

    fn lease(flags: &[(&'static str, &str)]) -> Result<u64, String> {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, Some((*value).to_owned()))).collect();
        let settings = Settings::load(KEYS, None, "NONE_", std::iter::empty(), &flags).map_err(|it| it.to_string())?;
        lease_ms(&settings, &raftgrid_driver::Config::new(1)).map_err(|error| error.to_string())
    }

    #[test]
    fn leases_are_off_unless_asked_for_and_never_longer_than_is_safe() {
        assert_eq!(lease(&[]), Ok(0));
        assert_eq!(lease(&[("raft.leader_lease", "100ms")]), Ok(0));
        assert_eq!(lease(&[("raft.lease_reads", "true")]), Ok(500));
        assert_eq!(lease(&[("raft.lease_reads", "true"), ("raft.leader_lease", "760ms")]), Ok(760));
        let refused = lease(&[("raft.lease_reads", "true"), ("raft.leader_lease", "761ms")]).unwrap_err();
        assert!(refused.contains("at most 760ms"), "{refused}");
    }
}
