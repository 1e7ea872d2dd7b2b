//! Reads the rendered manifests of `k8s/`.
//!
//! In: a file of `k8s/rendered`. Out: its objects, and its workloads with what a pod of theirs is told. It knows YAML and the
//! shape of Kubernetes' objects, but no service: settings are TOML tables here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::root;

/// Labels, or the part of a selector that names labels.
pub type Labels = BTreeMap<String, String>;

/// The objects of one rendered file.
#[derive(Clone, Debug)]
pub struct Render {
    /// The file's name without its ending, which is the overlay's.
    pub name: String,
    /// All objects.
    pub objects: Vec<Value>,
}

/// What runs pods.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the object.
    pub name: String,
    /// `Deployment`, `StatefulSet` or `Job`; a job inside a JobSet is a `Job`.
    pub kind: String,
    /// `spec` of the object.
    pub spec: Value,
}

/// The folder of the manifests.
pub fn folder() -> PathBuf {
    root().join("k8s")
}

/// Every file of a folder of rendered manifests.
pub fn read(rendered: &Path) -> Vec<Render> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(rendered).expect("the folder is there").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let render = |path: PathBuf| Render {
        name: path.file_stem().expect("a file has a name").to_string_lossy().into_owned(),
        objects: parse(&std::fs::read_to_string(&path).expect("a text file")),
    };
    paths.into_iter().map(render).collect()
}

/// The renders that are whole systems: those with a namespace, not a version of the teacher alone.
pub fn overlays() -> Vec<Render> {
    read(&folder().join("rendered")).into_iter().filter(|render| render.of("Namespace").next().is_some()).collect()
}

/// The documents of a YAML text.
pub fn parse(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).expect("YAML")
}

/// A path of keys joined by dots, as text; empty when it leads nowhere.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// A path of keys joined by dots; null when it leads nowhere.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| &value[key])
}

/// The elements of a list; none when there is no list.
pub fn list<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = &'a Value> {
    at(value, path).as_array().into_iter().flatten()
}

/// The labels at a path.
pub fn labels(value: &Value, path: &str) -> Labels {
    let pairs = at(value, path).as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().expect("labels are text").to_owned())).collect()
}

/// Whether a selector picks what has these labels; an empty one picks all.
pub fn picks(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Render {
    /// The objects of a kind.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }

    /// The object of a kind and name.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind && text(object, "metadata.name") == name)
    }

    /// Everything that runs pods.
    pub fn workloads(&self) -> Vec<Workload> {
        let plain = ["Deployment", "StatefulSet", "Job"].into_iter().flat_map(|kind| self.of(kind));
        let plain = plain.map(|object| (text(object, "metadata.name").to_owned(), text(object, "kind").to_owned(), object["spec"].clone()));
        let nested = self.of("JobSet").flat_map(|set| {
            let of = text(set, "metadata.name");
            let jobs = list(set, "spec.replicatedJobs");
            jobs.map(move |job| (format!("{of}-{}-0", text(job, "name")), "Job".to_owned(), at(job, "template.spec").clone()))
        });
        plain.chain(nested).map(|(name, kind, spec)| Workload { name, kind, spec }).collect()
    }
}

impl Workload {
    /// The pods' spec.
    pub fn pod(&self) -> &Value {
        at(&self.spec, "template.spec")
    }

    /// The pods' labels.
    pub fn labels(&self) -> Labels {
        labels(&self.spec, "template.metadata.labels")
    }

    /// What the pods are, by their label: `actor`, `evaluator`, `learner`, `reward`, `search`, `teacher` or `teacher-model`.
    pub fn role(&self) -> String {
        self.labels()["app.kubernetes.io/name"].clone()
    }

    /// The container of the service.
    pub fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// Init containers that stay while the pod does.
    pub fn sidecars(&self) -> impl Iterator<Item = &Value> {
        list(self.pod(), "initContainers").filter(|one| one["restartPolicy"] == "Always")
    }

    /// The container that samples for an actor whose engine is outside its process.
    pub fn engine(&self) -> Option<&Value> {
        list(self.pod(), "initContainers").chain(list(self.pod(), "containers")).find(|one| one["name"] == "engine")
    }

    /// The kind of service, as `hypereyes service` takes it.
    pub fn kind_of_service(&self) -> &str {
        self.container()["args"][1].as_str().expect("args are service KIND --config FILE")
    }

    /// The service's settings file, as it lies in the ConfigMap that is mounted there.
    pub fn file(&self, render: &Render) -> String {
        let path = self.container()["args"][3].as_str().expect("args are service KIND --config FILE");
        let (mount, key) = path.rsplit_once('/').expect("a path");
        let volume = list(self.container(), "volumeMounts").find(|at| at["mountPath"] == mount).expect("the settings are mounted");
        let volume = list(self.pod(), "volumes").find(|one| one["name"] == volume["name"]).expect("the volume is there");
        let map = render.get("ConfigMap", text(volume, "configMap.name")).expect("the ConfigMap is there");
        map["data"][key].as_str().unwrap_or_else(|| panic!("{}: the ConfigMap has no {key}", self.name)).to_owned()
    }

    /// The service's environment; what the cluster fills in has a value of the right kind.
    pub fn env(&self) -> Vec<(String, String)> {
        let value = |one: &Value| match one["value"].as_str() {
            Some(value) => value.to_owned(),
            None if text(one, "valueFrom.fieldRef.fieldPath").contains("index") => "0".to_owned(),
            None => format!("{}-x", self.name),
        };
        list(self.container(), "env").map(|one| (text(one, "name").to_owned(), value(one))).collect()
    }

    /// One setting, from the environment if it is there, else from the file; dots between keys.
    pub fn setting(&self, render: &Render, key: &str) -> Option<toml::Value> {
        let suffix = format!("__{}", key.to_uppercase().replace('.', "__"));
        let said = self.env().into_iter().find(|(name, _)| name.strip_suffix(&suffix).is_some_and(|prefix| !prefix.contains("__")));
        if let Some((_, value)) = said {
            return Some(toml::Value::String(value));
        }
        let table: toml::Table = self.file(render).parse().expect("settings are TOML");
        let mut keys = key.split('.');
        let first = table.get(keys.next()?)?.clone();
        keys.try_fold(first, |value, key| value.get(key).cloned())
    }

    /// The port at the end of a setting that is an address.
    pub fn port(&self, render: &Render, key: &str) -> Option<u64> {
        let address = self.setting(render, key)?;
        Some(address.as_str()?.rsplit_once(':')?.1.parse().expect("a port"))
    }
}
