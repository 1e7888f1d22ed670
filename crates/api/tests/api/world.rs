//! A replica for the services: commands go straight into the state machine; leadership is a switch.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use futures::executor::block_on;
use grpcio::{CallOption, Client, Environment, Method, MethodType, RpcStatus, Server};
use protobuf::Message;
use raftgrid_api::{ApiConfig, Forwarded, Ports, Services};
use raftgrid_manifest::watched::Watched;
use raftgrid_manifest::{Change, MemRows, Rows};
use raftgrid_proto::v1::*;
use raftgrid_replica::ports::*;
use raftgrid_rpc::methods::{at, Rpc};
use raftgrid_telemetry::Registry;
use sha2::{Digest, Sha256};

#[derive(Default)]
pub struct State {
    pub rows: MemRows,
    pub index: u64,
    /// 0: none.
    pub leader: u64,
    pub heartbeats: Vec<HeartbeatRequest>,
    pub finished: Vec<(String, Vec<u8>)>,
    pub gradients: Vec<GradientMeta>,
    pub models: BTreeMap<String, Vec<u8>>,
    pub queries: Vec<ModelQuery>,
    pub forwarded: Vec<(u64, String)>,
    pub others: BTreeMap<u64, Forwarded>,
    /// The next proposal is answered at once, as by a leader elsewhere; here so many entries are applied before it, one by one.
    pub behind: u64,
}

/// The replica behind the ports.
pub struct World {
    pub node: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl World {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics under the lock")
    }

    fn leads(&self) -> Result<(), CallError> {
        match self.state().leader {
            leader if leader == self.node => Ok(()),
            leader => Err(CallError::NotLeader { leader }),
        }
    }

    pub fn apply(&self, command: Command) -> CommandReply {
        let mut state = self.state();
        state.index += 1;
        let payload = raftgrid_manifest::encode_batch(wall_ms(), vec![command]);
        let applied = raftgrid_manifest::apply(&state.rows, state.index, &[payload]).expect("it applies");
        state.rows.write(&applied.changes);
        self.changed.notify_all();
        applied.replies[0][0].clone()
    }

    /// Rows that a whole training run would have to lead to.
    pub fn write(&self, changes: &[Change]) {
        let mut state = self.state();
        state.index += 1;
        state.rows.write(changes);
        self.changed.notify_all();
    }

    fn position(state: &State) -> u64 {
        state.index << 16 | 0xffff
    }
}

/// Handed to the ports: `changed_after` needs a thread, which needs a handle of its own.
pub struct Handle(pub Arc<World>);

impl Commands for Handle {
    fn propose(&self, commands: Vec<Command>, done: Callback<Vec<CommandReply>>) {
        let world = self.0.clone();
        let behind = std::mem::take(&mut world.state().behind);
        if behind == 0 {
            return done(world.leads().map(|()| commands.into_iter().map(|command| world.apply(command)).collect()));
        }
        let position = (world.state().index + behind + 1) << 16;
        std::thread::spawn(move || {
            for _ in 0..behind {
                std::thread::sleep(Duration::from_millis(1));
                world.write(&[]);
            }
            commands.into_iter().for_each(|command| drop(world.apply(command)));
        });
        done(Ok(vec![CommandReply { position, ..CommandReply::default() }]));
    }
}

impl Reads for Handle {
    fn read(&self, freshness: Freshness, done: Callback<ReadView>) {
        if freshness != Freshness::Local {
            if let Err(error) = self.0.leads() {
                return done(Err(error));
            }
        }
        let state = self.0.state();
        let rows: Arc<dyn Rows + Send + Sync> = Arc::new(state.rows.clone());
        let view = ReadView { rows, position: World::position(&state), age_ms: 0 };
        drop(state);
        done(Ok(view));
    }

    fn changed_after(&self, position: u64, _: Option<Watched>, timeout: Duration, done: Box<dyn FnOnce(u64) + Send>) {
        let world = self.0.clone();
        std::thread::spawn(move || {
            let waited =
                world.changed.wait_timeout_while(world.state(), timeout, |state| World::position(state) <= position);
            let now = World::position(&waited.expect("no test panics under the lock").0);
            done(now);
        });
    }
}

impl Leader for World {
    fn heartbeat(&self, request: HeartbeatRequest, done: Callback<HeartbeatResponse>) {
        if let Err(error) = self.leads() {
            return done(Err(error));
        }
        self.state().heartbeats.push(request);
        let mut response = HeartbeatResponse::new();
        response.set_acknowledged(true);
        done(Ok(response));
    }

    fn poll_task(&self, request: PollTaskRequest, done: Callback<PollTaskResponse>) {
        if let Err(error) = self.leads() {
            return done(Err(error));
        }
        let state = self.state();
        let mut response = PollTaskResponse::new();
        let tasks = raftgrid_manifest::views::tasks_of_node(&state.rows, request.get_node_id()).expect("rows");
        if let Some(row) = tasks.into_iter().next() {
            response.task = row.task;
            response.set_has_task(true);
        }
        drop(state);
        done(Ok(response));
    }

    fn next_shards(&self, _: NextShardsRequest, done: Callback<NextShardsResponse>) {
        done(Ok(NextShardsResponse::new()));
    }

    fn explain(&self, _: String, done: Callback<Option<ExplainTaskResponse>>) {
        done(self.leads().map(|()| None));
    }

    fn nodes(&self, done: Callback<Vec<Node>>) {
        let nodes = raftgrid_manifest::views::get_nodes(&self.state().rows).expect("rows");
        done(self.leads().map(|()| nodes));
    }
}

struct Collected {
    world: Arc<World>,
    what: String,
    data: Vec<u8>,
    gradient: bool,
}

impl Upload for Collected {
    fn write(&mut self, data: &[u8]) -> Result<(), CallError> {
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn finish(self: Box<Self>, digest: Option<Vec<u8>>, done: Callback<Uploaded>) {
        let found: [u8; 32] = Sha256::digest(&self.data).into();
        if digest.is_some_and(|digest| digest != found) {
            return done(Err(CallError::Invalid("digest: differs".to_owned())));
        }
        self.world.state().finished.push((self.what, self.data));
        let mut ack = Ack::new();
        ack.set_success(true);
        done(Ok(if self.gradient {
            Uploaded::Ack(ack)
        } else {
            Uploaded::Artifact { artifact_id: 77, digest: found, version: 1, existing: false }
        }));
    }
}

struct Kept(Vec<u8>);

impl Download for Kept {
    fn total_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
    fn artifact_id(&self) -> u64 {
        77
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, CallError> {
        let from = offset as usize;
        let length = buffer.len().min(self.0.len() - from);
        buffer[..length].copy_from_slice(&self.0[from..from + length]);
        Ok(length)
    }
}

impl Bytes for Handle {
    fn begin(
        &self,
        _: &Caller,
        purpose: Purpose,
        _: Option<u64>,
        _: Option<Vec<u8>>,
    ) -> Result<Box<dyn Upload>, CallError> {
        let (what, gradient) = match purpose {
            Purpose::Gradient(meta) => {
                let what = format!("{}/{}/{}", meta.job_id, meta.round, meta.shard);
                self.0.state().gradients.push(meta);
                (what, true)
            }
            Purpose::InitModel(meta) => (meta.job_id, true),
            Purpose::Value => ("value".to_owned(), false),
            Purpose::Artifact(meta) => (format!("{}:{}", meta.kind, meta.name), false),
        };
        Ok(Box::new(Collected { world: self.0.clone(), what, data: Vec::new(), gradient }))
    }

    fn open_model(&self, query: &ModelQuery) -> Result<(u64, Box<dyn Download>), CallError> {
        let mut state = self.0.state();
        state.queries.push(query.clone());
        let model = state.models.get(&query.job_id).cloned();
        Ok((4, Box::new(Kept(model.ok_or_else(|| CallError::NotFound("no model".to_owned()))?))))
    }

    fn open_artifact(&self, artifact: &str) -> Result<Box<dyn Download>, CallError> {
        let found = self.0.state().models.get(artifact).cloned();
        Ok(Box::new(Kept(found.ok_or_else(|| CallError::NotFound(format!("artifact {artifact}")))?)))
    }

    fn recompute(&self, _: &str, _: u64) -> Result<Recomputed, CallError> {
        Err(CallError::NotFound("nothing was summed here".to_owned()))
    }

    fn fragment_sink(&self, _: u64, _: u32, _: u64, _: [u8; 32]) -> Result<Box<dyn FragmentSink>, CallError> {
        Err(CallError::Internal("not asked by the services".to_owned()))
    }

    fn open_fragment(&self, _: u64, _: u32) -> Result<Box<dyn Download>, CallError> {
        Err(CallError::Internal("not asked by the services".to_owned()))
    }
}

impl Peers for World {
    fn put_fragment(&self, _: u64, _: u64, _: u32, _: [u8; 32], _: &mut dyn Download) -> Result<(), CallError> {
        Err(CallError::Internal("not asked by the services".to_owned()))
    }

    fn get_fragment(
        &self,
        _: u64,
        _: u64,
        _: u32,
        _: &mut dyn FnMut(&[u8]) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        Err(CallError::Internal("not asked by the services".to_owned()))
    }

    fn forward(&self, node: u64, method: &str, request: Vec<u8>, _: Duration) -> Result<Vec<u8>, CallError> {
        let other = {
            let mut state = self.state();
            state.forwarded.push((node, method.to_owned()));
            state.others.get(&node).cloned()
        };
        let other = other.ok_or_else(|| CallError::Unavailable(format!("replica {node} cannot be reached")))?;
        Ok(block_on(other.call(method, "", request)))
    }
}

impl Cluster for World {
    fn state(&self) -> StateResponse {
        let mut state = StateResponse::new();
        state.set_node_id(self.node);
        state
    }
    fn stats(&self) -> StatsResponse {
        StatsResponse::new()
    }
    fn members(&self) -> MembersResponse {
        let mut response = MembersResponse::new();
        for node in self.state().others.keys().copied().chain([self.node]) {
            let mut member = Member::new();
            member.set_node_id(node);
            member.set_client_address(format!("127.0.0.1:{node}"));
            response.mut_members().push(member);
        }
        response
    }
    fn leader(&self) -> LeaderResponse {
        let mut response = LeaderResponse::new();
        let leader = World::state(self).leader;
        response.set_node_id(leader);
        if leader != 0 {
            response.set_address(format!("127.0.0.1:{leader}"));
        }
        response
    }
    fn snapshot(&self, done: Callback<u64>) {
        done(Ok(9));
    }
    fn change_member(&self, change: MemberChange, done: Callback<u64>) {
        done(self.leads().map(|()| change.node_id));
    }
    fn transfer(&self, _: u64, done: Callback<()>) {
        done(self.leads());
    }
    fn verify_leader(&self, done: Callback<u64>) {
        done(self.leads().map(|()| 1));
    }
    fn barrier(&self, done: Callback<u64>) {
        done(self.leads().map(|()| 1));
    }
    fn set_time(&self, unix_ms: u64, done: Callback<(u64, u64)>) {
        done(self.leads().map(|()| (1, unix_ms)));
    }
    fn shutdown(&self) {}
}

/// A server with its replica and a client on a connection of its own.
pub struct Node1 {
    pub world: Arc<World>,
    pub services: Services,
    pub client: Client,
    pub env: Arc<Environment>,
    pub port: u16,
    _server: Server,
    _logs: tempfile::TempDir,
}

/// Starts replica `node`, which knows `leader`.
pub fn start(node: u64, leader: u64) -> Node1 {
    let state = State { leader, ..State::default() };
    let world = Arc::new(World { node, state: Mutex::new(state), changed: Condvar::new() });
    let handle = Arc::new(Handle(world.clone()));
    let ports = Ports {
        commands: handle.clone(),
        reads: handle.clone(),
        leader: world.clone(),
        bytes: handle,
        peers: world.clone(),
        cluster: world.clone(),
    };
    let logs = tempfile::tempdir().expect("a temporary directory");
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let config = ApiConfig { node_id: node, log_dir: logs.path().to_owned(), logger, metrics: Registry::new() };
    let services = Services::new(config, Arc::new(ports)).expect("the directory is empty");
    let env = raftgrid_rpc::environment("test");
    let (server, port) = raftgrid_rpc::serve::listen(&env, "127.0.0.1:0", services.public()).expect("a free port");
    let client = Client::new(raftgrid_rpc::channel(&env, &format!("127.0.0.1:{port}")));
    Node1 { world, services, client, env, port, _server: server, _logs: logs }
}

impl Node1 {
    /// A client on another connection.
    pub fn other_client(&self) -> Client {
        Client::new(raftgrid_rpc::channel(&self.env, &format!("127.0.0.1:{}", self.port)))
    }

    pub fn call<Req: Message, Resp: Message + Unpin>(
        &self,
        rpc: &Rpc<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, RpcStatus> {
        call(&self.client, &rpc.method, request)
    }
}

pub fn option() -> CallOption {
    // A bound for a broken test, not part of any verdict.
    CallOption::default().timeout(Duration::from_secs(60))
}

pub fn call<Req: Message, Resp: Message + Unpin>(
    client: &Client,
    method: &Method<Req, Resp>,
    request: &Req,
) -> Result<Resp, RpcStatus> {
    client.unary_call(method, request, option()).map_err(status_of)
}

pub fn status_of(error: grpcio::Error) -> RpcStatus {
    match error {
        grpcio::Error::RpcFailure(status) => status,
        other => panic!("not a status: {other}"),
    }
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}

/// A unary method under another name.
pub fn unary<Req: Message, Resp: Message>(path: &'static str) -> Method<Req, Resp> {
    at(MethodType::Unary, path)
}

pub fn submission(task_data: &[u8]) -> SubmitTaskRequest {
    let mut request = SubmitTaskRequest::new();
    request.set_task_type("command".to_owned());
    request.set_task_data(task_data.to_vec());
    request
}
