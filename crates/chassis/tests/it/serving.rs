//! A real server on a real port, called by a real client.

use std::net::SocketAddr;
use std::time::Duration;

use hypereyes_chassis::server::{LIVE, READY, STARTUP, ServeError};
use hypereyes_chassis::{Retryable, Server, ServerConfig, Shutdown};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const SOON: Duration = Duration::from_secs(20);

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn spawn(server: Server, shutdown: &Shutdown, config: ServerConfig) -> JoinHandle<Result<(), ServeError>> {
    let shutdown = shutdown.clone();
    tokio::spawn(async move { server.serve(Routes::default(), shutdown, &config).await })
}

async fn connect(addr: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{addr}")).expect("an address is a URL");
    endpoint.connect().await.expect("it listens")
}

async fn status(channel: &Channel, name: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: name.to_owned() };
    HealthClient::new(channel.clone()).check(request).await.expect("the name is known").into_inner().status()
}

#[tokio::test]
async fn a_served_port_is_healthy_and_can_be_explored() {
    let server = Server::bind(any()).await.expect("a free port");
    let (addr, shutdown) = (server.addr(), Shutdown::new());
    assert_ne!(addr.port(), 0);
    let serving = spawn(server, &shutdown, ServerConfig::default());
    let channel = connect(addr).await;
    for name in ["", LIVE, READY, STARTUP] {
        assert_eq!(status(&channel, name).await, ServingStatus::Serving, "{name:?}");
    }
    let request = HealthCheckRequest { service: "nonsense".into() };
    assert_eq!(HealthClient::new(channel.clone()).check(request).await.expect_err("nobody knows it").code(), Code::NotFound);

    let list = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let stream = tonic::codegen::tokio_stream::once(list);
    let mut replies = ServerReflectionClient::new(channel.clone()).server_reflection_info(stream).await.expect("it reflects").into_inner();
    let reply = replies.message().await.expect("a message").expect("one reply");
    let Some(MessageResponse::ListServicesResponse(services)) = reply.message_response else { panic!("{reply:?}") };
    assert!(services.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{services:?}");
    drop((replies, channel));

    shutdown.trigger();
    timeout(SOON, serving).await.expect("it stops").expect("it does not panic").expect("stopping is no error");
}

#[tokio::test]
async fn a_process_is_live_before_it_is_ready() {
    let mut server = Server::bind(any()).await.expect("a free port");
    let (addr, shutdown, health) = (server.addr(), Shutdown::new(), server.take_health());
    let serving = spawn(server, &shutdown, ServerConfig::default());
    let channel = connect(addr).await;
    assert_eq!(status(&channel, LIVE).await, ServingStatus::Serving);
    for name in ["", READY, STARTUP] {
        assert_eq!(status(&channel, name).await, ServingStatus::NotServing, "{name:?}");
    }
    health.ready().await;
    assert_eq!(status(&channel, READY).await, ServingStatus::Serving);
    health.not_ready().await;
    assert_eq!(status(&channel, READY).await, ServingStatus::NotServing);
    assert_eq!(status(&channel, STARTUP).await, ServingStatus::Serving, "having started is for ever");
    drop(channel);
    shutdown.trigger();
    timeout(SOON, serving).await.expect("it stops").expect("it does not panic").expect("stopping is no error");
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_helps() {
    let first = Server::bind(any()).await.expect("a free port");
    let error = Server::bind(first.addr()).await.expect_err("it is taken").to_string();
    assert!(error.contains(&first.addr().to_string()), "{error}");
    assert!(error.contains("another process") && error.contains("ss -ltnp"), "{error}");
    let foreign = Server::bind("192.0.2.1:0".parse().expect("an address")).await.expect_err("a documentation address");
    assert!(foreign.to_string().contains("no such address"), "{foreign}");
}

#[tokio::test]
async fn an_open_watch_does_not_hold_up_the_end() {
    let server = Server::bind(any()).await.expect("a free port");
    let (addr, shutdown) = (server.addr(), Shutdown::new());
    let serving = spawn(server, &shutdown, ServerConfig { grace_secs: 1, ..ServerConfig::default() });
    let mut client = HealthClient::new(connect(addr).await);
    let mut watch = client.watch(HealthCheckRequest { service: READY.into() }).await.expect("it can be watched").into_inner();
    let first = watch.message().await.expect("a message").expect("the present state");
    assert_eq!(first.status(), ServingStatus::Serving);
    let start = Instant::now();
    shutdown.trigger();
    let last = timeout(SOON, watch.message()).await.expect("in time").expect("a message").expect("the new state");
    assert_eq!(last.status(), ServingStatus::NotServing, "watchers learn of the end before it comes");
    timeout(SOON, serving).await.expect("it stops").expect("it does not panic").expect("stopping is no error");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_vanished_server_is_worth_another_try() {
    let server = Server::bind(any()).await.expect("a free port");
    let addr = server.addr();
    drop(server);
    let channel = Channel::from_shared(format!("http://{addr}")).expect("an address is a URL").connect_lazy();
    let error = HealthClient::new(channel).check(HealthCheckRequest::default()).await.expect_err("nobody listens");
    assert!(error.is_retryable(), "{error:?}");
}
