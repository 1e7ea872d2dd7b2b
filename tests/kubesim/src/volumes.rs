//! Volumes as folders on this machine: ConfigMaps and Secrets as the kubelet lays them out, empty ones, and claims that outlive pods.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::manifest::{Objects, list};
use crate::plan::Plan;

/// A file of a projected volume: what is in it and who may read it.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// What a ConfigMap or a Secret holds.
pub fn entries(object: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let secret = object["kind"] == "Secret";
    let mut found = BTreeMap::new();
    for (field, encoded) in [("data", secret), ("binaryData", true), ("stringData", false)] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let value = value.as_str().with_context(|| format!("`{key}` is not a string"))?;
            let bytes = if encoded { STANDARD.decode(value.replace(['\n', ' '], ""))? } else { value.as_bytes().to_vec() };
            found.insert(key.clone(), bytes);
        }
    }
    Ok(found)
}

/// Makes the folders of all volumes of a pod, or says what is missing. Done again after an object has changed, it exchanges
/// what has changed and nothing else.
pub fn prepare(plan: &Plan, folder: &Path, claims: &Path, objects: &Objects) -> Result<BTreeMap<String, PathBuf>> {
    let group = plan.spec()["securityContext"]["fsGroup"].as_u64().map(|group| group as u32);
    let mut found = BTreeMap::new();
    for volume in list(&plan.spec()["volumes"]) {
        let name = volume["name"].as_str().context("a volume has no name")?;
        let mut place = folder.join("volumes").join(name);
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            plan.object(objects, "PersistentVolumeClaim", claim).with_context(|| format!("PersistentVolumeClaim `{claim}` not found"))?;
            place = claims.join(plan.namespace()).join(claim);
            // Most storage comes with root's folder: without fsGroup, another user finds it read-only.
            open(&place, if group.is_some() { 0o2775 } else { 0o755 }, group)?;
        } else if volume["emptyDir"].is_object() {
            open(&place, 0o2777, group)?;
        } else if let Some(path) = volume["hostPath"]["path"].as_str() {
            place = PathBuf::from(path);
        } else {
            fs::create_dir_all(&place)?;
            project(&place, &files(plan, volume, objects).with_context(|| format!("volume `{name}`"))?, group)?;
        }
        found.insert(name.to_owned(), place);
    }
    Ok(found)
}

/// An empty folder, the first time.
fn open(place: &Path, mode: u32, group: Option<u32>) -> Result<()> {
    if !place.exists() {
        fs::create_dir_all(place)?;
        chown(place, None, group)?;
        fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn files(plan: &Plan, volume: &Value, objects: &Objects) -> Result<Files> {
    let mut found = Files::new();
    let sources: Vec<&Value> = if volume["projected"].is_object() { list(&volume["projected"]["sources"]).collect() } else { vec![volume] };
    let outer = volume["projected"]["defaultMode"].as_u64();
    for source in sources {
        let (config, secret, downward) = (&source["configMap"], &source["secret"], &source["downwardAPI"]);
        let mode = |inner: &Value, item: &Value| item["mode"].as_u64().or(inner["defaultMode"].as_u64()).or(outer).unwrap_or(0o644) as u32;
        if downward.is_object() {
            for item in list(&downward["items"]) {
                let path = item["path"].as_str().context("an item has no path")?;
                let field = item["fieldRef"]["fieldPath"].as_str().context("only fieldRef is simulated")?;
                // Volumes are made before there is an address; none of theirs can name it, in Kubernetes either.
                let value = plan.field(field, std::net::Ipv4Addr::UNSPECIFIED, crate::node::ADDRESS)?;
                found.insert(path.to_owned(), (value.into_bytes(), mode(downward, item)));
            }
        } else if config.is_object() || secret.is_object() {
            let (kind, inner) = if config.is_object() { ("ConfigMap", config) } else { ("Secret", secret) };
            let name = inner["secretName"].as_str().or(inner["name"].as_str()).context("a source has no name")?;
            let Some(object) = plan.object(objects, kind, name) else {
                if inner["optional"] == true {
                    continue;
                }
                bail!("{kind} `{name}` not found")
            };
            let mut entries = entries(object)?;
            if inner["items"].is_array() {
                for item in list(&inner["items"]) {
                    let (key, path) = (item["key"].as_str().unwrap_or_default(), item["path"].as_str().unwrap_or_default());
                    let value = entries.remove(key).with_context(|| format!("{kind} `{name}` has no key `{key}`"))?;
                    found.insert(path.to_owned(), (value, mode(inner, item)));
                }
            } else {
                found.extend(entries.into_iter().map(|(key, value)| (key, (value, mode(inner, &Value::Null)))));
            }
        } else if !source["serviceAccountToken"].is_object() {
            bail!("none of its sources is simulated");
        }
    }
    Ok(found)
}

/// Lays files out under a dated folder and moves the link `..data` to it, in one step, as the kubelet does.
fn project(place: &Path, files: &Files, group: Option<u32>) -> Result<()> {
    let current = fs::read_link(place.join("..data")).ok();
    let same = |folder: &PathBuf| {
        let folder = place.join(folder);
        files.iter().all(|(path, (bytes, _))| fs::read(folder.join(path)).is_ok_and(|old| &old == bytes)) && tree(&folder) == files.len()
    };
    if current.as_ref().is_some_and(same) {
        return Ok(());
    }
    let number = current.as_ref().and_then(|name| name.to_str()?.strip_prefix("..")?.parse::<u32>().ok()).map_or(0, |number| number + 1);
    let fresh = format!("..{number}");
    fs::create_dir_all(place.join(&fresh))?;
    for (path, (bytes, mode)) in files {
        let file = place.join(&fresh).join(path);
        fs::create_dir_all(file.parent().expect("it has the volume above it"))?;
        fs::write(&file, bytes)?;
        chown(&file, None, group)?;
        // A group that owns files of a volume can read them, whatever the mode says.
        fs::set_permissions(&file, fs::Permissions::from_mode(if group.is_some() { mode | 0o040 } else { *mode }))?;
    }
    let _ = fs::remove_file(place.join("..new"));
    symlink(&fresh, place.join("..new"))?;
    fs::rename(place.join("..new"), place.join("..data"))?;
    for top in files.keys().filter_map(|path| path.split('/').next()) {
        if place.join(top).symlink_metadata().is_err() {
            symlink(Path::new("..data").join(top), place.join(top))?;
        }
    }
    for entry in fs::read_dir(place)?.flatten().filter(|entry| entry.path().symlink_metadata().is_ok_and(|meta| meta.is_symlink())) {
        if !entry.path().exists() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = current {
        fs::remove_dir_all(place.join(old))?;
    }
    Ok(())
}

fn tree(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { tree(&entry.path()) } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_moves_one_link() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| project(folder.path(), &Files::from([("a/b.toml".to_owned(), (text.into(), 0o644))]), None).unwrap();
        write("1");
        let first = fs::read_link(folder.path().join("..data")).unwrap();
        write("1");
        assert_eq!(fs::read_link(folder.path().join("..data")).unwrap(), first);
        write("2");
        assert_eq!(fs::read_to_string(folder.path().join("a/b.toml")).unwrap(), "2");
        assert!(!folder.path().join(first).exists());
        project(folder.path(), &Files::from([("c".to_owned(), (b"3".to_vec(), 0o600))]), None).unwrap();
        assert!(!folder.path().join("a").exists() && folder.path().join("c").exists());
    }

    #[test]
    fn secrets_are_decoded_and_text_is_not() {
        let secret = serde_json::json!({"kind": "Secret", "data": {"a": "aGk="}, "stringData": {"b": "hi"}});
        let entries = entries(&secret).unwrap();
        assert_eq!((entries["a"].as_slice(), entries["b"].as_slice()), (&b"hi"[..], &b"hi"[..]));
    }
}
