//! A teacher of a few lines behind a real socket: pictures, typed failures, message limits and descriptors hold end to end.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use hypereyes_domain::{Answer, Failure, PictureId, Question, ScoreSequence, TeacherVersion};
use hypereyes_proto::v1::teacher_server::Teacher;
use hypereyes_proto::{client, convert, failure, limits, server, v1};
use tonic::codegen::tokio_stream;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

#[derive(Clone, Default)]
struct Fake {
    pictures: Arc<Mutex<HashSet<PictureId>>>,
}

#[tonic::async_trait]
impl Teacher for Fake {
    async fn score_tokens(&self, request: Request<v1::ScoreTokensRequest>) -> Result<Response<v1::ScoreTokensReply>, Status> {
        let mut sequences = Vec::new();
        for message in request.into_inner().sequences {
            let sequence = ScoreSequence::try_from(message)?;
            let held = self.pictures.lock().expect("no test panics while holding it").clone();
            let missing: Vec<PictureId> = sequence.pictures.iter().filter(|id| !held.contains(*id)).cloned().collect();
            if !missing.is_empty() {
                return Err(failure::missing_pictures(&missing));
            }
            let logprobs = sequence.mask.iter().filter(|wanted| **wanted).map(|_| -0.25).collect();
            sequences.push(Answer { logprobs, top: vec![] });
        }
        Ok(Response::new((TeacherVersion::new("fake", 1), sequences).into()))
    }

    async fn put_pictures(&self, request: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        let mut stream = request.into_inner();
        let mut reply = v1::PutPicturesReply::default();
        while let Some(picture) = stream.message().await? {
            let id = convert::ids::picture("id", picture.id)?;
            let new = self.pictures.lock().expect("no test panics while holding it").insert(id);
            *(if new { &mut reply.stored } else { &mut reply.known }) += 1;
        }
        Ok(Response::new(reply))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsReply>, Status> {
        Ok(Response::new(v1::ListModelsReply::default()))
    }

    async fn load_model(&self, _: Request<v1::LoadModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        Err(failure::to_status(Failure::Timeout, "the disk is slow"))
    }

    async fn promote_model(&self, _: Request<v1::PromoteModelRequest>) -> Result<Response<v1::PromoteModelReply>, Status> {
        Ok(Response::new(v1::PromoteModelReply::default()))
    }

    async fn retire_model(&self, _: Request<v1::RetireModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        Ok(Response::new(v1::ModelInfo::default()))
    }
}

async fn start() -> client::TeacherClient {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = incoming.local_addr().expect("it is bound").to_string();
    tokio::spawn(tonic::transport::Server::builder().add_service(server::teacher(Fake::default())).serve_with_incoming(incoming));
    client::teacher(&address).expect("a good address")
}

fn question() -> (ScoreSequence, v1::ScoreTokensRequest) {
    let pictures = vec![PictureId::new("a".repeat(64)), PictureId::new("b".repeat(64))];
    let sequence = ScoreSequence { prompt: vec![1], response: vec![2, 3, 4], mask: vec![true, false, true], pictures };
    let request = Question::new("t@1".into(), vec![sequence.clone()]).into();
    (sequence, request)
}

#[tokio::test]
async fn missing_pictures_are_named_put_and_then_scored() {
    let mut teacher = start().await;
    let (sequence, request) = question();
    let status = teacher.score_tokens(request.clone()).await.expect_err("it holds no pictures yet");
    let (kind, _, missing) = failure::from_status(&status);
    assert_eq!((status.code(), kind, &missing), (Code::FailedPrecondition, Failure::Infrastructure, &sequence.pictures));

    let pictures: Vec<v1::Picture> =
        missing.iter().map(|id| v1::Picture { id: id.as_str().into(), data: vec![7u8; 6 << 20].into() }).collect();
    let twice = tokio_stream::iter(pictures.clone().into_iter().chain(pictures));
    let put = teacher.put_pictures(twice).await.expect("pictures above tonic's own 4 MiB limit pass").into_inner();
    assert_eq!((put.stored, put.known), (2, 2));

    let reply = teacher.score_tokens(request).await.expect("now it holds them").into_inner();
    let (teacher, answers) = convert::answered(&[sequence], 0, reply).expect("it fits");
    assert_eq!((teacher, answers[0].logprobs.as_slice()), (TeacherVersion::new("fake", 1), [-0.25, -0.25].as_slice()));
}

#[tokio::test]
async fn typed_failures_cross_the_wire() {
    let mut teacher = start().await;
    let status = teacher.load_model(v1::LoadModelRequest::default()).await.expect_err("it always fails");
    assert_eq!(failure::from_status(&status), (Failure::Timeout, "the disk is slow".to_owned(), vec![]));
}

#[tokio::test]
async fn nonsense_is_an_invalid_argument_and_not_the_policys_fault() {
    let mut teacher = start().await;
    let (_, mut request) = question();
    request.sequences[0].mask = None;
    let status = teacher.score_tokens(request).await.expect_err("there is no mask");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "mask is missing"));
    assert_eq!(failure::from_status(&status).0, Failure::Infrastructure);
}

#[tokio::test]
async fn messages_above_the_limit_are_refused() {
    let mut teacher = start().await;
    let huge = v1::Picture { id: "a".repeat(64), data: vec![0u8; limits::MAX_MESSAGE_BYTES + 1].into() };
    assert!(teacher.put_pictures(tokio_stream::iter([huge])).await.is_err());
}

#[test]
fn descriptors_name_all_three_services() {
    let text = String::from_utf8_lossy(v1::FILE_DESCRIPTOR_SET);
    for service in ["Learner", "Reward", "Teacher", "WatchPolicyVersions", "CommitEpoch", "ScoreTokens"] {
        assert!(text.contains(service), "{service}");
    }
}
