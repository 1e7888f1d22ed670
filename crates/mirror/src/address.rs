//! Where the mirror is: `s3://BUCKET[/PREFIX]` or `file:///DIR`, and how an S3-compatible store is reached.

use std::path::PathBuf;
use std::str::FromStr;

/// A place for copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A bucket, and the folder in it that is the mirror's ("" for all of it).
    S3 {
        /// The bucket.
        bucket: String,
        /// Parts of the prefix, none of them empty, `.` or `..`.
        prefix: Vec<String>,
    },
    /// A directory that exists.
    Directory(PathBuf),
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither of the two forms.
    #[error("a mirror is s3://BUCKET/PREFIX or file:///DIRECTORY")]
    Form,
    /// The name of a bucket has other rules.
    #[error("a bucket's name is of lower-case letters, digits, `.` and `-`")]
    Bucket,
    /// Empty, `.`, `..`, or with characters that are not taken.
    #[error("the parts of a prefix are of letters, digits, `.`, `_`, `-` and `=`, and none is empty, `.` or `..`")]
    Prefix,
    /// A relative one would depend on where the program was started.
    #[error("a directory is given from the root on: file:///srv/mirror")]
    Relative,
    /// Bytes and signatures would go through the net in the clear.
    #[error("http:// off the loopback shows every byte to the net; use https://, or --insecure")]
    Plain,
    /// Of the endpoint.
    #[error("an endpoint is http://HOST[:PORT] or https://HOST[:PORT], without a user")]
    Endpoint,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("file://") {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(AddressError::Relative);
            }
            return Ok(Self::Directory(PathBuf::from(path)));
        }
        let rest = text.strip_prefix("s3://").ok_or(AddressError::Form)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let of_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(of_bucket) {
            return Err(AddressError::Bucket);
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let parts: Vec<String> = prefix.split('/').filter(|_| !prefix.is_empty()).map(str::to_owned).collect();
        let of_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=');
        if parts.iter().any(|part| matches!(part.as_str(), "" | "." | "..") || !part.chars().all(of_part)) {
            return Err(AddressError::Prefix);
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: parts })
    }
}

/// Checks the URL of an S3-compatible store. `insecure`: it may be http:// off the loopback.
pub fn check_endpoint(endpoint: &str, insecure: bool) -> Result<(), AddressError> {
    let (plain, rest) = match (endpoint.strip_prefix("http://"), endpoint.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        (None, None) => return Err(AddressError::Endpoint),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some((_, _)) if !authority.ends_with(']') => return Err(AddressError::Endpoint),
        _ => authority,
    };
    if host.is_empty() || host.contains('@') {
        return Err(AddressError::Endpoint);
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if plain && !loopback && !insecure {
        return Err(AddressError::Plain);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_with_a_prefix_or_a_directory_from_the_root_on() {
        let s3 = |bucket: &str, prefix: &[&str]| Address::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.iter().map(|part| (*part).to_owned()).collect(),
        };
        assert_eq!("s3://models".parse(), Ok(s3("models", &[])));
        assert_eq!("s3://models/".parse(), Ok(s3("models", &[])));
        assert_eq!("s3://my.models-2/raft/grid=1/".parse(), Ok(s3("my.models-2", &["raft", "grid=1"])));
        assert_eq!("file:///srv/mirror".parse(), Ok(Address::Directory(PathBuf::from("/srv/mirror"))));
        for (bad, error) in [
            ("/srv/mirror", AddressError::Form),
            ("gs://models", AddressError::Form),
            ("file://srv/mirror", AddressError::Relative),
            ("file://", AddressError::Relative),
            ("s3://", AddressError::Bucket),
            ("s3://user:secret@models", AddressError::Bucket),
            ("s3://Models/x", AddressError::Bucket),
            ("s3://models//x", AddressError::Prefix),
            ("s3://models/a/../b", AddressError::Prefix),
            ("s3://models/.", AddressError::Prefix),
            ("s3://models/a?b", AddressError::Prefix),
        ] {
            assert_eq!(bad.parse::<Address>(), Err(error), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_in_the_clear_is_for_the_loopback_or_for_those_who_say_so() {
        for good in ["https://s3.example.com", "http://127.0.0.1:9000", "http://[::1]:9000/", "http://localhost"] {
            assert_eq!(check_endpoint(good, false), Ok(()), "{good}");
        }
        for plain in ["http://s3.example.com", "http://10.0.0.7:9000", "http://127.0.0.1.example.com"] {
            assert_eq!(check_endpoint(plain, false), Err(AddressError::Plain), "{plain}");
            assert_eq!(check_endpoint(plain, true), Ok(()), "{plain}");
        }
        for bad in ["s3.example.com", "https://", "https://user:secret@s3.example.com", "https://a:b", "ftp://a"] {
            assert_eq!(check_endpoint(bad, true), Err(AddressError::Endpoint), "{bad}");
        }
    }
}
