//! World packs of somebody else's: checked, refused with everything that is wrong, made into tasks.

use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::support::run;

/// A pack that somebody made: names of up to three words, four relations, one of them with a wording of its own, photographs of many sizes.
pub fn pack(folder: &Path, entities: usize) {
    let world = r#"
name = "shed"
noun = "thing"
[relations.code]
label = "code"
unique = true
askable = true
[relations.home]
label = "home"
unique = false
askable = true
question = "Which of them is kept in the {value}?"
clause = "kept in the {value}"
[relations.stuff]
label = "stuff"
unique = false
askable = true
[relations.age]
label = "age"
unique = false
askable = false
"#;
    std::fs::create_dir_all(folder.join("pictures")).unwrap();
    std::fs::write(folder.join("world.toml"), world).unwrap();
    let rows: String = (0..entities)
        .map(|at| {
            let name = format!("{}{}", ["old ", "red ", "very small ", ""][at % 4], word(at));
            let (home, stuff) = (["attic", "cellar", "garden", "kitchen", "hall"][at % 5], ["wood", "iron", "glass"][at / 2 % 3]);
            let facts = json!({ "code": format!("K{at}"), "home": home, "stuff": stuff, "age": format!("{at} years") });
            json!({ "id": format!("e{at}"), "name": name, "facts": facts }).to_string() + "\n"
        })
        .collect();
    std::fs::write(folder.join("entities.jsonl"), rows).unwrap();
    for at in 0..entities as u32 {
        let (width, height) = (40 + at * 37 % 400, 40 + at * 53 % 300);
        // Blocks of its own colours, so that pictures differ at a glance.
        let colour = |block: u32| {
            let mixed = (at * 12 + block + 1).wrapping_mul(2_654_435_761);
            Rgb([(mixed >> 24) as u8, (mixed >> 16) as u8, (mixed >> 8) as u8])
        };
        let picture = RgbImage::from_fn(width, height, |x, y| colour(x * 4 / width + y * 3 / height * 4));
        let ending = if at % 2 == 0 { "png" } else { "jpg" };
        picture.save(folder.join(format!("pictures/e{at}.{ending}"))).unwrap();
    }
}

/// A word that is like no other.
fn word(at: usize) -> String {
    const PARTS: [&str; 8] = ["ba", "do", "fi", "gu", "ke", "lo", "mi", "nu"];
    format!("{}{}{}", PARTS[at % 8], PARTS[at / 8 % 8], PARTS[(at / 64 + at + 3) % 8])
}

fn checked(folder: &Path) -> (Option<i32>, Value, String) {
    let output = run(&["world", "check", &folder.display().to_string(), "--json"]);
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_pack_that_was_made_elsewhere_is_told_what_can_be_made_of_it() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("shed");
    pack(&folder, 48);
    let (code, said, stderr) = checked(&folder);
    assert_eq!((code, &said["entities"], said["stopping"].as_array().unwrap().len()), (Some(0), &json!(48), 0), "{said} {stderr}");
    for kind in ["visual_select", "visual_hop", "textual_constraints"] {
        assert!(said["questions"][kind].as_u64().unwrap() > 10, "{kind}: {said}");
    }
    // The shipped policy knows none of these words.
    assert!(said["tokens_per_name"]["mean"].as_f64().unwrap() > 6.0 && said["policy_reads_it"] == false, "{said}");
    assert!(said["tokens_per_name"]["max"].as_u64().unwrap() >= "very small bababa".len() as u64, "{said}");
    assert_eq!(said["found"], json!([48 * 4, 48 * 4]), "every fact and every picture is found: {said}");
    // Tasks are made of it, in its own words.
    let data = scratch.path().join("data");
    let world = format!("world={}", folder.display());
    let output =
        run(&["synth", "--out", &data.display().to_string(), "--set", &world, "--set", "synth.tasks=40", "--set", "synth.kinds.textual=0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tasks = std::fs::read_to_string(data.join("tasks.jsonl")).unwrap();
    assert!(tasks.contains("Which of them is kept in the "), "{tasks}");
    assert!(tasks.contains(" of the one kept in the "), "{tasks}");
}

#[test]
fn what_is_wrong_with_a_pack_is_said_at_once_and_stops() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("shed");
    pack(&folder, 8);
    let rows = std::fs::read_to_string(folder.join("entities.jsonl")).unwrap();
    std::fs::write(
        folder.join("entities.jsonl"),
        rows.replacen("K1\"", "K0\"", 1).replacen("\"home\":\"cellar\"", "\"house\":\"cellar\"", 1),
    )
    .unwrap();
    std::fs::remove_file(folder.join("pictures/e4.png")).unwrap();
    let (code, said, stderr) = checked(&folder);
    assert_eq!(code, Some(2), "{said}");
    let problems = said["problems"].to_string();
    for part in ["no fact \\\\\\\"home\\\\\\\"", "there is no e4.png"] {
        assert!(problems.contains(&part.replace("\\\\\\\"", "\\\"")), "{part}: {problems}");
    }
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    let (code, said, _) = checked(&scratch.path().join("none"));
    assert_eq!((code, said["entities"].as_u64()), (Some(2), Some(0)));
}

#[test]
fn a_kind_of_question_that_a_pack_has_not_is_said_by_its_key() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("shed");
    pack(&folder, 160);
    let (code, said, _) = checked(&folder);
    assert_eq!((code, &said["questions"]["textual_constraints"]), (Some(0), &json!(0)), "{said}");
    assert!(said["problems"].to_string().contains("say --set synth.kinds.textual=0 wherever tasks are made"), "{said}");
    let (world, out) = (format!("world={}", folder.display()), scratch.path().join("data").display().to_string());
    let output = run(&["synth", "--out", &out, "--set", &world, "--set", "synth.tasks=4"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("set synth.kinds.textual = 0"), "{stderr}");
}

#[test]
fn what_is_ambiguous_is_noted_and_stops_nobody() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("shed");
    pack(&folder, 24);
    std::fs::copy(folder.join("pictures/e2.png"), folder.join("pictures/e6.png")).unwrap();
    let rows = std::fs::read_to_string(folder.join("entities.jsonl")).unwrap();
    std::fs::write(folder.join("entities.jsonl"), rows.replacen("\"K3\"", "\"wood\"", 1).replacen("\"K5\"", "\"a, b is c\"", 1)).unwrap();
    let (code, said, stderr) = checked(&folder);
    assert_eq!(code, Some(0), "{said} {stderr}");
    let problems = said["problems"].to_string();
    for part in ["wood\\\" (code and stuff)", "read back as another fact", "taken for another entity's", "e2 and e6"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    assert_eq!(said["look_alikes"][0]["declared"], json!(false));
}

#[test]
fn a_cold_start_is_refused_before_anything_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, out) = (scratch.path().join("shed"), scratch.path().join("out"));
    pack(&folder, 8);
    let start = |world: &Path, more: &[&str]| {
        let (world, out) = (world.display().to_string(), out.display().to_string());
        let output = run(&[&["coldstart", "--world", &world, "--minutes", "2", "--out", &out], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = start(&scratch.path().join("none"), &[]);
    assert!(code == Some(2) && said.contains("no world pack at"), "{said}");
    let (code, said) = start(&folder, &["--set", "policy=p"]);
    assert!(code == Some(2) && said.contains("policy is p"), "{said}");
    let (code, said) = start(&folder, &["--set", "synth.relations=[\"colour\"]"]);
    assert!(code == Some(2) && said.contains("colour"), "{said}");
    assert!(!out.exists());
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("mine.txt"), "x").unwrap();
    let (code, said) = start(&folder, &[]);
    assert!(code == Some(2) && said.contains("holds files that are no cold start"), "{said}");
}

#[test]
#[ignore = "slow: three minutes; cargo test --release -p hypereyes --test it -- --ignored a_world_of_ones_own"]
fn a_world_of_ones_own_becomes_a_policy_and_its_teacher() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, out) = (scratch.path().join("shed"), scratch.path().join("out"));
    pack(&folder, 160);
    let (world, place) = (folder.display().to_string(), out.display().to_string());
    // So many things share five homes and three stuffs that no two of these single one out: it is said by the key, before anything is made.
    let refused = run(&["coldstart", "--world", &world, "--minutes", "2", "--out", &place]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("set synth.kinds.textual = 0") && !out.exists(), "{said}");
    let sets = ["--set", "synth.held_out=60", "--set", "synth.kinds.textual=0"];
    let line = [&["coldstart", "--world", &world, "--minutes", "2", "--out", &place, "--json"][..], &sets].concat();
    // Cut in the middle of the teacher: the same command goes on.
    let mut cut = crate::support::hypereyes(&line).spawn().unwrap();
    crate::support::wait_for("a checkpoint of the teacher", &mut cut, || out.join("teacher.checkpoint").exists().then_some(()));
    cut.kill().unwrap();
    cut.wait().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let output = run(&line);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["policy", "teacher", "accuracy", "rounds", "steps", "seconds", "advice"] {
        assert!(!said[key].is_null(), "{key}: {said}");
    }
    println!("{said}");
    let other = run(&[&["coldstart", "--world", &world, "--minutes", "3", "--out", &place][..], &sets].concat());
    assert!(String::from_utf8_lossy(&other.stderr).contains("was begun with --minutes 2"));
    // Both are policies that `up` takes.
    let own = [format!("world={world}"), format!("policy={place}/policy"), format!("teacher={place}/teacher")];
    let mut line = vec!["up", "--dry-run", "--json", "--set", "synth.kinds.textual=0"];
    own.iter().for_each(|set| line.extend(["--set", set.as_str()]));
    let planned = run(&line);
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
}
