//! A learner of a few lines, which publishes what it is told and says when the run is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hypereyes_policy::checkpoint::Snapshot;
use hypereyes_proto::{server, v1};
use hypereyes_weights::Publisher;
use hypereyes_weights::grpc::{self, VersionStream, WeightsStream};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Clones are one and the same.
#[derive(Clone)]
pub struct Learner {
    pub publisher: Publisher,
    finished: Arc<AtomicBool>,
    /// Calls that only who works for it makes.
    worked: Arc<AtomicU64>,
}

impl Learner {
    /// Serves `first`, and holds the newest `keep`; returns its address.
    pub fn serve(first: Snapshot, keep: usize) -> (Self, String) {
        let learner = Self { publisher: Publisher::new(first, keep, 5), finished: Arc::default(), worked: Arc::default() };
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = incoming.local_addr().expect("it is bound").to_string();
        tokio::spawn(tonic::transport::Server::builder().add_service(server::learner(learner.clone())).serve_with_incoming(incoming));
        (learner, address)
    }

    /// The run is over.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
    }

    /// How often it was asked for work, told of a life, or handed something in.
    pub fn worked(&self) -> u64 {
        self.worked.load(Ordering::Acquire)
    }

    fn work<T>(&self) -> Result<Response<T>, Status> {
        self.worked.fetch_add(1, Ordering::AcqRel);
        Err(Status::unimplemented("nobody works here"))
    }
}

#[tonic::async_trait]
impl v1::learner_server::Learner for Learner {
    type WatchPolicyVersionsStream = VersionStream;
    type FetchWeightsStream = WeightsStream;
    type GetPicturesStream = tokio_stream::Empty<Result<v1::Picture, Status>>;

    async fn get_policy_version(&self, _: Request<v1::GetPolicyVersionRequest>) -> Result<Response<v1::PolicyVersion>, Status> {
        Ok(Response::new(grpc::get_policy_version(&self.publisher)))
    }
    async fn watch_policy_versions(&self, _: Request<v1::WatchPolicyVersionsRequest>) -> Result<Response<VersionStream>, Status> {
        Ok(Response::new(grpc::watch_policy_versions(&self.publisher)))
    }
    async fn fetch_weights(&self, request: Request<v1::FetchWeightsRequest>) -> Result<Response<WeightsStream>, Status> {
        Ok(Response::new(grpc::fetch_weights(&self.publisher, request.into_inner())?))
    }
    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::LearnerStatus>, Status> {
        let finished = self.finished.load(Ordering::Acquire);
        Ok(Response::new(v1::LearnerStatus { finished, ..Default::default() }))
    }
    async fn lease_task(&self, _: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseReply>, Status> {
        self.work()
    }
    async fn submit(&self, _: Request<v1::TaughtGroup>) -> Result<Response<v1::Receipt>, Status> {
        self.work()
    }
    async fn heartbeat(&self, _: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        self.work()
    }
    async fn abandon(&self, _: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonReply>, Status> {
        self.work()
    }
    async fn get_pictures(&self, _: Request<v1::PicturesRequest>) -> Result<Response<Self::GetPicturesStream>, Status> {
        self.work()
    }
    async fn put_pictures(&self, _: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        self.work()
    }
    async fn meet(&self, _: Request<v1::MeetRequest>) -> Result<Response<v1::MeetReply>, Status> {
        self.work()
    }
    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        self.work()
    }
}
