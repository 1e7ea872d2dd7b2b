//! Compiles the protobuf files with a compiler written in Rust, so that no `protoc` need be installed.
//!
//! In: `proto/hypereyes/v1/*.proto`. Out, under `OUT_DIR`: messages, clients and servers as Rust code, and the file
//! descriptor set that gRPC reflection serves.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["common", "learner", "reward", "teacher"].map(|name| format!("proto/hypereyes/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("hypereyes_v1.bin"), descriptors.encode_to_vec())?;
    // Pictures and weight chunks are shared, not copied, between the wire and whoever holds them.
    tonic_prost_build::configure().bytes(".hypereyes.v1").compile_fds(descriptors)?;
    Ok(())
}
