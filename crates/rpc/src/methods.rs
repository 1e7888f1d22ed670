//! Every RPC of the contract: its full path, its other names, its messages. A call that has no handler answers UNIMPLEMENTED.

use grpcio::{Marshaller, Method, MethodType};
use protobuf::Message;
use raftgrid_proto::v1::*;

/// A method and the names under which older clients know it.
pub struct Rpc<Req: 'static, Resp: 'static> {
    /// Under its own name; what clients of ours call.
    pub method: Method<Req, Resp>,
    /// Full paths of the same handler for clients that exist.
    pub aliases: &'static [&'static str],
}

const fn marshaller<T: Message>() -> Marshaller<T> {
    Marshaller { ser: grpcio::pb_ser, de: grpcio::pb_de }
}

/// The same messages under another path.
pub const fn at<Req: Message, Resp: Message>(ty: MethodType, name: &'static str) -> Method<Req, Resp> {
    Method { ty, name, req_mar: marshaller(), resp_mar: marshaller() }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident : $ty:ident $path:literal ($req:ty) -> $resp:ty $(, $alias:literal)*;)*) => {
        $(
            #[doc = concat!("`", $path, "`")]
            pub static $name: Rpc<$req, $resp> = Rpc { method: at(MethodType::$ty, $path), aliases: &[$($alias),*] };
        )*
        /// (path, aliases) of every method in the table.
        pub const PATHS: &[(&str, &[&str])] = &[$(($path, &[$($alias),*])),*];
    };
}

methods! {
    SUBMIT_TASK: Unary "/raftgrid.v1.TaskService/SubmitTask" (SubmitTaskRequest) -> SubmitTaskResponse, "/raftpb.TaskService/SubmitTask";
    GET_TASK: Unary "/raftgrid.v1.TaskService/GetTask" (GetTaskRequest) -> GetTaskResponse, "/raftpb.TaskService/GetTask";
    LIST_TASKS: Unary "/raftgrid.v1.TaskService/ListTasks" (ListTasksRequest) -> ListTasksResponse, "/raftpb.TaskService/ListTasks";
    CANCEL_TASK: Unary "/raftgrid.v1.TaskService/CancelTask" (CancelTaskRequest) -> CancelTaskResponse;
    RETRY_TASK: Unary "/raftgrid.v1.TaskService/RetryTask" (RetryTaskRequest) -> RetryTaskResponse;
    SUSPEND_TASK: Unary "/raftgrid.v1.TaskService/SuspendTask" (SuspendTaskRequest) -> SuspendTaskResponse;
    RESUME_TASK: Unary "/raftgrid.v1.TaskService/ResumeTask" (ResumeTaskRequest) -> ResumeTaskResponse;
    REQUEUE_TASK: Unary "/raftgrid.v1.TaskService/RequeueTask" (RequeueTaskRequest) -> RequeueTaskResponse;
    SET_TASK_PRIORITY: Unary "/raftgrid.v1.TaskService/SetTaskPriority" (SetTaskPriorityRequest) -> SetTaskPriorityResponse;
    WATCH_TASK: ServerStreaming "/raftgrid.v1.TaskService/WatchTask" (WatchTaskRequest) -> WatchTaskResponse;
    EXPLAIN_TASK: Unary "/raftgrid.v1.TaskService/ExplainTask" (ExplainTaskRequest) -> ExplainTaskResponse;
    SESSION: Duplex "/raftgrid.v1.TaskService/Session" (SessionBatch) -> SessionAnswers;
    STREAM_LOGS: ServerStreaming "/raftgrid.v1.TaskService/StreamLogs" (StreamLogsRequest) -> LogChunk;

    HEARTBEAT: Unary "/raftgrid.v1.NodeService/Heartbeat" (HeartbeatRequest) -> HeartbeatResponse, "/raftpb.NodeService/Heartbeat";
    POLL_TASK: Unary "/raftgrid.v1.NodeService/PollTask" (PollTaskRequest) -> PollTaskResponse, "/raftpb.NodeService/PollTask";
    REPORT_TASK_RESULT: Unary "/raftgrid.v1.NodeService/ReportTaskResult" (ReportTaskResultRequest) -> ReportTaskResultResponse, "/raftpb.NodeService/ReportTaskResult";
    START_TASK: Unary "/raftgrid.v1.NodeService/StartTask" (StartTaskRequest) -> StartTaskResponse;
    APPEND_LOG: Unary "/raftgrid.v1.NodeService/AppendLog" (AppendLogRequest) -> AppendLogResponse;
    LIST_NODES: Unary "/raftgrid.v1.NodeService/ListNodes" (ListNodesRequest) -> ListNodesResponse;
    DRAIN_NODE: Unary "/raftgrid.v1.NodeService/DrainNode" (DrainNodeRequest) -> DrainNodeResponse;
    DEREGISTER: Unary "/raftgrid.v1.NodeService/Deregister" (DeregisterRequest) -> DeregisterResponse;

    SET_MAINTENANCE: Unary "/raftgrid.v1.NodeService/SetMaintenance" (SetMaintenanceRequest) -> SetMaintenanceResponse;

    GET_MODEL: ServerStreaming "/raftgrid.v1.MLWorkerService/GetModel" (ModelRequest) -> ModelChunk, "/api.MLWorkerService/GetModel";
    SEND_GRADIENTS: ClientStreaming "/raftgrid.v1.MLWorkerService/SendGradients" (GradientChunk) -> Ack, "/api.MLWorkerService/SendGradients";
    INIT_MODEL: ClientStreaming "/raftgrid.v1.MLWorkerService/InitModel" (InitModelChunk) -> Ack;
    NEXT_SHARDS: Unary "/raftgrid.v1.MLWorkerService/NextShards" (NextShardsRequest) -> NextShardsResponse;

    HELLO: Unary "/raftgrid.v1.AgentService/Hello" (HelloRequest) -> HelloResponse;
    SET_RESULT: Unary "/raftgrid.v1.AgentService/SetResult" (SetResultRequest) -> SetResultResponse;
    SHOULD_STOP: Unary "/raftgrid.v1.AgentService/ShouldStop" (ShouldStopRequest) -> ShouldStopResponse;

    PUT_ARTIFACT: ClientStreaming "/raftgrid.v1.ArtifactService/Put" (PutArtifactChunk) -> PutArtifactResponse;
    GET_ARTIFACT: ServerStreaming "/raftgrid.v1.ArtifactService/Get" (GetArtifactRequest) -> ArtifactChunk;
    STAT_ARTIFACT: Unary "/raftgrid.v1.ArtifactService/Stat" (StatArtifactRequest) -> StatArtifactResponse;
    DELETE_ARTIFACT: Unary "/raftgrid.v1.ArtifactService/Delete" (DeleteArtifactRequest) -> DeleteArtifactResponse;
    NAME_ARTIFACT: Unary "/raftgrid.v1.ArtifactService/Name" (NameArtifactRequest) -> NameArtifactResponse;
    LIST_ARTIFACTS: Unary "/raftgrid.v1.ArtifactService/List" (ListArtifactsRequest) -> ListArtifactsResponse;

    SUBMIT_JOB: Unary "/raftgrid.v1.JobService/Submit" (SubmitJobRequest) -> SubmitJobResponse;
    GET_JOB: Unary "/raftgrid.v1.JobService/Get" (GetJobRequest) -> GetJobResponse;
    LIST_JOBS: Unary "/raftgrid.v1.JobService/List" (ListJobsRequest) -> ListJobsResponse;
    CANCEL_JOB: Unary "/raftgrid.v1.JobService/Cancel" (CancelJobRequest) -> CancelJobResponse;
    RESUME_JOB: Unary "/raftgrid.v1.JobService/Resume" (ResumeJobRequest) -> ResumeJobResponse;
    WATCH_JOB: ServerStreaming "/raftgrid.v1.JobService/Watch" (WatchJobRequest) -> WatchJobResponse;
    RETRY_ELEMENTS: Unary "/raftgrid.v1.JobService/RetryElements" (RetryElementsRequest) -> RetryElementsResponse;
    RECOMPUTE_ROUND: Unary "/raftgrid.v1.JobService/RecomputeRound" (RecomputeRoundRequest) -> RecomputeRoundResponse;
    JOB_HISTORY: Unary "/raftgrid.v1.JobService/History" (JobHistoryRequest) -> JobHistoryResponse;
    AUDIT_JOB: Unary "/raftgrid.v1.JobService/Audit" (AuditJobRequest) -> AuditJobResponse;

    PUT_SCHEDULE: Unary "/raftgrid.v1.ScheduleService/Put" (PutScheduleRequest) -> PutScheduleResponse;
    GET_SCHEDULE: Unary "/raftgrid.v1.ScheduleService/Get" (GetScheduleRequest) -> GetScheduleResponse;
    LIST_SCHEDULES: Unary "/raftgrid.v1.ScheduleService/List" (ListSchedulesRequest) -> ListSchedulesResponse;
    PAUSE_SCHEDULE: Unary "/raftgrid.v1.ScheduleService/Pause" (PauseScheduleRequest) -> PauseScheduleResponse;
    DELETE_SCHEDULE: Unary "/raftgrid.v1.ScheduleService/Delete" (DeleteScheduleRequest) -> DeleteScheduleResponse;
    TRIGGER_SCHEDULE: Unary "/raftgrid.v1.ScheduleService/Trigger" (TriggerScheduleRequest) -> TriggerScheduleResponse;
    QUEUE_PUT: Unary "/raftgrid.v1.QueueService/Put" (PutQueueRequest) -> PutQueueResponse;
    QUEUE_LIST: Unary "/raftgrid.v1.QueueService/List" (ListQueuesRequest) -> ListQueuesResponse;
    QUEUE_DELETE: Unary "/raftgrid.v1.QueueService/Delete" (DeleteQueueRequest) -> DeleteQueueResponse;

    CLUSTER_STATE: Unary "/raftgrid.v1.ClusterService/State" (StateRequest) -> StateResponse;
    CLUSTER_STATS: Unary "/raftgrid.v1.ClusterService/Stats" (StatsRequest) -> StatsResponse;
    CLUSTER_MEMBERS: Unary "/raftgrid.v1.ClusterService/Members" (MembersRequest) -> MembersResponse;
    CLUSTER_LEADER: Unary "/raftgrid.v1.ClusterService/Leader" (LeaderRequest) -> LeaderResponse;
    CLUSTER_SNAPSHOT: Unary "/raftgrid.v1.ClusterService/Snapshot" (SnapshotRequest) -> SnapshotResponse;
    CLUSTER_ADD_LEARNER: Unary "/raftgrid.v1.ClusterService/AddLearner" (ChangeMemberRequest) -> ChangeMemberResponse;
    CLUSTER_ADD_VOTER: Unary "/raftgrid.v1.ClusterService/AddVoter" (ChangeMemberRequest) -> ChangeMemberResponse;
    CLUSTER_DEMOTE_VOTER: Unary "/raftgrid.v1.ClusterService/DemoteVoter" (ChangeMemberRequest) -> ChangeMemberResponse;
    CLUSTER_REMOVE_SERVER: Unary "/raftgrid.v1.ClusterService/RemoveServer" (ChangeMemberRequest) -> ChangeMemberResponse;
    CLUSTER_REPLACE_SERVER: Unary "/raftgrid.v1.ClusterService/ReplaceServer" (ChangeMemberRequest) -> ChangeMemberResponse;
    CLUSTER_TRANSFER: Unary "/raftgrid.v1.ClusterService/LeadershipTransfer" (LeadershipTransferRequest) -> LeadershipTransferResponse;
    CLUSTER_VERIFY_LEADER: Unary "/raftgrid.v1.ClusterService/VerifyLeader" (VerifyLeaderRequest) -> VerifyLeaderResponse;
    CLUSTER_BARRIER: Unary "/raftgrid.v1.ClusterService/Barrier" (BarrierRequest) -> BarrierResponse;
    CLUSTER_SET_TIME: Unary "/raftgrid.v1.ClusterService/SetTime" (SetTimeRequest) -> SetTimeResponse;
    CLUSTER_SHUTDOWN: Unary "/raftgrid.v1.ClusterService/Shutdown" (ShutdownRequest) -> ShutdownResponse;
    CLUSTER_BACKUP: ServerStreaming "/raftgrid.v1.ClusterService/Backup" (BackupRequest) -> BackupChunk;

    PEER_RAFT: ClientStreaming "/raftgrid.v1.PeerService/Raft" (RaftFrame) -> RaftDone;
    PEER_SNAPSHOT: ClientStreaming "/raftgrid.v1.PeerService/Snapshot" (SnapshotChunk) -> SnapshotDone;
    PEER_SNAPSHOT_PROGRESS: Unary "/raftgrid.v1.PeerService/SnapshotProgress" (SnapshotProgressRequest) -> SnapshotProgressResponse;
    PEER_PUT_FRAGMENT: ClientStreaming "/raftgrid.v1.PeerService/PutFragment" (FragmentChunk) -> FragmentReceipt;
    PEER_GET_FRAGMENT: ServerStreaming "/raftgrid.v1.PeerService/GetFragment" (GetFragmentRequest) -> FragmentChunk;
    PEER_FORWARD: Unary "/raftgrid.v1.PeerService/Forward" (ForwardRequest) -> ForwardResponse;

    KV_ADD: Unary "/raftgrid.v1.KvService/Add" (AddRequest) -> AddResponse, "/Example/Add";
    KV_GET: Unary "/raftgrid.v1.KvService/Get" (GetRequest) -> GetResponse, "/Example/Get";
    KV_STAT: Unary "/raftgrid.v1.KvService/Stat" (StatRequest) -> StatResponse, "/Example/Stat";
    KV_WATCH: ServerStreaming "/raftgrid.v1.KvService/Watch" (WatchRequest) -> WatchResponse, "/Example/Watch";
    KV_COMPARE_AND_SET: Unary "/raftgrid.v1.KvService/CompareAndSet" (CompareAndSetRequest) -> CompareAndSetResponse;
    KV_DELETE: Unary "/raftgrid.v1.KvService/Delete" (DeleteRequest) -> DeleteResponse;
    KV_LIST: Unary "/raftgrid.v1.KvService/List" (ListRequest) -> ListResponse;
}
