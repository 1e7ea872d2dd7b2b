//! What every process of hypereyes needs around its work: configuration, logs and metrics, orderly ends, a gRPC server,
//! and names that peers prove.
//!
//! In: a config type and gRPC services of whoever uses it. Out: a process that says clearly what is wrong with its
//! settings, can be watched, and stops when it is told to.
//!
//! This crate knows no domain type and no message of hypereyes; any gRPC project could use it.

pub mod backoff;
pub mod bind;
pub mod breaker;
pub mod config;
pub mod exit;
pub mod findings;
pub mod guard;
pub mod health;
pub mod leash;
pub mod metrics;
pub mod nearest;
pub mod output;
pub mod process;
pub mod reach;
pub mod ready;
pub mod remembered;
pub mod secret;
pub mod server;
pub mod service_process;
pub mod shutdown;
pub mod supervise;
pub mod telemetry;
pub mod tls;
pub mod trace;

mod incoming;
mod places;
mod seldom;
mod weight;

pub use backoff::{BackoffConfig, RetryError, Retryable, retry};
pub use bind::BindError;
pub use breaker::{Breaker, BreakerConfig};
pub use config::{ConfigError, Moved, Problem, Settings};
pub use exit::BadInput;
pub use findings::{Finding, Findings};
pub use guard::Callers;
pub use health::{Health, Probes};
pub use hypereyes_outside::atomic;
pub use process::{Process, ProcessConfig, Watched};
pub use reach::Reach;
pub use ready::Announcement;
pub use remembered::Remembered;
pub use server::{Server, ServerConfig};
pub use service_process::{ServiceProcess, ServiceProgram, Work};
pub use shutdown::Shutdown;
pub use telemetry::{Telemetry, TelemetryConfig};
pub use tls::{Security, TlsConfig};
pub use trace::TraceContext;
