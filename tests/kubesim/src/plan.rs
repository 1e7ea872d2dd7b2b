//! From an object's pod template to one pod: its name, uid, host name, environment and arguments.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::amount::quantity;
use crate::manifest::{Key, Objects, list, strings, text};

/// What a controller wants made.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// Who wants it.
    pub owner: Key,
    /// The whole name, or its beginning where `unique` adds the rest.
    pub name: String,
    /// Whether five letters are added to the name.
    pub unique: bool,
    /// Hash of the owner's template.
    pub revision: String,
    /// Ordinal or completion index.
    pub index: Option<u32>,
    /// `metadata` and `spec` of the pod.
    pub template: Value,
}

/// A pod to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made from, its name completed.
    pub blueprint: Blueprint,
    /// Order of birth.
    pub serial: u32,
    /// Unique over time, also over two runs of this program.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Host name.
    pub hostname: String,
}

impl Plan {
    /// Gives a blueprint its name and uid; `seed` differs between clusters.
    pub fn new(mut blueprint: Blueprint, serial: u32, seed: u64) -> Self {
        let token = hash(&(seed, serial));
        if blueprint.unique {
            blueprint.name = format!("{}-{}", blueprint.name, letters(token));
        }
        let hostname = text(&blueprint.template["spec"]["hostname"]).unwrap_or_else(|| blueprint.name.clone());
        let uid = format!("{:08x}-{:04x}-4000-8000-{:012x}", token >> 32, token & 0xffff, hash(&(token, serial)) >> 16);
        let labels = strings(&blueprint.template["metadata"]["labels"]);
        Self { blueprint, serial, uid, labels, hostname }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        &self.blueprint.name
    }

    /// Namespace, which is its owner's.
    pub fn namespace(&self) -> &str {
        &self.blueprint.owner.namespace
    }

    /// The pod's spec.
    pub fn spec(&self) -> &Value {
        &self.blueprint.template["spec"]
    }

    /// An object in the pod's namespace.
    pub fn object<'a>(&self, objects: &'a Objects, kind: &str, name: &str) -> Option<&'a Value> {
        objects.get(&Key::new(kind, self.namespace(), name))
    }

    /// What the downward API says at a path.
    pub fn field(&self, path: &str, ip: Ipv4Addr, host: Ipv4Addr) -> Result<String> {
        let metadata = &self.blueprint.template["metadata"];
        let entry = |map: &Value, prefix: &str| {
            path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']").map(|key| text(&map[key]).unwrap_or_default())
        };
        Ok(match path {
            "metadata.name" => self.name().to_owned(),
            "metadata.namespace" => self.namespace().to_owned(),
            "metadata.uid" => self.uid.clone(),
            "status.podIP" | "status.podIPs" => ip.to_string(),
            "status.hostIP" => host.to_string(),
            "spec.nodeName" => "kubesim".to_owned(),
            "spec.serviceAccountName" => text(&self.spec()["serviceAccountName"]).unwrap_or_else(|| "default".to_owned()),
            _ => entry(&metadata["labels"], "metadata.labels")
                .or_else(|| entry(&metadata["annotations"], "metadata.annotations"))
                .with_context(|| format!("unknown fieldPath `{path}`"))?,
        })
    }

    /// A container's environment, in the order in which it was written.
    pub fn environment(&self, container: &Value, objects: &Objects, ip: Ipv4Addr, host: Ipv4Addr) -> Result<Vec<(String, String)>> {
        let mut found = vec![
            // The binaries that stand for images are on the path, as an image's own are.
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/image".to_owned()),
            ("HOSTNAME".to_owned(), self.hostname.clone()),
            ("HOME".to_owned(), "/".to_owned()),
        ];
        for source in list(&container["envFrom"]) {
            let prefix = source["prefix"].as_str().unwrap_or_default();
            for (kind, reference) in [("ConfigMap", &source["configMapRef"]), ("Secret", &source["secretRef"])] {
                let Some(name) = reference["name"].as_str() else { continue };
                match self.object(objects, kind, name) {
                    Some(object) => {
                        for (key, value) in crate::volumes::entries(object)? {
                            set(&mut found, &format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
                        }
                    }
                    None if reference["optional"] == true => {}
                    None => bail!("{kind} `{name}` not found"),
                }
            }
        }
        for variable in list(&container["env"]) {
            let name = variable["name"].as_str().context("an env entry has no name")?;
            let source = &variable["valueFrom"];
            let value = if let Some(path) = source["fieldRef"]["fieldPath"].as_str() {
                Some(self.field(path, ip, host)?)
            } else if let Some(resource) = source["resourceFieldRef"]["resource"].as_str() {
                let amount =
                    quantity(&container["resources"][resource.split('.').next().unwrap_or("")][resource.split('.').nth(1).unwrap_or("")]);
                let divisor = quantity(&source["resourceFieldRef"]["divisor"]).filter(|divisor| *divisor > 0.0).unwrap_or(1.0);
                Some((amount.unwrap_or(0.0) / divisor).ceil().to_string())
            } else if source.is_object() {
                self.keyed(source, objects)?
            } else {
                Some(expand(variable["value"].as_str().unwrap_or_default(), &found))
            };
            if let Some(value) = value {
                set(&mut found, name, value);
            }
        }
        Ok(found)
    }

    fn keyed(&self, source: &Value, objects: &Objects) -> Result<Option<String>> {
        for (kind, reference) in [("ConfigMap", &source["configMapKeyRef"]), ("Secret", &source["secretKeyRef"])] {
            let (Some(name), Some(key)) = (reference["name"].as_str(), reference["key"].as_str()) else { continue };
            let entries = self.object(objects, kind, name).map(crate::volumes::entries).transpose()?.unwrap_or_default();
            return match entries.get(key) {
                Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
                None if reference["optional"] == true => Ok(None),
                None => bail!("{kind} `{name}` has no key `{key}`"),
            };
        }
        bail!("an env entry's valueFrom has no source that is simulated")
    }
}

/// Command and arguments; an image's entry point stands where the manifest gives no command.
pub fn argv(container: &Value, entry: &str, names: &[String], environment: &[(String, String)]) -> Vec<String> {
    let words = |value: &Value| list(value).filter_map(Value::as_str).map(|word| expand(word, environment)).collect::<Vec<_>>();
    let mut argv = words(&container["command"]);
    match argv.first_mut() {
        // The program by its own name or path in the image is the binary that stands for the image.
        Some(program) if names.iter().any(|name| program.rsplit('/').next() == Some(name)) => {
            *program = format!("/image/{}", program.rsplit('/').next().unwrap_or_default());
        }
        Some(_) => {}
        None => argv.push(entry.to_owned()),
    }
    argv.extend(words(&container["args"]));
    argv
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; what is unknown stays as it is.
pub fn expand(written: &str, environment: &[(String, String)]) -> String {
    let (mut out, mut rest) = (String::new(), written);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|inner| inner.split_once(')')).map(|(name, _)| name);
        let known = name.and_then(|name| environment.iter().find(|(key, _)| key == name));
        match known {
            Some((key, value)) => {
                out.push_str(value);
                rest = &rest[key.len() + 3..];
            }
            None => {
                out.push('$');
                rest = rest.strip_prefix("$$").unwrap_or(&rest[1..]);
            }
        }
    }
    out + rest
}

/// A number that is the same wherever the same thing is hashed.
pub fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A template's revision.
pub fn revision(template: &Value) -> String {
    format!("{:08x}", hash(&template.to_string()) as u32)
}

fn set(environment: &mut Vec<(String, String)>, name: &str, value: String) {
    environment.retain(|(key, _)| key != name);
    environment.push((name.to_owned(), value));
}

fn letters(token: u64) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|place| ALPHABET[(token / 27u64.pow(place) % 27) as usize] as char).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_expand_what_is_known() {
        let environment = vec![("A".to_owned(), "1".to_owned())];
        assert_eq!(expand("x$(A)y $(B) $$(A) $", &environment), "x1y $(B) $(A) $");
        let names = vec!["hypereyes".to_owned()];
        let argv = |container| argv(&container, "/image/hypereyes", &names, &environment);
        assert_eq!(argv(json!({"args": ["actor", "$(A)"]})), ["/image/hypereyes", "actor", "1"]);
        assert_eq!(argv(json!({"command": ["/usr/local/bin/hypereyes"], "args": ["x"]})), ["/image/hypereyes", "x"]);
        assert_eq!(argv(json!({"command": ["sh", "-c", "true"]})), ["sh", "-c", "true"]);
    }
}
