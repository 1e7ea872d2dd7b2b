//! The teacher service over real connections: serving, swaps, kills, servers behind it, refusals.

mod kills;
mod real;
mod refusals;
mod servers;
mod serving;
mod support;
