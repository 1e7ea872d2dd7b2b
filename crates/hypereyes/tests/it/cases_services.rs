//! Services against strangers and broken peers: the real binary, and whoever comes to it.

use crate::support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hypereyes_domain::ModelState;
use hypereyes_proto::teacher::Load;
use hypereyes_proto::{TeacherPeer, client, v1};
use serde_json::Value;
use support::{DEADLINE, signal};

/// The value of a variable that nobody but its own server may see.
const SECRET: &str = "PLANTED-VALUE-s3cr3t";
const VARIABLE: &str = "PLANTED_SECRET";

/// A file of a case.
fn case(name: &str, file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases").join(name).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn policy() -> PathBuf {
    std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy")).unwrap()
}

/// A service of the real binary, its log and where it listens.
struct Service {
    process: Child,
    folder: tempfile::TempDir,
    addr: SocketAddr,
    metrics: SocketAddr,
}

impl Service {
    /// Starts a service, with at most so many descriptors if that is said.
    fn start(kind: &str, sets: &[String], descriptors: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let program = env!("CARGO_BIN_EXE_hypereyes");
        let mut command = match descriptors {
            Some(most) => {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\""), program]);
                command
            }
            None => Command::new(program),
        };
        command.args(["service", kind, "--set", "listen=127.0.0.1:0", "--set", "process.metrics_listen=127.0.0.1:0"]);
        command.args(["--set", &format!("process.announce={}", ready.display())]);
        command.args(sets.iter().flat_map(|set| ["--set", set.as_str()]));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.env(VARIABLE, SECRET).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut process = command.spawn().unwrap();
        let said = support::wait_for("the service's addresses", &mut process, || {
            serde_json::from_slice::<Value>(&std::fs::read(&ready).ok()?).ok()
        });
        let at = |key: &str| said[key].as_str().unwrap().parse().unwrap();
        Self { process, addr: at("addr"), metrics: at("metrics"), folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn teacher(&self) -> TeacherPeer {
        TeacherPeer::new(client::teacher(&self.addr.to_string()).unwrap())
    }

    /// The metrics page.
    fn page(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    }

    /// Told to stop, it does, and in order.
    fn stop(mut self) -> String {
        signal("TERM", u64::from(self.process.id()));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < DEADLINE, "SIGTERM is not heard: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(status.success(), "{status}: {}", self.log());
        self.log()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill(); // It has ended, unless the test has failed.
        let _ = self.process.wait();
    }
}

/// A server that writes down all that it hears and answers every request with the same head.
struct Stranger {
    addr: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Stranger {
    fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, heard) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let writing = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), writing, answer) = (stream, writing.clone(), answer.clone()) else { continue };
                std::thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        writing.lock().unwrap().extend_from_slice(&buffer[..read]);
                        let _ = stream.write_all(answer.as_bytes()); // It may be gone.
                    }
                });
            }
        });
        Self { addr, heard }
    }

    fn refusing() -> Self {
        Self::start("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".into())
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn load(id: &str, source: &str) -> Load {
    Load { source: source.into(), id: id.into(), digest: String::new(), background: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_key_env_leak() {
    let (stranger, other) = (Stranger::refusing(), Stranger::refusing());
    let model = policy();
    let own = format!("model={}", model.display());
    let service = Service::start("teacher", &[own.clone(), "id=base".into()], None);
    let peer = service.teacher();
    let mut said = String::new();
    for (at, line) in case("key-env-leak", "sources.txt").lines().enumerate() {
        let source = line
            .replace("{at}", &stranger.addr.to_string())
            .replace("{port}", &stranger.addr.port().to_string())
            .replace("{model}", &model.display().to_string());
        let error = peer.load(load(&format!("x{at}"), &source), DEADLINE).await.expect_err(line);
        assert!(error.refused, "{line}: {error}");
        if line.contains("key_env=PLANTED") {
            assert!(error.message.contains(VARIABLE), "what is not allowed is named: {error}");
        }
        said.push_str(&error.message);
    }
    assert_eq!(stranger.heard(), "", "nothing was sent to whom only the caller names");
    said.push_str(&format!("{:?}", peer.roster(DEADLINE).await.unwrap()));
    said.push_str(&service.page());
    said.push_str(&service.stop());
    assert!(!said.contains(SECRET), "{said}");

    // What the settings bind to a server arrives there and nowhere else, also where that server sends us on.
    let elsewhere = Stranger::start(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{}/generate\r\ncontent-length: 0\r\n\r\n",
        other.addr
    ));
    let keys = format!("keys=[{{ env = \"{VARIABLE}\", hosts = [\"http://{}\", \"http://{}\"] }}]", stranger.addr, elsewhere.addr);
    let store = tempfile::tempdir().unwrap();
    let store = format!("store={}", store.path().display());
    let service = Service::start("teacher", &[own, "id=base".into(), keys, "hosts=[\"127.0.0.1\"]".into(), store], None);
    let peer = service.teacher();
    let source = |at: SocketAddr| format!("sglang+http://{at}?tokenizer={}&key_env={VARIABLE}", model.display());
    for (id, at) in [("bound", stranger.addr), ("sent-on", elsewhere.addr), ("other", other.addr)] {
        let error = peer.load(load(id, &source(at)), DEADLINE).await.expect_err("it refuses all questions");
        said.push_str(&error.message);
    }
    // A store that sends us on is not followed either, and is told no secret at all.
    let away = peer.load(load("away", &format!("http://{}/model", elsewhere.addr)), DEADLINE).await.expect_err("it is no store");
    assert!(away.message.contains("redirect"), "{away}");
    for at in [&stranger, &elsewhere] {
        assert!(at.heard().contains(&format!("Bearer {SECRET}")), "the bound server gets its key: {}", at.heard());
    }
    assert_eq!(other.heard(), "", "neither a redirect nor a caller leads there");
    said.push_str(&format!("{:?}{}{}", peer.roster(DEADLINE).await.unwrap(), service.page(), service.stop()));
    assert!(!said.contains(SECRET), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn case_special_file_load() {
    let models = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let folder = models.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        for entry in std::fs::read_dir(policy()).unwrap().flatten() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        folder
    };
    let base = copy("base");
    let service = Service::start("teacher", &[format!("model={}", base.display()), "id=base".into()], None);
    let peer = service.teacher();
    let case = case("special-file-load", "files.txt");
    let mut sockets = Vec::new();
    // More loads than there is room for are refused, so that each case is seen to its end before the next.
    for (at, line) in case.lines().enumerate() {
        let (name, what) = line.split_once(' ').unwrap();
        let folder = copy(&format!("m{at}"));
        let path = folder.join(name);
        let _ = std::fs::remove_file(&path); // Not every model has one.
        match what {
            "pipe" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
            "socket" => sockets.push(UnixListener::bind(&path).unwrap()),
            target => symlink(target, &path).unwrap(),
        }
        let source = folder.display().to_string();
        let began = peer.load(Load { background: true, ..load(&format!("b{at}"), &source) }, DEADLINE).await;
        assert_eq!(began.expect("it is begun behind one's back").state, ModelState::Loading, "{line}");
        let error = peer.load(load(&format!("m{at}"), &source), DEADLINE).await.expect_err(line);
        assert!(error.refused && error.message.contains(name), "{line}: {error}");
        peer.roster(DEADLINE).await.expect("models are listed meanwhile");
    }
    // The honest copy is as good as ever.
    let sound = copy("sound");
    let info = peer.load(load("sound", &sound.display().to_string()), DEADLINE).await.expect("it is a model");
    assert_eq!(info.state, ModelState::Ready);
    // A folder elsewhere is nobody's to name, nor one that a link leads to.
    let elsewhere = policy().display().to_string();
    symlink(policy(), models.path().join("link")).unwrap();
    for source in [elsewhere, models.path().join("link").display().to_string(), format!("{}/../../../etc", base.display())] {
        let error = peer.load(load("elsewhere", &source), DEADLINE).await.expect_err(&source);
        assert!(error.message.contains("roots"), "{source}: {error}");
    }
    service.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn case_silent_sockets() {
    let service = Service::start("reward", &[], Some(256));
    let words = case("silent-sockets", "words.txt");
    let words: Vec<String> = words.lines().map(|line| line.replace("\\r", "\r").replace("\\n", "\n")).collect();
    let mut sockets = Vec::new();
    for at in 0..320 {
        let Ok(mut socket) = TcpStream::connect(service.addr) else { continue };
        if let Some(word) = words.get(at % (2 * words.len())) {
            let _ = socket.write_all(word.as_bytes()); // It may be closed already.
        }
        sockets.push(socket);
    }
    // One that goes on, a byte at a time, is as silent as the others.
    let mut slow = TcpStream::connect(service.addr).unwrap();
    let slow = std::thread::spawn(move || {
        let began = Instant::now();
        while slow.write_all(b"P").is_ok() {
            assert!(began.elapsed() < DEADLINE, "it is never shown out");
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    for mut socket in sockets {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = Vec::new();
        // Closed or reset: either way it is out. One that began HTTP/2 hears its settings and pings before.
        if let Err(error) = socket.read_to_end(&mut rest) {
            assert!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    slow.join().expect("it is shown out");
    let mut reward = client::reward(&service.addr.to_string()).unwrap();
    let asked = reward.get_reference(v1::GetReferenceRequest { task_id: "t".into() });
    tokio::time::timeout(DEADLINE, asked).await.expect("in time").expect("whoever speaks is served");
    let page = service.page();
    for reason in ["silent", "not_http2"] {
        let series = format!("hypereyes_connections_refused_total{{listener=\"grpc\",reason=\"{reason}\"}}");
        assert!(page.contains(&series), "{series}: {page}");
    }
    drop(reward);
    let log = service.stop();
    assert!(log.contains("a connection is closed"), "{log}");
}
