//! Pods find and reach each other by name, unless they are cut apart.

use std::time::Duration;

use crate::rig::{SOON, cluster, deployment, lookup, misses, names, reaches, service, sh};

#[tokio::test]
async fn names_follow_pods_and_probes_gate_them() {
    let manifests = deployment("a", 2, "", "") + &service("a", "") + &service("b", ", clusterIP: None, publishNotReadyAddresses: true");
    let manifests = manifests + &deployment("b", 2, ", --warm-up, '60000'", "");
    let Some(cluster) = cluster(&manifests).await else { return };
    cluster.wait_ready("app=a", SOON).await.unwrap();
    let (a, b) = (names(&cluster, "a").await, names(&cluster, "b").await);

    // A headless name that publishes early has everybody.
    let all = |snapshot: &hypereyes_kubesim::Snapshot| snapshot.select("app=b").iter().all(|pod| pod.ip.is_some()).then_some(());
    cluster.wait("addresses of b", SOON, all).await.unwrap();
    assert_eq!(lookup(&cluster, &a[0], "b").await.len(), 2);
    assert_eq!(cluster.snapshot().await.unwrap().pod(&b[0]).map(|pod| pod.ready), Some(false));

    // A ClusterIP has one pod, under all its names, and only while one is ready.
    let one = lookup(&cluster, &a[0], "a").await;
    assert_eq!(one.len(), 1);
    for name in ["a.default", "a.default.svc", "a.default.svc.cluster.local"] {
        assert_eq!(lookup(&cluster, &a[0], name).await, one, "{name}");
    }
    assert!(lookup(&cluster, &a[0], "nobody").await.is_empty());
    assert!(reaches(&cluster, &a[0], "a", 8086).await);
    for pod in &a {
        sh(&cluster, pod, "touch /tmp/unready").await;
    }
    let unready = |snapshot: &hypereyes_kubesim::Snapshot| snapshot.select("app=a").iter().all(|pod| !pod.ready).then_some(());
    cluster.wait("pods of a that are not ready", SOON, unready).await.unwrap();
    assert!(lookup(&cluster, &a[1], "a").await.is_empty());
    // One process tries again and again; it sees the name when there is one.
    let patient = "until { : <>/dev/tcp/a/8086; } 2>/dev/null; do sleep 0.05; done; echo found";
    let argv = ["bash", "-c", patient];
    let (found, _) = tokio::join!(cluster.exec(&a[0], &argv), sh(&cluster, &a[1], "sleep 0.3; rm /tmp/unready"));
    assert_eq!(found.unwrap().stdout, b"found\n");
    let ready = |snapshot: &hypereyes_kubesim::Snapshot| snapshot.pod(&a[1]).filter(|pod| pod.ready).and_then(|pod| pod.ip);
    let ip = cluster.wait("a ready pod of a", SOON, ready).await.unwrap();
    assert_eq!(lookup(&cluster, &a[0], "a").await, [ip.to_string()]);
}

#[tokio::test]
async fn a_partition_swallows_packets_until_it_is_healed() {
    let manifests = ["a", "b", "c"].map(|name| deployment(name, 1, "", "") + &service(name, "")).concat();
    let Some(cluster) = cluster(&manifests).await else { return };
    for name in ["app=a", "app=b", "app=c"] {
        cluster.wait_ready(name, SOON).await.unwrap();
    }
    let pods = [names(&cluster, "a").await, names(&cluster, "b").await, names(&cluster, "c").await].concat();
    let [a, b, c] = pods.as_slice() else { panic!("{pods:?}") };
    assert!(reaches(&cluster, a, "b", 8086).await);
    cluster.partition(&[a], &[b]).await.unwrap();
    assert!(misses(&cluster, a, "b", 8086).await && misses(&cluster, b, "a", 8086).await);
    assert!(reaches(&cluster, a, "c", 8086).await && reaches(&cluster, c, "b", 8086).await);
    assert_eq!(cluster.snapshot().await.unwrap().pod(b).map(|pod| pod.ready), Some(true), "probes come from the node");
    cluster.heal().await.unwrap();
    assert!(reaches(&cluster, a, "b", 8086).await);

    // A connection that is open stays open; what it carries arrives late.
    let line = "exec 3<>/dev/tcp/b/9090; touch /tmp/open; sleep 0.3; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let argv = ["bash", "-c", line];
    let start = std::time::Instant::now();
    let (answer, ()) = tokio::join!(cluster.exec(a, &argv), async {
        sh(&cluster, a, "until [ -e /tmp/open ]; do sleep 0.01; done").await;
        cluster.partition_one_way(&[b], &[a]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.heal().await.unwrap();
    });
    let answer = answer.unwrap();
    assert!(String::from_utf8_lossy(&answer.stdout).contains("load 0"), "{answer:?}");
    assert!(start.elapsed() > Duration::from_secs(1));

    let address = cluster.forward(a, 9090).await.unwrap();
    let near = std::thread::spawn(move || {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.0\r\n\r\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    });
    let page = tokio::task::spawn_blocking(|| near.join().unwrap()).await.unwrap();
    assert!(page.contains("load 0"), "{page}");
    assert!(cluster.metrics(a).await.unwrap().contains("load 0"));
}
