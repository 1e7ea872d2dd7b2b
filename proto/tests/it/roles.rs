//! Every RPC, called by every role and by processes of other releases over a real connection: whoever may gets through to the
//! service, nobody else does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use hypereyes_chassis::{Retryable, Security, Server, ServerConfig, Shutdown};
use hypereyes_proto::client::{self, BadAddress};
use hypereyes_proto::roles::{self, Role, TABLE};
use hypereyes_proto::v1::learner_server::Learner;
use hypereyes_proto::v1::reward_server::Reward;
use hypereyes_proto::v1::teacher_server::Teacher;
use hypereyes_proto::wire::{WIRE_HEADER, must_agree};
use hypereyes_proto::{ClientConfig, failure, server, v1};
use prost::Message;
use tempfile::TempDir;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{HeaderValue, Request as HttpRequest};
use tonic::codegen::tokio_stream::{self, Stream};
use tonic::codegen::{Body as HttpBody, Bytes, Service, StdError};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::authority::{Authority, place};

const SOON: Duration = Duration::from_secs(30);
/// What every handler says, so that it is known who answered.
const REACHED: &str = "the service was reached";

/// All three services.
pub struct Fake;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn reached<T>() -> Result<Response<T>, Status> {
    Err(Status::aborted(REACHED))
}

#[tonic::async_trait]
impl Learner for Fake {
    type WatchPolicyVersionsStream = Replies<v1::PolicyVersion>;
    type FetchWeightsStream = Replies<v1::WeightsPart>;
    type GetPicturesStream = Replies<v1::Picture>;

    async fn lease_task(&self, _: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseReply>, Status> {
        reached()
    }

    async fn submit(&self, _: Request<v1::TaughtGroup>) -> Result<Response<v1::Receipt>, Status> {
        reached()
    }

    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        reached()
    }

    async fn abandon(&self, _: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonReply>, Status> {
        reached()
    }

    async fn get_policy_version(&self, _: Request<v1::GetPolicyVersionRequest>) -> Result<Response<v1::PolicyVersion>, Status> {
        reached()
    }

    async fn watch_policy_versions(
        &self,
        _: Request<v1::WatchPolicyVersionsRequest>,
    ) -> Result<Response<Self::WatchPolicyVersionsStream>, Status> {
        reached()
    }

    async fn fetch_weights(&self, _: Request<v1::FetchWeightsRequest>) -> Result<Response<Self::FetchWeightsStream>, Status> {
        reached()
    }

    async fn get_pictures(&self, _: Request<v1::PicturesRequest>) -> Result<Response<Self::GetPicturesStream>, Status> {
        reached()
    }

    async fn put_pictures(&self, _: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        reached()
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::LearnerStatus>, Status> {
        reached()
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        reached()
    }

    async fn meet(&self, _: Request<v1::MeetRequest>) -> Result<Response<v1::MeetReply>, Status> {
        reached()
    }
}

#[tonic::async_trait]
impl Reward for Fake {
    type ScoreStreamStream = Replies<v1::ScoredReply>;
    type ExportReferencesStream = Replies<v1::ReferenceBatch>;

    async fn score_group(&self, _: Request<v1::ScoreGroupRequest>) -> Result<Response<v1::ScoredReply>, Status> {
        reached()
    }

    async fn score_stream(&self, _: Request<Streaming<v1::ScoreGroupRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        reached()
    }

    async fn commit_epoch(&self, _: Request<v1::CommitEpochRequest>) -> Result<Response<v1::CommitEpochReply>, Status> {
        reached()
    }

    async fn get_reference(&self, _: Request<v1::GetReferenceRequest>) -> Result<Response<v1::GetReferenceReply>, Status> {
        reached()
    }

    async fn export_references(&self, _: Request<v1::ExportReferencesRequest>) -> Result<Response<Self::ExportReferencesStream>, Status> {
        reached()
    }

    async fn import_references(&self, _: Request<Streaming<v1::ReferenceBatch>>) -> Result<Response<v1::ImportReferencesReply>, Status> {
        reached()
    }

    async fn get_history(&self, _: Request<v1::GetHistoryRequest>) -> Result<Response<v1::GetHistoryReply>, Status> {
        reached()
    }

    async fn restore_references(&self, _: Request<v1::RestoreReferencesRequest>) -> Result<Response<v1::RestoreReferencesReply>, Status> {
        reached()
    }
}

#[tonic::async_trait]
impl Teacher for Fake {
    async fn score_tokens(&self, _: Request<v1::ScoreTokensRequest>) -> Result<Response<v1::ScoreTokensReply>, Status> {
        reached()
    }

    async fn put_pictures(&self, _: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        reached()
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsReply>, Status> {
        reached()
    }

    async fn load_model(&self, _: Request<v1::LoadModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        reached()
    }

    async fn promote_model(&self, _: Request<v1::PromoteModelRequest>) -> Result<Response<v1::PromoteModelReply>, Status> {
        reached()
    }

    async fn retire_model(&self, _: Request<v1::RetireModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        reached()
    }
}

async fn serve(security: &Security) -> SocketAddr {
    let bound = Server::bind("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
    let (addr, bound) = (bound.addr(), bound.describe(v1::FILE_DESCRIPTOR_SET).secure(security, roles::callers));
    let routes = Routes::new(server::learner(Fake)).add_service(server::reward(Fake)).add_service(server::teacher(Fake));
    tokio::spawn(async move { bound.serve(routes, Shutdown::new(), &ServerConfig::default()).await });
    addr
}

fn security(folder: &TempDir, ours: &Authority, role: &str) -> Security {
    let folder = folder.path().join(role);
    std::fs::create_dir_all(&folder).expect("a folder");
    Security::new(Some(&place(&folder, &ours.role(role), &[ours]))).expect("sound files")
}

/// Calls any RPC with an empty message, which every RPC can read; nobody sends more than one, so that all kinds of streaming
/// look the same from here.
async fn call<S>(channel: &S, path: &'static str) -> Status
where
    S: GrpcService<Body> + Clone,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    let asked = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.into().to_string()))?;
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<(), ()>::default());
        let mut replies = grpc.streaming(Request::new(tokio_stream::iter([()])), path, codec).await?.into_inner();
        replies.message().await
    };
    let answer = tokio::time::timeout(SOON, asked).await.expect("in time");
    answer.err().unwrap_or_else(|| Status::ok("an answer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_open_to_whom_the_table_names_and_to_nobody_else() {
    let (folder, ours) = (tempfile::tempdir().expect("a temporary folder"), Authority::new("ours"));
    let address = serve(&security(&folder, &ours, "server")).await.to_string();
    for role in Role::ALL {
        let channel = client::secure(&security(&folder, &ours, role.name())).channel(&address).expect("an address");
        for &(path, may) in TABLE {
            let status = call(&channel, path).await;
            if may.contains(&role) {
                assert_eq!((status.code(), status.message()), (Code::Aborted, REACHED), "{path} as {role:?}");
            } else {
                assert_eq!(status.code(), Code::PermissionDenied, "{path} as {role:?}: {status:?}");
                let text = status.message();
                assert!(text.contains(path) && text.contains(role.name()) && text.contains(may[0].name()), "{text}");
            }
        }
        assert_eq!(call(&channel, "/hypereyes.v1.Learner/Nothing").await.code(), Code::Unimplemented);
        assert_eq!(call(&channel, "/hypereyes.v2.Learner/Status").await.code(), Code::Unimplemented);
        assert_eq!(call(&channel, "/grpc.health.v1.Health/Check").await.code(), Code::Ok, "{role:?}");
        assert_ne!(call(&channel, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").await.code(), Code::PermissionDenied);
    }
    let janitor = client::secure(&security(&folder, &ours, "janitor")).channel(&address).expect("an address");
    for (path, _) in TABLE {
        assert_eq!(call(&janitor, path).await.code(), Code::PermissionDenied, "{path}");
    }
    let plain = client::channel(&address, &ClientConfig::default()).expect("an address");
    let status = call(&plain, TABLE[0].0).await;
    assert!(status.is_retryable() && status.message() != REACHED, "in plaintext: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_plaintext_everybody_may_call_everything() {
    let address = serve(&Security::plaintext()).await.to_string();
    let channel = client::channel(&address, &ClientConfig::default()).expect("an address");
    for (path, _) in TABLE {
        assert_eq!(call(&channel, path).await.message(), REACHED, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_clients_speak_as_they_are_told() {
    let (folder, ours) = (tempfile::tempdir().expect("a temporary folder"), Authority::new("ours"));
    let address = serve(&security(&folder, &ours, "server")).await;
    let operator = client::secure(&security(&folder, &ours, "operator"));
    let refused = |error: BadAddress| (error.reason.contains("https://"), error.to_string().contains("https://host:port"));
    for address in [address.to_string(), format!("https://localhost:{}", address.port())] {
        let status = operator.learner(&address).expect("an address").status(v1::StatusRequest {}).await.expect_err("it only says so");
        assert_eq!(status.message(), REACHED);
        let history = v1::GetHistoryRequest::default();
        let status = operator.reward(&address).expect("an address").get_history(history).await.expect_err("it only says so");
        assert_eq!(status.message(), REACHED);
        let status =
            operator.teacher(&address).expect("an address").list_models(v1::ListModelsRequest {}).await.expect_err("it only says so");
        assert_eq!(status.message(), REACHED);
    }
    assert_eq!(refused(operator.learner(&format!("http://{address}")).expect_err("in plaintext")), (true, true));
    assert!(client::learner(&format!("https://{address}")).expect_err("without a certificate").reason.contains("without tls"));
}

#[test]
fn the_table_knows_every_rpc_and_no_other() {
    let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut served = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            served.extend(service.method.iter().map(|method| format!("/{}.{}/{}", file.package(), service.name(), method.name())));
        }
    }
    let table: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(table, served);
    assert_eq!(TABLE.len(), served.len(), "each once");
    assert!(TABLE.iter().all(|(_, roles)| !roles.is_empty()));
    assert_eq!(roles::callers("/hypereyes.v1.Teacher/ScoreTokens"), Some(&["actor", "teacher", "operator"][..]));
    assert_eq!(roles::callers("/hypereyes.v1.Teacher/Nothing"), None);
}

/// A client that says any version of the wire, or none, as clients of somebody's own and releases of before do.
#[derive(Clone)]
struct Says {
    version: Option<&'static str>,
    channel: Channel,
}

impl Service<HttpRequest<Body>> for Says {
    type Response = <Channel as Service<HttpRequest<Body>>>::Response;
    type Error = <Channel as Service<HttpRequest<Body>>>::Error;
    type Future = <Channel as Service<HttpRequest<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.channel, context)
    }

    fn call(&mut self, mut request: HttpRequest<Body>) -> Self::Future {
        if let Some(version) = self.version {
            request.headers_mut().insert(WIRE_HEADER, HeaderValue::from_static(version));
        }
        Service::call(&mut self.channel, request)
    }
}

fn assert_names_both(status: &Status, theirs: &str) {
    assert!(status.code() == Code::FailedPrecondition && failure::is_other_release(status), "{status:?}");
    let text = status.message();
    assert!(text.contains("version 2") && text.contains(theirs) && text.contains("run the same release of both"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_another_release_are_told_so_and_clients_without_a_version_only_where_they_join_a_run() {
    let address = serve(&Security::plaintext()).await;
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let says = |version| Says { version, channel: channel.clone() };
    for &(path, _) in TABLE {
        assert_eq!(call(&says(Some("2")), path).await.message(), REACHED, "{path}");
        assert_names_both(&call(&says(Some("3")), path).await, "version 3");
        let silent = call(&says(None), path).await;
        if must_agree(path) {
            assert_names_both(&silent, "version 1");
        } else {
            assert_eq!(silent.message(), REACHED, "{path}");
        }
    }
}
