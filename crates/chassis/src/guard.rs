//! Who may call what.
//!
//! In: a table of RPCs and the roles that may call them, as plain data. Out: a layer around a server's services that lets
//! nobody past who may not. What the table does not know is nobody's: it is answered as if it did not exist. Health and
//! reflection, which this crate serves itself, are open to every peer that has proved who it is.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use ::metrics::counter;
use tokio_util::either::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tower::Layer;

use crate::metrics::RPC_DENIED;
use crate::tls::Peer;

/// The table: for the path of an RPC (`/package.Service/Method`) the roles that may call it; `None` when there is no such RPC.
pub type Callers = fn(path: &str) -> Option<&'static [&'static str]>;

/// Services that are open to every peer with a name.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// Puts the table in front of services; without one everything passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub(crate) callers: Option<Callers>,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { guard: *self, inner }
    }
}

/// Services with the table in front.
#[derive(Clone, Debug)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let role = request.extensions().get::<Peer>().and_then(|peer| peer.identity.as_deref()).map(|identity| identity.role.as_str());
        match self.guard.callers.map_or(Ok(()), |callers| admit(callers, request.uri().path(), role)) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(refusal) => Either::Right(ready(Ok(refusal.into_http()))),
        }
    }
}

fn admit(callers: Callers, path: &str, role: Option<&str>) -> Result<(), Status> {
    let open = OPEN.iter().any(|service| path.starts_with(service));
    let may = callers(path);
    if !open && may.is_none() {
        return Err(Status::unimplemented(format!("there is no RPC {path:?}")));
    }
    let deny = |reason: &'static str, text: String| {
        // A path that is not open is one of the table's, so that labels are few.
        let rpc = if open { "open".to_owned() } else { path.to_owned() };
        counter!(RPC_DENIED, "rpc" => rpc, "reason" => reason).increment(1);
        Err(Status::permission_denied(text))
    };
    let Some(role) = role else {
        let text = format!("{path}: the caller's certificate names no role; it needs one URI spiffe://hypereyes/<namespace>/sa/<role>");
        return deny("no_role", text);
    };
    match may {
        _ if open => Ok(()),
        Some(roles) if roles.contains(&role) => Ok(()),
        Some([]) | None => deny("role", format!("{path}: role {role:?} may not call it; nobody may")),
        Some(roles) => deny("role", format!("{path}: role {role:?} may not call it; who may: {}", roles.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn table(path: &str) -> Option<&'static [&'static str]> {
        match path {
            "/p.S/A" => Some(&["cook", "waiter"]),
            "/p.S/B" => Some(&[]),
            _ => None,
        }
    }

    #[test]
    fn the_table_decides_and_what_it_does_not_know_does_not_exist() {
        let code =
            |path: &str, role: Option<&str>| admit(table, path, role).err().map(|status| (status.code(), status.message().to_owned()));
        assert_eq!(code("/p.S/A", Some("cook")), None);
        let (denied, text) = code("/p.S/A", Some("guest")).expect("guests do not cook");
        assert!(
            denied == Code::PermissionDenied && ["/p.S/A", "\"guest\"", "cook, waiter"].iter().all(|part| text.contains(part)),
            "{text}"
        );
        assert_eq!(code("/p.S/A", None).expect("nobody").0, Code::PermissionDenied);
        assert!(code("/p.S/B", Some("cook")).expect("nobody may").1.contains("nobody"));
        for path in ["/p.S/C", "/p.S/", "/", "/p.S/A/"] {
            assert_eq!(code(path, Some("cook")).expect("no such RPC").0, Code::Unimplemented, "{path}");
        }
        assert_eq!(code("/grpc.health.v1.Health/Check", Some("guest")), None);
        assert_eq!(code("/grpc.health.v1.Health/Check", None).expect("a stranger").0, Code::PermissionDenied);
    }
}
