//! The handle that tests and the command line hold: start, change, break, wait, look.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::autoscale;
use crate::control::{Control, Order};
use crate::events::{self, Events};
use crate::node::Node;
use crate::plan::hash;
use crate::status::{PodInfo, Snapshot, Verdict};
use crate::world::{Options, World};

/// How long a program may take that is run in a pod.
const EXEC_LIMIT: Duration = Duration::from_secs(60);

/// A running cluster. Dropping it kills every pod and leaves nothing behind, whatever state it is in.
pub struct Cluster {
    orders: mpsc::Sender<Order>,
    /// Dropped, it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    folder: PathBuf,
    /// What the manifests say and nobody acts upon.
    pub ignored: Vec<String>,
    /// Removed last, after the thread that writes there.
    _temporary: Option<tempfile::TempDir>,
}

impl Cluster {
    /// Starts a cluster with these manifests; pods come up while the caller goes on.
    pub async fn start(manifests: &str, options: Options) -> Result<Self> {
        let temporary = options.scratch.is_none().then(|| tempfile::Builder::new().prefix("kubesim-").tempdir()).transpose()?;
        let folder =
            options.scratch.clone().or_else(|| Some(temporary.as_ref()?.path().to_owned())).context("there is no scratch folder")?;
        clear(&folder)?;
        let folder = folder.canonicalize()?;
        let mut options = options;
        for (name, path) in &mut options.binaries {
            *path = path.canonicalize().with_context(|| format!("the binary `{name}` is not at {}", path.display()))?;
        }
        let (orders, inbox) = mpsc::channel(16);
        let ((ready, started), (stop, stopped)) = (oneshot::channel(), oneshot::channel());
        let home = folder.clone();
        let thread = std::thread::Builder::new().name("kubesim".to_owned()).spawn(move || live(home, options, inbox, stopped, ready))?;
        let mut cluster = Self { orders, stop: Some(stop), thread: Some(thread), folder, ignored: vec![], _temporary: temporary };
        started.await.context("the cluster's thread has ended")??;
        cluster.ignored = cluster.apply(manifests).await?;
        Ok(cluster)
    }

    /// Applies manifests as the whole truth: objects that they no longer name are deleted. Returns what is not acted upon.
    pub async fn apply(&self, manifests: &str) -> Result<Vec<String>> {
        let manifests = manifests.to_owned();
        self.on(move |control| async move { control.apply(&manifests) }).await
    }

    /// Sets a Deployment's replicas.
    pub async fn scale(&self, deployment: &str, replicas: u32) -> Result<()> {
        let name = deployment.to_owned();
        self.on(move |control| async move { control.scale("Deployment", &name, replicas) }).await
    }

    /// Evicts a pod: no endpoint from now on, preStop, SIGTERM, its grace, SIGKILL. Does not wait, and heeds no budget.
    pub async fn delete_pod(&self, pod: &str) -> Result<()> {
        let name = pod.to_owned();
        self.on(move |control| async move { control.evict(&name, false) }).await
    }

    /// Evicts a pod unless a PodDisruptionBudget forbids it, as a drain does.
    pub async fn evict(&self, pod: &str) -> Result<()> {
        let name = pod.to_owned();
        self.on(move |control| async move { control.evict(&name, true) }).await
    }

    /// SIGKILL to every container of a pod. The pod stays, and its restart policy says what is next.
    pub async fn kill_pod(&self, pod: &str) -> Result<()> {
        self.signal(pod, Signal::KILL).await
    }

    /// SIGKILL to one container of a pod; the others go on.
    pub async fn kill_container(&self, pod: &str, container: &str) -> Result<()> {
        self.signal_to(pod, Some(container), Signal::KILL).await
    }

    /// SIGSTOP: the pod's programs neither answer nor end, while their connections stay open.
    pub async fn pause_pod(&self, pod: &str) -> Result<()> {
        self.signal(pod, Signal::STOP).await
    }

    /// SIGCONT.
    pub async fn resume_pod(&self, pod: &str) -> Result<()> {
        self.signal(pod, Signal::CONT).await
    }

    /// Cuts the network between two sets of pods: packets vanish, as between racks whose switch is down.
    /// It concerns these pods, not their successors.
    pub async fn partition(&self, one: &[&str], other: &[&str]) -> Result<()> {
        self.cut(one, other, true).await
    }

    /// Cuts one direction only: what the first send does not reach the second.
    pub async fn partition_one_way(&self, from: &[&str], to: &[&str]) -> Result<()> {
        self.cut(from, to, false).await
    }

    /// Ends every partition.
    pub async fn heal(&self) -> Result<()> {
        self.on(|control| async move {
            control.heal().await;
            Ok(())
        })
        .await
    }

    /// Pods, workloads and Jobs, now.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        self.on(|control| async move { Ok(control.snapshot()) }).await
    }

    /// Pods, now, in order of birth.
    pub async fn pods(&self) -> Result<Vec<PodInfo>> {
        Ok(self.snapshot().await?.pods)
    }

    /// Names of the pods that `key=value,…` selects and that have not ended.
    pub async fn names(&self, selector: &str) -> Result<Vec<String>> {
        let snapshot = self.snapshot().await?;
        Ok(snapshot.select(selector).into_iter().filter(|pod| pod.active()).map(|pod| pod.name.clone()).collect())
    }

    /// Waits until something can be read off a snapshot; `what` is for the error, which also lists the pods.
    pub async fn wait<T>(&self, what: &str, deadline: Duration, look: impl Fn(&Snapshot) -> Option<T>) -> Result<T> {
        let until = Instant::now() + deadline;
        loop {
            let snapshot = self.snapshot().await?;
            if let Some(found) = look(&snapshot) {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("after {deadline:?} still no {what}:\n{}", crate::table::render(&snapshot));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the pods that `key=value,…` selects are there and ready, and no rollout of their owners is under way.
    pub async fn wait_ready(&self, selector: &str, deadline: Duration) -> Result<()> {
        self.wait(&format!("ready pods `{selector}`"), deadline, |snapshot| snapshot.settled(selector).then_some(())).await
    }

    /// Waits for a Job's end, good or bad.
    pub async fn wait_job(&self, name: &str, deadline: Duration) -> Result<Verdict> {
        let verdict = |snapshot: &Snapshot| snapshot.jobs.iter().find(|(key, _)| key.name == name).and_then(|(_, verdict)| verdict.clone());
        self.wait(&format!("end of job `{name}`"), deadline, verdict).await
    }

    /// Runs a program in a pod's first container: its namespaces, files, user and environment. It has a minute.
    pub async fn exec(&self, pod: &str, argv: &[&str]) -> Result<Output> {
        let (name, argv) = (pod.to_owned(), argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        self.on(move |control| async move {
            let mut command = control.world.pod(&name)?.exec(None, &argv)?;
            let output = tokio::time::timeout(EXEC_LIMIT, command.output()).await;
            Ok(output.with_context(|| format!("{argv:?} in `{name}` is not over after {EXEC_LIMIT:?}"))??)
        })
        .await
    }

    /// A pod's page of metrics, as a scraper sees it.
    pub async fn metrics(&self, pod: &str) -> Result<String> {
        let name = pod.to_owned();
        self.on(move |control| async move { autoscale::page(&control, &name).await }).await
    }

    /// What a pod's containers have written, over all their starts; also of pods that are gone.
    pub fn logs(&self, pod: &str) -> Result<String> {
        let mut found = String::new();
        for entry in std::fs::read_dir(self.folder.join("logs"))?.flatten() {
            if entry.file_name().to_string_lossy().strip_prefix(pod).is_some_and(|rest| rest.starts_with('.')) {
                found += &String::from_utf8_lossy(&std::fs::read(entry.path())?);
            }
        }
        Ok(found)
    }

    /// An address on this machine whose connections end at a pod's port, as `kubectl port-forward` gives one.
    pub async fn forward(&self, pod: &str, port: u16) -> Result<std::net::SocketAddr> {
        let ip = self.snapshot().await?.pod(pod).and_then(|pod| pod.ip).with_context(|| format!("`{pod}` has no address"))?;
        let (listener, orders) = (TcpListener::bind("127.0.0.1:0").await?, self.orders.clone());
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let orders = orders.clone();
                tokio::spawn(async move {
                    // Made on the cluster's thread the socket is in its network; after that any thread may use it.
                    let connect = async move |_| anyhow::Ok(TcpStream::connect((ip, port)).await?.into_std()?);
                    if let Ok(far) = ask(&orders, connect).await
                        && let Ok(mut far) = TcpStream::from_std(far)
                    {
                        // Either end may go away at any time.
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(address)
    }

    /// The event log so far.
    pub fn events(&self) -> Result<Vec<Value>> {
        events::read(&self.folder.join("events.jsonl"))
    }

    /// The folder behind a PersistentVolumeClaim, there once a pod has mounted it.
    pub fn claim(&self, namespace: &str, name: &str) -> PathBuf {
        self.folder.join("claims").join(namespace).join(name)
    }

    /// Where logs, claims and the event log are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    async fn signal(&self, pod: &str, signal: Signal) -> Result<()> {
        self.signal_to(pod, None, signal).await
    }

    async fn signal_to(&self, pod: &str, container: Option<&str>, signal: Signal) -> Result<()> {
        let (name, container) = (pod.to_owned(), container.map(str::to_owned));
        self.on(move |control| async move {
            control.world.events.note("signal", &name, serde_json::json!({"container": container, "signal": format!("{signal:?}")}));
            control.world.pod(&name).map(|pod| pod.signal(container.as_deref(), signal))
        })
        .await
    }

    async fn cut(&self, one: &[&str], other: &[&str], both: bool) -> Result<()> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (one, other) = (names(one), names(other));
        self.on(move |control| async move { control.partition(&one, &other, both).await }).await
    }

    async fn on<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
        &self,
        work: impl FnOnce(Rc<Control>) -> F + Send + 'static,
    ) -> Result<T> {
        ask(&self.orders, work).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has taken its pods with it.
            let _ = thread.join();
        }
    }
}

/// Makes the folders; of an earlier run only the claims stay.
fn clear(folder: &Path) -> Result<()> {
    for part in ["pods", "logs"] {
        let part = folder.join(part);
        if part.exists() {
            ensure!(folder.join("events.jsonl").exists(), "{} is in the way, and not of an earlier run", part.display());
            std::fs::remove_dir_all(&part)?;
        }
        std::fs::create_dir_all(part)?;
    }
    Ok(std::fs::create_dir_all(folder.join("claims"))?)
}

/// Does work on the cluster's thread.
async fn ask<T: Send + 'static, F: Future<Output = Result<T>> + 'static>(
    orders: &mpsc::Sender<Order>,
    work: impl FnOnce(Rc<Control>) -> F + Send + 'static,
) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let order: Order = Box::new(move |control| {
        Box::pin(async move {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(work(control).await);
        })
    });
    orders.send(order).await.map_err(|_| anyhow!("the cluster's thread has ended"))?;
    answer.await.context("the cluster's thread has ended")?
}

/// The cluster's thread, from the node's namespace to the last pod's end.
fn live(
    folder: PathBuf,
    options: Options,
    orders: mpsc::Receiver<Order>,
    stopped: oneshot::Receiver<()>,
    ready: oneshot::Sender<Result<()>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let begin = async {
            let events = Events::create(&folder.join("events.jsonl"), options.echo)?;
            let node = Node::enter(folder).await?;
            let seed = hash(&(std::process::id(), SystemTime::now()));
            let (objects, pods, changed, born) = Default::default();
            anyhow::Ok(Rc::new(World { node, objects, pods, events, options, changed, born, seed }))
        };
        match begin.await {
            Err(error) => drop(ready.send(Err(error))),
            Ok(world) => {
                let control = Rc::new(Control::new(world));
                // Whoever gave up waiting has dropped `stop`, too.
                let _ = ready.send(Ok(()));
                let scaler = tokio::task::spawn_local(autoscale::run(control.clone()));
                control.run(orders, stopped).await;
                scaler.abort();
            }
        }
    });
}
