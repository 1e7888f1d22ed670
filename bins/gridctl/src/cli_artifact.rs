//! The verbs of `gridctl artifact`.

use std::path::PathBuf;

use structopt::StructOpt;

#[derive(Debug, StructOpt)]
pub(crate) enum Artifact {
    /// Upload a file: under a name, its next version
    Push {
        /// File to upload; with --from, NAME
        #[structopt(parse(from_os_str))]
        file: PathBuf,
        /// Name [default: none; found by its id]
        #[structopt(value_name = "NAME", conflicts_with = "name")]
        to: Option<String>,
        /// The same
        #[structopt(long)]
        name: Option<String>,
        /// Name what is there (an id, NAME@7, JOB/model@latest) instead of uploading a file; no bytes are copied
        #[structopt(long, value_name = "ARTIFACT")]
        from: Option<String>,
        /// Delete older versions of the name than the newest N [default: none]
        #[structopt(long, value_name = "N", default_value = "0", hide_default_value = true)]
        keep: u32,
    },
    /// Download an artifact
    Get {
        /// Id, NAME (its newest version), NAME@7, NAME@latest, or JOB/model@latest, JOB/model@7
        artifact: String,
        /// Where to write it
        #[structopt(parse(from_os_str), required_unless = "to")]
        file: Option<PathBuf>,
        /// The same
        #[structopt(short = "o", long, parse(from_os_str), value_name = "FILE", conflicts_with = "file")]
        to: Option<PathBuf>,
    },
    /// All artifacts, or the versions of a name
    Ls {
        /// Name
        name: Option<String>,
        /// Who holds how many bytes: principals and replicas
        #[structopt(long, conflicts_with = "name")]
        usage: bool,
    },
    /// Delete artifacts: a version's number is never given again
    Rm {
        /// Ids, NAME@7, NAME@latest, or NAME
        #[structopt(required = true)]
        artifacts: Vec<String>,
        /// Also all versions of a NAME, or an id that has several names
        #[structopt(long)]
        all: bool,
    },
    /// Read artifacts whole from each replica: the SHA-256 must be the one that was announced
    Verify {
        /// Ids or names
        #[structopt(required = true)]
        artifacts: Vec<String>,
    },
}
