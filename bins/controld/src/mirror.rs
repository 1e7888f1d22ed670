//! The mirror of this replica: what the settings say, and which artifacts there are.

use std::sync::Arc;

use anyhow::Result;
use raftgrid_driver::Role;
use raftgrid_manifest::rows::RowsError;
use raftgrid_manifest::views;
use raftgrid_mirror::limits::{BYTES_PER_SECOND, BYTES_PER_SECOND_MIN};
use raftgrid_mirror::{check_endpoint, Address, Artifact, Body, Config, Mirror, Reach, Seen, Source};
use raftgrid_proto::v1::{ArtifactRow, ArtifactState};
use raftgrid_replica::ports::{Bytes, Download};
use raftgrid_replica::Replica;
use raftgrid_settings::{Settings, SettingsError};
use raftgrid_telemetry::Registry;
use slog::{info, Logger};

/// Variables that name the URL of a store, the one that counts first.
const ENDPOINT_VARIABLES: &[&str] = &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];

/// Where the copies go, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MirrorPlan {
    /// As it was given.
    url: String,
    address: Address,
    reach: Reach,
    bytes_per_second: u64,
    without_kinds: Vec<String>,
}

/// What the settings say; `variable` looks into the environment.
pub(crate) fn plan(
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<MirrorPlan>, SettingsError> {
    let given = |key: &str| settings.get(key).filter(|value| !value.is_empty()).map(str::to_owned);
    let (endpoint, region) = (given("mirror.endpoint"), given("mirror.region"));
    let Some(url) = given("mirror.url") else {
        let alone = [("mirror.endpoint", endpoint), ("mirror.region", region)];
        return match alone.iter().find(|(_, value)| value.is_some()) {
            Some((key, _)) => Err(settings.bad(key, "it needs `mirror.url`, too")),
            None => Ok(None),
        };
    };
    let address: Address = url.parse().map_err(|cause| settings.bad("mirror.url", cause))?;
    let reach = match &address {
        Address::S3 { .. } => {
            let insecure = settings.parse("insecure")?.unwrap_or(false);
            reach(settings, endpoint, region, insecure, variable)?
        }
        Address::Directory(_) => Reach::default(),
    };
    let bytes_per_second = settings.parse("mirror.bytes_per_second")?.unwrap_or(BYTES_PER_SECOND);
    if (1..BYTES_PER_SECOND_MIN).contains(&bytes_per_second) {
        let cause = format!("0 is no limit, and the slowest rate is {BYTES_PER_SECOND_MIN}");
        return Err(settings.bad("mirror.bytes_per_second", cause));
    }
    let kinds = settings.get("mirror.without_kinds").unwrap_or_default().split(',').map(str::trim);
    let without_kinds = kinds.filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    Ok(Some(MirrorPlan { url, address, reach, bytes_per_second, without_kinds }))
}

/// The endpoint of the settings, else that of the environment; neither: AWS's own for the region.
fn reach(
    settings: &Settings,
    endpoint: Option<String>,
    region: Option<String>,
    insecure: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Reach, SettingsError> {
    let of_environment = || ENDPOINT_VARIABLES.iter().find_map(|name| variable(name).filter(|it| !it.is_empty()));
    let endpoint = endpoint.or_else(of_environment);
    if let Some(url) = &endpoint {
        check_endpoint(url, insecure).map_err(|cause| settings.bad("mirror.endpoint", format!("{url}: {cause}")))?;
    }
    let plain = endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    Ok(Reach { endpoint, region, plain })
}

/// Starts the mirror.
pub(crate) fn start(
    plan: &MirrorPlan,
    cluster_id: &str,
    replica: &Arc<Replica>,
    registry: &Registry,
    logger: &Logger,
) -> Result<Mirror> {
    let config = Config {
        address: plan.address.clone(),
        reach: plan.reach.clone(),
        cluster_id: cluster_id.to_owned(),
        node: replica.node(),
        bytes_per_second: plan.bytes_per_second,
        without_kinds: plan.without_kinds.clone(),
    };
    let source = Committed { replica: replica.clone() };
    let mirror = Mirror::start(config, Box::new(source), registry, logger)?;
    info!(logger, "artifacts are mirrored by the leader"; "to" => &plan.url);
    Ok(mirror)
}

/// The artifacts of this replica, as it has applied them.
struct Committed {
    replica: Arc<Replica>,
}

impl Source for Committed {
    fn leads(&self) -> bool {
        self.replica.handle().status().role == Role::Leader
    }

    fn rows(&self, from: u64, most: usize) -> Result<Vec<(u64, Seen)>, String> {
        let view = self.replica.view();
        let mut found = Vec::new();
        views::artifact_rows_from(view.rows.as_ref(), from, |row| {
            found.push((row.artifact_id, seen(&row, None)));
            found.len() < most
        })
        .map_err(|error| error.to_string())?;
        Ok(found)
    }

    fn row(&self, artifact_id: u64) -> Result<Seen, String> {
        let view = self.replica.view();
        let rows = view.rows.as_ref();
        let looked = || -> Result<Seen, RowsError> {
            let Some(row) = views::artifact_row(rows, artifact_id)? else { return Ok(Seen::Gone) };
            Ok(seen(&row, views::model_version_of(rows, &row)?))
        };
        looked().map_err(|error| error.to_string())
    }

    fn open(&self, artifact_id: u64) -> Result<Box<dyn Body>, String> {
        let opened = self.replica.open_artifact(&artifact_id.to_string()).map_err(|error| error.to_string())?;
        Ok(Box::new(Verified(opened)))
    }
}

/// What the row says. One whose digest is no SHA-256 cannot be: apply refuses it.
fn seen(row: &ArtifactRow, model_version: Option<u64>) -> Seen {
    let digest: Option<[u8; 32]> = row.digest.as_slice().try_into().ok();
    match (row.state, digest) {
        (ArtifactState::ARTIFACT_BEGUN, _) => Seen::Begun,
        (ArtifactState::ARTIFACT_COMMITTED, Some(digest)) => Seen::Committed(Artifact {
            artifact_id: row.artifact_id,
            name: row.name.clone(),
            kind: row.kind.clone(),
            job_id: row.job_id.clone(),
            model_version,
            total_bytes: row.total_bytes,
            digest,
        }),
        (ArtifactState::ARTIFACT_COMMITTED, None) | (ArtifactState::ARTIFACT_DELETING, _) => Seen::Gone,
    }
}

/// Bytes that the replica verified block by block, from its own disk or others'.
struct Verified(Box<dyn Download>);

impl Body for Verified {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, String> {
        self.0.read_at(offset, buffer).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::KEYS;

    fn planned(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> Result<Option<MirrorPlan>, String> {
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, Some((*value).to_owned()))).collect();
        let settings = Settings::load(KEYS, None, "NONE_", std::iter::empty(), &flags).map_err(|it| it.to_string())?;
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        plan(&settings, &variable).map_err(|error| error.to_string())
    }

    const URL: (&str, &str) = ("mirror.url", "s3://models/raftgrid");

    #[test]
    fn there_is_no_mirror_unless_one_is_named_and_gradients_stay_away_unless_they_are_wanted() {
        assert_eq!(planned(&[], &[("AWS_ENDPOINT_URL", "nonsense")]).unwrap(), None);
        let plan = planned(&[("mirror.url", "file:///srv/mirror")], &[]).unwrap().unwrap();
        assert_eq!(
            (plan.bytes_per_second, plan.without_kinds),
            (BYTES_PER_SECOND, ["gradient", "shard-state", "value"].map(str::to_owned).to_vec())
        );
        let kinds = |list: &str| planned(&[URL, ("mirror.without_kinds", list)], &[]).unwrap().unwrap().without_kinds;
        assert_eq!((kinds(""), kinds("gradient, state").len()), (vec![], 2));
    }

    #[test]
    fn the_endpoint_of_the_settings_counts_and_one_in_the_clear_is_refused_wherever_it_is_from() {
        let reach = |flags: &[(&'static str, &str)], variables: &[(&str, &str)]| {
            planned(&[&[URL], flags].concat(), variables).map(|plan| plan.unwrap().reach)
        };
        assert_eq!(reach(&[], &[]).unwrap(), Reach::default());
        let here = ("mirror.endpoint", "http://127.0.0.1:9000");
        let there = ("AWS_ENDPOINT_URL", "http://store.example.com");
        let found = reach(&[here], &[there]).unwrap();
        assert_eq!((found.endpoint.as_deref(), found.plain), (Some("http://127.0.0.1:9000"), true));
        let error = reach(&[], &[there]).unwrap_err();
        assert!(error.contains("http://store.example.com") && error.contains("--insecure"), "{error}");
        assert!(reach(&[("insecure", "true")], &[there]).unwrap().plain);
        assert!(!reach(&[], &[("AWS_ENDPOINT_URL", "https://store.example.com")]).unwrap().plain);
    }

    #[test]
    fn each_wrong_setting_of_the_mirror_is_named() {
        for (flags, expected) in [
            (vec![("mirror.url", "/srv/mirror")], "`mirror.url` = `/srv/mirror`"),
            (vec![URL, ("mirror.endpoint", "store:9000")], "an endpoint is http://HOST"),
            (vec![URL, ("mirror.bytes_per_second", "10")], "the slowest rate is"),
            (vec![("mirror.endpoint", "http://127.0.0.1:1")], "it needs `mirror.url`, too"),
        ] {
            let error = planned(&flags, &[]).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
