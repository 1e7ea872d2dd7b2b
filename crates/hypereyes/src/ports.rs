//! Free ports on this machine. In: the ports that are asked for. Out: loopback addresses that nobody listens at. It keeps none of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use hypereyes_chassis::{BadInput, Server};

/// One loopback address per port that is asked for: port 0 becomes a free one, another port is checked.
///
/// All are held until the last is found, so they differ. They are free at the moment of return, not for ever.
///
/// # Errors
/// [`BadInput`] for a wished port that is taken; an error when the machine has no free ports.
pub async fn resolve(asked: &[u16]) -> Result<Vec<SocketAddr>> {
    // Wished ports first, so that none of them is given away as a free one.
    for port in asked.iter().filter(|port| **port != 0) {
        Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).await.map_err(|error| BadInput::new(error.to_string()))?;
    }
    let mut held = Vec::new();
    let mut found = Vec::new();
    for &port in asked {
        if port != 0 {
            found.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            continue;
        }
        let address = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free loopback port; are thousands of sockets open?")?;
            let address = listener.local_addr().context("a bound socket has an address")?;
            held.push(listener);
            if !asked.contains(&address.port()) {
                break address;
            }
        };
        found.push(address);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn free_ports_differ_and_can_be_taken() {
        let found = resolve(&[0, 0, 0, 0]).await.expect("ports are free");
        let ports: std::collections::BTreeSet<u16> = found.iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), 4);
        let held: Vec<TcpListener> = found.iter().map(|address| TcpListener::bind(address).expect("free")).collect();
        assert_eq!(held.len(), 4);
    }

    #[tokio::test]
    async fn a_port_in_use_is_bad_input_and_says_which() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let error = resolve(&[0, port]).await.expect_err("taken");
        assert!(error.is::<BadInput>() && error.to_string().contains(&port.to_string()), "{error}");
    }
}
