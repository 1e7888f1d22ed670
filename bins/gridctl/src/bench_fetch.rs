//! `gridctl bench fetch`: one artifact to several workers at the same time, each with a connection and a file of its own, beside the same bytes from
//! nginx. Who reads from us verifies a crc32c for each chunk and the SHA-256; of nginx's clients one kind verifies the SHA-256 too, and the
//! other only counts: what sendfile can do here at most.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::Instant;

use raftgrid_client::{Client, ClientConfig, Upload};
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use crate::bench::{folder, load, numbers, program};
use crate::bench_nginx::Nginx;
use crate::bench_side::Side;
use crate::bench_spread::Spread;
use crate::cli_bench::BenchFetch;
use crate::context::{Context, Interrupt};
use crate::failure::{Failure, Result};
use crate::limits::{BENCH_AT_ONCE_MAX, BENCH_MIB_MAX, BENCH_TRANSFER_TIMEOUT};
use crate::process::Process;

/// Name of the file.
const NAME: &str = "bytes";

/// Who sends, and what the reader does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Ours,
    Nginx,
    /// Without any check, and the bytes are thrown away.
    NginxAlone,
}

const ALL: [Source; 3] = [Source::Ours, Source::Nginx, Source::NginxAlone];

/// One round of one side.
#[derive(Clone, Copy, Debug)]
struct Fetched {
    from: Source,
    workers: usize,
    gb_per_second: f64,
    /// Of the servers.
    cpu_seconds: f64,
    /// Of the replica that needed most; 0 for nginx.
    peak_bytes: u64,
}

/// What all downloads read, and where they put it.
struct Bench<'a> {
    /// One for each worker, which all of its downloads are written over; none: they are thrown away. In a new file, a virtual machine may have to
    /// get the pages back from its host first, at a tenth of the speed, or not, by what was done before.
    files: Vec<File>,
    side: &'a Side,
    nginx: Option<&'a Nginx>,
    artifact: String,
    digest: [u8; 32],
    bytes: u64,
}

pub(crate) fn fetch(context: &Context, args: &BenchFetch) -> Result<()> {
    if !(1..=BENCH_MIB_MAX).contains(&args.mib) || args.rounds == 0 {
        let hint = format!("--mib 1 to {BENCH_MIB_MAX}, --rounds 1 or more");
        return Err(Failure::usage(format!("{} MiB in {} rounds cannot be measured", args.mib, args.rounds), hint));
    }
    let counts = numbers(&args.workers, BENCH_AT_ONCE_MAX, "--workers 1,2,4")?;
    let interrupt = Interrupt::install()?;
    let program = program(&args.nginx, "apt install nginx, --nginx FILE, or --nginx none")?;
    let folder = folder(context)?;
    let root = folder.path().join("root");
    let (path, bytes) = (root.join(NAME), args.mib << 20);
    std::fs::create_dir_all(&root).map_err(disk)?;
    let digest = random_file(&path, bytes)?;
    let side = Side::raftgrid(&folder.path().join("raftgrid"), false, &interrupt)?;
    let start = |program| Nginx::start(program, &folder.path().join("nginx"), &root);
    let nginx = program.as_deref().map(start).transpose()?;
    let upload = Upload { name: NAME.to_owned(), kind: "file".to_owned(), ..Upload::default() };
    let stored = client(&side)?.put_artifact(&upload, &mut File::open(&path).map_err(disk)?, &mut |_, _| {})?;
    let files = match args.discard {
        true => Vec::new(),
        false => {
            let most = counts.iter().copied().max().unwrap_or(0);
            (0..most).map(|_| full_file(folder.path(), args.mib)).collect::<Result<Vec<_>>>()?
        }
    };
    let bench = Bench {
        files,
        side: &side,
        nginx: nginx.as_ref(),
        artifact: stored.get_artifact_id().to_owned(),
        digest,
        bytes,
    };
    let sink = if args.discard { "thrown away" } else { "written over a file" };
    context.output.note(format_args!(
        "{} MiB, {sink} on both sides; {} rounds in turn; load {}",
        args.mib,
        args.rounds,
        load()
    ));
    let mut found = Vec::new();
    for workers in counts {
        for at in 0..=args.rounds {
            // Each comes first as often as the others.
            let order = ALL.into_iter().cycle().skip(at as usize % ALL.len()).take(ALL.len());
            for from in order.filter(|from| *from == Source::Ours || bench.nginx.is_some()) {
                interrupt.check()?;
                let round = bench.round(from, workers)?;
                // The first one decodes the artifact and fills the caches.
                if at > 0 {
                    found.push(round);
                }
            }
        }
    }
    show(context, &side.version, nginx.as_ref().map_or("", |nginx| nginx.version.as_str()), &found);
    Ok(())
}

fn disk(error: std::io::Error) -> Failure {
    Failure::new(format!("a file of the benchmark: {error}"), "--dir DIR with more room")
}

/// A file of random bytes; its SHA-256.
fn random_file(path: &Path, bytes: u64) -> Result<[u8; 32]> {
    let mut random = File::open("/dev/urandom").map_err(disk)?.take(bytes);
    let (mut file, mut hash) = (File::create(path).map_err(disk)?, Sha256::new());
    let mut piece = vec![0; 1 << 20];
    loop {
        let got = random.read(&mut piece).map_err(disk)?;
        if got == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&piece[..got]);
        file.write_all(&piece[..got]).map_err(disk)?;
    }
}

/// A file without a name, full.
fn full_file(folder: &Path, mib: u64) -> Result<File> {
    let (mut file, piece) = (tempfile::tempfile_in(folder).map_err(disk)?, vec![1; 1 << 20]);
    for _ in 0..mib {
        file.write_all(&piece).map_err(disk)?;
    }
    Ok(file)
}

fn client(side: &Side) -> Result<Client> {
    let mut config = ClientConfig::new(side.addresses());
    config.transfer_timeout = BENCH_TRANSFER_TIMEOUT;
    config.name = "fetch".to_owned();
    Ok(Client::new(config)?)
}

impl Bench<'_> {
    /// Connections are made while the clock runs, on both sides.
    fn round(&self, from: Source, workers: usize) -> Result<Fetched> {
        let clients = match from {
            Source::Ours => (0..workers).map(|_| client(self.side).map(Some)).collect::<Result<Vec<_>>>()?,
            Source::Nginx | Source::NginxAlone => vec![None; workers],
        };
        let replicas = self.side.processes();
        replicas.iter().for_each(Process::forget_peak);
        let (cpu, begin) = (self.cpu_seconds(from), Instant::now());
        let outcomes: Vec<Result<()>> = thread::scope(|scope| {
            let one = |(at, client): (usize, Option<Client>)| {
                let file = self.files.get(at).filter(|_| from != Source::NginxAlone);
                scope.spawn(move || self.download(from, client, file))
            };
            let threads: Vec<_> = clients.into_iter().enumerate().map(one).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|it| it.unwrap_or_else(|_| Err(Failure::new("a download panicked", "again, and report it"))))
                .collect()
        });
        outcomes.into_iter().collect::<Result<()>>()?;
        let took = begin.elapsed().as_secs_f64();
        let peaks = replicas.iter().map(Process::peak_bytes).max();
        Ok(Fetched {
            from,
            workers,
            gb_per_second: self.bytes as f64 * workers as f64 / 1e9 / took,
            cpu_seconds: self.cpu_seconds(from) - cpu,
            peak_bytes: peaks.filter(|_| from == Source::Ours).unwrap_or(0),
        })
    }

    fn cpu_seconds(&self, from: Source) -> f64 {
        match from {
            Source::Ours => self.side.cpu_seconds(),
            Source::Nginx | Source::NginxAlone => self.nginx.map_or(0.0, Nginx::cpu_seconds),
        }
    }

    fn download(&self, from: Source, client: Option<Client>, mut file: Option<&File>) -> Result<()> {
        if let Some(file) = &mut file {
            file.rewind().map_err(disk)?;
        }
        let (digest, got) = match (client, self.nginx) {
            (Some(client), _) => {
                let mut sink = Sink(file);
                let head = client.get_artifact(&self.artifact, &mut sink, &mut |_, _| {})?;
                (head.digest, head.total_bytes)
            }
            (None, Some(nginx)) => {
                let mut hash = (from == Source::Nginx).then(Sha256::new);
                let got = Nginx::get(nginx.address(), NAME, &mut |data| {
                    if let Some(hash) = &mut hash {
                        hash.update(data);
                    }
                    file.as_mut().map_or(Ok(()), |file| file.write_all(data)).map_err(disk)
                })?;
                (hash.map_or(self.digest.to_vec(), |hash| hash.finalize().to_vec()), got)
            }
            (None, None) => return Err(Failure::new("there is no nginx", "--nginx FILE")),
        };
        if digest != self.digest || got != self.bytes {
            return Err(Failure::new("other bytes came than were stored", "again, and report it"));
        }
        Ok(())
    }
}

/// A file, or nothing.
struct Sink<'a>(Option<&'a File>);

impl Write for Sink<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.as_mut().map_or(Ok(data.len()), |file| file.write(data))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn show(context: &Context, version: &str, nginx: &str, found: &[Fetched]) {
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    let mut counts: Vec<usize> = found.iter().map(|round| round.workers).collect();
    counts.dedup();
    for workers in counts {
        let of = |from: Source| found.iter().filter(move |round| round.from == from && round.workers == workers);
        for from in ALL.into_iter().filter(|from| of(*from).next().is_some()) {
            let side = match from {
                Source::Ours => version.to_owned(),
                Source::Nginx => format!("{nginx}, SHA-256 by the reader"),
                Source::NginxAlone => format!("{nginx}, counted and thrown away"),
            };
            let speed = Spread::of(of(from).map(|round| round.gb_per_second));
            let cpu = Spread::of(of(from).map(|round| round.cpu_seconds));
            let peak = of(from).map(|round| round.peak_bytes >> 20).max().unwrap_or(0);
            // Round by round: what slows both down cancels out.
            let beside = |other: Source| {
                let pairs = of(Source::Ours).zip(of(other));
                Spread::of(pairs.map(|(ours, theirs)| ours.gb_per_second / theirs.gb_per_second))
            };
            let ratio = (from != Source::Ours).then(|| beside(from));
            rows.push(vec![
                side.clone(),
                workers.to_string(),
                speed.digits(2),
                ratio.as_ref().map(|ratio| ratio.digits(2)).unwrap_or_default(),
                cpu.digits(2),
                if peak > 0 { peak.to_string() } else { String::new() },
            ]);
            json.push(json!({
                "side": side, "workers": workers, "gb_per_second": speed.json(), "ours_to_it": ratio.map(|it| it.json()),
                "server_cpu_seconds": cpu.json(), "replica_peak_mib": peak,
            }));
        }
    }
    let headers = [
        "side",
        "workers",
        "GB/s, all together",
        "ours ÷ it, same round",
        "CPU s of the servers",
        "peak MiB of a replica",
    ];
    context.output.show(&headers, rows, &Value::Array(json));
}
