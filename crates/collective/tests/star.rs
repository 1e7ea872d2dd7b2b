//! Ranks as threads over real sockets: sums in order, shards, copies, and who is named when someone is missing.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use hypereyes_collective::{Collective, CollectiveError, Hub, Op, RankInfo, Tcp};

const TIMEOUT: Duration = Duration::from_secs(30);

fn hub() -> (Hub, SocketAddr) {
    let hub = Hub::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = hub.address().unwrap();
    (hub, address)
}

/// Runs `work` on every rank of a group.
fn group<T: Send + 'static>(world: usize, timeout: Duration, work: impl Fn(Tcp) -> T + Clone + Send + 'static) -> Vec<T> {
    let (hub, address) = hub();
    let place = move |rank| RankInfo { rank, world, generation: 9 };
    let others: Vec<_> = (1..world)
        .map(|rank| {
            let work = work.clone();
            thread::spawn(move || work(Tcp::join(place(rank), address, timeout).unwrap()))
        })
        .collect();
    let mut results = vec![work(hub.meet(place(0), timeout.max(TIMEOUT), timeout).unwrap())];
    results.extend(others.into_iter().map(|other| other.join().unwrap()));
    results
}

/// Values whose sum depends on the order in which they are added.
fn part(rank: usize, total: usize) -> Vec<f32> {
    (0..total).map(|at| ((at * 31 + rank * 17) as f32).sin() * 10f32.powi((rank as i32 * 5 + at as i32) % 7)).collect()
}

#[test]
fn sums_are_added_in_the_order_of_ranks_and_shards_go_back_together() {
    for world in [1, 2, 4] {
        // Fewer values than ranks, none, and a count that does not divide.
        for total in [0, 2, 1003] {
            let got = group(world, TIMEOUT, move |mut tcp| {
                let shard = tcp.reduce_scatter(3, part(tcp.place().rank, total)).unwrap();
                assert_eq!(shard.len(), tcp.place().shard(total).len());
                tcp.all_gather(3, shard, total).unwrap()
            });
            let mut sum = part(0, total);
            for rank in 1..world {
                sum.iter_mut().zip(part(rank, total)).for_each(|(sum, value)| *sum += value);
            }
            assert!(got.iter().all(|all| *all == sum), "world {world}, {total} values");
        }
    }
}

#[test]
fn bytes_go_out_from_rank_0_and_come_in_by_rank() {
    let got = group(3, TIMEOUT, |mut tcp| {
        let rank = tcp.place().rank;
        let heard = tcp.broadcast(1, if rank == 0 { b"go".to_vec() } else { vec![] }).unwrap();
        (heard, tcp.gather(1, vec![rank as u8; rank]).unwrap())
    });
    assert!(got.iter().all(|(heard, _)| heard == b"go"));
    assert_eq!(got[0].1, [vec![], vec![1], vec![2, 2]]);
    assert!(got[1].1.is_empty() && got[2].1.is_empty());
}

#[test]
fn everybody_is_told_who_did_not_arrive() {
    let timeout = Duration::from_secs(2);
    let began = Instant::now();
    let errors = group(4, timeout, move |mut tcp| {
        if tcp.place().rank == 2 {
            // Alive, connected, and never there.
            thread::sleep(Duration::from_secs(8));
            return None;
        }
        Some((tcp.reduce_scatter(7, vec![1.0; 10]).unwrap_err(), began.elapsed()))
    });
    let named = CollectiveError::Missing { rank: 2, op: Op::ReduceScatter, step: 7, waited: timeout };
    for (rank, error) in errors.into_iter().enumerate().filter(|(rank, _)| *rank != 2) {
        let (error, after) = error.unwrap();
        assert!(error.to_string().contains("rank 2 did not arrive at reduce_scatter of step 7"), "rank {rank}: {error}");
        assert!(after < Duration::from_secs(7), "rank {rank} waited {after:?}");
        assert!(rank != 0 || error == named);
    }
}

#[test]
fn a_rank_that_dies_is_named_at_once_and_the_group_stays_dead() {
    let began = Instant::now();
    let errors = group(3, TIMEOUT, move |mut tcp| {
        if tcp.place().rank == 1 {
            return None;
        }
        let first = tcp.gather(2, vec![]).and_then(|_| tcp.broadcast(2, vec![])).unwrap_err().to_string();
        Some((first, tcp.gather(3, vec![]).unwrap_err().to_string()))
    });
    assert!(began.elapsed() < TIMEOUT / 2);
    for error in [&errors[0], &errors[2]] {
        let (first, second) = error.as_ref().unwrap();
        assert!(first.contains("rank 1 was lost at gather of step 2"), "{first}");
        assert!(second.contains("done for"), "{second}");
    }
}

#[test]
fn ranks_that_are_out_of_step_are_found_out() {
    let errors = group(2, TIMEOUT, |mut tcp| {
        let rank = tcp.place().rank;
        // Another operation, another step, another length.
        if rank == 0 { tcp.reduce_scatter(4, vec![0.0; 3]).unwrap_err() } else { tcp.reduce_scatter(5, vec![0.0; 3]).unwrap_err() }
            .to_string()
    });
    assert!(errors[0].contains("rank 1 is out of step at reduce_scatter of step 4: it is at reduce_scatter of step 5"), "{}", errors[0]);
    assert!(errors[1].contains("rank 1 is out of step"), "{}", errors[1]);
    let errors = group(2, TIMEOUT, |mut tcp| {
        let count = 3 + tcp.place().rank;
        tcp.reduce_scatter(1, vec![0.0; count]).unwrap_err().to_string()
    });
    assert!(errors[0].contains("it has 16 bytes for 3 values"), "{}", errors[0]);
}

#[test]
fn strangers_and_ranks_of_another_generation_are_turned_away() {
    let (hub, address) = hub();
    let place = |rank, generation| RankInfo { rank, world: 2, generation };
    let stranger = thread::spawn(move || {
        use std::io::{Read, Write};
        // One that says nothing at all, and stays.
        let silent = std::net::TcpStream::connect(address).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: somewhere else entirely\r\n\r\n").unwrap();
        let _ = stream.read(&mut [0; 64]);
        // An old rank, a rank that does not exist, and at last the right one.
        let mut old = Tcp::join(place(1, 1), address, TIMEOUT).unwrap();
        let told = old.broadcast(0, vec![]).unwrap_err().to_string();
        assert!(told.contains("another generation"), "{told}");
        let mut beyond = Tcp::join(place(5, 2), address, TIMEOUT).unwrap();
        let told = beyond.broadcast(0, vec![]).unwrap_err().to_string();
        assert!(told.contains("no rank 5 of 2"), "{told}");
        let welcome = Tcp::join(place(1, 2), address, TIMEOUT).unwrap().broadcast(0, vec![]).unwrap();
        drop(silent);
        welcome
    });
    let mut tcp = hub.meet(place(0, 2), TIMEOUT, TIMEOUT).unwrap();
    tcp.broadcast(0, b"welcome".to_vec()).unwrap();
    assert_eq!(stranger.join().unwrap(), b"welcome");
}

#[test]
fn who_does_not_come_is_named() {
    let (hub, address) = hub();
    let timeout = Duration::from_millis(200);
    let one = Tcp::join(RankInfo { rank: 1, world: 3, generation: 0 }, address, timeout);
    let error = hub.meet(RankInfo { rank: 0, world: 3, generation: 0 }, timeout, timeout).unwrap_err();
    assert_eq!(error, CollectiveError::Missing { rank: 2, op: Op::Join, step: 0, waited: timeout });
    drop(one);
}
