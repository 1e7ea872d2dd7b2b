//! Where a process may connect to on somebody else's word.
//!
//! In: hosts, by name or by address, and what the settings name. Out: the addresses to connect to, or why not. Whoever names
//! a host may mean a machine inside our network that only we can reach, and a name may mean another address at every look:
//! therefore names are resolved here, what they mean is checked, and that address is the one to connect to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// Longest wait for what a name means.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where one may connect to: anywhere, or to public addresses and to what was named. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// None: anywhere.
    named: Option<Arc<[Named]>>,
}

impl Reach {
    /// Anywhere: for hosts that the process's own settings name.
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// Public addresses, and these besides: `host` or `host:port` by name (one `*` stands for a part without dots, or at the
    /// beginning for whatever is before), `10.0.0.7` or `10.0.0.7:80` by address, `10.0.0.0/8` for a network that names may
    /// lead into.
    ///
    /// # Errors
    /// A text that quotes the one that cannot be read.
    pub fn public_and<T: AsRef<str>>(named: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let named: Result<Vec<Named>, String> = named.into_iter().map(|named| named.as_ref().parse()).collect();
        Ok(Self { named: Some(named?.into()) })
    }

    /// The addresses of a host that may be connected to.
    ///
    /// # Errors
    /// When the name means nothing; [`io::ErrorKind::PermissionDenied`] when it, or one of its addresses, is private and was
    /// not named.
    pub async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("nobody says within {PATIENCE:?} what {host:?} means"));
        let found: Vec<SocketAddr> = timeout(PATIENCE, lookup_host((host, port))).await.map_err(late)??.collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host:?} has no address")));
        }
        self.admit(host, port, &found)?;
        Ok(found)
    }

    /// Whether all of a host's addresses may be connected to; of one that is an address itself, whether it may.
    ///
    /// # Errors
    /// As [`Reach::resolve`].
    pub fn admit(&self, host: &str, port: u16, found: &[SocketAddr]) -> io::Result<()> {
        let Some(named) = &self.named else { return Ok(()) };
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_lowercase();
        if named.iter().any(|named| named.is_host(&host, port)) {
            return Ok(());
        }
        let literal = host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
        let private = |address: &SocketAddr| !is_public(address.ip()) && !named.iter().any(|named| named.holds(*address));
        match found.iter().chain(&literal).find(|address| private(address)) {
            Some(_) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{host:?} leads to an address that is not public; only hosts that the settings name may (`hosts`)"),
            )),
            None => Ok(()),
        }
    }
}

/// One of what the settings name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    /// Begins, ends (where there is a `*` in between), and the port, if it matters.
    Host(String, Option<String>, Option<u16>),
    /// Address, bits that count, and the port, if it matters.
    Network(IpAddr, u32, Option<u16>),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?} is no host ({why}): write name, name:port, *.domain, address or network/bits");
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical(), bits(address.to_canonical()), None));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Network(address.ip().to_canonical(), bits(address.ip().to_canonical()), Some(address.port())));
        }
        if let Some((address, length)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| bad("no network"))?;
            let length: u32 = length.parse().map_err(|_| bad("no number of bits"))?;
            return if length <= bits(address) { Ok(Self::Network(address, length, None)) } else { Err(bad("too many bits")) };
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| bad("no port"))?)),
            None => (text, None),
        };
        let host = host.trim_end_matches('.').to_lowercase();
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
        if host.is_empty() || !host.chars().all(sound) {
            return Err(bad("a name has letters, digits, dots and dashes"));
        }
        match host.split_once('*') {
            None => Ok(Self::Host(host, None, port)),
            Some((_, end)) if end.contains('*') => Err(bad("one * is enough")),
            Some(("", "" | ".")) => Err(bad("that would be every host")),
            Some((begin, end)) => Ok(Self::Host(begin.to_owned(), Some(end.to_owned()), port)),
        }
    }
}

impl Named {
    fn is_host(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Host(begin, end, wanted) if wanted.is_none_or(|wanted| wanted == port) => match end {
                None => host == begin,
                Some(end) => host.strip_prefix(begin.as_str()).and_then(|rest| rest.strip_suffix(end.as_str())).is_some_and(|between| {
                    // Behind a fixed beginning, a dot would let anybody's domain in.
                    !between.is_empty() && (begin.is_empty() || !between.contains('.'))
                }),
            },
            _ => false,
        }
    }

    fn holds(&self, address: SocketAddr) -> bool {
        let Self::Network(network, length, port) = self else { return false };
        port.is_none_or(|port| port == address.port())
            && match (network, address.ip().to_canonical()) {
                (IpAddr::V4(network), IpAddr::V4(ip)) => (u32::from(*network) ^ u32::from(ip)).leading_zeros() >= *length,
                (IpAddr::V6(network), IpAddr::V6(ip)) => (u128::from(*network) ^ u128::from(ip)).leading_zeros() >= *length,
                _ => false,
            }
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether an address is one of the public internet (IANA's special-purpose registries of IPv4 and IPv6). An address of IPv4
/// that is written as one of IPv6 is judged as what it is.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(matches!(a, 0 | 10 | 127 | 224..)
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && (b == 168 || (b == 0 && (c == 0 || c == 2)) || (b == 88 && c == 99)))
        || (a == 198 && (matches!(b, 18 | 19) || (b == 51 && c == 100)))
        || (a == 203 && b == 0 && c == 113))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let inner = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match parts {
        // Translation to IPv4 (NAT64) and 6to4 carry an address of it.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        // Protocol assignments (Teredo among them) and documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // Global unicast; what is outside is local, multicast, or not assigned.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Vec<SocketAddr> {
        vec![SocketAddr::new(address.parse().expect("an address"), 80)]
    }

    #[test]
    fn private_addresses_are_known_however_they_are_written() {
        let private = "127.0.0.1 127.255.0.1 0.0.0.0 10.1.2.3 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 \
             192.0.2.1 198.18.0.1 203.0.113.7 224.0.0.1 255.255.255.255 :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 \
             ::ffff:169.254.169.254 ::127.0.0.1 fe80::1 fc00::1 fd12::1 ff02::1 2001:db8::1 2001::1 2002:7f00:1:: \
             2002:a9fe:a9fe:: 64:ff9b::7f00:1 64:ff9b:1::1 fec0::1 3fff::1 100::1";
        for private in private.split_whitespace() {
            assert!(!is_public(private.parse().expect(private)), "{private}");
        }
        for public in
            ["1.1.1.1", "100.63.0.1", "172.32.0.1", "192.0.1.1", "198.17.0.1", "::ffff:8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]
        {
            assert!(is_public(public.parse().expect(public)), "{public}");
        }
    }

    #[test]
    fn what_is_named_may_be_private_and_nothing_else() {
        let reach = Reach::public_and(["vllm.internal:8000", "teacher-*", "*.svc", "10.1.0.0/16", "127.0.0.1:30000"]).expect("sound");
        let may = |host: &str, port: u16, address: &str| {
            let found: Vec<SocketAddr> = at(address).into_iter().map(|found| SocketAddr::new(found.ip(), port)).collect();
            reach.admit(host, port, &found).is_ok()
        };
        assert!(may("vllm.internal", 8000, "192.168.0.9") && !may("vllm.internal", 8001, "192.168.0.9"));
        assert!(may("Teacher-Green.", 7002, "10.96.0.3") && !may("teacher-x.example.com", 7002, "192.168.0.3"));
        assert!(may("a.b.svc", 1, "192.168.0.3") && !may("svc", 1, "192.168.0.3"));
        assert!(may("anything.example.com", 1, "10.1.255.255") && !may("anything.example.com", 1, "10.2.0.1"));
        assert!(may("127.0.0.1", 30000, "127.0.0.1") && !may("127.0.0.1", 22, "127.0.0.1"));
        assert!(may("localhost", 30000, "127.0.0.1"), "the address was named, whatever leads there");
        assert!(may("example.com", 443, "93.184.216.34") && !may("example.com", 443, "::ffff:127.0.0.1"));
        // One private address among public ones is enough.
        let mixed = [at("93.184.216.34"), at("10.2.0.1")].concat();
        assert!(reach.admit("example.com", 80, &mixed).is_err());
        assert!(reach.admit("169.254.169.254", 80, &[]).is_err() && reach.admit("[::1]", 80, &[]).is_err());
        assert!(Reach::anywhere().admit("localhost", 1, &at("127.0.0.1")).is_ok());
        for bad in ["", "*", "*.", "a b", "a*b*", "10.0.0.0/33", "host:port", "http://x"] {
            let error = Reach::public_and([bad]).expect_err(bad);
            assert!(error.contains("is no host"), "{error}");
        }
    }

    #[tokio::test]
    async fn every_spelling_of_this_machine_is_resolved_before_it_is_judged() {
        let strict = Reach::public_and::<&str>([]).expect("nothing is named");
        for host in ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "0", "::1", "::ffff:127.0.0.1"] {
            match strict.resolve(host, 80).await {
                // Where a spelling means nothing on this system, nobody gets there either.
                Err(error) => assert!(error.kind() == io::ErrorKind::PermissionDenied || !host.contains("127.0.0.1"), "{host}: {error}"),
                Ok(found) => panic!("{host} leads to {found:?}"),
            }
        }
        let named = Reach::public_and(["localhost:80"]).expect("sound");
        assert!(!named.resolve("localhost", 80).await.expect("it was named").is_empty());
    }
}
